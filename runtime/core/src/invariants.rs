//! What must hold between any two inputs.
//!
//! 1. Locks: no two holders exclude each other, unless one is nested in the other; nobody waits
//!    without a reason; exactly the calls outside actions that are Granted, Running, or Flushing
//!    their object's state hold its lock; exactly the locks that a level of an action lists are
//!    its in the lock table.
//! 2. Every call belongs to an entry of its object, and every entry counts its calls right; an
//!    entry without image and without calls does not exist.
//! 3. Exactly the active persistent objects without a call or an action's lock are idle, each in
//!    the queue that fits its use list, in the order of last use.
//! 4. A call that has not started has somebody who waits for it.
//! 5. The bytes in memory, the volatile objects, the calls of each caller are counted right.
//! 6. No table is larger than its bound.
//! 7. Actions: levels form one tree for each root, and none stays after its end but to wait for
//!    calls or levels below it; a call of an action is at the gate of its object if it is past
//!    the lock, and a write is alone inside; what an action has changed is locked and in memory;
//!    no call of an action runs or waits once it is being prepared.
//! 8. Whoever waits for the store, or for a vote, is found by its answer.
//!
//! The cost is that of a walk through all tables: for tests and simulations, not for a server.

use crate::engine::Engine;

/// Checks an engine.
///
/// # Panics
/// If an invariant does not hold.
pub fn check(engine: &Engine) {
    engine.check();
}
