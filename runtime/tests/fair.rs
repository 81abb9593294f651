//! Objects of one shard share its thread: that one of them is busy does not keep the others
//! waiting. What is counted is the order of calls, not time.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::sync::{Arc, Mutex};

use common::behaviour::{Listener, listener};
use common::{arrived, begun, builder, counter, new_gate, open, run, stop, until};
use partha::{Context, Result};
use test_support::temp_dir;
use tokio::task::spawn_local;

/// Calls that wait for the busy object.
const CALLS: usize = 200;

/// Notes how many calls of the busy object have begun when it is called itself.
struct Witness {
    gate: String,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl listener::Servant for Witness {
    async fn heard(&self, _cx: &Context, value: i64) -> Result<i64> {
        self.seen.lock().unwrap().push(begun(&self.gate));
        Ok(value)
    }
}

/// A writer gives its lock back, and lets in hundreds of readers at a time. The first of them
/// calls another object of the shard: that one does not wait for the others.
#[test]
fn a_busy_object_keeps_others_waiting_for_one_call_at_most() {
    run(async {
        let dir = temp_dir("fair");
        let node = builder(dir.path()).shards(1).start().await.unwrap();
        let client = node.client().clone();
        let busy = counter(&client, &node, 0).await;
        // Bound from here on, so that calls leave in the order in which they are made.
        assert_eq!(busy.value(&client).await.unwrap(), 0);
        let (writing, reading) = (new_gate("writing"), new_gate("reading"));
        open(&reading, CALLS);
        let seen = Arc::default();
        let witness = Witness {
            gate: reading.clone(),
            seen: Arc::clone(&seen),
        };
        let witness = Listener::serve(&client, witness).unwrap();

        let mut calls = Vec::new();
        let (object, caller, gate) = (busy.clone(), client.clone(), writing.clone());
        calls.push(spawn_local(async move {
            object.add_at_gate(&caller, 1, &gate).await
        }));
        arrived(&writing, 1).await;
        let (object, caller) = (busy.clone(), client.clone());
        calls.push(spawn_local(
            async move { object.tell(&caller, &witness).await },
        ));
        for _ in 0..CALLS {
            let (object, caller, gate) = (busy.clone(), client.clone(), reading.clone());
            calls.push(spawn_local(async move {
                object.read_at_gate(&caller, &gate).await
            }));
        }
        let handle = node.handle();
        until(async || {
            let lock = handle.manager().why(&client, busy.uid()).await.unwrap();
            lock.waiters.len() == CALLS + 1
        })
        .await;
        open(&writing, 1);
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 1);
        }
        let seen = seen.lock().unwrap().clone();
        assert_eq!(begun(&reading), CALLS as u64);
        assert_eq!(seen.len(), 1);
        assert!(seen[0] <= 1, "{} calls came before", seen[0]);
        stop(node).await;
    });
}
