//! What the test kit does to a node: a crash without a process that dies, and a standstill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partha_core::id::Uid;

use super::{Node, NodeBuilder};
use crate::registration;
use crate::services::binder::NodeEntry;
use crate::shard::Job;
use crate::testkit::{Faults, Pause};

/// How long the threads may take to end: each ends what it is at.
const ENDS: Duration = Duration::from_secs(10);
/// How often to look whether a thread has ended; the standard library cannot wait with a deadline.
const LOOK: Duration = Duration::from_millis(1);

impl NodeBuilder {
    /// Has a test hold the switches of its connections. `names` says that it will be told who the
    /// naming service is.
    pub(crate) fn tested(mut self, faults: Arc<Faults>, names: bool) -> Self {
        self.links.faults = Some(faults);
        self.names = names;
        self
    }
}

impl Node {
    /// What the binder would tell of it.
    pub(crate) fn entry(&self) -> NodeEntry {
        let addresses = self.address.iter().map(ToString::to_string).collect();
        registration::entry(&self.home, addresses)
    }

    /// What is to be known of it by those who look for names, if it is the naming service: an
    /// entry for the node of [`Uid::NAMING_ROOT`], which no node is.
    pub(crate) fn naming_entry(&self) -> Option<NodeEntry> {
        let root = Uid::NAMING_ROOT;
        (self.home.registry.well_known == Some(root)).then(|| NodeEntry {
            node: root.node.0,
            name: String::new(),
            classes: Vec::new(),
            ..self.entry()
        })
    }

    /// Has all its threads stand still until the pause ends. False if one of them does not come
    /// to a stop.
    pub(crate) async fn stand_still(&self, pause: &Pause) -> bool {
        for shard in &self.home.shards {
            shard.post(Job::Pause(pause.clone()));
        }
        let mut threads = self.home.shards.len();
        if let Some(acceptor) = &self.acceptor {
            acceptor.pause(pause);
            threads += 1;
        }
        pause.all_stand(threads).await
    }

    /// Ends it where it is: what waits to be written is not, and its threads end without a word.
    /// Its connections are the switchboard's to cut, before this. False if one of its threads
    /// does not end.
    pub(crate) async fn crash(mut self) -> bool {
        if let Some(registration) = self.registration.take() {
            registration.abandon();
        }
        let threads = std::mem::take(&mut self.threads);
        let store = self.home.registry.store.clone();
        let closing = tokio::task::spawn_blocking(move || {
            if let Some(store) = store {
                store.abandon();
            }
        });
        let closed = closing.await.is_ok();
        // As the system does to the children of a process that dies.
        self.home.registry.elsewhere.servers.end();
        if let Some(acceptor) = &self.acceptor {
            acceptor.stop();
        }
        for shard in &self.home.shards {
            shard.post(Job::Stop);
        }
        let begun = Instant::now();
        for thread in threads {
            while !thread.is_finished() {
                if begun.elapsed() > ENDS {
                    return false;
                }
                tokio::time::sleep(LOOK).await;
            }
            if thread.join().is_err() {
                return false;
            }
        }
        closed
    }
}
