//! Objects that move: what the shells of both ends do about it, and how callers follow.
//!
//! The way from source to target is one request and its answer, each of which may get lost; the
//! source waits for so long and no longer. What the request brings is written at the target in
//! one batch.

use std::collections::BTreeMap;

use partha_core::action::path::{Joined, Site};
use partha_core::id::{CallId, Incarnation, Uid};
use partha_core::migrate::{Cargo, NotShipped, Stays};
use partha_core::time::Time;
use partha_core::{Fault, Input, ObjectSlot, Output, Refusal};

use super::disk::{For, State, What};
use super::image::{Image, Rows};
use super::net::Life;
use super::plan::{MS, S};
use super::program::Doing;
use super::truth::{OpNo, Outcome};
use super::world::{CallNo, Check, Event, Place, World};
use crate::options::FaultKind;

/// The number of a move, unique in a run.
pub(crate) type MoveNo = usize;

/// What a target has answered.
pub(crate) type Shipped = Result<Vec<(Uid, Joined)>, NotShipped>;

/// What goes beside a cargo: the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freight {
    list: Vec<OpNo>,
    rows: Rows,
    replies: Vec<(CallId, Outcome)>,
    /// The present state with all that is kept to undo it.
    image: Option<Image>,
}

/// One move.
#[derive(Debug)]
pub(crate) struct Move {
    uid: Uid,
    action: Uid,
    from: Place,
    to: Place,
    cargo: Cargo,
    freight: Freight,
    /// The source waits no more for the target.
    answered: bool,
}

/// What happens between the two ends.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// The request is there.
    Request,
    /// The batch is on the disk of the target, or not.
    Written(Result<(), Fault>),
    /// The answer is there.
    Answer(Shipped),
    /// The source waits no longer.
    Silence,
}

impl World {
    /// Where an object is, as its own shard says; none while it is on its way.
    pub(crate) fn owner(&self, uid: Uid) -> Option<usize> {
        let has = |node: &usize| self.nodes[*node].disk.states.contains_key(&uid);
        (0..self.nodes.len()).find(has)
    }

    /// What is stored of an object, wherever it is, or is going to be by a move that is decided.
    pub(crate) fn stored_list(&self, uid: Uid) -> &[OpNo] {
        if let Some(node) = self.owner(uid) {
            return &self.nodes[node].disk.states[&uid];
        }
        let shadows = self.nodes.iter().find_map(|node| node.disk.shadow(uid));
        shadows.map_or(&[], Vec::as_slice)
    }

    /// The shard an object has at a node.
    fn place_at(&self, node: usize, uid: Uid) -> Place {
        self.place(node, self.shard_of(uid))
    }

    /// Some object moves.
    pub(crate) fn move_one(&mut self) -> Check {
        let ends = self.now >= self.plan.moves_until || self.plan.caps.lacks(FaultKind::Move);
        let over = self.tasks.iter().all(|task| task.doing == Doing::Done)
            && self.processes.iter().all(|process| process.todo == 0);
        if self.plan.move_ns == 0 || self.nodes.len() < 2 || ends || over {
            return Ok(());
        }
        let pause = self.rng.range(MS / 10, self.plan.move_ns);
        self.schedule(self.now + pause, Event::Move);
        let uid = self.pick_object();
        let Some(node) = self.owner(uid).filter(|node| self.processes[*node].up) else {
            return Ok(());
        };
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        let others: Vec<usize> = others.collect();
        let to = self.rng.pick(&others);
        let from = self.place_at(node, uid);
        let to_life = self.life(to);
        let action = self.new_action(self.life(node));
        let patience = self.rng.pick(&[2 * MS, 50 * MS, S, 5 * S]);
        let until = Time(self.local(node).0 + patience);
        let place = self.place_at(to, uid);
        let to = self.site_at(place);
        self.moves.push(Move {
            uid,
            action,
            from,
            to: place,
            cargo: Cargo::default(),
            freight: Freight::default(),
            answered: false,
        });
        self.say(|| format!("{uid} is to move to {to:?} by {action}"));
        let to_incarnation = Incarnation(to_life.life);
        self.input(
            from,
            Input::Depart {
                uid,
                action,
                to,
                to_incarnation,
                until,
            },
        )
    }

