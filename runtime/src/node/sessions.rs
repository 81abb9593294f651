//! Sessions: who is connected to this node, in which life, and what ends that.
//!
//! A session is all the connections that one process has to this node in one of its lives. It
//! begins with the first of them and ends, once, with the last; an operator or a newer life of the
//! process ends it with all it has. Whatever ends it, every shard hears of it by `PeerGone`.
//!
//! | for the process, known is | older life comes | same life comes | newer life comes |
//! |---|---|---|---|
//! | nothing | – | session begins | session begins |
//! | a life that is over | refused | session begins | session begins |
//! | a session | refused | one more connection | the session ends, then one begins |
//! | that it is this node | refused | session begins | refused |
//!
//! A session of the node with itself ends without `PeerGone`: the node lives on.
//!
//! What always holds: every shard hears of the end of a process's session before it hears of a
//! connection or a call of the next one, since both are posted in the order of this table and
//! neither overtakes the other. So nothing that a later session asks is ended by the end of an
//! earlier one, and nothing of it is done before that. Nor is anything done for the earlier one
//! later: its connections are closed by then, and calls that came by a closed one are not taken.
//!
//! It is bounded by its connections, of which each session has one at least, and by the lives it
//! remembers. It does not tell what a process is bound to or runs here: the shards know.
//!
//! Rajdoot's measures M2 (the crash count) and M3 (the lease), at the door of the node; the engines
//! refuse late calls for themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partha_core::id::{Incarnation, NodeId, Peer};
use tokio::sync::Notify;

use super::Home;
use crate::config::{CONNECTIONS_MAX, LIVES_MAX};
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::{Connection, lock};
use crate::net::links::Lease;
use crate::shard::Job;

/// The sessions of a node, and how many have ended.
#[derive(Default)]
pub(super) struct Sessions {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: BTreeMap<NodeId, Session>,
    /// Connections of all sessions.
    connections: usize,
    last_number: u64,
    lives: Lives,
    ended: Ended,
}

struct Session {
    incarnation: Incarnation,
    opened: Instant,
    /// An operator has ended it, and its task has not noticed yet.
    broken: bool,
    /// In the order of their numbers.
    links: Vec<Link>,
}

/// One connection of a session.
struct Link {
    number: u64,
    shard: u16,
    way: Way,
}

enum Way {
    Native(Arc<Connection>),
    Foreign(Arc<ForeignLink>),
}

/// A connection of a plain Cap'n Proto client.
pub(crate) struct ForeignLink {
    address: String,
    opened: Instant,
    cut: Notify,
}

/// Why a session, or a connection of it, is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The connection broke or was closed.
    Lost,
    /// Nothing was heard of the peer for the time of its lease.
    Expired,
    /// A newer life of the process came.
    Replaced,
    /// An operator wanted it.
    Broken,
}

/// Sessions that have ended since the start, by what ended them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) lost: u64,
    pub(crate) expired: u64,
    pub(crate) replaced: u64,
    pub(crate) broken: u64,
}

/// A session, for those who look.
#[derive(Clone, Debug)]
pub(crate) struct SessionView {
    pub(crate) peer: Peer,
    /// Its name and its software, as it says; empty for a foreign one.
    pub(crate) name: String,
    pub(crate) software: String,
    /// It speaks plain Cap'n Proto: there are no heartbeats, so no lease.
    pub(crate) foreign: bool,
    pub(crate) age: Duration,
    /// Since it was heard on any connection; none where that is not known.
    pub(crate) silent: Option<Duration>,
    /// How it is watched; none of a foreign one.
    pub(crate) lease: Option<Lease>,
    pub(crate) links: Vec<LinkView>,
}

/// A connection, for those who look.
#[derive(Clone, Debug)]
pub(crate) struct LinkView {
    pub(crate) shard: u16,
    pub(crate) address: String,
    pub(crate) age: Duration,
    pub(crate) silent: Option<Duration>,
}

/// A connection's place in its session: dropped, the connection is over.
pub(crate) struct Seat {
    home: Arc<Home>,
    peer: Peer,
    number: u64,
    ending: Ending,
}

impl Seat {
    /// The connection is over, for this reason.
    pub(crate) fn leave(mut self, ending: Ending) {
        self.ending = ending;
    }
}

