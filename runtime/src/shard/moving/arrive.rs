//! The target of a move: pages are written in order, what running actions have is kept in memory
//! until it is known whether the object has come.
//!
//! | what happens | what is done |
//! |---|---|
//! | page 0 | `Arrive`; once the engine lets calls wait, the record is written as a prepared shadow, with what else the page has |
//! | each page | rows and replies are written, images are kept |
//! | the last page is on disk | `Unload`; its answer names the mirrors that the actions have here |
//! | a page out of order, of another move, of another sender, that cannot be written | it is refused; the source then gives the move up |
//! | `Arrived` | with a slot the image is made of what came; else it is loaded by the next call |
//! | `NotArrived` | what was kept is dropped |
//!
//! Replies alone may come before page 0: a reply that is kept for an object that does not come
//! after all does no harm.

use std::rc::Rc;

use bytes::Bytes;
use partha_core::Input;
use partha_core::action::path::{Joined, Site};
use partha_core::id::{CallId, ClassId, Epoch, Peer, Uid};
use partha_core::migrate::Cargo;
use partha_core::{ObjectSlot, Refusal};
use partha_store::moving::Arrival;
use partha_store::{Batch, Item, KeptReply, Record, Row, StoreError};
use tokio::sync::oneshot;

use super::cargo::read_call;
use super::reasons::{Refused, failed, not, refused};
use super::room::{ENTRY_BYTES, Kept, cargo_bytes, row_bytes};
use crate::abi::Class;
use crate::error::{ErrorKind, SystemError};
use crate::moved::MOVES_MAX;
use crate::rows::Changes;
use crate::shard::catalog::decode;
use crate::shard::inspect::Look;
use crate::shard::{Job, Shard, count};
use crate::system::{MovedPart, MovingImage, MovingPage, MovingRecord, MovingReply, MovingRow};

/// Objects on their way to a shard at a time.
const ARRIVALS_MAX: usize = 256;

type Answer = oneshot::Sender<Result<Vec<MovedPart>, Refused>>;

/// An object on its way here.
pub(super) struct Arriving {
    arrival: Arrival,
    /// Who sends it.
    source: Peer,
    class: Class,
    /// The page that is to come next.
    next: u32,
    /// Of the page that is being dealt with.
    answer: Option<Answer>,
    /// What the first page has, and how much, until it may be written.
    first: Option<(Record, Vec<Row>, Vec<KeptReply>)>,
    first_bytes: usize,
    /// The calls of the replies that are being written.
    replies: Vec<CallId>,
    /// Came with the last page.
    cargo: Option<Box<Cargo>>,
    images: Vec<(Uid, Bytes, Changes)>,
    present: Option<Bytes>,
    /// What these take.
    kept: Kept,
    /// Those who wait until it has come, or does not.
    watchers: Vec<oneshot::Sender<()>>,
}

impl Arriving {
    pub(super) fn class(&self) -> ClassId {
        self.class.info().id
    }

    fn is(&self, action: Uid) -> bool {
        self.arrival.action == action
    }
}

impl Shard {
    /// Whether an object of another node could come here.
    pub(crate) fn accepts(&self, uid: Uid, class: ClassId, schema: u64) -> Result<Class, Refused> {
        let here = self.registry.here();
        let Some(known) = self.registry.classes.get(&class) else {
            let class = self.registry.class_name(class);
            return not(format!("{here} does not run class {class}"), false);
        };
        let info = known.info();
        if info.schema != schema {
            let reason = format!(
                "{} has another schema at {here} (state {:016x}) than where the object is \
                 ({schema:016x}); run the same version of it at both",
                info.name, info.schema
            );
            return not(reason, false);
        }
        let home = self.client.home_if_any();
        if home.is_none_or(|home| home.is_draining()) {
            let detail = format!("{here} is shutting down");
            return Err(Refused::Failed(SystemError::new(
                ErrorKind::Draining,
                detail,
            )));
        }
        let there = self
            .registry
            .store
            .as_ref()
            .map(|store| store.read_state(uid));
        match there {
            Some(Ok(None)) => Ok(known.clone()),
            Some(Ok(Some(_))) => not(format!("{here} has an object {uid} of its own"), false),
            Some(Err(error)) => Err(failed(&error)),
            None => not(format!("{here} has no store"), false),
        }
    }

