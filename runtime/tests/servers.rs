//! Servants in processes of their own: what they do to their process is nobody else's trouble.

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

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{PATIENCE, builder, client_of, run, stop, until};
use partha::{ActivationPolicy, Client, Completed, ErrorKind, Limits, Node, NodeBuilder};
use partha::{Place, ServerReport};
use rustix::process::{Pid, Signal, kill_process};
use test_support::{Child, temp_dir};
use tokio::task::spawn_local;
use worker::elsewhere::Worker;
use worker::elsewhere::worker::{self as workers, TakeError};
use worker::{Gate, WorkerServant, worker};
use workshop::{be_a_process, workshop};

const DIR: &str = "PARTHA_TEST_NODE_DIR";
const INHERITED: &str = "PARTHA_TEST_INHERITED_DIR";
const READY: &str = "> ready ";

#[test]
#[ignore = "a server process of the other tests"]
fn server_process() {
    be_a_process();
}

/// A program that server processes start; it has a node of its own.
#[test]
#[ignore = "a process of the other tests"]
fn inheriting_process() {
    let Some(dir) = std::env::var_os(INHERITED) else {
        return;
    };
    run(async {
        assert!(std::env::var_os("PARTHA_SERVER_PROCESS").is_some());
        let node = builder(&Path::new(&dir).join("node"));
        stop(node.start().await.unwrap()).await;
        std::fs::write(Path::new(&dir).join("done"), "").unwrap();
    });
}

#[test]
#[ignore = "a node of the other tests, and its server processes"]
fn node_process() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    run(async {
        let node = builder(Path::new(&dir));
        let class = workers::class(WorkerServant);
        let node = node.class_with(class, ActivationPolicy::ProcessPerObject);
        let node = node.start().await.unwrap();
        println!("{READY}{}", node.address());
        std::future::pending::<()>().await;
    });
}

async fn start(node: NodeBuilder) -> (Node, Client) {
    let node = node.start().await.unwrap();
    let client = client_of(&node).await;
    (node, client)
}

async fn per_object(dir: &Path) -> (Node, Client) {
    start(workshop(dir, ActivationPolicy::ProcessPerObject)).await
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// A process that nobody ends where its test fails.
struct Left(u32);

impl Drop for Left {
    fn drop(&mut self) {
        if !is_gone(self.0) {
            kill(self.0);
        }
    }
}

/// Whether a process is gone, or dead and only not reaped.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let state = stat.map(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('Z'));
    state.unwrap_or(true)
}

#[test]
fn killing_the_process_of_one_object_leaves_all_others_answering() {
    run(async {
        let dir = temp_dir("servers-kill");
        let (node, client) = per_object(dir.path()).await;
        let mut all = Vec::new();
        for value in 0..3 {
            all.push(worker(&client, &node, value).await);
        }
        let mut pids = BTreeSet::from([std::process::id()]);
        for (object, value) in all.iter().zip(0..) {
            assert_eq!(object.add(&client, 10).await.unwrap(), value + 10);
            pids.insert(object.process(&client).await.unwrap());
        }
        assert_eq!(pids.len(), 4, "one each, and the node's");
        let victim = all[1].process(&client).await.unwrap();
        kill(victim);
        for (object, value) in [(&all[0], 10), (&all[2], 12)] {
            assert_eq!(object.value(&client).await.unwrap(), value);
        }
        until(|| async { is_gone(victim) }).await;
        // The next call starts another process, which gets the committed state.
        assert_eq!(all[1].value(&client).await.unwrap(), 11);
        assert_ne!(all[1].process(&client).await.unwrap(), victim);
        let reports = node.servers();
        let report = reports.iter().find(|one| one.object == Some(all[1].uid()));
        let report = report.unwrap();
        assert_eq!((report.restarts, report.class), (1, "elsewhere.Worker"));
        assert!(
            report.last_exit.as_ref().unwrap().contains("SIGKILL"),
            "{report:?}"
        );
        stop(node).await;
    });
}

