//! What is said about actions between shards, and by those who run actions to shards.
//!
//! Every message may be lost, doubled, late and out of order; whoever needs it sends it again.
//! None is answered in the sense of a call: an answer is a message of its own.

use super::path::{Address, Participant, Path, Site};
use crate::id::{Incarnation, NodeId, Peer, Uid};

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// A shard.
    Site(Site),
    /// The shard of a node that has deadlocks of a family in its care: the one an object with
    /// the uid `root` would have there.
    Home {
        /// The node.
        node: NodeId,
        /// The first uid of the family's paths.
        root: Uid,
    },
    /// The shard that a replicated object has at the node that leads it now.
    Leader {
        /// The object.
        object: Uid,
    },
}

impl core::convert::From<Address> for To {
    fn from(address: Address) -> Self {
        match address {
            Address::Site(site) => Self::Site(site),
            Address::Leader(object) => Self::Leader { object },
        }
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From {
    /// The process, in the life in which it sent.
    pub peer: Peer,
    /// Its shard; 0 for a process that only runs actions.
    pub shard: u16,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Coordinator to participant: can you commit? Nothing of the action may change any more.
    Prepare {
        /// The root action.
        action: Uid,
        /// The life of the participant that did the work.
        incarnation: Incarnation,
        /// The number of the mirror that did the work.
        join: u64,
        /// Nested actions that were aborted; every other one that the participant still knows
        /// has committed into its parent.
        aborted: Vec<Uid>,
        /// The replicated object whose log is to have the decision; none if the sender's store is.
        decider: Option<Uid>,
        /// To whoever leads this replicated object: the action's work there alone. The life does
        /// not matter then.
        part: Option<Uid>,
    },
    /// Participant to coordinator.
    Vote {
        /// The root action.
        action: Uid,
        /// The answer.
        vote: Vote,
        /// Where objects went that had work of the action: whoever is not asked yet is to be.
        moved: Vec<Participant>,
        /// With a Yes: the replicated objects whose logs have a part of the action now.
        groups: Vec<Uid>,
        /// As the Prepare said.
        decider: Option<Uid>,
        /// As the Prepare said.
        part: Option<Uid>,
    },
    /// Whoever has the decision to a participant: the action is committed, install it.
    Commit {
        /// The root action.
        action: Uid,
        /// To whoever leads this replicated object: its part alone.
        part: Option<Uid>,
    },
    /// To whoever has the decision.
    Acknowledge {
        /// The root action.
        action: Uid,
        /// Installed, on disk; nothing of the action is left in the sender's own store. Without,
        /// it speaks of the groups alone.
        site: bool,
        /// Replicated objects that the sender leads, and whose logs have the end of their part.
        groups: Vec<Uid>,
        /// The replicated object whose log has the decision; none if the receiver's store has.
        decider: Option<Uid>,
    },
    /// To participants, from the coordinator or from whoever runs the action: the action, root
    /// or nested, with all below it, never happened.
    Abort {
        /// The action.
        action: Uid,
        /// To whoever leads this replicated object: its part alone.
        part: Option<Uid>,
    },
    /// From whoever runs the action: a nested action has committed into its parent.
    Merge {
        /// The nested action.
        action: Uid,
        /// Its parent.
        parent: Uid,
        /// To whoever leads this replicated object: the work there alone.
        part: Option<Uid>,
    },
    /// Participant in doubt to whoever has the decision: what was decided?
    Query {
        /// The root action.
        action: Uid,
        /// The replicated object whose log has the decision; none if the receiver's store has.
        decider: Option<Uid>,
        /// The replicated object whose part is in doubt; none if a participant is.
        part: Option<Uid>,
    },
    /// Answer to a query, with authority.
    Verdict {
        /// The root action.
        action: Uid,
        /// What was decided.
        verdict: Verdict,
        /// As it was asked.
        part: Option<Uid>,
    },
    /// About waiting and deadlocks.
    Deadlock(Deadlock),
}

impl Message {
    /// An action never happened.
    pub(crate) fn abort(action: Uid) -> Self {
        let part = None;
        Self::Abort { action, part }
    }
}

/// A participant's answer to Prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// On disk here, and bound by the coordinator's decision.
    Yes,
    /// Nothing was changed here; the locks are released, the participant is out.
    ReadOnly,
    /// It cannot commit; the participant is out and has undone its part.
    No,
}

/// What became of a top-level action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is committed.
    Committed,
    /// It is aborted, or was never heard of and cannot commit any more (presumed abort).
    Aborted,
    /// It is not decided yet.
    InFlight,
}

/// One wait for a lock, named so that a message about it that comes late does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitId {
    /// The shard with the lock.
    pub site: Site,
    /// The life of its node.
    pub incarnation: Incarnation,
    /// Counts up with every wait of that shard.
    pub number: u64,
}

/// Who waits, or is waited for: an action in its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The action; a call outside any action is one of its own, named by its shard.
    pub path: Path,
    /// Where deadlocks of the family are looked for.
    pub home: NodeId,
    /// See [`super::path::Membership::born_ms`].
    pub born_ms: u64,
}

/// One edge of the graph of waits: `waiter` waits at `wait` for a lock of `owner`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The wait.
    pub wait: WaitId,
    /// What is waited for.
    pub object: Uid,
    /// Who waits.
    pub waiter: Party,
    /// Who has the lock, or stands before the waiter in its queue.
    pub owner: Party,
}

/// How deadlocks over several shards are found (edge chasing, after Chandy, Misra and Haas).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deadlock {
    /// Lock manager to the waiter's home: a call waits, for all of these.
    Waits {
        /// One edge for each owner in the way; the same wait and waiter in all of them.
        edges: Vec<Edge>,
    },
    /// Lock manager to the waiter's home: this wait is over.
    Resumed {
        /// The wait.
        wait: WaitId,
        /// The first uid of the waiter's path.
        root: Uid,
    },
    /// Home to home: does whatever this path of waits leads to wait for its beginning?
    Probe {
        /// From the initiator on; the last one's owner is of the receiver's family.
        edges: Vec<Edge>,
    },
    /// The home that found a cycle to a lock manager in it: is this edge still there?
    Confirm {
        /// The finder's number for the cycle.
        cycle: u64,
        /// Where to answer to.
        to: Site,
        /// The edge.
        edge: Edge,
    },
    /// Lock manager to the home that asked.
    Confirmed {
        /// The finder's number for the cycle.
        cycle: u64,
        /// The edge's wait.
        wait: WaitId,
        /// Whether the edge is there.
        holds: bool,
    },
    /// The home that found and confirmed a cycle to the lock manager at which the victim waits.
    Break {
        /// The victim's wait.
        wait: WaitId,
        /// The action to be aborted; the waiter itself or one it is in.
        victim: Uid,
        /// The whole cycle, the victim's edge first.
        cycle: Vec<Edge>,
    },
}
