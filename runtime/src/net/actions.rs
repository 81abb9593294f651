//! What this process says about actions to shards of other nodes, and asks of them.
//!
//! Messages are sent and forgotten: whoever needs one to arrive sends it again. Each node has a
//! line: a connection if there is one, else a bounded queue and a task that connects, with a
//! growing pause after each failure. What does not fit, or has waited for long, is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partha_core::End;
use partha_core::action::message::{Message, Verdict};
use partha_core::action::path::{Address, Coordinator, Participant, Site};
use partha_core::id::{NodeId, Uid};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::connection::{Connection, lock};
use super::handshake::ANY_SHARD;
use super::pending::Answer;
use crate::client::{Client, WeakClient};
use crate::config::DEADLINE_GRACE;
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::shard::{ReplyTo, Wish};
use crate::wire::frame;
use crate::wire::message::{self, Action, CommitRequest, Shard, What};

/// The shard number of a process that speaks as the one that runs an action: whatever it says
/// must not be taken for the word of a coordinator that is a shard of the same node.
pub(crate) const RUNNER: u16 = u16::MAX;
/// The shard number of a node that passes on what was said to it as the leader of an object that
/// another one leads. It is no coordinator's word either, and is not passed on once more.
const PASSED_ON: u16 = u16::MAX - 1;

/// Of messages that are sent in turn the next one waits as long as more than this is unsent.
const IN_TURN_BYTES: usize = 1 << 20;
/// Between two looks at what is unsent.
const IN_TURN_PAUSE: Duration = Duration::from_millis(1);
/// Messages that wait for a connection to one node.
const QUEUE_MAX: usize = 1_024;
/// Nodes that messages are sent to at a time; those with nothing to say are forgotten beyond.
const LINES_MAX: usize = 4_096;
/// How long a message is worth sending: by then whoever needs it has sent it again.
const WORTH: Duration = Duration::from_secs(10);
/// The pauses between attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// For how long it is looked whether another leads an object soon after its leader was told of an
/// end, and the first of the pauses between the looks, which double.
const RETOLD: Duration = Duration::from_secs(3);
const RETOLD_PAUSE: Duration = Duration::from_millis(10);
/// What may be told again at a time. Beyond it the next leader hears of an end by itself: from the
/// checkpoint, a question of the coordinator, or when the action's time is up.
const RETOLD_MAX: usize = 4_096;

/// The lines of one client.
pub(crate) struct Lines {
    by_node: Mutex<HashMap<NodeId, Line>>,
    retold: Arc<Semaphore>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            by_node: Mutex::default(),
            retold: Arc::new(Semaphore::new(RETOLD_MAX)),
        }
    }
}

#[derive(Default)]
struct Line {
    connection: Option<Arc<Connection>>,
    queue: Option<mpsc::Sender<Letter>>,
}

/// A message that waits.
struct Letter {
    shard: Shard,
    framed: Vec<u8>,
    written: Instant,
}

/// Sends a message of whoever runs an action; it may get lost.
pub(crate) fn tell(client: &Client, to: Address, message: Message) {
    match to {
        Address::Site(site) => tell_at(client, site.node, Shard::Number(site.shard), message),
        Address::Leader(object) => tell_leader(client, object, message),
    }
}

fn tell_at(client: &Client, node: NodeId, shard: Shard, message: Message) {
    match client.home_if_any().filter(|home| home.me.node == node) {
        Some(home) => home.tell(shard, message),
        None => post(client, node, shard, RUNNER, message),
    }
}

/// Sends a message to whoever leads an object, as far as that is known here; else the binder is
/// asked first. If that one dies before its log has it, nobody else has heard it: so it is told
/// again if another leads soon after.
fn tell_leader(client: &Client, object: Uid, message: Message) {
    let heard = client.locator().moved().of(object).map(|moved| moved.node);
    if let Some(heard) = heard {
        tell_at(client, heard, Shard::Of(object), message.clone());
    }
    let room = client.lines().retold.clone().try_acquire_owned().ok();
    // Where no runtime runs the process ends, and the message gets lost.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let client = client.downgrade();
    match (heard, room) {
        (Some(_), None) => tracing::debug!(%object, "too much is told to leaders at a time"),
        (heard, room) => drop(runtime.spawn(async move {
            let told = match (heard, client.upgrade()) {
                (Some(heard), _) => heard,
                (None, None) => return,
                (None, Some(client)) => {
                    let leader = leader_of(&client, object, false, WORTH).await;
                    tell_at(&client, leader, Shard::Of(object), message.clone());
                    leader
                }
            };
            if room.is_some() {
                tell_again(&client, (object, told), &message).await;
            }
        })),
    }
}

