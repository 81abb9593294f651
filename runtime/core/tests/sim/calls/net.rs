//! Connections between clients and nodes.
//!
//! One connection keeps its order and loses nothing while it lives; two of them overtake each
//! other freely. When one breaks, or an end dies, what is under way may be lost or may still
//! arrive; the server notices the end after all that arrives, the client by its time-outs.

use crate::calls::history::{OpId, Outcome};
use crate::rng::Rng;
use partha_core::Refusal;

/// The number of a connection.
pub(crate) type ConnId = usize;

/// From client to node.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Do an operation; the answer is wanted within this many nanoseconds.
    Call { op: OpId, wait_ns: u64 },
    /// The answer is not wanted any more.
    Cancel { op: OpId },
    /// Bind to the object of an operation.
    Bind { op: OpId },
}

/// From node to client.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) op: OpId,
    pub(crate) result: Result<Outcome, Refusal>,
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
    pub(crate) client: usize,
    pub(crate) client_life: u32,
    pub(crate) node: usize,
    pub(crate) node_life: u32,
    /// Whether the client still uses it.
    pub(crate) open: bool,
    /// Whether the server has noticed its end.
    pub(crate) ended: bool,
    to_node: Way,
    to_client: Way,
}

impl Conn {
    pub(crate) fn new(client: usize, client_life: u32, node: usize, node_life: u32) -> Self {
        let (to_node, to_client) = (Way::default(), Way::default());
        let (open, ended) = (true, false);
        Self {
            client,
            client_life,
            node,
            node_life,
            open,
            ended,
            to_node,
            to_client,
        }
    }

    /// When something sent now arrives at the node.
    pub(crate) fn arrival_at_node(&mut self, now: u64, rng: &mut Rng) -> u64 {
        self.to_node.arrival(now, rng)
    }

    /// When something sent now arrives at the client.
    pub(crate) fn arrival_at_client(&mut self, now: u64, rng: &mut Rng) -> u64 {
        self.to_client.arrival(now, rng)
    }

    pub(crate) fn reaches_node(&self, at: u64) -> bool {
        self.to_node.lets_through(at)
    }

    pub(crate) fn reaches_client(&self, at: u64) -> bool {
        self.to_client.lets_through(at)
    }

    /// Breaks; says when the server notices.
    pub(crate) fn cut(&mut self, now: u64, rng: &mut Rng) -> u64 {
        self.open = false;
        let last = self.to_node.cut(now, rng);
        self.to_client.cut(now, rng);
        last + rng.range(1_000, 5_000_000)
    }
}

impl Way {
    fn arrival(&mut self, now: u64, rng: &mut Rng) -> u64 {
        let slow = rng.chance(50);
        let delay = if slow {
            rng.range(1_000_000, 30_000_000)
        } else {
            rng.range(10_000, 800_000)
        };
        self.last_arrival = (now + delay).max(self.last_arrival + 1);
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
