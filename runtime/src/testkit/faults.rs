//! The switchboard of a cluster: which of its processes hear each other.
//!
//! A process is known by the identity it has in the handshake, so a fault outlives connections:
//! who is cut off stays so for the connections that are there, those being made, and those not
//! begun yet. Each end of a connection has a [`Link`], which it asks before it reads or writes.
//!
//! Invariants: a change of the board is seen by every link before the change returns, since all
//! that wait are woken after it and ask again. A socket whose end is gone while nobody may hear of
//! it is kept open here until they may.
//!
//! It loses no bytes and reorders none: the transport is TCP, which would send them again. What
//! was written before a fault and not read yet comes after it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use partha_core::id::{NodeId, Peer};
use socket2::{SockRef, Socket};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::net::connection::lock;

/// The switchboard.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    board: Mutex<Board>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Board {
    /// What the first says does not reach the second.
    silenced: BTreeSet<(NodeId, NodeId)>,
    paused: BTreeSet<NodeId>,
    dead: BTreeSet<Peer>,
    /// Who listens where, for those who connect to an address and not to a node.
    listening: HashMap<String, NodeId>,
    links: Vec<Weak<Link>>,
    limbo: Vec<Kept>,
}

/// A socket whose end is gone, which nobody may hear of yet.
#[derive(Debug)]
struct Kept {
    me: NodeId,
    other: NodeId,
    _socket: Socket,
}

/// What a process may do to a connection.
enum Way {
    Open,
    /// Nothing passes, nothing is learnt.
    Held,
    /// The connection is broken, or the process is dead.
    Broken(io::Error),
}

/// Which half of a connection asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Read = 0,
    Write = 1,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    faults: Arc<Faults>,
    me: Peer,
    /// 0 until the handshake has told.
    other: AtomicU64,
    cut: AtomicBool,
    /// None once it is handed on to the board.
    socket: Option<Socket>,
    waiting: Mutex<[Option<Waker>; 2]>,
}

impl Faults {
    /// From now on the two do not hear each other.
    pub(crate) fn part(&self, a: NodeId, b: NodeId) {
        self.change(|board| board.silenced.extend([(a, b), (b, a)]));
    }

    /// From now on what the first says does not reach the other.
    pub(crate) fn silence(&self, from: NodeId, to: NodeId) {
        self.change(|board| board.silenced.extend([(from, to)]));
    }

    /// All hear each other again.
    pub(crate) fn heal(&self) {
        self.change(|board| board.silenced.clear());
    }

    /// Breaks the connections of the two, and both learn it.
    pub(crate) fn cut(&self, a: NodeId, b: NodeId) {
        self.change(|board| {
            for link in board.links.iter().filter_map(Weak::upgrade) {
                let ends = (link.me.node, link.other());
                if ends == (a, b) || ends == (b, a) {
                    link.cut.store(true, Ordering::Relaxed);
                    link.shut();
                }
            }
        });
    }

    /// From now on nothing is heard of it, and nothing is read that it gets.
    pub(crate) fn pause(&self, node: NodeId) {
        self.change(|board| {
            board.paused.insert(node);
        });
    }

    /// It goes on.
    pub(crate) fn resume(&self, node: NodeId) {
        self.change(|board| {
            board.paused.remove(&node);
        });
    }

    /// This life of it is over: its sockets close, those that a partition covers when it is
    /// healed.
    pub(crate) fn kill(&self, peer: Peer) {
        self.change(|board| {
            board.dead.insert(peer);
            board.paused.remove(&peer.node);
            for link in board.links.iter().filter_map(Weak::upgrade) {
                if link.me == peer && !board.is_unheard(peer.node, link.other()) {
                    link.shut();
                }
            }
        });
    }

    /// Notes who listens at an address.
    pub(crate) fn listens(&self, address: String, node: NodeId) {
        lock(&self.board).listening.insert(address, node);
    }

