//! Lines of stories with several nodes: leaders of replicated objects, and the logs that they add
//! to.
//!
//! `n2: …` happens at node 2, an engine of its own. What a node sends has a number, `(m1)`; it
//! gets lost unless a line says that it is heard, at whichever node. The logs are kept beside the
//! nodes: an entry is complete when its node is told so, or where a line says that it is.
//!
//! | line | meaning |
//! |---|---|
//! | `n4: hear m1` | a message of another node |
//! | `n2: goes-out t1 a3 leader=o2` | the servant of t1 is about to call, in a3; `none` is no action |
//! | `n2: checkpointed j1 ok`, `… Store` | answer to a checkpoint |
//! | `n2: part-ended o1 a1 ok` | answer to `EndPart` |
//! | `n2: complete j1` | the log has this entry; the node does not hear of it |
//! | `n2: leads o1` | it gets what is complete in the object's log |
//! | `n2: expel o1` | it hears that another leads |
//! | `n2: crash` | it dies; its next life is a new engine |
//! | `log o1` | what is complete, but for the object's state |
//!
//! The number of a part is `p1`, `p2` … in the order in which they come up.

use std::collections::{BTreeMap, BTreeSet};

use partha_core::action::message::{From, Message};
use partha_core::action::path::{Address, Coordinator, Joined, Participant, Site};
use partha_core::engine::Engine;
use partha_core::id::{CallId, Incarnation, Peer, Uid};
use partha_core::migrate::{Checkpoint, CheckpointPart};
use partha_core::{ActionBatch, Answer, Fault, Input, Job, Outbox, Output, Ticket};

use super::show::{self, name, object};
use super::{Story, actions, moves, parse, ticket, uid};

/// What all nodes of a story have together.
#[derive(Default)]
pub(super) struct World {
    /// All but the one at which the line happens.
    others: BTreeMap<u64, (Engine, u32)>,
    /// Whether there are any.
    pub(super) several: bool,
    mails: Vec<(Peer, Message)>,
    logs: BTreeMap<Uid, Log>,
    /// Entries that are not complete.
    added: BTreeMap<(u64, Job), Vec<(Uid, Entry)>>,
    calls: BTreeMap<(u64, Ticket), CallId>,
    /// Numbers of parts.
    joins: Vec<u64>,
}

/// What is complete of an object.
#[derive(Default)]
struct Log {
    kept: Option<Checkpoint>,
    saved: BTreeSet<CallId>,
    part: Option<(Uid, Coordinator)>,
    decisions: BTreeMap<Uid, (Vec<Site>, Vec<Uid>)>,
}

enum Entry {
    Checkpoint(Checkpoint, Vec<CallId>),
    Part(Uid, Coordinator),
    End(Uid),
    Decide(Uid, Vec<Site>, Vec<Uid>),
    Settle(Uid),
}

impl Log {
    fn add(&mut self, entry: Entry) {
        if let (Entry::Part(action, _) | Entry::Decide(action, ..), Some(kept)) =
            (&entry, &mut self.kept)
        {
            kept.settle(*action);
        }
        match entry {
            Entry::Checkpoint(checkpoint, calls) => {
                self.kept = Some(checkpoint);
                self.saved.extend(calls);
            }
            Entry::Part(action, coordinator) => self.part = Some((action, coordinator)),
            Entry::End(action) => {
                self.part.take_if(|part| part.0 == action);
            }
            Entry::Decide(action, sites, groups) => {
                self.decisions.insert(action, (sites, groups));
            }
            Entry::Settle(action) => {
                self.decisions.remove(&action);
            }
        }
    }
}

impl Story {
    /// What follows happens at this node.
    pub(super) fn visit(&mut self, node: u64) {
        if node == self.node {
            return;
        }
        self.world.several = true;
        let next = self.world.others.remove(&node);
        let next = next.unwrap_or_else(|| (Engine::new(self.limits, super::at(node, 1)), 1));
        let (engine, life) = next;
        let before = std::mem::replace(&mut self.engine, engine);
        let before = (before, std::mem::replace(&mut self.life, life));
        self.world.others.insert(self.node, before);
        self.node = node;
    }

