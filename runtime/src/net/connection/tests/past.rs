//! Frames that are written past the connection's task.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::{Context, Wake};

use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::socket::Writer as Socket;

/// A connection that nothing serves, the half of its socket that is written to, and the peer's
/// end.
async fn met() -> (Arc<Connection>, Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (_, half) = ours.unwrap().into_split();
    let (connection, socket) = (connection(), Socket::new(half));
    connection.write_past(socket.past());
    (connection, socket, theirs.unwrap().0)
}

/// How often the connection's task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn frame_of(bytes: usize) -> Writer {
    message(2, 1, |w, s| w.data(s.slot(0), &vec![0; bytes]))
}

/// Asks the socket itself: the runtime would only say what it has heard of it.
fn came_nothing(peer: &TcpStream) -> bool {
    let got = SockRef::from(peer).peek(&mut [MaybeUninit::uninit(); 8]);
    got.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_frame_that_is_alone_is_written_by_who_brings_it_and_wakes_nobody() {
    let (connection, _socket, mut peer) = met().await;
    let wakes = Arc::new(Wakes::default());
    let waker = wakes.clone().into();
    let mut task = Context::from_waker(&waker);
    let mut next = pin!(connection.next_batch());
    assert!(next.as_mut().poll(&mut task).is_pending());
    let now = Instant::now();
    let mut call = frame_of(64);
    let len = call.len();

    // Answers, one after the other, and a call.
    for number in [4, 5, 6] {
        connection.answer(frame_of(64), number).unwrap();
        assert!(lock(&connection.outbox).is_empty());
    }
    let first = connection.call(&mut call, now).unwrap();
    peer.readable().await.unwrap();
    assert!(!came_nothing(&peer));
    let mut came = vec![0; 4 * len];
    peer.read_exact(&mut came).await.unwrap();
    assert_eq!(wakes.count(), 0);

    // A second call shares its write with those that follow.
    let second = connection.call(&mut call, now).unwrap();
    let third = connection.call(&mut call, now).unwrap();
    assert_eq!(wakes.count(), 1);
    let Poll::Ready(batch) = next.as_mut().poll(&mut task) else {
        panic!("the task was woken for nothing");
    };
    assert_eq!(batch.len(), 2 * len);
    assert!(came_nothing(&peer));

    // Nothing overtakes what is being written.
    connection.answer(frame_of(64), 7).unwrap();
    assert!(came_nothing(&peer));
    connection.written(batch);
    assert_eq!(connection.next_batch().await.len(), len);
    drop((first, second, third));
}

#[tokio::test]
async fn an_answer_waits_for_those_that_are_about_to_follow() {
    let (connection, _socket, peer) = met().await;
    connection.brings_more(true);
    connection.answer(frame_of(64), 1).unwrap();
    connection.brings_more(false);
    connection.answer(frame_of(64), 2).unwrap();
    assert!(came_nothing(&peer));
    assert_eq!(connection.next_batch().await.len(), 2 * frame_of(64).len());
}

#[tokio::test]
async fn what_the_socket_does_not_take_at_once_follows_in_its_order() {
    let (connection, mut socket, mut peer) = met().await;
    let len = frame_of(10_000).len();
    let mut sent = 0;
    while lock(&connection.outbox).is_empty() {
        sent += 1;
        connection.answer(frame_of(10_000), sent).unwrap();
    }
    for _ in 0..3 {
        sent += 1;
        connection.answer(frame_of(10_000), sent).unwrap();
    }
    let batch = connection.next_batch().await;
    let writing = batch.write_to(&mut socket, || {});
    let mut bytes = vec![0; len * sent as usize];
    let (written, read) = tokio::join!(writing, peer.read_exact(&mut bytes));
    written.unwrap();
    read.unwrap();
    connection.written(batch);
    assert_eq!(lock(&connection.outbox).unsent, Default::default());
    for (framed, number) in bytes.chunks(len).zip(1..) {
        let mut expected = frame_of(10_000).finish().unwrap().0;
        frame::set_question(&mut expected, number);
        assert!(framed == expected, "frame {number} of {sent}");
    }
}

#[tokio::test]
async fn the_socket_is_closed_though_the_connection_is_still_known() {
    let (connection, socket, mut peer) = met().await;
    drop(socket);
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    connection.answer(frame_of(64), 1).unwrap();
    assert_eq!(connection.next_batch().await.len(), frame_of(64).len());
}
