//! Lines about objects that move.
//!
//! | line | meaning |
//! |---|---|
//! | `depart o1 a9@0.1 to=2#0 within=1s` | o1 is to move to shard 0 of node 2, in its life 1 |
//! | `shipped o1 a9@0.1 a1=3 a2=4` | the target has it; its mirrors of a1 and a2 are 3 and 4 |
//! | `shipped o1 a9@0.1 Silent`, `Refused`, `Absent` | the target has not |
//! | `arrive o1 a9@2.1 2#0` | o1 is to come from shard 0 of node 2 |
//! | `unload o1 a9@2.1 100 a1 a1:Write+50! a1/a2:Read …` | all of it is on disk; its cargo |
//!
//! A cargo is its size and then its actions, each followed by its levels, parents first:
//! `path:Mode` with `~` if the lock is retained, `+50` for a before-image of 50 bytes, `!` if
//! changed, `^` if the level has committed; `path:` for one without a lock. `c=1.1/7` is a call
//! that the last action has executed.

use partha_core::action::path::{Joined, Path};
use partha_core::id::{CallId, Incarnation, NodeId};
use partha_core::migrate::{Cargo, CargoAction, CargoImage, CargoLevel, CargoLock, NotShipped};
use partha_core::time::Time;
use partha_core::{Input, Mode, Output};

use super::show::{self, name, object};
use super::{Story, actions, parse, peer, time, uid};

/// An output about a move.
pub(super) fn output(output: Output) -> String {
    match output {
        Output::Ship { uid, action, cargo } => {
            format!("Ship {} {}{}", object(uid), name(action), shown(&cargo))
        }
        Output::Stays { uid, action, why } => {
            format!("Stays {} {} {why:?}", object(uid), name(action))
        }
        Output::Departed { uid, action } => format!("Departed {} {}", object(uid), name(action)),
        Output::Arriving {
            uid,
            action,
            result,
        } => {
            let result = result.map_or_else(show::refusal, |()| "ok".to_owned());
            format!("Arriving {} {} {result}", object(uid), name(action))
        }
        Output::Unloaded {
            uid,
            action,
            result,
        } => {
            let joins = |joins: Vec<(partha_core::id::Uid, Joined)>| {
                let joins = joins.into_iter().map(|(root, joined)| {
                    let updated = if joined.updated { " updated" } else { "" };
                    let join = show::counter(joined.join);
                    format!(" {}={join}{updated}", name(root))
                });
                joins.collect::<String>()
            };
            let result = result.map_or_else(|why| format!(" {}", show::refusal(why)), joins);
            format!("Unloaded {} {}{result}", object(uid), name(action))
        }
        Output::Arrived { uid, action, slot } => {
            let image = slot.map_or("", |_| ", with its image");
            format!("Arrived {} {}{image}", object(uid), name(action))
        }
        Output::NotArrived { uid, action } => {
            format!("NotArrived {} {}", object(uid), name(action))
        }
        other => panic!("{other:?} is about no move"),
    }
}

pub(super) fn shown(cargo: &Cargo) -> String {
    let mut text = String::new();
    if cargo.has_images() {
        text += &format!(", {} bytes", cargo.size_bytes);
    }
    for action in &cargo.actions {
        text += &format!("; {}", show::path(&action.path));
        for level in &action.levels {
            text += &format!(" {}", name(level.uid));
            if let Some(lock) = level.lock {
                let retained = if lock.retained { "~" } else { "" };
                text += &format!(":{:?}{retained}", lock.mode);
            }
            if let Some(image) = level.image {
                let changed = if image.changed { "!" } else { "" };
                text += &format!("+{}{changed}", image.size_bytes);
            }
            if level.merging {
                text += "^";
            }
        }
        for call in &action.executed {
            text += &format!(" c={}", show::call(*call));
        }
    }
    text
}

