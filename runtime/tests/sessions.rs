//! Sessions: what begins and ends them, and how many a node can hold.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::behaviour::{Counter, counter as counters};
use common::process::{NodeProcess, Start, serve};
use common::raw::{Hello, PING, Raw, frame, initiate, invoke};
use common::{Face, Kind, NOW, client_of, counter, node, run, stop, until};
use partha::services::system::connection_manager::{EndSessionError, EvictError};
use partha::services::system::{NodeStatistics, SessionDescription};
use partha::{Client, Node, NodeHandle, Uid};
use rustix::process::{Resource, getrlimit, setrlimit};
use test_support::temp_dir;

const ECHO: (u64, u16) = (counters::CLASS.0, 10);
const VALUE: (u64, u16) = (counters::CLASS.0, 0);
const ADD_AT_GATE: (u64, u16) = (counters::CLASS.0, 4);
const OLD_INCARNATION: u16 = 21;
/// As the node has them.
const LEASE: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Well below the lease: what ends so soon was not ended by it.
const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
#[ignore = "a process of the other tests"]
fn node_process() {
    serve();
}

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

/// Sessions that one node is to hold.
const CROWD: usize = 10_000;

/// Raises the limit of open files, which node processes inherit; what is left of the sessions if
/// that is not allowed.
fn files_suffice() -> bool {
    let needed = CROWD as u64 + 400;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        let required = std::env::var_os("PARTHA_REQUIRE_TOOLS").is_some_and(|value| value == "1");
        let found = limit.maximum;
        assert!(
            !required,
            "{needed} open files are needed, {found:?} are allowed"
        );
        eprintln!("skipped: {needed} open files are needed, {found:?} are allowed");
        return false;
    }
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(needed);
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    true
}

/// Processes that have one connection each; a thread lets the node hear of them.
struct Crowd {
    peers: Arc<Mutex<Vec<Raw>>>,
    gone: Arc<AtomicBool>,
    speaker: Option<thread::JoinHandle<()>>,
}

impl Crowd {
    fn new() -> Self {
        let (peers, gone) = (Arc::new(Mutex::new(Vec::<Raw>::new())), Arc::default());
        let (heard, ended) = (peers.clone(), Arc::clone(&gone));
        let speaker = thread::spawn(move || {
            while !AtomicBool::load(&ended, Ordering::Relaxed) {
                let ping = frame(PING, 1, |_, _| {});
                for peer in heard.lock().unwrap().iter_mut() {
                    peer.send(&ping);
                }
                thread::park_timeout(HEARTBEAT);
            }
        });
        Self {
            peers,
            gone,
            speaker: Some(speaker),
        }
    }

    /// So many come, several at a time, and bind the object.
    async fn come(&self, node: &NodeProcess, object: Uid, count: usize) {
        const TOGETHER: usize = 8;
        let address = node.address;
        let mut coming = tokio::task::JoinSet::new();
        for _ in 0..TOGETHER {
            let peers = self.peers.clone();
            coming.spawn_blocking(move || {
                for _ in 0..count / TOGETHER {
                    let mut peer = Raw::meet(address);
                    peer.send(&initiate(1, object.node, object));
                    assert_eq!(peer.answer(), Some((1, None)));
                    peers.lock().unwrap().push(peer);
                }
            });
        }
        while let Some(came) = coming.join_next().await {
            came.unwrap();
        }
    }
}

#[test]
fn a_session_keeps_little_of_a_burst() {
    const SESSIONS: usize = 500;
    const BURST: usize = 8;
    let dir = temp_dir("burst");
    let node = Start::new(dir.path()).ready();
    run(async {
        let operator = Client::alone().unwrap();
        let address = node.address.to_string();
        let introduced = operator.locator().introduce(&operator, &address).await;
        let place = partha::Place::Node(introduced.unwrap());
        let object = Counter::create(&operator, &place, 1, &[]).await.unwrap();
        let before = node.memory();
        let crowd = Crowd::new();
        crowd.come(&node, object.uid(), SESSIONS).await;
        // What one gives back when it is idle is there for the next one.
        for peer in crowd.peers.lock().unwrap().iter_mut() {
            let echo = |question| {
                invoke(question, object.uid(), ECHO, |w, s| {
                    w.data(s.slot(1), &[7; 10_000]);
                })
            };
            let calls: Vec<u8> = (1..=BURST as u32).flat_map(echo).collect();
            peer.send(&calls);
            for _ in 0..BURST {
                assert!(peer.answer().is_some_and(|(_, error)| error.is_none()));
            }
            peer.is_read();
            peer.is_read();
        }
        let kept = (node.memory() - before) / SESSIONS as i64;
        println!("after a burst a session takes {kept} bytes");
        assert!(kept < 10_000, "{kept}");
    });
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        if let Some(speaker) = self.speaker.take() {
            speaker.thread().unpark();
            drop(speaker.join());
        }
        self.peers.lock().unwrap().clear();
    }
}

#[test]
fn ten_thousand_sessions_are_cheap_and_end_in_two_seconds() {
    if !files_suffice() {
        return;
    }
    let dir = temp_dir("crowd");
    let node = Start::new(dir.path()).ready();
    run(async {
        let operator = Client::alone().unwrap();
        let address = node.address.to_string();
        let introduced = operator.locator().introduce(&operator, &address).await;
        introduced.unwrap();
        let handle = operator.node_at(&address).await.unwrap();
        let statistics = async || handle.manager().statistics(&operator).await.unwrap();
        let place = partha::Place::Node(handle.id());
        let object = Counter::create(&operator, &place, 1, &[]).await.unwrap();

        let (before, resident) = (node.memory(), node.resident());
        let crowd = Crowd::new();
        let begun = Instant::now();
        crowd.come(&node, object.uid(), CROWD).await;
        println!("{CROWD} sessions came in {:.1?}", begun.elapsed());
        let grown = (node.memory() - before) / CROWD as i64;
        let resident = (node.resident() - resident) / CROWD as i64;
        println!("a session takes {grown} bytes of heap, {resident} of resident memory");
        let held = statistics().await;
        assert_eq!(held.sessions as usize, CROWD + 1);
        assert_eq!(held.sessions_expired + held.sessions_lost, 0);
        assert!(grown < 10_000 && resident < 10_000, "{grown}, {resident}");
        let inspected = handle.manager().inspect(&operator, object.uid()).await;
        assert_eq!(inspected.unwrap().users as usize, CROWD);

        let begun = Instant::now();
        drop(crowd);
        assert!(
            begun.elapsed() < LEASE / 2,
            "the operator has to speak meanwhile"
        );
        println!("{CROWD} sessions left within {:.1?}", begun.elapsed());
        until(async || statistics().await.sessions == 1).await;
        let ended = begun.elapsed();
        println!("{CROWD} sessions had ended after {ended:.1?}");
        assert!(ended < Duration::from_secs(2), "{ended:?}");
        until(async || {
            let inspected = handle.manager().inspect(&operator, object.uid()).await;
            inspected.unwrap().users == 0
        })
        .await;
        let ended = begun.elapsed();
        println!("their bindings were broken after {ended:.1?}");
        assert!(ended < Duration::from_secs(2), "{ended:?}");
        assert_eq!(statistics().await.sessions_lost as usize, CROWD);
    });
}
