//! The wall clock of a store, which never goes back while the store is open.
//!
//! Replies are found by the time when they expire; were the clock set back, one saved later could
//! come before one that was found already.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock that goes on from the highest time that the system told.
#[derive(Debug)]
pub(crate) struct Clock {
    told_ms: u64,
    at: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            told_ms: system_ms(),
            at: Instant::now(),
        }
    }
}

impl Clock {
    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&mut self) -> u64 {
        self.later(system_ms(), Instant::now())
    }

    fn later(&mut self, system_ms: u64, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.at).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        let gone_on = self.told_ms.saturating_add(since);
        if system_ms >= gone_on {
            self.told_ms = system_ms;
            self.at = now;
        }
        gone_on.max(system_ms)
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
        let at = Instant::now() + Duration::from_secs(10);
        let after = |seconds| at + Duration::from_secs(seconds);
        let far = u64::MAX / 2;
        assert_eq!(clock.later(far, at), far);
        assert_eq!(clock.later(5, after(1)), far + 1000);
        assert_eq!(clock.later(far + 1500, after(2)), far + 2000);
        assert_eq!(clock.later(far + 9000, after(3)), far + 9000);
        assert_eq!(clock.later(far, after(4)), far + 10_000);
    }
}
