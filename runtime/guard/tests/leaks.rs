//! However a connection ends, its calls and capabilities are dropped.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use common::raw::{self, Cap, On};
use common::{
    CALL_BACK, ECHO, KEEP, LATE_CHILD, PENDING, Served, TOY, Toy, echo_object, eventually,
    flat_text, on_local_set, plain_client, send_object, send_text, tcp_pair, text,
};
use futures_util::future::{join, join_all};
use partha_guard::{Gateway, Limits, Network, SafeRpc, connect, invoke};
use tokio::io::duplex;
use tokio::task::{LocalSet, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

#[test]
fn an_aborted_server_drops_its_calls() {
    on_local_set(async {
        for _ in 0..20 {
            let toy = Toy::new();
            let (near, far) = duplex(64 << 10);
            let served = Served::new(far, Limits::default(), &toy);
            let (client, _task) = plain_client(near);
            let mine = echo_object(&Rc::default());
            let mut calls: Vec<_> = (0..10)
                .map(|_| text(send_text(&client, PENDING, "")))
                .collect();
            calls.push(text(send_object(&client, KEEP, &mine)));
            calls.push(text(send_text(&client, LATE_CHILD, "")));
            let running = async {
                eventually("the calls run", || toy.calls.get() == 12).await;
                served.task.abort();
            };
            let (answers, ()) = join(join_all(calls), running).await;
            assert_eq!(
                answers.iter().filter(|answer| answer.is_ok()).count(),
                1,
                "only KEEP"
            );
            assert!(served.task.await.unwrap_err().is_cancelled());
            assert!(served.cut.take().is_none());
            toy.kept.borrow_mut().clear();
            eventually("all is gone", || {
                toy.live.get() == 0 && toy.servants.get() == 0
            })
            .await;
            assert_eq!(Rc::strong_count(&toy), 1);
        }
    });
}

#[test]
fn a_dropped_runtime_drops_all_calls() {
    let toy = Toy::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let (near, far) = tcp_pair().await;
        let _served = Served::new(far, Limits::default(), &toy);
        let (client, _task) = plain_client(near);
        spawn_local(async move {
            let _ = text(send_text(&client, PENDING, "")).await;
        });
        eventually("the call runs", || toy.calls.get() == 1).await;
    });
    assert!(toy.live.get() > 0);
    drop(local);
    drop(runtime);
    assert_eq!((toy.live.get(), toy.servants.get()), (0, 0));
    assert_eq!(Rc::strong_count(&toy), 1);
}

#[test]
fn a_safe_owner_helps_a_plain_network_too() {
    on_local_set(async {
        for guarded in [true, false] {
            let toy = Toy::new();
            let (near, far) = duplex(64 << 10);
            let bootstrap = Some(toy.object(0));
            let rpc = if guarded {
                let network = Network::new(far, Side::Server, Limits::default());
                RpcSystem::new(Box::new(network), bootstrap)
            } else {
                let (reader, writer) = tokio::io::split(far);
                let network = twoparty::VatNetwork::new(
                    reader.compat(),
                    writer.compat_write(),
                    Side::Server,
                    Default::default(),
                );
                RpcSystem::new(Box::new(network), bootstrap)
            };
            let owner = SafeRpc::new(rpc);
            let server = spawn_local(async move { drop(owner.await) });
            let (client, _task) = plain_client(near);
            let call = spawn_local(text(send_text(&client, PENDING, "")));
            eventually("the call runs", || toy.calls.get() == 1).await;
            server.abort();
            assert!(call.await.unwrap().is_err());
            eventually("all is gone", || {
                toy.live.get() == 0 && toy.servants.get() == 0
            })
            .await;
        }
    });
}

