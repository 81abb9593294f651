//! What a seed decides before a run begins.

use crate::options::Caps;
use crate::rng::Rng;

/// One millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// How long a member promises not to replace a leader.
pub(crate) const PROMISE: u64 = 150 * MS;
/// Between two signs of life of a node.
pub(crate) const BEAT: u64 = 9 * MS;
/// A node that was not heard of for so long is taken for lost.
pub(crate) const SILENCE: u64 = 30 * MS;

/// The shape of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    /// Members of the first view.
    pub(crate) members: usize,
    pub(crate) clients: usize,
    pub(crate) ops: u64,
    /// Between two operations of a client, at most.
    pub(crate) pause: u64,
    /// A client asks again after this.
    pub(crate) patience: u64,
    /// What a message takes, at most.
    pub(crate) net: u64,
    /// What a write takes, at most.
    pub(crate) disk: u64,
    pub(crate) lost_per_mille: u64,
    pub(crate) doubled_per_mille: u64,
    pub(crate) late_per_mille: u64,
    /// Between two faults, at most.
    pub(crate) fault: u64,
    pub(crate) faults_until: u64,
    /// A crash is seen by the others, in so many of a thousand cases.
    pub(crate) seen_per_mille: u64,
    /// So many reads of a thousand are tried at any node first.
    pub(crate) near_per_mille: u64,
    /// So many operations of a thousand are prepared first.
    pub(crate) parts_per_mille: u64,
    /// What is prepared is ended after this, at most.
    pub(crate) end: u64,
    /// A crash takes the disk along.
    pub(crate) broken_per_mille: u64,
    /// A copy comes to something else than its leader.
    pub(crate) differs_per_mille: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng, caps: Caps) -> Self {
        let nodes = rng.range(2, 5).min(caps.nodes.max(1)) as usize;
        Self {
            nodes,
            members: rng.range(1, nodes as u64) as usize,
            clients: rng.range(1, 3).min(caps.clients) as usize,
            ops: rng.range(4, 25).min(caps.actions),
            pause: rng.pick(&[MS, 5 * MS, 20 * MS]),
            patience: rng.pick(&[15 * MS, 40 * MS, 120 * MS]),
            net: rng.pick(&[MS / 2, 2 * MS, 8 * MS]),
            disk: rng.pick(&[MS / 2, 3 * MS, 15 * MS]),
            lost_per_mille: rng.pick(&[0, 20, 100]),
            doubled_per_mille: rng.pick(&[0, 20, 100]),
            late_per_mille: rng.pick(&[0, 20, 60]),
            fault: rng.pick(&[10 * MS, 40 * MS, 120 * MS]),
            faults_until: rng.range(30, 900).min(caps.trouble_ms) * MS,
            seen_per_mille: rng.pick(&[0, 500, 1_000]),
            broken_per_mille: rng.pick(&[0, 0, 100]),
            near_per_mille: rng.pick(&[0, 500, 1_000]),
            parts_per_mille: rng.pick(&[0, 0, 300]),
            end: rng.pick(&[MS, 20 * MS]),
            differs_per_mille: rng.pick(&[0, 20, 300]),
        }
    }
}
