//! IDL types as Rust types, and paths to what they are made of.
//!
//! A [`Rust`] is the place in the generated file for which something is emitted: it knows how far
//! up the file's top is and which item `Self` stands for. Names of the prelude are spelled out
//! only where an item of the module has the same name.

use std::collections::BTreeSet;

use partha_idl::model::{Field, Item, ItemId, ItemKind, Method, Model, ModuleId, Type};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};

use crate::names::{self, ident};
use crate::{Options, intrinsic};

/// A place in a generated file.
#[derive(Clone, Copy)]
pub(crate) struct Rust<'a> {
    pub(crate) model: &'a Model,
    pub(crate) options: &'a Options,
    /// The module being generated.
    pub(crate) module: ModuleId,
    /// True inside the Rust module of an interface.
    pub(crate) inside: bool,
    /// The item that `Self` is.
    pub(crate) this: Option<ItemId>,
    /// For each name of [`PRELUDE`], whether an item of the module hides it.
    hidden: [bool; PRELUDE.len()],
}

/// The names of the prelude that generated code uses, and where they come from.
const PRELUDE: [(&str, &str); 8] = [
    ("Option", "::std::option::Option"),
    ("Result", "::std::result::Result"),
    ("String", "::std::string::String"),
    ("Vec", "::std::vec::Vec"),
    ("Box", "::std::boxed::Box"),
    ("From", "::std::convert::From"),
    ("Send", "::std::marker::Send"),
    ("Sync", "::std::marker::Sync"),
];

impl<'a> Rust<'a> {
    /// The top of a file.
    pub(crate) fn new(model: &'a Model, options: &'a Options, module: ModuleId) -> Self {
        let items = &model.module(module).items;
        let hides = |name: &str| items.iter().any(|id| model.item(*id).name == name);
        Self {
            model,
            options,
            module,
            inside: false,
            this: None,
            hidden: PRELUDE.map(|(name, _)| hides(name)),
        }
    }

    /// The same file, inside the Rust module of an interface.
    pub(crate) fn inside(self) -> Self {
        Self {
            inside: true,
            this: None,
            ..self
        }
    }

    /// The same place, where `Self` is an item.
    pub(crate) fn of(self, this: ItemId) -> Self {
        Self {
            this: Some(this),
            ..self
        }
    }

    /// `::partha::…`
    pub(crate) fn runtime(&self) -> TokenStream {
        path(&self.options.runtime)
    }

