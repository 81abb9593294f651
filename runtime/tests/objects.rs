//! Objects, over both faces: binding and its refusals, call-backs, sizes, rows, inheritance, coming
//! into memory and leaving it, questions about a node.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::behaviour::{counter, named, other};
use common::{
    Face, Failure, How, Kind, NOW, arrived, begun, builder_of, new_gate, node_for, node_of, open,
    stop, until,
};
use partha::{Limits, Node, Uid};
use test_support::temp_dir;
use tokio::task::spawn_local;

both_faces! {
    who_is_not_there_cannot_be_bound
    the_wrong_class_is_refused_by_name
    a_method_that_nobody_has
    a_missing_argument_is_named
    arguments_that_are_none_make_no_object
    a_listener_is_called_back_through_the_same_connection
    data_up_to_the_limit_comes_back
    a_state_too_large_is_refused_and_undone
    rows_belong_to_the_call_that_wrote_them
    a_derived_object_is_one_of_its_base
    idle_objects_leave_memory_and_come_back
    objects_leave_memory_when_there_is_too_little
    an_object_in_use_is_not_evicted
    a_node_tells_what_it_is_and_has
    dropped_references_are_not_users
}

async fn who_is_not_there_cannot_be_bound(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let nobody = Uid::new(node.me().node, node.me().incarnation, 4711);
    assert_eq!(face.bind(nobody).await.err(), Some(Failure::NoSuchObject));
    assert_eq!(
        face.inspect(nobody).await.err(),
        Some(Failure::NoSuchObject)
    );
    let counter = face.counter(1).await;
    let stranger = Uid {
        node: partha::NodeId(7),
        local: counter.uid.local,
    };
    assert_eq!(face.bind(stranger).await.err(), Some(Failure::NoSuchObject));
    assert_eq!(face.bind(Uid::NIL).await.err(), Some(Failure::NoSuchObject));
    assert_eq!(counter.value(&NOW).await, Ok(1));
    stop(node).await;
}

async fn the_wrong_class_is_refused_by_name(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    let wrong = Some(Failure::WrongClass {
        found: "behaviour.Counter".to_owned(),
    });
    for class in [other::CLASS.0, named::CLASS.0, 12345] {
        assert_eq!(face.bind_as(counter.uid, class).await.err(), wrong);
    }
    // Class 0 takes any.
    assert_eq!(
        face.bind_as(counter.uid, 0)
            .await
            .unwrap()
            .value(&NOW)
            .await,
        Ok(1)
    );
    // The same for one that is not in memory.
    node.evict(counter.uid);
    until(|| async { !face.inspect(counter.uid).await.unwrap().active }).await;
    assert_eq!(face.bind_as(counter.uid, other::CLASS.0).await.err(), wrong);
    stop(node).await;
}

async fn a_method_that_nobody_has(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    let failure = counter.unknown_method().await.unwrap_err();
    failure.says(&["bad operation", "method 999", "node a"]);
    // One that another class of the node has.
    let failure = counter.name(&NOW).await.unwrap_err();
    failure.says(&["behaviour.Counter"]);
    assert_eq!(counter.value(&NOW).await, Ok(1));
    stop(node).await;
}

async fn a_missing_argument_is_named(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(10).await;
    let failure = counter.give(&NOW, None, 1).await.unwrap_err();
    failure.says(&["malformed message", "argument", "to"]);
    assert!(!failure.is_maybe());
    // Data and numbers that are left out are empty and 0, as Cap'n Proto has it.
    assert_eq!(counter.echo_of_nothing().await, Ok(0));
    assert_eq!(counter.value(&NOW).await, Ok(10));
    stop(node).await;
}

async fn arguments_that_are_none_make_no_object(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    for rubbish in [&b""[..], b"rubbish", &[0xff; 64], &[0, 0, 0, 0, 1, 0, 0, 0]] {
        let made = face.create_any(&NOW, counter::CLASS.0, rubbish).await;
        assert!(
            matches!(made, Err(Failure::BadArguments(_))),
            "{rubbish:?}: {made:?}"
        );
    }
    let made = face.create_any(&NOW, 12345, b"").await;
    assert!(matches!(made, Err(Failure::WrongClass { .. })), "{made:?}");
    assert_eq!(face.objects(Uid::NIL, 10).await.len(), 0);
    assert_eq!(face.counter(3).await.value(&NOW).await, Ok(3));
    stop(node).await;
}

