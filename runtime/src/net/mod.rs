//! Sockets: the native face's handshake and connections, the acceptor, and the foreign face.

pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod exports;
pub(crate) mod foreign;
pub(crate) mod handshake;
pub(crate) mod io;
pub(crate) mod pending;
pub(crate) mod pool;

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Options of every connection: no delay, and the system's own watch over silent peers as a
/// backstop to our heartbeats.
pub(crate) fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
