//! Threads that stand still, as those of a process that got SIGSTOP.
//!
//! A thread that stands does nothing at all: no timer of it runs, no task, no servant. What runs on
//! threads of the test, such as connections of a node's client, is held up by the switchboard.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::net::connection::lock;

/// How long a thread may take until it stands: it ends what it is at.
const STANDS: Duration = Duration::from_secs(10);

/// One pause, which all threads of a node keep until whoever made it ends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pause {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    over: Condvar,
    stands: Notify,
}

#[derive(Debug, Default)]
struct State {
    standing: usize,
    over: bool,
}

impl Pause {
    /// Stands still until the pause is over.
    pub(crate) fn stand(&self) {
        let mut state = lock(&self.inner.state);
        state.standing += 1;
        self.inner.stands.notify_one();
        while !state.over {
            let waited = self.inner.over.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets all go on.
    pub(crate) fn end(&self) {
        lock(&self.inner.state).over = true;
        self.inner.over.notify_all();
    }

    /// Waits until so many stand. False if they do not within the time that work may take which
    /// nobody waits for.
    pub(crate) async fn all_stand(&self, threads: usize) -> bool {
        let standing = async {
            while lock(&self.inner.state).standing < threads {
                self.inner.stands.notified().await;
            }
        };
        tokio::time::timeout(STANDS, standing).await.is_ok()
    }
}
