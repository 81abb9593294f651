//! What an earlier life of the node has left undecided or untold, found at start.
//!
//! The shards learn of it before any call: objects of a prepared action are locked until its
//! coordinator says what was decided, and decisions are told until all who prepared know them.
//!
//! An earlier life may have had another number of shards. A prepared action is then spread anew,
//! so that a shard that is told to commit may know nothing of it while another one does; see
//! [`Recovered::shards`] and `Home::deliver`.

use std::collections::HashMap;

use partha_core::Input;
use partha_core::action::path::Coordinator;
use partha_core::id::Uid;
use partha_store::{Decision, ObjectStore, StoreError};

use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;

/// Entries read at a time.
const PAGE: usize = 1_000;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    prepared: Vec<Prepared>,
    decided: Vec<(Uid, Decision)>,
}

/// Where what is left of a prepared action is.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) shards: Vec<u16>,
    /// The replicated object whose log has the decision, if it is one's.
    pub(crate) decider: Option<Uid>,
}

#[derive(Debug)]
struct Prepared {
    action: Uid,
    coordinator: Coordinator,
    objects: Vec<Uid>,
}

impl Recovered {
    /// Looks through the store.
    ///
    /// # Errors
    /// `Store` if it cannot be read: the node must not run on a guess.
    pub(crate) fn read(store: &dyn ObjectStore) -> Result<Self> {
        let found = Self::look(store).map_err(|error| {
            let detail = format!("looking for unfinished actions: {error}");
            SystemError::new(ErrorKind::Store, detail)
        })?;
        found.check()?;
        Ok(found)
    }

    /// A prepared action has its objects alone; anything else is no store that we have written.
    fn check(&self) -> Result<()> {
        let mut owners = HashMap::new();
        for Prepared {
            action, objects, ..
        } in &self.prepared
        {
            for object in objects {
                if let Some(other) = owners.insert(object, action) {
                    let detail = format!(
                        "object {object} is prepared by two actions, {other} and {action}: the \
                         store is damaged; restore it from a copy, or ask for their outcomes \
                         (partha outcome) and remove the aborted one's part"
                    );
                    return Err(SystemError::new(ErrorKind::Store, detail));
                }
            }
        }
        Ok(())
    }

    fn look(store: &dyn ObjectStore) -> Result<Self, StoreError> {
        let mut found = Self::default();
        loop {
            let after = found.prepared.last().map(|prepared| prepared.action);
            let page = store.scan_prepared(after, PAGE)?;
            if page.is_empty() {
                break;
            }
            for partha_store::Prepared {
                action,
                coordinator,
            } in page
            {
                let objects = store.shadowed_objects(action)?;
                let count = objects.len();
                tracing::warn!(%action, ?coordinator, objects = count, "in doubt since before");
                found.prepared.push(Prepared {
                    action,
                    coordinator,
                    objects,
                });
            }
        }
        loop {
            let after = found.decided.last().map(|(action, _)| *action);
            let page = store.scan_decisions(after, PAGE)?;
            if page.is_empty() {
                return Ok(found);
            }
            for (action, decision) in page {
                let Decision {
                    participants,
                    groups,
                } = &decision;
                tracing::info!(%action, ?participants, ?groups, "committed, and to be told again");
                found.decided.push((action, decision));
            }
        }
    }

    /// What each shard is to be told, before anything else.
    pub(crate) fn inputs(&self, shards: u16) -> Vec<Vec<Input>> {
        let mut inputs: Vec<Vec<Input>> = (0..shards).map(|_| Vec::new()).collect();
        for prepared in &self.prepared {
            for (shard, objects) in prepared.spread(shards) {
                inputs[usize::from(shard)].push(Input::RecoverPrepared {
                    action: prepared.action,
                    coordinator: prepared.coordinator,
                    objects,
                });
            }
        }
        for (action, decision) in &self.decided {
            let shard = shard_of(*action, shards);
            inputs[usize::from(shard)].push(Input::RecoverDecision {
                action: *action,
                participants: decision.participants.clone(),
                groups: decision.groups.clone(),
                decider: None,
            });
        }
        inputs
    }

    /// Which shards have a part of each prepared action.
    pub(crate) fn shards(&self, shards: u16) -> HashMap<Uid, Parts> {
        let of = |prepared: &Prepared| {
            let spread = prepared.spread(shards);
            let parts = Parts {
                shards: spread.into_iter().map(|(shard, _)| shard).collect(),
                decider: prepared.coordinator.decider,
            };
            (prepared.action, parts)
        };
        self.prepared.iter().map(of).collect()
    }
}

