//! Calls of a plain capnp-rpc client over its own network, buffered as its documentation says.

use anyhow::{Context as _, ensure};
use capnp::any_pointer;
use capnp::capability::Client;
use capnp::message::ReaderOptions;
use capnp::private::capability::PipelineOp;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures_util::AsyncReadExt as _;
use futures_util::future::try_join_all;
use futures_util::io::{BufReader, BufWriter};
use partha::Uid;
use partha::abi::{Slot, Writer, write_uid};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::Step;
use super::native::Served;
use crate::generated::null::cell;
use crate::null_capnp::null::{call_params, call_results};

/// `initiate` of the connection manager, with which a foreign client begins.
const INITIATE: (u64, u16) = (partha::system::connection_manager::CLASS.0, 0);
/// `call` of a cell. It takes a context and a number; a struct without the context, such as the
/// one that peers without contexts send, is the same message with a null one.
const CALL: (u64, u16) = (cell::CLASS.0, 0);
/// Where `initiate`'s results keep the object: `value`, then `object`.
const OBJECT: [PipelineOp; 2] = [
    PipelineOp::GetPointerField(0),
    PipelineOp::GetPointerField(1),
];

/// Null calls, so many at once.
pub(super) struct Call {
    at_once: u64,
    object: Client,
    _served: Served,
}

impl Call {
    pub(super) async fn new(at_once: u64) -> anyhow::Result<Self> {
        let served = Served::start("count").await?;
        let cell = served.cell(served.node.client()).await?;
        let stream = TcpStream::connect(served.node.address()).await?;
        stream.set_nodelay(true)?;
        let object = initiate(&connect(stream), cell.uid()).await?;
        Ok(Self {
            at_once,
            object,
            _served: served,
        })
    }

    async fn call(&self, n: u64) -> capnp::Result<u64> {
        let mut request = self
            .object
            .new_call::<call_params::Owned, call_results::Owned>(CALL.0, CALL.1, None);
        request.get().set_n(n);
        let answer = request.send().promise.await?;
        Ok(answer.get()?.get_n())
    }
}

impl Step for Call {
    async fn run(&self, count: u64) -> anyhow::Result<()> {
        for first in (0..count).step_by(self.at_once as usize) {
            let numbers = first..(first + self.at_once).min(count);
            let answers = try_join_all(numbers.clone().map(|n| self.call(n))).await?;
            ensure!(answers.iter().copied().eq(numbers), "a wrong answer");
        }
        Ok(())
    }
}

/// The node's first object.
fn connect(stream: TcpStream) -> Client {
    let (reader, writer) = stream.compat().split();
    let network = twoparty::VatNetwork::new(
        BufReader::new(reader),
        BufWriter::new(writer),
        Side::Client,
        ReaderOptions::new(),
    );
    let mut system = RpcSystem::new(Box::new(network), None);
    let manager = system.bootstrap(Side::Server);
    drop(tokio::task::spawn_local(system));
    manager
}

/// The object of this identity, as a capability.
async fn initiate(manager: &Client, uid: Uid) -> anyhow::Result<Client> {
    let mut parameters = Writer::new(1 << 10);
    let root = parameters.structure(Slot::ROOT, 1, 2);
    parameters.set_u64(root, 0, cell::CLASS.0);
    write_uid(&mut parameters, root.slot(1), uid);
    let (framed, _) = parameters.finish()?;
    let message = capnp::serialize::read_message(&mut &*framed, ReaderOptions::new())?;
    let mut request =
        manager.new_call::<any_pointer::Owned, any_pointer::Owned>(INITIATE.0, INITIATE.1, None);
    request
        .get()
        .set_as(message.get_root::<any_pointer::Reader<'_>>()?)?;
    let answer = request.send().promise.await?;
    let object = answer.get()?.get_pipelined_cap(&OBJECT);
    Ok(Client::new(object.context("the node gave no object")?))
}