    /// Notes what a line asks, where the answer needs it.
    pub(super) fn note_input(&mut self, input: &Input) {
        if let Input::Invoke(invoke) = input
            && let Some(call) = invoke.call
        {
            self.world.calls.insert((self.node, invoke.ticket), call);
        }
    }

    /// Notes what the engine says, and shows it.
    pub(super) fn told(&mut self, output: Output) -> String {
        if !self.world.several {
            return show::output(output);
        }
        self.note_output(&output);
        let sent = match &output {
            Output::Send { message, .. } => {
                let from = super::at(self.node, self.life).me;
                self.world.mails.push((from, (**message).clone()));
                format!(" (m{})", self.world.mails.len())
            }
            _ => String::new(),
        };
        self.named(show::output(output) + &sent)
    }

    /// Gives the numbers of parts their names.
    fn named(&mut self, mut text: String) -> String {
        while let Some(at) = text.find(JOIN) {
            let digits = text[at + JOIN.len()..].chars();
            let digits: String = digits.take_while(char::is_ascii_digit).collect();
            let join: u64 = parse(&digits);
            let joins = &mut self.world.joins;
            let number = joins.iter().position(|known| *known == join);
            let number = number.unwrap_or_else(|| {
                joins.push(join);
                joins.len() - 1
            });
            let to = format!("p{}", number + 1);
            text.replace_range(at..at + JOIN.len() + digits.len(), &to);
        }
        text
    }

    /// What this node has added and was not told of is lost, unless a line has said otherwise.
    pub(super) fn forget_added(&mut self) {
        let node = self.node;
        self.world.added.retain(|(at, _), _| *at != node);
    }

    fn note_output(&mut self, output: &Output) {
        match output {
            Output::Checkpoint {
                job,
                object,
                checkpoint,
                replies,
            } => {
                let calls = replies.iter();
                let calls = calls.map(|ticket| self.world.calls[&(self.node, *ticket)]);
                let entry = Entry::Checkpoint((**checkpoint).clone(), calls.collect());
                self.add(*job, *object, entry);
            }
            Output::Store { job, batch } => self.note_batch(*job, batch),
            Output::Reply {
                answer: Answer::Saved(call),
                ..
            } => {
                let mut logs = self.world.logs.values();
                let known = logs.any(|log| log.saved.contains(call));
                assert!(known, "no log has the answer of {}", show::call(*call));
            }
            _ => {}
        }
    }

    fn note_batch(&mut self, job: Job, batch: &ActionBatch) {
        match batch {
            ActionBatch::Prepare {
                action,
                coordinator,
                objects,
            } => {
                for written in objects.iter().filter(|it| it.replicated) {
                    self.add(job, written.uid, Entry::Part(*action, *coordinator));
                }
            }
            ActionBatch::Decide {
                action,
                decider: Some(decider),
                participants,
                groups,
                ..
            } => {
                let entry = Entry::Decide(*action, participants.clone(), groups.clone());
                self.add(job, *decider, entry);
            }
            ActionBatch::Install { action, groups } | ActionBatch::Undo { action, groups } => {
                for group in groups {
                    self.add(job, *group, Entry::End(*action));
                }
            }
            ActionBatch::Settle {
                action,
                decider: Some(decider),
            } => self.add(job, *decider, Entry::Settle(*action)),
            ActionBatch::Decide { .. }
            | ActionBatch::Settle { .. }
            | ActionBatch::Depart { .. } => {}
        }
    }

    fn add(&mut self, job: Job, object: Uid, entry: Entry) {
        let key = (self.node, job);
        let added = self.world.added.entry(key).or_default();
        added.push((object, entry));
    }

