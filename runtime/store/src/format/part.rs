//! Keys and values about actions at groups: parts, and outcomes in the logs of deciders.

use partha_core::action::path::Coordinator;
use partha_core::id::Uid;

use super::{Kind, coordinator_bytes, corrupt, seal, split_coordinator, unseal};
use crate::StoreError;

/// Object and action.
const PAIR_BYTES: usize = 32;

/// What an action has prepared at a replicated object, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartRef<'v> {
    pub(crate) action: Uid,
    pub(crate) coordinator: Coordinator,
    pub(crate) body: &'v [u8],
}

/// A part as a value.
pub(crate) fn seal_part(key: &[u8], part: PartRef<'_>) -> Result<Vec<u8>, StoreError> {
    let mut head = part.action.to_bytes().to_vec();
    head.extend_from_slice(&coordinator_bytes(part.coordinator));
    seal(Kind::GroupPart, key, &head, part.body)
}

/// A part, after all checks.
pub(crate) fn unseal_part<'v>(key: &[u8], value: &'v [u8]) -> Result<PartRef<'v>, StoreError> {
    let payload = unseal(Kind::GroupPart, key, value)?;
    let split = || {
        let (action, rest) = payload.split_first_chunk()?;
        let (coordinator, body) = split_coordinator(rest)?;
        Some(PartRef {
            action: Uid::from_bytes(*action),
            coordinator,
            body,
        })
    };
    split().ok_or_else(|| {
        let found = format!("{} bytes, no part", payload.len());
        corrupt(Kind::GroupPart, key, found)
    })
}

/// The key of what the log of an object says about an action.
pub(crate) fn group_pair_key(uid: Uid, action: Uid) -> [u8; PAIR_BYTES] {
    let mut key = [0; PAIR_BYTES];
    key[..16].copy_from_slice(&uid.to_bytes());
    key[16..].copy_from_slice(&action.to_bytes());
    key
}

/// The action in such a key.
pub(crate) fn paired_action(kind: Kind, key: &[u8]) -> Result<Uid, StoreError> {
    let action = key.get(16..).and_then(|bytes| bytes.try_into().ok());
    let action = action.map(Uid::from_bytes);
    action.ok_or_else(|| corrupt(kind, key, "no key of object and action".to_owned()))
}

/// The outcome of an action in a group's log as a value: when it expires, and how long it is to be
/// kept by whoever takes it over.
pub(crate) fn seal_group_outcome(
    key: &[u8],
    expiry_ms: u64,
    keep_ms: u64,
) -> Result<Vec<u8>, StoreError> {
    let (expiry_ms, keep_ms) = (expiry_ms.to_be_bytes(), keep_ms.to_be_bytes());
    seal(Kind::GroupOutcome, key, &expiry_ms, &keep_ms)
}

/// When an outcome in a group's log expires, and how long it is to be kept, after all checks.
pub(crate) fn unseal_group_outcome(key: &[u8], value: &[u8]) -> Result<(u64, u64), StoreError> {
    let payload = unseal(Kind::GroupOutcome, key, value)?;
    let ([expiry_ms, keep_ms], []) = payload.as_chunks() else {
        let found = format!("{} bytes, no outcome", payload.len());
        return Err(corrupt(Kind::GroupOutcome, key, found));
    };
    Ok((u64::from_be_bytes(*expiry_ms), u64::from_be_bytes(*keep_ms)))
}

/// The key of an entry of the index of expiry times of outcomes in groups' logs.
pub(crate) fn group_outcome_expiry_key(expiry_ms: u64, pair: &[u8; PAIR_BYTES]) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&expiry_ms.to_be_bytes());
    key[8..].copy_from_slice(pair);
    key
}

/// Expiry time and key of the outcome, of such an entry.
pub(crate) fn split_group_outcome_expiry_key(key: &[u8]) -> Option<(u64, &[u8])> {
    let (expiry, pair) = key.split_first_chunk::<8>()?;
    (pair.len() == PAIR_BYTES).then_some((u64::from_be_bytes(*expiry), pair))
}

#[cfg(test)]
mod tests {
    use partha_core::action::path::Site;
    use partha_core::id::NodeId;

    use super::*;

    fn uid(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    #[test]
    fn parts_and_outcomes_survive_the_round_trip() {
        let site = Site {
            node: NodeId(1 << 60),
            shard: 7,
        };
        for decider in [None, Some(uid(9))] {
            for body in [&b""[..], b"a body"] {
                let part = PartRef {
                    action: uid(3),
                    coordinator: Coordinator { site, decider },
                    body,
                };
                let value = seal_part(b"key", part).unwrap();
                assert_eq!(unseal_part(b"key", &value).unwrap(), part);
            }
        }
        let value = seal_group_outcome(b"key", 5, u64::MAX).unwrap();
        assert_eq!(unseal_group_outcome(b"key", &value).unwrap(), (5, u64::MAX));
    }

    #[test]
    fn keys_tell_what_they_are_made_of() {
        let pair = group_pair_key(uid(1), uid(2));
        assert_eq!(paired_action(Kind::GroupDecision, &pair).unwrap(), uid(2));
        for len in 0..PAIR_BYTES {
            assert!(paired_action(Kind::GroupDecision, &pair[..len]).is_err());
        }
        let key = group_outcome_expiry_key(256, &pair);
        assert!(key > group_outcome_expiry_key(255, &group_pair_key(uid(9), uid(9))));
        let split = split_group_outcome_expiry_key(&key);
        assert_eq!(split, Some((256, &pair[..])));
        assert_eq!(split_group_outcome_expiry_key(&key[1..]), None);
    }

    #[test]
    fn payloads_that_do_not_fit_are_damage() {
        for len in 0..50 {
            for has_decider in 0..3 {
                let mut payload = vec![0; len];
                if let Some(flag) = payload.get_mut(26) {
                    *flag = has_decider;
                }
                let value = seal(Kind::GroupPart, b"k", &payload, &[]).unwrap();
                let fits = len >= 27 && has_decider == 0 || len >= 43 && has_decider == 1;
                let read = unseal_part(b"k", &value);
                assert_eq!(read.is_ok(), fits, "{len} {has_decider}");
                let value = seal(Kind::GroupOutcome, b"k", &payload, &[]).unwrap();
                let read = unseal_group_outcome(b"k", &value);
                assert_eq!(read.is_ok(), len == 16, "{len}");
            }
        }
    }
}
