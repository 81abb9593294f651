//! Names: from the IDL to Cap'n Proto and to Rust.
//!
//! The resolver refuses two members whose names would become one; what is decided here are names
//! that the generator makes up, which must give way to those of the user.

use std::collections::BTreeSet;

use heck::{ToLowerCamelCase, ToSnakeCase, ToUpperCamelCase};
use partha_idl::model::{Item, Model, ModuleId, Type};
use proc_macro2::{Ident, Span};

/// Names that a Cap'n Proto file gives a meaning to; a type called so would hide it.
const BUILTIN: [&str; 19] = [
    "AnyList",
    "AnyPointer",
    "AnyStruct",
    "Bool",
    "Capability",
    "Data",
    "Float32",
    "Float64",
    "Int16",
    "Int32",
    "Int64",
    "Int8",
    "List",
    "Text",
    "UInt16",
    "UInt32",
    "UInt64",
    "UInt8",
    "Void",
];

/// A set of names in which new ones make room for those that are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope(BTreeSet<String>);

impl Scope {
    /// The names at the top of a Cap'n Proto file.
    pub(crate) fn file() -> Self {
        Self(BUILTIN.iter().map(ToString::to_string).collect())
    }

    /// Takes `wanted`, or else the first of `wanted2`, `wanted3`, … that is free.
    pub(crate) fn take(&mut self, wanted: &str) -> String {
        let numbered = (2_u32..).map(|n| format!("{wanted}{n}"));
        let name = std::iter::once(wanted.to_owned())
            .chain(numbered)
            .find(|name| !self.0.contains(name))
            .expect("numbers do not end");
        self.0.insert(name.clone());
        name
    }

    /// Notes a name that is used, whether or not it was free.
    pub(crate) fn note(&mut self, name: &str) {
        self.0.insert(name.to_owned());
    }

    /// A Rust variable called `wanted`, with underscores behind it until it is free.
    pub(crate) fn variable(&mut self, wanted: &str) -> Ident {
        let mut name = wanted.to_owned();
        while !self.0.insert(name.clone()) {
            name.push('_');
        }
        ident(&name)
    }
}

/// lowerCamelCase, for members and constants of Cap'n Proto.
pub(crate) fn lower_camel(name: &str) -> String {
    name.to_lower_camel_case()
}

/// UpperCamelCase, for types that are named after methods and modules.
pub(crate) fn upper_camel(name: &str) -> String {
    name.to_upper_camel_case()
}

/// The Rust variant for a case of a union.
pub(crate) fn variant(name: &str) -> Ident {
    ident(&upper_camel(name))
}

/// The Rust module for an interface.
pub(crate) fn module_of(interface: &str) -> Ident {
    ident(&interface.to_snake_case())
}

/// Keywords of Rust, reserved ones included, that can be raw identifiers.
const KEYWORDS: [&str; 48] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let",
    "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return",
    "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use",
    "virtual", "where", "while", "yield",
];

/// A Rust identifier; raw if it is a keyword, with an underscore if it cannot be raw.
///
/// The list of keywords is ours, since asking `syn` costs a parse a name.
pub(crate) fn ident(name: &str) -> Ident {
    match name {
        "self" | "Self" | "super" | "crate" | "_" => {
            Ident::new(&format!("{name}_"), Span::call_site())
        }
        name if KEYWORDS.contains(&name) => Ident::new_raw(name, Span::call_site()),
        name => Ident::new(name, Span::call_site()),
    }
}

/// The name of the error enum of a method.
pub(crate) fn error_of(method: &str) -> Ident {
    ident(&format!("{}Error", upper_camel(method)))
}

/// The names of the exceptions of a method: as the items are called, numbered where two modules
/// have the same; `reserved` comes first.
pub(crate) fn exceptions<'a>(
    items: impl Iterator<Item = &'a Item>,
    reserved: &str,
    style: fn(&str) -> String,
) -> Vec<String> {
    let mut scope = Scope::default();
    scope.note(reserved);
    items.map(|item| scope.take(&style(&item.name))).collect()
}

/// The part of a made-up name that stands for a type.
pub(crate) fn tag(model: &Model, here: ModuleId, ty: &Type) -> String {
    let plain = match ty {
        Type::Bool => "Bool",
        Type::I8 => "Int8",
        Type::I16 => "Int16",
        Type::I32 => "Int32",
        Type::I64 => "Int64",
        Type::U8 => "UInt8",
        Type::U16 => "UInt16",
        Type::U32 => "UInt32",
        Type::U64 => "UInt64",
        Type::F32 => "Float32",
        Type::F64 => "Float64",
        Type::String => "Text",
        Type::Bytes => "Data",
        Type::Uid => "Uid",
        Type::Timestamp => "Timestamp",
        Type::Duration => "Duration",
        Type::List(element) => return format!("List{}", tag(model, here, element)),
        Type::Map(key, value) => {
            return format!("Map{}{}", tag(model, here, key), tag(model, here, value));
        }
        Type::Option(inner) => return format!("Option{}", tag(model, here, inner)),
        Type::Struct(id) | Type::Enum(id) | Type::Union(id) | Type::Interface(id) => {
            let item = model.item(*id);
            if item.module == here {
                return item.name.clone();
            }
            return format!(
                "{}{}",
                upper_camel(&model.module(item.module).name),
                item.name
            );
        }
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_of_syn_is_raw_and_nothing_else() {
        for name in KEYWORDS {
            // `gen` is one since the edition of 2024 only.
            let known = name == "gen" || syn::parse_str::<Ident>(name).is_err();
            assert!(known, "{name} is no keyword");
            assert_eq!(ident(name).to_string(), format!("r#{name}"));
        }
        for name in [
            "union",
            "default",
            "auto",
            "raw",
            "safe",
            "Some",
            "macro_rules",
            "state",
        ] {
            assert_eq!(syn::parse_str::<Ident>(name).unwrap(), ident(name));
        }
        assert_eq!(ident("self").to_string(), "self_");
        assert_eq!(variant("self").to_string(), "Self_");
    }

    #[test]
    fn made_up_names_give_way() {
        let mut scope = Scope::file();
        assert_eq!(scope.take("Text"), "Text2");
        assert_eq!(scope.take("Shop"), "Shop");
        assert_eq!(scope.take("Shop"), "Shop2");
        let mut scope = Scope::default();
        scope.note("w");
        scope.note("w_");
        assert_eq!(scope.variable("w").to_string(), "w__");
    }
}
