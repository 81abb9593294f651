//! What a `CodeGeneratorRequest` says, in the terms of the IDL.
//!
//! The generator maps what Cap'n Proto lacks to structs and groups of a known shape; reading maps
//! them back: a group of `none` and `some` is an optional member, a list of `Map…Entry` structs
//! with `key` and `value` is a map, and an `Option…` struct around a `value` is an optional
//! element. (A struct of the user's that has such a name *and* such a shape is taken for one.)
//!
//! The request comes from a node, so it is input like any other: what is wrong with it is an
//! error, and what it refers to may be absent.

mod read;

use std::collections::HashMap;

/// Everything in one request.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    nodes: HashMap<u64, Node>,
}

/// A declaration.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    /// `bank`
    pub(crate) module: String,
    /// `Account`, `Account.State`
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    /// Declarations in it, by name.
    nested: Vec<(String, u64)>,
    pub(crate) body: Body,
}

/// What a declaration declares.
#[derive(Debug)]
pub(crate) enum Body {
    Struct(Struct),
    /// By ordinal.
    Enum(Vec<Enumerant>),
    Interface(Interface),
    /// Files, constants, annotations, groups.
    Other,
}

/// A struct, or a union.
#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) data: u16,
    pub(crate) pointers: u16,
    /// Where the number of the present case is, in units of two bytes, if it is a union.
    pub(crate) union: Option<u32>,
    /// In the order of declaration.
    pub(crate) members: Vec<Member>,
}

/// A member of a struct, or a case of a union.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Name,
    pub(crate) docs: Vec<String>,
    pub(crate) ty: Type,
    /// In units of its size, or a pointer's index.
    pub(crate) offset: u32,
    /// Where it is said whether it is there, in units of two bytes, if it may be absent.
    pub(crate) optional: Option<u32>,
    /// The case's number.
    pub(crate) case: u16,
}

/// A value of an enum.
#[derive(Debug)]
pub(crate) struct Enumerant {
    pub(crate) name: Name,
    pub(crate) docs: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) bases: Vec<u64>,
    /// In the order of declaration.
    pub(crate) methods: Vec<Method>,
}

#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: Name,
    pub(crate) docs: Vec<String>,
    pub(crate) ordinal: u16,
    /// The struct of parameters; the first is the call context.
    pub(crate) params: u64,
    /// The struct of `value` and `raised`, as far as there are such.
    pub(crate) results: u64,
}

/// A name in both spellings.
#[derive(Debug)]
pub(crate) struct Name {
    /// `valid_until`
    pub(crate) idl: String,
    /// `validUntil`
    pub(crate) wire: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Void,
    Bool,
    Int(Int),
    F32,
    F64,
    Text,
    Bytes,
    Uid,
    /// To a persistent object.
    Reference,
    Enum(u64),
    Struct(u64),
    /// A capability.
    Interface(u64),
    List(Box<Self>),
    /// With the struct of its entries.
    Map(u64),
    /// Of an element, with the struct around it.
    Option(u64),
    /// Of no use in the IDL.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Schema {
    /// A declaration.
    pub(crate) fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All declarations, in no order.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A declaration in another one.
    pub(crate) fn nested(&self, scope: u64, name: &str) -> Option<&Node> {
        let nested = &self.node(scope)?.nested;
        let (_, id) = nested.iter().find(|(found, _)| found == name)?;
        self.node(*id)
    }

    /// A struct or union.
    pub(crate) fn structure(&self, id: u64) -> Option<&Struct> {
        match &self.node(id)?.body {
            Body::Struct(found) => Some(found),
            Body::Enum(_) | Body::Interface(_) | Body::Other => None,
        }
    }

    /// The values of an enum.
    pub(crate) fn enumerants(&self, id: u64) -> Option<&[Enumerant]> {
        match &self.node(id)?.body {
            Body::Enum(found) => Some(found),
            Body::Struct(_) | Body::Interface(_) | Body::Other => None,
        }
    }

    /// An interface.
    pub(crate) fn interface(&self, id: u64) -> Option<&Interface> {
        match &self.node(id)?.body {
            Body::Interface(found) => Some(found),
            Body::Struct(_) | Body::Enum(_) | Body::Other => None,
        }
    }

    /// An interface and what it inherits, bases last, each once.
    pub(crate) fn ancestry(&self, interface: u64) -> Vec<u64> {
        let mut found = vec![interface];
        let mut next = 0;
        while let Some(interface) = found.get(next).and_then(|id| self.interface(*id)) {
            for base in &interface.bases {
                if !found.contains(base) {
                    found.push(*base);
                }
            }
            next += 1;
        }
        found
    }

    /// All methods of an interface, inherited ones last, with the interface that declares each.
    pub(crate) fn methods(&self, interface: u64) -> impl Iterator<Item = (u64, &Method)> {
        self.ancestry(interface).into_iter().flat_map(|id| {
            let methods = self.interface(id).map_or(&[][..], |found| &found.methods);
            methods.iter().map(move |method| (id, method))
        })
    }

