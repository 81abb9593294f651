//! Objects that leave and come, sane or not.

use partha_core::action::path::{Joined, Path};
use partha_core::id::{CallId, Incarnation, NodeId, Uid};
use partha_core::migrate::{Cargo, CargoAction, CargoImage, CargoLevel, CargoLock, NotShipped};
use partha_core::time::Time;
use partha_core::{Input, Mode, Output};

use super::{Monkey, ROOTS};

impl Monkey {
    /// Something about moves that nobody was asked for.
    pub(crate) fn move_input(&mut self) -> Input {
        let uid = self.uid();
        match self.below(5) {
            0..=1 => {
                self.next_move += 1;
                Input::Depart {
                    uid,
                    action: Uid::new(NodeId(0), Incarnation(1), 100 + self.next_move),
                    to: self.site(),
                    to_incarnation: Incarnation(1),
                    until: Time(self.now + self.below(200)),
                }
            }
            2..=3 => {
                // Now and then one that is known.
                self.next_move += self.below(4).min(1);
                let action = self.coming();
                Input::Arrive {
                    uid,
                    action,
                    coordinator: self.site(),
                }
            }
            _ => {
                let action = self.coming();
                self.unload(uid, action)
            }
        }
    }

    /// The name of a move from elsewhere.
    pub(crate) fn coming(&self) -> Uid {
        Uid::new(NodeId(2), Incarnation(1), 100 + self.next_move)
    }

    fn unload(&mut self, uid: Uid, action: Uid) -> Input {
        let cargo = Box::new(self.cargo());
        self.cargos.insert(action, (uid, (*cargo).clone()));
        Input::Unload { uid, action, cargo }
    }

    fn cargo(&mut self) -> Cargo {
        let mut cargo = Cargo {
            size_bytes: self.below(200),
            actions: Vec::new(),
        };
        for _ in 0..self.below(3) {
            let action = self.cargo_action();
            cargo.actions.push(action);
        }
        cargo
    }

    fn cargo_action(&mut self) -> CargoAction {
        let root = Uid::new(NodeId(1), Incarnation(1), self.below(ROOTS));
        let mut levels = vec![self.level(root, None)];
        for _ in 0..self.below(3) {
            let wrong = u64::from(self.below(9) == 0);
            let parent = self.below(levels.len() as u64 + wrong);
            let uid = self.nested(root);
            let level = self.level(uid, u32::try_from(parent).ok());
            levels.push(level);
        }
        let caller = self.peer();
        CargoAction {
            path: Path::top(root),
            home: NodeId(1),
            born_ms: 0,
            until: Time(self.now + self.below(400)),
            callers: vec![caller],
            executed: vec![CallId {
                caller,
                sequence: self.below(3),
            }],
            levels,
        }
    }

    fn level(&mut self, uid: Uid, parent: Option<u32>) -> CargoLevel {
        let mode = self.pick(&[Mode::Read, Mode::Read, Mode::Write]);
        let lock = CargoLock {
            mode,
            retained: self.below(2) == 0,
        };
        let image = CargoImage {
            changed: self.below(2) == 0,
            size_bytes: self.below(100),
        };
        let locked = self.below(4) > 0;
        let written = mode == Mode::Write && self.below(3) > 0;
        CargoLevel {
            uid,
            parent,
            merging: parent.is_some() && self.below(3) == 0,
            lock: locked.then_some(lock),
            image: (locked && written).then_some(image),
        }
    }

    /// The answer to a ship, or what follows when an object may come.
    pub(crate) fn answer_move(&mut self, output: Output) -> Input {
        match output {
            Output::Ship { uid, action, cargo } => {
                let joined = |root: Uid, join: u64| {
                    let updated = true;
                    (
                        root,
                        Joined {
                            join,
                            updated,
                            decider: None,
                            part: false,
                        },
                    )
                };
                let roots = cargo.actions.iter().filter_map(CargoAction::root);
                let roots: Vec<Uid> = roots.collect();
                let result = match self.below(4) {
                    // The store has no volatile objects.
                    _ if uid.local > 3 => Err(NotShipped::Absent),
                    0 => Err(NotShipped::Silent),
                    1 => Ok(Vec::new()),
                    _ => Ok(roots
                        .into_iter()
                        .map(|root| joined(root, self.join()))
                        .collect()),
                };
                Input::Shipped {
                    uid,
                    action,
                    result,
                }
            }
            Output::Arriving { uid, action, .. } => self.unload(uid, action),
            other => panic!("{other:?} is not answered"),
        }
    }

    /// What a shell does about an output.
    pub(crate) fn take_move(&mut self, output: Output) {
        match output {
            Output::Ship { .. } | Output::Arriving { result: Ok(()), .. } => {
                self.pending.push(output);
            }
            Output::Stays { .. } | Output::Arriving { .. } => {}
            Output::Departed { uid, .. } => self.images.retain(|(object, _)| *object != uid),
            Output::Unloaded {
                action,
                result: Ok(_),
                ..
            } => {
                let (uid, cargo) = self.cargos[&action].clone();
                let new = self.unloaded.insert(action, (uid, cargo)).is_none();
                assert!(new, "{action} is unloaded twice");
            }
            Output::Unloaded { .. } => {}
            Output::Arrived { uid, action, slot } => {
                let (object, cargo) = self.unloaded.remove(&action).expect("it was unloaded");
                assert_eq!(object, uid);
                assert_eq!(slot.is_some(), cargo.has_images());
                let images = cargo.levels().filter(|level| level.image.is_some());
                self.images.extend(images.map(|level| (uid, level.uid)));
            }
            Output::NotArrived { action, .. } => {
                self.unloaded.remove(&action);
            }
            other => panic!("{other:?} is about no move"),
        }
    }
}
