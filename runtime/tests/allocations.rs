//! What a call takes from the heap, at either end.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use common::{client_of, counter, node, run, stop};
use test_support::temp_dir;
use tokio::task::JoinSet;

/// Allocations, by thread.
static COUNTS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn thread() -> usize {
    let known = THREAD.try_with(|thread| {
        if thread.get() == usize::MAX {
            thread.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        thread.get()
    });
    // The last ones share what is left, as do threads that end.
    known.unwrap_or(usize::MAX).min(COUNTS.len() - 1)
}

struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator that counts and passes everything on"
)]
// SAFETY: what is asked for is asked of the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTS[thread()].fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNTS[thread()].fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of this thread, and of all others.
fn counts() -> [u64; 2] {
    let count = |thread: usize| COUNTS[thread].load(Ordering::Relaxed);
    let own = count(thread());
    let all: u64 = (0..COUNTS.len()).map(count).sum();
    [own, all - own]
}

#[test]
fn a_call_allocates_at_most_twice_at_either_end() {
    const CALLS: u64 = 4_096;
    run(async {
        let dir = temp_dir("allocations");
        let node = node(dir.path()).await;
        let client = client_of(&node).await;
        let counter = counter(&client, &node, 7).await;
        for outstanding in [1, 64] {
            let calls = |each: u64| {
                let mut tasks = JoinSet::new();
                for _ in 0..outstanding {
                    let (client, counter) = (client.clone(), counter.clone());
                    tasks.spawn_local(async move {
                        for _ in 0..each {
                            assert_eq!(counter.value(&client).await.unwrap(), 7);
                        }
                    });
                }
                tasks.join_all()
            };
            // Tables and buffers grow to what is needed.
            calls(64).await;
            let before = counts();
            calls(CALLS / outstanding).await;
            let after = counts();
            let [client, server] = [0, 1].map(|end| after[end] - before[end]);
            // One call in eight may find a buffer full, and the tasks that call are made, too.
            let most = 2 * CALLS + CALLS / 8;
            assert!(
                client <= most && server <= most,
                "{outstanding} outstanding: {client} at the client and {server} at the server for \
                 {CALLS} calls"
            );
        }
        stop(node).await;
    });
}
