//! A family of actions as this process runs it: the scope machine with what it takes to act.
//!
//! Everything the machine wants sent is sent after its lock is free: a message to a shard of
//! this very process is handled at once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use partha_core::Ticket;
use partha_core::action::path::{Address, PATH_MAX, Path, Site};
use partha_core::action::scope::{Doom, Family, Over, Send};
use partha_core::id::{NodeId, Peer, Uid};

use super::bonds::Bonds;
use super::error;
use crate::client::Client;
use crate::elsewhere::Cancel;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::actions;
use crate::net::connection::lock;
use crate::shard::{GoesOut, Job, ShardHandle};
use crate::wire::context::{Actions, STACK_MAX, TraceId};
use tokio::sync::oneshot;

/// What the calls of a caller are part of.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// Nothing: a process that runs no action.
    Alone,
    /// No action, but others wait for them.
    Outside(Arc<Outside>),
    /// An action of a family.
    In(Arc<Line>, Uid),
}

/// A servant that serves a call outside of actions.
#[derive(Debug)]
pub(crate) struct Outside {
    /// Who waits, across the boundary; nothing of its own.
    pub(crate) path: Path,
    pub(crate) roots: Arc<Roots>,
    pub(crate) trace: TraceId,
}

/// What all that wait for each other have in common.
#[derive(Debug)]
pub(crate) struct Roots {
    /// Where deadlocks are looked for: this node, or, for a client without one, the node that
    /// its first call goes to.
    pub(crate) home: OnceLock<NodeId>,
    pub(crate) born_ms: u64,
    /// The objects of this process and others that wait.
    pub(crate) stack: Vec<Uid>,
    /// Ends with the servant's call, where it runs apart from its object: then nothing can be
    /// called any more.
    pub(crate) cancel: OnceLock<Cancel>,
}

/// A top-level action that this process runs, or a servant's part of its caller's action.
pub(crate) struct Line {
    client: Client,
    trace: TraceId,
    roots: Arc<Roots>,
    /// When whoever runs the root gives it up.
    until: Instant,
    /// When this process has to be done with its part.
    limit: Instant,
    /// For a servant's part: when its caller stops waiting.
    deadline: Option<Instant>,
    /// The action across the boundary, if this process has a part in it.
    outer: Option<Arc<Self>>,
    /// For a servant's part: the shard whose mirror has to know where else the action is.
    shard: Option<ShardHandle>,
    exit: Option<Exit>,
    state: Mutex<State>,
}

/// The call of an object whose next leader goes on with its actions, and executes the call once
/// more if it has not ended. What its servant has called is aborted before that, so the object's
/// log has to know where it calls, and in which nested action, before it does.
struct Exit {
    ticket: Ticket,
    /// The nested action of all its calls; none where it cannot have one.
    level: Option<Uid>,
    /// Where the log knows of: calls in the nested action, and others.
    left: tokio::sync::Mutex<HashSet<(bool, Address)>>,
}

pub(super) struct State {
    pub(super) family: Family,
    /// Counts what happens, to tell what came after what.
    clock: u64,
    /// What went wrong last at each open level, if trying again may help, and when.
    troubles: HashMap<Uid, (u64, SystemError)>,
    /// Why levels are doomed, in the words of the call that did it.
    causes: HashMap<Uid, SystemError>,
    /// Where the own shard's mirror knows that the action is.
    reached: HashSet<Address>,
    /// The connections that calls of open levels were answered on.
    pub(super) bonds: Bonds,
}

/// How a family begins.
pub(super) struct Beginning {
    pub(super) client: Client,
    pub(super) trace: TraceId,
    pub(super) roots: Arc<Roots>,
    pub(super) until: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) outer: Option<Arc<Line>>,
    pub(super) shard: Option<ShardHandle>,
    /// The servant's call, if the log of its object has to know where it calls, and the nested
    /// action in which it does.
    pub(super) exit: Option<(Ticket, Option<Uid>)>,
    pub(super) family: Family,
}

