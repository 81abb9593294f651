//! Emits the Rust module of an interface, its server side: class id, method table, state, error
//! enums, the servant trait, and the skeleton that decodes, calls and encodes.

use partha_idl::model::{Field, ItemId, Method};
use proc_macro2::{Ident, Literal, TokenStream};
use quote::{format_ident, quote};

use crate::codec::{Access, Reading, Writing, literal_sizes, number};
use crate::names::{self, Scope, ident};
use crate::stub::{Operation, noted, operations};
use crate::types::{Rust, docs, is_blank};
use crate::{error, shape, state};

/// `pub mod account`
pub(crate) fn module(rust: Rust<'_>, id: ItemId, deprecated: bool) -> TokenStream {
    let rust = rust.inside();
    let item = rust.model.item(id);
    let interface = rust.model.interface(id);
    let name = names::module_of(&item.name);
    let doc = format!(" The server side of [`{}`].", item.name);
    let tables = tables(&rust, id);
    let state = interface.persistent.then(|| state::structure(&rust, id));
    let operations = operations(rust.model, id);
    let errors = operations
        .iter()
        .filter(|op| !op.method.raises.is_empty())
        .map(|op| {
            if op.declared == id {
                return error::enumeration(&rust, op.method);
            }
            let error = rust.part(op.declared, &names::error_of(&op.method.name));
            quote!(pub use #error;)
        });
    let servant = servant(&rust, id, &operations);
    let skeleton = skeleton(&rust, id, &operations);
    let deprecated = deprecated.then(|| quote!(deprecated,));
    // A servant that nothing is asked of is kept all the same.
    let unused = operations.is_empty().then(|| quote!(dead_code,));
    quote! {
        #[doc = #doc]
        #[allow(
            async_fn_in_trait,
            clippy::all,
            clippy::too_many_lines,
            #unused
            #deprecated
            missing_docs,
            reason = "generated from the IDL; servants run on one thread and need no Send"
        )]
        pub mod #name {
            #tables
            #state
            #(#errors)*
            #servant
            #skeleton
        }
    }
}

