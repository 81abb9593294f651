//! Chains and rings of promises: what capnp-rpc walks recursively, or keeps for ever, or panics
//! over.

mod common;

use std::time::Duration;

use common::attack::{attack, limits, send_and_listen, too_many};
use common::raw::{self, Cap, On};
use common::{
    CALL_BACK, CHILD, ECHO, KEEP, LATE_CHILD, PENDING, Served, Toy, eventually, on_local_set,
};
use partha_guard::{CutReason, Limits, Table};
use tokio::io::duplex;

#[test]
fn a_chain_of_pipelined_calls() {
    let limits = Limits {
        questions_max: 60_000,
        handlers_max: 60_000,
        ..limits()
    };
    attack(
        limits.clone(),
        too_many(Table::PipelineDepth),
        async |stream, _| {
            let mut bytes = raw::bootstrap(0);
            bytes.extend(raw::call(1, On::Export(0), LATE_CHILD, &[], ""));
            bytes.extend((2..50_000).flat_map(|q| raw::call(q, On::Answer(q - 1), CHILD, &[], "")));
            send_and_listen(stream, bytes).await;
        },
    );
    // The same through parameters.
    attack(limits, too_many(Table::PipelineDepth), async |stream, _| {
        let mut bytes = raw::bootstrap(0);
        bytes.extend(raw::call(1, On::Export(0), LATE_CHILD, &[], ""));
        bytes.extend(
            (2..50_000)
                .flat_map(|q| raw::call(q, On::Export(0), PENDING, &[Cap::Answer(q - 1)], "")),
        );
        send_and_listen(stream, bytes).await;
    });
}

#[test]
fn a_chain_of_promises() {
    attack(
        limits(),
        too_many(Table::PipelineDepth),
        async |stream, _| {
            let mut bytes = raw::bootstrap(0);
            bytes.extend(raw::call(1, On::Export(0), PENDING, &[Cap::Promise(1)], ""));
            bytes.extend((1..50_000).flat_map(|p| raw::resolve(p, Some(Cap::Promise(p + 1)))));
            send_and_listen(stream, bytes).await;
        },
    );
}

/// Sends `bytes` after a bootstrap and a call that holds promise 1.
fn leak(bytes: &'static [fn() -> Vec<u8>]) {
    let leaking = |reason: &CutReason| {
        matches!(
            reason,
            CutReason::LeakingResolve { .. } | CutReason::LeakingReturn { .. }
        )
    };
    attack(limits(), leaking, async |stream, toy| {
        raw::write(stream, &raw::bootstrap(0)).await;
        assert_eq!(raw::read_kind(stream).await.as_deref(), Some("return 0"));
        for bytes in bytes {
            let calls = toy.calls.get();
            let bytes = bytes();
            raw::write(stream, &bytes).await;
            // A resolve finds the calls before it executed as far as they go.
            let _ = tokio::time::timeout(Duration::from_millis(20), async {
                eventually("the call runs", || toy.calls.get() > calls).await;
            })
            .await;
        }
        raw::abort_reason(stream).await;
    });
}

#[test]
fn rings_of_promises() {
    // A promise resolved to itself.
    leak(&[
        || raw::call(1, On::Export(0), PENDING, &[Cap::Promise(1)], ""),
        || raw::resolve(1, Some(Cap::Promise(1))),
    ]);
    // The same, no longer called a promise.
    leak(&[
        || raw::call(1, On::Export(0), KEEP, &[Cap::Promise(1)], ""),
        || raw::resolve(1, Some(Cap::Hosted(1))),
    ]);
    // To the pending call it is a parameter of.
    leak(&[
        || raw::call(1, On::Export(0), PENDING, &[Cap::Promise(1)], ""),
        || raw::resolve(1, Some(Cap::Answer(1))),
    ]);
    // To a call that has echoed it.
    leak(&[
        || raw::call(1, On::Export(0), ECHO, &[Cap::Promise(1)], ""),
        || raw::resolve(1, Some(Cap::Answer(1))),
    ]);
    // To a promise of ours, which may become it.
    leak(&[
        || raw::call(1, On::Export(0), LATE_CHILD, &[Cap::Promise(1)], ""),
        || raw::call(2, On::Export(0), ECHO, &[Cap::Answer(1)], ""),
        || raw::resolve(1, Some(Cap::Yours(1))),
    ]);
    // The result of a call-back that is the call which waits for it.
    leak(&[
        || raw::call(1, On::Export(0), CALL_BACK, &[Cap::Hosted(1)], ""),
        || raw::results(0, &[Cap::Answer(1)], ""),
    ]);
}

#[test]
fn a_promise_that_is_resolved_under_the_call() {
    // capnp-rpc panics in a call with capabilities on a promise it no longer holds by itself.
    on_local_set(async {
        for resolution in [None, Some(Cap::Yours(0))] {
            let toy = Toy::new();
            let (mut near, far) = duplex(64 << 10);
            let served = Served::new(far, limits(), &toy);
            let messages = [
                raw::bootstrap(0),
                raw::call(1, On::Export(0), ECHO, &[Cap::Promise(1)], ""),
            ];
            raw::write(&mut near, &messages.concat()).await;
            for answer in ["return 0", "return 1"] {
                assert_eq!(raw::read_kind(&mut near).await.as_deref(), Some(answer));
            }
            let messages = [
                raw::resolve(1, resolution),
                raw::call(2, On::Answer(1), ECHO, &[Cap::Hosted(5)], ""),
            ];
            raw::write(&mut near, &messages.concat()).await;
            if resolution.is_some() {
                assert_eq!(
                    raw::read_kind(&mut near).await.as_deref(),
                    Some("other"),
                    "embargo"
                );
                raw::write(&mut near, &raw::disembargo(0, 0, true)).await;
            }
            let mut answers = Vec::new();
            while !answers.iter().any(|answer| answer == "return 2") {
                answers.push(raw::read_kind(&mut near).await.expect("the server lives"));
            }
            drop(near);
            assert_eq!(served.end().await, None);
            eventually("all is gone", || toy.live.get() == 0).await;
        }
    });
}
