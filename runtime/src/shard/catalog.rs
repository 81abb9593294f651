//! The objects in memory: states of persistent ones, servants of transient ones.
//!
//! The engine says when a state may be read by many or written by one; the catalog only holds
//! it. A writer takes the state out while it runs, so that "alone" is a fact and no promise.
//!
//! A persistent object lies in the slot that the engine names with each dispatch, so that a call
//! searches no table here: with many objects each cache line is one to wait for. What is done more
//! seldom finds the slot by the uid.

use std::rc::Rc;

use bytes::Bytes;
use partha_core::id::{ClassId, Epoch, Uid};
use partha_core::{Loaded, ObjectSlot};
use partha_store::{Place, Record, StoreError};
use partha_wire::{DecodeError, Message, Writer};

use super::Registry;
use super::job::fault;
use crate::abi::{Class, ObjectState};
use crate::config::MESSAGE_BYTES_MAX;
use crate::error::{ErrorKind, SystemError};
use crate::hash::IdMap;

/// The state of an object; more than one owner only while it is read.
pub(crate) type State = Rc<dyn ObjectState>;

/// Slots kept while no object is in memory.
const KEPT: usize = 1024;

/// The objects of a shard that are in memory.
#[derive(Default)]
pub(super) struct Catalog {
    /// By the engine's slots, which it bounds.
    active: Vec<Option<Active>>,
    slots: IdMap<Uid, ObjectSlot>,
    /// Those of objects that are or were in memory.
    classes: IdMap<ClassId, Rc<Class>>,
    volatile: IdMap<Uid, Rc<Class>>,
    /// Why the latest activations failed, for the answers of those who waited.
    failures: IdMap<Uid, SystemError>,
}

/// A persistent object in memory: one cache line.
#[repr(align(64))]
pub(super) struct Active {
    uid: Uid,
    class: Rc<Class>,
    pub(super) epoch: Epoch,
    version: u64,
    pub(super) state: Option<State>,
    /// None unless an action has changed the object.
    changed: Option<Box<Changed>>,
}

/// What there is besides of an object that an action has changed.
#[derive(Default)]
struct Changed {
    /// The state as it is now, encoded, so that nothing is encoded twice.
    encoded: Option<Bytes>,
    /// The version of what an action has handed to the store.
    next: Option<u64>,
}

const _: () = assert!(size_of::<Option<Active>>() == 64, "more than a cache line");

impl Catalog {
    /// Brings an object in from the store.
    pub(super) fn load(
        &mut self,
        uid: Uid,
        slot: ObjectSlot,
        replicated: bool,
        registry: &Registry,
    ) -> Loaded {
        let Some(store) = &registry.store else {
            return Loaded::Absent;
        };
        let (record, epoch) = match store.activate(uid) {
            Ok(Some(found)) => found,
            Ok(None) => match store.read_place(uid) {
                Ok(Some(Place::Gone { .. })) => return Loaded::Moved,
                Ok(Some(Place::Here { .. }) | None) => return Loaded::Absent,
                Err(error) => return self.failed(uid, &error, registry),
            },
            Err(error) => return self.failed(uid, &error, registry),
        };
        match restore(&record, registry) {
            Ok((class, state)) => {
                let size_bytes = record.state.len() as u64;
                let active = Active {
                    uid,
                    class: self.shared(class),
                    epoch,
                    version: record.version,
                    state: Some(state.into()),
                    changed: None,
                };
                self.insert(slot, active);
                Loaded::Found {
                    epoch,
                    size_bytes,
                    replicated,
                }
            }
            Err(error) => {
                store.deactivate(uid, epoch);
                let text = format!("activating {uid} at {}", registry.here());
                self.failures.insert(uid, error.context(text));
                Loaded::Failed(partha_core::Fault::Store)
            }
        }
    }

    fn failed(&mut self, uid: Uid, error: &StoreError, registry: &Registry) -> Loaded {
        let detail = format!("activating {uid} at {}: {error}", registry.here());
        self.failures
            .insert(uid, SystemError::new(ErrorKind::Store, detail));
        Loaded::Failed(fault(error))
    }

    /// Why the object could not be loaded, if that is what happened to it last.
    pub(super) fn failure(&self, uid: Uid) -> Option<SystemError> {
        self.failures.get(&uid).cloned()
    }

    /// Those who waited for a failed load have their answers.
    pub(super) fn forget_failures(&mut self) {
        if !self.failures.is_empty() {
            self.failures.clear();
        }
    }

