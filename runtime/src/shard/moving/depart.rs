//! The source of a move: what the engine has frozen is read and sent, page by page.
//!
//! | what happens | what is done |
//! |---|---|
//! | `Ship` | the record is sent, rows, replies that were saved since those sent before the freeze, images and the present state, at last the cargo, in as few pages as have room for them; each page when the one before is on disk at the target |
//! | the last page is answered | `Shipped` with the numbers of the mirrors there |
//! | a page is refused or lost | `Shipped` with the reason: the engine lets the object serve on and tells the target |
//! | `Stays` | what is being sent is dropped, whoever wanted the move is told why |
//! | `Departed` | the image goes, whoever wanted the move is told; the node it once came from hears of it |

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::Input;
use partha_core::action::path::{Joined, Site};
use partha_core::id::{NodeId, Peer, Uid};
use partha_core::migrate::{Cargo, NotShipped, Stays};
use partha_store::{KeptReply, Place, ReplyCursor, Row, StoreError};
use tokio::sync::oneshot;

use super::cargo::call_name;
use super::reasons::{NotMoved, Stopped, reason, stopped, unreadable};
use super::room::{ENTRY_BYTES, cargo_bytes, row_bytes};
use crate::abi::Transient;
use crate::capability::Capability;
use crate::client::Client;
use crate::config::CALL_DEADLINE;
use crate::error::SystemError;
use crate::hash::shard_of;
use crate::moved::{MOVES_MAX, Moved};
use crate::net::connection::Connection;
use crate::node::reply_keep_ms;
use crate::rows::Changes;
use crate::shard::{Shard, count};
use crate::system::{
    ConnectionManager, MovedPart, MovingImage, MovingPage, MovingRecord, MovingReply, MovingRow,
};

/// Bytes of rows, replies or images in a page; a single one may be larger.
const PAGE_BYTES: usize = 512 * 1024;
/// How long it is tried to tell the node that an object once came from where it went.
const RELOCATED: Duration = Duration::from_secs(30);

/// Where to an object is to go, and how.
pub(crate) struct Journey {
    pub(crate) object: Uid,
    /// How often it had moved when its replies were sent.
    pub(crate) moves: u64,
    /// To the target, in the life in which the object goes there.
    pub(crate) connection: Arc<Connection>,
    /// Saved replies were sent up to here.
    pub(crate) replies: ReplyCursor,
    pub(crate) until: Instant,
}

/// An object that is to leave.
pub(super) struct Departure {
    action: Uid,
    journey: Rc<Journey>,
    /// How often it will have moved.
    moves: u64,
    /// The node that it came from, if it has moved before.
    from: Option<NodeId>,
    waiting: Vec<oneshot::Sender<Result<u64, NotMoved>>>,
    /// What is being sent.
    shipping: Option<tokio::task::AbortHandle>,
    /// What the target has said against it.
    refusal: Option<NotMoved>,
}

impl Departure {
    pub(super) fn is(&self, action: Uid) -> bool {
        self.action == action
    }

    /// How often the object will have moved.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }
}

impl Shard {
    /// An object is to move. Whoever wants that is told what became of it.
    pub(crate) fn depart(
        self: &Rc<Self>,
        journey: Journey,
        action: Uid,
        waiting: oneshot::Sender<Result<u64, NotMoved>>,
    ) {
        let (object, hello) = (journey.object, journey.connection.hello());
        let (peer, shards) = (hello.peer, hello.shards);
        let until = self.time_of(journey.until);
        let refuse = |waiting: oneshot::Sender<_>, reason, passing| {
            // Whoever asked may be gone.
            let _ = waiting.send(Err(NotMoved::Not { reason, passing }));
        };
        let mut moves = self.moves.borrow_mut();
        if let Some(departure) = moves.departures.get_mut(&object) {
            let towards = departure.journey.connection.peer().node;
            if towards == peer.node {
                departure.waiting.push(waiting);
                return;
            }
            let reason = format!("it is on its way to node {towards} already");
            return refuse(waiting, reason, true);
        }
        if self.is_or_becomes_group(object) {
            return refuse(waiting, "it is just getting copies".to_owned(), true);
        }
        let (moves_so_far, from) = match self.present_place(object) {
            Ok(found) => found,
            Err(error) => {
                // Whoever asked may be gone.
                let _ = waiting.send(Err(NotMoved::Failed(error)));
                return;
            }
        };
        // In another stay there are other replies.
        let reason = match moves_so_far {
            moves if moves != journey.moves => Some(("it has moved meanwhile".to_owned(), true)),
            MOVES_MAX.. => Some((format!("it has moved {MOVES_MAX} times"), false)),
            _ => None,
        };
        if let Some((reason, passing)) = reason {
            return refuse(waiting, reason, passing);
        }
        let departure = Departure {
            action,
            journey: Rc::new(journey),
            moves: moves_so_far + 1,
            from,
            waiting: vec![waiting],
            shipping: None,
            refusal: None,
        };
        moves.departures.insert(object, departure);
        drop(moves);
        let to = Site {
            node: peer.node,
            shard: shard_of(object, shards),
        };
        tracing::debug!(%object, %action, ?to, "is to move");
        self.feed(Input::Depart {
            uid: object,
            action,
            to,
            to_incarnation: peer.incarnation,
            until,
        });
    }

