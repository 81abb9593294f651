//! Walks over the saved replies of the node, for the objects that are about to leave it.
//!
//! Replies are kept in the order in which they expire, so those of one object are found by looking
//! at all. Objects that leave at about the same time share a walk: those that come while one is
//! under way wait for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use partha_core::id::Uid;
use partha_store::{KeptReply, ReplyCursor};
use tokio::sync::{mpsc, oneshot};

use super::Home;
use crate::config::REPLY_RETENTION;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;

/// Bytes of replies found at a time.
const PAGE_BYTES: usize = 512 * 1024;
/// Pages that wait for one object's to be sent; then the walk waits.
const PAGES_MAX: usize = 2;

/// Those who wait for the next walk.
#[derive(Default)]
pub(super) struct Walks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<(Uid, Walker)>,
    running: bool,
}

struct Walker {
    pages: mpsc::Sender<Vec<KeptReply>>,
    end: oneshot::Sender<Result<ReplyCursor>>,
}

/// The replies of one object, page by page, and at the end where to go on for those that were
/// saved meanwhile.
pub(crate) struct Walk {
    pub(crate) pages: mpsc::Receiver<Vec<KeptReply>>,
    pub(crate) end: oneshot::Receiver<Result<ReplyCursor>>,
}

/// How long replies are kept, as they are saved here.
pub(crate) fn reply_keep_ms() -> u64 {
    REPLY_RETENTION.as_millis() as u64
}

impl Home {
    /// Finds the saved replies of an object. To be called on a shard's thread.
    pub(crate) fn walk_replies(self: &Arc<Self>, object: Uid) -> Walk {
        let (sender, pages) = mpsc::channel(PAGES_MAX);
        let (end, ended) = oneshot::channel();
        let mut state = lock(&self.walks.state);
        let walker = Walker { pages: sender, end };
        state.waiting.push((object, walker));
        if !state.running {
            state.running = true;
            tokio::task::spawn_local(walk_on(self.clone()));
        }
        Walk { pages, end: ended }
    }
}

/// Walks for as long as somebody waits.
async fn walk_on(home: Arc<Home>) {
    loop {
        let waiting = {
            let mut state = lock(&home.walks.state);
            let waiting = std::mem::take(&mut state.waiting);
            state.running = !waiting.is_empty();
            waiting
        };
        if waiting.is_empty() {
            return;
        }
        let objects: BTreeSet<Uid> = waiting.iter().map(|(object, _)| *object).collect();
        let end = walk(&home, &objects, &waiting).await;
        for (_, walker) in waiting {
            // Whoever asked may be gone.
            let _ = walker.end.send(end.clone());
        }
    }
}

async fn walk(
    home: &Home,
    objects: &BTreeSet<Uid>,
    waiting: &[(Uid, Walker)],
) -> Result<ReplyCursor> {
    let mut cursor = ReplyCursor::default();
    loop {
        let found = match &home.registry.store {
            Some(store) => store.replies_of(objects, reply_keep_ms(), cursor, PAGE_BYTES),
            None => return Ok(cursor),
        };
        let found = found.map_err(|error| SystemError::new(ErrorKind::Store, error.to_string()))?;
        cursor = found.next;
        let mut by_object: BTreeMap<Uid, Vec<KeptReply>> = BTreeMap::new();
        for reply in found.replies {
            by_object.entry(reply.uid).or_default().push(reply);
        }
        for (object, walker) in waiting {
            if let Some(replies) = by_object.get(object) {
                // Whoever asked may be gone.
                let _ = walker.pages.send(replies.clone()).await;
            }
        }
        if found.done {
            return Ok(cursor);
        }
        // Others of this thread have their turn.
        tokio::task::yield_now().await;
    }
}
