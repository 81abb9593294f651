//! What a simulation has come by. A rule that no run ever reached was not tested, so a batch of
//! runs that misses one of these points fails.

use partha_core::action::message::{Deadlock, Message, Verdict, Vote};
use partha_core::{Abort, ActionBatch, Answer, End, Event, GaveUp, Orphan, Output, Refusal};

use crate::Summary;

/// The points to be reached.
pub(crate) const POINTS: [&str; 116] = [
    "abort: busy",
    "abort: ended",
    "abort: lost",
    "abort: refused",
    "abort: silent",
    "abort: store",
    "asked: aborted",
    "asked: committed",
    "asked: in flight",
    "asked: the store cannot tell",
    "calls: several at a time in one level",
    "checkpoint: not added",
    "checkpoint: of none",
    "checkpoint: of one action",
    "checkpoint: of several actions",
    "checkpoint: too large",
    "cohort: a call is executed again",
    "cohort: a call is sent again",
    "cohort: a commit is asked for again",
    "cohort: a saved answer",
    "cohort: an action is taken over",
    "cohort: told again",
    "cohort: with before-images",
    "cohort: with nested actions",
    "commit: no way to the coordinator",
    "committed",
    "committed: nothing touched",
    "deadlock: broken, of 2",
    "deadlock: broken, of 3 and more",
    "drained and restarted",
    "event: gave up, caller gone",
    "event: gave up, expired",
    "event: gave up, old incarnation",
    "event: in doubt",
    "link: frozen",
    "lost: a vote, with its node",
    "lost: of a move",
    "lost: of a runner",
    "lost: of a shard",
    "message: abort",
    "message: break",
    "message: confirmed",
    "message: confirmed, gone",
    "message: probe",
    "message: query",
    "message: resumed",
    "message: verdict aborted",
    "message: verdict committed",
    "message: verdict in flight",
    "message: vote no",
    "message: vote read only",
    "message: vote yes",
    "message: vote, moved",
    "message: waits",
    "moves: a call follows",
    "moves: it does not come",
    "moves: refused, an action has ended",
    "moves: refused, else",
    "moves: with an action",
    "moves: with before-images",
    "moves: with nested actions",
    "moves: with several actions",
    "moves: without actions",
    "group: a commit is held",
    "group: a decision got lost",
    "group: a decision is recovered",
    "group: a decision survived its leader",
    "group: a part is recovered",
    "group: a prepare is held",
    "group: an action finds another leader",
    "group: an entry of a deposed leader",
    "group: an entry survives",
    "group: another leads",
    "group: expelled",
    "nested: aborted",
    "nested: begun",
    "nested: beside its parent",
    "nested: committed",
    "nested: top level within",
    "orphan: extinct",
    "orphan: its action is aborted",
    "orphan: its caller gave it up",
    "orphan: its caller is gone",
    "orphan: its time is up",
    "orphan: killed",
    "orphan: returned before it was killed",
    "recovered: decided",
    "recovered: prepared",
    "refused: action aborted",
    "refused: deadline",
    "refused: deadlock",
    "refused: draining",
    "refused: lock time-out",
    "refused: lock time-out, in doubt",
    "refused: moved",
    "refused: overloaded",
    "refused: reentrant",
    "refused: repeated",
    "refused: store",
    "runner: time is up",
    "servant: calls in its action",
    "servant: calls outside of actions",
    "servant: stuck",
    "stays: busy",
    "stays: draining",
    "stays: in the way",
    "stays: it moves already",
    "stays: store",
    "stays: the target is silent",
    "stays: the target refuses",
    "store: decide alone",
    "store: decide with others",
    "store: depart",
    "store: install",
    "store: settle",
    "store: undo",
];

/// Notes what an output shows.
pub(crate) fn note(summary: &mut Summary, output: &Output) {
    let point = match output {
        Output::Reply { answer, .. } => answered(answer),
        Output::Store { batch, .. } => stored(batch),
        Output::Ended { end, .. } => ended(end),
        Output::Send { message, .. } => sent(message),
        Output::Event(event) => happened(summary, event),
        Output::Capture { .. } => Some("undo: capture"),
        Output::Undo { .. } => Some("undo: of a call"),
        Output::Restore { .. } => Some("undo: restore"),
        Output::Inherit { keep: true, .. } => Some("undo: inherit and keep"),
        Output::Inherit { keep: false, .. } => Some("undo: inherit"),
        Output::Release { .. } => Some("undo: release"),
        Output::EndPart { commit: true, .. } => Some("part: commit"),
        Output::EndPart { commit: false, .. } => Some("part: drop"),
        Output::Search { .. }
        | Output::Kill { .. }
        | Output::Checkpoint { .. }
        | Output::Resume { .. }
        | Output::Watch { .. }
        | Output::GoOut { .. }
        | Output::Again { .. }
        | Output::SearchDecision { .. }
        | Output::Load { .. }
        | Output::Dispatch { .. }
        | Output::Flush { .. }
        | Output::Forget { .. }
        | Output::Discard { .. }
        | Output::Passivate { .. }
        | Output::Keep { .. }
        | Output::Told { .. }
        | Output::Ship { .. }
        | Output::Stays { .. }
        | Output::Departed { .. }
        | Output::Arriving { .. }
        | Output::Unloaded { .. }
        | Output::Arrived { .. }
        | Output::NotArrived { .. }
        | Output::Drained => None,
    };
    if let Some(point) = point {
        summary.reach(point);
    }
}

