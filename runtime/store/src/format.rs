//! Keys and values as they are on disk. A change here is a change of [`STORE_FORMAT`].
//!
//! Keys are big-endian, so that the order of bytes is the order of values:
//!
//! | table | key | payload |
//! |---|---|---|
//! | `meta` | a name | a number |
//! | `state` | uid (16) ‖ part (2) ‖ row key | part 0: a record; others: a row's value |
//! | `shadow` | action (16) ‖ uid (16) | a record |
//! | `reply` | call id (20) | uid (16) ‖ expiry (8) ‖ body |
//! | `reply_expiry` | expiry in ms (8) ‖ call id (20) | uid (16) |
//! | `shadow_row` | action (16) ‖ uid (16) ‖ number (4) | part (2) ‖ length (2) ‖ row key ‖ what |
//! | `prepared` | action (16) | coordinator's site (10) ‖ decider (16), or nothing |
//! | `decision` | action (16) | time to be kept in ms (8) ‖ participants (10 each); or as `group_decision` |
//! | `outcome` | action (16) | expiry in ms (8) |
//! | `outcome_expiry` | expiry in ms (8) ‖ action (16) | nothing |
//! | `place` | uid (16) | what (1) ‖ moves (8) ‖ node (8) |
//! | `shadow_place` | action (16) ‖ uid (16) | as `place` |
//! | `untold` | uid (16) | nothing |
//! | `leftover` | uid (16) | the last key of `state` that was removed, or nothing |
//! | `group` | uid (16) | what (1), view (8), index (8), number (8), page (4), count (1), members |
//! | `group_log` | uid (16) ‖ index (8) ‖ view (8) | an entry ([`crate::entry`]) |
//! | `group_part` | uid (16) | action (16) ‖ coordinator (11 or 27) ‖ body, an entry |
//! | `group_decision` | uid (16) ‖ action (16) | time to be kept in ms (8) ‖ number of participants (4) ‖ participants (10 each) ‖ groups (16 each) |
//! | `group_outcome` | uid (16) ‖ action (16) | expiry in ms (8) ‖ time to be kept in ms (8) |
//! | `group_outcome_expiry` | expiry in ms (8) ‖ uid (16) ‖ action (16) | nothing |
//! | `group_checkpoint` | uid (16) | a checkpoint ([`checkpoint`]) |
//!
//! The numbers of shadow rows count up from 0, in the order in which they were written; `what`
//! is 1 and a value, or 0 to remove the row. Their keys have no room for the row's.
//!
//! What a place is: 0 for here, and the binder is to be told; 1 for here; 2 for gone. Rows of an
//! object in `state` without its record are of one that is on its way here (`shadow_place`) or has
//! left or did not come in the end (`leftover`), or of a copy whose snapshot is being taken
//! (`group`).
//!
//! What there is of a copy's state: 0 for nothing, 1 for pages of a snapshot of that entry, and
//! which comes next, 2 for all up to that entry. Its `group_log` has the entries behind that one,
//! without gaps. What the entries up to that one say about actions is in the tables from
//! `group_part` on; outcomes stay for their time when the copy ends and the object does not.
//!
//! Format 1 had none of the tables from `shadow_row` on, format 2 no log (`lmdb/log.rs`), format 3
//! none of the tables from `place` on and nothing in `reply_expiry`; all are brought up when a
//! store is opened.
//!
//! Every value starts with 12 bytes: format (1), kind (1), length of the key (2), length of the
//! payload (4), CRC-32C (4), numbers little-endian. The checksum covers key, header and payload:
//! LMDB has none of its own, and a page that lands in the wrong place carries a valid checksum
//! for the wrong key. A record is class (8), schema (8), version (8), epoch (8), state.

mod action;
mod checkpoint;
mod group;
mod part;
mod place;

use bytes::Bytes;
use partha_core::id::{CallId, ClassId, Epoch, Uid};

use crate::StoreError;
use crate::store::Record;
use crate::tables::Table;

