//! Whose the saved replies of the node are, for the objects that are about to leave it.
//!
//! Replies are kept in the order in which they expire, so those of one object are found by looking
//! at all. That is done once for many objects that leave one after the other: a [`Ledger`] is
//! made that names the replies of each, what has been saved since is added when the next object
//! is to leave, and it is dropped when none has left for a while.
//!
//! A ledger has room for [`NAMES_MAX`] replies. If there are more it is of the objects whose uids
//! come first from the one that is to leave on, as many as it has room for: a drain goes over the
//! objects in that order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partha_core::id::{CallId, Uid};
use partha_store::{ReplyCursor, ReplyNames, StoreError};
use tokio::sync::{Notify, oneshot};

use super::Home;
use crate::config::REPLY_RETENTION;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;

/// Replies that a ledger names: some tens of megabytes.
const NAMES_MAX: usize = 1 << 20;
/// A ledger that was not looked at for so long is dropped.
const IDLE: Duration = Duration::from_secs(10);

/// Those who wait for a look into the ledger, and the ledger.
#[derive(Default)]
pub(super) struct Walks {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Default)]
struct State {
    waiting: Vec<(Uid, oneshot::Sender<Result<Found>>)>,
    running: bool,
    ledger: Option<Ledger>,
}

/// Which replies an object has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The calls that they are of. Some may have expired.
    pub(crate) calls: Vec<CallId>,
    /// Where to go on: for those that are saved meanwhile, or for all others, if the object has
    /// so many that no ledger has room for them.
    pub(crate) next: ReplyCursor,
}

/// The names of the saved replies of the objects of a range.
#[derive(Debug)]
struct Ledger {
    /// The first object of the range, and the first behind it.
    range: (Uid, Option<Uid>),
    by_object: BTreeMap<Uid, Vec<CallId>>,
    count: usize,
    next: ReplyCursor,
    /// Whether all were found that were there when it was last looked for some.
    done: bool,
    max: usize,
}

/// How long replies are kept, as they are saved here.
pub(crate) fn reply_keep_ms() -> u64 {
    REPLY_RETENTION.as_millis() as u64
}

impl Home {
    /// Finds the saved replies of an object. To be called on a shard's thread.
    pub(crate) async fn replies_of(self: &Arc<Self>, object: Uid) -> Result<Found> {
        let (sender, found) = oneshot::channel();
        {
            let mut state = lock(&self.walks.state);
            state.waiting.push((object, sender));
            if !state.running {
                state.running = true;
                tokio::task::spawn_local(look_up(self.clone()));
            }
        }
        self.walks.asked.notify_one();
        let gone = |_| SystemError::new(ErrorKind::Draining, "the node is shutting down");
        found.await.map_err(gone)?
    }

    /// Replies were saved that will not be kept for as long as those that are saved here: the
    /// ledger would not find them by their expiry. To be called when they can be read.
    pub(crate) fn replies_came(&self, object: Uid, calls: &[CallId]) {
        if let Some(ledger) = &mut lock(&self.walks.state).ledger {
            for call in calls {
                ledger.add(object, *call);
            }
        }
    }

    /// The same of replies of which nobody has noted the calls.
    pub(crate) fn unknown_replies_came(&self) {
        lock(&self.walks.state).ledger = None;
    }
}

/// Looks up for as long as somebody asks.
async fn look_up(home: Arc<Home>) {
    loop {
        let waiting = std::mem::take(&mut lock(&home.walks.state).waiting);
        for (object, sender) in waiting {
            // Whoever asked may be gone.
            let _ = sender.send(find(&home, object).await);
        }
        let asked = home.walks.asked.notified();
        if tokio::time::timeout(IDLE, asked).await.is_err() {
            let mut state = lock(&home.walks.state);
            state.ledger = None;
            if state.waiting.is_empty() {
                state.running = false;
                return;
            }
        }
    }
}

/// Brings the ledger up to date, and looks an object up.
async fn find(home: &Home, object: Uid) -> Result<Found> {
    let Some(store) = &home.registry.store else {
        return Ok(Found::default());
    };
    let mut anew = true;
    loop {
        let from = {
            let mut state = lock(&home.walks.state);
            let ledger = state.ledger.take().filter(|ledger| ledger.has(object));
            let ledger = ledger.unwrap_or_else(|| Ledger::begin(object, NAMES_MAX));
            let (next, done) = (ledger.next, ledger.done);
            state.ledger = Some(ledger);
            (!done || anew).then_some(next)
        };
        if let Some(from) = from {
            let names = store.reply_names(reply_keep_ms(), from);
            let names = names.map_err(|error| unreadable(&error))?;
            let mut state = lock(&home.walks.state);
            // It may have been dropped meanwhile.
            let Some(ledger) = state.ledger.as_mut().filter(|it| it.next == from) else {
                continue;
            };
            anew = false;
            ledger.take(names);
        }
        if let Some(found) = look_into(home, object) {
            return Ok(found);
        }
        // Others of this thread have their turn.
        tokio::task::yield_now().await;
    }
}

fn look_into(home: &Home, object: Uid) -> Option<Found> {
    let mut state = lock(&home.walks.state);
    let ledger = state.ledger.take().filter(|ledger| ledger.has(object))?;
    let found = ledger.found(object);
    // One that is full with one object is of no use to others.
    state.ledger = (!ledger.is_full()).then_some(ledger);
    found
}

fn unreadable(error: &StoreError) -> SystemError {
    SystemError::new(ErrorKind::Store, error.to_string())
}

