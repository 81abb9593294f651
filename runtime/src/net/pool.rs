//! Connections that are there already, and the making of new ones: one at a time for each peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use partha_core::id::{NodeId, Peer};

use super::asker::Asker;
use super::connection::{Connection, lock};
use super::handshake::{self, Hello};
use super::io::{self, Inbound};
use super::links::{Lease, Links};
use super::stand_in;
use crate::capability::Way;
use crate::client::WeakClient;
use crate::config::CONNECT_DEADLINE;
use crate::error::{ErrorKind, Result, SystemError};
use crate::shard::{Incoming, Open, OpenCalls, ReplyTo};
use crate::wire::frame::{Invoke, Target};
use crate::wire::message::Action;

/// Places remembered; unused ones are forgotten beyond.
const ENTRIES_MAX: usize = 4096;

/// The connections that this client opened.
pub(crate) struct Pool {
    me: Peer,
    name: String,
    links: Links,
    client: WeakClient,
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    address: String,
    shard: u16,
}

#[derive(Default)]
struct Entry {
    current: tokio::sync::Mutex<Current>,
}

#[derive(Default)]
struct Current {
    connection: Option<Arc<Connection>>,
    /// When the latest attempt failed, and why.
    failure: Option<(Instant, SystemError)>,
}

impl Pool {
    /// When a silent peer is taken for dead.
    pub(crate) fn lease(&self) -> Lease {
        self.links.lease
    }

    pub(crate) fn new(me: Peer, name: String, links: Links, client: WeakClient) -> Self {
        Self {
            me,
            name,
            links,
            client,
            entries: Mutex::default(),
        }
    }

    /// How its connections are made.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// A connection to whoever listens at `address`.
    pub(crate) async fn by_address(&self, address: &str, shard: u16) -> Result<Arc<Connection>> {
        self.to_node(address, NodeId(0), shard).await
    }

    /// A connection to a node; whoever else listens at its address is not taken for it.
    pub(crate) async fn to_node(
        &self,
        address: &str,
        node: NodeId,
        shard: u16,
    ) -> Result<Arc<Connection>> {
        let entry = self.entry(Key {
            address: address.to_owned(),
            shard,
        });
        let began = Instant::now();
        let mut current = entry.current.lock().await;
        if let Some((at, error)) = &current.failure
            && *at >= began
        {
            // It failed while this caller waited for its turn: no better would come of another.
            return Err(error.clone());
        }
        if let Some(connection) = &current.connection
            && connection.is_usable()
            && (node == NodeId(0) || connection.peer().node == node)
        {
            return Ok(connection.clone());
        }
        match self.open(address, node, shard).await {
            Ok(connection) => {
                *current = Current {
                    connection: Some(connection.clone()),
                    failure: None,
                };
                Ok(connection)
            }
            Err(error) => {
                let open = current.connection.take().filter(|old| old.is_open());
                *current = Current {
                    connection: open,
                    failure: Some((Instant::now(), error.clone())),
                };
                Err(error)
            }
        }
    }

    /// A connection to the node that is there already, for what is said about actions: one that
    /// takes calls if there is one, else one that takes none any more.
    pub(crate) fn known(&self, node: NodeId) -> Option<Arc<Connection>> {
        let entries = lock(&self.entries);
        let open = entries.values().filter_map(|entry| {
            let current = entry.current.try_lock().ok()?;
            let connection = current.connection.clone()?;
            (connection.peer().node == node && connection.is_open()).then_some(connection)
        });
        open.max_by_key(|connection| connection.is_usable())
    }

