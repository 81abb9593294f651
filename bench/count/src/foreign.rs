//! Calls of a plain capnp-rpc client over its own network, buffered as its documentation says.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures_util::AsyncReadExt as _;
use futures_util::future::try_join_all;
use futures_util::io::{BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::Step;
use super::native::Served;
use crate::cell_capnp::{cell, manager};

/// Null calls, so many at once.
pub(super) struct Call {
    at_once: u64,
    cell: cell::Client,
    _served: Served,
}

impl Call {
    pub(super) async fn new(at_once: u64) -> anyhow::Result<Self> {
        let served = Served::start("count").await?;
        let object = served.cell(served.node.client()).await?.uid();
        let manager = connect(served.node.address()).await?;
        let mut request = manager.initiate_request();
        let mut to = request.get().init_object();
        to.set_node(object.node.0);
        to.set_local(object.local);
        let answer = request.send().promise.await;
        let answer = answer.context("cannot bind the object")?;
        Ok(Self {
            at_once,
            cell: answer.get()?.get_value()?.get_object()?,
            _served: served,
        })
    }

    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        let mut request = self.cell.call_request();
        request.get().set_value(n);
        let answer = request.send().promise.await;
        Ok(answer.context("call failed")?.get()?.get_value())
    }
}

/// Opens a connection, which lives as long as the program, and asks for what the node shows first.
async fn connect(address: SocketAddr) -> anyhow::Result<manager::Client> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.compat().split();
    let network = twoparty::VatNetwork::new(
        BufReader::new(reader),
        BufWriter::new(writer),
        Side::Client,
        Default::default(),
    );
    let mut system = RpcSystem::new(Box::new(network), None);
    let first = system.bootstrap(Side::Server);
    // The node may end the connection; the calls say so.
    tokio::task::spawn_local(async move { drop(system.await) });
    Ok(first)
}

impl Step for Call {
    async fn run(&self, count: u64) -> anyhow::Result<()> {
        for first in (0..count).step_by(self.at_once as usize) {
            let numbers = first..(first + self.at_once).min(count);
            let calls = numbers.clone().map(|n| self.null(n));
            let answers = try_join_all(calls).await?;
            ensure!(answers.iter().copied().eq(numbers), "a wrong answer");
        }
        Ok(())
    }
}
