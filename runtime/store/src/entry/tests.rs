//! Entries as bytes, also such as nobody should make.

use partha_core::id::{Incarnation, NodeId, Peer};

use super::*;

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
    for batch in [batch(), Batch::default()] {
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
    let bytes = encode(&batch());
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
    let bytes = encode(&batch());
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
