//! A leader and what it does about copies that come and copies that fail. Whole groups are the
//! simulator's.

use super::*;
use crate::group::message::NotAdded;
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
                | Output::Read { .. }
                | Output::ReadElsewhere { .. }
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

/// While one copy is included another one is sent the state, under the number of the view before.
#[test]
fn a_copy_that_has_heard_of_another_view_is_sent_the_state_at_once() {
    let mut leader = Leader::of(&[LEADER]);
    leader.hello(COMER, None);
    let states = |leader: &Leader| {
        let sent = leader.out.iter();
        let state = |it: &&Output| {
            matches!(
                it,
                Output::Send {
                    to: COMER,
                    message: Message::Snapshot { .. }
                }
            )
        };
        sent.filter(state).count()
    };
    let before = states(&leader);
    leader.hello(COMER, None);
    assert_eq!(states(&leader), before, "it is on its way");
    leader.hello(NodeId(7), Some(Stamp::default()));
    leader.appended(NodeId(7));
    assert_eq!(leader.binder.members, [LEADER, NodeId(7)]);
    let before = states(&leader);
    leader.hello(COMER, None);
    assert_eq!(states(&leader), before + 1, "{:?}", leader.out);
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

/// A copy that follows and has the leader's log, with one entry that it does not know to be
/// complete.
struct Follower {
    member: Member,
    now: Time,
}

impl Follower {
    fn new() -> Self {
        let view = View::first(vec![LEADER, MEMBER]);
        let member = Member::new(MEMBER, view.clone(), Log::default(), 1_000, Time(0));
        let now = Time(1);
        let mut follower = Self { member, now };
        follower.input(Input::View(view.clone()));
        follower.hears(Message::Adopt {
            view,
            previous: Stamp::default(),
            entries: vec![Stamp { view: 1, index: 1 }],
            complete: 0,
            asked: now,
        });
        follower.input(Input::Written { job: 1 });
        follower
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.now = now_plus(self.now, 1);
        let mut out = Vec::new();
        self.member.handle(self.now, input, &mut out);
        out
    }

    fn hears(&mut self, message: Message) -> Vec<Output> {
        let from = LEADER;
        self.input(Input::Message { from, message })
    }

    fn read(&mut self, read: u64) -> Vec<Output> {
        self.input(Input::Read { read })
    }

    fn read_at(&mut self, asked: Time, index: Option<u64>) -> Vec<Output> {
        let number = 1;
        self.hears(Message::ReadAt {
            number,
            asked,
            index,
        })
    }
}

fn sent_to(node: NodeId, out: &[Output]) -> impl Iterator<Item = &Message> {
    out.iter().filter_map(move |output| {
        let Output::Send { to, message } = output else {
            return None;
        };
        (*to == node).then_some(message)
    })
}

/// The time that a question is known by which is asked now, if one is.
fn asked(out: &[Output]) -> Option<Time> {
    let sent = sent_to(LEADER, out);
    let asked = sent.map(|message| {
        let Message::Read { asked, .. } = message else {
            panic!("{message:?}")
        };
        *asked
    });
    asked.last()
}

/// Reads that are let in, and those that are sent on.
fn ended(out: &[Output]) -> (Vec<u64>, Vec<u64>) {
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    for output in out {
        if let Output::Read { read, .. } = output {
            here.push(*read);
        }
        if let Output::ReadElsewhere { read } = output {
            elsewhere.push(*read);
        }
    }
    (here, elsewhere)
}

#[test]
fn one_question_is_for_all_reads_that_came_before_it() {
    let mut follower = Follower::new();
    let first = asked(&follower.read(1)).expect("the leader is asked");
    assert_eq!(asked(&follower.read(2)), None, "one at a time");
    assert_eq!(asked(&follower.read(3)), None);
    let out = follower.read_at(first, Some(0));
    assert_eq!(ended(&out), (vec![1], vec![]), "the others came later");
    let second = asked(&out).expect("it is asked for the others");
    // The first answer again says nothing of them.
    assert_eq!(
        ended(&follower.read_at(first, Some(0))).0,
        Vec::<u64>::new()
    );
    // That entries are complete is news: they are installed, and then they are shown.
    let out = follower.read_at(second, Some(1));
    assert_eq!(ended(&out), (vec![], vec![]));
    let write = Write::Install { index: 1 };
    assert!(out.contains(&Output::Write { job: 2, write }), "{out:?}");
    let out = follower.input(Input::Written { job: 2 });
    assert_eq!(ended(&out), (vec![2, 3], vec![]));
}

#[test]
fn reads_that_the_leader_does_not_vouch_for_go_there() {
    let mut follower = Follower::new();
    let first = asked(&follower.read(1)).expect("the leader is asked");
    follower.read(2);
    let out = follower.read_at(first, None);
    assert_eq!(ended(&out), (vec![], vec![1]), "it says so");
    assert!(asked(&out).is_some());
    follower.read(3);
    let mut out = Vec::new();
    follower.now = now_plus(follower.now, READ_NS);
    follower.member.handle_timeout(follower.now, &mut out);
    assert_eq!(ended(&out), (vec![], vec![2, 3]), "it is silent");
    // What it has said, and this copy does not get.
    let asked = asked(&follower.read(4)).expect("the leader is asked");
    assert_eq!(ended(&follower.read_at(asked, Some(9))), (vec![], vec![]));
    let number = 2;
    let members = vec![MEMBER, LEADER];
    let out = follower.input(Input::View(View { number, members }));
    assert_eq!(ended(&out), (vec![], vec![4]), "another view");
    assert_eq!(ended(&follower.read(5)), (vec![], vec![5]), "none follows");
}

#[test]
fn a_leader_vouches_for_nothing_while_something_is_prepared() {
    let mut leader = Leader::of(&[LEADER, MEMBER]);
    let ask = |leader: &mut Leader| {
        leader.out.clear();
        let (from, asked) = (MEMBER, Time(77));
        let number = leader.member.view().number;
        let message = Message::Read { number, asked };
        leader.input(Input::Message { from, message });
        let sent = sent_to(MEMBER, &leader.out);
        let answers = sent.map(|message| {
            let Message::ReadAt { index, .. } = message else {
                panic!("{message:?}")
            };
            *index
        });
        answers.last()
    };
    assert_eq!(ask(&mut leader), Some(None), "it does not serve yet");
    leader.input(Input::Open);
    assert_eq!(ask(&mut leader), Some(Some(0)));
    leader.input(Input::Shut);
    assert_eq!(ask(&mut leader), Some(None));
    // What ends it is in the log, and not complete.
    leader.input(Input::Add { entry: 1 });
    leader.input(Input::Open);
    assert_eq!(
        (leader.member.complete(), ask(&mut leader)),
        (0, Some(Some(1)))
    );
}

#[test]
fn nothing_is_added_from_the_wish_for_another_policy_until_the_view_is_another_one() {
    let not_added = |out: &[Output]| {
        let mut all = out.iter();
        all.any(|it| matches!(it, Output::NotAdded { why, .. } if *why == NotAdded::Overloaded))
    };
    let policy = Policy::Cohort;
    let mut leader = Leader::of(&[LEADER, MEMBER]);
    let expected = leader.binder.number;
    leader.input(Input::Add { entry: 1 });
    // The member has not got it: the binder is not asked yet.
    leader.input(Input::Policy { policy });
    assert_eq!(leader.binder.number, expected);
    leader.input(Input::Add { entry: 2 });
    assert!(not_added(&leader.out), "{:?}", leader.out);
    leader.out.clear();
    leader.appended(MEMBER);
    let asked = Output::Change(Change {
        expected,
        by: LEADER,
        wish: Wish::Policy(policy),
    });
    assert!(leader.out.contains(&asked), "{:?}", leader.out);
    assert_eq!(leader.binder.number, expected + 1);
    assert_eq!(leader.member.role(), Role::Leading { active: true });
    leader.input(Input::Add { entry: 3 });
    assert!(!not_added(&leader.out), "{:?}", leader.out);
    leader.appended(MEMBER);
    // Once is enough.
    leader.pass(10 * ASK_AGAIN_NS);
    assert_eq!(leader.binder.number, expected + 1);
}

#[test]
fn who_leads_no_more_wants_no_other_policy() {
    let policy = Policy::Cohort;
    let mut leader = Leader::of(&[LEADER, MEMBER]);
    leader.out.clear();
    leader.input(Input::Add { entry: 1 });
    leader.input(Input::Policy { policy });
    let lead = Change {
        expected: leader.binder.number,
        by: MEMBER,
        wish: Wish::Lead,
    };
    leader.binder = leader.binder.change(&lead).unwrap();
    leader.input(Input::View(leader.binder.clone()));
    assert_eq!(leader.member.role(), Role::Outside);
    leader.input(Input::Policy { policy });
    leader.pass(10 * ASK_AGAIN_NS);
    let asks = |it: &Output| matches!(it, Output::Change(_));
    assert!(!leader.out.iter().any(asks), "{:?}", leader.out);
}
