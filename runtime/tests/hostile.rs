//! Peers that mean no good, or are broken: each loses its own connection, for a reason that is
//! logged, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::behaviour::{Counter, counter};
use common::raw::{
    self, ANY_SHARD, FILL, Hello, INVOKE, MAGIC, RETURN, Raw, frame, initiate, invoke,
};
use common::{logs, new_gate, open};
use partha::{Node, Uid};
use test_support::{TempDir, temp_dir};

const VALUE: (u64, u16) = (counter::CLASS.0, 0);
const ADD: (u64, u16) = (counter::CLASS.0, 1);
const ADD_AT_GATE: (u64, u16) = (counter::CLASS.0, 4);

/// A node with one counter, and an honest client that must not notice anything.
struct Scene {
    node: Option<Node>,
    address: SocketAddr,
    object: Uid,
    honest: Option<JoinHandle<Duration>>,
    over: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
    _dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        logs::collect();
        let dir = temp_dir("hostile");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (node, object) = runtime.block_on(async {
            let node = common::node(dir.path()).await;
            let client = common::client_of(&node).await;
            let object = common::counter(&client, &node, 7).await;
            (node, object)
        });
        let (address, uid) = (node.address(), object.uid());
        let over = Arc::new(AtomicBool::new(false));
        let honest = honest(runtime.handle().clone(), address, uid, over.clone());
        let (node, honest) = (Some(node), Some(honest));
        Self {
            node,
            address,
            object: uid,
            honest,
            over,
            runtime,
            _dir: dir,
        }
    }

    /// The honest client's longest wait for an answer; the node stops in order.
    fn end(mut self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        let longest = self
            .honest
            .take()
            .unwrap()
            .join()
            .expect("the honest client is content");
        self.runtime
            .block_on(common::stop(self.node.take().unwrap()));
        longest
    }

    /// The shard of the object.
    fn shard(&self) -> u16 {
        self.runtime.block_on(async {
            let client = common::client_of(self.node()).await;
            let node = client.node_at(&self.address.to_string()).await.unwrap();
            let told = node.manager().inspect(&client, self.object).await;
            told.unwrap().shard
        })
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }
}

