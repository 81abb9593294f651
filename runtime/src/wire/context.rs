//! The call context: parameter 0 of every method.
//!
//! Layout: `struct CallContext` of the system module. A null context means: no action, no call
//! id, the node's default deadline. One without the part about actions is written shorter.

use std::time::Duration;

use partha_core::action::path::{Membership, PATH_MAX, Path};
use partha_core::id::{CallId, Incarnation, NodeId, Peer, Uid};
use partha_core::time::Time;
use partha_wire::{DecodeError, Slot, StructAt, StructReader, Writer};

use super::parts::{read_uids, write_uids};

/// The longest chain of objects that wait for each other's answers. A longer one is a recursion
/// without end rather than a program.
pub(crate) const STACK_MAX: usize = 256;

/// A W3C trace id; zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a caller says about a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallContext {
    /// Time left for it; none: the callee's default.
    pub(crate) deadline: Option<Duration>,
    /// Its name; none: at most once is not asked for.
    pub(crate) call: Option<CallId>,
    /// It was asked for before under the same name.
    pub(crate) again: bool,
    /// The trace it belongs to.
    pub(crate) trace: TraceId,
    /// The actions it is part of, or at least made for; none for a plain client's call.
    pub(crate) actions: Option<Box<Actions>>,
}

/// What a call says about actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actions {
    /// The action it is made in; without entries of its own it is made in none.
    pub(crate) path: Path,
    /// Time left until whoever runs the root gives it up.
    pub(crate) left: Duration,
    /// See [`Membership::home`]. A sender may fill it in with [`set_home`].
    pub(crate) home: NodeId,
    /// See [`Membership::born_ms`].
    pub(crate) born_ms: u64,
    /// See [`Membership::stack`].
    pub(crate) stack: Vec<Uid>,
    /// See [`Membership::carried`].
    pub(crate) carried: bool,
    /// The caller makes it again at whoever leads the object next, if this one is lost. A sender
    /// says so with [`set_followed`] when it knows where the call goes.
    pub(crate) followed: bool,
}

impl Actions {
    /// The same for the engine; `until` is when nothing is left of the time.
    pub(crate) fn membership(&self, until: Time) -> Membership {
        Membership {
            path: self.path.clone(),
            until,
            home: self.home,
            born_ms: self.born_ms,
            stack: self.stack.clone(),
            carried: self.carried,
        }
    }
}

const DATA: u16 = 6;
const DATA_IN_ACTION: u16 = 9;
const POINTERS: u16 = 1;
const POINTERS_IN_ACTION: u16 = 2;
const AGAIN_BIT: u32 = 3 * 64 + 32;
const CARRIED_BIT: u32 = AGAIN_BIT + 1;
const FOLLOWED_BIT: u32 = AGAIN_BIT + 2;
const ENCLOSING: u16 = 15;
const LEFT: u16 = 6;
const HOME: u16 = 7;
const BORN: u16 = 8;

/// Writes the time left into a context that is there.
pub(crate) fn set_deadline(w: &mut Writer, context: StructAt, left: Duration) {
    let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
    w.set_u64(context, 0, micros.max(1));
}

/// Writes the time left for the root action into a context with actions.
pub(crate) fn set_left(w: &mut Writer, context: StructAt, left: Duration) {
    let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
    w.set_u64(context, LEFT.into(), micros);
}

/// Names the call in a context that is there.
pub(crate) fn set_call(w: &mut Writer, context: StructAt, call: CallId) {
    w.set_u64(context, 1, call.caller.node.0);
    w.set_u64(context, 2, call.sequence);
    w.set_u32(context, 6, call.caller.incarnation.0);
}

/// Writes where deadlocks are looked for into a context with actions.
pub(crate) fn set_home(w: &mut Writer, context: StructAt, home: NodeId) {
    w.set_u64(context, HOME.into(), home.0);
}

/// Writes whether the caller follows the object's leaders into a context with actions.
pub(crate) fn set_followed(w: &mut Writer, context: StructAt, followed: bool) {
    w.set_bool(context, FOLLOWED_BIT, followed);
}

impl CallContext {
    pub(crate) fn write(&self, w: &mut Writer, slot: Slot) -> StructAt {
        let s = match &self.actions {
            Some(actions) => actions.write(w, slot),
            None => w.structure(slot, DATA, POINTERS),
        };
        if let Some(deadline) = self.deadline {
            set_deadline(w, s, deadline);
        }
        if let Some(call) = self.call {
            set_call(w, s, call);
        }
        w.set_bool(s, AGAIN_BIT, self.again);
        w.set_u64(s, 4, (self.trace.0 >> 64) as u64);
        w.set_u64(s, 5, self.trace.0 as u64);
        s
    }

