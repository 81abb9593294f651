//! The call context: parameter 0 of every method.
//!
//! Layout: `struct CallContext` of the system module. A null context means: no action, no call
//! id, the node's default deadline.

use std::time::Duration;

use partha_core::id::{CallId, Incarnation, NodeId, Peer};
use partha_wire::{DecodeError, Slot, StructAt, StructReader, Writer};

/// A W3C trace id; zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a caller says about a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallContext {
    /// Time left for it; none: the callee's default.
    pub(crate) deadline: Option<Duration>,
    /// Its name; none: at most once is not asked for.
    pub(crate) call: Option<CallId>,
    /// It was asked for before under the same name.
    pub(crate) again: bool,
    /// The trace it belongs to.
    pub(crate) trace: TraceId,
}

const DATA: u16 = 6;
const POINTERS: u16 = 1;
const AGAIN_BIT: u32 = 3 * 64 + 32;

/// Writes the time left into a context that is there.
pub(crate) fn set_deadline(w: &mut Writer, context: StructAt, left: Duration) {
    let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
    w.set_u64(context, 0, micros.max(1));
}

impl CallContext {
    pub(crate) fn write(&self, w: &mut Writer, slot: Slot) -> StructAt {
        let s = w.structure(slot, DATA, POINTERS);
        if let Some(deadline) = self.deadline {
            set_deadline(w, s, deadline);
        }
        if let Some(call) = self.call {
            w.set_u64(s, 1, call.caller.node.0);
            w.set_u64(s, 2, call.sequence);
            w.set_u32(s, 6, call.caller.incarnation.0);
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_comes_back_as_it_went() {
        let caller = Peer {
            node: NodeId(7),
            incarnation: Incarnation(3),
        };
        let full = CallContext {
            deadline: Some(Duration::from_millis(5)),
            call: Some(CallId {
                caller,
                sequence: 9,
            }),
            again: true,
            trace: TraceId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        };
        for context in [full, CallContext::default()] {
            let mut w = Writer::new(1024);
            let s = w.structure(Slot::ROOT, 0, 1);
            context.write(&mut w, s.slot(0));
            let message = w.into_message().unwrap();
            let read = CallContext::of_parameters(message.reader().unwrap()).unwrap();
            assert_eq!(read, context);
        }
    }
}
