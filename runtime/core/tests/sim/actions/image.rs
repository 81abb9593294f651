//! The objects of a shard in memory, with what actions could need to undo: the bytes that the
//! engine never sees.
//!
//! An object has a list, which stands for its encoded state, and rows, which stand for what
//! classes keep beside it: row n holds the nth entry. Both must always tell the same; rows are
//! kept as overlays over the store, one an action, lists as before-images.

use std::collections::BTreeMap;

use partha_core::Ticket;
use partha_core::id::Uid;

use super::truth::OpNo;

/// Rows by number.
pub(crate) type Rows = BTreeMap<usize, OpNo>;

/// What an action keeps of an object.
#[derive(Clone, Debug)]
struct Overlay {
    action: Uid,
    /// The list before the action's first write; none if the action has made the object.
    before: Option<Vec<OpNo>>,
    /// Rows the action has changed.
    rows: Rows,
}

/// One object in memory.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) list: Vec<OpNo>,
    pub(crate) epoch: u64,
    /// Outermost first.
    overlays: Vec<Overlay>,
}

/// What a running write has done so far.
#[derive(Clone, Debug)]
struct Scratch {
    uid: Uid,
    before: Option<Vec<OpNo>>,
    rows: Rows,
}

/// All of a shard.
#[derive(Debug, Default)]
pub(crate) struct Images {
    images: BTreeMap<Uid, Image>,
    scratches: BTreeMap<Ticket, Scratch>,
}

impl Images {
    pub(crate) fn get(&self, uid: Uid) -> Option<&Image> {
        self.images.get(&uid)
    }

    pub(crate) fn insert(&mut self, uid: Uid, list: Vec<OpNo>, epoch: u64) {
        let overlays = Vec::new();
        self.images.insert(
            uid,
            Image {
                list,
                epoch,
                overlays,
            },
        );
    }

    /// Drops an image; nothing may be left to undo.
    pub(crate) fn drop(&mut self, uid: Uid) -> Result<Image, String> {
        let image = self.images.remove(&uid);
        let image = image.ok_or_else(|| format!("undo: {uid} is dropped, there is no image"))?;
        if image.overlays.is_empty() {
            return Ok(image);
        }
        Err(format!("undo: {uid} is dropped with {:?}", image.overlays))
    }

    /// The object is elsewhere now, with all that is kept to undo; whether there was an image.
    pub(crate) fn leave(&mut self, uid: Uid) -> bool {
        self.images.remove(&uid).is_some()
    }

    /// The object has come from elsewhere.
    pub(crate) fn come(&mut self, uid: Uid, mut image: Image, epoch: u64) {
        image.epoch = epoch;
        self.images.insert(uid, image);
    }

    /// An image as if the writes that run had not begun.
    pub(crate) fn at_rest(&self, uid: Uid) -> Result<Image, String> {
        let image = self.images.get(&uid).cloned();
        let mut image = image.ok_or_else(|| format!("cohort: {uid} has no image to keep"))?;
        let mut running = self.scratches.values().filter(|it| it.uid == uid);
        if let Some(before) = running.next().and_then(|it| it.before.clone()) {
            image.list = before;
        }
        Ok(image)
    }

    pub(crate) fn capture(&mut self, uid: Uid, action: Uid) -> Result<(), String> {
        let epoch = 0;
        let made = !self.images.contains_key(&uid);
        let image = self.images.entry(uid).or_insert(Image {
            list: Vec::new(),
            epoch,
            overlays: Vec::new(),
        });
        if image
            .overlays
            .iter()
            .any(|overlay| overlay.action == action)
        {
            return Err(format!("undo: {uid} is captured twice for {action}"));
        }
        let before = (!made).then(|| image.list.clone());
        let rows = Rows::new();
        image.overlays.push(Overlay {
            action,
            before,
            rows,
        });
        Ok(())
    }

    /// A write begins. An object to be made has an image by now only if it was captured.
    pub(crate) fn write(
        &mut self,
        uid: Uid,
        ticket: Ticket,
        op: OpNo,
        made: Option<u64>,
    ) -> Result<(), String> {
        if let Some(epoch) = made {
            let image = self.images.entry(uid).or_insert(Image {
                list: Vec::new(),
                epoch,
                overlays: Vec::new(),
            });
            image.epoch = epoch;
        }
        let image = self.images.get_mut(&uid).ok_or("undo: no image to write")?;
        let before = made.is_none().then(|| image.list.clone());
        let rows = Rows::from([(image.list.len(), op)]);
        image.list.push(op);
        self.scratches.insert(ticket, Scratch { uid, before, rows });
        Ok(())
    }

    /// The write is undone; says whether the object is gone with it.
    pub(crate) fn undo(&mut self, uid: Uid, ticket: Ticket) -> Result<bool, String> {
        let scratch = self.scratches.remove(&ticket);
        let scratch = scratch.ok_or_else(|| format!("undo: {ticket:?} has nothing to undo"))?;
        self.put_back(uid, scratch.before)
    }

