//! Connections between processes.
//!
//! One connection has a caller and a server, keeps its order and loses nothing while it lives;
//! two of them overtake each other freely. When one breaks, or an end dies, what is under way
//! may be lost or may still arrive. Both ends notice, each in its own time, after all that
//! arrives. Messages about actions travel outside of all order, and may get lost or come twice.

use partha_core::action::message::{Message, Verdict};
use partha_core::action::path::Site;
use partha_core::action::scope::Report;
use partha_core::{End, Refusal};

use super::plan::LEASE;
use super::truth::Outcome;
use super::world::{CallNo, RunNo};
use crate::rng::Rng;

/// The number of a connection.
pub(crate) type ConnNo = usize;

/// From caller to server.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Serve this call.
    Call(CallNo),
    /// Its answer is not wanted any more.
    Cancel(CallNo),
    /// Commit this top-level action.
    Commit(RunNo),
    /// What became of it?
    Ask(RunNo),
    /// For a shard, from whoever runs an action.
    Tell { shard: u16, message: Message },
}

/// From server to caller.
#[derive(Clone, Debug)]
pub(crate) enum Response {
    Return {
        call: CallNo,
        result: Result<Outcome, Refusal>,
        report: Report,
        /// Of one that its object has moved: from where to where.
        moved: Option<(Site, Site)>,
    },
    Ended {
        run: RunNo,
        end: End,
    },
    Told {
        run: RunNo,
        verdict: Option<Verdict>,
    },
}

/// A process in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) process: usize,
    pub(crate) life: u32,
}

/// The way from one end to the other.
#[derive(Debug, Default)]
struct Way {
    last_arrival: u64,
    /// Nothing that would arrive later than this does.
    cut_at: Option<u64>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) caller: Life,
    pub(crate) server: Life,
    /// Whether the caller still uses it.
    pub(crate) open: bool,
    /// Whether the server has noticed its end.
    pub(crate) ended: bool,
    up: Way,
    down: Way,
}

impl Conn {
    pub(crate) fn new(caller: Life, server: Life) -> Self {
        Self {
            caller,
            server,
            open: true,
            ended: false,
            up: Way::default(),
            down: Way::default(),
        }
    }

    /// Whether a process talks to itself over it.
    pub(crate) fn is_local(&self) -> bool {
        self.caller == self.server
    }

    /// When something sent now arrives at the server, no earlier than `blocked`.
    pub(crate) fn arrival_up(&mut self, now: u64, blocked: u64, rng: &mut Rng) -> u64 {
        let local = self.is_local();
        self.up.arrival(now, blocked, local, rng)
    }

    /// When something sent now arrives at the caller.
    pub(crate) fn arrival_down(&mut self, now: u64, blocked: u64, rng: &mut Rng) -> u64 {
        let local = self.is_local();
        self.down.arrival(now, blocked, local, rng)
    }

    pub(crate) fn reaches_server(&self, at: u64) -> bool {
        self.up.lets_through(at)
    }

    pub(crate) fn reaches_caller(&self, at: u64) -> bool {
        self.down.lets_through(at)
    }

    /// Nothing arrives any more, and nobody hears of that before the lease is over; says when
    /// the server and when the caller notice.
    pub(crate) fn freeze(&mut self, now: u64, rng: &mut Rng) -> (u64, u64) {
        self.up.cut_at.get_or_insert(now);
        self.down.cut_at.get_or_insert(now);
        let over = now + LEASE;
        (
            over + rng.range(0, 5_000_000),
            over + rng.range(0, 5_000_000),
        )
    }

    /// Breaks; says when the server and when the caller notice.
    pub(crate) fn cut(&mut self, now: u64, rng: &mut Rng) -> (u64, u64) {
        let up = self.up.cut(now, rng) + rng.range(1_000, 5_000_000);
        let down = self.down.cut(now, rng) + rng.range(1_000, 5_000_000);
        (up, down)
    }
}

impl Way {
    fn arrival(&mut self, now: u64, blocked: u64, local: bool, rng: &mut Rng) -> u64 {
        let delay = match rng.below(20) {
            _ if local => rng.range(1_000, 50_000),
            0 => rng.range(1_000_000, 30_000_000),
            _ => rng.range(10_000, 800_000),
        };
        self.last_arrival = (now.max(blocked) + delay).max(self.last_arrival + 1);
        self.last_arrival
    }

    fn lets_through(&self, at: u64) -> bool {
        self.cut_at.is_none_or(|cut| at <= cut)
    }

    /// Says when the last thing arrives.
    fn cut(&mut self, now: u64, rng: &mut Rng) -> u64 {
        let last = if rng.chance(500) {
            self.last_arrival.max(now)
        } else {
            now
        };
        let cut = self.cut_at.map_or(last, |cut| cut.min(last));
        self.cut_at = Some(cut);
        cut.max(now)
    }
}
