//! What running actions have of an object that moves, in the engine's terms and in those of
//! `partha.idl`. What comes over the wire is checked here as far as types go; the engine checks
//! the rest.

use std::time::{Duration, Instant};

use partha_core::action::path::Path;
use partha_core::id::{CallId, Incarnation, NodeId, Peer};
use partha_core::lock::mode::Mode;
use partha_core::migrate::{Cargo, CargoAction, CargoImage, CargoLevel, CargoLock};
use partha_core::time::Time;

use crate::shard::Shard;
use crate::system::{
    ActionPath, CallName, LockMode, MovingAction, MovingBefore, MovingCargo, MovingLevel,
    MovingLock,
};

impl Shard {
    /// As it is sent.
    pub(super) fn write_cargo(&self, cargo: &Cargo) -> MovingCargo {
        let now = self.now();
        MovingCargo {
            size: cargo.size_bytes,
            actions: cargo.actions.iter().map(|a| action(a, now)).collect(),
        }
    }

    /// One action of it.
    pub(in crate::shard) fn write_cargo_action(&self, one: &CargoAction) -> MovingAction {
        action(one, self.now())
    }

    /// One action as the engine takes it; the error says what is wrong.
    pub(in crate::shard) fn read_cargo_action(
        &self,
        action: &MovingAction,
    ) -> Result<CargoAction, &'static str> {
        let now = Instant::now();
        read_action(action, &|left| self.time_of(now + left.min(LEFT_MAX)))
    }

    /// As the engine takes it; the error says what is wrong.
    pub(super) fn read_cargo(&self, cargo: &MovingCargo) -> Result<Cargo, &'static str> {
        let now = Instant::now();
        let until = |left: Duration| self.time_of(now + left.min(LEFT_MAX));
        let actions = cargo.actions.iter().map(|a| read_action(a, &until));
        Ok(Cargo {
            size_bytes: cargo.size,
            actions: actions.collect::<Result<_, _>>()?,
        })
    }
}

/// No action goes on for longer.
const LEFT_MAX: Duration = Duration::from_secs(24 * 3600);

fn action(action: &CargoAction, now: Time) -> MovingAction {
    MovingAction {
        path: ActionPath {
            actions: action.path.whole().to_vec(),
            enclosing: action.path.enclosing() as u16,
        },
        home: action.home.0,
        born_ms: action.born_ms,
        left: action.until.remaining(now),
        callers: action.callers.iter().map(|peer| (*peer).into()).collect(),
        executed: action
            .executed
            .iter()
            .map(|call| call_name(*call))
            .collect(),
        levels: action.levels.iter().map(level).collect(),
    }
}

fn level(level: &CargoLevel) -> MovingLevel {
    MovingLevel {
        action: level.uid,
        parent: level.parent,
        merging: level.merging,
        lock: level.lock.map(|lock| MovingLock {
            mode: match lock.mode {
                Mode::Read => LockMode::Read,
                Mode::Upgrade => LockMode::Upgrade,
                Mode::Write => LockMode::Write,
            },
            retained: lock.retained,
        }),
        image: level.image.map(|image| MovingBefore {
            changed: image.changed,
            size: image.size_bytes,
        }),
    }
}

fn read_action(
    action: &MovingAction,
    until: &dyn Fn(Duration) -> Time,
) -> Result<CargoAction, &'static str> {
    let ActionPath { actions, enclosing } = &action.path;
    let path = Path::new(actions.clone(), usize::from(*enclosing));
    let callers = action.callers.iter().map(|caller| read_peer(caller.into()));
    let executed = action.executed.iter().map(read_call);
    Ok(CargoAction {
        path: path.ok_or("a path that cannot be")?,
        home: NodeId(action.home),
        born_ms: action.born_ms,
        until: until(action.left),
        callers: callers.collect::<Result<_, _>>()?,
        executed: executed.collect::<Result<_, _>>()?,
        levels: action.levels.iter().map(read_level).collect(),
    })
}

fn read_level(level: &MovingLevel) -> CargoLevel {
    CargoLevel {
        uid: level.action,
        parent: level.parent,
        merging: level.merging,
        lock: level.lock.as_ref().map(|lock| CargoLock {
            mode: match lock.mode {
                LockMode::Read => Mode::Read,
                LockMode::Upgrade => Mode::Upgrade,
                LockMode::Write => Mode::Write,
            },
            retained: lock.retained,
        }),
        image: level.image.as_ref().map(|image| CargoImage {
            changed: image.changed,
            size_bytes: image.size,
        }),
    }
}

/// The name of a call, as it is sent.
pub(in crate::shard) fn call_name(call: CallId) -> CallName {
    CallName {
        caller: call.caller.into(),
        sequence: call.sequence,
    }
}

pub(in crate::shard) fn read_call(name: &CallName) -> Result<CallId, &'static str> {
    Ok(CallId {
        caller: read_peer((&name.caller).into())?,
        sequence: name.sequence,
    })
}

fn read_peer(peer: Peer) -> Result<Peer, &'static str> {
    match peer.incarnation <= Incarnation::MAX {
        true => Ok(peer),
        false => Err("an incarnation of more than 24 bits"),
    }
}
