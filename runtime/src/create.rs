//! Making new persistent objects: choosing a node, and the answer of the shard that makes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::id::{CallId, Uid};
use partha_wire::{Message, Writer};

use crate::abi::{ClassInfo, Transient, read_uid};
use crate::action::Standing;
use crate::caller::{CallOptions, CallScope, Caller};
use crate::capability::Capability;
use crate::client::Client;
use crate::error::{Completed, ErrorKind, Result, SystemError};
use crate::net::connection::Connection;
use crate::reference::{Place, nowhere};
use crate::services::binder::NodeEntry;
use crate::system::ConnectionManager;
use crate::system::connection_manager::CreateError;
use crate::wire::frame;

/// How long the copies of a new object are waited for, if the caller does not say.
const COPYING: Duration = Duration::from_secs(30);

/// Makes an object of the class at the place.
///
/// The call has an id, the caller's or a new one: asking again under it at the same node makes
/// no second object, and goes on with its copies, if it is to have some.
pub(crate) async fn create(
    caller: &impl Caller,
    place: &Place,
    info: &'static ClassInfo,
    arguments: Bytes,
) -> Result<Uid> {
    let scope = caller.scope();
    let Place::Replicated(place, replication) = place else {
        return create_one(scope, place, info, arguments).await;
    };
    let client = scope.client.clone();
    let refuse = |error: SystemError| error.before_sending().of_call(scope.call, scope.named);
    if matches!(scope.standing, Standing::In(..)) {
        let detail = format!(
            "{}: objects that have copies are made outside of actions",
            info.name
        );
        return Err(refuse(SystemError::new(ErrorKind::BadOperation, detail)));
    }
    replication.check().map_err(refuse)?;
    let until = scope.deadline.unwrap_or_else(|| Instant::now() + COPYING);
    let named = scope.call.filter(|_| scope.named);
    let object = create_one(scope, place, info, arguments).await?;
    let copied = client.replicate_new(object, replication, until).await;
    copied.map_err(|error| {
        let error = error.context(format_args!("the copies of the new object {object}"));
        error.completed(Completed::Maybe).of_call(named, false)
    })?;
    Ok(object)
}

/// Makes an object; copies of it are somebody else's to make.
async fn create_one(
    mut scope: CallScope,
    place: &Place,
    info: &'static ClassInfo,
    arguments: Bytes,
) -> Result<Uid> {
    let client = scope.client.clone();
    let call = *scope.call.get_or_insert_with(|| client.new_call_id());
    let manager = match client
        .home_if_any()
        .filter(|home| home.is_place(place, info))
    {
        Some(home) => home.manager_capability(),
        None if client.is_embedded() => {
            let why = "an embedded node makes objects at itself alone, of the classes it runs";
            return Err(nowhere(place, info, why));
        }
        None => {
            let found = find(&client, place, info, call).await;
            let found = found.map_err(|error| error.before_sending().of_call(Some(call), false));
            Capability::manager(found?)
        }
    };
    let manager = ConnectionManager::from_capability(manager);
    let made = manager
        .create(&CallOptions::new(scope), info.id.0, arguments)
        .await;
    made.map_err(|error| match error {
        CreateError::NoSuchClass(_) => nowhere(place, info, "the node does not run the class"),
        CreateError::BadArguments(error) => SystemError::new(
            ErrorKind::Malformed,
            format!("{}: {}", info.name, error.reason),
        ),
        CreateError::System(error) => error,
    })
}

/// A connection to the node that is to make it.
async fn find(
    client: &Client,
    place: &Place,
    info: &'static ClassInfo,
    call: CallId,
) -> Result<Arc<Connection>> {
    let node = client.locator().choose(client, place, info, call).await?;
    client.locator().connect_to(client, &node).await
}

/// Whether a node may make an object of the class at the place.
pub(crate) fn fits(node: &NodeEntry, place: &Place, info: &ClassInfo) -> bool {
    let runs = node.classes.contains(&info.id.0);
    match place {
        Place::Any => runs && node.alive && !node.cordoned,
        Place::Labelled(name, value) => {
            runs && node.alive && !node.cordoned && node.has_label(name, value)
        }
        Place::Named(name) => node.name == *name,
        Place::Node(id) => node.node == id.0,
        Place::Beside(uid) => node.node == uid.node.0,
        Place::Replicated(place, _) => fits(node, place, info),
    }
}

/// The answer of the shard that made an object: a Return frame with its identity.
pub(crate) fn created(uid: Uid) -> Writer {
    let mut w = frame::returned();
    let slot = frame::body(&w);
    crate::abi::write_uid(&mut w, slot, uid);
    w
}

/// Reads what [`created`] wrote.
pub(crate) fn read_created(answer: &Message) -> Result<Uid> {
    Ok(read_uid(answer.root())?)
}
