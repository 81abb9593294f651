//! Keys and values about actions: prepared rows, who decides, decisions, outcomes.

use partha_core::action::path::{Coordinator, Site};
use partha_core::id::{NodeId, Uid};

use super::{Kind, corrupt, seal, unseal};
use crate::StoreError;
use crate::store::Decision;

/// A site: node (8) and shard (2).
pub(crate) const SITE_BYTES: usize = 10;
pub(crate) const UID_BYTES: usize = 16;

const SHADOW_ROW_KEY_BYTES: usize = 36;
const ROW_HEAD_BYTES: usize = 4;
const REMOVED: u8 = 0;
const WRITTEN: u8 = 1;

/// The key of the `number`-th prepared row of an object.
pub(crate) fn shadow_row_key(action: Uid, uid: Uid, number: u32) -> [u8; SHADOW_ROW_KEY_BYTES] {
    let mut key = [0; SHADOW_ROW_KEY_BYTES];
    key[..32].copy_from_slice(&super::shadow_key(action, uid));
    key[32..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A prepared change of a row, without its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShadowRow<'v> {
    pub(crate) part: u16,
    pub(crate) row: &'v [u8],
    pub(crate) value: Option<&'v [u8]>,
}

/// A prepared change of a row as a value.
pub(crate) fn seal_shadow_row(key: &[u8], change: ShadowRow<'_>) -> Result<Vec<u8>, StoreError> {
    let row_len = u16::try_from(change.row.len()).map_err(|_| StoreError::KeyTooLong {
        len: change.row.len(),
        max: super::KEY_BYTES_MAX,
    })?;
    let mut head = Vec::with_capacity(ROW_HEAD_BYTES + change.row.len() + 1);
    head.extend_from_slice(&change.part.to_be_bytes());
    head.extend_from_slice(&row_len.to_be_bytes());
    head.extend_from_slice(change.row);
    head.push(if change.value.is_some() {
        WRITTEN
    } else {
        REMOVED
    });
    seal(
        Kind::ShadowRow,
        key,
        &head,
        change.value.unwrap_or_default(),
    )
}

/// A prepared change of a row, after all checks.
pub(crate) fn unseal_shadow_row<'v>(
    key: &[u8],
    value: &'v [u8],
) -> Result<ShadowRow<'v>, StoreError> {
    let payload = unseal(Kind::ShadowRow, key, value)?;
    let wrong = || wrong_length(Kind::ShadowRow, key, payload);
    let (part, rest) = payload.split_first_chunk().ok_or_else(wrong)?;
    let (row_len, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
    let row_len = usize::from(u16::from_be_bytes(*row_len));
    let (row, rest) = rest.split_at_checked(row_len).ok_or_else(wrong)?;
    let value = match rest.split_first() {
        Some((&WRITTEN, value)) => Some(value),
        Some((&REMOVED, [])) => None,
        Some(_) | None => return Err(wrong()),
    };
    Ok(ShadowRow {
        part: u16::from_be_bytes(*part),
        row,
        value,
    })
}

/// Who decides on a prepared action, as a value.
pub(crate) fn seal_prepared(key: &[u8], coordinator: Coordinator) -> Result<Vec<u8>, StoreError> {
    let decider = coordinator.decider.map(Uid::to_bytes);
    let decider = decider.as_ref().map_or(&[][..], |uid| uid);
    seal(Kind::Prepared, key, &site_bytes(coordinator.site), decider)
}

/// Who decides on a prepared action, after all checks.
pub(crate) fn unseal_prepared(key: &[u8], value: &[u8]) -> Result<Coordinator, StoreError> {
    let payload = unseal(Kind::Prepared, key, value)?;
    let wrong = || wrong_length(Kind::Prepared, key, payload);
    let (bytes, rest) = payload.split_first_chunk().ok_or_else(wrong)?;
    let site = site(*bytes);
    let decider = match rest {
        [] => None,
        uid => Some(<[u8; UID_BYTES]>::try_from(uid).map_err(|_| wrong())?),
    };
    let decider = decider.map(Uid::from_bytes);
    Ok(Coordinator { site, decider })
}

