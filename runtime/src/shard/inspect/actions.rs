//! Questions about a shard's actions and locks: the engine's views in the terms of `partha.idl`.
//!
//! Nothing here changes anything, except that an operator may have an action aborted, which the
//! engine takes for a message of whoever runs it.

use std::rc::Rc;
use std::time::Duration;

use partha_core::Input;
use partha_core::action::message::{From, Message};
use partha_core::action::path::{Path, Site};
use partha_core::engine::{ActionPhase as Phase, ActionView, HolderView, LockView, WaiterView};
use partha_core::id::Uid;
use partha_core::lock::mode::Mode;
use partha_core::time::Time;
use tokio::sync::oneshot;

use crate::net::actions::RUNNER;
use crate::shard::{Job, Shard, ShardHandle};
use crate::system::{
    ActionCaller, ActionDescription, ActionPath, ActionPhase, ActionSite, LockDescription,
    LockHolder, LockMode, LockWaiter,
};

/// A question that is asked on the shard's thread.
pub(crate) struct Look(Question);

type Question = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// What a shard knows of the end of an action without looking into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Nothing.
    None,
    /// It has a part here that is not decided, as far as the shard knows.
    InFlight,
    /// It is aborted, and its last servants end.
    Aborted,
    /// It is committed, and not all participants know.
    Committed,
}

/// What came of an operator's wish to abort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Abortion {
    /// The action is not here.
    Unknown,
    /// It is aborted here.
    Done,
    /// It cannot be: the reason.
    Refused(String),
}

impl Look {
    pub(in crate::shard) fn new(question: impl FnOnce(&Rc<Shard>) + Send + 'static) -> Self {
        Self(Box::new(question))
    }

    /// Runs it.
    pub(in crate::shard) fn take(self, shard: &Rc<Shard>) {
        (self.0)(shard);
    }
}

impl ShardHandle {
    /// Asks on the shard's thread; none if it has stopped.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Rc<Shard>) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, receiver) = oneshot::channel();
        let look = move |shard: &Rc<Shard>| {
            // Whoever asked may be gone by the time of the answer.
            let _ = answer.send(question(shard));
        };
        self.post(Job::Look(Look(Box::new(look))));
        receiver.await.ok()
    }
}

impl Shard {
    /// The first actions after this one, in order.
    pub(crate) fn actions_after(&self, after: Uid, limit: usize) -> Vec<ActionDescription> {
        let engine = self.engine.borrow();
        let views = engine.actions();
        let mut views: Vec<_> = views
            .filter(|view| view.path.root() > Some(after))
            .collect();
        views.sort_by_key(|view| view.path.root());
        views.truncate(limit);
        views.iter().map(|view| self.part(view)).collect()
    }

    /// The first locks after this object's, in order.
    pub(crate) fn locks_after(
        &self,
        after: Uid,
        limit: usize,
        contended: bool,
    ) -> Vec<LockDescription> {
        let engine = self.engine.borrow();
        // It is locked by the very call that asks.
        let manager = Uid::connection_manager(self.registry.me.node);
        let wanted = |view: &LockView| {
            let fits = !contended || !view.waiters.is_empty();
            view.uid > after && view.uid != manager && fits
        };
        let mut views: Vec<_> = engine.locks().filter(wanted).collect();
        views.sort_by_key(|view| view.uid);
        views.truncate(limit);
        views.iter().map(|view| self.lock(view)).collect()
    }

    /// Who has one object locked and who waits for it.
    pub(crate) fn locks_of(&self, object: Uid) -> LockDescription {
        let engine = self.engine.borrow();
        let view = engine.locks().find(|view| view.uid == object);
        let view = view.unwrap_or_else(|| LockView {
            uid: object,
            holders: Vec::new(),
            waiters: Vec::new(),
        });
        self.lock(&view)
    }

    /// What is known of the end of an action.
    pub(crate) fn trace(&self, action: Uid) -> Trace {
        match self.phase(action) {
            None if self.engine.borrow().is_part_of(action) => Trace::InFlight,
            None => Trace::None,
            Some(
                Phase::Active
                | Phase::Preparing
                | Phase::Prepared
                | Phase::Voting
                | Phase::Deciding,
            ) => Trace::InFlight,
            Some(Phase::Aborting) => Trace::Aborted,
            Some(Phase::Installing | Phase::Committing) => Trace::Committed,
        }
    }

