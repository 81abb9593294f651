//! Where objects were when a level used them.
//!
//! With the policy passive, what an action has of an object is at the copy that leads, and nowhere
//! else: it holds the lock that keeps the lead from being handed over. So where an action that has
//! used such an object finds another copy leading, its work is lost, whatever that one answers. It
//! would hear so at its commit; before that it would read a state without what it has done itself.
//!
//! Whether an object has copies may not be known when it is used, so all are remembered. One
//! without goes on elsewhere with what running actions have of it, and gets no copies while they
//! have something: so it is asked for when copies are found, and not before.

use super::{Doom, Family, Level, Send};
use crate::action::path::Site;
use crate::id::{NodeId, Uid};

/// Objects that are remembered of each level. What is used beyond that, and led elsewhere, is
/// noticed at the commit.
pub const LED_MAX: usize = 16_384;

impl Family {
    /// An object was used by a call that ends now, and was executed, at this place.
    pub fn led(&mut self, action: Uid, object: Uid, leader: Site) {
        if let Some(level) = self.levels.get_mut(&action) {
            level.note_led(object, leader);
        }
    }

    /// Who led an object with copies when it was used, for the level and those that it is in that
    /// have used it; the outermost first.
    fn leaders(&self, action: Uid, object: Uid) -> impl Iterator<Item = (Uid, Site)> {
        let path = self.path_of(action);
        let levels = path.map_or(&[][..], |path| path.own()).iter();
        levels.filter_map(move |level| {
            let leader = self.levels.get(level)?.led.get(&object)?;
            Some((*level, *leader))
        })
    }

    /// Whether the action has used an object at this node.
    #[must_use]
    pub fn was_led_by(&self, action: Uid, object: Uid, leader: NodeId) -> bool {
        let mut leaders = self.leaders(action, object);
        leaders.any(|(_, was)| was.node == leader)
    }

    /// A call of an object with copies is about to go to whoever leads it now. Dooms the outermost
    /// level that has used it where it was led by another node, of this one and those that it is
    /// in.
    pub fn finds_leader(&mut self, action: Uid, object: Uid, leader: NodeId) -> Vec<Send> {
        let mut leaders = self.leaders(action, object);
        let lost = leaders.find(|(_, was)| was.node != leader);
        drop(leaders);
        match lost {
            Some((level, was)) => self.doom(level, Doom::Lost(was)),
            None => Vec::new(),
        }
    }
}

impl Level {
    /// The first place stands: where there are two, something is lost.
    pub(super) fn note_led(&mut self, object: Uid, leader: Site) {
        if self.led.len() < LED_MAX {
            self.led.entry(object).or_insert(leader);
        }
    }
}
