//! Hostile and broken peers: each is cut for the right reason, told so where it listens, leaves
//! nothing behind, and no other connection of the process notices.

mod common;

use std::time::Duration;

use common::attack::{attack, limits, send_and_listen, too_many};
use common::raw::{self, Cap, On};
use common::{
    CHILD, ECHO, KEEP, LARGE, PENDING, Served, Toy, eventually, on_local_set, plain_client,
    send_text,
};
use partha_guard::{CutReason, Limits, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fn pending(question: u32) -> Vec<u8> {
    raw::call(question, On::Export(0), PENDING, &[], "")
}

#[test]
fn garbage() {
    let bad = |reason: &CutReason| matches!(reason, CutReason::BadFrame { .. });
    attack(limits(), bad, async |stream, _| {
        send_and_listen(stream, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec()).await;
    });
    attack(limits(), bad, async |stream, _| {
        send_and_listen(stream, vec![0xfe, 0xff, 0xff, 0xff, 1, 2, 3, 4]).await;
    });
    let protocol = |reason: &CutReason| matches!(reason, CutReason::Protocol { .. });
    attack(limits(), protocol, async |stream, _| {
        // A frame of one word that is no pointer to a struct.
        let mut bytes = vec![0, 0, 0, 0, 1, 0, 0, 0];
        bytes.extend([0xff; 8]);
        send_and_listen(stream, bytes).await;
    });
}

#[test]
fn a_header_that_claims_too_much() {
    let large = |reason: &CutReason| {
        *reason
            == CutReason::MessageTooLarge {
                bytes: 64 << 20,
                max: 64 << 10,
            }
    };
    attack(limits(), large, async |stream, _| {
        let mut bytes = 0_u32.to_le_bytes().to_vec();
        bytes.extend((8_u32 << 20).to_le_bytes());
        send_and_listen(stream, bytes).await;
    });
}

#[test]
fn half_a_message() {
    let half = |reason: &CutReason| matches!(reason, CutReason::HalfMessage { bytes: 20 });
    attack(limits(), half, async |stream, _| {
        let bytes = raw::bootstrap(1);
        raw::write(stream, &bytes[..20]).await;
        stream.shutdown().await.unwrap();
        raw::abort_reason(stream).await;
    });
}

#[test]
fn a_message_byte_by_byte() {
    let limits = Limits {
        frame_ms_max: 100,
        ..limits()
    };
    let late = |reason: &CutReason| *reason == CutReason::FrameDeadline { ms: 100 };
    attack(limits, late, async |stream, _| {
        raw::write(stream, &raw::bootstrap(1)).await;
        for byte in raw::call(2, On::Export(0), ECHO, &[], "slow") {
            raw::write(stream, &[byte]).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
}

#[test]
fn silence_from_the_start() {
    let limits = Limits {
        handshake_ms_max: 50,
        ..limits()
    };
    let silent = |reason: &CutReason| *reason == CutReason::HandshakeDeadline { ms: 50 };
    attack(limits, silent, async |stream, _| {
        raw::abort_reason(stream).await;
    });
}

#[test]
fn silence_later() {
    let limits = Limits {
        idle_ms_max: Some(50),
        idle_holding_ms_max: Some(150),
        ..limits()
    };
    let idle = |within: u64| move |reason: &CutReason| *reason == CutReason::Idle { ms: within };
    attack(limits.clone(), idle(150), async |stream, _| {
        raw::write(stream, &raw::bootstrap(1)).await;
        raw::abort_reason(stream).await;
    });
    attack(limits, idle(50), async |stream, _| {
        raw::write(stream, &raw::bootstrap(1)).await;
        raw::write(stream, &raw::finish(1, true)).await;
        raw::abort_reason(stream).await;
    });
}

#[test]
fn calls_that_never_end() {
    let questions = too_many(Table::Questions);
    attack(limits(), questions, async |stream, toy| {
        let mut bytes = raw::bootstrap(0);
        bytes.extend((1..10_000).flat_map(pending));
        send_and_listen(stream, bytes).await;
        assert_eq!(toy.servants_most.get(), 16);
    });
}

#[test]
fn calls_that_are_finished_at_once_while_their_servants_go_on() {
    let questions = too_many(Table::Questions);
    attack(limits(), questions, async |stream, toy| {
        toy.stubborn.set(true);
        let mut bytes = raw::bootstrap(0);
        bytes.extend((1..5_000).flat_map(|q| [pending(q), raw::finish(q, true)].concat()));
        raw::write(stream, &bytes).await;
        raw::abort_reason(stream).await;
        assert_eq!(toy.servants_most.get(), 16);
        eventually("servants end when they like", || {
            toy.go.notify_waiters();
            toy.servants.get() == 0
        })
        .await;
    });
}

#[test]
fn replies_that_are_never_read() {
    let deaf = |reason: &CutReason| {
        matches!(
            reason,
            CutReason::Unsent { .. } | CutReason::WriteStalled { .. }
        ) || too_many(Table::Questions)(reason)
    };
    let limits = Limits {
        write_stall_ms_max: 300,
        ..limits()
    };
    attack(limits.clone(), deaf, async |stream, _| {
        raw::write(stream, &raw::bootstrap(0)).await;
        for question in 1..400 {
            let call = raw::call(question, On::Export(0), LARGE, &[], "60000");
            if stream.write_all(&call).await.is_err() {
                break;
            }
        }
        // Waits for the end without reading.
        while stream.write_all(&raw::release(99, 1)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    attack(limits, deaf, async |stream, _| {
        let mut bytes = raw::bootstrap(0);
        bytes.extend(
            (1..100_000).flat_map(|q| raw::call(q, On::Export(0), ECHO, &[], "a reply not read")),
        );
        raw::write(stream, &bytes).await;
        eventually("the attacker is cut", || stream.try_write(&[0]).is_err()).await;
    });
}

#[test]
fn bootstraps_without_end() {
    attack(limits(), too_many(Table::Bootstraps), async |stream, _| {
        send_and_listen(stream, (0..100).flat_map(raw::bootstrap).collect()).await;
    });
}

#[test]
fn objects_without_end() {
    attack(limits(), too_many(Table::Exports), async |stream, toy| {
        raw::write(stream, &raw::bootstrap(0)).await;
        for question in 1..200 {
            // Finished, but the object is kept.
            let call = raw::call(question, On::Export(0), CHILD, &[], "");
            let bytes = [call, raw::finish(question, false)].concat();
            if stream.write_all(&bytes).await.is_err() {
                break;
            }
        }
        raw::abort_reason(stream).await;
        assert!(toy.next.get() < 60, "{} objects", toy.next.get());
    });
}

#[test]
fn call_backs_without_end() {
    attack(limits(), too_many(Table::Imports), async |stream, _| {
        let mut bytes = raw::bootstrap(0);
        for question in 1..60 {
            bytes.extend(raw::call(
                question,
                On::Export(0),
                KEEP,
                &[Cap::Hosted(question)],
                "",
            ));
        }
        send_and_listen(stream, bytes).await;
    });
}

#[test]
fn call_backs_that_are_not_answered() {
    attack(limits(), too_many(Table::CallsOut), async |stream, _| {
        let mut bytes = raw::bootstrap(0);
        for question in 1..20 {
            let caps = [Cap::Hosted(7)];
            bytes.extend(raw::call(
                question,
                On::Export(0),
                common::CALL_BACK,
                &caps,
                "",
            ));
        }
        send_and_listen(stream, bytes).await;
    });
}

#[test]
fn too_many_capabilities_in_one_message() {
    attack(
        limits(),
        too_many(Table::Capabilities),
        async |stream, _| {
            let caps: Vec<_> = (0..65).map(Cap::Hosted).collect();
            let mut bytes = raw::bootstrap(0);
            bytes.extend(raw::call(1, On::Export(0), ECHO, &caps, ""));
            send_and_listen(stream, bytes).await;
        },
    );
}

#[test]
fn messages_against_the_protocol() {
    let protocol = |reason: &CutReason| matches!(reason, CutReason::Protocol { .. });
    let unsupported = |reason: &CutReason| matches!(reason, CutReason::Unsupported { .. });
    let after_bootstrap = |messages: Vec<Vec<u8>>| {
        let mut bytes = raw::bootstrap(0);
        bytes.extend(messages.concat());
        bytes
    };
    let wrong = [
        vec![raw::results(5, &[], "")],
        vec![raw::exception_return(0)],
        vec![raw::release(77, 1)],
        vec![raw::release(0, 100)],
        vec![raw::bootstrap(0)],
        vec![pending(1), pending(1)],
        vec![pending(1), raw::finish(1, true), raw::finish(1, true)],
        vec![raw::call(1, On::Export(55), ECHO, &[], "")],
        vec![raw::disembargo(0, 9, true)],
        vec![raw::unimplemented_resolve(1, Cap::Hosted(44))],
    ];
    for messages in wrong {
        let bytes = after_bootstrap(messages);
        attack(limits(), protocol, async |stream, _| {
            send_and_listen(stream, bytes).await
        });
    }
    let bytes = after_bootstrap(vec![raw::call_yourself(1)]);
    attack(limits(), unsupported, async |stream, _| {
        send_and_listen(stream, bytes).await
    });
}

#[test]
fn an_unknown_message_is_answered_not_cut() {
    on_local_set(async {
        let toy = Toy::new();
        let (mut near, far) = duplex(64 << 10);
        let served = Served::new(far, limits(), &toy);
        raw::write(&mut near, &raw::join(3)).await;
        assert_eq!(
            raw::read_kind(&mut near).await.as_deref(),
            Some("unimplemented")
        );
        raw::write(&mut near, &raw::bootstrap(1)).await;
        assert_eq!(raw::read_kind(&mut near).await.as_deref(), Some("return 1"));
        drop(near);
        assert_eq!(served.end().await, None);
    });
}

#[test]
fn a_peer_that_says_good_bye_is_not_cut() {
    on_local_set(async {
        for polite in [true, false] {
            let toy = Toy::new();
            let (near, far) = duplex(64 << 10);
            let served = Served::new(far, limits(), &toy);
            let (client, task) = plain_client(near);
            let running = send_text(&client, PENDING, "");
            eventually("the call runs", || toy.servants.get() == 1).await;
            if polite {
                drop(running);
            }
            task.abort();
            drop(client);
            let _ = task.await;
            assert_eq!(served.end().await, None);
            eventually("all is gone", || {
                toy.live.get() == 0 && toy.servants.get() == 0
            })
            .await;
        }
    });
}

#[test]
fn overlapping_pointers_are_refused_but_not_cut() {
    on_local_set(async {
        let toy = Toy::new();
        let (mut near, far) = duplex(1 << 20);
        let served = Served::new(far, Limits::default(), &toy);
        let bytes = overlapping();
        let mut all = raw::bootstrap(0);
        all.extend(bytes);
        all.extend(raw::call(2, On::Export(0), ECHO, &[], "after"));
        raw::write(&mut near, &all).await;
        for answer in ["return 0", "return 1", "return 2"] {
            assert_eq!(raw::read_kind(&mut near).await.as_deref(), Some(answer));
        }
        assert_eq!(
            toy.calls.get(),
            1,
            "the call with the overlap did not get through"
        );
        drop(near);
        assert_eq!(served.end().await, None);
    });
}

/// A call whose list of 1,000 pointers leads to one text of 4 KiB.
fn overlapping() -> Vec<u8> {
    let mut bytes = raw::call(1, On::Export(0), ECHO, &[], &"x".repeat(12_000));
    // Turn the text into a list of pointers, each to a list of bytes at its end. The list pointer
    // is the first word whose lower bits say list and whose upper ones say 12,001 bytes.
    let wanted = (12_001_u64 << 35) | (2 << 32);
    let at = (8..bytes.len()).step_by(8).find(|at| {
        let word = u64::from_le_bytes(bytes[*at..*at + 8].try_into().expect("eight bytes"));
        word & 0xffff_ffff_0000_0000 == wanted && word & 3 == 1
    });
    let at = at.expect("the pointer to the text");
    let word = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let start = at + 8 + ((word as u32 as i32) >> 2) as usize * 8;
    let list = (word & 0xffff_ffff) | (6 << 32) | (1_000 << 35);
    bytes[at..at + 8].copy_from_slice(&list.to_le_bytes());
    for index in 0..1_000_usize {
        let offset = (1_000 - index - 1) as u64;
        let pointer = (offset << 2) | 1 | (2 << 32) | (4_000 << 35);
        bytes[start + index * 8..start + index * 8 + 8].copy_from_slice(&pointer.to_le_bytes());
    }
    bytes
}

#[test]
fn an_attacker_that_keeps_reading_gets_no_more_than_its_share() {
    on_local_set(async {
        let toy = Toy::new();
        let (mut near, far) = duplex(64 << 10);
        let limits = Limits {
            handlers_max: 4,
            handlers_bytes_max: 3_000,
            ..limits()
        };
        let _served = Served::new(far, limits, &toy);
        let mut bytes = raw::bootstrap(0);
        for question in 1..5 {
            bytes.extend(raw::call(
                question,
                On::Export(0),
                PENDING,
                &[],
                &"x".repeat(1_000),
            ));
        }
        raw::write(&mut near, &bytes).await;
        let mut table = [0; 8];
        near.read_exact(&mut table).await.unwrap();
        eventually("two calls run", || toy.servants.get() == 2).await;
        tokio::task::yield_now().await;
        assert_eq!(toy.servants.get(), 2, "a third would have too many bytes");
        eventually("all have had their turn", || {
            toy.go.notify_waiters();
            toy.calls.get() == 4
        })
        .await;
    });
}
