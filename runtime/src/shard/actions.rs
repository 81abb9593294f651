//! What others say to this shard about actions, and what it says to them.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use partha_core::action::message::{From, Message, To, Verdict};
use partha_core::action::path::Site;
use partha_core::engine::ActionPhase;
use partha_core::id::{NodeId, Peer, Uid};
use partha_core::{End, Input, Ticket};
use partha_store::crash_point;

use super::job::{Job, ReplyTo, Request, Wish};
use super::{GroupJob, Letter, Shard, ShardHandle, answer, count};
use crate::config::MESSAGES_MAX;
use crate::error::{ErrorKind, SystemError};
use crate::hash::shard_of;
use crate::net::actions;
use crate::net::connection::Connection;
use crate::node::Home;
use crate::wire::frame;
use crate::wire::message::{self, Action, CommitRequest, What};

impl Home {
    /// Brings what a peer says about actions to the shard that it is for.
    pub(crate) fn action(&self, caller: Peer, action: Action, reply: impl FnOnce() -> ReplyTo) {
        let wish = match action.what {
            What::Message(message) => {
                let from = From {
                    peer: caller,
                    shard: action.from,
                };
                return self.deliver(from, action.shard, message);
            }
            What::Commit(request) => Wish::Commit(request),
            What::Ask { action, decider } => Wish::Ask { action, decider },
            // Only nodes have copies.
            What::Group(_) if !self.is_node(caller) => return,
            What::Group(news) => {
                let shard = &self.shards[self.shard_index(action.shard)];
                return shard.group(Letter { from: caller, news });
            }
        };
        let reply = reply();
        let shard = &self.shards[self.shard_index(action.shard)];
        shard.request(Request {
            wish,
            caller,
            reply,
        });
    }

    /// Brings a message to the shard that it is for.
    ///
    /// What an earlier life prepared may be spread over other shards now. So the word that it is
    /// committed goes to all that have a part of it, and it is acknowledged, in the name of the
    /// shard that the coordinator knows, when nothing of it is left in the store.
    fn deliver(&self, from: From, shard: message::Shard, message: Message) {
        let index = self.shard_index(shard);
        if let (Message::Commit { action, part: None }, message::Shard::Number(addressed)) =
            (&message, shard)
            && let Some(parts) = self.recovered.get(action)
        {
            let action = *action;
            let store = self.registry.store.as_ref();
            let left = store.map(|store| store.shadowed_objects(action));
            match left {
                Some(Ok(left)) if left.is_empty() => {
                    let to = Site {
                        node: from.peer.node,
                        shard: from.shard,
                    };
                    self.shards[index].post(Job::Acknowledge {
                        action,
                        to,
                        from: addressed,
                        decider: parts.decider,
                    });
                }
                Some(Ok(_)) | None => {
                    for shard in &parts.shards {
                        self.shards[usize::from(*shard)].message(from, message.clone());
                    }
                }
                Some(Err(error)) => {
                    // It will be said again.
                    tracing::error!(%action, %error, "it is not known what is left to be done");
                }
            }
            return;
        }
        self.shards[index].message(from, message);
    }

    /// An earlier life of the node may have had more shards than this one.
    fn shard_index(&self, shard: message::Shard) -> usize {
        let shards = self.shards.len();
        match shard {
            message::Shard::Number(number) => usize::from(number) % shards,
            message::Shard::Of(uid) => usize::from(shard_of(uid, shards as u16)),
        }
    }
}

impl ShardHandle {
    /// Brings a message about actions to the shard. Over a bound it is lost, as any may be.
    pub(crate) fn message(&self, from: From, message: Message) {
        if let Some(shard) = self.on_its_thread() {
            shard.heard(from, Box::new(message));
            return;
        }
        if self.has_room() {
            let message = Box::new(message);
            self.post(Job::Message { from, message });
        } else {
            tracing::debug!(shard = self.index(), ?message, "too many messages wait");
        }
    }

    /// Brings what a copy at another node says to the shard. Over a bound it is lost, as any
    /// message may be.
    pub(crate) fn group(&self, letter: Letter) {
        if self.has_room() {
            self.post(Job::Group(GroupJob::News(letter)));
        } else {
            tracing::debug!(shard = self.index(), "too many messages wait");
        }
    }

    /// Brings a request of whoever runs an action to the shard.
    pub(crate) fn request(&self, request: Request) {
        if let Some(shard) = self.on_its_thread() {
            shard.requested(request);
        } else if self.has_room() {
            self.post(Job::Request(Box::new(request)));
        } else {
            let detail = format!("{MESSAGES_MAX} messages wait for shard {}", self.index());
            request
                .reply
                .fail(SystemError::new(ErrorKind::Overloaded, detail));
        }
    }