/// Passes on what was said to this node as the leader of an object, and is said once only, to the
/// one that leads it: `leader`, or whoever the binder names. Whoever said it may have heard that
/// this node leads before it was started again, and sees no connection break.
pub(crate) fn pass_on(
    client: &Client,
    (object, leader): (Uid, Option<NodeId>),
    from: u16,
    message: Message,
) {
    let me = client.home_if_any().map(|home| home.me.node);
    if from == PASSED_ON {
        return;
    }
    let to = move |client: &Client, leader: NodeId| {
        if Some(leader) != me {
            tracing::debug!(%object, %leader, ?message, "passed on to who leads");
            post(client, leader, Shard::Of(object), PASSED_ON, message);
        }
    };
    if let Some(leader) = leader {
        return to(client, leader);
    }
    let Ok(room) = client.lines().retold.clone().try_acquire_owned() else {
        return tracing::debug!(%object, "too much is told to leaders at a time");
    };
    // Where no runtime runs the process ends, and the message gets lost.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let client = client.downgrade();
    runtime.spawn(async move {
        let Some(client) = client.upgrade() else {
            return;
        };
        let leader = leader_of(&client, object, true, RETOLD).await;
        to(&client, leader);
        drop(room);
    });
}

/// Looks for some seconds whether another leads than the one that was told.
async fn tell_again(client: &WeakClient, (object, mut told): (Uid, NodeId), message: &Message) {
    let (begun, mut pause) = (Instant::now(), RETOLD_PAUSE);
    while begun.elapsed() < RETOLD {
        tokio::time::sleep(pause).await;
        pause *= 2;
        let Some(client) = client.upgrade() else {
            return;
        };
        let here = client
            .home_if_any()
            .is_some_and(|home| home.me.node == told);
        let lost = !here && client.pool().known(told).is_none();
        let leader = leader_of(&client, object, lost, RETOLD).await;
        if leader != told {
            tracing::debug!(%object, %leader, "told once more: another leads");
            tell_at(&client, leader, Shard::Of(object), message.clone());
            told = leader;
        }
    }
}

/// Sends a message to a shard of another node; it may get lost.
pub(crate) fn post(client: &Client, node: NodeId, shard: Shard, from: u16, message: Message) {
    post_what(client, node, shard, from, What::Message(message));
}

/// Sends whatever needs no answer to a shard of another node; it may get lost.
pub(crate) fn post_what(client: &Client, node: NodeId, shard: Shard, from: u16, what: What) {
    let Some(framed) = encode(shard, from, what) else {
        return;
    };
    let letter = Letter {
        shard,
        framed,
        written: Instant::now(),
    };
    client.lines().post(client, node, letter);
}

/// Sends messages in order to a shard of another node, each when little is unsent; they may get
/// lost. Whoever waits for an answer to something small by the same connection does not wait for
/// all of them.
///
/// # Errors
/// There is no connection, or it breaks.
pub(crate) async fn send_in_turn(
    client: &Client,
    node: NodeId,
    (shard, from): (Shard, u16),
    messages: impl Iterator<Item = What>,
) -> Result<()> {
    let connection = connect(client, node, shard).await?;
    for what in messages {
        while connection.is_open() && connection.unsent_asks() > IN_TURN_BYTES {
            tokio::time::sleep(IN_TURN_PAUSE).await;
        }
        if let Some(framed) = encode(shard, from, what) {
            connection.send(&framed, 0)?;
        }
    }
    Ok(())
}

/// Sends a message on a connection that is there; it may get lost.
pub(crate) fn send(connection: &Connection, shard: Shard, from: u16, message: Message) {
    if let Some(framed) = encode(shard, from, What::Message(message))
        && let Err(error) = connection.send(&framed, 0)
    {
        tracing::debug!(%error, "a message about an action was lost");
    }
}

fn encode(shard: Shard, from: u16, what: What) -> Option<Vec<u8>> {
    let action = Action {
        question: 0,
        shard,
        from,
        what,
    };
    let framed = frame::action(&action).to_framed();
    framed
        .inspect_err(|error| tracing::warn!(%error, "a message about an action is too large"))
        .ok()
}

