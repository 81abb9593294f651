//! Sockets: the native face's handshake and connections, the acceptor, and the foreign face.

pub(crate) mod accept;
pub(crate) mod actions;
pub(crate) mod connection;
pub(crate) mod exports;
pub(crate) mod foreign;
pub(crate) mod handshake;
pub(crate) mod io;
pub(crate) mod links;
pub(crate) mod pending;
pub(crate) mod pool;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Connections that may wait to be accepted: all clients of a node come at once when it restarts,
/// and one that finds no place tries again only after a second.
const BACKLOG: i32 = 1024;

/// Listens at an address.
pub(crate) fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As the standard library does it: a restarted node gets its port back at once.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

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
