//! The syntax as written, with every place kept.
//!
//! Names are not resolved and nothing is checked but the form. A list or a unit in which
//! something could not be read says so, so that later phases don't complain about what is
//! missing.

use std::collections::HashSet;

use crate::source::Span;

/// One file.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    pub(crate) docs: Vec<String>,
    pub(crate) name: Option<Name>,
    pub(crate) id: Option<(u64, Span)>,
    pub(crate) uses: Vec<Use>,
    pub(crate) items: Vec<Item>,
    /// Identifiers in what could not be read: they may have been meant as declarations.
    pub(crate) lost: HashSet<String>,
    /// Not a token could be read: any name may have been declared.
    pub(crate) unreadable: bool,
}

/// An identifier in a place.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Name {
    /// In quotes, shortened, for a message.
    pub(crate) fn quoted(&self) -> String {
        const CHARS_MAX: usize = 60;
        match self.text.char_indices().nth(CHARS_MAX) {
            Some((cut, _)) => format!("`{}…`", &self.text[..cut]),
            None => format!("`{}`", self.text),
        }
    }
}

/// `use module::{Name, Name as Other};`
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) module: Name,
    pub(crate) names: Vec<UsedName>,
}

/// One name of a `use` line.
#[derive(Debug)]
pub(crate) struct UsedName {
    pub(crate) name: Name,
    /// The name it has here: after `as`, or the same.
    pub(crate) local: Name,
}

/// What may stand before any declaration.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) docs: Vec<String>,
    pub(crate) deprecated: Option<String>,
    pub(crate) idempotent: bool,
    pub(crate) deadline_us: Option<u64>,
    pub(crate) blocking: bool,
    /// Where `#[upgrade]` stands.
    pub(crate) upgrade: Option<Span>,
    /// Where `#[any_replica]` stands.
    pub(crate) any_replica: Option<Span>,
    pub(crate) id: Option<(u64, Span)>,
}

/// A declaration of a module.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) name: Name,
    pub(crate) attributes: Attributes,
    pub(crate) kind: ItemKind,
}

/// The kinds of declarations.
#[derive(Debug)]
pub(crate) enum ItemKind {
    Const(TypeRef, Value),
    Struct(List<Member>),
    Enum(List<Member>),
    Union(List<Member>),
    Exception(List<Member>),
    Interface(Interface),
}

impl ItemKind {
    /// With its article, for texts.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Const(..) => "a constant",
            Self::Struct(_) => "a struct",
            Self::Enum(_) => "an enum",
            Self::Union(_) => "a union",
            Self::Exception(_) => "an exception",
            Self::Interface(interface) if interface.persistent => "a persistent interface",
            Self::Interface(_) => "an interface",
        }
    }
}

/// Members between brackets.
#[derive(Debug)]
pub(crate) struct List<T> {
    pub(crate) members: Vec<T>,
    /// A member could not be read and is missing.
    pub(crate) damaged: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            damaged: false,
        }
    }
}

/// A field, parameter, case of a union or value of an enum.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Name,
    pub(crate) attributes: Attributes,
    pub(crate) ordinal: Option<Ordinal>,
    /// Absent from values of an enum and from bare cases.
    pub(crate) ty: Option<TypeRef>,
}

/// `@n`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ordinal {
    pub(crate) value: u64,
    pub(crate) span: Span,
}

/// The body of an interface.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) persistent: bool,
    pub(crate) base: Option<Name>,
    pub(crate) state: Option<State>,
    pub(crate) constructor: Option<Constructor>,
    pub(crate) methods: List<Method>,
}

/// `state { … }`
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) keyword: Span,
    pub(crate) fields: List<Member>,
}

/// `new(…);`
#[derive(Debug)]
pub(crate) struct Constructor {
    pub(crate) keyword: Span,
    pub(crate) docs: Vec<String>,
    pub(crate) params: List<Member>,
}

/// `fn name(&self, …) -> T raises E;`
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: Name,
    pub(crate) attributes: Attributes,
    pub(crate) ordinal: Option<Ordinal>,
    pub(crate) mutating: bool,
    pub(crate) params: List<Member>,
    pub(crate) result: Option<TypeRef>,
    pub(crate) raises: Vec<Name>,
}

/// A type as written.
#[derive(Debug)]
pub(crate) struct TypeRef {
    pub(crate) span: Span,
    pub(crate) kind: TypeKind,
}

/// The forms of types.
#[derive(Debug)]
pub(crate) enum TypeKind {
    /// Built in or declared: the resolver knows.
    Named(String),
    List(Box<TypeRef>),
    Map(Box<TypeRef>, Box<TypeRef>),
    Option(Box<TypeRef>),
    /// Complained about already.
    Wrong,
}

/// The value of a constant as written.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) span: Span,
    pub(crate) kind: ValueKind,
}

/// The forms of values.
#[derive(Debug)]
pub(crate) enum ValueKind {
    Bool(bool),
    /// Sign and magnitude; `None` if it does not fit 128 bits.
    Int(Option<i128>),
    Float(f64),
    Text(String),
}
