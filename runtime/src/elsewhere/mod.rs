//! Servants that run elsewhere than on their shard's thread: on a thread of their own
//! (`#[blocking]` in the IDL), or in a process of their own ([`ActivationPolicy`]).
//!
//! The engine, the store, locks and actions stay where they are. What leaves is an [`Order`]: the
//! parameters and an encoded copy of the state; what comes back is the answer and, after a write,
//! the encoded new state, which the shard takes for the object's. So nothing is shared with a
//! servant that is given up: whoever drops the future of a call has killed the call, and the
//! object can be used again at once.
//!
//! The two policies for a new activation, a new server or an existing one, are Arjuna's
//! (`ObjectManager.activate`).

mod blocking;
mod cancel;
pub(crate) mod servers;
#[cfg(test)]
mod tests;
mod watch;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use partha_core::id::Uid;
use partha_wire::Message;

pub use self::blocking::Runaway;
pub(crate) use self::cancel::Cancel;
pub use self::servers::{ActivationPolicy, ServerReport};
pub use self::watch::Stuck;
pub(crate) use self::watch::{Polls, Watch};

use self::blocking::Blocking;
use self::servers::{Key, Servers};
use self::watch::Watched;
use crate::abi::{Call, Class, End, Finished, Method};
use crate::context::Context;
use crate::error::{ErrorKind, Result, SystemError};
use crate::rows::Changes;
use crate::shard::{State, decode, encode, panic_text};

/// What a process knows of servants that run elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    pub(crate) blocking: Arc<Blocking>,
    pub(crate) servers: Arc<Servers>,
    pub(crate) watched: Watched,
}

/// Where a servant runs that does not run on its shard's thread.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// On a thread of its own.
    Thread,
    /// In a server process.
    Server(Key),
}

/// A servant at work elsewhere; killed by being dropped.
pub(crate) type Away = Pin<Box<dyn Future<Output = Result<Finished>>>>;

/// A call that is to be executed elsewhere.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) class: Class,
    /// The index of the method.
    pub(crate) method: usize,
    pub(crate) parameters: Message,
    /// A copy of the object's state; none for an object that is not persistent.
    pub(crate) state: Option<Bytes>,
    pub(crate) context: Context,
}

/// What comes back.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) end: End,
    pub(crate) changes: Changes,
    /// The state after a call that changes it and has returned.
    pub(crate) state: Option<Bytes>,
}

impl Elsewhere {
    pub(crate) fn new(blocking_max: usize, servers: Servers) -> Self {
        Self {
            blocking: Arc::new(Blocking::new(blocking_max)),
            servers: Arc::new(servers),
            watched: Watched::default(),
        }
    }

    /// Where a servant is to run, if not here.
    pub(crate) fn place(&self, class: &Class, method: &Method, object: Uid) -> Option<Place> {
        let info = class.info();
        let key = match info.persistent {
            true => self.servers.key(info, object),
            false => None,
        };
        match key {
            Some(key) => Some(Place::Server(key)),
            None => method.blocking.then_some(Place::Thread),
        }
    }

    /// Has a call executed; dropping the future kills it. `state` is the object's own, which
    /// stays where it is.
    pub(crate) fn run(&self, place: Place, mut order: Order, state: Option<State>) -> Away {
        let class = order.class.clone();
        match place {
            Place::Thread => {
                let (blocking, cancel) = (self.blocking.clone(), Cancel::default());
                order.context = order.context.cancelled_by(&cancel);
                Box::pin(async move {
                    let done = blocking.run(order, cancel, None).await?;
                    done.arrived(&class, state)
                })
            }
            Place::Server(key) => {
                let servers = self.servers.clone();
                Box::pin(async move {
                    let done = servers::execute(&servers, key, order).await?;
                    done.arrived(&class, state)
                })
            }
        }
    }

    /// The image of an object is dropped, for whatever reason.
    pub(crate) fn dropped(&self, object: Uid) {
        self.servers.dropped(object);
    }

    /// An object has left memory in good order.
    pub(crate) fn passivated(&self, object: Uid) {
        self.servers.passivated(object);
    }
}

impl Done {
    /// Back at the shard, where `before` is the object's state.
    fn arrived(self, class: &Class, before: Option<State>) -> Result<Finished> {
        let Self {
            end,
            changes,
            state,
        } = self;
        let state = match state {
            Some(encoded) => Some(State::from(decode(class, &encoded)?)),
            None => before,
        };
        Ok(Finished {
            state,
            end,
            changes,
            // Nobody here can tell.
            alone: false,
        })
    }
}

/// Executes a call on the thread that polls this; its panics are caught. Ends without a result
/// as soon as the call is killed and its servant waits for something.
pub(crate) async fn drive(order: Order, cancel: &Cancel) -> Result<Done> {
    let Order {
        class,
        method,
        parameters,
        state,
        context,
    } = order;
    let of_class = class.info();
    let mutating = of_class.methods[method].mutating;
    let state = match &state {
        Some(encoded) => Some(State::from(decode(&class, encoded)?)),
        None => None,
    };
    let call = Call::new(parameters, state, context);
    let servant = AssertUnwindSafe(class.skeleton().dispatch(method, call)).catch_unwind();
    let finished = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(killed()),
        finished = servant => finished,
    };
    let finished = finished.map_err(|panic| {
        let (text, name) = (panic_text(&*panic), of_class.methods[method].name);
        SystemError::servant(format!("{}.{name} panicked: {text}", of_class.name))
    })?;
    let returned = matches!(finished.end, End::Returned(_));
    let state = match finished.state.filter(|_| mutating && returned) {
        Some(state) => Some(encode(&*state)?),
        None => None,
    };
    Ok(Done {
        end: finished.end,
        changes: finished.changes,
        state,
    })
}

/// What is said of a call that was killed, if anybody asks.
fn killed() -> SystemError {
    SystemError::new(ErrorKind::Servant, "the call was killed")
}