    /// The object is frozen: it is sent.
    pub(super) fn ship(self: &Rc<Self>, uid: Uid, action: Uid, cargo: Cargo) {
        let mut moves = self.moves.borrow_mut();
        let departure = moves.departures.get_mut(&uid);
        let Some(departure) = departure.filter(|departure| departure.is(action)) else {
            let result = Err(NotShipped::Absent);
            tracing::error!(%uid, %action, "an object that was not to move is to be sent");
            self.later(Input::Shipped {
                uid,
                action,
                result,
            });
            return;
        };
        let sending = Sending {
            shard: self.clone(),
            journey: departure.journey.clone(),
            moves: departure.moves,
            action,
            number: 0,
            filled: None,
            filled_bytes: 0,
        };
        let shard = self.clone();
        let local = self.local.upgrade();
        let local = local.expect("its tasks do not outlive the thread's set of them");
        let task = local.spawn_local(async move {
            let shipped = sending.send(cargo).await;
            let result = shipped.map_err(|(why, refusal)| {
                tracing::debug!(%uid, %action, ?why, ?refusal, "not shipped");
                let mut moves = shard.moves.borrow_mut();
                if let Some(departure) = moves.departures.get_mut(&uid).filter(|d| d.is(action)) {
                    departure.refusal = Some(refusal);
                }
                why
            });
            shard.feed(Input::Shipped {
                uid,
                action,
                result,
            });
        });
        departure.shipping = Some(task.abort_handle());
    }

    /// It serves on here.
    pub(super) fn stays(&self, uid: Uid, action: Uid, why: Stays) {
        let Some(departure) = self.take_departure(uid, action) else {
            return;
        };
        if let Some(shipping) = departure.shipping {
            shipping.abort();
        }
        count(&self.counters.moves_failed);
        let node = departure.journey.connection.peer().node;
        tracing::info!(%uid, to = %node, ?why, "does not move");
        let why = departure.refusal.unwrap_or_else(|| reason(why, node));
        for waiting in departure.waiting {
            // Whoever asked may be gone.
            let _ = waiting.send(Err(why.copied()));
        }
    }

    /// It is the target's now.
    pub(super) fn departed(&self, uid: Uid, action: Uid) {
        self.drop_image(uid);
        count(&self.counters.moved_out);
        let Some(departure) = self.take_departure(uid, action) else {
            return;
        };
        let Departure {
            moves,
            journey,
            from,
            waiting,
            ..
        } = departure;
        let to = Moved {
            node: journey.connection.peer().node,
            addresses: vec![journey.connection.address().to_owned()],
            moves,
        };
        tracing::info!(%uid, to = %to.node, moves, "has moved away");
        self.client.locator().moved().note(uid, &to);
        for waiting in waiting {
            // Whoever asked may be gone.
            let _ = waiting.send(Ok(moves));
        }
        if let (Some(from), Some(local)) = (from, self.local.upgrade())
            && from != to.node
            && from != self.registry.me.node
        {
            local.spawn_local(tell_origin(self.client.clone(), from, uid, to));
        }
    }

    /// How often an object of this shard has moved, and from where it came if it has; or why it is
    /// not here.
    fn present_place(&self, object: Uid) -> Result<(u64, Option<NodeId>), SystemError> {
        if self.forward(object)?.is_some() {
            return Err(self.not_here(object));
        }
        let (moves, from) = self.came_from(object);
        Ok((moves, (moves > 0).then_some(from)))
    }

    /// Whether an object is just going from here, or coming.
    pub(in crate::shard) fn is_on_its_way(&self, uid: Uid) -> bool {
        let moves = self.moves.borrow();
        moves.departures.contains_key(&uid) || moves.arrivals.contains_key(&uid)
    }

    fn take_departure(&self, uid: Uid, action: Uid) -> Option<Departure> {
        let mut moves = self.moves.borrow_mut();
        let is = moves.departures.get(&uid).is_some_and(|d| d.is(action));
        is.then(|| moves.departures.remove(&uid)).flatten()
    }

