//! tarpc over TCP with bincode, as its documentation shows it.
//!
//! One difference: the socket has `TCP_NODELAY`, as all peers' sockets have, so the transport is
//! made from a connected stream.

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tokio::net::TcpStream;
use tokio_util::codec::LengthDelimitedCodec;

use crate::load::Caller;

#[tarpc::service]
trait Null {
    async fn call(n: u64) -> u64;
}

#[derive(Clone)]
struct Server;

impl Null for Server {
    async fn call(self, _: context::Context, n: u64) -> u64 {
        n
    }
}

/// Serves one connection until the client goes.
pub(crate) async fn serve(stream: TcpStream) {
    let frames = LengthDelimitedCodec::builder().new_framed(stream);
    let transport = serde_transport::new(frames, Bincode::default());
    BaseChannel::with_defaults(transport)
        .execute(Server.serve())
        .for_each(|request| async { drop(tokio::spawn(request)) })
        .await;
}

/// The client end.
pub(crate) struct Client(NullClient);

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let frames = LengthDelimitedCodec::builder().new_framed(stream);
        let transport = serde_transport::new(frames, Bincode::default());
        Self(NullClient::new(client::Config::default(), transport).spawn())
    }
}

impl Caller for Client {
    async fn call(&self, n: u64) -> anyhow::Result<u64> {
        self.0
            .call(context::current(), n)
            .await
            .context("tarpc call failed")
    }
}
