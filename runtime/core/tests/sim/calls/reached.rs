//! What a simulation has come by. A rule that no run ever reached was not tested, so a batch of
//! runs that misses one of these points fails.

use crate::Counts;
use partha_core::{Answer, Event, Fault, Output, Refusal, Why};

/// The points to be reached.
pub(crate) const POINTS: [&str; 27] = [
    "answered by outcome",
    "answered by the outcome of another ticket",
    "answered by a saved reply",
    "orphan: killed",
    "refused: overloaded",
    "refused: deadline before it started",
    "refused: deadline after it started",
    "refused: draining",
    "refused: old incarnation",
    "refused: fenced",
    "refused: disk full",
    "refused: store",
    "flushed: state and reply",
    "flushed: state alone",
    "flushed: reply alone",
    "flushed: new object",
    "discarded",
    "activated",
    "created",
    "passivated: idle",
    "passivated: memory",
    "passivated: no room",
    "passivated: operator",
    "passivated: drain",
    "not evicted",
    "reborn",
    "drained",
];

/// Notes what an output shows.
pub(crate) fn note(reached: &mut Counts, output: &Output) {
    let point = match output {
        Output::Reply { answer, .. } => answered(answer),
        Output::Flush { create: true, .. } => "flushed: new object",
        Output::Flush {
            state: true,
            reply: true,
            ..
        } => "flushed: state and reply",
        Output::Flush { state: true, .. } => "flushed: state alone",
        Output::Flush { .. } => "flushed: reply alone",
        Output::Discard { .. } => "discarded",
        Output::Drained => "drained",
        Output::Kill { .. } => "orphan: killed",
        Output::Event(event) => happened(*event),
        Output::Search { .. }
        | Output::Load { .. }
        | Output::Dispatch { .. }
        | Output::Forget { .. }
        | Output::Passivate { .. }
        | Output::Capture { .. }
        | Output::Undo { .. }
        | Output::Keep { .. }
        | Output::Restore { .. }
        | Output::Inherit { .. }
        | Output::Release { .. }
        | Output::Store { .. }
        | Output::SearchDecision { .. }
        | Output::EndPart { .. }
        | Output::Checkpoint { .. }
        | Output::Resume { .. }
        | Output::Watch { .. }
        | Output::GoOut { .. }
        | Output::Again { .. }
        | Output::Send { .. }
        | Output::Ended { .. }
        | Output::Ship { .. }
        | Output::Stays { .. }
        | Output::Departed { .. }
        | Output::Arriving { .. }
        | Output::Unloaded { .. }
        | Output::Arrived { .. }
        | Output::NotArrived { .. }
        | Output::Told { .. } => return,
    };
    *reached.entry(point).or_default() += 1;
}

fn answered(answer: &Answer) -> &'static str {
    match answer {
        Answer::Outcome => "answered by outcome",
        Answer::SameAs(_) => "answered by the outcome of another ticket",
        Answer::Saved(_) => "answered by a saved reply",
        Answer::Refused(refusal) => match refusal {
            Refusal::Overloaded { .. } => "refused: overloaded",
            Refusal::Deadline { started: false } => "refused: deadline before it started",
            Refusal::Deadline { started: true } => "refused: deadline after it started",
            Refusal::Draining => "refused: draining",
            Refusal::OldIncarnation { .. } => "refused: old incarnation",
            Refusal::Store(Fault::Fenced) => "refused: fenced",
            Refusal::Store(Fault::Full) => "refused: disk full",
            Refusal::Store(Fault::Store | Fault::Exists) => "refused: store",
            Refusal::LockTimeout { .. } => "refused: lock time-out",
            Refusal::Killed => "refused: killed",
            Refusal::NoSuchObject
            | Refusal::Exists
            | Refusal::CallIdReused
            | Refusal::Deadlock { .. }
            | Refusal::Reentrant { .. }
            | Refusal::ActionAborted { .. }
            | Refusal::Moved
            | Refusal::Malformed { .. }
            | Refusal::Repeated => "refused: mistake",
        },
    }
}

fn happened(event: Event) -> &'static str {
    match event {
        Event::Activated { .. } => "activated",
        Event::Created { .. } => "created",
        Event::Passivated { why: Why::Idle, .. } => "passivated: idle",
        Event::Passivated {
            why: Why::Memory, ..
        } => "passivated: memory",
        Event::Passivated {
            why: Why::NoRoom, ..
        } => "passivated: no room",
        Event::Passivated {
            why: Why::Operator, ..
        } => "passivated: operator",
        Event::Passivated {
            why: Why::Drain, ..
        } => "passivated: drain",
        Event::Passivated {
            why: Why::Expelled, ..
        } => "passivated: expelled",
        Event::NotEvicted { .. } => "not evicted",
        Event::Fenced { .. } => "fenced",
        Event::Overloaded { .. } => "overloaded",
        Event::Joined { .. } => "joined",
        Event::Reborn { .. } => "reborn",
        Event::OrphanKilled { .. } => "an orphan",
        Event::InDoubt { .. }
        | Event::GaveUp { .. }
        | Event::DeadlockBroken { .. }
        | Event::Departed { .. }
        | Event::Arrived { .. } => "of actions",
    }
}