pub(crate) use self::action::{
    Decided, SITE_BYTES, ShadowRow, UID_BYTES, coordinator_bytes, decision_bytes, decision_kind,
    outcome_expiry_key, seal_decided, seal_decision, seal_outcome, seal_prepared, seal_shadow_row,
    shadow_row_key, site_bytes, split_coordinator, split_outcome_expiry_key, unseal_decided,
    unseal_decision, unseal_outcome, unseal_prepared, unseal_shadow_row,
};
pub(crate) use self::checkpoint::{
    CheckpointRef, checkpoint_bytes, checkpoint_len, seal_checkpoint, split_checkpoint,
    unseal_checkpoint,
};
pub(crate) use self::group::{
    GroupCopy, Has, entry_key, entry_prefix, entry_stamp, seal_copy, unseal_copy,
};
pub(crate) use self::part::{
    PartRef, group_outcome_expiry_key, group_pair_key, paired_action, seal_group_outcome,
    seal_part, split_group_outcome_expiry_key, unseal_group_outcome, unseal_part,
};
pub(crate) use self::place::{call_id, seal_place, unseal_expiry_uid, unseal_place};

/// The format of a whole store, kept under `format` in `meta`.
pub(crate) const STORE_FORMAT: u32 = 4;
/// The oldest format that can be read.
pub(crate) const OLDEST_STORE_FORMAT: u32 = 1;
/// The longest row key: LMDB's 511 bytes without uid and part.
pub(crate) const KEY_BYTES_MAX: usize = 511 - OBJECT_KEY_BYTES;
/// Uid and part.
pub(crate) const OBJECT_KEY_BYTES: usize = 18;
/// The part with the plain record.
pub(crate) const PLAIN_PART: u16 = 0;

const VALUE_FORMAT: u8 = 1;
const HEADER_BYTES: usize = 12;
const RECORD_BYTES: usize = 32;
const REPLY_BYTES: usize = 24;

/// What a value is; part of what its checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The plain record of an object.
    State = 1,
    /// One row of an object.
    Row = 2,
    /// A prepared record.
    Shadow = 3,
    /// A saved reply.
    Reply = 4,
    /// An entry of the index of expiry times.
    ReplyExpiry = 5,
    /// A number about the store itself.
    Meta = 6,
    /// A prepared change of a row.
    ShadowRow = 7,
    /// An action prepared here.
    Prepared = 8,
    /// A decision that is not settled.
    Decision = 9,
    /// The outcome of an action whose participants all know.
    Outcome = 10,
    /// An entry of the index of expiry times of outcomes.
    OutcomeExpiry = 11,
    /// Where an object is.
    Place = 12,
    /// Where an object will be.
    ShadowPlace = 13,
    /// The mark of a place that the binder is to be told of.
    Untold = 14,
    /// The mark of rows to be removed.
    Leftover = 15,
    /// A copy of a group.
    GroupCopy = 16,
    /// An entry of a group's log.
    GroupEntry = 17,
    /// A decision that is not settled and names groups.
    DecisionOfGroups = 18,
    /// What an action has prepared at a replicated object.
    GroupPart = 19,
    /// A decision in a group's log that is not settled.
    GroupDecision = 20,
    /// A decision in a group's log that is settled.
    GroupOutcome = 21,
    /// An entry of the index of expiry times of those.
    GroupOutcomeExpiry = 22,
    /// What running actions have of a replicated object.
    GroupCheckpoint = 23,
}

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Self::State => "the state of an object",
            Self::Row => "a row of an object",
            Self::Shadow => "a prepared state",
            Self::Reply => "a saved reply",
            Self::ReplyExpiry => "an expiry entry of a reply",
            Self::Meta => "a number about the store",
            Self::ShadowRow => "a prepared row",
            Self::Prepared => "the note of a prepared action",
            Self::Decision => "a decision",
            Self::Outcome => "the outcome of an action",
            Self::OutcomeExpiry => "an expiry entry of an outcome",
            Self::Place => "the place of an object",
            Self::ShadowPlace => "a prepared place",
            Self::Untold => "the mark of a new place",
            Self::Leftover => "the mark of rows to be removed",
            Self::GroupCopy => "the copy of a group",
            Self::GroupEntry => "an entry of a group's log",
            Self::DecisionOfGroups => "a decision that names groups",
            Self::GroupPart => "what an action has prepared at a group",
            Self::GroupDecision => "a decision in a group's log",
            Self::GroupOutcome => "the outcome of an action in a group's log",
            Self::GroupOutcomeExpiry => "an expiry entry of an outcome in a group's log",
            Self::GroupCheckpoint => "a checkpoint of running actions",
        }
    }
}

