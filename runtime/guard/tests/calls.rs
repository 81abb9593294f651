//! Honest clients of plain capnp-rpc against a guarded server, over memory and over TCP.

mod common;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use capnp::capability::Client;
use capnp_rpc::rpc_capnp::payload;
use common::{
    CALL_BACK, CHILD, ECHO, FAIL, KEEP, KIND, LARGE, LATE_CHILD, PENDING, Served, TAKE, TOY, Toy,
    echo_object, eventually, object, on_local_set, plain_client, send_object, send_text, tcp_pair,
    text,
};
use futures_util::future::join_all;
use partha_guard::{CutReason, Limits, Stream, connect};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// Runs a test over memory and over TCP, with a gateway that answers at once where it can and with
/// one that does not.
fn over_both(test: impl AsyncFn(Rc<Toy>, Client)) {
    on_local_set(async {
        for late in [false, true] {
            let (near, far) = duplex(4 << 10);
            between(near, far, late, &test).await;
            let (near, far) = tcp_pair().await;
            between(near, far, late, &test).await;
        }
    });
}

async fn between<S: Stream>(near: S, far: S, late: bool, test: &impl AsyncFn(Rc<Toy>, Client)) {
    let toy = Toy::new();
    toy.late.set(late);
    let served = Served::new(far, Limits::default(), &toy);
    let (client, task) = plain_client(near);
    test(Rc::clone(&toy), client).await;
    finish(toy, served, task).await;
}

/// Closes the client's end and sees that nothing is left.
async fn finish(toy: Rc<Toy>, served: Served, task: tokio::task::JoinHandle<()>) {
    task.abort();
    assert_eq!(served.end().await, None);
    eventually("all objects and calls are gone", || toy.live.get() == 0).await;
}

#[test]
fn a_call_is_answered() {
    over_both(async |toy, client| {
        assert_eq!(
            text(send_text(&client, ECHO, "hello")).await.unwrap(),
            "hello"
        );
        let long = "long ".repeat(50_000);
        assert_eq!(text(send_text(&client, ECHO, &long)).await.unwrap(), long);
        assert_eq!(toy.calls.get(), 2);
    });
}

#[test]
fn an_error_keeps_its_kind_and_text() {
    over_both(async |_, client| {
        let error = text(send_text(&client, FAIL, "not today"))
            .await
            .unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Failed);
        assert!(error.extra.contains("not today"), "{error}");
        let error = text(send_text(&client, 99, "")).await.unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Unimplemented);
        let error = client.new_call::<payload::Owned, payload::Owned>(TOY + 1, 0, None);
        let error = error.hook.send().promise.await.err().unwrap();
        assert_eq!(error.kind, capnp::ErrorKind::Unimplemented);
    });
}

#[test]
fn a_call_back_reaches_the_client() {
    over_both(async |_, client| {
        let calls = Rc::new(Cell::new(0));
        let mine = echo_object(&calls);
        for round in 1..=3 {
            let answer = text(send_object(&client, CALL_BACK, &mine)).await.unwrap();
            assert_eq!(answer, "from the server");
            assert_eq!(calls.get(), round);
        }
        drop(mine);
        eventually("the server let the call-back object go", || {
            Rc::strong_count(&calls) == 1
        })
        .await;
    });
}

#[test]
fn a_returned_object_can_be_called_and_released() {
    over_both(async |toy, client| {
        let child = object(send_text(&client, CHILD, "")).await.unwrap();
        assert_eq!(
            text(send_text(&child, ECHO, "child")).await.unwrap(),
            "child"
        );
        assert_eq!(toy.objects.borrow().len(), 2);
        drop(child);
        eventually("the child was released", || toy.objects.borrow().len() == 1).await;
        assert_eq!(
            text(send_text(&client, ECHO, "still here")).await.unwrap(),
            "still here"
        );
    });
}

#[test]
fn calls_are_pipelined_on_a_promised_object() {
    over_both(async |toy, client| {
        let request = client.new_call::<payload::Owned, payload::Owned>(TOY, LATE_CHILD, None);
        let pending = request.hook.send();
        let promised = Client::new(pending.pipeline.get_pointer_field(0).as_cap());
        let calls: Vec<_> = (0..5)
            .map(|i| send_text(&promised, ECHO, &i.to_string()))
            .collect();
        eventually("the first call runs", || toy.servants.get() == 1).await;
        assert_eq!(toy.calls.get(), 1, "the pipelined calls wait for it");
        toy.go.notify_waiters();
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(text(call).await.unwrap(), i.to_string());
        }
        assert!(pending.promise.await.is_ok());
    });
}

#[test]
fn an_object_of_ours_is_known_when_it_comes_back() {
    over_both(async |_, client| {
        let child = object(send_text(&client, CHILD, "")).await.unwrap();
        assert_eq!(
            text(send_object(&client, KIND, &child)).await.unwrap(),
            "own"
        );
        let mine = echo_object(&Rc::default());
        assert_eq!(
            text(send_object(&client, KIND, &mine)).await.unwrap(),
            "imported"
        );
        assert_eq!(text(send_text(&client, KIND, "")).await.unwrap(), "none");
        // The server calls its own object as it would a call-back.
        let answer = text(send_object(&client, CALL_BACK, &child)).await.unwrap();
        assert_eq!(answer, "from the server");
    });
}

