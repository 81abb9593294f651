//! Time as the machines see it: a number that somebody else hands in.

use core::fmt;
use core::time::Duration;

/// Nanoseconds since a start that only the shell knows. Never compared between nodes: what
/// travels is a remaining [`Duration`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The latest time: a deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This time plus `duration`, no later than [`Time::NEVER`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long from `now` until this time; zero if it has passed.
    #[must_use]
    pub fn remaining(self, now: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.0))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("never");
        }
        write!(f, "{}.{:06}ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
