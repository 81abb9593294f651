//! Server processes whose objects have lost their images end, in their time or when others need
//! the room.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;
#[path = "common/worker.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]
mod worker;
#[path = "common/workshop.rs"]
#[allow(unreachable_pub, reason = "a part of each test binary")]
mod workshop;

use std::time::Duration;

use common::{client_of, run, stop, until};
use partha::{ActivationPolicy, ErrorKind, Limits, Node, ServerReport, SystemError};
use test_support::temp_dir;
use worker::elsewhere::Worker;
use worker::elsewhere::worker::TakeError;
use worker::{Gate, worker};
use workshop::{be_a_process, workshop};

#[test]
#[ignore = "a server process of the other tests"]
fn server_process() {
    be_a_process();
}

/// What the node knows of the process of an object.
fn report(node: &Node, object: &Worker) -> Option<ServerReport> {
    let of_object = |report: &ServerReport| report.object == Some(object.uid());
    node.servers().into_iter().find(of_object)
}

/// Whether the process of an object is ended by the node, not crashed.
fn has_ended(node: &Node, object: &Worker) -> bool {
    report(node, object).is_none_or(|report| {
        let exit = report.last_exit.unwrap_or_default();
        report.pid.is_none() && report.crashes == 0 && exit.contains("nobody needed it")
    })
}

#[test]
fn one_whose_object_is_idle_ends_however_its_last_call_ended() {
    run(async {
        let dir = temp_dir("servers-unused");
        let limits = Limits {
            idle_ns: 200_000_000,
            ..Limits::default()
        };
        let node = workshop(dir.path(), ActivationPolicy::ProcessPerObject)
            .limits(limits)
            .start()
            .await
            .unwrap();
        let client = client_of(&node).await;
        let raised = worker(&client, &node, 1).await;
        let failed = worker(&client, &node, 2).await;
        let killed = worker(&client, &node, 3).await;
        let maker = worker(&client, &node, 4).await;
        let undone = {
            let error = raised.take(&client, 8).await.unwrap_err();
            assert!(matches!(error, TakeError::Refused(_)), "{error:?}");
            let error = failed.fail(&client, false).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Servant);
            // The process is up before the call that is killed.
            assert_eq!(killed.value(&client).await.unwrap(), 3);
            let gate = Gate::new(dir.path(), "gate");
            let brief = client.call().deadline(Duration::from_millis(300));
            let error = killed.wait(&brief, &gate.name()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Deadline);
            // One made in an action that is undone goes for good.
            let made = client.action(async |a| {
                let made = maker.make(a, 5).await?;
                assert_eq!(made.value(a).await?, 5);
                Err::<(), _>(SystemError::servant(made.uid().to_string()))
            });
            let detail = made.await.unwrap_err().to_string();
            node.servers()
                .into_iter()
                .filter_map(|report| report.object)
                .find(|uid| detail.contains(&uid.to_string()))
        };
        let undone = Worker::from_uid(undone.expect("it had a process"));
        for object in [&raised, &failed, &killed, &undone] {
            until(|| async { has_ended(&node, object) }).await;
        }
        for (object, value) in [(&raised, 1), (&failed, 2), (&killed, 3)] {
            assert_eq!(object.value(&client).await.unwrap(), value);
        }
        stop(node).await;
    });
}

#[test]
fn the_longest_unused_one_makes_room_and_one_in_use_never_does() {
    run(async {
        let dir = temp_dir("servers-room");
        let node = workshop(dir.path(), ActivationPolicy::ProcessPerObject)
            .servers_max(2)
            .start()
            .await
            .unwrap();
        let client = client_of(&node).await;
        let (one, two) = (
            worker(&client, &node, 1).await,
            worker(&client, &node, 2).await,
        );
        let three = worker(&client, &node, 3).await;
        for object in [&one, &two] {
            object.take(&client, 8).await.unwrap_err();
        }
        let kept = report(&node, &two).unwrap().pid.unwrap();
        assert_eq!(three.value(&client).await.unwrap(), 3);
        assert!(has_ended(&node, &one), "{:?}", node.servers());
        assert_eq!(report(&node, &two).unwrap().pid, Some(kept));
        // Its next call has it in use again: now there is no room.
        assert_eq!(two.process(&client).await.unwrap(), kept);
        let error = one.value(&client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        // Many that come at once share what there is.
        two.take(&client, 8).await.unwrap_err();
        let calls = (0..4).map(|_| one.value(&client));
        for value in futures_util::future::join_all(calls).await {
            assert_eq!(value.unwrap(), 1);
        }
        assert!(has_ended(&node, &two), "{:?}", node.servers());
        stop(node).await;
    });
}
