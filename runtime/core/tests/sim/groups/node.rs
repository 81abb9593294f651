//! A node: what its disk has, its copy of the object, what it promised.

use std::collections::{BTreeMap, VecDeque};

use partha_core::group::{Member, Rule, Stamp, View, Write, log::Log};
use partha_core::id::NodeId;
use partha_core::time::Time;

use super::plan::PROMISE;
use super::truth::{Object, Op};

/// What a restart finds.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) view: View,
    pub(crate) installed: Stamp,
    pub(crate) staged: Vec<(Stamp, Op)>,
    pub(crate) object: Object,
    /// What it had is lost.
    pub(crate) broken: bool,
}

/// A write with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub(crate) job: u64,
    pub(crate) write: Write,
    pub(crate) ops: Vec<(Stamp, Op)>,
    pub(crate) object: Object,
}

/// What lives and dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) member: Member,
    /// The bytes of staged entries.
    pub(crate) ops: BTreeMap<Stamp, Op>,
    /// The log's entries that are not installed.
    pub(crate) staged: Vec<Stamp>,
    /// The state, with all that is installed.
    pub(crate) object: Object,
    pub(crate) leads: bool,
    /// What is prepared, until its end is complete.
    pub(crate) locked: Option<Op>,
    /// Up to where entries are complete here, by index.
    pub(crate) complete: u64,
    /// Additions under way: the operation, and who waits.
    pub(crate) pending: BTreeMap<Stamp, (Op, Vec<usize>)>,
    /// Reads that wait until the leader may answer.
    pub(crate) readers: Vec<(usize, Op)>,
    /// Reads of those who have asked a copy that follows.
    pub(crate) reads: BTreeMap<u64, (usize, Op)>,
    pub(crate) last_read: u64,
    pub(crate) writes: VecDeque<Bytes>,
    pub(crate) writing: bool,
    /// When others were last heard of, in local time.
    pub(crate) heard: BTreeMap<usize, u64>,
    pub(crate) lost: BTreeMap<usize, bool>,
    pub(crate) timer: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) me: NodeId,
    pub(crate) life: u32,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    pub(crate) frozen_until: u64,
    /// Its clock: this many millionths of the world's, from here.
    pub(crate) rate: u64,
    pub(crate) offset: u64,
}

impl Node {
    pub(crate) fn local(&self, now: u64) -> Time {
        let run = u128::from(now) * u128::from(self.rate) / 1_000_000;
        Time(self.offset + u64::try_from(run).unwrap_or(u64::MAX))
    }

    /// When the node's clock will show this.
    pub(crate) fn global(&self, local: Time) -> u64 {
        let run = u128::from(local.0.saturating_sub(self.offset));
        let world = run * 1_000_000 / u128::from(self.rate) + 1;
        u64::try_from(world).unwrap_or(u64::MAX)
    }

    pub(crate) fn start(&mut self, now: u64, nodes: usize, rule: Option<Rule>) {
        let disk = &self.disk;
        let staged: Vec<Stamp> = disk.staged.iter().map(|(stamp, _)| *stamp).collect();
        let log = Log::restored(disk.installed, &staged);
        let local = self.local(now);
        // A new life keeps what the earlier one may have promised; the very first has none.
        let bound = match self.life {
            0 => Time(0),
            _ => Time(local.0 + PROMISE),
        };
        let mut member = Member::new(self.me, disk.view.clone(), log, PROMISE, bound);
        if disk.broken {
            member = member.without_state();
        }
        self.process = Some(Process {
            member: member.lacking(rule),
            readers: Vec::new(),
            ops: disk.staged.iter().copied().collect(),
            staged: staged.clone(),
            object: disk.object.clone(),
            leads: false,
            locked: None,
            reads: BTreeMap::new(),
            last_read: 0,
            complete: disk.installed.index,
            pending: BTreeMap::new(),
            writes: VecDeque::new(),
            writing: false,
            heard: (0..nodes).map(|node| (node, local.0)).collect(),
            lost: BTreeMap::new(),
            timer: None,
        });
    }
}

impl Disk {
    /// Does one write.
    pub(crate) fn apply(&mut self, bytes: &Bytes) -> Result<(), String> {
        match &bytes.write {
            Write::Log { view, difference } => {
                self.view = view.clone();
                if let Some(kept) = difference.truncate {
                    self.staged.retain(|(stamp, _)| stamp.index <= kept);
                }
                for stamp in &difference.add {
                    let op = bytes.ops.iter().find(|(it, _)| it == stamp);
                    let op = op.ok_or_else(|| format!("bytes: none of {stamp:?}"))?;
                    self.staged.push(*op);
                }
            }
            Write::Install { index } => {
                while self.installed.index < *index {
                    if self.staged.is_empty() {
                        return Err(format!("install: {index} is not staged"));
                    }
                    let (stamp, op) = self.staged.remove(0);
                    self.installed = stamp;
                    self.object.take(op);
                }
            }
            Write::Snapshot { view, at } => {
                self.view = view.clone();
                self.broken = false;
                self.installed = *at;
                self.staged.clear();
                self.object = bytes.object.clone();
            }
        }
        Ok(())
    }
}
