//! What a node has of replicated objects: what its copies come to, and how they go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use partha_core::id::{NodeId, Uid};
use partha_store::{ObjectStore, StoreError};
use sha2::{Digest as _, Sha256};

use super::groups::{CHOOSING, LOOK, described};
use super::{Manager, NodeHandle, stopping};
use crate::context::Context;
use crate::error::{ErrorKind, Result, SystemError};
use crate::hash::shard_of;
use crate::shard::GroupReport;
use crate::system::connection_manager::{CopyHashError, GiveUpCopyError};
use crate::system::{CopyDescription, CopyHash, NotMovable};
use crate::wire::message;

/// Objects asked about at a time, at most.
const OBJECTS_MAX: usize = 1_000;
/// How much of a caller's time is left for the answer.
const GRACE: Duration = Duration::from_millis(500);
/// Bytes of rows that are read at a time.
const PAGE_BYTES: usize = 256 << 10;
/// How often a copy is read that changes meanwhile.
const READS: u32 = 20;

impl Manager {
    /// What there is of those of the objects that have a copy here.
    pub(super) async fn copies_here(&self, objects: Vec<Uid>) -> Result<Vec<CopyDescription>> {
        if objects.len() > OBJECTS_MAX {
            let detail = format!("{} objects at once, at most {OBJECTS_MAX}", objects.len());
            return Err(SystemError::new(ErrorKind::TooLarge, detail));
        }
        let reports = self.reports_of(objects.into_iter()).await?;
        Ok(reports.into_iter().map(described).collect())
    }

    /// Those of the objects that have a copy here.
    pub(super) async fn copies_among(
        &self,
        objects: impl Iterator<Item = Uid>,
    ) -> Result<BTreeSet<Uid>> {
        let reports = self.reports_of(objects).await?;
        Ok(reports.into_iter().map(|report| report.object).collect())
    }

    async fn reports_of(&self, objects: impl Iterator<Item = Uid>) -> Result<Vec<GroupReport>> {
        let shards = &self.home.shards;
        let mut by_shard: Vec<Vec<Uid>> = vec![Vec::new(); shards.len()];
        for object in objects {
            by_shard[usize::from(shard_of(object, shards.len() as u16))].push(object);
        }
        let mut reports = Vec::new();
        for (shard, objects) in shards.iter().zip(by_shard) {
            if objects.is_empty() {
                continue;
            }
            let look = shard.look(move |shard| {
                let reports = objects.iter().filter_map(|it| shard.group_report(*it));
                reports.collect::<Vec<_>>()
            });
            reports.extend(look.await.ok_or_else(stopping)?);
        }
        Ok(reports)
    }

    /// What a copy comes to.
    pub(super) async fn hash_of(&self, object: Uid) -> Result<CopyHash, CopyHashError> {
        let store = self.home.registry.store.clone();
        let hashing = tokio::task::spawn_blocking(move || match store {
            Some(store) => hash(&*store, object),
            None => Ok(None),
        });
        let hashed = hashing
            .await
            .map_err(|_| SystemError::new(ErrorKind::Internal, "reading a copy panicked"))?;
        hashed?.ok_or_else(|| self.no_such(object).into())
    }

