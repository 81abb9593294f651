//! Passive objects as the runner of an action knows them: what it has of one is where that was led.

use partha_core::id::Uid;

use super::checker::isolated;
use super::truth::{Ending, Fate};
use super::world::{CallNo, Check, World};

impl World {
    fn is_passive(&self, uid: Uid) -> bool {
        self.groups.get(&uid).is_some_and(|group| !group.cohort)
    }

    /// Whether the action of a call can go on where the call is about to go.
    pub(crate) fn finds_leader(&mut self, call: CallNo) -> bool {
        let op = &self.truth.ops[self.calls[call].op];
        let (Some((run, _)), Some(level)) = (self.calls[call].run, op.level) else {
            return true;
        };
        let (uid, leader) = (op.uid, self.calls[call].to.node);
        if !self.is_passive(uid) {
            return true;
        }
        let family = &mut self.runs[run].family;
        let before = family.doomed(level).is_some();
        let sends = family.finds_leader(level, uid, leader);
        let goes_on = family.doomed(level).is_none();
        if !before && !goes_on {
            self.summary.reach("group: an action finds another leader");
        }
        self.tell(self.runs[run].at, sends);
        self.outer_dooms(run);
        goes_on
    }

    /// A call in an action was executed. Whether its object has copies is not asked.
    pub(crate) fn note_leader(&mut self, call: CallNo) {
        let op = &self.truth.ops[self.calls[call].op];
        if let (Some((run, _)), Some(level)) = (self.calls[call].run, op.level)
            && let Fate::Answered { outcome, .. } = &op.fate
            && !self.is_cohort(outcome.uid)
        {
            let (uid, to) = (outcome.uid, self.calls[call].to);
            self.runs[run].family.led(level, uid, to);
        }
    }

    /// What an action is told of a passive object has what it has done there, or it can only abort
    /// and knows that. (One that moved, and whose node was started again after that, may be found
    /// without: then the commit fails.)
    pub(crate) fn remembers(&mut self, call: CallNo) -> Check {
        let op = self.calls[call].op;
        let record = &self.truth.ops[op];
        let (Some((run, _)), Some(level)) = (self.calls[call].run, record.level) else {
            return Ok(());
        };
        let Fate::Answered { outcome, .. } = &record.fate else {
            return Ok(());
        };
        let it = &self.runs[run];
        if let Some(path) = it.family.path_of(level)
            && self.is_passive(outcome.uid)
            && it.family.doomed(level).is_none()
        {
            isolated::remembers(&self.truth, op, path, outcome, &it.written)?;
        }
        if record.kind.writes() && outcome.ending == Ending::Normal {
            self.runs[run].written.push(op);
        }
        Ok(())
    }
}
