//! What a servant knows about the call it serves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::id::{CallId, Peer, Uid};
use partha_store::{Item, ObjectStore, StoreError};

use crate::caller::{CallOptions, CallScope, Caller};
use crate::client::Client;
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;
use crate::wire::context::TraceId;

/// The context of one call: who calls what, until when, and the way to call others.
///
/// Calls made with it inherit its deadline and trace.
#[derive(Debug)]
pub struct Context {
    pub(crate) client: Client,
    pub(crate) object: Uid,
    pub(crate) caller: Peer,
    pub(crate) call: Option<CallId>,
    pub(crate) deadline: Instant,
    pub(crate) trace: TraceId,
    /// The caller speaks plain Cap'n Proto RPC.
    pub(crate) foreign: bool,
    pub(crate) rows: Rows,
}

impl Context {
    /// The object that is called.
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.object
    }

    /// The process that calls.
    #[must_use]
    pub fn caller(&self) -> Peer {
        self.caller
    }

    /// The call's name, if the caller gave it one.
    #[must_use]
    pub fn call_id(&self) -> Option<CallId> {
        self.call
    }

    /// Time left before the caller stops waiting.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The trace the call belongs to.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// The client that objects of this process call others with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A caller with wishes; its deadline is this call's at the latest.
    #[must_use]
    pub fn call(&self) -> CallOptions {
        CallOptions::new(self.scope())
    }

    /// The rows of the object: keyed values stored one by one, beside its state record.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }
}

impl Caller for Context {
    fn scope(&self) -> CallScope {
        CallScope {
            client: self.client.clone(),
            deadline: Some(self.deadline),
            call: None,
            again: false,
            trace: self.trace,
        }
    }
}

/// Keyed values of one object, in numbered parts from 1: the untyped layer beneath table fields.
///
/// What a writing call puts or removes is seen by it at once and becomes durable, or is undone,
/// together with the object's state and the call's reply.
#[derive(Debug)]
pub struct Rows {
    store: Option<StoreHandle>,
    object: Uid,
    writable: bool,
    changes: Mutex<BTreeMap<(u16, Bytes), Option<Bytes>>>,
}

#[derive(Clone)]
struct StoreHandle(Arc<dyn ObjectStore>);

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("store")
    }
}

impl Rows {
    pub(crate) fn new(store: Option<Arc<dyn ObjectStore>>, object: Uid, writable: bool) -> Self {
        let changes = Mutex::new(BTreeMap::new());
        Self {
            store: store.map(StoreHandle),
            object,
            writable,
            changes,
        }
    }

