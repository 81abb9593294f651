//! Emits client stubs: what callers hold and call.
//!
//! A stub is a reference (of a persistent interface) or a capability (of a transient one) with
//! the methods of the interface and of its bases. Parameters are borrowed, byte strings are handed
//! over, results are owned; no message is held over an await, so the futures are `Send`.

use partha_idl::model::{Field, Interface, ItemId, Method, Model, Type};
use proc_macro2::{Ident, TokenStream};
use quote::quote;

use crate::codec::{Access, Reading, Writing, literal_sizes, number};
use crate::names::{self, Scope, ident};
use crate::plain::undocumented;
use crate::shape::{self, Laid};
use crate::types::{Rust, docs, is_blank};

/// A method of an interface or of one of its bases.
pub(crate) struct Operation<'a> {
    /// The interface that declares it.
    pub(crate) declared: ItemId,
    /// What it is.
    pub(crate) method: &'a Method,
}

/// All methods of an interface: those of its bases first, the base-most foremost.
pub(crate) fn operations(model: &Model, id: ItemId) -> Vec<Operation<'_>> {
    let mut line: Vec<_> = model.ancestry(id).collect();
    line.reverse();
    let own = |declared: ItemId| {
        let methods = model.interface(declared).methods.iter();
        methods.map(move |method| Operation { declared, method })
    };
    line.into_iter().flat_map(own).collect()
}

/// The stub of an interface.
pub(crate) fn stub(rust: Rust<'_>, id: ItemId) -> TokenStream {
    let item = rust.model.item(id);
    let name = ident(&item.name);
    let interface = rust.model.interface(id);
    let head = docs(&item.docs, item.deprecated.as_deref());
    let allow = undocumented(item, []);
    let own = rust.of(id);
    let place = Place::new(&own, id);
    let Place {
        runtime,
        abi,
        field,
        held,
        module,
        ..
    } = &place;
    let operations = operations(rust.model, id);
    let methods = operations.iter().enumerate();
    let methods = methods.map(|(index, operation)| place.method(index, operation));
    let makers = if interface.persistent {
        place.persistent()
    } else {
        place.transient()
    };
    let derives = interface
        .persistent
        .then(|| quote!(, PartialOrd, Ord, Hash));
    let Role { role, from, access } = role(interface);
    let bases = bases(&rust, id, field);
    quote! {
        #head #allow
        #[derive(Clone, Debug, PartialEq, Eq #derives)]
        pub struct #name {
            #field: #runtime::#held,
        }

        #[allow(
            clippy::all,
            clippy::too_many_lines,
            missing_docs,
            reason = "generated from the IDL"
        )]
        impl #name {
            /// The class: the Cap'n Proto interface id.
            pub const CLASS: #runtime::ClassId = #module::CLASS;

            #makers
            #(#methods)*
        }

        impl #abi::#role for #name {
            const INFO: &'static #abi::ClassInfo = &#module::INFO;

            fn #from(#field: #runtime::#held) -> Self {
                Self { #field }
            }

            fn #access(&self) -> &#runtime::#held {
                &self.#field
            }
        }

        #(#bases)*
    }
}

/// A derived stub is one of each of its bases.
fn bases(rust: &Rust<'_>, id: ItemId, field: &Ident) -> Vec<TokenStream> {
    let (abi, from_trait) = (rust.abi(), rust.prelude("From"));
    let name = ident(&rust.model.item(id).name);
    let Role { role, from, .. } = role(rust.model.interface(id));
    let bases = rust.model.ancestry(id).skip(1).map(|base| {
        let base = rust.item(base);
        quote! {
            impl #from_trait<#name> for #base {
                fn from(derived: #name) -> Self {
                    #abi::#role::#from(derived.#field)
                }
            }
        }
    });
    bases.collect()
}

/// The trait of a stub and its two functions.
struct Role {
    role: Ident,
    from: Ident,
    access: Ident,
}

fn role(interface: &Interface) -> Role {
    let (role, from, access) = match interface.persistent {
        true => ("Stub", "from_ref", "as_ref"),
        false => ("Transient", "from_capability", "as_capability"),
    };
    Role {
        role: ident(role),
        from: ident(from),
        access: ident(access),
    }
}

