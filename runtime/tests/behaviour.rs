//! What a call does, over both faces: results, exceptions, failures, at most once, deadlines,
//! readers and writers, call-backs, sizes.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::Duration;

use common::{
    Arrivals, Face, Failure, How, Kind, NOW, UNLUCKY, arrived, begun, new_gate, node_for, open,
    stop, until,
};
use test_support::temp_dir;
use tokio::task::spawn_local;

both_faces! {
    a_counter_counts
    what_raises_changes_nothing
    what_fails_changes_nothing
    a_constructor_may_fail_too
    asking_again_gets_the_saved_answer_after_a_restart
    a_raised_exception_is_saved_too
    a_duplicate_of_a_running_call_joins_it
    making_twice_under_one_call_id_makes_one_object
    readers_run_together_and_a_writer_alone
    calls_of_one_object_run_in_the_order_they_came
    a_deadline_in_the_queue_means_not_executed
    a_deadline_while_it_runs_means_maybe
    a_destructor_that_panics_when_its_servant_is_stopped_harms_nobody
}

async fn a_counter_counts(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(5).await;
    assert_eq!(counter.value(&NOW).await, Ok(5));
    assert_eq!(counter.add(&NOW, 2).await, Ok(7));
    assert_eq!(counter.take(&NOW, 3).await, Ok(4));
    assert_eq!(counter.set(&NOW, -1).await, Ok(()));
    assert_eq!(counter.value(&NOW).await, Ok(-1));
    stop(node).await;
    let node = node_for(kind, dir.path()).await;
    let face = face.reopen(&node).await;
    assert_eq!(
        face.bind(counter.uid).await.unwrap().value(&NOW).await,
        Ok(-1)
    );
    assert_eq!(node.me().incarnation.0, 2);
    stop(node).await;
}

async fn what_raises_changes_nothing(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let counter = Face::open(kind, &node).await.counter(7).await;
    let too_little = Failure::TooLittle {
        have: 7,
        wanted: 100,
    };
    assert_eq!(counter.take(&NOW, 100).await, Err(too_little));
    assert_eq!(counter.value(&NOW).await, Ok(7));
    assert_eq!(counter.take(&NOW, 7).await, Ok(0));
    stop(node).await;
}

async fn what_fails_changes_nothing(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let counter = Face::open(kind, &node).await.counter(5).await;
    for _ in 0..3 {
        let panicked = counter.panic(&NOW).await.unwrap_err();
        panicked.says(&["servant failed", "behaviour.Counter.panic", "as asked"]);
        assert!(!panicked.is_maybe(), "nothing was executed: {panicked:?}");
        let gave_up = counter.give_up(&NOW).await.unwrap_err();
        gave_up.says(&["servant failed", "no wish to go on"]);
        assert!(!gave_up.is_maybe(), "nothing was executed: {gave_up:?}");
    }
    assert_eq!(counter.value(&NOW).await, Ok(5));
    assert_eq!(counter.add(&NOW, 1).await, Ok(6));
    stop(node).await;
}

async fn a_constructor_may_fail_too(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    // One for each shard, and one more.
    for _ in 0..3 {
        let failure = face.create(&NOW, UNLUCKY, 0).await.unwrap_err();
        failure.says(&["servant failed", "behaviour.Counter", "an unlucky number"]);
    }
    for value in 0..8 {
        assert_eq!(face.counter(value).await.value(&NOW).await, Ok(value));
    }
    assert_eq!(face.objects(partha::Uid::NIL, 100).await.len(), 8);
    stop(node).await;
}

