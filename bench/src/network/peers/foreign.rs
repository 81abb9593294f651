//! Partha called by a plain capnp-rpc program, buffered as its documentation shows.
//!
//! What the program knows of Partha is `cell.capnp`.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;

use super::capnp::{self, Buffers, System};
use crate::cell_capnp::{cell, manager};
use crate::network::load::{self, Caller, Connector};

/// Opens connections and binds one object on each.
pub(crate) struct Foreign {
    pub(crate) address: SocketAddr,
    pub(crate) object: partha::Uid,
}

/// The client end.
pub(crate) struct Client {
    cell: cell::Client,
    _system: System,
}

impl Connector for Foreign {
    type Caller = Client;

    async fn connect(&self) -> anyhow::Result<Client> {
        let (manager, _system) =
            capnp::bootstrap::<manager::Client>(self.address, Buffers::Both).await?;
        let mut request = manager.initiate_request();
        let mut object = request.get().init_object();
        object.set_node(self.object.node.0);
        object.set_local(self.object.local);
        let answer = request.send().promise.await;
        let answer = answer.context("cannot bind the object")?;
        let cell = answer.get()?.get_value()?.get_object()?;
        Ok(Client { cell, _system })
    }
}

impl Caller for Client {
    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        let mut request = self.cell.call_request();
        request.get().set_value(n);
        let answer = request.send().promise.await;
        Ok(answer.context("call failed")?.get()?.get_value())
    }

    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
        let mut request = self.cell.echo_request();
        request.get().set_data(payload);
        let answer = request.send().promise.await;
        let answer = answer.context("call failed")?;
        load::compare(payload, answer.get()?.get_value()?)
    }
}
