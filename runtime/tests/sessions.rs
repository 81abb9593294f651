//! Sessions: what begins and ends them, and what is told of them.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use common::behaviour::{Counter, counter as counters};
use common::raw::{Hello, PING, Raw, frame, initiate, invoke};
use common::{Face, Kind, NOW, client_of, counter, node, run, stop, until};
use partha::services::system::connection_manager::{EndSessionError, EvictError};
use partha::services::system::{NodeStatistics, SessionDescription};
use partha::{Client, Node, NodeHandle, Uid};
use test_support::temp_dir;

const VALUE: (u64, u16) = (counters::CLASS.0, 0);
const ADD_AT_GATE: (u64, u16) = (counters::CLASS.0, 4);
const OLD_INCARNATION: u16 = 21;
/// As the node has them.
const LEASE: Duration = Duration::from_secs(4);
/// Well below the lease: what ends so soon was not ended by it.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A node of this process, with an operator and a counter.
struct Scene {
    node: Node,
    operator: Client,
    handle: NodeHandle,
    object: Counter,
    _dir: test_support::TempDir,
}

impl Scene {
    async fn open() -> Self {
        let dir = temp_dir("sessions");
        let node = node(dir.path()).await;
        let operator = client_of(&node).await;
        let address = node.address().to_string();
        let handle = operator.node_at(&address).await.unwrap();
        let object = counter(&operator, &node, 100).await;
        Self {
            node,
            operator,
            handle,
            object,
            _dir: dir,
        }
    }

    async fn statistics(&self) -> NodeStatistics {
        let manager = self.handle.manager();
        manager.statistics(&self.operator).await.unwrap()
    }

    async fn session(&self, process: u64) -> Option<SessionDescription> {
        let manager = self.handle.manager();
        let found = manager.sessions(&self.operator, 0, 1000).await.unwrap();
        found.into_iter().find(|session| session.process == process)
    }

    /// A connection of a process that a test plays.
    fn meet(&self, node: u64, incarnation: u32, shard: u16) -> Raw {
        let hello = Hello {
            node,
            incarnation,
            shard,
            ..Hello::default()
        };
        Raw::meet_as(self.node.address(), &hello)
    }

    /// Binds the counter over a connection.
    fn bind(&self, peer: &mut Raw) {
        peer.send(&initiate(1, self.node.me().node, self.object.uid()));
        assert_eq!(peer.answer(), Some((1, None)));
    }

    /// What a process is refused with.
    fn refusal(&self, node: u64, incarnation: u32) -> (u16, String) {
        let hello = Hello {
            node,
            incarnation,
            ..Hello::default()
        };
        let mut peer = Raw::silent(self.node.address());
        peer.send(&hello.bytes());
        let answer = peer.greeting().expect("the node says why");
        let s = answer.reader().unwrap();
        assert_eq!(s.u16(0), 1, "a refusal");
        let text = s.pointer(0).text().unwrap().to_owned();
        (s.u16(15), text)
    }
}

#[test]
fn a_session_is_all_connections_of_a_process() {
    run(async {
        let scene = Scene::open().await;
        let process = common::random();
        let mut one = scene.meet(process, 3, 0);
        let two = scene.meet(process, 3, 1);
        scene.bind(&mut one);
        scene.bind(&mut one);
        let session = scene.session(process).await.unwrap();
        assert_eq!((session.incarnation, session.foreign), (3, false));
        assert_eq!(
            (session.name, session.software),
            ("raw".into(), "a test".into())
        );
        let shards: Vec<_> = session.connections.iter().map(|one| one.shard).collect();
        assert_eq!(shards, [0, 1]);
        assert_eq!(session.connections[0].address, one.address());
        assert_eq!((session.bindings, session.calls), (1, 0));
        let left = session.lease_left.unwrap();
        assert!(left > LEASE / 2 && left <= LEASE, "{left:?}");
        let manager = scene.handle.manager();
        let bound = manager.bindings(&scene.operator, process, 3, Uid::NIL, 10);
        let bound = bound.await.unwrap();
        assert_eq!((bound[0].object, bound[0].count), (scene.object.uid(), 2));
        assert_eq!(bound[0].class, counters::CLASS.0);
        let other = manager.bindings(&scene.operator, process, 2, Uid::NIL, 10);
        assert!(other.await.is_err(), "that life is not here");
        // One page after the other has every session once.
        let mut seen = Vec::new();
        loop {
            let after = seen.last().copied().unwrap_or(0);
            let page = manager.sessions(&scene.operator, after, 1).await.unwrap();
            let Some(one) = page.first() else { break };
            seen.push(one.process);
        }
        assert_eq!(seen.len(), 2, "the operator's and the raw one: {seen:?}");

        let before = scene.statistics().await;
        drop(one);
        until(async || scene.statistics().await.connections == before.connections - 1).await;
        assert_eq!(scene.statistics().await.sessions, before.sessions);
        assert_eq!(scene.session(process).await.unwrap().bindings, 1);
        drop(two);
        until(async || scene.statistics().await.sessions == before.sessions - 1).await;
        assert_eq!(
            scene.statistics().await.sessions_lost,
            before.sessions_lost + 1
        );
        assert_eq!(scene.session(process).await.map(|_| ()), None);
        stop(scene.node).await;
    });
}

