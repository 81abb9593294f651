//! The shell of the binding machine: finds where an object runs and keeps the way there.
//!
//! The decisions (when to resolve, whom to let wait, when a stale answer deserves one retry, how
//! long to pause after a loss) are `partha_core::binding`'s. Here is what it takes to resolve:
//! the object's own node where it is this process, the naming service's address for the root
//! context, the name server's hint for the binder, the binder for everything else.

mod handle;
mod nearest;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::future::BoxFuture;
use partha_core::binding::{Attempt, Binding as Machine, HOPS_MAX, Hops, Jitter, Step, Why};
use partha_core::id::{ClassId, NodeId, Peer, Uid};
use partha_core::time::Time;
use tokio::sync::{Notify, oneshot};

use crate::abi::Transient;
use crate::capability::Capability;
use crate::client::Client;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::net::connection::{Connection, lock};
use crate::shard::{Initiated, Job, ShardHandle};
use crate::system::{Cid, ConnectionManager};

pub use handle::BindingHandle;
pub(crate) use nearest::Near;

/// Where calls of an object go; the last owner to let go of it gives the binding back.
pub(crate) type Route = Arc<Bound>;

/// A binding made at the object's node.
pub(crate) enum Bound {
    /// At this process.
    Local {
        shard: ShardHandle,
        object: Uid,
        user: Peer,
        /// See [`Bound::is_cohort`].
        cohort: bool,
        /// See [`Bound::is_group`].
        group: bool,
    },
    /// At another one; the CID is what `terminate` gives back.
    Remote {
        connection: Arc<Connection>,
        cid: Cid,
        /// See [`Bound::is_cohort`].
        cohort: bool,
        /// See [`Bound::is_group`].
        group: bool,
    },
}

/// The binding of one object in one client; shared by all references to it.
///
/// What each call looks at is together in front: a client of many objects waits for the cache
/// with each of them.
#[repr(C)]
pub(crate) struct Binding {
    client_id: u64,
    object: Uid,
    machine: Mutex<Machine<Route>>,
    /// Something failed since a call last worked.
    troubled: AtomicBool,
    class: ClassId,
    epoch: Instant,
    changed: Notify,
    /// The words for the machine's latest failure.
    failure: Mutex<Option<Box<SystemError>>>,
    /// Who else has the object.
    nearest: nearest::Nearest,
}

impl Binding {
    pub(crate) fn new(client_id: u64, object: Uid, class: ClassId) -> Self {
        Self {
            client_id,
            object,
            machine: Mutex::new(Machine::new()),
            troubled: AtomicBool::new(false),
            class,
            epoch: Instant::now(),
            changed: Notify::new(),
            failure: Mutex::new(None),
            nearest: nearest::Nearest::default(),
        }
    }

    pub(crate) fn belongs_to(&self, client: &Client) -> bool {
        self.client_id == client.id()
    }

    pub(crate) fn object(&self) -> Uid {
        self.object
    }

    /// The way to the object if it is known; costs a lock.
    pub(crate) fn cached(&self) -> Option<(Route, u64)> {
        let mut machine = lock(&self.machine);
        let mut attempt = Attempt::default();
        // Asking for the place first: `want` on an unbound machine would begin a round.
        machine.place()?;
        // While bound the time makes no difference, so the clock is not read.
        let Step::Go { generation } = machine.want(Time(0), &mut attempt) else {
            return None;
        };
        let route = machine.place().filter(|route| route.is_usable()).cloned();
        route.map(|route| (route, generation))
    }

    /// Resolves if need be; errors are those of finding the object.
    pub(crate) async fn ensure(&self, client: &Client) -> Result<()> {
        self.route(client, &mut Attempt::default(), None)
            .await
            .map(drop)
    }

