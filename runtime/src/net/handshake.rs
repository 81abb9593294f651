//! How two of our own ends meet: magic, version, identities.
//!
//! The opener sends the magic and a Hello; the acceptor answers with the magic and its own Hello,
//! or with a refusal that says why. No message outlives an incarnation of either end, since both
//! incarnations are fixed here for the life of the connection.

use std::time::Duration;

use partha_core::id::{Incarnation, NodeId, Peer};
use partha_wire::{DecodeError, HEADER, Message, Slot, StructReader, Writer, frame_len};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::MESSAGE_BYTES_MAX;
use crate::error::{ErrorKind, SystemError};

/// The first bytes of a native connection; no Cap'n Proto RPC stream can begin so, as they would
/// claim a billion segments. The line ends catch transports that mangle them.
pub(crate) const MAGIC: [u8; 8] = *b"PARTHA\r\n";
/// The version of frames and call context that this software speaks.
pub(crate) const VERSION: u16 = 5;
/// The oldest version it understands: before it there were no actions, and a call in an action
/// would have been executed, and committed, on its own.
pub(crate) const VERSION_MIN: u16 = 2;
/// How long the other end may take for the whole handshake.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Any shard will do.
pub(crate) const ANY_SHARD: u16 = u16::MAX;

const HELLO_BYTES_MAX: usize = 4096;
const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// The first version in which large messages travel in parts.
const VERSION_OF_PARTS: u16 = 3;

/// What each end says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Newest version it speaks.
    pub(crate) version: u16,
    /// Oldest version it speaks.
    pub(crate) version_min: u16,
    /// Who it is, in which life.
    pub(crate) peer: Peer,
    /// The opener: the shard it wants. The acceptor: the shard it got.
    pub(crate) shard: u16,
    /// How many shards it has; 0 for a client that serves nothing.
    pub(crate) shards: u16,
    /// The opener: the node it wants to meet; 0 for whoever listens there.
    pub(crate) expected: NodeId,
    /// Its name for people.
    pub(crate) name: String,
    /// The version of its software, for people.
    pub(crate) software: String,
    /// The largest message it takes; 0 of an end that does not say.
    message_bytes_max: u64,
}

impl Hello {
    pub(crate) fn new(peer: Peer, name: &str, shard: u16, shards: u16, expected: NodeId) -> Self {
        let name = name.chars().take(256).collect();
        let software = SOFTWARE.to_owned();
        let (version, version_min) = (VERSION, VERSION_MIN);
        Self {
            version,
            version_min,
            peer,
            shard,
            shards,
            expected,
            name,
            software,
            message_bytes_max: 0,
        }
    }

    /// The same of an end that takes messages of at most so many bytes.
    pub(crate) fn taking(mut self, message_bytes_max: usize) -> Self {
        self.message_bytes_max = message_bytes_max as u64;
        self
    }

    /// The largest message it takes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        match self.message_bytes_max {
            0 => MESSAGE_BYTES_MAX,
            max => usize::try_from(max).unwrap_or(usize::MAX),
        }
    }

    /// Whether it puts parts of messages together.
    pub(crate) fn knows_parts(&self) -> bool {
        self.version >= VERSION_OF_PARTS
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(HELLO_BYTES_MAX);
        let s = w.structure(Slot::ROOT, 5, 2);
        w.set_u16(s, 1, self.version);
        w.set_u16(s, 2, self.version_min);
        w.set_u16(s, 3, self.shard);
        w.set_u64(s, 1, self.peer.node.0);
        w.set_u64(s, 2, self.expected.0);
        w.set_u32(s, 6, self.peer.incarnation.0);
        w.set_u16(s, 14, self.shards);
        w.set_u64(s, 4, self.message_bytes_max);
        w.text(s.slot(0), &self.name);
        w.text(s.slot(1), &self.software);
        with_magic(w)
    }

    fn decode(s: StructReader<'_>) -> Result<Self, DecodeError> {
        let incarnation = Incarnation(s.u32(6));
        if incarnation > Incarnation::MAX {
            return Err(DecodeError::invalid("an incarnation of 24 bits"));
        }
        Ok(Self {
            version: s.u16(1),
            version_min: s.u16(2),
            peer: Peer {
                node: NodeId(s.u64(1)),
                incarnation,
            },
            shard: s.u16(3),
            shards: s.u16(14),
            expected: NodeId(s.u64(2)),
            name: s.pointer(0).text()?.to_owned(),
            software: s.pointer(1).text()?.to_owned(),
            message_bytes_max: s.u64(4),
        })
    }

    /// Whether two ends have a version in common; the error says what each speaks.
    pub(crate) fn check_version(&self) -> Result<(), SystemError> {
        if self.version >= VERSION_MIN && self.version_min <= VERSION {
            return Ok(());
        }
        let detail = format!(
            "the peer (software {}) speaks versions {} to {} of the protocol, this end \
             (software {SOFTWARE}) {VERSION_MIN} to {VERSION}; upgrade the older one",
            self.software, self.version_min, self.version
        );
        Err(SystemError::new(ErrorKind::VersionMismatch, detail))
    }
}

