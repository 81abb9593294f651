//! Actions over real nodes: what commits is everywhere and stays, what aborts has never been.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::behaviour::Counter;
use common::behaviour::counter::TakeError;
use common::pair::{Pair, given_up, values};
use common::{arrived, client_of, new_gate, open, run};
use partha::{
    AbortReason, Action, ActionError, ActionId, ActionOptions, ErrorKind, Outcome, Place,
    SystemError,
};
use tokio::task::spawn_local;

#[test]
fn a_commit_over_two_nodes_is_visible_and_stays() {
    run(async {
        let mut pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let (client, moved) = (&pair.client, 7);
        let left = client
            .action(async |a| {
                let left = x.take(a, moved).await?;
                y.add(a, moved).await?;
                Ok::<_, TakeError>(left)
            })
            .await
            .unwrap();
        assert_eq!(left, 93);
        assert_eq!(values(client, &[x.clone(), y.clone()]).await, [93, 107]);
        pair.is_clean().await;
        pair = pair.restart().await;
        assert_eq!(values(&pair.client, &[x, y]).await, [93, 107]);
        pair.stop().await;
    });
}

#[test]
fn an_error_undoes_all_and_comes_back() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let client = &pair.client;
        let failed = client
            .action(async |a| {
                y.add(a, 500).await?;
                x.take(a, 500).await?;
                Ok::<_, TakeError>(())
            })
            .await
            .unwrap_err();
        let ActionError::Aborted { reason, cause, .. } = &failed else {
            panic!("{failed}");
        };
        assert_eq!(*reason, AbortReason::Program);
        let raised = cause.as_ref().unwrap();
        assert!(
            matches!(raised, TakeError::TooLittle(e) if e.have == 100),
            "{raised:?}"
        );
        assert!(!failed.is_passing());
        assert_eq!(values(client, &[x, y]).await, [100, 100]);
        pair.stop().await;
    });
}

#[test]
fn a_panic_undoes_all_and_goes_on() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let task = {
            let (client, x, y) = (pair.client.clone(), x.clone(), y.clone());
            spawn_local(async move {
                let action = client.action(async |a| {
                    x.add(a, 1).await?;
                    a.nested(async |b| {
                        y.add(b, 1).await?;
                        assert!(x.uid() == y.uid(), "as planned");
                        Ok::<_, SystemError>(())
                    })
                    .await?;
                    Ok::<_, SystemError>(())
                });
                action.await
            })
        };
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(values(&pair.client, &[x, y]).await, [100, 100]);
        pair.stop().await;
    });
}

#[test]
fn a_dropped_action_is_undone_even_in_a_call() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let (client, gate) = (&pair.client, new_gate("dropped"));
        {
            let action = client.action(async |a| {
                x.add(a, 1).await?;
                y.add_at_gate(a, 1, &gate).await?;
                Ok::<_, SystemError>(())
            });
            tokio::select! {
                ended = action => panic!("nobody opened the gate: {ended:?}"),
                () = arrived(&gate, 1) => {}
            }
        }
        assert_eq!(x.value(client).await.unwrap(), 100);
        // The servant that runs cannot be stopped, but its work is undone when it ends.
        open(&gate, 1);
        assert_eq!(y.value(client).await.unwrap(), 100);
        pair.stop().await;
    });
}

#[test]
fn a_nested_abort_undoes_the_nested_action_alone() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let client = &pair.client;
        client
            .action(async |a| {
                x.add(a, 1).await?;
                let nested = a.nested(async |b| {
                    assert_eq!(x.add(b, 10).await?, 111);
                    y.add(b, 10).await?;
                    Err::<(), _>(given_up())
                });
                let error = nested.await.unwrap_err();
                assert_eq!(error.into_cause(), Some(given_up()));
                assert_eq!(x.value(a).await?, 101, "as before the nested one");
                let nested = a.nested(async |b| {
                    b.nested(async |c| y.add(c, 5).await).await?;
                    y.add(b, 5).await
                });
                assert_eq!(nested.await?, 110);
                assert_eq!(y.value(a).await?, 110, "inherited");
                Ok::<_, SystemError>(())
            })
            .await
            .unwrap();
        assert_eq!(values(client, &[x, y]).await, [101, 110]);
        pair.stop().await;
    });
}

#[test]
fn siblings_run_side_by_side_and_take_turns_at_an_object() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(0).await;
        let client = &pair.client;
        client
            .action(async |a| {
                let add = async |first: &Counter, second: &Counter| {
                    a.nested(async |b| {
                        let value = first.value(b).await?;
                        first.set(b, value + 1).await?;
                        second.add(b, 0).await?;
                        Ok::<_, SystemError>(())
                    })
                    .await
                };
                // In the same order: one waits for the other, and they do not lock each other
                // out. Reading first is what makes it the same object's turn twice.
                let (one, two) = tokio::join!(add(&x, &y), add(&y, &y));
                one?;
                two?;
                Ok::<_, SystemError>(())
            })
            .await
            .unwrap();
        assert_eq!(values(client, &[x, y]).await, [1, 1]);
        pair.stop().await;
    });
}

