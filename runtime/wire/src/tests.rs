//! What a writer lays out, the reader and the `capnp` crate read; what is no message is refused.

use std::sync::Arc;

use bytes::Bytes;
use capnp::message::ReaderOptions;
use capnp::private::layout;

use crate::{
    DEPTH_MAX, Element, FrameError, HEADER, Message, Piece, Problem, Slot, TooLarge, Writer,
    frame_len,
};

fn sample() -> Writer {
    let mut w = Writer::new(1 << 20);
    let root = w.structure(Slot::ROOT, 2, 4);
    w.set_u32(root, 1, 0xdead_beef);
    w.set_bool(root, 65, true);
    w.set_i16(root, 7, -3);
    w.text(root.slot(0), "grüß");
    w.u16s(root.slot(1), [1, 2, 3].into_iter());
    let list = w.structures(root.slot(2), 2, 1, 1);
    for index in 0..2 {
        w.set_f64(list.structure(index), 0, 0.5 + index as f64);
        w.data(list.structure(index).slot(0), &[index as u8; 5]);
    }
    w.bools(root.slot(3), [true, false, true].into_iter());
    w
}

#[test]
fn what_is_written_is_read_back() {
    let message = sample().into_message().unwrap();
    let root = message.reader().unwrap();
    assert_eq!(root.u32(1), 0xdead_beef);
    assert!(root.bool(65) && !root.bool(64));
    assert_eq!(root.i16(7), -3);
    assert_eq!(root.u64(2), 0, "past the data section");
    assert_eq!(root.pointer(0).text().unwrap(), "grüß");
    assert_eq!(root.pointer(1).u16s().unwrap(), [1, 2, 3]);
    let list = root.pointer(2).structures().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list.structure(1).f64(0), 1.5);
    assert_eq!(list.structure(1).pointer(0).data().unwrap(), [1; 5]);
    assert_eq!(root.pointer(3).bools().unwrap(), [true, false, true]);
    assert!(root.pointer(4).is_null(), "past the pointer section");
    assert_eq!(root.pointer(4).text().unwrap(), "");
}

/// A struct as the `capnp` crate sees it.
struct Foreign<'a>(layout::StructReader<'a>);

impl<'a> capnp::traits::FromPointerReader<'a> for Foreign<'a> {
    fn get_from_pointer(
        reader: &layout::PointerReader<'a>,
        default: Option<&'a [capnp::Word]>,
    ) -> capnp::Result<Self> {
        reader.get_struct(default).map(Self)
    }
}

