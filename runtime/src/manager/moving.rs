//! Moving objects to other nodes, and taking them from there, as the connection manager is asked
//! to.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use partha_core::id::{ClassId, NodeId, Peer, Uid};
use partha_store::{KeptReply, Place, Record, ReplyCursor, StoreError};
use tokio::sync::oneshot;

use super::{Manager, stopping};
use crate::abi::Transient;
use crate::capability::Capability;
use crate::client::Client;
use crate::context::Context;
use crate::error::{ErrorKind, Result, SystemError};
use crate::moved::{MOVES_MAX, Moved};
use crate::net::connection::Connection;
use crate::node::reply_keep_ms;
use crate::shard::{Journey, NotMoved, Refused, Shard, empty_page, reply};
use crate::system::connection_manager::{AcceptsError, MoveObjectError, StageError};
use crate::system::{
    ConnectionManager, MovedPart, MovedPlace, MovingPage, NoSuchObject, NotMovable,
};
use crate::wire::message;

/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest one, where a node had no room for the object: what was sent was of no use.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Calls whose replies are read at a time.
const PAGE_CALLS: usize = 4_096;
/// Bytes of replies in a page.
const PAGE_BYTES: usize = 512 * 1024;
/// Objects in a page of places.
const PLACES_MAX: u32 = 1_000;
/// The shortest time that a move gets.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The attempts at one move.
struct Attempts {
    /// The object is waited for until then. What is done before does not count: it serves.
    until: Instant,
    /// Then the caller's time is over.
    end: Instant,
    ahead: Option<Ahead>,
    /// Before the next attempt after one for which a node had no room.
    pause: Duration,
}

/// The saved replies that were sent ahead.
struct Ahead {
    /// To which life of the target.
    target: Peer,
    /// How often the object had moved. Once it has been away, it may have come back with replies
    /// that belong before `next`.
    moves: u64,
    /// Where to go on for those that are saved meanwhile.
    next: ReplyCursor,
}

impl Attempts {
    fn new(wait: Duration, time_left: Duration) -> Self {
        let now = Instant::now();
        Self {
            until: now + wait.max(WAIT_MIN).min(time_left),
            end: now + time_left,
            ahead: None,
            pause: PAUSE,
        }
    }

    /// How long to wait before another attempt; none if this error does not pass.
    fn pause(&mut self, error: &MoveObjectError) -> Option<Duration> {
        match error {
            MoveObjectError::NotMovable(error) => error.passing.then_some(PAUSE),
            MoveObjectError::System(error) if error.kind() == ErrorKind::Overloaded => {
                let pause = self.pause;
                self.pause = (2 * pause).min(PAUSE_MAX);
                Some(pause)
            }
            MoveObjectError::NoSuchObject(_) | MoveObjectError::System(_) => None,
        }
    }

    /// Where to go on with the replies of an object that has moved so often, if those before are
    /// at this target.
    fn ahead(&self, target: Peer, moves: u64) -> Option<ReplyCursor> {
        let ahead = self.ahead.as_ref()?;
        (ahead.target == target && ahead.moves == moves).then_some(ahead.next)
    }

    /// Replies were sent, which took so long.
    fn sent(&mut self, ahead: Ahead, time: Duration) {
        self.ahead = Some(ahead);
        self.serves_for(time);
    }

    /// Nothing has waited for the object, or will, for so long.
    fn serves_for(&mut self, time: Duration) {
        self.until = (self.until + time).min(self.end);
    }
}