/// Calls again and again, by one connection; every call must be answered.
fn honest(
    runtime: tokio::runtime::Handle,
    address: SocketAddr,
    object: Uid,
    over: Arc<AtomicBool>,
) -> JoinHandle<Duration> {
    std::thread::spawn(move || {
        runtime.block_on(async {
            let client = partha::Client::alone().unwrap();
            client
                .locator()
                .introduce(&client, &address.to_string())
                .await
                .unwrap();
            let (object, mut longest) = (Counter::from_uid(object), Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(object.value(&client).await.unwrap(), 7);
                longest = longest.max(start.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            longest
        })
    })
}

/// What is said first, and a part of the reason for which the node closes the connection.
fn before_a_handshake() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let after_magic = |bytes: &[u8]| [MAGIC.as_slice(), bytes].concat();
    let hello = |change: fn(&mut Hello)| {
        let mut hello = Hello::default();
        change(&mut hello);
        hello.bytes()
    };
    vec![
        (
            "http",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            "connection cut",
        ),
        (
            "noise",
            (0..64).map(|n: u8| n.wrapping_mul(89) ^ 0x5a).collect(),
            "connection cut",
        ),
        (
            "another magic",
            b"PARTHX\r\n\0\0\0\0".to_vec(),
            "connection cut",
        ),
        (
            "a header of 64 MiB",
            [0, 0, 0, 0, 0, 0, 128, 0].to_vec(),
            "connection cut",
        ),
        (
            "a greeting too large",
            after_magic(&[0, 0, 0, 0, 0, 0, 1, 0]),
            "at most 4096",
        ),
        (
            "a greeting in pieces",
            after_magic(&[3, 0, 0, 0, 1, 0, 0, 0]),
            "4 segments",
        ),
        (
            "an empty greeting",
            after_magic(&[0; 8]),
            "without a root pointer",
        ),
        (
            "a greeting that points nowhere",
            after_magic(&[0, 0, 0, 0, 1, 0, 0, 0, 0xfc, 0xff, 0xff, 0x7f, 9, 0, 9, 0]),
            "connection refused",
        ),
        (
            "a late version",
            hello(|h| (h.version, h.version_min) = (9, 8)),
            "versions 8 to 9",
        ),
        ("no life", hello(|h| h.incarnation = u32::MAX), "24 bits"),
        (
            "the wrong node",
            hello(|h| h.expected = 12345),
            "is expected at this address",
        ),
    ]
}

#[test]
fn nonsense_instead_of_a_greeting() {
    let scene = Scene::new();
    for (what, bytes, why) in before_a_handshake() {
        let mut peer = Raw::silent(scene.address);
        peer.send(&bytes);
        peer.is_cut(Duration::from_secs(8));
        println!("{what}: {:?}", logs::lines_with(&peer.address()));
        logs::warned(&peer.address(), why);
    }
    scene.end();
}

#[test]
fn a_refusal_says_what_each_end_speaks() {
    let scene = Scene::new();
    let mut peer = Raw::silent(scene.address);
    let hello = Hello {
        version: 9,
        version_min: 8,
        ..Hello::default()
    };
    peer.send(&hello.bytes());
    let refusal = peer.greeting().unwrap();
    let s = refusal.reader().unwrap();
    assert_eq!(
        (s.u16(0), s.u16(15)),
        (1, partha::ErrorKind::VersionMismatch as u16)
    );
    let reason = s.pointer(0).text().unwrap();
    for part in ["versions 8 to 9", "2 to 5", "upgrade the older one"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(peer.frame().is_none(), "and then it closes");
    scene.end();
}

/// What is said by one who has met the node.
fn after_a_handshake(object: Uid) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let header = |segments: u32, words: u32| [segments.to_le_bytes(), words.to_le_bytes()].concat();
    let capability = |by_receiver: bool, export: u32| {
        frame(INVOKE, 1, |w, s| {
            w.set_u64(s, 1, object.node.0);
            w.set_u64(s, 2, object.local);
            w.set_u64(s, 3, VALUE.0);
            w.structure(s.slot(0), 0, 1);
            let list = w.structures(s.slot(1), 1, 2, 0);
            w.set_bool(list.structure(0), 0, by_receiver);
            w.set_u32(list.structure(0), 1, export);
        })
    };
    vec![
        (
            "a frame of 5 MB",
            header(0, 650_000),
            "at most 4194304 are allowed",
        ),
        (
            "a frame of 32 GiB",
            header(0, u32::MAX),
            "at most 4194304 are allowed",
        ),
        ("two segments", header(1, 2), "2 segments"),
        (
            "four milliard segments",
            header(u32::MAX, 2),
            "4294967296 segments",
        ),
        ("no root", header(0, 0), "without a root pointer"),
        (
            "a null root",
            [header(0, 1), vec![0; 8]].concat(),
            "the peer sent nonsense",
        ),
        (
            "noise",
            [header(0, 4), vec![0xa7; 32]].concat(),
            "the peer sent nonsense",
        ),
        ("kind 0", frame(0, 1, |_, _| {}), "the peer sent nonsense"),
        ("kind 99", frame(99, 1, |_, _| {}), "the peer sent nonsense"),
        (
            "an answer that was never asked",
            frame(2, 77, |w, s| {
                w.structure(s.slot(0), 0, 0);
            }),
            "question 77, which is not open",
        ),
        (
            "an answer to nothing",
            frame(2, 0, |w, s| {
                w.structure(s.slot(0), 0, 0);
            }),
            "question 0, which is not open",
        ),
        (
            "a capability never given",
            capability(true, 4711),
            "capability 4711 was never given",
        ),
    ]
}

/// The kind of frames about actions, and two values of their union.
const ACTION: u16 = 8;
const ABORT: u16 = 4;
const ASK: u16 = 15;
const ASK_DECIDER: u16 = 26;

/// The same, about actions.
fn about_actions() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        (
            "an action without a body",
            frame(ACTION, 0, |_, _| {}),
            "action",
        ),
        ("an action of kind 99", action(0, 99), "Action"),
        (
            "a message that asks",
            action(5, ABORT),
            "a question of a request",
        ),
        (
            "a request that asks nothing",
            action(0, ASK),
            "a question of a request",
        ),
    ]
}

/// A frame about an action that nobody knows.
fn action(question: u32, tag: u16) -> Vec<u8> {
    frame(ACTION, question, |w, s| {
        let body = w.structure(s.slot(0), 1, 2);
        w.set_u16(body, 2, tag);
        let uid = w.structure(body.slot(1), 2, 0);
        w.set_u64(uid, 0, 4711);
        w.set_u64(uid, 1, 4711);
    })
}

#[test]
fn nonsense_after_a_handshake() {
    let scene = Scene::new();
    let about_calls = after_a_handshake(scene.object);
    for (what, bytes, why) in about_calls.into_iter().chain(about_actions()) {
        let mut peer = Raw::meet(scene.address);
        peer.send(&bytes);
        peer.is_cut(Duration::from_secs(8));
        println!("{what}: {:?}", logs::lines_with(&peer.address()));
        logs::warned(&peer.address(), why);
    }
    scene.end();
}

