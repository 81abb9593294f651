//! What befalls everybody: crashes, partitions, frozen processes, and the deaths of clients.

use partha_core::Input;
use partha_core::id::Uid;

use super::plan::{EXTINCT, LEASE, MS};
use super::program::Doing;
use super::run::Stage;
use super::truth::Fate;
use super::world::{Check, Event, World};
use crate::options::FaultKind;

impl World {
    /// Something goes wrong.
    pub(crate) fn fault(&mut self) -> Check {
        if !self.in_faults() {
            return Ok(());
        }
        let delay = self.rng.range(MS / 10, self.plan.fault_ns);
        self.schedule(self.now + delay, Event::Fault);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let client = self.plan.nodes + self.rng.below(self.plan.clients as u64) as usize;
        let uid = self.rng.pick(&self.objects);
        let (kind, chosen) = match self.rng.below(20) {
            0..=4 => (FaultKind::Crash, node),
            5..=6 => (FaultKind::ClientCrash, client),
            7..=10 => (FaultKind::Cut, node),
            11..=12 => (FaultKind::Partition, node),
            13..=15 => (FaultKind::Freeze, node),
            16 => (FaultKind::Drain, node),
            17..=18 => (FaultKind::Evict, node),
            _ => (FaultKind::Fence, node),
        };
        let (kind, chosen) = match self.deaths {
            true => (FaultKind::Crash, node),
            false => (kind, chosen),
        };
        if self.plan.caps.lacks(kind) {
            return Ok(());
        }
        if self.deposals {
            return match self.groups.is_empty() {
                true => Ok(()),
                false => self.suspect_some(),
            };
        }
        if !self.groups.is_empty() && self.group_rng.chance(250) {
            return self.suspect_some();
        }
        self.say(|| format!("fault: {kind:?} {}", chosen + 1));
        self.befall(kind, chosen, uid)
    }

    fn befall(&mut self, kind: FaultKind, chosen: usize, uid: Uid) -> Check {
        let home = self.owner(uid).unwrap_or_else(|| Self::node_of(uid.node));
        match kind {
            FaultKind::Crash => self.crash(chosen)?,
            FaultKind::ClientCrash => self.client_dies(chosen),
            FaultKind::Cut => {
                let open = (0..self.conns.len()).filter(|conn| self.conns[*conn].open);
                let open: Vec<usize> = open.collect();
                if !open.is_empty() {
                    let conn = self.rng.pick(&open);
                    self.cut_between(
                        self.conns[conn].caller.process,
                        self.conns[conn].server.process,
                    );
                }
            }
            FaultKind::Partition => self.part_from_others(chosen),
            FaultKind::Freeze => {
                let process = self.rng.below(self.processes.len() as u64) as usize;
                let long = self.rng.chance(self.plan.half_open / 4);
                let most = if long { 2 * LEASE } else { 200 * MS };
                let until = self.now + self.rng.range(MS, most);
                self.processes[process].frozen_until = until;
                if until > self.now + LEASE {
                    self.lose_leases(process);
                }
            }
            FaultKind::Drain => {
                if self.processes[chosen].up && !self.nodes[chosen].draining {
                    self.nodes[chosen].draining = true;
                    let life = self.life(chosen);
                    for shard in 0..self.plan.shards {
                        if self.is_alive(life) {
                            self.input(self.place(chosen, shard), Input::Drain)?;
                        }
                    }
                }
            }
            FaultKind::Evict => {
                if self.processes[home].up {
                    self.input(self.place(home, self.shard_of(uid)), Input::Evict { uid })?;
                }
            }
            FaultKind::Fence => {
                // Somebody else activates the object: what this node has is fenced off.
                if self.nodes[home].disk.shadow(uid).is_none() {
                    self.nodes[home].disk.activate(uid);
                }
            }
            FaultKind::Loss
            | FaultKind::Double
            | FaultKind::Late
            | FaultKind::Disk
            | FaultKind::Servant
            | FaultKind::Stuck
            | FaultKind::HalfOpen
            | FaultKind::Cancel
            | FaultKind::Move
            | FaultKind::Depose
            | FaultKind::Skew => {}
        }
        Ok(())
    }

    fn cut_between(&mut self, one: usize, other: usize) {
        for conn in 0..self.conns.len() {
            let ends = (
                self.conns[conn].caller.process,
                self.conns[conn].server.process,
            );
            if ends == (one, other) || ends == (other, one) {
                self.cut(conn);
            }
        }
    }

    /// A process stands still for longer than its lease: the others take it for dead, and it
    /// learns that when it goes on.
    fn lose_leases(&mut self, process: usize) {
        let it = self.life(process);
        for conn in 0..self.conns.len() {
            if self.conns[conn].caller == it || self.conns[conn].server == it {
                self.freeze(conn);
            }
        }
    }

