//! Random rpc.capnp messages with few ids, so that they meet; and random bytes.
//!
//! Whatever comes, nothing panics and nothing is left when the connection has ended. Seeds are
//! fixed; set `PARTHA_GUARD_FUZZ_SEEDS` to run more of them.

mod common;

use std::rc::Rc;

use common::raw::{self, Cap, On};
use common::{Served, Toy, eventually, on_local_set};
use partha_guard::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// A small generator of numbers; good enough to mix message kinds.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as u32) % bound
    }

    /// An id that is mostly small.
    fn id(&mut self) -> u32 {
        if self.below(50) == 0 {
            self.below(1_000)
        } else {
            self.below(6)
        }
    }

    fn cap(&mut self) -> Cap {
        match self.below(10) {
            0 => Cap::None,
            1..=3 => Cap::Hosted(self.id()),
            4..=6 => Cap::Promise(self.id()),
            7 => Cap::Yours(self.id()),
            _ => Cap::Answer(self.id()),
        }
    }

    fn caps(&mut self) -> Vec<Cap> {
        (0..self.below(4)).map(|_| self.cap()).collect()
    }

    fn on(&mut self) -> On {
        if self.below(2) == 0 {
            On::Export(self.below(3))
        } else {
            On::Answer(self.id())
        }
    }

    fn message(&mut self) -> Vec<u8> {
        match self.below(40) {
            0..=3 => raw::bootstrap(self.id()),
            4..=17 => {
                let (question, on) = (self.id(), self.on());
                let (method, caps) = (self.below(9) as u16, self.caps());
                raw::call(question, on, method, &caps, "9")
            }
            18..=23 => raw::finish(self.id(), self.below(2) == 0),
            24..=28 => {
                let promise = self.id();
                let to = (self.below(6) > 0).then(|| self.cap());
                raw::resolve(promise, to)
            }
            29..=31 => {
                let question = self.id();
                raw::results(question, &self.caps(), "9")
            }
            32 => raw::exception_return(self.id()),
            33 => raw::cancelled_return(self.id()),
            34 | 35 => raw::release(self.id(), self.below(3)),
            36 | 37 => raw::disembargo(self.id(), self.id(), self.below(2) == 0),
            38 => raw::unimplemented_resolve(self.id(), self.cap()),
            _ => raw::join(self.id()),
        }
    }
}

fn seeds(usual: u64) -> std::ops::Range<u64> {
    let count = std::env::var("PARTHA_GUARD_FUZZ_SEEDS").ok();
    let count = count.map_or(usual, |text| text.parse().expect("a number of seeds"));
    1..count + 1
}

/// Feeds `pieces` to a server and sees that it ends clean.
async fn feed(seed: u64, pieces: Vec<Vec<u8>>, random: &mut Random) -> usize {
    let toy = Toy::new();
    toy.stubborn.set(random.below(2) == 0);
    let limits = Limits {
        handlers_max: 1 + random.below(5) as usize,
        ..Limits::default()
    };
    let (near, far) = duplex(4 << 10);
    let served = Served::new(far, limits, &toy);
    let (mut reader, mut writer) = tokio::io::split(near);
    let drain = tokio::task::spawn_local(async move {
        let mut all = Vec::new();
        let _ = reader.read_to_end(&mut all).await;
    });
    let mut sent = 0;
    for piece in pieces {
        if writer.write_all(&piece).await.is_err() {
            break;
        }
        sent += 1;
        for _ in 0..random.below(8) {
            tokio::task::yield_now().await;
        }
        if random.below(4) == 0 {
            toy.go.notify_waiters();
        }
    }
    let _ = writer.shutdown().await;
    served
        .task
        .await
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    drop(writer);
    drain.await.expect("reading does not panic");
    toy.kept.borrow_mut().clear();
    eventually(&format!("seed {seed}: all is gone"), || {
        toy.go.notify_waiters();
        toy.live.get() == 0 && toy.servants.get() == 0
    })
    .await;
    assert_eq!(Rc::strong_count(&toy), 1, "seed {seed}");
    sent
}

#[test]
fn random_messages() {
    let mut sent = 0;
    for chunk in seeds(600).collect::<Vec<_>>().chunks(100) {
        on_local_set(async {
            for seed in chunk {
                let mut random = Random::new(*seed);
                let mut pieces = vec![raw::bootstrap(0)];
                pieces.extend((0..random.below(60)).map(|_| random.message()));
                sent += feed(*seed, pieces, &mut random).await;
            }
        });
    }
    println!("{sent} messages were taken");
}

