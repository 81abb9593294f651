//! A leader and what it does about copies that come and copies that fail. Whole groups are the
//! simulator's.

use super::*;
use crate::group::view::ChangeRefused;

const LEADER: NodeId = NodeId(1);
const MEMBER: NodeId = NodeId(2);
const COMER: NodeId = NodeId(3);

/// A leader alone, but for whoever is told of, and what it has asked for.
struct Leader {
    member: Member,
    now: Time,
    binder: View,
    out: Vec<Output>,
}

impl Leader {
    /// It leads these members, whose logs are the leader's.
    fn of(members: &[NodeId]) -> Self {
        let binder = View::first(members.to_vec());
        let member = Member::new(LEADER, binder.clone(), Log::default(), 1_000, Time(0));
        let now = Time(1);
        let mut leader = Self {
            member,
            now,
            binder: binder.clone(),
            out: Vec::new(),
        };
        leader.input(Input::View(binder));
        for other in &members[1..] {
            leader.appended(*other);
        }
        assert_eq!(leader.member.role(), Role::Leading { active: true });
        leader
    }

    /// Takes something in; the disk is quick, and the binder answers at once.
    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.member.handle(self.now, input, &mut out);
        self.take(out);
    }

    fn pass(&mut self, nanos: u64) {
        self.now = now_plus(self.now, nanos);
        let mut out = Vec::new();
        self.member.handle_timeout(self.now, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            self.out.push(output.clone());
            match output {
                Output::Write { job, .. } => self.input(Input::Written { job }),
                Output::Change(change) => {
                    let changed: Result<View, ChangeRefused> = self.binder.change(&change);
                    self.binder = changed.expect("the leader asks for what is right");
                    self.input(Input::View(self.binder.clone()));
                }
                Output::AskView
                | Output::Send { .. }
                | Output::Added { .. }
                | Output::NotAdded { .. }
                | Output::Complete { .. }
                | Output::Leads { .. }
                | Output::Confirmed
                | Output::Deposed => {}
            }
        }
    }

    fn appended(&mut self, from: NodeId) {
        let message = Message::Appended {
            number: self.member.view().number,
            last: self.member.log().last(),
            asked: self.now,
        };
        self.input(Input::Message { from, message });
    }

    fn hello(&mut self, from: NodeId, installed: Option<Stamp>) {
        let message = Message::Hello {
            number: self.member.view().number,
            installed,
            last: installed.unwrap_or_default(),
        };
        self.input(Input::Message { from, message });
    }

    fn installed(&self) -> u64 {
        self.member.log().installed().index
    }
}

#[test]
fn nothing_is_installed_while_a_copy_without_a_state_waits_for_one() {
    let mut leader = Leader::of(&[LEADER]);
    leader.input(Input::Add { entry: 1 });
    assert_eq!(leader.installed(), 1);
    leader.hello(COMER, None);
    let at = Stamp { view: 2, index: 1 };
    let sent = leader.out.iter().any(|output| {
        matches!(output, Output::Send { to: COMER, message: Message::Snapshot { at: it, .. } }
            if *it == at)
    });
    assert!(sent, "{:?}", leader.out);
    leader.input(Input::Add { entry: 2 });
    // The entry is complete, and not a part of the state that is being read.
    assert_eq!((leader.member.complete(), leader.installed()), (2, 1));
    // It is not waited for without end.
    leader.pass(JOIN_NS + 1);
    assert_eq!(leader.installed(), 2);
}

#[test]
fn a_copy_that_has_everything_is_included() {
    let mut leader = Leader::of(&[LEADER]);
    leader.hello(COMER, None);
    leader.hello(COMER, Some(Stamp::default()));
    leader.appended(COMER);
    assert_eq!(leader.binder.members, [LEADER, COMER]);
}

#[test]
fn a_member_that_lives_and_acknowledges_nothing_is_excluded() {
    let mut leader = Leader::of(&[LEADER, MEMBER]);
    leader.input(Input::Add { entry: 1 });
    for _ in 0..9 {
        leader.pass(1_000_000_000);
        // It says that it is there, as one does whose disk is full.
        leader.hello(MEMBER, Some(Stamp::default()));
        assert_eq!(leader.binder.members, [LEADER, MEMBER]);
    }
    assert_eq!(leader.member.complete(), 0);
    leader.pass(3_000_000_000);
    assert_eq!(leader.binder.members, [LEADER]);
    assert_eq!(leader.member.complete(), 1);
}

#[test]
fn a_member_whose_disk_is_lost_is_excluded() {
    let mut leader = Leader::of(&[LEADER, MEMBER]);
    leader.hello(MEMBER, None);
    assert_eq!(leader.binder.members, [LEADER]);
}
