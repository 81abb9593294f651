//! Servants and actions: what a servant calls is part of what it was called in.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::behaviour::Mover;
use common::behaviour::counter::GiveError;
use common::behaviour::mover::{TransferAtomicallyError, TransferError};
use common::pair::{Pair, given_up, values};
use common::{arrived, mover, new_gate, open, run};
use partha::{ErrorKind, SystemError};

/// A mover at each node.
async fn movers(pair: &Pair) -> [Mover; 2] {
    let [a, b] = &pair.nodes;
    let a = mover(&pair.client, a).await;
    [a, mover(&pair.client, b).await]
}

#[test]
fn what_a_servant_calls_is_undone_with_its_callers_action() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let ([m, n], client) = (movers(&pair).await, &pair.client);
        let abort = client.action(async |a| {
            assert_eq!(m.transfer(a, &x, &y, 5).await?, 105);
            assert_eq!(n.transfer(a, &x, &y, 5).await?, 110);
            assert_eq!(x.value(a).await?, 90, "seen in the action");
            Err::<(), TransferError>(given_up().into())
        });
        abort.await.unwrap_err();
        assert_eq!(values(client, &[x.clone(), y.clone()]).await, [100, 100]);
        assert_eq!(m.moves(client).await.unwrap(), 0);
        let commit = client.action(async |a| {
            m.transfer(a, &x, &y, 5).await?;
            n.transfer(a, &x, &y, 5).await
        });
        assert_eq!(commit.await.unwrap(), 110);
        let pair = pair.restart().await;
        let client = &pair.client;
        assert_eq!(values(client, &[x, y]).await, [90, 110]);
        assert_eq!(m.moves(client).await.unwrap(), 1);
        pair.stop().await;
    });
}

#[test]
fn servants_far_down_a_chain_join() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(0).await;
        let (client, mut chain) = (&pair.client, Vec::new());
        for _ in 0..3 {
            chain.extend(movers(&pair).await);
        }
        let first = chain.remove(0);
        let nested = client.action(async |a| {
            x.add(a, 1).await?;
            let lost = a.nested(async |b| {
                assert_eq!(first.pass_on(b, &chain, &y, 1).await?, 6);
                Err::<(), _>(given_up())
            });
            lost.await.unwrap_err();
            let kept = a.nested(async |b| first.pass_on(b, &chain, &x, 10).await);
            assert_eq!(kept.await?, 6);
            Ok::<_, SystemError>(())
        });
        nested.await.unwrap();
        assert_eq!(values(client, &[x, y]).await, [11, 0]);
        for link in &chain {
            assert_eq!(link.moves(client).await.unwrap(), 1);
        }
        pair.stop().await;
    });
}

#[test]
fn an_action_of_a_servant_is_nested_in_its_callers() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let ([m, n], client) = (movers(&pair).await, &pair.client);
        let commit = client.action(async |a| {
            x.add(a, 1).await?;
            let failed = m.transfer_atomically(a, &x, &y, 5, true).await;
            failed.unwrap_err();
            let raised = n.transfer_atomically(a, &x, &y, 5_000, false).await;
            let raised = raised.unwrap_err();
            assert!(
                matches!(&raised, TransferAtomicallyError::TooLittle(e) if e.have == 101),
                "{raised:?}"
            );
            assert_eq!(y.value(a).await?, 100, "undone in the action already");
            n.transfer_atomically(a, &x, &y, 5, false).await
        });
        assert_eq!(commit.await.unwrap(), 105);
        assert_eq!(values(client, &[x, y]).await, [96, 105]);
        pair.stop().await;
    });
}

#[test]
fn a_servant_runs_an_action_for_a_caller_without_one() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let ([m, n], client) = (movers(&pair).await, &pair.client);
        m.transfer_atomically(client, &x, &y, 5, true)
            .await
            .unwrap_err();
        let raised = n.transfer_atomically(client, &x, &y, 500, false).await;
        let raised = raised.unwrap_err();
        assert!(
            matches!(raised, TransferAtomicallyError::TooLittle(_)),
            "{raised:?}"
        );
        let both = [x.clone(), y.clone()];
        assert_eq!(values(client, &both).await, [100, 100]);
        let sum = m.transfer_atomically(client, &x, &y, 5, false).await;
        assert_eq!(sum.unwrap(), 105);
        let pair = pair.restart().await;
        assert_eq!(values(&pair.client, &both).await, [95, 105]);
        pair.stop().await;
    });
}