#[test]
fn an_aborted_client_fails_its_calls() {
    on_local_set(async {
        let toy = Toy::new();
        let (near, far) = duplex(64 << 10);
        let served = Served::new(far, Limits::default(), &toy);
        let (client, driver) = connect(near, Limits::default());
        let driver = spawn_local(driver);
        let objects = Rc::new(Cell::new(0));
        let mine = echo_object(&objects);
        assert!(text(send_object(&client, KEEP, &mine)).await.is_ok());
        let call = spawn_local(text(send_text(&client, PENDING, "")));
        eventually("the call runs", || toy.calls.get() == 2).await;
        driver.abort();
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Disconnected, "{error}");
        let error = text(send_text(&client, ECHO, "")).await.unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Disconnected, "{error}");
        assert_eq!(served.end().await, None);
        drop((client, mine));
        eventually("the client's object is gone", || {
            Rc::strong_count(&objects) == 1
        })
        .await;
        // What the server kept of the client fails.
        let kept = toy.kept.borrow_mut().pop().unwrap();
        let gateway = Rc::clone(&toy) as Rc<dyn Gateway>;
        let error = invoke(&gateway, &kept, TOY, ECHO, flat_text("late"))
            .await
            .unwrap_err();
        assert_eq!(error.kind, capnp::ErrorKind::Disconnected, "{error}");
        drop(kept);
        eventually("all is gone", || {
            toy.live.get() == 0 && toy.servants.get() == 0
        })
        .await;
    });
}

#[test]
fn a_call_back_in_flight_ends_with_the_connection() {
    on_local_set(async {
        let toy = Toy::new();
        let (mut near, far) = duplex(64 << 10);
        let served = Served::new(far, Limits::default(), &toy);
        let mut bytes = raw::bootstrap(0);
        for question in 1..5 {
            let caps = [Cap::Hosted(question)];
            bytes.extend(raw::call(question, On::Export(0), CALL_BACK, &caps, ""));
        }
        raw::write(&mut near, &bytes).await;
        for expected in ["return 0", "call 0", "call 1", "call 2", "call 3"] {
            assert_eq!(raw::read_kind(&mut near).await.as_deref(), Some(expected));
        }
        assert!(toy.live.get() >= 5);
        drop(near);
        assert_eq!(served.end().await, None);
        eventually("all is gone", || toy.live.get() == 0).await;
        assert_eq!(Rc::strong_count(&toy), 1);
    });
}

type Message = fn() -> Vec<u8>;

#[test]
fn promises_of_the_peer_end_with_the_connection() {
    on_local_set(async {
        // Promises that are honestly resolved, or never, in pending and in answered calls.
        let ways: [&[Message]; 5] = [
            &[|| raw::call(1, On::Export(0), PENDING, &[Cap::Promise(1)], "")],
            &[
                || raw::call(1, On::Export(0), PENDING, &[Cap::Promise(1)], ""),
                || raw::resolve(1, Some(Cap::Promise(2))),
                || raw::resolve(2, Some(Cap::Promise(1))),
                || raw::resolve(1, Some(Cap::Promise(2))),
            ],
            &[
                || raw::call(1, On::Export(0), KEEP, &[Cap::Promise(1)], ""),
                || raw::resolve(1, Some(Cap::Yours(0))),
            ],
            &[
                || raw::call(1, On::Export(0), PENDING, &[Cap::Promise(1)], ""),
                || raw::resolve(1, Some(Cap::Answer(0))),
            ],
            &[
                || raw::call(1, On::Export(0), CALL_BACK, &[Cap::Promise(1)], ""),
                || raw::resolve(1, Some(Cap::Yours(0))),
                || raw::disembargo(0, 0, true),
            ],
        ];
        for way in ways {
            let toy = Toy::new();
            let (mut near, far) = duplex(64 << 10);
            let served = Served::new(far, Limits::default(), &toy);
            raw::write(&mut near, &raw::bootstrap(0)).await;
            assert_eq!(raw::read_kind(&mut near).await.as_deref(), Some("return 0"));
            for message in way {
                raw::write(&mut near, &message()).await;
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            drop(near);
            served.end().await;
            toy.kept.borrow_mut().clear();
            eventually("all is gone", || {
                toy.live.get() == 0 && toy.servants.get() == 0
            })
            .await;
            assert_eq!(Rc::strong_count(&toy), 1);
        }
    });
}
