//! Objects that have just come stay for a moment.
//!
//! A move costs all users of an object something: their calls stand while it is on its way, and
//! have to find it again. An object that is sent to and fro as fast as it can be moved serves half
//! as many calls as one that stays; so each stays for a while where it has come, and serves.

use core::time::Duration;
use std::collections::VecDeque;

use crate::id::Uid;
use crate::time::Time;

/// Objects that are remembered. Those that came before that many others may go at once.
const OBJECTS_MAX: usize = 16_384;

/// The objects that have come within the time that each is to stay.
#[derive(Clone, Debug, Default)]
pub struct Cooldown {
    stay: Duration,
    /// Until when each stays, in this order.
    came: VecDeque<(Time, Uid)>,
}

impl Cooldown {
    /// Objects are to stay for so long.
    #[must_use]
    pub fn new(stay: Duration) -> Self {
        Self {
            stay,
            came: VecDeque::new(),
        }
    }

    /// An object has come here, or its copy here has come to lead.
    pub fn came(&mut self, now: Time, object: Uid) {
        while self.came.front().is_some_and(|(until, _)| *until <= now)
            || self.came.len() >= OBJECTS_MAX
        {
            self.came.pop_front();
        }
        if !self.stay.is_zero() {
            self.came.push_back((now.after(self.stay), object));
        }
    }

    /// How long an object is still to stay; zero if it may go.
    #[must_use]
    pub fn left(&self, now: Time, object: Uid) -> Duration {
        // It may have come twice: the last time counts.
        let came = self.came.iter().rev().find(|(_, uid)| *uid == object);
        came.map_or(Duration::ZERO, |(until, _)| until.remaining(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn object(local: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local,
        }
    }

    const STAY: Duration = Duration::from_nanos(100);

    #[test]
    fn an_object_stays_for_a_while_after_it_has_come() {
        let mut cooldown = Cooldown::new(STAY);
        let left = |cooldown: &Cooldown, now, of| cooldown.left(Time(now), object(of)).as_nanos();
        assert_eq!(left(&cooldown, 0, 1), 0, "it has always been here");
        cooldown.came(Time(10), object(1));
        cooldown.came(Time(50), object(2));
        for (now, of, expected) in [(10, 1, 100), (60, 1, 50), (110, 1, 0), (110, 2, 40)] {
            assert_eq!(left(&cooldown, now, of), expected, "{of} at {now}");
        }
        cooldown.came(Time(80), object(1));
        assert_eq!(left(&cooldown, 110, 1), 70, "it was away, and came back");
    }

    #[test]
    fn without_a_time_nothing_stays() {
        let mut cooldown = Cooldown::new(Duration::ZERO);
        cooldown.came(Time(10), object(1));
        assert_eq!(cooldown.left(Time(10), object(1)), Duration::ZERO);
        assert!(cooldown.came.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut cooldown = Cooldown::new(STAY);
        for local in 0..=OBJECTS_MAX as u64 {
            cooldown.came(Time(10), object(local));
        }
        assert_eq!(cooldown.came.len(), OBJECTS_MAX);
        assert_eq!(cooldown.left(Time(10), object(0)), Duration::ZERO);
        assert_eq!(cooldown.left(Time(10), object(1)), STAY);
        cooldown.came(Time(110), object(0));
        assert_eq!(
            cooldown.came.len(),
            1,
            "those whose time is over are forgotten"
        );
    }
}
