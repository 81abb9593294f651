//! One hostile connection beside an honest one.

use std::rc::Rc;
use std::time::Duration;

use partha_guard::{CutReason, Limits, Table};
use tokio::net::TcpStream;

use super::{
    ECHO, Served, Toy, eventually, on_local_set, plain_client, raw, send_text, tcp_pair, text,
};

/// Small limits, so that the tests are quick.
pub(crate) fn limits() -> Limits {
    Limits {
        message_bytes_max: 64 << 10,
        questions_max: 64,
        handlers_max: 16,
        exports_max: 32,
        imports_max: 32,
        bootstraps_max: 8,
        calls_out_max: 8,
        unsent_bytes_max: 256 << 10,
        farewell_ms_max: 500,
        ..Limits::default()
    }
}

/// Whether a connection was cut for too much of `what`.
pub(crate) fn too_many(what: Table) -> impl Fn(&CutReason) -> bool {
    move |reason| matches!(reason, CutReason::TooMany { what: found, .. } if *found == what)
}

/// Attacks one connection of a process that serves an honest client as well.
pub(crate) fn attack(
    limits: Limits,
    expected: impl Fn(&CutReason) -> bool,
    how: impl AsyncFnOnce(&mut TcpStream, &Rc<Toy>),
) {
    on_local_set(async {
        let honest_toy = Toy::new();
        let (near, far) = tcp_pair().await;
        let _honest = Served::new(far, Limits::default(), &honest_toy);
        let (client, _task) = plain_client(near);
        assert_eq!(
            text(send_text(&client, ECHO, "before"))
                .await
                .ok()
                .as_deref(),
            Some("before")
        );

        let toy = Toy::new();
        let (mut near, far) = tcp_pair().await;
        let served = Served::new(far, limits, &toy);
        let others = async {
            let mut slowest = Duration::ZERO;
            while !served.task.is_finished() {
                let start = std::time::Instant::now();
                assert_eq!(
                    text(send_text(&client, ECHO, "meanwhile"))
                        .await
                        .ok()
                        .as_deref(),
                    Some("meanwhile")
                );
                slowest = slowest.max(start.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            slowest
        };
        let ((), slowest) = tokio::join!(how(&mut near, &toy), others);
        let reason = served.end().await.expect("the attacker was cut");
        assert!(expected(&reason), "cut, but for: {reason}");
        assert!(
            slowest < Duration::from_secs(2),
            "an honest client waited {slowest:?}"
        );
        toy.kept.borrow_mut().clear();
        eventually("nothing of the attacker is left", || {
            toy.live.get() == 0 && toy.servants.get() == 0
        })
        .await;
    });
}

/// Sends bytes and waits for the end; the peer must be told why.
pub(crate) async fn send_and_listen(stream: &mut TcpStream, bytes: Vec<u8>) {
    raw::write(stream, &bytes).await;
    let reason = raw::abort_reason(stream)
        .await
        .expect("the reason was sent");
    assert!(!reason.is_empty());
}
