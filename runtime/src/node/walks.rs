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

/// Bytes of replies found at a time, and bytes of one object's replies that are sent at a time:
/// each page is a sync at the target, so small ones are made larger first.
const PAGE_BYTES: usize = 512 * 1024;
/// Bytes that all objects of a walk have together before the largest of their pages is sent.
const HELD_MAX: usize = 16 * 1024 * 1024;
/// What a reply costs besides its body.
const REPLY_BYTES: usize = 128;
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

/// Replies that were found and not sent yet.
#[derive(Default)]
struct Held {
    by_object: BTreeMap<Uid, Found>,
    bytes: usize,
}

#[derive(Default)]
struct Found {
    replies: Vec<KeptReply>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, reply: KeptReply) {
        let bytes = REPLY_BYTES + reply.body.len();
        let found = self.by_object.entry(reply.uid).or_default();
        found.bytes += bytes;
        found.replies.push(reply);
        self.bytes += bytes;
    }

    /// A page that is to be sent now, if there is one: the largest.
    fn full(&mut self) -> Option<(Uid, Vec<KeptReply>)> {
        let largest = self.by_object.iter().max_by_key(|(_, found)| found.bytes);
        let (object, found) = largest?;
        let object = *object;
        (found.bytes >= PAGE_BYTES || self.bytes > HELD_MAX).then_some(())?;
        let found = self.by_object.remove(&object)?;
        self.bytes -= found.bytes;
        Some((object, found.replies))
    }

    /// At the end of the walk.
    fn rest(self) -> impl Iterator<Item = (Uid, Vec<KeptReply>)> {
        let all = self.by_object.into_iter();
        all.map(|(object, found)| (object, found.replies))
    }
}

/// Gives a page to those who wait for the replies of its object.
async fn hand_out(waiting: &[(Uid, Walker)], object: Uid, replies: &[KeptReply]) {
    for (_, walker) in waiting.iter().filter(|(wanted, _)| *wanted == object) {
        // Whoever asked may be gone.
        let _ = walker.pages.send(replies.to_vec()).await;
    }
}

async fn walk(
    home: &Home,
    objects: &BTreeSet<Uid>,
    waiting: &[(Uid, Walker)],
) -> Result<ReplyCursor> {
    let mut cursor = ReplyCursor::default();
    let mut held = Held::default();
    loop {
        let found = match &home.registry.store {
            Some(store) => store.replies_of(objects, reply_keep_ms(), cursor, PAGE_BYTES),
            None => return Ok(cursor),
        };
        let found = found.map_err(|error| SystemError::new(ErrorKind::Store, error.to_string()))?;
        cursor = found.next;
        for reply in found.replies {
            held.add(reply);
        }
        while let Some((object, replies)) = held.full() {
            hand_out(waiting, object, &replies).await;
        }
        if found.done {
            for (object, replies) in held.rest() {
                hand_out(waiting, object, &replies).await;
            }
            return Ok(cursor);
        }
        // Others of this thread have their turn.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use partha_core::id::{CallId, Incarnation, NodeId, Peer};

    use super::*;

    fn object(local: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local,
        }
    }

    fn reply(of: Uid, number: u64, size: usize) -> KeptReply {
        let caller = Peer {
            node: NodeId(9),
            incarnation: Incarnation(1),
        };
        KeptReply {
            call: CallId {
                caller,
                sequence: number,
            },
            uid: of,
            body: Bytes::from(vec![0; size]),
            keep_ms: 1_000,
        }
    }

    #[test]
    fn few_replies_of_an_object_are_one_page_however_many_steps_they_were_found_in() {
        let mut held = Held::default();
        for step in 0..100 {
            held.add(reply(object(step % 2), step, 100));
            assert!(held.full().is_none(), "after step {step}");
        }
        let sizes = held.rest().map(|(object, page)| (object, page.len()));
        assert_eq!(
            sizes.collect::<Vec<_>>(),
            [(object(0), 50), (object(1), 50)]
        );
    }

    #[test]
    fn many_replies_are_sent_by_the_page_and_none_is_left_or_sent_twice() {
        let mut held = Held::default();
        let (mut sent, mut pages) = (BTreeSet::new(), 0);
        let size = PAGE_BYTES / 4;
        for number in 0..40 {
            held.add(reply(object(1), number, size));
            held.add(reply(object(2), 1_000 + number, 0));
            while let Some((of, page)) = held.full() {
                assert_eq!((of, page.len()), (object(1), 4));
                pages += 1;
                sent.extend(page.into_iter().map(|reply| reply.call));
            }
        }
        assert_eq!((pages, sent.len()), (10, 40));
        assert_eq!(held.bytes, 40 * REPLY_BYTES);
        let rest: Vec<_> = held.rest().collect();
        assert_eq!(rest.len(), 1, "no empty page");
        assert_eq!((rest[0].0, rest[0].1.len()), (object(2), 40));
    }

    #[test]
    fn what_many_objects_have_together_is_bounded() {
        let mut held = Held::default();
        let mut sent = 0;
        for number in 0..1_000 {
            held.add(reply(object(number), number, PAGE_BYTES / 8));
            while let Some((_, page)) = held.full() {
                sent += page.len();
            }
            assert!(held.bytes <= HELD_MAX, "{} bytes", held.bytes);
        }
        assert_eq!(sent + held.rest().count(), 1_000);
    }
}
