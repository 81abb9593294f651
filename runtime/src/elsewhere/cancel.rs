//! The word that nobody waits for a call any more, for a servant that runs elsewhere than on its
//! shard's thread.
//!
//! It is said once and stays said. It stops nobody by itself: a servant that waits is dropped by
//! who runs it, one that computes has to look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::error::{Result, SystemError};

/// Said to all clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    said: AtomicBool,
    told: Notify,
}

impl Cancel {
    /// Says it.
    pub(crate) fn cancel(&self) {
        self.inner.said.store(true, Ordering::Release);
        self.inner.told.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.inner.said.load(Ordering::Acquire)
    }

    /// Ends when it has been said.
    pub(crate) async fn cancelled(&self) {
        loop {
            // Made before the look: what is said between the two wakes it.
            let told = self.inner.told.notified();
            if self.is_cancelled() {
                return;
            }
            told.await;
        }
    }

    /// An error once it has been said.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            let detail = "the call was killed: nobody waits for what its servant does any more";
            return Err(SystemError::servant(detail));
        }
        Ok(())
    }
}
