//! Both faces of a node behind one set of operations, so that one test says what both must do, and
//! an embedded node, which has neither.

use std::rc::Rc;
use std::time::Duration;

use capnp::capability::Client as Hook;
use partha::abi::{DecodeError, Slot, Struct, Writer, read_uid};
use partha::services::system::{
    NodeDescription, NodeStatistics, ObjectDescription, StoredObject, connection_manager,
};
use partha::{CallId, CallOptions, Client, Node, NodeHandle, SystemError, Uid};

use super::behaviour::{Counter, counter, named};
use super::foreign::Wire;

pub type Outcome<T> = Result<T, Failure>;

/// Which face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Native,
    Foreign,
    /// None: the process of the node calls its objects.
    Embedded,
}

/// One client of a node, through one of its faces.
#[derive(Clone)]
pub struct Face {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Native { client: Client, node: NodeHandle },
    Foreign(Rc<Wire>),
}

/// An object as a client sees it.
#[derive(Clone)]
pub struct Obj {
    pub uid: Uid,
    pub way: Way,
}

#[derive(Clone)]
pub enum Way {
    Native { client: Client, counter: Counter },
    Foreign(Hook, Rc<Wire>),
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    TooLittle {
        have: i64,
        wanted: i64,
    },
    NoSuchObject,
    WrongClass {
        found: String,
    },
    BadArguments(String),
    /// The text of a system error, or of a Cap'n Proto exception.
    System(String),
}

/// With nothing to say.
pub const NOW: How = How {
    id: None,
    again: false,
    deadline: None,
};

/// What a call says in its context.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    pub id: Option<CallId>,
    pub again: bool,
    pub deadline: Option<Duration>,
}

impl How {
    pub fn named(id: CallId) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }

    pub fn again(id: CallId) -> Self {
        Self {
            id: Some(id),
            again: true,
            ..Self::default()
        }
    }

    pub fn within(deadline: Duration) -> Self {
        Self {
            deadline: Some(deadline),
            ..Self::default()
        }
    }

    /// Writes `CallContext`; none at all if there is nothing to say.
    pub fn write(&self, w: &mut Writer, slot: Slot) {
        if self.id.is_none() && self.deadline.is_none() {
            return;
        }
        let s = w.structure(slot, 6, 1);
        let micros = self.deadline.map_or(0, |deadline| deadline.as_micros());
        w.set_u64(s, 0, u64::try_from(micros).unwrap());
        if let Some(id) = self.id {
            w.set_u64(s, 1, id.caller.node.0);
            w.set_u64(s, 2, id.sequence);
            w.set_u32(s, 6, id.caller.incarnation.0);
        }
        w.set_bool(s, 3 * 64 + 32, self.again);
    }

    pub fn options(&self, client: &Client) -> CallOptions {
        let mut options = client.call();
        options = match (self.id, self.again) {
            (Some(id), true) => options.again(id),
            (Some(id), false) => options.id(id),
            (None, _) => options,
        };
        match self.deadline {
            Some(deadline) => options.deadline(deadline),
            None => options,
        }
    }
}

impl Failure {
    /// The text; the empty one if it is no system error.
    pub fn text(&self) -> &str {
        match self {
            Self::System(text) | Self::BadArguments(text) => text,
            Self::TooLittle { .. } | Self::NoSuchObject | Self::WrongClass { .. } => "",
        }
    }

    /// Asserts that it is a system error which says all this.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text().contains(part), "'{part}' is not in {self:?}");
        }
    }

    /// Whether the operation may have been executed.
    pub fn is_maybe(&self) -> bool {
        self.text().contains("(may or may not have been executed)")
    }
}

impl From<SystemError> for Failure {
    fn from(error: SystemError) -> Self {
        Self::System(error.to_string())
    }
}

impl From<capnp::Error> for Failure {
    fn from(error: capnp::Error) -> Self {
        Self::System(format!("{:?}: {}", error.kind, error.extra))
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::System(format!("undecodable results: {error}"))
    }
}

