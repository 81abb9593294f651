//! How often a client asks until it is answered by an object that it has never called, and that
//! is not in memory: what is counted are bytes that turn around on the wire, not time.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use partha::services::naming::{NameContext, name_context};
use partha::{Client, Node, NodeBuilder, Place};
use test_support::{TempDir, temp_dir};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Longer than the test, so that no heartbeat of a node is counted.
const LEASE: Duration = Duration::from_secs(600);
/// Objects that are bound, one after the other. A heartbeat of a connection may be counted, too,
/// where the machine is slow; the fewest of so many have none.
const OBJECTS: usize = 5;

/// A port before another one, which counts how often something is said there.
async fn gate(target: SocketAddr, asked: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let node = TcpStream::connect(target).await.unwrap();
            let ((from_client, to_client), (from_node, to_node)) =
                (client.into_split(), node.into_split());
            tokio::spawn(pass(from_client, to_node, Some(asked.clone())));
            tokio::spawn(pass(from_node, to_client, None));
        }
    });
    address.to_string()
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Option<Arc<AtomicU64>>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut bytes).await {
        if let Some(asked) = &asked {
            asked.fetch_add(1, Ordering::Relaxed);
        }
        if count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A node that others reach through a gate.
async fn builder(
    name: &str,
    folder: &TempDir,
    naming: SocketAddr,
    asked: &Arc<AtomicU64>,
) -> NodeBuilder {
    let listen = SocketAddr::from(([127, 0, 0, 1], test_support::free_port()));
    Node::builder()
        .name(name)
        .data_dir(folder.path().join(name))
        .shards(1)
        .listen(listen.to_string())
        .advertise(gate(listen, asked.clone()).await)
        .naming(naming.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passive_object_answers_after_four_round_trips() {
    let folder = temp_dir("round-trips");
    let asked = Arc::new(AtomicU64::new(0));
    let naming = Node::builder()
        .name("naming")
        .data_dir(folder.path().join("naming"))
        .shards(1);
    let naming = partha_naming::start(naming).await.unwrap();
    let address = naming.address();
    let binder = builder("binder", &folder, address, &asked).await;
    let binder = partha_binder::start(binder, Vec::new(), LEASE)
        .await
        .unwrap();
    binder.registered().await;
    // Naming contexts are persistent objects like any other.
    let node = builder("far", &folder, address, &asked).await;
    let node = node.class(name_context::class(partha_naming::context::ContextServant));
    let node = node.start().await.unwrap();
    node.registered().await;

    let maker = Client::connect(naming.address().to_string()).await.unwrap();
    for number in 0..=OBJECTS {
        let place = Place::Named("far".to_owned());
        let made = NameContext::create(&maker, &place, "x").await.unwrap();
        let names = maker.naming().unwrap();
        let name = format!("/o{number}");
        let added = names.add(&maker, &name, made.uid(), NameContext::CLASS);
        added.await.unwrap();
        // Said by the node itself: it is in the store only.
        let gone = node.handle().manager().evict(&maker, made.uid()).await;
        assert!(gone.unwrap(), "/o{number} stays in memory");
    }

    let named = gate(naming.address(), asked.clone()).await;
    let client = Client::connect(named).await.unwrap();
    let mut counts = Vec::new();
    for number in 0..=OBJECTS {
        let before = asked.load(Ordering::Relaxed);
        let context = NameContext::bind(&client, &format!("/o{number}"))
            .await
            .unwrap();
        context.list(&client, "", 1).await.unwrap();
        let cold = asked.load(Ordering::Relaxed) - before;
        context.list(&client, "", 1).await.unwrap();
        counts.push((cold, asked.load(Ordering::Relaxed) - before - cold));
    }
    println!("questions until the first answer, and until the second: {counts:?}");
    let (first, rest) = counts.split_first().unwrap();
    // The first object takes the way to the services and to the node along: connections with
    // their handshakes.
    assert!(first.0 <= 12, "{first:?}");
    let fewest = rest.iter().map(|(cold, _)| *cold).min().unwrap();
    assert!(fewest <= 4, "{counts:?}");
    let cached = rest.iter().map(|(_, cached)| *cached).min().unwrap();
    assert_eq!(
        cached, 1,
        "a call, and nothing to find the object: {counts:?}"
    );
}