    /// Drops `told` when an object that is on its way here has come, or does not; at once for any
    /// other.
    pub(crate) fn watch_arrival(&self, uid: Uid, told: oneshot::Sender<()>) {
        if let Some(arriving) = self.moves.borrow_mut().arrivals.get_mut(&uid) {
            arriving.watchers.push(told);
        }
    }

    /// A page has come.
    pub(crate) fn take_page(self: &Rc<Self>, source: Peer, page: MovingPage, answer: Answer) {
        let result = match &page.record {
            Some(_) => self.begin(source, page, answer),
            None => self.take_next(source, page, answer),
        };
        if let Err((refused, answer)) = result {
            tracing::debug!(?refused, source = %source.node, "a page of an object is refused");
            // Whoever asked may be gone.
            let _ = answer.send(Err(refused));
        }
    }

    fn begin(
        self: &Rc<Self>,
        source: Peer,
        mut page: MovingPage,
        answer: Answer,
    ) -> Result<(), (Refused, Answer)> {
        let record = page.record.take().expect("it begins with the record");
        let arriving = match self.arriving_of(source, page, record) {
            Ok(arriving) => arriving,
            Err(refused) => return Err((refused, answer)),
        };
        let (uid, action, coordinator) = {
            let Arrival {
                uid,
                action,
                coordinator,
                ..
            } = arriving.arrival;
            (uid, action, coordinator)
        };
        let mut moves = self.moves.borrow_mut();
        let answer = Some(answer);
        moves.arrivals.insert(uid, Arriving { answer, ..arriving });
        drop(moves);
        tracing::debug!(%uid, %action, ?coordinator, "begins to arrive");
        self.feed(Input::Arrive {
            uid,
            action,
            coordinator,
        });
        Ok(())
    }

    /// What the first page says, checked.
    fn arriving_of(
        &self,
        source: Peer,
        page: MovingPage,
        record: MovingRecord,
    ) -> Result<Arriving, Refused> {
        let (uid, action) = (page.object, page.action);
        let made_by_source =
            action.node == source.node && action.incarnation() == source.incarnation;
        if page.number != 0 || !made_by_source || record.moves == 0 {
            return not("that is no first page of a move of the sender's", false);
        }
        if record.moves > MOVES_MAX {
            return not(format!("objects move {MOVES_MAX} times at most"), false);
        }
        let moves = self.moves.borrow();
        if moves.arrivals.contains_key(&uid) {
            return not("another move of it is not over here yet", true);
        }
        if moves.arrivals.len() >= ARRIVALS_MAX {
            let detail = format!("{ARRIVALS_MAX} objects are on their way to the shard already");
            return Err(Refused::Failed(SystemError::new(
                ErrorKind::Overloaded,
                detail,
            )));
        }
        drop(moves);
        let class = self.accepts(uid, ClassId(record.class), record.schema)?;
        check_state(&class, &record.state)?;
        let mut kept = Kept::nothing(self.registry.coming.clone());
        let first = record.state.len() + first_bytes(&page);
        kept.more(first)?;
        let coordinator = Site {
            node: source.node,
            shard: page.shard,
        };
        let cargo = page.cargo.as_ref().map(|cargo| self.read_cargo(cargo));
        let cargo = cargo.transpose().or_else(|what| not(what, false))?;
        let shadow = Record {
            class: ClassId(record.class),
            schema: record.schema,
            version: record.version,
            epoch: Epoch(0),
            state: record.state,
        };
        let mut arriving = Arriving {
            arrival: Arrival {
                action,
                coordinator,
                uid,
                moves: record.moves,
            },
            source,
            class,
            next: 1,
            answer: None,
            first: None,
            first_bytes: 0,
            replies: Vec::new(),
            cargo: None,
            images: Vec::new(),
            present: None,
            kept,
            watchers: Vec::new(),
        };
        let (rows, replies) = arriving.take(page, cargo)?;
        arriving.first = Some((shadow, rows, replies));
        arriving.first_bytes = first;
        Ok(arriving)
    }

