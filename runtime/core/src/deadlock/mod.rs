//! Deadlocks: found by following who waits for whom, broken by aborting one action.
//!
//! A [`Detector`] is the machine of one shard, in two roles. As *lock manager* it knows the calls
//! that wait for this shard's locks, and asks the lock table ([`Locks`]) who is in their way. As
//! *home* it knows, for the families of actions in its care, all waits of their members wherever
//! they wait, from what lock managers report.
//!
//! # The graph
//!
//! A vertex is an action, named by its whole path, over top-level boundaries: what encloses an
//! action waits for it. A wait has an edge to each *owner* in its way: whoever has the lock in a
//! mode that excludes the waiter. If nobody has, the waiter stands behind others in the queue,
//! and its edges are those of the first of them ([`behind`]). The others in the queue do not
//! count: if the first never gets on, there is a cycle without them; if it does, it is an owner.
//! (So calls outside actions, which hold nothing while they wait, cost nothing here, and a victim
//! is never one whose end would free nobody.)
//!
//! The waiter gets on when a certain action around the owner ends, its *target*: the ancestor
//! just below the one common to both, which inherits the lock when the target commits; or the
//! top-level action that takes the lock with it when it ends. The target cannot end before all
//! waits inside of it have. **Deadlock**: a way of edges, each one's target having the next
//! one's waiter inside, that comes back to a target that the first waiter is in.
//!
//! # One shard
//!
//! When a wait begins, and when a lock gets an owner that waits elsewhere, the lock manager walks
//! its own waits at once. All it looks at is true at that moment, so a cycle is broken then and
//! there.
//!
//! # Several shards
//!
//! Edge chasing, after Chandy, Misra and Haas; the homes take the place of their processes.
//!
//! | role | hears | does |
//! |---|---|---|
//! | lock manager | nobody new got the lock for [`REPORT_AFTER`] | `Waits` to the waiter's home, with all edges; again each [`REPEAT`] |
//! | lock manager | a reported wait ended | `Resumed` to the home |
//! | home | `Waits`, new or with new edges, or [`REPEAT`] after | notes it; walks from it: a `Probe` for each family that another home knows |
//! | home | `Waits` as before | notes that it still lasts |
//! | home | `Resumed`, or nothing for [`HEARD_FOR`], or the lock manager's life is over | forgets the wait |
//! | home | `Probe` | walks on from its last target, once for each (initiator's edge, target) in [`SEEN_FOR`] |
//! | home | a walk came to where the initiator is in | `Confirm` for each edge |
//! | lock manager | `Confirm` | asks the lock table, says `Confirmed` |
//! | home | `Confirmed`, all hold, within [`CONFIRM_WAIT`] | chooses the victim: `Break` to where it waits |
//! | home | `Confirmed`, one does not | drops the cycle, and the edge if it is noted here |
//! | lock manager | `Break` of a wait that still waits for that owner | refuses that call ([`Act::Refuse`]) |
//! | lock manager | any other `Break` | ignores it |
//!
//! # Why it is safe
//!
//! No victim without a cycle. Each edge of a cycle that a home found was seen by its lock manager
//! before the home asked for confirmation, and again afterwards, under the same wait and with the
//! same owner. A wait has a number of its own, and an owner that left it does not come back to
//! it: locks are kept until an action ends. So at the moment when the home asked, all edges were
//! there at once, and a cycle of waits does not go away by itself. What can still happen between
//! confirmation and break is that somebody else breaks it: a time-out, a cancelled call, or
//! another cycle with a member in common, found at the same time. The lock manager therefore
//! looks at the victim's own edge once more, and edges of an action that it has just refused do
//! not count for [`DOOMED_FOR`]. What remains is that two cycles which share a member and are
//! found within the same milliseconds may cost two victims where one would have done.
//!
//! Nothing rests on messages that arrive: a late or doubled `Waits` makes a home believe in a
//! wait that is over, which `Confirm` uncovers; a late `Confirmed` belongs to a number that is
//! never used again; a late `Break` names a wait that is over.
//!
//! # Why it gets on
//!
//! Every deadlock is found. Take the moment when the last wait of a cycle is noted at its home:
//! all others are noted then, so the walk that begins there goes round. It is cut short only
//! where a walk from the same edge was moments ago, which then went on from there. Of several
//! cycles through the wait where it began, a walk finds one for each wait that leads back to it;
//! what hides behind the same target is found by the next walk. If a message is lost, the next
//! report of any of the waits begins anew; what a home still believes wrongly is corrected by
//! reports, by `Confirm` or by time. Two walks that find the same cycle choose the same victim at
//! the same wait, so the second `Break` finds nothing to do.
//!
//! # What it does not do
//!
//! Cycles of more than [`EDGES_MAX`] waits, calls of one action that wait for each other's turn
//! at an image, waits for messages or foreign resources: for these the bounded wait for locks is
//! the backstop. Owners beyond the first [`EDGES_MAX`] of one wait are reported by turns, one
//! window a [`REPEAT`].