impl Ledger {
    fn begin(first: Uid, max: usize) -> Self {
        Self {
            range: (first, None),
            by_object: BTreeMap::new(),
            count: 0,
            next: ReplyCursor::default(),
            done: false,
            max,
        }
    }

    fn has(&self, object: Uid) -> bool {
        let (first, behind) = self.range;
        object >= first && behind.is_none_or(|behind| object < behind)
    }

    /// Some replies more.
    fn take(&mut self, names: ReplyNames) {
        for (object, call) in names.names {
            self.add(object, call);
        }
        (self.next, self.done) = (names.next, names.done);
    }

    fn add(&mut self, object: Uid, call: CallId) {
        if !self.has(object) {
            return;
        }
        self.by_object.entry(object).or_default().push(call);
        self.count += 1;
        // The first one stays, or nobody would be served.
        while self.count > self.max
            && let Some(last) = self.by_object.last_entry()
            && *last.key() > self.range.0
        {
            let (last, calls) = last.remove_entry();
            self.count -= calls.len();
            self.range.1 = Some(last);
        }
    }

    /// One object has more replies than there is room for.
    fn is_full(&self) -> bool {
        self.count > self.max
    }

    /// What an object has; none if that is not known yet.
    fn found(&self, object: Uid) -> Option<Found> {
        if !self.done && !self.is_full() {
            return None;
        }
        let mut calls = self.by_object.get(&object).cloned().unwrap_or_default();
        calls.sort_unstable();
        calls.dedup();
        let next = self.next;
        Some(Found { calls, next })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use partha_core::id::{Incarnation, NodeId, Peer};
    use partha_store::{Batch, Item, MemoryStore, ObjectStore};

    use super::*;

    fn object(local: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local,
        }
    }

    fn call(sequence: u64) -> CallId {
        let caller = Peer {
            node: NodeId(9),
            incarnation: Incarnation(1),
        };
        CallId { caller, sequence }
    }

    fn save(store: &Arc<dyn ObjectStore>, replies: impl Iterator<Item = (u64, u64)>) {
        let items = replies.map(|(sequence, local)| Item::SaveReply {
            call: call(sequence),
            uid: object(local),
            body: Bytes::new(),
            keep_ms: reply_keep_ms(),
        });
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = move |result| sender.send(result).unwrap();
        store.submit(Batch::new(items.collect()), Box::new(done));
        receiver.recv().unwrap().unwrap();
    }

    fn fill(ledger: &mut Ledger, store: &Arc<dyn ObjectStore>) -> u32 {
        let mut steps = 0;
        ledger.done = false;
        while !ledger.done && !ledger.is_full() {
            ledger.take(store.reply_names(reply_keep_ms(), ledger.next).unwrap());
            steps += 1;
        }
        steps
    }

    fn calls(ledger: &Ledger, local: u64) -> Vec<u64> {
        let found = ledger.found(object(local)).unwrap();
        found.calls.into_iter().map(|call| call.sequence).collect()
    }

    #[test]
    fn all_replies_are_looked_at_once_for_all_objects_and_later_those_alone_that_came_since() {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        save(&store, (0..20_000).map(|number| (number, number % 1_000)));
        // What was saved in the same millisecond as the last one is looked at again.
        std::thread::sleep(Duration::from_millis(5));
        save(&store, [(40_000, 2_000)].into_iter());
        let mut ledger = Ledger::begin(object(0), NAMES_MAX);
        assert_eq!(ledger.found(object(5)), None, "it has not been looked for");
        assert_eq!(fill(&mut ledger, &store), 5);
        for local in [0, 5, 999] {
            let expected: Vec<_> = (0..20).map(|turn| local + 1_000 * turn).collect();
            assert_eq!(calls(&ledger, local), expected);
        }
        assert_eq!(calls(&ledger, 1_000), []);
        std::thread::sleep(Duration::from_millis(5));
        save(&store, [(50_000, 5), (50_001, 1_000)].into_iter());
        assert_eq!(fill(&mut ledger, &store), 1);
        assert_eq!(calls(&ledger, 5).last(), Some(&50_000));
        assert_eq!(calls(&ledger, 5).len(), 21);
        assert_eq!(calls(&ledger, 1_000), [50_001]);
    }

    #[test]
    fn without_room_for_all_a_ledger_is_of_those_that_come_first() {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        save(&store, (0..10_000).map(|number| (number, number % 100)));
        let (mut first, mut ledgers) = (0, 0);
        while first < 100 {
            let mut ledger = Ledger::begin(object(first), 3_000);
            fill(&mut ledger, &store);
            assert!(ledger.count <= 3_000 && !ledger.is_full());
            while first < 100 && ledger.has(object(first)) {
                assert_eq!(calls(&ledger, first).len(), 100);
                first += 1;
            }
            ledgers += 1;
        }
        assert_eq!(ledgers, 4);
    }

    #[test]
    fn an_object_that_has_too_many_replies_goes_on_by_itself() {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        save(&store, (0..20_000).map(|number| (number, number % 2)));
        let mut ledger = Ledger::begin(object(1), 3_000);
        fill(&mut ledger, &store);
        assert!(ledger.is_full() && !ledger.done);
        let Found { calls, next } = ledger.found(object(1)).unwrap();
        let mut all: std::collections::BTreeSet<_> = calls.into_iter().collect();
        let (of, mut cursor) = ([object(1)].into(), next);
        loop {
            let page = store.replies_of(&of, reply_keep_ms(), cursor, 1 << 20);
            let page = page.unwrap();
            all.extend(page.replies.iter().map(|reply| reply.call));
            cursor = page.next;
            if page.done {
                break;
            }
        }
        assert_eq!(all.len(), 10_000);
    }
}