    /// Aborts an action's part here, if that is still this shard's to decide.
    pub(crate) fn abort_action(self: &Rc<Self>, action: Uid) -> Abortion {
        let Some(phase) = self.phase(action) else {
            return Abortion::Unknown;
        };
        if let Some(reason) = why_not(phase) {
            return Abortion::Refused(reason.to_owned());
        }
        let from = From {
            peer: self.registry.me,
            shard: RUNNER,
        };
        let message = Box::new(Message::Abort { action, part: None });
        self.feed(Input::Message { from, message });
        match self.phase(action).and_then(why_not) {
            None => Abortion::Done,
            Some(reason) => Abortion::Refused(reason.to_owned()),
        }
    }

    /// How many actions are prepared here.
    pub(super) fn in_doubt(&self) -> u64 {
        let engine = self.engine.borrow();
        let views = engine.actions();
        views.filter(|view| view.phase == Phase::Prepared).count() as u64
    }

    fn phase(&self, action: Uid) -> Option<Phase> {
        let engine = self.engine.borrow();
        let mut views = engine.actions();
        let found = views.find(|view| view.path.root() == Some(action));
        found.map(|view| view.phase)
    }

    fn part(&self, view: &ActionView) -> ActionDescription {
        let now = self.now();
        ActionDescription {
            path: path(&view.path),
            shard: self.handle.index(),
            phase: phase(view.phase),
            coordinator: view.coordinator.map(site),
            callers: view
                .callers
                .iter()
                .copied()
                .map(ActionCaller::from)
                .collect(),
            locks: count(view.locks),
            objects: count(view.objects),
            running: count(view.running),
            waiting: count(view.waiting),
            age: now.remaining(view.began),
            left: view.until.remaining(now),
        }
    }

    fn lock(&self, view: &LockView) -> LockDescription {
        let class = self.class_of(view.uid).ok().flatten();
        LockDescription {
            object: view.uid,
            class: class.map_or(0, |class| class.0),
            shard: self.handle.index(),
            holders: view.holders.iter().map(|view| self.holder(view)).collect(),
            waiters: view.waiters.iter().map(|view| self.waiter(view)).collect(),
        }
    }

    fn holder(&self, view: &HolderView) -> LockHolder {
        LockHolder {
            path: path(&view.path),
            mode: mode(view.mode),
            retained: view.retained,
            prepared: view.prepared,
            age: self.since(view.since),
        }
    }

    fn waiter(&self, view: &WaiterView) -> LockWaiter {
        LockWaiter {
            path: path(&view.path),
            mode: mode(view.mode),
            caller: view.caller.into(),
            age: self.since(view.since),
            blockers: view.blockers.iter().map(path).collect(),
        }
    }

    fn since(&self, begin: Time) -> Duration {
        self.now().remaining(begin)
    }
}

/// Why an action in this phase cannot be aborted by hand.
fn why_not(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Active | Phase::Aborting | Phase::Voting => None,
        Phase::Preparing | Phase::Prepared => {
            Some("it is prepared here, so that only its coordinator can end it")
        }
        Phase::Deciding => Some("the decision to commit is on its way to the disk"),
        Phase::Installing | Phase::Committing => Some("it is committed"),
    }
}

fn path(path: &Path) -> ActionPath {
    ActionPath {
        actions: path.whole().to_vec(),
        enclosing: u16::try_from(path.enclosing()).unwrap_or(u16::MAX),
    }
}

fn phase(phase: Phase) -> ActionPhase {
    match phase {
        Phase::Active => ActionPhase::Active,
        Phase::Aborting => ActionPhase::Aborting,
        Phase::Preparing => ActionPhase::Preparing,
        Phase::Prepared => ActionPhase::Prepared,
        Phase::Installing => ActionPhase::Installing,
        Phase::Voting => ActionPhase::Voting,
        Phase::Deciding => ActionPhase::Deciding,
        Phase::Committing => ActionPhase::Committing,
    }
}

fn mode(mode: Mode) -> LockMode {
    match mode {
        Mode::Read => LockMode::Read,
        Mode::Upgrade => LockMode::Upgrade,
        Mode::Write => LockMode::Write,
    }
}

fn site(site: Site) -> ActionSite {
    ActionSite {
        node: site.node.0,
        shard: site.shard,
    }
}

pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
