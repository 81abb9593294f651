//! Emits constants, enums, structs, unions and exceptions: plain owned Rust types.

use partha_idl::model::{Enumerator, Field, Item, ItemId, Type, Value, Variant};
use proc_macro2::{Literal, TokenStream};
use quote::quote;

use crate::codec::{Access, Reading, Writing, number, size_consts};
use crate::names::{Scope, ident, variant};
use crate::shape::{self, Laid};
use crate::types::{Rust, docs, is_blank, types_of};

/// Says that an item or one of its members has no documentation.
pub(crate) fn undocumented<'a>(
    item: &'a Item,
    members: impl IntoIterator<Item = &'a Vec<String>>,
) -> Option<TokenStream> {
    let mut all = members.into_iter().chain([&item.docs]);
    let allow = quote!(#[allow(missing_docs, reason = "not documented in the IDL")]);
    all.any(|docs| is_blank(docs)).then_some(allow)
}

/// For codecs whose length is that of what they code.
fn long(members: usize) -> Option<TokenStream> {
    const MEMBERS: usize = 3;
    let reason = "one part for each member";
    (members > MEMBERS).then(|| quote!(#[allow(clippy::too_many_lines, reason = #reason)]))
}

/// `pub const`
pub(crate) fn constant(rust: &Rust<'_>, item: &Item, ty: &Type, value: &Value) -> TokenStream {
    let name = ident(&item.name);
    let docs = docs(&item.docs, item.deprecated.as_deref());
    let allow = undocumented(item, []);
    let runtime = rust.runtime();
    let item_type = ty;
    let (ty, value) = match (ty, value) {
        (Type::String, Value::Text(text)) => (quote!(&str), quote!(#text)),
        (Type::Timestamp, Value::Int(micros)) => {
            let micros = integer(*micros);
            (
                rust.owned(ty),
                quote!(#runtime::Timestamp::from_micros(#micros)),
            )
        }
        (Type::Duration, Value::Int(micros)) => {
            let micros = integer(*micros);
            (
                rust.owned(ty),
                quote!(::std::time::Duration::from_micros(#micros)),
            )
        }
        (ty, value) => (rust.owned(ty), literal(ty, value)),
    };
    let float = matches!(item_type, Type::F32 | Type::F64);
    let float = float.then(|| quote!(#[allow(clippy::all, reason = "as the IDL states it")]));
    quote!(#docs #allow #float pub const #name: #ty = #value;)
}

fn integer(value: i128) -> TokenStream {
    let digits = Literal::u128_unsuffixed(value.unsigned_abs());
    if value < 0 {
        quote!(-#digits)
    } else {
        quote!(#digits)
    }
}

fn literal(ty: &Type, value: &Value) -> TokenStream {
    match value {
        Value::Bool(value) => quote!(#value),
        Value::Text(value) => quote!(#value),
        Value::Int(value) if matches!(ty, Type::F32 | Type::F64) => {
            literal(ty, &Value::Float(*value as f64))
        }
        Value::Int(value) => integer(*value),
        Value::Float(value) => {
            let digits = match ty {
                Type::F32 => Literal::f32_unsuffixed(value.abs() as f32),
                _ => Literal::f64_unsuffixed(value.abs()),
            };
            if value.is_sign_negative() {
                quote!(-#digits)
            } else {
                quote!(#digits)
            }
        }
    }
}

/// A struct or an exception.
pub(crate) fn structure(rust: Rust<'_>, id: ItemId, fields: &[Field], raised: bool) -> TokenStream {
    let rust = rust.of(id);
    let item = rust.model.item(id);
    let head = docs(&item.docs, item.deprecated.as_deref());
    let allow = undocumented(item, fields.iter().map(|field| &field.docs));
    let name = ident(&item.name);
    let definition = record(&rust, &name, &[], fields, &types_of(fields));
    let error = raised.then(|| exception(&rust, item, fields));
    let laid = shape::fields(0, fields);
    let codec = record_codec(&rust, &quote!(#name), &[], fields, &laid);
    quote!(#head #allow #definition #codec #error)
}

/// The definition of a struct with named fields; `leading` ones come as they are. `types` is all
/// that it consists of, which decides on its derives.
pub(crate) fn record(
    rust: &Rust<'_>,
    name: &proc_macro2::Ident,
    leading: &[TokenStream],
    fields: &[Field],
    types: &[&Type],
) -> TokenStream {
    let derives = rust.derives(types, true);
    let members = fields.iter().map(|field| {
        let docs = docs(&field.docs, field.deprecated.as_deref());
        let (name, ty) = (ident(&field.name), rust.owned(&field.ty));
        quote!(#docs pub #name: #ty)
    });
    quote! {
        #derives
        pub struct #name {
            #(#leading,)*
            #(#members,)*
        }
    }
}

/// A leading member of a record: its name and type. It is a struct.
pub(crate) struct Leading {
    pub(crate) name: proc_macro2::Ident,
    pub(crate) ty: TokenStream,
}

/// `impl Struct` of a struct with named fields.
pub(crate) fn record_codec(
    rust: &Rust<'_>,
    ty: &TokenStream,
    leading: &[Leading],
    fields: &[Field],
    laid: &Laid,
) -> TokenStream {
    let abi = rust.abi();
    let result = rust.prelude("Result");
    let writing = Writing::new(*rust, &mut Scope::default());
    let reading = Reading::new(*rust);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for (index, Leading { name, ty }) in leading.iter().enumerate() {
        let slot = number(index as u64);
        let text = name.to_string();
        writes.push(quote! {
            let at = w.structure(
                s.slot(#slot),
                <#ty as #abi::Struct>::DATA,
                <#ty as #abi::Struct>::POINTERS,
            );
            #abi::Struct::write(&self.#name, w, at);
        });
        let read = quote!(r.pointer(#slot).structure().and_then(#abi::Struct::read));
        reads.push(quote!(#name: #read.map_err(|e| e.at(#text))?));
    }
    for (index, field) in fields.iter().enumerate() {
        let place = laid.place(leading.len() + index);
        let name = ident(&field.name);
        writes.push(writing.member(&field.ty, place, &Access::field(&name)));
        let read = reading.member(&field.ty, place, &quote!(r), &field.name);
        reads.push(quote!(#name: #read));
    }
    let (w, s, r) = match writes.is_empty() {
        true => (quote!(_w), quote!(_s), quote!(_r)),
        false => (quote!(w), quote!(s), quote!(r)),
    };
    let sizes = size_consts(laid);
    let long = long(fields.len());
    quote! {
        #long
        impl #abi::Struct for #ty {
            #sizes

            fn write(&self, #w: &mut #abi::Writer, #s: #abi::StructAt) {
                #(#writes)*
            }

            fn read(#r: #abi::StructReader<'_>) -> #result<Self, #abi::DecodeError> {
                Ok(Self { #(#reads,)* })
            }
        }
    }
}

/// What makes a struct an error.
fn exception(rust: &Rust<'_>, item: &Item, fields: &[Field]) -> TokenStream {
    let name = ident(&item.name);
    let mut text = format!("{}.{}", rust.model.module(item.module).name, item.name);
    for (index, field) in fields.iter().enumerate() {
        let joint = if index == 0 { ": " } else { ", " };
        text += &format!("{joint}{} {{:?}}", field.name.replace('_', " "));
    }
    let fields = fields.iter().map(|field| ident(&field.name));
    quote! {
        impl ::std::fmt::Display for #name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, #text #(, self.#fields)*)
            }
        }

        impl ::std::error::Error for #name {}
    }
}

/// An enum.
pub(crate) fn enumeration(rust: &Rust<'_>, item: &Item, values: &[Enumerator]) -> TokenStream {
    let abi = rust.abi();
    let result = rust.prelude("Result");
    let head = docs(&item.docs, item.deprecated.as_deref());
    let allow = undocumented(item, values.iter().map(|value| &value.docs));
    let name = ident(&item.name);
    let full = format!("{}.{}", rust.model.module(item.module).name, item.name);
    let definitions = values.iter().map(|value| {
        let docs = docs(&value.docs, value.deprecated.as_deref());
        let name = ident(&value.name);
        quote!(#docs #name)
    });
    let names: Vec<_> = values.iter().map(|value| ident(&value.name)).collect();
    let ordinals: Vec<_> = values.iter().map(|value| number(value.ordinal)).collect();
    quote! {
        #head #allow
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum #name {
            #(#definitions,)*
        }

        impl #abi::Enum for #name {
            fn ordinal(self) -> u16 {
                match self {
                    #(Self::#names => #ordinals,)*
                }
            }

            fn from_ordinal(ordinal: u16) -> #result<Self, #abi::DecodeError> {
                match ordinal {
                    #(#ordinals => Ok(Self::#names),)*
                    other => Err(#abi::DecodeError::enumerant(#full, other)),
                }
            }
        }
    }
}

fn inner(ty: &Type) -> &Type {
    if let Type::Option(inner) = ty {
        inner
    } else {
        ty
    }
}

/// A union.
pub(crate) fn union(rust: Rust<'_>, id: ItemId, variants: &[Variant]) -> TokenStream {
    let rust = rust.of(id);
    let item = rust.model.item(id);
    let head = docs(&item.docs, item.deprecated.as_deref());
    let allow = undocumented(item, variants.iter().map(|case| &case.docs));
    let name = ident(&item.name);
    let types: Vec<_> = variants
        .iter()
        .filter_map(|variant| variant.ty.as_ref())
        .collect();
    let derives = rust.derives(&types, false);
    let definitions = variants.iter().map(|case| {
        let docs = docs(&case.docs, case.deprecated.as_deref());
        let name = variant(&case.name);
        let ty = case
            .ty
            .as_ref()
            .map(|ty| rust.owned(ty))
            .map(|ty| quote!((#ty)));
        quote!(#docs #name #ty)
    });
    let codec = union_codec(&rust, item, variants);
    let large = types
        .iter()
        .any(|ty| matches!(inner(ty), Type::Struct(_) | Type::Union(_)));
    let reason = "cases are as large as the IDL has them";
    let large = large.then(|| quote!(#[allow(clippy::large_enum_variant, reason = #reason)]));
    quote! {
        #head #allow #large #derives
        pub enum #name {
            #(#definitions,)*
        }

        #codec
    }
}

/// `impl Struct` of a union.
fn union_codec(rust: &Rust<'_>, item: &Item, variants: &[Variant]) -> TokenStream {
    let abi = rust.abi();
    let result = rust.prelude("Result");
    let name = ident(&item.name);
    let full = format!("{}.{}", rust.model.module(item.module).name, item.name);
    let laid = shape::variants(variants);
    let at = laid.layout.discriminant.map(number);
    let writing = Writing::new(*rust, &mut Scope::default());
    let reading = Reading::new(*rust);
    let value = ident("value");
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for (index, case) in variants.iter().enumerate() {
        let (name, ordinal) = (variant(&case.name), number(case.ordinal));
        let set = quote!(w.set_u16(s, #at, #ordinal););
        let Some(ty) = &case.ty else {
            writes.push(quote!(Self::#name => { #set }));
            reads.push(quote!(#ordinal => Ok(Self::#name)));
            continue;
        };
        let write = writing.member(ty, laid.place(index), &Access::reference(&value));
        writes.push(quote!(Self::#name(value) => { #set #write }));
        let read = reading.member(ty, laid.place(index), &quote!(r), &case.name);
        reads.push(quote!(#ordinal => Ok(Self::#name(#read))));
    }
    let sizes = size_consts(&laid);
    let long = long(variants.len());
    quote! {
        #long
        impl #abi::Struct for #name {
            #sizes

            fn write(&self, w: &mut #abi::Writer, s: #abi::StructAt) {
                match self {
                    #(#writes)*
                }
            }

            fn read(r: #abi::StructReader<'_>) -> #result<Self, #abi::DecodeError> {
                match r.u16(#at) {
                    #(#reads,)*
                    other => Err(#abi::DecodeError::enumerant(#full, other)),
                }
            }
        }
    }
}
