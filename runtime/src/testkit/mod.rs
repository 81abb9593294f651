//! A whole system within a test: nodes with real stores, and what can happen to them.
//!
//! A [`Cluster`] is some nodes in this process, each on a folder of its own that is removed at the
//! end, and clients that know all of them; no naming service and no binder are needed. Each of
//! them, node or client, is a *member* with a name, and can be killed, restarted, cut off from
//! another one, and paused.
//!
//! ```
//! use std::time::Duration;
//! use partha::testkit::{Cluster, wait_until};
//!
//! # async fn example() -> partha::Result<()> {
//! // `.class(|| account::class(AccountServant))` adds your classes.
//! let mut cluster = Cluster::new().nodes(2).start().await?;
//! let client = cluster.client();
//! cluster.kill("a").await;
//! let address = cluster.address("b").expect("it is alive").to_string();
//! assert!(client.node_at(&address).await.is_ok());
//! cluster.restart("a").await?;
//! assert_eq!(cluster.node("a").me().incarnation.0, 2);
//! cluster.partition("client", "a");
//! // ...
//! cluster.heal();
//! wait_until(async || client.node_at(&address).await.is_ok(), Duration::from_secs(10)).await;
//! cluster.stop().await
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! # What the faults are
//!
//! - [`Cluster::kill`]: the member stops where it is. Its connections close at once, nothing more
//!   leaves it, its store finishes the write it is at and forgets what waits behind it. A node's
//!   servants are dropped where they wait.
//! - [`Cluster::restart`]: the next incarnation of a member: a node on the same folder at another
//!   port, a client with the same identity. Who is alive is told the new address, as a binder
//!   would tell it.
//! - [`Cluster::partition`]: no byte passes between two members, in either direction, and neither
//!   learns what the other does: their connections stay open, and new ones are not made. After
//!   [`Cluster::heal`] what was written before and meanwhile comes through, as TCP has it.
//!   [`Cluster::silence`] does the same in one direction.
//! - [`Cluster::cut`]: the connections of two members break, as if something between them had been
//!   started anew. Both learn it, and may connect again.
//! - [`Cluster::pause`]: nothing is heard of the member and nothing is read that it is sent, as if
//!   it had got SIGSTOP. The threads of a node stand still until [`Cluster::resume`]; what it had
//!   given to its store is finished. A client's own program goes on, but reaches nobody.
//!
//! Faults are about connections of our own kind between members. A plain Cap'n Proto client of a
//! node is cut by `kill` and waits during `pause`; partitions do not know it.
//!
//! # Randomness
//!
//! [`Cluster::random`] gives numbers from a seed. A test that fails prints it, and
//! `PARTHA_SEED=… cargo test NAME` takes it again.

mod cluster;
mod faults;
mod member;
mod pause;
mod plan;
mod random;
mod stream;

use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use plan::Plan;
pub use random::Random;

pub(crate) use faults::Faults;
pub(crate) use pause::Pause;

/// How long [`wait_until`] sleeps between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until the condition holds.
///
/// # Panics
/// If it does not within `deadline`, at the caller's line. A condition that is being looked at
/// then is not waited for.
#[track_caller]
pub fn wait_until<C: AsyncFnMut() -> bool>(
    mut condition: C,
    deadline: Duration,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + deadline;
        let holds = async {
            while !condition().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        let in_time = tokio::time::timeout_at(end.into(), holds).await;
        assert!(
            in_time.is_ok(),
            "{caller}: the condition does not hold after {deadline:?}"
        );
    }
}
