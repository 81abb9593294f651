//! Outputs as a story writes them: `t1` for a ticket, `o1` for an object, `1.2` for a caller.

use partha_core::action::message::{Message, To};
use partha_core::action::path::{Path, Site};
use partha_core::engine::{ActionView, LockView};
use partha_core::id::{CallId, Peer, Uid};
use partha_core::{
    Abort, ActionBatch, Answer, End, Event, Output, Refusal, Stats, Ticket, Written,
};

fn ticket(Ticket(number): Ticket) -> String {
    format!("t{number}")
}

pub(crate) fn object(uid: Uid) -> String {
    format!("o{}", uid.local)
}

pub(crate) fn peer(peer: Peer) -> String {
    format!("{}.{}", peer.node.0, peer.incarnation)
}

pub(crate) fn call(call: CallId) -> String {
    format!("{}/{}", peer(call.caller), call.sequence)
}

/// One output in one line.
pub(crate) fn output(output: Output) -> String {
    match output {
        Output::Search { ticket: t, call: c } => format!("Search {} {}", ticket(t), call(c)),
        Output::Load { uid, .. } => format!("Load {}", object(uid)),
        Output::Dispatch {
            ticket: t,
            uid,
            mode,
            new,
            action,
            ..
        } => {
            let new = if new { " new" } else { "" };
            let action = action.map_or(String::new(), |action| format!(" in {}", name(action)));
            format!(
                "Dispatch {} {} {mode:?}{new}{action}",
                ticket(t),
                object(uid)
            )
        }
        Output::Kill { ticket: t } => format!("Kill {}", ticket(t)),
        Output::Flush {
            ticket: t,
            uid,
            state,
            reply,
            create,
        } => {
            let parts = [(state, " state"), (reply, " reply"), (create, " create")];
            let parts: String = parts
                .into_iter()
                .filter(|(set, _)| *set)
                .map(|(_, p)| p)
                .collect();
            format!("Flush {} {}{parts}", ticket(t), object(uid))
        }
        Output::Reply {
            ticket: t,
            answer,
            joined,
        } => {
            let joined = joined.map_or(String::new(), |joined| {
                let updated = if joined.updated { ", updated" } else { "" };
                let join = numbered(joined.join, joined.part);
                format!(" (joined {join}{updated})")
            });
            format!("Reply {} {}{joined}", ticket(t), self::answer(answer))
        }
        Output::Forget { ticket: t } => format!("Forget {}", ticket(t)),
        Output::Discard { uid } => format!("Discard {}", object(uid)),
        Output::Passivate { uid } => format!("Passivate {}", object(uid)),
        Output::Event(event) => format!("({})", self::event(event)),
        Output::Ship { .. }
        | Output::Stays { .. }
        | Output::Departed { .. }
        | Output::Arriving { .. }
        | Output::Unloaded { .. }
        | Output::Arrived { .. }
        | Output::NotArrived { .. } => super::moves::output(output),
        Output::Drained => "Drained".to_owned(),
        _ => of_action(output),
    }
}

/// One that comes of actions alone.
fn of_action(output: Output) -> String {
    match output {
        Output::Capture { uid, action } => format!("Capture {} {}", object(uid), name(action)),
        Output::Undo { ticket: t, uid } => format!("Undo {} {}", ticket(t), object(uid)),
        Output::Keep {
            ticket: t,
            uid,
            action,
        } => format!("Keep {} {} {}", ticket(t), object(uid), name(action)),
        Output::Restore { uid, action } => format!("Restore {} {}", object(uid), name(action)),
        Output::Inherit {
            uid,
            child,
            parent,
            keep,
        } => {
            let keep = if keep { ", image too" } else { "" };
            format!(
                "Inherit {} {} -> {}{keep}",
                object(uid),
                name(child),
                name(parent)
            )
        }
        Output::Release { uid, action } => format!("Release {} {}", object(uid), name(action)),
        Output::Store { job, batch } => format!("Store j{} {}", job.0, self::batch(*batch)),
        Output::SearchDecision {
            job,
            action,
            decider,
        } => {
            let at = about(" at", decider);
            format!("SearchDecision j{} {}{at}", job.0, name(action))
        }
        Output::EndPart {
            object: uid,
            action,
            commit,
        } => {
            let how = if commit { "commit" } else { "drop" };
            format!("EndPart {} of {} {how}", object(uid), name(action))
        }
        Output::Send { to, message } => {
            format!("Send {} {}", self::to(to), self::message(*message))
        }
        Output::Ended { ticket: t, end } => format!("Ended {} {}", ticket(t), self::end(end)),
        Output::Told { ticket: t, verdict } => {
            let verdict =
                verdict.map_or_else(|| "unknown".to_owned(), |verdict| format!("{verdict:?}"));
            format!("Told {} {verdict}", ticket(t))
        }
        other => super::cohort::output(other),
    }
}