/// Sequences which keep to the protocol longer: question ids are fresh.
#[test]
fn random_honest_openings() {
    for chunk in seeds(300).collect::<Vec<_>>().chunks(100) {
        on_local_set(async {
            for seed in chunk {
                let mut random = Random::new(seed + 1_000_000);
                let mut pieces = vec![raw::bootstrap(0)];
                for question in 1..random.below(40) + 2 {
                    let (method, caps) = (random.below(10) as u16, random.caps());
                    let on = match random.below(3) {
                        0 => On::Answer(random.below(question)),
                        _ => On::Export(0),
                    };
                    pieces.push(raw::call(question, on, method, &caps, "9"));
                    match random.below(4) {
                        0 => pieces.push(raw::finish(question, random.below(2) == 0)),
                        1 => {
                            let to = random.cap();
                            pieces.push(raw::resolve(random.id(), Some(to)));
                        }
                        _ => {}
                    }
                }
                feed(*seed, pieces, &mut random).await;
            }
        });
    }
}

#[test]
fn random_bytes() {
    for chunk in seeds(300).collect::<Vec<_>>().chunks(100) {
        on_local_set(async {
            for seed in chunk {
                let mut random = Random::new(seed + 2_000_000);
                let mut bytes = raw::bootstrap(0);
                for _ in 0..random.below(10) {
                    bytes.extend(random.message());
                }
                for _ in 0..random.below(12) {
                    let at = random.below(bytes.len() as u32) as usize;
                    bytes[at] = random.below(256) as u8;
                }
                let piece = 1 + random.below(200) as usize;
                let pieces = bytes.chunks(piece).map(<[u8]>::to_vec).collect();
                feed(*seed, pieces, &mut random).await;
            }
        });
    }
}

/// A peer that mostly keeps to the protocol, reads what it is sent and reacts to it, so that it
/// gets deep before it is cut.
#[derive(Default)]
struct Peer {
    asked: u32,
    /// Questions not finished.
    open: Vec<u32>,
    /// Ids of its own capabilities, and those that are unresolved promises.
    mine: u32,
    promises: Vec<u32>,
    /// Capabilities of the server it knows of.
    theirs: Vec<u32>,
    /// Calls of the server it has not answered.
    to_answer: Vec<u32>,
    /// Embargoes of the server it has not sent back.
    embargoes: Vec<(u32, u32)>,
}

impl Peer {
    fn pick(random: &mut Random, from: &[u32]) -> u32 {
        if from.is_empty() || random.below(200) == 0 {
            return 0;
        }
        from[random.below(from.len() as u32) as usize]
    }

    fn cap(&mut self, random: &mut Random) -> Cap {
        match random.below(12) {
            0 => Cap::None,
            1 | 2 => {
                self.mine += 1;
                Cap::Hosted(self.mine)
            }
            3 | 4 => Cap::Hosted(1 + random.below(self.mine + 1)),
            5 | 6 => {
                self.mine += 1;
                self.promises.push(self.mine);
                Cap::Promise(self.mine)
            }
            7 => Cap::Promise(Self::pick(random, &self.promises)),
            8 | 9 => Cap::Yours(Self::pick(random, &self.theirs)),
            _ => Cap::Answer(Self::pick(random, &self.open)),
        }
    }

    fn caps(&mut self, random: &mut Random) -> Vec<Cap> {
        (0..random.below(4)).map(|_| self.cap(random)).collect()
    }

    /// A capability a promise may honestly become.
    fn resolution(&mut self, random: &mut Random) -> Option<Cap> {
        match random.below(12) {
            0 => Some(self.cap(random)),
            1..=3 => {
                self.mine += 1;
                Some(Cap::Hosted(self.mine))
            }
            4 | 5 => Some(Cap::Promise(Self::pick(random, &self.promises))),
            6..=9 => Some(Cap::Yours(Self::pick(random, &self.theirs))),
            _ => None,
        }
    }

