//! What must hold between any two inputs.
//!
//! 1. Locks: no two holders exclude each other; nobody waits without a reason; exactly the calls
//!    that are Granted, Running, or Flushing their object's state hold its lock.
//! 2. Every call belongs to an entry of its object, and every entry counts its calls right; an
//!    entry without image and without calls does not exist.
//! 3. Exactly the active persistent objects without a call are idle, each in the queue that fits
//!    its use list, in the order of last use.
//! 4. A call that has not started has somebody who waits for it.
//! 5. The bytes in memory, the volatile objects, the calls of each caller are counted right.
//! 6. No table is larger than its bound.
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
