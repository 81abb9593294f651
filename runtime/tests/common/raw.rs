//! A peer of the native face that says whatever a test wants: frames by hand, after wire.capnp.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use partha::abi::{Message, Slot, StructAt, Writer, write_uid};
use partha::services::system::connection_manager;
use partha::{NodeId, Uid};

pub const MAGIC: &[u8; 8] = b"PARTHA\r\n";
pub const ANY_SHARD: u16 = u16::MAX;

/// Kinds of frames.
pub const INVOKE: u16 = 1;
pub const RETURN: u16 = 2;
pub const CANCEL: u16 = 3;
pub const PING: u16 = 4;
pub const PONG: u16 = 5;
pub const RELEASE: u16 = 7;

/// The counter's method that answers with as many bytes as it is asked for.
pub const FILL: (u64, u16) = (super::behaviour::counter::CLASS.0, 11);

/// One connection, blocking.
pub struct Raw {
    pub stream: TcpStream,
    /// Who it says it is.
    pub process: u64,
    buffer: Vec<u8>,
}

/// What the peer says of itself first.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    pub version: u16,
    pub version_min: u16,
    pub shard: u16,
    pub node: u64,
    pub expected: u64,
    pub incarnation: u32,
}

impl Default for Hello {
    fn default() -> Self {
        let (version, version_min, shard) = (2, 2, ANY_SHARD);
        let (node, expected, incarnation) = (super::random(), 0, 1);
        Self {
            version,
            version_min,
            shard,
            node,
            expected,
            incarnation,
        }
    }
}

impl Hello {
    pub fn bytes(&self) -> Vec<u8> {
        let mut w = Writer::new(4096);
        let s = w.structure(Slot::ROOT, 4, 2);
        w.set_u16(s, 1, self.version);
        w.set_u16(s, 2, self.version_min);
        w.set_u16(s, 3, self.shard);
        w.set_u64(s, 1, self.node);
        w.set_u64(s, 2, self.expected);
        w.set_u32(s, 6, self.incarnation);
        w.text(s.slot(0), "raw");
        w.text(s.slot(1), "a test");
        [MAGIC.to_vec(), w.finish().unwrap().0].concat()
    }
}

/// A frame with these fields.
pub fn frame(kind: u16, number: u32, fill: impl FnOnce(&mut Writer, StructAt)) -> Vec<u8> {
    let mut w = Writer::new(64 << 20);
    let s = w.structure(Slot::ROOT, 5, 2);
    w.set_u16(s, 0, kind);
    w.set_u32(s, 1, number);
    fill(&mut w, s);
    w.finish().unwrap().0
}

/// A call of an object; `fill` writes the parameters, with room for three words and pointers.
pub fn invoke(
    question: u32,
    object: Uid,
    (interface, method): (u64, u16),
    fill: impl FnOnce(&mut Writer, StructAt),
) -> Vec<u8> {
    frame(INVOKE, question, |w, s| {
        w.set_u64(s, 1, object.node.0);
        w.set_u64(s, 2, object.local);
        w.set_u64(s, 3, interface);
        w.set_u16(s, 16, method);
        let parameters = w.structure(s.slot(0), 3, 3);
        fill(w, parameters);
    })
}

/// A call of the connection manager's `initiate`.
pub fn initiate(question: u32, node: NodeId, object: Uid) -> Vec<u8> {
    let called = (connection_manager::CLASS.0, 0);
    invoke(question, Uid::connection_manager(node), called, |w, s| {
        write_uid(w, s.slot(1), object)
    })
}

impl Raw {
    /// Connects without a word.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            process: 0,
            buffer: Vec::new(),
        }
    }

    /// Connects and meets the node.
    pub fn meet(address: SocketAddr) -> Self {
        Self::meet_as(address, &Hello::default())
    }

    pub fn meet_as(address: SocketAddr, hello: &Hello) -> Self {
        let mut raw = Self::silent(address);
        raw.process = hello.node;
        raw.send(&hello.bytes());
        let answer = raw.greeting().expect("the node answers");
        assert_eq!(answer.reader().unwrap().u16(0), 0, "no refusal");
        raw
    }

    /// How the peer calls itself.
    pub fn address(&self) -> String {
        self.stream.local_addr().unwrap().to_string()
    }

    /// Sends; that the node has closed meanwhile is not the sender's business.
    pub fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// The node's greeting: its Hello or a refusal.
    pub fn greeting(&mut self) -> Option<Message> {
        if !self.fill(8) {
            return None;
        }
        let magic: Vec<u8> = self.buffer.drain(..8).collect();
        assert_eq!(magic, MAGIC);
        self.frame()
    }

    /// The next frame; none if the node has closed the connection.
    pub fn frame(&mut self) -> Option<Message> {
        if !self.fill(8) {
            return None;
        }
        let len = partha_wire::frame_len(&self.buffer, 64 << 20)
            .unwrap()
            .unwrap();
        if !self.fill(len) {
            return None;
        }
        let framed: Vec<u8> = self.buffer.drain(..len).collect();
        Some(Message::from_framed(framed.into(), Vec::new()).unwrap())
    }

    /// The next answer, pings answered on the way: its question, and its error if it is one.
    pub fn answer(&mut self) -> Option<(u32, Option<String>)> {
        loop {
            let message = self.frame()?;
            let s = message.reader().unwrap();
            match s.u16(0) {
                RETURN if s.u16(1) == 0 => return Some((s.u32(1), None)),
                RETURN => {
                    let failure = s.pointer(0).structure().unwrap();
                    let text = failure.pointer(0).text().unwrap();
                    return Some((s.u32(1), Some(format!("{}: {text}", s.u16(1)))));
                }
                PING => {
                    let pong = frame(PONG, s.u32(1), |_, _| {});
                    self.send(&pong);
                }
                _ => {}
            }
        }
    }

    /// Waits until the node has read everything that was sent so far.
    pub fn is_read(&mut self) {
        self.send(&frame(PING, 4711, |_, _| {}));
        loop {
            let message = self.frame().expect("the connection stays");
            let s = message.reader().unwrap();
            if (s.u16(0), s.u32(1)) == (PONG, 4711) {
                return;
            }
        }
    }

    /// Asserts that the node closes the connection in time; what it says before is dropped.
    #[track_caller]
    pub fn is_cut(&mut self, within: Duration) {
        let (start, mut sink) = (Instant::now(), [0; 4096]);
        loop {
            let left = within.checked_sub(start.elapsed());
            let left = left.filter(|left| !left.is_zero());
            let Some(left) = left else {
                panic!("not cut within {within:?}")
            };
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut sink) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    }

    fn fill(&mut self, len: usize) -> bool {
        self.stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        while self.buffer.len() < len {
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("nothing comes from the node: {error}"),
            }
        }
        true
    }
}