impl Manager {
    /// Moves an object of this node to another one. What is in the way and passes is waited for.
    pub(super) async fn move_away(
        &self,
        cx: &Context,
        object: Uid,
        node: NodeId,
        wait: Duration,
    ) -> Result<u64, MoveObjectError> {
        let mut attempts = Attempts::new(wait, cx.time_left());
        loop {
            let moved = self.try_to_move(cx, object, node, &mut attempts).await;
            let pause = match &moved {
                Err(error) => attempts.pause(error),
                Ok(_) => None,
            };
            let Some(pause) = pause.filter(|pause| Instant::now() + *pause < attempts.until) else {
                return moved;
            };
            tracing::debug!(%object, why = ?moved.err(), "is to be moved again");
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt.
    async fn try_to_move(
        &self,
        cx: &Context,
        object: Uid,
        node: NodeId,
        attempts: &mut Attempts,
    ) -> Result<u64, MoveObjectError> {
        self.has_come(object).await;
        if let Some(report) = self.group_report(object).await? {
            if report.leads && report.view.leader() != node {
                self.has_stayed(object, attempts).await?;
            }
            let wait = attempts.until.saturating_duration_since(Instant::now());
            return self.hand_over(cx, report, node, wait).await;
        }
        if node == self.home.me.node {
            return self.present(object).map(|(_, moves)| moves);
        }
        self.has_stayed(object, attempts).await?;
        let (record, moves) = self.present(object)?;
        if self.home.registry.well_known == Some(object) {
            let reason = "its node is known by it: it is a service's own".to_owned();
            return Err(not_movable(object, reason, false));
        }
        if self.home.registry.links.embedded {
            let reason = "its node is embedded and reaches no other".to_owned();
            return Err(not_movable(object, reason, false));
        }
        let client = cx.client();
        let connection = self.target(client, object, node, &record).await?;
        let (action, target) = (self.home.new_uid()?, connection.peer());
        let replies = match attempts.ahead(target, moves) {
            Some(next) => next,
            None => {
                let begun = Instant::now();
                let sent = self.send_replies(client, &connection, object, action);
                let next = sent.await?;
                let ahead = Ahead {
                    target,
                    moves,
                    next,
                };
                attempts.sent(ahead, begun.elapsed());
                next
            }
        };
        let journey = Journey {
            object,
            moves,
            connection,
            replies,
            until: attempts.until,
        };
        let (sender, receiver) = oneshot::channel();
        let shard = self.home.shard(object);
        let begin = move |shard: &Rc<Shard>| shard.depart(journey, action, sender);
        shard.look(begin).await.ok_or_else(stopping)?;
        match receiver.await.map_err(|_| stopping())? {
            Ok(moves) => Ok(moves),
            Err(NotMoved::Not { reason, passing }) => Err(not_movable(object, reason, passing)),
            Err(NotMoved::Failed(error)) => {
                Err(error.context(format_args!("object {object}")).into())
            }
        }
    }

    /// Waits for an object that is on its way here, perhaps once more.
    pub(super) async fn has_come(&self, object: Uid) {
        let (told, come) = oneshot::channel();
        let shard = self.home.shard(object);
        let watching = shard.look(move |shard| shard.watch_arrival(object, told));
        if watching.await.is_some() {
            // It is dropped when there is nothing to wait for any more.
            let _ = come.await;
        }
    }

    /// Waits until an object has been here for a moment: it serves meanwhile.
    async fn has_stayed(
        &self,
        object: Uid,
        attempts: &mut Attempts,
    ) -> Result<(), MoveObjectError> {
        let shard = self.home.shard(object);
        let left = shard.look(move |shard| shard.stays_for(object)).await;
        let left = left.ok_or_else(stopping)?;
        if left.is_zero() {
            return Ok(());
        }
        if Instant::now() + left >= attempts.end {
            let reason = format!("it has just come, and stays for another {left:.1?}");
            return Err(not_movable(object, reason, true));
        }
        attempts.serves_for(left);
        tokio::time::sleep(left).await;
        Ok(())
    }

    /// The object as it is stored here, and how often it has moved.
    fn present(&self, object: Uid) -> Result<(Record, u64), MoveObjectError> {
        let node = self.home.me.node.0;
        let Some(store) = &self.home.registry.store else {
            return Err(NoSuchObject { object, node }.into());
        };
        let place = store.read_place(object).map_err(unreadable)?;
        let moves = match place {
            Some(Place::Here { moves, .. }) => moves,
            None => 0,
            Some(Place::Gone { to, moves }) => {
                let addresses = self.home.addresses(to);
                let to = Moved {
                    node: to,
                    addresses,
                    moves,
                };
                return Err(SystemError::moved_to(format!("object {object}"), to, None).into());
            }
        };
        match store.read_state(object).map_err(unreadable)? {
            Some(record) => Ok((record, moves)),
            None => Err(NoSuchObject { object, node }.into()),
        }
    }

    /// A connection to the node that it is to go to, which would take it.
    async fn target(
        &self,
        client: &Client,
        object: Uid,
        node: NodeId,
        record: &Record,
    ) -> Result<Arc<Connection>, MoveObjectError> {
        let shard = message::Shard::Of(object);
        let connection = client.locator().connect_shard(client, node, shard).await;
        let connection =
            connection.map_err(|error| error.context(format_args!("to move object {object}")))?;
        let manager = ConnectionManager::from_capability(Capability::manager(connection.clone()));
        let accepted = manager.accepts(client, object, record.class.0, record.schema);
        match accepted.await {
            Ok(()) => Ok(connection),
            Err(AcceptsError::NotMovable(error)) => {
                // It may have got copies meanwhile, one of them there.
                let passing = error.passing || self.group_report(object).await?.is_some();
                Err(not_movable(object, error.reason, passing))
            }
            Err(AcceptsError::System(error)) => Err(error.before_sending().into()),
        }
    }

    /// Sends the saved replies ahead, while the object serves: finding them may take a walk over
    /// all replies of the node. Answers where to go on for those that are saved meanwhile.
    async fn send_replies(
        &self,
        client: &Client,
        connection: &Arc<Connection>,
        object: Uid,
        action: Uid,
    ) -> Result<ReplyCursor, MoveObjectError> {
        let manager = ConnectionManager::from_capability(Capability::manager(connection.clone()));
        let found = self.home.replies_of(object).await?;
        let Some(store) = &self.home.registry.store else {
            return Err(stopping().into());
        };
        let stage = async |replies: Vec<KeptReply>| {
            if replies.is_empty() {
                return Ok(());
            }
            let mut page = empty_page(object, action, 0, 0);
            page.replies = replies.into_iter().map(reply).collect();
            let staged = manager.stage(client, &page).await;
            staged.map(drop).map_err(|error| match error {
                StageError::NotMovable(error) => not_movable(object, error.reason, error.passing),
                StageError::System(error) => error.before_sending().into(),
            })
        };
        for mut calls in found.calls.chunks(PAGE_CALLS) {
            while !calls.is_empty() {
                let kept = store.kept_replies(object, calls, PAGE_BYTES);
                let (replies, looked_at) = kept.map_err(unreadable)?;
                stage(replies).await?;
                calls = &calls[looked_at..];
            }
        }
        let (of, mut next) = (BTreeSet::from([object]), found.next);
        loop {
            let page = store.replies_of(&of, reply_keep_ms(), next, PAGE_BYTES);
            let page = page.map_err(unreadable)?;
            next = page.next;
            stage(page.replies).await?;
            if page.done {
                return Ok(next);
            }
            tokio::task::yield_now().await;
        }
    }

    /// An object that was sent to the caller has moved on from there.
    pub(super) async fn moved_on(&self, cx: &Context, object: Uid, to: Moved) -> Result<()> {
        let teller = cx.caller();
        if cx.is_foreign() || !self.home.is_node(teller) {
            let detail = "where objects have gone is for nodes to say";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        if to.moves > MOVES_MAX {
            let detail = format!("objects move {MOVES_MAX} times at most");
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        let shard = self.home.shard(object);
        let done = shard.look(move |shard| shard.relocated(teller, object, &to));
        done.await.ok_or_else(stopping)
    }

    /// Objects that have moved, as the store knows of them.
    pub(super) fn places_after(&self, after: Uid, limit: u32) -> Result<Vec<MovedPlace>> {
        let Some(store) = &self.home.registry.store else {
            return Ok(Vec::new());
        };
        let after = Some(after).filter(|after| *after != Uid::NIL);
        let page = store.scan_places(after, limit.min(PLACES_MAX) as usize);
        let place = |(object, place)| {
            let (here, node, moves, told) = match place {
                Place::Here { from, moves, told } => (true, from, moves, told),
                Place::Gone { to, moves } => (false, to, moves, false),
            };
            MovedPlace {
                object,
                here,
                node: node.0,
                moves,
                told,
            }
        };
        Ok(page.map_err(unreadable)?.into_iter().map(place).collect())
    }

    /// Whether an object of another node could come here.
    pub(super) async fn would_accept(
        &self,
        object: Uid,
        class: ClassId,
        schema: u64,
    ) -> Result<(), AcceptsError> {
        let shard = self.home.shard(object);
        let found = shard.look(move |shard| shard.accepts(object, class, schema).map(drop));
        let found = found.await.ok_or_else(stopping)?;
        found.map_err(|refused| match refused {
            Refused::Not { reason, passing } => NotMovable {
                object,
                reason,
                passing,
            }
            .into(),
            Refused::Failed(error) => error.into(),
        })
    }

    /// A piece of an object comes.
    pub(super) async fn take_page(
        &self,
        cx: &Context,
        page: MovingPage,
    ) -> Result<Vec<MovedPart>, StageError> {
        let (object, source) = (page.object, cx.caller());
        if cx.is_foreign() || !self.home.is_node(source) {
            let detail = "objects come from nodes alone";
            return Err(SystemError::new(ErrorKind::BadOperation, detail).into());
        }
        let (sender, receiver) = oneshot::channel();
        let shard = self.home.shard(object);
        let taken = shard.look(move |shard| shard.take_page(source, page, sender));
        taken.await.ok_or_else(stopping)?;
        let answer = receiver.await.map_err(|_| stopping())?;
        answer.map_err(|refused| match refused {
            Refused::Not { reason, passing } => NotMovable {
                object,
                reason,
                passing,
            }
            .into(),
            Refused::Failed(error) => error.into(),
        })
    }
}

pub(super) fn not_movable(object: Uid, reason: String, passing: bool) -> MoveObjectError {
    NotMovable {
        object,
        reason,
        passing,
    }
    .into()
}

fn unreadable(error: StoreError) -> SystemError {
    SystemError::new(ErrorKind::Store, error.to_string())
}

#[cfg(test)]
mod tests {
    use partha_core::id::Incarnation;

    use super::*;

    fn peer(node: u64, incarnation: u32) -> Peer {
        Peer {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
        }
    }

    #[test]
    fn replies_count_as_sent_for_one_stay_and_one_life_of_the_target() {
        let mut attempts = Attempts::new(Duration::from_secs(1), Duration::from_secs(9));
        assert_eq!(attempts.ahead(peer(2, 1), 4), None);
        let ahead = Ahead {
            target: peer(2, 1),
            moves: 4,
            next: ReplyCursor::default(),
        };
        attempts.sent(ahead, Duration::ZERO);
        assert_eq!(attempts.ahead(peer(2, 1), 4), Some(ReplyCursor::default()));
        assert_eq!(attempts.ahead(peer(2, 1), 6), None);
        assert_eq!(attempts.ahead(peer(2, 2), 4), None);
        assert_eq!(attempts.ahead(peer(3, 1), 4), None);
    }

    #[test]
    fn a_full_node_is_asked_again_less_and_less_often() {
        let mut attempts = Attempts::new(Duration::from_secs(1), Duration::from_secs(9));
        let error = |kind| SystemError::new(kind, "as the test wants it").into();
        let full = error(ErrorKind::Overloaded);
        let pauses = [(); 8].map(|()| attempts.pause(&full).unwrap().as_millis());
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        let busy = not_movable(Uid::NIL, String::new(), true);
        assert_eq!(attempts.pause(&busy), Some(PAUSE));
        let never = not_movable(Uid::NIL, String::new(), false);
        assert_eq!(attempts.pause(&never), None);
        assert_eq!(attempts.pause(&error(ErrorKind::Unreachable)), None);
    }

    #[test]
    fn sending_replies_does_not_use_up_the_wait_and_ends_with_the_callers_time() {
        let ahead = || Ahead {
            target: peer(2, 1),
            moves: 0,
            next: ReplyCursor::default(),
        };
        let mut attempts = Attempts::new(Duration::from_secs(1), Duration::from_secs(9));
        let until = attempts.until;
        attempts.sent(ahead(), Duration::from_secs(5));
        assert_eq!(attempts.until, until + Duration::from_secs(5));
        attempts.sent(ahead(), Duration::from_secs(5));
        assert_eq!(attempts.until, until + Duration::from_secs(8));
        assert_eq!(attempts.until, attempts.end);
    }
}