    /// What a node has added is complete, or lost.
    pub(super) fn complete(&mut self, job: Job, result: Result<(), Fault>) {
        let added = self.world.added.remove(&(self.node, job));
        for (object, entry) in added.into_iter().flatten().filter(|_| result.is_ok()) {
            self.world.logs.entry(object).or_default().add(entry);
        }
    }

    /// A line that is no input.
    pub(super) fn cohort_line(&mut self, words: &[&str], out: &mut Outbox) -> Option<Vec<String>> {
        match words[0] {
            "complete" => self.complete(actions::job(words[1]), Ok(())),
            "leads" => self.leads(uid(words[1]), out),
            "log" => return Some(self.shown(uid(words[1]))),
            _ => return None,
        }
        Some(Vec::new())
    }

    /// A node gets what a log has.
    fn leads(&mut self, object: Uid, out: &mut Outbox) {
        let log = self.world.logs.entry(object).or_default();
        let mut inputs = Vec::new();
        for (action, (participants, groups)) in &log.decisions {
            inputs.push(Input::RecoverDecision {
                action: *action,
                participants: participants.clone(),
                groups: groups.clone(),
                decider: Some(object),
            });
        }
        if let Some((action, coordinator)) = log.part {
            inputs.push(Input::RecoverPart {
                object,
                action,
                coordinator,
            });
        }
        if let Some(checkpoint) = log.kept.clone().map(Box::new) {
            inputs.push(Input::RecoverCheckpoint { object, checkpoint });
        }
        for input in inputs {
            self.engine.handle(self.now, input, out);
        }
    }

    fn shown(&mut self, object: Uid) -> Vec<String> {
        let log = self.world.logs.entry(object).or_default();
        let kept = log.kept.iter();
        let kept = kept.map(|kept| format!("checkpoint{}", checkpoint(kept)));
        let part = log.part.iter();
        let part = part.map(|(action, coordinator)| {
            let decider = coordinator.decider.map_or(String::new(), |decider| {
                format!(", {} decides", self::object(decider))
            });
            format!("part of {}{decider}", name(*action))
        });
        let decisions = log.decisions.keys();
        let decisions = decisions.map(|action| format!("{} is committed", name(*action)));
        let lines: Vec<String> = kept.chain(part).chain(decisions).collect();
        lines.into_iter().map(|line| self.named(line)).collect()
    }

    /// An input that only such stories have, or one whose words are others there.
    pub(super) fn cohort_input(&mut self, words: &[&str]) -> Option<Input> {
        let result = |word: &str| match word {
            "ok" => Ok(()),
            fault => Err(super::fault(fault)),
        };
        Some(match words[0] {
            "hear" if words[1].starts_with('m') => {
                let number: usize = parse(&words[1][1..]);
                let (peer, message) = self.world.mails[number - 1].clone();
                let from = From { peer, shard: 0 };
                let message = Box::new(message);
                Input::Message { from, message }
            }
            "goes-out" => Input::GoesOut {
                ticket: ticket(words[1]),
                level: (words[2] != "none").then(|| actions::name(words[2])),
                to: address(words[3]),
            },
            "checkpointed" => {
                let (job, result) = (actions::job(words[1]), result(words[2]));
                self.complete(job, result);
                Input::Checkpointed { job, result }
            }
            "part-ended" => {
                let (object, action) = (uid(words[1]), actions::name(words[2]));
                let result = result(words[3]);
                if result.is_ok() {
                    let log = self.world.logs.entry(object).or_default();
                    log.add(Entry::End(action));
                }
                Input::PartEnded {
                    object,
                    action,
                    result,
                }
            }
            "expel" => Input::Expel { uid: uid(words[1]) },
            _ => return None,
        })
    }

