//! How a client is to be: where the naming service is, who it is, what it is called.

use std::path::PathBuf;
use std::time::Duration;

use partha_core::id::{Incarnation, Peer, Uid};

use super::identity::Identity;
use super::{Client, random_node};
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::links::{Lease, Links};
use crate::net::traffic::{Backpressure, Traffic};
use crate::services::Naming;
use crate::services::binder::Label;

/// What a client is made of: [`Client::builder`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    naming: Option<String>,
    identity: Option<PathBuf>,
    name: String,
    /// Heartbeat and lease, where they are not the usual ones.
    lease: Option<(Duration, Duration)>,
    traffic: Traffic,
    labels: Vec<Label>,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            naming: None,
            identity: None,
            name: "client".to_owned(),
            lease: None,
            traffic: Traffic::default(),
            labels: Vec::new(),
        }
    }

    /// Where the naming service listens, `host:port`. Without it the client knows only the nodes
    /// it is introduced to, see [`crate::services::Locator::introduce`].
    #[must_use]
    pub fn naming(mut self, address: impl Into<String>) -> Self {
        self.naming = Some(address.into());
        self
    }

    /// The folder where the client keeps who it is: a node id and how often it has begun to live.
    /// It is made if there is none.
    ///
    /// With it nodes know a client that was started again: its new life is served at once, and
    /// what the older one left there, locks for instance, is cleared. Without it every client is
    /// somebody new. The folder is for one client at a time; a second one is refused.
    ///
    /// An identity has 16,777,215 lives, those of one start a second for half a year; then the
    /// client is refused and its folder has to be removed.
    #[must_use]
    pub fn identity(mut self, dir: impl Into<PathBuf>) -> Self {
        self.identity = Some(dir.into());
        self
    }

    /// A name for people, shown where a node tells of its clients; at most 256 characters of it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Something that is true of where the client runs, as `zone` and `a`: of the copies of an
    /// object the nearest one is asked by methods that any may answer (`#[any_replica]`), which is
    /// one whose node has the same `rack`, then the same `zone`.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push(Label {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// How often a silent node is asked whether it lives, and for how long it may be silent before
    /// it is taken for dead; 1.2 s and 4 s if not said. What holds for
    /// [`crate::NodeBuilder::lease`] holds here: a node has a lease of its own on its clients.
    #[must_use]
    pub fn lease(mut self, heartbeat: Duration, lease: Duration) -> Self {
        self.lease = Some((heartbeat, lease));
        self
    }

    /// The largest message, in bytes: of arguments, results, or what else travels at once. 4 MiB if
    /// not said. Both ends of a connection have a limit of their own: a message above that of its
    /// receiver is refused where it is sent, before anything leaves, and one above the sender's own
    /// when it is made.
    ///
    /// What may wait on a connection follows from it: docs/operations.md says how much memory.
    /// A single `bytes`, `string` or list has less than 512 Mi elements, whatever the limit.
    /// Stored states and plain Cap'n Proto clients keep the usual one.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.traffic.message_bytes_max = bytes;
        self
    }

    /// What a call does that finds no room on its connection: waits for its turn until its
    /// deadline, if not said, or fails at once.
    #[must_use]
    pub fn backpressure(mut self, backpressure: Backpressure) -> Self {
        self.traffic.backpressure = backpressure;
        self
    }

    /// Makes the client, and connects it to the naming service if it has one.
    ///
    /// # Errors
    /// Those of [`ClientBuilder::build`]; `Unreachable` if nobody answers at the naming service's
    /// address, `VersionMismatch` if it is not one of ours.
    pub async fn connect(self) -> Result<Client> {
        let has_naming = self.naming.is_some();
        // The disk may take its time; other tasks of the thread need not wait for it.
        let client = match self.identity {
            Some(_) => tokio::task::spawn_blocking(|| self.build())
                .await
                .map_err(|error| SystemError::new(ErrorKind::Internal, error.to_string()))??,
            None => self.build()?,
        };
        if has_naming {
            client.connection_for(Uid::NAMING_ROOT).await?;
        }
        Ok(client)
    }

    /// Makes the client without connecting it. With an identity it blocks until that is on disk.
    ///
    /// # Errors
    /// `Store` if the identity is in use, damaged, used up, or cannot be written, a full disk for
    /// instance; the error says what to do. `BadOperation` if the lease is too short for its
    /// heartbeat, the identity has no folder, a label is none, or the largest message is out of
    /// range. `Internal` if the system gives no random numbers.
    pub fn build(self) -> Result<Client> {
        Label::check_all(&self.labels)
            .map_err(|reason| SystemError::new(ErrorKind::BadOperation, reason))?;
        let lease = self
            .lease
            .map(|(heartbeat, lease)| Lease::new(heartbeat, lease));
        let lease = lease.transpose()?.unwrap_or_default();
        let links = Links {
            lease,
            traffic: self.traffic.check()?,
            ..Links::default()
        };
        if self
            .identity
            .as_ref()
            .is_some_and(|dir| dir.as_os_str().is_empty())
        {
            let detail = "the folder of the client's identity has no name; is a variable unset?";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        let identity = self.identity.as_deref().map(Identity::take).transpose()?;
        let me = match &identity {
            Some(identity) => identity.me(),
            None => Peer {
                node: random_node()?,
                incarnation: Incarnation(1),
            },
        };
        let naming = self.naming.map(|address| Naming::new(Some(address)));
        let own = (identity, self.labels);
        Ok(Client::of(me, &self.name, naming, links, (0, None), own))
    }
}
