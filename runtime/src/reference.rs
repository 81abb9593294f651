//! References to persistent objects: plain data, bound when they are used.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use partha_core::id::{ClassId, NodeId, Uid};
use partha_wire::Writer;

use crate::abi::{ClassInfo, Method, Request};
use crate::binding::{Binding, BindingHandle};
use crate::caller::Caller;
use crate::client::Client;
use crate::error::{ErrorKind, Result, SystemError};
use crate::replication::Replication;

/// An object's identity and class, with a cache of where it was found.
///
/// It is `Send + Sync + Clone`, compares by identity, travels in messages and lies in states as
/// plain data, and is bound anew by whoever receives it. Dropping the last clone that was used
/// with a client gives the binding back (`terminate`).
#[derive(Clone)]
pub struct Ref {
    uid: Uid,
    class: ClassId,
    binding: OnceLock<Arc<Binding>>,
}

/// Where a new object is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// At any living node that can run the class and is not cordoned; they take turns.
    Any,
    /// As [`Place::Any`], among those with a label of this name and this value.
    Labelled(String, String),
    /// At the node of this name, also if it is cordoned.
    Named(String),
    /// At this node.
    Node(NodeId),
    /// Where this object was born.
    Beside(Uid),
    /// At that place, with copies at other nodes: [`Place::replicated`].
    Replicated(Box<Self>, Box<Replication>),
}

impl Ref {
    /// A reference; nothing is checked before the first call.
    #[must_use]
    pub fn new(uid: Uid, class: ClassId) -> Self {
        Self {
            uid,
            class,
            binding: OnceLock::new(),
        }
    }

    /// The object's identity.
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The class the object is known as; it may be of a derived one.
    #[must_use]
    pub fn class(&self) -> ClassId {
        self.class
    }

    /// Looks a name up, finds the object and binds it: all errors come now.
    ///
    /// # Errors
    /// `NameNotFound` with the deepest part that exists, `WrongClass`, `NoSuchObject`,
    /// `Unreachable`.
    pub async fn bind(client: &Client, name: &str, info: &'static ClassInfo) -> Result<Self> {
        let entry = client.naming()?.lookup(client, name).await?;
        let reference = Self::new(entry.object, info.id);
        let bound = reference.ensure_bound(client).await;
        bound.map_err(|error| error.context(format_args!("binding '{name}'")))?;
        Ok(reference)
    }

    /// Makes sure that the object is there and of the class.
    ///
    /// # Errors
    /// `WrongClass`, `NoSuchObject`, `Unreachable`.
    pub async fn ensure_bound(&self, client: &Client) -> Result<()> {
        self.bound_by(client).ensure(client).await
    }

    /// Makes a new object.
    ///
    /// # Errors
    /// `Unreachable` if no node at that place can run the class.
    pub async fn create(
        caller: &impl Caller,
        place: &Place,
        info: &'static ClassInfo,
        arguments: Writer,
    ) -> Result<Self> {
        let (arguments, _) = arguments.finish()?;
        let uid = crate::create::create(caller, place, info, arguments.into()).await?;
        Ok(Self::new(uid, info.id))
    }

    /// Begins a call; generated stubs fill it in.
    pub fn request(
        &self,
        caller: &impl Caller,
        method: &'static Method,
        data: u16,
        pointers: u16,
    ) -> Request {
        let scope = caller.scope();
        let binding = self.bound_by(&scope.client);
        Request::of_object(binding, scope, method, data, pointers)
    }

    /// The binding of the object by this client, to learn when it breaks.
    #[must_use]
    pub fn binding(&self, client: &Client) -> BindingHandle {
        BindingHandle::new(self.bound_by(client))
    }

    fn bound_by(&self, client: &Client) -> Arc<Binding> {
        let cached = self
            .binding
            .get_or_init(|| client.binding(self.uid, self.class));
        if cached.belongs_to(client) {
            return cached.clone();
        }
        // Another client of the same process uses this reference: it has a binding of its own.
        client.binding(self.uid, self.class)
    }
}

impl PartialEq for Ref {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid
    }
}

impl Eq for Ref {}

impl PartialOrd for Ref {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ref {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uid.cmp(&other.uid)
    }
}

impl Hash for Ref {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uid.hash(state);
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({} of {})", self.uid, self.class)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any node"),
            Self::Labelled(name, value) => write!(f, "any node with the label {name}={value}"),
            Self::Named(name) => write!(f, "node '{name}'"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Beside(uid) => write!(f, "the node of {uid}"),
            Self::Replicated(place, replication) => write!(f, "{place}, with {replication}"),
        }
    }
}

/// The error for a place where nobody can run the class.
pub(crate) fn nowhere(place: &Place, info: &ClassInfo, why: &str) -> SystemError {
    let detail = format!("no object of {} can be made at {place}: {why}", info.name);
    SystemError::new(ErrorKind::Unreachable, detail)
}
