//! At most one activation: an image is loaded only when there is none, used only while it is
//! there, by one writer or by readers, and dropped only while nobody uses it; what passivation
//! drops is in the store. An image stays in its slot, and has it to itself.

use std::collections::BTreeMap;

use partha_core::id::Uid;
use partha_core::{Mode, ObjectSlot};

#[derive(Debug, Default)]
struct Use {
    loading: bool,
    present: bool,
    readers: u32,
    writers: u32,
    slot: Option<ObjectSlot>,
}

/// The images of one shard.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    uses: BTreeMap<Uid, Use>,
    slots: BTreeMap<u32, Uid>,
}

impl Activations {
    pub(crate) fn load(&mut self, uid: Uid, slot: ObjectSlot) -> Result<(), String> {
        let image = self.uses.entry(uid).or_default();
        if image.loading || image.present {
            return Err(format!("activation: {uid} is loaded a second time"));
        }
        image.loading = true;
        self.place(uid, slot)
    }

    /// An image that is there, or is to be there, has this slot.
    pub(crate) fn place(&mut self, uid: Uid, slot: ObjectSlot) -> Result<(), String> {
        let image = self.uses.entry(uid).or_default();
        let before = *image.slot.get_or_insert(slot);
        let owner = *self.slots.entry(slot.0).or_insert(uid);
        if before != slot || owner != uid {
            return Err(format!(
                "activation: {uid} at {before:?} is said to be at {slot:?}, which is {owner}'s"
            ));
        }
        Ok(())
    }

    /// An image came from another node.
    pub(crate) fn come(&mut self, uid: Uid, slot: ObjectSlot) -> Result<(), String> {
        let image = self.uses.entry(uid).or_default();
        if image.loading || image.present {
            return Err(format!("activation: {uid} comes, but there is {image:?}"));
        }
        image.present = true;
        self.place(uid, slot)
    }

    fn leave(&mut self, uid: Uid) {
        let image = self.uses.entry(uid).or_default();
        if let Some(slot) = image.slot.take() {
            self.slots.remove(&slot.0);
        }
    }

    pub(crate) fn loaded(&mut self, uid: Uid, found: bool) {
        let image = self.uses.entry(uid).or_default();
        image.loading = false;
        image.present = found;
        if !found {
            self.leave(uid);
        }
    }

    pub(crate) fn dispatch(&mut self, uid: Uid, mode: Mode, new: bool) -> Result<(), String> {
        let image = self.uses.entry(uid).or_default();
        if new == image.present || image.loading {
            return Err(format!(
                "activation: {uid} runs a call with the image {image:?}"
            ));
        }
        image.present = true;
        let excluded = match mode {
            Mode::Read | Mode::Upgrade => image.writers,
            Mode::Write => image.writers + image.readers,
        };
        if excluded > 0 {
            return Err(format!(
                "activation: {uid} is used by {mode:?} beside {image:?}"
            ));
        }
        match mode {
            Mode::Read | Mode::Upgrade => image.readers += 1,
            Mode::Write => image.writers += 1,
        }
        Ok(())
    }

    pub(crate) fn returned(&mut self, uid: Uid, mode: Mode) {
        let image = self.uses.entry(uid).or_default();
        match mode {
            Mode::Read | Mode::Upgrade => image.readers -= 1,
            Mode::Write => image.writers -= 1,
        }
    }

    pub(crate) fn drop_image(&mut self, uid: Uid) -> Result<(), String> {
        let image = self.uses.entry(uid).or_default();
        if !image.present || image.readers + image.writers > 0 {
            return Err(format!("activation: {uid} is dropped while {image:?}"));
        }
        image.present = false;
        self.leave(uid);
        Ok(())
    }
}
