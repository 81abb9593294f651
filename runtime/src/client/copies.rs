//! Copies of objects at several nodes.

use std::time::{Duration, Instant};

use partha_core::id::{NodeId, Uid};

use super::Client;
use super::moving::Trail;
use crate::abi::Transient;
use crate::capability::Capability;
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::replication::Replication;
use crate::system::connection_manager::ReplicateError;
use crate::system::{ConnectionManager, CopyDescription};

/// What making the first copy a group may take.
const MAKING: Duration = Duration::from_secs(20);

/// How often it is looked whether all copies of a new object are there.
const LOOK: Duration = Duration::from_millis(20);

/// The copies of an object, as the one that leads them knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Counts the changes of the members and of the policy.
    pub view: u64,
    /// The nodes that have copies with the latest state, in the order in which they lead.
    pub members: Vec<NodeId>,
    /// How many there are to be.
    pub wanted: u16,
    /// Why there are fewer; empty if that is not known, or there are enough.
    pub lacking: String,
}

impl Client {
    /// Gives a persistent object copies, so that it outlives the loss of all nodes but one that
    /// have one: `copies` in all, at different nodes. Answers those that there are now; the others
    /// come by and by, as long as there are nodes that run its class, and take the places of those
    /// that are lost. Of an object that has copies it changes the number: those that are too many
    /// go, the youngest first.
    ///
    /// One copy leads and answers all calls. What a call changes is on the disks of all copies
    /// before it is answered. If the leader's node is lost, another copy leads; a call that was
    /// under way is asked for again under its call id, and is never executed twice.
    ///
    /// It needs the binder, which keeps the views of groups, when a copy is lost or comes, not for
    /// calls.
    ///
    /// # Example
    /// ```
    /// # use partha::{Client, Ref, Result};
    /// # async fn example(client: &Client, account: &Ref) -> Result<()> {
    /// let copies = client.replicate(account.uid(), 3).await?;
    /// println!("{} of 3 copies", copies.members.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `BadOperation` if the object cannot have copies, or not so many; `LockTimeout` if it is in
    /// use all the time; `NoSuchObject`; those of its node and of the binder. Asking again is
    /// harmless.
    pub async fn replicate(&self, object: Uid, copies: u16) -> Result<Copies> {
        self.replicate_as(object, &Replication::of(copies)).await
    }

    /// As [`Client::replicate`], with a policy, and with wishes where copies to come are to be.
    ///
    /// Of an object that has copies it changes the policy, when no action and no call has the
    /// object in use, for which it waits up to 8 s. Until then calls that begin something wait for
    /// up to 300 ms at a time. References from before are as good after it, and actions that run
    /// do not notice it.
    ///
    /// # Errors
    /// As there; `LockTimeout`, too, if the policy is to change and the object is in use all the
    /// time: it stays then. `Moved` if it was followed for too long.
    pub async fn replicate_as(&self, object: Uid, replication: &Replication) -> Result<Copies> {
        replication.check()?;
        let mut trail = Trail::default();
        loop {
            let error = match self.ask_to_replicate(object, replication).await {
                Ok(copies) => return Ok(Copies::from(copies)),
                Err(ReplicateError::NoSuchObject(at)) => {
                    let detail = format!("node {} does not have object {object}", NodeId(at.node));
                    SystemError::new(ErrorKind::NoSuchObject, detail)
                }
                Err(ReplicateError::NotReplicable(error)) => {
                    let detail = format!("no copies of {object}: {}", error.reason);
                    return Err(SystemError::new(ErrorKind::BadOperation, detail));
                }
                Err(ReplicateError::System(error)) => error,
            };
            self.go_on(&mut trail, object, error).await?;
        }
    }

    async fn ask_to_replicate(
        &self,
        object: Uid,
        replication: &Replication,
    ) -> Result<CopyDescription, ReplicateError> {
        let home = self.home_if_any();
        let manager = match home.filter(|_| self.local_shard(object).is_some()) {
            Some(home) => home.manager_capability(),
            None => Capability::manager(self.connection_for(object).await?),
        };
        let manager = ConnectionManager::from_capability(manager);
        let caller = self.call().deadline(MAKING);
        let Replication {
            policy,
            copies,
            placement,
        } = replication;
        manager
            .replicate(&caller, object, *copies, *policy, placement.as_ref())
            .await
    }

    /// Gives a new object its copies, and waits until all are there that can be.
    pub(crate) async fn replicate_new(
        &self,
        object: Uid,
        replication: &Replication,
        until: Instant,
    ) -> Result<()> {
        loop {
            let copies = self.replicate_as(object, replication).await?;
            let there = copies.members.len();
            if there >= usize::from(replication.copies) {
                return Ok(());
            }
            if !copies.lacking.is_empty() {
                let (wanted, why) = (replication.copies, &copies.lacking);
                tracing::warn!(%object, there, wanted, why, "fewer copies than wanted, for now");
                return Ok(());
            }
            if Instant::now() >= until {
                let wanted = replication.copies;
                let detail = format!("{object} is made, and has {there} of {wanted} copies yet");
                let error = SystemError::new(ErrorKind::Deadline, detail);
                return Err(error.completed(Completed::Maybe));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl From<CopyDescription> for Copies {
    fn from(copies: CopyDescription) -> Self {
        Self {
            view: copies.number,
            members: copies.members.into_iter().map(NodeId).collect(),
            wanted: copies.wanted,
            lacking: copies.lacking,
        }
    }
}
