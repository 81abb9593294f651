//! Capabilities: references to transient objects, such as call-backs.
//!
//! A transient object lives and dies with the process that made it. It is passed to the other end
//! of a connection as a number of that connection, so call-backs need no listening port and work
//! through firewalls. They connect two parties only.

use std::fmt;
use std::sync::Arc;

use partha_core::id::{ClassId, Uid};

use crate::abi::{Class, Method, Request};
use crate::caller::Caller;
use crate::client::Client;
use crate::error::Result;
use crate::net::connection::Connection;
use crate::shard::ShardHandle;
use crate::wire::frame::Target;

/// Something of a transient class that can be called.
#[derive(Clone)]
pub struct Capability {
    inner: Arc<Inner>,
}

enum Inner {
    /// Runs in this process; retired when the last clone is dropped.
    Local {
        shard: ShardHandle,
        object: Uid,
        class: ClassId,
    },
    /// An object of this process that lives by itself.
    Here {
        shard: ShardHandle,
        object: Uid,
        class: ClassId,
    },
    /// An object at the other end of a connection, by its identity.
    There {
        connection: Arc<Connection>,
        object: Uid,
        class: ClassId,
    },
    /// Runs at the other end of a connection.
    Imported {
        connection: Arc<Connection>,
        export: u32,
        class: ClassId,
    },
    /// Lives beyond the foreign face.
    Foreign(crate::net::foreign::ForeignObject),
}

/// How to reach what a capability stands for.
pub(crate) enum Way<'a> {
    Local(&'a ShardHandle, Uid),
    Imported(&'a Arc<Connection>),
    Foreign(&'a crate::net::foreign::ForeignObject),
}

impl Capability {
    /// Starts an object of a transient class in this process. It ends when the last clone of the
    /// capability is dropped, here and at the peers that were given it.
    ///
    /// # Errors
    /// If the process cannot start the thread that runs its objects.
    pub fn serve(client: &Client, class: Class) -> Result<Self> {
        let home = client.home()?;
        let class_id = class.info().id;
        let (shard, object) = home.serve(class)?;
        Ok(Self {
            inner: Arc::new(Inner::Local {
                shard,
                object,
                class: class_id,
            }),
        })
    }

    /// The class it is known as.
    #[must_use]
    pub fn class(&self) -> ClassId {
        match &*self.inner {
            Inner::Local { class, .. }
            | Inner::Here { class, .. }
            | Inner::There { class, .. }
            | Inner::Imported { class, .. } => *class,
            Inner::Foreign(object) => object.class(),
        }
    }

    /// Begins a call; generated stubs fill it in.
    pub fn request(
        &self,
        caller: &impl Caller,
        method: &'static Method,
        data: u16,
        pointers: u16,
    ) -> Request {
        Request::of_capability(self.clone(), caller.scope(), method, data, pointers)
    }

    pub(crate) fn imported(connection: Arc<Connection>, export: u32, class: ClassId) -> Self {
        Self {
            inner: Arc::new(Inner::Imported {
                connection,
                export,
                class,
            }),
        }
    }

    /// An object of this process that lives by itself.
    pub(crate) fn object_here(shard: ShardHandle, object: Uid, class: ClassId) -> Self {
        Self {
            inner: Arc::new(Inner::Here {
                shard,
                object,
                class,
            }),
        }
    }

    /// An object at the other end of a connection, by its identity.
    pub(crate) fn object_at(connection: Arc<Connection>, object: Uid, class: ClassId) -> Self {
        Self {
            inner: Arc::new(Inner::There {
                connection,
                object,
                class,
            }),
        }
    }

    /// The connection manager at the other end of a connection.
    pub(crate) fn manager(connection: Arc<Connection>) -> Self {
        let object = Uid::connection_manager(connection.peer().node);
        Self::object_at(connection, object, crate::system::connection_manager::CLASS)
    }

    pub(crate) fn foreign(object: crate::net::foreign::ForeignObject) -> Self {
        Self {
            inner: Arc::new(Inner::Foreign(object)),
        }
    }

    /// The number by which this connection's peer knows it, if it came from there.
    pub(crate) fn import_of(&self, asking: &Connection) -> Option<u32> {
        match &*self.inner {
            Inner::Imported {
                connection, export, ..
            } => std::ptr::eq(Arc::as_ptr(connection), asking).then_some(*export),
            Inner::Local { .. } | Inner::Here { .. } | Inner::There { .. } | Inner::Foreign(_) => {
                None
            }
        }
    }

    /// The object, if it runs in this process.
    pub(crate) fn local_object(&self) -> Option<Uid> {
        match &*self.inner {
            Inner::Local { object, .. } | Inner::Here { object, .. } => Some(*object),
            Inner::There { .. } | Inner::Imported { .. } | Inner::Foreign(_) => None,
        }
    }

    pub(crate) fn target(&self) -> Target {
        match &*self.inner {
            Inner::Local { object, .. }
            | Inner::Here { object, .. }
            | Inner::There { object, .. } => Target::Object(*object),
            Inner::Imported { export, .. } => Target::Export(*export),
            Inner::Foreign(_) => Target::Export(0),
        }
    }

    pub(crate) fn way(&self) -> Way<'_> {
        match &*self.inner {
            Inner::Local { shard, object, .. } | Inner::Here { shard, object, .. } => {
                Way::Local(shard, *object)
            }
            Inner::There { connection, .. } | Inner::Imported { connection, .. } => {
                Way::Imported(connection)
            }
            Inner::Foreign(object) => Way::Foreign(object),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self {
            Self::Local { shard, object, .. } => shard.retire(*object),
            Self::Imported {
                connection, export, ..
            } => {
                connection.release(*export);
            }
            Self::Here { .. } | Self::There { .. } | Self::Foreign(_) => {}
        }
    }
}

impl PartialEq for Capability {
    fn eq(&self, other: &Self) -> bool {
        match (&*self.inner, &*other.inner) {
            (Inner::Local { object: a, .. }, Inner::Local { object: b, .. }) => a == b,
            (
                Inner::Imported {
                    connection: a,
                    export: x,
                    ..
                },
                Inner::Imported {
                    connection: b,
                    export: y,
                    ..
                },
            ) => Arc::ptr_eq(a, b) && x == y,
            _ => Arc::ptr_eq(&self.inner, &other.inner),
        }
    }
}

impl Eq for Capability {}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.inner {
            Inner::Local { object, .. } | Inner::Here { object, .. } => {
                write!(f, "Capability({object}, here)")
            }
            Inner::There {
                connection, object, ..
            } => {
                write!(f, "Capability({object} at {})", connection.peer_text())
            }
            Inner::Imported {
                connection, export, ..
            } => {
                write!(f, "Capability({export} of {})", connection.peer_text())
            }
            Inner::Foreign(_) => f.write_str("Capability(foreign)"),
        }
    }
}