    /// Has the copy at a node go, and waits for that.
    pub(super) async fn give_up(
        &self,
        cx: &Context,
        object: Uid,
        node: NodeId,
        wait: Duration,
    ) -> Result<(), GiveUpCopyError> {
        let wait = wait.min(cx.time_left().saturating_sub(GRACE));
        let until = Instant::now() + wait;
        let me = self.home.me.node;
        let mut last = CHOOSING.to_owned();
        // What was said of nodes before this may be of long ago.
        let mut has_looked = false;
        loop {
            let Some(report) = self.group_report(object).await? else {
                if node == me {
                    return Ok(());
                }
                let reason = "the node that was asked has no copy of it".to_owned();
                return Err(not_movable(object, reason, true));
            };
            if report.leads {
                if node != me && !report.view.has(node) {
                    return Ok(());
                }
                let shard = self.home.shard(object);
                let leaves = shard.look(move |shard| {
                    shard.copy_leaves(object, node, until, !has_looked);
                });
                leaves.await.ok_or_else(stopping)?;
                if std::mem::replace(&mut has_looked, true) && !report.lacking.is_empty() {
                    let reason = format!("its copy cannot be replaced: {}", report.lacking);
                    return Err(not_movable(object, reason, false));
                }
                "another copy takes its place".clone_into(&mut last);
            } else if node != me {
                let reason = "another copy leads by now".to_owned();
                return Err(not_movable(object, reason, true));
            } else if report.member {
                let leader = report.view.leader();
                let left = until.saturating_duration_since(Instant::now());
                match self.ask_leader(cx, object, leader, left).await {
                    Ok(()) => {}
                    Err(GiveUpCopyError::NotMovable(error)) if !error.passing => {
                        return Err(error.into());
                    }
                    Err(error) => last = error.to_string(),
                }
            } else {
                // It will be told to go.
                "its copy has to be removed yet".clone_into(&mut last);
            }
            if Instant::now() >= until {
                return Err(not_movable(object, last, true));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask_leader(
        &self,
        cx: &Context,
        object: Uid,
        leader: NodeId,
        left: Duration,
    ) -> Result<(), GiveUpCopyError> {
        let me = self.home.me.node;
        let locator = cx.client().locator();
        let shard = message::Shard::Number(0);
        let connection = locator.connect_shard(cx.client(), leader, shard).await?;
        let handle = NodeHandle::new(connection);
        let caller = cx.client().call().deadline(left + GRACE);
        handle
            .manager()
            .give_up_copy(&caller, object, me.0, left)
            .await
    }
}

fn not_movable(object: Uid, reason: String, passing: bool) -> GiveUpCopyError {
    NotMovable {
        object,
        reason,
        passing,
    }
    .into()
}

/// Reads a copy at a moment when nothing is installed.
fn hash(store: &dyn ObjectStore, object: Uid) -> Result<Option<CopyHash>> {
    let unreadable = |error: StoreError| {
        SystemError::new(ErrorKind::Store, format!("the copy of {object}: {error}"))
    };
    for _ in 0..READS {
        if store.read_group(object).map_err(unreadable)?.is_none() {
            return Ok(None);
        }
        let before = store.group_state(object).map_err(unreadable)?;
        let Some((at, record)) = before.and_then(|it| Some((it.at, it.record?))) else {
            return Ok(None);
        };
        let mut hash = Sha256::new();
        hash.update(record.class.0.to_be_bytes());
        hash.update(record.version.to_be_bytes());
        let mut size_bytes = framed(&mut hash, &record.state);
        let (mut rows, mut after) = (0, None);
        loop {
            let from = after
                .as_ref()
                .map(|(part, key): &(u16, bytes::Bytes)| (*part, &key[..]));
            let page = store
                .export_rows(object, from, PAGE_BYTES)
                .map_err(unreadable)?;
            for row in &page.rows {
                hash.update(row.part.to_be_bytes());
                size_bytes += framed(&mut hash, &row.key) + framed(&mut hash, &row.value);
                rows += 1;
            }
            after = page.rows.last().map(|row| (row.part, row.key.clone()));
            if !page.more || after.is_none() {
                break;
            }
        }
        let now = store.group_state(object).map_err(unreadable)?;
        if now.is_some_and(|now| now.at == at) {
            return Ok(Some(CopyHash {
                installed: at.index,
                hash: hash.finalize().to_vec().into(),
                rows,
                size_bytes,
            }));
        }
    }
    let detail = format!("the copy of {object} changes while it is read; ask again");
    Err(SystemError::new(ErrorKind::Overloaded, detail))
}

/// With its length before it, so that what stands beside each other cannot be taken for another
/// division of it.
fn framed(hash: &mut Sha256, bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    hash.update(length.to_be_bytes());
    hash.update(bytes);
    length
}