    /// A new object, not in the store yet.
    pub(super) fn insert_new(
        &mut self,
        uid: Uid,
        slot: ObjectSlot,
        class: &Class,
        state: Box<dyn ObjectState>,
    ) {
        let active = Active {
            uid,
            class: self.shared(class),
            epoch: Epoch(0),
            version: 0,
            state: Some(state.into()),
            changed: None,
        };
        self.insert(slot, active);
    }

    /// An object that has come from another node with the work of actions: its state as they have
    /// left it, also encoded. None if it is lost: whoever calls it gets an error then.
    pub(super) fn insert_moved(
        &mut self,
        uid: Uid,
        slot: ObjectSlot,
        class: &Class,
        (epoch, version): (Epoch, u64),
        present: Option<(Bytes, Box<dyn ObjectState>)>,
    ) {
        let (encoded, state) = present.unzip();
        let active = Active {
            uid,
            class: self.shared(class),
            epoch,
            version,
            state: state.map(Into::into),
            changed: Some(Box::new(Changed {
                encoded,
                next: None,
            })),
        };
        self.insert(slot, active);
    }

    fn shared(&mut self, class: &Class) -> Rc<Class> {
        let shared = self.classes.entry(class.info().id);
        shared.or_insert_with(|| Rc::new(class.clone())).clone()
    }

    fn insert(&mut self, slot: ObjectSlot, active: Active) {
        let at = slot.0 as usize;
        if self.active.len() <= at {
            self.active.resize_with(at + 1, || None);
        }
        let uid = active.uid;
        let before = self.active[at].replace(active);
        if let Some(before) = before {
            debug_assert!(false, "{} was in {slot:?} still", before.uid);
            self.slots.remove(&before.uid);
        }
        self.slots.insert(uid, slot);
    }

    /// Puts an object back as it was.
    pub(super) fn put_back(&mut self, uid: Uid, encoded: Bytes) -> Result<(), SystemError> {
        if let Some(active) = self.active(uid) {
            let state = decode(&active.class, &encoded)?;
            active.state = Some(state.into());
            active.changed = Some(Box::new(Changed {
                encoded: Some(encoded),
                next: None,
            }));
        }
        Ok(())
    }

    /// The object cannot be put back: whoever calls it gets an error until it is loaded again.
    pub(super) fn lose(&mut self, uid: Uid) {
        if let Some(active) = self.active(uid) {
            active.state = None;
            active.forget_encoded();
        }
    }

    /// A persistent object in memory, found by a search.
    pub(super) fn active(&mut self, uid: Uid) -> Option<&mut Active> {
        let slot = *self.slots.get(&uid)?;
        self.active_at(slot, uid)
    }

    /// The same where its slot is known.
    pub(super) fn active_at(&mut self, slot: ObjectSlot, uid: Uid) -> Option<&mut Active> {
        let active = self.active.get_mut(slot.0 as usize)?.as_mut();
        active.filter(|active| active.uid == uid)
    }

    /// Reads what a call of each needs first, so that it is in the cache when they come. The sum
    /// means nothing.
    pub(super) fn touch(&self, slots: &[ObjectSlot]) -> usize {
        let state = |slot: &ObjectSlot| {
            let active = self.active.get(slot.0 as usize)?.as_ref()?;
            active.state.as_ref().map(Rc::strong_count)
        };
        slots.iter().filter_map(state).sum()
    }

    /// Drops the image; its epoch is what the store must forget.
    pub(super) fn remove(&mut self, uid: Uid) -> Option<Epoch> {
        let slot = self.slots.remove(&uid)?;
        let active = self.active[slot.0 as usize].take();
        if self.slots.is_empty() && self.active.len() > KEPT {
            self.active = Vec::new();
        }
        active.map(|active| active.epoch)
    }

    pub(super) fn serve(&mut self, uid: Uid, class: Class) {
        self.volatile.insert(uid, Rc::new(class));
    }

    pub(super) fn retire(&mut self, uid: Uid) -> Option<Rc<Class>> {
        self.volatile.remove(&uid)
    }

    pub(super) fn volatile(&self, uid: Uid) -> Option<&Class> {
        self.volatile.get(&uid).map(|class| &**class)
    }

    /// The class of an object in memory.
    pub(super) fn class(&self, uid: Uid) -> Option<&Rc<Class>> {
        match self.slots.get(&uid) {
            Some(slot) => self.class_at(*slot, uid),
            None => self.volatile.get(&uid),
        }
    }

