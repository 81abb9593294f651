//! Messages of every size between two ends of a pipe, whole and in parts, and parts that are
//! damaged.

mod kept;
mod standing_in;
mod turns;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use partha_core::id::{ClassId, Incarnation, NodeId, Peer, Uid};
use partha_wire::{Slot, Writer};
use tokio::io::DuplexStream;
use tokio::task::JoinSet;

use super::*;
use crate::error::Completed;
use crate::net::connection::lock;
use crate::net::handshake::Hello;
use crate::net::pending::Answer;
use crate::net::traffic::{Backpressure, Traffic};
use crate::wire::frame::Target;
use crate::wire::large::{HEAD_BYTES, LANES, PART_BYTES};

/// What may wait in the pipe.
const PIPE_BYTES: usize = 64 * 1024;
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Answers with what it was sent, and notes how its connection ended.
#[derive(Clone, Default)]
struct Echo {
    /// Lengths of what came, in their order.
    came: Arc<Mutex<Vec<usize>>>,
    ended: Arc<Mutex<Option<SystemError>>>,
    /// Calls that are not answered.
    silent: bool,
    /// Bytes that it puts behind what it was sent.
    grows: usize,
    cancelled: Arc<AtomicUsize>,
}

impl Inbound for Echo {
    fn invoke(&self, connection: &Arc<Connection>, call: frame::Invoke) {
        let data = call.parameters.reader().and_then(|r| r.pointer(0).bytes());
        let data = match data {
            Ok(data) => data,
            Err(error) => return connection.fail(&error.into(), call.question),
        };
        lock(&self.came).push(data.len());
        if self.silent {
            return;
        }
        let data = match self.grows {
            0 => data,
            more => [&data[..], &vec![0; more]].concat().into(),
        };
        let mut w = frame::returned();
        let slot = frame::body(&w);
        let s = w.structure(slot, 0, 1);
        w.bytes(s.slot(0), &data);
        if let Err(error) = connection.answer(w, call.question) {
            connection.fail(&error.completed(Completed::Yes), call.question);
        }
    }

    fn action(&self, _connection: &Arc<Connection>, _action: Action) {}

    fn cancel(&self, _connection: &Arc<Connection>, _question: u32) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    fn idle(&self, _connection: &Arc<Connection>) {}

    fn closed(&self, reason: &SystemError) {
        *lock(&self.ended) = Some(reason.clone());
    }
}

fn connection(hello: impl FnOnce(Hello) -> Hello, traffic: Traffic) -> Arc<Connection> {
    let peer = Peer {
        node: NodeId(3),
        incarnation: Incarnation(1),
    };
    let hello = hello(Hello::new(peer, "other", 0, 1, NodeId(0)));
    Connection::new(hello, "a pipe".to_owned(), Lease::default(), traffic)
}

fn serve(stream: DuplexStream, connection: &Arc<Connection>, inbound: Echo) {
    let (reader, writer) = tokio::io::split(stream);
    tokio::spawn(run(reader, writer, connection.clone(), inbound));
}

/// Two ends that have met: who asks, and what answers there.
fn pair(asking: Traffic, old: bool) -> (Arc<Connection>, Echo) {
    let (left, right) = tokio::io::duplex(PIPE_BYTES);
    let version = |mut hello: Hello| {
        if old {
            hello.version = 2;
        }
        hello.taking(if old { 0 } else { MESSAGE_BYTES_MAX })
    };
    let (here, there) = (
        connection(version, asking),
        connection(version, Traffic::default()),
    );
    let echo = Echo::default();
    serve(left, &here, Echo::default());
    serve(right, &there, echo.clone());
    (here, echo)
}

fn invoke(data: &Bytes) -> Writer {
    let uid = Uid {
        node: NodeId(3),
        local: 7,
    };
    let (mut w, slot) = frame::invoke(Target::Object(uid), ClassId(1), 0);
    w.set_bytes_max(usize::MAX);
    let s = w.structure(slot, 0, 1);
    w.bytes(s.slot(0), data);
    w
}

/// What is in the way of so many bytes in a message.
fn overhead() -> usize {
    invoke(&Bytes::new()).len()
}

fn noise(len: usize, seed: usize) -> Bytes {
    (0..len)
        .map(|n| (n.wrapping_mul(31) ^ (n >> 9) ^ seed) as u8)
        .collect::<Vec<_>>()
        .into()
}

async fn ask(connection: &Arc<Connection>, data: &Bytes) -> Result<Bytes, SystemError> {
    let in_a_minute = Instant::now() + Duration::from_secs(60);
    let mut w = invoke(data);
    let sent = connection.call_with_room(&mut w, in_a_minute, in_a_minute, |_| ());
    let answer: Answer = sent.await?.answer().await;
    Ok(answer.outcome?.reader()?.pointer(0).bytes()?)
}

