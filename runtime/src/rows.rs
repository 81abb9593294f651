//! The rows of an object: keyed values stored one by one, beside its state record.
//!
//! A call sees its own changes first, then those of the actions it is made in, innermost first
//! (*overlays*), then the store. What it changes becomes durable, or is undone, together with
//! the object's state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use partha_core::id::Uid;
use partha_store::{Item, ObjectStore, StoreError};

use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;

/// Changed rows by part and key; none: removed.
pub(crate) type Changes = BTreeMap<(u16, Bytes), Option<Bytes>>;

/// Keyed values of one object, in numbered parts from 1: the untyped layer beneath table fields.
///
/// What a writing call puts or removes is seen by it at once and becomes durable, or is undone,
/// together with the object's state and the call's reply.
#[derive(Debug)]
pub struct Rows {
    store: Option<StoreHandle>,
    /// Why there are none.
    absent: &'static str,
    object: Uid,
    writable: bool,
    /// What the actions that the call is made in have changed, outermost first.
    overlays: Box<[Arc<Changes>]>,
    /// What is stored has to be of this moment.
    moment: Option<Arc<Moment>>,
    changes: Mutex<Changes>,
}

/// What an object was when its state was loaded, at a copy where more may be installed at any time.
#[derive(Debug)]
pub(crate) struct Moment {
    /// What the store was told to install last.
    installing: Arc<AtomicU64>,
    at: u64,
    left: AtomicBool,
}

impl Moment {
    pub(crate) fn new(installing: Arc<AtomicU64>, at: u64) -> Self {
        Self {
            installing,
            at,
            left: AtomicBool::new(false),
        }
    }