impl Face {
    pub async fn open(kind: Kind, node: &Node) -> Self {
        let inner = match kind {
            Kind::Native => {
                let (client, address) = (super::client_of(node).await, node.address().to_string());
                let node = client.node_at(&address).await.unwrap();
                Inner::Native { client, node }
            }
            Kind::Foreign => Inner::Foreign(Wire::connect(&node.address().to_string()).await),
            Kind::Embedded => Inner::Native {
                client: node.client().clone(),
                node: node.handle(),
            },
        };
        Self { inner }
    }

    /// The same client at a node that was started again.
    pub async fn reopen(&self, node: &Node) -> Self {
        match &self.inner {
            Inner::Native { .. } if node.listens_at().is_none() => {
                Self::open(Kind::Embedded, node).await
            }
            Inner::Native { client, .. } => {
                let (client, address) = (client.clone(), node.address().to_string());
                client.locator().introduce(&client, &address).await.unwrap();
                let node = client.node_at(&address).await.unwrap();
                Self {
                    inner: Inner::Native { client, node },
                }
            }
            Inner::Foreign(_) => Self::open(Kind::Foreign, node).await,
        }
    }

    /// The way a native client sees things.
    pub fn client(&self) -> &Client {
        match &self.inner {
            Inner::Native { client, .. } => client,
            Inner::Foreign(_) => panic!("a foreign face has no native client"),
        }
    }

    pub fn new_call_id(&self) -> CallId {
        match &self.inner {
            Inner::Native { client, .. } => client.new_call_id(),
            Inner::Foreign(wire) => wire.new_call_id(),
        }
    }

    /// A new counter.
    pub async fn counter(&self, value: i64) -> Obj {
        self.padded(value, 0).await
    }

    /// A new counter with a state of at least this size.
    pub async fn padded(&self, value: i64, bytes: usize) -> Obj {
        let uid = self.create(&How::default(), value, bytes).await.unwrap();
        self.bind(uid).await.unwrap()
    }

    /// Makes a counter without binding it.
    pub async fn create(&self, how: &How, value: i64, bytes: usize) -> Outcome<Uid> {
        let mut w = Writer::new(4 << 20);
        let s = w.structure(Slot::ROOT, 1, 1);
        w.set_i64(s, 0, value);
        w.data(s.slot(0), &vec![7; bytes]);
        let arguments = w.finish().unwrap().0;
        self.create_any(how, counter::CLASS.0, &arguments).await
    }

    /// `create` with whatever arguments.
    pub async fn create_any(&self, how: &How, class: u64, arguments: &[u8]) -> Outcome<Uid> {
        let raised = |error| match error {
            connection_manager::CreateError::BadArguments(error) => {
                Failure::BadArguments(error.reason)
            }
            connection_manager::CreateError::NoSuchClass(error) => Failure::WrongClass {
                found: format!("none of {:x}", error.class),
            },
            connection_manager::CreateError::System(error) => error.into(),
        };
        match &self.inner {
            Inner::Native { client, node } => {
                let made = node
                    .manager()
                    .create(&how.options(client), class, arguments.to_vec())
                    .await;
                made.map_err(raised)
            }
            Inner::Foreign(wire) => {
                let answer = wire.manager(2, how, (1, 2), |w, s| {
                    w.set_u64(s, 0, class);
                    w.data(s.slot(1), arguments);
                });
                let answer = answer.await?;
                let r = answer.results();
                if !r.pointer(1).is_null() {
                    let error = r.pointer(1).structure()?;
                    return Err(raised(connection_manager::CreateError::read(error)?));
                }
                Ok(read_uid(r.pointer(0))?)
            }
        }
    }

    /// A new object of the derived class, as a counter.
    pub async fn named(&self, name: &str) -> Obj {
        let mut w = Writer::new(1 << 10);
        let s = w.structure(Slot::ROOT, 0, 1);
        w.text(s.slot(0), name);
        let arguments = w.finish().unwrap().0;
        let made = self
            .create_any(&How::default(), named::CLASS.0, &arguments)
            .await;
        self.bind(made.unwrap()).await.unwrap()
    }