    /// The engine lets the object's calls wait, or does not let it in.
    pub(super) fn arriving(&self, uid: Uid, action: Uid, result: Result<(), Refusal>) {
        let mut moves = self.moves.borrow_mut();
        let arriving = moves.arrivals.get_mut(&uid);
        let Some(arriving) = arriving.filter(|arriving| arriving.is(action)) else {
            return;
        };
        match result {
            Ok(()) => {
                let first = arriving.first.take();
                let (record, rows, replies) = first.expect("it came with the first page");
                arriving
                    .kept
                    .less(std::mem::take(&mut arriving.first_bytes));
                self.doubt_callers(&replies);
                arriving.replies = replies.iter().map(|reply| reply.call).collect();
                let begin = arriving.arrival.begin(record);
                let page = arriving.arrival.page(rows, replies);
                drop(moves);
                // What an aborted action had prepared of it may still be there, if the store
                // could not remove it: no two may ever be found there after a crash.
                let unwanted = self.unwanted.borrow();
                let gone = unwanted.iter();
                let gone = gone.map(|aborted| Item::DeleteShadow { action: *aborted });
                let batch = Batch::new(gone.chain(begin.items).chain(page.items).collect());
                drop(unwanted);
                self.write_page(uid, action, batch);
            }
            Err(refusal) => {
                let arriving = moves.arrivals.remove(&uid);
                drop(moves);
                if let Some(answer) = arriving.and_then(|arriving| arriving.answer) {
                    // Whoever asked may be gone.
                    let _ = answer.send(Err(refused(&refusal)));
                }
            }
        }
    }

    fn take_next(
        self: &Rc<Self>,
        source: Peer,
        page: MovingPage,
        answer: Answer,
    ) -> Result<(), (Refused, Answer)> {
        let (uid, action) = (page.object, page.action);
        let mut moves = self.moves.borrow_mut();
        let arriving = moves.arrivals.get_mut(&uid);
        let arriving = arriving.filter(|arriving| {
            arriving.is(action) && arriving.source == source && arriving.next == page.number
        });
        let Some(arriving) = arriving.filter(|arriving| arriving.answer.is_none()) else {
            drop(moves);
            return self.save_ahead(source, page, answer);
        };
        let cargo = page.cargo.as_ref().map(|cargo| self.read_cargo(cargo));
        let taken = match cargo.transpose() {
            Ok(cargo) => arriving.take(page, cargo),
            Err(what) => not(what, false),
        };
        match taken {
            Ok((rows, replies)) => {
                arriving.next += 1;
                arriving.answer = Some(answer);
                self.doubt_callers(&replies);
                arriving.replies = replies.iter().map(|reply| reply.call).collect();
                let batch = arriving.arrival.page(rows, replies);
                drop(moves);
                self.write_page(uid, action, batch);
                Ok(())
            }
            Err(refused) => Err((refused, answer)),
        }
    }

    /// Replies that come before the object does.
    fn save_ahead(
        &self,
        source: Peer,
        page: MovingPage,
        answer: Answer,
    ) -> Result<(), (Refused, Answer)> {
        let is_ahead = page.number == 0
            && page.action.node == source.node
            && page.rows.is_empty()
            && page.images.is_empty()
            && page.present.is_none()
            && page.cargo.is_none();
        let refuse = |answer| {
            let reason = "the page does not go on with a move that is under way here".to_owned();
            let passing = true;
            Err((Refused::Not { reason, passing }, answer))
        };
        let (true, Some(store)) = (is_ahead, &self.registry.store) else {
            return refuse(answer);
        };
        let replies = page
            .replies
            .into_iter()
            .map(|reply| kept(page.object, reply));
        let Ok(replies) = replies.collect::<Result<Vec<_>, _>>() else {
            return refuse(answer);
        };
        self.doubt_callers(&replies);
        let arrival = Arrival {
            action: page.action,
            coordinator: Site::default(),
            uid: page.object,
            moves: 0,
        };
        let (home, object) = (self.client.home_if_any(), page.object);
        let calls: Vec<_> = replies.iter().map(|reply| reply.call).collect();
        let done = move |result: Result<(), StoreError>| {
            if let Some(home) = home {
                home.replies_came(object, &calls);
            }
            // Whoever asked may be gone.
            let _ = answer.send(result.map(|()| Vec::new()).map_err(|error| failed(&error)));
        };
        store.submit(arrival.page([], replies), Box::new(done));
        Ok(())
    }