#[tokio::test]
async fn every_size_comes_back_alone_and_among_others() {
    let whole = PART_BYTES - overhead();
    let sizes = [
        0,
        1,
        511,
        512,
        16 * 1024,
        64 * 1024 - 1,
        64 * 1024,
        64 * 1024 + 1,
        whole - 8,
        whole,
        whole + 1,
        PART_BYTES,
        2 * PART_BYTES - overhead(),
        2 * PART_BYTES + 1,
        1 << 20,
        MESSAGE_BYTES_MAX - overhead(),
    ];
    for old in [false, true] {
        let (connection, _) = pair(Traffic::default(), old);
        for (seed, size) in sizes.into_iter().enumerate() {
            let data = noise(size, seed);
            let answer = ask(&connection, &data).await.unwrap();
            assert!(answer == data, "{size} bytes alone, old: {old}");
        }
        let mut together = JoinSet::new();
        for (seed, size) in sizes.into_iter().cycle().take(40).enumerate() {
            let connection = connection.clone();
            together.spawn(async move {
                let data = noise(size, seed);
                let answer = ask(&connection, &data).await.unwrap();
                assert!(answer == data, "{size} bytes among others, old: {old}");
            });
        }
        while let Some(asked) = together.join_next().await {
            asked.unwrap();
        }
    }
}

#[tokio::test]
async fn what_the_peer_would_not_take_is_refused_before_anything_is_sent() {
    let (connection, echo) = pair(Traffic::default(), false);
    for (size, fits) in [
        (MESSAGE_BYTES_MAX - overhead(), true),
        (MESSAGE_BYTES_MAX - overhead() + 1, false),
        (300 << 20, false),
    ] {
        let data = Bytes::from(vec![0; size]);
        let answer = ask(&connection, &data).await;
        assert_eq!(answer.is_ok(), fits, "{size}");
        let Err(error) = answer else { continue };
        let (kind, completed) = (error.kind(), error.completion());
        assert_eq!((kind, completed), (ErrorKind::TooLarge, Completed::No));
        for part in ["at most 4194304", "in pieces", "message_bytes_max"] {
            assert!(error.detail().contains(part), "{error}");
        }
    }
    assert_eq!(lock(&echo.came).len(), 1);
}

