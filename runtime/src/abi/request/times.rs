//! What a call says of the time that is left, which is less once it has waited.

use std::time::Instant;

use partha_wire::{StructAt, Writer};

use crate::action::Standing;
use crate::wire::context::{set_deadline, set_left};

/// Where that is said, and what it depends on.
#[derive(Clone, Copy)]
pub(super) struct Times<'a> {
    pub(super) context: StructAt,
    /// When its caller stops waiting.
    pub(super) deadline: Instant,
    /// Of the actions that its context speaks of.
    pub(super) standing: Option<&'a Standing>,
}

impl Times<'_> {
    /// Writes all of it again.
    pub(super) fn renew(self, w: &mut Writer) {
        self.set_deadline(w);
        self.set_left(w);
    }

    /// Writes for how long the caller waits.
    pub(super) fn set_deadline(self, w: &mut Writer) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        set_deadline(w, self.context, left);
    }

    /// Writes for how long the root action goes on, if there is one.
    pub(super) fn set_left(self, w: &mut Writer) {
        if let Some(left) = self.standing.and_then(Standing::left) {
            set_left(w, self.context, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use partha_wire::Slot;

    use super::*;
    use crate::action::ActionOptions;
    use crate::caller::Caller;
    use crate::client::Client;
    use crate::wire::context::CallContext;

    #[tokio::test]
    async fn a_call_that_has_waited_says_less_of_both_times() {
        const SAID: Duration = Duration::from_secs(1000);
        let client = Client::builder().build().unwrap();
        let time = Duration::from_secs(20);
        let action = client.begin_with(ActionOptions::new().deadline(time));
        let standing = action.scope().standing;
        let mut actions = standing.actions(Instant::now()).unwrap();
        // As if it had been written long ago.
        actions.left = SAID;
        let context = CallContext {
            deadline: Some(SAID),
            actions: Some(actions),
            ..CallContext::default()
        };
        let mut w = Writer::new(1 << 16);
        let root = w.structure(Slot::ROOT, 0, 1);
        let times = Times {
            context: context.write(&mut w, root.slot(0)),
            deadline: Instant::now() + time,
            standing: Some(&standing),
        };
        times.renew(&mut w);
        let message = w.into_message().unwrap();
        let said = CallContext::of_parameters(message.reader().unwrap()).unwrap();
        assert!(said.deadline.unwrap() <= time, "{said:?}");
        let left = said.actions.unwrap().left;
        assert!(left <= time && !left.is_zero(), "{left:?}");
    }
}
