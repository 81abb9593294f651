//! Which node has an object: as the binder says, or as the nodes say that had it.
//!
//! The binder's word is a hint. Where it does not lead to the object, or there is none, the node
//! that made the object is asked, and whoever that says has it. Whoever does not answer is not
//! waited for while the binder names others: another copy leads when one has been silent for a
//! lease.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use partha::system::ObjectDescription;
use partha::{Moved, NodeId, SystemError, Uid};
use tokio::time::Instant;

use crate::cluster::{NodeInfo, System};

/// Nodes that are asked one after the other, at most.
const HOPS_MAX: usize = 64;

/// How long a node may take before the binder is asked where the object is, and how often it is
/// asked then.
const PAUSE: Duration = Duration::from_millis(80);
/// How long whoever the binder names then is waited for: it may not answer either. So there are
/// 25 questions at a time, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// An object at the node that has it.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) node: Arc<NodeInfo>,
    pub(crate) found: ObjectDescription,
    /// The nodes that said that it had gone, in the order in which they were asked.
    pub(crate) forwards: Vec<Arc<NodeInfo>>,
}

impl System {
    /// The node that has an object, and what it knows of it.
    pub(crate) async fn owner(&self, object: Uid) -> anyhow::Result<Owned> {
        let looking = async {
            let naming = self.client.node_at(self.naming_address()).await?;
            // The naming service's own objects need no binder, and may be there before there is
            // one.
            if naming.id() != object.node
                && let Some(owned) = self.said_by_binder(object).await
            {
                return Ok(owned);
            }
            self.traced(object).await
        };
        self.or_elsewhere(object, looking).await
    }

    /// The same, with the nodes that the object has gone through, as far as they tell.
    ///
    /// Of an object with copies that is the one that leads: others have a state of it, too.
    pub(crate) async fn owner_traced(&self, object: Uid) -> anyhow::Result<Owned> {
        let views = self.client.locator();
        let views = views.views(&self.client, &[object], PATIENCE).await;
        if views.is_ok_and(|views| !views.is_empty()) {
            return self.owner(object).await;
        }
        self.or_elsewhere(object, self.traced(object)).await
    }

    /// What comes of looking for an object, or what the binder says meanwhile, from time to time.
    /// It is asked for a while longer if nothing came of it and there are other copies: one of
    /// them is about to lead.
    async fn or_elsewhere(
        &self,
        object: Uid,
        looking: impl Future<Output = anyhow::Result<Owned>>,
    ) -> anyhow::Result<Owned> {
        let mut asked = FuturesUnordered::new();
        tokio::pin!(looking);
        // Answers that lead nowhere must not put off the next question.
        let mut next = tokio::time::interval_at(Instant::now() + PAUSE, PAUSE);
        let mut failed = None;
        loop {
            tokio::select! {
                biased;
                owned = &mut looking, if failed.is_none() => match owned {
                    Ok(owned) => return Ok(owned),
                    Err(error) if !self.has_others(object).await => return Err(error),
                    Err(error) => failed = Some((error, Instant::now() + PATIENCE)),
                },
                Some(owned) = asked.next() => if let Some(owned) = owned {
                    return Ok(owned);
                },
                _ = next.tick() => {
                    if let Some((_, until)) = &failed
                        && Instant::now() > *until
                    {
                        let (error, _) = failed.expect("it was there just now");
                        return Err(error);
                    }
                    let said = tokio::time::timeout(PATIENCE, self.said_by_binder(object));
                    asked.push(said.map(|said| said.ok().flatten()));
                }
            }
        }
    }

    /// Whether the object has other copies than the one that leads, as far as the binder answers.
    async fn has_others(&self, object: Uid) -> bool {
        let views = self.client.locator();
        let views = views.views(&self.client, &[object], PATIENCE).await;
        views.is_ok_and(|views| views.iter().any(|view| view.members.len() > 1))
    }

    /// Nothing where what the binder says does not lead to the object.
    async fn said_by_binder(&self, object: Uid) -> Option<Owned> {
        let location = self.client.locator().location(&self.client, object).await;
        let node = self.node_again(&location.ok()?.node).await.ok()?;
        self.followed(object, node, &mut Vec::new()).await.ok()
    }

    /// From the node that made it on.
    async fn traced(&self, object: Uid) -> anyhow::Result<Owned> {
        let mut forwards = Vec::new();
        let error = match self.birthplace(object).await {
            Ok(node) => match self.followed(object, node, &mut forwards).await {
                Ok(owned) => return Ok(owned),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let location = self.client.locator().location(&self.client, object).await;
        match location {
            Ok(location) if location.moved => {
                let node = self.node(&location.node).await?;
                self.followed(object, node, &mut forwards).await
            }
            // The binder knows no better, or cannot be asked.
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// Asks a node for the object, and those after it that it has gone to.
    async fn followed(
        &self,
        object: Uid,
        mut node: Arc<NodeInfo>,
        forwards: &mut Vec<Arc<NodeInfo>>,
    ) -> anyhow::Result<Owned> {
        let mut moves = 0;
        for _ in 0..HOPS_MAX {
            let error = match node.inspect(&self.client, object).await {
                Ok(found) => {
                    let forwards = std::mem::take(forwards);
                    return Ok(Owned {
                        node,
                        found,
                        forwards,
                    });
                }
                Err(error) => error,
            };
            let moved = moved(&error).filter(|moved| moved.moves > moves);
            let Some(moved) = moved.cloned() else {
                return Err(error);
            };
            moves = moved.moves;
            forwards.push(node);
            node = self.moved_to(&moved).await?;
        }
        let hops = HOPS_MAX;
        anyhow::bail!("{object} has moved on {hops} times while it was looked for; look again")
    }

    async fn moved_to(&self, moved: &Moved) -> anyhow::Result<Arc<NodeInfo>> {
        self.asked_once(moved.node, async {
            for address in &moved.addresses {
                match self.node_at(address).await {
                    Ok(node) if node.handle.id() == moved.node => return Ok(node),
                    // It listens elsewhere by now: the binder knows.
                    Ok(_) | Err(_) => {}
                }
            }
            self.registered(moved.node).await
        })
        .await
    }

    /// A node by its identity, wherever it listens now.
    pub(crate) async fn registered(&self, node: NodeId) -> anyhow::Result<NodeInfo> {
        // A node's manager is where the node is; other objects may have moved.
        let manager = Uid::connection_manager(node);
        let entry = self.client.locator().locate(&self.client, manager).await?;
        self.reach(&entry).await
    }
}

/// Where the object has gone, if that is the error.
fn moved(error: &anyhow::Error) -> Option<&Moved> {
    let mut causes = error.chain();
    causes.find_map(|cause| cause.downcast_ref::<SystemError>()?.moved())
}