/// Puts the header before a payload that is given in two pieces.
pub(crate) fn seal(
    kind: Kind,
    key: &[u8],
    head: &[u8],
    tail: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let len = head.len() + tail.len();
    let too_large = |_| StoreError::TooLarge {
        what: kind.what(),
        len,
        max: u32::MAX as usize,
    };
    let payload_len = u32::try_from(len).map_err(too_large)?;
    let key_len = u16::try_from(key.len()).map_err(too_large)?;
    let mut value = Vec::with_capacity(HEADER_BYTES + len);
    value.extend_from_slice(&[VALUE_FORMAT, kind as u8]);
    value.extend_from_slice(&key_len.to_le_bytes());
    value.extend_from_slice(&payload_len.to_le_bytes());
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(head);
    value.extend_from_slice(tail);
    let crc = checksum(key, &value);
    value[8..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(value)
}

/// The payload behind the header, after all checks.
pub(crate) fn unseal<'v>(kind: Kind, key: &[u8], value: &'v [u8]) -> Result<&'v [u8], StoreError> {
    let wrong = |found: String| corrupt(kind, key, found);
    let Some((header, payload)) = value.split_at_checked(HEADER_BYTES) else {
        return Err(wrong(format!("{} bytes, fewer than a header", value.len())));
    };
    let stored = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    let computed = checksum(key, value);
    if stored != computed {
        return Err(wrong(format!(
            "checksum {computed:08x}, expected {stored:08x}"
        )));
    }
    if header[0] != VALUE_FORMAT || header[1] != kind as u8 {
        return Err(wrong(format!(
            "value format {} of kind {}",
            header[0], header[1]
        )));
    }
    let key_len = u16::from_le_bytes([header[2], header[3]]);
    let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if usize::from(key_len) != key.len() || len as usize != payload.len() {
        return Err(wrong(format!("{} bytes, expected {len}", payload.len())));
    }
    Ok(payload)
}

/// Over key, header without the checksum field, payload.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(key);
    let crc = crc32c::crc32c_append(crc, &value[..8]);
    crc32c::crc32c_append(crc, &value[HEADER_BYTES..])
}

/// The error for a value that is not what was written.
pub(crate) fn corrupt(kind: Kind, key: &[u8], found: String) -> StoreError {
    StoreError::Corrupt {
        what: kind.what(),
        key: hex(key),
        found,
    }
}

fn hex(key: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * key.len());
    for byte in key.iter().take(64) {
        let _ = write!(text, "{byte:02x}");
    }
    if key.len() > 64 {
        text.push('…');
    }
    text
}

/// Uid and part: the prefix of all rows of a part.
pub(crate) fn object_key(uid: Uid, part: u16) -> [u8; OBJECT_KEY_BYTES] {
    let mut key = [0; OBJECT_KEY_BYTES];
    key[..16].copy_from_slice(&uid.to_bytes());
    key[16..].copy_from_slice(&part.to_be_bytes());
    key
}

/// The key of the plain record.
pub(crate) fn plain_key(uid: Uid) -> [u8; OBJECT_KEY_BYTES] {
    object_key(uid, PLAIN_PART)
}

/// The key of a row.
pub(crate) fn row_key(uid: Uid, part: u16, row: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(OBJECT_KEY_BYTES + row.len());
    key.extend_from_slice(&object_key(uid, part));
    key.extend_from_slice(row);
    key
}

/// The kind a key of the table `state` is of.
pub(crate) fn state_kind(key: &[u8]) -> Kind {
    if key.len() == OBJECT_KEY_BYTES && key[16..] == PLAIN_PART.to_be_bytes() {
        Kind::State
    } else {
        Kind::Row
    }
}