impl Drop for Seat {
    /// Where nobody says why, its task was dropped, or never began.
    fn drop(&mut self) {
        self.home.left(self.peer, self.number, self.ending);
    }
}

impl ForeignLink {
    pub(crate) fn new(address: String) -> Arc<Self> {
        let (opened, cut) = (Instant::now(), Notify::new());
        Arc::new(Self {
            address,
            opened,
            cut,
        })
    }

    /// Waits until an operator ends the session.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl SessionView {
    /// What is left of its lease.
    pub(crate) fn lease_left(&self) -> Option<Duration> {
        let silent_max = self.lease?.silent_max;
        self.silent.map(|silent| silent_max.saturating_sub(silent))
    }
}

impl Home {
    /// Takes a native connection into the session of its peer. A session of an earlier life of the
    /// peer ends first.
    ///
    /// # Errors
    /// `OldIncarnation` if a newer life of the peer has been here, `Overloaded` over the bound.
    pub(crate) fn admit(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        shard: u16,
    ) -> Result<Seat> {
        self.enter(connection.peer(), shard, Way::Native(connection.clone()))
    }

    /// The same for a plain Cap'n Proto client, whose identity is made for this connection.
    ///
    /// # Errors
    /// `Overloaded` over the bound.
    pub(crate) fn admit_foreign(
        self: &Arc<Self>,
        peer: Peer,
        link: Arc<ForeignLink>,
    ) -> Result<Seat> {
        self.enter(peer, 0, Way::Foreign(link))
    }

    fn enter(self: &Arc<Self>, peer: Peer, shard: u16, way: Way) -> Result<Seat> {
        let mut table = lock(&self.sessions.table);
        if let Some(error) = self.refusal(&table, peer) {
            return Err(error);
        }
        let known = table.live.get(&peer.node).map(|old| old.incarnation);
        if known.is_some_and(|known| known < peer.incarnation) {
            self.end(&mut table, peer.node, Ending::Replaced);
        }
        table.connections += 1;
        table.last_number += 1;
        let number = table.last_number;
        let session = table.live.entry(peer.node).or_insert_with(|| Session {
            incarnation: peer.incarnation,
            opened: Instant::now(),
            broken: false,
            links: Vec::with_capacity(1),
        });
        session.links.push(Link { number, shard, way });
        Ok(Seat {
            home: self.clone(),
            peer,
            number,
            ending: Ending::Lost,
        })
    }

    fn refusal(&self, table: &Table, peer: Peer) -> Option<SystemError> {
        let here = self.registry.here();
        let live = table.live.get(&peer.node).map(|live| live.incarnation);
        let newest = live.or_else(|| table.lives.newest(peer.node));
        let newest = newest.max((peer.node == self.me.node).then_some(self.me.incarnation));
        if peer.node == self.me.node && peer.incarnation > self.me.incarnation {
            let detail = format!(
                "process {} calls itself incarnation {}, but that process is {here} itself, in \
                 its incarnation {}: two have one identity; give a copied folder up, and start \
                 its node on one of its own",
                peer.node, peer.incarnation, self.me.incarnation
            );
            return Some(SystemError::new(ErrorKind::BadOperation, detail));
        }
        if let Some(newest) = newest.filter(|newest| peer.incarnation < *newest) {
            let detail = format!(
                "incarnation {} of process {} is over: incarnation {newest} of it has been at \
                 {here}; end this one, or start it again",
                peer.incarnation, peer.node
            );
            return Some(SystemError::new(ErrorKind::OldIncarnation, detail));
        }
        let open = table.connections;
        (open >= CONNECTIONS_MAX).then(|| {
            let detail = format!("{here} has {open} connections already");
            SystemError::new(ErrorKind::Overloaded, detail)
        })
    }

    /// Whether a process is a node that is connected in this life: it has shards.
    pub(crate) fn is_node(&self, peer: Peer) -> bool {
        let table = lock(&self.sessions.table);
        let session = table.live.get(&peer.node);
        let session = session.filter(|session| session.incarnation == peer.incarnation);
        session.is_some_and(|session| {
            session.links.iter().any(|link| match &link.way {
                Way::Native(connection) => connection.hello().shards > 0,
                Way::Foreign(_) => false,
            })
        })
    }

