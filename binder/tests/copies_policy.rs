//! The policy of an object with copies changes while it is in use.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::carry::{carry, directory, directory_as, entry, expected, fill, names};
use common::{LONG, System};
use partha::services::binder::GroupPolicy;
use partha::services::naming::NameContext;
use partha::{Action, Client, ErrorKind, Node, Replication, SystemError};

const NAMES: u32 = 4;

/// Each policy is followed by each other one.
const POLICIES: [GroupPolicy; 7] = [
    GroupPolicy::Cohort,
    GroupPolicy::Active,
    GroupPolicy::Passive,
    GroupPolicy::Active,
    GroupPolicy::Cohort,
    GroupPolicy::Passive,
    GroupPolicy::Cohort,
];

async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.shutdown(LONG).await.unwrap();
    }
}

async fn put(action: &Action, context: &NameContext, number: u32) -> Result<(), SystemError> {
    let put = context.put(action, &entry(number), false).await;
    put.map_err(|error| SystemError::servant(error.to_string()))
}

/// The copies keep up with each other in another way; the number of the view then.
async fn change(
    client: &Client,
    context: &NameContext,
    policy: GroupPolicy,
) -> Result<u64, SystemError> {
    let replication = Replication::with(policy, 2);
    let copies = client.replicate_as(context.uid(), &replication).await;
    copies.map(|copies| copies.view)
}

async fn policy_of(client: &Client, context: &NameContext) -> (GroupPolicy, u64) {
    let uid = [context.uid()];
    let mut views = client.locator().views(client, &uid, LONG).await.unwrap();
    let view = views.remove(0);
    (view.policy, view.number)
}

/// The same references are used before and after, by a client and within the process of the node
/// that leads: what they know of the policy is out of date each time. Nothing is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn references_from_before_are_as_good_after() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let client = &system.client;
    let first = directory_as(client, "a", &Replication::passive(2)).await;
    let other = directory(client, "b", 0).await;
    fill(client, &first, 0..NAMES).await;
    let mut number = 1;
    for policy in POLICIES {
        let changed = change(client, &first, policy).await.unwrap();
        let (now, view) = policy_of(client, &first).await;
        assert_eq!((now, view), (policy, changed));
        assert!(view > number, "another policy is another view");
        number = view;
        for caller in [client, a.client()] {
            for (from, to) in [(&first, &other), (&other, &first)] {
                let carried = caller.action(async |action| carry(action, from, to, 0).await);
                carried
                    .await
                    .unwrap_or_else(|error| panic!("{policy}: {error}"));
            }
            let given_up = caller
                .action(async |action| {
                    carry(action, &first, &other, 1).await?;
                    Err::<(), _>(SystemError::servant("no"))
                })
                .await;
            assert!(given_up.is_err());
        }
        assert_eq!(names(client, &first).await, expected(0..NAMES), "{policy}");
        assert!(names(client, &other).await.is_empty(), "{policy}");
        // Said again it changes nothing.
        change(client, &first, policy).await.unwrap();
        assert_eq!(policy_of(client, &first).await, (policy, number));
    }
    stop([a, b]).await;
}

/// An action that has the object keeps the policy; it is not disturbed by the attempt, and neither
/// are those that have waited. With it over, the policy changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_all_the_time_keeps_its_policy() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let client = &system.client;
    tokio::join!(
        keep(client, GroupPolicy::Passive, GroupPolicy::Cohort),
        keep(client, GroupPolicy::Cohort, GroupPolicy::Active),
        keep(client, GroupPolicy::Active, GroupPolicy::Passive),
    );
    stop([a, b]).await;
}

async fn keep(client: &Client, from: GroupPolicy, to: GroupPolicy) {
    let context = directory_as(client, "a", &Replication::with(from, 2)).await;
    let done = client
        .action(async |action| {
            put(action, &context, 0).await?;
            let (call, late) = (client.call().deadline(LONG), context.clone());
            let late = tokio::spawn(async move {
                // It comes in the middle of the attempt, and would wait for the action anyway.
                tokio::time::sleep(Duration::from_millis(50)).await;
                late.put(&call, &entry(1), false).await
            });
            let refused = change(client, &context, to).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::LockTimeout, "{refused}");
            assert_eq!(policy_of(client, &context).await.0, from);
            put(action, &context, 2).await?;
            Ok::<_, SystemError>(late)
        })
        .await;
    done.unwrap().await.unwrap().unwrap();
    assert_eq!(names(client, &context).await, expected(0..3));
    change(client, &context, to).await.unwrap();
    assert_eq!(policy_of(client, &context).await.0, to);
}

/// An action that ends while the change waits for it: the change is done then, and what the
/// action does in the meantime is not kept waiting for the change.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_actions_that_end() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let b = system.node("b", "b").await;
    let client = &system.client;
    let context = directory_as(client, "a", &Replication::passive(2)).await;
    for (number, policy) in (0..).step_by(2).zip(POLICIES) {
        let (client, changed) = (client.clone(), context.clone());
        let change = client
            .action(async |action| {
                put(action, &context, number).await?;
                let client = client.clone();
                let changed = changed.clone();
                let change = tokio::spawn(async move { change(&client, &changed, policy).await });
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let looked = context.list(action, "", 10).await;
                    looked.map_err(|error| SystemError::servant(error.to_string()))?;
                }
                put(action, &context, number + 1).await?;
                Ok::<_, SystemError>(change)
            })
            .await;
        change.unwrap().await.unwrap().unwrap();
        assert_eq!(policy_of(&client, &context).await.0, policy);
    }
    let made = 2 * POLICIES.len() as u32;
    assert_eq!(names(client, &context).await, expected(0..made));
    stop([a, b]).await;
}

/// Under the policy that was chosen last the next leader goes on with an action.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_does_as_the_latest_policy_says() {
    let system = System::start().await;
    let mut a = Some(system.node("a", "a").await);
    let b = system.node("b", "b").await;
    let client = &system.client;
    let context = directory_as(client, "a", &Replication::passive(2)).await;
    fill(client, &context, 0..1).await;
    for policy in [
        GroupPolicy::Cohort,
        GroupPolicy::Passive,
        GroupPolicy::Cohort,
    ] {
        change(client, &context, policy).await.unwrap();
    }
    client
        .action(async |action| {
            put(action, &context, 1).await?;
            stop(a.take()).await;
            put(action, &context, 2).await
        })
        .await
        .unwrap();
    assert_eq!(names(client, &context).await, expected(0..3));
    // It is changed where it is led now.
    change(client, &context, GroupPolicy::Passive)
        .await
        .unwrap();
    fill(client, &context, 3..4).await;
    assert_eq!(names(client, &context).await, expected(0..4));
    stop([b]).await;
}

/// What cannot be had is refused, and leaves the policy as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_changes_no_policy() {
    let system = System::start().await;
    let a = system.node("a", "a").await;
    let client = &system.client;
    let context = directory_as(client, "a", &Replication::passive(1)).await;
    let before = policy_of(client, &context).await;
    for wrong in [
        Replication::cohort(0),
        Replication::active(17),
        Replication::cohort(1).on("zone", ""),
    ] {
        let refused = client.replicate_as(context.uid(), &wrong).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::BadOperation);
    }
    // As many as before, by whatever policy there is.
    client.replicate(context.uid(), 1).await.unwrap();
    assert_eq!(policy_of(client, &context).await, before);
    let nobody = Replication::cohort(1);
    let nobody = client.replicate_as(entry(7).object, &nobody).await;
    assert!(nobody.is_err());
    stop([a]).await;
}