/// What the parts of a stub are made with.
struct Place<'a, 'r> {
    rust: &'r Rust<'a>,
    id: ItemId,
    runtime: TokenStream,
    abi: TokenStream,
    /// The stub's only field.
    field: Ident,
    /// Its type.
    held: Ident,
    /// The Rust module of the interface.
    module: Ident,
}

impl<'a, 'r> Place<'a, 'r> {
    fn new(rust: &'r Rust<'a>, id: ItemId) -> Self {
        let (field, held) = match rust.model.interface(id).persistent {
            true => ("reference", "Ref"),
            false => ("capability", "Capability"),
        };
        Self {
            rust,
            id,
            runtime: rust.runtime(),
            abi: rust.abi(),
            field: ident(field),
            held: ident(held),
            module: names::module_of(&rust.model.item(id).name),
        }
    }

    /// `bind`, `from_uid`, `create`, `reference`, `uid`.
    fn persistent(&self) -> TokenStream {
        let Self {
            runtime, module, ..
        } = self;
        let create = self.create();
        quote! {
            /// Finds the object of this name and binds it.
            ///
            /// # Errors
            /// `NameNotFound`, `WrongClass`, `NoSuchObject`, `Unreachable`.
            pub async fn bind(
                client: &#runtime::Client,
                name: &str,
            ) -> #runtime::Result<Self> {
                Ok(Self { reference: #runtime::Ref::bind(client, name, &#module::INFO).await? })
            }

            /// A reference by identity; nothing is checked before the first call.
            #[must_use]
            pub fn from_uid(uid: #runtime::Uid) -> Self {
                Self { reference: #runtime::Ref::new(uid, #module::CLASS) }
            }

            #create

            /// The reference: identity and class.
            #[must_use]
            pub fn reference(&self) -> &#runtime::Ref {
                &self.reference
            }

            /// The object's identity.
            #[must_use]
            pub fn uid(&self) -> #runtime::Uid {
                self.reference.uid()
            }
        }
    }

