//! Entries of a group's log: a batch as bytes.
//!
//! An entry says what one call has changed: a new state, rows, a saved reply. The leader of a
//! group makes it, every copy stages its bytes as they are, and installs what they say.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | format, 1 |
//! | 1 | nothing, 3 zeros |
//! | 4 | number of items |
//! | 8 | CRC-32C of all but itself |
//! | 12 | the items |
//!
//! | item | after its number (1) |
//! |---|---|
//! | 1 `WriteState` | uid (16), class (8), schema (8), version (8), epoch (8), length (4), state |
//! | 2 `PutRow` | uid (16), part (2), length of the key (2), of the value (4), key, value |
//! | 3 `RemoveRow` | uid (16), part (2), length of the key (2), key |
//! | 4 `SaveReply` | call (20), uid (16), time to be kept in ms (8), length (4), body |
//!
//! Numbers are big-endian. Entries travel between nodes, so a byte more or less, another number or
//! length is an error and never a panic. A change here is one of the wire and of the store.

use bytes::Bytes;
use partha_core::id::{CallId, ClassId, Epoch, Uid};

use crate::StoreError;
use crate::batch::{Batch, Item};
use crate::format::{self, RecordHead};
use crate::store::{Record, check_row};

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 12;

const WRITE_STATE: u8 = 1;
const PUT_ROW: u8 = 2;
const REMOVE_ROW: u8 = 3;
const SAVE_REPLY: u8 = 4;

/// The batch as an entry.
///
/// # Panics
/// If it has an item that is none of those in the table of the module, or a value of 4 GiB, for
/// which no batch has room.
#[must_use]
pub fn encode(batch: &Batch) -> Bytes {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + batch.weight_bytes());
    bytes.extend_from_slice(&[FORMAT, 0, 0, 0]);
    bytes.extend_from_slice(&length(batch.items.len()));
    bytes.extend_from_slice(&[0; 4]);
    for item in &batch.items {
        encode_item(item, &mut bytes);
    }
    let crc = checksum(&bytes);
    bytes[8..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn encode_item(item: &Item, bytes: &mut Vec<u8>) {
    match item {
        Item::WriteState { uid, record } => {
            bytes.push(WRITE_STATE);
            bytes.extend_from_slice(&uid.to_bytes());
            let numbers = [
                record.class.0,
                record.schema,
                record.version,
                record.epoch.0,
            ];
            bytes.extend(numbers.into_iter().flat_map(u64::to_be_bytes));
            bytes.extend_from_slice(&length(record.state.len()));
            bytes.extend_from_slice(&record.state);
        }
        Item::PutRow {
            uid,
            part,
            key,
            value,
        } => {
            bytes.push(PUT_ROW);
            encode_row(*uid, *part, key, bytes);
            bytes.extend_from_slice(&length(value.len()));
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        Item::RemoveRow { uid, part, key } => {
            bytes.push(REMOVE_ROW);
            encode_row(*uid, *part, key, bytes);
            bytes.extend_from_slice(key);
        }
        Item::SaveReply {
            call,
            uid,
            body,
            keep_ms,
        } => {
            bytes.push(SAVE_REPLY);
            bytes.extend_from_slice(&call.to_bytes());
            bytes.extend_from_slice(&uid.to_bytes());
            bytes.extend_from_slice(&keep_ms.to_be_bytes());
            bytes.extend_from_slice(&length(body.len()));
            bytes.extend_from_slice(body);
        }
        Item::Create { .. }
        | Item::Delete { .. }
        | Item::WriteShadow { .. }
        | Item::CreateShadow { .. }
        | Item::ShadowRow { .. }
        | Item::Prepare { .. }
        | Item::CommitShadow { .. }
        | Item::DeleteShadow { .. }
        | Item::Decide { .. }
        | Item::Settle { .. }
        | Item::PutPlace { .. }
        | Item::ShadowPlace { .. }
        | Item::Told { .. }
        | Item::JoinGroup { .. }
        | Item::GroupLog { .. }
        | Item::GroupInstall { .. }
        | Item::GroupSnapshot { .. }
        | Item::LeaveGroup { .. } => panic!("no entry has such an item: {item:?}"),
    }
}

fn encode_row(uid: Uid, part: u16, key: &[u8], bytes: &mut Vec<u8>) {
    let key_len = u16::try_from(key.len()).expect("a row's key has room in LMDB");
    bytes.extend_from_slice(&uid.to_bytes());
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes.extend_from_slice(&key_len.to_be_bytes());
}

fn length(len: usize) -> [u8; 4] {
    let len = u32::try_from(len).expect("a batch has no room for 4 GiB");
    len.to_be_bytes()
}

fn checksum(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&bytes[..8]);
    crc32c::crc32c_append(crc, &bytes[HEADER_BYTES..])
}

/// The batch that was encoded. Its values are slices of `bytes`.
///
/// # Errors
/// `BadEntry` if they are not what [`encode`] makes, or hold a row that cannot be.
pub fn decode(bytes: Bytes) -> Result<Batch, StoreError> {
    let mut items = Vec::new();
    check_sum(&bytes)?;
    each(&bytes, |part| {
        items.push(part.item(&bytes));
        Ok(())
    })?;
    Ok(Batch { items })
}

/// Whether the bytes are an entry about this object and no other.
pub(crate) fn check(bytes: &[u8], uid: Uid) -> Result<(), StoreError> {
    check_sum(bytes)?;
    each(bytes, |part| match part.uid() == uid {
        true => Ok(()),
        false => Err(bad(&format!("an item about object {}", part.uid()))),
    })
}

fn check_sum(bytes: &[u8]) -> Result<(), StoreError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(bad(&format!("{} bytes, fewer than a header", bytes.len())));
    };
    let stored = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let computed = checksum(bytes);
    if stored != computed {
        let why = format!("checksum {computed:08x}, expected {stored:08x}");
        return Err(bad(&why));
    }
    Ok(())
}

