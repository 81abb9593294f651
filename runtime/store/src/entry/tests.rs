//! Entries as bytes, also such as nobody should make.

use partha_core::action::path::Site;
use partha_core::id::{ClassId, Epoch, Incarnation, NodeId, Peer};

use super::*;
use crate::GroupCheckpoint;

const UID: Uid = Uid {
    node: NodeId(1),
    local: 2,
};

fn batch() -> Batch {
    let call = CallId {
        caller: Peer {
            node: NodeId(3),
            incarnation: Incarnation(4),
        },
        sequence: 5,
    };
    let record = Record {
        class: ClassId(6),
        schema: 7,
        version: 8,
        epoch: Epoch(9),
        state: Bytes::from_static(b"a state"),
    };
    let key = Bytes::from_static(b"a key");
    let row = |part, key, value| Item::PutRow {
        uid: UID,
        part,
        key,
        value,
    };
    Batch::new(vec![
        Item::WriteState { uid: UID, record },
        row(1, key.clone(), Bytes::from_static(b"a value")),
        row(u16::MAX, Bytes::new(), Bytes::new()),
        Item::RemoveRow {
            uid: UID,
            part: 2,
            key,
        },
        Item::SaveReply {
            call,
            uid: UID,
            body: Bytes::from_static(b"a reply"),
            keep_ms: u64::MAX,
        },
    ])
}

fn action(local: u64) -> Uid {
    Uid { local, ..UID }
}

fn part(body: Bytes, decider: Option<Uid>) -> Item {
    let site = Site {
        node: NodeId(10),
        shard: 11,
    };
    Item::PreparePart {
        uid: UID,
        action: action(12),
        coordinator: Coordinator { site, decider },
        body,
    }
}

fn checkpoint(actions: &[u64]) -> Item {
    let of = |local: &u64| (action(*local), Bytes::from_static(b"what it has"));
    let checkpoint = GroupCheckpoint {
        ended: Bytes::from_static(b"what has ended"),
        actions: actions.iter().map(of).collect(),
    };
    Item::CheckpointGroup {
        uid: UID,
        checkpoint,
    }
}

/// What a part may change.
fn body() -> Bytes {
    let mut batch = batch();
    batch.items.pop();
    encode(&batch)
}

/// Of each item about actions, some.
fn about_actions() -> Batch {
    let decide = |participants, groups| Item::DecideGroup {
        uid: UID,
        action: action(13),
        participants,
        groups,
        keep_ms: 14,
    };
    let end = |commit| Item::EndPart {
        uid: UID,
        action: action(12),
        commit,
    };
    Batch::new(vec![
        part(body(), None),
        end(false),
        part(encode(&Batch::default()), Some(action(15))),
        end(true),
        decide(vec![], vec![]),
        decide(vec![Site::default(); 2], vec![action(16); 3]),
        Item::SettleGroup {
            uid: UID,
            action: action(13),
        },
        checkpoint(&[12, 13]),
        checkpoint(&[]),
    ])
}

