//! Emits the error enum of a method that raises exceptions.

use partha_idl::model::{Item, ItemId, Method};
use proc_macro2::{Ident, TokenStream};
use quote::quote;

use crate::codec::{literal_sizes, number, struct_sizes};
use crate::names::{self, ident, upper_camel};
use crate::shape;
use crate::types::Rust;

/// `enum WithdrawError`, for the Rust module of the interface.
pub(crate) fn enumeration(rust: &Rust<'_>, method: &Method) -> TokenStream {
    let runtime = rust.runtime();
    let name = names::error_of(&method.name);
    let doc = format!(" Why `{}` did not return normally.", method.name);
    let cases = cases(rust, method);
    let (names, types): (Vec<_>, Vec<_>) =
        cases.iter().map(|Case { name, ty, .. }| (name, ty)).unzip();
    let case_docs = cases.iter().map(|case| &case.doc);
    let from = rust.prelude("From");
    let option = rust.prelude("Option");
    let codec = codec(rust, &name, method, &cases);
    quote! {
        #[doc = #doc]
        #[derive(Clone, Debug, PartialEq)]
        pub enum #name {
            #(#[doc = #case_docs] #names(#types),)*
            /// Anything that the interface does not speak of.
            System(#runtime::SystemError),
        }

        #codec

        impl ::std::fmt::Display for #name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                match self {
                    #(Self::#names(error) => ::std::fmt::Display::fmt(error, f),)*
                    Self::System(error) => ::std::fmt::Display::fmt(error, f),
                }
            }
        }

        impl ::std::error::Error for #name {
            fn source(&self) -> #option<&(dyn ::std::error::Error + 'static)> {
                match self {
                    #(Self::#names(error) => ::std::error::Error::source(error),)*
                    Self::System(error) => ::std::error::Error::source(error),
                }
            }
        }

        #(
            impl #from<#types> for #name {
                fn from(error: #types) -> Self {
                    Self::#names(error)
                }
            }
        )*

        impl #from<#runtime::SystemError> for #name {
            fn from(error: #runtime::SystemError) -> Self {
                Self::System(error)
            }
        }
    }
}

struct Case {
    name: Ident,
    ty: TokenStream,
    doc: String,
}

fn cases(rust: &Rust<'_>, method: &Method) -> Vec<Case> {
    let items = || method.raises.iter().map(|id| rust.model.item(*id));
    let names = names::exceptions(items(), "System", upper_camel_kept);
    let case = |((id, item), name): ((&ItemId, &Item), String)| Case {
        name: ident(&name),
        ty: rust.item(*id),
        doc: format!(
            " The exception `{}.{}`.",
            rust.model.module(item.module).name,
            item.name
        ),
    };
    method
        .raises
        .iter()
        .zip(items())
        .zip(names)
        .map(case)
        .collect()
}

/// Items are UpperCamelCase as written; `IOError` stays what it is.
fn upper_camel_kept(name: &str) -> String {
    if name.contains('_') {
        upper_camel(name)
    } else {
        name.to_owned()
    }
}

/// How the `raised` union of the method lies in a message. Derived classes use it too.
fn codec(rust: &Rust<'_>, name: &Ident, method: &Method, cases: &[Case]) -> TokenStream {
    let abi = rust.abi();
    let result = rust.prelude("Result");
    let laid = shape::raised(cases.len());
    let (data, pointers) = literal_sizes(&laid.layout);
    let at = number(
        laid.layout
            .discriminant
            .expect("a union has a discriminant"),
    );
    let of = format!("the exceptions of {}", method.name);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for (index, Case { name, ty, .. }) in cases.iter().enumerate() {
        let (ordinal, slot) = (
            number(index as u64 + 1),
            number(laid.place(index + 1).offset),
        );
        let (data, pointers) = struct_sizes(rust, ty);
        writes.push(quote! {
            Self::#name(error) => {
                w.set_u16(raised, #at, #ordinal);
                let at = w.structure(raised.slot(#slot), #data, #pointers);
                #abi::Struct::write(error, w, at);
            }
        });
        reads.push(quote! {
            #ordinal => r.pointer(#slot).structure().and_then(#abi::Struct::read).map(Self::#name)
        });
    }
    quote! {
        impl #name {
            #[doc(hidden)]
            pub fn write(&self, w: &mut #abi::Writer, slot: #abi::Slot) {
                let raised = w.structure(slot, #data, #pointers);
                match self {
                    #(#writes)*
                    Self::System(_) => {}
                }
            }

            #[doc(hidden)]
            pub fn read(r: #abi::StructReader<'_>) -> #result<Self, #abi::DecodeError> {
                match r.u16(#at) {
                    #(#reads,)*
                    other => Err(#abi::DecodeError::enumerant(#of, other)),
                }
            }
        }
    }
}
