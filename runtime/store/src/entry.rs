//! Entries of a group's log: a batch as bytes.
//!
//! An entry says what one call has changed: a new state, rows, a saved reply; or how far an action
//! has come. The leader of a group makes it, every copy stages its bytes as they are, and installs
//! what they say.
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
//! | 5 `PreparePart` | uid (16), action (16), node (8), shard (2), 0, or 1 and the decider (16), length (4), body |
//! | 6 `EndPart` | uid (16), action (16), 1 to commit or 0 |
//! | 7 `DecideGroup` | uid (16), action (16), time to be kept in ms (8), number of participants (4), of groups (4), participants (10 each), groups (16 each) |
//! | 8 `SettleGroup` | uid (16), action (16) |
//! | 9 `CheckpointGroup` | uid (16), length (4), a checkpoint (`format/checkpoint.rs`) |
//!
//! The body of a part is an entry itself, of items 1 to 3.
//!
//! Numbers are big-endian. Entries travel between nodes, so a byte more or less, another number or
//! length is an error and never a panic. A change here is one of the wire and of the store.

mod reader;

use bytes::Bytes;
use partha_core::action::path::Coordinator;
use partha_core::id::{CallId, Uid};

use self::reader::Reader;
use crate::StoreError;
use crate::batch::{Batch, Item};
use crate::format::{self, Decided, RecordHead};
use crate::store::{Record, check_row};

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 12;

const WRITE_STATE: u8 = 1;
const PUT_ROW: u8 = 2;
const REMOVE_ROW: u8 = 3;
const SAVE_REPLY: u8 = 4;
const PREPARE_PART: u8 = 5;
const END_PART: u8 = 6;
const DECIDE_GROUP: u8 = 7;
const SETTLE_GROUP: u8 = 8;
const CHECKPOINT_GROUP: u8 = 9;

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
        Item::PreparePart { .. }
        | Item::EndPart { .. }
        | Item::DecideGroup { .. }
        | Item::SettleGroup { .. }
        | Item::CheckpointGroup { .. } => encode_about_action(item, bytes),
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

fn encode_about_action(item: &Item, bytes: &mut Vec<u8>) {
    match item {
        Item::PreparePart {
            uid,
            action,
            coordinator,
            body,
        } => {
            encode_action(PREPARE_PART, *uid, *action, bytes);
            bytes.extend_from_slice(&format::coordinator_bytes(*coordinator));
            bytes.extend_from_slice(&length(body.len()));
            bytes.extend_from_slice(body);
        }
        Item::EndPart {
            uid,
            action,
            commit,
        } => {
            encode_action(END_PART, *uid, *action, bytes);
            bytes.push((*commit).into());
        }
        Item::DecideGroup {
            uid,
            action,
            participants,
            groups,
            keep_ms,
        } => {
            encode_action(DECIDE_GROUP, *uid, *action, bytes);
            bytes.extend_from_slice(&keep_ms.to_be_bytes());
            bytes.extend_from_slice(&length(participants.len()));
            bytes.extend_from_slice(&length(groups.len()));
            bytes.extend(participants.iter().copied().flat_map(format::site_bytes));
            bytes.extend(groups.iter().flat_map(|group| group.to_bytes()));
        }
        Item::SettleGroup { uid, action } => encode_action(SETTLE_GROUP, *uid, *action, bytes),
        Item::CheckpointGroup { uid, checkpoint } => {
            bytes.push(CHECKPOINT_GROUP);
            bytes.extend_from_slice(&uid.to_bytes());
            let checkpoint = format::checkpoint_bytes(checkpoint);
            bytes.extend_from_slice(&length(checkpoint.len()));
            bytes.extend_from_slice(&checkpoint);
        }
        other => unreachable!("the caller sorts items: {other:?}"),
    }
}

fn encode_action(what: u8, uid: Uid, action: Uid, bytes: &mut Vec<u8>) {
    bytes.push(what);
    bytes.extend_from_slice(&uid.to_bytes());
    bytes.extend_from_slice(&action.to_bytes());
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

/// Whether an entry that was checked brings a part of an action.
pub(crate) fn has_part(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes.get(HEADER_BYTES..).unwrap_or_default());
    let mut items = std::iter::from_fn(|| reader.item());
    items.any(|item| matches!(item, ItemRef::Part { .. }))
}

