//! The floor between two threads of one process: a tokio channel there, a oneshot back.
//!
//! What any call from one shard to another must at least do on this runtime.

use std::thread;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use crate::load::Caller;

/// The client end; the other is a thread that ends with it.
pub(crate) struct Client(mpsc::UnboundedSender<(u64, oneshot::Sender<u64>)>);

impl Client {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(u64, oneshot::Sender<u64>)>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .context("cannot make a runtime for the answering thread")?;
        thread::spawn(move || {
            runtime.block_on(async {
                while let Some((n, answer)) = receiver.recv().await {
                    // The caller may have given up; that is its own affair.
                    let _ = answer.send(n);
                }
            });
        });
        Ok(Self(sender))
    }
}

impl Caller for Client {
    async fn call(&self, n: u64) -> anyhow::Result<u64> {
        let (sender, receiver) = oneshot::channel();
        self.0
            .send((n, sender))
            .ok()
            .context("the answering thread is gone")?;
        receiver
            .await
            .context("the answering thread dropped the call")
    }
}
