//! Keys and values about objects that move: places, rows to be removed.

use partha_core::id::{CallId, Incarnation, NodeId, Peer, Uid};

use super::{Kind, corrupt, seal, unseal};
use crate::StoreError;
use crate::place::Place;

/// What (1), moves (8), node (8).
const PLACE_BYTES: usize = 17;
const HERE: u8 = 0;
const HERE_TOLD: u8 = 1;
const GONE: u8 = 2;

/// A place as a value, of a kind that is one.
pub(crate) fn seal_place(kind: Kind, key: &[u8], place: Place) -> Result<Vec<u8>, StoreError> {
    let (what, moves, node) = match place {
        Place::Here {
            moves,
            from,
            told: false,
        } => (HERE, moves, from),
        Place::Here { moves, from, .. } => (HERE_TOLD, moves, from),
        Place::Gone { to, moves } => (GONE, moves, to),
    };
    let mut payload = [what; PLACE_BYTES];
    payload[1..9].copy_from_slice(&moves.to_be_bytes());
    payload[9..].copy_from_slice(&node.0.to_be_bytes());
    seal(kind, key, &payload, &[])
}

/// A place, after all checks.
pub(crate) fn unseal_place(kind: Kind, key: &[u8], value: &[u8]) -> Result<Place, StoreError> {
    let payload = unseal(kind, key, value)?;
    let wrong = || corrupt(kind, key, format!("{} bytes, no place", payload.len()));
    let (what, rest) = payload.split_first().ok_or_else(wrong)?;
    let ([moves, node], []) = rest.as_chunks::<8>() else {
        return Err(wrong());
    };
    let (moves, node) = (
        u64::from_be_bytes(*moves),
        NodeId(u64::from_be_bytes(*node)),
    );
    match *what {
        HERE | HERE_TOLD => Ok(Place::Here {
            moves,
            from: node,
            told: *what == HERE_TOLD,
        }),
        GONE => Ok(Place::Gone { to: node, moves }),
        _ => Err(wrong()),
    }
}

/// The call whose key this is.
pub(crate) fn call_id(key: &[u8]) -> Option<CallId> {
    let (node, rest) = key.split_first_chunk()?;
    let (incarnation, sequence) = rest.split_first_chunk()?;
    let sequence = <[u8; 8]>::try_from(sequence).ok()?;
    Some(CallId {
        caller: Peer {
            node: NodeId(u64::from_be_bytes(*node)),
            incarnation: Incarnation(u32::from_be_bytes(*incarnation)),
        },
        sequence: u64::from_be_bytes(sequence),
    })
}

/// The object that a reply's expiry entry is about; none in one of an older format.
pub(crate) fn unseal_expiry_uid(key: &[u8], value: &[u8]) -> Result<Option<Uid>, StoreError> {
    let payload = unseal(Kind::ReplyExpiry, key, value)?;
    match payload.first_chunk::<16>() {
        Some(uid) if payload.len() == 16 => Ok(Some(Uid::from_bytes(*uid))),
        None if payload.is_empty() => Ok(None),
        Some(_) | None => {
            let found = format!("{} bytes, no object", payload.len());
            Err(corrupt(Kind::ReplyExpiry, key, found))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_the_round_trip() {
        let node = NodeId(0x0102_0304_0506_0708);
        let here = |told| Place::Here {
            moves: u64::MAX,
            from: node,
            told,
        };
        for place in [here(false), here(true), Place::Gone { to: node, moves: 3 }] {
            for kind in [Kind::Place, Kind::ShadowPlace] {
                let value = seal_place(kind, b"key", place).unwrap();
                assert_eq!(unseal_place(kind, b"key", &value).unwrap(), place);
            }
        }
    }

    #[test]
    fn a_call_is_told_by_its_key() {
        let call = CallId {
            caller: Peer {
                node: NodeId(0x0102_0304_0506_0708),
                incarnation: Incarnation(0x090a_0b0c),
            },
            sequence: 0x1112_1314_1516_1718,
        };
        assert_eq!(call_id(&call.to_bytes()), Some(call));
        assert_eq!(call_id(&call.to_bytes()[1..]), None);
        assert_eq!(call_id(&[]), None);
    }

    #[test]
    fn payloads_that_do_not_fit_are_damage() {
        for len in 0..40 {
            for what in 0..5 {
                let payload = vec![what; len];
                let value = seal(Kind::Place, b"k", &payload, &[]).unwrap();
                let place = unseal_place(Kind::Place, b"k", &value);
                assert_eq!(place.is_ok(), len == PLACE_BYTES && what <= GONE, "{len}");
            }
            let value = seal(Kind::ReplyExpiry, b"k", &vec![1; len], &[]).unwrap();
            let uid = unseal_expiry_uid(b"k", &value);
            assert_eq!(uid.is_ok(), len == 0 || len == 16, "{len}");
        }
    }
}
