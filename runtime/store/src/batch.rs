//! Batches: what is written to a store, all or nothing.

mod check;

use bytes::Bytes;
use partha_core::action::path::{Coordinator, Site};
use partha_core::group::{Stamp, View};
use partha_core::id::{CallId, Uid};

use crate::format;
use crate::group::GroupCheckpoint;
use crate::place::{KeptReply, Place, Row};
use crate::store::Record;

pub(crate) use self::check::check_limits;

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

    /// Whether it only lets staged entries become parts of objects: a crash takes nothing back that
    /// is not done again, so it need not be on disk before what is written later.
    pub(crate) fn only_installs(&self) -> bool {
        let installs = |item: &Item| matches!(item, Item::GroupInstall { .. });
        !self.items.is_empty() && self.items.iter().all(installs)
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
        coordinator: Coordinator,
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
    /// changed here. With participants or groups it is kept until `Settle`, and from then on, or at
    /// once if there are none, for `keep_ms` at least.
    ///
    /// If this is answered with an error of which [`crate::StoreError::outcome_unknown`] is true,
    /// the action may be committed: [`crate::ObjectStore::read_decision`] tells, and nobody may be
    /// told anything before.
    Decide {
        /// The root action.
        action: Uid,
        /// Those that have prepared and are to be told.
        participants: Vec<Site>,
        /// Replicated objects with a part of the action, whose groups are to be told.
        groups: Vec<Uid>,
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
    /// A copy of a group is here from now on: of the object that is here, which is the group's
    /// first state, or without a state, for a copy to come. Refused with `GroupExists`; with
    /// `NoSuchObject` if the object is not here, or `Exists` if it is; and with `Arriving`.
    ///
    /// From now on the object is changed by `GroupInstall` and `GroupSnapshot`. Nothing else is
    /// refused, and nothing else is right.
    JoinGroup {
        /// The object.
        uid: Uid,
        /// The view.
        view: View,
        /// Whether the object is here.
        has_state: bool,
    },
    /// A change of a copy's log: what is behind an index goes, then entries are staged behind what
    /// is left. Refused whole with `OutOfStep` unless they follow each other and the last one that
    /// is left, or if what is installed would go; with `BadEntry` if bytes are no entry about this
    /// object; with `OlderView` if a newer view is known here; with `NoSuchGroup`.
    GroupLog {
        /// The object.
        uid: Uid,
        /// The view from now on.
        view: View,
        /// Entries with a higher index go; none if no entry does.
        truncate: Option<u64>,
        /// What is added, with what [`crate::entry::encode`] made.
        add: Vec<(Stamp, Bytes)>,
    },
    /// Staged entries become a part of the object, up to this index, in order. What is installed
    /// already is fine. Never refused for an epoch: an entry that is complete is final, and the
    /// object's epoch is between those of the activations here so far and of all later ones.
    /// Refused with `BrokenCopy` if an entry is missing or damaged, or the state is: what the
    /// other copies have taken cannot be taken here. Nothing was written then, and the copy is to
    /// leave and to join again. Refused with `NoSuchGroup`.
    ///
    /// A batch of these alone may be answered as soon as it can be read, without waiting for the
    /// disk: the entries are there, and what a crash takes back is installed again. It is on disk
    /// before whatever is written later.
    GroupInstall {
        /// The object.
        uid: Uid,
        /// The last entry to be installed.
        index: u64,
    },
    /// A page of a state that takes the place of a copy's state and log. The first page removes
    /// what is here, and the copy has no state until the last page, which has the record. One that
    /// does not follow the page before it, or is of another snapshot than the one being taken, is
    /// `OutOfStep`: pages may be submitted one behind the other, and if one is refused, so are all
    /// behind it. Refused with `OlderView`, `NoSuchGroup`, and with `BadEntry` for a reply of
    /// another object, or for actions that are none.
    ///
    /// Rows of an earlier state are removed at once if they are few ([`CLEAR_AT_ONCE`]); else the
    /// first page has to come without rows and not be the last one, and later ones are refused with
    /// `Clearing` until those rows are gone, which goes on by itself.
    GroupSnapshot {
        /// The object.
        uid: Uid,
        /// The view from now on.
        view: View,
        /// The last entry in the state.
        at: Stamp,
        /// The object's record: needed in the last page, and not looked at in others. Its epoch
        /// does not count.
        record: Option<Record>,
        /// Some rows.
        rows: Vec<Row>,
        /// Some saved replies.
        replies: Vec<KeptReply>,
        /// Some of what is about actions, as [`crate::ObjectStore::export_actions`] tells it: an
        /// entry of `PreparePart`, `DecideGroup` and `CheckpointGroup`, or nothing.
        actions: Option<Bytes>,
        /// Which page it is, counted from 0.
        page: u32,
        /// It is the last page.
        last: bool,
    },
    /// The copy ends, with its log: entries that are not installed are lost. The object stays, as
    /// one without copies, or goes as with `Delete`; one without a whole state goes always. Where
    /// there is no copy nothing happens, not even to the object.
    ///
    /// An object with a part or with a decision that is not settled cannot stay: refused with
    /// `UnfinishedAction`. Settled decisions stay with it for their time, and go with it.
    LeaveGroup {
        /// The object.
        uid: Uid,
        /// Whether the object stays.
        keep_object: bool,
    },
    /// *In entries only*, as all that follow; elsewhere it is refused with `BadEntry`. What an
    /// action has prepared at a replicated object: its *part*. It waits in a row of the group for
    /// `EndPart`. An object has one part at most: `GroupLog` refuses an entry with a part of
    /// another action before that one's end with `OutOfStep`. One of the same action takes the
    /// place of what is there.
    PreparePart {
        /// The object.
        uid: Uid,
        /// The root action.
        action: Uid,
        /// Who decides.
        coordinator: Coordinator,
        /// What it changes: an entry of `WriteState`, `PutRow` and `RemoveRow`.
        body: Bytes,
    },
    /// The action has ended: the object's part of it becomes a part of the object, or goes. Nothing
    /// happens without a part of this action: whoever leads the group next says it once more, if
    /// it is not sure that this was said.
    EndPart {
        /// The object.
        uid: Uid,
        /// The root action.
        action: Uid,
        /// Whether it is committed.
        commit: bool,
    },
    /// As `Decide`, in the log of this object, the action's *decider*: an entry with what the
    /// action changed of it, and with this, is the commit point.
    DecideGroup {
        /// The decider.
        uid: Uid,
        /// The root action.
        action: Uid,
        /// Sites that have prepared and are to be told.
        participants: Vec<Site>,
        /// Replicated objects with a part of the action, whose groups are to be told.
        groups: Vec<Uid>,
        /// How long to keep the outcome for those who ask, in milliseconds of the wall clock.
        keep_ms: u64,
    },
    /// As `Settle`, of a decision in the log of this object.
    SettleGroup {
        /// The decider.
        uid: Uid,
        /// The root action.
        action: Uid,
    },
    /// What running actions have of the object: it takes the place of the checkpoint that is there.
    /// An action goes out of it by `PreparePart` and by `DecideGroup`. One with nothing in it is
    /// none.
    CheckpointGroup {
        /// The object.
        uid: Uid,
        /// The checkpoint. Of one that names an action twice the entry is refused with `BadEntry`.
        checkpoint: GroupCheckpoint,
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
            Self::GroupLog { .. } => Some(Step::Stage),
            Self::GroupInstall { .. } => Some(Step::Apply),
            Self::GroupSnapshot { .. } => Some(Step::Snapshot),
            Self::Create { .. }
            | Self::WriteState { .. }
            | Self::Delete { .. }
            | Self::PutRow { .. }
            | Self::RemoveRow { .. }
            | Self::SaveReply { .. }
            | Self::WriteShadow { .. }
            | Self::CreateShadow { .. }
            | Self::ShadowRow { .. }
            | Self::Told { .. }
            | Self::JoinGroup { .. }
            | Self::LeaveGroup { .. }
            | Self::PreparePart { .. }
            | Self::EndPart { .. }
            | Self::DecideGroup { .. }
            | Self::SettleGroup { .. }
            | Self::CheckpointGroup { .. } => None,
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
                Self::Decide {
                    participants,
                    groups,
                    ..
                }
                | Self::DecideGroup {
                    participants,
                    groups,
                    ..
                } => format::decision_bytes(participants.len(), groups.len()),
                Self::PreparePart { body, .. } => body.len(),
                Self::CheckpointGroup { checkpoint, .. } => format::checkpoint_len(checkpoint),
                Self::GroupLog { add, .. } => {
                    add.iter().map(|(_, bytes)| OVERHEAD + bytes.len()).sum()
                }
                Self::GroupSnapshot {
                    record,
                    rows,
                    replies,
                    actions,
                    ..
                } => {
                    let actions = actions.as_ref().map_or(0, Bytes::len);
                    let record = record.as_ref().map_or(0, |record| record.state.len());
                    let row = |row: &Row| OVERHEAD + row.key.len() + row.value.len();
                    let rows: usize = rows.iter().map(row).sum();
                    let reply = |reply: &KeptReply| OVERHEAD + reply.body.len();
                    record + actions + rows + replies.iter().map(reply).sum::<usize>()
                }
                Self::Delete { .. }
                | Self::Prepare { .. }
                | Self::CommitShadow { .. }
                | Self::DeleteShadow { .. }
                | Self::Settle { .. }
                | Self::PutPlace { .. }
                | Self::ShadowPlace { .. }
                | Self::Told { .. }
                | Self::JoinGroup { .. }
                | Self::GroupInstall { .. }
                | Self::LeaveGroup { .. }
                | Self::EndPart { .. }
                | Self::SettleGroup { .. } => 0,
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
    /// With a `GroupLog`.
    Stage,
    /// With a `GroupInstall`.
    Apply,
    /// With a `GroupSnapshot`.
    Snapshot,
}

impl Step {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 10] = [
        Self::Prepare,
        Self::Decide,
        Self::Install,
        Self::Undo,
        Self::Settle,
        Self::Depart,
        Self::Arrive,
        Self::Stage,
        Self::Apply,
        Self::Snapshot,
    ];
}