    /// The way to the object, found if need be. `step` is what the machine said last.
    pub(crate) async fn route(
        &self,
        client: &Client,
        attempt: &mut Attempt,
        step: Option<Step>,
    ) -> Result<(Route, u64)> {
        let mut next = step;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // What was to be waited for may have happened since that was said.
            let step = match next.take().filter(|step| *step != Step::Wait) {
                Some(step) => step,
                None => lock(&self.machine).want(self.now(), attempt),
            };
            match step {
                Step::Go { generation } => {
                    let place = lock(&self.machine).place().cloned();
                    if let Some(route) = place {
                        if route.is_usable() {
                            return Ok((route, generation));
                        }
                        self.lost(generation);
                    }
                }
                Step::Wait => changed.await,
                Step::Fail(why) => return Err(self.failed(why)),
                Step::Resolve { pause } => {
                    let mut round = Round {
                        binding: self,
                        attempt: *attempt,
                        ended: false,
                    };
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    let found = self.resolve(client).await;
                    next = Some(round.end(found, attempt));
                }
            }
        }
    }

    /// The object was not where it was thought to be.
    pub(crate) fn stale(
        &self,
        client: &Client,
        generation: u64,
        attempt: &mut Attempt,
        error: &SystemError,
    ) -> Step {
        client.locator().moved().forget(self.object);
        *lock(&self.failure) = Some(Box::new(error.clone()));
        let step = lock(&self.machine).stale(self.now(), generation, attempt);
        self.changed.notify_waiters();
        step
    }

    /// The object has moved, as the error says.
    pub(crate) fn moved(
        &self,
        client: &Client,
        generation: u64,
        attempt: &mut Attempt,
        error: &SystemError,
    ) -> Step {
        let mut moves = 0;
        if let Some(to) = error.moved() {
            client.locator().moved().note(self.object, to);
            moves = to.moves;
        }
        // It is the answer if following leads nowhere.
        *lock(&self.failure) = Some(Box::new(error.clone()));
        let step = lock(&self.machine).moved(self.now(), generation, moves, attempt);
        self.changed.notify_waiters();
        step
    }

    /// The connection broke.
    pub(crate) fn lost(&self, generation: u64) {
        self.troubled.store(true, Ordering::Relaxed);
        lock(&self.machine).lost(self.now(), generation, jitter());
        self.changed.notify_waiters();
    }

    /// A call was answered.
    pub(crate) fn worked(&self, generation: u64) {
        if self.troubled.load(Ordering::Relaxed) {
            self.troubled.store(false, Ordering::Relaxed);
            lock(&self.machine).worked(generation);
        }
    }

    fn failed(&self, why: Why) -> SystemError {
        let known = lock(&self.failure).as_deref().cloned();
        known.unwrap_or_else(|| {
            let kind = match why {
                Why::NoSuchObject | Why::NotThere => ErrorKind::NoSuchObject,
                Why::Unreachable => ErrorKind::Unreachable,
                Why::Wandering => ErrorKind::Moved,
            };
            SystemError::new(kind, format!("object {}", self.object))
        })
    }

    /// Boxed, since finding an object takes calls of other objects, which are to be found first.
    fn resolve<'a>(&'a self, client: &'a Client) -> BoxFuture<'a, Result<Route>> {
        Box::pin(self.follow(client))
    }

    /// Finds the object from where it is thought to be, by what those say that it has left.
    async fn follow(&self, client: &Client) -> Result<Route> {
        let (mut hops, mut forgotten) = (Hops::default(), 0);
        let mut elsewhere = false;
        loop {
            let error = match self.find(client, elsewhere).await {
                Ok(route) => return Ok(route),
                Err(error) => error,
            };
            let whereabouts = client.locator().moved();
            match error.moved() {
                Some(to) => {
                    let Some(pause) = hops.follow(to.moves) else {
                        // What is remembered may be wrong: without it the next one asks elsewhere.
                        whereabouts.forget(self.object);
                        return Err(error);
                    };
                    whereabouts.note(self.object, to);
                    // A copy that is here and does not lead has said so.
                    elsewhere = to.node != client.me().node;
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                None if error.kind() == ErrorKind::NoSuchObject
                    && whereabouts.of(self.object).is_some()
                    && forgotten < HOPS_MAX =>
                {
                    whereabouts.forget(self.object);
                    forgotten += 1;
                    elsewhere = false;
                }
                None => return Err(error),
            }
        }
    }

    async fn find(&self, client: &Client, elsewhere: bool) -> Result<Route> {
        let here = (!elsewhere).then(|| client.local_shard(self.object));
        if let Some(shard) = here.flatten() {
            let (answer, initiated) = oneshot::channel();
            let (object, class, caller) = (self.object, self.class, client.me());
            shard.post(Job::Initiate {
                object,
                class,
                caller,
                answer,
            });
            let gone = |_| SystemError::new(ErrorKind::Draining, "this node is shutting down");
            let Initiated { cohort, copies, .. } = initiated.await.map_err(gone)??;
            let group = !copies.is_empty();
            self.nearest.learn(copies);
            let user = caller;
            return Ok(Arc::new(Bound::Local {
                shard,
                object,
                user,
                cohort,
                group,
            }));
        }
        let connection = client.connection_for(self.object).await?;
        let manager = Capability::manager(connection.clone());
        let manager = ConnectionManager::from_capability(manager);
        let bound = manager.initiate(client, self.object, self.class.0).await;
        let bound = bound.map_err(|error| initiate_error(error, &connection))?;
        let (cid, cohort, group) = (bound.cid, bound.cohort, !bound.copies.is_empty());
        self.nearest.learn(bound.copies.into_iter().map(NodeId));
        Ok(Arc::new(Bound::Remote {
            connection,
            cid,
            cohort,
            group,
        }))
    }

    fn now(&self) -> Time {
        let nanos = self.epoch.elapsed().as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Bound {
    /// The object has copies, and whoever leads them next goes on with what actions have of it.
    pub(crate) fn is_cohort(&self) -> bool {
        match self {
            Self::Local { cohort, .. } | Self::Remote { cohort, .. } => *cohort,
        }
    }

    /// The object was led by one of its copies when it was bound, the only one perhaps.
    pub(crate) fn is_group(&self) -> bool {
        match self {
            Self::Local { group, .. } | Self::Remote { group, .. } => *group,
        }
    }

    fn is_usable(&self) -> bool {
        match self {
            Self::Local { .. } => true,
            Self::Remote { connection, .. } => connection.is_usable(),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        match self {
            Self::Local {
                shard,
                object,
                user,
                ..
            } => {
                let (object, caller) = (*object, *user);
                shard.post(Job::Terminate { object, caller });
            }
            Self::Remote {
                connection, cid, ..
            } if connection.is_usable() => {
                crate::manager::terminate(connection, cid);
            }
            Self::Remote { .. } => {}
        }
    }
}

/// A round of resolution; if its future is dropped, the next call makes another.
struct Round<'a> {
    binding: &'a Binding,
    attempt: Attempt,
    ended: bool,
}

impl Round<'_> {
    fn end(&mut self, found: Result<Route>, attempt: &mut Attempt) -> Step {
        self.ended = true;
        let result = match found {
            Ok(route) => {
                *lock(&self.binding.failure) = None;
                Ok(route)
            }
            Err(error) => {
                let why = match error.kind() {
                    ErrorKind::NoSuchObject | ErrorKind::WrongClass => Why::NoSuchObject,
                    _ => Why::Unreachable,
                };
                *lock(&self.binding.failure) = Some(Box::new(error));
                self.binding.troubled.store(true, Ordering::Relaxed);
                Err(why)
            }
        };
        let now = self.binding.now();
        let step = lock(&self.binding.machine).resolved(now, attempt, result, jitter());
        self.binding.changed.notify_waiters();
        step
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.binding.machine).gave_up(&self.attempt);
            self.binding.changed.notify_waiters();
        }
    }
}