    fn find_move(&self, action: Uid) -> Result<MoveNo, String> {
        let found = self.moves.iter().rposition(|it| it.action == action);
        found.ok_or_else(|| format!("moves: nothing moves by {action}"))
    }

    /// About objects that move.
    pub(crate) fn moving(&mut self, at: Place, output: Output) -> Check {
        match output {
            Output::Ship { uid, action, cargo } => self.ship(at, uid, action, *cargo),
            Output::Stays { why, .. } => {
                self.summary.reach(match why {
                    Stays::Busy => "stays: busy",
                    Stays::InTheWay => "stays: in the way",
                    Stays::NotShipped(NotShipped::Silent) => "stays: the target is silent",
                    Stays::NotShipped(_) => "stays: the target refuses",
                    Stays::Store(_) => "stays: store",
                    Stays::Draining => "stays: draining",
                    Stays::Departing => "stays: it moves already",
                    Stays::Volatile | Stays::Here | Stays::Overloaded { .. } => "stays: else",
                });
                Ok(())
            }
            Output::Departed { uid, .. } => {
                let shard = &mut self.nodes[at.node].shards[at.shard];
                if shard.images.leave(uid) {
                    shard.activations.drop_image(uid)?;
                }
                Ok(())
            }
            Output::Arriving { action, result, .. } => match result {
                Ok(()) => self.stage(at, action),
                Err(refusal) => self.refuse_move(action, &refusal),
            },
            Output::Unloaded { action, result, .. } => match result {
                Ok(joined) => self.answer_move(self.find_move(action)?, Ok(joined)),
                Err(refusal) => self.refuse_move(action, &refusal),
            },
            Output::Arrived { uid, action, slot } => self.arrived(at, uid, action, slot),
            Output::NotArrived { action, .. } => {
                let shard = &mut self.nodes[at.node].shards[at.shard];
                shard.arriving.remove(&action);
                self.summary.reach("moves: it does not come");
                Ok(())
            }
            other => Err(format!("moves: {other:?} is about none")),
        }
    }

    /// The source sends all there is.
    fn ship(&mut self, at: Place, uid: Uid, action: Uid, cargo: Cargo) -> Check {
        let number = self.find_move(action)?;
        let node = &self.nodes[at.node];
        let Some(list) = node.disk.states.get(&uid).cloned() else {
            let result = Err(NotShipped::Absent);
            return self.told_shipped(number, result);
        };
        let replies = node.disk.replies.iter();
        let replies = replies.filter(|(_, outcome)| outcome.uid == uid);
        let image = node.shards[at.shard].images.get(uid);
        let freight = Freight {
            list,
            rows: node.disk.rows.get(&uid).cloned().unwrap_or_default(),
            replies: replies
                .map(|(call, outcome)| (*call, outcome.clone()))
                .collect(),
            image: image.filter(|_| cargo.has_images()).cloned(),
        };
        self.summary.reach(match cargo.actions.len() {
            0 => "moves: without actions",
            1 => "moves: with an action",
            _ => "moves: with several actions",
        });
        if cargo.levels().any(|level| level.parent.is_some()) {
            self.summary.reach("moves: with nested actions");
        }
        if cargo.has_images() {
            self.summary.reach("moves: with before-images");
        }
        (self.moves[number].cargo, self.moves[number].freight) = (cargo, freight);
        self.between(number, Stage::Request);
        let patience = self.rng.range(20 * MS, 2 * S);
        let stage = Stage::Silence;
        self.schedule(self.now + patience, Event::Moving { number, stage });
        Ok(())
    }

    /// Sends something between the two ends; it may get lost.
    fn between(&mut self, number: MoveNo, stage: Stage) {
        let it = &self.moves[number];
        let blocked = self.blocked(it.from.node, it.to.node);
        let trouble = self.in_faults();
        if trouble && self.rng.chance(self.plan.lost) {
            self.summary.reach("lost: of a move");
            return;
        }
        let delay = self.rng.range(10_000, 3 * MS);
        let at = blocked.max(self.now) + delay;
        self.schedule(at, Event::Moving { number, stage });
    }