#[test]
fn others_see_an_action_when_it_has_committed_and_not_before() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let client = pair.client.clone();
        let seen = {
            let mut seen = None;
            let seen_by = client_of(&pair.nodes[0]).await;
            client
                .action(async |a| {
                    x.add(a, 1).await?;
                    let x = x.clone();
                    let value = spawn_local(async move { x.value(&seen_by).await });
                    y.add(a, 1).await?;
                    assert!(!value.is_finished(), "the object is locked");
                    seen = Some(value);
                    Ok::<_, SystemError>(())
                })
                .await
                .unwrap();
            seen.unwrap()
        };
        assert_eq!(seen.await.unwrap().unwrap(), 101);
        pair.stop().await;
    });
}

#[test]
fn a_top_level_action_within_stays_whatever_becomes_of_the_outer_one() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let client = &pair.client;
        let failed = client
            .action(async |a| {
                x.add(a, 1).await?;
                a.top_level(async |t| y.add(t, 1).await).await?;
                assert_eq!(y.value(client).await?, 101, "committed on its own");
                Err::<(), _>(given_up())
            })
            .await;
        failed.unwrap_err();
        assert_eq!(values(client, &[x, y]).await, [100, 101]);
        pair.stop().await;
    });
}

#[test]
fn calling_in_a_top_level_action_what_the_outer_one_has_locked_is_refused_at_once() {
    run(async {
        let pair = Pair::start().await;
        let [x, _] = pair.counters(100).await;
        let begun = Instant::now();
        let client = &pair.client;
        client
            .action(async |a| {
                x.add(a, 1).await?;
                let inner = a.top_level(async |t| x.add(t, 1).await);
                let error = inner.await.unwrap_err().into_cause().unwrap();
                assert_eq!(error.kind(), ErrorKind::Reentrant, "{error}");
                Ok::<_, SystemError>(())
            })
            .await
            .unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(x.value(client).await.unwrap(), 101);
        pair.stop().await;
    });
}

#[test]
fn an_object_made_in_an_aborted_action_does_not_exist() {
    run(async {
        let pair = Pair::start().await;
        let client = &pair.client;
        let place = Place::Node(pair.nodes[1].me().node);
        let mut made = None;
        let failed = client
            .action(async |a| {
                let counter = Counter::create(a, &place, 5, partha::Bytes::new()).await?;
                assert_eq!(counter.add(a, 1).await?, 6, "it exists in the action");
                made = Some(counter);
                Err::<(), _>(given_up())
            })
            .await;
        failed.unwrap_err();
        let error = made.unwrap().value(client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSuchObject, "{error}");

        let kept = client
            .action(async |a| {
                let counter = Counter::create(a, &place, 5, partha::Bytes::new()).await?;
                counter.add(a, 1).await?;
                Ok::<_, SystemError>(counter)
            })
            .await
            .unwrap();
        let pair = pair.restart().await;
        assert_eq!(kept.value(&pair.client).await.unwrap(), 6);
        pair.stop().await;
    });
}

#[test]
fn rows_are_part_of_it() {
    run(async {
        let pair = Pair::start().await;
        let [x, _] = pair.counters(0).await;
        let client = &pair.client;
        let names = async |caller: &dyn Fn() -> partha::CallOptions| {
            let rows = x.rows(&caller(), "", 10).await.unwrap();
            rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
        };
        let commit = client.action(async |a| {
            x.put_row(a, "kept", 1).await?;
            let nested = a.nested(async |b| {
                x.put_row(b, "lost", 1).await?;
                assert_eq!(names(&|| b.call()).await, ["kept", "lost"]);
                Err::<(), _>(given_up())
            });
            nested.await.unwrap_err();
            assert_eq!(names(&|| a.call()).await, ["kept"]);
            Ok::<_, SystemError>(())
        });
        commit.await.unwrap();
        let abort = client.action(async |a| {
            x.put_row(a, "undone", 1).await?;
            Err::<(), _>(given_up())
        });
        abort.await.unwrap_err();
        assert_eq!(names(&|| client.call()).await, ["kept"]);
        let pair = pair.restart().await;
        let client = &pair.client;
        assert_eq!(names(&|| client.call()).await, ["kept"]);
        pair.stop().await;
    });
}

#[test]
fn time_that_is_up_aborts() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let (client, gate) = (&pair.client, new_gate("expired"));
        let soon = ActionOptions::new().deadline(Duration::from_millis(300));
        let failed = client
            .action_with(soon, async |a| {
                x.add(a, 1).await?;
                std::future::pending::<()>().await;
                Ok::<_, SystemError>(())
            })
            .await
            .unwrap_err();
        let ActionError::Aborted { reason, .. } = failed else {
            panic!("{failed}");
        };
        assert_eq!(reason, AbortReason::Expired);
        let failed = client
            .action_with(soon, async |a| {
                y.add_at_gate(a, 1, &gate).await?;
                Ok::<_, SystemError>(())
            })
            .await;
        failed.unwrap_err();
        open(&gate, 1);
        assert_eq!(values(client, &[x, y]).await, [100, 100]);
        pair.stop().await;
    });
}

