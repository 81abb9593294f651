//! What goes wrong.

use partha_core::group::{Input, Policy, Stamp};
use partha_core::id::NodeId;

use super::plan::MS;
use super::truth::Object;
use super::world::{Event, World, index};

impl World {
    pub(super) fn crash(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.take() else {
            return;
        };
        self.summary.count("crashes");
        let asks = process.member.asks();
        let mut writes = process.writes;
        if process.writing && self.rng.chance(500) {
            let bytes = writes.pop_front().expect("a write is under way");
            self.nodes[node]
                .disk
                .apply(&bytes)
                .expect("as it was asked for");
        }
        if !writes.is_empty() {
            self.summary.reach("write lost in a crash");
        }
        self.nodes[node].life += 1;
        // One disk at a time may be lost, and not the only one that has everything, nor that of a
        // node which is just having another one taken out.
        let others = self.nodes.iter().filter(|it| it.me != self.nodes[node].me);
        let mut others = others.filter(|it| self.binder.has(it.me));
        let whole = others.clone().count() > 0 && others.all(|it| !it.disk.broken);
        if whole && !asks && self.rng.chance(self.plan.broken_per_mille) {
            self.summary.reach("disk lost");
            let disk = &mut self.nodes[node].disk;
            disk.broken = true;
            disk.installed = Stamp::default();
            disk.staged.clear();
            disk.object = Object::default();
        }
        let after = self.rng.range(MS, 250 * MS);
        self.schedule(after, Event::Restart { node });
        if self.rng.chance(self.plan.seen_per_mille) {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                let after = self.rng.range(1, 5 * MS);
                self.schedule(
                    after,
                    Event::Ended {
                        node: other,
                        of: node,
                    },
                );
            }
        }
    }

    pub(super) fn fault(&mut self) {
        if self.is_healthy() {
            return;
        }
        let after = self.rng.range(MS, self.plan.fault);
        self.schedule(after, Event::Fault);
        let count = self.nodes.len() as u64;
        let node = self.rng.below(count) as usize;
        let leader = index(self.binder.leader());
        match self.rng.below(12) {
            0..=2 => self.crash(node),
            3 => self.crash(leader),
            4..=6 => {
                let other = self.rng.below(count + 1) as usize;
                let until = self.now + self.rng.range(MS, 300 * MS);
                self.apart.insert((node.min(other), node.max(other)), until);
            }
            7 => {
                // Nobody hears this one.
                let until = self.now + self.rng.range(MS, 300 * MS);
                for other in 0..=self.nodes.len() {
                    self.apart.insert((node.min(other), node.max(other)), until);
                }
            }
            8 => {
                self.summary.reach("frozen");
                let frozen = if self.rng.chance(500) { node } else { leader };
                self.nodes[frozen].frozen_until = self.now + self.rng.range(MS, 250 * MS);
            }
            9 => self.binder_away_until = self.now + self.rng.range(MS, 200 * MS),
            10 => {
                let members: Vec<NodeId> = self.binder.members.clone();
                let to = self.rng.pick(&members);
                // Whatever comes of it is judged like everything else.
                let input = match index(to) == leader {
                    true => Input::Policy {
                        policy: Policy::Cohort,
                    },
                    false => Input::HandOver { to },
                };
                let failed = self.input(leader, input);
                debug_assert!(failed.is_ok(), "{failed:?}");
            }
            _ => {
                if self.rng.chance(300) {
                    self.summary.reach("all nodes down");
                    for node in 0..self.nodes.len() {
                        self.crash(node);
                    }
                }
            }
        }
    }
}