    /// The parameters of a method, without the context, and their struct.
    pub(crate) fn parameters(&self, method: &Method) -> Option<(&Struct, &[Member])> {
        let params = self.structure(method.params)?;
        Some((params, params.members.get(1..)?))
    }

    /// A member of what a method answers: `value` or `raised`.
    pub(crate) fn result(&self, method: &Method, name: &str) -> Option<&Member> {
        let members = &self.structure(method.results)?.members;
        members.iter().find(|member| member.name.wire == name)
    }

    /// The exceptions that a method may raise: cases of a union whose first is none.
    pub(crate) fn raises(&self, method: &Method) -> impl Iterator<Item = &Node> {
        let raised = self.result(method, "raised").map(|member| &member.ty);
        let raised = match raised {
            Some(Type::Struct(id)) => self.structure(*id),
            _ => None,
        };
        let cases = raised.map_or(&[][..], |raised| &raised.members);
        cases.iter().filter_map(|case| match case.ty {
            Type::Struct(id) => self.node(id),
            _ => None,
        })
    }

    /// How the type is written in the IDL, as far as it is known.
    pub(crate) fn type_text(&self, ty: &Type) -> String {
        self.type_text_at(ty, 0)
    }

    fn type_text_at(&self, ty: &Type, depth: u8) -> String {
        // No type of the language nests deeper; what a stranger sends may.
        const DEPTH_MAX: u8 = 64;
        if depth > DEPTH_MAX {
            return "…".to_owned();
        }
        let named = |id: &u64| {
            self.node(*id)
                .map_or_else(|| "?".to_owned(), Node::qualified)
        };
        let parts = |id: &u64| {
            let members = self.structure(*id).map_or(&[][..], |found| &found.members);
            let parts = members.iter();
            let parts = parts.map(|member| self.type_text_at(&member.ty, depth + 1));
            parts.collect::<Vec<_>>().join(", ")
        };
        match ty {
            Type::Void => "nothing".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Int(int) => int.text().to_owned(),
            Type::F32 => "f32".to_owned(),
            Type::F64 => "f64".to_owned(),
            Type::Text => "string".to_owned(),
            Type::Bytes => "bytes".to_owned(),
            Type::Uid => "uid".to_owned(),
            Type::Reference => "reference".to_owned(),
            Type::Enum(id) | Type::Struct(id) | Type::Interface(id) => named(id),
            Type::List(element) => format!("list<{}>", self.type_text_at(element, depth + 1)),
            Type::Map(id) => format!("map<{}>", parts(id)),
            Type::Option(id) => format!("option<{}>", parts(id)),
            Type::Other => "?".to_owned(),
        }
    }
}

impl Node {
    /// `bank.Account`
    pub(crate) fn qualified(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

impl Type {
    /// True if it lies behind a pointer, which may be null.
    pub(crate) fn is_pointer(&self) -> bool {
        match self {
            Self::Void | Self::Bool | Self::Int(_) | Self::F32 | Self::F64 | Self::Enum(_) => false,
            Self::Text
            | Self::Bytes
            | Self::Uid
            | Self::Reference
            | Self::Struct(_)
            | Self::Interface(_)
            | Self::List(_)
            | Self::Map(_)
            | Self::Option(_)
            | Self::Other => true,
        }
    }
}

impl Int {
    /// As in the IDL.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
        }
    }

    /// The least and the greatest value.
    pub(crate) fn range(self) -> (i128, i128) {
        match self {
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
        }
    }
}

impl Name {
    /// Of a member or method: `validUntil` is `valid_until`.
    fn snake(wire: &str) -> Self {
        let mut idl = String::with_capacity(wire.len() + 4);
        for c in wire.chars() {
            if c.is_ascii_uppercase() {
                idl.push('_');
            }
            idl.push(c.to_ascii_lowercase());
        }
        Self {
            idl,
            wire: wire.to_owned(),
        }
    }

    /// Of a value of an enum: `eur` is `Eur`.
    fn upper(wire: &str) -> Self {
        let mut idl = wire.to_owned();
        if let Some(first) = idl.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self {
            idl,
            wire: wire.to_owned(),
        }
    }
}

/// The item of this name, in either spelling. The spelling of the IDL cannot be told exactly from
/// the other (`b_2` and `b2` are both `b2`), so that underscores and case do not count where they
/// make no difference.
pub(crate) fn find<'a, T>(
    items: &'a [T],
    name: impl Fn(&T) -> &Name,
    wanted: &str,
) -> Option<(usize, &'a T)> {
    let exact = |item: &&T| [&name(item).idl, &name(item).wire].contains(&&wanted.to_owned());
    if let Some(index) = items.iter().position(|item| exact(&item)) {
        return Some((index, &items[index]));
    }
    let letters = |text: &str| text.replace('_', "").to_ascii_lowercase();
    let wanted = letters(wanted);
    let mut near = items.iter().enumerate();
    let mut near = near
        .by_ref()
        .filter(|(_, item)| letters(&name(item).wire) == wanted);
    near.next().filter(|_| near.next().is_none())
}