/// `CLASS`, `METHODS`, `INFO`.
fn tables(rust: &Rust<'_>, id: ItemId) -> TokenStream {
    let (runtime, abi) = (rust.runtime(), rust.abi());
    let item = rust.model.item(id);
    let persistent = rust.model.interface(id).persistent;
    let class = hex(item.id);
    let module = &rust.model.module(item.module).name;
    let name = format!("{module}.{}", item.name);
    let constant = ident("CLASS");
    let class_of = |interface: ItemId| match interface == id {
        true => quote!(CLASS),
        false => rust.part(interface, &constant),
    };
    let operations = operations(rust.model, id);
    let methods = operations
        .iter()
        .map(|Operation { declared, method }| method_row(&abi, &class_of(*declared), method));
    let count = number(operations.len() as u64);
    let ancestors = rust.model.ancestry(id).map(class_of);
    let schema = hex(if persistent {
        state::hash(rust.model, id)
    } else {
        0
    });
    let cgr = format!("{module}.cgr");
    quote! {
        /// The class: the Cap'n Proto interface id.
        pub const CLASS: #runtime::ClassId = #runtime::ClassId(#class);

        /// The methods of the bases, then its own.
        pub static METHODS: [#abi::Method; #count] = [#(#methods),*];

        /// What is known of the class.
        pub static INFO: #abi::ClassInfo = #abi::ClassInfo {
            id: CLASS,
            name: #name,
            persistent: #persistent,
            ancestors: &[#(#ancestors),*],
            methods: &METHODS,
            schema: #schema,
            reflection: include_bytes!(#cgr),
        };
    }
}

/// One entry of `METHODS`.
fn method_row(abi: &TokenStream, interface: &TokenStream, method: &Method) -> TokenStream {
    let Method {
        name,
        mutating,
        upgrade,
        idempotent,
        blocking,
        any_replica,
        deadline_us,
        ..
    } = method;
    let ordinal = number(method.ordinal);
    let mode = ident(match (mutating, upgrade) {
        (true, _) => "Write",
        (false, true) => "Upgrade",
        (false, false) => "Read",
    });
    let deadline = match deadline_us.map(number) {
        Some(micros) => quote!(Some(#micros)),
        None => quote!(None),
    };
    quote! {
        #abi::Method {
            interface: #interface,
            ordinal: #ordinal,
            name: #name,
            mutating: #mutating,
            mode: #abi::Mode::#mode,
            idempotent: #idempotent,
            blocking: #blocking,
            any_replica: #any_replica,
            deadline_us: #deadline,
        }
    }
}

fn hex(number: u64) -> TokenStream {
    let text = format!("0x{number:016x}");
    let literal: Literal = text.parse().expect("a hexadecimal number is a literal");
    quote!(#literal)
}

/// `trait Servant` and `fn class`.
fn servant(rust: &Rust<'_>, id: ItemId, operations: &[Operation<'_>]) -> TokenStream {
    let runtime = rust.runtime();
    let interface = rust.model.interface(id);
    let (send, sync) = (rust.prelude("Send"), rust.prelude("Sync"));
    let name = &rust.model.item(id).name;
    let doc = format!(" What runs objects of `{name}`: one servant for all of them.");
    let new = interface.persistent.then(|| {
        let doc = docs(&interface.constructor_docs, None);
        let none = is_blank(&interface.constructor_docs);
        let none = none.then(|| quote!(#[doc = " The state of a new object."]));
        let parameters = parameters(rust, &interface.constructor);
        quote!(#doc #none fn new(&self, #(#parameters),*) -> State;)
    });
    let methods = operations.iter().map(|Operation { method, .. }| {
        let doc = docs(&method.docs, None);
        let name = ident(&method.name);
        let mut scope = noted(&method.params);
        let [state, cx] = ["state", "cx"].map(|name| scope.variable(name));
        let state = interface.persistent.then(|| match method.mutating {
            true => quote!(#state: &mut State,),
            false => quote!(#state: &State,),
        });
        let parameters = parameters(rust, &method.params);
        let value = rust.answered(method);
        let returns = if method.raises.is_empty() {
            quote!(#runtime::Result<#value>)
        } else {
            let result = rust.prelude("Result");
            let error = names::error_of(&method.name);
            quote!(#result<#value, #error>)
        };
        quote! {
            #doc
            async fn #name(
                &self,
                #state
                #cx: &#runtime::Context,
                #(#parameters),*
            ) -> #returns;
        }
    });
    quote! {
        #[doc = #doc]
        pub trait Servant: #send + #sync + 'static {
            #new
            #(#methods)*
        }

        /// The class with its servant, for a node to serve.
        pub fn class<S: Servant>(servant: S) -> #runtime::Class {
            #runtime::Class::new(Skeleton { servant: ::std::sync::Arc::new(servant) })
        }
    }
}

fn parameters(rust: &Rust<'_>, fields: &[Field]) -> Vec<TokenStream> {
    let parameter = |field: &Field| {
        let (name, ty) = (ident(&field.name), rust.owned(&field.ty));
        quote!(#name: #ty)
    };
    fields.iter().map(parameter).collect()
}

/// `struct Skeleton` and a function for each method.
fn skeleton(rust: &Rust<'_>, id: ItemId, operations: &[Operation<'_>]) -> TokenStream {
    let abi = rust.abi();
    let (boxed, result) = (rust.prelude("Box"), rust.prelude("Result"));
    let function = |method: &Method| format_ident!("call_{}", method.name);
    let arms = operations
        .iter()
        .enumerate()
        .map(|(index, Operation { method, .. })| {
            let function = function(method);
            let index = number(index as u64);
            quote!(#index => #boxed::pin(#function(servant, call)))
        });
    let functions = operations
        .iter()
        .map(|op| call(rust, id, op, &function(op.method)));
    let (construct, restore) = lifecycle(rust, id);
    let dispatch = if operations.is_empty() {
        quote!(unreachable!(
            "the interface has no method {}, of {:?}",
            method, call
        ))
    } else {
        quote! {
            let servant = ::std::sync::Arc::clone(&self.servant);
            match method {
                #(#arms,)*
                other => unreachable!("the interface has no method {}", other),
            }
        }
    };
    quote! {
        struct Skeleton<S> {
            servant: ::std::sync::Arc<S>,
        }

        impl<S: Servant> #abi::Skeleton for Skeleton<S> {
            fn info(&self) -> &'static #abi::ClassInfo {
                &INFO
            }

            fn construct(
                &self,
                r: #abi::StructReader<'_>,
            ) -> #result<#boxed<dyn #abi::ObjectState>, #abi::DecodeError> {
                #construct
            }

            fn restore(
                &self,
                r: #abi::StructReader<'_>,
            ) -> #result<#boxed<dyn #abi::ObjectState>, #abi::DecodeError> {
                #restore
            }

            fn dispatch(&self, method: usize, call: #abi::Call) -> #abi::LocalFuture {
                #dispatch
            }
        }

        #(#functions)*
    }
}

/// The bodies of `construct` and `restore`.
fn lifecycle(rust: &Rust<'_>, id: ItemId) -> (TokenStream, TokenStream) {
    let abi = rust.abi();
    let interface = rust.model.interface(id);
    let boxed = rust.prelude("Box");
    if !interface.persistent {
        let none = quote! {
            let _ = r;
            Err(#abi::DecodeError::invalid("a persistent class"))
        };
        return (none.clone(), none);
    }
    let laid = shape::fields(0, &interface.constructor);
    let reading = Reading::new(*rust);
    let arguments = interface
        .constructor
        .iter()
        .enumerate()
        .map(|(index, field)| {
            reading.member(&field.ty, laid.place(index), &quote!(r), &field.name)
        });
    let unused = interface.constructor.is_empty().then(|| quote!(let _ = r;));
    let construct = quote! {
        #unused
        Ok(#boxed::new(Servant::new(&*self.servant, #(#arguments),*)))
    };
    let restore = quote! {
        let state: State = #abi::Struct::read(r)?;
        Ok(#boxed::new(state))
    };
    (construct, restore)
}

/// The function that decodes the parameters of a method, calls it and encodes what it answers.
fn call(rust: &Rust<'_>, id: ItemId, operation: &Operation<'_>, function: &Ident) -> TokenStream {
    let abi = rust.abi();
    let Operation { method, .. } = *operation;
    let persistent = rust.model.interface(id).persistent;
    let mut scope = noted(&method.params);
    let [call, servant, state, cx] =
        ["call", "servant", "state", "cx"].map(|name| scope.variable(name));
    let decode = decode(rust, method, &call, &mut scope);
    let (mutable, access) = match (persistent, method.mutating) {
        (true, true) => (
            quote!(mut),
            quote!(let (#state, #cx) = #call.write::<State>();),
        ),
        (true, false) => (quote!(), quote!(let (#state, #cx) = #call.read::<State>();)),
        (false, _) => (quote!(), quote!(let #cx = #call.context();)),
    };
    let state = persistent.then(|| quote!(#state,));
    let name = ident(&method.name);
    let arguments = method.params.iter().map(|field| ident(&field.name));
    let arms = answers(rust, method, &call);
    quote! {
        async fn #function<S: Servant>(
            #servant: ::std::sync::Arc<S>,
            #mutable #call: #abi::Call,
        ) -> #abi::Finished {
            #decode
            #access
            match Servant::#name(&*#servant, #state #cx, #(#arguments),*).await {
                #arms
            }
        }
    }
}

/// Binds the parameters, or leaves.
fn decode(rust: &Rust<'_>, method: &Method, call: &Ident, scope: &mut Scope) -> TokenStream {
    if method.params.is_empty() {
        return TokenStream::new();
    }
    let laid = shape::fields(1, &method.params);
    let reading = Reading::new(*rust);
    let reads = method.params.iter().enumerate().map(|(index, field)| {
        reading.member(&field.ty, laid.place(index + 1), &quote!(r), &field.name)
    });
    let names: Vec<_> = method
        .params
        .iter()
        .map(|field| ident(&field.name))
        .collect();
    let types = method.params.iter().map(|field| rust.owned(&field.ty));
    let decoded = scope.variable("decoded");
    let (abi, result) = (rust.abi(), rust.prelude("Result"));
    quote! {
        let #decoded: #result<(#(#types,)*), #abi::DecodeError> =
            #call.arguments().and_then(|r| Ok((#(#reads,)*)));
        let (#(#names,)*) = match #decoded {
            Ok(arguments) => arguments,
            Err(error) => return #call.malformed(error),
        };
    }
}

/// The arms that encode what the servant answered.
fn answers(rust: &Rust<'_>, method: &Method, call: &Ident) -> TokenStream {
    let raises = !method.raises.is_empty();
    let laid = shape::results(method.result.as_ref(), raises);
    let (data, pointers) = literal_sizes(&laid.layout);
    let mut scope = Scope::default();
    let value = scope.variable("value");
    let normal = match &method.result {
        None => quote!(Ok(()) => #call.returned(#data, #pointers, |_, _| {}),),
        Some(ty) => {
            let writing = Writing::new(*rust, &mut scope);
            let (w, s) = (&writing.w, &writing.s);
            let write = writing.member(ty, laid.place(0), &Access::value(&value));
            quote!(Ok(#value) => #call.returned(#data, #pointers, |#w, #s| { #write }),)
        }
    };
    if !raises {
        return quote!(#normal Err(error) => #call.failed(error),);
    }
    let error = names::error_of(&method.name);
    let slot = number(laid.place(laid.ordinals.len() - 1).offset);
    quote! {
        #normal
        Err(#error::System(error)) => #call.failed(error),
        Err(error) => #call.raised(#data, #pointers, |w, s| error.write(w, s.slot(#slot))),
    }
}
