//! Sockets: the native face's handshake and connections, the acceptor, and the foreign face.

pub(crate) mod accept;
pub(crate) mod actions;
pub(crate) mod connection;
pub(crate) mod exports;
pub(crate) mod foreign;
pub(crate) mod handshake;
pub(crate) mod io;
pub(crate) mod links;
mod outbox;
pub(crate) mod pending;
pub(crate) mod pool;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

use crate::config::{HEARTBEAT, PEER_SILENT_MAX};

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

/// For a peer without heartbeats: the system asks as often as we would, and ends a connection that
/// is half open, or whose peer takes nothing, when a lease would be over.
pub(crate) fn prepare_foreign(stream: &TcpStream) -> std::io::Result<()> {
    let interval = Duration::from_secs(1);
    let probes = (PEER_SILENT_MAX - HEARTBEAT).as_secs() as u32;
    let keepalive = TcpKeepalive::new()
        .with_time(HEARTBEAT)
        .with_interval(interval)
        .with_retries(probes);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PEER_SILENT_MAX))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_foreign_peer_is_asked_by_the_system_as_often_as_ours_by_us() {
        let listener = listen_at(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let stream = stream.unwrap();
        prepare(&stream).unwrap();
        prepare_foreign(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let (first, between) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
        let probes = socket.tcp_keepalive_retries().unwrap();
        assert_eq!(first.unwrap(), HEARTBEAT);
        assert_eq!(HEARTBEAT + between.unwrap() * probes, PEER_SILENT_MAX);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(PEER_SILENT_MAX));
    }
}
