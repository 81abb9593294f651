//! Replicated objects: a group each, abstract. How copies agree has a world of its own
//! (`crate::groups`); here a group is one log with one leader at a time.
//!
//! What the leader adds is complete after a while, in order, and then every copy has it. When
//! another leads, a random beginning of what was not complete survives. The old leader may go on
//! for a time without knowing: nothing it adds is complete, and it holds no promise any more.

use std::collections::{BTreeMap, VecDeque};

use partha_core::action::path::{Coordinator, Site};
use partha_core::action::scope::Report;
use partha_core::engine::Mutation;
use partha_core::id::{Epoch, Uid};
use partha_core::{ActionBatch, Fault, Input, Job as Work, Loaded, Refusal, Written};

use super::disk::{Fact, For, State, What};
use super::image::Rows;
use super::net::{ConnNo, Request, Response};
use super::plan::MS;
use super::servant::size_of;
use super::truth::OpNo;
use super::world::{CallNo, Check, Event, Place, World};
use crate::options::FaultKind;

/// What a log's entry says.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Part {
        action: Uid,
        coordinator: Coordinator,
        state: State,
    },
    End {
        action: Uid,
        commit: bool,
    },
    Decide {
        action: Uid,
        state: Option<State>,
        participants: Vec<Site>,
        groups: Vec<Uid>,
    },
    Settle {
        action: Uid,
    },
}

/// Who waits for an entry at the leader that added it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// A piece of work of several steps.
    Step(Work),
    /// The end of a part that the engine asked for.
    Ended(Uid),
}

/// An entry that is not complete.
#[derive(Clone, Debug)]
struct Added {
    entry: Entry,
    at: Place,
    waits: Waits,
}

/// What a decision in a log names, and whether all of them know.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    participants: Vec<Site>,
    groups: Vec<Uid>,
    settled: bool,
}

/// What is complete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) list: Vec<OpNo>,
    pub(crate) rows: Rows,
    part: Option<(Uid, Coordinator, State)>,
    pub(crate) decisions: BTreeMap<Uid, Decision>,
}

/// One replicated object.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) leader: usize,
    pub(crate) term: u64,
    pub(crate) shown: Shown,
    pending: VecDeque<Added>,
    /// What deposed leaders have added, and what became of it: whether it survived.
    orphans: Vec<(Added, bool)>,
    /// Who believes to lead, since which term, and what its store shows if that is over.
    believers: BTreeMap<usize, Belief>,
}

#[derive(Clone, Debug)]
struct Belief {
    term: u64,
    life: u32,
    stale: Option<Shown>,
    /// It hears just now that it leads no more.
    over: bool,
}

/// A piece of work for the store that has several steps.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub(crate) action: Uid,
    /// Answers that are missing in this step.
    open: usize,
    failed: Option<Fault>,
    stage: Stage,
    /// What is left to do: parts first, then the local batch or the decision, then ends.
    local: Option<What>,
    decision: Option<(Uid, Entry)>,
    ends: Vec<(Uid, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Parts,
    Point,
    Ends,
}

impl World {
    /// Some objects are replicated: their state leaves the stores of nodes.
    pub(crate) fn make_groups(&mut self) {
        let mut objects = self.objects.clone();
        // Calls outside of actions are made of what is not replicated.
        objects.pop();
        let plans = [0, 300, 600, 900, 900];
        let replicated = match self.plan.calm {
            true => 0,
            false => self.group_rng.pick(&plans),
        };
        self.suspicious = self.group_rng.pick(&[0, 100, 500]);
        for uid in objects {
            if !self.group_rng.chance(replicated) {
                continue;
            }
            let leader = Self::node_of(uid.node);
            self.nodes[leader].disk.states.remove(&uid);
            let belief = Belief {
                term: 1,
                life: 1,
                stale: None,
                over: false,
            };
            self.groups.insert(
                uid,
                Group {
                    leader,
                    term: 1,
                    shown: Shown::default(),
                    pending: VecDeque::new(),
                    orphans: Vec::new(),
                    believers: BTreeMap::from([(leader, belief)]),
                },
            );
        }
    }