#[test]
fn an_echoed_object_is_the_same_object() {
    over_both(async |_, client| {
        let calls = Rc::new(Cell::new(0));
        let mine = echo_object(&calls);
        let back = object(send_object(&client, ECHO, &mine)).await.unwrap();
        assert_eq!(text(send_text(&back, ECHO, "home")).await.unwrap(), "home");
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn a_call_on_a_promised_object_of_the_clients_own_comes_back() {
    over_both(async |_, client| {
        let calls = Rc::new(Cell::new(0));
        let (mine, other) = (echo_object(&calls), echo_object(&Rc::default()));
        let mut request = client.new_call::<payload::Owned, payload::Owned>(TOY, ECHO, None);
        request
            .get()
            .get_content()
            .set_as_capability(mine.hook.add_ref());
        let pending = request.hook.send();
        let promised = Client::new(pending.pipeline.get_pointer_field(0).as_cap());
        let spoken = text(send_text(&promised, ECHO, "to myself"));
        let passed = object(send_object(&promised, ECHO, &other));
        let (spoken, passed) = tokio::join!(spoken, passed);
        assert_eq!(spoken.unwrap(), "to myself");
        assert_eq!(calls.get(), 2);
        assert_eq!(
            text(send_text(&passed.unwrap(), ECHO, "other"))
                .await
                .unwrap(),
            "other"
        );
    });
}

#[test]
fn an_object_may_be_passed_from_client_to_client() {
    on_local_set(async {
        let toy = Toy::new();
        let (near, far) = duplex(4 << 10);
        let first = Served::new(far, Limits::default(), &toy);
        let (giver, giving) = plain_client(near);
        let (near, far) = tcp_pair().await;
        let second = Served::new(far, Limits::default(), &toy);
        let (taker, taking) = plain_client(near);

        let mine = echo_object(&Rc::default());
        assert_eq!(
            text(send_object(&giver, KEEP, &mine)).await.unwrap(),
            "kept"
        );
        let theirs = object(send_text(&taker, TAKE, "")).await.unwrap();
        assert_eq!(
            text(send_text(&theirs, ECHO, "across")).await.unwrap(),
            "across"
        );
        let back = object(send_object(&theirs, ECHO, &taker)).await.unwrap();
        assert_eq!(
            text(send_text(&back, ECHO, "there and back"))
                .await
                .unwrap(),
            "there and back"
        );

        giving.abort();
        assert_eq!(first.end().await, None);
        let error = text(send_text(&theirs, ECHO, "too late"))
            .await
            .unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Disconnected, "{error}");
        finish(toy, second, taking).await;
    });
}

#[test]
fn both_ends_may_be_guarded() {
    on_local_set(async {
        let toy = Toy::new();
        let (near, far) = tcp_pair().await;
        let served = Served::new(far, Limits::default(), &toy);
        let (client, driver) = connect(near, Limits::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::task::spawn_local(async move {
            let mut driver = driver;
            tokio::select! {
                ended = &mut driver => assert_eq!(ended, Ok(())),
                _ = stopped => driver.close().await,
            }
        });
        let mine = echo_object(&Rc::default());
        assert_eq!(
            text(send_text(&client, ECHO, "hello")).await.unwrap(),
            "hello"
        );
        let answer = text(send_object(&client, CALL_BACK, &mine)).await.unwrap();
        assert_eq!(answer, "from the server");
        let pending = send_text(&client, PENDING, "");
        eventually("the call runs", || toy.servants.get() == 1).await;
        stop.send(()).unwrap();
        task.await.unwrap();
        let error = text(pending).await.unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Disconnected, "{error}");
        assert_eq!(served.end().await, None);
        eventually("all is gone", || {
            toy.live.get() == 0 && toy.servants.get() == 0
        })
        .await;
    });
}

#[test]
fn more_calls_than_handlers_wait_their_turn() {
    on_local_set(async {
        let toy = Toy::new();
        let limits = Limits {
            handlers_max: 8,
            ..Limits::default()
        };
        let (near, far) = tcp_pair().await;
        let served = Served::new(far, limits, &toy);
        let (client, task) = plain_client(near);
        let calls = join_all((0..500).map(|i| text(send_text(&client, PENDING, &i.to_string()))));
        let go = async {
            while toy.calls.get() < 500 || toy.servants.get() > 0 {
                toy.go.notify_waiters();
                tokio::task::yield_now().await;
            }
        };
        let (answers, ()) = tokio::join!(calls, go);
        for (i, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap(), i.to_string());
        }
        assert_eq!(toy.servants_most.get(), 8);
        finish(toy, served, task).await;
    });
}

#[test]
fn an_answer_passes_calls_that_wait() {
    on_local_set(async {
        let toy = Toy::new();
        let limits = Limits {
            handlers_max: 1,
            ..Limits::default()
        };
        let (near, far) = duplex(4 << 10);
        let served = Served::new(far, limits, &toy);
        let (client, task) = plain_client(near);
        let mine = echo_object(&Rc::default());
        // The only handler waits for the call-back, whose answer comes after the waiting calls.
        let first = send_object(&client, CALL_BACK, &mine);
        let others = join_all((0..20).map(|_| text(send_text(&client, ECHO, "x"))));
        let (first, others) = tokio::join!(text(first), others);
        assert_eq!(first.unwrap(), "from the server");
        assert!(others.iter().all(Result::is_ok));
        finish(toy, served, task).await;
    });
}

#[test]
fn a_dropped_call_cancels_and_frees_its_question() {
    on_local_set(async {
        let toy = Toy::new();
        let limits = Limits {
            questions_max: 16,
            ..Limits::default()
        };
        let (near, far) = duplex(64 << 10);
        let served = Served::new(far, limits, &toy);
        let (client, task) = plain_client(near);
        for round in 0..300 {
            let pending = send_text(&client, PENDING, "");
            eventually("the call runs", || toy.calls.get() == round + 1).await;
            drop(pending);
            eventually("the servant was told", || toy.servants.get() == 0).await;
        }
        assert_eq!(
            text(send_text(&client, ECHO, "alive")).await.unwrap(),
            "alive"
        );
        finish(toy, served, task).await;
    });
}

#[test]
fn a_pipelined_call_outlives_the_handle_of_the_first() {
    on_local_set(async {
        let toy = Toy::new();
        let limits = Limits {
            handlers_max: 1,
            ..Limits::default()
        };
        let (near, far) = duplex(64 << 10);
        let served = Served::new(far, limits, &toy);
        let (client, task) = plain_client(near);
        // Both wait behind the first; the child's call and its finish keep their order.
        let blocking = send_text(&client, PENDING, "");
        let request = client.new_call::<payload::Owned, payload::Owned>(TOY, CHILD, None);
        let pending = request.hook.send();
        let promised = Client::new(pending.pipeline.get_pointer_field(0).as_cap());
        let call = send_text(&promised, ECHO, "in order");
        drop((pending, promised));
        eventually("the first call runs", || toy.servants.get() == 1).await;
        toy.go.notify_waiters();
        assert!(text(blocking).await.is_ok());
        // The client no longer wants the child, so the call may fail, but it is answered.
        let _ = text(call).await;
        assert_eq!(
            text(send_text(&client, ECHO, "alive")).await.unwrap(),
            "alive"
        );
        finish(toy, served, task).await;
    });
}

#[test]
fn a_reply_that_is_too_large_is_an_error_not_a_cut() {
    over_both(async |_, client| {
        let error = text(send_text(&client, LARGE, "2000000"))
            .await
            .unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Overloaded);
        assert!(error.extra.contains("at most 1048576"), "{error}");
        assert_eq!(
            text(send_text(&client, LARGE, "1000000"))
                .await
                .unwrap()
                .len(),
            1_000_000
        );
    });
}

