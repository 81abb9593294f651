//! Emits the writing and reading of values, straight at their places in a message.
//!
//! Writing emits statements; reading emits one expression, so that it fits into a struct literal.
//! An error on the way in gets the member's name on its way out. Nothing is looked up at run
//! time but the sizes of named structs, which another file may know better.

use partha_idl::model::{Model, Type};
use proc_macro2::{Ident, Literal, TokenStream};
use quote::{format_ident, quote};

use crate::layout::{Layout, Place};
use crate::lower;
use crate::names::Scope;
use crate::shape::{self, Laid};
use crate::types::Rust;

/// How emitted code reaches a value.
#[derive(Clone)]
pub(crate) struct Access {
    /// For method calls and iteration.
    receiver: TokenStream,
    /// A reference to it.
    by_ref: TokenStream,
    /// The value, if it is `Copy`.
    by_value: TokenStream,
    /// What an `Option` is taken apart by.
    scrutinee: TokenStream,
    /// What comes out of taking it apart is a value, not a reference.
    parts_owned: bool,
}

impl Access {
    /// A member of `self`.
    pub(crate) fn field(name: &Ident) -> Self {
        let field = quote!(self.#name);
        Self {
            receiver: field.clone(),
            by_ref: quote!(&#field),
            by_value: field.clone(),
            scrutinee: quote!(&#field),
            parts_owned: false,
        }
    }

    /// A variable that is a reference.
    pub(crate) fn reference(name: &Ident) -> Self {
        Self {
            receiver: quote!(#name),
            by_ref: quote!(#name),
            by_value: quote!(*#name),
            scrutinee: quote!(#name),
            parts_owned: false,
        }
    }

    /// A variable that is a value.
    pub(crate) fn value(name: &Ident) -> Self {
        let by_ref = quote!(&#name);
        let scrutinee = by_ref.clone();
        Self {
            by_ref,
            scrutinee,
            parts_owned: false,
            ..Self::parameter(name)
        }
    }

    /// A parameter of a stub, of the type that [`Rust::parameter`] says.
    pub(crate) fn of_parameter(name: &Ident, ty: &Type) -> Self {
        match ty {
            Type::Bytes => Self::value(name),
            Type::Option(inner) if matches!(**inner, Type::Bytes) => Self::value(name),
            _ => Self::parameter(name),
        }
    }

    fn parameter(name: &Ident) -> Self {
        Self {
            receiver: quote!(#name),
            by_ref: quote!(#name),
            by_value: quote!(#name),
            scrutinee: quote!(#name),
            parts_owned: true,
        }
    }

    fn part(&self, name: &Ident) -> Self {
        if self.parts_owned {
            Self::parameter(name)
        } else {
            Self::reference(name)
        }
    }
}

/// Names of the variables in emitted code that writes.
pub(crate) struct Writing<'a> {
    rust: Rust<'a>,
    /// The writer.
    pub(crate) w: Ident,
    /// The struct whose members are written.
    pub(crate) s: Ident,
    at: Ident,
    list: Ident,
    index: Ident,
    key: Ident,
    value: Ident,
}

impl<'a> Writing<'a> {
    /// Names that differ from those in `scope`.
    pub(crate) fn new(rust: Rust<'a>, scope: &mut Scope) -> Self {
        Self {
            rust,
            w: scope.variable("w"),
            s: scope.variable("s"),
            at: scope.variable("at"),
            list: scope.variable("list"),
            index: scope.variable("index"),
            key: scope.variable("key"),
            value: scope.variable("value"),
        }
    }

    /// Writes a member of the struct `s`.
    pub(crate) fn member(&self, ty: &Type, place: Place, access: &Access) -> TokenStream {
        self.member_of(&self.s, ty, place, access)
    }

    fn member_of(&self, s: &Ident, ty: &Type, place: Place, access: &Access) -> TokenStream {
        let Type::Option(inner) = ty else {
            return self.plain(s, ty, place.offset, access);
        };
        let (w, value, scrutinee) = (&self.w, &self.value, &access.scrutinee);
        let discriminant = place.discriminant.map(number);
        let discriminant = discriminant.map(|offset| quote!(#w.set_u16(#s, #offset, 1);));
        let write = self.plain(s, inner, place.offset, &access.part(value));
        quote! {
            if let Some(#value) = #scrutinee {
                #discriminant
                #write
            }
        }
    }

    fn plain(&self, s: &Ident, ty: &Type, offset: u32, access: &Access) -> TokenStream {
        let w = &self.w;
        if let Some((kind, value)) = self.scalar(ty, access) {
            let (set, offset) = (format_ident!("set_{kind}"), number(offset));
            return quote!(#w.#set(#s, #offset, #value););
        }
        let offset = number(offset);
        self.pointer(ty, &quote!(#s.slot(#offset)), access)
    }

    /// The setter of a scalar, and what it sets.
    fn scalar(&self, ty: &Type, access: &Access) -> Option<(&'static str, TokenStream)> {
        let abi = self.rust.abi();
        let Access {
            receiver, by_value, ..
        } = access;
        Some(match ty {
            Type::Enum(_) => ("u16", quote!(#abi::Enum::ordinal(#by_value))),
            Type::Timestamp => ("i64", quote!(#receiver.micros())),
            Type::Duration => ("i64", quote!(#abi::write_duration(#by_value))),
            ty => (scalar_kind(ty)?, by_value.clone()),
        })
    }

    /// Writes what a pointer leads to.
    fn pointer(&self, ty: &Type, slot: &TokenStream, access: &Access) -> TokenStream {
        let (abi, w) = (self.rust.abi(), &self.w);
        let Access {
            by_ref, by_value, ..
        } = access;
        match ty {
            Type::String => quote!(#w.text(#slot, #by_ref);),
            Type::Bytes => quote!(#w.bytes(#slot, #by_ref);),
            Type::Uid => quote!(#abi::write_uid(#w, #slot, #by_value);),
            Type::Struct(_) | Type::Union(_) => {
                let at = &self.at;
                let (data, pointers) = self.sizes(ty);
                quote! {
                    let #at = #w.structure(#slot, #data, #pointers);
                    #abi::Struct::write(#by_ref, #w, #at);
                }
            }
            Type::Interface(id) if self.rust.model.interface(*id).persistent => {
                quote!(#abi::write_ref(#w, #slot, #abi::Stub::as_ref(#by_ref));)
            }
            Type::Interface(_) => {
                quote!(#abi::write_capability(#w, #slot, #abi::Transient::as_capability(#by_ref));)
            }
            Type::List(element) => self.list(element, slot, access),
            Type::Map(key, value) => self.map(key, value, slot, access),
            other => unreachable!("{other:?} is no pointer"),
        }
    }

    fn list(&self, element: &Type, slot: &TokenStream, access: &Access) -> TokenStream {
        let Self {
            w,
            list,
            index,
            value,
            at,
            ..
        } = self;
        let receiver = &access.receiver;
        let element_access = Access::reference(value);
        if let Some((kind, set)) = self.scalar(element, &element_access) {
            let write = format_ident!("{kind}s");
            if scalar_kind(element).is_some() {
                return quote!(#w.#write(#slot, #receiver.iter().copied()););
            }
            return quote!(#w.#write(#slot, #receiver.iter().map(|#value| #set)););
        }
        let (make, write) = if lies_inline(self.rust.model, element) {
            let (data, pointers) = self.sizes(element);
            let put = self.put(element, &element_access);
            let write = quote! {
                let #at = #list.structure(#index);
                #put
            };
            (
                quote!(#w.structures(#slot, #receiver.len(), #data, #pointers)),
                write,
            )
        } else {
            let write = self.pointer(element, &quote!(#list.slot(#index)), &element_access);
            (quote!(#w.pointers(#slot, #receiver.len())), write)
        };
        quote! {{
            let #list = #make;
            for (#index, #value) in #receiver.iter().enumerate() {
                #write
            }
        }}
    }

    fn map(&self, k: &Type, v: &Type, slot: &TokenStream, access: &Access) -> TokenStream {
        let Self {
            w,
            list,
            index,
            value,
            at,
            key,
            ..
        } = self;
        let receiver = &access.receiver;
        let entry = lower::entry(k, v);
        let (data, pointers) = literal_sizes(&entry.layout);
        let write_key = self.member_of(at, k, entry.place(0), &Access::reference(key));
        let value_access = Access::reference(value);
        let write_value = if matches!(v, Type::Option(_)) {
            let (data, pointers) = self.sizes(v);
            let offset = number(entry.place(1).offset);
            let put = self.put(v, &value_access);
            quote! {
                let #at = #w.structure(#at.slot(#offset), #data, #pointers);
                #put
            }
        } else {
            self.member_of(at, v, entry.place(1), &value_access)
        };
        quote! {{
            let #list = #w.structures(#slot, #receiver.len(), #data, #pointers);
            for (#index, (#key, #value)) in #receiver.iter().enumerate() {
                let #at = #list.structure(#index);
                #write_key
                #write_value
            }
        }}
    }

    /// Writes an element that lies inline, into the struct `at`.
    fn put(&self, ty: &Type, access: &Access) -> TokenStream {
        let (abi, w, at, value) = (self.rust.abi(), &self.w, &self.at, &self.value);
        let by_ref = &access.by_ref;
        match ty {
            Type::Uid => quote! {
                #w.set_u64(#at, 0, #value.node.0);
                #w.set_u64(#at, 1, #value.local);
            },
            Type::Interface(_) => quote! {
                let #value = #abi::Stub::as_ref(#by_ref);
                #w.set_u64(#at, 0, #value.class().0);
                #abi::write_uid(#w, #at.slot(0), #value.uid());
            },
            Type::Option(_) => self.member_of(at, ty, shape::types(&[ty]).place(0), access),
            _ => quote!(#abi::Struct::write(#by_ref, #w, #at);),
        }
    }

    fn sizes(&self, ty: &Type) -> (TokenStream, TokenStream) {
        match ty {
            Type::Uid => (quote!(2), quote!(0)),
            Type::Interface(_) => (quote!(1), quote!(1)),
            Type::Option(_) => literal_sizes(&shape::types(&[ty]).layout),
            ty => struct_sizes(&self.rust, &self.rust.owned(ty)),
        }
    }
}

/// The sizes of a type with members, as its own file knows them.
pub(crate) fn struct_sizes(rust: &Rust<'_>, ty: &TokenStream) -> (TokenStream, TokenStream) {
    let abi = rust.abi();
    (
        quote!(<#ty as #abi::Struct>::DATA),
        quote!(<#ty as #abi::Struct>::POINTERS),
    )
}

/// The sizes of a struct that has no type in Rust.
pub(crate) fn literal_sizes(layout: &Layout) -> (TokenStream, TokenStream) {
    let (data, pointers) = (number(layout.data_words), number(layout.pointers));
    (quote!(#data), quote!(#pointers))
}

/// A number as a literal whose type follows from its use.
pub(crate) fn number(value: impl Into<u64>) -> Literal {
    Literal::u64_unsuffixed(value.into())
}

/// The wire crate's word for a scalar that needs no conversion.
fn scalar_kind(ty: &Type) -> Option<&'static str> {
    Some(match ty {
        Type::Bool => "bool",
        Type::I8 => "i8",
        Type::I16 => "i16",
        Type::I32 => "i32",
        Type::I64 => "i64",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        _ => return None,
    })
}

/// True for what stands in a list as a struct, not behind a pointer.
fn lies_inline(model: &Model, ty: &Type) -> bool {
    match ty {
        Type::Uid | Type::Struct(_) | Type::Union(_) | Type::Option(_) => true,
        Type::Interface(id) => model.interface(*id).persistent,
        _ => false,
    }
}

/// Emits expressions that read.
pub(crate) struct Reading<'a> {
    rust: Rust<'a>,
}

/// An expression, of the value itself or of a `Result` with a decode error.
enum Read {
    Sure(TokenStream),
    Fallible(TokenStream),
}

impl Read {
    fn result(self) -> TokenStream {
        match self {
            Self::Sure(value) => quote!(Ok(#value)),
            Self::Fallible(result) => result,
        }
    }

    fn map(self, function: &TokenStream) -> TokenStream {
        match self {
            Self::Sure(value) => quote!(Ok(#function(#value))),
            Self::Fallible(result) => quote!(#result.map(#function)),
        }
    }
}

impl<'a> Reading<'a> {
    pub(crate) fn new(rust: Rust<'a>) -> Self {
        Self { rust }
    }

    /// An expression of the member's value that leaves with an error naming `name`.
    pub(crate) fn member(
        &self,
        ty: &Type,
        place: Place,
        r: &TokenStream,
        name: &str,
    ) -> TokenStream {
        match self.read(ty, place, r) {
            Read::Sure(value) => value,
            Read::Fallible(result) => quote!(#result.map_err(|e| e.at(#name))?),
        }
    }

    /// An expression of a `Result` with the member's value; an error names `name`.
    pub(crate) fn result(
        &self,
        ty: &Type,
        place: Place,
        r: &TokenStream,
        name: &str,
    ) -> TokenStream {
        match self.read(ty, place, r) {
            Read::Sure(value) => quote!(Ok(#value)),
            Read::Fallible(result) => quote!(#result.map_err(|e| e.at(#name))),
        }
    }

    /// The member's value, or a `Result` with it that names no member yet.
    fn read(&self, ty: &Type, place: Place, r: &TokenStream) -> Read {
        let Type::Option(inner) = ty else {
            return self.plain(ty, place.offset, r);
        };
        let value = self.plain(inner, place.offset, r).map(&quote!(Some));
        let Some(discriminant) = place.discriminant else {
            let offset = number(place.offset);
            return Read::Fallible(quote! {
                if #r.pointer(#offset).is_null() { Ok(None) } else { #value }
            });
        };
        let (abi, discriminant) = (self.rust.abi(), number(discriminant));
        Read::Fallible(quote! {
            match #r.u16(#discriminant) {
                0 => Ok(None),
                1 => #value,
                n => Err(#abi::DecodeError::enumerant("option", n)),
            }
        })
    }

    fn plain(&self, ty: &Type, offset: u32, r: &TokenStream) -> Read {
        let offset = number(offset);
        if let Some(kind) = scalar_kind(ty) {
            let kind = format_ident!("{kind}");
            return Read::Sure(quote!(#r.#kind(#offset)));
        }
        let (abi, runtime) = (self.rust.abi(), self.rust.runtime());
        match ty {
            Type::Enum(_) => Read::Fallible(quote!(#abi::Enum::from_ordinal(#r.u16(#offset)))),
            Type::Timestamp => {
                Read::Sure(quote!(#runtime::Timestamp::from_micros(#r.i64(#offset))))
            }
            Type::Duration => Read::Fallible(quote!(#abi::read_duration(#r.i64(#offset)))),
            ty => Read::Fallible(self.pointer(ty, &quote!(#r.pointer(#offset)))),
        }
    }

    /// An expression of a `Result` with what a pointer leads to.
    fn pointer(&self, ty: &Type, p: &TokenStream) -> TokenStream {
        let abi = self.rust.abi();
        match ty {
            Type::String => quote!(#p.text().map(str::to_owned)),
            Type::Bytes => quote!(#p.bytes()),
            Type::Uid => quote!(#abi::read_uid(#p)),
            Type::Struct(_) | Type::Union(_) => {
                quote!(#p.structure().and_then(#abi::Struct::read))
            }
            Type::Interface(id) => {
                let (read, make) = if self.rust.model.interface(*id).persistent {
                    (quote!(read_ref), quote!(Stub::from_ref))
                } else {
                    (quote!(read_capability), quote!(Transient::from_capability))
                };
                quote! {
                    #abi::#read(#p)
                        .and_then(|found| found.ok_or_else(#abi::DecodeError::missing))
                        .map(#abi::#make)
                }
            }
            Type::List(element) => self.list(element, p),
            Type::Map(key, value) => self.map(key, value, p),
            other => unreachable!("{other:?} is no pointer"),
        }
    }

    fn list(&self, element: &Type, p: &TokenStream) -> TokenStream {
        if let Some(kind) = scalar_kind(element) {
            let read = format_ident!("{kind}s");
            return quote!(#p.#read());
        }
        let (abi, runtime) = (self.rust.abi(), self.rust.runtime());
        match element {
            Type::Enum(_) => quote! {
                #p.u16s().and_then(|list| list.into_iter().map(#abi::Enum::from_ordinal).collect())
            },
            Type::Timestamp => quote! {
                #p.i64s().map(|list| {
                    list.into_iter().map(#runtime::Timestamp::from_micros).collect()
                })
            },
            Type::Duration => quote! {
                #p.i64s().and_then(|list| list.into_iter().map(#abi::read_duration).collect())
            },
            Type::Struct(_) | Type::Union(_) => quote! {
                #p.structures()
                    .and_then(|list| list.iter_structures().map(#abi::Struct::read).collect())
            },
            element if lies_inline(self.rust.model, element) => {
                let read = self.inline(element, &quote!(r));
                quote! {
                    #p.structures()
                        .and_then(|list| list.iter_structures().map(|r| #read).collect())
                }
            }
            element => {
                let read = self.pointer(element, &quote!(p));
                quote! {
                    #p.pointers().and_then(|list| list.iter_pointers().map(|p| #read).collect())
                }
            }
        }
    }

    fn map(&self, k: &Type, v: &Type, p: &TokenStream) -> TokenStream {
        let abi = self.rust.abi();
        let entry = lower::entry(k, v);
        let r = quote!(r);
        let key = self.member(k, entry.place(0), &r, "key");
        let value = if matches!(v, Type::Option(_)) {
            let offset = number(entry.place(1).offset);
            let read = self.inline(v, &r);
            quote! {
                #r.pointer(#offset)
                    .structure()
                    .and_then(|r| #read)
                    .map_err(|e| e.at("value"))?
            }
        } else {
            self.member(v, entry.place(1), &r, "value")
        };
        quote! {
            #p.structures().and_then(|list| {
                let mut map = ::std::collections::BTreeMap::new();
                for r in list.iter_structures() {
                    if map.insert(#key, #value).is_some() {
                        return Err(#abi::DecodeError::invalid("each key once"));
                    }
                }
                Ok(map)
            })
        }
    }

    /// An expression of a `Result` with an element that lies inline, in the struct `r`.
    fn inline(&self, ty: &Type, r: &TokenStream) -> TokenStream {
        let (abi, runtime) = (self.rust.abi(), self.rust.runtime());
        match ty {
            Type::Uid => quote! {
                Ok(#runtime::Uid { node: #runtime::NodeId(#r.u64(0)), local: #r.u64(1) })
            },
            Type::Interface(_) => quote! {
                #abi::read_uid(#r.pointer(0)).map(|uid| {
                    #abi::Stub::from_ref(#runtime::Ref::new(uid, #runtime::ClassId(#r.u64(0))))
                })
            },
            ty => self.read(ty, shape::types(&[ty]).place(0), r).result(),
        }
    }
}

/// `const DATA` and `const POINTERS` of a struct.
pub(crate) fn size_consts(laid: &Laid) -> TokenStream {
    let (data, pointers) = literal_sizes(&laid.layout);
    quote! {
        const DATA: u16 = #data;
        const POINTERS: u16 = #pointers;
    }
}