    fn has_room(&self) -> bool {
        if self.inner.messages.fetch_add(1, Ordering::Relaxed) < MESSAGES_MAX {
            return true;
        }
        self.message_taken();
        false
    }

    pub(super) fn message_taken(&self) {
        self.inner.messages.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shard {
    /// This shard, as others name it.
    pub(super) fn site(&self) -> Site {
        Site {
            node: self.registry.me.node,
            shard: self.handle.index(),
        }
    }

    /// Somebody says something about an action.
    pub(super) fn heard(self: &Rc<Self>, from: From, message: Box<Message>) {
        match &*message {
            Message::Deadlock(_) => {}
            Message::Prepare { .. }
            | Message::Vote { .. }
            | Message::Commit { .. }
            | Message::Acknowledge { .. }
            | Message::Abort { .. }
            | Message::Merge { .. }
            | Message::Query { .. }
            | Message::Verdict { .. } => count(&self.counters.messages),
        }
        match *message {
            // What was read counts from here on.
            Message::Prepare {
                part: Some(object), ..
            }
            | Message::Merge {
                part: Some(object), ..
            }
            | Message::Abort {
                part: Some(object), ..
            } => {
                self.feed_as_leader(object, Input::Message { from, message });
            }
            Message::Prepare { action, .. } => {
                self.feed_when_sure(action, Input::Message { from, message });
            }
            _ => self.feed(Input::Message { from, message }),
        }
    }

    /// Whoever runs an action wants something.
    pub(super) fn requested(self: &Rc<Self>, request: Request) {
        let Request {
            wish,
            caller,
            reply,
        } = request;
        let ticket = self.ticket();
        let mut part = None;
        let (sure, input) = match wish {
            Wish::Ask { action, decider } => (
                None,
                Input::Ask {
                    ticket,
                    action,
                    decider,
                },
            ),
            // The number of the mirror says in which life of the node it was made; what an
            // earlier life decided is in the store.
            Wish::Commit(request) => {
                let CommitRequest {
                    action,
                    coordinator,
                    others,
                    aborted,
                    decider,
                } = request;
                let commit = Input::Commit {
                    ticket,
                    caller,
                    action,
                    join: coordinator.joined.join,
                    others,
                    aborted,
                    decider,
                    part: coordinator.joined.part,
                };
                part = coordinator.part();
                (Some(action), commit)
            }
        };
        self.requests.borrow_mut().insert(ticket, reply);
        match (part, sure) {
            (Some(object), _) => self.feed_as_leader(object, input),
            (None, Some(action)) => self.feed_when_sure(action, input),
            (None, None) => self.feed(input),
        }
    }

    /// The node stops: actions that may go on for long are aborted.
    pub(super) fn give_up_actions(self: &Rc<Self>) {
        let active: Vec<_> = {
            let engine = self.engine.borrow();
            let views = engine.actions();
            let active = views.filter(|view| view.phase == ActionPhase::Active);
            active.filter_map(|view| view.path.root()).collect()
        };
        for action in active {
            tracing::warn!(%action, "aborted, since the node stops");
            let from = From {
                peer: self.registry.me,
                shard: actions::RUNNER,
            };
            let part = None;
            let message = Box::new(Message::Abort { action, part });
            self.feed(Input::Message { from, message });
        }
    }

    /// The engine has ended a request to commit.
    pub(super) fn ended_action(&self, ticket: Ticket, end: End) {
        match end {
            End::Committed => count(&self.counters.committed),
            End::Aborted(_) => count(&self.counters.aborted),
            End::Unknown => {}
        }
        crash_point!("ended/before");
        if let Some(reply) = self.requests.borrow_mut().remove(&ticket) {
            ended(reply, end);
        }
        crash_point!("ended/after");
    }

    /// The engine has answered a question.
    pub(super) fn told(&self, ticket: Ticket, verdict: Option<Verdict>) {
        if let Some(reply) = self.requests.borrow_mut().remove(&ticket) {
            let mut w = frame::returned();
            let slot = frame::body(&w);
            message::write_told(&mut w, slot, verdict);
            answer::answer_writer(reply, w, None);
        }
    }

    /// Sends a message: at once if it is for this shard.
    pub(super) fn send(self: &Rc<Self>, to: To, message: Message) {
        let step = Step::of(&message);
        if let Some(step) = step {
            step.crash_before();
        }
        let from = self.handle.index();
        match to {
            To::Site(site) => {
                let shard = message::Shard::Number(site.shard);
                self.send_as(from, site.node, shard, message);
            }
            To::Home { node, root } => self.send_home(node, root, message),
            To::Leader { object } => self.send_to_leader(object, message),
        }
        if let Some(step) = step {
            step.crash_after();
        }
    }

    /// Tells a coordinator that nothing is left here of what an earlier life, or another shard,
    /// had prepared.
    pub(super) fn acknowledge(&self, action: Uid, to: Site, from: u16, decider: Option<Uid>) {
        let shard = message::Shard::Number(to.shard);
        let message = Message::Acknowledge {
            action,
            site: true,
            groups: Vec::new(),
            decider,
        };
        self.send_as(from, to.node, shard, message);
    }

    pub(super) fn send_as(&self, from: u16, node: NodeId, shard: message::Shard, message: Message) {
        let me = self.registry.me;
        let own = node == me.node;
        match own.then(|| self.client.home_if_any()).flatten() {
            Some(home) => {
                let from = From {
                    peer: me,
                    shard: from,
                };
                home.deliver(from, shard, message);
            }
            None => self.post(from, node, shard, message),
        }
    }

    /// Sends a message to another node: over the connection that the node has made to this shard,
    /// or over one of its own.
    fn post(&self, from: u16, node: NodeId, shard: message::Shard, message: Message) {
        match self.connection_of(node) {
            None => actions::post(&self.client, node, shard, from, message),
            Some(connection) => actions::send(&connection, shard, from, message),
        }
    }
}

impl Shard {
    /// The connection that a node has made to this shard.
    fn connection_of(&self, node: NodeId) -> Option<Arc<Connection>> {
        let connection = self.nodes.borrow().get(&node).and_then(Weak::upgrade);
        connection.filter(|connection| connection.is_open())
    }

    /// Whether there is a connection to a node.
    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.connection_of(node).is_some() || self.client.pool().known(node).is_some()
    }
}

fn ended(reply: ReplyTo, end: End) {
    let mut w = frame::returned();
    let slot = frame::body(&w);
    message::write_ended(&mut w, slot, end);
    answer::answer_writer(reply, w, None);
}

impl Home {
    /// Posts a message of whoever runs an action here to a shard of this process.
    pub(crate) fn tell(&self, shard: message::Shard, message: Message) {
        let from = From {
            peer: self.me,
            shard: actions::RUNNER,
        };
        let index = self.shard_index(shard);
        self.shards[index].message(from, message);
    }