#[test]
fn the_capnp_crate_reads_the_same() {
    let (bytes, _) = sample().finish().unwrap();
    let reader =
        capnp::serialize::read_message(&mut bytes.as_slice(), ReaderOptions::new()).unwrap();
    let root = reader.get_root::<Foreign<'_>>().unwrap().0;
    assert_eq!(root.get_data_field::<u32>(1), 0xdead_beef);
    assert!(root.get_bool_field(65));
    assert_eq!(root.get_data_field::<i16>(7), -3);
    let text = root.get_pointer_field(0).get_text(None).unwrap();
    assert_eq!(text.to_str().unwrap(), "grüß");
    assert_eq!(
        root.get_pointer_field(1)
            .get_list(layout::ElementSize::TwoBytes, None)
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn no_damage_makes_a_reader_panic_or_loop() {
    fn visit(r: crate::StructReader<'_>, depth: u32) -> u64 {
        let mut sum = r.u64(0) ^ u64::from(r.bool(3));
        for index in 0..5 {
            let p = r.pointer(index);
            sum ^= p.text().map_or(1, |t| t.len() as u64);
            sum ^= p.u16s().map_or(2, |l| l.len() as u64);
            sum ^= p.bools().map_or(3, |l| l.len() as u64);
            sum ^= u64::from(p.capability().is_ok());
            if depth < 3 {
                sum ^= p.structure().map_or(4, |s| visit(s, depth + 1));
                if let Ok(list) = p.structures() {
                    list.iter_structures()
                        .take(9)
                        .for_each(|s| sum ^= visit(s, depth + 1));
                }
            }
        }
        sum
    }
    let (bytes, _) = sample().finish().unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut seen = 0;
    for _ in 0..2_000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + next() % 4 {
            let at = HEADER + next() as usize % (damaged.len() - HEADER);
            damaged[at] = next() as u8;
        }
        let message = Message::from_segment(Bytes::from(damaged).slice(HEADER..), vec![]).unwrap();
        if let Ok(root) = message.reader() {
            seen ^= visit(root, 0);
        }
    }
    assert_ne!(seen, 0);
}

#[test]
fn a_pointer_to_itself_ends_at_the_depth_limit() {
    // Struct without data and with one pointer, which leads back to itself.
    let word = 0xffff_fffc_u64 & !3 | 1 << 48;
    let mut segment = (1_u64 << 48).to_le_bytes().to_vec();
    segment.extend(word.to_le_bytes());
    let message = Message::from_segment(segment.into(), vec![]).unwrap();
    let mut reader = message.reader().unwrap();
    for _ in 1..DEPTH_MAX {
        reader = reader.pointer(0).structure().unwrap();
    }
    let error = reader.pointer(0).structure().err().unwrap();
    assert_eq!(*error.problem(), Problem::TooDeep);
}

#[test]
fn reading_the_same_bytes_again_and_again_is_refused() {
    let mut w = Writer::new(1 << 24);
    let root = w.structure(Slot::ROOT, 0, 1);
    w.u64s(
        root.slot(0),
        (0..70_000_u64).collect::<Vec<_>>().into_iter(),
    );
    let message = w.into_message().unwrap();
    let root = message.reader().unwrap();
    assert!(root.pointer(0).u64s().is_ok());
    let again = root.pointer(0).u64s().unwrap_err();
    assert_eq!(*again.problem(), Problem::Amplified);
    assert!(
        message.reader().unwrap().pointer(0).u64s().is_ok(),
        "a new pass starts afresh"
    );
}

#[test]
fn a_writer_past_its_limit_reports_it() {
    let mut w = Writer::new(64);
    let root = w.structure(Slot::ROOT, 1, 1);
    w.text(root.slot(0), &"x".repeat(100));
    let list = w.structures(root.slot(0), 1_000_000, 7, 7);
    w.set_u64(list.structure(999_999), 6, 1);
    let error = w.finish().unwrap_err();
    assert_eq!(error, TooLarge::Message { bytes_max: 64 });
}

#[test]
fn capabilities_are_indices() {
    let mut w = Writer::new(1024);
    let root = w.structure(Slot::ROOT, 0, 3);
    w.capability(root.slot(1), Arc::new("first"));
    w.capability(root.slot(2), Arc::new("second"));
    let message = w.into_message().unwrap();
    let root = message.reader().unwrap();
    assert!(root.pointer(0).capability().unwrap().is_none());
    let second = root.pointer(2).capability().unwrap().unwrap().clone();
    assert_eq!(*second.downcast::<&str>().unwrap(), "second");
    let bare = message.clone().with_attached(vec![]);
    let error = bare
        .reader()
        .unwrap()
        .pointer(1)
        .capability()
        .err()
        .unwrap();
    assert_eq!(*error.problem(), Problem::NoSuchCapability { index: 0 });
}

#[test]
fn frames_are_measured_before_they_are_believed() {
    let (bytes, _) = sample().finish().unwrap();
    assert_eq!(frame_len(&bytes, 1 << 20), Ok(Some(bytes.len())));
    assert_eq!(frame_len(&bytes[..7], 1 << 20), Ok(None));
    let huge = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(
        frame_len(&huge, 1 << 20),
        Err(FrameError::TooLarge { .. })
    ));
    let many = [1, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(
        frame_len(&many, 1 << 20),
        Err(FrameError::Segments { count: 2 })
    );
    assert_eq!(frame_len(&[0; 8], 1 << 20), Err(FrameError::Empty));
}

#[test]
fn element_codes_are_capnp_s() {
    for (code, element) in Element::ALL.into_iter().enumerate() {
        assert_eq!(element.code(), code as u64);
    }
}

#[test]
fn a_message_entered_elsewhere_can_be_detached() {
    let mut w = Writer::new(1024);
    let root = w.structure(Slot::ROOT, 1, 2);
    let inner = w.structure(root.slot(1), 1, 1);
    w.set_u64(inner, 0, 7);
    w.text(inner.slot(0), "inside");
    let message = w.into_message().unwrap().into_rooted(root.slot(1));
    let segment = message.detached_segment().unwrap();
    let detached = Message::from_segment(segment.into(), vec![]).unwrap();
    let r = detached.reader().unwrap();
    assert_eq!((r.u64(0), r.pointer(0).text().unwrap()), (7, "inside"));
}

/// The same message with its byte strings copied, and with them shared where they are long.
fn twins(lens: &[usize]) -> (Writer, Writer) {
    let write = |shares: bool| {
        let mut w = Writer::new(1 << 30);
        let root = w.structure(Slot::ROOT, 1, 3);
        let list = w.pointers(root.slot(0), lens.len());
        for (index, len) in lens.iter().enumerate() {
            let data: Bytes = (0..*len).map(|n| (n + index) as u8).collect();
            match shares {
                true => w.bytes(list.slot(index), &data),
                false => w.data(list.slot(index), &data),
            }
            // Before, behind and between what is shared.
            w.text(root.slot(1), &format!("after {index}"));
            w.set_u64(root, 0, index as u64);
            let inner = w.structure(root.slot(2), 1, 1);
            w.text(inner.slot(0), "inner");
            w.set_bool(inner, 3, true);
        }
        w
    };
    (write(false), write(true))
}

#[test]
fn what_is_shared_makes_the_same_message() {
    let cases: &[&[usize]] = &[
        &[],
        &[0],
        &[511, 512, 513],
        &[512],
        &[1024, 3, 1025, 0, 70_000, 519, 520, 521],
        &[600, 600, 600],
    ];
    for lens in cases {
        let (mut copied, mut shared) = twins(lens);
        let long = lens.iter().filter(|len| **len >= 512).count();
        assert_eq!(shared.len(), copied.len(), "{lens:?}");
        assert_eq!(
            (shared.is_sharing(), copied.is_sharing()),
            (long > 0, false)
        );
        let framed = copied.framed().unwrap().to_vec();
        let pieces: Vec<_> = shared.pieces().unwrap().collect();
        let shares = pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Shared(_)));
        assert_eq!(shares.count(), long, "{lens:?}");
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        assert!(joined == framed, "{lens:?}");
        assert!(shared.to_framed().unwrap() == framed, "{lens:?}");
        assert!(shared.is_sharing() == (long > 0), "a copy changes nothing");
        assert!(shared.framed().unwrap() == framed, "{lens:?}");
        // It goes on as any other.
        let at = shared.structure(Slot::ROOT, 1, 0);
        shared.set_u64(at, 0, 77);
        let message = shared.into_message().unwrap();
        assert_eq!(message.reader().unwrap().u64(0), 77);
    }
}

