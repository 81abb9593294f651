//! The command `locks`: a row for each holder and each waiter of a locked object.

use std::collections::HashMap;
use std::time::Duration;

use partha::Uid;
use partha::system::{ActionPath, LockDescription, LockMode};
use serde_json::{Value, json};

use crate::arguments;
use crate::cluster::System;
use crate::nodes;
use crate::output::{Output, Rows};
use crate::survey::{self, Locks, Survey, Surveyed, own};

/// `partha locks`
pub(crate) async fn locks(arguments: &arguments::Locks, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let wanted = match arguments.waiting {
        true => Locks::Contended,
        false => Locks::All,
    };
    let survey = match &arguments.node {
        Some(node) => {
            let node = nodes::named(&system, node).await?;
            Survey::of(&system, node, wanted).await?
        }
        None => Survey::of_all(&system, wanted).await?,
    };
    let names = survey.object_names(&system).await;
    let mut header = vec!["OBJECT", "NODE", "HOW", "MODE", "ACTION", "AGE"];
    let all = out.is_wide() || out.is_json();
    if all {
        header.extend(["UID", "CLASS", "SHARD", "WITHIN", "CLIENT", "WAITS FOR"]);
    }
    let mut rows = Rows::new(&header);
    let view = View {
        survey: &survey,
        names: &names,
        exact: out.is_json(),
        all,
    };
    let mut page = Vec::new();
    for node in &survey.nodes {
        page.extend(node.locks.iter().flat_map(|lock| view.lock(node, lock)));
    }
    rows.page(out, &page)?;
    rows.end(out)?;
    survey.warn();
    Ok(())
}

/// How locks become rows.
struct View<'a> {
    survey: &'a Survey,
    names: &'a HashMap<Uid, String>,
    /// Times for scripts.
    exact: bool,
    /// Every column.
    all: bool,
}

/// What holders and waiters have in common.
struct Party<'a> {
    how: &'static str,
    mode: LockMode,
    path: &'a ActionPath,
    age: Duration,
    clients: Vec<String>,
    waits_for: Vec<String>,
}

impl View<'_> {
    /// Holders first, then waiters in their order.
    fn lock(&self, node: &Surveyed, lock: &LockDescription) -> Vec<Vec<Value>> {
        let holders = lock.holders.iter().map(|holder| Party {
            how: match (holder.prepared, holder.retained) {
                (true, _) => "in doubt",
                (false, true) => "retained",
                (false, false) => "held",
            },
            mode: holder.mode,
            path: &holder.path,
            age: holder.age,
            clients: self.survey.clients(node, &holder.path),
            waits_for: Vec::new(),
        });
        let waiters = lock.waiters.iter().map(|waiter| Party {
            how: "waits",
            mode: waiter.mode,
            path: &waiter.path,
            age: waiter.age,
            clients: vec![self.survey.process(waiter.caller.node)],
            waits_for: waiter.blockers.iter().map(survey::leaf_text).collect(),
        });
        let parties = holders.chain(waiters);
        parties.map(|party| self.row(node, lock, &party)).collect()
    }

    fn row(&self, node: &Surveyed, lock: &LockDescription, party: &Party<'_>) -> Vec<Value> {
        let uid = lock.object.to_string();
        let name = self.names.get(&lock.object);
        let mut row = vec![
            json!(name.unwrap_or(&uid)),
            json!(node.info.description.name),
            json!(party.how),
            json!(survey::mode(party.mode)),
            json!(survey::leaf_text(party.path)),
            match self.exact {
                true => json!(party.age.as_secs_f64()),
                false => json!(survey::span(party.age)),
            },
        ];
        if self.all {
            let own = own(party.path);
            let within = own.iter().take(own.len().saturating_sub(1));
            row.extend([
                json!(uid),
                json!(node.info.class_name(partha::ClassId(lock.class))),
                json!(lock.shard),
                json!(within.map(ToString::to_string).collect::<Vec<_>>()),
                json!(party.clients),
                json!(party.waits_for),
            ]);
        }
        row
    }
}
