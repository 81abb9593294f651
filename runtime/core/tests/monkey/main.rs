//! Anything a peer, an operator or a disk can do, in any order, on few objects: invariants hold
//! after each input, tickets are answered at most once and forgotten once, at last nothing is left.
//!
//! The simulator tells whether answers are right; this tells that no order of inputs breaks the
//! engine, also those that no sane shell would make.

mod actions;
mod moves;

use std::collections::{BTreeMap, BTreeSet};

use partha_core::action::message::{Message, Verdict};
use partha_core::action::path::Site;
use partha_core::engine::ActionPhase;
use partha_core::id::{CallId, Epoch, Incarnation, NodeId, Peer, Uid};
use partha_core::migrate::{Cargo, Checkpoint};
use partha_core::time::Time;
use partha_core::{
    Ended, Engine, Fault, Identity, Input, Invoke, Job, Limits, Loaded, Mode, Outbox, Output,
    Stats, Ticket, invariants,
};

/// Runs, unless `PARTHA_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 300;
/// Inputs of a run, besides those that end it.
const INPUTS: u64 = 300;

const ME: Identity = Identity {
    me: Peer {
        node: NodeId(0),
        incarnation: Incarnation(1),
    },
    shard: 0,
    seed: 0,
};

struct Monkey {
    seed: u64,
    now: u64,
    engine: Engine,
    /// Outputs that wait for their answer.
    pending: Vec<Output>,
    /// Tickets not forgotten, and whether they were answered.
    tickets: BTreeMap<Ticket, bool>,
    next_ticket: u64,
    drained: u32,
    /// The before-images that a shell would keep: object and action.
    images: BTreeSet<(Uid, Uid)>,
    /// Calls that make an object, and run.
    creates: BTreeSet<Ticket>,
    /// Calls whose servants are to be stopped.
    killed: BTreeSet<Ticket>,
    next_move: u64,
    /// What was said to come last by each move, and what was taken in.
    cargos: BTreeMap<Uid, (Uid, Cargo)>,
    unloaded: BTreeMap<Uid, (Uid, Cargo)>,
    /// The latest checkpoint of [`COHORT`].
    kept: Option<Checkpoint>,
    /// Everything goes well from now on.
    ends: bool,
}

/// A replicated object whose next leader takes over what actions have of it.
const COHORT: Uid = Uid {
    node: NodeId(0),
    local: 11,
};

/// Top-level actions, each with two nested ones.
const ROOTS: u64 = 4;

impl Monkey {
    fn new(seed: u64) -> Self {
        let mut monkey = Self {
            seed,
            now: 0,
            engine: Engine::new(Limits::default(), ME),
            pending: Vec::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            drained: 0,
            images: BTreeSet::new(),
            creates: BTreeSet::new(),
            killed: BTreeSet::new(),
            next_move: 0,
            cargos: BTreeMap::new(),
            unloaded: BTreeMap::new(),
            kept: None,
            ends: false,
        };
        let limits = Limits {
            object_queue_max: monkey.pick(&[1, 4, 1_000]),
            calls_max: monkey.pick(&[5, 1_000]),
            caller_calls_max: monkey.pick(&[3, 1_000]),
            peers_max: monkey.pick(&[1, 2, 10]),
            idle_ns: monkey.pick(&[10, 1_000_000]),
            active_bytes_max: monkey.pick(&[0, 150, 1_000_000]),
            active_objects_max: monkey.pick(&[1, 2, 10]),
            volatile_objects_max: monkey.pick(&[1, 10]),
            uses_max: monkey.pick(&[1, 10]),
            lock_wait_ns: monkey.pick(&[30, 1_000]),
            actions_max: monkey.pick(&[1, 3, 10]),
            levels_max: monkey.pick(&[2, 10]),
            action_objects_max: monkey.pick(&[1, 10]),
            action_writes_max: monkey.pick(&[2, 10]),
            participants_max: monkey.pick(&[1, 10]),
            groups_max: monkey.pick(&[1, 10]),
            tombstones_max: monkey.pick(&[1, 3, 10]),
            moves_max: monkey.pick(&[1, 2, 10]),
            // Whoever asks for moves heeds it.
            move_cooldown_ns: 0,
            cargo_levels_max: monkey.pick(&[2, 10]),
            move_hold_ns: monkey.pick(&[10, 50]),
            vote_wait_ns: 100,
            resend_ns: 20,
        };
        monkey.engine = Engine::new(limits, ME);
        monkey
    }