/// Who decides, where something comes behind it: the site, then 0, or 1 and the decider.
pub(crate) fn coordinator_bytes(coordinator: Coordinator) -> Vec<u8> {
    let mut bytes = site_bytes(coordinator.site).to_vec();
    bytes.push(coordinator.decider.is_some().into());
    bytes.extend(coordinator.decider.into_iter().flat_map(Uid::to_bytes));
    bytes
}

/// Who decides, and what comes behind it.
pub(crate) fn split_coordinator(bytes: &[u8]) -> Option<(Coordinator, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    let site = site(*first);
    let (decider, rest) = match rest.split_first()? {
        (0, rest) => (None, rest),
        (1, rest) => {
            let (uid, rest) = rest.split_first_chunk()?;
            (Some(Uid::from_bytes(*uid)), rest)
        }
        _ => return None,
    };
    Some((Coordinator { site, decider }, rest))
}

/// A decision that is not settled, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decided<'v> {
    /// How long its outcome is to be kept.
    pub(crate) keep_ms: u64,
    pub(crate) participants: &'v [[u8; SITE_BYTES]],
    pub(crate) groups: &'v [[u8; UID_BYTES]],
}

impl Decided<'_> {
    /// Whether there is nobody to be told.
    pub(crate) fn is_settled(&self) -> bool {
        self.participants.is_empty() && self.groups.is_empty()
    }

    pub(crate) fn participants(&self) -> Vec<Site> {
        self.participants.iter().copied().map(site).collect()
    }

    pub(crate) fn groups(&self) -> Vec<Uid> {
        let groups = self.groups.iter().copied();
        groups.map(Uid::from_bytes).collect()
    }
}

/// How many bytes a decision has, besides what every one has.
pub(crate) fn decision_bytes(participants: usize, groups: usize) -> usize {
    participants * SITE_BYTES + groups * UID_BYTES
}

/// A decision that is not settled, as a value.
pub(crate) fn seal_decision(
    key: &[u8],
    participants: &[Site],
    groups: &[Uid],
    keep_ms: u64,
) -> Result<Vec<u8>, StoreError> {
    let sites: Vec<_> = participants.iter().copied().map(site_bytes).collect();
    if groups.is_empty() {
        let keep_ms = keep_ms.to_be_bytes();
        return seal(Kind::Decision, key, &keep_ms, sites.as_flattened());
    }
    let groups: Vec<_> = groups.iter().map(|group| group.to_bytes()).collect();
    let decided = Decided {
        keep_ms,
        participants: &sites,
        groups: &groups,
    };
    seal_decided(Kind::DecisionOfGroups, key, decided)
}

/// A decision of a decider, or one that names groups, as a value.
pub(crate) fn seal_decided(
    kind: Kind,
    key: &[u8],
    decided: Decided<'_>,
) -> Result<Vec<u8>, StoreError> {
    let count = decided.participants.len();
    let count = u32::try_from(count).map_err(|_| StoreError::TooLarge {
        what: kind.what(),
        len: count,
        max: u32::MAX as usize,
    })?;
    let mut head = decided.keep_ms.to_be_bytes().to_vec();
    head.extend_from_slice(&count.to_be_bytes());
    head.extend_from_slice(decided.participants.as_flattened());
    seal(kind, key, &head, decided.groups.as_flattened())
}

/// The decision in a value that [`seal_decided`] made, after all checks.
pub(crate) fn unseal_decided<'v>(
    kind: Kind,
    key: &[u8],
    value: &'v [u8],
) -> Result<Decided<'v>, StoreError> {
    let payload = unseal(kind, key, value)?;
    split_decided(payload).ok_or_else(|| wrong_length(kind, key, payload))
}