    /// A node and some processes cannot hear each other for a time. Some connections notice.
    fn part_from_others(&mut self, node: usize) {
        let until = self.now + self.rng.range(5 * MS, 300 * MS);
        for other in 0..self.processes.len() {
            if other == node || self.rng.chance(400) {
                continue;
            }
            self.partitions
                .insert((node.min(other), node.max(other)), until);
            if self.rng.chance(500) {
                self.cut_between(node, other);
            }
        }
    }

    /// A node process dies; its store stays, with a part of what was queued.
    pub(crate) fn crash(&mut self, node: usize) -> Check {
        if !self.processes[node].up {
            return Ok(());
        }
        self.summary.count("crashes");
        let mut facts = Vec::new();
        self.nodes[node].disk.crash(&mut self.rng, &mut facts)?;
        self.learn(facts)?;
        self.dies(node);
        self.waits.gone(self.now, node);
        let down = self.rng.range(MS, 100 * MS);
        self.schedule(self.now + down, Event::Restart { node });
        Ok(())
    }

    /// A process is gone with all that it runs.
    fn dies(&mut self, process: usize) {
        let it = self.life(process);
        self.schedule(self.now + EXTINCT, Event::Extinct { of: it });
        self.processes[process].up = false;
        self.leaders_die(process);
        self.forget_known(it);
        for conn in 0..self.conns.len() {
            if self.conns[conn].caller == it || self.conns[conn].server == it {
                if self.rng.chance(self.plan.half_open) {
                    self.freeze(conn);
                } else {
                    self.cut(conn);
                }
            }
        }
        for task in self.tasks.iter_mut().filter(|task| task.at == it) {
            task.doing = Doing::Done;
        }
        for run in self.runs.iter_mut().filter(|run| run.at == it) {
            run.stage = Stage::Done;
            run.conn = None;
        }
        for call in self
            .calls
            .iter_mut()
            .filter(|call| call.caller == it && call.open)
        {
            call.open = false;
            self.truth.ops[call.op].fate = Fate::Unknown;
        }
    }

    pub(crate) fn restart(&mut self, node: usize) -> Check {
        self.processes[node].life += 1;
        self.processes[node].up = true;
        self.processes[node].next_uid = 1;
        self.processes[node].next_sequence = 1;
        self.nodes[node].draining = false;
        self.nodes[node].next_object = 0;
        self.fill_shards(node);
        let prepared = self.nodes[node].disk.prepared.iter();
        let prepared = prepared.map(|((action, shard), record)| {
            let objects = record.shadows.iter().map(|shadow| shadow.uid).collect();
            let (action, coordinator) = (*action, record.coordinator);
            (
                *shard,
                Input::RecoverPrepared {
                    action,
                    coordinator,
                    objects,
                },
            )
        });
        let decisions = self.nodes[node].disk.decisions.iter();
        let decisions = decisions.filter(|(_, (_, participants, groups))| {
            !participants.is_empty() || !groups.is_empty()
        });
        let decisions = decisions.map(|(action, (shard, participants, groups))| {
            let (action, participants) = (*action, participants.clone());
            (
                *shard,
                Input::RecoverDecision {
                    action,
                    participants,
                    groups: groups.clone(),
                    decider: None,
                },
            )
        });
        for (shard, input) in prepared.chain(decisions).collect::<Vec<_>>() {
            self.summary.reach(match input {
                Input::RecoverPrepared { .. } => "recovered: prepared",
                _ => "recovered: decided",
            });
            self.input(self.place(node, shard), input)?;
        }
        Ok(())
    }

    fn client_dies(&mut self, client: usize) {
        if !self.processes[client].up {
            return;
        }
        self.summary.count("client crashes");
        self.dies(client);
        let down = self.rng.range(MS / 100, 30 * MS);
        self.schedule(self.now + down, Event::Reborn { client });
    }

    pub(crate) fn reborn(&mut self, client: usize) -> Check {
        let it = &mut self.processes[client];
        it.life += 1;
        it.up = true;
        it.next_uid = 1;
        it.next_sequence = 1;
        let client = self.life(client);
        self.schedule(self.now, Event::Next { client });
        Ok(())
    }

    /// Looks for deadlocks that last.
    pub(crate) fn watch(&mut self) -> Check {
        if self.is_idle() {
            return Ok(());
        }
        // A shard that has drained looks for no deadlocks any more, though others of its node
        // still wait.
        let draining = self.nodes.iter().any(|node| node.draining);
        self.waits
            .watch(self.now, self.plan.faults_until, draining)?;
        self.schedule(self.now + 250 * MS, Event::Watch);
        Ok(())
    }
}
