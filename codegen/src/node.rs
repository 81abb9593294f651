//! The schema of a model as Cap'n Proto sees it: files, nodes, members with their places.
//!
//! Made by [`crate::lower`]; written as text by [`crate::schema`] and as a CodeGeneratorRequest
//! by [`crate::cgr`]. Everything is decided here: names, ids, ordinals, offsets. It knows
//! nothing of Rust.

use std::collections::BTreeMap;

use crate::shape::Laid;

/// All files of a compilation.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    /// Imported files before their importers.
    pub(crate) files: Vec<File>,
    /// The system module, by index.
    pub(crate) system: usize,
    /// Where each type is declared.
    pub(crate) homes: BTreeMap<u64, Home>,
}

/// Where a type is declared.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// Index into [`Schema::files`].
    pub(crate) file: usize,
    /// Names from the outermost to its own.
    pub(crate) path: Vec<String>,
}

/// A `.capnp` file.
#[derive(Debug)]
pub(crate) struct File {
    /// The name of its module.
    pub(crate) module: String,
    /// The file id.
    pub(crate) id: u64,
    /// The comment at its top.
    pub(crate) docs: Vec<String>,
    /// The files its types are taken from, by index, in order of their aliases.
    pub(crate) imports: Vec<Import>,
    /// Top-level nodes in the order of the text.
    pub(crate) nodes: Vec<Node>,
}

/// `using Alias = import "module.capnp";`
#[derive(Debug)]
pub(crate) struct Import {
    /// Index into [`Schema::files`].
    pub(crate) file: usize,
    /// What the file is called here.
    pub(crate) alias: String,
}

/// A named declaration.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name in its scope.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: u64,
    /// The comment in it.
    pub(crate) docs: Vec<String>,
    /// Types declared in it.
    pub(crate) nested: Vec<Self>,
    /// What it is.
    pub(crate) body: Body,
}

/// The kinds of nodes.
#[derive(Debug)]
pub(crate) enum Body {
    Struct(Struct),
    /// In the order of declaration.
    Enum(Vec<Enumerant>),
    Interface(Interface),
    Const(Type, Value),
}

/// A struct, or the parameters or results of a method.
#[derive(Debug)]
pub(crate) struct Struct {
    /// Sizes, places and ordinals.
    pub(crate) laid: Laid,
    /// In the order of declaration.
    pub(crate) members: Vec<Member>,
}

/// A member of a struct.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) ty: Type,
}

/// A value of an enum.
#[derive(Debug)]
pub(crate) struct Enumerant {
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) ordinal: u16,
}

/// An interface.
#[derive(Debug)]
pub(crate) struct Interface {
    /// The id of the interface it extends.
    pub(crate) base: Option<u64>,
    /// In the order of declaration.
    pub(crate) methods: Vec<Method>,
}

/// A method.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) ordinal: u16,
    pub(crate) params: Signature,
    pub(crate) results: Signature,
}

/// One side of a method.
#[derive(Debug)]
pub(crate) enum Signature {
    /// A list of members, with the id of the struct it stands for.
    List(u64, Struct),
    /// A struct with a name, where a member is a union: no list can hold one.
    Named(u64),
}

impl Signature {
    /// The id of the struct.
    pub(crate) fn id(&self) -> u64 {
        match self {
            Self::List(id, _) | Self::Named(id) => *id,
        }
    }
}

/// A type of Cap'n Proto.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Void,
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float32,
    Float64,
    Text,
    Data,
    List(Box<Self>),
    Enum(u64),
    Struct(u64),
    Interface(u64),
}

/// The value of a constant.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
}

impl Type {
    /// The id of the named type in it, if there is one.
    pub(crate) fn named(&self) -> Option<u64> {
        match self {
            Self::List(element) => element.named(),
            Self::Enum(id) | Self::Struct(id) | Self::Interface(id) => Some(*id),
            Self::Void
            | Self::Bool
            | Self::Int8
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::Uint8
            | Self::Uint16
            | Self::Uint32
            | Self::Uint64
            | Self::Float32
            | Self::Float64
            | Self::Text
            | Self::Data => None,
        }
    }
}

impl Node {
    /// Ids of all types that this node and those in it refer to.
    pub(crate) fn references(&self, found: &mut Vec<u64>) {
        self.nested.iter().for_each(|node| node.references(found));
        match &self.body {
            Body::Struct(body) => body.references(found),
            Body::Enum(_) | Body::Const(..) => {}
            Body::Interface(interface) => {
                found.extend(interface.base);
                let signatures = interface
                    .methods
                    .iter()
                    .flat_map(|m| [&m.params, &m.results]);
                for signature in signatures {
                    match signature {
                        Signature::List(_, list) => list.references(found),
                        Signature::Named(id) => found.push(*id),
                    }
                }
            }
        }
    }
}

impl Struct {
    fn references(&self, found: &mut Vec<u64>) {
        found.extend(self.members.iter().filter_map(|member| member.ty.named()));
    }
}