    /// A counter by identity.
    pub async fn bind(&self, uid: Uid) -> Outcome<Obj> {
        self.bind_as(uid, counter::CLASS.0).await
    }

    /// `initiate` for a class.
    pub async fn bind_as(&self, uid: Uid, class: u64) -> Outcome<Obj> {
        match &self.inner {
            Inner::Native { client, node } => {
                let bound = node.manager().initiate(client, uid, class).await;
                let bound = bound.map_err(initiate_error)?;
                assert!(bound.object.is_none(), "our own ends bind by identity");
                // The stub makes a binding of its own.
                node.manager().terminate(client, &bound.cid).await.unwrap();
                let (client, counter) = (client.clone(), Counter::from_uid(uid));
                Ok(Obj {
                    uid,
                    way: Way::Native { client, counter },
                })
            }
            Inner::Foreign(wire) => {
                let answer = wire.initiate(uid, class).await?;
                let r = answer.results();
                if !r.pointer(1).is_null() {
                    let error = r.pointer(1).structure()?;
                    return Err(initiate_error(connection_manager::InitiateError::read(
                        error,
                    )?));
                }
                let bound = r.pointer(0).structure()?;
                assert!(
                    !bound.pointer(1).is_null(),
                    "a foreign client is given the object"
                );
                let way = Way::Foreign(answer.capability(0), wire.clone());
                Ok(Obj { uid, way })
            }
        }
    }

    pub async fn statistics(&self) -> NodeStatistics {
        match &self.inner {
            Inner::Native { client, node } => node.manager().statistics(client).await.unwrap(),
            Inner::Foreign(wire) => of_manager(wire, 4).await,
        }
    }

    pub async fn describe(&self) -> NodeDescription {
        match &self.inner {
            Inner::Native { client, node } => node.manager().describe(client).await.unwrap(),
            Inner::Foreign(wire) => of_manager(wire, 3).await,
        }
    }

    pub async fn objects(&self, after: Uid, limit: u32) -> Vec<StoredObject> {
        match &self.inner {
            Inner::Native { client, node } => {
                node.manager().objects(client, after, limit).await.unwrap()
            }
            Inner::Foreign(wire) => {
                let answer = wire.manager(5, &NOW, (1, 2), |w, s| {
                    w.set_u32(s, 0, limit);
                    partha::abi::write_uid(w, s.slot(1), after);
                });
                let answer = answer.await.unwrap();
                let list = answer.results().pointer(0).structures().unwrap();
                list.iter_structures()
                    .map(|s| StoredObject::read(s).unwrap())
                    .collect()
            }
        }
    }

    pub async fn inspect(&self, uid: Uid) -> Outcome<ObjectDescription> {
        let raised = |error| match error {
            connection_manager::InspectError::NoSuchObject(_) => Failure::NoSuchObject,
            connection_manager::InspectError::System(error) => error.into(),
        };
        match &self.inner {
            Inner::Native { client, node } => {
                node.manager().inspect(client, uid).await.map_err(raised)
            }
            Inner::Foreign(wire) => {
                let answer = wire.manager(6, &NOW, (0, 2), |w, s| {
                    partha::abi::write_uid(w, s.slot(1), uid);
                });
                let answer = answer.await?;
                let r = answer.results();
                if !r.pointer(1).is_null() {
                    let error = r.pointer(1).structure()?;
                    return Err(raised(connection_manager::InspectError::read(error)?));
                }
                Ok(ObjectDescription::read(r.pointer(0).structure()?)?)
            }
        }
    }
}

async fn of_manager<T: Struct>(wire: &Wire, method: u16) -> T {
    let answer = wire.manager(method, &NOW, (0, 1), |_, _| {}).await.unwrap();
    T::read(answer.results().pointer(0).structure().unwrap()).unwrap()
}

fn initiate_error(error: connection_manager::InitiateError) -> Failure {
    match error {
        connection_manager::InitiateError::NoSuchObject(_) => Failure::NoSuchObject,
        connection_manager::InitiateError::WrongClass(error) => Failure::WrongClass {
            found: error.found_name,
        },
        connection_manager::InitiateError::System(error) => error.into(),
    }
}