async fn asking_again_gets_the_saved_answer_after_a_restart(kind: Kind) {
    let dir = temp_dir("behaviour");
    let first = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &first).await;
    let counter = face.counter(0).await;
    let id = face.new_call_id();
    assert_eq!(counter.add(&How::named(id), 3).await, Ok(3));
    assert_eq!(counter.add(&NOW, 4).await, Ok(7));
    assert_eq!(
        counter.add(&How::again(id), 3).await,
        Ok(3),
        "saved, not executed"
    );
    stop(first).await;
    let second = node_for(kind, dir.path()).await;
    let face = face.reopen(&second).await;
    let counter = face.bind(counter.uid).await.unwrap();
    assert_eq!(counter.add(&How::again(id), 3).await, Ok(3));
    assert_eq!(counter.value(&NOW).await, Ok(7));
    assert_eq!(face.statistics().await.duplicates, 1);
    stop(second).await;
}

async fn a_raised_exception_is_saved_too(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    let id = face.new_call_id();
    let too_little = Err(Failure::TooLittle { have: 1, wanted: 2 });
    assert_eq!(counter.take(&How::named(id), 2).await, too_little);
    assert_eq!(counter.add(&NOW, 10).await, Ok(11));
    assert_eq!(
        counter.take(&How::again(id), 2).await,
        too_little,
        "its answer was given"
    );
    assert_eq!(counter.value(&NOW).await, Ok(11));
    // A failure is no answer: asking again executes.
    let id = face.new_call_id();
    counter.give_up(&How::named(id)).await.unwrap_err();
    counter
        .give_up(&How::again(id))
        .await
        .unwrap_err()
        .says(&["no wish to go on"]);
    stop(node).await;
}

async fn a_duplicate_of_a_running_call_joins_it(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(0).await;
    let (id, gate) = (face.new_call_id(), new_gate("joined"));
    let (first, second) = (How::named(id), How::again(id));
    let opener = async {
        arrived(&gate, 1).await;
        // The second has joined when the node counts it.
        until(|| async { face.statistics().await.duplicates == 1 }).await;
        open(&gate, 1);
    };
    let (a, b, ()) = tokio::join!(
        counter.add_at_gate(&first, 5, &gate),
        async {
            arrived(&gate, 1).await;
            counter.add_at_gate(&second, 5, &gate).await
        },
        opener
    );
    assert_eq!((a, b), (Ok(5), Ok(5)));
    assert_eq!(begun(&gate), 1);
    assert_eq!(counter.value(&NOW).await, Ok(5));
    stop(node).await;
}

async fn making_twice_under_one_call_id_makes_one_object(kind: Kind) {
    let dir = temp_dir("behaviour");
    let first = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &first).await;
    let id = face.new_call_id();
    let (again, named) = (How::again(id), How::named(id));
    let (a, b) = tokio::join!(face.create(&named, 1, 0), face.create(&again, 1, 0));
    let made = a.unwrap();
    assert_eq!(b, Ok(made));
    assert_eq!(face.create(&again, 1, 0).await, Ok(made));
    stop(first).await;
    let second = node_for(kind, dir.path()).await;
    let face = face.reopen(&second).await;
    assert_eq!(face.create(&again, 1, 0).await, Ok(made));
    assert_eq!(face.objects(partha::Uid::NIL, 100).await.len(), 1);
    stop(second).await;
}

async fn readers_run_together_and_a_writer_alone(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    let (readers, writer, late) = (new_gate("readers"), new_gate("writer"), new_gate("late"));
    let read = |gate: &str| {
        let (counter, gate) = (counter.clone(), gate.to_owned());
        spawn_local(async move { counter.read_at_gate(&NOW, &gate).await })
    };
    let mut arrivals = Arrivals::count(&face).await;
    let first = [read(&readers), read(&readers), read(&readers)];
    arrived(&readers, 3).await;
    let write = {
        let (counter, writer) = (counter.clone(), writer.clone());
        spawn_local(async move { counter.add_at_gate(&NOW, 10, &writer).await })
    };
    arrivals.reach(4).await;
    let last = read(&late);
    arrivals.reach(5).await;
    for (left, reader) in first.into_iter().enumerate() {
        assert_eq!(
            begun(&writer),
            0,
            "the writer waits, {left} readers have gone"
        );
        open(&readers, 1);
        assert_eq!(reader.await.unwrap(), Ok(1));
    }
    arrived(&writer, 1).await;
    assert_eq!(begun(&late), 0, "who comes after a writer waits for it");
    open(&writer, 1);
    assert_eq!(write.await.unwrap(), Ok(11));
    open(&late, 1);
    assert_eq!(last.await.unwrap(), Ok(11));
    stop(node).await;
}

