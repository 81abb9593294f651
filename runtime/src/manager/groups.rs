//! Copies of objects, as the connection manager is asked for them.

use std::time::Duration;

use partha_core::group::View;
use partha_core::group::view::MEMBERS_MAX;
use partha_core::id::{ClassId, NodeId, Uid};

use super::{Manager, stopping};
use crate::context::Context;
use crate::error::{ErrorKind, Result, SystemError};
use crate::replication::Replication;
use crate::services::binder::{GroupPlacement, GroupPolicy, GroupView};
use crate::shard::{GroupReport, PolicyChange};
use crate::system::connection_manager::{JoinGroupError, ReplicateError};
use crate::system::{CopyDescription, NoSuchObject, NotReplicable};

/// Between two looks whether a new group has a leader, and for how long.
pub(super) const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(5);

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
        let Replication {
            copies,
            policy,
            placement,
        } = replication;
        if let Some(mut report) = self.group_report(object).await? {
            if !report.leads {
                return Err(self.not_here(object).await?.into());
            }
            if let Some(policy) = policy {
                self.change_policy(object, policy).await?;
                report = self.group_report(object).await?.unwrap_or(report);
            }
            let change = self.change_wanted(cx, object, (copies, placement), report);
            return change.await;
        }
        let class = match self.when_unused(object).await {
            Ok(class) => class,
            Err(error) if error.kind() == ErrorKind::NoSuchObject => {
                return Err(self.no_such(object).into());
            }
            Err(error) if error.kind() == ErrorKind::BadOperation => {
                return Err(refuse(error.detail().to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let me = self.home.me.node;
        let policy = policy.unwrap_or(GroupPolicy::Passive);
        let view = GroupView {
            object,
            class: class.0,
            number: 1,
            members: vec![me.0],
            wanted: copies,
            policy,
            placement: placement.unwrap_or_default(),
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
        let join = shard.look(move |shard| shard.join_group(object, view, true));
        join.await.ok_or_else(stopping)??;
        self.when_it_leads(object).await?;
        // The binder may have known of it, from an attempt that was not finished.
        self.change_policy(object, policy).await?;
        Ok(self.when_it_leads(object).await?)
    }

    /// The copies of an object that is led here keep up with each other in this way from now on.
    async fn change_policy(&self, object: Uid, policy: GroupPolicy) -> Result<()> {
        let shard = self.home.shard(object);
        let begun = shard.look(move |shard| shard.begin_policy(object, policy));
        begun.await.ok_or_else(stopping)??;
        // It takes so long at most until the object is not in use, or is, and until the binder
        // has answered.
        let until = tokio::time::Instant::now() + 2 * PATIENCE;
        loop {
            let here = self.home.registry.here();
            let wrong = |kind, what: &str| {
                let detail = format!("{object} at {here}: {what}");
                Err(SystemError::new(kind, detail))
            };
            let change = shard.look(move |shard| shard.policy_change(object, policy));
            match change.await.ok_or_else(stopping)? {
                PolicyChange::Done => return Ok(()),
                PolicyChange::NotLed => return Err(self.not_here(object).await?),
                PolicyChange::GivenUp => {
                    let what = "actions and calls have it in use all the time, and its policy \
                                stays as it is; ask again";
                    return wrong(ErrorKind::LockTimeout, what);
                }
                PolicyChange::Asked if tokio::time::Instant::now() > until => {
                    let what = "the binder has not said whether its policy has changed; its calls \
                                wait for that";
                    return wrong(ErrorKind::Unreachable, what);
                }
                PolicyChange::Waits | PolicyChange::Asked => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The first copy of a group, when it leads.
    async fn when_it_leads(&self, object: Uid) -> Result<CopyDescription> {
        let waited = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(report) = self.group_report(object).await?
                && report.leads
            {
                return Ok(described(report));
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

    /// The class of an object that can have copies, at a moment when nobody has it locked.
    async fn when_unused(&self, object: Uid) -> Result<ClassId> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let shard = self.home.shard(object);
            let class = shard.look(move |shard| shard.may_replicate(object));
            match class.await.ok_or_else(stopping)? {
                Err(error)
                    if error.kind() == ErrorKind::LockTimeout
                        && tokio::time::Instant::now() < until => {}
                class => return class,
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

    /// Where the group is led.
    async fn not_here(&self, object: Uid) -> Result<SystemError> {
        let shard = self.home.shard(object);
        let elsewhere = shard.look(move |shard| shard.bound_elsewhere(object));
        let elsewhere = elsewhere.await.ok_or_else(stopping)?;
        Ok(elsewhere.unwrap_or_else(|| {
            let detail = format!("{object}: its copies are choosing who leads; ask again");
            SystemError::new(ErrorKind::Unreachable, detail)
        }))
    }
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