/// Sends our Hello and reads the answer.
pub(crate) async fn open<S>(stream: &mut S, hello: &Hello) -> Result<Hello, SystemError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let meeting = async {
        stream
            .write_all(&hello.encode())
            .await
            .map_err(unreachable)?;
        read(stream).await
    };
    let answer = tokio::time::timeout(DEADLINE, meeting)
        .await
        .map_err(|_| late())??;
    answer.check_version()?;
    if hello.expected != NodeId(0) && hello.expected != answer.peer.node {
        let detail = format!(
            "node {} ({}) listens there, not node {}",
            answer.peer.node, answer.name, hello.expected
        );
        return Err(SystemError::new(ErrorKind::Unreachable, detail));
    }
    Ok(answer)
}

/// Reads the opener's Hello; its magic must not have been taken from the stream yet.
pub(crate) async fn accept<S>(stream: &mut S) -> Result<Hello, SystemError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = tokio::time::timeout(DEADLINE, read(stream))
        .await
        .map_err(|_| late())??;
    if let Err(error) = hello.check_version() {
        refuse(stream, &error).await;
        return Err(error);
    }
    Ok(hello)
}

/// Answers the opener with our Hello.
pub(crate) async fn welcome<S>(stream: &mut S, hello: &Hello) -> Result<(), SystemError>
where
    S: AsyncWrite + Unpin,
{
    let bytes = hello.encode();
    let writing = stream.write_all(&bytes);
    tokio::time::timeout(DEADLINE, writing)
        .await
        .map_err(|_| late())?
        .map_err(unreachable)
}

/// Answers the opener with a reason and closes; whether it arrives is the opener's luck.
pub(crate) async fn refuse<S>(stream: &mut S, error: &SystemError)
where
    S: AsyncWrite + Unpin,
{
    let mut w = Writer::new(HELLO_BYTES_MAX);
    let s = w.structure(Slot::ROOT, 4, 2);
    w.set_u16(s, 0, 1);
    w.set_u16(s, 15, error.kind() as u16);
    let detail = error.detail();
    w.text(s.slot(0), &detail[..detail.floor_char_boundary(2048)]);
    let bytes = with_magic(w);
    let _ = tokio::time::timeout(DEADLINE, stream.write_all(&bytes)).await;
    let _ = stream.shutdown().await;
}

fn with_magic(w: Writer) -> Vec<u8> {
    let (frame, _) = w.finish().expect("a greeting is small");
    let mut bytes = MAGIC.to_vec();
    bytes.extend(frame);
    bytes
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Hello, SystemError> {
    let mut magic = [0; 8];
    stream.read_exact(&mut magic).await.map_err(unreachable)?;
    if magic != MAGIC {
        let detail = "the peer does not speak the Partha protocol";
        return Err(SystemError::new(ErrorKind::VersionMismatch, detail));
    }
    let mut frame = vec![0; HEADER];
    stream.read_exact(&mut frame).await.map_err(unreachable)?;
    let malformed = |detail: String| SystemError::new(ErrorKind::Malformed, detail);
    let len = frame_len(&frame, HELLO_BYTES_MAX).map_err(|error| malformed(error.to_string()))?;
    frame.resize(len.expect("the header is there"), 0);
    stream
        .read_exact(&mut frame[HEADER..])
        .await
        .map_err(unreachable)?;
    let message = Message::from_framed(frame.into(), Vec::new())?;
    let s = message.reader()?;
    if s.u16(0) != 0 {
        let detail = s.pointer(0).text()?.to_owned();
        return Err(SystemError::new(ErrorKind::from_code(s.u16(15)), detail));
    }
    Ok(Hello::decode(s)?)
}

fn unreachable(error: std::io::Error) -> SystemError {
    SystemError::new(
        ErrorKind::Unreachable,
        format!("the handshake failed: {error}"),
    )
}

fn late() -> SystemError {
    let detail = format!("no handshake within {} s", DEADLINE.as_secs());
    SystemError::new(ErrorKind::Unreachable, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u64) -> Hello {
        let peer = Peer {
            node: NodeId(node),
            incarnation: Incarnation(2),
        };
        Hello::new(peer, "a", 1, 4, NodeId(0))
    }

    async fn meet(opener: Hello, acceptor: Hello) -> Result<Hello, SystemError> {
        let (mut left, mut right) = tokio::io::duplex(1 << 16);
        let (opened, accepted) = tokio::join!(open(&mut left, &opener), async {
            let seen = accept(&mut right).await?;
            welcome(&mut right, &acceptor).await?;
            Ok::<_, SystemError>(seen)
        });
        assert_eq!(accepted?, opener);
        opened
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is() {
        assert_eq!(meet(hello(1), hello(2)).await.unwrap(), hello(2));
    }

    #[tokio::test]
    async fn another_node_than_expected_is_refused_by_name() {
        let mut opener = hello(1);
        opener.expected = NodeId(3);
        let error = meet(opener, hello(2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.detail().contains("0000000000000002"), "{error}");
    }

    #[tokio::test]
    async fn a_version_out_of_range_is_refused_with_both_ranges() {
        let mut opener = hello(1);
        (opener.version, opener.version_min) = (9, 8);
        let (mut left, mut right) = tokio::io::duplex(1 << 16);
        let (opened, accepted) = tokio::join!(open(&mut left, &opener), accept(&mut right));
        for error in [opened.unwrap_err(), accepted.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::VersionMismatch);
            assert!(error.detail().contains("versions 8 to 9"), "{error}");
        }
    }

    #[tokio::test]
    async fn garbage_is_not_believed() {
        let (mut left, mut right) = tokio::io::duplex(1 << 16);
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]);
        left.write_all(&bytes).await.unwrap();
        let error = accept(&mut right).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }
}
