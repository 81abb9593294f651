//! The commands about objects: `describe`, `call`, `create`.
//!
//! What an object can do is asked from its node, which answers with the description that the
//! generator made of the class.

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use partha::abi::{ClassInfo, Method as RuntimeMethod, Slot, StructReader, Writer};
use partha::system::ClassDescription;
use partha::{ClassId, ErrorKind, MESSAGE_BYTES_MAX, Place, Ref, SystemError};
use serde_json::{Map, Value, json};

use crate::arguments::{Call, Create, Describe};
use crate::cluster::{NodeInfo, System, is_unknown_name};
use crate::dynamic::encode::{self, Names, Reference};
use crate::dynamic::{self, Member, Method, Schema, Struct, Type, decode};
use crate::failure::{Raised, Usage};
use crate::naming;
use crate::output::Output;
use crate::suggest;

/// `partha describe`
pub(crate) async fn describe(arguments: &Describe, out: &mut Output) -> anyhow::Result<()> {
    let mut system = System::connect(&arguments.cluster).await?;
    let uid = system.find(&arguments.name).await?.uid;
    let node = system.node_of(uid).await?;
    let found = node.inspect(&system.client, uid).await?;
    let class = ClassId(found.class);
    let interface = match described(&node, class) {
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
        (
            "state",
            json!(if found.active { "active" } else { "passive" }),
        ),
        ("epoch", json!(partha::Epoch(found.epoch).to_string())),
        ("version", json!(found.version)),
        ("state_bytes", json!(found.state_bytes)),
        ("users", json!(found.users)),
    ];
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

/// `partha call`
pub(crate) async fn call(arguments: &Call, out: &mut Output) -> anyhow::Result<()> {
    let given = given(arguments.arguments.as_deref())?;
    let mut system = System::connect(&arguments.cluster).await?;
    let patience = arguments.deadline.unwrap_or(partha::CALL_DEADLINE);
    let (uid, node, class) = patiently(patience, async || {
        let uid = system.find(&arguments.name).await?.uid;
        let node = system.node_of(uid).await?;
        let class = ClassId(node.inspect(&system.client, uid).await?.class);
        Ok((uid, node, class))
    })
    .await?;
    let (description, schema) = described(&node, class)?;
    let (interface, method) = find_method(&schema, description, &arguments.method)?;
    let (params, members) = schema.parameters(method).context(UNDESCRIBED)?;
    let taking = || schema.signature(method);
    let mut names = fit(&system, &schema, (params, members), &given, taking).await?;

    let mut caller = system.client.call();
    if let Some(time) = arguments.deadline {
        caller = caller.deadline(time);
    }
    if let Some(id) = arguments.again {
        caller = caller.again(id);
    }
    let runtime = leak_method(interface, method);
    let object = Ref::new(uid, class);
    let mut request = object.request(&caller, runtime, params.data, params.pointers);
    let mut written = Ok(());
    request.arguments(|w, at| {
        written = encode::members(&schema, members, &given, &mut names, w, at);
    });
    written?;
    let reply = request.send().await?;
    match (answer(&schema, method, reply.results()?)?, out.is_json()) {
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
    let schema = read_schema(class)?;
    let new = schema.nested(class.id, "New").map(|new| new.id);
    let new = new.and_then(|id| schema.structure(id));
    let new = new.with_context(|| format!("objects of {} are not persistent", class.name))?;
    let taking = || format!("new({})", schema.declarations(&new.members));
    let mut names = fit(&system, &schema, (new, &new.members), &given, taking).await?;
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    let at = w.structure(Slot::ROOT, new.data, new.pointers);
    encode::members(&schema, &new.members, &given, &mut names, &mut w, at)?;

    let place = Place::Node(node.handle.id());
    let made = Ref::create(&system.client, &place, leak_class(class), w).await?;
    let (uid, name) = (made.uid(), &arguments.name);
    let added = naming::add(&system.client, name, uid, ClassId(class.id)).await;
    added.with_context(|| {
        format!("object {uid} was made, but has no name; try `partha alias {uid} {name}`")
    })?;
    out.facts(&[
        ("name", json!(name)),
        ("uid", json!(uid.to_string())),
        ("node", json!(node.description.name)),
    ])?;
    Ok(())
}

const UNDESCRIBED: &str = "the node's description of the interface is not complete";

/// The arguments as JSON; none are an empty object.
fn given(text: Option<&str>) -> anyhow::Result<Value> {
    let read;
    let text = match text {
        None => return Ok(Value::Object(Map::new())),
        Some("-") => {
            let mut input = String::new();
            let got = std::io::stdin().lock().read_to_string(&mut input);
            got.context("cannot read the arguments from standard input")?;
            read = input;
            &read
        }
        Some(text) => text,
    };
    dynamic::parse(text).map_err(|error| {
        let what = format!("the arguments are no JSON: {error}; expected as '{{\"amount\": 5}}'");
        Usage(what).into()
    })
}

/// Sees that the arguments fit before anything is sent, and looks up the names among them.
async fn fit(
    system: &System,
    schema: &Schema,
    (taken, members): (&Struct, &[Member]),
    given: &Value,
    taking: impl Fn() -> String,
) -> anyhow::Result<Names> {
    let mut names = Names::default();
    // Nowhere: what is written into it is dropped.
    let mut scratch = Writer::new(MESSAGE_BYTES_MAX);
    let at = scratch.structure(Slot::ROOT, taken.data, taken.pointers);
    encode::members(schema, members, given, &mut names, &mut scratch, at)
        .map_err(|mismatch| Usage(format!("parameter {mismatch}\n  in {}", taking())))?;
    for name in std::mem::take(&mut names.unknown) {
        let found = system.find(&name).await;
        let found = found.with_context(|| format!("the arguments refer to '{name}'"))?;
        let (uid, class) = (found.uid, found.class);
        names.known.insert(name, Reference { uid, class });
    }
    Ok(names)
}

/// What the node says of a class.
fn described(node: &NodeInfo, class: ClassId) -> anyhow::Result<(&ClassDescription, Schema)> {
    let found = node.class(class).with_context(|| {
        let name = &node.description.name;
        format!("node '{name}' has the object, but does not run its class {class}")
    })?;
    Ok((found, read_schema(found)?))
}

fn read_schema(class: &ClassDescription) -> anyhow::Result<Schema> {
    let schema = Schema::read(&class.reflection);
    schema.with_context(|| format!("cannot read the node's description of {}", class.name))
}

/// The method of this name, and the interface that declares it.
fn find_method<'s>(
    schema: &'s Schema,
    class: &ClassDescription,
    wanted: &str,
) -> anyhow::Result<(u64, &'s Method)> {
    let known: Vec<_> = schema.methods(class.id).collect();
    let mut named = known.iter();
    let found = named.find(|(_, m)| m.name.idl == wanted || m.name.wire == wanted);
    if let Some((interface, method)) = found {
        return Ok((*interface, method));
    }
    let names: Vec<_> = known
        .iter()
        .map(|(_, method)| method.name.idl.as_str())
        .collect();
    let hint = suggest::hint(wanted, names.iter().copied());
    let class = &class.name;
    let what = match names.as_slice() {
        [] => format!("{class} has no methods"),
        names => format!(
            "{class} has no method '{wanted}'; it has {}{hint}",
            names.join(", ")
        ),
    };
    Err(Usage(what).into())
}

/// What the method answered; an error, if it raised an exception.
fn answer(
    schema: &Schema,
    method: &Method,
    results: StructReader<'_>,
) -> anyhow::Result<Option<Value>> {
    const EXECUTED: &str = "the call was executed, but its answer cannot be read";
    if let Some(raised) = schema.result(method, "raised") {
        let pointer = results.pointer(u16::try_from(raised.offset).unwrap_or(u16::MAX));
        if let (Type::Struct(id), false) = (&raised.ty, pointer.is_null()) {
            let union = schema.structure(*id).context(EXECUTED)?;
            let at = pointer.structure().context(EXECUTED)?;
            let (case, members) = decode::union(schema, union, at).context(EXECUTED)?;
            let exception = match case.ty {
                Type::Struct(id) => schema.node(id),
                _ => None,
            };
            let name = exception.context(EXECUTED)?.qualified();
            return Err(Raised { name, members }.into());
        }
    }
    let Some(value) = schema.result(method, "value") else {
        return Ok(None);
    };
    Ok(Some(
        decode::member(schema, value, results).context(EXECUTED)?,
    ))
}

/// A node that runs the class: the one of this name, or the first that is alive.
async fn node_with_class(
    system: &System,
    class: &str,
    wanted: Option<&str>,
) -> anyhow::Result<NodeInfo> {
    let nodes = system.client.locator().nodes(&system.client).await?;
    let (mut seen, mut silent) = (Vec::new(), Vec::new());
    for node in nodes {
        if wanted.is_some_and(|wanted| wanted != node.name) || (wanted.is_none() && !node.alive) {
            continue;
        }
        match system.reach(&node).await {
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
    let place = wanted.map_or_else(
        || "no living node".to_owned(),
        |name| format!("no node '{name}'"),
    );
    let hint = suggest::hint(class, seen.iter().map(String::as_str));
    let known = if seen.is_empty() {
        "nothing".to_owned()
    } else {
        seen.join(", ")
    };
    Err(anyhow!(
        "{place} runs the class {class}; found {known}{hint}"
    ))
}

/// The runtime wants descriptions that live as long as the process: this one makes one call.
fn leak_method(interface: u64, method: &Method) -> &'static RuntimeMethod {
    Box::leak(Box::new(RuntimeMethod {
        interface: ClassId(interface),
        ordinal: method.ordinal,
        name: String::leak(method.name.idl.clone()),
        // Which it is, only the node knows: so the call gets an id, and is never repeated unasked.
        mutating: true,
        idempotent: false,
        deadline_us: None,
    }))
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