fn answer(answer: Answer) -> String {
    match answer {
        Answer::Outcome => "Outcome".to_owned(),
        Answer::SameAs(first) => format!("SameAs {}", ticket(first)),
        Answer::Saved(id) => format!("Saved {}", call(id)),
        Answer::Refused(refusal) => format!("Refused {}", self::refusal(refusal)),
    }
}

pub(crate) fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::Overloaded { what, limit } => format!("Overloaded: {limit} {what}"),
        Refusal::Deadline { started: true } => "Deadline, started".to_owned(),
        Refusal::Deadline { started: false } => "Deadline, not started".to_owned(),
        Refusal::OldIncarnation { known } => format!("OldIncarnation, known is {known}"),
        Refusal::Malformed { what } => format!("Malformed: {what}"),
        Refusal::NoSuchObject
        | Refusal::Moved
        | Refusal::Exists
        | Refusal::Draining
        | Refusal::CallIdReused
        | Refusal::Repeated
        | Refusal::Killed
        | Refusal::Store(_) => format!("{refusal:?}"),
        Refusal::LockTimeout { owner, in_doubt } => {
            let in_doubt = if in_doubt { ", in doubt" } else { "" };
            format!("LockTimeout, {} has it{in_doubt}", name(owner))
        }
        Refusal::Deadlock { victim, cycle } => {
            format!("Deadlock of {}, {} is to end", cycle.len(), name(victim))
        }
        Refusal::Reentrant { owner } => format!("Reentrant, {} has it", name(owner)),
        Refusal::ActionAborted { action, why } => {
            let why = why.map_or(String::new(), |why| format!(", {why:?}"));
            format!("ActionAborted {}{why}", name(action))
        }
    }
}

/// An action: `a1`, or of which call it is the own one.
pub(crate) fn name(action: Uid) -> String {
    let half = 1 << (Uid::COUNTER_BITS - 1);
    if action.counter() & half != 0 {
        return format!("call t{}", action.counter() & 0xffff_ffff);
    }
    format!("a{}", action.counter())
}

pub(crate) fn names(actions: &[Uid]) -> String {
    let names: Vec<String> = actions.iter().copied().map(name).collect();
    names.join(" ")
}

pub(crate) fn site(site: Site) -> String {
    format!("{}#{}", site.node.0, site.shard)
}

pub(crate) fn to(to: To) -> String {
    match to {
        To::Site(to) => site(to),
        To::Home { node, root } => format!("home of {} at {}", name(root), node.0),
        To::Leader { object: uid } => format!("leader of {}", object(uid)),
    }
}

fn message(message: Message) -> String {
    match message {
        Message::Prepare {
            action,
            incarnation,
            join,
            aborted,
            decider,
            part,
        } => {
            let aborted = match aborted.as_slice() {
                [] => String::new(),
                aborted => format!(" without {}", names(aborted)),
            };
            let join = numbered(join, part.is_some());
            let decider = about(" decider", decider);
            let part = about(" part", part);
            format!(
                "Prepare {} life {incarnation} join {join}{aborted}{decider}{part}",
                name(action)
            )
        }
        Message::Vote {
            action,
            vote,
            moved,
            groups,
            decider,
            part,
        } => {
            let moved = moved.iter().map(|participant| {
                let join = counter(participant.joined.join);
                format!(" moved to {} join {join}", site(participant.site))
            });
            let moved: String = moved.collect();
            let groups = objects(" part of", &groups);
            let decider = about(" decider", decider);
            let part = about(" of", part);
            let action = name(action);
            format!("Vote {action} {vote:?}{moved}{groups}{decider}{part}")
        }
        Message::Merge {
            action,
            parent,
            part,
        } => {
            let part = about(" part", part);
            format!("Merge {} into {}{part}", name(action), name(parent))
        }
        Message::Deadlock(deadlock) => super::deadlocks::message(&deadlock),
        other => of_end(other),
    }
}

