//! What leaves, in which order, and that nothing long is copied on the way.

use partha_core::id::{ClassId, NodeId, Uid};

use super::*;
use crate::wire::frame::Target;

fn call(data: &Bytes) -> Writer {
    let uid = Uid {
        node: NodeId(3),
        local: 7,
    };
    let (mut w, slot) = frame::invoke(Target::Object(uid), ClassId(1), 0);
    let s = w.structure(slot, 0, 2);
    w.bytes(s.slot(0), data);
    w.text(s.slot(1), "behind it");
    w
}

/// Puts a message behind the others, as a connection does.
fn put(outbox: &mut Outbox, w: &mut Writer, number: u32) {
    match w.len() > PART_BYTES && outbox.taken != PartsTaken::None {
        true => outbox.append_large(Large::new(w, number, Way::Asks).unwrap()),
        false => outbox.append_pieces(w, number, Way::Asks).unwrap(),
    }
}

/// Everything that waits, write by write.
fn all(outbox: &mut Outbox) -> Vec<Batch> {
    let mut batches = Vec::new();
    while !outbox.is_empty() {
        let mut batch = outbox.next();
        let lens: usize = batch.stretches.iter().map(|stretch| stretch.len()).sum();
        assert_eq!(lens, batch.len());
        assert!(batch.stretches.iter().all(|stretch| !stretch.is_empty()));
        let stretches = std::mem::take(&mut batch.stretches);
        outbox.written(&mut batch);
        batches.push(Batch { stretches, ..batch });
    }
    assert_eq!(outbox.unsent, Unsent::default());
    batches
}

#[test]
fn long_byte_strings_leave_from_where_they_lie() {
    let sizes = [8 * 1024, 64 * 1024, 1 << 20, 3 << 20];
    for taken in [PartsTaken::None, PartsTaken::Bytes(64 << 20)] {
        for size in sizes {
            let data = Bytes::from(vec![1; size]);
            let mut outbox = Outbox::new(taken);
            let mut w = call(&data);
            put(&mut outbox, &mut w, 5);
            assert_eq!(outbox.unsent.asked, w.len());
            let (mut shared, lent) = (0, data.as_ptr_range());
            for stretch in all(&mut outbox).iter().flat_map(|batch| &batch.stretches) {
                match stretch {
                    Stretch::Shared(bytes) => {
                        assert!(lent.contains(&bytes.as_ptr()));
                        shared += bytes.len();
                    }
                    Stretch::Chunk(chunk) => assert!(chunk.len() < 1024, "{}", chunk.len()),
                }
            }
            assert!(shared > size - STRETCH_BYTES_MIN, "{shared} of {size}");
        }
    }
}

#[test]
fn large_messages_take_turns_and_leave_room_for_small_ones() {
    let mut outbox = Outbox::new(PartsTaken::Bytes(10 << 20));
    let large = Bytes::from(vec![1; 1 << 20]);
    for number in 1..=20 {
        put(&mut outbox, &mut call(&large), number);
    }
    assert_eq!((outbox.large.len(), outbox.waiting.len()), (LANES, 12));
    let mut writes = 0;
    while !outbox.is_empty() {
        let small = call(&Bytes::new()).finish().unwrap().0;
        outbox.append(&small, 77, Way::Answers);
        let mut batch = outbox.next();
        assert!(batch.len() <= small.len() + PARTS_A_WRITE * (PART_BYTES + HEAD_BYTES));
        let first = &batch.stretches[0];
        assert!(
            first.starts_with(&small[..8]),
            "what is small leaves with the next write"
        );
        assert!(outbox.large_bytes <= 10 << 20);
        let lefts = outbox.large.iter().filter(|large| large.left < large.total);
        assert!(lefts.count() <= LANES);
        outbox.written(&mut batch);
        writes += 1;
    }
    assert!(writes >= 20 * 8 / PARTS_A_WRITE, "{writes}");
    assert_eq!((outbox.unsent, outbox.large_bytes), (Unsent::default(), 0));
}

#[test]
fn no_more_is_under_way_in_parts_than_the_peer_takes_but_always_one() {
    let mut outbox = Outbox::new(PartsTaken::Bytes(1 << 20));
    let sizes = [3 << 20, 300_000, 300_000, 300_000, 300_000];
    for (number, size) in (1..).zip(sizes) {
        let data = Bytes::from(vec![1; size]);
        put(&mut outbox, &mut call(&data), number);
    }
    assert_eq!(outbox.large.len(), 1);
    while outbox.large.front().is_some_and(|large| large.number == 1) {
        let mut batch = outbox.next();
        outbox.written(&mut batch);
    }
    assert_eq!((outbox.large.len(), outbox.waiting.len()), (3, 1));
    all(&mut outbox);
}
