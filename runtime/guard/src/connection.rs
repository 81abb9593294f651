//! One guarded connection from beginning to end: [`serve`] and [`connect`].

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use capnp::capability::Client;
use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_twoparty_capnp::Side;

use crate::network::{Network, Stream};
use crate::steady::steady;
use crate::wire::Wire;
use crate::{CutReason, Limits, SafeRpc};

/// Runs one guarded connection; await it or spawn it on the `LocalSet`.
///
/// Completes when the connection has ended: `Ok` if the peer ended it or the network failed, the
/// reason if the guard cut it. Dropping it ends the connection at once: every call in flight is
/// dropped, both ways, and every capability of the connection fails.
#[must_use = "futures do nothing unless polled"]
pub struct Driver<S: Stream> {
    rpc: Option<SafeRpc>,
    wire: Rc<RefCell<Wire<S>>>,
}

impl<S: Stream> Driver<S> {
    fn new(stream: S, side: Side, limits: Limits, bootstrap: Option<Client>) -> Self {
        let network = Network::new(stream, side, limits);
        let wire = network.wire();
        let rpc = SafeRpc::new(RpcSystem::new(Box::new(network), bootstrap));
        Self {
            rpc: Some(rpc),
            wire,
        }
    }

    /// Ends the connection in order: calls in flight fail, the peer is told, and the result waits
    /// until that was sent or [`Limits::farewell_ms_max`] is over.
    pub async fn close(mut self) {
        if let Some(rpc) = self.rpc.take() {
            rpc.close().await;
        }
    }
}

impl<S: Stream> Future for Driver<S> {
    type Output = Result<(), CutReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(rpc) = &mut self.rpc
            && let Err(error) = ready!(Pin::new(rpc).poll(cx))
        {
            tracing::debug!(%error, "a foreign connection ended");
        }
        self.rpc = None;
        let reason = self.wire.borrow().reason();
        Poll::Ready(match reason {
            Some(reason) => Err(reason),
            None => Ok(()),
        })
    }
}

impl<S: Stream> Drop for Driver<S> {
    fn drop(&mut self) {
        self.rpc = None;
        // Even if something were to keep the network alive, the socket and the queues go.
        self.wire.borrow_mut().part();
    }
}

/// Serves `bootstrap` to the client at the other end of `stream`, within `limits`.
///
/// The result completes when the connection has ended; `cut` is called before if the guard cut
/// it. Dropping the result ends the connection, without a call of `cut`.
pub fn serve<S: Stream>(
    stream: S,
    limits: Limits,
    bootstrap: Client,
    cut: impl FnOnce(CutReason),
) -> impl Future<Output = ()> {
    let driver = Driver::new(stream, Side::Server, limits, Some(bootstrap));
    async move {
        if let Err(reason) = driver.await {
            tracing::warn!(%reason, "foreign connection cut");
            cut(reason);
        }
    }
}

/// Connects to the server at the other end of `stream`, within `limits`.
///
/// The result is the server's bootstrap capability and the driver, without which no call makes
/// progress; they may be used at once.
pub fn connect<S: Stream>(stream: S, limits: Limits) -> (Client, Driver<S>) {
    let mut driver = Driver::new(stream, Side::Client, limits, None);
    let rpc = driver
        .rpc
        .as_mut()
        .expect("a driver just made has its rpc system");
    let bootstrap: Client = rpc.bootstrap(Side::Server);
    (Client::new(steady(bootstrap.hook)), driver)
}
