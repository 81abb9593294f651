//! Which calls are certain to be new, without a look into the store.
//!
//! A call that is asked for again is answered from its saved reply, so every call with an id has
//! to be looked up. But callers number their calls: one with a higher number than any that came
//! before it to this shard, or was answered in an earlier life, has no reply. So the store is
//! asked once for each caller, and again only for calls that came late or again.

use std::collections::BTreeMap;

use partha_core::id::{CallId, Peer};
use partha_store::{ObjectStore, StoreError};

/// Callers known at a time; beyond it all are forgotten, and asked for once more.
const CALLERS_MAX: usize = 4096;

/// The highest number of each caller: no reply under a higher one is saved.
#[derive(Debug, Default)]
pub(super) struct Newest {
    by_caller: BTreeMap<Peer, u64>,
}

impl Newest {
    /// Whether the store has a reply of the call. The call is taken for executed from now on.
    ///
    /// # Errors
    /// If the store has to be asked and cannot tell.
    pub(super) fn is_saved(
        &mut self,
        call: CallId,
        store: &dyn ObjectStore,
    ) -> Result<bool, StoreError> {
        let is_new = match self.by_caller.get_mut(&call.caller) {
            Some(newest) if *newest < call.sequence => {
                *newest = call.sequence;
                true
            }
            Some(_) => false,
            None => {
                let is_new = !store.has_reply_since(call)?;
                if is_new {
                    self.note(call);
                }
                is_new
            }
        };
        Ok(!is_new && store.read_reply(call)?.is_some())
    }

    fn note(&mut self, call: CallId) {
        if self.by_caller.len() >= CALLERS_MAX {
            self.by_caller.clear();
        }
        self.by_caller.insert(call.caller, call.sequence);
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
        let mut ask = |call| newest.is_saved(call, &store).unwrap();
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
    fn callers_that_are_forgotten_are_looked_up_again() {
        let store = MemoryStore::new();
        let mut newest = Newest::default();
        for node in 1..=CALLERS_MAX as u64 + 1 {
            assert!(!newest.is_saved(call(node, 5), &store).unwrap());
            assert!(newest.by_caller.len() <= CALLERS_MAX);
            if node == 1 {
                save(&store, call(1, 5));
            }
        }
        assert!(newest.is_saved(call(1, 5), &store).unwrap());
        assert!(!newest.is_saved(call(1, 6), &store).unwrap());
    }
}