async fn calls_of_one_object_run_in_the_order_they_came(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(0).await;
    let gate = new_gate("first");
    let mut arrivals = Arrivals::count(&face).await;
    let mut calls = Vec::new();
    for n in 0..20 {
        let (counter, gate) = (counter.clone(), gate.clone());
        let call = async move {
            match n {
                0 => counter.add_at_gate(&NOW, 1, &gate).await,
                n if n % 2 == 0 => counter.value(&NOW).await,
                _ => counter.add(&NOW, 1).await,
            }
        };
        calls.push(spawn_local(call));
        arrivals.reach(n + 1).await;
    }
    open(&gate, 1);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(
            call.await.unwrap(),
            Ok(1 + n.div_ceil(2) as i64),
            "call {n}"
        );
    }
    stop(node).await;
}

async fn a_deadline_in_the_queue_means_not_executed(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(0).await;
    let (gate, id) = (new_gate("queue"), face.new_call_id());
    let opener = async {
        arrived(&gate, 1).await;
        let short = How {
            deadline: Some(Duration::from_millis(50)),
            ..How::named(id)
        };
        let late = counter.add(&short, 100).await.unwrap_err();
        late.says(&["deadline passed", "waited until its deadline", "add of"]);
        assert!(!late.is_maybe(), "{late:?}");
        open(&gate, 1);
    };
    let (first, ()) = tokio::join!(counter.add_at_gate(&NOW, 1, &gate), opener);
    assert_eq!(first, Ok(1));
    assert_eq!(
        counter.value(&NOW).await,
        Ok(1),
        "what was late is never executed"
    );
    assert_eq!(
        counter.add(&How::again(id), 100).await,
        Ok(101),
        "so asking again executes it"
    );
    stop(node).await;
}

async fn a_deadline_while_it_runs_means_maybe(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(0).await;
    let (gate, id) = (new_gate("running"), face.new_call_id());
    let short = How {
        deadline: Some(Duration::from_millis(100)),
        ..How::named(id)
    };
    let late = counter.add_at_gate(&short, 1, &gate).await.unwrap_err();
    late.says(&["deadline passed", "did not end before its deadline"]);
    assert!(late.is_maybe(), "{late:?}");
    assert_eq!(begun(&gate), 1);
    // Its servant was stopped where it waited: nothing of it is left, and nothing is locked.
    assert_eq!(counter.value(&NOW).await, Ok(0));
    open(&gate, 1);
    assert_eq!(counter.value(&NOW).await, Ok(0), "nobody is at the gate");
    // So asking again executes it, and once.
    assert_eq!(counter.add_at_gate(&How::again(id), 1, &gate).await, Ok(1));
    assert_eq!(counter.add_at_gate(&How::again(id), 1, &gate).await, Ok(1));
    assert_eq!((begun(&gate), counter.value(&NOW).await), (2, Ok(1)));
    stop(node).await;
}

async fn a_destructor_that_panics_when_its_servant_is_stopped_harms_nobody(kind: Kind) {
    let dir = temp_dir("behaviour");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(0).await;
    let gate = new_gate("brittle");
    let short = How {
        deadline: Some(Duration::from_millis(200)),
        ..NOW
    };
    let stopped = counter.add_at_gate(&short, 1, &gate).await.unwrap_err();
    stopped.says(&["deadline passed"]);
    assert_eq!(begun(&gate), 1);
    assert_eq!(
        counter.add(&NOW, 2).await,
        Ok(2),
        "the node is there, its lock free"
    );
    stop(node).await;
}