impl Roots {
    /// Those of an action that nothing waits for.
    pub(super) fn of_process(client: &Client, born_ms: Option<u64>) -> Self {
        let home = client.is_node().then(|| client.me().node);
        Self {
            home: home.map_or_else(OnceLock::new, OnceLock::from),
            born_ms: born_ms.unwrap_or_else(now_ms),
            stack: Vec::new(),
            cancel: OnceLock::new(),
        }
    }

    /// Refuses what comes of a call that was killed.
    pub(super) fn check(&self) -> Result<()> {
        self.cancel.get().map_or(Ok(()), Cancel::check)
    }
}

/// Milliseconds of the wall clock.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// A name for an action that `me` begins. Its counter has its second highest bit set, which
/// those of objects never reach; when it begins again from 0 nobody remembers the first ones.
pub(super) fn new_action(me: Peer) -> Uid {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let bit = 1 << (Uid::COUNTER_BITS - 2);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & (bit - 1);
    Uid::new(me.node, me.incarnation, bit | count)
}

impl Standing {
    fn roots(&self) -> Option<&Arc<Roots>> {
        match self {
            Self::Alone => None,
            Self::Outside(outside) => Some(&outside.roots),
            Self::In(line, _) => Some(&line.roots),
        }
    }

    /// What a call says about actions; its home is still to be filled in if it is not known.
    pub(crate) fn actions(&self, now: Instant) -> Option<Box<Actions>> {
        let roots = self.roots()?;
        let (path, left, carried) = match self {
            Self::Alone => return None,
            Self::Outside(outside) => (outside.path.clone(), Duration::ZERO, false),
            Self::In(line, action) => {
                // An action that has ended has no path: the call is refused before it is sent.
                let path = lock(&line.state).family.path_of(*action)?.clone();
                let left = line.until.saturating_duration_since(now);
                (path, left, line.own_level().is_some())
            }
        };
        Some(Box::new(Actions {
            path,
            left,
            home: roots.home.get().copied().unwrap_or_default(),
            born_ms: roots.born_ms,
            stack: roots.stack.clone(),
            carried,
            followed: false,
        }))
    }

    /// The servant's calls end with it.
    pub(crate) fn cancelled_by(&self, cancel: &Cancel) {
        if let Some(roots) = self.roots() {
            // It is set once, by the one that runs the servant.
            let _ = roots.cancel.set(cancel.clone());
        }
    }

    /// Refuses calls of a program that nests without end, and of a servant whose call was killed.
    pub(crate) fn check_depth(&self) -> Result<()> {
        let Some(roots) = self.roots() else {
            return Ok(());
        };
        roots.check()?;
        let depth = match self {
            Self::Alone => 0,
            Self::Outside(outside) => outside.path.whole().len(),
            Self::In(line, action) => {
                let depth = |state: &State| Some(state.family.path_of(*action)?.whole().len());
                line.look(depth).unwrap_or_default()
            }
        };
        let bounds = [
            ("actions and calls in each other", depth, PATH_MAX),
            (
                "objects that wait for each other",
                roots.stack.len(),
                STACK_MAX,
            ),
        ];
        match bounds.iter().find(|(_, count, limit)| count > limit) {
            Some((what, _, limit)) => {
                let detail = format!("{what}: more than {limit}; is this a recursion?");
                Err(SystemError::new(ErrorKind::Overloaded, detail))
            }
            None => Ok(()),
        }
    }

    /// Whether calls are part of an action.
    pub(crate) fn is_in_action(&self) -> bool {
        match self {
            Self::In(..) => true,
            Self::Alone | Self::Outside(_) => false,
        }
    }

    /// The home, now that a call goes to this node.
    pub(crate) fn home(&self, node: NodeId) -> Option<NodeId> {
        let roots = self.roots()?;
        Some(*roots.home.get_or_init(|| node))
    }

    /// How long a call can be of use.
    pub(crate) fn limit(&self) -> Option<Instant> {
        match self {
            Self::Alone | Self::Outside(_) => None,
            Self::In(line, _) => Some(line.limit),
        }
    }

    /// How much longer the root action has.
    pub(crate) fn left(&self) -> Option<Duration> {
        match self {
            Self::Alone | Self::Outside(_) => None,
            Self::In(line, _) => Some(line.until.saturating_duration_since(Instant::now())),
        }
    }
}

