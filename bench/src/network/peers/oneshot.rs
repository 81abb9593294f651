//! The floor between two threads of one process: a tokio channel there, a oneshot back.
//!
//! What any call from one shard to another must at least do on this runtime.

use std::thread;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::network::load::{self, Caller, Connector};

/// Starts answering threads.
pub(crate) struct Oneshot;

/// The client end; the other is a thread that ends with it.
pub(crate) struct Client(mpsc::UnboundedSender<(Body, oneshot::Sender<Body>)>);

/// What goes there and back.
enum Body {
    Null(u64),
    Echo(Bytes),
}

impl Connector for Oneshot {
    type Caller = Client;

    async fn connect(&self) -> anyhow::Result<Client> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Body, oneshot::Sender<Body>)>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .context("cannot make a runtime for the answering thread")?;
        thread::spawn(move || {
            runtime.block_on(async {
                while let Some((body, answer)) = receiver.recv().await {
                    // The caller may have given up; that is its own affair.
                    let _ = answer.send(body);
                }
            });
        });
        Ok(Client(sender))
    }
}

impl Client {
    async fn exchange(&self, body: Body) -> anyhow::Result<Body> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.0.send((body, sender));
        sent.ok().context("the answering thread is gone")?;
        let answer = receiver.await;
        answer.context("the answering thread dropped the call")
    }
}

impl Caller for Client {
    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        match self.exchange(Body::Null(n)).await? {
            Body::Null(answer) => Ok(answer),
            Body::Echo(_) => anyhow::bail!("bytes came back"),
        }
    }

    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
        match self.exchange(Body::Echo(payload.clone())).await? {
            Body::Echo(answer) => load::compare(payload, &answer),
            Body::Null(_) => anyhow::bail!("a number came back"),
        }
    }
}
