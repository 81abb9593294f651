//! Reading the items of an entry, whatever its bytes are.

use partha_core::id::{ClassId, Epoch, Uid};

use super::{
    CHECKPOINT_GROUP, DECIDE_GROUP, END_PART, ItemRef, PREPARE_PART, PUT_ROW, REMOVE_ROW,
    SAVE_REPLY, SETTLE_GROUP, WRITE_STATE,
};
use crate::format::{self, Decided, RecordHead};

/// What is left to be read.
pub(super) struct Reader<'e>(&'e [u8]);

impl<'e> Reader<'e> {
    pub(super) fn new(bytes: &'e [u8]) -> Self {
        Self(bytes)
    }

    /// What is behind the items that were read.
    pub(super) fn rest(&self) -> &'e [u8] {
        self.0
    }

    /// The next item, if one lies there.
    pub(super) fn item(&mut self) -> Option<ItemRef<'e>> {
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
                Some(ItemRef::State { uid, head, state })
            }
            PUT_ROW => {
                let (uid, part, key_len) = (self.uid()?, self.u16()?, self.u16()?);
                let value_len = self.length()?;
                let key = self.bytes(key_len.into())?;
                let value = self.bytes(value_len)?;
                Some(ItemRef::Put {
                    uid,
                    part,
                    key,
                    value,
                })
            }
            REMOVE_ROW => {
                let (uid, part, key_len) = (self.uid()?, self.u16()?, self.u16()?);
                let key = self.bytes(key_len.into())?;
                Some(ItemRef::Remove { uid, part, key })
            }
            SAVE_REPLY => {
                let call = format::call_id(self.bytes(20)?)?;
                let (uid, keep_ms, len) = (self.uid()?, self.u64()?, self.length()?);
                let body = self.bytes(len)?;
                Some(ItemRef::Reply {
                    call,
                    uid,
                    keep_ms,
                    body,
                })
            }
            what => self.item_about_action(what),
        }
    }

    fn item_about_action(&mut self, what: u8) -> Option<ItemRef<'e>> {
        match what {
            PREPARE_PART => {
                let (uid, action) = (self.uid()?, self.uid()?);
                let (coordinator, rest) = format::split_coordinator(self.0)?;
                self.0 = rest;
                let len = self.length()?;
                let body = self.bytes(len)?;
                Some(ItemRef::Part {
                    uid,
                    action,
                    coordinator,
                    body,
                })
            }
            END_PART => {
                let (uid, action, [commit]) = (self.uid()?, self.uid()?, self.array()?);
                (commit <= 1).then_some(ItemRef::End {
                    uid,
                    action,
                    commit: commit == 1,
                })
            }
            DECIDE_GROUP => {
                let (uid, action, keep_ms) = (self.uid()?, self.uid()?, self.u64()?);
                let (participants, groups) = (self.length()?, self.length()?);
                let bytes = self.bytes(participants.checked_mul(format::SITE_BYTES)?)?;
                let (participants, []) = bytes.as_chunks() else {
                    return None;
                };
                let bytes = self.bytes(groups.checked_mul(format::UID_BYTES)?)?;
                let (groups, []) = bytes.as_chunks() else {
                    return None;
                };
                let decided = Decided {
                    keep_ms,
                    participants,
                    groups,
                };
                Some(ItemRef::Decide {
                    uid,
                    action,
                    decided,
                })
            }
            SETTLE_GROUP => {
                let (uid, action) = (self.uid()?, self.uid()?);
                Some(ItemRef::Settle { uid, action })
            }
            CHECKPOINT_GROUP => {
                let (uid, len) = (self.uid()?, self.length()?);
                let checkpoint = self.bytes(len)?;
                format::split_checkpoint(checkpoint)?;
                Some(ItemRef::Checkpoint { uid, checkpoint })
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
