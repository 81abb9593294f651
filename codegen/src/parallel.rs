//! Work that falls into independent parts, on all processors.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// As much as a program's first thread has: how deep types may be nested is not for a helper to
/// decide.
const STACK_BYTES: usize = 8 << 20;

/// More do not help: what is left is the front end and the schema, which are one part each.
const THREADS_MAX: usize = 8;

/// What `make` makes of each number below `count`, in order.
///
/// The caller's thread takes part. Where the system gives no more threads, it does all of it.
///
/// # Panics
/// If `make` does.
pub(crate) fn map<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return made;
            }
            made.push((index, make(index)));
        }
    };
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let helpers = processors.min(THREADS_MAX).min(count).saturating_sub(1);
    let mut made = thread::scope(|scope| {
        let spawn = |_| {
            let helper = thread::Builder::new().stack_size(STACK_BYTES);
            helper.spawn_scoped(scope, work).ok()
        };
        let helpers: Vec<_> = (0..helpers).filter_map(spawn).collect();
        let mut made = work();
        for helper in helpers {
            made.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        made
    });
    made.sort_unstable_by_key(|(index, _)| *index);
    made.into_iter().map(|(_, made)| made).collect()
}

/// What two parts make.
///
/// # Panics
/// If one of them does.
pub(crate) fn both<A, B: Send>(one: impl FnOnce() -> A, other: impl Fn() -> B + Sync) -> (A, B) {
    thread::scope(|scope| {
        let helper = thread::Builder::new().stack_size(STACK_BYTES);
        let helper = helper.spawn_scoped(scope, &other);
        let made = one();
        let others = match helper {
            Ok(helper) => helper.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => other(),
        };
        (made, others)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_parts_are_made_once_and_stand_in_order() {
        for count in [0, 1, 2, 1_000] {
            let made = super::map(count, |index| index * 2);
            let expected: Vec<_> = (0..count).map(|index| index * 2).collect();
            assert_eq!(made, expected);
        }
    }

    #[test]
    #[should_panic(expected = "the part that fails")]
    fn a_part_that_panics_is_heard_of() {
        super::map(100, |index| assert_ne!(index, 50, "the part that fails"));
    }
}
