//! Questions about a shard: bindings, objects, figures.

mod actions;
mod sessions;

use std::rc::Rc;

use partha_core::Input;
use partha_core::id::{ClassId, Peer, Uid};

pub(crate) use self::actions::{Abortion, Look, Trace};
pub(crate) use self::sessions::{Eviction, Share};

use super::Shard;
use super::job::{Initiated, ObjectReport, ShardReport};
use crate::error::{ErrorKind, SystemError};

impl Shard {
    /// Binds an object: it must exist and be of the class. A caller whose session has ended in the
    /// meantime is not noted: nobody would say when it is gone.
    pub(super) fn initiate(
        self: &Rc<Self>,
        object: Uid,
        class: ClassId,
        caller: Option<Peer>,
    ) -> Result<Initiated, SystemError> {
        if let Some(error) = self.bound_elsewhere(object) {
            return Err(error);
        }
        let found = match self.class_of(object)? {
            Some(found) => found,
            None => self
                .class_coming(object)
                .ok_or_else(|| self.not_here(object))?,
        };
        if class != ClassId(0) && !self.is_a(found, class) {
            let detail = format!(
                "object {object} at {} is of class {}, not {}",
                self.registry.here(),
                self.registry.class_name(found),
                self.registry.class_name(class)
            );
            return Err(SystemError::new(ErrorKind::WrongClass, detail));
        }
        // How its calls are to be made depends on that.
        let cohort = self
            .is_cohort(object)
            .ok_or_else(|| self.has_no_view(object))?;
        if let Some(caller) = caller {
            self.feed(Input::Bind {
                uid: object,
                caller,
            });
        }
        Ok(Initiated {
            class: found,
            shard: self.handle.index(),
            copies: self.copies_of(object),
            cohort,
        })
    }

    /// The class of an object, in memory or in the store.
    pub(crate) fn class_of(&self, object: Uid) -> Result<Option<ClassId>, SystemError> {
        if let Some(class) = self.catalog.borrow().class(object) {
            return Ok(Some(class.info().id));
        }
        let Some(store) = &self.registry.store else {
            return Ok(None);
        };
        let record = store.read_state(object).map_err(|error| {
            let detail = format!("reading {object} at {}: {error}", self.registry.here());
            SystemError::new(ErrorKind::Store, detail)
        })?;
        Ok(record.map(|record| record.class))
    }

    /// Why an object cannot be bound here.
    pub(super) fn not_here(&self, object: Uid) -> SystemError {
        let here = self.registry.here();
        match self.forward(object) {
            Ok(Some(to)) => {
                SystemError::moved_to(format!("object {object} was at {here}"), to, None)
            }
            Ok(None) => {
                let detail = format!("{here} does not have object {object}");
                SystemError::new(ErrorKind::NoSuchObject, detail)
            }
            Err(error) => error,
        }
    }

    fn is_a(&self, found: ClassId, wanted: ClassId) -> bool {
        found == wanted
            || self
                .registry
                .classes
                .get(&found)
                .is_some_and(|class| class.info().is_a(wanted))
    }

    /// What is known of one object.
    pub(super) fn inspect(&self, object: Uid) -> Result<Option<ObjectReport>, SystemError> {
        let Some(store) = &self.registry.store else {
            return Ok(None);
        };
        let record = store
            .read_state(object)
            .map_err(|error| SystemError::new(ErrorKind::Store, error.to_string()))?;
        let Some(record) = record else {
            let gone = self.forward(object)?.is_some();
            return if gone {
                Err(self.not_here(object))
            } else {
                Ok(None)
            };
        };
        let (moves, came_from) = self.came_from(object);
        let users = self.engine.borrow().callers_bound(object);
        let activation = self.epoch(object);
        Ok(Some(ObjectReport {
            class: record.class,
            active: activation.is_some(),
            epoch: activation.unwrap_or(record.epoch),
            version: record.version,
            state_bytes: record.state.len() as u64,
            users,
            moves,
            came_from,
        }))
    }

    fn epoch(&self, object: Uid) -> Option<partha_core::id::Epoch> {
        self.catalog
            .borrow_mut()
            .active(object)
            .map(|active| active.epoch)
    }

    /// Which of these objects are in memory.
    pub(super) fn active_among(&self, mut objects: Vec<Uid>) -> Vec<Uid> {
        let catalog = self.catalog.borrow();
        objects.retain(|object| catalog.is_active(*object));
        objects
    }

    /// What runs.
    pub(super) fn report(&self) -> ShardReport {
        let stats = self.engine.borrow().stats();
        ShardReport {
            active_objects: stats.objects as u64,
            active_bytes: stats.active_bytes,
            activations: self.counters.activations.get(),
            passivations: self.counters.passivations.get(),
            evictions: self.counters.evictions.get(),
            calls: self.counters.calls.get(),
            duplicates: self.counters.duplicates.get(),
            actions: stats.actions as u64,
            in_doubt: self.in_doubt(),
            committed: self.counters.committed.get(),
            aborted: self.counters.aborted.get(),
            deadlocks: self.counters.deadlocks.get(),
            killed: self.counters.killed.get(),
            messages: self.counters.messages.get(),
            moved_in: self.counters.moved_in.get(),
            moved_out: self.counters.moved_out.get(),
            moves_failed: self.counters.moves_failed.get(),
            told: self.counters.told.get(),
        }
    }
}