#[test]
fn a_newer_life_ends_the_older_at_once() {
    run(async {
        let scene = Scene::open().await;
        let (process, object) = (common::random(), scene.object.uid());
        let mut old = [scene.meet(process, 4, 0), scene.meet(process, 4, 1)];
        let gate = common::new_gate("newer");
        // One call runs, the others wait for it, some of them behind another shard.
        for (index, peer) in old.iter_mut().enumerate() {
            scene.bind(peer);
            for question in 2..=10 {
                peer.send(&invoke(question, object, ADD_AT_GATE, |w, s| {
                    w.set_u64(s, 0, 1);
                    w.text(s.slot(1), &gate);
                }));
            }
            if index == 0 {
                common::arrived(&gate, 1).await;
            }
        }
        until(async || scene.session(process).await.unwrap().calls == 18).await;

        let begun = Instant::now();
        let mut newer = scene.meet(process, 5, 0);
        for peer in &mut old {
            peer.is_cut(AT_ONCE);
        }
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        // The shards have heard of it although nothing was asked yet.
        let manager = scene.handle.manager();
        until(async || {
            let inspected = manager.inspect(&scene.operator, object).await;
            inspected.unwrap().users == 0
        })
        .await;
        // What it asks is served as if the older one had never waited.
        newer.send(&invoke(1, object, VALUE, |_, _| {}));
        common::open(&gate, 20);
        assert_eq!(newer.answer(), Some((1, None)));
        let value = scene.object.value(&scene.operator).await.unwrap();
        assert!(value <= 101, "calls that waited were executed: {value}");
        let session = scene.session(process).await.unwrap();
        assert_eq!((session.incarnation, session.bindings), (5, 0));
        let statistics = scene.statistics().await;
        assert_eq!((statistics.sessions, statistics.sessions_replaced), (2, 1));

        // The older one is refused from now on, also when the newer one has gone.
        for is_there in [true, false] {
            let (code, text) = scene.refusal(process, 4);
            assert_eq!(code, OLD_INCARNATION, "{text}");
            let named = text.contains("incarnation 4 of") && text.contains("incarnation 5 of");
            assert!(named, "{text}");
            if is_there {
                newer.stream.shutdown(std::net::Shutdown::Both).unwrap();
                until(async || scene.statistics().await.sessions == 1).await;
            }
        }
        drop(scene.meet(process, 5, 0));
        stop(scene.node).await;
    });
}

#[test]
fn a_session_ends_once_when_all_its_connections_have_been_silent() {
    run(async {
        let scene = Scene::open().await;
        let (silent, speaking) = (common::random(), common::random());
        let begun = Instant::now();
        let mut both = [scene.meet(silent, 1, 0), scene.meet(silent, 1, 1)];
        let mut quiet = scene.meet(speaking, 1, 0);
        let loud = RefCell::new(scene.meet(speaking, 1, 1));
        let before = scene.statistics().await;
        until(async || {
            loud.borrow_mut().send(&frame(PING, 1, |_, _| {}));
            scene.statistics().await.connections == before.connections - 3
        })
        .await;
        let waited = begun.elapsed();
        assert!(
            waited >= LEASE && waited < LEASE + Duration::from_secs(1),
            "{waited:?}"
        );
        both.iter_mut().for_each(|peer| peer.is_cut(AT_ONCE));
        quiet.is_cut(AT_ONCE);
        let after = scene.statistics().await;
        assert_eq!(after.sessions, before.sessions - 1);
        assert_eq!(after.sessions_expired, before.sessions_expired + 1);
        let left = scene.session(speaking).await.unwrap();
        assert_eq!(left.connections.len(), 1);
        assert!(left.lease_left.unwrap() > Duration::ZERO);
        stop(scene.node).await;
    });
}

#[test]
fn a_connection_of_the_node_with_itself_ends_nothing_else() {
    run(async {
        let scene = Scene::open().await;
        let (me, own) = (scene.node.me(), scene.node.client().clone());
        let gated = counter(&scene.operator, &scene.node, 0).await;
        // Two ways by which it may end.
        for broken in [false, true] {
            let before = scene.object.value(&own).await.unwrap();
            let mut itself = scene.meet(me.node.0, me.incarnation.0, 1);
            until(async || scene.session(me.node.0).await.is_some()).await;
            let gate = common::new_gate("itself");
            let call = {
                let (own, gated, gate) = (own.clone(), gated.clone(), gate.clone());
                tokio::task::spawn_local(async move { gated.add_at_gate(&own, 1, &gate).await })
            };
            common::arrived(&gate, 1).await;
            let action = own.begin();
            scene.object.add(&*action, 1).await.unwrap();
            if broken {
                let manager = scene.handle.manager();
                let cut = manager.end_session(&scene.operator, me.node.0, 0).await;
                assert_eq!(cut.unwrap(), 1);
            } else {
                itself.stream.shutdown(std::net::Shutdown::Both).unwrap();
            }
            itself.is_cut(AT_ONCE);
            until(async || scene.session(me.node.0).await.is_none()).await;
            // Whatever the shards were told, they have heard it by now.
            let statistics = scene.statistics().await;
            assert_eq!(
                (statistics.orphans_killed, statistics.actions_active),
                (0, 1)
            );
            common::open(&gate, 1);
            assert_eq!(call.await.unwrap().unwrap(), 1 + i64::from(broken));
            action.commit().await.unwrap();
            assert_eq!(scene.object.value(&own).await.unwrap(), before + 1);
        }
        stop(scene.node).await;
    });
}

