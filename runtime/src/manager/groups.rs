//! Copies of objects, as the connection manager is asked for them.

use std::time::{Duration, Instant};

use partha_core::group::View;
use partha_core::group::view::MEMBERS_MAX;
use partha_core::id::{ClassId, NodeId, Uid};

use super::moving::not_movable;
use super::{Manager, NodeHandle, stopping};
use crate::context::Context;
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::replication::Replication;
use crate::services::binder::{GroupPlacement, GroupPolicy, GroupView};
use crate::shard::{Claim, Goal, GroupReport, Progress};
use crate::system::connection_manager::{JoinGroupError, MoveObjectError, ReplicateError};
use crate::system::{CopyDescription, NoSuchObject, NotReplicable};
use crate::wire::message;

/// Between two looks whether a new group has a leader, and for how long.
pub(super) const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(5);
/// For so long an object is waited for that is in use, before its policy changes.
const IN_USE_MAX: Duration = Duration::from_secs(8);
/// For so long the binder is waited for after that, and a node that is to lead.
const ANSWER: Duration = Duration::from_secs(2);
/// What passes soon.
pub(super) const CHOOSING: &str = "its copies are choosing who leads";

impl Manager {
    /// Gives an object copies, or another number of them.
    pub(super) async fn replicate_object(
        &self,
        cx: &Context,
        object: Uid,
        replication: Replication,
    ) -> Result<CopyDescription, ReplicateError> {
        let refuse = |reason: String| ReplicateError::from(NotReplicable { object, reason });
        if let Err(error) = replication.check() {
            return Err(refuse(error.detail().to_owned()));
        }
        // If it takes longer it is in use.
        let coming = tokio::time::timeout(PATIENCE, self.has_come(object));
        let _ = coming.await;
        if self.group_report(object).await?.is_some() {
            let report = self.led_here(object).await?;
            return self.change_copies(cx, object, replication, report).await;
        }
        let (class, claim) = match self.when_unused(object).await {
            Ok(Some(claimed)) => claimed,
            // Somebody else has just given it copies.
            Ok(None) => {
                let report = self.led_here(object).await?;
                return self.change_copies(cx, object, replication, report).await;
            }
            Err(error) if error.kind() == ErrorKind::NoSuchObject => {
                return Err(self.no_such(object).into());
            }
            Err(error) if error.kind() == ErrorKind::BadOperation => {
                return Err(refuse(error.detail().to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let me = self.home.me.node;
        let wished = replication.clone();
        let view = GroupView {
            object,
            class: class.0,
            number: self.first_number(object).await?,
            members: vec![me.0],
            wanted: wished.copies,
            policy: wished.policy.unwrap_or(GroupPolicy::Passive),
            placement: wished.placement.unwrap_or_default(),
        };
        let locator = cx.client().locator();
        let made = locator.make_group(cx.client(), &view, PATIENCE).await?;
        if made.members.first() != Some(&me.0) {
            let leader = NodeId(made.members.first().copied().unwrap_or_default());
            return Err(refuse(format!(
                "the binder knows of its copies, led by node {leader}, and this node has none"
            )));
        }
        let view = View {
            number: made.number,
            members: made.members.into_iter().map(NodeId).collect(),
        };
        let shard = self.home.shard(object);
        let join = shard.look(move |shard| {
            shard.join_group(object, view, true)?;
            // Not later: whoever asks may be gone by then.
            claim.joins();
            Ok::<_, SystemError>(())
        });
        join.await.ok_or_else(stopping)??;
        let report = self.when_it_leads(object).await?;
        // The binder may have known of it, from an attempt that was not finished.
        self.change_copies(cx, object, replication, report).await
    }

    /// Another number of copies of an object that is led here, elsewhere, or in another way; what
    /// is not said stays.
    async fn change_copies(
        &self,
        cx: &Context,
        object: Uid,
        replication: Replication,
        mut report: GroupReport,
    ) -> Result<CopyDescription, ReplicateError> {
        if let Some(policy) = replication.policy {
            self.change_policy(object, policy).await?;
            report = self.group_report(object).await?.unwrap_or(report);
        }
        let change = (replication.copies, replication.placement);
        self.change_wanted(cx, object, change, report).await
    }

    /// The number of the first view of an object: beyond what is told of its moves, so that late
    /// news of these are known as such.
    async fn first_number(&self, object: Uid) -> Result<u64> {
        let shard = self.home.shard(object);
        let moves = shard.look(move |shard| shard.came_from(object).0);
        Ok(moves.await.ok_or_else(stopping)? + 1)
    }

    /// The copies of an object that is led here keep up with each other in this way from now on.
    async fn change_policy(&self, object: Uid, policy: GroupPolicy) -> Result<()> {
        let here = self.home.registry.here();
        let changed = self
            .change_group(object, Goal::Policy(policy), IN_USE_MAX)
            .await?;
        let wrong = |kind, what: &str| {
            let detail = format!("{object} at {here}: {what}");
            Err(SystemError::new(kind, detail))
        };
        match changed {
            Progress::Done(_) => Ok(()),
            Progress::NotLed => Err(self
                .led_elsewhere(object)
                .await?
                .unwrap_or_else(|| unled(object))),
            Progress::GivenUp | Progress::Waits => {
                let what = "actions and calls have it in use all the time, and its policy stays \
                            as it is; ask again";
                wrong(ErrorKind::LockTimeout, what)
            }
            Progress::Asked => {
                let what = "the binder has not said whether its policy has changed; its calls \
                            wait for that";
                wrong(ErrorKind::Unreachable, what)
            }
        }
    }

    /// Has an object that is led here become something else, and waits for that; how far it is,
    /// in the end. It is waited for so long if it is in use, and the binder after that.
    async fn change_group(&self, object: Uid, goal: Goal, wait: Duration) -> Result<Progress> {
        let shard = self.home.shard(object);
        let begun = shard.look(move |shard| shard.begin_change(object, goal, wait));
        begun.await.ok_or_else(stopping)??;
        let until = tokio::time::Instant::now() + wait + ANSWER;
        loop {
            let progress = shard.look(move |shard| shard.progress(object, goal));
            let progress = progress.await.ok_or_else(stopping)?;
            let goes_on = matches!(progress, Progress::Waits | Progress::Asked);
            if !goes_on || tokio::time::Instant::now() > until {
                return Ok(progress);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has the copy at a node lead an object that is led here; the number of the view then. A node
    /// that has none gets one first. Each is waited for so long, and what is in use.
    pub(super) async fn hand_over(
        &self,
        cx: &Context,
        report: GroupReport,
        node: NodeId,
        wait: Duration,
    ) -> Result<u64, MoveObjectError> {
        let (object, view) = (report.object, &report.view);
        if !report.leads {
            return Err(self.not_led(object).await);
        }
        if view.leader() == node {
            return Ok(view.number);
        }
        let until = Instant::now() + wait;
        let comes = !view.has(node);
        if comes {
            self.bring_copy(cx, object, node, until).await?;
        }
        let wait = until
            .saturating_duration_since(Instant::now())
            .max(ANSWER.min(wait));
        let led = self.let_lead(cx, object, node, wait).await;
        if comes {
            self.copy_has_come(object, node).await?;
        }
        led
    }

    /// Has a node have a copy besides those that there are, and waits for it.
    async fn bring_copy(
        &self,
        cx: &Context,
        object: Uid,
        node: NodeId,
        until: Instant,
    ) -> Result<(), MoveObjectError> {
        let nodes = cx.client().locator().nodes(cx.client()).await?;
        let Some(entry) = nodes.into_iter().find(|entry| entry.node == node.0) else {
            let reason = format!("the binder knows no node {node}");
            return Err(not_movable(object, reason, false));
        };
        let name = entry.name.clone();
        let shard = self.home.shard(object);
        let why_not = shard.look(move |shard| shard.why_no_copy(object, &entry));
        if let Some(why) = why_not.await.ok_or_else(stopping)? {
            let reason = format!(
                "it is one of a group of copies, and node '{name}', which {why}, gets none"
            );
            return Err(not_movable(object, reason, false));
        }
        let mut has_asked = false;
        let refused = loop {
            match self.group_report(object).await? {
                Some(report) if !report.leads => break None,
                None => break None,
                Some(report) if report.view.has(node) => return Ok(()),
                Some(report) if report.view.members.len() >= MEMBERS_MAX => {
                    let reason = format!("it has {MEMBERS_MAX} copies, and can have no more");
                    break Some((reason, false));
                }
                Some(report) if has_asked && !report.lacking.is_empty() => {
                    break Some((format!("no copy of it there: {}", report.lacking), true));
                }
                Some(_) if Instant::now() >= until => {
                    let reason = format!("its copy at node '{name}' is not there yet");
                    break Some((reason, true));
                }
                Some(_) => {}
            }
            let shard = self.home.shard(object);
            let comes = shard.look(move |shard| shard.copy_comes(object, node, until));
            comes.await.ok_or_else(stopping)?;
            has_asked = true;
            tokio::time::sleep(LOOK).await;
        };
        self.copy_has_come(object, node).await?;
        Err(match refused {
            Some((reason, passing)) => not_movable(object, reason, passing),
            None => self.not_led(object).await,
        })
    }

    /// A copy besides is waited for no more.
    async fn copy_has_come(&self, object: Uid, node: NodeId) -> Result<()> {
        let shard = self.home.shard(object);
        let come = shard.look(move |shard| shard.copy_has_come(object, node));
        come.await.ok_or_else(stopping)
    }

    /// Has another copy lead.
    async fn let_lead(
        &self,
        cx: &Context,
        object: Uid,
        node: NodeId,
        wait: Duration,
    ) -> Result<u64, MoveObjectError> {
        // One that stands still would keep it from everybody for the time of a lease.
        if let Err(error) = self.answers(cx, node, ANSWER.min(wait)).await {
            let reason = format!("the node that is to lead does not answer: {error}");
            return Err(not_movable(object, reason, true));
        }
        let changed = match self.change_group(object, Goal::Lead(node), wait).await {
            // Somebody else has it become something at this moment.
            Err(error) if error.kind() == ErrorKind::LockTimeout => {
                return Err(not_movable(object, error.detail().to_owned(), true));
            }
            changed => changed?,
        };
        match changed {
            Progress::Done(number) => Ok(number),
            Progress::NotLed => Err(self.not_led(object).await),
            Progress::GivenUp | Progress::Waits => {
                let reason = "actions and calls have it in use all the time".to_owned();
                Err(not_movable(object, reason, true))
            }
            Progress::Asked => {
                let here = self.home.registry.here();
                let detail = format!(
                    "{object} at {here}: the binder has not said who leads its copies; its calls \
                     wait for that"
                );
                let error = SystemError::new(ErrorKind::Unreachable, detail);
                Err(error.completed(Completed::Maybe).into())
            }
        }
    }

    /// Whether a node answers within that time.
    async fn answers(&self, cx: &Context, node: NodeId, wait: Duration) -> Result<()> {
        let client = cx.client();
        let shard = message::Shard::Number(0);
        let connecting = client.locator().connect_shard(client, node, shard);
        let late = || {
            let detail = format!("node {node} has not answered within {wait:?}");
            SystemError::new(ErrorKind::Unreachable, detail)
        };
        let connected = tokio::time::timeout(wait, connecting).await;
        let node = NodeHandle::new(connected.map_err(|_| late())??);
        let caller = client.call().deadline(wait);
        node.manager().outline(&caller).await.map(drop)
    }

    /// The first copy of a group, when it leads.
    async fn when_it_leads(&self, object: Uid) -> Result<GroupReport> {
        let waited = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(report) = self.group_report(object).await?
                && report.leads
            {
                return Ok(report);
            }
            if tokio::time::Instant::now() > waited {
                let detail = format!(
                    "{object} at {}: no copy leads yet",
                    self.home.registry.here()
                );
                return Err(SystemError::new(ErrorKind::Unreachable, detail));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Another number of copies is wanted of an object that has some.
    async fn change_wanted(
        &self,
        cx: &Context,
        object: Uid,
        (copies, placement): (u16, Option<GroupPlacement>),
        report: GroupReport,
    ) -> Result<CopyDescription, ReplicateError> {
        let placed = placement.as_ref().is_none_or(|it| *it == report.placement);
        if report.wanted == copies && placed {
            // Whoever waits for the copies asks again and again: that is no write at the binder,
            // and no reason to look for nodes once more.
            return Ok(described(report));
        }
        let locator = cx.client().locator();
        let set = locator.set_wanted(cx.client(), object, copies, placement.as_ref(), PATIENCE);
        let placement = set.await?.placement;
        let shard = self.home.shard(object);
        let set = shard.look(move |shard| {
            shard.set_wanted(object, copies, placement);
            shard.group_report(object)
        });
        let now = set.await.ok_or_else(stopping)?;
        Ok(described(now.unwrap_or(report)))
    }

    /// The class of an object that can have copies, at a moment when nobody has it locked. It stays
    /// here from then on. Nothing if it has copies by now.
    async fn when_unused(&self, object: Uid) -> Result<Option<(ClassId, Claim)>> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let shard = self.home.shard(object);
            let claimed = shard.look(move |shard| shard.claim_for_copies(object));
            match claimed.await.ok_or_else(stopping)? {
                Err(error)
                    if error.kind() == ErrorKind::LockTimeout
                        && tokio::time::Instant::now() < until => {}
                claimed => return claimed,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The caller wants this node to have a copy.
    pub(super) async fn join(
        &self,
        object: Uid,
        class: ClassId,
        view: View,
    ) -> Result<(), JoinGroupError> {
        let registry = &self.home.registry;
        let refuse = |reason: String| JoinGroupError::from(NotReplicable { object, reason });
        if !registry.classes.contains_key(&class) || registry.store.is_none() {
            let (class, here) = (registry.class_name(class), registry.here());
            return Err(refuse(format!("{here} does not run class {class}")));
        }
        if view.members.is_empty() || view.members.len() > MEMBERS_MAX {
            return Err(refuse("a view has 1 to 16 members".to_owned()));
        }
        let shard = self.home.shard(object);
        // An earlier one may be on its way out.
        let until = tokio::time::Instant::now() + PATIENCE;
        while shard.look(move |shard| shard.copy_goes(object)).await == Some(true)
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(LOOK).await;
        }
        let joined = shard.look(move |shard| {
            if shard.is_group(object) {
                return Ok(());
            }
            if shard.has_object(object)? {
                let detail = "the node has the object already, and not as a copy";
                return Err(SystemError::new(ErrorKind::BadOperation, detail));
            }
            shard.join_group(object, view, false)
        });
        match joined.await.ok_or_else(stopping)? {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BadOperation => {
                Err(refuse(error.detail().to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn group_report(&self, object: Uid) -> Result<Option<GroupReport>> {
        let shard = self.home.shard(object);
        let report = shard.look(move |shard| shard.group_report(object));
        report.await.ok_or_else(stopping)
    }

    pub(super) fn no_such(&self, object: Uid) -> NoSuchObject {
        let node = self.home.me.node.0;
        NoSuchObject { object, node }
    }

    /// Where a group is led, if that is known and not here.
    async fn led_elsewhere(&self, object: Uid) -> Result<Option<SystemError>> {
        let shard = self.home.shard(object);
        let elsewhere = shard.look(move |shard| shard.bound_elsewhere(object));
        elsewhere.await.ok_or_else(stopping)
    }

    /// Why a move goes elsewhere, or has to be tried again.
    async fn not_led(&self, object: Uid) -> MoveObjectError {
        match self.led_elsewhere(object).await {
            Ok(Some(elsewhere)) => elsewhere.into(),
            Ok(None) => not_movable(object, CHOOSING.to_owned(), true),
            Err(error) => error.into(),
        }
    }

    /// The copy here, when it leads.
    ///
    /// # Errors
    /// `Moved`, as soon as another one does; `NoSuchObject` if it is gone; `LockTimeout` if that
    /// takes too long.
    async fn led_here(&self, object: Uid) -> Result<GroupReport> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(elsewhere) = self.led_elsewhere(object).await? {
                return Err(elsewhere);
            }
            match self.group_report(object).await? {
                Some(report) if report.leads => return Ok(report),
                None => {
                    let detail = format!("{} does not have {object}", self.home.registry.here());
                    return Err(SystemError::new(ErrorKind::NoSuchObject, detail));
                }
                _ if tokio::time::Instant::now() > until => return Err(unled(object)),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

fn unled(object: Uid) -> SystemError {
    let detail = format!("{object}: {CHOOSING}; ask again");
    SystemError::new(ErrorKind::LockTimeout, detail)
}

pub(super) fn described(report: GroupReport) -> CopyDescription {
    CopyDescription {
        object: report.object,
        number: report.view.number,
        members: report.view.members.iter().map(|member| member.0).collect(),
        leads: report.leads,
        installed: report.installed,
        staged: report.staged,
        wanted: report.wanted,
        lacking: report.lacking,
        executed: report.executed,
        differences: report.differences,
    }
}
