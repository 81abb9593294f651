//! Operations that are prepared first, and told before they are in the list, as those of actions
//! are; and reads at copies that follow.
//!
//! A part is decided when it is complete, and then whoever waits is told; its end comes into the
//! log some time later. In between the object is locked where it is led, and shut to reads
//! elsewhere.

use partha_core::group::Input;

use super::plan::MS;
use super::truth::{END, Op, PART};
use super::world::{Check, Event, Reply, World};

impl World {
    /// An entry is in the log of its leader.
    pub(super) fn locks(&mut self, node: usize, entry: Op) -> Check {
        if entry & PART != 0 {
            self.summary.reach("part");
            self.process(node).locked = Some(entry & !PART);
            return self.input(node, Input::Shut);
        }
        if entry & END != 0 {
            return self.input(node, Input::Open);
        }
        Ok(())
    }

    /// An entry is complete. Of a part this is how long the list is with it.
    pub(super) fn over(&mut self, node: usize, entry: Op) -> Result<Option<usize>, String> {
        if entry & END != 0 {
            self.process(node).locked = None;
        }
        if entry & PART == 0 {
            return Ok(None);
        }
        let op = entry & !PART;
        let object = self.shown_object(node);
        let length = self.truth.decided(&object, op)?;
        self.end_later(node, op);
        Ok(Some(length))
    }

    pub(super) fn end_later(&mut self, node: usize, op: Op) {
        let life = self.nodes[node].life;
        let after = self.rng.range(1, self.plan.end.max(MS));
        self.schedule(after, Event::End { node, life, op });
    }

    /// A copy leads from now on, and has found this prepared.
    pub(super) fn takes_over(&mut self, node: usize, part: Option<Op>) -> Check {
        let Some(op) = part else {
            return self.input(node, Input::Open);
        };
        self.summary.reach("part: found by the next leader");
        self.process(node).locked = Some(op);
        self.end_later(node, op);
        Ok(())
    }

    pub(super) fn end(&mut self, node: usize, life: u32, op: Op) -> Check {
        let same = self.nodes[node].life == life;
        let process = self.nodes[node].process.as_ref().filter(|_| same);
        if process.is_none_or(|process| process.locked != Some(op)) {
            return Ok(());
        }
        self.input(node, Input::Add { entry: op | END })
    }

    /// A copy that follows shows what its disk has.
    pub(super) fn read_here(&mut self, node: usize, read: u64, index: u64) -> Check {
        let list = self.nodes[node].disk.object.list.clone();
        let installed = self.nodes[node].disk.installed.index;
        if self.rule.is_none() && installed < index {
            return Err(format!("early: {installed} is installed, not {index}"));
        }
        let Some((client, number)) = self.process(node).reads.remove(&read) else {
            return Err(format!("read: {read} is nobody's"));
        };
        self.summary.reach("read here");
        self.reply(node, client, number, Reply::Read(list));
        Ok(())
    }
}