    /// Reads the context from the parameters' struct.
    pub(crate) fn of_parameters(parameters: StructReader<'_>) -> Result<Self, DecodeError> {
        let pointer = parameters.pointer(0);
        if pointer.is_null() {
            return Ok(Self::default());
        }
        let s = pointer.structure().map_err(|error| error.at("context"))?;
        let sequence = s.u64(2);
        let incarnation = Incarnation(s.u32(6));
        if incarnation > Incarnation::MAX {
            return Err(DecodeError::invalid("an incarnation of 24 bits").at("context"));
        }
        let caller = Peer {
            node: NodeId(s.u64(1)),
            incarnation,
        };
        Ok(Self {
            deadline: Some(s.u64(0))
                .filter(|micros| *micros != 0)
                .map(Duration::from_micros),
            call: (sequence != 0).then_some(CallId { caller, sequence }),
            again: s.bool(AGAIN_BIT),
            trace: TraceId(u128::from(s.u64(4)) << 64 | u128::from(s.u64(5))),
            actions: Actions::read(s).map_err(|error| error.at("context"))?,
        })
    }
}

impl Actions {
    fn write(&self, w: &mut Writer, slot: Slot) -> StructAt {
        let s = w.structure(slot, DATA_IN_ACTION, POINTERS_IN_ACTION);
        w.set_u16(s, ENCLOSING.into(), self.path.enclosing() as u16);
        set_left(w, s, self.left);
        set_home(w, s, self.home);
        w.set_u64(s, BORN.into(), self.born_ms);
        w.set_bool(s, CARRIED_BIT, self.carried);
        set_followed(w, s, self.followed);
        write_uids(w, s.slot(0), self.path.whole());
        write_uids(w, s.slot(1), &self.stack);
        s
    }

    fn read(s: StructReader<'_>) -> Result<Option<Box<Self>>, DecodeError> {
        if s.pointer(0).is_null() {
            return Ok(None);
        }
        let uids = read_uids(s.pointer(0), PATH_MAX).map_err(|error| error.at("actions"))?;
        if uids.is_empty() {
            return Ok(None);
        }
        let enclosing = usize::from(s.u16(ENCLOSING.into()));
        let path = Path::new(uids, enclosing).ok_or_else(|| {
            DecodeError::invalid("no more enclosing actions than actions").at("actionsEnclosing")
        })?;
        let stack = read_uids(s.pointer(1), STACK_MAX).map_err(|error| error.at("stack"))?;
        Ok(Some(Box::new(Self {
            path,
            left: Duration::from_micros(s.u64(LEFT.into())),
            home: NodeId(s.u64(HOME.into())),
            born_ms: s.u64(BORN.into()),
            stack,
            carried: s.bool(CARRIED_BIT),
            followed: s.bool(FOLLOWED_BIT),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u64) -> Uid {
        let node = NodeId(8);
        Uid { node, local: n }
    }

    fn round(context: &CallContext) -> Result<CallContext, DecodeError> {
        let mut w = Writer::new(1 << 16);
        let s = w.structure(Slot::ROOT, 0, 1);
        context.write(&mut w, s.slot(0));
        let message = w.into_message().unwrap();
        CallContext::of_parameters(message.reader().unwrap())
    }

    fn actions(path: Path, stack: Vec<Uid>) -> Option<Box<Actions>> {
        Some(Box::new(Actions {
            path,
            left: Duration::from_millis(12),
            home: NodeId(3),
            born_ms: 1_700_000_000_000,
            carried: stack.len() == 2,
            followed: stack.is_empty(),
            stack,
        }))
    }

    fn full() -> CallContext {
        let caller = Peer {
            node: NodeId(7),
            incarnation: Incarnation(3),
        };
        let path = Path::top(uid(1)).top_level(uid(2)).nested(uid(3));
        CallContext {
            deadline: Some(Duration::from_millis(5)),
            call: Some(CallId {
                caller,
                sequence: 9,
            }),
            again: true,
            trace: TraceId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            actions: actions(path, vec![uid(4), uid(5)]),
        }
    }

    #[test]
    fn a_context_comes_back_as_it_went() {
        let outside = CallContext {
            actions: actions(Path::top(uid(1)).outside(), Vec::new()),
            ..full()
        };
        let plain = CallContext {
            actions: None,
            ..full()
        };
        for context in [full(), outside, plain, CallContext::default()] {
            assert_eq!(round(&context).unwrap(), context);
        }
    }

    #[test]
    fn a_boundary_outside_of_the_path_and_endless_lists_are_refused() {
        let mut w = Writer::new(1 << 16);
        let s = w.structure(Slot::ROOT, 0, 1);
        let context = full().write(&mut w, s.slot(0));
        w.set_u16(context, ENCLOSING.into(), 4);
        let message = w.into_message().unwrap();
        let error = CallContext::of_parameters(message.reader().unwrap()).unwrap_err();
        assert!(error.to_string().contains("actionsEnclosing"), "{error}");

        let stack = vec![uid(1); STACK_MAX + 1];
        let long = CallContext {
            actions: actions(Path::top(uid(1)), stack),
            ..full()
        };
        assert!(round(&long).is_err());
    }
}
