//! Replicated objects: a group each, abstract. How copies agree has a world of its own
//! (`crate::groups`); here a group is one log with one leader at a time.
//!
//! What the leader adds is complete after a while, in order, and then every copy has it. When
//! another leads, a random beginning of what was not complete survives. The old leader may go on
//! for a time without knowing: nothing it adds is complete, and it holds no promise any more.

use std::collections::{BTreeMap, VecDeque};

use partha_core::action::path::Site;
use partha_core::action::scope::Report;
use partha_core::engine::Mutation;
use partha_core::id::{Epoch, Uid};
use partha_core::{Fault, Input, Loaded, Refusal};

use super::log::{Added, Entry, Shown, Waits};
use super::net::{ConnNo, Request, Response};
use super::plan::MS;
use super::servant::size_of;
use super::world::{CallNo, Check, Event, Place, World};
use crate::options::FaultKind;

/// One replicated object.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) leader: usize,
    pub(crate) term: u64,
    /// Its policy is coordinator-cohort.
    pub(crate) cohort: bool,
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

impl World {
    /// Some objects are replicated: their state leaves the stores of nodes.
    pub(crate) fn make_groups(&mut self) {
        let mut objects = self.objects.clone();
        // Calls outside of actions are made of what is not replicated.
        objects.pop();
        // What is replicated does not move: most runs are about one of the two.
        let plans = match self.plan.move_ns {
            0 => [0, 600, 900, 900],
            _ => [0, 0, 0, 700],
        };
        let replicated = match self.plan.calm {
            true => 0,
            false => self.group_rng.pick(&plans),
        };
        self.suspicious = self.group_rng.pick(&[0, 100, 500]);
        let cohorts = self.group_rng.pick(&[0, 500, 1_000, 1_000]);
        self.crowded = self.group_rng.pick(&[0, 0, 50, 300]);
        let alone = self.group_rng.chance(300) && self.nodes.len() > 1 && !self.plan.calm;
        self.deaths = alone && !self.plan.caps.lacks(FaultKind::Depose);
        if self.deaths {
            self.deposals = self.group_rng.chance(400);
            self.plan.deaths_alone();
            (0..self.nodes.len()).for_each(|node| self.fill_shards(node));
        }
        let (replicated, cohorts) = match self.deaths {
            true if self.deposals => (600, 1_000),
            true => (1_000, 1_000),
            false => (replicated, cohorts),
        };
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
            let cohort = self.group_rng.chance(cohorts);
            self.groups.insert(
                uid,
                Group {
                    leader,
                    term: 1,
                    cohort,
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
            Event::NotCheckpointed {
                at,
                object,
                job,
                fault,
            } if self.lives(at) && self.believes(at.node, object) => {
                let result = Err(fault);
                self.input(at, Input::Checkpointed { job, result })
            }
            Event::Resend { call } => self.resend(call),
            Event::TellAgain {
                from,
                uid,
                term,
                pause,
                ref message,
            } => {
                self.tell_again(from, (uid, term, pause), message);
                Ok(())
            }
            Event::Watched { at, caller } if self.lives(at) => self.watched(at, caller),
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

    /// Whether a node may prepare or commit what an action has of an object.
    pub(crate) fn may_lead(&self, node: usize, uid: Uid) -> bool {
        let careless = self.job.mutation == Mutation::VoteUnled;
        self.groups.contains_key(&uid) && (careless || self.surely_leads(node, uid))
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
        let belief = Belief {
            term,
            life,
            stale: None,
            over: false,
        };
        let group = self.groups.get_mut(&uid).expect("it is a group");
        group.believers.insert(node, belief);
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
        self.recover_checkpoint(at, uid)
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
    pub(crate) fn add_entry(&mut self, at: Place, uid: Uid, entry: Entry, waits: Waits) {
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

    /// Whoever waits for an entry is told.
    fn entry_done(&mut self, uid: Uid, added: &Added, ok: bool) -> Check {
        let result = if ok { Ok(()) } else { Err(Fault::Store) };
        match added.waits {
            Waits::Step(job) => self.step_done(added.at, job, result, false),
            // Of one that is lost, the expulsion has told.
            Waits::Checkpoint(_) if !ok => Ok(()),
            Waits::Checkpoint(job) => self.input(added.at, Input::Checkpointed { job, result }),
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
            let kept = group.shown.kept.as_ref();
            let left = kept.and_then(|kept| kept.checkpoint.cargo.actions.first());
            if let Some(action) = left {
                return Err(format!(
                    "rest: {uid} has a checkpoint of {action:?} for ever"
                ));
            }
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