/// With the right checksum, whatever was changed.
fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let crc = checksum(&bytes);
    bytes[8..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn is_bad(bytes: Bytes) -> bool {
    let checked = check(&bytes, UID);
    let decoded = decode(bytes);
    assert!(checked.is_err() || decoded.is_ok());
    matches!(decoded, Err(StoreError::BadEntry { .. }))
}

#[test]
fn batches_survive_the_round_trip() {
    for batch in [batch(), about_actions(), Batch::default()] {
        let bytes = encode(&batch);
        check(&bytes, UID).unwrap();
        assert_eq!(decode(bytes.clone()).unwrap(), batch);
        assert_eq!(encode(&decode(bytes.clone()).unwrap()), bytes);
    }
}

#[test]
fn values_are_slices_of_the_entry() {
    let bytes = encode(&batch());
    let range = bytes.as_ptr_range();
    let decoded = decode(bytes.clone()).unwrap();
    let Item::WriteState { record, .. } = &decoded.items[0] else {
        panic!("{decoded:?}");
    };
    assert!(range.contains(&record.state.as_ptr()));
}

#[test]
fn an_entry_is_about_one_object() {
    let other = Uid { local: 3, ..UID };
    let bytes = encode(&batch());
    assert!(matches!(
        check(&bytes, other),
        Err(StoreError::BadEntry { .. })
    ));
    let mut mixed = batch();
    mixed.items.push(Item::RemoveRow {
        uid: other,
        part: 1,
        key: Bytes::new(),
    });
    let bytes = encode(&mixed);
    assert!(check(&bytes, UID).is_err() && check(&bytes, other).is_err());
    assert_eq!(decode(bytes).unwrap(), mixed);
}

#[test]
#[should_panic(expected = "no entry has such an item")]
fn what_is_no_change_of_a_call_is_not_encoded() {
    let _ = encode(&Item::Delete { uid: UID }.into());
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    every_change_is_found(&encode(&batch()));
    every_change_is_found(&encode(&about_actions()));
}

fn every_change_is_found(bytes: &Bytes) {
    for bit in 0..8 * bytes.len() {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(is_bad(bad.into()), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(is_bad(bytes.slice(..len)), "cut at {len}");
    }
}

/// Who makes entries can make checksums, too.
#[test]
fn hostile_bytes_with_a_right_checksum_are_no_entry() {
    nothing_else_is_an_entry(&encode(&batch()));
    nothing_else_is_an_entry(&encode(&about_actions()));
}

fn nothing_else_is_an_entry(bytes: &Bytes) {
    for len in HEADER_BYTES..bytes.len() {
        assert!(is_bad(sealed(bytes[..len].to_vec())), "cut at {len}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(is_bad(sealed(longer)));
    for at in (0..8).chain([HEADER_BYTES]) {
        for value in (0..=u8::MAX).filter(|value| *value != bytes[at]) {
            let mut bad = bytes.to_vec();
            bad[at] = value;
            assert!(is_bad(sealed(bad)), "byte {at} is {value}");
        }
    }
    // Anywhere else it may be another entry, or none; never a panic.
    let mut others = 0;
    for at in HEADER_BYTES..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, u8::MAX] {
            let mut bad = bytes.to_vec();
            bad[at] = value;
            others += u32::from(!is_bad(sealed(bad)));
        }
    }
    assert!(others > 0);
}

#[test]
fn rows_that_cannot_be_are_no_entry() {
    let row = |part, len| Item::PutRow {
        uid: UID,
        part,
        key: vec![0; len].into(),
        value: Bytes::new(),
    };
    for (part, len) in [(0, 1), (1, format::KEY_BYTES_MAX + 1)] {
        assert!(is_bad(encode(&row(part, len).into())), "{part} {len}");
    }
    assert!(!is_bad(encode(&row(1, format::KEY_BYTES_MAX).into())));
}

#[test]
fn the_body_of_a_part_is_checked_with_the_entry() {
    let whole = body();
    for bit in 0..8 * whole.len() {
        let mut bad = whole.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(is_bad(encode(&part(bad.into(), None).into())), "bit {bit}");
    }
    for len in 0..whole.len() {
        let cut = whole.slice(..len);
        assert!(is_bad(encode(&part(cut, None).into())), "cut at {len}");
    }
    let other = action(3);
    let of_another = Item::RemoveRow {
        uid: other,
        part: 1,
        key: Bytes::new(),
    };
    let end = about_actions().items.remove(1);
    let reply = batch().items.pop().unwrap();
    let checkpoint = checkpoint(&[1]);
    for item in [
        of_another,
        part(whole.clone(), None),
        end,
        reply,
        checkpoint,
    ] {
        let mut inner = batch();
        inner.items.pop();
        inner.items.push(item.clone());
        let bytes = encode(&part(encode(&inner), None).into());
        assert!(is_bad(bytes), "{item:?}");
    }
    assert!(has_part(&encode(&about_actions())));
    assert!(!has_part(&encode(&batch())));
}

#[test]
fn a_snapshot_tells_of_parts_decisions_and_checkpoints_alone() {
    let items = about_actions().items;
    for (index, item) in items.iter().enumerate() {
        let bytes = encode(&item.clone().into());
        let fits = [0, 2, 4, 5, 7, 8].contains(&index);
        assert_eq!(check_actions(&bytes, UID).is_ok(), fits, "{item:?}");
        assert!(check_actions(&bytes, action(3)).is_err());
    }
    assert!(check_actions(&encode(&batch()), UID).is_err());
}

#[test]
fn a_checkpoint_that_names_an_action_twice_is_none() {
    assert!(!is_bad(encode(&checkpoint(&[1, 2, 3]).into())));
    assert!(is_bad(encode(&checkpoint(&[1, 2, 1]).into())));
}