    /// Something of a move happens at one of its ends.
    pub(crate) fn move_goes_on(&mut self, number: MoveNo, stage: Stage) -> Check {
        let it = &self.moves[number];
        let (uid, action, to) = (it.uid, it.action, it.to);
        match stage {
            Stage::Request if self.lives(to) => {
                let coordinator = self.site_at(it.from);
                self.input(
                    to,
                    Input::Arrive {
                        uid,
                        action,
                        coordinator,
                    },
                )
            }
            Stage::Written(Ok(())) if self.lives(to) => {
                let shard = &self.nodes[to.node].shards[to.shard];
                if !shard.arriving.contains(&action) {
                    return Ok(());
                }
                let cargo = Box::new(self.cargo_at(number));
                self.input(to, Input::Unload { uid, action, cargo })
            }
            Stage::Written(Err(_)) if self.lives(to) => {
                self.answer_move(number, Err(NotShipped::Refused))
            }
            Stage::Request | Stage::Written(_) => Ok(()),
            Stage::Answer(result) => self.told_shipped(number, result),
            Stage::Silence => self.told_shipped(number, Err(NotShipped::Silent)),
        }
    }

    /// The process at which something of a move happens.
    pub(crate) fn move_concerns(&self, number: MoveNo, stage: &Stage) -> usize {
        let it = &self.moves[number];
        match stage {
            Stage::Request | Stage::Written(_) => it.to.node,
            Stage::Answer(_) | Stage::Silence => it.from.node,
        }
    }

    fn told_shipped(&mut self, number: MoveNo, result: Shipped) -> Check {
        let it = &mut self.moves[number];
        let (uid, action, from) = (it.uid, it.action, it.from);
        if core::mem::replace(&mut it.answered, true) || !self.lives(from) {
            return Ok(());
        }
        self.input(
            from,
            Input::Shipped {
                uid,
                action,
                result,
            },
        )
    }

    /// The cargo as the target reads it off the wire.
    fn cargo_at(&self, number: MoveNo) -> Cargo {
        let it = &self.moves[number];
        let (from, to) = (&self.processes[it.from.node], it.to.node);
        let mut cargo = it.cargo.clone();
        for action in &mut cargo.actions {
            let left = from.clock.when(action.until.0).saturating_sub(self.now);
            action.until = Time(self.local(to).0.saturating_add(left));
        }
        cargo
    }

    fn refuse_move(&mut self, action: Uid, refusal: &Refusal) -> Check {
        self.summary.reach(match refusal {
            Refusal::Malformed { what } => {
                return Err(format!("moves: the cargo of {action} is malformed: {what}"));
            }
            Refusal::ActionAborted { .. } => "moves: refused, an action has ended",
            _ => "moves: refused, else",
        });
        let number = self.find_move(action)?;
        self.answer_move(number, Err(NotShipped::Refused))
    }

    fn answer_move(&mut self, number: MoveNo, result: Shipped) -> Check {
        self.between(number, Stage::Answer(result));
        Ok(())
    }

    /// The target writes what came.
    fn stage(&mut self, at: Place, action: Uid) -> Check {
        let number = self.find_move(action)?;
        let it = &self.moves[number];
        let coordinator = self.site_at(it.from);
        let state = State {
            uid: it.uid,
            list: it.freight.list.clone(),
            rows: it.freight.rows.clone(),
            epoch: 0,
            create: false,
        };
        let replies = it.freight.replies.clone();
        let shard = &mut self.nodes[at.node].shards[at.shard];
        shard.arriving.insert(action);
        let what = What::Stage {
            action,
            coordinator,
            state,
            replies,
        };
        self.submit(at, For::Move(number), what);
        Ok(())
    }

    /// The object has come: its image is made of what came with it.
    fn arrived(&mut self, at: Place, uid: Uid, action: Uid, slot: Option<ObjectSlot>) -> Check {
        self.summary.count("moves");
        let number = self.find_move(action)?;
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[at.shard];
        if !shard.arriving.remove(&action) {
            return Err(format!("moves: {uid} comes by {action} unexpectedly"));
        }
        let Some(slot) = slot else {
            return Ok(());
        };
        let image = self.moves[number].freight.image.clone();
        let image = image.ok_or_else(|| format!("moves: {uid} comes without its image"))?;
        let epoch = node.disk.activate(uid);
        shard.images.come(uid, image, epoch);
        shard.activations.come(uid, slot)
    }

    /// A move was decided, or is installed: the object is nowhere else.
    pub(crate) fn check_owner(&self, uid: Uid) -> Check {
        let has = |node: &usize| self.nodes[*node].disk.states.contains_key(&uid);
        let owners: Vec<usize> = (0..self.nodes.len()).filter(has).collect();
        if owners.len() > 1 {
            return Err(format!("moves: {uid} is at {owners:?}"));
        }
        Ok(())
    }