#[test]
fn a_servant_that_ends_its_process_fails_its_calls_and_nothing_else() {
    run(async {
        let dir = temp_dir("servers-crash");
        let (node, client) = per_object(dir.path()).await;
        let (one, two) = (
            worker(&client, &node, 1).await,
            worker(&client, &node, 2).await,
        );
        assert_eq!(two.value(&client).await.unwrap(), 2);
        let error = one.crash(&client, 7).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Servant);
        assert!(error.detail().contains("exit status: 7"), "{error}");
        assert_eq!(two.add(&client, 1).await.unwrap(), 3);
        assert_eq!(
            one.value(&client).await.unwrap(),
            1,
            "what it did is undone"
        );
        // One that reads is tried once more, and then it is the call that is to blame.
        let restarts = || {
            let of_one = |report: &ServerReport| report.object == Some(one.uid());
            node.servers().into_iter().find(of_one).unwrap().restarts
        };
        assert_eq!(restarts(), 1);
        let error = one.crash_reading(&client, 8).await.unwrap_err();
        assert!(error.detail().contains("exit status: 8"), "{error}");
        assert_eq!(restarts(), 2);
        stop(node).await;
    });
}

#[test]
fn it_is_like_any_other_servant_apart_from_its_process() {
    run(async {
        let dir = temp_dir("servers-like");
        let (node, client) = per_object(dir.path()).await;
        let one = worker(&client, &node, 10).await;
        assert_eq!(one.take(&client, 3).await.unwrap(), 7);
        match one.take(&client, 8).await.unwrap_err() {
            TakeError::Refused(refused) => assert_eq!((refused.have, refused.wanted), (7, 8)),
            other => panic!("{other:?}"),
        }
        for panic in [false, true] {
            let error = one.fail(&client, panic).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Servant);
            assert!(error.detail().contains("as asked"), "{error}");
        }
        assert_eq!(
            one.value(&client).await.unwrap(),
            7,
            "what failed is undone"
        );
        assert_eq!(one.thread_apart(&client).await.unwrap(), "partha-blocking");
        let id = client.new_call_id();
        let asked = one.asked(&client.call().id(id)).await.unwrap();
        assert_eq!(asked, format!("{} {:?}", client.me(), Some(id)));
        let id = client.new_call_id();
        assert_eq!(one.add(&client.call().id(id), 1).await.unwrap(), 8);
        assert_eq!(one.add(&client.call().again(id), 1).await.unwrap(), 8);
        node.evict(one.uid());
        assert_eq!(one.value(&client).await.unwrap(), 8);
        stop(node).await;
    });
}

#[test]
fn what_it_calls_joins_the_action() {
    run(async {
        let dir = temp_dir("servers-action");
        let (node, client) = per_object(dir.path()).await;
        let one = worker(&client, &node, 1).await;
        let two = worker(&client, &node, 2).await;
        let undone = client.action(async |a| {
            one.add_both(a, &two, 10).await?;
            let made = one.make(a, 5).await?;
            Err::<(), _>(partha::SystemError::servant(made.uid().to_string()))
        });
        let error = undone.await.unwrap_err();
        assert_eq!(one.value(&client).await.unwrap(), 1, "{error}");
        assert_eq!(two.value(&client).await.unwrap(), 2);
        let done = client.action(async |a| {
            one.add_both(a, &two, 10).await?;
            one.make(a, 5).await
        });
        let made: Worker = done.await.unwrap();
        assert_eq!(made.value(&client).await.unwrap(), 5);
        // From the disk, as an action has left it.
        for (object, value) in [(&one, 11), (&two, 12), (&made, 5)] {
            node.evict(object.uid());
            assert_eq!(object.value(&client).await.unwrap(), value);
        }
        stop(node).await;
    });
}

