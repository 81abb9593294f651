//! Once faults have stopped, every program ends and every call has its answer.

use crate::actions::program::{Doing, Task};
use crate::actions::run::{Run, Stage};
use crate::actions::world::Check;

/// Looks for what has not ended.
pub(crate) fn check(tasks: &[Task], runs: &[Run]) -> Check {
    if let Some((task, it)) = tasks
        .iter()
        .enumerate()
        .find(|(_, it)| it.doing != Doing::Done)
    {
        return Err(format!("liveness: task {task} goes on for ever: {it:?}"));
    }
    let ends = |run: &&Run| run.is_branch || run.stage == Stage::Done;
    if let Some(run) = runs.iter().find(|run| !ends(run)) {
        return Err(format!("liveness: an action goes on for ever: {run:?}"));
    }
    Ok(())
}
