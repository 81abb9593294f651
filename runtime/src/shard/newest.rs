//! Which calls are certain to be new, without a look into the store.
//!
//! A call that is asked for again is answered from its saved reply, so every call with an id has
//! to be looked up. But callers number their calls: one with a higher number than any that came
//! before it to this shard, or was answered in an earlier life, has no reply. So the store is
//! asked once for each caller, and again only for calls that came late or again.

use std::collections::{BTreeMap, BTreeSet};

use partha_core::id::{CallId, Peer};
use partha_store::{ObjectStore, StoreError};

/// Callers known at a time, unless more than half as many have calls under way; beyond it all
/// others are forgotten, and asked for once more.
const CALLERS_MAX: usize = 4096;

/// The highest number of each caller that was looked for here: what is under way has no higher
/// one.
#[derive(Debug)]
pub(super) struct Newest {
    by_caller: BTreeMap<Peer, Highest>,
    callers_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Highest {
    sequence: u64,
    /// Replies under higher numbers, of an earlier life, were saved when it was looked for.
    doubted: bool,
}

impl Default for Newest {
    fn default() -> Self {
        Self {
            by_caller: BTreeMap::new(),
            callers_max: CALLERS_MAX,
        }
    }
}

impl Newest {
    /// Whether the store has a reply of the call. The call is taken for executed from now on.
    /// One that its caller asks for `again` may have been executed at another shard: only the
    /// store knows. `busy` tells which callers have calls under way at this shard.
    ///
    /// # Errors
    /// If the store has to be asked and cannot tell.
    pub(super) fn is_saved(
        &mut self,
        call: CallId,
        again: bool,
        store: &dyn ObjectStore,
        busy: impl FnOnce() -> BTreeSet<Peer>,
    ) -> Result<bool, StoreError> {
        let known = self.by_caller.get(&call.caller).copied();
        if known.is_none_or(|highest| highest.sequence < call.sequence) {
            let doubted = known.is_none_or(|highest| highest.doubted);
            let doubted = doubted && store.has_reply_since(call)?;
            self.note(call, doubted, known.is_some(), busy);
            if !doubted && !again {
                return Ok(false);
            }
        }
        Ok(store.read_reply(call)?.is_some())
    }

    /// Replies of a caller were saved that came from another node: a call that is new by its number
    /// may be one of them.
    pub(super) fn doubt(&mut self, caller: Peer) {
        if let Some(highest) = self.by_caller.get_mut(&caller) {
            highest.doubted = true;
        }
    }

    /// Calls of any caller may have been executed elsewhere and saved here since.
    pub(super) fn doubt_all(&mut self) {
        for highest in self.by_caller.values_mut() {
            highest.doubted = true;
        }
    }

