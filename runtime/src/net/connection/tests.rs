//! What a full outbox lets through.

mod past;

use partha_core::id::{ClassId, Incarnation, NodeId, Uid};
use partha_wire::Slot;

use super::*;
use crate::abi::message;
use crate::shard::ShardHandle;
use crate::wire::frame::Target;
use crate::wire::large::PART_BYTES;

fn connection() -> Arc<Connection> {
    let peer = Peer {
        node: NodeId(3),
        incarnation: Incarnation(1),
    };
    let hello = Hello::new(peer, "slow", 0, 1, NodeId(0));
    let traffic = Traffic::default();
    Connection::new(hello, "nowhere".to_owned(), Lease::default(), traffic)
}

fn framed(frame: &Frame) -> Vec<u8> {
    let (mut framed, number) = frame::short(frame);
    frame::set_question(&mut framed, number);
    framed
}

#[tokio::test]
async fn however_much_is_unsent_calls_are_given_up_and_capabilities_given_back() {
    let connection = connection();
    let (data, pointers) = (2, 1);
    let mut invoke = message(data, pointers, |_, _| {});
    let asked = connection.call(&mut invoke, Instant::now());
    let asked = asked.unwrap();
    let question = 1;
    let large = vec![0; 1 << 20];
    let full = loop {
        if let Err(error) = connection.send(&large, 0) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::Overloaded);
    connection.send_short(&Frame::Ping { number: 5 });
    drop(asked);
    connection.cancel(question);
    connection.release(7);
    let batch = connection.next_batch().await;
    let (cancel, release) = (Frame::Cancel { question }, Frame::Release { export: 7 });
    let last = [framed(&cancel), framed(&release)].concat();
    // Megabytes are not for people to read.
    assert!(batch.last() == Some(&last[..]), "each once, and no ping");
}

/// Calls until there is no room for one more.
fn fill(connection: &Connection, w: &mut Writer) {
    let deadline = Instant::now();
    while connection.call(w, deadline).is_ok() {}
}

fn object(local: u64) -> (Uid, Capability) {
    let uid = Uid {
        node: NodeId(1),
        local,
    };
    let (shard, _jobs) = ShardHandle::new(0);
    (uid, Capability::object_here(shard, uid, ClassId(7)))
}

/// A call with this capability and so many bytes besides.
fn passing(capability: Capability, bytes: usize) -> Writer {
    let (mut w, slot) = frame::invoke(Target::Export(1), ClassId(7), 0);
    let s = w.structure(slot, 0, 2);
    w.data(s.slot(0), &vec![0; bytes]);
    w.capability(s.slot(1), Arc::new(capability));
    w
}

#[tokio::test]
async fn a_call_waits_though_room_came_between_its_refusal_and_its_question_why() {
    let connection = connection();
    let mut w = message(2, 1, |w, s| w.data(s.slot(0), &[0; 100_000]));
    fill(&connection, &mut w);
    let refused = connection.call(&mut w, Instant::now()).unwrap_err();
    let batch = connection.next_batch().await;
    connection.written(batch);
    assert!(connection.is_to_wait(&refused));
}

#[tokio::test]
async fn numbers_of_capabilities_that_were_not_sent_are_taken_back() {
    let connection = connection();
    let (_, capability) = object(1);
    let mut w = passing(capability.clone(), 100_000);
    fill(&connection, &mut w);
    let sent = lock(&connection.exports).sent(1);
    for _ in 0..3 {
        connection.call(&mut w, Instant::now()).unwrap_err();
    }
    assert_eq!(lock(&connection.exports).sent(1), sent, "of refused calls");
    let answer = passing(capability.clone(), 5 << 20);
    connection.answer(answer, 1).unwrap_err();
    assert_eq!(
        lock(&connection.exports).sent(1),
        sent,
        "of refused answers"
    );
    let mut mixed = passing(object(2).1, 0);
    let other = self::connection();
    let beyond = Capability::imported(other, 5, ClassId(7));
    mixed.capability(Slot::ROOT, Arc::new(beyond));
    connection.call(&mut mixed, Instant::now()).unwrap_err();
    assert!(connection.export(2).is_err(), "of what cannot travel");
}

#[tokio::test]
async fn who_lacks_a_number_for_a_capability_does_not_wait_for_room() {
    let connection = connection();
    let mut n = 10;
    let full = loop {
        let (uid, capability) = object(n);
        n += 1;
        if let Err(full) = lock(&connection.exports).number(uid, &capability) {
            break full;
        }
    };
    let mut w = passing(object(1).1, 0);
    let now = Instant::now();
    let waiting = connection.call_in_turn(&mut w, now, now, |_| ());
    let error = waiting.await.unwrap_err();
    assert_eq!(error.detail(), full.detail());
}

#[tokio::test]
async fn a_large_answer_that_is_a_frame_leaves_from_where_it_lies() {
    let connection = connection();
    let answer = message(2, 1, |w, s| w.data(s.slot(0), &[0; 300_000]));
    let framed = answer.finish().unwrap().0;
    let lent = framed.as_ptr_range();
    connection.answer_framed(framed, 1).unwrap();
    let batch = connection.next_batch().await;
    let part = batch.last().unwrap();
    assert_eq!(part.len(), PART_BYTES);
    assert!(lent.contains(&part.as_ptr()));
}