#[test]
fn long_byte_strings_are_not_copied_on_either_way() {
    let data = Bytes::from(vec![7; 1 << 20]);
    let mut w = Writer::new(2 << 20);
    let root = w.structure(Slot::ROOT, 0, 2);
    w.bytes(root.slot(0), &data);
    w.data(root.slot(1), &[1; 20_000]);
    let own: Vec<_> = w.pieces().unwrap().collect();
    let Piece::Shared(sent) = own[1] else {
        panic!("{own:?}")
    };
    assert_eq!(sent.as_ptr(), data.as_ptr());
    let message = w.into_message().unwrap();
    let root = message.reader().unwrap();
    let (long, small) = (
        root.pointer(0).bytes().unwrap(),
        root.pointer(1).bytes().unwrap(),
    );
    assert!(long == data && small == [1; 20_000][..]);
    let buffer = message.segment().as_ptr_range();
    assert!(buffer.contains(&long.as_ptr()), "a part of the message");
    assert!(
        !buffer.contains(&small.as_ptr()),
        "so small a part would keep all of it"
    );
}

#[test]
fn what_is_shared_counts_for_the_limit() {
    let data = Bytes::from(vec![0; 1000]);
    for (limit, fits) in [(1024, true), (1023, false)] {
        let mut w = Writer::new(limit);
        let root = w.structure(Slot::ROOT, 0, 1);
        w.bytes(root.slot(0), &data);
        assert_eq!(w.pieces().is_ok(), fits, "{limit}");
        let bytes_max = limit;
        let error = w.finish().err();
        assert_eq!(error, (!fits).then_some(TooLarge::Message { bytes_max }));
    }
    // More elements than a pointer can tell of; nothing is touched of so many bytes.
    let many = Bytes::from(vec![0; 1 << 29]);
    let mut w = Writer::new(usize::MAX);
    let root = w.structure(Slot::ROOT, 0, 1);
    w.bytes(root.slot(0), &many);
    assert_eq!(w.finish().unwrap_err(), TooLarge::List);
}