    /// The object went to `to` from the node that the forward here names: the forward names `to`
    /// from now on.
    pub(crate) fn relocated(&self, teller: Peer, object: Uid, to: &Moved) {
        let Some(store) = &self.registry.store else {
            return;
        };
        let is_told_by_it = match store.read_place(object) {
            Ok(Some(Place::Gone { to, .. })) => to == teller.node,
            Ok(Some(Place::Here { .. }) | None) => false,
            Err(error) => {
                tracing::warn!(%object, %error, "a forward cannot be read");
                false
            }
        };
        if !is_told_by_it || to.node == self.registry.me.node {
            tracing::debug!(%object, teller = %teller.node, %to, "is not for that node to say");
            return;
        }
        let place = partha_store::moving::forward(to.node, to.moves);
        let uid = object;
        let done = move |result: Result<(), StoreError>| match result {
            // Something newer is known.
            Ok(()) | Err(StoreError::OlderPlace { .. }) => {}
            Err(error) => tracing::warn!(%uid, %error, "a forward was not made shorter"),
        };
        store.submit(
            partha_store::Item::PutPlace { uid, place }.into(),
            Box::new(done),
        );
        self.client.locator().moved().note(object, to);
    }
}

/// Tells the node that an object once came from where it is now. It is a favour: without it, who
/// asks there gets to the object all the same, over this node.
async fn tell_origin(client: Client, from: NodeId, object: Uid, to: Moved) {
    let telling = async {
        let shard = crate::wire::message::Shard::Of(object);
        let connection = client.locator().connect_shard(&client, from, shard).await?;
        let manager = ConnectionManager::from_capability(Capability::manager(connection));
        manager
            .relocated(&client, object, to.node.0, &to.addresses, to.moves)
            .await
    };
    match tokio::time::timeout(RELOCATED, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%object, %from, %error, "not told of a move"),
        Err(_) => tracing::debug!(%object, %from, "not told of a move in time"),
    }
}

/// What is being sent.
struct Sending {
    shard: Rc<Shard>,
    journey: Rc<Journey>,
    moves: u64,
    action: Uid,
    number: u32,
    /// What goes next.
    filled: Option<MovingPage>,
    filled_bytes: usize,
}

impl Sending {
    async fn send(mut self, cargo: Cargo) -> Result<Vec<(Uid, Joined)>, Stopped> {
        self.begin().await?;
        self.send_rows().await?;
        self.send_replies().await?;
        if cargo.has_images() {
            self.send_images(&cargo).await?;
        }
        let written = self.shard.write_cargo(&cargo);
        self.page_for(cargo_bytes(&cargo)).await?.cargo = Some(written);
        let parts = self.send_filled().await?;
        Ok(parts.into_iter().map(joined).collect())
    }

    /// The page that has room for so much more: another one goes first if need be.
    async fn page_for(&mut self, bytes: usize) -> Result<&mut MovingPage, Stopped> {
        if self.filled_bytes > 0 && self.filled_bytes + bytes > PAGE_BYTES {
            self.send_filled().await?;
        }
        self.filled_bytes += bytes;
        let empty = self.page();
        Ok(self.filled.get_or_insert(empty))
    }

    async fn send_filled(&mut self) -> Result<Vec<MovedPart>, Stopped> {
        self.filled_bytes = 0;
        match self.filled.take() {
            Some(page) => self.stage(page).await,
            None => Ok(Vec::new()),
        }
    }

    fn page(&self) -> MovingPage {
        empty_page(
            self.journey.object,
            self.action,
            self.shard.handle.index(),
            self.number,
        )
    }

    /// The first page has the record.
    async fn begin(&mut self) -> Result<(), Stopped> {
        let uid = self.journey.object;
        let record = {
            let store = self.shard.registry.store.as_ref();
            let found = store.map(|store| store.read_state(uid)).transpose();
            found.map_err(|error| unreadable(&error))?.flatten()
        };
        let Some(record) = record else {
            let error = self.shard.not_here(uid);
            return Err((NotShipped::Absent, NotMoved::Failed(error)));
        };
        let moves = self.moves;
        let page = self.page_for(record.state.len()).await?;
        page.record = Some(MovingRecord {
            class: record.class.0,
            schema: record.schema,
            version: record.version,
            moves,
            state: record.state,
        });
        Ok(())
    }

    async fn send_rows(&mut self) -> Result<(), Stopped> {
        let mut after: Option<(u16, Bytes)> = None;
        loop {
            let found = {
                let store = self
                    .shard
                    .registry
                    .store
                    .as_ref()
                    .expect("it had the record");
                let after = after.as_ref().map(|(part, key)| (*part, key.as_ref()));
                store.export_rows(self.journey.object, after, PAGE_BYTES)
            };
            let found = found.map_err(|error| unreadable(&error))?;
            let last = found.rows.last();
            after = last.map(|row| (row.part, row.key.clone()));
            if !found.rows.is_empty() {
                let rows = found.rows.into_iter().map(stored_row);
                let rows: Vec<_> = rows.collect();
                let page = self.page_for(rows.iter().map(row_bytes).sum()).await?;
                page.rows.extend(rows);
            }
            if !found.more {
                return Ok(());
            }
        }
    }