/// What is wrong with the call, not with the connection.
#[test]
fn bad_calls_are_answered_with_errors() {
    let scene = Scene::new();
    let mut peer = Raw::meet(scene.address);
    let object = scene.object;
    let nobody = Uid {
        local: object.local + 1000,
        ..object
    };
    let export = frame(INVOKE, 7, |w, s| {
        w.set_u64(s, 1, 4711);
        w.set_u64(s, 3, VALUE.0);
        w.set_u16(s, 17, 1);
        w.structure(s.slot(0), 0, 1);
    });
    let old_life = invoke(8, object, ADD, |w, s| {
        let context = w.structure(s.slot(0), 6, 1);
        w.set_u64(context, 1, 5);
        w.set_u64(context, 2, 5);
        w.set_u32(context, 6, u32::MAX);
    });
    let calls = [
        (invoke(1, nobody, VALUE, |_, _| {}), "2: "),
        (invoke(2, object, (VALUE.0, 999), |_, _| {}), "4: no class"),
        (invoke(3, object, (4711, 0), |_, _| {}), "4: no class"),
        (
            invoke(4, object, VALUE, |w, s| w.text(s.slot(0), "no context")),
            "5: ",
        ),
        (
            invoke(5, object, (VALUE.0, 8), |w, s| {
                w.text(s.slot(1), "no reference")
            }),
            "5: argument",
        ),
        (
            frame(INVOKE, 6, |w, s| w.set_u64(s, 1, object.node.0)),
            "4: no class",
        ),
        (export, "2: capability 4711 was never given"),
        (old_life, "5: "),
    ];
    for (question, (call, why)) in (1..).zip(calls) {
        peer.send(&call);
        let (answered, error) = peer.answer().expect("the connection stays");
        let error = error.expect("an error");
        assert_eq!(answered, question);
        assert!(
            error.starts_with(why),
            "{question}: '{why}' does not begin '{error}'"
        );
    }
    // Harmless, too: what was never there is cancelled, released and terminated.
    peer.send(&frame(raw::CANCEL, 77, |_, _| {}));
    peer.send(&frame(raw::CANCEL, 0, |_, _| {}));
    peer.send(&frame(raw::RELEASE, 77, |_, _| {}));
    peer.send(&invoke(9, object, VALUE, |_, _| {}));
    assert_eq!(peer.answer(), Some((9, None)));
    scene.end();
}

/// That there is no such decision means aborted, and only whoever has the decisions may say so.
#[test]
fn an_outcome_in_the_log_of_an_object_that_is_not_led_here_is_not_known() {
    let scene = Scene::new();
    let mut peer = Raw::meet(scene.address);
    let mut told = |question: u32, bytes: &[u8]| {
        peer.send(bytes);
        loop {
            let message = peer.frame().expect("the connection stays");
            let s = message.reader().unwrap();
            if (s.u16(0), s.u32(1)) == (RETURN, question) {
                let told = s.pointer(0).structure().unwrap();
                return (told.bool(0), told.u16(1));
            }
        }
    };
    let aborted = (true, 1);
    assert_eq!(told(5, &action(5, ASK)), aborted);
    let object = scene.object;
    let with_decider = frame(ACTION, 6, |w, s| {
        let body = w.structure(s.slot(0), 1, 2);
        w.set_u16(body, 2, ASK_DECIDER);
        let asked = w.structure(body.slot(1), 0, 2);
        for (slot, uid) in [(0, (4711, 4712)), (1, (object.node.0, object.local))] {
            let at = w.structure(asked.slot(slot), 2, 0);
            w.set_u64(at, 0, uid.0);
            w.set_u64(at, 1, uid.1);
        }
    });
    assert_eq!(told(6, &with_decider), (false, 0));
    scene.end();
}

#[test]
fn a_peer_that_asks_the_wrong_shard_is_helped() {
    let scene = Scene::new();
    for shard in [0, 1, 2, 1000, ANY_SHARD] {
        let mut peer = Raw::meet_as(
            scene.address,
            &Hello {
                shard,
                ..Hello::default()
            },
        );
        peer.send(&initiate(1, scene.node().me().node, scene.object));
        assert_eq!(peer.answer(), Some((1, None)), "shard {shard}");
        peer.send(&invoke(2, scene.object, VALUE, |_, _| {}));
        assert_eq!(peer.answer(), Some((2, None)), "shard {shard}");
    }
    scene.end();
}

