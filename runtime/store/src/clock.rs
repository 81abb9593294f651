//! The wall clock of a store, which never goes back while the store is open.
//!
//! Replies are found by the time when they expire; were the clock set back, one saved later could
//! come before one that was found already.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock that goes on from the highest time that the system told.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    highest_ms: u64,
    /// What it told when the system's was first seen to be behind it, and when that was.
    alone: Option<(u64, Instant)>,
}

impl Clock {
    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&mut self) -> u64 {
        self.later(system_ms(), Instant::now)
    }

    fn later(&mut self, system_ms: u64, now: impl FnOnce() -> Instant) -> u64 {
        if system_ms >= self.highest_ms {
            self.highest_ms = system_ms;
            self.alone = None;
            return system_ms;
        }
        let now = now();
        let (since_ms, since) = *self.alone.get_or_insert((self.highest_ms, now));
        let passed = now.saturating_duration_since(since).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.highest_ms = self.highest_ms.max(since_ms.saturating_add(passed));
        self.highest_ms
    }
}

fn system_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_back_goes_on() {
        let mut clock = Clock::default();
        let at = Instant::now();
        let after = |seconds| move || at + Duration::from_secs(seconds);
        assert_eq!(clock.later(9000, after(1)), 9000);
        assert_eq!(clock.later(5000, after(2)), 9000);
        assert_eq!(clock.later(5500, after(3)), 10_000);
        assert_eq!(clock.later(6000, after(2)), 10_000, "whatever is told");
        assert_eq!(clock.later(6500, after(4)), 11_000);
        assert_eq!(clock.later(11_000, after(5)), 11_000, "the system's again");
        assert_eq!(clock.later(20_000, after(6)), 20_000);
        assert_eq!(clock.later(19_000, after(60)), 20_000);
        assert_eq!(clock.later(19_500, after(61)), 21_000);
    }
}