async fn a_listener_is_called_back_through_the_same_connection(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let heard = Arc::new(AtomicI64::new(0));
    // On both shards, so that one of them is not the one of the foreign connections.
    for value in 1..=8 {
        let counter = face.counter(value).await;
        let sum = heard.clone();
        let hear = move |value| {
            sum.fetch_add(value, Ordering::Relaxed);
            -value
        };
        assert_eq!(counter.tell(&NOW, hear).await, Ok(-value));
    }
    assert_eq!(heard.load(Ordering::Relaxed), 36);
    stop(node).await;
}

async fn data_up_to_the_limit_comes_back(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    let limit = match kind {
        Kind::Native | Kind::Embedded => partha::MESSAGE_BYTES_MAX,
        // The guard's.
        Kind::Foreign => 1 << 20,
    };
    for bytes in [0, 1, 7, 8, 100_000, limit - 1024] {
        let data: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        assert_eq!(
            counter.echo(&NOW, &data).await.unwrap(),
            data,
            "{bytes} bytes"
        );
    }
    // An answer that is too large is an exception, no broken connection.
    let failure = counter.fill(&NOW, limit as u32 + 1).await.unwrap_err();
    match kind {
        Kind::Native | Kind::Embedded => failure.says(&["message too large", "(was executed)"]),
        Kind::Foreign => failure.says(&["Overloaded", "ask for less at a time"]),
    }
    assert_eq!(counter.value(&NOW).await, Ok(1));
    // A request that is too large is refused here at the native face; at the foreign one the
    // guard cuts the connection, which is all it can do to somebody else's program.
    let failure = counter.echo(&NOW, &vec![1; limit + 1]).await.unwrap_err();
    match kind {
        Kind::Native | Kind::Embedded => {
            failure.says(&["message too large"]);
            assert_eq!(counter.value(&NOW).await, Ok(1));
        }
        Kind::Foreign => {
            failure.says(&["connection cut", "at most 1048576 are allowed"]);
            let again = Face::open(kind, &node)
                .await
                .bind(counter.uid)
                .await
                .unwrap();
            assert_eq!(again.value(&NOW).await, Ok(1));
        }
    }
    stop(node).await;
}

async fn a_state_too_large_is_refused_and_undone(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    assert_eq!(counter.grow(&NOW, 2 << 20).await, Ok(()));
    let failure = counter.grow(&NOW, 2 << 20).await.unwrap_err();
    failure.says(&["message too large", "keep large data in rows"]);
    assert!(!failure.is_maybe(), "{failure:?}");
    let bytes = face.inspect(counter.uid).await.unwrap().state_bytes;
    assert!((2 << 20..3 << 20).contains(&bytes), "{bytes}");
    assert_eq!(counter.add(&NOW, 1).await, Ok(2));
    stop(node).await;
}

async fn rows_belong_to_the_call_that_wrote_them(kind: Kind) {
    let dir = temp_dir("objects");
    let first = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &first).await;
    let (counter, neighbour) = (face.counter(1).await, face.counter(2).await);
    for (n, key) in ["b", "a", "d"].into_iter().enumerate() {
        assert_eq!(counter.put_row(&NOW, key, n as i64).await, Ok(n as u64 + 1));
    }
    counter.put_row_and_give_up(&NOW, "c", 9).await.unwrap_err();
    counter.put_row_and_give_up(&NOW, "a", 9).await.unwrap_err();
    let id = face.new_call_id();
    assert_eq!(counter.put_row(&How::named(id), "e", 7).await, Ok(4));
    assert_eq!(
        counter.put_row(&How::again(id), "e", 8).await,
        Ok(4),
        "not executed again"
    );
    stop(first).await;
    let second = node_for(kind, dir.path()).await;
    let face = face.reopen(&second).await;
    let counter = face.bind(counter.uid).await.unwrap();
    let rows = |rows: Vec<common::behaviour::Pair>| -> Vec<(String, i64)> {
        rows.into_iter()
            .map(|pair| (pair.name, pair.value))
            .collect()
    };
    let expect = |rows: &[(&str, i64)]| -> Vec<(String, i64)> {
        rows.iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    };
    let all = rows(counter.rows(&NOW, "", 10).await.unwrap());
    assert_eq!(all, expect(&[("a", 1), ("b", 0), ("d", 2), ("e", 7)]));
    let page = rows(counter.rows(&NOW, "a", 2).await.unwrap());
    assert_eq!(page, expect(&[("b", 0), ("d", 2)]));
    let neighbour = face.bind(neighbour.uid).await.unwrap();
    assert_eq!(neighbour.rows(&NOW, "", 10).await, Ok(vec![]));
    stop(second).await;
}

