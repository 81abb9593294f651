//! What can be told of a batch without looking into the store.

use super::{Batch, Item};
use crate::StoreError;
use crate::entry;
use crate::store::check_row;

/// Checks what can be told of a batch without looking into the store.
pub(crate) fn check_limits(batch: &Batch, batch_bytes_max: usize) -> Result<(), StoreError> {
    let weight = batch.weight_bytes();
    if weight > batch_bytes_max {
        return Err(StoreError::TooLarge {
            what: "a batch",
            len: weight,
            max: batch_bytes_max,
        });
    }
    for item in &batch.items {
        match item {
            Item::PutRow { uid, part, key, .. }
            | Item::RemoveRow { uid, part, key }
            | Item::ShadowRow { uid, part, key, .. } => {
                check_row(*uid, *part, key)?;
            }
            Item::GroupLog { uid, add, .. } => {
                for (_, bytes) in add {
                    entry::check(bytes, *uid)?;
                }
            }
            Item::GroupSnapshot {
                uid,
                rows,
                replies,
                actions,
                ..
            } => {
                if let Some(bytes) = actions {
                    entry::check_actions(bytes, *uid)?;
                }
                for row in rows {
                    check_row(*uid, row.part, &row.key)?;
                }
                if let Some(reply) = replies.iter().find(|reply| reply.uid != *uid) {
                    let why = format!("a saved reply of object {}", reply.uid);
                    return Err(StoreError::BadEntry { why });
                }
            }
            Item::PreparePart { .. }
            | Item::EndPart { .. }
            | Item::DecideGroup { .. }
            | Item::SettleGroup { .. }
            | Item::CheckpointGroup { .. } => {
                let why = "an item of entries, alone in a batch".to_owned();
                return Err(StoreError::BadEntry { why });
            }
            Item::Create { .. }
            | Item::WriteState { .. }
            | Item::Delete { .. }
            | Item::SaveReply { .. }
            | Item::WriteShadow { .. }
            | Item::CreateShadow { .. }
            | Item::Prepare { .. }
            | Item::CommitShadow { .. }
            | Item::DeleteShadow { .. }
            | Item::Decide { .. }
            | Item::Settle { .. }
            | Item::PutPlace { .. }
            | Item::ShadowPlace { .. }
            | Item::Told { .. }
            | Item::JoinGroup { .. }
            | Item::GroupInstall { .. }
            | Item::LeaveGroup { .. } => {}
        }
    }
    Ok(())
}
