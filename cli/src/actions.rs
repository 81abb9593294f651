//! The commands about actions: `actions`, `abort`.
//!
//! An action is listed once for each node where it has a part. Nested actions are not told by
//! the nodes; those that hold or wait for locks are seen in the locks and stand below their
//! top-level action.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::bail;
use partha::Uid;
use partha::system::connection_manager::AbortActionError;
use partha::system::{ActionDescription, ActionPath, LockWaiter};
use serde_json::{Value, json};

use crate::arguments::{Abort, Actions};
use crate::cluster::System;
use crate::nodes;
use crate::output::{Output, Rows};
use crate::survey::{self, Locks, Survey, Surveyed, own};

/// `partha actions`
pub(crate) async fn actions(arguments: &Actions, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let survey = match &arguments.node {
        Some(node) => {
            let node = nodes::named(&system, node).await?;
            Survey::of(&system, node, Locks::All).await?
        }
        None => Survey::of_all(&system, Locks::All).await?,
    };
    let names = survey.object_names(&system).await;
    let mut header = vec![
        "ACTION",
        "DEPTH",
        "PHASE",
        "NODE",
        "CLIENT",
        "AGE",
        "LOCKS",
        "WAITING FOR",
    ];
    let all = out.is_wide() || out.is_json();
    if all {
        header.extend([
            "SHARD",
            "CHANGED",
            "RUNNING",
            "LEFT",
            "COORDINATOR",
            "WITHIN",
        ]);
    }
    let mut rows = Rows::new(&header);
    let view = View {
        survey: &survey,
        names: &names,
        exact: out.is_json(),
        all,
    };
    let mut page = Vec::new();
    for parts in survey.by_action().into_values() {
        for (node, part) in parts {
            page.extend(view.part(node, part));
        }
    }
    rows.page(out, &page)?;
    rows.end(out)?;
    survey.warn();
    Ok(())
}

/// `partha abort`
pub(crate) async fn abort(arguments: &Abort, out: &mut Output) -> anyhow::Result<()> {
    let action = arguments.action.uid();
    let system = System::connect(&arguments.cluster).await?;
    let nodes = abort_everywhere(&system, action).await?;
    out.facts(&[
        ("aborted", json!(action.to_string())),
        ("nodes", json!(nodes)),
    ])?;
    Ok(())
}

/// Aborts an action at all nodes; the names of those where it was.
pub(crate) async fn abort_everywhere(system: &System, action: Uid) -> anyhow::Result<Vec<String>> {
    let (reached, silent) = survey::reach_all(system).await?;
    survey::warn(&silent);
    let (mut aborted, mut refused) = (Vec::new(), Vec::new());
    for node in &reached {
        let manager = node.handle.manager();
        let name = &node.description.name;
        match manager.abort_action(&system.client, action).await {
            Ok(_) => aborted.push(name.clone()),
            Err(AbortActionError::NoSuchAction(_)) => {}
            Err(AbortActionError::NotAbortable(error)) => {
                refused.push(format!("node '{name}': {}", error.reason));
            }
            Err(AbortActionError::System(error)) => return Err(error.into()),
        }
    }
    if !refused.is_empty() {
        bail!("action {action} is not aborted; {}", refused.join("; "));
    }
    if aborted.is_empty() {
        bail!("no node knows action {action}; `partha outcome {action}` tells how it ended");
    }
    Ok(aborted)
}

/// How parts of actions become rows.
struct View<'a> {
    survey: &'a Survey,
    names: &'a HashMap<Uid, String>,
    /// Times for scripts.
    exact: bool,
    /// Every column.
    all: bool,
}

/// A nested action, as far as it is seen in locks.
#[derive(Default)]
struct Nested<'a> {
    depth: usize,
    locks: usize,
    waits: Vec<(Uid, &'a LockWaiter)>,
}

impl View<'_> {
    /// The rows of one part: the top-level action, and those nested in it.
    fn part(&self, node: &Surveyed, part: &ActionDescription) -> Vec<Vec<Value>> {
        let Some(root) = own(&part.path).first().copied() else {
            return Vec::new();
        };
        let mut levels = nested(node, part, root);
        let top = levels.remove(&root).unwrap_or_default();
        let name = &node.info.description.name;
        let mut callers: Vec<_> = part.callers.iter().collect();
        callers.dedup();
        let callers = callers
            .iter()
            .map(|caller| self.survey.process(caller.node));
        let mut row = vec![
            json!(root.to_string()),
            json!(0),
            json!(survey::phase(part.phase)),
            json!(name),
            json!(callers.collect::<Vec<_>>()),
            self.time(part.age),
            json!(part.locks),
            self.waiting(&top.waits),
        ];
        if self.all {
            row.extend([
                json!(part.shard),
                json!(part.objects),
                json!(part.running),
                self.time(part.left),
                json!(self.coordinator(part)),
                json!(survey::enclosing(&part.path)),
            ]);
        }
        let width = row.len();
        let mut rows = vec![row];
        let mut levels: Vec<_> = levels.into_iter().collect();
        levels.sort_by_key(|(uid, level)| (level.depth, *uid));
        for (uid, level) in levels {
            let mut row = vec![
                json!(uid.to_string()),
                json!(level.depth),
                json!("nested"),
                json!(name),
                json!(null),
                json!(null),
                json!(level.locks),
                self.waiting(&level.waits),
            ];
            row.resize(width, Value::Null);
            if let Some(shard) = row.get_mut(8) {
                *shard = json!(part.shard);
            }
            rows.push(row);
        }
        rows
    }

    fn waiting(&self, waits: &[(Uid, &LockWaiter)]) -> Value {
        let text = |(object, waiter): &(Uid, &LockWaiter)| {
            let name = self.names.get(object).cloned();
            let name = name.unwrap_or_else(|| object.to_string());
            format!("{} of {name}", survey::mode(waiter.mode))
        };
        match waits {
            [] => Value::Null,
            waits => json!(waits.iter().map(text).collect::<Vec<_>>()),
        }
    }

    fn coordinator(&self, part: &ActionDescription) -> Option<String> {
        let site = part.coordinator.as_ref()?;
        Some(format!("{}#{}", self.survey.process(site.node), site.shard))
    }

    fn time(&self, time: Duration) -> Value {
        match self.exact {
            true => json!(time.as_secs_f64()),
            false => json!(survey::span(time)),
        }
    }
}

/// The levels of an action that are seen in the locks of one shard, with the top level.
fn nested<'a>(
    node: &'a Surveyed,
    part: &ActionDescription,
    root: Uid,
) -> BTreeMap<Uid, Nested<'a>> {
    let mut levels: BTreeMap<Uid, Nested<'a>> = BTreeMap::new();
    let leaf = |path: &'a ActionPath| {
        let own = own(path);
        (own.first() == Some(&root)).then(|| (own.len() - 1, own[own.len() - 1]))
    };
    for lock in node.locks.iter().filter(|lock| lock.shard == part.shard) {
        for (depth, uid) in lock.holders.iter().filter_map(|holder| leaf(&holder.path)) {
            let level = levels.entry(uid).or_default();
            (level.depth, level.locks) = (depth, level.locks + 1);
        }
        for waiter in &lock.waiters {
            if let Some((depth, uid)) = leaf(&waiter.path) {
                let level = levels.entry(uid).or_default();
                level.depth = depth;
                level.waits.push((lock.object, waiter));
            }
        }
    }
    levels
}
