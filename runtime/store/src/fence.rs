//! Fencing: of two activations of one object in this process, only the younger may write.
//!
//! The epoch in a stored record fences off writers of older incarnations and of activations that
//! were followed by another's write. What it cannot tell is that a younger activation exists
//! which has not written yet; that is remembered here, only for objects active now.
//!
//! The same goes for an activation one of whose states was not written (refused, or the disk was
//! full): what it does next builds on a state that nobody else will ever see, so every later
//! write of it is refused, also those that wait in the queue already.
//!
//! One race needs care. A write that passed the check is not yet readable until its transaction
//! is synced; an activation in between would read the state before it and both would commit. So
//! the store thread notes the objects of the transaction at hand, and [`Fences::activate`] waits
//! for the transaction if its object is among them.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use partha_core::id::{Epoch, Incarnation, Uid};

use crate::StoreError;
use crate::batch::{Batch, Item};

/// The activations of this process.
#[derive(Debug)]
pub(crate) struct Fences {
    incarnation: Incarnation,
    inner: Mutex<Inner>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    active: HashMap<Uid, Activation>,
    in_flight: HashSet<Uid>,
    activations: u32,
    /// The last number that was given to no activation. As long as there is none behind it, it is
    /// between for whoever asks, so that numbers are not used up by those who ask often.
    between: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Activation {
    epoch: Epoch,
    /// A state it wrote did not reach the store, or one it does not know did.
    failed: bool,
}

impl Fences {
    /// No activation yet.
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            inner: Mutex::default(),
            settled: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new epoch for the object; from now on only this one passes [`Fences::admit`]. Returns
    /// when no earlier write of the object is in flight.
    pub(crate) fn activate(&self, uid: Uid) -> Result<Epoch, StoreError> {
        let mut inner = self.lock();
        let Some(count) = inner.activations.checked_add(1) else {
            let cure = "restart the node";
            return Err(StoreError::Exhausted {
                what: "the count of activations",
                cure,
            });
        };
        inner.activations = count;
        let epoch = Epoch::new(self.incarnation, count);
        inner.active.insert(
            uid,
            Activation {
                epoch,
                failed: false,
            },
        );
        while inner.in_flight.contains(&uid) {
            inner = self
                .settled
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(epoch)
    }

    /// Activates, reads the record by `read`, and takes the activation back if there is none.
    pub(crate) fn activate_with<R>(
        &self,
        uid: Uid,
        read: impl FnOnce() -> Result<Option<R>, StoreError>,
    ) -> Result<Option<(R, Epoch)>, StoreError> {
        let epoch = self.activate(uid)?;
        let found = read();
        if !matches!(found, Ok(Some(_))) {
            self.deactivate(uid, epoch);
        }
        found.map(|record| record.map(|record| (record, epoch)))
    }

    /// Ends the activation, unless a younger one took its place.
    pub(crate) fn deactivate(&self, uid: Uid, epoch: Epoch) {
        let mut inner = self.lock();
        if inner
            .active
            .get(&uid)
            .is_some_and(|activation| activation.epoch == epoch)
        {
            inner.active.remove(&uid);
        }
    }

    /// Whether a write under this epoch may pass; if so the object is in flight.
    pub(crate) fn admit(&self, uid: Uid, offered: Epoch) -> Result<(), StoreError> {
        let mut inner = self.lock();
        match inner.active.get(&uid) {
            Some(&Activation { epoch: current, .. }) if current != offered => {
                Err(StoreError::Fenced {
                    uid,
                    offered,
                    current,
                })
            }
            Some(Activation { failed: true, .. }) => Err(StoreError::EarlierWriteFailed {
                uid,
                epoch: offered,
            }),
            Some(_) | None => {
                inner.in_flight.insert(uid);
                Ok(())
            }
        }
    }

    /// The batch was not written: the activations whose states it had are over. Not so if the
    /// batch was the end of an action and is surely not on disk: until then nobody could build on
    /// what the action did, and whoever is told that it failed puts the before-images back.
    pub(crate) fn poison(&self, batch: &Batch, error: &StoreError) {
        let is_decision = |item: &Item| matches!(item, Item::Decide { .. });
        if !error.outcome_unknown() && batch.items.iter().any(is_decision) {
            return;
        }
        let mut inner = self.lock();
        for item in &batch.items {
            if let Item::WriteState { uid, record } = item
                && let Some(activation) = inner.active.get_mut(uid)
                && activation.epoch == record.epoch
            {
                activation.failed = true;
            }
        }
    }

    /// A state that was prepared under this epoch becomes the object's: an activation under
    /// another one knows nothing of it and may not write over it.
    pub(crate) fn install(&self, uid: Uid, prepared: Epoch) {
        let mut inner = self.lock();
        inner.in_flight.insert(uid);
        if let Some(activation) = inner.active.get_mut(&uid)
            && activation.epoch != prepared
        {
            activation.failed = true;
        }
    }

    /// An epoch for a record that comes from elsewhere: above those of all activations so far, none
    /// of which may write over it, and below those of all later ones.
    pub(crate) fn epoch_between(&self) -> Epoch {
        let mut inner = self.lock();
        if inner.between != Some(inner.activations) {
            // When they are used up there are no later ones either.
            inner.activations = inner.activations.saturating_add(1);
            inner.between = Some(inner.activations);
        }
        Epoch::new(self.incarnation, inner.activations)
    }

    /// The object is in flight, whoever changes it.
    pub(crate) fn note(&self, uid: Uid) {
        self.lock().in_flight.insert(uid);
    }

    /// The transaction is over, one way or the other.
    pub(crate) fn settle(&self) {
        let mut inner = self.lock();
        if !inner.in_flight.is_empty() {
            inner.in_flight.clear();
            self.settled.notify_all();
        }
    }

    /// How many objects are active.
    pub(crate) fn active(&self) -> usize {
        self.lock().active.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use partha_core::id::NodeId;

    use super::*;

    const UID: Uid = Uid {
        node: NodeId(1),
        local: 1,
    };

    #[test]
    fn the_younger_activation_fences_off_the_older() {
        let fences = Fences::new(Incarnation(3));
        let old = fences.activate(UID).unwrap();
        fences.admit(UID, old).unwrap();
        fences.settle();
        let young = fences.activate(UID).unwrap();
        assert!(young > old);
        assert!(matches!(
            fences.admit(UID, old),
            Err(StoreError::Fenced { .. })
        ));
        fences.admit(UID, young).unwrap();
        fences.deactivate(UID, old);
        assert_eq!(
            fences.active(),
            1,
            "an old activation cannot end a younger one"
        );
        fences.deactivate(UID, young);
        assert_eq!(fences.active(), 0);
    }

    #[test]
    fn activation_waits_for_a_write_in_flight() {
        let fences = Fences::new(Incarnation(1));
        let old = fences.activate(UID).unwrap();
        fences.admit(UID, old).unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(fences.activate(UID).unwrap()).unwrap());
            // The fence is up before the wait, so the old epoch is refused from then on.
            while fences.admit(UID, old).is_ok() {
                thread::yield_now();
            }
            assert!(receiver.try_recv().is_err(), "the write is still in flight");
            fences.settle();
            assert!(receiver.recv().unwrap() > old);
        });
    }
}
