//! Emits the state of a persistent interface, and the hash by which records know its layout.

use std::collections::BTreeSet;

use partha_idl::model::{Field, ItemId, ItemKind, Model, Type};
use proc_macro2::TokenStream;
use quote::quote;

use crate::names::ident;
use crate::plain::{Leading, record, record_codec};
use crate::shape;
use crate::types::{Rust, types_of};

/// `struct State`, for the Rust module of the interface.
pub(crate) fn structure(rust: &Rust<'_>, id: ItemId) -> TokenStream {
    let interface = rust.model.interface(id);
    let name = ident("State");
    let (mut leading, mut definitions) = (Vec::new(), Vec::new());
    if let Some(base) = interface.base {
        let (field, ty) = (ident("base"), rust.part(base, &name));
        let doc = format!(" What `{}` keeps.", rust.model.item(base).name);
        definitions.push(quote!(#[doc = #doc] pub #field: #ty));
        leading.push(Leading { name: field, ty });
    }
    let doc = format!(" What an object of `{}` keeps.", rust.model.item(id).name);
    let line = rust.model.ancestry(id).map(|id| rust.model.interface(id));
    let types: Vec<_> = line
        .flat_map(|interface| types_of(&interface.state))
        .collect();
    let definition = record(rust, &name, &definitions, &interface.state, &types);
    let laid = shape::fields(leading.len(), &interface.state);
    let codec = record_codec(rust, &quote!(#name), &leading, &interface.state, &laid);
    quote! {
        #[doc = #doc]
        #definition
        #codec
    }
}

/// A hash of what lies where in a state record. Names do not count; the layouts of the structs
/// in it do.
pub(crate) fn hash(model: &Model, id: ItemId) -> u64 {
    let mut hash = Hash {
        model,
        value: FNV_OFFSET,
        seen: BTreeSet::new(),
    };
    for id in model.ancestry(id) {
        let interface = model.interface(id);
        hash.number(interface.base.map_or(0, |base| model.item(base).id));
        hash.fields(&interface.state);
    }
    hash.value
}

/// The 64-bit FNV-1a hash of bytes.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
    })
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

struct Hash<'a> {
    model: &'a Model,
    value: u64,
    seen: BTreeSet<ItemId>,
}

impl Hash<'_> {
    fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.value = (self.value ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        let mut fields: Vec<_> = fields.iter().collect();
        fields.sort_by_key(|field| field.ordinal);
        self.number(fields.len() as u64);
        fields.into_iter().for_each(|field| self.ty(&field.ty));
    }

    fn ty(&mut self, ty: &Type) {
        let (code, inner): (u64, Vec<&Type>) = match ty {
            Type::Bool => (1, vec![]),
            Type::I8 => (2, vec![]),
            Type::I16 => (3, vec![]),
            Type::I32 => (4, vec![]),
            Type::I64 => (5, vec![]),
            Type::U8 => (6, vec![]),
            Type::U16 => (7, vec![]),
            Type::U32 => (8, vec![]),
            Type::U64 => (9, vec![]),
            Type::F32 => (10, vec![]),
            Type::F64 => (11, vec![]),
            Type::String => (12, vec![]),
            Type::Bytes => (13, vec![]),
            Type::Uid => (14, vec![]),
            Type::Timestamp => (15, vec![]),
            Type::Duration => (16, vec![]),
            Type::List(element) => (17, vec![element]),
            Type::Map(key, value) => (18, vec![key, value]),
            Type::Option(inner) => (19, vec![inner]),
            Type::Struct(id) | Type::Enum(id) | Type::Union(id) | Type::Interface(id) => {
                return self.item(*id);
            }
        };
        self.number(code);
        inner.into_iter().for_each(|ty| self.ty(ty));
    }

    fn item(&mut self, id: ItemId) {
        let item = self.model.item(id);
        self.number(20);
        self.number(item.id);
        if !self.seen.insert(id) {
            return;
        }
        match &item.kind {
            ItemKind::Struct(fields) | ItemKind::Exception(fields) => self.fields(fields),
            ItemKind::Enum(values) => self.number(values.len() as u64),
            ItemKind::Union(variants) => {
                let mut variants: Vec<_> = variants.iter().collect();
                variants.sort_by_key(|variant| variant.ordinal);
                self.number(variants.len() as u64);
                for variant in variants {
                    match &variant.ty {
                        Some(ty) => self.ty(ty),
                        None => self.number(0),
                    }
                }
            }
            ItemKind::Const(..) | ItemKind::Interface(_) => {}
        }
    }
}