    /// Something happens to a group.
    pub(crate) fn group_event(&mut self, event: &Event) -> Check {
        match *event {
            Event::Suspect { uid, term } if self.groups[&uid].term == term => self.depose(uid),
            Event::Leads {
                uid,
                term,
                node,
                life,
            } => self.leads(uid, term, node, life),
            Event::Deposed {
                uid,
                term,
                node,
                life,
            } => self.deposed(uid, term, node, life),
            Event::Complete { uid, term } => self.complete(uid, term),
            Event::NotEnded { at, uid, action } if self.lives(at) => {
                let result = Err(Fault::Store);
                self.input(
                    at,
                    Input::PartEnded {
                        object: uid,
                        action,
                        result,
                    },
                )
            }
            Event::Forget { uid, action } => {
                self.forget_decision(uid, action);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The leader as anybody may know.
    pub(crate) fn leader_site(&self, uid: Uid) -> Option<Site> {
        let group = self.groups.get(&uid)?;
        let shard = self.shard_of(uid) as u16;
        let node = Self::node_id(group.leader);
        Some(Site { node, shard })
    }

    /// Whether a node believes that it leads an object.
    pub(crate) fn believes(&self, node: usize, uid: Uid) -> bool {
        let belief = self.groups[&uid].believers.get(&node);
        belief.is_some_and(|it| it.life == self.processes[node].life && !it.over)
    }

    /// Whether it does, and the others have promised to let it.
    pub(crate) fn surely_leads(&self, node: usize, uid: Uid) -> bool {
        let group = &self.groups[&uid];
        let belief = group.believers.get(&node);
        group.leader == node
            && self.believes(node, uid)
            && belief.is_some_and(|it| it.term == group.term)
    }

    /// What a node's store shows of a replicated object.
    pub(crate) fn shown(&self, node: usize, uid: Uid) -> Option<&Shown> {
        let group = self.groups.get(&uid)?;
        let belief = group.believers.get(&node);
        Some(match belief.and_then(|it| it.stale.as_ref()) {
            Some(stale) => stale,
            None => &group.shown,
        })
    }

    /// A call comes to who does not lead its object: it waits, or goes where the leader is.
    pub(crate) fn led_elsewhere(
        &mut self,
        conn: ConnNo,
        call: CallNo,
        at: Place,
        uid: Uid,
    ) -> Check {
        let to = self.leader_site(uid).expect("a group has a leader");
        if Self::node_of(to.node) == at.node {
            let request = Request::Call(call);
            self.schedule(self.now + MS, Event::Request { conn, request });
            return Ok(());
        }
        let (result, report) = (Err(Refusal::Moved), Report::default());
        let moved = Some((self.site_at(at), to));
        self.respond(
            conn,
            Response::Return {
                call,
                result,
                report,
                moved,
            },
        );
        Ok(())
    }

    /// A replicated object comes into memory.
    pub(crate) fn load_replicated(&mut self, at: Place, uid: Uid) -> Check {
        let found = self.shown(at.node, uid).map(|shown| shown.list.clone());
        let found = found.filter(|_| self.believes(at.node, uid));
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        let outcome = match found {
            Some(list) => {
                let epoch = node.disk.activate(uid);
                let size_bytes = size_of(&list);
                shard.images.insert(uid, list, epoch);
                Loaded::Found {
                    epoch: Epoch(epoch),
                    size_bytes,
                    replicated: true,
                }
            }
            None => Loaded::Moved,
        };
        let found = matches!(outcome, Loaded::Found { .. });
        shard.activations.loaded(uid, found);
        self.input(at, Input::Loaded { uid, outcome })
    }

    /// Whether an action may prepare or commit here, as far as leaders are concerned.
    pub(crate) fn may_vote(&self, at: Place, action: Uid) -> bool {
        let engine = &self.nodes[at.node].shards[at.shard].engine;
        let mut all = engine.replicated_of(action);
        all.all(|uid| self.surely_leads(at.node, uid))
    }

    /// The leader of some group is suspected.
    pub(crate) fn suspect_some(&mut self) -> Check {
        let all: Vec<Uid> = self.groups.keys().copied().collect();
        let busy = self.groups.iter().filter(|(_, group)| group.is_busy());
        let busy: Vec<Uid> = busy.map(|(uid, _)| *uid).collect();
        let uid = match busy.as_slice() {
            [] if self.group_rng.chance(800) => return Ok(()),
            [] => self.group_rng.pick(&all),
            busy => self.group_rng.pick(busy),
        };
        match self.plan.caps.lacks(FaultKind::Depose) {
            true => Ok(()),
            false => self.depose(uid),
        }
    }

    /// A leader is suspected, rightly or not, or has died.
    pub(crate) fn depose(&mut self, uid: Uid) -> Check {
        let old = self.groups[&uid].leader;
        let up = (0..self.nodes.len())
            .filter(|node| self.processes[*node].up && !self.nodes[*node].draining);
        let mut up: Vec<usize> = up.collect();
        if up.len() > 1 {
            up.retain(|node| *node != old || !self.processes[old].up);
        }
        if up.is_empty() {
            let at = self.now + self.group_rng.range(MS, 20 * MS);
            let term = self.groups[&uid].term;
            self.schedule(at, Event::Suspect { uid, term });
            return Ok(());
        }
        let leader = self.group_rng.pick(&up);
        self.summary.reach("group: another leads");
        let group = self.groups.get_mut(&uid).expect("it is a group");
        group.term += 1;
        group.leader = leader;
        let term = group.term;
        let kept = self.group_rng.range(0, group.pending.len() as u64) as usize;
        let shown = group.shown.clone();
        if let Some(belief) = group.believers.get_mut(&old) {
            belief.stale.get_or_insert(shown);
        }
        let pending: Vec<Added> = group.pending.drain(..).collect();
        for (index, added) in pending.into_iter().enumerate() {
            let survives = index < kept;
            if survives {
                self.summary.reach("group: an entry survives");
                self.apply_entry(uid, added.entry.clone())?;
            }
            let group = self.groups.get_mut(&uid).expect("it is a group");
            group.orphans.push((added, survives));
        }
        self.say(|| format!("{uid} is led by {} in term {term}", leader + 1));
        let soon = self.now + self.group_rng.range(MS / 10, 5 * MS);
        let life = self.processes[leader].life;
        self.schedule(
            soon,
            Event::Leads {
                uid,
                term,
                node: leader,
                life,
            },
        );
        let late = self.now + self.group_rng.range(MS / 10, 60 * MS);
        let life = self.processes[old].life;
        self.schedule(
            late,
            Event::Deposed {
                uid,
                term,
                node: old,
                life,
            },
        );
        Ok(())
    }

    /// A node begins to lead.
    pub(crate) fn leads(&mut self, uid: Uid, term: u64, node: usize, life: u32) -> Check {
        let group = &self.groups[&uid];
        let over = group.term != term || group.leader != node;
        if over {
            return Ok(());
        }
        let alive = self.processes[node].up && self.processes[node].life == life;
        if !alive || self.nodes[node].draining {
            return self.depose(uid);
        }
        self.learns_deposition(uid, node)?;
        let at = self.place(node, self.shard_of(uid));
        let shown = self.groups[&uid].shown.clone();
        for (action, decision) in &shown.decisions {
            if !decision.settled {
                self.summary.reach("group: a decision is recovered");
                self.input(
                    at,
                    Input::RecoverDecision {
                        action: *action,
                        participants: decision.participants.clone(),
                        groups: decision.groups.clone(),
                        decider: Some(uid),
                    },
                )?;
            }
        }
        if let Some((action, coordinator, _)) = shown.part {
            self.summary.reach("group: a part is recovered");
            self.input(
                at,
                Input::RecoverPart {
                    object: uid,
                    action,
                    coordinator,
                },
            )?;
        }
        let belief = Belief {
            term,
            life,
            stale: None,
            over: false,
        };
        let group = self.groups.get_mut(&uid).expect("it is a group");
        group.believers.insert(node, belief);
        Ok(())
    }

    /// A node hears that it leads no more.
    pub(crate) fn deposed(&mut self, uid: Uid, term: u64, node: usize, life: u32) -> Check {
        let belief = self.groups[&uid].believers.get(&node);
        let old = belief.is_some_and(|it| it.life == life && it.term < term);
        if old && self.processes[node].up && self.processes[node].life == life {
            return self.learns_deposition(uid, node);
        }
        Ok(())
    }

    fn learns_deposition(&mut self, uid: Uid, node: usize) -> Check {
        let life = self.processes[node].life;
        let group = self.groups.get_mut(&uid).expect("it is a group");
        let known = match group.believers.get_mut(&node) {
            Some(belief) => {
                belief.over = true;
                belief.life == life
            }
            None => false,
        };
        let orphans = core::mem::take(&mut group.orphans);
        let (mine, others): (Vec<_>, Vec<_>) = orphans
            .into_iter()
            .partition(|(added, _)| added.at.node == node && added.at.life == life);
        group.orphans = others
            .into_iter()
            .filter(|(added, _)| self.processes[added.at.node].life == added.at.life)
            .collect();
        if known {
            self.summary.reach("group: expelled");
            let at = self.place(node, self.shard_of(uid));
            self.input(at, Input::Expel { uid })?;
        }
        let group = self.groups.get_mut(&uid).expect("it is a group");
        group.believers.remove(&node);
        for (added, survived) in mine {
            let decides = matches!(added.entry, Entry::Decide { .. });
            // What became of a decision is asked of the next leader; the rest is for it to end.
            let ok = decides && survived;
            self.summary.reach(match (decides, survived) {
                (true, true) => "group: a decision survived its leader",
                (true, false) => "group: a decision got lost",
                (false, _) => "group: an entry of a deposed leader",
            });
            self.entry_done(uid, &added, ok)?;
        }
        Ok(())
    }

    /// Adds an entry, at a node that believes to lead.
    fn add_entry(&mut self, at: Place, uid: Uid, entry: Entry, waits: Waits) {
        let term = self.groups[&uid].believers[&at.node].term;
        let sure = self.surely_leads(at.node, uid);
        let added = Added { entry, at, waits };
        let group = self.groups.get_mut(&uid).expect("it is a group");
        if sure {
            group.pending.push_back(added);
            let takes = self.group_rng.range(MS / 20, 4 * self.plan.disk_ns);
            self.schedule(self.now + takes, Event::Complete { uid, term });
            let trouble = self.in_faults() && !self.plan.caps.lacks(FaultKind::Depose);
            if trouble && self.group_rng.chance(self.suspicious) {
                let at = self.now + self.group_rng.range(0, 2 * takes);
                self.schedule(at, Event::Suspect { uid, term });
            }
        } else {
            // Nobody takes it from a leader of an older term.
            group.orphans.push((added, false));
        }
    }

    /// All copies have the first entry that was not complete.
    pub(crate) fn complete(&mut self, uid: Uid, term: u64) -> Check {
        let group = self.groups.get_mut(&uid).expect("it is a group");
        if group.term != term {
            return Ok(());
        }
        let Some(added) = group.pending.pop_front() else {
            return Ok(());
        };
        self.apply_entry(uid, added.entry.clone())?;
        if self.lives(added.at) {
            self.entry_done(uid, &added, true)?;
        }
        Ok(())
    }

    /// An entry is complete: what it says is so.
    fn apply_entry(&mut self, uid: Uid, entry: Entry) -> Check {
        self.say(|| format!("complete in {uid}: {entry:?}"));
        let group = self.groups.get_mut(&uid).expect("it is a group");
        let shown = &mut group.shown;
        match entry {
            Entry::Part {
                action,
                coordinator,
                state,
            } => {
                if let Some((other, ..)) = &shown.part
                    && *other != action
                {
                    return Err(format!("groups: {uid} has parts of {other} and {action}"));
                }
                shown.part = Some((action, coordinator, state));
            }
            Entry::End { action, commit } => {
                let mine = shown.part.as_ref().is_some_and(|(it, ..)| *it == action);
                if let Some((_, _, state)) = shown.part.take_if(|_| mine) {
                    if commit {
                        shown.write(state);
                    }
                    let decided = self.truth.roots[&action].decided;
                    if decided != commit {
                        return Err(format!(
                            "atomic: the part of {action} at {uid} ends as {commit}, decided: {decided}"
                        ));
                    }
                }
            }
            Entry::Decide {
                action,
                state,
                participants,
                groups,
            } => {
                let settled = participants.is_empty() && groups.is_empty();
                let decision = Decision {
                    participants,
                    groups,
                    settled,
                };
                if shown.decisions.insert(action, decision).is_some() {
                    return Err(format!("groups: {action} is decided twice"));
                }
                if let Some(state) = state {
                    shown.write(state);
                }
                self.learn(vec![Fact::Decided(action)])?;
            }
            Entry::Settle { action } => {
                if let Some(decision) = shown.decisions.get_mut(&action) {
                    decision.settled = true;
                    let at = self.now + self.group_rng.range(MS, 100 * MS);
                    self.schedule(at, Event::Forget { uid, action });
                }
            }
        }
        Ok(())
    }

    /// A settled decision has stayed for long enough: whoever ran the action knows.
    pub(crate) fn forget_decision(&mut self, uid: Uid, action: Uid) {
        let over =
            |run: &super::run::Run| run.root != action || run.stage == super::run::Stage::Done;
        if !self.runs.iter().filter(|run| !run.is_branch).all(over) {
            let at = self.now + 100 * MS;
            return self.schedule(at, Event::Forget { uid, action });
        }
        self.truth.root(action).forgotten = true;
        let group = self.groups.get_mut(&uid).expect("it is a group");
        group.shown.decisions.remove(&action);
    }

    /// Whoever waits for an entry is told.
    fn entry_done(&mut self, uid: Uid, added: &Added, ok: bool) -> Check {
        let result = if ok { Ok(()) } else { Err(Fault::Store) };
        match added.waits {
            Waits::Step(job) => self.step_done(added.at, job, result, false),
            Waits::Ended(action) => self.input(
                added.at,
                Input::PartEnded {
                    object: uid,
                    action,
                    result,
                },
            ),
        }
    }

    /// The engine wants the end of a part added.
    pub(crate) fn end_part(&mut self, at: Place, uid: Uid, action: Uid, commit: bool) {
        if self.groups.contains_key(&uid) && self.believes(at.node, uid) {
            let entry = Entry::End { action, commit };
            self.add_entry(at, uid, entry, Waits::Ended(action));
        } else {
            self.schedule(self.now + MS / 10, Event::NotEnded { at, uid, action });
        }
    }

    /// A batch about replicated objects, perhaps besides others. Says whether it is one.
    pub(crate) fn store_in_logs(
        &mut self,
        at: Place,
        job: Work,
        batch: &ActionBatch,
    ) -> Result<bool, String> {
        let steps = match batch {
            ActionBatch::Prepare {
                action,
                coordinator,
                objects,
            } if objects.iter().any(|it| it.replicated) => {
                let (parts, states) = self.split(at, *action, objects)?;
                let local = (!states.is_empty()).then(|| What::Prepare {
                    action: *action,
                    coordinator: *coordinator,
                    states,
                });
                let steps = Steps::new(*action, local, None, Vec::new());
                self.begin_steps(at, job, steps, parts, *coordinator)?;
                return Ok(true);
            }
            ActionBatch::Decide {
                action,
                decider,
                objects,
                participants,
                groups,
            } if decider.is_some() || objects.iter().any(|it| it.replicated) => {
                let (mut parts, states) = self.split(at, *action, objects)?;
                let mut own = None;
                parts.retain(|state| {
                    let is = Some(state.uid) == *decider;
                    if is {
                        own = Some(state.clone());
                    }
                    !is
                });
                let ends = parts.iter().map(|state| (state.uid, true)).collect();
                let (mut local, mut decision) = (None, None);
                match decider {
                    Some(uid) => {
                        if !states.is_empty() {
                            return Err(format!("groups: {action} decides {states:?} in {uid}"));
                        }
                        let entry = Entry::Decide {
                            action: *action,
                            state: own,
                            participants: participants.clone(),
                            groups: groups.clone(),
                        };
                        decision = Some((*uid, entry));
                    }
                    None => {
                        local = Some(What::Decide {
                            action: *action,
                            states,
                            participants: participants.clone(),
                            groups: groups.clone(),
                        });
                    }
                }
                let site = self.site_at(at);
                let coordinator = Coordinator {
                    site,
                    decider: *decider,
                };
                let steps = Steps::new(*action, local, decision, ends);
                self.begin_steps(at, job, steps, parts, coordinator)?;
                return Ok(true);
            }
            ActionBatch::Install { action, groups } if !groups.is_empty() => {
                let key = (*action, at.shard);
                let plain = self.nodes[at.node].disk.prepared.contains_key(&key);
                let local = plain.then_some(What::Install { action: *action });
                let ends = groups.iter().map(|uid| (*uid, true)).collect();
                Steps::new(*action, local, None, ends)
            }
            ActionBatch::Install { action, .. } => {
                let key = (*action, at.shard);
                let plain = self.nodes[at.node].disk.prepared.contains_key(&key);
                if plain {
                    return Ok(false);
                }
                // All that it had prepared is led elsewhere by now.
                Steps::new(*action, None, None, Vec::new())
            }
            ActionBatch::Undo { action, groups } if !groups.is_empty() => {
                let ends = groups.iter().map(|uid| (*uid, false)).collect();
                let mut steps = Steps::new(*action, None, None, ends);
                steps.local = Some(What::Undo { action: *action });
                // The end is added at once: whatever comes next must find it before it.
                steps.stage = Stage::Ends;
                self.begin_undo(at, job, steps)?;
                return Ok(true);
            }
            ActionBatch::Settle {
                action,
                decider: Some(uid),
            } => {
                if self.believes(at.node, *uid) {
                    let mut steps = Steps::new(*action, None, None, Vec::new());
                    (steps.open, steps.stage) = (1, Stage::Ends);
                    self.nodes[at.node].shards[at.shard]
                        .steps
                        .insert(job, steps);
                    let entry = Entry::Settle { action: *action };
                    self.add_entry(at, *uid, entry, Waits::Step(job));
                    return Ok(true);
                }
                Steps::new(*action, None, None, Vec::new())
            }
            _ => return Ok(false),
        };
        let coordinator = Coordinator::default();
        self.begin_steps(at, job, steps, Vec::new(), coordinator)?;
        Ok(true)
    }

    /// What is replicated, and what is not.
    fn split(
        &self,
        at: Place,
        action: Uid,
        objects: &[Written],
    ) -> Result<(Vec<State>, Vec<State>), String> {
        let images = &self.nodes[at.node].shards[at.shard].images;
        let (mut parts, mut states) = (Vec::new(), Vec::new());
        for Written {
            uid,
            create,
            replicated,
        } in objects
        {
            let (list, rows, epoch) = images.written(*uid, action)?;
            let state = State {
                uid: *uid,
                list,
                rows,
                epoch,
                create: *create,
            };
            if *replicated {
                parts.push(state);
            } else {
                states.push(state);
            }
        }
        Ok((parts, states))
    }

    fn begin_steps(
        &mut self,
        at: Place,
        job: Work,
        mut steps: Steps,
        parts: Vec<State>,
        coordinator: Coordinator,
    ) -> Check {
        let action = steps.action;
        if parts.iter().any(|part| !self.believes(at.node, part.uid)) {
            return Err(format!(
                "groups: {action} has parts of what is not led here"
            ));
        }
        steps.open = parts.len();
        let none = parts.is_empty();
        self.nodes[at.node].shards[at.shard]
            .steps
            .insert(job, steps);
        for state in parts {
            let uid = state.uid;
            let entry = Entry::Part {
                action,
                coordinator,
                state,
            };
            self.add_entry(at, uid, entry, Waits::Step(job));
        }
        if none {
            self.next_step(at, job)
        } else {
            Ok(())
        }
    }

    fn begin_undo(&mut self, at: Place, job: Work, mut steps: Steps) -> Check {
        let action = steps.action;
        let local = steps.local.take().expect("there may be shadows");
        let ends = core::mem::take(&mut steps.ends);
        let led = ends.into_iter().map(|(uid, _)| uid);
        let led: Vec<Uid> = led.filter(|uid| self.believes(at.node, *uid)).collect();
        steps.open = 1 + led.len();
        self.nodes[at.node].shards[at.shard]
            .steps
            .insert(job, steps);
        for uid in led {
            let commit = false;
            self.add_entry(at, uid, Entry::End { action, commit }, Waits::Step(job));
        }
        self.submit(at, For::Step(job), local);
        Ok(())
    }

    /// One answer to a piece of work.
    pub(crate) fn step_done(
        &mut self,
        at: Place,
        job: Work,
        result: Result<(), Fault>,
        local: bool,
    ) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let steps = shard.steps.get_mut(&job);
        let steps = steps.ok_or_else(|| format!("groups: {job:?} is not under way"))?;
        // An end that its leader could not add is the next leader's.
        if local || steps.stage != Stage::Ends {
            steps.failed = steps.failed.or(result.err());
        }
        steps.open -= 1;
        if steps.open == 0 {
            return self.next_step(at, job);
        }
        Ok(())
    }

    fn next_step(&mut self, at: Place, job: Work) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let steps = shard.steps.get_mut(&job).expect("it is under way");
        let action = steps.action;
        if let Some(fault) = steps.failed {
            shard.steps.remove(&job);
            let result = Err(fault);
            return self.input(at, Input::Stored { job, result });
        }
        match steps.stage {
            Stage::Parts => {
                steps.stage = Stage::Point;
                let (local, decision) = (steps.local.take(), steps.decision.take());
                if let Some(what) = local {
                    steps.open = 1;
                    self.submit(at, For::Step(job), what);
                    return Ok(());
                }
                if let Some((uid, entry)) = decision {
                    steps.open = 1;
                    if self.believes(at.node, uid) {
                        self.add_entry(at, uid, entry, Waits::Step(job));
                        return Ok(());
                    }
                    return self.step_done(at, job, Err(Fault::Store), false);
                }
                self.next_step(at, job)
            }
            Stage::Point => {
                steps.stage = Stage::Ends;
                let ends = core::mem::take(&mut steps.ends);
                let led = ends.into_iter();
                let led: Vec<(Uid, bool)> = led
                    .filter(|(uid, _)| self.believes(at.node, *uid))
                    .collect();
                let none = led.is_empty();
                let shard = &mut self.nodes[at.node].shards[at.shard];
                shard.steps.get_mut(&job).expect("it is there").open = led.len();
                for (uid, commit) in led {
                    self.add_entry(at, uid, Entry::End { action, commit }, Waits::Step(job));
                }
                if none {
                    self.next_step(at, job)
                } else {
                    Ok(())
                }
            }
            Stage::Ends => {
                shard.steps.remove(&job);
                self.input(
                    at,
                    Input::Stored {
                        job,
                        result: Ok(()),
                    },
                )
            }
        }
    }

    /// What whoever believes to lead says about a decision in an object's log.
    pub(crate) fn decision_in_log(&self, at: Place, uid: Uid, action: Uid) -> Option<bool> {
        if self.surely_leads(at.node, uid) {
            let shown = &self.groups[&uid].shown;
            return Some(shown.decisions.contains_key(&action));
        }
        if self.job.mutation == Mutation::AnswerUnled {
            let belief = self.groups[&uid].believers.get(&at.node);
            let stale = belief.and_then(|it| it.stale.as_ref());
            return Some(stale.is_some_and(|it| it.decisions.contains_key(&action)));
        }
        None
    }

    /// A node dies: what it leads is led by another soon.
    pub(crate) fn leaders_die(&mut self, node: usize) {
        let mut suspicions = Vec::new();
        for (uid, group) in &self.groups {
            if group.leader == node {
                let at = self.now + self.group_rng.range(MS, 40 * MS);
                let (uid, term) = (*uid, group.term);
                suspicions.push((at, Event::Suspect { uid, term }));
            }
        }
        for (at, event) in suspicions {
            self.schedule(at, event);
        }
    }

    /// In the end nothing is left of any action.
    pub(crate) fn check_groups(&self, forgetful: bool) -> Check {
        for (uid, group) in &self.groups {
            if let Some((action, ..)) = &group.shown.part {
                return Err(format!("rest: {uid} has a part of {action} for ever"));
            }
            let open = group.shown.decisions.iter().find(|(_, it)| !it.settled);
            if let Some((action, decision)) = open.filter(|_| !forgetful) {
                return Err(format!(
                    "rest: {action} in {uid} is not settled: {decision:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Group {
    /// Whether there is something of an action in its log.
    fn is_busy(&self) -> bool {
        let open = self.shown.decisions.values().any(|it| !it.settled);
        !self.pending.is_empty() || self.shown.part.is_some() || open
    }
}

impl Shown {
    /// What leaves memory is in the log.
    pub(crate) fn has(&self, uid: Uid, image: &Vec<OpNo>) -> Check {
        let part = self.part.as_ref().map(|(_, _, state)| &state.list);
        if *image == self.list || part == Some(image) {
            return Ok(());
        }
        Err(format!(
            "durable: {uid} loses {image:?}, its log shows {:?}",
            self.list
        ))
    }

    fn write(&mut self, state: State) {
        self.rows.extend(state.rows);
        self.list = state.list;
    }
}

impl Steps {
    fn new(
        action: Uid,
        local: Option<What>,
        decision: Option<(Uid, Entry)>,
        ends: Vec<(Uid, bool)>,
    ) -> Self {
        Self {
            action,
            open: 0,
            failed: None,
            stage: Stage::Parts,
            local,
            decision,
            ends,
        }
    }
}