/// The uid at the start of a key.
pub(crate) fn leading_uid(kind: Kind, key: &[u8]) -> Result<Uid, StoreError> {
    let bytes = key.first_chunk::<16>();
    bytes
        .map(|b| Uid::from_bytes(*b))
        .ok_or_else(|| corrupt(kind, key, "a short key".to_owned()))
}

/// The key of a shadow.
pub(crate) fn shadow_key(action: Uid, uid: Uid) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&action.to_bytes());
    key[16..].copy_from_slice(&uid.to_bytes());
    key
}

/// The key of an entry of the index of expiry times.
pub(crate) fn expiry_key(expiry_ms: u64, call: CallId) -> [u8; 28] {
    let mut key = [0; 28];
    key[..8].copy_from_slice(&expiry_ms.to_be_bytes());
    key[8..].copy_from_slice(&call.to_bytes());
    key
}

/// Expiry time and key of the reply, of an entry of the index of expiry times.
pub(crate) fn split_expiry_key(key: &[u8]) -> Option<(u64, &[u8])> {
    let (expiry, call) = key.split_first_chunk::<8>()?;
    (call.len() == 20).then_some((u64::from_be_bytes(*expiry), call))
}

/// A record as a value.
pub(crate) fn seal_record(kind: Kind, key: &[u8], record: &Record) -> Result<Vec<u8>, StoreError> {
    let head = RecordHead {
        class: record.class,
        schema: record.schema,
        version: record.version,
        epoch: record.epoch,
    };
    head.seal(kind, key, &record.state)
}

/// Everything of a record but its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHead {
    pub(crate) class: ClassId,
    pub(crate) schema: u64,
    pub(crate) version: u64,
    pub(crate) epoch: Epoch,
}

/// The head of a record and its state, after all checks.
pub(crate) fn unseal_record<'v>(
    kind: Kind,
    key: &[u8],
    value: &'v [u8],
) -> Result<(RecordHead, &'v [u8]), StoreError> {
    let payload = unseal(kind, key, value)?;
    let Some((head, state)) = payload.split_at_checked(RECORD_BYTES) else {
        return Err(corrupt(
            kind,
            key,
            format!("{} bytes, no record", payload.len()),
        ));
    };
    let number = |i: usize| {
        let bytes = head[8 * i..]
            .first_chunk::<8>()
            .expect("a record head has four numbers");
        u64::from_le_bytes(*bytes)
    };
    let head = RecordHead {
        class: ClassId(number(0)),
        schema: number(1),
        version: number(2),
        epoch: Epoch(number(3)),
    };
    Ok((head, state))
}

impl RecordHead {
    /// The record with this state as a value.
    pub(crate) fn seal(self, kind: Kind, key: &[u8], state: &[u8]) -> Result<Vec<u8>, StoreError> {
        let numbers = [self.class.0, self.schema, self.version, self.epoch.0];
        let mut head = [0; RECORD_BYTES];
        for (slot, number) in head.chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        seal(kind, key, &head, state)
    }

    /// The record with a copy of its state.
    pub(crate) fn with_state(self, state: &[u8]) -> Record {
        let Self {
            class,
            schema,
            version,
            epoch,
        } = self;
        Record {
            class,
            schema,
            version,
            epoch,
            state: Bytes::copy_from_slice(state),
        }
    }
}

/// A reply as a value.
pub(crate) fn seal_reply(
    key: &[u8],
    uid: Uid,
    expiry_ms: u64,
    body: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let mut head = [0; REPLY_BYTES];
    head[..16].copy_from_slice(&uid.to_bytes());
    head[16..].copy_from_slice(&expiry_ms.to_be_bytes());
    seal(Kind::Reply, key, &head, body)
}

/// Table, key and value.
pub(crate) type Entry = (Table, Vec<u8>, Vec<u8>);

/// A saved reply, and its entry in the index of expiry times.
pub(crate) fn seal_saved(
    call: CallId,
    uid: Uid,
    body: &[u8],
    expiry_ms: u64,
) -> Result<[Entry; 2], StoreError> {
    let key = call.to_bytes();
    let reply = seal_reply(&key, uid, expiry_ms, body)?;
    let index = expiry_key(expiry_ms, call);
    let entry = seal(Kind::ReplyExpiry, &index, &uid.to_bytes(), &[])?;
    Ok([
        (Table::Reply, key.to_vec(), reply),
        (Table::ReplyExpiry, index.to_vec(), entry),
    ])
}