#[test]
fn what_it_did_at_other_shards_is_undone_when_the_client_is_gone() {
    run(async {
        let dir = temp_dir("servers-orphans");
        let builder = workshop(dir.path(), ActivationPolicy::ProcessPerObject);
        let (node, client) = start(builder.shards(2)).await;
        let manager = node.handle();
        let shard_of = async |worker: &Worker| {
            let described = manager.manager().inspect(&client, worker.uid()).await;
            described.unwrap().shard
        };
        let one = worker(&client, &node, 1).await;
        let mut two = worker(&client, &node, 2).await;
        while shard_of(&two).await == shard_of(&one).await {
            two = worker(&client, &node, 2).await;
        }
        for waits in [false, true] {
            let other = client_of(&node).await;
            let gate = Gate::new(dir.path(), "orphans");
            let action = other.begin();
            // Only the server process has called there.
            if waits {
                let (one, two, name) = (one.clone(), two.clone(), gate.name());
                spawn_local(async move {
                    let called = one.add_both_and_wait(&*action, &two, 10, &name).await;
                    called.unwrap_err();
                    std::mem::forget(action);
                });
                until(async || gate.is_reached()).await;
            } else {
                one.add_both(&*action, &two, 10).await.unwrap();
                // It does not end in order.
                std::mem::forget(action);
            }
            let me = other.me().node.0;
            let ended = manager.manager().end_session(&client, me, 0).await;
            ended.unwrap();
            // The lock is free long before the action's time is up.
            assert_eq!(two.value(&client).await.unwrap(), 2);
            assert_eq!(one.value(&client).await.unwrap(), 1);
        }
        stop(node).await;
    });
}

#[test]
fn an_action_whose_servant_dies_leaves_nothing() {
    run(async {
        let dir = temp_dir("servers-action-crash");
        let (node, client) = per_object(dir.path()).await;
        let (one, two) = (
            worker(&client, &node, 1).await,
            worker(&client, &node, 2).await,
        );
        let undone = client.action(async |a| {
            one.add_both(a, &two, 10).await?;
            one.crash(a, 3).await
        });
        let error = undone.await.unwrap_err();
        // The node may see first that a process has gone that called in the action.
        let texts = ["exit status: 3", "is aborted here"];
        let known = texts.iter().any(|text| error.to_string().contains(text));
        assert!(known, "{error}");
        assert_eq!(one.value(&client).await.unwrap(), 1);
        assert_eq!(two.value(&client).await.unwrap(), 2);
        stop(node).await;
    });
}

#[test]
fn all_objects_of_a_class_can_share_a_process() {
    run(async {
        let dir = temp_dir("servers-class");
        let node = workshop(dir.path(), ActivationPolicy::ProcessPerClass);
        let (node, client) = start(node).await;
        let (one, two) = (
            worker(&client, &node, 1).await,
            worker(&client, &node, 2).await,
        );
        let pid = one.process(&client).await.unwrap();
        assert_eq!(two.process(&client).await.unwrap(), pid);
        assert_ne!(pid, std::process::id());
        // Both calls are there when it ends: each is told.
        let gate = Gate::new(dir.path(), "gate");
        let call = {
            let (client, one, name) = (client.clone(), one.clone(), gate.name());
            spawn_local(async move { one.wait(&client, &name).await })
        };
        until(|| async { gate.is_reached() }).await;
        let error = two.crash(&client, 9).await.unwrap_err();
        assert!(error.detail().contains("exit status: 9"), "{error}");
        let error = call.await.unwrap().unwrap_err();
        assert!(error.detail().contains("exit status: 9"), "{error}");
        assert_eq!(one.add(&client, 1).await.unwrap(), 2);
        assert_eq!(two.add(&client, 1).await.unwrap(), 3);
        let [report] = &node.servers()[..] else {
            panic!("{:?}", node.servers())
        };
        assert_eq!((report.object, report.restarts), (None, 1));
        assert_eq!(report.pid, Some(two.process(&client).await.unwrap()));
        stop(node).await;
    });
}

