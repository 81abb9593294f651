//! What a client may know of the binding of one object: whether there is one, and when it breaks.
//!
//! A handle watches; it neither binds nor repairs. It counts as a user of the object as any
//! reference does that was used with the client.

use std::future::Future;
use std::sync::Arc;

use partha_core::id::Peer;

use super::{Binding, Bound};
use crate::error::{ErrorKind, SystemError};
use crate::net::connection::{Connection, lock};
use crate::shard::ShardHandle;

/// The binding of an object by a client: made by [`crate::Ref::binding`].
#[derive(Clone, Debug)]
pub struct BindingHandle {
    binding: Arc<Binding>,
}

/// What a binding hangs on.
#[derive(Clone)]
enum Hold {
    Here(ShardHandle, Peer),
    There(Arc<Connection>),
}

impl BindingHandle {
    pub(crate) fn new(binding: Arc<Binding>) -> Self {
        Self { binding }
    }

    /// The process where the object runs, in the life that the binding was made with; none if
    /// there is no binding now.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        let (_, hold) = self.binding.present()?;
        match hold {
            Hold::Here(_, me) => Some(me),
            Hold::There(connection) => connection.is_open().then(|| connection.peer()),
        }
    }

    /// Waits until the present binding breaks, and says why: the connection broke, the node
    /// stopped or restarted, or a call found the object gone from there. An object that moves
    /// takes its binding along: that does not break it.
    ///
    /// It is about the binding there is when this is called. If there is none it ends at once
    /// and says so: [`crate::Ref::ensure_bound`], or any call, makes one. A later binding is
    /// watched by calling this again. Nothing is asked of the network meanwhile: a peer that
    /// falls silent is noticed by the connection's own heartbeats.
    ///
    /// The future belongs to nobody: it may be awaited in another task, and dropping it loses
    /// nothing. The kind of the error is always [`ErrorKind::BindingBroken`].
    pub fn on_broken(&self) -> impl Future<Output = SystemError> + Send + use<> {
        let binding = self.binding.clone();
        let present = binding.present();
        async move {
            match present {
                Some((generation, hold)) => binding.left(generation, &hold).await,
                None => binding.unbound(),
            }
        }
    }
}

impl Hold {
    /// Waits until nothing can be called there any more.
    async fn breaks(&self) -> SystemError {
        match self {
            Self::Here(shard, _) => {
                shard.stops().await;
                SystemError::new(ErrorKind::BindingBroken, "this node has stopped")
            }
            Self::There(connection) => connection.breaks().await,
        }
    }
}

async fn breaks(hold: Option<&Hold>) -> SystemError {
    match hold {
        Some(hold) => hold.breaks().await,
        None => std::future::pending().await,
    }
}

impl Binding {
    fn present(&self) -> Option<(u64, Hold)> {
        let machine = lock(&self.machine);
        let generation = machine.generation()?;
        let hold = match &**machine.place()? {
            Bound::Local { shard, user, .. } => Hold::Here(shard.clone(), *user),
            Bound::Remote { connection, .. } => Hold::There(connection.clone()),
        };
        Some((generation, hold))
    }

    /// Waits until the binding of this generation, or what it has become, is broken.
    async fn left(&self, generation: u64, hold: &Hold) -> SystemError {
        let mut watched = Some(hold.clone());
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if lock(&self.machine).is_broken(generation) {
                return tokio::select! {
                    biased;
                    reason = breaks(watched.as_ref()) => reason,
                    () = std::future::ready(()) => self.replaced(),
                };
            }
            // None while the object is being followed.
            watched = self.present().map(|(_, hold)| hold);
            tokio::select! {
                biased;
                reason = breaks(watched.as_ref()) => return reason,
                () = changed => {}
            }
        }
    }

    fn replaced(&self) -> SystemError {
        let detail = match lock(&self.failure).as_ref() {
            Some(error) => format!("object {} was not found there: {error}", self.object),
            None => format!("object {}: calls do not go there any more", self.object),
        };
        SystemError::new(ErrorKind::BindingBroken, detail)
    }

    fn unbound(&self) -> SystemError {
        let detail = format!(
            "object {} is not bound: bind it with `ensure_bound`, or call it, and watch it then",
            self.object
        );
        SystemError::new(ErrorKind::BindingBroken, detail)
    }
}
