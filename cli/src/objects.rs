//! The commands about objects: `describe`, `call`, `create`.
//!
//! What an object can do is asked from its node, which answers with the description that the
//! generator made of the class.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use partha::abi::{ClassInfo, Slot, Writer};
use partha::system::ClassDescription;
use partha::{ClassId, ErrorKind, MESSAGE_BYTES_MAX, NodeId, Place, Ref, SystemError};
use serde_json::{Value, json};

use crate::arguments::{Call, Create, Describe};
use crate::cluster::{NodeInfo, System, is_unknown_name};
use crate::dynamic::encode;
use crate::failure::Usage;
use crate::groups;
use crate::invoke::{Callee, described, fit, given};
use crate::naming;
use crate::nodes;
use crate::output::Output;
use crate::owner::Owned;
use crate::replicate;
use crate::suggest;

/// `partha describe`
pub(crate) async fn describe(arguments: &Describe, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let uid = system.find(&arguments.name).await?.uid;
    let Owned {
        node,
        found,
        forwards,
    } = system.owner_traced(uid).await?;
    let class = ClassId(found.class);
    let interface = match described(&system, &node, class).await {
        Ok((_, schema)) => schema.interface_text(class.0),
        Err(error) => format!("{error:#}\n"),
    };
    let mut facts = vec![
        ("name", json!(arguments.name)),
        ("uid", json!(uid.to_string())),
        ("class", json!(node.class_name(class))),
        ("class_id", json!(class.to_string())),
        ("node", json!(node.description.name)),
        ("node_id", json!(node.handle.id().to_string())),
        ("address", json!(node.address)),
        ("shard", json!(found.shard)),
        ("moves", json!(found.moves)),
        ("came_from", came_from(&system, found.came_from).await),
        ("forwards", json!(names(&forwards))),
        (
            "state",
            json!(if found.active { "active" } else { "passive" }),
        ),
        ("epoch", json!(partha::Epoch(found.epoch).to_string())),
        ("version", json!(found.version)),
        ("state_bytes", json!(found.state_bytes)),
        ("users", json!(found.users)),
    ];
    facts.extend(groups::facts(&system, uid).await);
    if out.is_json() {
        facts.push(("interface", json!(interface)));
        out.facts(&facts)?;
    } else {
        out.facts(&facts)?;
        out.line("")?;
        out.text(&interface)?;
    }
    Ok(())
}

/// The node that an object has come from last: its name, where it is known, or its id.
async fn came_from(system: &System, node: u64) -> Value {
    if node == 0 {
        return Value::Null;
    }
    let node = NodeId(node);
    match system.registered(node).await {
        Ok(info) => json!(info.description.name),
        Err(_) => json!(node.to_string()),
    }
}

/// The names of nodes.
fn names(nodes: &[Arc<NodeInfo>]) -> Vec<&str> {
    let names = nodes.iter().map(|node| node.description.name.as_str());
    names.collect()
}

/// `partha call`
pub(crate) async fn call(arguments: &Call, out: &mut Output) -> anyhow::Result<()> {
    let given = given(arguments.arguments.as_deref())?;
    let system = System::connect(&arguments.cluster).await?;
    let patience = arguments.deadline.unwrap_or(partha::CALL_DEADLINE);
    let look = async || Callee::find(&system, &arguments.name).await;
    let callee = patiently(patience, look).await?;
    let mut caller = system.client.call();
    if let Some(time) = arguments.deadline {
        caller = caller.deadline(time);
    }
    if let Some(id) = arguments.again {
        caller = caller.again(id);
    }
    let answer = callee
        .call(&system, &caller, &arguments.method, &given)
        .await?;
    match (answer, out.is_json()) {
        (Some(value), _) => out.value(&value)?,
        (None, true) => out.value(&Value::Null)?,
        (None, false) => {}
    }
    Ok(())
}

/// Looks for something until it is found or time is up, as long as what is in the way may pass:
/// a node that restarts is back within seconds.
async fn patiently<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let until = Instant::now() + patience;
    loop {
        match look().await {
            Err(error) if may_pass(&error) && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            found => return found,
        }
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    let passing = |error: &SystemError| {
        matches!(
            error.kind(),
            ErrorKind::Unreachable | ErrorKind::BindingBroken | ErrorKind::Draining
        )
    };
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref())
        .any(passing)
}