    /// `create`.
    fn create(&self) -> TokenStream {
        let Self {
            rust,
            id,
            runtime,
            abi,
            module,
            ..
        } = self;
        let interface = rust.model.interface(*id);
        let mut doc = vec![" Makes a new object at `place`.".to_owned()];
        if !is_blank(&interface.constructor_docs) {
            doc.push(String::new());
            let lines = interface.constructor_docs.iter();
            doc.extend(lines.map(|line| format!(" {line}")));
        }
        let mut scope = noted(&interface.constructor);
        let [caller, place, arguments] =
            ["caller", "place", "arguments"].map(|name| scope.variable(name));
        let writing = Writing::new(**rust, &mut scope);
        let parameters = self.parameters(&interface.constructor);
        let laid = shape::fields(0, &interface.constructor);
        let (data, pointers) = literal_sizes(&laid.layout);
        let fill = closure(&writing, &interface.constructor, 0, &laid);
        let conversions = self.conversions(&interface.constructor);
        quote! {
            #(#[doc = #doc])*
            ///
            /// # Errors
            /// `Unreachable` if no node there can run the class.
            pub async fn create(
                #caller: &impl #runtime::Caller,
                #place: &#runtime::Place,
                #(#parameters),*
            ) -> #runtime::Result<Self> {
                #conversions
                let #arguments = #abi::message(#data, #pointers, #fill);
                let reference =
                    #runtime::Ref::create(#caller, #place, &#module::INFO, #arguments).await?;
                Ok(Self { reference })
            }
        }
    }

    /// `serve`.
    fn transient(&self) -> TokenStream {
        let Self {
            runtime, module, ..
        } = self;
        quote! {
            /// Serves an object in this process; it ends when its last capability is dropped.
            ///
            /// # Errors
            /// If this process cannot serve.
            pub fn serve(
                client: &#runtime::Client,
                servant: impl #module::Servant,
            ) -> #runtime::Result<Self> {
                let capability = #runtime::Capability::serve(client, #module::class(servant))?;
                Ok(Self { capability })
            }
        }
    }

    fn parameters(&self, fields: &[Field]) -> Vec<TokenStream> {
        let parameter = |field: &Field| {
            let (name, ty) = (ident(&field.name), self.rust.parameter(&field.ty));
            quote!(#name: #ty)
        };
        fields.iter().map(parameter).collect()
    }

    /// Statements that turn parameters into what is written.
    fn conversions(&self, fields: &[Field]) -> TokenStream {
        let runtime = &self.runtime;
        let converted = fields
            .iter()
            .filter(|field| matches!(field.ty, Type::Bytes));
        let converted = converted.map(|field| {
            let name = ident(&field.name);
            quote!(let #name: #runtime::Bytes = ::core::convert::Into::into(#name);)
        });
        quote!(#(#converted)*)
    }

    fn method(&self, index: usize, operation: &Operation<'_>) -> TokenStream {
        let Self {
            rust,
            runtime,
            module,
            field,
            ..
        } = self;
        let Operation { declared, method } = *operation;
        let index = number(index as u64);
        let head = docs(&method.docs, method.deprecated.as_deref());
        let name = ident(&method.name);
        let mut scope = noted(&method.params);
        let [caller, request, reply] =
            ["caller", "request", "reply"].map(|name| scope.variable(name));
        let writing = Writing::new(**rust, &mut scope);
        let parameters = self.parameters(&method.params);
        let laid = shape::fields(1, &method.params);
        let (data, pointers) = literal_sizes(&laid.layout);
        let (mutable, fill) = if method.params.is_empty() {
            (None, None)
        } else {
            let fill = closure(&writing, &method.params, 1, &laid);
            let conversions = self.conversions(&method.params);
            let fill = quote! {
                #conversions
                #request.arguments(#fill);
            };
            (Some(quote!(mut)), Some(fill))
        };
        let value = rust.answered(method);
        let result = rust.prelude("Result");
        let (returns, answer) = if method.raises.is_empty() {
            let decode = answer(rust, method);
            (
                quote!(#runtime::Result<#value>),
                quote!(#reply.decode(#decode)),
            )
        } else {
            let error = rust.part(declared, &names::error_of(&method.name));
            let decode = answer_or_raised(rust, method, &error);
            (
                quote!(#result<#value, #error>),
                quote!(#reply.decode(#decode)?),
            )
        };
        quote! {
            #head
            pub async fn #name(
                &self,
                #caller: &impl #runtime::Caller,
                #(#parameters),*
            ) -> #returns {
                let #mutable #request = self.#field.request(
                    #caller,
                    &#module::METHODS[#index],
                    #data,
                    #pointers,
                );
                #fill
                let #reply = #request.send().await?;
                #answer
            }
        }
    }
}

/// A scope with the names of parameters in it.
pub(crate) fn noted(fields: &[Field]) -> Scope {
    let mut scope = Scope::default();
    fields.iter().for_each(|field| scope.note(&field.name));
    scope
}

/// The closure that writes parameters.
fn closure(writing: &Writing<'_>, fields: &[Field], leading: usize, laid: &Laid) -> TokenStream {
    let writes = fields.iter().enumerate().map(|(index, field)| {
        let access = Access::of_parameter(&ident(&field.name), &field.ty);
        writing.member(&field.ty, laid.place(leading + index), &access)
    });
    if fields.is_empty() {
        return quote!(|_, _| {});
    }
    let (w, s) = (&writing.w, &writing.s);
    quote!(|#w, #s| { #(#writes)* })
}

/// The closure that reads what a method without exceptions answers.
fn answer(rust: &Rust<'_>, method: &Method) -> TokenStream {
    let Some(ty) = &method.result else {
        return quote!(|_| Ok(()));
    };
    let laid = shape::results(Some(ty), false);
    let value = Reading::new(*rust).result(ty, laid.place(0), &quote!(r), "value");
    quote!(|r| #value)
}

/// The closure that reads what a method answers, or the exception it raised.
fn answer_or_raised(rust: &Rust<'_>, method: &Method, error: &TokenStream) -> TokenStream {
    let laid = shape::results(method.result.as_ref(), true);
    let value = match &method.result {
        Some(ty) => {
            let value = Reading::new(*rust).result(ty, laid.place(0), &quote!(r), "value");
            quote!(#value.map(Ok))
        }
        None => quote!(Ok(Ok(()))),
    };
    let raised = number(laid.place(laid.ordinals.len() - 1).offset);
    quote! {
        |r| {
            let raised = r.pointer(#raised);
            if raised.is_null() {
                #value
            } else {
                raised.structure().and_then(#error::read).map(Err).map_err(|e| e.at("raised"))
            }
        }
    }
}