    /// The number of a part: `p1`; or of another mirror.
    pub(super) fn join(&self, word: &str) -> u64 {
        match word.strip_prefix('p') {
            Some(number) => self.world.joins[parse::<usize>(number) - 1],
            None => actions::join(self.life, word),
        }
    }

    /// `p2@o2`: the part p2 of o2.
    pub(super) fn part(&self, word: &str) -> Option<Participant> {
        let (number, object) = word.split_once('@')?;
        let joined = Joined {
            join: self.join(number),
            updated: true,
            decider: Some(uid(object)),
            part: true,
        };
        Some(Participant {
            site: Site::default(),
            incarnation: Incarnation(1),
            joined,
        })
    }
}

/// What numbers of parts are shown with before they have names.
const JOIN: &str = "part#";

/// A number that is the same at all leaders.
pub(super) fn join_of_part(join: u64) -> String {
    format!("{JOIN}{join}")
}

/// `leader=o2` or `site=4#0`.
pub(super) fn address(word: &str) -> Address {
    match word.split_once('=') {
        Some(("leader", object)) => Address::Leader(uid(object)),
        Some(("site", at)) => Address::Site(actions::site(at)),
        _ => panic!("'{word}' is no address"),
    }
}

fn shown_address(address: Address) -> String {
    match address {
        Address::Leader(uid) => format!("leader of {}", object(uid)),
        Address::Site(at) => show::site(at),
    }
}

/// An output about a leader that takes over.
pub(super) fn output(output: Output) -> String {
    let t = |Ticket(number): Ticket| format!("t{number}");
    match output {
        Output::Checkpoint {
            job,
            object: uid,
            checkpoint: it,
            replies,
        } => {
            let replies = replies.into_iter().map(|ticket| format!(" {}", t(ticket)));
            let replies: String = replies.collect();
            let saved = match replies.is_empty() {
                true => String::new(),
                false => format!("; answers of{replies}"),
            };
            let it = checkpoint(&it);
            format!("Checkpoint j{} {}{it}{saved}", job.0, object(uid))
        }
        Output::Resume { object: uid, slot } => {
            let image = slot.map_or("", |_| " with its image");
            format!("Resume {}{image}", object(uid))
        }
        Output::Watch { caller } => format!("Watch {}", show::peer(caller)),
        Output::Again { ticket, lost } => {
            format!("Again {} without {}", t(ticket), show::names(&lost))
        }
        Output::GoOut { ticket } => format!("GoOut {}", t(ticket)),
        other => format!("{other:?}"),
    }
}

fn checkpoint(it: &Checkpoint) -> String {
    let mut text = moves::shown(&it.cargo);
    for (action, part) in it.cargo.actions.iter().zip(&it.parts) {
        let action = action.root().map_or(String::new(), name);
        text += &part_of(&action, part);
    }
    for (action, end) in &it.ended {
        text += &format!("; {} has ended {end:?}", name(*action));
    }
    text
}

fn part_of(action: &str, part: &CheckpointPart) -> String {
    let mut text = format!("; {action} is {}", join_of_part(part.join));
    for (call, gone) in &part.gone {
        let level = gone
            .level
            .map_or(String::new(), |level| format!(" in {}", name(level)));
        let lost = match gone.lost.as_slice() {
            [] => String::new(),
            lost => format!(" without {}", show::names(lost)),
        };
        let never = if gone.never { " never again" } else { "" };
        text += &format!(", {} is out{level}{lost}{never}", show::call(*call));
    }
    for to in &part.reached {
        text += &format!(", reached {}", shown_address(*to));
    }
    for (nested, parent) in &part.merged {
        text += &format!(", {} is in {}", name(*nested), name(*parent));
    }
    if !part.lost.is_empty() {
        text += &format!(", lost {}", show::names(&part.lost));
    }
    if !part.aborted.is_empty() {
        let aborted: Vec<Uid> = part.aborted.clone();
        text += &format!(", aborted {}", show::names(&aborted));
    }
    text
}