fn answered(answer: &Answer) -> Option<&'static str> {
    let Answer::Refused(refusal) = answer else {
        return None;
    };
    Some(match refusal {
        Refusal::Overloaded { .. } => "refused: overloaded",
        Refusal::Deadline { .. } => "refused: deadline",
        Refusal::Draining => "refused: draining",
        Refusal::OldIncarnation { .. } => "refused: old incarnation",
        Refusal::Store(_) => "refused: store",
        Refusal::NoSuchObject => "refused: no such object",
        Refusal::Moved => "refused: moved",
        Refusal::Malformed { .. } => "refused: malformed",
        Refusal::Exists => "refused: exists",
        Refusal::CallIdReused => "refused: call id reused",
        Refusal::LockTimeout { in_doubt: true, .. } => "refused: lock time-out, in doubt",
        Refusal::LockTimeout {
            in_doubt: false, ..
        } => "refused: lock time-out",
        Refusal::Deadlock { .. } => "refused: deadlock",
        Refusal::Reentrant { .. } => "refused: reentrant",
        Refusal::ActionAborted { .. } => "refused: action aborted",
        Refusal::Repeated => "refused: repeated",
        Refusal::Killed => "refused: killed",
    })
}

fn stored(batch: &ActionBatch) -> Option<&'static str> {
    Some(match batch {
        ActionBatch::Prepare { .. } => "store: prepare",
        ActionBatch::Decide { participants, .. } if participants.is_empty() => {
            "store: decide alone"
        }
        ActionBatch::Decide { .. } => "store: decide with others",
        ActionBatch::Install { .. } => "store: install",
        ActionBatch::Undo { .. } => "store: undo",
        ActionBatch::Settle { .. } => "store: settle",
        ActionBatch::Depart { .. } => "store: depart",
    })
}

fn ended(end: &End) -> Option<&'static str> {
    Some(match end {
        End::Committed => "committed",
        End::Aborted(Abort::Lost(_)) => "abort: lost",
        End::Aborted(Abort::Refused(_)) => "abort: refused",
        End::Aborted(Abort::Silent(_)) => "abort: silent",
        End::Aborted(Abort::Busy(_)) => "abort: busy",
        End::Aborted(Abort::Store(_)) => "abort: store",
        End::Aborted(Abort::Ended) => "abort: ended",
        End::Unknown => "commit: unknown",
    })
}

fn sent(message: &Message) -> Option<&'static str> {
    Some(match message {
        Message::Prepare { .. } => "message: prepare",
        Message::Vote { moved, .. } if !moved.is_empty() => "message: vote, moved",
        Message::Vote {
            vote: Vote::Yes, ..
        } => "message: vote yes",
        Message::Vote {
            vote: Vote::ReadOnly,
            ..
        } => "message: vote read only",
        Message::Vote { vote: Vote::No, .. } => "message: vote no",
        Message::Commit { .. } => "message: commit",
        Message::Acknowledge { .. } => "message: acknowledge",
        Message::Abort { .. } => "message: abort",
        Message::Merge { .. } => "message: merge",
        Message::Query { .. } => "message: query",
        Message::Verdict {
            verdict: Verdict::Committed,
            ..
        } => "message: verdict committed",
        Message::Verdict {
            verdict: Verdict::Aborted,
            ..
        } => "message: verdict aborted",
        Message::Verdict {
            verdict: Verdict::InFlight,
            ..
        } => "message: verdict in flight",
        Message::Deadlock(Deadlock::Waits { .. }) => "message: waits",
        Message::Deadlock(Deadlock::Resumed { .. }) => "message: resumed",
        Message::Deadlock(Deadlock::Probe { .. }) => "message: probe",
        Message::Deadlock(Deadlock::Confirm { .. }) => "message: confirm",
        Message::Deadlock(Deadlock::Confirmed { holds: true, .. }) => "message: confirmed",
        Message::Deadlock(Deadlock::Confirmed { holds: false, .. }) => "message: confirmed, gone",
        Message::Deadlock(Deadlock::Break { .. }) => "message: break",
    })
}

fn happened(summary: &mut Summary, event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::InDoubt { .. } => "event: in doubt",
        Event::GaveUp {
            why: GaveUp::CallerGone,
            ..
        } => "event: gave up, caller gone",
        Event::GaveUp {
            why: GaveUp::Expired,
            ..
        } => "event: gave up, expired",
        Event::GaveUp {
            why: GaveUp::OldIncarnation,
            ..
        } => "event: gave up, old incarnation",
        Event::GaveUp {
            why: GaveUp::Expelled,
            ..
        } => "event: gave up, expelled",
        Event::DeadlockBroken { length, .. } => {
            summary.count("deadlocks broken");
            if *length > 2 {
                "deadlock: broken, of 3 and more"
            } else {
                "deadlock: broken, of 2"
            }
        }
        Event::Fenced { .. } => "event: fenced",
        Event::OrphanKilled { why, .. } => {
            summary.count("orphans killed");
            match why {
                Orphan::CallerGone => "orphan: its caller is gone",
                Orphan::Expired => "orphan: its time is up",
                Orphan::Cancelled => "orphan: its caller gave it up",
                Orphan::Aborted => "orphan: its action is aborted",
            }
        }
        Event::Activated { .. }
        | Event::Created { .. }
        | Event::Passivated { .. }
        | Event::NotEvicted { .. }
        | Event::Overloaded { .. }
        | Event::Joined { .. }
        | Event::Departed { .. }
        | Event::Arrived { .. }
        | Event::Reborn { .. } => return None,
    })
}