#[test]
fn a_call_that_does_not_stop_is_stopped_with_its_process() {
    run(async {
        let dir = temp_dir("servers-stop");
        let (node, client) = per_object(dir.path()).await;
        let one = worker(&client, &node, 1).await;
        let pid = one.process(&client).await.unwrap();
        // One that waits is dropped there: the process stays.
        let gate = Gate::new(dir.path(), "wait");
        let brief = client.call().deadline(Duration::from_millis(300));
        let error = one.wait(&brief, &gate.name()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
        assert!(gate.is_reached());
        assert_eq!(one.add(&client, 1).await.unwrap(), 2);
        assert_eq!(one.process(&client).await.unwrap(), pid);
        // One that computes is not.
        let gate = Gate::new(dir.path(), "compute");
        let brief = client.call().deadline(Duration::from_millis(300));
        let error = one.compute(&brief, &gate.name()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
        // Nobody else is sent to a process that may be killed.
        assert_eq!(one.add(&client, 1).await.unwrap(), 3);
        assert_ne!(one.process(&client).await.unwrap(), pid);
        until(|| async { is_gone(pid) }).await;
        let exit = node.servers()[0].last_exit.clone().unwrap();
        assert!(exit.contains("was given up, but did not stop"), "{exit}");
        // One that never does otherwise is not started again as fast as it is called.
        let crashes = || node.servers()[0].crashes;
        assert_eq!(crashes(), 0, "a call has ended well since");
        for count in 1..=2 {
            let gate = Gate::new(dir.path(), &format!("compute-{count}"));
            let call = client.call().deadline(PATIENCE);
            let name = gate.name();
            tokio::select! {
                ended = one.compute(&call, &name) => panic!("{ended:?}"),
                () = until(|| async { gate.is_reached() }) => {}
            }
            until(|| async { crashes() == count }).await;
        }
        assert_eq!(one.add(&client, 1).await.unwrap(), 4);
        assert_eq!(crashes(), 0);
        stop(node).await;
    });
}

#[test]
fn a_process_that_ends_at_once_is_started_again_ever_more_slowly() {
    run(async {
        let dir = temp_dir("servers-loop");
        let node = workshop(dir.path(), ActivationPolicy::ProcessPerObject);
        let (node, client) = start(node.server_command("sh", ["-c", "exit 3"])).await;
        let one = worker(&client, &node, 1).await;
        let mut pauses = Vec::new();
        for crashes in 1..=4 {
            let began = Instant::now();
            let error = one.value(&client).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overloaded);
            assert_eq!(error.completion(), Completed::No);
            assert!(error.is_safe_to_retry(), "it was never sent: {error}");
            assert!(error.detail().contains("exit status: 3"), "{error}");
            if let Some(pause) = pauses.last() {
                assert!(
                    began.elapsed() >= *pause,
                    "{:?} after {pauses:?}",
                    began.elapsed()
                );
            }
            let [report] = &node.servers()[..] else {
                panic!("{:?}", node.servers())
            };
            assert_eq!((report.restarts, report.pid), (crashes - 1, None));
            pauses.push(report.pause.unwrap());
        }
        assert!(pauses[3] > pauses[0] * 4, "{pauses:?}");
        // Who cannot wait for the next start is told at once.
        let brief = client.call().deadline(Duration::from_millis(100));
        let error = one.value(&brief).await.unwrap_err();
        assert!(error.detail().contains("4 crashes in a row"), "{error}");
        stop(node).await;
    });
}

#[test]
fn they_end_with_their_objects_and_are_bounded() {
    run(async {
        let dir = temp_dir("servers-bound");
        let limits = Limits {
            idle_ns: 200_000_000,
            ..Limits::default()
        };
        let node = workshop(dir.path(), ActivationPolicy::ProcessPerObject);
        let (node, client) = start(node.servers_max(1).limits(limits)).await;
        let place = Place::Node(node.me().node);
        let one = Worker::create(&client, &place, 1).await.unwrap();
        let two = Worker::create(&client, &place, 2).await.unwrap();
        let gate = Gate::new(dir.path(), "gate");
        let call = {
            let (client, one, name) = (client.clone(), one.clone(), gate.name());
            spawn_local(async move { one.compute(&client, &name).await })
        };
        until(|| async { gate.is_reached() }).await;
        let error = two.value(&client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(
            error.detail().contains("NodeBuilder::servers_max"),
            "{error}"
        );
        gate.open();
        assert_eq!(call.await.unwrap().unwrap(), 2);
        let pid = one.process(&client).await.unwrap();
        drop(one);
        until(|| async { is_gone(pid) }).await;
        until(|| async { two.value(&client).await.is_ok() }).await;
        stop(node).await;
    });
}

#[test]
fn programs_that_they_start_are_no_server_processes() {
    run(async {
        let dir = temp_dir("servers-inherit");
        let node = workshop(&dir.path().join("this"), ActivationPolicy::ProcessPerObject);
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let only = |test: &str| format!("'{program}' --ignored --exact {test} --nocapture");
        let (theirs, own) = (only("inheriting_process"), only("server_process"));
        let script = format!("{theirs} < /dev/null > /dev/null 2>&1; exec {own}");
        let node = node.server_command("sh", ["-c", &script]);
        let (node, client) = start(node.server_env(INHERITED, dir.path())).await;
        let one = worker(&client, &node, 1).await;
        assert_ne!(one.process(&client).await.unwrap(), std::process::id());
        let done = dir.path().join("done");
        assert!(done.exists(), "it was taken for a server process");
        stop(node).await;
    });
}

#[test]
fn one_that_the_system_does_not_end_with_its_node_notices_by_itself() {
    run(async {
        let dir = temp_dir("servers-orphan");
        let node = workshop(dir.path(), ActivationPolicy::ProcessPerObject);
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        // Whose child it was is gone before it begins.
        let script = format!(
            "exec 3<&0; ('{program}' --ignored --exact server_process --nocapture <&3 &); \
             exec sleep 1000"
        );
        let (node, client) = start(node.server_command("sh", ["-c", &script])).await;
        let one = worker(&client, &node, 1).await;
        let left = Left(one.process(&client).await.unwrap());
        assert!(!is_gone(left.0));
        stop(node).await;
        until(|| async { is_gone(left.0) }).await;
    });
}

#[test]
fn they_die_with_their_node_however_it_dies() {
    let dir = temp_dir("servers-node");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "node_process", "--nocapture"]);
    command.env(DIR, dir.path().join("node"));
    let node = Child::spawn("node", &mut command);
    let line = node.wait_for_line(PATIENCE, |line| line.contains(READY));
    let address = line.split_once(READY).unwrap().1.to_owned();
    run(async {
        let client = Client::alone().unwrap();
        let id = client.locator().introduce(&client, &address).await.unwrap();
        let mut pids = Vec::new();
        let mut busy = None;
        for value in 0..3 {
            let object = Worker::create(&client, &Place::Node(id), value)
                .await
                .unwrap();
            let pid = object.process(&client).await.unwrap();
            assert_ne!(pid, node.id());
            pids.push(pid);
            busy = Some(object);
        }
        // One of them computes and would not notice by itself.
        let gate = Gate::new(dir.path(), "never");
        let (object, name) = (busy.unwrap(), gate.name());
        let call = {
            let client = client.clone();
            spawn_local(async move { object.compute(&client, &name).await })
        };
        until(|| async { gate.is_reached() }).await;
        assert!(pids.iter().all(|pid| !is_gone(*pid)));
        node.kill();
        until(|| async { pids.iter().all(|pid| is_gone(*pid)) }).await;
        call.abort();
    });
}

#[test]
fn they_are_of_the_node_s_own_build_though_its_file_is_gone() {
    let dir = temp_dir("servers-upgrade");
    let program = dir.path().join("node-program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["--ignored", "--exact", "node_process", "--nocapture"]);
    command.env(DIR, dir.path().join("node"));
    let node = Child::spawn("node", &mut command);
    let line = node.wait_for_line(PATIENCE, |line| line.contains(READY));
    let address = line.split_once(READY).unwrap().1.to_owned();
    // As an upgrade of a running program does.
    std::fs::remove_file(&program).unwrap();
    run(async {
        let client = Client::alone().unwrap();
        let id = client.locator().introduce(&client, &address).await.unwrap();
        let made = Worker::create(&client, &Place::Node(id), 1).await;
        let object = made.unwrap();
        assert_ne!(object.process(&client).await.unwrap(), node.id());
        assert_eq!(object.add(&client, 1).await.unwrap(), 2);
    });
}
