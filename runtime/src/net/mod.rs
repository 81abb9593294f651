//! Sockets: the native face's handshake and connections, the acceptor, and the foreign face.

pub(crate) mod accept;
pub(crate) mod actions;
pub(crate) mod asker;
mod assembly;
pub(crate) mod connection;
pub(crate) mod exports;
pub(crate) mod foreign;
pub(crate) mod handshake;
pub(crate) mod io;
pub(crate) mod links;
mod outbox;
pub(crate) mod pending;
pub(crate) mod pool;
pub(crate) mod socket;
pub(crate) mod stand_in;
pub(crate) mod traffic;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

use self::links::Lease;

/// Connections that may wait to be accepted: all clients of a node come at once when it restarts,
/// and one that finds no place tries again only after a second.
const BACKLOG: i32 = 1024;

/// What Linux takes for the times of keepalive, and for how often it asks.
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
const KEEPALIVE_PROBES_MAX: u64 = 127;

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
/// is half open, or whose peer takes nothing, when a lease would be over. It counts in whole
/// seconds, and has bounds of its own.
pub(crate) fn prepare_foreign(stream: &TcpStream, lease: Lease) -> std::io::Result<()> {
    let seconds = |time: Duration, max: u64| time.as_secs().clamp(1, max);
    let first = seconds(lease.heartbeat, KEEPALIVE_SECONDS_MAX);
    let rest = seconds(lease.silent_max - lease.heartbeat, KEEPALIVE_SECONDS_MAX);
    let between = rest.div_ceil(KEEPALIVE_PROBES_MAX);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(first))
        .with_interval(Duration::from_secs(between))
        .with_retries((rest / between) as u32);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        let most = Duration::from_secs(KEEPALIVE_SECONDS_MAX);
        socket.set_tcp_user_timeout(Some(lease.silent_max.min(most)))?;
    }
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
        let ms = Duration::from_millis;
        let own = |heartbeat, silent_max| Lease::new(ms(heartbeat), ms(silent_max)).unwrap();
        // What is set, and what the system makes of it.
        for (lease, heartbeat, silent_max) in [
            (Lease::default(), ms(1_000), ms(3_000)),
            (own(3_000, 10_000), ms(3_000), ms(10_000)),
            (own(20_000, 60_000), ms(20_000), ms(60_000)),
            (own(300, 1_500), ms(1_000), ms(2_000)),
            (
                own(60_000, 3_600_000),
                ms(60_000),
                ms(60_000 + 126 * 28_000),
            ),
            (own(60_000, 1 << 50), ms(60_000), ms(60_000 + 126 * 259_000)),
        ] {
            prepare_foreign(&stream, lease).unwrap();
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap());
            let (first, between) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
            let probes = socket.tcp_keepalive_retries().unwrap();
            assert_eq!(first.unwrap(), heartbeat, "{lease:?}");
            let all = heartbeat + between.unwrap() * probes;
            assert_eq!(all, silent_max, "{lease:?}");
            #[cfg(target_os = "linux")]
            {
                let most = Duration::from_secs(KEEPALIVE_SECONDS_MAX);
                let given_up = socket.tcp_user_timeout().unwrap();
                assert_eq!(given_up, Some(lease.silent_max.min(most)));
            }
        }
    }
}