fn split_decided(payload: &[u8]) -> Option<Decided<'_>> {
    let (keep_ms, rest) = payload.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let (sites, groups) = rest.split_at_checked(count.checked_mul(SITE_BYTES)?)?;
    let (participants, []) = sites.as_chunks() else {
        return None;
    };
    let (groups, []) = groups.as_chunks() else {
        return None;
    };
    Some(Decided {
        keep_ms: u64::from_be_bytes(*keep_ms),
        participants,
        groups,
    })
}

/// The kind of a value of the table `decision`: one that names groups says so.
pub(crate) fn decision_kind(value: &[u8]) -> Kind {
    match value.get(1) {
        Some(kind) if *kind == Kind::DecisionOfGroups as u8 => Kind::DecisionOfGroups,
        Some(_) | None => Kind::Decision,
    }
}

/// A decision that is not settled, and how long its outcome is to be kept, after all checks.
pub(crate) fn unseal_decision(key: &[u8], value: &[u8]) -> Result<(Decision, u64), StoreError> {
    let kind = decision_kind(value);
    if kind == Kind::DecisionOfGroups {
        let decided = unseal_decided(kind, key, value)?;
        let decision = Decision {
            participants: decided.participants(),
            groups: decided.groups(),
        };
        return Ok((decision, decided.keep_ms));
    }
    let payload = unseal(kind, key, value)?;
    let wrong = || wrong_length(kind, key, payload);
    let (keep_ms, sites) = payload.split_first_chunk().ok_or_else(wrong)?;
    let (sites, []) = sites.as_chunks::<SITE_BYTES>() else {
        return Err(wrong());
    };
    let decision = Decision {
        participants: sites.iter().copied().map(site).collect(),
        groups: Vec::new(),
    };
    Ok((decision, u64::from_be_bytes(*keep_ms)))
}

/// The outcome of an action as a value: that there is one says that it is committed.
pub(crate) fn seal_outcome(key: &[u8], expiry_ms: u64) -> Result<Vec<u8>, StoreError> {
    seal(Kind::Outcome, key, &expiry_ms.to_be_bytes(), &[])
}

/// When an outcome expires, after all checks.
pub(crate) fn unseal_outcome(key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    let payload = unseal(Kind::Outcome, key, value)?;
    let bytes = <[u8; 8]>::try_from(payload);
    bytes
        .map(u64::from_be_bytes)
        .map_err(|_| wrong_length(Kind::Outcome, key, payload))
}

/// The key of an entry of the index of expiry times of outcomes.
pub(crate) fn outcome_expiry_key(expiry_ms: u64, action: Uid) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&expiry_ms.to_be_bytes());
    key[8..].copy_from_slice(&action.to_bytes());
    key
}

/// Expiry time and key of the outcome, of an entry of the index of expiry times of outcomes.
pub(crate) fn split_outcome_expiry_key(key: &[u8]) -> Option<(u64, &[u8])> {
    let (expiry, action) = key.split_first_chunk::<8>()?;
    (action.len() == 16).then_some((u64::from_be_bytes(*expiry), action))
}

pub(crate) fn site_bytes(site: Site) -> [u8; SITE_BYTES] {
    let mut bytes = [0; SITE_BYTES];
    bytes[..8].copy_from_slice(&site.node.0.to_be_bytes());
    bytes[8..].copy_from_slice(&site.shard.to_be_bytes());
    bytes
}