async fn a_derived_object_is_one_of_its_base(kind: Kind) {
    let dir = temp_dir("objects");
    let first = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &first).await;
    let object = face.named("seven").await;
    assert_eq!(object.add(&NOW, 7).await, Ok(7));
    assert_eq!(object.name(&NOW).await, Ok("seven".to_owned()));
    let too_little = Failure::TooLittle { have: 7, wanted: 8 };
    assert_eq!(object.take(&NOW, 8).await, Err(too_little));
    let description = face.inspect(object.uid).await.unwrap();
    assert_eq!(description.class, named::CLASS.0);
    assert_eq!(description.class_name, "behaviour.Named");
    stop(first).await;
    let second = node_for(kind, dir.path()).await;
    let face = face.reopen(&second).await;
    for class in [named::CLASS, counter::CLASS] {
        let object = face.bind_as(object.uid, class.0).await.unwrap();
        assert_eq!(object.value(&NOW).await, Ok(7));
        assert_eq!(object.name(&NOW).await, Ok("seven".to_owned()));
    }
    let wrong = Failure::WrongClass {
        found: "behaviour.Named".to_owned(),
    };
    assert_eq!(
        face.bind_as(object.uid, other::CLASS.0).await.err(),
        Some(wrong)
    );
    stop(second).await;
}

async fn idle_objects_leave_memory_and_come_back(kind: Kind) {
    let dir = temp_dir("objects");
    // Bound objects stay ten times as long.
    let limits = Limits {
        idle_ns: 5_000_000,
        ..Limits::default()
    };
    let node = node_of(kind, dir.path(), limits).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    for value in 2..6 {
        assert_eq!(counter.add(&NOW, 1).await, Ok(value));
        until(|| async { !face.inspect(counter.uid).await.unwrap().active }).await;
        assert_eq!(face.statistics().await.active_objects, 0);
    }
    assert_eq!(counter.value(&NOW).await, Ok(5));
    let figures = face.statistics().await;
    assert!(
        figures.passivations >= 4 && figures.activations >= 4,
        "{figures:?}"
    );
    // An object that waits for something is not idle.
    let gate = new_gate("busy");
    let reading = {
        let (counter, gate) = (counter.clone(), gate.clone());
        spawn_local(async move { counter.read_at_gate(&NOW, &gate).await })
    };
    arrived(&gate, 1).await;
    let other = face.counter(0).await;
    until(|| async { !face.inspect(other.uid).await.unwrap().active }).await;
    assert!(face.inspect(counter.uid).await.unwrap().active);
    open(&gate, 1);
    assert_eq!(reading.await.unwrap(), Ok(5));
    stop(node).await;
}

async fn objects_leave_memory_when_there_is_too_little(kind: Kind) {
    let dir = temp_dir("objects");
    let limits = Limits {
        active_bytes_max: 100_000,
        ..Limits::default()
    };
    let node = node_of(kind, dir.path(), limits).await;
    let face = Face::open(kind, &node).await;
    let mut counters = Vec::new();
    for value in 0..40 {
        counters.push(face.padded(value, 10_000).await);
    }
    for round in 0..2 {
        for (value, counter) in counters.iter().enumerate() {
            assert_eq!(counter.add(&NOW, 1).await, Ok(value as i64 + 1 + round));
            let figures = face.statistics().await;
            // Two shards, and the one that is being called.
            assert!(figures.active_bytes <= 220_000, "{figures:?}");
        }
    }
    let figures = face.statistics().await;
    assert!(figures.passivations >= 60, "{figures:?}");
    assert_eq!(figures.active_bytes_max, 200_000);
    assert!(figures.evictions >= 60, "{figures:?}");
    // By number as well, said of the whole node, which has two shards.
    stop(node).await;
    let builder = builder_of(kind, dir.path()).active_objects_max(10);
    let node = builder.start().await.unwrap();
    let face = face.reopen(&node).await;
    for (value, counter) in counters.iter().enumerate() {
        let counter = face.bind(counter.uid).await.unwrap();
        assert_eq!(counter.value(&NOW).await, Ok(value as i64 + 2));
        assert!(face.statistics().await.active_objects <= 10);
    }
    let figures = face.statistics().await;
    assert_eq!(figures.active_objects_max, 10);
    assert!(figures.evictions >= 30, "{figures:?}");
    stop(node).await;
}