fn level(word: &str, known: &[CargoLevel]) -> CargoLevel {
    let (word, merging) = match word.strip_suffix('^') {
        Some(word) => (word, true),
        None => (word, false),
    };
    let (path, has) = word.split_once(':').expect("a level is path:what");
    let path = actions::path(path);
    let own = path.own();
    let parent = own.len().checked_sub(2).map(|at| own[at]);
    let parent = parent.map(|parent| {
        let place = known.iter().position(|level| level.uid == parent);
        place.expect("a level's parent stands before it") as u32
    });
    let (lock, image) = has.split_once('+').map_or((has, None), |(lock, image)| {
        let (size, changed) = match image.strip_suffix('!') {
            Some(size) => (size, true),
            None => (image, false),
        };
        let size_bytes = parse(size);
        let image = CargoImage {
            changed,
            size_bytes,
        };
        (lock, Some(image))
    });
    let (mode, retained) = match lock.strip_suffix('~') {
        Some(mode) => (mode, true),
        None => (lock, false),
    };
    let mode = match mode {
        "" => None,
        "Read" => Some(Mode::Read),
        "Upgrade" => Some(Mode::Upgrade),
        "Write" => Some(Mode::Write),
        other => panic!("'{other}' is no mode"),
    };
    CargoLevel {
        uid: path.leaf().expect("a level is an action"),
        parent,
        merging,
        lock: mode.map(|mode| CargoLock { mode, retained }),
        image,
    }
}

impl Story {
    fn cargo(&self, words: &[&str]) -> Cargo {
        let mut cargo = Cargo {
            size_bytes: words.first().map_or(0, |word| parse(word)),
            actions: Vec::new(),
        };
        for word in words.iter().skip(1) {
            if let Some(call) = word.strip_prefix("c=") {
                let (caller, sequence) = call.split_once('/').expect("a call id is 1.1/7");
                let (caller, sequence) = (peer(caller), parse(sequence));
                let action = cargo.actions.last_mut().expect("an action has its calls");
                action.executed.push(CallId { caller, sequence });
            } else if word.contains(':') {
                let action = cargo.actions.last_mut().expect("an action has its levels");
                let level = level(word, &action.levels);
                action.levels.push(level);
            } else {
                let path: Path = actions::path(word);
                cargo.actions.push(CargoAction {
                    path,
                    home: NodeId(1),
                    born_ms: 0,
                    until: Time(self.now.0 + 60_000_000_000),
                    callers: vec![peer("1.1")],
                    executed: Vec::new(),
                    levels: Vec::new(),
                });
            }
        }
        cargo
    }

    /// A line about moves, if it is one.
    pub(super) fn move_input(&self, words: &[&str]) -> Option<Input> {
        let about = |words: &[&str]| (uid(words[1]), actions::name(words[2]));
        Some(match words[0] {
            "depart" => {
                let (uid, action) = about(words);
                let to = actions::value(words, "to").expect("a move has a target");
                let within = actions::value(words, "within").unwrap_or("10s");
                Input::Depart {
                    uid,
                    action,
                    to: actions::site(to),
                    to_incarnation: Incarnation(1),
                    until: Time(self.now.0 + time(within).0),
                }
            }
            "shipped" => {
                let (uid, action) = about(words);
                let joined = |word: &&str| {
                    let (root, join) = word.split_once('=').expect("a1=3");
                    let joined = Joined {
                        join: actions::join(1, join),
                        updated: true,
                        decider: None,
                        part: false,
                    };
                    (actions::name(root), joined)
                };
                let result = match words.get(3).copied() {
                    Some("Silent") => Err(NotShipped::Silent),
                    Some("Refused") => Err(NotShipped::Refused),
                    Some("Absent") => Err(NotShipped::Absent),
                    _ => Ok(words[3..].iter().map(joined).collect()),
                };
                Input::Shipped {
                    uid,
                    action,
                    result,
                }
            }
            "arrive" => {
                let (uid, action) = about(words);
                let coordinator = actions::site(words[3]);
                Input::Arrive {
                    uid,
                    action,
                    coordinator,
                }
            }
            "unload" => {
                let (uid, action) = about(words);
                let cargo = Box::new(self.cargo(&words[3..]));
                Input::Unload { uid, action, cargo }
            }
            _ => return None,
        })
    }
}
