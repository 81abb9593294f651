//! Waiting for a condition, with a deadline.
//!
//! Tests must not sleep and hope: they state what they wait for, and fail after a time that is
//! long enough for a loaded machine. The condition is asked again after 1 ms, then ever later up
//! to 20 ms.

use std::thread;
use std::time::{Duration, Instant};

/// Returns as soon as `condition` holds.
///
/// # Panics
///
/// When it does not hold within `deadline`.
#[track_caller]
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, || condition().then_some(()));
}

/// Returns the first value that `probe` finds.
///
/// # Panics
///
/// When it finds none within `deadline`.
#[track_caller]
pub fn eventually_some<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    const PAUSE_MAX: Duration = Duration::from_millis(20);
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        // Asked once more after the deadline, so that a late wake-up alone is no failure.
        let late = start.elapsed() >= deadline;
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            !late,
            "waited {deadline:?} for a condition that does not hold"
        );
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn it_returns_what_the_probe_finds_at_last() {
        let mut asked = 0;
        let found = eventually_some(Duration::from_secs(60), || {
            asked += 1;
            (asked == 4).then_some(asked)
        });
        assert_eq!(found, 4);
    }

    #[test]
    fn it_gives_up_after_the_deadline() {
        let outcome = catch_unwind(|| eventually(Duration::from_millis(5), || false));
        assert!(outcome.is_err());
    }

    #[test]
    fn a_condition_that_holds_needs_no_time() {
        eventually(Duration::ZERO, || true);
    }
}
