//! Views that are asked for and changed while answers are lost and the binder is away.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{LONG, System};
use partha::services::binder::{
    GROUPS_MAX, GroupPlacement, GroupPolicy, GroupView, MovedObject, ViewChange, ViewWish,
};
use partha::{Client, ErrorKind, Incarnation, Node, NodeId, Uid};
use test_support::temp_dir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

fn object(counter: u64) -> Uid {
    Uid::new(NodeId(1), Incarnation(1), counter)
}

fn view(counter: u64, number: u64, members: &[u64]) -> GroupView {
    GroupView {
        object: object(counter),
        class: 7,
        number,
        members: members.to_vec(),
        wanted: 2,
        policy: GroupPolicy::Passive,
        placement: GroupPlacement::default(),
    }
}

/// The leader, node 1, asks in its first life.
fn change(counter: u64, expected: u64, wish: ViewWish) -> ViewChange {
    ViewChange {
        object: object(counter),
        expected,
        by: 1,
        incarnation: 1,
        wish,
    }
}

/// A port before another one. It loses as many answers as it is told to, with their connections.
async fn gate(target: SocketAddr, lose: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let node = TcpStream::connect(target).await.unwrap();
            let ((from_client, to_client), (from_node, to_node)) =
                (client.into_split(), node.into_split());
            let lose = lose.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = pass(from_client, to_node, None) => {}
                    () = pass(from_node, to_client, Some(lose)) => {}
                }
            });
        }
    });
    address.to_string()
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, lose: Option<Arc<AtomicU64>>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut bytes).await {
        let less = |left: u64| left.checked_sub(1);
        let lost = |lose: &Arc<AtomicU64>| {
            lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .is_ok()
        };
        if count == 0 || lose.as_ref().is_some_and(lost) {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_is_lost_is_done_once() {
    let folder = temp_dir("group-answers");
    let naming = Node::builder()
        .name("naming")
        .data_dir(folder.path().join("naming"))
        .shards(1);
    let naming = partha_naming::start(naming).await.unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], test_support::free_port()));
    let lose = Arc::new(AtomicU64::new(0));
    let hint = gate(listen, lose.clone()).await;
    let binder = Node::builder()
        .name("binder")
        .data_dir(folder.path().join("binder"))
        .shards(1)
        .listen(listen.to_string())
        .naming(naming.address().to_string());
    // The client knows the binder by this address alone.
    let binder = partha_binder::start(binder.advertise(hint.clone()), vec![hint], LONG);
    let binder = binder.await.unwrap();
    binder.registered().await;
    let client = Client::connect(naming.address().to_string()).await.unwrap();
    let locator = client.locator();

    let lost = |count| lose.store(count, Ordering::Relaxed);
    let all_lost = || assert_eq!(lose.load(Ordering::Relaxed), 0, "all were to be lost");
    let none = locator.views(&client, &[object(100)], LONG).await;
    assert_eq!(none.unwrap(), [], "it is connected from now on");
    lost(1);
    let first = view(100, 1, &[1]);
    let made = locator.make_group(&client, &first, LONG).await.unwrap();
    assert_eq!(made, first);
    all_lost();

    // The first answer comes after the change is done; what is lost next are the words with which
    // new connections begin.
    for number in 1..=4 {
        lost(number);
        let renew = change(100, number, ViewWish::Renew);
        let in_force = locator.change_views(&client, &[renew], LONG).await;
        assert_eq!(in_force.unwrap(), [view(100, number + 1, &[1])]);
        all_lost();
        lost(1);
        let views = locator.views(&client, &[object(100)], LONG).await;
        assert_eq!(views.unwrap(), [view(100, number + 1, &[1])]);
        all_lost();
    }
    lost(1);
    let gone = locator.dissolve_group(&client, object(100), 5, LONG).await;
    assert!(gone.unwrap());
    all_lost();
    for node in [binder, naming] {
        node.shutdown(LONG).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_while_the_binder_is_away_is_answered_when_it_is_back() {
    let system = System::start().await;
    let locator = system.client.locator();
    let first = view(100, 1, &[1, 2]);
    let made = locator.make_group(&system.client, &first, LONG).await;
    assert_eq!(made.unwrap(), first);
    let stopped = system.stop_binder().await;
    let exclude = [change(100, 1, ViewWish::Exclude(2))];

    let short = Duration::from_millis(200);
    let (client, locator) = (stopped.client.clone(), stopped.client.locator());
    let late = locator.change_views(&client, &exclude, short).await;
    let late = late.unwrap_err();
    let kinds = [ErrorKind::Unreachable, ErrorKind::Deadline];
    assert!(kinds.contains(&late.kind()), "{late}");

    let asking = async move {
        let locator = client.locator();
        locator.change_views(&client, &exclude, LONG).await
    };
    let asking = tokio::spawn(asking);
    let system = stopped.start().await;
    let in_force = tokio::time::timeout(LONG, asking).await;
    let in_force = in_force.expect("it is answered in time").unwrap();
    assert_eq!(in_force.unwrap(), [view(100, 2, &[1])]);
    let locator = system.client.locator();
    let views = locator.views(&system.client, &[object(100)], LONG).await;
    assert_eq!(views.unwrap(), [view(100, 2, &[1])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_groups_is_asked_for_in_batches() {
    let system = System::start().await;
    let (client, locator) = (&system.client, system.client.locator());
    for counter in [100, 101] {
        let first = view(counter, 1, &[1, 2]);
        let made = locator.make_group(client, &first, LONG).await;
        assert_eq!(made.unwrap(), first);
    }
    // The one in the first batch, the other in the last.
    let far = 2 * GROUPS_MAX;
    let mut objects: Vec<_> = (0..far as u64).map(|n| object(1_000 + n)).collect();
    objects[3] = object(100);
    objects.push(object(101));
    let views = locator.views(client, &objects, LONG).await.unwrap();
    assert_eq!(views, [view(100, 1, &[1, 2]), view(101, 1, &[1, 2])]);
    let mut changes: Vec<_> = (0..far as u64)
        .map(|n| change(1_000 + n, 1, ViewWish::Renew))
        .collect();
    changes[3] = change(100, 1, ViewWish::Include(3));
    changes.push(change(101, 1, ViewWish::HandOver(2)));
    let in_force = locator.change_views(client, &changes, LONG).await.unwrap();
    let expected = [view(100, 2, &[1, 2, 3]), view(101, 2, &[2, 1])];
    assert_eq!(in_force, expected);
    let listed = locator.groups(client, Uid::NIL).await.unwrap();
    assert_eq!(listed, (expected.to_vec(), true));
    let after = locator.groups(client, object(100)).await.unwrap();
    assert_eq!(after, (expected[1..].to_vec(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_above_the_moves_that_the_binder_knows_of() {
    let system = System::start().await;
    let (client, locator) = (&system.client, system.client.locator());
    let moved = MovedObject {
        object: object(100),
        node: 1,
        moves: 7,
    };
    locator.tell_moved(client, &[moved]).await.unwrap();
    let made = locator.make_group(client, &view(100, 1, &[1]), LONG).await;
    assert_eq!(made.unwrap(), view(100, 8, &[1]));
    let wanted = locator.set_wanted(client, object(100), 3, None, LONG).await;
    assert_eq!(wanted.unwrap().wanted, 3);
    // What no group can be is not asked for again.
    for wrong in [
        locator.set_wanted(client, object(100), 0, None, LONG).await,
        locator.set_wanted(client, object(101), 2, None, LONG).await,
        locator.make_group(client, &view(101, 1, &[]), LONG).await,
    ] {
        let error = wrong.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation, "{error}");
    }
    let gone = locator.dissolve_group(client, object(100), 7, LONG).await;
    assert!(!gone.unwrap(), "it has another number");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_naming_service_there_is_nobody_to_ask() {
    let node = Node::embedded().start().await.unwrap();
    let client = node.client();
    let asked = client.locator().views(client, &[object(100)], LONG).await;
    let error = asked.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameNotFound, "{error}");
    node.shutdown(LONG).await.unwrap();
}