    fn entry(&self, key: Key) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, entry| {
                let in_use = Arc::strong_count(entry) > 1;
                if !in_use {
                    entry.finish();
                }
                in_use
            });
        }
        entries.entry(key).or_default().clone()
    }

    async fn open(&self, address: &str, node: NodeId, shard: u16) -> Result<Arc<Connection>> {
        let unreachable = |why: String| {
            let detail = format!("cannot connect to {address}: {why}");
            SystemError::new(ErrorKind::Unreachable, detail)
        };
        if self.links.embedded {
            let why = "this node is embedded: it has no sockets, and reaches no other";
            return Err(unreachable(why.to_owned()));
        }
        let connecting = self.links.connect(self.me, address, node);
        let mut stream = tokio::time::timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| unreachable(format!("no answer in {} s", CONNECT_DEADLINE.as_secs())))?
            .map_err(|error| unreachable(error.to_string()))?;
        let home = self
            .client
            .upgrade()
            .and_then(|client| client.home_if_any());
        let shards = home.map_or(0, |home| home.shards.len() as u16);
        let hello = Hello::new(self.me, &self.name, shard, shards, node)
            .taking(self.links.traffic.message_bytes_max);
        let answer = handshake::open(&mut stream, &hello)
            .await
            .map_err(|error| {
                let error = error.context(format_args!("meeting {address}"));
                error.closed_at(node)
            })?;
        self.links.met(&stream, answer.peer);
        let connection = Connection::new(
            answer,
            address.to_owned(),
            self.links.lease,
            self.links.traffic,
        );
        let (reader, writer) = Links::split(stream, &connection);
        let inbound = ClientInbound {
            client: self.client.clone(),
            open: Mutex::default(),
        };
        let serving = io::run(reader, writer, connection.clone(), inbound);
        match shards {
            0 => stand_in::spawn(&connection, serving),
            // Callers are servants here, who are to be polled no longer than their own work takes.
            _ => drop(tokio::spawn(serving)),
        }
        Ok(connection)
    }
}

impl Entry {
    /// Nobody will ask for the connection here any more.
    fn finish(&self) {
        if let Ok(current) = self.current.try_lock()
            && let Some(connection) = &current.connection
        {
            connection.finish();
        }
    }
}

impl Drop for Pool {
    /// The client is gone: its connections end after what is in their outboxes.
    fn drop(&mut self) {
        let entries = self
            .entries
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.values().for_each(|entry| entry.finish());
    }
}

/// Takes what the peer calls on a connection that this end opened: call-backs, and objects of
/// this node.
struct ClientInbound {
    client: WeakClient,
    /// What the peer waits for.
    open: Mutex<OpenCalls<Open>>,
}

impl Inbound for ClientInbound {
    fn invoke(&self, connection: &Arc<Connection>, call: Invoke) {
        let Invoke {
            question,
            target,
            interface,
            method,
            parameters,
            ..
        } = call;
        let reply = ReplyTo::Connection {
            connection: Asker::new(connection),
            question,
        };
        let found = match target {
            Target::Export(number) => {
                connection
                    .export(number)
                    .and_then(|capability| match capability.way() {
                        Way::Local(shard, object) => Ok((shard.clone(), object)),
                        Way::Imported(_) | Way::Foreign(_) => {
                            let detail =
                                "a capability of a third party cannot be called through here";
                            Err(SystemError::new(ErrorKind::BadOperation, detail))
                        }
                    })
            }
            Target::Object(object) => {
                let client = self.client.upgrade();
                let shard = client.and_then(|client| client.shard_asked_for(object));
                shard.map(|shard| (shard, object)).ok_or_else(|| {
                    let detail = format!("this process does not have object {object}");
                    SystemError::new(ErrorKind::NoSuchObject, detail)
                })
            }
        };
        match found {
            Ok((shard, object)) => {
                let (caller, create) = (connection.peer(), None);
                let held = match connection.hold(parameters.segment().len()) {
                    Ok(held) => held,
                    Err(error) => return reply.fail(error),
                };
                let open = shard.call(Incoming {
                    object,
                    interface,
                    method,
                    parameters,
                    caller,
                    reply,
                    held,
                    create,
                    number: None,
                });
                lock(&self.open).note(question, open);
            }
            Err(error) => reply.fail(error),
        }
    }

    fn action(&self, connection: &Arc<Connection>, action: Action) {
        let home = self
            .client
            .upgrade()
            .and_then(|client| client.home_if_any());
        let question = action.question;
        let reply = || ReplyTo::Connection {
            connection: Asker::new(connection),
            question,
        };
        match home {
            Some(home) => home.action(connection.peer(), action, reply),
            None if question != 0 => {
                let detail = "this process runs no objects, so no actions";
                reply().fail(SystemError::new(ErrorKind::BadOperation, detail));
            }
            None => {}
        }
    }

    fn cancel(&self, _connection: &Arc<Connection>, question: u32) {
        let open = lock(&self.open).take(question);
        if let Some(open) = open {
            open.give_up();
        }
    }

    fn idle(&self, connection: &Arc<Connection>) {
        if !connection.is_asked() {
            lock(&self.open).clear();
        }
    }

    fn closed(&self, _reason: &SystemError) {
        // Nobody hears the answers to what came by it.
        let open = lock(&self.open).take_all();
        open.for_each(Open::give_up);
    }
}
