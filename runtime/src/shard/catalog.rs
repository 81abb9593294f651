//! The objects in memory: states of persistent ones, servants of transient ones.
//!
//! The engine says when a state may be read by many or written by one; the catalog only holds
//! it. A writer takes the state out while it runs, so that "alone" is a fact and no promise.

use std::rc::Rc;

use bytes::Bytes;
use partha_core::Loaded;
use partha_core::id::{Epoch, Uid};
use partha_store::{Record, StoreError};
use partha_wire::{DecodeError, Message, Writer};

use super::Registry;
use super::job::fault;
use crate::abi::{Class, ObjectState};
use crate::config::MESSAGE_BYTES_MAX;
use crate::error::{ErrorKind, SystemError};
use crate::hash::IdMap;

/// The state of an object; more than one owner only while it is read.
pub(crate) type State = Rc<Box<dyn ObjectState>>;

/// The objects of a shard that are in memory.
#[derive(Default)]
pub(super) struct Catalog {
    active: IdMap<Uid, Active>,
    volatile: IdMap<Uid, Class>,
    /// Why the latest activations failed, for the answers of those who waited.
    failures: IdMap<Uid, SystemError>,
}

/// A persistent object in memory.
pub(super) struct Active {
    pub(super) class: Class,
    pub(super) epoch: Epoch,
    pub(super) version: u64,
    pub(super) state: Option<State>,
    /// The state as it is now, encoded; kept while an action has changed the object, so that
    /// nothing is encoded twice.
    encoded: Option<Bytes>,
    /// The version of what an action has handed to the store.
    next: Option<u64>,
}

impl Catalog {
    /// Brings an object in from the store.
    pub(super) fn load(&mut self, uid: Uid, registry: &Registry) -> Loaded {
        let Some(store) = &registry.store else {
            return Loaded::Absent;
        };
        let (record, epoch) = match store.activate(uid) {
            Ok(Some(found)) => found,
            Ok(None) => return Loaded::Absent,
            Err(error) => return self.failed(uid, &error, registry),
        };
        match restore(&record, registry) {
            Ok((class, state)) => {
                let size_bytes = record.state.len() as u64;
                let (version, state) = (record.version, Some(Rc::new(state)));
                let active = Active {
                    class,
                    epoch,
                    version,
                    state,
                    encoded: None,
                    next: None,
                };
                self.active.insert(uid, active);
                Loaded::Found { epoch, size_bytes }
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
    pub(super) fn insert_new(&mut self, uid: Uid, class: Class, state: Box<dyn ObjectState>) {
        let (epoch, version) = (Epoch(0), 0);
        let active = Active {
            class,
            epoch,
            version,
            state: Some(Rc::new(state)),
            encoded: None,
            next: None,
        };
        self.active.insert(uid, active);
    }

    /// Puts an object back as it was.
    pub(super) fn put_back(&mut self, uid: Uid, encoded: Bytes) -> Result<(), SystemError> {
        if let Some(active) = self.active.get_mut(&uid) {
            let state = decode(&active.class, &encoded)?;
            active.state = Some(Rc::new(state));
            (active.encoded, active.next) = (Some(encoded), None);
        }
        Ok(())
    }

    /// The object cannot be put back: whoever calls it gets an error until it is loaded again.
    pub(super) fn lose(&mut self, uid: Uid) {
        if let Some(active) = self.active.get_mut(&uid) {
            (active.state, active.encoded) = (None, None);
        }
    }

    pub(super) fn active(&mut self, uid: Uid) -> Option<&mut Active> {
        self.active.get_mut(&uid)
    }

    /// Drops the image; its epoch is what the store must forget.
    pub(super) fn remove(&mut self, uid: Uid) -> Option<Epoch> {
        self.active.remove(&uid).map(|active| active.epoch)
    }

    pub(super) fn serve(&mut self, uid: Uid, class: Class) {
        self.volatile.insert(uid, class);
    }

    pub(super) fn retire(&mut self, uid: Uid) -> Option<Class> {
        self.volatile.remove(&uid)
    }

    pub(super) fn volatile(&self, uid: Uid) -> Option<&Class> {
        self.volatile.get(&uid)
    }

    /// The class of an object in memory.
    pub(super) fn class(&self, uid: Uid) -> Option<&Class> {
        self.active
            .get(&uid)
            .map(|active| &active.class)
            .or_else(|| self.volatile.get(&uid))
    }

    pub(super) fn is_active(&self, uid: Uid) -> bool {
        self.active.contains_key(&uid)
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
        self.next = Some(record.version);
        Ok(record)
    }

    /// The action is committed.
    pub(super) fn released(&mut self) {
        self.version = self.next.take().unwrap_or(self.version);
    }

    /// The state as it is now, for as long as an action has changed it.
    pub(super) fn encoded(&mut self) -> Result<Bytes, SystemError> {
        match &self.encoded {
            Some(encoded) => Ok(encoded.clone()),
            None => self.encode_again(),
        }
    }

    /// The state as a write in an action has left it.
    pub(super) fn encode_again(&mut self) -> Result<Bytes, SystemError> {
        let encoded = self.encode()?;
        self.encoded = Some(encoded.clone());
        Ok(encoded)
    }

    pub(super) fn forget_encoded(&mut self) {
        self.encoded = None;
    }

    /// The state as it is now, for a servant that runs elsewhere.
    pub(super) fn snapshot(&self) -> Result<Bytes, SystemError> {
        match &self.encoded {
            Some(encoded) => Ok(encoded.clone()),
            None => self.encode(),
        }
    }

    fn encode(&self) -> Result<Bytes, SystemError> {
        let missing = || SystemError::new(ErrorKind::Internal, "the state is out at a writer");
        let state = self.state.as_ref().ok_or_else(missing)?;
        encode(&***state)
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

fn restore(
    record: &Record,
    registry: &Registry,
) -> Result<(Class, Box<dyn ObjectState>), SystemError> {
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
    Ok((class.clone(), state))
}
