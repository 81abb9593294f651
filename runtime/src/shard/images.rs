//! Before-images: what an action must leave behind if it is aborted.
//!
//! Each object that an action has changed has a stack of *levels*, outermost action first. A
//! level keeps the encoded state from before its first change, and the rows that were changed
//! since, on top of those of the levels beneath; the object itself holds what the innermost one
//! has made of it. The engine says when a level begins, ends, or becomes its parent's; only one
//! line of actions can have changed an object at a time, so that a stack is enough.

use std::sync::Arc;

use bytes::Bytes;
use partha_core::Ticket;
use partha_core::id::Uid;
use partha_store::Item;

use super::Shard;
use super::catalog::Active;
use crate::error::SystemError;
use crate::hash::IdMap;
use crate::rows::Changes;

/// The before-images of a shard.
#[derive(Default)]
pub(super) struct Images {
    objects: IdMap<Uid, Vec<Level>>,
}

/// What one action has changed of one object.
struct Level {
    action: Uid,
    before: Before,
    rows: Arc<Changes>,
}

/// How an object was before an action changed it.
#[derive(Clone)]
enum Before {
    /// It did not exist.
    Absent,
    /// The encoded state.
    State(Bytes),
    /// Its state could not be encoded: it cannot be put back.
    Lost,
}

impl Images {
    fn begin(&mut self, uid: Uid, action: Uid, before: Before) {
        let rows = Arc::default();
        self.objects.entry(uid).or_default().push(Level {
            action,
            before,
            rows,
        });
    }

    fn has(&self, uid: Uid, action: Uid) -> bool {
        let levels = self.objects.get(&uid);
        levels.is_some_and(|levels| levels.iter().any(|level| level.action == action))
    }

    /// Ends a level with all within it, and says how the object was before.
    fn end(&mut self, uid: Uid, action: Uid) -> Option<Before> {
        let levels = self.objects.get_mut(&uid)?;
        let at = levels.iter().position(|level| level.action == action)?;
        let before = levels[at].before.clone();
        levels.truncate(at);
        if levels.is_empty() {
            self.objects.remove(&uid);
        }
        Some(before)
    }

    fn inherit(&mut self, uid: Uid, child: Uid, parent: Uid, keep: bool) {
        let Some(levels) = self.objects.get_mut(&uid) else {
            return;
        };
        let Some(at) = levels.iter().position(|level| level.action == child) else {
            return;
        };
        let beneath = levels[..at].iter().position(|level| level.action == parent);
        match beneath {
            None => levels[at].action = parent,
            Some(beneath) => {
                let child = levels.remove(at);
                let level = &mut levels[beneath];
                let rows = Arc::unwrap_or_clone(child.rows);
                Arc::make_mut(&mut level.rows).extend(rows);
                if keep {
                    tracing::error!(%uid, %parent, "two before-images for one action");
                }
            }
        }
    }

    fn keep(&mut self, uid: Uid, action: Uid, rows: Changes) {
        let levels = self.objects.get_mut(&uid);
        let level = levels.and_then(|levels| levels.iter_mut().find(|l| l.action == action));
        match level {
            Some(level) => Arc::make_mut(&mut level.rows).extend(rows),
            None if rows.is_empty() => {}
            None => tracing::error!(%uid, %action, "rows of an action without a before-image"),
        }
    }

    /// What the actions have changed of an object's rows, outermost first.
    pub(super) fn overlays(&self, uid: Uid) -> Vec<Arc<Changes>> {
        let levels = self.objects.get(&uid).map_or(&[][..], Vec::as_slice);
        let changed = levels.iter().filter(|level| !level.rows.is_empty());
        changed.map(|level| level.rows.clone()).collect()
    }

    /// All rows that the actions have changed.
    pub(super) fn rows(&self, uid: Uid) -> Changes {
        let mut all = Changes::new();
        for rows in self.overlays(uid) {
            all.extend(Arc::unwrap_or_clone(rows));
        }
        all
    }

