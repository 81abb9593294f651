//! The command `move`: an object goes to another node.

use std::time::{Duration, Instant};

use anyhow::{Error, anyhow, bail};
use clap::Args;
use partha::services::binder::MovedObject;
use partha::system::connection_manager::MoveObjectError;
use partha::{CALL_DEADLINE_MAX, ClassId, Completed, ErrorKind, NodeId, Uid};
use serde_json::json;

use crate::arguments::Cluster;
use crate::cluster::{NodeInfo, System};
use crate::nodes;
use crate::output::Output;
use crate::owner::Owned;
use crate::sessions::Shape;

/// Move an object to another node
///
/// It keeps its name, its identity, and whoever is bound to it. Calls that come while it is under
/// way wait, and actions that have used it go on. An object that is at the node already stays. Of
/// an object with copies the one at the node leads from then on, and is made first if there is
/// none; calls wait until nothing of the object is in use. An object that has come just now serves
/// for 100 ms before it moves on.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  partha move /bank/alice b\n  partha move /bank/alice b --wait 1m"
)]
pub(crate) struct Arguments {
    /// The object: a name, or a uid
    object: String,
    /// The node to move it to: its name, or its id
    node: String,
    /// How long it may wait for its calls and for actions that are about to commit
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = wait)]
    wait: Duration,
    /// Also to a node that is cordoned
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// How much longer than the object may wait its node may take to answer.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The pause before an object is followed that has left where it was.
const AGAIN: Duration = Duration::from_millis(10);

/// How long to try to tell the binder.
const TELL: Duration = Duration::from_secs(5);

/// `partha move`
pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let uid = system.find(&arguments.object).await?.uid;
    let Owned {
        node: mut from,
        found,
        ..
    } = system.owner(uid).await?;
    let to = nodes::entry(&system, &arguments.node).await?;
    let (object, name) = (&arguments.object, &to.name);
    let class = from.class_name(ClassId(found.class));
    if !to.classes.contains(&found.class) {
        bail!(
            "node '{name}' does not run {class}, the class of {object}; `partha nodes -o wide` \
             shows which node runs what"
        );
    }
    if to.cordoned && !arguments.force && from.handle.id() != NodeId(to.node) {
        bail!(
            "node '{name}' is cordoned; `partha node uncordon {name}` lets objects come to it, \
             --force moves this one nevertheless"
        );
    }
    let client = &system.client;
    let until = Instant::now() + arguments.wait;
    let moves = loop {
        let left = until.saturating_duration_since(Instant::now());
        match send(&system, &from, uid, NodeId(to.node), left).await {
            Ok(moves) => break moves,
            // Somebody else has moved it, or another copy leads.
            Err(error) if has_left(&error) && !left.is_zero() => {
                tokio::time::sleep(AGAIN).await;
                // Whoever has it may not be found for a moment.
                if let Ok(owned) = system.owner(uid).await {
                    from = owned.node;
                }
            }
            Err(error) => return Err(failed(error, object, &from)),
        }
    };
    if moves > 0 {
        // Its new node tells the binder too, when it comes to it; so the next command finds it.
        let news = [MovedObject {
            object: uid,
            node: to.node,
            moves,
        }];
        let told = client.locator().tell_moved(client, &news);
        if !matches!(tokio::time::timeout(TELL, told).await, Ok(Ok(()))) {
            eprintln!("note: the binder was not told yet; node '{name}' goes on trying");
        }
    }
    out.facts(&[
        ("object", json!(object)),
        ("uid", json!(uid.to_string())),
        ("from", json!(from.description.name)),
        ("to", json!(to.name)),
        ("moves", json!(moves)),
    ])?;
    Ok(())
}

/// Asks the node of an object to move it; how often the object has moved now.
pub(crate) async fn send(
    system: &System,
    from: &NodeInfo,
    object: Uid,
    to: NodeId,
    wait: Duration,
) -> Result<u64, MoveObjectError> {
    let caller = system.client.call().deadline(wait + GRACE);
    let manager = from.handle.manager();
    manager.move_object(&caller, object, to.0, wait).await
}

/// Reads how long an object may wait: less than a call may take.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let most = CALL_DEADLINE_MAX - GRACE;
    match wait <= most {
        true => Ok(wait),
        false => Err(format!("at most {}", humantime::format_duration(most))),
    }
}

/// Whether the object was not at the node that was asked to move it.
fn has_left(error: &MoveObjectError) -> bool {
    match error {
        MoveObjectError::NoSuchObject(_) => true,
        MoveObjectError::System(error) => error.kind() == ErrorKind::Moved,
        MoveObjectError::NotMovable(_) => false,
    }
}

/// What has become of the object, and what to do.
fn failed(error: MoveObjectError, object: &str, from: &NodeInfo) -> Error {
    let name = &from.description.name;
    let left = || {
        anyhow!(
            "{object} has just left node '{name}'; `partha describe {object}` tells where it is"
        )
    };
    match error {
        MoveObjectError::NotMovable(error) => {
            let cure = match error.passing {
                true => {
                    format!("; `partha why {object}` shows who uses it, and --wait gives it longer")
                }
                false => String::new(),
            };
            anyhow!("{object} stays at node '{name}': {}{cure}", error.reason)
        }
        MoveObjectError::NoSuchObject(_) => left(),
        MoveObjectError::System(error) if error.kind() == ErrorKind::Moved => left(),
        MoveObjectError::System(error) => {
            let what = match error.completion() {
                Completed::No => format!("{object} stays at node '{name}'"),
                Completed::Maybe | Completed::Yes => {
                    format!("{object} may have moved; `partha describe {object}` tells")
                }
            };
            Error::new(error).context(what)
        }
    }
}
