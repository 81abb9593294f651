//! Batches: what is written to a store, all or nothing.

use bytes::Bytes;
use partha_core::action::path::Site;
use partha_core::id::{CallId, Uid};

use crate::StoreError;
use crate::format;
use crate::place::Place;
use crate::store::{Record, check_row};

/// Changes that are applied all or nothing, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes; each sees the effect of those before it.
    pub items: Vec<Item>,
}

impl Batch {
    /// A batch of these items.
    #[must_use]
    pub fn new(items: Vec<Item>) -> Self {
        Self { items }
    }

    /// Adds an item at the end.
    #[must_use]
    pub fn with(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    /// The size by which queues and transactions are limited, in bytes.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.items.iter().map(Item::weight_bytes).sum()
    }

    /// Whether nobody waits for it: it only removes what is not needed any more, and recovery does
    /// that again if it is lost; or it notes what would else be told once more.
    pub(crate) fn is_idle(&self) -> bool {
        let idle = |item: &Item| {
            matches!(
                item,
                Item::DeleteShadow { .. } | Item::Settle { .. } | Item::Told { .. }
            )
        };
        !self.items.is_empty() && self.items.iter().all(idle)
    }

    /// Whether it has what makes this step.
    pub(crate) fn has(&self, step: Step) -> bool {
        let has = |step| self.items.iter().any(|item| item.step() == Some(step));
        // A forward that only becomes shorter is decided on by nobody.
        has(step) && (step != Step::Depart || has(Step::Decide))
    }
}

impl From<Item> for Batch {
    fn from(item: Item) -> Self {
        Self { items: vec![item] }
    }
}