    /// A connection is over; with its last one a session is.
    fn left(&self, peer: Peer, number: u64, ending: Ending) {
        let mut table = lock(&self.sessions.table);
        let table = &mut *table;
        let Some(session) = table.live.get_mut(&peer.node) else {
            return;
        };
        // One that is not there has ended with its session.
        let Ok(index) = session
            .links
            .binary_search_by_key(&number, |link| link.number)
        else {
            return;
        };
        session.links.remove(index);
        let ending = if session.broken {
            Ending::Broken
        } else {
            ending
        };
        table.connections -= 1;
        if table.live[&peer.node].links.is_empty() {
            self.end(table, peer.node, ending);
        }
    }

    /// Ends a session with all its connections and tells the shards.
    fn end(&self, table: &mut Table, node: NodeId, ending: Ending) {
        let Some(session) = table.live.remove(&node) else {
            return;
        };
        let mut foreign = false;
        table.connections -= session.links.len();
        for link in &session.links {
            match &link.way {
                Way::Native(connection) => connection.cut(&cut_for(ending, session.incarnation)),
                Way::Foreign(link) => {
                    foreign = true;
                    link.cut.notify_one();
                }
            }
        }
        let (node, incarnation) = (node, session.incarnation);
        let caller = Peer { node, incarnation };
        if !foreign {
            table.lives.note(caller);
        }
        *table.ended.of(ending) += 1;
        // The node itself lives on, whatever becomes of a connection that it had with itself: its
        // own calls and actions need none.
        if caller != self.me {
            for shard in &self.shards {
                shard.post(Job::PeerGone { caller, foreign });
            }
        }
        tracing::debug!(process = %node, life = incarnation.0, ?ending, "session ended");
    }

    /// Ends the session of a process as an operator wishes: of this life, or of whichever one if
    /// that is 0. Answers how many connections it had; none if there is no such session.
    pub(crate) fn break_session(&self, node: NodeId, life: Incarnation) -> Option<usize> {
        let mut table = lock(&self.sessions.table);
        let session = table.live.get_mut(&node)?;
        if life != Incarnation(0) && life != session.incarnation {
            return None;
        }
        let count = session.links.len();
        let mut foreign = false;
        for link in &session.links {
            if let Way::Foreign(link) = &link.way {
                foreign = true;
                link.cut.notify_one();
            }
        }
        if foreign {
            // Its task, which is alone in making its calls, ends it when it has made the last.
            session.broken = true;
        } else {
            self.end(&mut table, node, Ending::Broken);
        }
        Some(count)
    }

    /// Connections of all shards and both faces.
    pub(crate) fn open_connections(&self) -> usize {
        lock(&self.sessions.table).connections
    }

    /// How many sessions there are, and how many have ended.
    pub(crate) fn session_counts(&self) -> (usize, Ended) {
        let table = lock(&self.sessions.table);
        (table.live.len(), table.ended)
    }

    /// Whether the process has a session in this life.
    pub(crate) fn has_session(&self, peer: Peer) -> bool {
        self.session_of(peer.node) == Some(peer)
    }

    /// The life of a process that has a session here.
    pub(crate) fn session_of(&self, node: NodeId) -> Option<Peer> {
        let table = lock(&self.sessions.table);
        let incarnation = table.live.get(&node)?.incarnation;
        Some(Peer { node, incarnation })
    }

    /// Whether a process is connected to this node, whichever life of it.
    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        let table = lock(&self.sessions.table);
        let links = table.live.get(&node).map(|session| &session.links);
        links.is_some_and(|links| {
            let mut links = links.iter();
            links.any(|link| matches!(&link.way, Way::Native(it) if it.is_open()))
        })
    }

    /// The first sessions after this process's, in order.
    pub(crate) fn sessions_after(&self, after: NodeId, limit: usize) -> Vec<SessionView> {
        use std::ops::Bound::{Excluded, Unbounded};
        let table = lock(&self.sessions.table);
        let page = table.live.range((Excluded(after), Unbounded)).take(limit);
        page.map(|(node, session)| view(*node, session)).collect()
    }
}

