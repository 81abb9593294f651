//! What a seed decides before a run begins: how large everything is and how much goes wrong.

use partha_core::Limits;

use crate::options::Caps;
use crate::rng::Rng;

/// One millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// The shape of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) shards: usize,
    pub(crate) clients: usize,
    pub(crate) objects_per_node: usize,
    pub(crate) ops_per_client: u32,
    /// Between two operations of one client, at most.
    pub(crate) pause_ns: u64,
    /// A client asks again after this long, at most.
    pub(crate) patience_ns: u64,
    /// What a disk write takes, at most.
    pub(crate) disk_ns: u64,
    /// What a servant takes, at most.
    pub(crate) servant_ns: u64,
    /// Batches that do not fit the disk.
    pub(crate) full_per_mille: u64,
    /// Servants that fail.
    pub(crate) failed_per_mille: u64,
    /// Between two faults, at most.
    pub(crate) fault_ns: u64,
    /// When faults end.
    pub(crate) faults_until: u64,
    pub(crate) limits: Limits,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng, caps: Caps) -> Self {
        Self {
            nodes: rng.range(1, 2).min(caps.nodes) as usize,
            shards: rng.range(1, 2).min(caps.shards) as usize,
            clients: rng.range(2, 4).min(caps.clients) as usize,
            objects_per_node: rng.range(1, 3).min(caps.objects) as usize,
            ops_per_client: rng.range(4, 12).min(caps.actions) as u32,
            pause_ns: rng.pick(&[MS, 4 * MS, 15 * MS]),
            patience_ns: rng.pick(&[4 * MS, 12 * MS, 40 * MS]),
            disk_ns: rng.pick(&[MS / 2, 3 * MS, 15 * MS]),
            servant_ns: rng.pick(&[MS / 10, MS, 8 * MS]),
            full_per_mille: rng.pick(&[0, 0, 30, 150]),
            failed_per_mille: rng.pick(&[0, 0, 50]),
            fault_ns: rng.pick(&[5 * MS, 12 * MS, 40 * MS]),
            faults_until: rng.range(20, 120).min(caps.trouble_ms) * MS,
            limits: Self::limits(rng),
        }
    }

    /// Bounds so small that they are reached.
    fn limits(rng: &mut Rng) -> Limits {
        Limits {
            object_queue_max: rng.pick(&[2, 1_024, 1_024]),
            calls_max: rng.pick(&[4, 65_536, 65_536, 65_536]),
            caller_calls_max: rng.pick(&[2, 8_192, 8_192, 8_192]),
            peers_max: 64,
            idle_ns: rng.pick(&[MS, 10 * MS, 1_000 * MS]),
            active_bytes_max: rng.pick(&[150, 1_000, 1 << 28]),
            active_objects_max: rng.pick(&[1, 3, 100_000]),
            volatile_objects_max: 4,
            uses_max: rng.pick(&[1, 4, 1_000]),
            ..Limits::default()
        }
    }
}