/// Whether the bytes are an entry of what a snapshot tells about actions at this object.
pub(crate) fn check_actions(bytes: &[u8], uid: Uid) -> Result<(), StoreError> {
    check(bytes, uid)?;
    each(bytes, |item| match item {
        ItemRef::Part { .. } | ItemRef::Decide { .. } | ItemRef::Checkpoint { .. } => Ok(()),
        other => Err(bad(&format!("{other:?} in a snapshot"))),
    })
}

/// Whether the bytes are what a part of an action at this object changes.
fn check_body(bytes: &[u8], uid: Uid) -> Result<(), StoreError> {
    check_sum(bytes)?;
    each_of(bytes, true, |item| match item {
        ItemRef::State { .. } | ItemRef::Put { .. } | ItemRef::Remove { .. }
            if item.uid() == uid =>
        {
            Ok(())
        }
        other => Err(bad(&format!("a part of an action at {uid} with {other:?}"))),
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
    visit: impl FnMut(ItemRef<'e>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    each_of(bytes, false, visit)
}

/// As [`each`]; in the body of a part there is none.
fn each_of<'e>(
    bytes: &'e [u8],
    is_body: bool,
    mut visit: impl FnMut(ItemRef<'e>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(bad(&format!("{} bytes, fewer than a header", bytes.len())));
    };
    if header[..4] != [FORMAT, 0, 0, 0] {
        let why = format!("format {}, {FORMAT} is known here", header[0]);
        return Err(bad(&why));
    }
    let count = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let mut reader = Reader::new(rest);
    for number in 0..count {
        let Some(part) = reader.item() else {
            return Err(bad(&format!("item {number} of {count} is none")));
        };
        if let ItemRef::Put { uid, part, key, .. } | ItemRef::Remove { uid, part, key } = part {
            check_row(uid, part, key).map_err(|error| bad(&error.to_string()))?;
        }
        match part {
            ItemRef::Part { .. } if is_body => return Err(bad("a part within a part")),
            ItemRef::Part { uid, body, .. } => check_body(body, uid)?,
            _ => {}
        }
        visit(part)?;
    }
    match reader.rest() {
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
pub(crate) enum ItemRef<'e> {
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
    Part {
        uid: Uid,
        action: Uid,
        coordinator: Coordinator,
        body: &'e [u8],
    },
    End {
        uid: Uid,
        action: Uid,
        commit: bool,
    },
    Decide {
        uid: Uid,
        action: Uid,
        decided: Decided<'e>,
    },
    Settle {
        uid: Uid,
        action: Uid,
    },
    Checkpoint {
        uid: Uid,
        /// Bytes that were found to be one.
        checkpoint: &'e [u8],
    },
}

impl ItemRef<'_> {
    pub(crate) fn uid(&self) -> Uid {
        match self {
            Self::State { uid, .. }
            | Self::Put { uid, .. }
            | Self::Remove { uid, .. }
            | Self::Reply { uid, .. }
            | Self::Part { uid, .. }
            | Self::End { uid, .. }
            | Self::Decide { uid, .. }
            | Self::Settle { uid, .. }
            | Self::Checkpoint { uid, .. } => *uid,
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
            Self::Part { .. }
            | Self::End { .. }
            | Self::Decide { .. }
            | Self::Settle { .. }
            | Self::Checkpoint { .. } => self.item_about_action(bytes),
        }
    }

    fn item_about_action(self, bytes: &Bytes) -> Item {
        match self {
            Self::Part {
                uid,
                action,
                coordinator,
                body,
            } => Item::PreparePart {
                uid,
                action,
                coordinator,
                body: bytes.slice_ref(body),
            },
            Self::End {
                uid,
                action,
                commit,
            } => Item::EndPart {
                uid,
                action,
                commit,
            },
            Self::Decide {
                uid,
                action,
                decided,
            } => Item::DecideGroup {
                uid,
                action,
                participants: decided.participants(),
                groups: decided.groups(),
                keep_ms: decided.keep_ms,
            },
            Self::Settle { uid, action } => Item::SettleGroup { uid, action },
            Self::Checkpoint { uid, checkpoint } => {
                let checkpoint = format::split_checkpoint(checkpoint);
                let checkpoint = checkpoint.expect("the reader has looked at it");
                Item::CheckpointGroup {
                    uid,
                    checkpoint: checkpoint.owned(|value| bytes.slice_ref(value)),
                }
            }
            other => unreachable!("the caller sorts items: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