#[test]
fn nobody_is_taken_for_another_life_of_the_node() {
    run(async {
        let scene = Scene::open().await;
        let me = scene.node.me();
        let (_, text) = scene.refusal(me.node.0, me.incarnation.0 + 1);
        assert!(text.contains("two have one identity"), "{text}");
        let (code, text) = scene.refusal(me.node.0, me.incarnation.0 - 1);
        assert_eq!(code, OLD_INCARNATION, "{text}");
        // It takes its own calls as before.
        assert_eq!(scene.object.add(scene.node.client(), 1).await.unwrap(), 101);
        stop(scene.node).await;
    });
}

#[test]
fn an_operator_ends_a_session_and_the_client_may_come_again() {
    run(async {
        let scene = Scene::open().await;
        let client = client_of(&scene.node).await;
        let action = client.begin();
        assert_eq!(scene.object.add(&*action, 1).await.unwrap(), 101);
        let process = action.id().uid().node.0;
        let session = scene.session(process).await.unwrap();
        assert_eq!((session.actions_begun, session.actions_joined), (1, 0));
        let manager = scene.handle.manager();
        let unknown = manager.end_session(&scene.operator, process, 2).await;
        assert!(
            matches!(unknown, Err(EndSessionError::NoSuchSession(_))),
            "{unknown:?}"
        );
        let cut = manager.end_session(&scene.operator, process, 1).await;
        assert_eq!(cut.unwrap() as usize, session.connections.len());
        // Its locks are free, its action is over, and it is welcome.
        assert_eq!(scene.object.value(&scene.operator).await.unwrap(), 100);
        assert!(action.commit().await.is_err());
        assert_eq!(scene.object.add(&client, 2).await.unwrap(), 102);
        assert_eq!(scene.statistics().await.sessions_broken, 1);
        assert!(scene.session(process).await.is_some());
        stop(scene.node).await;
    });
}

#[test]
fn a_foreign_client_has_a_session_by_its_connection() {
    run(async {
        let scene = Scene::open().await;
        let foreign = Face::open(Kind::Foreign, &scene.node).await;
        let object = foreign.bind(scene.object.uid()).await.unwrap();
        assert_eq!(object.value(&NOW).await.unwrap(), 100);
        let manager = scene.handle.manager();
        let sessions = manager.sessions(&scene.operator, 0, 10).await.unwrap();
        let session = sessions.into_iter().find(|session| session.foreign);
        let session = session.unwrap();
        assert_eq!((session.lease_left, session.bindings), (None, 1));
        assert_eq!(session.connections[0].silent, None);
        manager
            .end_session(&scene.operator, session.process, 0)
            .await
            .unwrap();
        assert!(object.value(&NOW).await.is_err(), "it is cut");
        until(async || scene.statistics().await.sessions == 1).await;
        assert_eq!(scene.statistics().await.sessions_broken, 1);
        until(async || {
            let object = scene.object.uid();
            let inspected = manager.inspect(&scene.operator, object).await;
            inspected.unwrap().users == 0
        })
        .await;
        stop(scene.node).await;
    });
}

#[test]
fn an_object_is_evicted_unless_something_uses_it() {
    run(async {
        let scene = Scene::open().await;
        let (manager, operator) = (scene.handle.manager(), &scene.operator);
        let uid = scene.object.uid();
        let action = operator.begin();
        assert_eq!(scene.object.add(&*action, 1).await.unwrap(), 101);
        let used = manager.evict(operator, uid).await;
        let Err(EvictError::NotEvictable(used)) = used else {
            panic!("{used:?}")
        };
        let expected = format!("action {} has it locked", action.id().uid());
        assert_eq!((used.object, used.reason), (uid, expected));
        action.commit().await.unwrap();
        until(async || manager.evict(operator, uid).await == Ok(true)).await;
        assert_eq!(manager.evict(operator, uid).await, Ok(false));
        assert!(!manager.inspect(operator, uid).await.unwrap().active);
        assert_eq!(scene.object.value(operator).await.unwrap(), 101);
        let nobody = Uid::new(scene.node.me().node, scene.node.me().incarnation, 77_777);
        let nobody = manager.evict(operator, nobody).await;
        assert!(
            matches!(nobody, Err(EvictError::NoSuchObject(_))),
            "{nobody:?}"
        );
        stop(scene.node).await;
    });
}