    /// Those that were saved since the others were sent.
    async fn send_replies(&mut self) -> Result<(), Stopped> {
        let uids = [self.journey.object].into();
        let mut cursor = self.journey.replies;
        loop {
            let found = {
                let store = self
                    .shard
                    .registry
                    .store
                    .as_ref()
                    .expect("it had the record");
                store.replies_of(&uids, reply_keep_ms(), cursor, PAGE_BYTES)
            };
            let found = found.map_err(|error| unreadable(&error))?;
            cursor = found.next;
            if !found.replies.is_empty() {
                let size = |kept: &KeptReply| ENTRY_BYTES + kept.body.len();
                let bytes = found.replies.iter().map(size).sum();
                let page = self.page_for(bytes).await?;
                page.replies.extend(found.replies.into_iter().map(reply));
            }
            if found.done {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    async fn send_images(&mut self, cargo: &Cargo) -> Result<(), Stopped> {
        let uid = self.journey.object;
        let lost = || {
            let reason = "what an action has changed of it cannot be undone any more".to_owned();
            let passing = true;
            (NotShipped::Refused, NotMoved::Not { reason, passing })
        };
        let levels = self.shard.images.borrow().exported(uid).ok_or_else(lost)?;
        let known = |action: Uid| levels.iter().any(|level| level.0 == action);
        let mut wanted = cargo.levels().filter(|level| level.image.is_some());
        if !wanted.all(|level| known(level.uid)) {
            return Err(lost());
        }
        for (action, before, rows) in levels {
            for image in image_pages(action, &before, &rows) {
                let rows: usize = image.rows.iter().map(row_bytes).sum();
                let page = self.page_for(image.before.len() + rows).await?;
                page.images.push(image);
            }
        }
        let present = {
            let mut catalog = self.shard.catalog.borrow_mut();
            let active = catalog.active(uid).ok_or_else(lost)?;
            active.encoded().map_err(|_| lost())?
        };
        let page = self.page_for(present.len()).await?;
        page.present = Some(present);
        Ok(())
    }

    async fn stage(&mut self, page: MovingPage) -> Result<Vec<MovedPart>, Stopped> {
        self.number += 1;
        let Journey {
            connection, until, ..
        } = &*self.journey;
        let node = connection.peer().node;
        let manager = ConnectionManager::from_capability(Capability::manager(connection.clone()));
        let left = until.saturating_duration_since(Instant::now());
        let caller = self.shard.client.call();
        // The engine gives up at `until`, and this is dropped then.
        let caller = caller.deadline(left.max(CALL_DEADLINE));
        let staged = manager.stage(&caller, &page).await;
        staged.map_err(|error| stopped(error, node))
    }
}

/// A page with nothing in it.
pub(crate) fn empty_page(object: Uid, action: Uid, shard: u16, number: u32) -> MovingPage {
    MovingPage {
        object,
        action,
        shard,
        number,
        record: None,
        rows: Vec::new(),
        replies: Vec::new(),
        images: Vec::new(),
        present: None,
        cargo: None,
    }
}

/// A saved reply as it is sent.
pub(crate) fn reply(kept: KeptReply) -> MovingReply {
    MovingReply {
        call: call_name(kept.call),
        body: kept.body,
        keep: Duration::from_millis(kept.keep_ms),
    }
}

fn stored_row(row: Row) -> MovingRow {
    MovingRow {
        part: row.part,
        key: row.key,
        value: Some(row.value),
    }
}

/// A level's image, in as many pieces as its rows need.
fn image_pages(action: Uid, before: &Bytes, rows: &Changes) -> Vec<MovingImage> {
    let piece = || MovingImage {
        action,
        before: before.clone(),
        rows: Vec::new(),
    };
    let (mut pieces, mut bytes) = (vec![piece()], 0);
    for ((part, key), value) in rows {
        let size = ENTRY_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len);
        if bytes > 0 && bytes + size > PAGE_BYTES {
            // The state goes with the first alone.
            let mut next = piece();
            next.before = Bytes::new();
            pieces.push(next);
            bytes = 0;
        }
        bytes += size;
        let last = pieces.last_mut().expect("there is one at least");
        last.rows.push(MovingRow {
            part: *part,
            key: key.clone(),
            value: value.clone(),
        });
    }
    pieces
}

fn joined(part: MovedPart) -> (Uid, Joined) {
    let joined = Joined {
        join: part.join,
        updated: part.updated,
        decider: None,
        part: false,
    };
    (part.action, joined)
}
