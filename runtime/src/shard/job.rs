//! What other threads ask of a shard.

use std::sync::Arc;

use partha_core::action::message::{From, Message};
use partha_core::action::path::{Address, Site};
use partha_core::action::scope::Report;
use partha_core::id::{ClassId, Epoch, NodeId, Peer, Uid};
use partha_core::{Fault, Input, Ticket};
use partha_store::StoreError;
use tokio::sync::{mpsc, oneshot};

use super::action_store::Work;
use super::give_up::Called;
use super::groups::GroupJob;
use super::inspect::Look;
use crate::abi::Class;
use crate::error::{Completed, SystemError};
use crate::net::asker::Asker;
use crate::net::connection::{Connection, Held};
use crate::net::pending::Answer;
use crate::node::Seat;
use crate::wire::message::{CommitRequest, What};

/// A servant's call elsewhere, see [`partha_core::Input::GoesOut`].
#[derive(Debug)]
pub(crate) struct GoesOut {
    pub(crate) ticket: Ticket,
    pub(crate) level: Option<Uid>,
    pub(crate) to: Address,
    pub(crate) leave: oneshot::Sender<()>,
}

/// One job.
pub(crate) enum Job {
    /// A call of an object of this shard.
    Call(Box<Incoming>),
    /// Nobody waits for a call any more.
    Cancel(Called),
    /// A native connection whose opener wants this shard.
    Connection {
        stream: std::net::TcpStream,
        connection: Arc<Connection>,
        seat: Seat,
    },
    /// A connection of a plain Cap'n Proto client.
    Foreign {
        stream: std::net::TcpStream,
        address: String,
    },
    /// The store has done with a batch.
    Flushed {
        ticket: Ticket,
        result: Result<(), StoreError>,
    },
    /// Bind an object.
    Initiate {
        object: Uid,
        class: ClassId,
        caller: Peer,
        answer: oneshot::Sender<Result<Initiated, SystemError>>,
    },
    /// Break a binding.
    Terminate { object: Uid, caller: Peer },
    /// A caller's session is over.
    PeerGone { caller: Peer, foreign: bool },
    /// Start a transient object.
    Serve { object: Uid, class: Class },
    /// End a transient object.
    Retire { object: Uid },
    /// Take an object out of memory if nothing uses it.
    Evict { object: Uid },
    /// What is known of one object.
    Inspect {
        object: Uid,
        answer: oneshot::Sender<Result<Option<ObjectReport>, SystemError>>,
    },
    /// Which of these objects are in memory.
    Active {
        objects: Vec<Uid>,
        answer: oneshot::Sender<Vec<Uid>>,
    },
    /// What runs.
    Report {
        answer: oneshot::Sender<ShardReport>,
    },
    /// What an earlier life of the node has left to be ended.
    Recover(Vec<Input>),
    /// What another shard, or whoever runs an action, says about actions.
    Message { from: From, message: Box<Message> },
    /// Whoever runs an action wants something.
    Request(Box<Request>),
    /// Nothing is left here of an action that a shard of this node had prepared.
    Acknowledge {
        action: Uid,
        to: Site,
        from: u16,
        /// The replicated object whose log has the decision, if it is one's.
        decider: Option<Uid>,
    },
    /// A servant's call in an action goes to another shard.
    Reached { action: Uid, to: Address },
    /// A servant is about to call elsewhere, for the first time there; `leave` is sent when it may,
    /// and dropped if it may not any more.
    GoesOut(GoesOut),
    /// The store has done with a batch about an action.
    Stored {
        job: partha_core::Job,
        work: Work,
        result: Result<(), StoreError>,
    },
    /// About copies of objects.
    Group(GroupJob),
    /// A question about actions and locks.
    Look(Look),
    /// Abort the actions that have not asked for their commit.
    GiveUp,
    /// Take no new calls, finish what runs, empty the memory.
    Drain { done: oneshot::Sender<()> },
    /// Stand still, as if the process were stopped.
    #[cfg(feature = "testkit")]
    Pause(crate::testkit::Pause),
    /// End the thread.
    Stop,
}

/// The two lanes of a shard's inbox. What is prompt overtakes calls: it is little work, many wait
/// for it (a flushed batch, a binding), and a flood of calls must not hold it up.
pub(crate) struct Jobs {
    pub(crate) prompt: mpsc::UnboundedReceiver<Job>,
    pub(crate) in_turn: mpsc::UnboundedReceiver<Job>,
}

impl Jobs {
    /// The next job, once there is one.
    pub(crate) async fn next(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            job = self.prompt.recv() => job,
            job = self.in_turn.recv() => job,
        }
    }

    /// The next job, if there is one.
    pub(crate) fn next_now(&mut self) -> Option<Job> {
        let prompt = self.prompt.try_recv();
        prompt.or_else(|_| self.in_turn.try_recv()).ok()
    }
}