fn initiate_error(
    error: crate::system::connection_manager::InitiateError,
    connection: &Connection,
) -> SystemError {
    use crate::system::connection_manager::InitiateError;
    match error {
        InitiateError::NoSuchObject(error) => {
            let detail = format!(
                "{} does not have object {}",
                connection.peer_text(),
                error.object
            );
            SystemError::new(ErrorKind::NoSuchObject, detail)
        }
        InitiateError::WrongClass(error) => {
            let detail = format!(
                "object {} at {} is of class {}, not {}",
                error.object,
                connection.peer_text(),
                error.found_name,
                ClassId(error.wanted)
            );
            SystemError::new(ErrorKind::WrongClass, detail)
        }
        InitiateError::System(error) => error,
    }
}

/// The shard of an object at a peer.
pub(crate) fn shard_at(object: Uid, connection: &Connection) -> u16 {
    shard_of(object, connection.hello().shards)
}

fn jitter() -> Jitter {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let count = CALLS.fetch_add(1, Ordering::Relaxed);
    Jitter(RandomState::new().hash_one(count) as u16)
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binding({})", self.object)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_happens_before_a_call_waits_for_it_is_not_missed() {
        const LONG: Duration = Duration::from_secs(60);
        let client = Client::builder().build().unwrap();
        let node = NodeId(7);
        let binding = Binding::new(client.id(), Uid { node, local: 8 }, ClassId(9));
        let (mut first, mut second) = (Attempt::default(), Attempt::default());
        let resolves = lock(&binding.machine).want(Time(0), &mut first);
        assert!(matches!(resolves, Step::Resolve { .. }));
        let waits = lock(&binding.machine).want(Time(0), &mut second);
        assert_eq!(waits, Step::Wait);
        let nobody = Err(Why::Unreachable);
        lock(&binding.machine).resolved(Time(0), &mut first, nobody, Jitter(0));
        binding.changed.notify_waiters();
        let found = binding.route(&client, &mut second, Some(waits));
        let found = tokio::time::timeout(LONG, found).await;
        let found = found.expect("it waits for what is over");
        assert_eq!(found.err().unwrap().kind(), ErrorKind::Unreachable);
    }
}