    fn below(&mut self, n: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_041);
        let mixed = (self.seed ^ (self.seed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (mixed >> 32) % n
    }

    fn pick<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize]
    }

    /// Objects 1 to 3 are persistent, 4 and 5 volatile, whatever a caller takes them for.
    fn uid(&mut self) -> Uid {
        let local = 1 + self.below(5);
        Uid {
            node: NodeId(0),
            local,
        }
    }

    fn peer(&mut self) -> Peer {
        let (node, life) = (self.below(3), self.below(3));
        Peer {
            node: NodeId(node),
            incarnation: Incarnation(life as u32),
        }
    }

    fn fault(&mut self) -> Fault {
        self.pick(&[Fault::Fenced, Fault::Full, Fault::Exists, Fault::Store])
    }

    fn invoke(&mut self, uid: Uid, mode: Mode) -> Invoke {
        let caller = self.peer();
        let sequence = self.below(3);
        self.next_ticket += 1;
        self.tickets.insert(Ticket(self.next_ticket), false);
        Invoke {
            ticket: Ticket(self.next_ticket),
            uid,
            caller,
            call: (self.below(4) > 0).then_some(CallId { caller, sequence }),
            mode,
            save: self.below(2) == 0,
            volatile: uid != COHORT && (uid.local > 3) != (self.below(8) == 0),
            cohort: uid == COHORT,
            deadline: if self.below(3) == 0 {
                Time::NEVER
            } else {
                Time(self.now + self.below(60))
            },
            action: (self.below(3) > 0).then(|| self.membership()),
        }
    }

    fn input(&mut self) -> Input {
        let uid = self.uid();
        let caller = self.peer();
        match self.below(36) {
            20..=27 => self.action_input(),
            28..=31 => self.move_input(),
            32..=35 => self.group_input(),
            0..=7 => {
                let mode = self.pick(&[Mode::Read, Mode::Upgrade, Mode::Write, Mode::Write]);
                let uid = if self.below(4) == 0 { COHORT } else { uid };
                Input::Invoke(self.invoke(uid, mode))
            }
            8..=9 => {
                // The shell chooses the uid of a new object, so it is never a volatile one's.
                let local = uid.local % 3 + 1;
                let uid = Uid { local, ..uid };
                let invoke = self.invoke(uid, Mode::Write);
                Input::Create(Invoke {
                    volatile: false,
                    ..invoke
                })
            }
            10..=12 => Input::Cancel {
                ticket: Ticket(1 + self.below(self.next_ticket + 1)),
            },
            13 => Input::Bind { uid, caller },
            14 => Input::Unbind { uid, caller },
            15 => Input::PeerGone { caller },
            16 => Input::Evict { uid },
            17 => Input::Searched {
                ticket: Ticket(self.next_ticket + 1),
                found: true,
            },
            18 if uid.local > 3 => Input::Serve { uid },
            _ => Input::Retire { uid },
        }
    }

    fn checkpointed(&mut self, job: Job) -> Input {
        let result = match self.below(6) {
            0 if !self.ends => Err(self.fault()),
            _ => Ok(()),
        };
        Input::Checkpointed { job, result }
    }

    fn result(&mut self) -> Result<(), Fault> {
        match self.below(4) {
            0 => Err(self.fault()),
            _ => Ok(()),
        }
    }

    fn answer(&mut self, output: Output) -> Input {
        match output {
            Output::Search { ticket, .. } => {
                let found = self.below(4) == 0;
                Input::Searched { ticket, found }
            }
            Output::Load { uid, .. } => {
                let found = Loaded::Found {
                    epoch: Epoch(1),
                    size_bytes: self.below(200),
                    replicated: self.below(3) == 0 || uid == COHORT,
                };
                let failed = Loaded::Failed(self.fault());
                let persistent = [found, found, found, Loaded::Absent, Loaded::Moved, failed];
                let absent = [Loaded::Absent, failed];
                let outcome = if uid == COHORT {
                    found
                } else if uid.local > 3 {
                    self.pick(&absent)
                } else {
                    self.pick(&persistent)
                };
                Input::Loaded { uid, outcome }
            }
            Output::Dispatch { ticket, .. } => {
                let stopped = self.killed.remove(&ticket) && self.below(4) > 0;
                let ended =
                    self.pick(&[Ended::Normal, Ended::Normal, Ended::Raised, Ended::Failed]);
                let ended = if stopped { Ended::Killed } else { ended };
                Input::Returned {
                    ticket,
                    ended,
                    size_bytes: self.below(200),
                }
            }
            Output::Checkpoint { job, .. } => self.checkpointed(job),
            Output::Flush { ticket, .. } => {
                let result = self.result();
                Input::Flushed { ticket, result }
            }
            Output::Store { job, .. } => {
                let result = self.result();
                Input::Stored { job, result }
            }
            Output::SearchDecision { job, .. } => {
                let found = self.pick(&[Some(true), Some(false), Some(false), None]);
                Input::DecisionFound { job, found }
            }
            Output::EndPart { object, action, .. } => {
                let result = self.result();
                Input::PartEnded {
                    object,
                    action,
                    result,
                }
            }
            other => self.answer_move(other),
        }
    }

    pub(crate) fn handle(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.engine.handle(Time(self.now), input, &mut out);
        self.take(out);
        if self
            .engine
            .next_timeout()
            .is_some_and(|due| due.0 <= self.now)
        {
            let mut out = Outbox::new();
            self.engine.handle_timeout(Time(self.now), &mut out);
            self.take(out);
        }
    }

    fn take(&mut self, mut out: Outbox) {
        invariants::check(&self.engine);
        for output in out.drain() {
            // Whoever brings an object is answered, whenever it asks.
            let answers = matches!(output, Output::Unloaded { .. });
            assert!(
                self.drained == 0 || answers,
                "{output:?} comes after the end"
            );
            self.note_image(&output);
            match output {
                Output::Checkpoint {
                    ref checkpoint,
                    object,
                    ..
                } => {
                    assert_eq!(object, COHORT, "it is of no such policy");
                    assert_eq!(checkpoint.check(), Ok(()));
                    self.kept = Some((**checkpoint).clone());
                    self.pending.push(output);
                }
                Output::Resume { object, slot } => self.resume(object, slot.is_some()),
                Output::Search { .. }
                | Output::Load { .. }
                | Output::Dispatch { .. }
                | Output::Flush { .. }
                | Output::Store { .. }
                | Output::SearchDecision { .. }
                | Output::EndPart { .. } => self.pending.push(output),
                Output::Reply { ticket, .. } => {
                    let before = self.tickets.insert(ticket, true);
                    assert_eq!(
                        before,
                        Some(false),
                        "{ticket:?} is answered twice or unknown"
                    );
                }
                Output::Forget { ticket }
                | Output::Ended { ticket, .. }
                | Output::Told { ticket, .. } => {
                    assert!(
                        self.tickets.remove(&ticket).is_some(),
                        "{ticket:?} is forgotten twice"
                    );
                }
                Output::Kill { ticket } => {
                    assert!(self.killed.insert(ticket), "{ticket:?} is killed twice");
                }
                Output::Drained => self.drained += 1,
                Output::Watch { .. }
                | Output::GoOut { .. }
                | Output::Again { .. }
                | Output::Discard { .. }
                | Output::Passivate { .. }
                | Output::Event(_)
                | Output::Capture { .. }
                | Output::Undo { .. }
                | Output::Keep { .. }
                | Output::Restore { .. }
                | Output::Inherit { .. }
                | Output::Release { .. }
                | Output::Send { .. } => {}
                about_a_move => self.take_move(about_a_move),
            }
        }
    }

    /// What was kept goes on, with its images or without.
    fn resume(&mut self, object: Uid, images: bool) {
        let kept = self.kept.as_ref().expect("it was recovered");
        assert!(!images || kept.cargo.has_images());
        let levels = kept.cargo.levels().filter(|level| level.image.is_some());
        let levels = levels.filter(|_| images);
        self.images.extend(levels.map(|level| (object, level.uid)));
    }

    /// Does with before-images what a shell would.
    fn note_image(&mut self, output: &Output) {
        match output {
            Output::Capture { uid, action } => {
                let new = self.images.insert((*uid, *action));
                assert!(new, "{output:?} is the second");
            }
            Output::Restore { uid, action } | Output::Release { uid, action } => {
                let had = self.images.remove(&(*uid, *action));
                assert!(had, "{output:?} without an image");
            }
            Output::Inherit {
                uid,
                child,
                parent,
                keep,
            } => {
                let had = self.images.remove(&(*uid, *child));
                assert!(had, "{output:?} without an image");
                let new = self.images.insert((*uid, *parent));
                assert!(new == *keep, "{output:?} with another one");
            }
            Output::Dispatch {
                ticket, new: true, ..
            } => {
                self.creates.insert(*ticket);
            }
            Output::Undo { ticket, uid } if self.creates.contains(ticket) => {
                self.images.retain(|(object, _)| object != uid);
            }
            Output::Forget { ticket } => {
                self.creates.remove(ticket);
            }
            Output::Passivate { uid } => {
                let left = self.images.iter().find(|(object, _)| object == uid);
                assert_eq!(left, None, "{output:?}");
            }
            _ => {}
        }
    }

    fn answer_one(&mut self) {
        let at = self.below(self.pending.len() as u64) as usize;
        let output = self.pending.swap_remove(at);
        let input = self.answer(output);
        self.handle(input);
    }

    fn answer_all(&mut self) {
        while !self.pending.is_empty() {
            self.answer_one();
        }
    }

    /// Ends an action at each object that may have a part of it.
    fn end_parts(&mut self, action: Uid, verdict: Verdict) {
        let site = self.site();
        for local in [1, 2, 3, COHORT.local] {
            let node = NodeId(0);
            let part = Some(Uid { node, local });
            let message = Message::Verdict {
                action,
                verdict,
                part,
            };
            self.handle(Self::hear(site, message));
        }
    }

    fn end_part(&mut self, action: Uid) {
        let part = Some(COHORT);
        let site = self.site();
        self.handle(Self::hear(site, Message::Abort { action, part }));
    }

    /// Ends every action in the ways that must end it.
    fn end_actions(&mut self) {
        for _ in 0..8 {
            self.answer_all();
            let views: Vec<_> = self.engine.actions().collect();
            for view in views {
                let action = view.path.root().expect("an action has a name");
                let coordinator = view.coordinator;
                let message = match view.phase {
                    ActionPhase::Active | ActionPhase::Aborting => {
                        self.end_part(action);
                        let part = None;
                        Message::Abort { action, part }
                    }
                    ActionPhase::Preparing | ActionPhase::Prepared | ActionPhase::Installing => {
                        let verdict = self.pick(&[Verdict::Committed, Verdict::Aborted]);
                        self.end_parts(action, verdict);
                        Message::Verdict {
                            action,
                            verdict,
                            part: None,
                        }
                    }
                    ActionPhase::Voting | ActionPhase::Deciding => {
                        self.end_part(action);
                        let part = None;
                        Message::Abort { action, part }
                    }
                    ActionPhase::Committing => {
                        for node in 0..4 {
                            for shard in [0, 1, u16::MAX] {
                                let node = NodeId(node);
                                let site = Site { node, shard };
                                let told = Message::Acknowledge {
                                    action,
                                    site: true,
                                    groups: (1..12)
                                        .map(|local| Uid {
                                            node: NodeId(0),
                                            local,
                                        })
                                        .collect(),
                                    decider: None,
                                };
                                let input = Self::hear(site, told);
                                self.handle(input);
                            }
                        }
                        continue;
                    }
                };
                let site = coordinator.unwrap_or(Site {
                    node: NodeId(1),
                    shard: u16::MAX,
                });
                self.handle(Self::hear(site, message));
            }
        }
        self.answer_all();
        let drained = self.drained > 0;
        for view in self.engine.actions() {
            let on_disk =
                view.phase == ActionPhase::Prepared || view.phase == ActionPhase::Committing;
            assert!(drained && on_disk, "{view:?} does not end");
        }
        assert!(drained || self.engine.locks().count() == 0);
    }

    fn run(&mut self) {
        for _ in 0..INPUTS {
            self.now += self.below(20);
            if !self.pending.is_empty() && self.below(2) == 0 {
                self.answer_one();
                continue;
            }
            let input = self.input();
            self.handle(input);
        }
        self.ends = true;
        if self.below(2) == 0 {
            self.handle(Input::Drain);
            self.end_actions();
        } else {
            self.end_actions();
            self.handle(Input::Drain);
        }
        self.answer_all();
        if self.drained == 0 {
            // A checkpoint that could not be added is tried again.
            self.now += 2 * Limits::default().resend_ns;
            self.handle(Input::Evict { uid: COHORT });
            self.answer_all();
        }
        assert_eq!(self.drained, 1, "all is answered: the drain is over");
        self.drained = 0;
        for local in 0..6 {
            let node = NodeId(0);
            let uid = Uid { node, local };
            self.handle(Input::Retire { uid });
        }
        for (node, life) in (0..9).map(|n| (n / 3, n % 3)) {
            let (node, incarnation) = (NodeId(node.into()), Incarnation(life));
            let caller = Peer { node, incarnation };
            self.handle(Input::PeerGone { caller });
        }
        assert!(self.tickets.is_empty(), "not forgotten: {:?}", self.tickets);
        assert_eq!(self.images, BTreeSet::new());
        assert_eq!(self.unloaded, BTreeMap::new());
        let left = Stats {
            callers_remembered: 0,
            tombstones: 0,
            // What is prepared or told may stay over a drain: it is on disk.
            actions: 0,
            commits: 0,
            locks: 0,
            ..self.engine.stats()
        };
        assert_eq!(left, Stats::default());
    }
}

#[test]
fn no_order_of_inputs_breaks_the_engine() {
    let asked = std::env::var("PARTHA_SIM_SEEDS");
    let seeds = asked.map_or(SEEDS, |text| text.parse().expect("a number of seeds"));
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| Monkey::new(seed).run());
        assert!(run.is_ok(), "seed {seed} fails");
    }
}
