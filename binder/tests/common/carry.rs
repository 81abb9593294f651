//! Names that go from one directory to another in actions.

#![allow(dead_code, reason = "each test file uses a part")]

use std::time::{Duration, Instant};

use partha::services::naming::name_context::PutError;
use partha::services::naming::{Entry, NameContext};
use partha::{
    ActionError, ActionOptions, Caller, Client, NodeId, Outcome, Place, Replication, SystemError,
    Uid,
};

use super::LONG;

pub(crate) fn entry(number: u32) -> Entry {
    Entry {
        name: format!("name{number:04}"),
        object: Uid {
            node: NodeId(9),
            local: u64::from(number),
        },
        class: 1,
        context: false,
        hints: Vec::new(),
    }
}

/// A directory at a node, with so many copies.
pub(crate) async fn directory(client: &Client, node: &str, copies: u16) -> NameContext {
    directory_as(client, node, &Replication::of(copies)).await
}

/// The same with a policy.
pub(crate) async fn directory_as(
    client: &Client,
    node: &str,
    replication: &Replication,
) -> NameContext {
    let place = Place::Named(node.to_owned());
    let context = NameContext::create(client, &place, "x").await.unwrap();
    let copies = replication.copies;
    if copies > 0 {
        let begun = Instant::now();
        loop {
            let now = client.replicate_as(context.uid(), replication).await;
            match now {
                Ok(now) if now.members.len() == usize::from(copies) => break,
                other => assert!(begun.elapsed() < LONG, "still {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    context
}

pub(crate) async fn fill(client: &Client, context: &NameContext, names: std::ops::Range<u32>) {
    for number in names {
        context.put(client, &entry(number), false).await.unwrap();
    }
}

/// One action: the name leaves one and comes to the other.
pub(crate) async fn carry(
    caller: &impl Caller,
    from: &NameContext,
    to: &NameContext,
    number: u32,
) -> Result<(), SystemError> {
    let entry = entry(number);
    if !from.take(caller, &entry.name, entry.object).await? {
        return Err(SystemError::servant(format!("{} is not there", entry.name)));
    }
    match to.put(caller, &entry, false).await {
        Ok(()) => Ok(()),
        Err(PutError::System(error)) => Err(error),
        Err(error) => Err(SystemError::servant(error.to_string())),
    }
}

pub(crate) async fn names(client: &Client, context: &NameContext) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let call = client.call().deadline(Duration::from_secs(2));
        match context.list(&call, "", 10_000).await {
            Ok(entries) => return entries.into_iter().map(|entry| entry.name).collect(),
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn expected(names: std::ops::Range<u32>) -> Vec<String> {
    names.map(|number| entry(number).name).collect()
}

/// Carries a name, trying again until it is done; what is not known is asked for.
pub(crate) async fn carry_surely(
    client: &Client,
    from: &NameContext,
    to: &NameContext,
    number: u32,
) {
    let begun = Instant::now();
    loop {
        let options = ActionOptions::new().deadline(LONG).tries(10_000);
        let done = client
            .action_retry_with(options, async |action| {
                carry(action, from, to, number).await
            })
            .await;
        match done {
            Ok(()) => return,
            Err(ActionError::OutcomeUnknown { action, .. }) => loop {
                match client.outcome(action).await {
                    Ok(Outcome::Committed) => return,
                    Ok(Outcome::Aborted) => break,
                    other => assert!(begun.elapsed() < LONG, "{action}: {other:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
            Err(error) => {
                let passing = error.is_passing() && begun.elapsed() < LONG;
                assert!(passing, "{number}: {error}");
            }
        }
    }
}
