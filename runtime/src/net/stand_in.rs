//! A connection's task, and the caller who stands in for it.
//!
//! A client with one call under way waits for one thing: its answer. If the connection's task took
//! it, it would wake the caller, who has its turn later; so the caller is woken in the task's
//! place and serves the connection itself, which finds the answer. Whoever serves polls the same
//! future, one at a time. With more calls under way, or none, it is the task.
//!
//! A caller may be alive and yet not come: what it waits in may be busy with something else.
//! Whatever happens next on the connection wakes the task then, at the latest its next look at the
//! clock.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::runtime::{Handle, Id};

use super::connection::{Connection, lock};

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Nobody has been woken since it was served last.
const NOBODY: u8 = 0;
/// The task has been woken.
const TASK: u8 = 1;
/// A caller has been woken, to stand in.
const CALLER: u8 = 2;

/// What serves a connection.
pub(crate) struct StandIn {
    /// None once it has ended.
    serving: Mutex<Option<Serving>>,
    /// Somebody came while another one served.
    missed: AtomicBool,
    bell: Arc<Bell>,
    waker: Waker,
    /// Where its timers are.
    runtime: Id,
}

/// Wakes whoever is to serve.
struct Bell {
    connection: Weak<Connection>,
    task: AtomicWaker,
    woken: AtomicU8,
}

/// Ends what serves, if its task is dropped.
struct Ending(Arc<StandIn>);

/// Serves a connection by a task of this runtime, until that ends.
pub(crate) fn spawn(
    connection: &Arc<Connection>,
    serving: impl Future<Output = ()> + Send + 'static,
) {
    let bell = Arc::new(Bell {
        connection: Arc::downgrade(connection),
        task: AtomicWaker::new(),
        woken: AtomicU8::new(NOBODY),
    });
    let stand_in = Arc::new(StandIn {
        serving: Mutex::new(Some(Box::pin(serving))),
        missed: AtomicBool::new(false),
        waker: Waker::from(bell.clone()),
        bell,
        runtime: Handle::current().id(),
    });
    connection.served_by(stand_in.clone());
    tokio::spawn(async move {
        let Ending(stand_in) = &Ending(stand_in);
        poll_fn(|task| {
            stand_in.bell.task.register(task.waker());
            stand_in.serve()
        })
        .await;
    });
}

impl StandIn {
    /// A caller has been woken in the task's place, and has not come yet.
    pub(crate) fn is_awaited(&self) -> bool {
        self.bell.woken.load(Ordering::Acquire) == CALLER
    }

    /// The caller has come. If it is elsewhere, where the timers are not, it is the task's turn.
    pub(crate) fn come(&self) {
        if Handle::try_current().is_ok_and(|here| here.id() == self.runtime) {
            // Its end is the task's to see.
            let _ = self.serve();
        } else {
            self.bell.task.wake();
        }
    }

    /// The caller will not come.
    pub(crate) fn excuse(&self) {
        if self.is_awaited() {
            self.bell.task.wake();
        }
    }

    /// Goes on with what there is to do, unless somebody else does.
    fn serve(&self) -> Poll<()> {
        let mut serving = match self.try_lock() {
            Some(serving) => serving,
            None => {
                // It takes the place of what the other one left there: if that has looked already,
                // its lock is seen to be free.
                self.missed.swap(true, Ordering::AcqRel);
                match self.try_lock() {
                    Some(serving) => serving,
                    None => return Poll::Pending,
                }
            }
        };
        // Who was woken until now need not come: this poll sees what for.
        self.bell.woken.swap(NOBODY, Ordering::AcqRel);
        let polled = match serving.as_mut() {
            Some(serving) => serving.as_mut().poll(&mut Context::from_waker(&self.waker)),
            None => Poll::Ready(()),
        };
        let over = if polled.is_ready() {
            serving.take()
        } else {
            None
        };
        drop(serving);
        if over.is_some() || self.missed.swap(false, Ordering::AcqRel) {
            self.bell.task.wake();
        }
        polled
    }

    fn try_lock(&self) -> Option<std::sync::MutexGuard<'_, Option<Serving>>> {
        match self.serving.try_lock() {
            Ok(serving) => Some(serving),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let over = lock(&self.0.serving).take();
        drop(over);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Who was woken before and has not come is not waited for any longer.
        let is_first = self.woken.load(Ordering::Acquire) == NOBODY;
        let connection = is_first.then(|| self.connection.upgrade()).flatten();
        // Noted before it can go: one that goes later sees that it is awaited, and excuses itself.
        let caller = connection.and_then(|connection| {
            connection.only_caller(|| {
                self.woken.swap(CALLER, Ordering::AcqRel);
            })
        });
        match caller {
            Some(caller) => caller.wake(),
            None => {
                self.woken.swap(TASK, Ordering::AcqRel);
                self.task.wake();
            }
        }
    }
}