impl Job {
    /// Whether it must not overtake calls: it may be the end of what they are about.
    pub(crate) fn is_in_turn(&self) -> bool {
        match self {
            Self::Call(_) | Self::Cancel(_) | Self::Retire { .. } => true,
            // Calls of our own peers are not taken once their connection is closed: see
            // `Incoming::is_late`. Those of others do not tell.
            Self::PeerGone { foreign, .. } => *foreign,
            #[cfg(feature = "testkit")]
            Self::Pause(_) => false,
            Self::Connection { .. }
            | Self::Foreign { .. }
            | Self::Flushed { .. }
            | Self::Initiate { .. }
            | Self::Terminate { .. }
            | Self::Serve { .. }
            | Self::Evict { .. }
            | Self::Inspect { .. }
            | Self::Active { .. }
            | Self::Report { .. }
            | Self::Recover(_)
            | Self::Acknowledge { .. }
            | Self::Message { .. }
            | Self::Request(_)
            | Self::Reached { .. }
            | Self::GoesOut { .. }
            | Self::Stored { .. }
            | Self::Group(_)
            | Self::Look(_)
            | Self::GiveUp
            | Self::Drain { .. }
            | Self::Stop => false,
        }
    }
}

/// A call on its way to an object.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) object: Uid,
    pub(crate) interface: ClassId,
    pub(crate) method: u16,
    /// Rooted at the parameters.
    pub(crate) parameters: partha_wire::Message,
    pub(crate) caller: Peer,
    pub(crate) reply: ReplyTo,
    /// What its parameters count for at the connection they came by.
    pub(crate) held: Option<Held>,
    /// Set for a call that makes the object.
    pub(crate) create: Option<ClassId>,
    /// By which it can be given up, if it comes from another thread; set on its way.
    pub(crate) number: Option<u64>,
}

impl Incoming {
    /// Whether the connection it came by is closed: nobody waits for it, and its caller may have
    /// been given up here already.
    pub(super) fn is_late(&self) -> bool {
        match &self.reply {
            ReplyTo::Connection { connection, .. } => !connection.is_open(),
            ReplyTo::Channel(_) | ReplyTo::Foreign(_) => false,
        }
    }
}

/// What whoever runs an action wants of a shard.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) wish: Wish,
    pub(crate) caller: Peer,
    pub(crate) reply: ReplyTo,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Commit, as the coordinator.
    Commit(CommitRequest),
    /// Tell what became of an action.
    Ask {
        action: Uid,
        /// The replicated object whose log has the decision, if it is one's.
        decider: Option<Uid>,
    },
}

impl std::convert::From<Wish> for What {
    fn from(wish: Wish) -> Self {
        match wish {
            Wish::Commit(request) => Self::Commit(request),
            Wish::Ask { action, decider } => Self::Ask { action, decider },
        }
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    /// To a peer; question 0 wants none.
    Connection { connection: Asker, question: u32 },
    /// To a caller in this process.
    Channel(oneshot::Sender<Answer>),
    /// To a plain Cap'n Proto client.
    Foreign(oneshot::Sender<Answer>),
}

impl ReplyTo {
    /// Answers with an error.
    pub(crate) fn fail(self, error: SystemError) {
        self.fail_reporting(error, None);
    }

    /// Answers with an error, and says who takes part in the action.
    pub(crate) fn fail_reporting(self, error: SystemError, report: Option<Box<Report>>) {
        match self {
            Self::Connection {
                connection,
                question,
            } => {
                if question != 0 {
                    connection.fail_reporting(&error, report.as_deref(), question);
                }
            }
            Self::Channel(sender) | Self::Foreign(sender) => {
                let outcome = Err(error);
                // A receiver that is gone has stopped waiting: nothing is lost.
                let _ = sender.send(Answer { outcome, report });
            }
        }
    }
}

/// Sends an answer, or says that it was too much; if the connection is gone, so is who asked.
pub(crate) fn send(connection: &Connection, framed: Vec<u8>, question: u32) {
    if let Err(error) = connection.answer_framed(framed, question) {
        connection.fail(&error.completed(Completed::Yes), question);
    }
}

/// A binding was made.
#[derive(Clone, Debug)]
pub(crate) struct Initiated {
    pub(crate) class: ClassId,
    pub(crate) shard: u16,
    /// The nodes that have copies of it, the one that leads first.
    pub(crate) copies: Vec<NodeId>,
    /// See [`crate::shard::Shard::is_cohort`].
    pub(crate) cohort: bool,
}

/// What is known of one object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectReport {
    pub(crate) class: ClassId,
    pub(crate) active: bool,
    pub(crate) epoch: Epoch,
    pub(crate) version: u64,
    pub(crate) state_bytes: u64,
    pub(crate) users: u32,
    pub(crate) moves: u64,
    /// 0 for one that was born here and has never left.
    pub(crate) came_from: NodeId,
}

/// What runs on a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShardReport {
    pub(crate) active_objects: u64,
    pub(crate) active_bytes: u64,
    pub(crate) activations: u64,
    pub(crate) passivations: u64,
    pub(crate) evictions: u64,
    pub(crate) calls: u64,
    pub(crate) duplicates: u64,
    pub(crate) actions: u64,
    pub(crate) in_doubt: u64,
    pub(crate) committed: u64,
    pub(crate) aborted: u64,
    pub(crate) deadlocks: u64,
    pub(crate) killed: u64,
    pub(crate) messages: u64,
    pub(crate) moved_in: u64,
    pub(crate) moved_out: u64,
    pub(crate) moves_failed: u64,
    pub(crate) told: u64,
}

/// The engine's word for a store error.
pub(crate) fn fault(error: &StoreError) -> Fault {
    match error {
        StoreError::Fenced { .. } | StoreError::EarlierWriteFailed { .. } => Fault::Fenced,
        StoreError::Exists { .. } => Fault::Exists,
        StoreError::Full { .. } => Fault::Full,
        _ => Fault::Store,
    }
}