impl Prepared {
    /// Its objects by shard, in order.
    fn spread(&self, shards: u16) -> Vec<(u16, Vec<Uid>)> {
        let mut spread: Vec<(u16, Vec<Uid>)> = Vec::new();
        for object in &self.objects {
            let shard = shard_of(*object, shards);
            match spread.iter_mut().find(|(of, _)| *of == shard) {
                Some((_, objects)) => objects.push(*object),
                None => spread.push((shard, vec![*object])),
            }
        }
        if spread.is_empty() {
            // Nothing of it is left to be installed, but somebody has to end it.
            spread.push((shard_of(self.action, shards), Vec::new()));
        }
        spread
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use partha_core::action::path::Site;
    use partha_core::id::{ClassId, Epoch, Incarnation, NodeId};
    use partha_store::{Batch, Item, MemoryStore, Record};

    use super::*;

    fn uid(counter: u64) -> Uid {
        Uid::new(NodeId(5), Incarnation(1), counter)
    }

    /// Two actions that have prepared the same object: a store that we do not write.
    #[test]
    fn an_object_that_is_prepared_twice_is_an_error_with_its_name() {
        let store = MemoryStore::with_node(NodeId(5));
        let record = Record {
            class: ClassId(1),
            schema: 0,
            version: 1,
            epoch: Epoch(0),
            state: Bytes::new(),
        };
        let coordinator = Coordinator::default();
        for action in [uid(1), uid(2)] {
            let (uid, record) = (uid(9), record.clone());
            let shadow = Item::CreateShadow {
                action,
                uid,
                record,
            };
            let prepare = Item::Prepare {
                action,
                coordinator,
            };
            store.commit(Batch::new(vec![shadow, prepare])).unwrap();
        }
        let error = Recovered::read(&store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store);
        for named in [uid(1), uid(2), uid(9)] {
            assert!(error.detail().contains(&named.to_string()), "{error}");
        }
    }

    fn site(shard: u16) -> Site {
        let node = NodeId(6);
        Site { node, shard }
    }

    /// So many actions that are prepared, and as many that are decided.
    fn fill(store: &MemoryStore, actions: u64) {
        let record = Record {
            class: ClassId(1),
            schema: 0,
            version: 1,
            epoch: Epoch(0),
            state: Bytes::new(),
        };
        for n in 0..actions {
            let action = uid(n);
            let objects = (0..5).map(|k| uid(10_000 + 10 * n + k));
            let mut items: Vec<_> = objects
                .map(|uid| Item::CreateShadow {
                    action,
                    uid,
                    record: record.clone(),
                })
                .collect();
            let coordinator = site(n as u16);
            items.push(Item::Prepare {
                action,
                coordinator: coordinator.into(),
            });
            store.commit(Batch::new(items)).unwrap();
            let decide = Item::Decide {
                action: uid(1_000_000 + n),
                participants: vec![site(1), site(2)],
                groups: vec![uid(7)],
                keep_ms: 1000,
            };
            store.commit(decide.into()).unwrap();
        }
    }

    #[test]
    fn what_is_found_goes_to_the_shards_of_its_objects() {
        let store = MemoryStore::with_node(NodeId(5));
        // More than a page of each.
        let actions = PAGE as u64 + 7;
        fill(&store, actions);
        let found = Recovered::read(&store).unwrap();
        let inputs = found.inputs(3);
        let by_action = found.shards(3);
        assert_eq!(by_action.len() as u64, actions);
        let (mut objects_seen, mut decided) = (0, 0);
        for (shard, inputs) in (0_u16..).zip(&inputs) {
            for input in inputs {
                match input {
                    Input::RecoverPrepared {
                        action,
                        coordinator,
                        objects,
                    } => {
                        assert!(by_action[action].shards.contains(&shard));
                        assert_eq!(u64::from(coordinator.site.shard), action.counter());
                        assert!(!objects.is_empty());
                        objects_seen += objects.len() as u64;
                        for object in objects {
                            assert_eq!(shard_of(*object, 3), shard);
                        }
                    }
                    Input::RecoverDecision {
                        participants,
                        groups,
                        decider: None,
                        ..
                    } => {
                        assert_eq!(participants, &[site(1), site(2)]);
                        assert_eq!(groups, &[uid(7)]);
                        decided += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((objects_seen, decided), (5 * actions, actions));
    }
}