#[test]
fn a_call_that_is_given_up_dooms_its_level() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let (client, gate) = (&pair.client, new_gate("given-up"));
        client
            .action(async |a| {
                x.add(a, 1).await?;
                let nested = a.nested(async |b| {
                    tokio::select! {
                        added = y.add_at_gate(b, 1, &gate) => panic!("{added:?}"),
                        () = arrived(&gate, 1) => {}
                    }
                    assert!(b.doomed().is_some());
                    let error = y.value(b).await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ActionAborted, "{error}");
                    Ok::<_, SystemError>(())
                });
                let error = nested.await.unwrap_err();
                assert!(matches!(error, ActionError::Aborted { .. }), "{error}");
                assert!(a.doomed().is_none());
                open(&gate, 1);
                assert_eq!(y.value(a).await?, 100);
                Ok::<_, SystemError>(())
            })
            .await
            .unwrap();
        assert_eq!(values(client, &[x, y]).await, [101, 100]);
        pair.stop().await;
    });
}

#[test]
fn a_caller_kept_after_the_end_is_of_no_use() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let client = &pair.client;
        let mut kept = None;
        client
            .action(async |a| {
                kept = Some(a.call());
                x.add(a, 1).await
            })
            .await
            .unwrap();
        let kept = kept.unwrap();
        let error = x.add(&kept, 1).await.unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");

        let gate = new_gate("unfinished");
        let failed = client
            .action(async |a| {
                let (late, at, y) = (a.call(), gate.clone(), y.clone());
                x.add(a, 1).await?;
                spawn_local(async move { y.add_at_gate(&late, 1, &at).await });
                arrived(&gate, 1).await;
                Ok::<_, SystemError>(())
            })
            .await
            .unwrap_err();
        let ActionError::Aborted { reason, .. } = &failed else {
            panic!("{failed}");
        };
        let (calls, children) = (1, 0);
        assert_eq!(*reason, AbortReason::Unfinished { calls, children });
        open(&gate, 1);
        assert_eq!(values(client, &[x, y]).await, [101, 100]);
        pair.stop().await;
    });
}

#[test]
fn a_manual_action_is_the_same_step_by_step() {
    run(async {
        let pair = Pair::start().await;
        let [x, y] = pair.counters(100).await;
        let client = &pair.client;
        let action = client.begin();
        x.add(&action, 1).await.unwrap();
        let nested = action.begin_nested().unwrap();
        y.add(&nested, 1).await.unwrap();
        nested.commit().await.unwrap();
        let nested = action.begin_nested().unwrap();
        y.add(&nested, 50).await.unwrap();
        nested.abort();
        action.commit().await.unwrap();
        let dropped = client.begin();
        x.add(&dropped, 1).await.unwrap();
        drop(dropped);
        assert_eq!(values(client, &[x, y]).await, [101, 101]);

        let id = client.begin().id();
        let error = client.outcome(id).await.unwrap_err();
        assert!(error.to_string().contains("partha outcome"), "{error}");
        let node = pair.nodes[0].me().node;
        let id: ActionId = format!("{}@{node}#0", id.uid()).parse().unwrap();
        assert_eq!(client.outcome(id).await.unwrap(), Outcome::Aborted);
        pair.stop().await;
    });
}

/// What it takes to run on a runtime with many threads.
#[test]
fn an_action_can_be_spawned_on_many_threads() {
    fn is_caller<C: partha::Caller + Send + Sync>(caller: &C) -> &C {
        caller
    }
    async fn both(a: &Action, x: &Counter, y: &Counter) -> Result<i64, SystemError> {
        let one = a.nested(async |b| x.add(b, 1).await);
        let two = a.nested(async |b| y.add(is_caller(b), 1).await);
        let (one, two) = tokio::join!(one, two);
        Ok(one? + two?)
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let pair = Pair::start().await;
        let mut tasks = tokio::task::JoinSet::new();
        for round in 0..8 {
            let (client, [x, y]) = (pair.client.clone(), pair.counters(round).await);
            tasks.spawn(async move {
                let action = async |a: &Action| both(a, &x, &y).await;
                match round % 2 {
                    0 => client.action(action).await,
                    _ => client.action_retry(action).await,
                }
            });
        }
        let mut sum = 0;
        while let Some(done) = tasks.join_next().await {
            sum += done.unwrap().unwrap();
        }
        assert_eq!(sum, 2 * (8 + (0..8).sum::<i64>()));
        pair.stop().await;
    });
}