fn cut_for(ending: Ending, incarnation: Incarnation) -> SystemError {
    let why = match ending {
        Ending::Lost => "its session is lost",
        Ending::Expired => "its lease is over",
        Ending::Replaced => "a newer incarnation of the process has come",
        Ending::Broken => "an operator has ended its session",
    };
    let detail = format!("incarnation {incarnation} of the peer is cut off: {why}");
    SystemError::new(ErrorKind::BindingBroken, detail)
}

fn view(node: NodeId, session: &Session) -> SessionView {
    let incarnation = session.incarnation;
    let links: Vec<_> = session.links.iter().map(Link::view).collect();
    let mut native = session.links.iter().filter_map(|link| match &link.way {
        Way::Native(connection) => Some(connection),
        Way::Foreign(_) => None,
    });
    let first = native.next();
    let hello = first.map(|connection| connection.hello());
    SessionView {
        peer: Peer { node, incarnation },
        name: hello.map(|hello| hello.name.clone()).unwrap_or_default(),
        software: hello
            .map(|hello| hello.software.clone())
            .unwrap_or_default(),
        foreign: hello.is_none(),
        age: session.opened.elapsed(),
        silent: links.iter().filter_map(|link| link.silent).min(),
        lease: first.map(|connection| connection.lease()),
        links,
    }
}

impl Link {
    fn view(&self) -> LinkView {
        let (address, age, silent) = match &self.way {
            Way::Native(connection) => (
                connection.address().to_owned(),
                connection.age(),
                Some(connection.silent_for()),
            ),
            Way::Foreign(link) => (link.address.clone(), link.opened.elapsed(), None),
        };
        LinkView {
            shard: self.shard,
            address,
            age,
            silent,
        }
    }
}

impl Ended {
    fn of(&mut self, ending: Ending) -> &mut u64 {
        match ending {
            Ending::Lost => &mut self.lost,
            Ending::Expired => &mut self.expired,
            Ending::Replaced => &mut self.replaced,
            Ending::Broken => &mut self.broken,
        }
    }
}

/// The newest life of processes whose session is over. Two halves: when the younger one is full,
/// it becomes the older one, and what was in that is forgotten. A process that comes again is
/// young again.
#[derive(Debug, Default)]
struct Lives {
    young: HashMap<NodeId, Incarnation>,
    old: HashMap<NodeId, Incarnation>,
}

impl Lives {
    fn newest(&self, node: NodeId) -> Option<Incarnation> {
        let young = self.young.get(&node);
        young.or_else(|| self.old.get(&node)).copied()
    }

    fn note(&mut self, peer: Peer) {
        let newest = self.newest(peer.node).max(Some(peer.incarnation));
        if self.young.len() >= LIVES_MAX / 2 && !self.young.contains_key(&peer.node) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young
            .insert(peer.node, newest.unwrap_or(peer.incarnation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: u64, life: u32) -> Peer {
        Peer {
            node: NodeId(node),
            incarnation: Incarnation(life),
        }
    }

    #[test]
    fn the_newest_life_is_remembered_until_many_others_have_come() {
        let mut lives = Lives::default();
        lives.note(peer(1, 5));
        lives.note(peer(1, 4));
        assert_eq!(lives.newest(NodeId(1)), Some(Incarnation(5)));
        for node in 2..=LIVES_MAX as u64 / 2 + 1 {
            lives.note(peer(node, 1));
        }
        // It was among the older half, and is young again by coming.
        assert_eq!(lives.newest(NodeId(1)), Some(Incarnation(5)));
        lives.note(peer(1, 5));
        for node in 100_000..100_000 + LIVES_MAX as u64 / 2 - 2 {
            lives.note(peer(node, 1));
        }
        assert_eq!(lives.newest(NodeId(1)), Some(Incarnation(5)));
        assert_eq!(lives.newest(NodeId(2)), Some(Incarnation(1)));
        for node in 200_000..200_000 + LIVES_MAX as u64 {
            lives.note(peer(node, 1));
        }
        assert_eq!(lives.newest(NodeId(1)), None);
        assert!(lives.young.len() + lives.old.len() <= LIVES_MAX);
    }
}
