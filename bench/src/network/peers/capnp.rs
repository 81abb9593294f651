//! capnp-rpc over its own two-party network: buffered on both sides as its documentation shows, or
//! on the bare socket; and over the network of Partha's guard, which gathers what is sent in a turn
//! of the event loop, without the engine behind it.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context as _;
use bytes::Bytes;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, VatNetwork, twoparty};
use futures_util::AsyncReadExt as _;
use futures_util::io::{BufReader, BufWriter};
use partha_guard::Limits;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::network::load::{self, Caller, Connector};
use crate::null_capnp::null;

/// What there is between capnp-rpc and the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffers {
    Both,
    None,
    /// The guard's network in place of capnp-rpc's own.
    Guard,
}

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

    async fn echo(
        self: Rc<Self>,
        params: null::EchoParams,
        mut results: null::EchoResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_data(params.get()?.get_data()?);
        Ok(())
    }
}

/// Serves one connection until the client goes.
pub(crate) async fn serve(stream: TcpStream, buffers: Buffers) -> anyhow::Result<()> {
    let client: null::Client = capnp_rpc::new_client(Server);
    if buffers == Buffers::Guard {
        let cut = |reason| eprintln!("the guard has cut a connection: {reason}");
        partha_guard::serve(stream, limits(), client.client, cut).await;
        return Ok(());
    }
    let system = RpcSystem::new(network(stream, Side::Server, buffers), Some(client.client));
    Ok(system.await?)
}

/// Opens connections.
pub(crate) struct Capnp {
    pub(crate) address: SocketAddr,
    pub(crate) buffers: Buffers,
}

/// The client end.
pub(crate) struct Client {
    null: null::Client,
    _system: System,
}

/// A connection at work; closed on drop.
pub(crate) struct System(JoinHandle<()>);

impl Drop for System {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens a connection and asks for what the server shows first.
pub(crate) async fn bootstrap<C: capnp::capability::FromClientHook>(
    address: SocketAddr,
    buffers: Buffers,
) -> anyhow::Result<(C, System)> {
    let stream = super::connect(address).await?;
    if buffers == Buffers::Guard {
        let (first, driver) = partha_guard::connect(stream, limits());
        let task = tokio::task::spawn_local(async move { drop(driver.await) });
        return Ok((C::new(first.hook), System(task)));
    }
    let mut system = RpcSystem::new(network(stream, Side::Client, buffers), None);
    let first = system.bootstrap(Side::Server);
    // The server may end the connection; the calls say so.
    let task = tokio::task::spawn_local(async move { drop(system.await) });
    Ok((first, System(task)))
}

impl Connector for Capnp {
    type Caller = Client;

    async fn connect(&self) -> anyhow::Result<Client> {
        let (null, _system) = bootstrap(self.address, self.buffers).await?;
        Ok(Client { null, _system })
    }
}

impl Caller for Client {
    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        let mut request = self.null.call_request();
        request.get().set_n(n);
        let answer = request.send().promise.await;
        Ok(answer.context("capnp-rpc call failed")?.get()?.get_n())
    }

    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
        let mut request = self.null.echo_request();
        request.get().set_data(payload);
        let answer = request.send().promise.await;
        let answer = answer.context("capnp-rpc call failed")?;
        load::compare(payload, answer.get()?.get_data()?)
    }
}

/// Those of a daemon, but for the largest payload and the most calls that are measured.
fn limits() -> Limits {
    Limits {
        message_bytes_max: 4 << 20,
        unsent_bytes_max: 64 << 20,
        questions_max: 4_096,
        calls_out_max: 4_096,
        ..Limits::default()
    }
}

/// capnp-rpc's own network.
fn network(stream: TcpStream, side: Side, buffers: Buffers) -> Box<dyn VatNetwork<Side>> {
    let (reader, writer) = stream.compat().split();
    match buffers {
        Buffers::Both => Box::new(twoparty::VatNetwork::new(
            BufReader::new(reader),
            BufWriter::new(writer),
            side,
            Default::default(),
        )),
        Buffers::None | Buffers::Guard => Box::new(twoparty::VatNetwork::new(
            reader,
            writer,
            side,
            Default::default(),
        )),
    }
}