/// Asks a participant to commit the action, as its coordinator, with the decision in the log of
/// `decider` if there is one. A coordinator that is a part is asked at whoever leads the decider,
/// as far as is known, or, `anew`, as the binder knows.
///
/// # Errors
/// With [`Completed::No`] nobody was asked. With [`Completed::Maybe`] the answer was lost: the
/// action is committed, aborted, or will be either; [`ask`] tells.
pub(crate) async fn commit(
    client: &Client,
    (coordinator, decider, anew): (Participant, Option<Uid>, bool),
    action: Uid,
    others: &[Participant],
    aborted: &[Uid],
    deadline: Instant,
) -> Result<End> {
    let request = CommitRequest {
        action,
        coordinator,
        others: others.to_vec(),
        aborted: aborted.to_vec(),
        decider,
    };
    let wish = Wish::Commit(request);
    let (node, shard) = match coordinator.part() {
        None => {
            let Site { node, shard } = coordinator.site;
            (node, Shard::Number(shard))
        }
        Some(object) => {
            let within = deadline.saturating_duration_since(Instant::now());
            let node = leader_of(client, object, anew, within).await;
            (node, Shard::Of(object))
        }
    };
    let body = request_to(client, node, shard, wish, deadline).await?;
    message::read_ended(body.root()).map_err(unreadable)
}

/// Asks the shard that was to coordinate an action what became of it, or, of one with a decider,
/// the shard that this has at the given node; none if its store could not tell, or it does not lead
/// the decider.
///
/// # Errors
/// If it cannot be reached in time.
pub(crate) async fn ask(
    client: &Client,
    coordinator: Coordinator,
    action: Uid,
    deadline: Instant,
) -> Result<Option<Verdict>> {
    let Coordinator { site, decider } = coordinator;
    let shard = decider.map_or(Shard::Number(site.shard), Shard::Of);
    let wish = Wish::Ask { action, decider };
    let body = request_to(client, site.node, shard, wish, deadline).await?;
    message::read_told(body.root()).map_err(unreadable)
}

/// The node that leads a replicated object, as far as it is known: as it was heard last, or, if it
/// is asked for `anew`, as the binder knows.
pub(crate) async fn leader_of(
    client: &Client,
    object: Uid,
    anew: bool,
    within: Duration,
) -> NodeId {
    let locator = client.locator();
    let heard = locator.moved().of(object).map(|moved| moved.node);
    if let Some(heard) = heard.filter(|_| !anew) {
        return heard;
    }
    let views = locator.views(client, &[object], within).await;
    match views {
        Ok(views) => {
            let leader = views.first().and_then(|view| locator.note_leader(view));
            leader.or(heard).unwrap_or(object.node)
        }
        Err(error) => {
            tracing::debug!(%object, %error, "the binder does not say who leads");
            heard.unwrap_or(object.node)
        }
    }
}

fn unreadable(error: partha_wire::DecodeError) -> SystemError {
    SystemError::from(error).completed(Completed::Maybe)
}

async fn request_to(
    client: &Client,
    node: NodeId,
    shard: Shard,
    wish: Wish,
    deadline: Instant,
) -> Result<partha_wire::Message> {
    let limit = tokio::time::Instant::from_std(deadline + DEADLINE_GRACE);
    if let Some(home) = client.home_if_any().filter(|home| home.me.node == node) {
        let (sender, receiver) = oneshot::channel();
        home.request(shard, wish, ReplyTo::Channel(sender));
        let answering = async { receiver.await.ok() };
        return answer(answering, limit, &"this node").await;
    }
    let connecting = connect(client, node, shard);
    let connection = tokio::time::timeout_at(limit, connecting)
        .await
        .map_err(|_| {
            let detail = format!("no connection to node {node} in time");
            SystemError::new(ErrorKind::Unreachable, detail)
        })??;
    let mut w = frame::action(&Action {
        question: 1,
        shard,
        from: RUNNER,
        what: wish.into(),
    });
    let patience = deadline + DEADLINE_GRACE;
    // It waits for its turn among calls, and does not fail because they wait.
    let sent = connection.call_with_room(&mut w, patience, deadline, |_| ());
    let question = sent.await?;
    let answering = async { Some(question.answer().await) };
    answer(answering, limit, &connection.peer_text()).await
}