/// Object, expiry time and body of a reply, after all checks.
pub(crate) fn unseal_reply<'v>(
    key: &[u8],
    value: &'v [u8],
) -> Result<(Uid, u64, &'v [u8]), StoreError> {
    let payload = unseal(Kind::Reply, key, value)?;
    let head = payload.split_first_chunk::<16>();
    let rest = head.and_then(|(uid, rest)| Some((uid, rest.split_first_chunk::<8>()?)));
    let Some((uid, (expiry, body))) = rest else {
        return Err(corrupt(
            Kind::Reply,
            key,
            format!("{} bytes, no reply", payload.len()),
        ));
    };
    Ok((Uid::from_bytes(*uid), u64::from_be_bytes(*expiry), body))
}

/// A number about the store as a value.
pub(crate) fn seal_number(key: &[u8], number: u64) -> Result<Vec<u8>, StoreError> {
    seal(Kind::Meta, key, &number.to_le_bytes(), &[])
}

/// The number, after all checks.
pub(crate) fn unseal_number(key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    let payload = unseal(Kind::Meta, key, value)?;
    let bytes = <[u8; 8]>::try_from(payload);
    bytes
        .map(u64::from_le_bytes)
        .map_err(|_| corrupt(Kind::Meta, key, "no number".to_owned()))
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn record() -> Record {
        Record {
            class: ClassId(7),
            schema: 8,
            version: 9,
            epoch: Epoch(10),
            state: Bytes::from_static(b"a state"),
        }
    }

    #[test]
    fn records_and_replies_survive_the_round_trip() {
        let uid = Uid {
            node: NodeId(1),
            local: 2,
        };
        let key = plain_key(uid);
        let value = seal_record(Kind::State, &key, &record()).unwrap();
        let (head, state) = unseal_record(Kind::State, &key, &value).unwrap();
        assert_eq!(head.with_state(state), record());

        let value = seal_reply(b"call", uid, 99, b"body").unwrap();
        assert_eq!(
            unseal_reply(b"call", &value).unwrap(),
            (uid, 99, &b"body"[..])
        );
    }

    #[test]
    fn every_flipped_bit_of_value_or_key_is_found() {
        let key = plain_key(Uid {
            node: NodeId(1),
            local: 2,
        });
        let value = seal_record(Kind::State, &key, &record()).unwrap();
        for bit in 0..8 * value.len() {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                unseal(Kind::State, &key, &bad).is_err(),
                "bit {bit} of the value"
            );
        }
        for bit in 0..8 * key.len() {
            let mut bad = key;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                unseal(Kind::State, &bad, &value).is_err(),
                "bit {bit} of the key"
            );
        }
        for len in 0..value.len() {
            assert!(
                unseal(Kind::State, &key, &value[..len]).is_err(),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn a_value_in_the_wrong_place_is_found() {
        let value = seal(Kind::Row, b"key", b"value", b"").unwrap();
        assert!(unseal(Kind::Row, b"key", &value).is_ok());
        assert!(unseal(Kind::Row, b"kez", &value).is_err());
        assert!(unseal(Kind::Reply, b"key", &value).is_err());
        assert!(unseal(Kind::Row, b"", &value).is_err());
    }

    #[test]
    fn keys_sort_as_their_values_do() {
        let uid = |local| Uid {
            node: NodeId(1),
            local,
        };
        assert!(plain_key(uid(1))[..] < row_key(uid(1), 1, b"")[..]);
        assert!(row_key(uid(1), u16::MAX, &[0xff; 10])[..] < plain_key(uid(2))[..]);
        assert!(expiry_key(255, CallId::default()) < expiry_key(256, CallId::default()));
        assert_eq!(state_kind(&plain_key(uid(1))), Kind::State);
        assert_eq!(state_kind(&row_key(uid(1), 1, b"")), Kind::Row);
    }
}
