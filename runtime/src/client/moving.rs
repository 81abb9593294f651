//! Moving objects between nodes.

use std::time::Duration;

use partha_core::binding::{HOPS_MAX, Hops};
use partha_core::id::{NodeId, Uid};

use super::Client;
use crate::abi::Transient;
use crate::capability::Capability;
use crate::error::{ErrorKind, Result, SystemError};
use crate::moved::Moved;
use crate::system::ConnectionManager;
use crate::system::connection_manager::MoveObjectError;

/// What a move may take besides the waiting.
const MOVING: Duration = Duration::from_secs(30);

/// How far an object was followed.
#[derive(Debug, Default)]
pub(super) struct Trail {
    hops: Hops,
    /// How often it was not where it was thought to be.
    forgotten: u32,
}

impl Client {
    /// Moves a persistent object to another node, whoever has it now and whoever uses it. Answers
    /// how often it has moved. An object that is there already is left there.
    ///
    /// The object goes between its calls, with its state, its rows, the replies that are saved of
    /// it, and the locks and undo information of running actions: none of them aborts because of
    /// it. Calls that come meanwhile wait and follow; references stay good, and none of them has to
    /// be told.
    ///
    /// Of an object with copies the copy at that node comes to lead, when nothing of the object is
    /// in use; the answer is the number of the view. A node without one gets one before that, and
    /// the youngest of the others goes then, so that there are as many as are wanted.
    ///
    /// `wait` is how long the move may take, and above all how long it may wait until no method of
    /// the object runs and no action that has it locked is just being committed. Calls that come
    /// are held back in that time. An object that has just come there serves for a moment first,
    /// 100 ms if its node was not told otherwise; that does not count.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use partha::{Client, NodeId, Ref, Result};
    /// # async fn example(client: &Client, account: &Ref, node: NodeId) -> Result<()> {
    /// let moves = client.move_object(account.uid(), node, Duration::from_secs(5)).await?;
    /// println!("it has moved {moves} times");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The object stays where it is with all of them but those that are `Maybe` executed, after
    /// which asking again is harmless:
    /// - `BadOperation`: it never goes there. The node does not run its class, or another version
    ///   of it; the object is a service's own, or a transient one; it has copies, and the node may
    ///   have none: it is away or cordoned, or does not have the labels that they are placed by.
    /// - `LockTimeout`: it did not come to rest within `wait`, or something else is in the way that
    ///   passes, as the text says.
    /// - `Unreachable`, `Draining`, `Store`: of one of the two nodes; may pass.
    /// - `Overloaded`: the target had no room for it within `wait`; may pass.
    /// - `NoSuchObject`.
    pub async fn move_object(&self, object: Uid, node: NodeId, wait: Duration) -> Result<u64> {
        let mut trail = Trail::default();
        loop {
            let error = match self.ask_to_move(object, node, wait).await {
                Ok(moves) => {
                    let addresses = self.locator().addresses(node);
                    let to = Moved {
                        node,
                        addresses,
                        moves,
                    };
                    if moves > 0 {
                        self.locator().moved().note(object, &to);
                    }
                    return Ok(moves);
                }
                Err(MoveObjectError::NoSuchObject(at)) => {
                    let detail = format!("node {} does not have object {object}", NodeId(at.node));
                    SystemError::new(ErrorKind::NoSuchObject, detail)
                }
                Err(MoveObjectError::NotMovable(error)) => {
                    let kind = match error.passing {
                        true => ErrorKind::LockTimeout,
                        false => ErrorKind::BadOperation,
                    };
                    let detail = format!("object {object} does not move: {}", error.reason);
                    return Err(SystemError::new(kind, detail));
                }
                Err(MoveObjectError::System(error)) => error,
            };
            self.go_on(&mut trail, object, error).await?;
        }
    }

    /// Looks for an object elsewhere: where the error says that it is; or, where it says that the
    /// object is not where it was thought to be, without what was thought.
    ///
    /// # Errors
    /// The error, if it says neither, or was followed for too long.
    pub(super) async fn go_on(
        &self,
        trail: &mut Trail,
        object: Uid,
        error: SystemError,
    ) -> Result<()> {
        let whereabouts = self.locator().moved();
        let Some(to) = error.moved() else {
            let misled =
                error.kind() == ErrorKind::NoSuchObject && whereabouts.of(object).is_some();
            if !misled || trail.forgotten >= HOPS_MAX {
                return Err(error);
            }
            whereabouts.forget(object);
            trail.forgotten += 1;
            return Ok(());
        };
        let Some(pause) = trail.hops.follow(to.moves) else {
            return Err(error);
        };
        whereabouts.note(object, to);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Asks the node that has the object, as far as is known.
    async fn ask_to_move(
        &self,
        object: Uid,
        node: NodeId,
        wait: Duration,
    ) -> Result<u64, MoveObjectError> {
        let home = self.home_if_any();
        let manager = match home.filter(|_| self.local_shard(object).is_some()) {
            Some(home) => home.manager_capability(),
            None => Capability::manager(self.connection_for(object).await?),
        };
        let manager = ConnectionManager::from_capability(manager);
        let caller = self.call().deadline(wait + MOVING);
        manager.move_object(&caller, object, node.0, wait).await
    }
}
