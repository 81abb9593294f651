//! How each peer serves, connects and makes its calls.

pub(crate) mod capnp;
pub(crate) mod foreign;
pub(crate) mod oneshot;
pub(crate) mod partha;
pub(crate) mod raw;
pub(crate) mod stopped;
pub(crate) mod tarpc;
pub(crate) mod tonic;

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpStream;

/// A socket as all peers have it.
async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    Ok(stream)
}
