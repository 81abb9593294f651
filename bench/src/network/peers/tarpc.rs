//! tarpc over TCP with bincode, as its documentation shows it.
//!
//! Two differences: the socket has `TCP_NODELAY`, as all peers' sockets have, so the transport is
//! made from a connected stream; and a payload is `Bytes`, which serde writes as one piece, not
//! `Vec<u8>`, which it writes byte by byte.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tokio::net::TcpStream;
use tokio_util::codec::LengthDelimitedCodec;

use crate::network::load::{self, Caller, Connector};

#[tarpc::service]
trait Null {
    async fn call(n: u64) -> u64;
    async fn echo(data: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Server;

impl Null for Server {
    async fn call(self, _: context::Context, n: u64) -> u64 {
        n
    }

    async fn echo(self, _: context::Context, data: Bytes) -> Bytes {
        data
    }
}

/// Serves one connection until the client goes.
pub(crate) async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let frames = LengthDelimitedCodec::builder().new_framed(stream);
    let transport = serde_transport::new(frames, Bincode::default());
    BaseChannel::with_defaults(transport)
        .execute(Server.serve())
        .for_each(|request| async { drop(tokio::spawn(request)) })
        .await;
    Ok(())
}

/// Opens connections.
pub(crate) struct Tarpc(pub(crate) SocketAddr);

/// The client end.
pub(crate) struct Client(NullClient);

impl Connector for Tarpc {
    type Caller = Client;

    async fn connect(&self) -> anyhow::Result<Client> {
        let stream = super::connect(self.0).await?;
        let frames = LengthDelimitedCodec::builder().new_framed(stream);
        let transport = serde_transport::new(frames, Bincode::default());
        let client = NullClient::new(client::Config::default(), transport);
        Ok(Client(client.spawn()))
    }
}

impl Caller for Client {
    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        let answer = self.0.call(context::current(), n).await;
        answer.context("tarpc call failed")
    }

    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
        let answer = self.0.echo(context::current(), payload.clone()).await;
        load::compare(payload, &answer.context("tarpc call failed")?)
    }
}
