//! The acceptor: one port for both faces.
//!
//! A connection that begins with our magic meets us by handshake and goes to the shard it asks
//! for; any other is a plain Cap'n Proto client. Nothing of it is believed before its first bytes
//! are there, and they have to be there soon.
//!
//! It has a thread of its own, so that no servant that keeps its shard's thread keeps those who
//! come for other shards waiting.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

use super::connection::Connection;
use super::handshake::{self, ANY_SHARD, Hello, MAGIC};
use crate::error::{ErrorKind, SystemError};
use crate::node::Home;
use crate::shard::{Job, die};
#[cfg(feature = "testkit")]
use crate::testkit::Pause;

/// Connections whose first bytes are awaited at a time. Who has been silent for longest has to go
/// when one more comes: an honest peer says who it is within a round trip. Well below the usual
/// limit of 1024 open files.
const MEETING_MAX: usize = 512;
/// Pause after an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// The way to the acceptor's thread.
#[derive(Debug)]
pub(crate) struct Acceptor {
    orders: mpsc::UnboundedSender<Order>,
}

/// What it is told besides connections.
#[derive(Debug)]
enum Order {
    /// To end, and to close the port.
    Stop,
    /// To stand still for a while.
    #[cfg(feature = "testkit")]
    Pause(Pause),
}

impl Acceptor {
    /// Starts the thread. It ends with its [`Acceptor`], at the latest.
    pub(crate) fn start(
        listener: std::net::TcpListener,
        home: Arc<Home>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (orders, told) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let accepting = move || {
            let local = LocalSet::new();
            let both = async {
                tokio::select! {
                    () = accept(listener, home) => {}
                    () = obey(told) => {}
                }
            };
            let accepted = AssertUnwindSafe(|| local.block_on(&runtime, both));
            if catch_unwind(accepted).is_err() {
                die();
            }
        };
        let thread = std::thread::Builder::new().name("partha-accept".to_owned());
        Ok((Self { orders }, thread.spawn(accepting)?))
    }

    /// Ends it soon.
    pub(crate) fn stop(&self) {
        // One that has ended need not be told.
        let _ = self.orders.send(Order::Stop);
    }

    /// Has it stand still until the pause ends.
    #[cfg(feature = "testkit")]
    pub(crate) fn pause(&self, pause: &Pause) {
        let _ = self.orders.send(Order::Pause(pause.clone()));
    }
}

/// Does what it is told until that is to end.
#[cfg_attr(
    not(feature = "testkit"),
    expect(clippy::never_loop, reason = "only tests tell it anything but to stop")
)]
async fn obey(mut told: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = told.recv().await {
        match order {
            Order::Stop => return,
            #[cfg(feature = "testkit")]
            Order::Pause(pause) => pause.stand(),
        }
    }
}

/// Accepts for ever.
async fn accept(listener: std::net::TcpListener, home: Arc<Home>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the listener cannot be used");
            return;
        }
    };
    let mut meeting: VecDeque<(String, AbortHandle)> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                make_room(&mut meeting);
                let (home, address) = (home.clone(), address.to_string());
                let peer = address.clone();
                let task = tokio::task::spawn_local(async move {
                    if let Err(error) = meet(stream, &peer, &home).await {
                        tracing::warn!(%peer, %error, "connection refused");
                    }
                });
                meeting.push_back((address, task.abort_handle()));
            }
            Err(error) => {
                // A full table of files must not end the server: others will close theirs.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Forgets who has been met; if too many are left, the longest silent one has to go.
fn make_room(meeting: &mut VecDeque<(String, AbortHandle)>) {
    while meeting.front().is_some_and(|(_, task)| task.is_finished()) {
        meeting.pop_front();
    }
    if meeting.len() < MEETING_MAX {
        return;
    }
    meeting.retain(|(_, task)| !task.is_finished());
    if meeting.len() >= MEETING_MAX
        && let Some((peer, task)) = meeting.pop_front()
    {
        tracing::warn!(%peer, "connection cut: it said nothing while {MEETING_MAX} more came");
        task.abort();
    }
}

async fn meet(mut stream: TcpStream, address: &str, home: &Arc<Home>) -> Result<(), SystemError> {
    let io = |error: io::Error| SystemError::new(ErrorKind::Unreachable, error.to_string());
    super::prepare(&stream).map_err(io)?;
    let looking = is_native(&stream);
    let native = tokio::time::timeout(handshake::DEADLINE, looking)
        .await
        .map_err(|_| {
            let detail = format!("it said nothing for {} s", handshake::DEADLINE.as_secs());
            SystemError::new(ErrorKind::Malformed, detail)
        })?;
    let address = address.to_owned();
    let closed = home.is_closed_to_new();
    if !native.map_err(io)? {
        if let Some(error) = closed {
            return Err(error);
        }
        super::prepare_foreign(&stream, home.registry.links.lease).map_err(io)?;
        let stream = stream.into_std().map_err(io)?;
        home.shards[0].post(Job::Foreign { stream, address });
        return Ok(());
    }
    let hello = handshake::accept(&mut stream).await?;
    if let Some(error) = closed {
        handshake::refuse(&mut stream, &error).await;
        return Err(error);
    }
    let me = home.me;
    if hello.expected.0 != 0 && hello.expected != me.node {
        let detail = format!(
            "node {} is expected at this address, but {} listens here",
            hello.expected,
            home.registry.here()
        );
        let error = SystemError::new(ErrorKind::Unreachable, detail);
        handshake::refuse(&mut stream, &error).await;
        return Err(error);
    }
    let shards = home.shards.len() as u16;
    let shard = if hello.shard < shards {
        hello.shard
    } else {
        home.next_shard()
    };
    if hello.shard >= shards && hello.shard != ANY_SHARD {
        tracing::debug!(
            wanted = hello.shard,
            shards,
            "a peer with an old idea of the shards"
        );
    }
    let links = &home.registry.links;
    let welcome = Hello::new(me, &home.registry.name, shard, shards, hello.peer.node)
        .taking(links.traffic.message_bytes_max);
    let connection = Connection::new(hello, address, links.lease, links.traffic);
    let seat = match home.admit(&connection, shard) {
        Ok(seat) => seat,
        Err(error) => {
            handshake::refuse(&mut stream, &error).await;
            return Err(error);
        }
    };
    handshake::welcome(&mut stream, &welcome).await?;
    let stream = stream.into_std().map_err(io)?;
    home.shards[shard as usize].post(Job::Connection {
        stream,
        connection,
        seat,
    });
    Ok(())
}

/// Whether the first bytes are our magic; waits only as long as they may still become it.
async fn is_native(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; MAGIC.len()];
    loop {
        let got = stream.peek(&mut first).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[..got] != MAGIC[..got] {
            return Ok(false);
        }
        if got == MAGIC.len() {
            return Ok(true);
        }
        // The socket is readable as long as the begun magic lies there: ask again a little later.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