#[test]
fn a_client_over_a_limit_is_told_why() {
    on_local_set(async {
        let toy = Toy::new();
        let (near, far) = tcp_pair().await;
        let limits = Limits {
            questions_max: 10,
            ..Limits::default()
        };
        let served = Served::new(far, limits, &toy);
        let (client, _task) = plain_client(near);
        let calls = join_all((0..20).map(|_| text(send_text(&client, PENDING, "")))).await;
        let error = calls.into_iter().next().unwrap().unwrap_err();
        assert!(
            error.extra.contains("too many open questions: at most 10"),
            "{error}"
        );
        let reason = served.end().await.expect("it was cut");
        assert!(
            matches!(reason, CutReason::TooMany { max: 10, .. }),
            "{reason}"
        );
        eventually("all is gone", || toy.live.get() == 0).await;
    });
}

/// Counts the reads and writes of a stream.
struct Counting {
    inner: DuplexStream,
    counts: Rc<RefCell<(usize, usize)>>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.counts.borrow_mut().0 += usize::from(result.is_ready());
        result
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.counts.borrow_mut().1 += usize::from(result.is_ready());
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[test]
fn many_calls_share_a_read_and_a_write() {
    on_local_set(async {
        let toy = Toy::new();
        let (near, far) = duplex(1 << 20);
        let counts = Rc::new(RefCell::new((0, 0)));
        let far = Counting {
            inner: far,
            counts: Rc::clone(&counts),
        };
        let _served = Served::new(far, Limits::default(), &toy);
        let (client, driver) = connect(near, Limits::default());
        tokio::task::spawn_local(driver);
        assert!(text(send_text(&client, ECHO, "warm")).await.is_ok());
        *counts.borrow_mut() = (0, 0);
        for _ in 0..10 {
            let calls = join_all((0..64).map(|_| text(send_text(&client, ECHO, "x")))).await;
            assert!(calls.iter().all(Result::is_ok));
        }
        let (reads, writes) = *counts.borrow();
        // One write for each crowd; its calls may come in two reads.
        assert!(
            reads <= 20 && writes <= 10,
            "{reads} reads, {writes} writes for 640 calls"
        );
    });
}