    /// Connects, once that is possible; for ever if it never is. `node` is 0 for whoever listens
    /// there.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        me: Peer,
        address: &str,
        node: NodeId,
    ) -> io::Result<(TcpStream, Arc<Link>)> {
        let known = || lock(&self.board).listening.get(address).copied();
        let other = if node == NodeId(0) {
            known().unwrap_or(node)
        } else {
            node
        };
        self.passable(me, other).await?;
        let stream = TcpStream::connect(address).await?;
        let link = self.link(&stream, me, other)?;
        Ok((stream, link))
    }

    /// The link of an end.
    pub(crate) fn link(
        self: &Arc<Self>,
        stream: &TcpStream,
        me: Peer,
        other: NodeId,
    ) -> io::Result<Arc<Link>> {
        let link = Arc::new(Link {
            faults: self.clone(),
            me,
            other: AtomicU64::new(other.0),
            cut: AtomicBool::new(false),
            socket: Some(SockRef::from(stream).try_clone()?),
            waiting: Mutex::default(),
        });
        let mut board = lock(&self.board);
        board.links.retain(|link| link.strong_count() > 0);
        board.links.push(Arc::downgrade(&link));
        Ok(link)
    }

    async fn passable(&self, me: Peer, other: NodeId) -> io::Result<()> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // A handshake takes both ways.
            let ways = {
                let board = lock(&self.board);
                [Side::Read, Side::Write].map(|side| board.way(me, other, side))
            };
            match ways {
                [Way::Open, Way::Open] => return Ok(()),
                [Way::Broken(error), _] | [_, Way::Broken(error)] => return Err(error),
                [Way::Held, _] | [_, Way::Held] => changed.await,
            }
        }
    }

    fn change(&self, with: impl FnOnce(&mut Board)) {
        let (links, heard) = {
            let mut board = lock(&self.board);
            // Held over what is done to them: one that ended in there would want the lock.
            let links: Vec<_> = board.links.iter().filter_map(Weak::upgrade).collect();
            with(&mut board);
            let limbo = std::mem::take(&mut board.limbo);
            let (unheard, heard): (Vec<_>, Vec<_>) = limbo
                .into_iter()
                .partition(|kept| board.is_unheard(kept.me, kept.other));
            board.limbo = unheard;
            (links, heard)
        };
        // Both may end here, which takes the lock again.
        drop(heard);
        for link in links {
            let waiting = std::mem::take(&mut *lock(&link.waiting));
            waiting.into_iter().flatten().for_each(Waker::wake);
        }
        self.changed.notify_waiters();
    }
}

impl Board {
    fn way(&self, me: Peer, other: NodeId, side: Side) -> Way {
        let (from, to) = match side {
            Side::Read => (other, me.node),
            Side::Write => (me.node, other),
        };
        if self.dead.contains(&me) {
            let killed = "the test has killed this process";
            let kind = io::ErrorKind::ConnectionAborted;
            Way::Broken(io::Error::new(kind, killed))
        } else if self.paused.contains(&me.node) || self.silenced.contains(&(from, to)) {
            Way::Held
        } else {
            Way::Open
        }
    }

    /// Whether nothing that the first does reaches the other.
    fn is_unheard(&self, me: NodeId, other: NodeId) -> bool {
        self.paused.contains(&me) || self.silenced.contains(&(me, other))
    }
}

impl Link {
    /// The handshake has told who is at the other end.
    pub(crate) fn met(&self, other: NodeId) {
        self.other.store(other.0, Ordering::Relaxed);
    }

    /// Ready when bytes may pass; an error if the connection is broken or the process is dead.
    pub(crate) fn poll_open(&self, cx: &mut Context<'_>, side: Side) -> Poll<io::Result<()>> {
        // Before the board is asked, so that a change after that wakes.
        lock(&self.waiting)[side as usize] = Some(cx.waker().clone());
        if self.cut.load(Ordering::Relaxed) {
            let cut = "the test has broken the connection";
            let kind = io::ErrorKind::ConnectionReset;
            return Poll::Ready(Err(io::Error::new(kind, cut)));
        }
        let way = lock(&self.faults.board).way(self.me, self.other(), side);
        match way {
            Way::Open => Poll::Ready(Ok(())),
            Way::Held => Poll::Pending,
            Way::Broken(error) => Poll::Ready(Err(error)),
        }
    }

    /// Whether the peer must not learn now what becomes of this end.
    pub(crate) fn is_unheard(&self) -> bool {
        lock(&self.faults.board).is_unheard(self.me.node, self.other())
    }

    fn other(&self) -> NodeId {
        NodeId(self.other.load(Ordering::Relaxed))
    }

    /// Closes the connection under the feet of whoever uses it.
    fn shut(&self) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.shutdown(Shutdown::Both)
        {
            // The peer was faster.
            tracing::trace!(%error, "a connection of a killed process was closed already");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let (me, other) = (self.me.node, self.other());
        let Some(socket) = self.socket.take() else {
            return;
        };
        let mut board = lock(&self.faults.board);
        if board.is_unheard(me, other) {
            board.limbo.push(Kept {
                me,
                other,
                _socket: socket,
            });
        }
    }
}
