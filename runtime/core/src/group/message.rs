//! What members of a group tell each other, what happens to a copy, and what it asks for.

use super::log::{Difference, Stamp};
use super::member::Digest;
use super::view::{Change, Policy, View};
use crate::id::NodeId;
use crate::time::Time;

/// What members of a group tell each other. The shell adds bytes to stamps and to states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The leader's whole log after `previous`: the receiver's is to be the same.
    Adopt {
        /// The view that the leader leads.
        view: View,
        /// What comes before.
        previous: Stamp,
        /// All that comes after.
        entries: Vec<Stamp>,
        /// The index up to which entries are complete.
        complete: u64,
        /// The leader's time, for the answer.
        asked: Time,
    },
    /// One more entry, or none: then news of what is complete.
    Append {
        /// The number of the view.
        number: u64,
        /// What comes before.
        previous: Stamp,
        /// The entry.
        entry: Option<Stamp>,
        /// The index up to which entries are complete.
        complete: u64,
        /// The leader's time, for the answer.
        asked: Time,
    },
    /// The sender has everything up to here on disk, and promises not to take over.
    Appended {
        /// The number of the view.
        number: u64,
        /// The last entry.
        last: Stamp,
        /// The leader's time that is answered.
        asked: Time,
    },
    /// The sender has executed an entry and come to something else than the leader. It is told the
    /// leader's result.
    Differs {
        /// The number of the view.
        number: u64,
        /// The entry.
        at: Stamp,
        /// What it has come to.
        digest: Digest,
    },
    /// The sender knows of a newer view.
    Stale {
        /// That one.
        view: View,
    },
    /// A copy that wants to be brought up to date, or has missed something.
    Hello {
        /// The number of the view that it knows of.
        number: u64,
        /// What it has installed; none if it has no state.
        installed: Option<Stamp>,
        /// The last entry that it has.
        last: Stamp,
    },
    /// A member that has heard nothing: is this still the view?
    Check {
        /// The number of the view that it knows of.
        number: u64,
    },
    /// A member that is asked to read: up to where are entries complete?
    Read {
        /// The number of the view that it knows of.
        number: u64,
        /// Its time, for the answer.
        asked: Time,
    },
    /// The leader's answer. All that anybody was told before the question came is in what is
    /// there.
    ReadAt {
        /// The number of the view.
        number: u64,
        /// The member's time that is answered.
        asked: Time,
        /// The index; none if reads are to come to the leader, for now.
        index: Option<u64>,
    },
    /// The state, with all entries up to `at` in it.
    Snapshot {
        /// The view of the sender.
        view: View,
        /// The last entry in it.
        at: Stamp,
    },
}

/// What can happen to a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// What the binder says the view is: asked for, as the answer to a change, or news.
    View(View),
    /// The shell wants an entry added; answered by `Added` or `NotAdded`.
    Add {
        /// The shell's name of it.
        entry: u64,
    },
    /// A message arrived.
    Message {
        /// From this node.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A write is on disk; in the order in which they were asked for.
    Written {
        /// Its number.
        job: u64,
    },
    /// A node is not heard of. Only the leader of a view, or its members for the leader, are of
    /// any interest.
    Lost {
        /// The node.
        node: NodeId,
        /// Its process is known to have ended, so that nothing it was promised binds.
        ended: bool,
    },
    /// A node that was lost is heard of again.
    Found {
        /// The node.
        node: NodeId,
    },
    /// The leader is asked to answer from its state, and may not: it is to get the members'
    /// promises. Answered by `Output::Confirmed`, unless it is deposed or something is lost; then
    /// it is asked again.
    Confirm,
    /// Somebody wants to read at this copy; answered by `Output::Read` or `Output::ReadElsewhere`.
    Read {
        /// The shell's name of it.
        read: u64,
    },
    /// At the leader: something is prepared at the object, so that what it is may be told before it
    /// is in the log. So it is when a lead begins.
    Shut,
    /// At the leader: nothing is prepared any more, and what has ended it is in the log.
    Open,
    /// An operator wants another member to lead. No effect where this copy does not lead, or that
    /// one is no member: who asks looks at the view.
    HandOver {
        /// That one.
        to: NodeId,
    },
    /// At the leader: the copies are to keep up with each other in another way. Nothing uses the
    /// object, and the shell lets nothing in before the view is another one: until then nobody
    /// knows under which policy it would be. Nothing is added either. No effect where this copy
    /// does not lead, and over when it leads no more.
    Policy {
        /// In which.
        policy: Policy,
    },
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the binder for the view; answered by `Input::View`, or not at all.
    AskView,
    /// Ask the binder for a change; answered by `Input::View` with what the view is then, or not
    /// at all.
    Change(Change),
    /// Send a message; it may get lost.
    Send {
        /// Whom to.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Write; answered by `Input::Written`, unless the process ends.
    Write {
        /// To be answered with.
        job: u64,
        /// What.
        write: Write,
    },
    /// The entry stands in the log. It is not complete yet.
    Added {
        /// The shell's name of it.
        entry: u64,
        /// Its name from now on.
        stamp: Stamp,
    },
    /// The entry was not added; nothing of it stays.
    NotAdded {
        /// The shell's name of it.
        entry: u64,
        /// Why.
        why: NotAdded,
    },
    /// The entry will never be lost: it may be told.
    Complete {
        /// Which.
        stamp: Stamp,
    },
    /// This copy leads from now on, and its state has all complete entries.
    Leads {
        /// In this view.
        view: View,
    },
    /// It may answer from its state, until the time that [`super::Member::serves_until`] says.
    Confirmed,
    /// Somebody may read what the store shows.
    Read {
        /// The shell's name of it.
        read: u64,
        /// The store shows at least the entries up to here, and the read has to.
        index: u64,
    },
    /// Somebody is to read at the leader, wherever that is.
    ReadElsewhere {
        /// The shell's name of it.
        read: u64,
    },
    /// It leads no more. What of its entries was not complete may or may not have happened.
    Deposed,
}

/// What is written to the disk, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A change of the log.
    Log {
        /// The view from now on.
        view: View,
        /// What goes and what is added.
        difference: Difference,
    },
    /// Entries become parts of the state.
    Install {
        /// Up to this index.
        index: u64,
    },
    /// A whole state takes the place of state and log.
    Snapshot {
        /// The view from now on; the copy is no member yet.
        view: View,
        /// The last entry in the state.
        at: Stamp,
    },
}

/// Why an entry was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// This copy does not lead, or does not yet.
    NotLeading,
    /// Too many entries are not complete.
    Overloaded,
}