#[tokio::test]
async fn small_frames_overtake_large_ones_but_for_the_end_of_these() {
    let (connection, echo) = pair(Traffic::default(), false);
    let large = noise(MESSAGE_BYTES_MAX - overhead(), 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    // Nothing leaves before this task waits.
    let first = connection.call(&mut invoke(&large), deadline).unwrap();
    let second = connection.call(&mut invoke(&large), deadline).unwrap();
    drop(first);
    let small = noise(100, 2);
    assert!(ask(&connection, &small).await.unwrap() == small);
    assert_eq!(*lock(&echo.came), [100], "in front of 8 MiB");
    assert_eq!(echo.cancelled.load(Ordering::Relaxed), 0);
    second.answer().await.outcome.unwrap();
    assert!(ask(&connection, &small).await.unwrap() == small);
    assert_eq!(echo.cancelled.load(Ordering::Relaxed), 1, "behind its call");
    assert_eq!(lock(&echo.came).len(), 4);
}

#[tokio::test]
async fn a_call_without_room_waits_for_its_turn_or_fails_as_it_is_wished() {
    for backpressure in [Backpressure::Wait, Backpressure::Fail] {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let traffic = Traffic {
            backpressure,
            ..Traffic::default()
        };
        let here = connection(|hello| hello.taking(MESSAGE_BYTES_MAX), traffic);
        // More calls than may be unsent; nobody reads them yet.
        let deadline = Instant::now() + Duration::from_secs(60);
        for size in [100 << 10, MESSAGE_BYTES_MAX - overhead()] {
            let data = noise(size, 1);
            let mut w = invoke(&data);
            let full = loop {
                match here.call(&mut w, deadline) {
                    // Nobody gives it up.
                    Ok(sent) => std::mem::forget(sent),
                    Err(error) => break error,
                }
            };
            let waits = backpressure == Backpressure::Wait;
            assert_eq!(here.is_to_wait(&full), waits, "{size}");
            let full = SystemError::from(full);
            let (kind, completed) = (full.kind(), full.completion());
            assert_eq!((kind, completed), (ErrorKind::Overloaded, Completed::No));
        }
        if backpressure == Backpressure::Fail {
            continue;
        }
        let mut w = invoke(&noise(8, 2));
        let late = here.call_in_turn(&mut w, deadline, Instant::now(), |_| ());
        let error = late.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        // Those that wait are served in their order, one by one, as soon as there is room.
        let mut waiting = JoinSet::new();
        for n in 1..=20 {
            let here = here.clone();
            waiting.spawn(async move {
                let mut w = invoke(&noise(n, 3));
                let mut renewed = 0;
                let sent = here.call_in_turn(&mut w, deadline, deadline, |_| renewed += 1);
                let sent = sent.await.unwrap();
                assert!(renewed > 0, "it does not say how much time it had before");
                sent.answer().await.outcome.unwrap();
            });
            tokio::task::yield_now().await;
        }
        let there = connection(|hello| hello.taking(MESSAGE_BYTES_MAX), Traffic::default());
        let echo = Echo::default();
        serve(near, &here, Echo::default());
        serve(far, &there, echo.clone());
        while let Some(served) = waiting.join_next().await {
            served.unwrap();
        }
        let came = lock(&echo.came).clone();
        let small: Vec<_> = came.into_iter().filter(|len| *len < 100).collect();
        assert_eq!(small, (1..=20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn both_ends_may_ask_for_much_at_once() {
    let (left, right) = tokio::io::duplex(PIPE_BYTES);
    let taking = |hello: Hello| hello.taking(MESSAGE_BYTES_MAX);
    let ends = [left, right].map(|stream| {
        let end = connection(taking, Traffic::default());
        let inbound = Echo {
            grows: 1 << 20,
            ..Echo::default()
        };
        serve(stream, &end, inbound);
        end
    });
    let mut asked = JoinSet::new();
    for end in &ends {
        for _ in 0..40 {
            let end = end.clone();
            asked.spawn(async move { ask(&end, &Bytes::new()).await.map(|got| got.len()) });
        }
    }
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), 1 << 20);
    }
}

/// What one end says to the other by hand, and how that ends.
async fn said(bytes: Vec<u8>) -> (Echo, SystemError) {
    let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
    let there = connection(|hello| hello.taking(MESSAGE_BYTES_MAX), Traffic::default());
    let echo = Echo {
        silent: true,
        ..Echo::default()
    };
    let (reader, writer) = tokio::io::split(far);
    let serving = tokio::spawn(run(reader, writer, there, echo.clone()));
    // Nobody reads any more once the connection is cut.
    let _ = near.write_all(&bytes).await;
    let _ = near.shutdown().await;
    drop(near);
    serving.await.unwrap();
    let ended = lock(&echo.ended).clone().expect("it ended");
    (echo, ended)
}

/// A message in parts.
fn in_parts(message: &[u8], lane: usize) -> Vec<Vec<u8>> {
    message
        .chunks(PART_BYTES)
        .map(|content| {
            let bytes = content.len();
            [&Head { lane, bytes }.encode()[..], content].concat()
        })
        .collect()
}

fn framed(size: usize) -> Vec<u8> {
    let mut framed = invoke(&noise(size, 5)).finish().unwrap().0;
    frame::set_question(&mut framed, 9);
    framed
}

#[tokio::test]
async fn parts_that_break_the_rules_cut_the_connection_for_a_named_reason() {
    let message = framed(300_000);
    let parts = in_parts(&message, 0);
    let head = |lane, bytes| Head { lane, bytes }.encode().to_vec();
    let words = |count: u32| [0_u32.to_le_bytes(), count.to_le_bytes()].concat();
    let announcing = |count: u32| {
        let mut part = head(1, PART_BYTES);
        part.extend(words(count));
        part.resize(HEAD_BYTES + PART_BYTES, 0);
        part
    };
    let mut crooked = parts[0].clone();
    crooked[HEAD_BYTES - 4] ^= 8;
    let mut many = Vec::new();
    for lane in 0..=LANES {
        many.extend(in_parts(&framed(MESSAGE_BYTES_MAX - overhead()), lane)[0].clone());
    }
    let cases = [
        (
            "an empty part",
            [head(0, 0), vec![0; 8]].concat(),
            "content behind its head",
        ),
        ("a ninth lane", many, "at most 8 messages"),
        ("a head that lies", crooked, "content behind its head"),
        (
            "a small part",
            in_parts(&message[..1024], 0)[0].clone(),
            "the next one has 131072",
        ),
        (
            "a message too large",
            announcing(1 << 20),
            "at most 4194304 are allowed",
        ),
        ("a small message", announcing(100), "fits into one frame"),
        (
            "many segments",
            [head(0, PART_BYTES), vec![1; 64]].concat(),
            "segments",
        ),
        (
            "parts in parts",
            in_parts(&in_parts(&message, 1).concat(), 0).concat(),
            "nonsense",
        ),
        ("an end", parts[0].clone(), "131072 bytes into"),
        (
            "an end in a part",
            parts[0][..1000].to_vec(),
            " 968 bytes into",
        ),
        (
            "an end in a head",
            parts[0][..20].to_vec(),
            " 20 bytes into",
        ),
    ];
    for (what, bytes, why) in cases {
        let (echo, ended) = said(bytes).await;
        assert_eq!(ended.kind(), ErrorKind::Malformed, "{what}: {ended}");
        assert!(ended.detail().contains(why), "{what}: {ended}");
        assert!(lock(&echo.came).is_empty(), "{what}");
    }
    let (echo, ended) = said(parts.concat()).await;
    assert_eq!(ended.kind(), ErrorKind::BindingBroken, "{ended}");
    assert_eq!(*lock(&echo.came), [300_000]);
}

#[tokio::test]
async fn a_part_may_be_larger_than_the_largest_message() {
    let largest = PART_BYTES + 8;
    let bytes = in_parts(&framed(largest - overhead()), 0).concat();
    // Its head comes in two reads at least: the rest finds no room before the first is read.
    let (first, rest) = bytes.split_at(HEAD_BYTES / 2 - 2);
    let (mut near, far) = tokio::io::duplex(first.len());
    let traffic = Traffic {
        message_bytes_max: largest,
        ..Traffic::default()
    };
    let there = connection(|hello| hello.taking(MESSAGE_BYTES_MAX), traffic);
    let echo = Echo {
        silent: true,
        ..Echo::default()
    };
    let (reader, writer) = tokio::io::split(far);
    let serving = tokio::spawn(run(reader, writer, there, echo.clone()));
    near.write_all(first).await.unwrap();
    let _ = near.write_all(rest).await;
    drop(near);
    serving.await.unwrap();
    let ended = lock(&echo.ended).clone();
    assert_eq!(*lock(&echo.came), [largest - overhead()], "{ended:?}");
}

#[tokio::test]
async fn a_part_stays_due_while_a_frame_is() {
    let mut parts = Parts::new(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
    let begun = in_parts(&framed(300_000), 0)[0].clone();
    parts.take(&mut BytesMut::from(&begun[..])).unwrap();
    let of_parts = parts.due();
    let of_frame = of_parts.map(|due| due + Duration::from_secs(1));
    assert!(of_parts.is_some());
    assert_eq!(earlier(of_frame, of_parts), of_parts);
    assert_eq!(earlier(None, of_parts), of_parts);
    assert_eq!(earlier(of_frame, None), of_frame);
    assert_eq!(earlier(None, None), None);
}

/// A generator of numbers, the same each time (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[tokio::test]
async fn parts_may_be_mixed_at_will() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20 {
        let sizes: Vec<_> = (0..LANES)
            .map(|_| PART_BYTES + random.below(500_000))
            .collect();
        let mut lanes: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(lane, size)| in_parts(&framed(*size), lane).into_iter())
            .collect();
        let mut bytes = Vec::new();
        let mut small = 0;
        while !lanes.is_empty() {
            if random.below(3) == 0 {
                bytes.extend(framed(random.below(3000)));
                small += 1;
            }
            let lane = random.below(lanes.len());
            match lanes[lane].next() {
                Some(part) => bytes.extend(part),
                None => drop(lanes.swap_remove(lane)),
            }
        }
        let (echo, ended) = said(bytes).await;
        assert_eq!(ended.kind(), ErrorKind::BindingBroken, "{ended}");
        let mut came = lock(&echo.came).clone();
        assert_eq!(came.len(), small + sizes.len());
        came.retain(|len| *len >= PART_BYTES);
        came.sort_unstable();
        let mut sizes = sizes;
        sizes.sort_unstable();
        assert_eq!(came, sizes);
    }
}

#[tokio::test]
async fn damage_is_an_error_with_a_name_and_never_a_panic() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let two = [in_parts(&framed(140_000), 0), in_parts(&framed(200_000), 1)];
    let whole: Vec<u8> = [&two[0][0], &two[1][0], &framed(50), &two[1][1], &two[0][1]]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    let heads = [0, HEAD_BYTES + PART_BYTES, 2 * (HEAD_BYTES + PART_BYTES)];
    let mut harmless = 0;
    for round in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let near = heads[random.below(heads.len())] + random.below(3 * HEAD_BYTES);
            let at = match round % 2 {
                0 => near,
                _ => random.below(whole.len()),
            };
            if at >= bytes.len() {
                break;
            }
            let end = (at + 1 + random.below(40)).min(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        let (echo, ended) = said(bytes).await;
        match ended.kind() {
            ErrorKind::Malformed => {}
            // The damage was in what nobody looks at, or the end looks like one.
            ErrorKind::BindingBroken => harmless += 1,
            other => panic!("{other:?}: {ended}"),
        }
        assert!(lock(&echo.came).len() <= 3);
    }
    assert!(harmless < 300, "{harmless}");
}