impl Line {
    pub(super) fn new(beginning: Beginning) -> Arc<Self> {
        let Beginning {
            client,
            trace,
            roots,
            until,
            deadline,
            outer,
            shard,
            exit,
            family,
        } = beginning;
        let exit = exit.map(|(ticket, level)| Exit {
            ticket,
            level,
            left: tokio::sync::Mutex::default(),
        });
        let limit = deadline.map_or(until, |deadline| deadline.min(until));
        let state = State {
            family,
            clock: 0,
            troubles: HashMap::new(),
            causes: HashMap::new(),
            reached: HashSet::new(),
            bonds: Bonds::default(),
        };
        Arc::new(Self {
            client,
            trace,
            roots,
            until,
            limit,
            deadline,
            outer,
            shard,
            exit,
            state: Mutex::new(state),
        })
    }

    /// Whether it is a servant's part of its caller's action.
    pub(crate) fn is_servants(&self) -> bool {
        self.shard.is_some()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn trace(&self) -> TraceId {
        self.trace
    }

    pub(super) fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn limit(&self) -> Instant {
        self.limit
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does something with the machine, then sends what it wants sent.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> (T, Vec<Send>)) -> T {
        let (result, sends, outer) = {
            let mut state = lock(&self.state);
            let (result, sends) = act(&mut state);
            (result, sends, state.family.take_outer())
        };
        for (address, message) in sends {
            tracing::trace!(?address, ?message, "told");
            actions::tell(&self.client, address, message);
        }
        for (action, why) in outer {
            if let Some(line) = &self.outer {
                line.doom(action, why);
            }
        }
        result
    }

    /// An answer within has shown that an action of this family has to be aborted.
    fn doom(&self, action: Uid, why: Doom) {
        self.with(|state| ((), state.family.doom(action, why)));
    }

    pub(super) fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&lock(&self.state))
    }

    /// Where the action is run, or the shard of the servant's own call.
    pub(super) fn own_site(&self) -> Address {
        Address::Site(Site {
            node: self.client.me().node,
            shard: self.shard.as_ref().map_or(0, ShardHandle::index),
        })
    }

    /// The mirror of the servant's own call has to know where else its action is, so that an
    /// abort gets there whatever becomes of the servant.
    pub(super) fn reaching(&self, to: Address) {
        let Some(shard) = &self.shard else { return };
        let own = self.own_site();
        let root = {
            let mut state = lock(&self.state);
            let is_new = to != own && state.reached.insert(to);
            state.family.path().root().filter(|_| is_new)
        };
        if let Some(action) = root {
            shard.post(Job::Reached { action, to });
        }
    }

    /// The nested action in which the servant makes all its calls, if it has one for that.
    pub(super) fn own_level(&self) -> Option<Uid> {
        self.exit.as_ref().and_then(|exit| exit.level)
    }

    /// Waits until whoever may have to execute the servant's call once more knows that it calls
    /// there. To be done before anything is called.
    ///
    /// # Errors
    /// `Fenced` if somebody else leads its object by now.
    pub(crate) async fn goes_out(&self, to: Address) -> Result<()> {
        self.goes_out_in(self.own_level(), to).await
    }

    /// The same of what is called outside of the servant's own nested action: it cannot be taken
    /// back, so the servant's call is not executed once more.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn goes_out_for_good(&self, to: Address) -> Result<()> {
        self.goes_out_in(None, to).await
    }

    async fn goes_out_in(&self, level: Option<Uid>, to: Address) -> Result<()> {
        if let (Some(exit), Some(shard)) = (&self.exit, &self.shard) {
            let mut left = exit.left.lock().await;
            let way = (level.is_some(), to);
            if !left.contains(&way) {
                let (leave, may) = oneshot::channel();
                let ticket = exit.ticket;
                shard.post(Job::GoesOut(GoesOut {
                    ticket,
                    level,
                    to,
                    leave,
                }));
                may.await.map_err(|_| {
                    let detail = "another copy of the servant's object leads";
                    SystemError::new(ErrorKind::Fenced, detail)
                })?;
                left.insert(way);
            }
        }
        match &self.outer {
            Some(outer) => Box::pin(outer.goes_out_for_good(to)).await,
            None => Ok(()),
        }
    }

    /// The servant has ended, and with it the nested action of all its calls: that it is committed
    /// is told by the shard, when the log has the servant's answer.
    ///
    /// # Errors
    /// Why what was called has to be undone: it is aborted.
    pub(super) fn settle(&self, well: bool) -> Result<()> {
        let Some(level) = self.own_level() else {
            return Ok(());
        };
        self.with(|state| {
            let mut sends = state.check_bonds(level, None);
            let merged = match well {
                true => state.family.end_nested(level, true),
                false => Err(Over::Ended),
            };
            let Err(over) = merged else {
                return (Ok(()), sends);
            };
            let refused = match well {
                true => Err(state.refused(level, over)),
                false => Ok(()),
            };
            let aborted = state.family.end_nested(level, false);
            sends.extend(aborted.expect("an abort is never refused"));
            (refused, sends)
        })
    }
}

