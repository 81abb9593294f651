//! The command `outcome`: what became of an action.
//!
//! Any node may have been its coordinator, so all are asked. If none has a part of it and none
//! a record, it is not known what became of it: it may yet be asked to commit, or its record may
//! have been dropped after its time. Only if the user wants that settled are all nodes asked once
//! more, and then refuse to take part in it from then on, so that "aborted" stays true.

use std::process::ExitCode;

use futures_util::future::join_all;
use partha::system::ActionOutcome;
use partha::{ActionId, Outcome, Uid};
use serde_json::json;

use crate::arguments;
use crate::cluster::{NodeInfo, System};
use crate::output::Output;
use crate::survey::{self, Silent};

/// Exit status of an action that is aborted.
const ABORTED: u8 = 3;
/// Exit status of one that is not decided, or not yet known everywhere.
const IN_FLIGHT: u8 = 4;
/// Exit status where it cannot be told.
const UNKNOWN: u8 = 5;

/// `partha outcome`
pub(crate) async fn outcome(
    arguments: &arguments::Outcome,
    out: &mut Output,
) -> anyhow::Result<ExitCode> {
    let system = System::connect(&arguments.cluster).await?;
    let found = find(&system, arguments.action, arguments.settle).await?;
    let word = word(found.outcome);
    let status = match found.outcome {
        ActionOutcome::Committed => ExitCode::SUCCESS,
        ActionOutcome::Aborted => ExitCode::from(ABORTED),
        ActionOutcome::InFlight => ExitCode::from(IN_FLIGHT),
        ActionOutcome::Unknown => ExitCode::from(UNKNOWN),
    };
    if out.is_json() {
        out.facts(&[
            ("action", json!(arguments.action.to_string())),
            ("outcome", json!(word)),
            ("told_by", json!(found.told_by)),
        ])?;
    } else {
        out.line(word)?;
    }
    if found.outcome == ActionOutcome::Unknown {
        survey::warn(&found.silent);
        if found.silent.is_empty() {
            eprintln!(
                "note: no node has a record of it: it was aborted, has not changed anything yet, \
                 or committed more than 15 minutes ago; --settle has it refused for good"
            );
        }
    }
    out.flush()?;
    Ok(status)
}

/// An outcome, as it is spoken of.
pub(crate) fn word(outcome: ActionOutcome) -> &'static str {
    match outcome {
        ActionOutcome::Committed => "committed",
        ActionOutcome::Aborted => "aborted",
        ActionOutcome::InFlight => "in flight",
        ActionOutcome::Unknown => "unknown",
    }
}

/// What was found out.
pub(crate) struct Found {
    pub(crate) outcome: ActionOutcome,
    /// The nodes that said so.
    pub(crate) told_by: Vec<String>,
    /// Nodes that were not reached.
    pub(crate) silent: Vec<Silent>,
}

/// Asks the coordinator if the id names it and it answers, else all nodes.
pub(crate) async fn find(system: &System, action: ActionId, settle: bool) -> anyhow::Result<Found> {
    if let Some(node) = action.coordinator()
        && let Ok(told) = system.client.outcome(action).await
    {
        let outcome = match told {
            Outcome::Committed => ActionOutcome::Committed,
            Outcome::Aborted => ActionOutcome::Aborted,
            Outcome::InFlight => ActionOutcome::InFlight,
        };
        return Ok(Found {
            outcome,
            told_by: vec![node.to_string()],
            silent: Vec::new(),
        });
    }
    find_anywhere(system, action.uid(), settle).await
}

async fn find_anywhere(system: &System, action: Uid, settle: bool) -> anyhow::Result<Found> {
    let (nodes, mut silent) = survey::reach_all(system).await?;
    let mut answers = ask(system, &nodes, action, false, &mut silent).await;
    let knows = |(_, outcome): &(_, ActionOutcome)| match outcome {
        ActionOutcome::Committed | ActionOutcome::InFlight => true,
        ActionOutcome::Aborted | ActionOutcome::Unknown => false,
    };
    if settle && !answers.iter().any(knows) && silent.is_empty() {
        answers = ask(system, &nodes, action, true, &mut silent).await;
    }
    let outcome = sum(answers.iter().map(|(_, outcome)| *outcome), silent.len());
    let told_by = answers.into_iter();
    let told_by = told_by.filter(|(_, said)| *said == outcome);
    let told_by = told_by.map(|(name, _)| name).collect();
    Ok(Found {
        outcome,
        told_by,
        silent,
    })
}

type Answers = Vec<(String, ActionOutcome)>;

async fn ask(
    system: &System,
    nodes: &[NodeInfo],
    action: Uid,
    last: bool,
    silent: &mut Vec<Silent>,
) -> Answers {
    let asked = nodes.iter().map(|node| async move {
        let manager = node.handle.manager();
        let name = node.description.name.clone();
        (name, manager.outcome(&system.client, action, last).await)
    });
    let mut answers = Vec::new();
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(outcome) => answers.push((name, outcome)),
            Err(error) => silent.push(Silent {
                name,
                error: error.into(),
            }),
        }
    }
    answers
}

/// What all answers say together. One node that knows is enough; that it is aborted is only sure
/// if nobody is missing, since a participant that gave up early is not the coordinator.
fn sum(answers: impl Iterator<Item = ActionOutcome>, silent: usize) -> ActionOutcome {
    let (mut in_flight, mut unknown) = (false, silent > 0);
    for answer in answers {
        match answer {
            ActionOutcome::Committed => return ActionOutcome::Committed,
            ActionOutcome::InFlight => in_flight = true,
            ActionOutcome::Unknown => unknown = true,
            ActionOutcome::Aborted => {}
        }
    }
    match (in_flight, unknown) {
        (true, _) => ActionOutcome::InFlight,
        (false, true) => ActionOutcome::Unknown,
        (false, false) => ActionOutcome::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ActionOutcome::{Aborted, Committed, InFlight, Unknown};

    #[test]
    fn one_that_knows_is_enough_and_all_must_agree_that_it_is_aborted() {
        let sum = |answers: &[ActionOutcome], silent| sum(answers.iter().copied(), silent);
        assert_eq!(sum(&[Unknown, Committed, InFlight], 1), Committed);
        assert_eq!(sum(&[Aborted, Aborted], 0), Aborted);
        assert_eq!(sum(&[Aborted, Aborted], 1), Unknown);
        assert_eq!(sum(&[Aborted, Unknown], 0), Unknown);
        assert_eq!(sum(&[InFlight, Unknown], 1), InFlight);
        assert_eq!(sum(&[], 1), Unknown);
    }
}
