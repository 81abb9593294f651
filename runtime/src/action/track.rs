//! A call in an action, from before it is sent to its answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use partha_core::action::path::{Address, Site};
use partha_core::action::scope::{CallEnd, CallKey, Doom, Over, Report};
use partha_core::id::{NodeId, Peer, Uid};

use super::line::{Line, State};
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::net::connection::{Connection, lock};

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
    /// The object that it went to last, and where that was, unless whoever leads it next goes on
    /// with what actions have of it.
    place: Mutex<Option<(Uid, Site)>>,
    ended: bool,
}

impl Track {
    /// A call is about to be made.
    ///
    /// # Errors
    /// If nothing can be called in the action any more.
    pub(crate) fn begin(line: &Arc<Line>, action: Uid) -> Result<Self> {
        let begun = line.with(|state| {
            let sends = state.check_bonds(action, None);
            let begun = match state.family.calling(action) {
                Ok(key) => Ok((key, state.tick())),
                Err(over) => Err(state.refused(action, over)),
            };
            (begun, sends)
        });
        let (key, began) = begun?;
        let (line, ended) = (line.clone(), false);
        Ok(Self {
            line,
            action,
            key,
            began,
            sent: AtomicBool::new(false),
            place: Mutex::default(),
            ended,
        })
    }

    /// It is about to be sent there, to this life of a peer if it is not this process, and if what
    /// is done there is lost with it.
    ///
    /// # Errors
    /// If the action can only abort meanwhile: its binding to the peer broke, for instance.
    pub(crate) async fn reaching(&self, to: Address, peer: Option<Peer>) -> Result<()> {
        self.line.goes_out(to).await?;
        let action = self.action;
        self.line.with(|state| {
            let sends = state.check_bonds(action, peer);
            let refused = match state.family.doomed(action) {
                Some((action, why)) => {
                    let over = Over::Doomed { action, why };
                    Err(state.refused(self.action, over))
                }
                None => Ok(()),
            };
            if refused.is_ok() {
                state.family.reaching(self.key, to);
            }
            (refused, sends)
        })?;
        self.sent.store(true, Ordering::Relaxed);
        self.line.reaching(to);
        Ok(())
    }

    /// It is about to be sent to where there are no actions.
    ///
    /// # Errors
    /// See [`Line::goes_out_for_good`].
    pub(crate) async fn goes_out_for_good(&self) -> Result<()> {
        self.line.goes_out_for_good(self.line.own_site()).await
    }

    /// It was answered on this connection, and has done something there.
    pub(crate) fn used(&self, connection: &Arc<Connection>) {
        self.line.with(|state| {
            if state.family.path_of(self.action).is_some() {
                state.bonds.tie(self.action, connection);
            }
            ((), Vec::new())
        });
    }

    /// It is about to be sent to whoever leads an object with copies, where the next leader does
    /// not go on with what actions have of it.
    ///
    /// # Errors
    /// If another one led it when the action used it: then that is lost.
    pub(crate) fn finds_leader(&self, object: Uid, leader: NodeId) -> Result<()> {
        let action = self.action;
        self.line.with(|state| {
            let before = state.family.doomed(action);
            let sends = state.family.finds_leader(action, object, leader);
            let told = match (before, state.family.doomed(action)) {
                (None, Some((level, why))) => {
                    let shown = |node| self.line.client().locator().shown(node);
                    let cause = || Some(replaced(object, why, leader, shown));
                    state.note_cause(action, cause);
                    Err(state.refused(action, Over::Doomed { action: level, why }))
                }
                (_, _) => Ok(()),
            };
            (told, sends)
        })
    }

    /// It is about to be sent to an object at this place, if what it does there stays there.
    pub(crate) fn goes_to(&self, place: Option<(Uid, Site)>) {
        *lock(&self.place) = place;
    }

    /// Whether the action has used an object at this node.
    pub(crate) fn was_led_by(&self, object: Uid, leader: NodeId) -> bool {
        let action = self.action;
        self.line
            .look(|state| state.family.was_led_by(action, object, leader))
    }

    /// Whether the action has done something at this node that is lost if the node is.
    pub(crate) fn works_at(&self, node: NodeId) -> bool {
        self.line.look(|state| state.family.works_at(node))
    }

    /// It has its answer.
    ///
    /// # Errors
    /// If that is a good one, but shows that a node has lost what the action did there: it was
    /// made of a state that has forgotten the action, and is nothing to go on with.
    pub(crate) fn answered(
        mut self,
        error: Option<&SystemError>,
        report: Option<&Report>,
    ) -> Result<()> {
        self.ended = true;
        let none = Report::default();
        let report = report.unwrap_or(&none);
        let (action, began) = (self.action, self.began);
        // One that was refused has left nothing there.
        let is_executed =
            error.is_none_or(|error| error.has_begun() || error.completion() != Completed::No);
        let place = lock(&self.place).take().filter(|_| is_executed);
        // Where the call got by an object that has no part in the action itself, a server process
        // for instance, nobody but this end can bring an abort to.
        for participant in &report.participants {
            self.line.reaching(participant.address());
        }
        self.line.with(|state| {
            let before = state.family.doomed(action);
            if let Some((object, place)) = place {
                state.family.led(action, object, place);
            }
            let ended = error.map_or(CallEnd::Known, |error| end(state, action, error));
            let sends = state.family.answered(self.key, report, ended);
            state.note_cause(action, || error.cloned());
            let lost = match (before, state.family.doomed(action)) {
                (None, Some((action, why @ Doom::Lost(_)))) => Some(Over::Doomed { action, why }),
                (_, _) => None,
            };
            match error {
                Some(error) => state.trouble(action, error),
                None => state.well(action, began),
            }
            let refused = lost.filter(|_| error.is_none());
            let told = refused.map_or(Ok(()), |over| Err(state.refused(action, over)));
            (told, sends)
        })
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

/// Why an action can only abort that finds an object with copies led by another one than before.
fn replaced(
    object: Uid,
    why: Doom,
    leader: NodeId,
    shown: impl Fn(NodeId) -> String,
) -> SystemError {
    let was = match why {
        Doom::Lost(site) => shown(site.node),
        _ => "another node".to_owned(),
    };
    let is = shown(leader);
    let detail = format!(
        "{object} was led by {was} when the action used it, and is led by {is} now: what was done \
         there is undone"
    );
    SystemError::new(ErrorKind::ActionAborted, detail)
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
