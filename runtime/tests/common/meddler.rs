//! A relay between clients and a node that reads the frames, and meddles with calls of one object:
//! loses the request or the answer, cuts the answer in two, or answers in the node's place.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use partha::abi::Message;
use partha::{Completed, ErrorKind, Uid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::raw::{INVOKE, MAGIC, RETURN, frame};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddle {
    /// The connection breaks before the node has it.
    CutBefore,
    /// The connection breaks when the node has answered.
    CutAfter,
    /// Half of the answer arrives, then the connection breaks.
    CutWithin,
    /// The node never has it, and the caller is told this; whether the servant had begun last.
    Refuse(ErrorKind, Completed, bool),
}

/// A port that leads to a node.
pub struct Meddler {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    watched: Mutex<Uid>,
    script: Mutex<VecDeque<Meddle>>,
    sent: AtomicUsize,
    /// Clients do not see it when the node's end of a connection closes.
    held: AtomicBool,
    /// Nodes do not see it when the client's end of a connection closes.
    kept: AtomicBool,
}

/// One connection: questions whose answers are not to arrive whole, and the way to the client.
struct Relay {
    shared: Arc<Shared>,
    doomed: Mutex<HashMap<u32, Meddle>>,
    to_client: tokio::sync::Mutex<OwnedWriteHalf>,
}

impl Meddler {
    /// A new port that leads to `target`; works as long as the test's runtime.
    pub async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            watched: Mutex::new(Uid::NIL),
            script: Mutex::default(),
            sent: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            kept: AtomicBool::new(false),
        });
        let of_relays = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(relay(stream, of_relays.clone()));
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Calls of this object are counted from now on, the first ones meddled with.
    pub fn watch(&self, object: Uid, script: &[Meddle]) {
        *self.shared.watched.lock().unwrap() = object;
        *self.shared.script.lock().unwrap() = script.iter().copied().collect();
        self.shared.sent.store(0, Ordering::Relaxed);
    }

    /// How often the object was called.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// From now on clients do not see it when the node's end of a connection closes.
    pub fn hold(&self) {
        self.shared.held.store(true, Ordering::Relaxed);
    }

    /// From now on nodes do not see it when the client's end of a connection closes.
    pub fn keep(&self) {
        self.shared.kept.store(true, Ordering::Relaxed);
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }
}

async fn relay(client: TcpStream, shared: Arc<Shared>) {
    let target = *shared.target.lock().unwrap();
    let Ok(node) = TcpStream::connect(target).await else {
        return;
    };
    for stream in [&client, &node] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_node, mut to_node) = node.into_split();
    let relay = Relay {
        shared,
        doomed: Mutex::default(),
        to_client: tokio::sync::Mutex::new(to_client),
    };
    let calls = async {
        relay.calls(from_client, &mut to_node).await;
        if relay.shared.kept.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    // Either end may close; the other learns it by the end of this.
    tokio::select! {
        () = calls => {}
        () = relay.answers(from_node) => {}
    }
}

impl Relay {
    async fn calls(&self, mut from: OwnedReadHalf, to: &mut OwnedWriteHalf) {
        let mut frames = Frames::default();
        while let Some(bytes) = frames.next(&mut from).await {
            let met = bytes.message().and_then(|message| self.meet(&message));
            match met {
                Some((_, Meddle::CutBefore)) => return,
                Some((question, Meddle::Refuse(kind, completed, has_begun))) => {
                    let answer = refusal(question, kind, completed, has_begun);
                    let mut to_client = self.to_client.lock().await;
                    if to_client.write_all(&answer).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some((question, later)) => {
                    self.doomed.lock().unwrap().insert(question, later);
                }
                None => {}
            }
            if to.write_all(&bytes.0).await.is_err() {
                return;
            }
        }
    }

    async fn answers(&self, mut from: OwnedReadHalf) {
        let mut frames = Frames::default();
        loop {
            let Some(bytes) = frames.next(&mut from).await else {
                if self.shared.held.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                return;
            };
            let message = bytes.message();
            let question = message.and_then(|message| {
                let s = message.reader().unwrap();
                (s.u16(0) == RETURN).then(|| s.u32(1))
            });
            let meddle = question.and_then(|q| self.doomed.lock().unwrap().remove(&q));
            let whole = bytes.0.len();
            let passed = match meddle {
                None => whole,
                Some(Meddle::CutWithin) => whole / 2,
                Some(_) => 0,
            };
            let mut to_client = self.to_client.lock().await;
            let sent = to_client.write_all(&bytes.0[..passed]).await;
            if sent.is_err() || passed < whole {
                return;
            }
        }
    }

    /// What is to happen to this frame, if it is a call of the object.
    fn meet(&self, message: &Message) -> Option<(u32, Meddle)> {
        let s = message.reader().unwrap();
        let watched = *self.shared.watched.lock().unwrap();
        let is_it = s.u16(0) == INVOKE && (s.u64(1), s.u64(2)) == (watched.node.0, watched.local);
        if !is_it {
            return None;
        }
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
        let meddle = self.shared.script.lock().unwrap().pop_front()?;
        Some((s.u32(1), meddle))
    }
}

fn refusal(question: u32, kind: ErrorKind, completed: Completed, has_begun: bool) -> Vec<u8> {
    frame(RETURN, question, |w, s| {
        w.set_u16(s, 1, kind as u16);
        let e = w.structure(s.slot(0), 1, 2);
        let completed = match completed {
            Completed::No => 0,
            Completed::Maybe => 1,
            Completed::Yes => 2,
        };
        w.set_u16(e, 0, completed);
        w.set_bool(e, 16, has_begun);
        w.text(e.slot(0), "the meddler says so");
    })
}

/// Splits what arrives into frames; the greeting is one with its magic before it.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    greeted: bool,
}

/// A frame, or a greeting.
struct Piece(Vec<u8>, bool);

impl Piece {
    fn message(&self) -> Option<Message> {
        self.1
            .then(|| Message::from_framed(self.0.clone().into(), Vec::new()).unwrap())
    }
}

impl Frames {
    async fn next(&mut self, from: &mut OwnedReadHalf) -> Option<Piece> {
        loop {
            let skipped = if self.greeted { 0 } else { MAGIC.len() };
            let rest = self.buffer.get(skipped..).unwrap_or_default();
            if let Some(len) = partha_wire::frame_len(rest, 64 << 20).unwrap()
                && rest.len() >= len
            {
                let bytes = self.buffer.drain(..skipped + len).collect();
                let piece = Piece(bytes, self.greeted);
                self.greeted = true;
                return Some(piece);
            }
            let mut chunk = [0; 16 << 10];
            match from.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }
}