    fn note(
        &mut self,
        call: CallId,
        doubted: bool,
        is_known: bool,
        busy: impl FnOnce() -> BTreeSet<Peer>,
    ) {
        if !is_known && self.by_caller.len() >= self.callers_max {
            // What is executed now is in no store yet: who forgot its number, and then met an
            // older call of the same caller, would take it for new when it is asked for again.
            let busy = busy();
            self.by_caller.retain(|caller, _| busy.contains(caller));
            // As many again may come before the next search for those who can be forgotten.
            self.callers_max = CALLERS_MAX.max(2 * self.by_caller.len());
        }
        let sequence = call.sequence;
        let highest = Highest { sequence, doubted };
        self.by_caller.insert(call.caller, highest);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use partha_core::id::{Incarnation, NodeId, Uid};
    use partha_store::{Batch, Item, MemoryStore};

    use super::*;

    fn call(node: u64, sequence: u64) -> CallId {
        let incarnation = Incarnation(1);
        let caller = Peer {
            node: NodeId(node),
            incarnation,
        };
        CallId { caller, sequence }
    }

    fn save(store: &MemoryStore, call: CallId) {
        let item = Item::SaveReply {
            call,
            uid: Uid::NIL,
            body: Bytes::from_static(b"reply"),
            keep_ms: 3_600_000,
        };
        store.commit(Batch::new(vec![item])).unwrap();
    }

    #[test]
    fn what_is_saved_is_found_whatever_came_between() {
        let store = MemoryStore::new();
        let mut newest = Newest::default();
        let mut ask = |call| newest.is_saved(call, false, &store, BTreeSet::new).unwrap();
        // An earlier life has answered this caller: neither its last call nor one before it may
        // be taken for new.
        save(&store, call(1, 10));
        assert!(!ask(call(1, 9)));
        assert!(ask(call(1, 10)));
        assert!(!ask(call(1, 11)));
        save(&store, call(1, 11));
        assert!(ask(call(1, 11)) && ask(call(1, 10)));
        // One that overtook others does not hide them, nor do they hide it.
        assert!(!ask(call(2, 7)));
        save(&store, call(2, 7));
        assert!(!ask(call(2, 5)));
        save(&store, call(2, 5));
        assert!(!ask(call(2, 6)));
        assert!(ask(call(2, 5)) && ask(call(2, 7)));
        assert!(!ask(call(2, 8)));
    }

    #[test]
    fn what_is_asked_for_again_is_looked_up_though_another_shard_has_answered_it() {
        let store = MemoryStore::new();
        let mut newest = Newest::default();
        let mut ask = |call, again| newest.is_saved(call, again, &store, BTreeSet::new).unwrap();
        assert!(!ask(call(1, 4), false));
        save(&store, call(1, 5));
        assert!(ask(call(1, 5), true));
        assert!(!ask(call(1, 6), true), "and is taken for executed");
        save(&store, call(1, 6));
        assert!(ask(call(1, 6), false));
    }

    #[test]
    fn what_is_under_way_is_not_new_when_replies_behind_it_have_expired() {
        let (store, swept) = (MemoryStore::new(), MemoryStore::new());
        save(&store, call(1, 20));
        let mut newest = Newest::default();
        let mut ask = |call, store| newest.is_saved(call, false, store, BTreeSet::new).unwrap();
        assert!(!ask(call(1, 10), &store));
        // While it is executed the other reply expires, and an older call comes late.
        assert!(!ask(call(1, 5), &swept));
        save(&swept, call(1, 10));
        assert!(ask(call(1, 10), &swept), "it would be executed once more");
        assert!(!ask(call(1, 11), &swept));
    }

    #[test]
    fn what_was_executed_elsewhere_is_not_new_when_its_object_has_come() {
        let store = MemoryStore::new();
        let mut newest = Newest::default();
        assert!(
            !newest
                .is_saved(call(1, 4), false, &store, BTreeSet::new)
                .unwrap()
        );
        save(&store, call(1, 7));
        newest.doubt(call(1, 7).caller);
        newest.doubt(call(2, 1).caller);
        let mut ask = |call| newest.is_saved(call, false, &store, BTreeSet::new).unwrap();
        assert!(ask(call(1, 7)));
        assert!(!ask(call(1, 8)));
    }

    #[test]
    fn callers_that_are_forgotten_are_looked_up_again() {
        let store = MemoryStore::new();
        let mut newest = Newest::default();
        let mut ask = |call| {
            let found = newest.is_saved(call, false, &store, BTreeSet::new).unwrap();
            assert!(newest.by_caller.len() <= CALLERS_MAX);
            found
        };
        for node in 1..=CALLERS_MAX as u64 + 1 {
            assert!(!ask(call(node, 5)));
            if node == 1 {
                save(&store, call(1, 5));
            }
        }
        assert!(ask(call(1, 5)));
        assert!(!ask(call(1, 6)));
    }

    #[test]
    fn a_caller_is_not_forgotten_while_a_call_of_it_is_under_way() {
        let store = MemoryStore::new();
        let mut newest = Newest::default();
        let slow = call(1, 10);
        let mut ask = |call| {
            let busy = || BTreeSet::from([slow.caller]);
            newest.is_saved(call, false, &store, busy).unwrap()
        };
        assert!(!ask(slow));
        for node in 2..=CALLERS_MAX as u64 + 2 {
            assert!(!ask(call(node, 5)));
        }
        // An older call comes late, while the other one is still executed, or written.
        assert!(!ask(call(1, 9)));
        save(&store, slow);
        assert!(ask(slow), "it would be executed once more");
    }

    #[test]
    fn the_table_grows_with_those_who_cannot_be_forgotten_and_shrinks_again() {
        let store = MemoryStore::new();
        let mut newest = Newest::default();
        let all = 4 * CALLERS_MAX as u64;
        let busy = || (1..=all).map(|node| call(node, 1).caller).collect();
        let mut searches = 0;
        for node in 1..=2 * all {
            let search = || {
                searches += 1;
                busy()
            };
            assert!(
                !newest
                    .is_saved(call(node, 1), false, &store, search)
                    .unwrap()
            );
        }
        assert!(newest.by_caller.len() <= 2 * all as usize);
        assert!(
            busy()
                .iter()
                .all(|caller| newest.by_caller.contains_key(caller))
        );
        assert!(searches < 8, "{searches} searches");
        for node in 2 * all + 1..=4 * all {
            let new = call(node, 1);
            assert!(!newest.is_saved(new, false, &store, BTreeSet::new).unwrap());
        }
        assert!(newest.by_caller.len() <= CALLERS_MAX);
    }
}
