//! Objects that move.

use super::Engine;
use crate::input::Input;
use crate::migrate::Stays;
use crate::outbox::Outbox;
use crate::output::{Output, Refusal};

impl Engine {
    /// Something about a move happened. None begins yet: nothing leaves and nothing is let in.
    pub(super) fn moving(&mut self, input: Input, out: &mut Outbox) {
        if let Input::Depart { uid, action, .. } = input {
            let why = Stays::Busy;
            out.push(Output::Stays { uid, action, why });
        } else if let Input::Arrive { uid, action, .. } = input {
            let result = Err(Refusal::Draining);
            out.push(Output::Arriving {
                uid,
                action,
                result,
            });
        } else if let Input::Unload { uid, action, .. } = input {
            let result = Err(Refusal::Draining);
            out.push(Output::Unloaded {
                uid,
                action,
                result,
            });
        }
    }
}
