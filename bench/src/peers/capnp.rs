//! capnp-rpc over its own two-party network, buffered on both sides as its documentation shows.

use std::rc::Rc;

use anyhow::Context as _;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures_util::io::{BufReader, BufWriter};
use futures_util::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::load::Caller;
use crate::null_capnp::null;

struct Server;

impl null::Server for Server {
    async fn call(
        self: Rc<Self>,
        params: null::CallParams,
        mut results: null::CallResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_n(params.get()?.get_n());
        Ok(())
    }
}

/// Serves one connection until the client goes.
pub(crate) async fn serve(stream: TcpStream) -> Result<(), capnp::Error> {
    let client: null::Client = capnp_rpc::new_client(Server);
    RpcSystem::new(network(stream, Side::Server), Some(client.client)).await
}

/// The client end.
pub(crate) struct Client(null::Client);

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let mut system = RpcSystem::new(network(stream, Side::Client), None);
        let client = system.bootstrap(Side::Server);
        drop(tokio::task::spawn_local(system));
        Self(client)
    }
}

impl Caller for Client {
    async fn call(&self, n: u64) -> anyhow::Result<u64> {
        let mut request = self.0.call_request();
        request.get().set_n(n);
        let answer = request
            .send()
            .promise
            .await
            .context("capnp-rpc call failed")?;
        Ok(answer.get()?.get_n())
    }
}

fn network(stream: TcpStream, side: Side) -> Box<twoparty::VatNetwork<impl AsyncRead + Unpin>> {
    let (reader, writer) = stream.compat().split();
    let (reader, writer) = (BufReader::new(reader), BufWriter::new(writer));
    Box::new(twoparty::VatNetwork::new(
        reader,
        writer,
        side,
        Default::default(),
    ))
}
