//! Named points at which a process dies on demand, for tests of recovery.
//!
//! They are there only if the feature `crash-points` is on; otherwise
//! nothing is left of them. A process in which `PARTHA_CRASH_POINT=name` is set prints
//! `crash point NAME` on standard error and ends by `abort()`, without unwinding, flushing or
//! closing anything, when it gets to the point of that name; with `name:n` when it does so for
//! the n-th time.
//!
//! All names are in [`ALL`], also those of the runtime, so that a test can go through them; a
//! name that is not there does not compile:
//!
//! ```compile_fail
//! partha_store::crash_point!("store/nowhere");
//! ```

/// Every crash point, in the order in which a committing action passes them.
///
/// `store/…` surround the write to the log, or LMDB's commit, of a set with such a batch in it;
/// `after` means that it is on disk and nobody knows yet. `store/checkpoint/…` surround writing
/// what the log holds to LMDB. `store/arrive/…` surround the first batch of an object that is on
/// its way to a node, `store/depart/…` the decision that it is not at the node it was at any more.
/// `store/stage/…` surround entries of groups' logs, `store/snapshot/…` pages of a snapshot,
/// `store/apply/…` entries that become parts of an object: after it they can be seen, and may be
/// on disk with the next set only. `group/…` are passed at the leader of a group, when an entry of
/// an action stands in its log, and when all copies have it: what is prepared, the decision, the
/// end.
/// `send/…` surround handing over a message between shards:
/// `before` means that it is lost. `ended/…` surround the answer to whoever asked for the
/// commit. `after` both the process lives on for a moment ([`LINGER`]), so that what it said
/// leaves it; the answer to that takes longer.
pub const ALL: [&str; 44] = [
    "send/prepare/before",
    "send/prepare/after",
    "store/prepare/before",
    "store/prepare/after",
    "send/vote/before",
    "send/vote/after",
    "store/decide/before",
    "store/decide/after",
    "ended/before",
    "ended/after",
    "send/commit/before",
    "send/commit/after",
    "store/install/before",
    "store/install/after",
    "send/acknowledge/before",
    "send/acknowledge/after",
    "store/settle/before",
    "store/settle/after",
    "store/arrive/before",
    "store/arrive/after",
    "store/depart/before",
    "store/depart/after",
    "send/abort/before",
    "send/abort/after",
    "send/query/before",
    "send/query/after",
    "send/verdict/before",
    "send/verdict/after",
    "store/undo/before",
    "store/undo/after",
    "store/stage/before",
    "store/stage/after",
    "store/apply/before",
    "store/apply/after",
    "store/snapshot/before",
    "store/snapshot/after",
    "store/checkpoint/before",
    "store/checkpoint/after",
    "group/part/added",
    "group/part/complete",
    "group/decide/added",
    "group/decide/complete",
    "group/end/added",
    "group/end/complete",
];

/// How long a process lives on after the point where it handed over something to be sent.
pub const LINGER: std::time::Duration = std::time::Duration::from_micros(200);

/// Dies here if this is the point that is asked for; see [the module](mod@crate::crash_point).
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {{
        const {
            assert!(
                $crate::crash_point::is_listed($name),
                "the name of a crash point must be listed in crash_point::ALL"
            );
        }
        $crate::crash_point::reached($name);
    }};
}

/// Whether [`ALL`] has the name.
#[must_use]
pub const fn is_listed(name: &str) -> bool {
    let mut index = 0;
    while index < ALL.len() {
        if is_same(ALL[index].as_bytes(), name.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The process is at the point `name`. Use the macro, which checks the name.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn reached(_name: &str) {}

#[cfg(feature = "crash-points")]
pub use armed::reached;

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::thread;

    /// The point that is asked for, and how often it is to be passed before.
    struct Asked {
        name: String,
        left: AtomicU64,
    }

    /// The process is at the point `name`. Use the macro, which checks the name.
    pub fn reached(name: &str) {
        static ASKED: OnceLock<Option<Asked>> = OnceLock::new();
        let Some(asked) = ASKED.get_or_init(asked) else {
            return;
        };
        // At the first 0; a thread that comes later finds a very large number.
        if asked.name == name && asked.left.fetch_sub(1, Relaxed) == 0 {
            if name.ends_with("/after") && !name.starts_with("store/") {
                let name = name.to_owned();
                thread::spawn(move || {
                    thread::sleep(super::LINGER);
                    die(&name);
                });
            } else {
                die(name);
            }
        }
    }

    fn die(name: &str) -> ! {
        eprintln!("crash point {name}");
        std::process::abort();
    }

    fn asked() -> Option<Asked> {
        let text = std::env::var("PARTHA_CRASH_POINT").ok()?;
        let (name, times) = match text.split_once(':') {
            Some((name, times)) => (name, times.parse().ok()),
            None => (text.as_str(), Some(1)),
        };
        assert!(
            super::is_listed(name) && times.is_some_and(|times: u64| times > 0),
            "PARTHA_CRASH_POINT is '{text}', expected 'name' or 'name:n' with n from 1, and a name \
             that is listed in crash_point::ALL"
        );
        let left = AtomicU64::new(times.map_or(0, |times| times - 1));
        let name = name.to_owned();
        Some(Asked { name, left })
    }
}