    fn act(&mut self, random: &mut Random) -> Vec<u8> {
        match random.below(20) {
            0..=8 => {
                self.asked += 1;
                let on = match random.below(3) {
                    0 => On::Export(Self::pick(random, &self.theirs)),
                    1 => On::Answer(Self::pick(random, &self.open)),
                    _ => On::Export(0),
                };
                let caps = self.caps(random);
                self.open.push(self.asked);
                raw::call(self.asked, on, random.below(10) as u16, &caps, "9")
            }
            9..=11 if !self.open.is_empty() => {
                let at = random.below(self.open.len() as u32) as usize;
                raw::finish(self.open.swap_remove(at), random.below(2) == 0)
            }
            12..=14 if !self.promises.is_empty() => {
                let at = random.below(self.promises.len() as u32) as usize;
                let promise = self.promises.swap_remove(at);
                raw::resolve(promise, self.resolution(random))
            }
            15..=17 if !self.to_answer.is_empty() => {
                let at = random.below(self.to_answer.len() as u32) as usize;
                let question = self.to_answer.swap_remove(at);
                if random.below(5) == 0 {
                    return raw::exception_return(question);
                }
                raw::results(question, &self.caps(random), "9")
            }
            18 if !self.embargoes.is_empty() => {
                let (question, embargo) = self.embargoes.remove(0);
                raw::disembargo(question, embargo, true)
            }
            18 if random.below(30) == 0 => {
                raw::disembargo(Self::pick(random, &self.open), 3, false)
            }
            _ if self.theirs.len() > 3 => raw::release(self.theirs.swap_remove(1), 1),
            _ => raw::call_text(self.next_question()),
        }
    }

    fn next_question(&mut self) -> u32 {
        self.asked += 1;
        self.open.push(self.asked);
        self.asked
    }

    /// Takes note of what the server said.
    fn hear(&mut self, message: raw::Heard) {
        match message {
            raw::Heard::Returned { exports } => self.theirs.extend(exports),
            raw::Heard::Called { question, exports } => {
                self.to_answer.push(question);
                self.theirs.extend(exports);
            }
            raw::Heard::Embargo { embargo } => self.embargoes.push((0, embargo)),
            raw::Heard::Other => {}
        }
    }
}

async fn converse(seed: u64) -> (usize, bool) {
    let mut random = Random::new(seed + 3_000_000);
    let toy = Toy::new();
    toy.stubborn.set(random.below(2) == 0);
    let limits = Limits {
        handlers_max: 1 + random.below(40) as usize,
        ..Limits::default()
    };
    let (near, far) = duplex(64 << 10);
    let served = Served::new(far, limits, &toy);
    let (mut reader, mut writer) = tokio::io::split(near);
    let heard = Rc::new(std::cell::RefCell::new(Vec::new()));
    let hearing = Rc::clone(&heard);
    let drain = tokio::task::spawn_local(async move {
        let mut bytes = [0; 1 << 10];
        while let Ok(count @ 1..) = reader.read(&mut bytes).await {
            hearing.borrow_mut().extend_from_slice(&bytes[..count]);
        }
    });
    let mut peer = Peer::default();
    let mut sent = 0;
    let _ = writer.write_all(&raw::bootstrap(0)).await;
    for _ in 0..random.below(200) {
        let message = peer.act(&mut random);
        if writer.write_all(&message).await.is_err() {
            break;
        }
        sent += 1;
        for _ in 0..random.below(12) {
            tokio::task::yield_now().await;
        }
        for message in raw::hear(&mut heard.borrow_mut()) {
            peer.hear(message);
        }
        if random.below(6) == 0 {
            toy.go.notify_waiters();
        }
    }
    let _ = writer.shutdown().await;
    served
        .task
        .await
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    drop(writer);
    drain.await.expect("reading does not panic");
    toy.kept.borrow_mut().clear();
    eventually(&format!("seed {seed}: all is gone"), || {
        toy.go.notify_waiters();
        toy.live.get() == 0 && toy.servants.get() == 0
    })
    .await;
    assert_eq!(Rc::strong_count(&toy), 1, "seed {seed}");
    let cut = served.cut.take();
    (sent, cut.is_some())
}

#[test]
fn random_peers() {
    let (mut messages, mut cut, mut peers) = (0, 0, 0);
    for chunk in seeds(300).collect::<Vec<_>>().chunks(100) {
        on_local_set(async {
            for seed in chunk {
                let (sent, was_cut) = converse(*seed).await;
                messages += sent;
                cut += usize::from(was_cut);
                peers += 1;
            }
        });
    }
    println!("{peers} peers sent {messages} messages, {cut} were cut");
}
