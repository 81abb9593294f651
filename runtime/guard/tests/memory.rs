//! What hostile connections cost in memory, measured on the whole process.
//!
//! One test, so that nothing else allocates meanwhile. Numbers are those of the attacks which took
//! plain capnp-rpc to gigabytes, scaled down to seconds.

mod common;

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::raw::{self, On};
use common::{
    CHILD, ECHO, PENDING, Served, Toy, eventually, on_local_set, plain_client, send_text, text,
};
use partha_guard::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const MIB: usize = 1 << 20;

/// Resident memory of this process; none where the system does not say.
fn resident_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}

/// Writes what `message` makes until the other end closes or `count` are written.
async fn flood(stream: &mut DuplexStream, count: u32, message: impl Fn(u32) -> Vec<u8>) -> u32 {
    for question in 1..=count {
        if stream.write_all(&message(question)).await.is_err() {
            return question;
        }
    }
    count
}

/// One connection whose replies are read, and flooded; whether it was cut.
async fn flood_one(toy: &Rc<Toy>, count: u32, message: impl Fn(u32) -> Vec<u8>) -> bool {
    let (near, far) = duplex(16 << 10);
    let served = Served::new(far, Limits::default(), toy);
    let (mut reader, mut writer) = tokio::io::split(near);
    let drain = tokio::task::spawn_local(async move {
        let mut bytes = [0; 16 << 10];
        while matches!(reader.read(&mut bytes).await, Ok(1..)) {}
    });
    raw::write(&mut writer, &raw::bootstrap(0)).await;
    for question in 1..=count {
        if writer.write_all(&message(question)).await.is_err() {
            break;
        }
    }
    let _ = writer.shutdown().await;
    let cut = served.end().await.is_some();
    drop(writer);
    drain.await.expect("reading does not panic");
    cut
}

/// Connections that send `bytes` and then nothing; they must all be gone in the end.
async fn stall(toy: &Rc<Toy>, count: usize, limits: &Limits, bytes: &[u8], mid: &mut impl FnMut()) {
    let bytes: Rc<[u8]> = bytes.into();
    let mut ends = Vec::new();
    for _ in 0..count {
        let (mut near, far) = duplex(1 << 10);
        let served = Served::new(far, limits.clone(), toy);
        let bytes = Rc::clone(&bytes);
        // The writer must not wait for an end that has stopped reading.
        let writing = tokio::task::spawn_local(async move {
            raw::write(&mut near, &bytes).await;
            raw::abort_reason(&mut near).await;
        });
        ends.push((served, writing));
    }
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    mid();
    for (served, writing) in ends {
        assert!(
            served.end().await.is_some(),
            "a connection that stalls is cut"
        );
        writing.await.expect("writing does not panic");
    }
}

/// The growth of this process since a moment.
struct Growth {
    start_bytes: usize,
}

impl Growth {
    fn below(&self, what: &str, most: usize) {
        let now = resident_bytes().map_or(0, |bytes| bytes.saturating_sub(self.start_bytes));
        println!("{what}: {} KiB", now / 1_024);
        assert!(
            now < most,
            "{what}: resident memory grew by {} KiB",
            now / 1_024
        );
    }
}

/// Messages that are begun and not finished.
async fn stalls(toy: &Rc<Toy>, growth: &Growth) {
    let quick = Limits {
        frame_ms_max: 300,
        handshake_ms_max: 300,
        ..Limits::default()
    };
    let claim = |words: u32| [0_u32.to_le_bytes(), words.to_le_bytes()].concat();
    let mut half = claim(8 << 20);
    half.resize(MIB, 0);
    let kinds = [
        ("claims of 64 MiB", 200, claim(8 << 20)),
        ("claims of 1 MiB", 200, claim(131_072)),
        ("half messages", 20, half),
        ("single bytes", 500, vec![0]),
    ];
    for (what, count, bytes) in kinds {
        stall(toy, count, &quick, &bytes, &mut || {
            growth.below(what, 16 * MIB)
        })
        .await;
    }
}

/// Messages that fill a table.
async fn floods(toy: &Rc<Toy>, growth: &Growth) {
    let count = 20_000;
    let call = |question, method| raw::call(question, On::Export(0), method, &[], "");
    assert!(
        flood_one(toy, count, |q| call(q, PENDING)).await,
        "cut at the limit of open questions"
    );
    growth.below("pending calls", 24 * MIB);
    let cancelled = |q| [call(q, PENDING), raw::finish(q, true)].concat();
    assert!(
        !flood_one(toy, count, cancelled).await,
        "cancelled calls are no offence"
    );
    growth.below("cancelled calls", 24 * MIB);
    assert!(
        flood_one(toy, count, raw::bootstrap).await,
        "cut at the limit of bootstraps"
    );
    let kept = |q| [call(q, CHILD), raw::finish(q, false)].concat();
    assert!(
        flood_one(toy, count, kept).await,
        "cut at the limit of exports"
    );
    growth.below("exported objects", 24 * MIB);
}

async fn replies_never_read(toy: &Rc<Toy>, growth: &Growth) {
    let (mut near, far) = duplex(16 << 10);
    let served = Served::new(far, Limits::default(), toy);
    raw::write(&mut near, &raw::bootstrap(0)).await;
    let call = |q| raw::call(q, On::Export(0), ECHO, &[], "a reply that nobody reads");
    let flood = flood(&mut near, 100_000, call);
    let unread = tokio::time::timeout(Duration::from_secs(2), flood).await;
    growth.below("replies never read", 32 * MIB);
    assert!(
        unread.is_err() || served.task.is_finished(),
        "not all was taken"
    );
    drop((near, served.end().await));
}

/// Idle connections with one bootstrap each; bytes of one.
async fn idle_connection_bytes(toy: &Rc<Toy>, count: usize) -> usize {
    let before = resident_bytes().unwrap_or(0);
    let mut idle = Vec::new();
    for _ in 0..count {
        let (mut near, far) = duplex(512);
        let served = Served::new(far, Limits::default(), toy);
        raw::write(&mut near, &raw::bootstrap(0)).await;
        idle.push((near, served));
    }
    for (near, _) in &mut idle {
        assert_eq!(raw::read_kind(near).await.as_deref(), Some("return 0"));
    }
    resident_bytes().unwrap_or(0).saturating_sub(before) / count
}

#[test]
fn attacks_cost_little_memory() {
    if resident_bytes().is_none() {
        println!("skipped: /proc/self/statm not readable");
        return;
    }
    on_local_set(async {
        let honest = Toy::new();
        let (near, far) = duplex(16 << 10);
        let _served = Served::new(far, Limits::default(), &honest);
        let (client, _task) = plain_client(near);
        for _ in 0..100 {
            assert!(text(send_text(&client, ECHO, "warm")).await.is_ok());
        }
        let growth = Growth {
            start_bytes: resident_bytes().unwrap_or(0),
        };
        let toy = Toy::new();
        stalls(&toy, &growth).await;
        floods(&toy, &growth).await;
        replies_never_read(&toy, &growth).await;
        let each = idle_connection_bytes(&toy, 2_000).await;
        println!("idle connection: {each} bytes");
        assert!(each < 20 << 10, "an idle connection takes {each} bytes");
        let start = Instant::now();
        assert!(text(send_text(&client, ECHO, "still here")).await.is_ok());
        assert!(start.elapsed() < Duration::from_secs(1));
        eventually("all is gone", || {
            toy.live.get() == 0 && toy.servants.get() == 0
        })
        .await;
    });
}
