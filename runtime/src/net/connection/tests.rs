//! What a full outbox lets through.

use partha_core::id::{Incarnation, NodeId};

use super::*;
use crate::abi::message;

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
