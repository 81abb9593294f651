//! Where calls of an action have gone on to: an abort has to get there.

use super::Engine;
use crate::action::mirror::Phase;
use crate::action::path::Address;
use crate::action::tombstone::Fate;
use crate::id::Uid;
use crate::outbox::Outbox;

impl Engine {
    /// A call of an action has gone, or goes, to another shard.
    pub(super) fn reached(&mut self, action: Uid, to: Address, out: &mut Outbox) {
        let participants_max = self.limits.participants_max as usize;
        let own = self.mirrors.find(action);
        let parts = self.mirrors.parts_of(action);
        let mut here = false;
        for slot in own.into_iter().chain(parts) {
            here = true;
            let mirror = self.mirrors.mirror_mut(slot);
            if mirror.is_active() && mirror.reached.len() < participants_max {
                mirror.reached.insert(to);
            }
            let part = mirror.part;
            if let Phase::Aborting = mirror.phase {
                self.tell_address(part, (to, action), out);
            }
        }
        match self.tombstones.find(action).filter(|_| !here) {
            Some(Fate::Aborted | Fate::Told) => self.tell_address(None, (to, action), out),
            Some(Fate::Committed | Fate::ReadOnly { .. }) | None => {}
        }
    }

    /// An abort has to get where calls from here got.
    pub(super) fn forward_abort(
        &mut self,
        mirror: crate::slab::Slot,
        action: Uid,
        out: &mut Outbox,
    ) {
        let mirror = self.mirrors.mirror(mirror);
        let (part, reached) = (mirror.part, mirror.reached.clone());
        for to in reached {
            self.tell_address(part, (to, action), out);
        }
    }
}
