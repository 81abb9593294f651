//! The batches of a move, made from plain parts.
//!
//! At the node that an object comes to: [`Arrival::begin`], then [`Arrival::page`] as often as
//! there is something to write, then `CommitShadow` or `DeleteShadow` as its coordinator says. At
//! the node that it leaves: [`departure`], then `Settle` when the other one knows.

use partha_core::action::path::Site;
use partha_core::id::{NodeId, Uid};

use crate::batch::{Batch, Item};
use crate::place::{KeptReply, Place, Row};
use crate::store::Record;

/// An object on its way here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The action that moves it.
    pub action: Uid,
    /// Who decides: the shard that it comes from.
    pub coordinator: Site,
    /// The object.
    pub uid: Uid,
    /// How often it has moved when it is here.
    pub moves: u64,
}

impl Arrival {
    /// The first batch: who decides, the record, where the object will be. Its epoch is that of
    /// another node, and does not count.
    #[must_use]
    pub fn begin(&self, record: Record) -> Batch {
        let Self {
            action,
            coordinator,
            uid,
            moves,
        } = *self;
        let place = Place::Here {
            moves,
            from: coordinator.node,
            told: false,
        };
        Batch::new(vec![
            Item::Prepare {
                action,
                coordinator: coordinator.into(),
            },
            Item::CreateShadow {
                action,
                uid,
                record,
            },
            Item::ShadowPlace { action, uid, place },
        ])
    }

    /// A later batch: some rows and saved replies.
    #[must_use]
    pub fn page(
        &self,
        rows: impl IntoIterator<Item = Row>,
        replies: impl IntoIterator<Item = KeptReply>,
    ) -> Batch {
        let rows = rows.into_iter().map(|row| {
            let Row { part, key, value } = row;
            Item::ShadowRow {
                action: self.action,
                uid: self.uid,
                part,
                key,
                value: Some(value),
            }
        });
        let replies = replies.into_iter().map(|reply| {
            let KeptReply {
                call,
                uid,
                body,
                keep_ms,
            } = reply;
            Item::SaveReply {
                call,
                uid,
                body,
                keep_ms,
            }
        });
        Batch::new(rows.chain(replies).collect())
    }
}

/// The end of an object's stay: the decision that it moves to `to`, with the forward in its place.
#[must_use]
pub fn departure(action: Uid, uid: Uid, to: Site, moves: u64, keep_ms: u64) -> Batch {
    Batch::new(vec![
        Item::PutPlace {
            uid,
            place: forward(to.node, moves),
        },
        Item::Delete { uid },
        Item::Decide {
            action,
            participants: vec![to],
            groups: Vec::new(),
            keep_ms,
        },
    ])
}

/// A forward, also to put a shorter one in the place of a longer.
#[must_use]
pub fn forward(to: NodeId, moves: u64) -> Place {
    Place::Gone { to, moves }
}