    /// What the actions have changed of an object, outermost first: the state before and the rows
    /// since. None if one of them cannot be undone, or has made the object.
    pub(super) fn exported(&self, uid: Uid) -> Option<Vec<(Uid, Bytes, Arc<Changes>)>> {
        let levels = self.objects.get(&uid).map_or(&[][..], Vec::as_slice);
        let export = |level: &Level| match &level.before {
            Before::State(state) => Some((level.action, state.clone(), level.rows.clone())),
            Before::Absent | Before::Lost => None,
        };
        levels.iter().map(export).collect()
    }

    /// The same at the node that the object has come to.
    pub(super) fn import(&mut self, uid: Uid, levels: Vec<(Uid, Bytes, Changes)>) {
        if levels.is_empty() {
            return;
        }
        let import = |(action, before, rows): (Uid, Bytes, Changes)| Level {
            action,
            before: Before::State(before),
            rows: Arc::new(rows),
        };
        self.objects
            .insert(uid, levels.into_iter().map(import).collect());
    }

    /// The object is not in memory any more.
    pub(super) fn forget(&mut self, uid: Uid) {
        if !self.objects.is_empty() {
            self.objects.remove(&uid);
        }
    }
}

impl Shard {
    /// Keeps the present state of an object as the before-image of an action.
    pub(super) fn capture(&self, uid: Uid, action: Uid) {
        let mut images = self.images.borrow_mut();
        if images.has(uid, action) {
            return;
        }
        let mut catalog = self.catalog.borrow_mut();
        let before = match catalog.active(uid).map(Active::encoded) {
            _ if catalog.volatile(uid).is_some() => return,
            None => Before::Absent,
            Some(Ok(state)) => Before::State(state),
            Some(Err(error)) => {
                tracing::error!(%uid, %error, "no before-image can be made");
                Before::Lost
            }
        };
        images.begin(uid, action, before);
    }

    /// What to put back if the write that begins now fails.
    pub(super) fn before_call(&self, uid: Uid) -> Option<Bytes> {
        let mut catalog = self.catalog.borrow_mut();
        let active = catalog.active(uid)?;
        let encoded = active.encoded();
        encoded
            .inspect_err(|error| tracing::error!(%uid, %error, "no before-image can be made"))
            .ok()
    }

    /// A write in an action failed or raised: the object is as before it, and so are its rows.
    pub(super) fn undo(&self, ticket: Ticket, uid: Uid) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.find_mut(ticket) else {
            return;
        };
        entry.rows.clear();
        entry.record = None;
        let (before, makes) = (entry.before.take(), entry.makes());
        let mutating = entry.method.mutating;
        drop(entries);
        match before {
            _ if makes => self.drop_image(uid),
            Some(state) => self.put_back(uid, *state),
            None if mutating => self.catalog.borrow_mut().lose(uid),
            None => {}
        }
    }

    /// A write in an action has ended well.
    pub(super) fn keep(&self, ticket: Ticket, uid: Uid, action: Uid) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.find_mut(ticket) {
            let rows = std::mem::take(&mut entry.rows);
            self.images.borrow_mut().keep(uid, action, rows);
        }
    }

    /// An action is aborted: the object is as before it.
    pub(super) fn restore(&self, uid: Uid, action: Uid) {
        let before = self.images.borrow_mut().end(uid, action);
        match before {
            None => {}
            Some(Before::State(state)) => self.put_back(uid, state),
            Some(Before::Absent) => self.drop_image(uid),
            Some(Before::Lost) => self.catalog.borrow_mut().lose(uid),
        }
        self.settle(uid);
    }

    /// A nested action has committed.
    pub(super) fn inherit(&self, uid: Uid, child: Uid, parent: Uid, keep: bool) {
        let mut images = self.images.borrow_mut();
        images.inherit(uid, child, parent, keep);
    }

    /// An action is committed: what it made of the object is the object.
    pub(super) fn release(&self, uid: Uid, action: Uid) {
        let had = self.images.borrow_mut().end(uid, action).is_some();
        if had && let Some(active) = self.catalog.borrow_mut().active(uid) {
            active.released();
        }
        self.settle(uid);
    }

    /// What an action has made of an object, for the store: its next record and its rows.
    pub(super) fn written(&self, uid: Uid) -> Result<(partha_store::Record, Changes), SystemError> {
        let mut catalog = self.catalog.borrow_mut();
        let missing = || {
            let detail = format!("object {uid} is to be written but is not in memory");
            SystemError::new(crate::error::ErrorKind::Internal, detail)
        };
        let active = catalog.active(uid).ok_or_else(missing)?;
        let record = active.record_of_action()?;
        Ok((record, self.images.borrow().rows(uid)))
    }

    /// Without an action that has changed it, an object is not kept in two forms.
    fn settle(&self, uid: Uid) {
        if !self.images.borrow().objects.contains_key(&uid)
            && let Some(active) = self.catalog.borrow_mut().active(uid)
        {
            active.forget_encoded();
        }
    }

    fn put_back(&self, uid: Uid, state: Bytes) {
        let mut catalog = self.catalog.borrow_mut();
        if let Err(error) = catalog.put_back(uid, state) {
            tracing::error!(%uid, %error, "a state of this process is unreadable");
            catalog.lose(uid);
        }
    }
}