impl State {
    /// Something begins now.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Something at the level went wrong that may go well when it is tried again.
    pub(super) fn trouble(&mut self, action: Uid, error: &SystemError) {
        if error::is_passing(error) {
            let now = self.tick();
            self.troubles.insert(action, (now, error.clone()));
        }
    }

    /// Something at the level that began at `began` went well: what was wrong before has been
    /// got over.
    pub(super) fn well(&mut self, action: Uid, began: u64) {
        if self
            .troubles
            .get(&action)
            .is_some_and(|(at, _)| *at < began)
        {
            self.troubles.remove(&action);
        }
    }

    /// Notes why a level is doomed, if it has just become so.
    pub(super) fn note_cause(&mut self, action: Uid, error: impl FnOnce() -> Option<SystemError>) {
        let Some((doomed, why)) = self.family.doomed(action) else {
            return;
        };
        let cause = || error().unwrap_or_else(|| error::doomed(doomed, why));
        self.causes.entry(doomed).or_insert_with(cause);
    }

    /// Dooms the outermost of the level and those it is in that has used a connection which is
    /// broken, or that leads to another life of `peer`. To be asked before anything is done in
    /// the level.
    pub(super) fn check_bonds(&mut self, action: Uid, peer: Option<Peer>) -> Vec<Send> {
        let path = self.family.path_of(action);
        let levels = path.map_or(&[][..], |path| path.own());
        let Some((level, bond)) = self.bonds.broken(levels, peer) else {
            return Vec::new();
        };
        let (why, site) = (bond.broken(), bond.site());
        let sends = self.family.doom(level, Doom::Lost(site));
        self.note_cause(level, || Some(why));
        sends
    }

    /// Why the level can only abort, if so.
    pub(super) fn doomed(&self, action: Uid) -> Option<(Uid, Doom, SystemError)> {
        let (doomed, why) = self.family.doomed(action)?;
        let known = self.causes.get(&doomed).cloned();
        let error = known.unwrap_or_else(|| error::doomed(doomed, why));
        Some((doomed, why, error))
    }

    /// Why the level fails, if it is not for its program alone.
    pub(super) fn failure(&self, action: Uid) -> Option<SystemError> {
        let trouble = || self.troubles.get(&action).map(|(_, error)| error.clone());
        self.doomed(action)
            .map(|(_, _, error)| error)
            .or_else(trouble)
    }

    /// What a call, an action or an end is told that cannot be.
    pub(super) fn refused(&self, action: Uid, over: Over) -> SystemError {
        match self.doomed(action) {
            Some((doomed, _, cause)) => {
                let kind = cause.kind();
                let detail = format!("action {doomed} can only abort: {}", cause.detail());
                SystemError::new(kind, detail).with_victim(Some(doomed))
            }
            None => error::refused(action, over),
        }
    }

    pub(super) fn forget(&mut self, action: Uid) {
        self.troubles.remove(&action);
        self.causes.remove(&action);
        self.bonds.forget(action);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.look(|state| state.family.path().clone());
        write!(f, "Line({path:?})")
    }
}
