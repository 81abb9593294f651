//! A call in an action, from before it is sent to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use partha_core::action::path::Site;
use partha_core::action::scope::{CallEnd, CallKey, Doom, Report};
use partha_core::id::{NodeId, Uid};

use super::line::{Line, State};
use crate::error::{Completed, ErrorKind, Result, SystemError};

/// A call under way. Dropped before its answer came, nobody knows whether it was executed, and
/// its action can only abort.
#[derive(Debug)]
pub(crate) struct Track {
    line: Arc<Line>,
    action: Uid,
    key: CallKey,
    /// When it began, by the family's own count.
    began: u64,
    /// It may have been sent.
    sent: AtomicBool,
    ended: bool,
}

impl Track {
    /// A call is about to be made.
    ///
    /// # Errors
    /// If nothing can be called in the action any more.
    pub(crate) fn begin(line: &Arc<Line>, action: Uid) -> Result<Self> {
        let begun = line.with(|state| {
            let begun = match state.family.calling(action) {
                Ok(key) => Ok((key, state.tick())),
                Err(over) => Err(state.refused(action, over)),
            };
            (begun, Vec::new())
        });
        let (key, began) = begun?;
        let (line, ended) = (line.clone(), false);
        Ok(Self {
            line,
            action,
            key,
            began,
            sent: AtomicBool::new(false),
            ended,
        })
    }

    /// It is about to be sent there.
    pub(crate) fn reaching(&self, site: Site) {
        self.sent.store(true, Ordering::Relaxed);
        self.line.reaching(site);
        self.line.with(|state| {
            state.family.reaching(self.key, site);
            ((), Vec::new())
        });
    }

    /// Whether the action has done something at this node that is lost if the node is.
    pub(crate) fn works_at(&self, node: NodeId) -> bool {
        self.line.look(|state| state.family.works_at(node))
    }

    /// It has its answer.
    pub(crate) fn answered(mut self, error: Option<&SystemError>, report: Option<&Report>) {
        self.ended = true;
        let none = Report::default();
        let report = report.unwrap_or(&none);
        let (action, began) = (self.action, self.began);
        self.line.with(|state| {
            let ended = error.map_or(CallEnd::Known, |error| end(state, action, error));
            let sends = state.family.answered(self.key, report, ended);
            state.note_cause(action, || error.cloned());
            match error {
                Some(error) => state.trouble(action, error),
                None => state.well(action, began),
            }
            ((), sends)
        });
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let action = self.action;
        let ended = match self.sent.load(Ordering::Relaxed) {
            true => CallEnd::Unknown,
            false => CallEnd::Known,
        };
        self.line.with(|state| {
            let none = Report::default();
            let sends = state.family.answered(self.key, &none, ended);
            state.note_cause(action, || None);
            ((), sends)
        });
    }
}

/// What an error means for the action of its call.
fn end(state: &State, action: Uid, error: &SystemError) -> CallEnd {
    let path = state.family.path_of(action);
    let concerns = |uid: &Uid| path.is_some_and(|path| path.whole().contains(uid));
    let doomed = |why| {
        let root = || path.and_then(|path| path.root());
        let victim = error.victim().or_else(root).unwrap_or(action);
        CallEnd::Doomed { victim, why }
    };
    if error.victim().is_some_and(|victim| !concerns(&victim)) {
        // It is an action of the servant's own that has failed, not ours.
        return CallEnd::Known;
    }
    match error.kind() {
        ErrorKind::Deadlock => doomed(Doom::Deadlock),
        ErrorKind::ActionAborted => doomed(Doom::Aborted),
        // The servant's own action; what it did here is known.
        ErrorKind::OutcomeUnknown => CallEnd::Known,
        // What was done where the connection is gone is lost with it.
        ErrorKind::BindingBroken => CallEnd::Unknown,
        _ if error.completion() == Completed::Maybe => CallEnd::Unknown,
        _ => CallEnd::Known,
    }
}
