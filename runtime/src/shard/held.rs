//! Bytes of large parameters of calls under way, by object: one that is slow, or loved too much,
//! must not take the memory of all objects of its shard.

use std::cell::RefCell;
use std::rc::Rc;

use partha_core::id::Uid;

use crate::error::{ErrorKind, SystemError};
use crate::hash::IdMap;
use crate::net::connection::HELD_BYTES_MIN;
use crate::net::traffic::Traffic;

/// What the calls of a shard have brought.
#[derive(Debug)]
pub(super) struct HeldByObject {
    bytes: Rc<RefCell<Bytes>>,
    object_max: usize,
    shard_max: usize,
}

#[derive(Debug, Default)]
struct Bytes {
    all: usize,
    by_object: IdMap<Uid, usize>,
}

/// Parameters of a call of an object.
#[derive(Debug)]
pub(super) struct HeldHere {
    held: Rc<RefCell<Bytes>>,
    object: Uid,
    bytes: usize,
}

impl HeldByObject {
    pub(super) fn new(traffic: Traffic) -> Self {
        Self {
            bytes: Rc::default(),
            object_max: traffic.object_max(),
            shard_max: traffic.shard_max(),
        }
    }

    /// Notes that a call of the object has brought this many bytes; none if they are too few to
    /// matter, since the number of calls is bounded as well.
    ///
    /// # Errors
    /// `Overloaded` if calls of the object, or of the shard, have brought too many already.
    pub(super) fn hold(&self, object: Uid, bytes: usize) -> Result<Option<HeldHere>, SystemError> {
        if bytes < HELD_BYTES_MIN {
            return Ok(None);
        }
        let mut held = self.bytes.borrow_mut();
        let of_object = held.by_object.get(&object).copied().unwrap_or(0);
        let whose = if of_object + bytes > self.object_max {
            Some((format!("object {object}"), of_object, self.object_max))
        } else if held.all + bytes > self.shard_max {
            let whose = "all objects of this shard".to_owned();
            Some((whose, held.all, self.shard_max))
        } else {
            None
        };
        if let Some((whose, before, max)) = whose {
            let detail = format!(
                "calls of {whose} under way have brought {before} bytes of parameters already; at \
                 most {max} are kept"
            );
            return Err(SystemError::new(ErrorKind::Overloaded, detail));
        }
        held.all += bytes;
        held.by_object.insert(object, of_object + bytes);
        let held = self.bytes.clone();
        Ok(Some(HeldHere {
            held,
            object,
            bytes,
        }))
    }
}

impl Drop for HeldHere {
    fn drop(&mut self) {
        let mut held = self.held.borrow_mut();
        held.all -= self.bytes;
        let Some(left) = held.by_object.get_mut(&self.object) else {
            return;
        };
        *left -= self.bytes;
        if *left == 0 {
            held.by_object.remove(&self.object);
        }
    }
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn uid(local: u64) -> Uid {
        let node = NodeId(1);
        Uid { node, local }
    }

    #[test]
    fn one_object_cannot_take_all_and_all_together_are_bounded() {
        let held = HeldByObject::new(Traffic::default());
        let (object_max, shard_max) = (held.object_max, held.shard_max);
        assert!(held.hold(uid(1), HELD_BYTES_MIN - 1).unwrap().is_none());
        let half = held.hold(uid(1), object_max / 2).unwrap();
        let other_half = held.hold(uid(1), object_max / 2).unwrap();
        let error = held.hold(uid(1), HELD_BYTES_MIN).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(
            error.detail().contains(&format!("object {}", uid(1))),
            "{error}"
        );
        // Others have room, as long as the shard has.
        let others: Vec<_> = (2..)
            .map_while(|n| held.hold(uid(n), object_max).ok())
            .collect();
        assert_eq!((others.len() + 1) * object_max, shard_max);
        let error = held.hold(uid(99), HELD_BYTES_MIN).unwrap_err();
        assert!(error.detail().contains("this shard"), "{error}");
        // What is over counts no more, and leaves nothing behind.
        drop((half, other_half));
        assert!(held.hold(uid(1), object_max).unwrap().is_some());
        drop(others);
        let bytes = held.bytes.borrow();
        assert_eq!((bytes.all, bytes.by_object.len()), (0, 0));
    }

    #[test]
    fn a_larger_message_has_room_for_itself() {
        let traffic = Traffic {
            message_bytes_max: 1 << 30,
            ..Traffic::default()
        };
        let held = HeldByObject::new(traffic);
        let one = held.hold(uid(1), 1 << 30).unwrap();
        assert!(held.hold(uid(1), 1 << 20).is_err());
        drop(one);
    }
}