/// Goes through the items of an entry whose checksum is right, or that lay where one is.
pub(crate) fn each<'e>(
    bytes: &'e [u8],
    mut visit: impl FnMut(Part<'e>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(bad(&format!("{} bytes, fewer than a header", bytes.len())));
    };
    if header[..4] != [FORMAT, 0, 0, 0] {
        let why = format!("format {}, {FORMAT} is known here", header[0]);
        return Err(bad(&why));
    }
    let count = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let mut reader = Reader(rest);
    for number in 0..count {
        let Some(part) = reader.part() else {
            return Err(bad(&format!("item {number} of {count} is none")));
        };
        if let Part::Put { uid, part, key, .. } | Part::Remove { uid, part, key } = part {
            check_row(uid, part, key).map_err(|error| bad(&error.to_string()))?;
        }
        visit(part)?;
    }
    match reader.0 {
        [] => Ok(()),
        rest => Err(bad(&format!("{} bytes behind the last item", rest.len()))),
    }
}

fn bad(why: &str) -> StoreError {
    StoreError::BadEntry {
        why: why.to_owned(),
    }
}

/// An item of an entry, where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'e> {
    State {
        uid: Uid,
        head: RecordHead,
        state: &'e [u8],
    },
    Put {
        uid: Uid,
        part: u16,
        key: &'e [u8],
        value: &'e [u8],
    },
    Remove {
        uid: Uid,
        part: u16,
        key: &'e [u8],
    },
    Reply {
        call: CallId,
        uid: Uid,
        keep_ms: u64,
        body: &'e [u8],
    },
}

impl Part<'_> {
    pub(crate) fn uid(&self) -> Uid {
        match self {
            Self::State { uid, .. }
            | Self::Put { uid, .. }
            | Self::Remove { uid, .. }
            | Self::Reply { uid, .. } => *uid,
        }
    }

    /// The item, with values that are slices of `bytes`, in which the part lies.
    fn item(self, bytes: &Bytes) -> Item {
        match self {
            Self::State { uid, head, state } => {
                let RecordHead {
                    class,
                    schema,
                    version,
                    epoch,
                } = head;
                let record = Record {
                    class,
                    schema,
                    version,
                    epoch,
                    state: bytes.slice_ref(state),
                };
                Item::WriteState { uid, record }
            }
            Self::Put {
                uid,
                part,
                key,
                value,
            } => Item::PutRow {
                uid,
                part,
                key: bytes.slice_ref(key),
                value: bytes.slice_ref(value),
            },
            Self::Remove { uid, part, key } => Item::RemoveRow {
                uid,
                part,
                key: bytes.slice_ref(key),
            },
            Self::Reply {
                call,
                uid,
                keep_ms,
                body,
            } => Item::SaveReply {
                call,
                uid,
                body: bytes.slice_ref(body),
                keep_ms,
            },
        }
    }
}

/// What is left to be read.
struct Reader<'e>(&'e [u8]);

impl<'e> Reader<'e> {
    fn part(&mut self) -> Option<Part<'e>> {
        let [what] = self.array()?;
        match what {
            WRITE_STATE => {
                let uid = self.uid()?;
                let head = RecordHead {
                    class: ClassId(self.u64()?),
                    schema: self.u64()?,
                    version: self.u64()?,
                    epoch: Epoch(self.u64()?),
                };
                let len = self.length()?;
                let state = self.bytes(len)?;
                Some(Part::State { uid, head, state })
            }
            PUT_ROW => {
                let (uid, part, key_len) = (self.uid()?, self.u16()?, self.u16()?);
                let value_len = self.length()?;
                let key = self.bytes(key_len.into())?;
                let value = self.bytes(value_len)?;
                Some(Part::Put {
                    uid,
                    part,
                    key,
                    value,
                })
            }
            REMOVE_ROW => {
                let (uid, part, key_len) = (self.uid()?, self.u16()?, self.u16()?);
                let key = self.bytes(key_len.into())?;
                Some(Part::Remove { uid, part, key })
            }
            SAVE_REPLY => {
                let call = format::call_id(self.bytes(20)?)?;
                let (uid, keep_ms, len) = (self.uid()?, self.u64()?, self.length()?);
                let body = self.bytes(len)?;
                Some(Part::Reply {
                    call,
                    uid,
                    keep_ms,
                    body,
                })
            }
            _ => None,
        }
    }

    fn bytes(&mut self, len: usize) -> Option<&'e [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn uid(&mut self) -> Option<Uid> {
        self.array().map(Uid::from_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.array().map(u32::from_be_bytes)?).ok()
    }
}

#[cfg(test)]
mod tests;