    /// One row.
    ///
    /// # Errors
    /// `Store` if it is damaged or its key too long.
    pub fn read(&self, part: u16, key: &[u8]) -> Result<Option<Bytes>> {
        let changed = lock(&self.changes)
            .get(&(part, Bytes::copy_from_slice(key)))
            .cloned();
        match changed {
            Some(row) => Ok(row),
            None => self
                .store()?
                .read_row(self.object, part, key)
                .map_err(failed),
        }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// `BadOperation` in a call that only reads.
    pub fn put(&self, part: u16, key: &[u8], value: Bytes) -> Result<()> {
        self.change(part, key, Some(value))
    }

    /// Removes a row; an absent one is fine.
    ///
    /// # Errors
    /// `BadOperation` in a call that only reads.
    pub fn remove(&self, part: u16, key: &[u8]) -> Result<()> {
        self.change(part, key, None)
    }

    /// At most `limit` rows whose keys sort after `after`, in the order of their keys.
    ///
    /// # Errors
    /// `Store` if one of them is damaged.
    pub fn scan(
        &self,
        part: u16,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let changes = lock(&self.changes).clone();
        // Each changed row may hide a stored one.
        let wanted = limit.saturating_add(changes.len());
        let stored = self
            .store()?
            .scan_rows(self.object, part, after, wanted)
            .map_err(failed)?;
        let complete = stored.len() < wanted;
        let last = stored.last().map(|(key, _)| key.clone());
        let mut rows: BTreeMap<Bytes, Bytes> = stored.into_iter().collect();
        for ((changed_part, key), row) in changes {
            let in_range = after.is_none_or(|after| key.as_ref() > after)
                && (complete || last.as_ref().is_some_and(|last| key <= *last));
            if changed_part != part || !in_range {
                continue;
            }
            match row {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    /// The changes as items of the call's batch.
    pub(crate) fn into_items(self) -> Vec<Item> {
        let uid = self.object;
        let changes = self
            .changes
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let item = |((part, key), row)| match row {
            Some(value) => Item::PutRow {
                uid,
                part,
                key,
                value,
            },
            None => Item::RemoveRow { uid, part, key },
        };
        changes.into_iter().map(item).collect()
    }

    fn change(&self, part: u16, key: &[u8], row: Option<Bytes>) -> Result<()> {
        if !self.writable {
            let detail = "a method that only reads (&self in the IDL) cannot change rows";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        lock(&self.changes).insert((part, Bytes::copy_from_slice(key)), row);
        Ok(())
    }

    fn store(&self) -> Result<&Arc<dyn ObjectStore>> {
        let detail = "a transient object has no rows";
        let store = self.store.as_ref().map(|handle| &handle.0);
        store.ok_or_else(|| SystemError::new(ErrorKind::BadOperation, detail))
    }
}

fn failed(error: StoreError) -> SystemError {
    SystemError::new(ErrorKind::Store, error.to_string())
}

#[cfg(test)]
mod tests {
    use partha_core::id::{Epoch, NodeId};
    use partha_store::{Batch, MemoryStore, Record};

    use super::*;

    fn rows_with(stored: &[&str]) -> Rows {
        let store = MemoryStore::with_node(NodeId(1));
        let uid = Uid {
            node: NodeId(1),
            local: 9,
        };
        let record = Record {
            class: partha_core::id::ClassId(1),
            schema: 0,
            version: 0,
            epoch: Epoch(0),
            state: Bytes::new(),
        };
        let mut batch = Batch::from(Item::Create { uid, record });
        for key in stored {
            let (key, value) = (Bytes::from(key.to_string()), Bytes::from_static(b"old"));
            batch = batch.with(Item::PutRow {
                uid,
                part: 1,
                key,
                value,
            });
        }
        store.commit(batch).unwrap();
        Rows::new(Some(Arc::new(store)), uid, true)
    }

    fn keys(rows: &Rows, after: Option<&[u8]>, limit: usize) -> Vec<String> {
        let found = rows.scan(1, after, limit).unwrap();
        found
            .into_iter()
            .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_call_sees_its_own_changes_in_order() {
        let rows = rows_with(&["b", "d", "f"]);
        rows.put(1, b"c", Bytes::from_static(b"new")).unwrap();
        rows.remove(1, b"d").unwrap();
        rows.put(1, b"z", Bytes::from_static(b"new")).unwrap();
        assert_eq!(keys(&rows, None, 10), ["b", "c", "f", "z"]);
        assert_eq!(keys(&rows, None, 2), ["b", "c"]);
        assert_eq!(keys(&rows, Some(b"c"), 10), ["f", "z"]);
        assert_eq!(rows.read(1, b"d").unwrap(), None);
        assert_eq!(rows.read(1, b"b").unwrap().unwrap(), "old");
        assert_eq!(rows.into_items().len(), 3);
    }

    #[test]
    fn paging_through_many_rows_meets_each_once() {
        let rows = rows_with(&["a", "c", "e", "g", "i"]);
        for key in ["b", "d", "h"] {
            rows.put(1, key.as_bytes(), Bytes::new()).unwrap();
        }
        rows.remove(1, b"c").unwrap();
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = keys(&rows, after.as_ref().map(|key| key.as_bytes()), 2);
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page);
        }
        assert_eq!(seen, ["a", "b", "d", "e", "g", "h", "i"]);
    }
}