#[test]
fn what_a_servant_commits_apart_stays() {
    run(async {
        let pair = Pair::start().await;
        let [x, log] = pair.counters(100).await;
        let ([m, _], client) = (movers(&pair).await, &pair.client);
        let abort = client.action(async |a| {
            x.add(a, 1).await?;
            m.note_apart(a, &log, 1, false).await?;
            assert_eq!(log.value(client).await?, 101, "for everybody");
            m.note_apart(a, &log, 1, true).await.unwrap_err();
            Err::<(), _>(given_up())
        });
        abort.await.unwrap_err();
        assert_eq!(values(client, &[x, log.clone()]).await, [100, 102]);
        m.note_apart(client, &log, 1, true).await.unwrap_err();
        assert_eq!(log.value(client).await.unwrap(), 103);

        // It would wait for its own invoker.
        let begun = Instant::now();
        let refused = client.action(async |a| {
            log.add(a, 1).await?;
            m.note_apart(a, &log, 1, false).await
        });
        let error = refused.await.unwrap_err().into_cause().unwrap();
        assert_eq!(error.kind(), ErrorKind::Reentrant, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3));
        assert_eq!(log.value(client).await.unwrap(), 103);
        pair.stop().await;
    });
}

#[test]
fn what_a_servant_makes_is_made_in_the_action() {
    run(async {
        let pair = Pair::start().await;
        let ([_, m], client) = (movers(&pair).await, &pair.client);
        let mut lost = None;
        let abort = client.action(async |a| {
            let made = m.make(a, 5).await?;
            assert_eq!(made.add(a, 1).await?, 6);
            lost = Some(made);
            Err::<(), _>(given_up())
        });
        abort.await.unwrap_err();
        let error = lost.unwrap().value(client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{error}");
        let made = client.action(async |a| m.make(a, 5).await).await.unwrap();
        assert_eq!(made.value(client).await.unwrap(), 5);
        assert_eq!(m.moves(client).await.unwrap(), 1);
        pair.stop().await;
    });
}

#[test]
fn a_servant_that_panics_leaves_its_calls_to_the_action() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(0).await;
        let ([m, _], client) = (movers(&pair).await, &pair.client);
        let commit = client.action(async |a| {
            let nested = a.nested(async |b| m.panic_between(b, &x, &y).await);
            let error = nested.await.unwrap_err();
            assert_eq!(error.into_cause().unwrap().kind(), ErrorKind::Servant);
            assert_eq!(x.value(a).await?, 0, "what it had called is undone");
            let error = m.panic_between(a, &x, &y).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Servant, "{error}");
            assert_eq!(m.moves(a).await?, 0, "its own object is as before");
            Ok::<_, SystemError>(())
        });
        commit.await.unwrap();
        assert_eq!(values(client, &[x, y]).await, [1, 0]);
        pair.stop().await;
    });
}

#[test]
fn a_servant_that_gives_a_call_up_dooms_the_action() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(0).await;
        let ([m, _], client) = (movers(&pair).await, &pair.client);
        let gate = new_gate("left");
        let failed = client.action(async |a| {
            x.add(a, 1).await?;
            m.leave(a, &y, &gate).await?;
            Ok::<_, SystemError>(())
        });
        let error = failed.await.unwrap_err();
        assert!(error.is_passing(), "{error}");
        assert!(error.to_string().contains("servant"), "{error}");
        arrived(&gate, 1).await;
        open(&gate, 1);
        assert_eq!(values(client, &[x, y]).await, [0, 0]);
        pair.stop().await;
    });
}

#[test]
fn a_call_that_would_wait_for_itself_is_refused_at_once() {
    run(async {
        let pair = Pair::start().await;
        let [x, _] = pair.counters(100).await;
        let ([m, n], client) = (movers(&pair).await, &pair.client);
        let begun = Instant::now();
        let refused = client.action(async |a| x.give(a, &x, 1).await);
        let error = refused.await.unwrap_err().into_cause().unwrap();
        assert!(
            matches!(&error, GiveError::System(e) if e.kind() == ErrorKind::Reentrant),
            "{error:?}"
        );
        // Two hops away, with and without an action.
        let chain = [n.clone(), m.clone()];
        let refused = client.action(async |a| m.pass_on(a, &chain, &x, 1).await);
        let error = refused.await.unwrap_err().into_cause().unwrap();
        assert_eq!(error.kind(), ErrorKind::Reentrant, "{error}");
        let error = m.pass_on(client, &chain, &x, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Reentrant, "{error}");
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(x.value(client).await.unwrap(), 100);
        pair.stop().await;
    });
}
