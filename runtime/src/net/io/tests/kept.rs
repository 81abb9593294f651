//! What the small calls that are kept keep besides.

use super::*;
use crate::net::asker::Asker;

/// Keeps every call under way.
#[derive(Default)]
struct Slow {
    under_way: Mutex<Vec<(Asker, frame::Invoke)>>,
}

impl Inbound for Slow {
    fn invoke(&self, connection: &Arc<Connection>, call: frame::Invoke) {
        lock(&self.under_way).push((Asker::new(connection), call));
    }

    fn action(&self, _connection: &Arc<Connection>, _action: Action) {}

    fn cancel(&self, _connection: &Arc<Connection>, _question: u32) {}

    fn idle(&self, _connection: &Arc<Connection>) {}

    fn closed(&self, _reason: &SystemError) {}
}

/// A frame that nobody keeps, of this size and a little more.
fn filler(bytes: usize) -> Vec<u8> {
    const PONG: u16 = 5;
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    let s = w.structure(Slot::ROOT, 1, 1);
    w.set_u16(s, 0, PONG);
    w.data(s.slot(0), &vec![0; bytes]);
    w.finish().unwrap().0
}

/// Takes so many small calls, each read at once with a filler: the reads that are kept.
fn reads_kept<I: Inbound>(
    calls: usize,
    later: &mut Later,
    connection: &Arc<Connection>,
    inbound: &I,
) -> usize {
    let mut parts = Parts::new(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
    let read = [framed(100), filler(60_000)].concat();
    let mut kept = 0;
    for _ in 0..calls {
        let mut buffer = BytesMut::from(&read[..]);
        let into = (&mut parts, &mut *later);
        // No room for another read is asked for: it would be in another chunk.
        take_frames(&mut buffer, into, 0, connection, inbound).unwrap();
        assert!(buffer.is_empty());
        // It can be used again only if nothing of it is kept.
        kept += usize::from(!buffer.try_reclaim(read.len()));
    }
    kept
}

/// The end of a connection at which so much is unsent that no calls are taken.
fn crowded() -> Arc<Connection> {
    let end = connection(|hello| hello.taking(MESSAGE_BYTES_MAX), Traffic::default());
    while !end.is_crowded() {
        end.answer_framed(framed(1 << 20), 1).unwrap();
    }
    end
}

#[tokio::test]
async fn calls_that_are_not_taken_do_not_keep_what_was_read_with_them() {
    let there = crowded();
    let mut later = Later::default();
    let echo = Echo::default();
    assert_eq!(reads_kept(100, &mut later, &there, &echo), 0);
    assert!(lock(&echo.came).is_empty());
    let waiting = std::iter::from_fn(|| later.pop());
    assert_eq!(waiting.count(), 100, "each is still there");
}

#[tokio::test]
async fn of_many_calls_under_way_some_keep_what_was_read_with_them() {
    let there = connection(|hello| hello.taking(MESSAGE_BYTES_MAX), Traffic::default());
    let slow = Slow::default();
    let mut later = Later::default();
    let kept = reads_kept(BUFFERS_KEPT_MAX + 100, &mut later, &there, &slow);
    assert_eq!(kept, BUFFERS_KEPT_MAX);
    let mut under_way = lock(&slow.under_way);
    assert_eq!(under_way.len(), BUFFERS_KEPT_MAX + 100, "none has to wait");
    for (_, call) in under_way.drain(..) {
        let data = call.parameters.reader().unwrap().pointer(0).bytes();
        assert!(data.unwrap() == noise(100, 5));
    }
}

#[tokio::test]
async fn a_small_call_does_not_keep_a_large_frame_in_front_of_it() {
    let there = connection(|hello| hello.taking(MESSAGE_BYTES_MAX), Traffic::default());
    let slow = Slow::default();
    let mut parts = Parts::new(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
    let mut later = Later::default();
    let read = [filler(2 << 20), framed(100), framed(200)].concat();
    let mut buffer = BytesMut::from(&read[..]);
    let large = buffer.as_ptr_range();
    let into = (&mut parts, &mut later);
    take_frames(&mut buffer, into, 0, &there, &slow).unwrap();
    let under_way = lock(&slow.under_way);
    assert_eq!(under_way.len(), 2);
    for (_, call) in under_way.iter() {
        assert!(!large.contains(&call.parameters.segment().as_ptr()));
    }
}

#[tokio::test]
async fn what_comes_behind_all_that_a_peer_may_say_of_calls_is_taken() {
    let there = crowded();
    let short = |frame| {
        let (mut framed, number) = frame::short(&frame);
        frame::set_question(&mut framed, number);
        framed
    };
    let mut buffer = BytesMut::new();
    for question in 1..=8192 {
        buffer.put_slice(&framed(8));
        buffer.put_slice(&short(Frame::Cancel { question }));
    }
    for export in 1..=4096 {
        buffer.put_slice(&short(Frame::Release { export }));
    }
    buffer.put_slice(&short(Frame::Goodbye));
    let mut parts = Parts::new(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
    let (mut later, echo) = (Later::default(), Echo::default());
    let mut take_some = || {
        let into = (&mut parts, &mut later);
        take_frames(&mut buffer, into, READ_BYTES, &there, &echo).unwrap()
    };
    assert!(there.is_usable());
    while matches!(take_some(), Taken::ForNow) {}
    assert!(!there.is_usable(), "it has said goodbye");
    // One more that has to wait is one too many.
    buffer.put_slice(&short(Frame::Release { export: 1 }));
    buffer.put_slice(&short(Frame::Ping { number: 1 }));
    let into = (&mut parts, &mut later);
    let taken = take_frames(&mut buffer, into, READ_BYTES, &there, &echo).unwrap();
    assert!(matches!(taken, Taken::NoMore));
    assert!(!buffer.is_empty(), "the peer has to wait");
    assert!(lock(&echo.came).is_empty());
}
