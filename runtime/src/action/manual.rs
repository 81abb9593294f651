//! Actions without a closure: begin, then commit or abort, said step by step.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use super::Action;
use super::error::ActionError;
use crate::caller::{CallScope, Caller};
use crate::error::SystemError;

/// An action that ends when it is told to: for tools, tests and generated programs. A program
/// for people is better written with [`crate::Client::action`].
///
/// It is aborted when it is dropped. A nested one borrows its parent, which therefore cannot end
/// before it:
///
/// ```compile_fail,E0505
/// # async fn example(client: partha::Client) {
/// let outer = client.begin();
/// let inner = outer.begin_nested().unwrap();
/// let _ = outer.commit().await; // error: `outer` is borrowed by `inner`
/// let _ = inner.commit().await;
/// # }
/// ```
pub struct ManualAction<'outer> {
    action: Action,
    outer: PhantomData<&'outer Action>,
}

impl ManualAction<'_> {
    pub(super) fn new(action: Action) -> Self {
        let outer = PhantomData;
        Self { action, outer }
    }

    /// Begins a nested action.
    ///
    /// # Errors
    /// If this one can only abort, or is nested too deep.
    pub fn begin_nested(&self) -> Result<ManualAction<'_>, SystemError> {
        match self.action.level.nested::<Infallible>() {
            Ok(level) => Ok(ManualAction::new(Action { level })),
            Err(error) => Err(error.into()),
        }
    }

    /// Commits it: on disk everywhere for a top-level action, the outer one's for a nested one.
    /// It ends in any case.
    ///
    /// # Errors
    /// As [`crate::Client::action`].
    pub async fn commit(self) -> Result<(), ActionError> {
        self.action.level.commit().await
    }

    /// Aborts it: nothing of it has happened.
    pub fn abort(self) {
        drop(self);
    }
}

impl Deref for ManualAction<'_> {
    type Target = Action;

    fn deref(&self) -> &Action {
        &self.action
    }
}

impl Caller for ManualAction<'_> {
    fn scope(&self) -> CallScope {
        self.action.scope()
    }
}

impl fmt::Debug for ManualAction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.action, f)
    }
}