/// Changed rows of an object as items of a prepared action's batch.
pub(super) fn shadow_rows(action: Uid, uid: Uid, changes: Changes) -> impl Iterator<Item = Item> {
    changes
        .into_iter()
        .map(move |((part, key), value)| Item::ShadowRow {
            action,
            uid,
            part,
            key,
            value,
        })
}

#[cfg(test)]
mod tests {
    use partha_core::id::NodeId;

    use super::*;

    fn uid(local: u64) -> Uid {
        Uid {
            node: NodeId(1),
            local,
        }
    }

    fn state(text: &'static str) -> Before {
        Before::State(Bytes::from_static(text.as_bytes()))
    }

    fn row(key: &'static str, value: &'static str) -> Changes {
        Changes::from([((1, Bytes::from(key)), Some(Bytes::from(value)))])
    }

    fn text(before: Option<Before>) -> String {
        match before {
            Some(Before::State(state)) => String::from_utf8(state.to_vec()).unwrap(),
            Some(Before::Absent) => "absent".to_owned(),
            Some(Before::Lost) => "lost".to_owned(),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn a_child_gives_its_image_to_a_parent_that_has_none() {
        let (mut images, object) = (Images::default(), uid(9));
        images.begin(object, uid(2), state("first"));
        images.keep(object, uid(2), row("a", "child"));
        images.inherit(object, uid(2), uid(1), true);
        assert_eq!(images.rows(object), row("a", "child"));
        assert_eq!(text(images.end(object, uid(2))), "none");
        assert_eq!(text(images.end(object, uid(1))), "first");
        assert!(images.objects.is_empty());
    }

    #[test]
    fn a_parents_older_image_stays_and_the_childs_rows_lie_on_top() {
        let (mut images, object) = (Images::default(), uid(9));
        images.begin(object, uid(1), state("oldest"));
        let mut both = row("a", "parent");
        both.extend(row("b", "parent"));
        images.keep(object, uid(1), both);
        images.begin(object, uid(2), state("older"));
        images.keep(object, uid(2), row("a", "child"));
        assert_eq!(images.overlays(object).len(), 2);
        images.inherit(object, uid(2), uid(1), false);
        let mut expected = row("a", "child");
        expected.extend(row("b", "parent"));
        assert_eq!(images.rows(object), expected);
        assert_eq!(text(images.end(object, uid(1))), "oldest");
    }

    #[test]
    fn an_aborted_child_leaves_what_its_parent_did() {
        let (mut images, object) = (Images::default(), uid(9));
        images.begin(object, uid(1), Before::Absent);
        images.keep(object, uid(1), row("a", "parent"));
        images.begin(object, uid(2), state("made"));
        images.keep(object, uid(2), row("a", "child"));
        assert_eq!(text(images.end(object, uid(2))), "made");
        assert_eq!(images.rows(object), row("a", "parent"));
        assert_eq!(text(images.end(object, uid(1))), "absent");
    }

    #[test]
    fn the_end_of_an_outer_action_ends_those_within() {
        let (mut images, object) = (Images::default(), uid(9));
        images.begin(object, uid(1), state("outer"));
        images.begin(object, uid(2), state("inner"));
        assert_eq!(text(images.end(object, uid(1))), "outer");
        assert_eq!(text(images.end(object, uid(2))), "none");
    }
}