    /// Asks a shard of this process.
    pub(crate) fn request(&self, shard: message::Shard, wish: Wish, reply: ReplyTo) {
        let caller = self.me;
        let index = self.shard_index(shard);
        self.shards[index].request(Request {
            wish,
            caller,
            reply,
        });
    }

    /// A shard of this process, as others name it.
    pub(crate) fn site(&self, shard: u16) -> Site {
        let node = self.me.node;
        Site { node, shard }
    }
}

/// The messages that a process may be asked to die at.
#[derive(Clone, Copy)]
enum Step {
    Prepare,
    Vote,
    Commit,
    Acknowledge,
    Abort,
    Query,
    Verdict,
}

impl Step {
    fn of(message: &Message) -> Option<Self> {
        Some(match message {
            Message::Prepare { .. } => Self::Prepare,
            Message::Vote { .. } => Self::Vote,
            Message::Commit { .. } => Self::Commit,
            Message::Acknowledge { .. } => Self::Acknowledge,
            Message::Abort { .. } => Self::Abort,
            Message::Query { .. } => Self::Query,
            Message::Verdict { .. } => Self::Verdict,
            Message::Merge { .. } | Message::Deadlock(_) => return None,
        })
    }

    fn crash_before(self) {
        match self {
            Self::Prepare => crash_point!("send/prepare/before"),
            Self::Vote => crash_point!("send/vote/before"),
            Self::Commit => crash_point!("send/commit/before"),
            Self::Acknowledge => crash_point!("send/acknowledge/before"),
            Self::Abort => crash_point!("send/abort/before"),
            Self::Query => crash_point!("send/query/before"),
            Self::Verdict => crash_point!("send/verdict/before"),
        }
    }

    fn crash_after(self) {
        match self {
            Self::Prepare => crash_point!("send/prepare/after"),
            Self::Vote => crash_point!("send/vote/after"),
            Self::Commit => crash_point!("send/commit/after"),
            Self::Acknowledge => crash_point!("send/acknowledge/after"),
            Self::Abort => crash_point!("send/abort/after"),
            Self::Query => crash_point!("send/query/after"),
            Self::Verdict => crash_point!("send/verdict/after"),
        }
    }
}
