//! A forwarder of connections that counts round trips.
//!
//! A round trip is data from the client's side after data from the server's side, or after nothing
//! at all. That holds for a client that has one question under way at a time. Both ends' heartbeats
//! are a round trip, too, but seconds apart.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::Context as _;

/// Listens for as long as the program runs; its connections end with their ends.
#[derive(Debug)]
pub(super) struct Forwarder {
    address: SocketAddr,
    turns: AtomicU64,
    connections: AtomicU64,
}

impl Forwarder {
    /// One that leads to whoever listens at `to` when somebody connects.
    pub(super) fn start(to: &str) -> anyhow::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.context("cannot listen on 127.0.0.1, port 0")?;
        let forwarder = Arc::new(Self {
            address: listener.local_addr()?,
            turns: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let (counting, to) = (Arc::downgrade(&forwarder), to.to_owned());
        thread::spawn(move || {
            for near in listener.incoming() {
                let Some(forwarder) = counting.upgrade() else {
                    return;
                };
                // A connection that fails here is seen by its client, as any other that fails.
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&to)) else {
                    continue;
                };
                let _ = forwarder.connect(near, far);
            }
        });
        Ok(forwarder)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Round trips so far.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    fn connect(self: Arc<Self>, near: TcpStream, far: TcpStream) -> anyhow::Result<()> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let asking = Arc::new(AtomicBool::new(false));
        let (near_back, far_back) = (near.try_clone()?, far.try_clone()?);
        let answered = Arc::clone(&asking);
        thread::spawn(move || {
            copy(near, far, || {
                if !asking.swap(true, Ordering::SeqCst) {
                    self.turns.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
        thread::spawn(move || {
            copy(far_back, near_back, || {
                answered.store(false, Ordering::SeqCst)
            })
        });
        Ok(())
    }
}

/// Copies until one of the ends is gone, and tells the other.
fn copy(mut from: TcpStream, mut to: TcpStream, seen: impl Fn()) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        seen();
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Fails if it is closed already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_round_trips() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = server.local_addr().unwrap().to_string();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut buffer = [0; 2];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer).unwrap();
            }
        });
        let forwarder = Forwarder::start(&to).unwrap();
        let mut client = TcpStream::connect(forwarder.address()).unwrap();
        for round in 1..=5 {
            client.write_all(b"ab").unwrap();
            client.read_exact(&mut [0; 2]).unwrap();
            assert_eq!((forwarder.turns(), forwarder.connections()), (round, 1));
        }
        drop(client);
        echo.join().unwrap();
    }
}
