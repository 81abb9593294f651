//! Calling methods of interfaces that this program was not compiled with: what the node says of
//! the object's class, the arguments from JSON, the answer to JSON.

use std::io::Read as _;

use anyhow::Context as _;
use partha::abi::{Method as RuntimeMethod, Mode, Slot, StructReader, Writer};
use partha::system::ClassDescription;
use partha::{Caller, ClassId, MESSAGE_BYTES_MAX, Ref, Uid};
use serde_json::{Map, Value};

use crate::cluster::{NodeInfo, System};
use crate::dynamic::encode::{self, Names, Reference};
use crate::dynamic::{self, Member, Method, Schema, Struct, Type, decode};
use crate::failure::{Raised, Usage};
use crate::owner::Owned;
use crate::suggest;

const UNDESCRIBED: &str = "the node's description of the interface is not complete";

/// An object, with what its node says that it can do.
#[derive(Debug)]
pub(crate) struct Callee {
    uid: Uid,
    class: ClassDescription,
    schema: Schema,
}

impl Callee {
    /// The object of a name or uid.
    pub(crate) async fn find(system: &System, name: &str) -> anyhow::Result<Self> {
        let uid = system.find(name).await?.uid;
        let Owned { node, found, .. } = system.owner(uid).await?;
        let (class, schema) = described(system, &node, ClassId(found.class)).await?;
        Ok(Self { uid, class, schema })
    }

    /// Calls the method with these arguments, and waits for its answer: none if it has none.
    pub(crate) async fn call(
        &self,
        system: &System,
        caller: &impl Caller,
        method: &str,
        given: &Value,
    ) -> anyhow::Result<Option<Value>> {
        let schema = &self.schema;
        let (interface, method) = find_method(schema, &self.class, method)?;
        let (params, members) = schema.parameters(method).context(UNDESCRIBED)?;
        let taking = || schema.signature(method);
        let mut names = fit(system, schema, (params, members), given, taking).await?;
        let runtime = leak_method(interface, method);
        let object = Ref::new(self.uid, ClassId(self.class.id));
        let mut request = object.request(caller, runtime, params.data, params.pointers);
        let mut written = Ok(());
        request.arguments(|w, at| {
            written = encode::members(schema, members, given, &mut names, w, at);
        });
        written?;
        let reply = request.send().await?;
        answer(schema, method, reply.results()?)
    }
}

/// The arguments as JSON; none are an empty object.
pub(crate) fn given(text: Option<&str>) -> anyhow::Result<Value> {
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
pub(crate) async fn fit(
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
pub(crate) async fn described(
    system: &System,
    node: &NodeInfo,
    class: ClassId,
) -> anyhow::Result<(ClassDescription, Schema)> {
    let class = node.describe_class(&system.client, class).await?;
    let schema = Schema::read(&class.reflection);
    let what = || format!("cannot read the node's description of {}", class.name);
    let schema = schema.with_context(what)?;
    Ok((class, schema))
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

/// The runtime wants descriptions that live as long as the process: this one makes few calls.
fn leak_method(interface: u64, method: &Method) -> &'static RuntimeMethod {
    Box::leak(Box::new(RuntimeMethod {
        interface: ClassId(interface),
        ordinal: method.ordinal,
        name: String::leak(method.name.idl.clone()),
        // Which it is, only the node knows: so the call gets an id, and is never repeated unasked.
        mutating: true,
        mode: Mode::Write,
        idempotent: false,
        blocking: false,
        any_replica: false,
        deadline_us: None,
    }))
}
