//! Asking the binder again when an attempt has failed.

use std::time::{Duration, Instant};

use crate::client::LOOKUP_DEADLINE;
use crate::error::{ErrorKind, Result, SystemError};

/// Pauses between attempts: each is twice as long as the one before, up to the longest.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
    longest: Duration,
    until: Option<Instant>,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
            until: None,
        }
    }

    /// No attempt begins after this time.
    pub(super) fn within(mut self, time: Duration) -> Self {
        self.until = Instant::now().checked_add(time);
        self
    }

    /// How long the next attempt may take.
    pub(super) fn deadline(&self) -> Duration {
        let left = self
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        left.map_or(LOOKUP_DEADLINE, |left| left.min(LOOKUP_DEADLINE))
    }

    /// Waits after an attempt that failed.
    ///
    /// # Errors
    /// The error itself, if another attempt would go no better or comes too late.
    pub(super) async fn after(&mut self, error: SystemError, what: &str) -> Result<()> {
        let late = self
            .until
            .is_some_and(|until| until <= Instant::now() + self.next);
        if late || !may_pass(&error) {
            return Err(error);
        }
        let pause = self.next;
        tracing::warn!(%error, ?pause, "{what} failed; trying on");
        self.next = self.longest.min(pause * 2);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether another attempt may go better.
fn may_pass(error: &SystemError) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::BadOperation
            | ErrorKind::Malformed
            | ErrorKind::VersionMismatch
            | ErrorKind::TooLarge
            | ErrorKind::OldIncarnation
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> SystemError {
        SystemError::new(kind, "a test")
    }

    #[tokio::test]
    async fn pauses_grow_to_the_longest() {
        let (first, longest) = (Duration::from_millis(2), Duration::from_millis(7));
        let mut pauses = Pauses::new(first, longest);
        let mut waited = Vec::new();
        for _ in 0..4 {
            let (begun, pause) = (Instant::now(), pauses.next);
            let again = pauses.after(error(ErrorKind::Unreachable), "it").await;
            again.unwrap();
            assert!(begun.elapsed() >= pause);
            waited.push(pause.as_millis());
        }
        assert_eq!(waited, [2, 4, 7, 7]);
        assert_eq!(pauses.deadline(), LOOKUP_DEADLINE);
    }

    #[tokio::test]
    async fn what_cannot_go_better_or_comes_too_late_is_not_tried_again() {
        let hour = Duration::from_secs(3600);
        let mut pauses = Pauses::new(hour, hour);
        let refused = pauses.after(error(ErrorKind::TooLarge), "it").await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
        let mut pauses = Pauses::new(hour, hour).within(Duration::from_secs(60));
        assert_eq!(pauses.deadline(), LOOKUP_DEADLINE);
        let late = pauses.after(error(ErrorKind::Unreachable), "it").await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Unreachable);
        let over = Pauses::new(hour, hour).within(Duration::ZERO);
        assert_eq!(over.deadline(), Duration::ZERO);
    }
}