/// A message about the end of an action.
fn of_end(message: Message) -> String {
    match message {
        Message::Commit { action, part } => {
            format!("Commit {}{}", name(action), about(" part", part))
        }
        Message::Acknowledge {
            action,
            site,
            groups,
            decider,
        } => {
            let only = if site { "" } else { " only" };
            let groups = objects(" part of", &groups);
            let decider = about(" decider", decider);
            format!("Acknowledge {}{only}{groups}{decider}", name(action))
        }
        Message::Abort { action, part } => {
            format!("Abort {}{}", name(action), about(" part", part))
        }
        Message::Query {
            action,
            decider,
            part,
        } => {
            let (decider, part) = (about(" decider", decider), about(" part", part));
            format!("Query {}{decider}{part}", name(action))
        }
        Message::Verdict {
            action,
            verdict,
            part,
        } => format!(
            "Verdict {} {verdict:?}{}",
            name(action),
            about(" part", part)
        ),
        other => format!("{other:?}"),
    }
}

/// An object that there need not be.
fn about(what: &str, uid: Option<Uid>) -> String {
    uid.map_or(String::new(), |uid| format!("{what} {}", object(uid)))
}

fn objects(what: &str, uids: &[Uid]) -> String {
    uids.iter()
        .map(|uid| format!("{what} {}", object(*uid)))
        .collect()
}

fn written(objects: &[Written]) -> String {
    objects
        .iter()
        .map(|written| {
            let new = if written.create { " new" } else { "" };
            let log = if written.replicated { " log" } else { "" };
            format!(" {}{new}{log}", object(written.uid))
        })
        .collect()
}

fn batch(batch: ActionBatch) -> String {
    match batch {
        ActionBatch::Prepare {
            action,
            coordinator,
            objects,
        } => format!(
            "Prepare {} for {}{}:{}",
            name(action),
            site(coordinator.site),
            about(" decider", coordinator.decider),
            written(&objects)
        ),
        ActionBatch::Decide {
            action,
            decider,
            objects,
            participants,
            groups,
        } => {
            let sites: String = participants
                .into_iter()
                .map(|s| format!(" {}", site(s)))
                .collect();
            let tell = if sites.is_empty() { "" } else { ", tell" };
            let decider = about(" decider", decider);
            let groups = self::objects(" part of", &groups);
            let written = written(&objects);
            format!(
                "Decide {}{decider}:{written}{tell}{sites}{groups}",
                name(action)
            )
        }
        ActionBatch::Install { action, groups } => {
            format!("Install {}{}", name(action), objects(" part of", &groups))
        }
        ActionBatch::Undo { action, groups } => {
            format!("Undo {}{}", name(action), objects(" part of", &groups))
        }
        ActionBatch::Settle { action, decider } => {
            format!("Settle {}{}", name(action), about(" decider", decider))
        }
        ActionBatch::Depart { action, uid, to } => {
            format!("Depart {}: {} to {}", name(action), object(uid), site(to))
        }
    }
}

fn end(end: End) -> String {
    match end {
        End::Committed => "Committed".to_owned(),
        End::Unknown => "Unknown".to_owned(),
        End::Aborted(Abort::Lost(at)) => format!("Aborted: lost at {}", site(at)),
        End::Aborted(Abort::Refused(at)) => format!("Aborted: refused by {}", site(at)),
        End::Aborted(Abort::Silent(at)) => format!("Aborted: {} is silent", site(at)),
        End::Aborted(Abort::Busy(at)) => format!("Aborted: busy at {}", site(at)),
        End::Aborted(Abort::Store(fault)) => format!("Aborted: {fault:?}"),
        End::Aborted(Abort::Ended) => "Aborted: has ended".to_owned(),
    }
}