/// So many rows of an object are removed in the batch in which it goes; of one with more, all are
/// removed later.
pub const CLEAR_AT_ONCE: usize = 1024;

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A new object. A forward that is left of an earlier one goes. Refused with `Exists`, and
    /// with `Clearing` while rows of an earlier one are still being removed.
    Create {
        /// The object.
        uid: Uid,
        /// Its first record.
        record: Record,
    },
    /// A new state. Refused with `NoSuchObject`, or with `Fenced` when the record's epoch is
    /// older than the stored one or is not that of the current activation in this process.
    WriteState {
        /// The object.
        uid: Uid,
        /// The record that replaces the stored one.
        record: Record,
    },
    /// The object goes, with its rows, all shadows of it, and its place if that is here; a forward
    /// stays. Refused with `NoSuchObject`.
    ///
    /// Of an object with more than [`CLEAR_AT_ONCE`] rows these are removed afterwards, in steps,
    /// by the store itself and also in a later life of it. Nobody sees them from now on, and the
    /// object can be made again, or come again, when they are gone (`Clearing`).
    Delete {
        /// The object.
        uid: Uid,
    },
    /// Writes one row. Refused with `NoSuchObject`, `KeyTooLong`, `PartZero`.
    PutRow {
        /// The object.
        uid: Uid,
        /// The table of the object, from 1.
        part: u16,
        /// The key; rows are sorted by its bytes.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes one row; an absent one is fine. Refused with `NoSuchObject`, `PartZero`.
    RemoveRow {
        /// The object.
        uid: Uid,
        /// The table of the object, from 1.
        part: u16,
        /// The key.
        key: Bytes,
    },
    /// Saves the reply of a call, replacing one saved before.
    SaveReply {
        /// The call.
        call: CallId,
        /// The object that was called.
        uid: Uid,
        /// The encoded reply.
        body: Bytes,
        /// How long to keep it at least, in milliseconds of the wall clock.
        keep_ms: u64,
    },
    /// Writes a prepared state beside the committed one, for an object that is there.
    /// Refused with `NoSuchObject`, and with `Fenced` as `WriteState` is.
    WriteShadow {
        /// The action that prepared it.
        action: Uid,
        /// The object.
        uid: Uid,
        /// The prepared record.
        record: Record,
    },
    /// Writes the prepared state of an object that the action makes; nobody sees the object
    /// before `CommitShadow`. Refused with `Exists`, and with `Clearing` as `Create` is.
    CreateShadow {
        /// The action that prepared it.
        action: Uid,
        /// The object.
        uid: Uid,
        /// Its first record.
        record: Record,
    },
    /// Prepares the change of one row; nobody sees it before `CommitShadow`. A later one of the
    /// same row and action is done after it. Needs a shadow of the object by the same action,
    /// written before. Refused with `NoShadow`, `KeyTooLong`, `PartZero`, and with `TooManyRows`
    /// after 2^20 of the object and action: they are all installed in one transaction.
    ///
    /// Those of an object with a `ShadowPlace` are written to where they stay, so that installing
    /// them costs nothing, and there may be any number of them. Refused with `Exists`, too.
    ShadowRow {
        /// The action that prepared it.
        action: Uid,
        /// The object.
        uid: Uid,
        /// The table of the object, from 1.
        part: u16,
        /// The key.
        key: Bytes,
        /// The row's new value; none removes the row.
        value: Option<Bytes>,
    },
    /// Notes that the action is prepared here and who decides: what recovery needs to know
    /// beside the shadows. It belongs into the batch of the shadows, and goes with them.
    Prepare {
        /// The root action.
        action: Uid,
        /// Who decides.
        coordinator: Site,
    },
    /// All shadows of the action become the states, rows and places of their objects, and it is no
    /// longer prepared here. Never refused for an epoch: whatever was activated or restarted
    /// meanwhile, a prepared state is final once it is decided on; an activation that did not
    /// prepare it can write no more (`EarlierWriteFailed`). No shadow at all is fine, so that a
    /// repeated decision is harmless.
    ///
    /// An object that comes from another node gets an epoch between those of the activations here
    /// so far and of all later ones, whatever it had there.
    CommitShadow {
        /// The action.
        action: Uid,
    },
    /// All shadows of the action go, and it is no longer prepared here. None at all is fine.
    /// Rows of an object that was on its way here are removed as `Delete` does it.
    DeleteShadow {
        /// The action.
        action: Uid,
    },
    /// Records that the action is committed: the commit point, in one batch with what the action
    /// changed here. With participants it is kept until `Settle`, and from then on, or at once
    /// if there are none, for `keep_ms` at least.
    ///
    /// If this is answered with an error of which [`StoreError::outcome_unknown`] is true, the
    /// action may be committed: [`ObjectStore::read_decision`] tells, and nobody may be told
    /// anything before.
    Decide {
        /// The root action.
        action: Uid,
        /// Those that have prepared and are to be told.
        participants: Vec<Site>,
        /// How long to keep the outcome for those who ask, in milliseconds of the wall clock.
        keep_ms: u64,
    },
    /// Where an object is that has moved. With `Decide` and [`Item::Delete`] in one batch, before
    /// the latter, it is the end of the object's stay here; see [`crate::moving::departure`].
    ///
    /// A place says how often the object has moved by then, and is refused with `OlderPlace` if it
    /// has moved as often or more often by what is there, unless that says the same.
    PutPlace {
        /// The object.
        uid: Uid,
        /// Where it is.
        place: Place,
    },
    /// Where an object will be by `CommitShadow`: it is on its way here. Needs a shadow of the
    /// object by the same action, and belongs before its rows. Refused with `NoShadow`, `Exists`,
    /// `OlderPlace`, with `Clearing` as `Create` is, and with `Arriving` if another action has one.
    ShadowPlace {
        /// The action that moves it.
        action: Uid,
        /// The object.
        uid: Uid,
        /// Where it will be.
        place: Place,
    },
    /// The binder was told that the object is here after so many moves. Nothing happens if the
    /// object is not here after so many.
    Told {
        /// The object.
        uid: Uid,
        /// How often it had moved.
        moves: u64,
    },
    /// Nobody is to be told of the decision any more; its time to be kept begins. An unknown
    /// action, or one settled before, is fine.
    Settle {
        /// The root action.
        action: Uid,
    },
}

