//! Parameters and results as plain data, and the way into and out of capnp messages.

use capnp::Word;
use capnp::any_pointer;
use capnp::capability::Client;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions, ReaderSegments};
use capnp::private::capability::ClientHook;
use capnp::private::layout::CapTable;
use capnp::traits::{Imbue, ImbueMut};

use crate::steady::{settled, steady};
use crate::ticket::Seen;

/// Capability pointers copied at most; a message may point at one capability many times.
const CAPABILITY_POINTERS_MAX: u32 = 1_024;

/// A struct as the body of a message of one segment, without segment table: the root pointer is
/// word 0, the root is the struct of parameters or results.
#[derive(Clone, Debug, Default)]
pub struct Flat {
    /// Bytes of the segment, a multiple of 8.
    pub segment: Vec<u8>,
    /// What the capability pointers of the segment point at, by their index.
    pub capabilities: Vec<ForeignCapability>,
}

/// A capability in parameters or results.
#[derive(Clone)]
pub enum ForeignCapability {
    /// One of the peer's, such as a call-back object; usable on this thread only. Dropping it tells
    /// the peer. Once its connection has ended calls to it fail; drop it then, for until then it
    /// keeps the bootstrap object of that connection.
    Imported(Box<dyn ClientHook>),
    /// One of ours, by the number it was made with by [`capability`](crate::capability).
    Own(u64),
}

impl std::fmt::Debug for ForeignCapability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Imported(hook) => write!(f, "Imported({:#x})", hook.get_ptr()),
            Self::Own(target) => write!(f, "Own({target})"),
        }
    }
}

impl ForeignCapability {
    /// The capability as an untyped capnp client; none if it is one of ours.
    pub fn client(&self) -> Option<Client> {
        match self {
            Self::Imported(hook) => Some(Client::new(hook.add_ref())),
            Self::Own(_) => None,
        }
    }
}

impl Flat {
    /// Copies what `pointer` points at. `own` says which capabilities are ours.
    ///
    /// Fails on malformed data, and on data larger than the message it came in: pointers that
    /// overlap are how a small message is made into a large one.
    pub(crate) fn copy_from(
        pointer: any_pointer::Reader<'_>,
        seen: Option<&Seen>,
        mut own: impl FnMut(&dyn ClientHook) -> Option<u64>,
    ) -> capnp::Result<Self> {
        let size = pointer.target_size()?;
        let bytes = size.word_count.saturating_mul(8);
        if let Some(seen) = seen
            && bytes > seen.size_bytes as u64
        {
            return Err(capnp::Error::failed(format!(
                "{bytes} bytes of data in a message of {} bytes: its pointers overlap",
                seen.size_bytes
            )));
        }
        if size.cap_count > CAPABILITY_POINTERS_MAX {
            return Err(capnp::Error::overloaded(format!(
                "{} capability pointers, at most {CAPABILITY_POINTERS_MAX} are allowed",
                size.cap_count
            )));
        }
        let words = u32::try_from(size.word_count + 1)
            .map_err(|_| capnp::Error::overloaded(format!("{bytes} bytes of data")))?;
        let mut table = CapTable::new();
        let mut builder = Builder::new(HeapAllocator::new().first_segment_words(words));
        let mut root: any_pointer::Builder<'_> = builder.init_root();
        root.imbue_mut(&mut table);
        root.set_as(pointer)?;
        let segments = builder.get_segments_for_output();
        if segments.len() != 1 {
            let text = format!(
                "data of {} words did not fit its one segment",
                size.word_count
            );
            return Err(capnp::Error::failed(text));
        }
        let segment = segments[0].to_vec();
        let capabilities = table
            .into_iter()
            .map(|entry| {
                let hook = entry.ok_or_else(|| {
                    capnp::Error::failed("a capability pointer points at nothing".to_owned())
                })?;
                Ok(match own(hook.as_ref()) {
                    Some(target) => ForeignCapability::Own(target),
                    None => ForeignCapability::Imported(steady(hook)),
                })
            })
            .collect::<capnp::Result<_>>()?;
        Ok(Self {
            segment,
            capabilities,
        })
    }

    /// Whether no capability can be a promise.
    pub(crate) fn is_settled(&self) -> bool {
        let own = |capability: &_| matches!(capability, ForeignCapability::Own(_));
        self.capabilities.iter().all(own)
    }

    /// Waits until no capability is a promise of this process, such as the result of a pending
    /// call that was passed on: only then may it be sent.
    pub(crate) async fn settle(&self) {
        for capability in &self.capabilities {
            if let ForeignCapability::Imported(hook) = capability {
                settled(hook.as_ref()).await;
            }
        }
    }

    /// Numbers of the capabilities of ours.
    pub(crate) fn own_targets(&self) -> impl Iterator<Item = u64> + '_ {
        self.capabilities
            .iter()
            .filter_map(|capability| match capability {
                ForeignCapability::Imported(_) => None,
                ForeignCapability::Own(target) => Some(*target),
            })
    }

    /// Copies the data to `pointer`. `own` makes a capability of one of our numbers.
    pub(crate) fn copy_to(
        self,
        mut pointer: any_pointer::Builder<'_>,
        own: impl Fn(u64) -> Box<dyn ClientHook>,
    ) -> capnp::Result<()> {
        let table: CapTable = self
            .capabilities
            .into_iter()
            .map(|capability| {
                Some(match capability {
                    ForeignCapability::Imported(hook) => steady(hook),
                    ForeignCapability::Own(target) => own(target),
                })
            })
            .collect();
        let mut options = ReaderOptions::new();
        options.traversal_limit_in_words(None);
        let message = Reader::new(Aligned::new(self.segment)?, options);
        let mut root: any_pointer::Reader<'_> = message.get_root()?;
        root.imbue(&table);
        pointer.set_as(root)
    }
}

/// A segment at an address capnp can read from.
enum Aligned {
    /// As it was; nearly always.
    Bytes(Vec<u8>),
    Words(Vec<Word>),
}

impl Aligned {
    fn new(segment: Vec<u8>) -> capnp::Result<Self> {
        if segment.is_empty() || !segment.len().is_multiple_of(8) {
            let text = format!(
                "a segment of {} bytes, which is no number of words",
                segment.len()
            );
            return Err(capnp::Error::failed(text));
        }
        if segment.as_ptr().addr().is_multiple_of(8) {
            return Ok(Self::Bytes(segment));
        }
        let mut words = Word::allocate_zeroed_vec(segment.len() / 8);
        Word::words_to_bytes_mut(&mut words).copy_from_slice(&segment);
        Ok(Self::Words(words))
    }
}

impl ReaderSegments for Aligned {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        (index == 0).then(|| match self {
            Self::Bytes(bytes) => bytes.as_slice(),
            Self::Words(words) => Word::words_to_bytes(words),
        })
    }

    fn len(&self) -> usize {
        1
    }
}
