//! The lease of a silent peer, other than the usual one: when it is over, whatever is unsent.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::time::{Duration, Instant};

use common::behaviour::{Counter, counter as counters};
use common::raw::{FILL, PING, PONG, Raw, frame, invoke};
use common::{arrived, builder, new_gate, run, stop, until};
use partha::services::system::{NodeStatistics, SessionDescription};
use partha::{Node, NodeHandle, Place};
use test_support::temp_dir;

const ADD_AT_GATE: (u64, u16) = (counters::CLASS.0, 4);
const HEARTBEAT: Duration = Duration::from_millis(300);
const LEASE: Duration = Duration::from_millis(1_500);
/// Answers of a megabyte each: more than both systems and the node keep for a peer that reads
/// nothing.
const ANSWERS: u32 = 60;

/// A node with this lease, and counters for a peer to lock and to read.
struct Scene {
    node: Node,
    handle: NodeHandle,
    locked: Counter,
    read: Counter,
    _dir: test_support::TempDir,
}

impl Scene {
    async fn open() -> Self {
        let dir = temp_dir("lease");
        let node = builder(dir.path()).shards(1).lease(HEARTBEAT, LEASE);
        let node = node.start().await.unwrap();
        // Asked from within, so that nobody else has a session.
        let (client, place) = (node.client().clone(), Place::Node(node.me().node));
        let locked = Counter::create(&client, &place, 0, partha::Bytes::new())
            .await
            .unwrap();
        let read = Counter::create(&client, &place, 0, partha::Bytes::new())
            .await
            .unwrap();
        let handle = node.handle();
        Self {
            node,
            handle,
            locked,
            read,
            _dir: dir,
        }
    }

    async fn statistics(&self) -> NodeStatistics {
        let manager = self.handle.manager();
        manager.statistics(self.node.client()).await.unwrap()
    }

    async fn sessions(&self) -> Vec<SessionDescription> {
        let sessions = self.handle.manager().sessions(self.node.client(), 0, 10);
        sessions.await.unwrap()
    }

    /// Asks for more than is sent to one who reads nothing.
    fn ask(&self, peer: &mut Raw, first: u32) {
        let fill = |question| {
            invoke(question, self.read.uid(), FILL, |w, s| {
                w.set_u32(s, 0, 1 << 20);
            })
        };
        let asked = (first..first + ANSWERS).flat_map(fill);
        peer.send(&asked.collect::<Vec<u8>>());
    }
}

#[test]
fn it_ends_for_one_that_stands_still_with_much_unsent() {
    run(async {
        let scene = Scene::open().await;
        let mut peer = Raw::meet(scene.node.address());
        let gate = new_gate("lease");
        peer.send(&invoke(1, scene.locked.uid(), ADD_AT_GATE, |w, s| {
            w.set_u64(s, 0, 1);
            w.text(s.slot(1), &gate);
        }));
        arrived(&gate, 1).await;
        scene.ask(&mut peer, 2);
        // As if it were frozen: nothing is read, and nothing said.
        let frozen = Instant::now();
        until(async || scene.statistics().await.sessions == 0).await;
        let took = frozen.elapsed();
        assert!(took > LEASE / 2, "{took:?}");
        assert!(took < LEASE + Duration::from_secs(1), "{took:?}");
        let ended = scene.statistics().await;
        assert_eq!((ended.sessions_expired, ended.sessions_lost), (1, 0));
        assert_eq!(scene.locked.add(scene.node.client(), 1).await.unwrap(), 1);
        stop(scene.node).await;
    });
}

#[test]
fn it_is_shown_as_it_is() {
    run(async {
        let scene = Scene::open().await;
        let peer = Raw::meet(scene.node.address());
        let lowest = std::cell::Cell::new(LEASE);
        until(async || {
            let sessions = scene.sessions().await;
            for session in &sessions {
                let watched = (session.lease, session.heartbeat);
                assert_eq!(watched, (Some(LEASE), Some(HEARTBEAT)));
                lowest.set(lowest.get().min(session.lease_left.unwrap()));
            }
            sessions.is_empty()
        })
        .await;
        assert!(lowest.get() < LEASE / 2, "it was silent: {lowest:?}");
        drop(peer);
        stop(scene.node).await;
    });
}

#[test]
fn an_idle_peer_is_asked_in_time_however_short_it_is() {
    run(async {
        let dir = temp_dir("lease-short");
        let heartbeat = Duration::from_millis(400);
        let node = builder(dir.path()).lease(heartbeat, heartbeat * 2);
        let node = node.start().await.unwrap();
        let mut peer = Raw::meet(node.address());
        // The node asks nothing of it but that.
        for _ in 0..10 {
            let message = peer.frame().expect("the connection stays");
            let s = message.reader().unwrap();
            assert_eq!(s.u16(0), PING);
            peer.send(&frame(PONG, s.u32(1), |_, _| {}));
        }
        stop(node).await;
    });
}

#[test]
fn one_that_takes_what_it_is_sent_has_it_renewed() {
    run(async {
        let scene = Scene::open().await;
        let mut peer = Raw::meet(scene.node.address());
        scene.ask(&mut peer, 1);
        // It has no time to say anything, and would not be heard: so much waits.
        let begun = Instant::now();
        let mut answers = 0;
        while begun.elapsed() < LEASE * 2 {
            let message = peer.frame().expect("the connection stays");
            answers += u32::from(message.reader().unwrap().u16(0) != PING);
            tokio::time::sleep(LEASE * 2 / (ANSWERS / 2)).await;
        }
        assert!(answers < ANSWERS, "much is unsent");
        assert_eq!(scene.statistics().await.sessions, 1);
        while answers < ANSWERS {
            let (_, error) = peer.answer().expect("the connection stays");
            assert_eq!(error, None);
            answers += 1;
        }
        peer.send(&frame(PING, 1, |_, _| {}));
        peer.is_read();
        stop(scene.node).await;
    });
}
