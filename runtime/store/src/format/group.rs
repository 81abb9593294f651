//! Keys and values about groups of copies: the copy that is here, and entries of its log.

use partha_core::group::view::MEMBERS_MAX;
use partha_core::group::{Stamp, View};
use partha_core::id::{NodeId, Uid};

use super::{Kind, corrupt, seal, unseal};
use crate::StoreError;

/// Uid, index, view.
const ENTRY_KEY_BYTES: usize = 32;
const EMPTY: u8 = 0;
const COMING: u8 = 1;
const WHOLE: u8 = 2;

/// What state a copy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Has {
    /// None.
    Nothing,
    /// Some pages of a snapshot.
    Pages {
        /// The last entry in it.
        at: Stamp,
        /// The page that comes next.
        next: u32,
    },
    /// The whole one, with all up to this entry in it.
    State(Stamp),
}

/// A copy, without its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupCopy {
    pub(crate) view: View,
    pub(crate) has: Has,
}

/// A copy as a value.
pub(crate) fn seal_copy(key: &[u8], copy: &GroupCopy) -> Result<Vec<u8>, StoreError> {
    let members = &copy.view.members;
    let too_many = StoreError::TooLarge {
        what: "a view's list of members",
        len: members.len(),
        max: MEMBERS_MAX,
    };
    let count = u8::try_from(members.len()).ok();
    let count = count.filter(|count| usize::from(*count) <= MEMBERS_MAX);
    let count = count.ok_or(too_many)?;
    let (what, stamp, next) = match copy.has {
        Has::Nothing => (EMPTY, Stamp::default(), 0),
        Has::Pages { at, next } => (COMING, at, next),
        Has::State(installed) => (WHOLE, installed, 0),
    };
    let mut payload = vec![what];
    let numbers = [stamp.view, stamp.index, copy.view.number];
    payload.extend(numbers.into_iter().flat_map(u64::to_be_bytes));
    payload.extend(next.to_be_bytes());
    payload.push(count);
    payload.extend(members.iter().flat_map(|node| node.0.to_be_bytes()));
    seal(Kind::GroupCopy, key, &payload, &[])
}

/// A copy, after all checks.
pub(crate) fn unseal_copy(key: &[u8], value: &[u8]) -> Result<GroupCopy, StoreError> {
    let payload = unseal(Kind::GroupCopy, key, value)?;
    let wrong = || {
        corrupt(
            Kind::GroupCopy,
            key,
            format!("{} bytes, no copy", payload.len()),
        )
    };
    let (what, rest) = payload.split_first().ok_or_else(wrong)?;
    let (numbers, rest) = rest.split_first_chunk::<24>().ok_or_else(wrong)?;
    let (next, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
    let (count, rest) = rest.split_first().ok_or_else(wrong)?;
    let (members, []) = rest.as_chunks::<8>() else {
        return Err(wrong());
    };
    if members.len() != usize::from(*count) || members.len() > MEMBERS_MAX {
        return Err(wrong());
    }
    let (numbers, _) = numbers.as_chunks::<8>();
    let number = |index: usize| u64::from_be_bytes(numbers[index]);
    let stamp = Stamp {
        view: number(0),
        index: number(1),
    };
    let has = match *what {
        EMPTY => Has::Nothing,
        COMING => Has::Pages {
            at: stamp,
            next: u32::from_be_bytes(*next),
        },
        WHOLE => Has::State(stamp),
        _ => return Err(wrong()),
    };
    let members = members.iter().copied().map(u64::from_be_bytes).map(NodeId);
    let view = View {
        number: number(2),
        members: members.collect(),
    };
    Ok(GroupCopy { view, has })
}

/// The key of an entry.
pub(crate) fn entry_key(uid: Uid, stamp: Stamp) -> [u8; ENTRY_KEY_BYTES] {
    let mut key = [0; ENTRY_KEY_BYTES];
    key[..24].copy_from_slice(&entry_prefix(uid, stamp.index));
    key[24..].copy_from_slice(&stamp.view.to_be_bytes());
    key
}

/// How the key of the entry with this index begins; those of all later ones come after it.
pub(crate) fn entry_prefix(uid: Uid, index: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&uid.to_bytes());
    key[16..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The stamp of the entry with this key.
pub(crate) fn entry_stamp(key: &[u8]) -> Result<Stamp, StoreError> {
    let (numbers, rest) = key.get(16..).unwrap_or_default().as_chunks::<8>();
    let ([index, view], []) = (numbers, rest) else {
        return Err(corrupt(
            Kind::GroupEntry,
            key,
            "no key of an entry".to_owned(),
        ));
    };
    Ok(Stamp {
        view: u64::from_be_bytes(*view),
        index: u64::from_be_bytes(*index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_survive_the_round_trip() {
        let at = Stamp {
            view: u64::MAX,
            index: 7,
        };
        let next = 0x0102_0304;
        for has in [Has::Nothing, Has::Pages { at, next }, Has::State(at)] {
            for count in 0..=MEMBERS_MAX as u64 {
                let view = View {
                    number: 1 << 60,
                    members: (0..count).map(NodeId).collect(),
                };
                let copy = GroupCopy { view, has };
                let value = seal_copy(b"key", &copy).unwrap();
                assert_eq!(unseal_copy(b"key", &value).unwrap(), copy);
            }
        }
        let members = (0..=MEMBERS_MAX as u64).map(NodeId).collect();
        let view = View { number: 1, members };
        let has = Has::Nothing;
        let crowd = seal_copy(b"key", &GroupCopy { view, has });
        assert!(matches!(crowd, Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn stamps_are_told_by_keys_which_sort_by_index() {
        let uid = Uid {
            node: NodeId(1),
            local: 2,
        };
        let at = |view, index| Stamp { view, index };
        let key = |stamp| entry_key(uid, stamp);
        assert_eq!(entry_stamp(&key(at(3, 4))).unwrap(), at(3, 4));
        assert!(key(at(9, 255)) < key(at(1, 256)));
        assert!(key(at(9, 255))[..] < entry_prefix(uid, 256)[..]);
        for len in 0..ENTRY_KEY_BYTES {
            assert!(entry_stamp(&key(at(3, 4))[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn payloads_that_do_not_fit_are_damage() {
        for len in 0..60 {
            for what in 0..4 {
                let mut payload = vec![what; len];
                if let Some(count) = payload.get_mut(29) {
                    *count = 2;
                }
                let value = seal(Kind::GroupCopy, b"k", &payload, &[]).unwrap();
                let fits = len == 30 + 2 * 8 && what <= WHOLE;
                assert_eq!(unseal_copy(b"k", &value).is_ok(), fits, "{len} {what}");
            }
        }
    }
}