#[test]
fn silence_is_not_waited_for() {
    let scene = Scene::new();
    let start = Instant::now();
    let mut peers: Vec<(Raw, &str)> = Vec::new();
    for _ in 0..200 {
        peers.push((Raw::silent(scene.address), "it said nothing for 5 s"));
    }
    let mut begun = Raw::silent(scene.address);
    begun.send(&MAGIC[..4]);
    peers.push((begun, "it said nothing for 5 s"));
    let mut half = Raw::silent(scene.address);
    half.send(&Hello::default().bytes()[..20]);
    peers.push((half, "no handshake within 5 s"));
    let call = invoke(1, scene.object, VALUE, |_, _| {});
    let mut half = Raw::meet(scene.address);
    half.send(&call[..call.len() - 8]);
    peers.push((half, "the peer was silent for"));
    // Others are served meanwhile, known ones and new ones.
    let mut other = Raw::meet(scene.address);
    other.send(&call);
    assert_eq!(other.answer(), Some((1, None)));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the node was busy with silence"
    );
    // One that sends a byte now and then, so that it is never silent.
    let mut slow = Raw::meet(scene.address);
    let begun = Instant::now();
    for byte in &call {
        slow.send(&[*byte]);
        slow.stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut one = [0];
        match std::io::Read::read(&mut slow.stream, &mut one) {
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Ok(_) | Err(_) => {}
        }
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "a frame may take for ever"
        );
    }
    logs::warned(&slow.address(), "of a message came, the rest not within");
    for (mut peer, why) in peers {
        peer.is_cut(Duration::from_secs(15));
        logs::warned(&peer.address(), why);
    }
    scene.end();
}

#[test]
fn nobody_can_cancel_calls_of_others() {
    let scene = Scene::new();
    let (gate, object) = (new_gate("victim"), scene.object);
    // A call of ours holds the object, the victim's call waits behind it.
    let mut holder = Raw::meet(scene.address);
    holder.send(&invoke(1, object, ADD_AT_GATE, |w, s| {
        w.text(s.slot(1), &gate)
    }));
    scene.runtime.block_on(common::arrived(&gate, 1));
    let shard = scene.shard();
    let mut attackers = Vec::new();
    for question in 1..=50 {
        // A call that is refused at the door, and the next to arrive is somebody else's.
        let mut attacker = Raw::meet_as(
            scene.address,
            &Hello {
                shard,
                ..Hello::default()
            },
        );
        attacker.send(&invoke(question, object, (VALUE.0, 999), |_, _| {}));
        assert!(attacker.answer().unwrap().1.is_some());
        attackers.push((attacker, question));
    }
    let mut victim = Raw::meet_as(
        scene.address,
        &Hello {
            shard,
            ..Hello::default()
        },
    );
    victim.send(&invoke(1, object, ADD, |_, _| {}));
    let mut behind = Raw::meet_as(
        scene.address,
        &Hello {
            shard,
            ..Hello::default()
        },
    );
    behind.send(&initiate(1, object.node, object));
    assert_eq!(behind.answer(), Some((1, None)));
    for (attacker, question) in &mut attackers {
        attacker.send(&frame(raw::CANCEL, *question, |_, _| {}));
        attacker.send(&initiate(99, object.node, object));
        assert_eq!(
            attacker.answer(),
            Some((99, None)),
            "the cancellation was taken"
        );
    }
    open(&gate, 1);
    assert_eq!(holder.answer(), Some((1, None)));
    assert_eq!(
        victim.answer(),
        Some((1, None)),
        "the victim's call was cancelled"
    );
    scene.end();
}

#[test]
fn every_answer_arrives_however_large_they_are_together() {
    let scene = Scene::new();
    let own = scene.shard();
    for shard in [own, 1 - own] {
        let hello = Hello {
            shard,
            ..Hello::default()
        };
        let mut peer = Raw::meet_as(scene.address, &hello);
        // Asked in one breath: 60 MB of answers for some KB of questions.
        let fill = |question| {
            invoke(question, scene.object, FILL, |w, s| {
                w.set_u32(s, 0, 1 << 20)
            })
        };
        peer.send(&(1..=60).flat_map(fill).collect::<Vec<u8>>());
        let mut answered = std::collections::BTreeSet::new();
        while answered.len() < 60 {
            let (question, error) = peer.answer().expect("the connection stays");
            assert!(answered.insert(question), "{question} was answered twice");
            // Another shard cannot know how fast the peer reads; so much it may say, but not
            // nothing.
            let allowed = error.as_ref().is_none_or(|error| {
                shard != own && error.starts_with("19: ") && error.contains("are unsent already")
            });
            assert!(allowed, "{question}: {error:?}");
        }
    }
    scene.end();
}
