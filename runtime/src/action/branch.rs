//! A servant's part of the action that it is called in, or what its calls are otherwise.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use partha_core::Ticket;
use partha_core::action::path::{Membership, Path, own_action};
use partha_core::action::scope::{Family, Report};
use partha_core::id::{NodeId, Uid};
use partha_core::time::Time;

use super::Track;
use super::line::{Beginning, Line, Outside, Roots, Standing, new_action};
use crate::client::Client;
use crate::error::Result;
use crate::shard::ShardHandle;
use crate::wire::context::{Actions, TraceId};

/// What a call says about actions, at its arrival.
#[derive(Clone, Debug)]
pub(crate) struct Within {
    actions: Box<Actions>,
    /// When whoever runs the root of the action gives that up.
    until: Instant,
}

/// A servant's part of an action, kept by its shard until the call is answered.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    line: Arc<Line>,
}

/// What the servants of a shard have in common.
pub(crate) struct Ground {
    /// What they call others with.
    pub(crate) client: Client,
    /// Where they run.
    pub(crate) shard: ShardHandle,
}

/// What it takes to say what a servant's calls are part of; costs nothing until it makes one.
pub(crate) struct Serving {
    pub(crate) ground: Arc<Ground>,
    pub(crate) object: Uid,
    /// Of which the name of the call as an action of its own is made.
    pub(crate) ticket: Ticket,
    /// When its caller stops waiting.
    pub(crate) deadline: Instant,
    pub(crate) trace: TraceId,
    pub(crate) within: Option<Arc<Within>>,
    /// Whoever leads its object next goes on with what actions have of it.
    pub(crate) cohort: bool,
}

impl Within {
    /// What a call that has just arrived says.
    pub(crate) fn new(actions: Box<Actions>) -> Self {
        let until = Instant::now() + actions.left;
        Self { actions, until }
    }

    /// The same for the engine, which has its own clock.
    pub(crate) fn membership(&self, time_of: impl FnOnce(Instant) -> Time) -> Membership {
        self.actions.membership(time_of(self.until))
    }

    /// The top-level action that the call is part of.
    pub(crate) fn root(&self) -> Option<Uid> {
        self.actions.path.root()
    }

    /// Whether the call is part of an action.
    pub(crate) fn is_in_action(&self) -> bool {
        self.actions.path.leaf().is_some()
    }

    /// Whether the caller makes the call again at whoever leads the object next.
    pub(crate) fn is_followed(&self) -> bool {
        self.actions.followed
    }

    /// What a call that is made in place of this one says.
    pub(crate) fn relayed(&self) -> Box<Actions> {
        let left = self.until.saturating_duration_since(Instant::now());
        Box::new(Actions {
            left,
            ..(*self.actions).clone()
        })
    }
}

impl Branch {
    /// What the answer of the servant's call has to say: what its calls have joined so far.
    pub(crate) fn report(&self) -> Report {
        self.line.look(|state| state.family.report())
    }

    /// The servant was stopped, and its own shard has no part in the action that would be told of
    /// its end: what its calls did elsewhere is undone, since whoever made the call hears nothing
    /// of it.
    pub(crate) fn abandon(&self) {
        match self.line.own_level() {
            // The action may go on.
            Some(_) => {
                let undone = self.line.settle(false);
                undone.expect("an abort is never refused");
            }
            None => self.line.with(|state| ((), state.family.abort())),
        }
    }

    /// Whether the servant makes its calls in a nested action of its own.
    pub(crate) fn has_own_level(&self) -> bool {
        self.line.own_level().is_some()
    }

    /// The servant has ended: what it has called becomes part of its caller's action, or is undone.
    ///
    /// # Errors
    /// Why it has to be undone though the servant has ended well.
    pub(crate) fn settle(&self, well: bool) -> Result<()> {
        self.line.settle(well)
    }

    /// A call is about to be made for the servant that is no call of its own: see
    /// [`Line::goes_out_for_good`].
    pub(crate) async fn goes_out_for_good(&self) -> Result<()> {
        self.line.goes_out_for_good(self.line.own_site()).await
    }

    /// A call is about to be made in it.
    pub(crate) fn track(&self) -> Result<Track> {
        let leaf = self.line.look(|state| state.family.path().leaf());
        let leaf = leaf.expect("a branch is of an action");
        Track::begin(&self.line, leaf)
    }
}

impl Standing {
    /// The servant's part of an action, if it has one.
    pub(crate) fn branch(&self) -> Option<Branch> {
        match self {
            Self::In(line, _) => Some(Branch { line: line.clone() }),
            Self::Alone | Self::Outside(_) => None,
        }
    }

    /// What a servant's calls are part of.
    pub(crate) fn of_servant(serving: &Serving) -> Self {
        let Serving {
            ground,
            object,
            ticket,
            deadline,
            trace,
            within,
            cohort,
        } = serving;
        let (trace, Ground { client, shard }) = (*trace, &**ground);
        let own = own_action(client.me(), shard.index(), *ticket);
        let Some(Within { actions, until }) = within.as_deref() else {
            let mut roots = Roots::of_process(client, None);
            roots.stack.push(*object);
            let (path, roots) = (Path::top(own).outside(), Arc::new(roots));
            return Self::Outside(Arc::new(Outside { path, roots, trace }));
        };
        let home = actions.home;
        let mut stack = actions.stack.clone();
        stack.push(*object);
        let roots = Arc::new(Roots {
            home: match home {
                NodeId(0) => OnceLock::new(),
                home => home.into(),
            },
            born_ms: actions.born_ms,
            stack,
            cancel: OnceLock::new(),
        });
        let Some(leaf) = actions.path.leaf() else {
            let path = actions.path.top_level(own).outside();
            return Self::Outside(Arc::new(Outside { path, roots, trace }));
        };
        let mut family = Family::branch(actions.path.clone());
        let level = cohort.then(|| new_action(client.me()));
        // One that nests too deep calls as it is, and is not executed once more.
        let level = level.filter(|level| family.begin(leaf, *level).is_ok());
        let line = Line::new(Beginning {
            client: client.clone(),
            trace,
            roots,
            until: *until,
            deadline: Some(*deadline),
            outer: None,
            shard: Some(shard.clone()),
            exit: cohort.then_some((*ticket, level)),
            family,
        });
        Self::In(line, level.unwrap_or(leaf))
    }
}