fn site(bytes: [u8; SITE_BYTES]) -> Site {
    let [a, b, c, d, e, f, g, h, high, low] = bytes;
    Site {
        node: NodeId(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        shard: u16::from_be_bytes([high, low]),
    }
}

fn wrong_length(kind: Kind, key: &[u8], payload: &[u8]) -> StoreError {
    let found = format!("{} bytes that do not fit together", payload.len());
    corrupt(kind, key, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Site = Site {
        node: NodeId(0x0102_0304_0506_0708),
        shard: 0x090a,
    };

    fn uid(local: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local,
        }
    }

    #[test]
    fn what_is_said_about_actions_survives_the_round_trip() {
        for decider in [None, Some(uid(4))] {
            let coordinator = Coordinator {
                site: SITE,
                decider,
            };
            let value = seal_prepared(b"action", coordinator).unwrap();
            assert_eq!(unseal_prepared(b"action", &value).unwrap(), coordinator);
            let mut bytes = coordinator_bytes(coordinator);
            bytes.extend_from_slice(b"rest");
            let split = split_coordinator(&bytes).unwrap();
            assert_eq!(split, (coordinator, &b"rest"[..]));
        }
        for participants in [vec![], vec![SITE], vec![SITE, Site::default(), SITE]] {
            for groups in [vec![], vec![uid(5)], vec![uid(5); 5]] {
                let participants = participants.clone();
                let value = seal_decision(b"action", &participants, &groups, 77).unwrap();
                let read = unseal_decision(b"action", &value).unwrap();
                let decision = Decision {
                    participants,
                    groups,
                };
                assert_eq!(read, (decision, 77));
            }
        }
        let value = seal_outcome(b"action", 88).unwrap();
        assert_eq!(unseal_outcome(b"action", &value).unwrap(), 88);
        for (row, value) in [
            (&b"a row"[..], Some(&b"a value"[..])),
            (b"", Some(b"")),
            (b"a row", None),
            (b"", None),
        ] {
            let change = ShadowRow {
                part: 3,
                row,
                value,
            };
            let sealed = seal_shadow_row(b"key", change).unwrap();
            assert_eq!(unseal_shadow_row(b"key", &sealed).unwrap(), change);
        }
    }

    #[test]
    fn payloads_that_do_not_fit_are_damage() {
        for len in 0..40 {
            let payload = vec![7; len];
            let sealed = |kind| seal(kind, b"k", &payload, &[]).unwrap();
            let prepared = unseal_prepared(b"k", &sealed(Kind::Prepared));
            let fits = [SITE_BYTES, SITE_BYTES + UID_BYTES].contains(&len);
            assert_eq!(prepared.is_ok(), fits, "{len}");
            let outcome = unseal_outcome(b"k", &sealed(Kind::Outcome));
            assert_eq!(outcome.is_ok(), len == 8, "{len}");
            let decision = unseal_decision(b"k", &sealed(Kind::Decision));
            assert_eq!(
                decision.is_ok(),
                len >= 8 && (len - 8) % SITE_BYTES == 0,
                "{len}"
            );
            // 0x0707_0707 participants.
            let decided = unseal_decision(b"k", &sealed(Kind::DecisionOfGroups));
            assert!(decided.is_err(), "{len}");
            // A row key of 0x0707 bytes.
            assert!(unseal_shadow_row(b"k", &sealed(Kind::ShadowRow)).is_err());
        }
        for len in 0..80 {
            let mut payload = vec![0; len];
            if let Some(count) = payload.get_mut(11) {
                *count = 2;
            }
            let value = seal(Kind::DecisionOfGroups, b"k", &payload, &[]).unwrap();
            let fits =
                len >= 12 + 2 * SITE_BYTES && (len - 12 - 2 * SITE_BYTES).is_multiple_of(UID_BYTES);
            assert_eq!(unseal_decision(b"k", &value).is_ok(), fits, "{len}");
        }
        let tail = seal(Kind::ShadowRow, b"k", &[0, 1, 0, 0, REMOVED, 5], &[]).unwrap();
        assert!(unseal_shadow_row(b"k", &tail).is_err());
    }

    #[test]
    fn keys_about_actions_sort_as_their_values_do() {
        assert!(shadow_row_key(uid(1), uid(9), 255) < shadow_row_key(uid(1), uid(9), 256));
        assert!(
            shadow_row_key(uid(1), uid(9), 0)[..] > super::super::shadow_key(uid(1), uid(9))[..]
        );
        assert!(outcome_expiry_key(255, uid(9)) < outcome_expiry_key(256, uid(1)));
        let key = outcome_expiry_key(5, uid(1));
        assert_eq!(
            split_outcome_expiry_key(&key),
            Some((5, &uid(1).to_bytes()[..]))
        );
        assert_eq!(split_outcome_expiry_key(&key[1..]), None);
    }
}