/// `partha create`
pub(crate) async fn create(arguments: &Create, out: &mut Output) -> anyhow::Result<()> {
    if arguments.replicas.is_none() && arguments.how.is_said() {
        let what = "--policy, --place and --on are about copies: say how many, --replicas";
        return Err(Usage(what.to_owned()).into());
    }
    let given = given(arguments.arguments.as_deref())?;
    let system = System::connect(&arguments.cluster).await?;
    match system.find(&arguments.name).await {
        Ok(taken) => bail!("the name '{}' is taken by {}", arguments.name, taken.uid),
        Err(error) => match error.downcast_ref() {
            Some(known) if is_unknown_name(known) => {}
            _ => return Err(error),
        },
    }
    let node = node_with_class(&system, &arguments.class, arguments.node.as_deref()).await?;
    let mut classes = node.description.classes.iter();
    let class = classes.find(|class| class.name == arguments.class);
    let class = class.context("the node was chosen because it has the class")?;
    let (class, schema) = described(&system, &node, ClassId(class.id)).await?;
    let new = schema.nested(class.id, "New").map(|new| new.id);
    let new = new.and_then(|id| schema.structure(id));
    let new = new.with_context(|| format!("objects of {} are not persistent", class.name))?;
    let taking = || format!("new({})", schema.declarations(&new.members));
    let mut names = fit(&system, &schema, (new, &new.members), &given, taking).await?;
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    let at = w.structure(Slot::ROOT, new.data, new.pointers);
    encode::members(&schema, &new.members, &given, &mut names, &mut w, at)?;

    let mut place = Place::Node(node.handle.id());
    if let Some(copies) = arguments.replicas {
        place = place.replicated(arguments.how.with(copies));
    }
    let made = Ref::create(&system.client, &place, leak_class(&class), w).await?;
    let (uid, name) = (made.uid(), &arguments.name);
    let added = naming::add(&system.client, name, uid, ClassId(class.id)).await;
    added.with_context(|| {
        format!("object {uid} was made, but has no name; try `partha alias {uid} {name}`")
    })?;
    let mut facts = vec![
        ("name", json!(name)),
        ("uid", json!(uid.to_string())),
        ("node", json!(node.description.name)),
    ];
    if let Some(wanted) = arguments.replicas {
        let replication = arguments.how.with(wanted);
        let copies = system.client.replicate_as(uid, &replication).await?;
        facts.push(("copies", json!(replicate::names(&system, &copies).await)));
        if !copies.lacking.is_empty() {
            let (there, why) = (copies.members.len(), &copies.lacking);
            eprintln!("note: {name} has {there} of {wanted} copies for now: {why}");
        }
    }
    out.facts(&facts)?;
    Ok(())
}

/// A node that runs the class: the one of this name or id, or the first that is alive and not
/// cordoned.
async fn node_with_class(
    system: &System,
    class: &str,
    wanted: Option<&str>,
) -> anyhow::Result<NodeInfo> {
    let nodes = system.client.locator().nodes(&system.client).await?;
    let wanted = wanted.map(|wanted| nodes::find(&nodes, wanted));
    let wanted = wanted.transpose()?;
    let (mut seen, mut silent) = (Vec::new(), Vec::new());
    for node in &nodes {
        let fits = match wanted {
            Some(wanted) => wanted.node == node.node,
            None => node.alive && !node.cordoned,
        };
        if !fits {
            continue;
        }
        match system.reach(node).await {
            Ok(info)
                if info
                    .description
                    .classes
                    .iter()
                    .any(|known| known.name == class) =>
            {
                return Ok(info);
            }
            Ok(info) => {
                let persistent = info.description.classes.into_iter();
                let persistent = persistent.filter(|class| class.persistent);
                seen.extend(persistent.map(|class| class.name));
            }
            Err(error) => silent.push(error),
        }
    }
    if let (Some(error), true) = (silent.pop(), seen.is_empty()) {
        return Err(error);
    }
    seen.sort();
    seen.dedup();
    let hint = suggest::hint(class, seen.iter().map(String::as_str));
    let known = match seen.is_empty() {
        true => "nothing".to_owned(),
        false => seen.join(", "),
    };
    Err(match wanted {
        Some(node) => {
            let name = &node.name;
            anyhow!("node '{name}' does not run the class {class}; it runs {known}{hint}")
        }
        None => anyhow!(
            "no living node that is not cordoned runs the class {class}; found {known}{hint}"
        ),
    })
}

/// As [`leak_method`]: this process makes one object.
fn leak_class(class: &ClassDescription) -> &'static ClassInfo {
    let ancestors: Vec<_> = class.ancestors.iter().copied().map(ClassId).collect();
    Box::leak(Box::new(ClassInfo {
        id: ClassId(class.id),
        name: String::leak(class.name.clone()),
        persistent: class.persistent,
        ancestors: Vec::leak(ancestors),
        methods: &[],
        schema: 0,
        reflection: &[],
    }))
}
