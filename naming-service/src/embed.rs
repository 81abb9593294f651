//! The naming service as a part of a node that has other objects as well.
//!
//! Names are ordinary objects of ordinary classes, so any node can have them: the daemon's node
//! has nothing else, a node without sockets has them beside its program's own.

use partha::services::naming::{name_context, name_service};
use partha::{NodeBuilder, Uid, abi};

use crate::context::ContextServant;
use crate::service::ServiceServant;

/// Makes the node its own naming service. What it is started with for an embedded node:
///
/// ```
/// # async fn example() -> partha::Result<()> {
/// use partha::Node;
///
/// let node = partha_naming::embed(Node::embedded()).start().await?;
/// let client = node.client();
/// let names = client.naming()?.list(client, "/", "", 100).await.unwrap();
/// assert!(names.is_empty());
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
/// ```
///
/// A node with sockets is then found by others at its own address; if it is to find objects of
/// others through the binder, it is to be given that address itself, with `NodeBuilder::naming`.
#[must_use]
pub fn embed(builder: NodeBuilder) -> NodeBuilder {
    let (data, pointers) = (0, 0);
    let nothing = abi::message(data, pointers, |_, _| {});
    builder
        .class(name_service::class(ServiceServant))
        .class(name_context::class(ContextServant))
        .well_known(Uid::NAMING_ROOT, &name_service::INFO, nothing)
}
