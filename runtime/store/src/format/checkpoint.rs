//! Checkpoints of replicated objects as bytes, in rows and in entries.
//!
//! Length of what has ended (4) ‖ what has ended, then for each action: uid (16) ‖ length (4) ‖
//! what there is of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use partha_core::id::Uid;

use super::{Kind, corrupt, seal, unseal};
use crate::StoreError;
use crate::group::GroupCheckpoint;

/// A length, and one with a uid before it.
const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = 16 + LENGTH_BYTES;

/// A checkpoint, where it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointRef<'v> {
    pub(crate) ended: &'v [u8],
    /// Each action once.
    pub(crate) actions: Vec<(Uid, &'v [u8])>,
}

impl<'v> CheckpointRef<'v> {
    pub(crate) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.actions.is_empty()
    }

    pub(crate) fn has(&self, action: Uid) -> bool {
        self.actions.iter().any(|(uid, _)| *uid == action)
    }

    /// What is left when the log has what this action has changed.
    pub(crate) fn settle(&mut self, action: Uid) {
        self.actions.retain(|(uid, _)| *uid != action);
    }

    /// With values that `copy` makes.
    pub(crate) fn owned(&self, copy: impl Fn(&'v [u8]) -> Bytes) -> GroupCheckpoint {
        let actions = self.actions.iter();
        GroupCheckpoint {
            ended: copy(self.ended),
            actions: actions.map(|(uid, bytes)| (*uid, copy(bytes))).collect(),
        }
    }

    fn of(checkpoint: &'v GroupCheckpoint) -> Self {
        let actions = checkpoint.actions.iter();
        Self {
            ended: &checkpoint.ended,
            actions: actions.map(|(uid, bytes)| (*uid, &bytes[..])).collect(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        put_length(self.ended.len(), &mut bytes);
        bytes.extend_from_slice(self.ended);
        for (uid, body) in &self.actions {
            bytes.extend_from_slice(&uid.to_bytes());
            put_length(body.len(), &mut bytes);
            bytes.extend_from_slice(body);
        }
        bytes
    }

    fn len(&self) -> usize {
        let actions = self.actions.iter();
        let actions: usize = actions.map(|(_, body)| HEAD_BYTES + body.len()).sum();
        LENGTH_BYTES + self.ended.len() + actions
    }
}

fn put_length(len: usize, bytes: &mut Vec<u8>) {
    let len = u32::try_from(len).expect("a batch has no room for 4 GiB");
    bytes.extend_from_slice(&len.to_be_bytes());
}

/// The size of a checkpoint.
pub(crate) fn checkpoint_len(checkpoint: &GroupCheckpoint) -> usize {
    CheckpointRef::of(checkpoint).len()
}

/// A checkpoint as a part of an entry.
pub(crate) fn checkpoint_bytes(checkpoint: &GroupCheckpoint) -> Vec<u8> {
    CheckpointRef::of(checkpoint).bytes()
}

/// The checkpoint that the bytes are, if they are one.
pub(crate) fn split_checkpoint(bytes: &[u8]) -> Option<CheckpointRef<'_>> {
    let (ended, mut rest) = split_value(bytes)?;
    let (mut names, mut actions) = (BTreeSet::new(), Vec::new());
    while let Some((uid, behind)) = rest.split_first_chunk() {
        let uid = Uid::from_bytes(*uid);
        let (body, behind) = split_value(behind)?;
        if !names.insert(uid) {
            return None;
        }
        actions.push((uid, body));
        rest = behind;
    }
    rest.is_empty().then_some(CheckpointRef { ended, actions })
}

fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

/// A checkpoint as a value.
pub(crate) fn seal_checkpoint(
    key: &[u8],
    checkpoint: &CheckpointRef<'_>,
) -> Result<Vec<u8>, StoreError> {
    seal(Kind::GroupCheckpoint, key, &checkpoint.bytes(), &[])
}

/// A checkpoint, after all checks.
pub(crate) fn unseal_checkpoint<'v>(
    key: &[u8],
    value: &'v [u8],
) -> Result<CheckpointRef<'v>, StoreError> {
    let payload = unseal(Kind::GroupCheckpoint, key, value)?;
    split_checkpoint(payload).ok_or_else(|| {
        let found = format!("{} bytes, no checkpoint", payload.len());
        corrupt(Kind::GroupCheckpoint, key, found)
    })
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn uid(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    #[test]
    fn checkpoints_survive_the_round_trip() {
        for ended in [&b""[..], b"ended"] {
            for count in 0..4 {
                let actions =
                    (0..count).map(|local| (uid(local), &b"some bytes"[..local as usize]));
                let actions = actions.collect();
                let checkpoint = CheckpointRef { ended, actions };
                let value = seal_checkpoint(b"key", &checkpoint).unwrap();
                assert_eq!(unseal_checkpoint(b"key", &value).unwrap(), checkpoint);
                let owned = checkpoint.owned(Bytes::copy_from_slice);
                assert_eq!(checkpoint_len(&owned), checkpoint_bytes(&owned).len());
                assert_eq!(checkpoint.is_empty(), count == 0 && ended.is_empty());
            }
        }
    }

    #[test]
    fn payloads_that_do_not_fit_are_damage() {
        let actions = vec![(uid(1), &b"one"[..]), (uid(2), b"")];
        let ended = b"ended";
        let whole = CheckpointRef { ended, actions };
        let bytes = whole.bytes();
        let ends = [9, 9 + 16 + 4 + 3, bytes.len()];
        for len in 0..bytes.len() {
            let read = split_checkpoint(&bytes[..len]);
            assert_eq!(read.is_some(), ends.contains(&len), "{len}");
            let value = seal(Kind::GroupCheckpoint, b"k", &bytes[..len], &[]).unwrap();
            assert_eq!(unseal_checkpoint(b"k", &value).is_ok(), read.is_some());
        }
        let mut twice = whole.clone();
        twice.actions.push((uid(1), b"again"));
        assert_eq!(split_checkpoint(&twice.bytes()), None);
        for at in [0, 9 + 16] {
            let mut long = bytes.clone();
            long[at] = u8::MAX;
            assert_eq!(split_checkpoint(&long), None, "{at}");
        }
    }
}
