//! What a seed decides before a run begins: how large everything is and how much goes wrong.

use partha_core::Limits;

use crate::options::{Caps, FaultKind};
use crate::rng::Rng;

/// One millisecond.
pub(crate) const MS: u64 = 1_000_000;
/// One second.
pub(crate) const S: u64 = 1_000 * MS;
/// A peer silent for so long is taken for dead.
pub(crate) const LEASE: u64 = 2 * S;
/// What a dead process began has to be gone everywhere by then: one lease until it is known where
/// it called, one more where that node died meanwhile.
pub(crate) const EXTINCT: u64 = 3 * LEASE + 3 * KILLED;
/// What is left of a dead caller has to be gone so soon after that is known.
pub(crate) const KILLED: u64 = S;

/// The shape of a run. Chances are in a thousand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) shards: usize,
    pub(crate) clients: usize,
    pub(crate) objects_per_node: usize,
    /// Top-level actions of each client.
    pub(crate) actions: u64,
    /// Steps of a program at each level, at most.
    pub(crate) steps: u64,
    /// Nested levels below a root, and servants below a call.
    pub(crate) depth: u64,
    /// Calls that write.
    pub(crate) writes: u64,
    /// Steps that begin a nested action.
    pub(crate) nested: u64,
    /// Nested actions that run beside what follows.
    pub(crate) beside: u64,
    /// Servants that call others.
    pub(crate) servants_call: u64,
    /// Levels that end by their own wish in an abort.
    pub(crate) give_up: u64,
    /// Of the objects, this one gets most of the calls.
    pub(crate) hot: u64,
    /// Between two actions of a client, at most.
    pub(crate) pause_ns: u64,
    /// Between two steps, at most.
    pub(crate) think_ns: u64,
    /// What callers wait for an answer.
    pub(crate) wait_ns: u64,
    /// What a top-level action may take.
    pub(crate) action_ns: u64,
    /// What a disk write takes, at most.
    pub(crate) disk_ns: u64,
    /// What a servant takes, at most.
    pub(crate) servant_ns: u64,
    /// Messages that get lost, come twice, come late.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    /// Votes that say where objects went and get lost, since their node dies just then.
    pub(crate) moved_lost: u64,
    /// Batches that do not fit the disk.
    pub(crate) full: u64,
    /// Servants that fail.
    pub(crate) failed: u64,
    /// Servants that raise.
    pub(crate) raised: u64,
    /// Servants that never return by themselves.
    pub(crate) stuck: u64,
    /// Servants that cannot be stopped at once.
    pub(crate) deaf: u64,
    /// Connections whose end is noticed only when the lease is over.
    pub(crate) half_open: u64,
    /// Calls that are given up.
    pub(crate) cancelled: u64,
    /// Between two faults, at most.
    pub(crate) fault_ns: u64,
    /// Between two moves of objects, at most; 0 if none moves.
    pub(crate) move_ns: u64,
    /// When objects stop to move.
    pub(crate) moves_until: u64,
    /// Nothing goes wrong, but objects move.
    pub(crate) calm: bool,
    /// When faults end.
    pub(crate) faults_until: u64,
    /// How far clocks are apart, at most.
    pub(crate) skew_ns: u64,
    /// How many thousandths clocks run too fast or too slow, at most.
    pub(crate) drift: u64,
    pub(crate) limits: Limits,
    pub(crate) caps: Caps,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng, caps: Caps) -> Self {
        let nodes = rng.pick(&[1, 2, 2, 2, 3, 3, 4]);
        let mut plan = Self {
            nodes: caps.nodes.min(nodes) as usize,
            shards: rng.range(1, 2).min(caps.shards) as usize,
            clients: rng.range(1, 4).min(caps.clients) as usize,
            objects_per_node: rng.range(1, 3).min(caps.objects) as usize,
            actions: rng.range(1, 6).min(caps.actions),
            steps: rng.range(1, 6).min(caps.steps),
            depth: rng.range(0, 4).min(caps.depth),
            writes: rng.pick(&[200, 500, 800]),
            nested: rng.pick(&[0, 150, 350]),
            beside: rng.pick(&[0, 300, 700]),
            servants_call: rng.pick(&[0, 150, 400]),
            give_up: rng.pick(&[0, 80, 250]),
            hot: rng.pick(&[0, 300, 700]),
            pause_ns: rng.pick(&[MS, 10 * MS, 100 * MS]),
            think_ns: rng.pick(&[MS / 10, 2 * MS, 20 * MS]),
            wait_ns: rng.pick(&[50 * MS, 3 * S, 30 * S, 30 * S]),
            action_ns: rng.pick(&[300 * MS, 5 * S, 60 * S, 60 * S]),
            disk_ns: rng.pick(&[MS / 2, 3 * MS, 15 * MS]),
            servant_ns: rng.pick(&[MS / 10, MS, 8 * MS]),
            lost: rng.pick(&[0, 20, 100]),
            doubled: rng.pick(&[0, 20, 100]),
            late: rng.pick(&[0, 20, 100]),
            moved_lost: rng.pick(&[0, 900]),
            full: rng.pick(&[0, 0, 30, 150]),
            failed: rng.pick(&[0, 0, 50]),
            raised: rng.pick(&[0, 80]),
            stuck: rng.pick(&[0, 0, 0, 15, 60]),
            deaf: rng.pick(&[0, 300]),
            half_open: rng.pick(&[0, 0, 400]),
            cancelled: rng.pick(&[0, 0, 40]),
            fault_ns: rng.pick(&[5 * MS, 20 * MS, 80 * MS, 1_000 * S]),
            move_ns: rng.pick(&[0, MS, 5 * MS, 30 * MS]),
            moves_until: 0,
            calm: rng.chance(150),
            faults_until: rng.range(20, 400).min(caps.trouble_ms) * MS,
            skew_ns: rng.pick(&[0, S, 1_000 * S]),
            drift: rng.pick(&[0, 0, 5]),
            limits: Self::limits(rng),
            caps,
        };
        plan.leave_out();
        if plan.calm {
            plan.calm_down();
        }
        plan.moves_until = plan.faults_until + 300 * MS;
        plan
    }

    /// Nothing goes wrong but what programs do to each other.
    fn calm_down(&mut self) {
        self.faults_until = 0;
        (self.stuck, self.give_up, self.failed) = (0, 0, 0);
        (self.wait_ns, self.action_ns) = (30 * S, 60 * S);
        let idle_ns = self.limits.idle_ns;
        self.limits = Limits {
            idle_ns,
            lock_wait_ns: 10 * S,
            ..Limits::default()
        };
    }

    /// Nothing goes wrong but that nodes die, and leaders are taken for dead.
    pub(crate) fn deaths_alone(&mut self) {
        (self.stuck, self.give_up, self.failed) = (0, 0, 0);
        (self.lost, self.doubled, self.late, self.full) = (0, 0, 0, 0);
        (self.half_open, self.cancelled) = (0, 0);
        (self.wait_ns, self.action_ns, self.move_ns) = (60 * S, 100 * S, 0);
        // Who calls on is the most that a leader's death can spoil.
        self.depth = self.depth.max(1).min(self.caps.depth);
        self.servants_call = self.servants_call.max(150);
        self.limits = Limits {
            idle_ns: self.limits.idle_ns,
            resend_ns: self.limits.resend_ns,
            // A call may wait for a lock several times before its own time is up.
            lock_wait_ns: 3 * S,
            vote_wait_ns: 20 * S,
            ..Limits::default()
        };
    }

    /// What the caps say must not happen has no chance to.
    fn leave_out(&mut self) {
        let chances = [
            (FaultKind::Loss, &mut self.lost),
            (FaultKind::Double, &mut self.doubled),
            (FaultKind::Late, &mut self.late),
            (FaultKind::Disk, &mut self.full),
            (FaultKind::Servant, &mut self.failed),
            (FaultKind::Stuck, &mut self.stuck),
            (FaultKind::HalfOpen, &mut self.half_open),
            (FaultKind::Cancel, &mut self.cancelled),
            (FaultKind::Skew, &mut self.skew_ns),
            (FaultKind::Skew, &mut self.drift),
        ];
        for (kind, chance) in chances {
            if self.caps.lacks(kind) {
                *chance = 0;
            }
        }
    }

    /// Bounds so small that some are reached.
    fn limits(rng: &mut Rng) -> Limits {
        Limits {
            object_queue_max: rng.pick(&[2, 1_024, 1_024, 1_024]),
            calls_max: rng.pick(&[8, 65_536, 65_536, 65_536, 65_536]),
            peers_max: 64,
            idle_ns: rng.pick(&[MS, 10 * MS, S]),
            active_bytes_max: rng.pick(&[150, 1 << 28, 1 << 28]),
            active_objects_max: rng.pick(&[2, 100_000, 100_000, 100_000]),
            lock_wait_ns: rng.pick(&[200 * MS, 2 * S, 10 * S, 10 * S]),
            actions_max: rng.pick(&[2, 16_384, 16_384, 16_384, 16_384]),
            levels_max: rng.pick(&[3, 1_024, 1_024, 1_024, 1_024]),
            action_objects_max: rng.pick(&[2, 16_384, 16_384, 16_384]),
            action_writes_max: rng.pick(&[3, 65_536, 65_536, 65_536]),
            tombstones_max: rng.pick(&[1, 4, 16_384, 16_384]),
            vote_wait_ns: rng.pick(&[50 * MS, 500 * MS, 5 * S]),
            resend_ns: rng.pick(&[10 * MS, 100 * MS, 500 * MS]),
            moves_max: rng.pick(&[1, 64, 64]),
            cargo_levels_max: rng.pick(&[2, 1_024, 1_024]),
            move_hold_ns: rng.pick(&[5 * MS, 100 * MS, 2 * S]),
            ..Limits::default()
        }
    }
}

/// A process' own clock: apart from the true one, and faster or slower.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    offset: u64,
    /// Of a thousand true nanoseconds it counts this many.
    per_mille: u64,
}

impl Clock {
    pub(crate) fn new(plan: &Plan, rng: &mut Rng) -> Self {
        Self {
            offset: rng.range(0, plan.skew_ns),
            per_mille: 1_000 + rng.range(0, 2 * plan.drift) - plan.drift,
        }
    }

    /// What it shows at a true time.
    pub(crate) fn shows(self, now: u64) -> u64 {
        self.offset + now / 1_000 * self.per_mille + now % 1_000 * self.per_mille / 1_000
    }

    /// The first true time at which it shows at least this.
    pub(crate) fn when(self, shown: u64) -> u64 {
        let past = shown.saturating_sub(self.offset);
        let mut now = (u128::from(past) * 1_000 / u128::from(self.per_mille)) as u64;
        while self.shows(now) < shown {
            now += 1;
        }
        now
    }
}
