//! The safe owner of one `RpcSystem`.
//!
//! capnp-rpc's calls hold their connection and the connection holds its calls. If the task of an
//! `RpcSystem` is aborted, or its runtime dropped, while a call is in flight, that ring stays: the
//! call's future, all it captured and the bootstrap object live for ever. One poll of the
//! `Disconnector` takes the ring apart, so [`SafeRpc`] does that when it is dropped.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use capnp::capability::FromClientHook;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{Disconnector, RpcSystem};

/// Owns an `RpcSystem`; awaiting it runs the connection, dropping it ends all its calls.
#[must_use = "futures do nothing unless polled"]
pub struct SafeRpc {
    rpc: RpcSystem<Side>,
    disconnector: Option<Disconnector<Side>>,
}

impl SafeRpc {
    /// Takes `rpc`, over any two-party network.
    pub fn new(rpc: RpcSystem<Side>) -> Self {
        let disconnector = Some(rpc.get_disconnector());
        Self { rpc, disconnector }
    }

    /// The bootstrap capability of `side`; the other side's is asked for over the connection.
    pub fn bootstrap<T: FromClientHook>(&mut self, side: Side) -> T {
        self.rpc.bootstrap(side)
    }

    /// Ends the connection: all calls in flight fail, the peer is told, and the result waits
    /// until that was sent.
    pub async fn close(mut self) {
        let Some(disconnector) = self.disconnector.take() else {
            return;
        };
        // Both report the end of the connection as an error or not; it has ended either way.
        let _ = futures_util::future::join(&mut self.rpc, disconnector).await;
    }
}

impl Future for SafeRpc {
    type Output = Result<(), capnp::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.rpc).poll(cx)
    }
}

impl Drop for SafeRpc {
    fn drop(&mut self) {
        let Some(mut disconnector) = self.disconnector.take() else {
            return;
        };
        let mut cx = Context::from_waker(Waker::noop());
        // The drop may be part of a panic's unwinding; a second panic would end the process.
        let end = AssertUnwindSafe(|| Pin::new(&mut disconnector).poll(&mut cx));
        if catch_unwind(end).is_err() {
            tracing::error!("disconnecting a dropped connection panicked");
        }
    }
}