    fn put_back(&mut self, uid: Uid, before: Option<Vec<OpNo>>) -> Result<bool, String> {
        let image = self.images.get_mut(&uid);
        let image = image.ok_or_else(|| format!("undo: {uid} is put back but not there"))?;
        match before {
            Some(list) => {
                image.list = list;
                Ok(false)
            }
            None if image.overlays.is_empty() => {
                self.images.remove(&uid);
                Ok(true)
            }
            None => {
                image.list.clear();
                Ok(true)
            }
        }
    }

    /// The write has ended well in an action.
    pub(crate) fn keep(&mut self, uid: Uid, ticket: Ticket, action: Uid) -> Result<(), String> {
        let scratch = self.scratches.remove(&ticket);
        let rows = scratch.map(|scratch| scratch.rows).unwrap_or_default();
        let overlay = self.overlay(uid, action)?;
        overlay.rows.extend(rows);
        Ok(())
    }

    fn overlay(&mut self, uid: Uid, action: Uid) -> Result<&mut Overlay, String> {
        let image = self.images.get_mut(&uid);
        let overlays = image.map(|image| &mut image.overlays);
        let mut found = overlays.into_iter().flatten();
        let found = found.find(|overlay| overlay.action == action);
        found.ok_or_else(|| format!("undo: {uid} has no before-image of {action}"))
    }

    /// An action's part is undone; says whether the object is gone with it.
    pub(crate) fn restore(&mut self, uid: Uid, action: Uid) -> Result<bool, String> {
        self.overlay(uid, action)?;
        let image = self.images.get_mut(&uid).expect("it has an overlay");
        let overlay = image.overlays.pop().expect("it has an overlay");
        if overlay.action != action {
            return Err(format!(
                "undo: {uid} is restored for {action}, but {} is within",
                overlay.action
            ));
        }
        self.put_back(uid, overlay.before)
    }

    pub(crate) fn inherit(
        &mut self,
        uid: Uid,
        (child, parent): (Uid, Uid),
        keep: bool,
    ) -> Result<(), String> {
        self.overlay(uid, child)?;
        let image = self.images.get_mut(&uid).expect("it has an overlay");
        let inner = image.overlays.pop().expect("it has an overlay");
        if inner.action != child {
            return Err(format!(
                "undo: {child} of {uid} ends before {}",
                inner.action
            ));
        }
        let outer = image
            .overlays
            .iter_mut()
            .find(|outer| outer.action == parent);
        match (outer, keep) {
            (Some(outer), false) => outer.rows.extend(inner.rows),
            (None, true) => image.overlays.push(Overlay {
                action: parent,
                ..inner
            }),
            (Some(outer), true) => {
                // Only a mutant does so.
                outer.before = inner.before;
                outer.rows.extend(inner.rows);
            }
            (None, false) => {
                return Err(format!(
                    "undo: {parent} is to have an image of {uid}, has none"
                ));
            }
        }
        Ok(())
    }

    /// The action is committed: says the rows it changed.
    pub(crate) fn release(&mut self, uid: Uid, action: Uid) -> Result<(), String> {
        self.overlay(uid, action)?;
        let image = self.images.get_mut(&uid).expect("it has an overlay");
        let overlay = image.overlays.remove(0);
        if overlay.action != action {
            return Err(format!("undo: {uid} is released for {action} out of order"));
        }
        if image.overlays.is_empty() {
            return Ok(());
        }
        Err(format!(
            "undo: {uid} is released for {action} before those within"
        ))
    }

    /// List and changed rows of an object that a top-level action is going to write.
    pub(crate) fn written(&self, uid: Uid, action: Uid) -> Result<(Vec<OpNo>, Rows, u64), String> {
        let image = self.images.get(&uid);
        let image = image.ok_or_else(|| format!("undo: {uid} is to be stored, no image"))?;
        match image.overlays.as_slice() {
            [only] if only.action == action => {
                Ok((image.list.clone(), only.rows.clone(), image.epoch))
            }
            overlays => Err(format!(
                "undo: {uid} is to be stored for {action}, but has {overlays:?}"
            )),
        }
    }

    /// The same for a call outside actions.
    pub(crate) fn flushed(&self, uid: Uid, ticket: Ticket) -> (Vec<OpNo>, Rows, u64) {
        let image = &self.images[&uid];
        let rows = self
            .scratches
            .get(&ticket)
            .map(|scratch| scratch.rows.clone());
        (image.list.clone(), rows.unwrap_or_default(), image.epoch)
    }

    /// A ticket is over.
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        self.scratches.remove(&ticket);
    }

    /// Rows as a reader sees them through all overlays must be the list.
    pub(crate) fn check_rows(&self, uid: Uid, stored: Option<&Rows>) -> Result<(), String> {
        let Some(image) = self.images.get(&uid) else {
            return Ok(());
        };
        for (row, op) in image.list.iter().enumerate() {
            let overlays = image.overlays.iter().rev().map(|overlay| &overlay.rows);
            let found = overlays.chain(stored).find_map(|rows| rows.get(&row));
            if found != Some(op) {
                return Err(format!(
                    "undo: {uid} is {:?}, but row {row} is {found:?}",
                    image.list
                ));
            }
        }
        Ok(())
    }
}
