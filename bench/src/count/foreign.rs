//! Calls of a plain capnp-rpc client over its own network, buffered as its documentation says.

use anyhow::ensure;
use futures_util::future::try_join_all;

use super::Step;
use super::native::Served;
use crate::network::load::{Caller as _, Connector as _};
use crate::network::peers::foreign::{Client, Foreign};

/// Null calls, so many at once.
pub(super) struct Call {
    at_once: u64,
    client: Client,
    _served: Served,
}

impl Call {
    pub(super) async fn new(at_once: u64) -> anyhow::Result<Self> {
        let served = Served::start("count").await?;
        let cell = served.cell(served.node.client()).await?;
        let foreign = Foreign {
            address: served.node.address(),
            object: cell.uid(),
        };
        Ok(Self {
            at_once,
            client: foreign.connect().await?,
            _served: served,
        })
    }
}

impl Step for Call {
    async fn run(&self, count: u64) -> anyhow::Result<()> {
        for first in (0..count).step_by(self.at_once as usize) {
            let numbers = first..(first + self.at_once).min(count);
            let calls = numbers.clone().map(|n| self.client.null(n));
            let answers = try_join_all(calls).await?;
            ensure!(answers.iter().copied().eq(numbers), "a wrong answer");
        }
        Ok(())
    }
}
