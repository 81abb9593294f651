//! Outputs as a story writes them: `t1` for a ticket, `o1` for an object, `1.2` for a caller.

use partha_core::id::{CallId, Peer, Uid};
use partha_core::{Answer, Event, Output, Refusal, Stats, Ticket};

fn ticket(Ticket(number): Ticket) -> String {
    format!("t{number}")
}

fn object(uid: Uid) -> String {
    format!("o{}", uid.local)
}

fn peer(peer: Peer) -> String {
    format!("{}.{}", peer.node.0, peer.incarnation)
}

fn call(call: CallId) -> String {
    format!("{}/{}", peer(call.caller), call.sequence)
}

/// One output in one line.
pub(crate) fn output(output: Output) -> String {
    match output {
        Output::Search { ticket: t, call: c } => format!("Search {} {}", ticket(t), call(c)),
        Output::Load { uid } => format!("Load {}", object(uid)),
        Output::Dispatch {
            ticket: t,
            uid,
            mode,
            new,
        } => {
            let new = if new { " new" } else { "" };
            format!("Dispatch {} {} {mode:?}{new}", ticket(t), object(uid))
        }
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
        Output::Reply { ticket: t, answer } => {
            format!("Reply {} {}", ticket(t), self::answer(answer))
        }
        Output::Forget { ticket: t } => format!("Forget {}", ticket(t)),
        Output::Discard { uid } => format!("Discard {}", object(uid)),
        Output::Passivate { uid } => format!("Passivate {}", object(uid)),
        Output::Event(event) => format!("({})", self::event(event)),
        Output::Drained => "Drained".to_owned(),
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

fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::Overloaded { what, limit } => format!("Overloaded: {limit} {what}"),
        Refusal::Deadline { started: true } => "Deadline, started".to_owned(),
        Refusal::Deadline { started: false } => "Deadline, not started".to_owned(),
        Refusal::OldIncarnation { known } => format!("OldIncarnation, known is {known}"),
        Refusal::NoSuchObject
        | Refusal::Exists
        | Refusal::Draining
        | Refusal::CallIdReused
        | Refusal::Store(_) => format!("{refusal:?}"),
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
        Event::Joined { ticket: t, first } => format!("Joined {} {}", ticket(t), ticket(first)),
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