async fn an_object_in_use_is_not_evicted(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    node.evict(counter.uid);
    until(|| async { !face.inspect(counter.uid).await.unwrap().active }).await;
    assert_eq!(counter.add(&NOW, 1).await, Ok(2));
    let gate = new_gate("evict");
    let adding = {
        let (counter, gate) = (counter.clone(), gate.clone());
        spawn_local(async move { counter.add_at_gate(&NOW, 1, &gate).await })
    };
    arrived(&gate, 1).await;
    node.evict(counter.uid);
    // Asked behind the eviction.
    assert!(face.inspect(counter.uid).await.unwrap().active);
    open(&gate, 1);
    assert_eq!(adding.await.unwrap(), Ok(3));
    assert_eq!(begun(&gate), 1);
    stop(node).await;
}

async fn count_connections(kind: Kind, face: &Face, node: &Node) {
    let before = face.statistics().await.connections;
    let (another, third) = (Face::open(kind, node).await, Face::open(kind, node).await);
    // A node without a face has no connections.
    let more = if kind == Kind::Embedded { 0 } else { 2 };
    // A plain Cap'n Proto client is connected before the node has accepted it.
    until(|| async { face.statistics().await.connections == before + more }).await;
    drop((another, third));
    until(|| async { face.statistics().await.connections == before }).await;
}

async fn a_node_tells_what_it_is_and_has(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let face = Face::open(kind, &node).await;
    let told = face.describe().await;
    assert_eq!((told.node, told.incarnation), (node.me().node.0, 1));
    assert_eq!((told.name.as_str(), told.shards), ("a", 2));
    let names: Vec<_> = told
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "behaviour.Counter",
            "behaviour.Mover",
            "behaviour.Named",
            "behaviour.Other"
        ]
    );
    let derived = &told.classes[2];
    assert_eq!(derived.ancestors, [named::CLASS.0, counter::CLASS.0]);
    assert!(derived.persistent && !derived.reflection.is_empty());

    count_connections(kind, &face, &node).await;

    let mut made = Vec::new();
    for value in 0..7 {
        made.push(face.counter(value).await.uid);
    }
    made.sort_unstable();
    let (mut seen, mut after) = (Vec::new(), Uid::NIL);
    loop {
        let page = face.objects(after, 3).await;
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = last.object;
        seen.extend(page);
    }
    assert!(seen.iter().all(|object| object.class == counter::CLASS.0));
    assert_eq!(
        seen.iter().map(|object| object.object).collect::<Vec<_>>(),
        made
    );
    node.evict(made[3]);
    until(|| async { !face.inspect(made[3]).await.unwrap().active }).await;
    let active = face
        .objects(Uid::NIL, 100)
        .await
        .iter()
        .filter(|object| object.active)
        .count();
    assert_eq!(active, 6);
    assert_eq!(face.statistics().await.active_objects, 6);

    let counter = face.bind(made[3]).await.unwrap();
    counter.add(&NOW, 1).await.unwrap();
    let told = face.inspect(made[3]).await.unwrap();
    assert!(told.active && told.class_name == "behaviour.Counter");
    assert!(
        told.version >= 2 && told.epoch >= 1 && told.state_bytes > 0,
        "{told:?}"
    );
    stop(node).await;
}

async fn dropped_references_are_not_users(kind: Kind) {
    let dir = temp_dir("objects");
    let node = node_for(kind, dir.path()).await;
    let watcher = match kind {
        Kind::Native | Kind::Foreign => Face::open(Kind::Native, &node).await,
        Kind::Embedded => Face::open(kind, &node).await,
    };
    let users = |uid| {
        let watcher = watcher.clone();
        move || {
            let watcher = watcher.clone();
            async move { watcher.inspect(uid).await.unwrap().users }
        }
    };
    let face = Face::open(kind, &node).await;
    let counter = face.counter(1).await;
    let uid = counter.uid;
    let users = users(uid);
    counter.value(&NOW).await.unwrap();
    assert_eq!(users().await, 1);
    // The same client again is one user, however often it binds.
    let again = face.bind(uid).await.unwrap();
    again.value(&NOW).await.unwrap();
    assert_eq!(users().await, 1);
    if kind == Kind::Embedded {
        // There is no other client.
        drop((counter, again));
    } else {
        // Another client is another.
        let other = Face::open(kind, &node).await;
        let others = other.bind(uid).await.unwrap();
        others.value(&NOW).await.unwrap();
        assert_eq!(users().await, 2);
        drop((counter, again));
        until(|| async { users().await == 1 }).await;
        // One that vanishes without a word.
        drop((others, other));
    }
    until(|| async { users().await == 0 }).await;
    // The node itself, as a client of its own objects.
    let own = common::behaviour::Counter::from_uid(uid);
    own.value(node.client()).await.unwrap();
    assert_eq!(users().await, 1);
    drop(own);
    until(|| async { users().await == 0 }).await;
    stop(node).await;
}
