//! Objects that are not where they were born, as far as this process has been told.
//!
//! What is remembered is a guess, validated by use: whoever has an object no more says where it
//! went, and what is wrong is dropped. The table is bounded; an object that is forgotten is found
//! by the node of its birth or the binder.

use std::collections::HashMap;
use std::sync::Mutex;

use partha_core::id::Uid;

use crate::moved::Moved;
use crate::net::connection::lock;

/// Objects remembered; beyond it half of them are forgotten.
const OBJECTS_MAX: usize = 65_536;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    objects: Mutex<HashMap<Uid, Moved>>,
}

impl Whereabouts {
    /// Where the object was last heard to be.
    pub(crate) fn of(&self, object: Uid) -> Option<Moved> {
        lock(&self.objects).get(&object).cloned()
    }

    /// The object is there, unless something newer is known.
    pub(crate) fn note(&self, object: Uid, to: &Moved) {
        let mut objects = lock(&self.objects);
        if let Some(known) = objects.get_mut(&object) {
            if known.moves <= to.moves {
                *known = to.clone();
            }
            return;
        }
        if objects.len() >= OBJECTS_MAX {
            let mut keep = false;
            objects.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        objects.insert(object, to.clone());
    }

    /// The object is not where it was heard to be.
    pub(crate) fn forget(&self, object: Uid) {
        lock(&self.objects).remove(&object);
    }
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn object(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    fn at(node: u64, moves: u64) -> Moved {
        Moved {
            node: NodeId(node),
            addresses: Vec::new(),
            moves,
        }
    }

    #[test]
    fn the_newer_word_counts() {
        let whereabouts = Whereabouts::default();
        assert_eq!(whereabouts.of(object(1)), None);
        whereabouts.note(object(1), &at(2, 5));
        whereabouts.note(object(1), &at(3, 4));
        assert_eq!(whereabouts.of(object(1)), Some(at(2, 5)));
        whereabouts.note(object(1), &at(4, 6));
        assert_eq!(whereabouts.of(object(1)), Some(at(4, 6)));
        whereabouts.forget(object(1));
        assert_eq!(whereabouts.of(object(1)), None);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let whereabouts = Whereabouts::default();
        for local in 0..2 * OBJECTS_MAX as u64 + 10 {
            whereabouts.note(object(local), &at(2, 1));
            assert_eq!(whereabouts.of(object(local)), Some(at(2, 1)));
        }
        assert!(lock(&whereabouts.objects).len() <= OBJECTS_MAX);
    }
}
