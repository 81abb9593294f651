//! Counting what is being executed: one [`Ticket`] a call of the peer.
//!
//! A ticket is held by the guard until the `Return` is sent, by the message as long as its
//! parameters are in use, and by the gateway's [`Admission`] as long as the servant runs. The
//! connection's [`Load`] counts tickets, so a call whose question id is long free still counts
//! while its servant runs.
//!
//! capnp-rpc hands a server object nothing but the parameters, so the way from a call to its
//! ticket is the message itself: while [`observe`] runs, a message that is looked at leaves its
//! ticket in a thread-local.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_util::future::{Either, select};

/// Running calls of one connection.
#[derive(Default)]
pub(crate) struct Load {
    handlers: Cell<usize>,
    bytes: Cell<usize>,
    /// The reader, when it waits for a call to end.
    waiting: Cell<Option<Waker>>,
}

impl Load {
    /// Calls being executed.
    pub(crate) fn handlers(&self) -> usize {
        self.handlers.get()
    }

    /// Bytes of their messages.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Wakes `waker` when a call has ended.
    pub(crate) fn wait(&self, waker: &Waker) {
        self.waiting.set(Some(waker.clone()));
    }
}

/// One call of the peer that is being executed, until dropped.
struct Ticket {
    load: Rc<Load>,
    bytes: usize,
    cancelled: Cell<bool>,
    cancel_waker: RefCell<Option<Waker>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.load.handlers.set(self.load.handlers.get() - 1);
        self.load.bytes.set(self.load.bytes.get() - self.bytes);
        if let Some(waker) = self.load.waiting.take() {
            waker.wake();
        }
    }
}

/// Proof that a call was admitted by its connection's limits; hold it while the servant runs.
///
/// As long as any clone lives the call counts as executing, even if the peer has long finished
/// or disconnected. Dropping the last one lets the next waiting call in.
#[derive(Clone)]
pub struct Admission(Rc<Ticket>);

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("cancelled", &self.0.cancelled.get())
            .finish()
    }
}

impl Admission {
    pub(crate) fn new(load: &Rc<Load>, bytes: usize) -> Self {
        load.handlers.set(load.handlers.get() + 1);
        load.bytes.set(load.bytes.get() + bytes);
        Self(Rc::new(Ticket {
            load: Rc::clone(load),
            bytes,
            cancelled: Cell::new(false),
            cancel_waker: RefCell::new(None),
        }))
    }

    /// Whether the peer no longer wants the result.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.get()
    }

    pub(crate) fn cancel(&self) {
        self.0.cancelled.set(true);
        if let Some(waker) = self.0.cancel_waker.take() {
            waker.wake();
        }
    }

    /// Completes when the peer no longer wants the result; one waiter a call.
    pub(crate) async fn cancelled(&self) {
        poll_fn(|cx| {
            if self.is_cancelled() {
                return Poll::Ready(());
            }
            *self.0.cancel_waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Waits for the result of a call, or drops its future when the client finishes the call.
pub(crate) async fn until_cancelled<T>(
    result: impl Future<Output = capnp::Result<T>>,
    admission: Option<Admission>,
) -> capnp::Result<T> {
    let Some(admission) = admission else {
        return result.await;
    };
    match select(pin!(result), pin!(admission.cancelled())).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(capnp::Error::failed("cancelled by the caller".to_owned())),
    }
}

/// What is known of a message that was looked at under [`observe`].
pub(crate) struct Seen {
    /// Bytes it had on the wire.
    pub(crate) size_bytes: usize,
    /// The ticket, if it is a call.
    pub(crate) admission: Option<Admission>,
}

thread_local! {
    static OBSERVING: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// Runs `look`, which looks at one message, and says which message of a guarded connection that
/// was; none if it came from this process.
pub(crate) fn observe<T>(look: impl FnOnce() -> T) -> (T, Option<Seen>) {
    OBSERVING.set(true);
    let result = look();
    OBSERVING.set(false);
    (result, SEEN.take())
}

/// Called by a message that is looked at.
pub(crate) fn looked_at(size_bytes: usize, admission: Option<&Admission>) {
    if OBSERVING.get() {
        SEEN.set(Some(Seen {
            size_bytes,
            admission: admission.cloned(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_until_the_last_clone_is_gone() {
        let load = Rc::new(Load::default());
        let first = Admission::new(&load, 100);
        let held_by_servant = first.clone();
        let second = Admission::new(&load, 20);
        assert_eq!((load.handlers(), load.bytes()), (2, 120));
        drop(first);
        assert_eq!((load.handlers(), load.bytes()), (2, 120));
        drop(held_by_servant);
        assert_eq!((load.handlers(), load.bytes()), (1, 20));
        drop(second);
        assert_eq!((load.handlers(), load.bytes()), (0, 0));
    }

    #[test]
    fn only_an_observed_look_is_seen() {
        let load = Rc::new(Load::default());
        let admission = Admission::new(&load, 8);
        looked_at(8, Some(&admission));
        assert!(observe(|| ()).1.is_none());
        let seen = observe(|| looked_at(8, Some(&admission)))
            .1
            .expect("it was looked at");
        assert_eq!(seen.size_bytes, 8);
        seen.admission.expect("a call").cancel();
        assert!(admission.is_cancelled());
    }
}