mod detector;
mod graph;
mod home;
mod manager;
#[cfg(test)]
mod tests;

use core::time::Duration;

pub use detector::{Detector, Rule};
pub use manager::WaitView;

use crate::action::message::{Deadlock, Edge, Party, To};
use crate::action::path::Path;
use crate::id::Uid;

/// How long a wait has the same owners before its home hears of it: longer than nearly all waits
/// last, short enough that nobody notices a deadlock.
pub const REPORT_AFTER: Duration = Duration::from_millis(100);

/// How often a wait is reported, and its home looks for cycles, while it lasts. Each costs a few
/// messages, and makes up for those that were lost.
pub const REPEAT: Duration = Duration::from_secs(1);

/// How long a home believes in a wait that it hears nothing of: three reports may get lost.
pub const HEARD_FOR: Duration = Duration::from_millis(3_500);

/// How long a home remembers that a walk was at a target: less than [`REPEAT`], so that the next
/// walk is another one.
pub const SEEN_FOR: Duration = Duration::from_millis(500);

/// How long a home waits for confirmations: as long as until it finds the cycle again.
pub const CONFIRM_WAIT: Duration = Duration::from_secs(1);

/// How long the edges of a refused action do not count: until its runner has aborted it, if it
/// is alive.
pub const DOOMED_FOR: Duration = Duration::from_secs(1);

/// Edges in one message, and waits in one cycle. An edge is two paths, mostly 100 bytes, at most
/// 2 KiB; of actions that wait in a circle of more than 64, none has waited for long.
pub const EDGES_MAX: usize = 64;

/// Waits that one walk looks at.
pub(crate) const WALK_MAX: usize = 4_096;

/// Waits that a home knows: over it new ones are not noted, and ask again each [`REPEAT`].
pub(crate) const HEARD_MAX: usize = 16_384;

/// Targets that a home remembers to have seen, a tenth of a kilobyte each.
pub(crate) const SEEN_MAX: usize = 65_536;

/// Cycles with the same beginning that one walk of a home finds; the next walk finds more.
pub(crate) const CYCLES_MAX: usize = 16;

/// Cycles that a home has in confirmation.
pub(crate) const SUSPECTS_MAX: usize = 1_024;

/// Refused actions that a lock manager remembers.
pub(crate) const DOOMED_MAX: usize = 1_024;

/// What the lock table knows.
pub trait Locks {
    /// The owners in the way of a wait: all who have the lock in a mode that excludes the waiter,
    /// without the waiter itself and what it is inside of. If there is none: what [`behind`] makes
    /// of the owners in the way of the first request that it stands behind. Each once, in an order
    /// that does not change by itself; none for a wait that is over.
    fn owners(&self, wait: u64) -> Vec<Party>;
}

/// Something that a detector wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send a message. It may get lost.
    Send {
        /// Where to; perhaps this very shard.
        to: To,
        /// What.
        message: Deadlock,
    },
    /// Refuse the call that waits, and say that its wait has ended.
    Refuse {
        /// The wait.
        number: u64,
        /// What its runner must abort: the waiter or one that it is in.
        victim: Uid,
        /// The cycle, the wait's own edge first.
        cycle: Vec<Edge>,
    },
}

/// Whom a waiter waits for that no owner excludes, but that stands behind another request: the
/// owners in the way of that one. Where their end means another thing to it than to the waiter,
/// since it is a relative of theirs, it is the other request itself that is in the way.
#[must_use]
pub fn behind(waiter: &Path, other: &Party, owners: Vec<Party>) -> Vec<Party> {
    let target = |path, owner: &Party| graph::target(path, &owner.path);
    let same = |owner: &Party| target(waiter, owner) == target(&other.path, owner);
    let all = owners.len();
    let mut owners: Vec<Party> = owners.into_iter().filter(same).collect();
    if owners.len() < all && !owners.contains(other) {
        owners.push(other.clone());
    }
    owners
}