    /// The same where its slot is known, as far as it has one.
    pub(super) fn class_at(&self, slot: ObjectSlot, uid: Uid) -> Option<&Rc<Class>> {
        let active = self.active.get(slot.0 as usize).and_then(Option::as_ref);
        match active.filter(|active| active.uid == uid) {
            Some(active) => Some(&active.class),
            None => self.volatile.get(&uid),
        }
    }

    pub(super) fn is_active(&self, uid: Uid) -> bool {
        self.slots.contains_key(&uid)
    }
}

impl Active {
    /// The record that the store is to hold next, after a call outside actions.
    pub(super) fn record(&mut self) -> Result<Record, SystemError> {
        let state = self.encode()?;
        let record = self.record_of(state);
        self.version = record.version;
        Ok(record)
    }

    /// The record with this state that would be the next one.
    fn record_of(&self, state: Bytes) -> Record {
        let info = self.class.info();
        Record {
            class: info.id,
            schema: info.schema,
            version: self.version + 1,
            epoch: self.epoch,
            state,
        }
    }

    /// The record with what an action has made of the object.
    pub(super) fn record_of_action(&mut self) -> Result<Record, SystemError> {
        let state = self.encoded()?;
        let record = self.record_of(state);
        self.changed.get_or_insert_default().next = Some(record.version);
        Ok(record)
    }

    /// The action is committed.
    pub(super) fn released(&mut self) {
        let next = self
            .changed
            .as_mut()
            .and_then(|changed| changed.next.take());
        self.version = next.unwrap_or(self.version);
    }

    /// The state as it is now, for as long as an action has changed it.
    pub(super) fn encoded(&mut self) -> Result<Bytes, SystemError> {
        match self.known() {
            Some(encoded) => Ok(encoded.clone()),
            None => self.encode_again(),
        }
    }

    /// The state as a write in an action has left it.
    pub(super) fn encode_again(&mut self) -> Result<Bytes, SystemError> {
        let encoded = self.encode()?;
        self.changed.get_or_insert_default().encoded = Some(encoded.clone());
        Ok(encoded)
    }

    pub(super) fn forget_encoded(&mut self) {
        if let Some(changed) = &mut self.changed {
            changed.encoded = None;
            if changed.next.is_none() {
                self.changed = None;
            }
        }
    }

    fn known(&self) -> Option<&Bytes> {
        self.changed.as_ref()?.encoded.as_ref()
    }

    /// The state as it is now, for a servant that runs elsewhere.
    pub(super) fn snapshot(&self) -> Result<Bytes, SystemError> {
        match self.known() {
            Some(encoded) => Ok(encoded.clone()),
            None => self.encode(),
        }
    }

    fn encode(&self) -> Result<Bytes, SystemError> {
        let missing = || SystemError::new(ErrorKind::Internal, "the state is out at a writer");
        let state = self.state.as_ref().ok_or_else(missing)?;
        encode(&**state)
    }
}

/// A state as the store and servants elsewhere get it.
pub(crate) fn encode(state: &dyn ObjectState) -> Result<Bytes, SystemError> {
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    state.save(&mut w);
    let (bytes, attached) = w.finish().map_err(|error| {
        SystemError::from(error).context("the object's state; keep large data in rows")
    })?;
    if !attached.is_empty() {
        let detail = "a state cannot hold capabilities: they end with their process";
        return Err(SystemError::new(ErrorKind::BadOperation, detail));
    }
    Ok(bytes.into())
}

/// The state that was encoded so.
pub(crate) fn decode(class: &Class, state: &Bytes) -> Result<Box<dyn ObjectState>, DecodeError> {
    let message = Message::from_framed(state.clone(), Vec::new())?;
    class.skeleton().restore(message.reader()?)
}

fn restore<'r>(
    record: &Record,
    registry: &'r Registry,
) -> Result<(&'r Class, Box<dyn ObjectState>), SystemError> {
    let Some(class) = registry.classes.get(&record.class) else {
        let detail = format!(
            "the object is of class {}, which this node does not run; add the class to the node",
            record.class
        );
        return Err(SystemError::new(ErrorKind::Store, detail));
    };
    let state = decode(class, &record.state).map_err(|error| {
        let detail = format!(
            "the stored state (schema {:016x}) is no state of {} (schema {:016x}): {error}",
            record.schema,
            class.info().name,
            class.info().schema
        );
        SystemError::new(ErrorKind::Store, detail)
    })?;
    Ok((class, state))
}