    /// Calls of theirs that are new by their numbers may have been executed at another node.
    fn doubt_callers(&self, replies: &[KeptReply]) {
        let mut newest = self.newest.borrow_mut();
        for reply in replies {
            newest.doubt(reply.call.caller);
        }
    }

    fn write_page(&self, uid: Uid, action: Uid, batch: Batch) {
        let handle = self.handle.clone();
        let done = move |result: Result<(), StoreError>| {
            let look = move |shard: &Rc<Self>| shard.page_written(uid, action, result);
            handle.post(Job::Look(Look::new(look)));
        };
        match &self.registry.store {
            Some(store) if !batch.items.is_empty() => store.submit(batch, Box::new(done)),
            _ => done(Ok(())),
        }
    }

    fn page_written(self: &Rc<Self>, uid: Uid, action: Uid, result: Result<(), StoreError>) {
        let mut moves = self.moves.borrow_mut();
        let arriving = moves.arrivals.get_mut(&uid);
        let Some(arriving) = arriving.filter(|arriving| arriving.is(action)) else {
            return;
        };
        if let Err(error) = result {
            tracing::warn!(%uid, %action, %error, "an object that comes cannot be written");
            if let Some(answer) = arriving.answer.take() {
                // Whoever asked may be gone.
                let _ = answer.send(Err(failed(&error)));
            }
            return;
        }
        let replies = std::mem::take(&mut arriving.replies);
        if let Some(home) = self.client.home_if_any().filter(|_| !replies.is_empty()) {
            home.replies_came(uid, &replies);
        }
        if let Some(cargo) = arriving.cargo.take() {
            drop(moves);
            return self.feed(Input::Unload { uid, action, cargo });
        }
        if let Some(answer) = arriving.answer.take() {
            // Whoever asked may be gone.
            let _ = answer.send(Ok(Vec::new()));
        }
    }

    /// The engine has taken what running actions have of it, or not.
    pub(super) fn unloaded(
        &self,
        uid: Uid,
        action: Uid,
        result: Result<Vec<(Uid, Joined)>, Refusal>,
    ) {
        let mut moves = self.moves.borrow_mut();
        let arriving = moves.arrivals.get_mut(&uid);
        let arriving = arriving.filter(|arriving| arriving.is(action));
        let Some(answer) = arriving.and_then(|arriving| arriving.answer.take()) else {
            return;
        };
        let part = |(action, joined): (Uid, Joined)| MovedPart {
            action,
            join: joined.join,
            updated: joined.updated,
        };
        let told = result.map(|parts| parts.into_iter().map(part).collect());
        // Whoever asked may be gone.
        let _ = answer.send(told.map_err(|refusal| refused(&refusal)));
    }

    /// It is here, and on disk.
    pub(super) fn arrived(&self, uid: Uid, action: Uid, slot: Option<ObjectSlot>) {
        let mut moves = self.moves.borrow_mut();
        moves.recovered.remove(&uid);
        let is = moves.arrivals.get(&uid).is_some_and(|a| a.is(action));
        let arriving = is.then(|| moves.arrivals.remove(&uid)).flatten();
        drop(moves);
        count(&self.counters.moved_in);
        self.note_come(uid);
        if let Some(home) = self.client.home_if_any() {
            home.untold.notify_one();
        }
        match (arriving, slot) {
            (Some(arriving), Some(slot)) => self.unpack(uid, slot, arriving),
            (_, None) => {}
            (None, Some(_)) => tracing::error!(%uid, %action, "nothing has come with an object"),
        }
    }

    /// Makes the image of what came with the object.
    fn unpack(&self, uid: Uid, slot: ObjectSlot, arriving: Arriving) {
        let Arriving {
            class,
            images,
            present,
            ..
        } = arriving;
        let store = self.registry.store.as_ref();
        let activated = store.map(|store| store.activate(uid));
        let (version, epoch) = match activated {
            Some(Ok(Some((record, epoch)))) => (record.version, epoch),
            other => {
                tracing::error!(%uid, ?other, "an object that has just come is not there");
                (0, Epoch(0))
            }
        };
        let state = present.as_ref().and_then(|present| {
            let state = decode(&class, present);
            state
                .inspect_err(|error| tracing::error!(%uid, %error, "what came is unreadable"))
                .ok()
        });
        let present = present.filter(|_| epoch != Epoch(0)).zip(state);
        let mut catalog = self.catalog.borrow_mut();
        catalog.insert_moved(uid, slot, &class, (epoch, version), present);
        self.images.borrow_mut().import(uid, images);
    }