    /// In the end each object that there was in the beginning is at one node.
    pub(crate) fn check_owners(&self) -> Check {
        for uid in &self.objects {
            self.check_owner(*uid)?;
            let replicated = self.groups.contains_key(uid);
            if !replicated && uid.incarnation() == Incarnation(0) && self.owner(*uid).is_none() {
                return Err(format!("moves: {uid} is nowhere"));
            }
        }
        Ok(())
    }

    /// Where a process believes an object to be.
    pub(crate) fn known_site(&mut self, process: usize, uid: Uid) -> Site {
        let known = self.known.get(&(process, uid)).copied();
        let stale = self.rng.chance(250);
        known
            .filter(|_| !stale)
            .unwrap_or_else(|| self.site_of(uid))
    }

    /// A call was answered that its object has moved, from a node that says where to: it is made
    /// there, under the same id. Whether it goes on.
    pub(crate) fn follow(&mut self, call: CallNo, from: Site, to: Site) -> Result<bool, String> {
        let it = &mut self.calls[call];
        it.copies -= 1;
        let (op, caller) = (it.op, it.caller);
        if it.to != from {
            // A copy of it has told already.
            return Ok(true);
        }
        let uid = self.truth.ops[op].uid;
        self.known.insert((caller.process, uid), to);
        it.hops += 1;
        if it.hops > HOPS_MAX {
            return match self.plan.calm {
                true => Err(format!("moves: op {op} follows {uid} for ever")),
                false => Ok(false),
            };
        }
        it.to = to;
        self.summary.reach("moves: a call follows");
        if !self.finds_leader(call) {
            return Ok(false);
        }
        self.reach_out(call)?;
        Ok(self.send_call(call) || self.resend_soon(call))
    }

    /// Something other than a move has befallen an action.
    pub(crate) fn misfortune(&mut self, call: CallNo) {
        let level = self.truth.ops[self.calls[call].op].level;
        if let Some(level) = level {
            let root = self.truth.root_of(level);
            self.truth.root(root).misfortune = true;
        }
    }

    /// Other actions have been in the way of one, as a refusal says.
    pub(crate) fn rivals(&mut self, call: CallNo, refusal: &Refusal) {
        if !Self::is_rivalry(refusal) {
            return;
        }
        let victim = match refusal {
            Refusal::Deadlock { victim, .. } => Some(*victim),
            _ => None,
        };
        // Whoever encloses it has waited for it.
        let wire = self.calls[call].wire.as_ref();
        let path = wire.map(|wire| wire.path.whole().to_vec());
        for level in path.into_iter().flatten().chain(victim) {
            if self.truth.levels.contains_key(&level) {
                let root = self.truth.root_of(level);
                self.truth.root(root).rivals = true;
            }
        }
    }

    /// An action was not committed although whoever runs it wanted it to be: not because of a
    /// move. Looked at where nothing else goes wrong.
    pub(crate) fn check_moved_in_peace(&self, root: Uid, end: &dyn core::fmt::Debug) -> Check {
        if self.plan.calm && !self.truth.roots[&root].misfortune {
            return Err(format!(
                "moves: {root} ends as {end:?}, but nothing has happened to it"
            ));
        }
        Ok(())
    }

    /// What a call was refused with in peace, of an object that there is.
    pub(crate) fn check_refusal(&self, call: CallNo, refusal: &Refusal) -> Check {
        let record = &self.truth.ops[self.calls[call].op];
        let original = record.uid.incarnation() == Incarnation(0);
        let lost = original && *refusal == Refusal::NoSuchObject;
        let twice = self.plan.calm && *refusal == Refusal::Repeated;
        if lost || twice {
            return Err(format!("moves: {refusal:?} for {record:?}"));
        }
        Ok(())
    }

    /// A process is gone, with what it knew.
    pub(crate) fn forget_known(&mut self, of: Life) {
        let known = core::mem::take(&mut self.known);
        let others = known.into_iter();
        let others = others.filter(|((process, _), _)| *process != of.process);
        self.known = others.collect::<BTreeMap<_, _>>();
    }
}

/// More than any object moves while a call follows it.
const HOPS_MAX: u32 = 200;
