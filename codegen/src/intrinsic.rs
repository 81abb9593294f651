//! The structs that Cap'n Proto needs and the IDL has as types: identities, references, the call
//! context. They live in the system module `partha`; the runtime has their Rust by hand.

use partha_idl::model::Type as Idl;

use crate::ids;
use crate::node::{Body, Member, Node, Struct, Type};
use crate::shape;

/// The module they live in.
pub(crate) const MODULE: &str = "partha";

/// The id of one of them.
pub(crate) fn id(name: &str) -> u64 {
    ids::child(ids::module(MODULE), name)
}

/// An object's identity.
pub(crate) fn uid() -> Type {
    Type::Struct(id("Uid"))
}

/// A reference to a persistent object.
pub(crate) fn object_ref() -> Type {
    Type::Struct(id("ObjectRef"))
}

/// Parameter 0 of every method.
pub(crate) fn call_context() -> Type {
    Type::Struct(id("CallContext"))
}

/// A member: its name and documentation, and its type here and there.
type Plan = (&'static str, &'static str, Idl, Type);

/// All of them.
pub(crate) fn nodes() -> Vec<Node> {
    vec![
        structure(
            "Uid",
            "The identity of an object, for ever.",
            vec![
                word("node", "The node that made the object."),
                word(
                    "local",
                    "Incarnation (upper 24 bits) and counter (lower 40 bits).",
                ),
            ],
        ),
        structure(
            "ObjectRef",
            "A reference to a persistent object.",
            vec![
                ("uid", "Which object.", Idl::Uid, uid()),
                word(
                    "class",
                    "Its class: an interface id; 0 if the sender does not know it.",
                ),
            ],
        ),
        structure(
            "CallContext",
            "What travels with every call. Null means: no action, no call id, default deadline.",
            call_members().into_iter().chain(action_members()).collect(),
        ),
    ]
}

/// Of the call context: the call itself.
fn call_members() -> Vec<Plan> {
    vec![
        word(
            "deadlineUs",
            "Microseconds from now until the caller gives up; 0: default.",
        ),
        word(
            "callNode",
            "With the next two, the call's id; asking again with it never \
            executes the call twice.",
        ),
        word("callSequence", "Counts up from 1; 0: this call has no id."),
        (
            "callIncarnation",
            "The caller's incarnation.",
            Idl::U32,
            Type::Uint32,
        ),
        (
            "again",
            "Not the first time of asking.",
            Idl::Bool,
            Type::Bool,
        ),
        word("traceHigh", "Trace id, upper half."),
        word("traceLow", "Trace id, lower half."),
    ]
}

/// Of the call context: the actions it is part of.
fn action_members() -> Vec<Plan> {
    vec![
        uids(
            "actions",
            "The actions that the call is part of, outermost first; empty outside of any.",
        ),
        (
            "actionsEnclosing",
            "How many of them lie across the last top-level boundary: they wait for the \
            call, but what it does is not theirs. All of them: it is in no action itself.",
            Idl::U16,
            Type::Uint16,
        ),
        word(
            "actionsLeftUs",
            "Microseconds from now until whoever runs the root action gives it up.",
        ),
        word(
            "actionsHome",
            "The node where deadlocks of these actions are looked for.",
        ),
        word(
            "actionsBornMs",
            "When the outermost one began, in milliseconds of its node's clock; only \
            compared, to choose the youngest of a deadlock.",
        ),
        uids(
            "stack",
            "The objects whose methods wait for this call, outermost first.",
        ),
        (
            "actionsCarried",
            "It is made by a method whose call is executed again if the node of that is lost: the \
            actions go on then.",
            Idl::Bool,
            Type::Bool,
        ),
        (
            "actionsFollowed",
            "Its caller takes the object for one with copies whose next leader goes on with what \
            running actions have of it, and makes the call again there if this one is lost.",
            Idl::Bool,
            Type::Bool,
        ),
    ]
}

fn word(name: &'static str, doc: &'static str) -> Plan {
    (name, doc, Idl::U64, Type::Uint64)
}

fn uids(name: &'static str, doc: &'static str) -> Plan {
    let ty = Type::List(Box::new(uid()));
    (name, doc, Idl::List(Box::new(Idl::Uid)), ty)
}

fn structure(name: &str, doc: &str, members: Vec<Plan>) -> Node {
    let types: Vec<_> = members.iter().map(|(_, _, idl, _)| idl).collect();
    let laid = shape::types(&types);
    let member = |(name, doc, _, ty): Plan| Member {
        name: name.to_owned(),
        docs: vec![doc.to_owned()],
        ty,
    };
    Node {
        name: name.to_owned(),
        id: id(name),
        docs: vec![doc.to_owned()],
        nested: Vec::new(),
        body: Body::Struct(Struct {
            laid,
            members: members.into_iter().map(member).collect(),
        }),
    }
}