    /// `::partha::abi`
    pub(crate) fn abi(&self) -> TokenStream {
        let runtime = self.runtime();
        quote!(#runtime::abi)
    }

    /// A name of the prelude, spelled out if the module has an item called so.
    pub(crate) fn prelude(&self, name: &str) -> TokenStream {
        let known = PRELUDE.iter().zip(self.hidden);
        let known = known.filter(|(_, hidden)| *hidden);
        let mut spelled = known.filter(|((short, _), _)| *short == name);
        let name = spelled.next().map_or(name, |((_, full), _)| *full);
        path(name)
    }

    /// The path of the Rust module that holds the items of `module`.
    fn module_path(&self, module: ModuleId) -> TokenStream {
        let up = if self.inside {
            quote!(super::)
        } else {
            TokenStream::new()
        };
        if module == self.module {
            return up;
        }
        let name = &self.model.module(module).name;
        if let Some(known) = self.options.modules.get(name) {
            let known = path(known);
            return quote!(#known::);
        }
        if name == intrinsic::MODULE {
            let runtime = self.runtime();
            return quote!(#runtime::system::);
        }
        let name = ident(name);
        quote!(#up super::#name::)
    }

    /// The path of an item; `Self` where it is that.
    pub(crate) fn item(&self, id: ItemId) -> TokenStream {
        if self.this == Some(id) {
            return quote!(Self);
        }
        let item = self.model.item(id);
        let (module, name) = (self.module_path(item.module), ident(&item.name));
        quote!(#module #name)
    }

    /// The path of something in the Rust module of an interface.
    pub(crate) fn part(&self, interface: ItemId, part: &Ident) -> TokenStream {
        let item = self.model.item(interface);
        let module = self.module_path(item.module);
        let name = names::module_of(&item.name);
        quote!(#module #name::#part)
    }

    /// The owned type.
    pub(crate) fn owned(&self, ty: &Type) -> TokenStream {
        if let Some(copy) = self.copied(ty) {
            return copy;
        }
        let runtime = self.runtime();
        match ty {
            Type::String => self.prelude("String"),
            Type::Bytes => quote!(#runtime::Bytes),
            Type::List(element) => {
                let (vec, element) = (self.prelude("Vec"), self.owned(element));
                quote!(#vec<#element>)
            }
            Type::Map(key, value) => {
                let (key, value) = (self.owned(key), self.owned(value));
                quote!(::std::collections::BTreeMap<#key, #value>)
            }
            Type::Option(inner) => {
                let (option, inner) = (self.prelude("Option"), self.owned(inner));
                quote!(#option<#inner>)
            }
            Type::Struct(id) | Type::Union(id) | Type::Interface(id) => self.item(*id),
            copied => unreachable!("{copied:?} is copied"),
        }
    }

    /// The type of what a method returns normally.
    pub(crate) fn answered(&self, method: &Method) -> TokenStream {
        match &method.result {
            Some(ty) => self.owned(ty),
            None => quote!(()),
        }
    }

    /// The type of a stub's parameter: copied where that is cheap, else borrowed. Byte strings are
    /// handed over, so that they are sent from where they lie.
    pub(crate) fn parameter(&self, ty: &Type) -> TokenStream {
        let runtime = self.runtime();
        match ty {
            Type::Bytes => quote!(impl ::core::convert::Into<#runtime::Bytes>),
            ty => self.borrowed(ty),
        }
    }

    fn borrowed(&self, ty: &Type) -> TokenStream {
        if let Some(copy) = self.copied(ty) {
            return copy;
        }
        match ty {
            Type::String => quote!(&str),
            Type::Bytes => self.owned(ty),
            Type::List(element) => {
                let element = self.owned(element);
                quote!(&[#element])
            }
            Type::Option(inner) => {
                let (option, inner) = (self.prelude("Option"), self.borrowed(inner));
                quote!(#option<#inner>)
            }
            other => {
                let other = self.owned(other);
                quote!(&#other)
            }
        }
    }

    /// The type, if its values are small and `Copy`.
    fn copied(&self, ty: &Type) -> Option<TokenStream> {
        let runtime = self.runtime();
        Some(match ty {
            Type::Bool => quote!(bool),
            Type::I8 => quote!(i8),
            Type::I16 => quote!(i16),
            Type::I32 => quote!(i32),
            Type::I64 => quote!(i64),
            Type::U8 => quote!(u8),
            Type::U16 => quote!(u16),
            Type::U32 => quote!(u32),
            Type::U64 => quote!(u64),
            Type::F32 => quote!(f32),
            Type::F64 => quote!(f64),
            Type::Uid => quote!(#runtime::Uid),
            Type::Timestamp => quote!(#runtime::Timestamp),
            Type::Duration => quote!(::std::time::Duration),
            Type::Enum(id) => self.item(*id),
            Type::String
            | Type::Bytes
            | Type::List(_)
            | Type::Map(..)
            | Type::Option(_)
            | Type::Struct(_)
            | Type::Union(_)
            | Type::Interface(_) => return None,
        })
    }

    /// The derives of a value type: `Eq` unless there is a float in it, `Hash` unless there is a
    /// capability either.
    pub(crate) fn derives(&self, types: &[&Type], default: bool) -> TokenStream {
        let all = |test: fn(&Self, &Type) -> bool| {
            let mut seen = BTreeSet::new();
            types.iter().all(|ty| self.every(ty, test, &mut seen))
        };
        let eq = all(|_, ty| !matches!(ty, Type::F32 | Type::F64));
        let mut derives = vec!["Clone", "Debug"];
        if default && types.iter().all(|ty| self.has_default(ty)) {
            derives.push("Default");
        }
        derives.push("PartialEq");
        if eq {
            derives.push("Eq");
        }
        if eq && all(|rust, ty| !rust.is_capability(ty)) {
            derives.push("Hash");
        }
        let derives = derives.iter().map(|name| format_ident!("{name}"));
        quote!(#[derive(#(#derives),*)])
    }

    fn is_capability(&self, ty: &Type) -> bool {
        matches!(ty, Type::Interface(id) if !self.model.interface(*id).persistent)
    }

    /// Whether `test` holds for a type and all that values of it consist of.
    fn every(
        &self,
        ty: &Type,
        test: fn(&Self, &Type) -> bool,
        seen: &mut BTreeSet<ItemId>,
    ) -> bool {
        test(self, ty)
            && match ty {
                Type::List(inner) | Type::Option(inner) => self.every(inner, test, seen),
                Type::Map(key, value) => {
                    self.every(key, test, seen) && self.every(value, test, seen)
                }
                Type::Struct(id) | Type::Union(id) => {
                    let known = !seen.insert(*id);
                    known || parts(self.model.item(*id)).all(|ty| self.every(ty, test, seen))
                }
                _ => true,
            }
    }

    fn has_default(&self, ty: &Type) -> bool {
        match ty {
            Type::Enum(_) | Type::Union(_) | Type::Interface(_) => false,
            // Values do not contain themselves, so this ends.
            Type::Struct(id) => parts(self.model.item(*id)).all(|ty| self.has_default(ty)),
            _ => true,
        }
    }
}

/// The types of the members of a value type.
fn parts(item: &Item) -> Box<dyn Iterator<Item = &Type> + '_> {
    match &item.kind {
        ItemKind::Struct(fields) | ItemKind::Exception(fields) => {
            Box::new(fields.iter().map(|field| &field.ty))
        }
        ItemKind::Union(variants) => Box::new(variants.iter().filter_map(|v| v.ty.as_ref())),
        ItemKind::Const(..) | ItemKind::Enum(_) | ItemKind::Interface(_) => {
            Box::new(std::iter::empty())
        }
    }
}

/// The types of fields.
pub(crate) fn types_of(fields: &[Field]) -> Vec<&Type> {
    fields.iter().map(|field| &field.ty).collect()
}

/// A path from its text.
fn path(text: &str) -> TokenStream {
    let parts = text.split("::").enumerate().map(|(index, part)| {
        let part = match part {
            "" => None,
            // Words of a path, unlike names of items.
            "crate" | "super" | "self" => Some(Ident::new(part, Span::call_site())),
            name => Some(ident(name)),
        };
        let colons = (index > 0).then(|| quote!(::));
        quote!(#colons #part)
    });
    parts.collect()
}

/// True for documentation that says nothing.
pub(crate) fn is_blank(lines: &[String]) -> bool {
    lines.iter().all(|line| line.trim().is_empty())
}

/// Doc lines as attributes; without any, leave to have none.
pub(crate) fn docs(lines: &[String], deprecated: Option<&str>) -> TokenStream {
    let some = !is_blank(lines);
    let lines = lines.iter().filter(|_| some).map(|line| {
        let line = format!(" {line}");
        let line = line.trim_end();
        quote!(#[doc = #line])
    });
    let deprecated = deprecated.map(|why| quote!(#[deprecated(note = #why)]));
    quote!(#(#lines)* #deprecated)
}