    /// It does not come.
    pub(super) fn not_arrived(&self, uid: Uid, action: Uid) {
        let mut moves = self.moves.borrow_mut();
        moves.recovered.remove(&uid);
        let is = moves.arrivals.get(&uid).is_some_and(|a| a.is(action));
        if let Some(arriving) = is.then(|| moves.arrivals.remove(&uid)).flatten() {
            tracing::info!(%uid, from = %arriving.source.node, "does not come after all");
            if let Some(answer) = arriving.answer {
                let reason = "the move was given up".to_owned();
                let passing = true;
                // Whoever asked may be gone.
                let _ = answer.send(Err(Refused::Not { reason, passing }));
            }
        }
    }
}

impl Arriving {
    /// Keeps what is kept in memory; answers with what is to be written.
    fn take(
        &mut self,
        page: MovingPage,
        cargo: Option<Cargo>,
    ) -> Result<(Vec<Row>, Vec<KeptReply>), Refused> {
        let uid = self.arrival.uid;
        self.kept.more(cargo.as_ref().map_or(0, cargo_bytes))?;
        self.cargo = cargo.map(Box::new);
        for image in page.images {
            self.take_image(image)?;
        }
        if let Some(present) = page.present {
            self.kept.more(present.len())?;
            check_state(&self.class, &present)?;
            self.present = Some(present);
        }
        let row = |row: MovingRow| {
            let MovingRow { part, key, value } = row;
            value
                .filter(|_| part > 0)
                .map(|value| Row { part, key, value })
        };
        let rows: Option<Vec<_>> = page.rows.into_iter().map(row).collect();
        let replies: Result<Vec<_>, _> = page
            .replies
            .into_iter()
            .map(|reply| kept(uid, reply))
            .collect();
        match (rows, replies) {
            (Some(rows), Ok(replies)) => Ok((rows, replies)),
            (None, _) => not("a row that cannot be stored", false),
            (_, Err(what)) => not(what, false),
        }
    }

    fn take_image(&mut self, image: MovingImage) -> Result<(), Refused> {
        let MovingImage {
            action,
            before,
            rows,
        } = image;
        self.kept
            .more(before.len() + rows.iter().map(row_bytes).sum::<usize>())?;
        let is_more = self.images.last().is_some_and(|last| last.0 == action);
        if !is_more {
            if self.images.iter().any(|known| known.0 == action) {
                return not("two before-images of one action", false);
            }
            check_state(&self.class, &before)?;
            self.images.push((action, before, Changes::new()));
        }
        let last = self.images.last_mut().expect("it was pushed just now");
        for MovingRow { part, key, value } in rows {
            if part == 0 {
                return not("a row that cannot be stored", false);
            }
            last.2.insert((part, key), value);
        }
        Ok(())
    }
}

/// What the rows and replies of the first page take until they may be written.
fn first_bytes(page: &MovingPage) -> usize {
    let replies = page.replies.iter();
    let replies = replies.map(|reply| ENTRY_BYTES + reply.body.len());
    page.rows.iter().map(row_bytes).sum::<usize>() + replies.sum::<usize>()
}

/// A state must be readable before it counts.
fn check_state(class: &Class, state: &Bytes) -> Result<(), Refused> {
    match decode(class, state) {
        Ok(_) => Ok(()),
        Err(error) => not(
            format!("what came is no state of {}: {error}", class.info().name),
            false,
        ),
    }
}

fn kept(uid: Uid, reply: MovingReply) -> Result<KeptReply, &'static str> {
    let keep = reply.keep.min(crate::config::REPLY_RETENTION);
    Ok(KeptReply {
        call: read_call(&reply.call)?,
        uid,
        body: reply.body,
        keep_ms: keep.as_millis() as u64,
    })
}