async fn answer(
    answering: impl Future<Output = Option<Answer>>,
    limit: tokio::time::Instant,
    who: &(dyn std::fmt::Display + Sync),
) -> Result<partha_wire::Message> {
    let lost = |kind, what: &str| {
        let detail = format!("{who} {what}");
        SystemError::new(kind, detail).completed(Completed::Maybe)
    };
    match tokio::time::timeout_at(limit, answering).await {
        Ok(Some(answer)) => answer.outcome,
        Ok(None) => Err(lost(ErrorKind::BindingBroken, "is gone")),
        Err(_) => Err(lost(ErrorKind::Deadline, "did not answer in time")),
    }
}

/// A connection to a shard of a node: one that is there, or a new one.
async fn connect(client: &Client, node: NodeId, shard: Shard) -> Result<Arc<Connection>> {
    match client.pool().known(node) {
        Some(connection) => Ok(connection),
        None => client.locator().connect_shard(client, node, shard).await,
    }
}

impl Lines {
    fn post(&self, client: &Client, node: NodeId, letter: Letter) {
        let mut lines = lock(&self.by_node);
        if lines.len() >= LINES_MAX && !lines.contains_key(&node) {
            lines.retain(|_, line| line.is_open());
            if lines.len() >= LINES_MAX {
                tracing::debug!(%node, "messages go to too many nodes already");
                return;
            }
        }
        let line = lines.entry(node).or_default();
        let open = line.connection.take().filter(|open| open.is_open());
        line.connection = open.or_else(|| client.pool().known(node));
        if let Some(connection) = &line.connection
            && connection.send(&letter.framed, 0).is_ok()
        {
            return;
        }
        let refused = match &line.queue {
            Some(queue) => queue.try_send(letter),
            None => Err(mpsc::error::TrySendError::Closed(letter)),
        };
        match refused {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::debug!(%node, "too many messages wait for the node");
            }
            Err(mpsc::error::TrySendError::Closed(letter)) => {
                line.queue = start(client, node, letter);
            }
        }
    }

    fn connected(&self, node: NodeId, connection: &Arc<Connection>) {
        if let Some(line) = lock(&self.by_node).get_mut(&node) {
            line.connection = Some(connection.clone());
        }
    }
}

impl Line {
    fn is_open(&self) -> bool {
        let connected = self.connection.as_ref();
        connected.is_some_and(|connection| connection.is_open())
            || self.queue.as_ref().is_some_and(|queue| !queue.is_closed())
    }
}

/// Starts the task that connects; none where no runtime runs, as when a process ends.
fn start(client: &Client, node: NodeId, letter: Letter) -> Option<mpsc::Sender<Letter>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let (queue, letters) = mpsc::channel(QUEUE_MAX);
    queue.try_send(letter).ok()?;
    runtime.spawn(deliver(client.downgrade(), node, letters));
    Some(queue)
}

/// Connects and sends what waits. Ends when all is sent, or the client is gone.
async fn deliver(client: WeakClient, node: NodeId, mut letters: mpsc::Receiver<Letter>) {
    let mut pause = PAUSE_MIN;
    let mut connection: Option<Arc<Connection>> = None;
    while let Some(letter) = next(&mut letters).await {
        while letter.written.elapsed() < WORTH {
            let open = connection.take().filter(|c| c.is_open());
            let found = match (open, client.upgrade()) {
                (_, None) => return,
                (Some(open), Some(_)) => Ok(open),
                (None, Some(client)) => connect(&client, node, letter.shard).await,
            };
            let sent = found.and_then(|found| {
                found.send(&letter.framed, 0)?;
                Ok(found)
            });
            match sent {
                Ok(found) => {
                    if let Some(client) = client.upgrade() {
                        client.lines().connected(node, &found);
                    }
                    connection = Some(found);
                    pause = PAUSE_MIN;
                    break;
                }
                Err(error) => {
                    tracing::debug!(%node, %error, "a message about an action waits");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// The next message that waits. Without one the queue is closed, so that nothing is put into it
/// any more, and what came just before that is still sent.
async fn next(letters: &mut mpsc::Receiver<Letter>) -> Option<Letter> {
    match letters.try_recv() {
        Ok(letter) => Some(letter),
        Err(_) => {
            letters.close();
            letters.recv().await
        }
    }
}

/// The shard to be asked for when a connection is opened.
pub(crate) fn wanted(shard: Shard, shards: u16) -> u16 {
    match shard {
        Shard::Number(number) if number < shards => number,
        Shard::Number(_) => ANY_SHARD,
        Shard::Of(uid) => crate::hash::shard_of(uid, shards),
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lines({})", lock(&self.by_node).len())
    }
}