impl Item {
    fn step(&self) -> Option<Step> {
        match self {
            Self::Prepare { .. } => Some(Step::Prepare),
            Self::Decide { .. } => Some(Step::Decide),
            Self::CommitShadow { .. } => Some(Step::Install),
            Self::DeleteShadow { .. } => Some(Step::Undo),
            Self::Settle { .. } => Some(Step::Settle),
            Self::PutPlace { .. } => Some(Step::Depart),
            Self::ShadowPlace { .. } => Some(Step::Arrive),
            Self::Create { .. }
            | Self::WriteState { .. }
            | Self::Delete { .. }
            | Self::PutRow { .. }
            | Self::RemoveRow { .. }
            | Self::SaveReply { .. }
            | Self::WriteShadow { .. }
            | Self::CreateShadow { .. }
            | Self::ShadowRow { .. }
            | Self::Told { .. } => None,
        }
    }

    fn weight_bytes(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD
            + match self {
                Self::Create { record, .. }
                | Self::WriteState { record, .. }
                | Self::WriteShadow { record, .. }
                | Self::CreateShadow { record, .. } => record.state.len(),
                Self::PutRow { key, value, .. } => key.len() + value.len(),
                Self::RemoveRow { key, .. } => key.len(),
                Self::SaveReply { body, .. } => body.len(),
                Self::ShadowRow { key, value, .. } => {
                    key.len() + value.as_ref().map_or(0, Bytes::len)
                }
                Self::Decide { participants, .. } => participants.len() * format::SITE_BYTES,
                Self::Delete { .. }
                | Self::Prepare { .. }
                | Self::CommitShadow { .. }
                | Self::DeleteShadow { .. }
                | Self::Settle { .. }
                | Self::PutPlace { .. }
                | Self::ShadowPlace { .. }
                | Self::Told { .. } => 0,
            }
    }
}

/// What a batch is in the life of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// With a `Prepare`.
    Prepare,
    /// With a `Decide`.
    Decide,
    /// With a `CommitShadow`.
    Install,
    /// With a `DeleteShadow`.
    Undo,
    /// With a `Settle`.
    Settle,
    /// With a `PutPlace` and a `Decide`.
    Depart,
    /// With a `ShadowPlace`.
    Arrive,
}

impl Step {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 7] = [
        Self::Prepare,
        Self::Decide,
        Self::Install,
        Self::Undo,
        Self::Settle,
        Self::Depart,
        Self::Arrive,
    ];
}

/// Checks what can be told of a batch without looking into the store.
pub(crate) fn check_limits(batch: &Batch, batch_bytes_max: usize) -> Result<(), StoreError> {
    let weight = batch.weight_bytes();
    if weight > batch_bytes_max {
        return Err(StoreError::TooLarge {
            what: "a batch",
            len: weight,
            max: batch_bytes_max,
        });
    }
    for item in &batch.items {
        match item {
            Item::PutRow { uid, part, key, .. }
            | Item::RemoveRow { uid, part, key }
            | Item::ShadowRow { uid, part, key, .. } => {
                check_row(*uid, *part, key)?;
            }
            Item::Create { .. }
            | Item::WriteState { .. }
            | Item::Delete { .. }
            | Item::SaveReply { .. }
            | Item::WriteShadow { .. }
            | Item::CreateShadow { .. }
            | Item::Prepare { .. }
            | Item::CommitShadow { .. }
            | Item::DeleteShadow { .. }
            | Item::Decide { .. }
            | Item::Settle { .. }
            | Item::PutPlace { .. }
            | Item::ShadowPlace { .. }
            | Item::Told { .. } => {}
        }
    }
    Ok(())
}
