//! Something about actions: what a node hears of them, and is asked.

use partha_core::Input;
use partha_core::Ticket;
use partha_core::action::message::{From, Message, Verdict, Vote};
use partha_core::action::path::{
    Address, Coordinator, Joined, Membership, Participant, Path, Site,
};
use partha_core::id::{Incarnation, NodeId, Peer, Uid};
use partha_core::time::Time;

use super::{COHORT, Monkey, ROOTS};

impl Monkey {
    pub(crate) fn root(&mut self) -> Uid {
        Uid::new(NodeId(1), Incarnation(1), self.below(ROOTS))
    }

    /// One of the actions nested in a root, or in one of these.
    pub(crate) fn nested(&mut self, root: Uid) -> Uid {
        let counter = root.counter() * 10 + 10 + self.below(3);
        Uid::new(NodeId(1), Incarnation(1), counter)
    }

    pub(crate) fn membership(&mut self) -> Box<Membership> {
        let root = self.root();
        let mut path = Path::top(root);
        if self.below(6) == 0 {
            let other = self.root();
            path = path.top_level(other);
        }
        if self.below(8) == 0 {
            path = path.outside();
        } else {
            for _ in 0..self.below(3) {
                let child = self.nested(root);
                path = path.nested(child);
            }
        }
        let uid = self.uid();
        Box::new(Membership {
            path,
            until: Time(self.now + self.below(400)),
            home: NodeId(1),
            born_ms: 0,
            stack: if self.below(4) == 0 {
                vec![uid]
            } else {
                Vec::new()
            },
            carried: self.below(4) == 0,
        })
    }

    pub(crate) fn site(&mut self) -> Site {
        Site {
            node: NodeId(self.below(4)),
            shard: self.pick(&[0, 0, 1, u16::MAX]),
        }
    }

    /// A number that a mirror may well have.
    pub(crate) fn join(&mut self) -> u64 {
        1 << Uid::COUNTER_BITS | (1 + self.below(12))
    }

    pub(crate) fn aborted(&mut self, root: Uid) -> Vec<Uid> {
        (0..self.below(3)).map(|_| self.nested(root)).collect()
    }

    pub(crate) fn participants(&mut self) -> Vec<Participant> {
        let count = self.below(3);
        let mut participants = Vec::new();
        for _ in 0..count {
            let joined = Joined {
                join: self.join(),
                updated: true,
                decider: None,
                part: false,
            };
            participants.push(Participant {
                site: self.site(),
                incarnation: Incarnation(1),
                joined,
            });
        }
        participants
    }

    /// Mostly none, else one of the objects.
    pub(crate) fn decider(&mut self) -> Option<Uid> {
        let local = self.pick(&[1, 2, 3, 4, COHORT.local]);
        let node = NodeId(0);
        (self.below(4) == 0).then_some(Uid { node, local })
    }

    pub(crate) fn message(&mut self) -> Message {
        let root = match self.below(6) {
            0 => self.coming(),
            _ => self.root(),
        };
        let nested = self.nested(root);
        let either = self.pick(&[root, nested]);
        match self.below(12) {
            0..=2 => Message::Prepare {
                action: root,
                incarnation: Incarnation(1),
                join: self.join(),
                aborted: self.aborted(root),
                decider: self.decider(),
                part: self.decider(),
            },
            3..=4 => Message::Vote {
                action: root,
                vote: self.pick(&[Vote::Yes, Vote::Yes, Vote::ReadOnly, Vote::No]),
                moved: self.participants(),
                groups: Vec::from_iter(self.decider()),
                decider: self.decider(),
                part: self.decider(),
            },
            5 => Message::Commit {
                action: root,
                part: self.decider(),
            },
            6 => Message::Acknowledge {
                action: root,
                site: self.below(4) > 0,
                groups: Vec::from_iter(self.decider()),
                decider: None,
            },
            7 => Message::Abort {
                action: either,
                part: self.decider(),
            },
            8..=9 => {
                let other = self.nested(root);
                let parent = self.pick(&[root, other]);
                Message::Merge {
                    action: nested,
                    parent,
                    part: self.decider(),
                }
            }
            10 => Message::Query {
                action: root,
                decider: self.decider(),
                part: self.decider(),
            },
            _ => Message::Verdict {
                action: root,
                verdict: self.pick(&[Verdict::Committed, Verdict::Aborted, Verdict::InFlight]),
                part: self.decider(),
            },
        }
    }

    /// This shard leads an object no more, or again.
    pub(crate) fn group_input(&mut self) -> Input {
        let uid = Uid {
            node: NodeId(0),
            local: 1 + self.below(3),
        };
        let (action, site, decider) = (self.root(), self.site(), self.decider());
        match self.below(7) {
            4 => {
                let uid = COHORT;
                self.handle(Input::Expel { uid });
                match self.kept.clone() {
                    Some(kept) => Input::RecoverCheckpoint {
                        object: uid,
                        checkpoint: Box::new(kept),
                    },
                    None => Input::Expel { uid },
                }
            }
            5..=6 => {
                let root = self.root();
                let nested = self.nested(root);
                Input::GoesOut {
                    ticket: Ticket(1 + self.below(self.next_ticket + 1)),
                    level: (self.below(4) > 0).then_some(nested),
                    to: Address::Site(self.site()),
                }
            }
            0 => {
                self.handle(Input::Expel { uid });
                Input::RecoverPart {
                    object: uid,
                    action,
                    coordinator: Coordinator { site, decider },
                }
            }
            1 => Input::RecoverDecision {
                action,
                participants: vec![site],
                groups: Vec::from_iter(self.decider()),
                decider: Some(uid),
            },
            _ => Input::Expel { uid },
        }
    }

    /// Something about actions.
    pub(crate) fn action_input(&mut self) -> Input {
        let action = self.root();
        match self.below(8) {
            0 => {
                self.next_ticket += 1;
                self.tickets.insert(Ticket(self.next_ticket), false);
                let decider = self.decider();
                Input::Commit {
                    ticket: Ticket(self.next_ticket),
                    caller: self.peer(),
                    action,
                    join: self.join(),
                    others: self.participants(),
                    aborted: self.aborted(action),
                    decider,
                    part: decider == Some(COHORT),
                }
            }
            1 => {
                self.next_ticket += 1;
                self.tickets.insert(Ticket(self.next_ticket), false);
                let ticket = Ticket(self.next_ticket);
                Input::Ask {
                    ticket,
                    action,
                    decider: self.decider(),
                }
            }
            2 => Input::Reached {
                action,
                to: Address::Site(self.site()),
            },
            _ => {
                let site = self.site();
                let message = self.message();
                Self::hear(site, message)
            }
        }
    }

    pub(crate) fn hear(site: Site, message: Message) -> Input {
        let (node, incarnation) = (site.node, Incarnation(1));
        let peer = Peer { node, incarnation };
        let shard = site.shard;
        let from = From { peer, shard };
        let message = Box::new(message);
        Input::Message { from, message }
    }
}