    /// Whether something was read that is not of it, or may not be.
    pub(crate) fn was_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Whether what was read just now is of it.
    fn check(&self) -> Result<()> {
        if self.installing.load(Ordering::Acquire) == self.at {
            return Ok(());
        }
        self.left.store(true, Ordering::Relaxed);
        let detail = "rows have changed since the state was read at this copy";
        Err(SystemError::new(ErrorKind::Fenced, detail))
    }
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
        let (overlays, changes) = (Box::default(), Mutex::new(Changes::new()));
        Self {
            store: store.map(StoreHandle),
            absent: "a transient object has no rows",
            object,
            writable,
            overlays,
            moment: None,
            changes,
        }
    }

    /// The same at a copy that follows.
    pub(crate) fn of_moment(mut self, moment: Option<Arc<Moment>>) -> Self {
        self.moment = moment;
        self
    }

    /// What was read just now, if it is of the moment that is to be read.
    fn checked<T>(&self, read: T) -> Result<T> {
        self.moment.as_ref().map_or(Ok(()), |it| it.check())?;
        Ok(read)
    }

    /// Those of an object whose servant runs in a server process.
    pub(crate) fn elsewhere(object: Uid) -> Self {
        let mut rows = Self::new(None, object, true);
        rows.absent = "a class that has processes of its own has no rows, since the store is the \
                       node's; serve it in the node's process (NodeBuilder::class)";
        rows
    }

    /// The same rows as the actions that the call is made in have left them, outermost first.
    pub(crate) fn beneath(mut self, overlays: Vec<Arc<Changes>>) -> Self {
        self.overlays = overlays.into();
        self
    }

    /// One row.
    ///
    /// # Errors
    /// `Store` if it is damaged or its key too long.
    pub fn read(&self, part: u16, key: &[u8]) -> Result<Option<Bytes>> {
        let at = (part, Bytes::copy_from_slice(key));
        let own = lock(&self.changes).get(&at).cloned();
        let overlaid = || self.overlays.iter().rev().find_map(|rows| rows.get(&at));
        match own.or_else(|| overlaid().cloned()) {
            Some(row) => Ok(row),
            None => {
                let row = self.store()?.read_row(self.object, part, key);
                self.checked(row.map_err(failed)?)
            }
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
        let mut changes = Changes::new();
        for overlay in &self.overlays {
            let of_part = overlay.range((part, Bytes::new())..);
            let of_part = of_part.take_while(|((of, _), _)| *of == part);
            changes.extend(of_part.map(|(key, row)| (key.clone(), row.clone())));
        }
        changes.extend(lock(&self.changes).clone());
        // Each changed row may hide a stored one.
        let wanted = limit.saturating_add(changes.len());
        let stored = self
            .store()?
            .scan_rows(self.object, part, after, wanted)
            .map_err(failed)?;
        let stored = self.checked(stored)?;
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

    /// What the call has changed.
    pub(crate) fn into_changes(self) -> Changes {
        self.changes
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change(&self, part: u16, key: &[u8], row: Option<Bytes>) -> Result<()> {
        if !self.writable {
            let detail = "a method that only reads (&self in the IDL) cannot change rows";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        self.store()?;
        lock(&self.changes).insert((part, Bytes::copy_from_slice(key)), row);
        Ok(())
    }

    fn store(&self) -> Result<&Arc<dyn ObjectStore>> {
        let store = self.store.as_ref().map(|handle| &handle.0);
        store.ok_or_else(|| SystemError::new(ErrorKind::BadOperation, self.absent))
    }
}

/// Changed rows of an object as items of a batch.
pub(crate) fn items(uid: Uid, changes: Changes) -> impl Iterator<Item = Item> {
    changes
        .into_iter()
        .map(move |((part, key), row)| match row {
            Some(value) => Item::PutRow {
                uid,
                part,
                key,
                value,
            },
            None => Item::RemoveRow { uid, part, key },
        })
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
    fn rows_are_of_the_moment_of_the_state_or_not_given() {
        let installing = Arc::new(AtomicU64::new(7));
        let moment = Arc::new(Moment::new(installing.clone(), 7));
        let rows = rows_with(&["b", "d"]).of_moment(Some(moment.clone()));
        assert_eq!(keys(&rows, None, 10), ["b", "d"]);
        assert_eq!(rows.read(1, b"b").unwrap().unwrap(), "old");
        assert!(!moment.was_left());
        installing.store(8, Ordering::Release);
        assert!(rows.scan(1, None, 10).is_err());
        assert!(rows.read(1, b"b").is_err());
        assert!(moment.was_left());
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
        assert_eq!(rows.into_changes().len(), 3);
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

    #[test]
    fn a_call_in_an_action_sees_what_its_actions_changed() {
        let put = |key: &'static [u8], value: &'static [u8]| {
            let value = Some(Bytes::from_static(value));
            ((1, Bytes::from_static(key)), value)
        };
        let outer = Changes::from([
            put(b"b", b"outer"),
            put(b"c", b"outer"),
            ((1, "d".into()), None),
        ]);
        let inner = Changes::from([
            put(b"c", b"inner"),
            put(b"d", b"inner"),
            ((1, "f".into()), None),
        ]);
        let other_part = Changes::from([((2, "a".into()), Some(Bytes::new()))]);
        let overlays = vec![outer.into(), other_part.into(), inner.into()];
        let rows = rows_with(&["b", "d", "f", "g"]).beneath(overlays);
        assert_eq!(keys(&rows, None, 10), ["b", "c", "d", "g"]);
        assert_eq!(keys(&rows, None, 2), ["b", "c"]);
        assert_eq!(keys(&rows, Some(b"c"), 10), ["d", "g"]);
        for (key, value) in [("b", "outer"), ("c", "inner"), ("d", "inner"), ("g", "old")] {
            assert_eq!(
                rows.read(1, key.as_bytes()).unwrap().unwrap(),
                value,
                "{key}"
            );
        }
        assert_eq!(rows.read(1, b"f").unwrap(), None);
        rows.put(1, b"f", Bytes::from_static(b"own")).unwrap();
        rows.remove(1, b"c").unwrap();
        assert_eq!(keys(&rows, None, 10), ["b", "d", "f", "g"]);
        assert_eq!(
            rows.into_changes().len(),
            2,
            "only what the call itself did"
        );
    }
}
