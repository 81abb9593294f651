//! The toy shell of a copy: does what it asks for.

use partha_core::group::{Input, NotAdded, Output, Stamp, Write};

use super::node::{Bytes, Process};
use super::truth::{END, Object, Op, PART};
use super::world::{Check, Event, Reply, World};
use crate::Trace;

/// Where clients wait between `Add` and `Added`.
pub(super) const WAITING: Stamp = Stamp {
    view: u64::MAX,
    index: u64::MAX,
};

impl World {
    pub(super) fn perform(&mut self, node: usize, out: Vec<Output>) -> Check {
        for output in out {
            if self.traced != Trace::Off {
                let line = format!("    node {node}: {output:?}");
                self.summary.note(self.traced, &line);
            }
            self.do_one(node, output)?;
        }
        if let Some(process) = &self.nodes[node].process {
            process.member.check();
        }
        self.rearm(node);
        Ok(())
    }

    pub(super) fn do_one(&mut self, node: usize, output: Output) -> Check {
        match output {
            Output::AskView => self.ask_binder(node, None),
            Output::Change(change) => self.ask_binder(node, Some(change)),
            Output::Send { to, message } => self.mail(node, to, message),
            Output::Write { job, write } => self.write(node, job, write)?,
            Output::Added { entry, stamp } => {
                if self.another_policy == Some((node, stamp.view + 1)) {
                    let what = "is of the policy before, and added after it";
                    return Err(format!("{stamp:?} at node {node} {what}"));
                }
                let process = self.process(node);
                process.ops.insert(stamp, entry);
                let waiting = process.pending.remove(&WAITING);
                let waiting = waiting.map_or(Vec::new(), |(_, clients)| clients);
                process.pending.insert(stamp, (entry, waiting));
                self.summary.reach("added");
                self.locks(node, entry)?;
            }
            Output::NotAdded { entry, why } => self.not_added(node, entry, why),
            Output::Complete { stamp } => self.completed(node, stamp)?,
            Output::Leads { view } => {
                self.summary.reach("leads");
                let process = self.process(node);
                process.leads = true;
                process.complete = process.member.log().installed().index;
                let object = process.object.clone();
                self.truth
                    .shown(&object.list)
                    .map_err(|error| format!("{error} (node {node} leads {view:?})"))?;
                self.takes_over(node, object.part)?;
            }
            Output::Deposed => {
                self.summary.reach("deposed");
                let process = self.process(node);
                process.leads = false;
                process.pending.clear();
                process.readers.clear();
                process.locked = None;
            }
            Output::Confirmed => {
                let readers = std::mem::take(&mut self.process(node).readers);
                let list = self.shown(node);
                let locked = self.process(node).locked.is_some();
                for (client, number) in readers {
                    let reply = match locked {
                        true => Reply::Elsewhere,
                        false => Reply::Read(list.clone()),
                    };
                    self.reply(node, client, number, reply);
                }
            }
            Output::Read { read, index } => self.read_here(node, read, index)?,
            Output::ReadElsewhere { read } => {
                self.summary.reach("read here: sent on");
                if let Some((client, number)) = self.process(node).reads.remove(&read) {
                    self.reply(node, client, number, Reply::Elsewhere);
                }
            }
        }
        Ok(())
    }

    fn not_added(&mut self, node: usize, entry: Op, why: NotAdded) {
        let process = self.process(node);
        let waiting = process.pending.remove(&WAITING);
        self.summary.reach(match why {
            NotAdded::NotLeading => "not leading",
            NotAdded::Overloaded => "overloaded",
        });
        let number = entry & !PART;
        for client in waiting.map_or(Vec::new(), |(_, clients)| clients) {
            self.reply(node, client, number, Reply::Elsewhere);
        }
        if entry & END != 0 {
            self.end_later(node, entry & !END);
        }
    }

    pub(super) fn process(&mut self, node: usize) -> &mut Process {
        let process = self.nodes[node].process.as_mut();
        process.expect("only a process has outputs")
    }

    pub(super) fn completed(&mut self, node: usize, stamp: Stamp) -> Check {
        let process = self.process(node);
        process.complete = stamp.index;
        let waiting = process.pending.remove(&stamp);
        let shown = self.shown(node);
        self.truth.shown(&shown)?;
        if let Some((entry, clients)) = waiting {
            let length = self.over(node, entry)?.unwrap_or(shown.len());
            let number = entry & !PART;
            for client in clients {
                self.reply(node, client, number, Reply::Added { length });
            }
        }
        Ok(())
    }

    /// What a leader shows: all that is complete.
    pub(super) fn shown(&mut self, node: usize) -> Vec<Op> {
        self.shown_object(node).list
    }

    pub(super) fn shown_object(&mut self, node: usize) -> Object {
        let process = self.process(node);
        let mut object = process.object.clone();
        for stamp in &process.staged {
            if stamp.index <= process.complete {
                object.take(process.ops[stamp]);
            }
        }
        object
    }

    pub(super) fn write(&mut self, node: usize, job: u64, write: Write) -> Check {
        match &write {
            Write::Log { difference, .. } if difference.truncate.is_some() => {
                self.summary.reach("truncated");
            }
            Write::Snapshot { .. } => self.summary.reach("snapshot"),
            Write::Log { .. } | Write::Install { .. } => {}
        }
        let process = self.process(node);
        let mut bytes = Bytes {
            job,
            write,
            ops: Vec::new(),
            object: Object::default(),
        };
        match &bytes.write {
            Write::Log { difference, .. } => {
                if let Some(kept) = difference.truncate {
                    process.staged.retain(|stamp| stamp.index <= kept);
                }
                for stamp in &difference.add {
                    process.staged.push(*stamp);
                    bytes.ops.push((*stamp, process.ops[stamp]));
                }
            }
            Write::Install { index } => {
                while process.staged.first().is_some_and(|it| it.index <= *index) {
                    let stamp = process.staged.remove(0);
                    process.object.take(process.ops[&stamp]);
                }
            }
            Write::Snapshot { .. } => {
                process.staged.clear();
                bytes.object = process.object.clone();
            }
        }
        process.writes.push_back(bytes);
        self.next_write(node);
        Ok(())
    }

    pub(super) fn next_write(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let after = self.rng.range(1, self.plan.disk);
        let process = self.process(node);
        if !process.writing && !process.writes.is_empty() {
            process.writing = true;
            self.schedule(after, Event::DiskDone { node, life });
        }
    }

    pub(super) fn disk_done(&mut self, node: usize, life: u32) -> Check {
        if self.nodes[node].life != life || self.nodes[node].process.is_none() {
            return Ok(());
        }
        let process = self.process(node);
        process.writing = false;
        let bytes = process.writes.pop_front().expect("a write is under way");
        self.nodes[node].disk.apply(&bytes)?;
        self.next_write(node);
        self.input(node, Input::Written { job: bytes.job })
    }
}
