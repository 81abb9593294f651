//! The deadlines of one connection.
//!
//! Only moments are kept here; one timer, owned by the writer, is set to the earliest of them. A
//! deadline that moves back is noticed when the timer fires, so a busy connection does not touch
//! its timer for each message.

use std::time::Duration;

use tokio::time::Instant;

use crate::{CutReason, Limits};

/// A timer must be set to something even if nothing is waited for.
const FAR: Duration = Duration::from_secs(24 * 3_600);

/// Moments of one connection and what follows from them.
pub(crate) struct Watch {
    limits: Limits,
    started: Instant,
    /// The first message has come.
    greeted: bool,
    /// When bytes last moved either way.
    active: Instant,
    /// When the first byte of the frame came that is not whole.
    frame: Option<Instant>,
    /// When unsent bytes last got fewer, or the first one came.
    wrote: Instant,
    /// The end of the connection at the latest, once it ends.
    farewell: Option<Instant>,
    /// When the timer fires.
    armed: Instant,
}

impl Watch {
    pub(crate) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        Self {
            limits: limits.clone(),
            started: now,
            greeted: false,
            active: now,
            frame: None,
            wrote: now,
            farewell: None,
            armed: now,
        }
    }

    pub(crate) fn message_came(&mut self) {
        self.greeted = true;
        self.frame = None;
    }

    pub(crate) fn frame_begun(&mut self) {
        self.frame.get_or_insert_with(Instant::now);
    }

    pub(crate) fn frame_whole(&mut self) {
        self.frame = None;
    }

    pub(crate) fn bytes_moved(&mut self) {
        self.active = Instant::now();
    }

    /// The first unsent byte is there.
    pub(crate) fn sending(&mut self) {
        self.wrote = Instant::now();
    }

    pub(crate) fn wrote(&mut self) {
        self.wrote = Instant::now();
        self.active = self.wrote;
    }

    /// The connection ends.
    pub(crate) fn farewell(&mut self) {
        let end = Duration::from_millis(self.limits.farewell_ms_max);
        self.farewell.get_or_insert_with(|| Instant::now() + end);
    }

    /// The timer was set.
    pub(crate) fn armed(&mut self, at: Instant) {
        self.armed = at;
    }

    /// Whether the timer is set too late for the frame that has begun.
    pub(crate) fn is_sooner(&self) -> bool {
        self.frame
            .is_some_and(|begun| begun + ms(self.limits.frame_ms_max) < self.armed)
    }

    /// The earliest deadline and what to do when it has passed.
    ///
    /// `busy`: some call is open; `held`: either end holds a capability of the other.
    pub(crate) fn next(&self, unsent_bytes: usize, busy: bool, held: bool) -> (Instant, CutReason) {
        let limits = &self.limits;
        let idle_ms = if held {
            limits.idle_holding_ms_max
        } else {
            limits.idle_ms_max
        };
        if let Some(at) = self.farewell {
            return (
                at,
                CutReason::Idle {
                    ms: limits.farewell_ms_max,
                },
            );
        }
        let mut next = (Instant::now() + FAR, CutReason::Idle { ms: 0 });
        let mut sooner = |since: Instant, within: u64, reason: CutReason| {
            let at = since + ms(within);
            if at < next.0 {
                next = (at, reason);
            }
        };
        if let Some(begun) = self.frame {
            let within = limits.frame_ms_max;
            sooner(begun, within, CutReason::FrameDeadline { ms: within });
        }
        if !self.greeted {
            let within = limits.handshake_ms_max;
            sooner(
                self.started,
                within,
                CutReason::HandshakeDeadline { ms: within },
            );
        }
        if unsent_bytes > 0 {
            let within = limits.write_stall_ms_max;
            let reason = CutReason::WriteStalled {
                bytes: unsent_bytes,
                ms: within,
            };
            sooner(self.wrote, within, reason);
        } else if let Some(within) = idle_ms
            && !busy
        {
            sooner(self.active, within, CutReason::Idle { ms: within });
        }
        next
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_is_found() {
        let limits = Limits::default();
        let start = Instant::now();
        let mut watch = Watch::new(&limits);
        let after = |watch: &Watch, unsent, busy, held| {
            let (at, reason) = watch.next(unsent, busy, held);
            ((at - start).as_millis(), reason)
        };
        assert_eq!(
            after(&watch, 0, false, false),
            (5_000, CutReason::HandshakeDeadline { ms: 5_000 })
        );
        watch.frame_begun();
        assert_eq!(
            after(&watch, 0, false, false),
            (2_000, CutReason::FrameDeadline { ms: 2_000 })
        );
        assert!(!watch.is_sooner(), "the timer was never set");
        watch.armed(start + ms(60_000));
        assert!(watch.is_sooner());
        watch.message_came();
        assert!(!watch.is_sooner());
        assert_eq!(
            after(&watch, 0, false, false),
            (60_000, CutReason::Idle { ms: 60_000 })
        );
        assert_eq!(
            after(&watch, 0, false, true),
            (3_600_000, CutReason::Idle { ms: 3_600_000 })
        );
        assert_eq!(
            after(&watch, 9, true, true),
            (
                30_000,
                CutReason::WriteStalled {
                    bytes: 9,
                    ms: 30_000
                }
            )
        );
        tokio::time::advance(ms(10_000)).await;
        watch.wrote();
        assert_eq!(after(&watch, 9, true, true).0, 40_000);
        watch.farewell();
        assert_eq!(after(&watch, 9, true, true).0, 11_000);
    }
}