fn event(event: Event) -> String {
    match event {
        Event::Activated { uid, epoch } => format!("Activated {} epoch {}", object(uid), epoch.0),
        Event::Created { uid } => format!("Created {}", object(uid)),
        Event::Passivated { uid, why } => format!("Passivated {} {why:?}", object(uid)),
        Event::NotEvicted { uid } => format!("NotEvicted {}", object(uid)),
        Event::Fenced { uid } => format!("Fenced {}", object(uid)),
        Event::Overloaded { what, limit } => format!("Overloaded: {limit} {what}"),
        Event::OrphanKilled { uid, why } => format!("OrphanKilled at {}, {why:?}", object(uid)),
        Event::Joined { ticket: t, first } => format!("Joined {} {}", ticket(t), ticket(first)),
        Event::InDoubt {
            action,
            coordinator,
        } => format!(
            "InDoubt {}, {} decides",
            name(action),
            site(coordinator.site)
        ),
        Event::GaveUp { action, why } => format!("GaveUp {} {why:?}", name(action)),
        Event::DeadlockBroken { victim, length } => {
            format!("DeadlockBroken of {length}, {} ends", name(victim))
        }
        Event::Departed { uid, to, actions } => {
            format!("Departed {} to {}, with {actions}", object(uid), site(to))
        }
        Event::Arrived { uid, from, actions } => {
            format!(
                "Arrived {} from {}, with {actions}",
                object(uid),
                site(from)
            )
        }
        Event::Reborn { old, incarnation } => format!("Reborn {} as {incarnation}", peer(old)),
    }
}

/// What is not zero.
pub(crate) fn stats(stats: Stats) -> String {
    let text = format!("{stats:?}");
    let inner = text.trim_start_matches("Stats { ").trim_end_matches(" }");
    let left: Vec<&str> = inner
        .split(", ")
        .filter(|part| !part.ends_with(": 0"))
        .collect();
    if left.is_empty() {
        "nothing".to_owned()
    } else {
        left.join(", ")
    }
}

/// A mirror's number.
fn numbered(join: u64, part: bool) -> String {
    match part {
        true => super::cohort::join_of_part(join),
        false => counter(join).to_string(),
    }
}

/// The part of a mirror's number that counts.
pub(crate) fn counter(join: u64) -> u64 {
    join & Uid::COUNTER_MAX
}

pub(crate) fn path(path: &Path) -> String {
    let whole = path.whole().iter().copied().map(name);
    let (outer, own): (Vec<_>, Vec<_>) = whole
        .enumerate()
        .partition(|(at, _)| *at < path.enclosing());
    let join = |part: Vec<(usize, String)>| {
        let names: Vec<String> = part.into_iter().map(|(_, name)| name).collect();
        names.join("/")
    };
    let boundary = if outer.is_empty() { "" } else { "|" };
    format!("{}{boundary}{}", join(outer), join(own))
}

/// One action in one line.
pub(crate) fn action(view: ActionView) -> String {
    let coordinator = view
        .coordinator
        .map_or(String::new(), |c| format!(", {} decides", site(c)));
    let callers: Vec<String> = view.callers.into_iter().map(peer).collect();
    format!(
        "{} {:?}{coordinator}, from {}: {} locks, {} changed, {} running, {} waiting",
        path(&view.path),
        view.phase,
        callers.join(" "),
        view.locks,
        view.objects,
        view.running,
        view.waiting,
    )
}

/// One lock in one line.
pub(crate) fn lock(view: LockView) -> String {
    let holders = view.holders.iter().map(|holder| {
        let retained = if holder.retained { " retained" } else { "" };
        let prepared = if holder.prepared { " prepared" } else { "" };
        format!(
            " {} {:?}{retained}{prepared};",
            path(&holder.path),
            holder.mode
        )
    });
    let holders: String = holders.collect();
    let waiters = view.waiters.iter().map(|waiter| {
        let blockers: Vec<String> = waiter.blockers.iter().map(path).collect();
        let blockers = blockers.join(" ");
        format!(
            " {} waits for {blockers} to {:?};",
            path(&waiter.path),
            waiter.mode
        )
    });
    let waiters: String = waiters.collect();
    format!("{}:{holders}{waiters}", object(view.uid))
}
