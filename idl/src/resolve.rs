//! From syntax to the model: names become ids, ordinals are given, ids are computed.
//!
//! Where a type cannot be resolved there is a complaint and `bool` stands in, which is allowed
//! everywhere; such a model never leaves the compiler. Lists keep the order and the length of
//! those in the syntax, so that the checks can walk both side by side.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use heck::ToLowerCamelCase;

use crate::ast::{self, List, Member, Name, TypeKind, TypeRef};
use crate::check::{constant, ordinals};
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::id;
use crate::keyword;
use crate::load::Load;
use crate::model::{
    Enumerator, Field, Interface, Item, ItemId, ItemKind, Method, Model, Module, ModuleId, Type,
    Variant,
};
use crate::scope::{Scope, Scopes};
use crate::source::{SourceMap, Span};
use crate::suggest;

/// Builds the model; complete, but unchecked where the checks say so.
pub(crate) fn resolve(
    sources: &SourceMap,
    load: &Load,
    scopes: &Scopes<'_>,
    sink: &mut Sink,
) -> Model {
    let mut model = Model {
        modules: modules(sources, load),
        items: Vec::new(),
    };
    let ids: HashMap<usize, ModuleId> = numbers(load).collect();
    for (number, (item, module)) in scopes.items.iter().enumerate() {
        let module_id = ids[module];
        model.modules[module_id.0 as usize]
            .items
            .push(ItemId(number as u32));
        let mut resolver = Resolver {
            scopes,
            scope: &scopes.scopes[*module],
            sink,
            // An imported module is its author's to mend.
            from_deprecated: item.attributes.deprecated.is_some()
                || !load.modules[*module].requested,
        };
        let kind = resolver.kind(item);
        model.items.push(Item {
            name: item.name.text.clone(),
            module: module_id,
            id: id::child_id(model.module(module_id).id, &item.name.text),
            docs: item.attributes.docs.clone(),
            deprecated: item.attributes.deprecated.clone(),
            kind,
        });
    }
    model
}

fn numbers(load: &Load) -> impl Iterator<Item = (usize, ModuleId)> {
    load.order
        .iter()
        .enumerate()
        .map(|(id, number)| (*number, ModuleId(id as u32)))
}

fn modules(sources: &SourceMap, load: &Load) -> Vec<Module> {
    let ids: HashMap<usize, ModuleId> = numbers(load).collect();
    let one = |number: &usize| {
        let loaded = &load.modules[*number];
        let file = sources.file(loaded.file);
        let mut imports: Vec<ModuleId> = Vec::new();
        for import in loaded.imports.iter().flatten() {
            let import = ids[import];
            if !imports.contains(&import) {
                imports.push(import);
            }
        }
        Module {
            name: loaded.name.clone(),
            id: loaded
                .unit
                .id
                .map_or_else(|| id::module_id(&loaded.name), |(id, _)| id),
            path: file.path.clone(),
            source: file.text.clone(),
            docs: loaded.unit.docs.clone(),
            requested: loaded.requested,
            imports,
            items: Vec::new(),
        }
    };
    load.order.iter().map(one).collect()
}

/// Resolves one item.
struct Resolver<'a> {
    scopes: &'a Scopes<'a>,
    scope: &'a Scope,
    sink: &'a mut Sink,
    /// No warnings of deprecated names: what is itself deprecated may use them.
    from_deprecated: bool,
}

impl Resolver<'_> {
    fn kind(&mut self, item: &ast::Item) -> ItemKind {
        match &item.kind {
            ast::ItemKind::Const(ty, value) => {
                let resolved = self.ty(ty);
                let value = constant::value(&resolved, ty, value, self.sink);
                ItemKind::Const(resolved, value)
            }
            ast::ItemKind::Struct(list) => ItemKind::Struct(self.fields(list)),
            ast::ItemKind::Exception(list) => ItemKind::Exception(self.fields(list)),
            ast::ItemKind::Enum(list) => ItemKind::Enum(self.enumerators(list)),
            ast::ItemKind::Union(list) => ItemKind::Union(self.variants(list)),
            ast::ItemKind::Interface(interface) => {
                ItemKind::Interface(self.interface(&item.name, interface))
            }
        }
    }

    fn fields(&mut self, list: &List<Member>) -> Vec<Field> {
        let ordinals = ordinals::assign(list, self.sink);
        let outer = self.from_deprecated;
        let fields = list.members.iter().zip(ordinals).map(|(member, ordinal)| {
            self.from_deprecated = outer || member.attributes.deprecated.is_some();
            Field {
                name: member.name.text.clone(),
                docs: member.attributes.docs.clone(),
                deprecated: member.attributes.deprecated.clone(),
                ordinal,
                ty: member.ty.as_ref().map_or(Type::Bool, |ty| self.ty(ty)),
            }
        });
        let fields = fields.collect();
        self.from_deprecated = outer;
        fields
    }

    fn enumerators(&mut self, list: &List<Member>) -> Vec<Enumerator> {
        let ordinals = ordinals::assign(list, self.sink);
        let one = |(member, ordinal): (&Member, u16)| Enumerator {
            name: member.name.text.clone(),
            docs: member.attributes.docs.clone(),
            deprecated: member.attributes.deprecated.clone(),
            ordinal,
        };
        list.members.iter().zip(ordinals).map(one).collect()
    }

    fn variants(&mut self, list: &List<Member>) -> Vec<Variant> {
        let ordinals = ordinals::assign(list, self.sink);
        let one = |(member, ordinal): (&Member, u16)| Variant {
            name: member.name.text.clone(),
            docs: member.attributes.docs.clone(),
            deprecated: member.attributes.deprecated.clone(),
            ordinal,
            ty: member.ty.as_ref().map(|ty| self.ty(ty)),
        };
        list.members.iter().zip(ordinals).map(one).collect()
    }

    fn interface(&mut self, name: &Name, interface: &ast::Interface) -> Interface {
        let base = interface
            .base
            .as_ref()
            .and_then(|base| self.base(name, interface, base));
        let state = interface
            .state
            .as_ref()
            .map(|state| self.fields(&state.fields));
        let constructor = interface.constructor.as_ref();
        let ordinals = ordinals::assign(&interface.methods, self.sink);
        let methods = &interface.methods.members;
        Interface {
            persistent: interface.persistent,
            base,
            state: state.unwrap_or_default(),
            constructor: constructor.map_or_else(Vec::new, |new| self.fields(&new.params)),
            constructor_docs: constructor.map_or_else(Vec::new, |new| new.docs.clone()),
            methods: methods
                .iter()
                .zip(ordinals)
                .map(|(method, ordinal)| self.method(method, ordinal))
                .collect(),
        }
    }

    fn method(&mut self, method: &ast::Method, ordinal: u16) -> Method {
        let outer = self.from_deprecated;
        self.from_deprecated |= method.attributes.deprecated.is_some();
        let resolved = Method {
            name: method.name.text.clone(),
            docs: method.attributes.docs.clone(),
            deprecated: method.attributes.deprecated.clone(),
            ordinal,
            mutating: method.mutating,
            upgrade: method.attributes.upgrade.is_some(),
            params: self.fields(&method.params),
            result: method.result.as_ref().map(|ty| self.ty(ty)),
            raises: self.raises(&method.raises),
            idempotent: method.attributes.idempotent,
            blocking: method.attributes.blocking,
            any_replica: method.attributes.any_replica.is_some(),
            deadline_us: method.attributes.deadline_us,
        };
        self.from_deprecated = outer;
        resolved
    }

    fn raises(&mut self, names: &[Name]) -> Vec<ItemId> {
        let mut raised = Vec::new();
        // By the name that each has in Cap'n Proto.
        let mut first_of: HashMap<String, Span> = HashMap::new();
        for name in names {
            let Some(id) = self.item(name, "an exception", |kind| {
                matches!(kind, ast::ItemKind::Exception(_))
            }) else {
                continue;
            };
            let declared = &self.declaration(id).name;
            match first_of.entry(declared.text.to_lower_camel_case()) {
                Entry::Occupied(first) => {
                    let message = format!("exception {} is listed twice", declared.quoted());
                    let diagnostic = Diagnostic::new(&codes::RAISES_TWICE, name.span, message)
                        .label("again here")
                        .related(*first.get(), "first here");
                    self.sink.push(diagnostic);
                }
                Entry::Vacant(place) => {
                    place.insert(name.span);
                    raised.push(id);
                }
            }
        }
        raised
    }

    fn base(&mut self, name: &Name, own: &ast::Interface, base: &Name) -> Option<ItemId> {
        let is_interface = |kind: &ast::ItemKind| matches!(kind, ast::ItemKind::Interface(_));
        let id = self.item(base, "an interface", is_interface)?;
        let declaration = self.declaration(id);
        let ast::ItemKind::Interface(other) = &declaration.kind else {
            return None;
        };
        if other.persistent == own.persistent {
            return Some(id);
        }
        let (wanted, found) = if own.persistent {
            ("persistent", "not")
        } else {
            ("not persistent", "persistent")
        };
        let message = format!(
            "{} is {wanted}, but its base {} is {found}",
            name.quoted(),
            base.quoted()
        );
        let diagnostic = Diagnostic::new(&codes::BASE_KIND, base.span, message)
            .label(if own.persistent {
                "not persistent"
            } else {
                "persistent"
            })
            .related(declaration.name.span, "declared here")
            .help("an interface inherits from one of its own kind");
        self.sink.push(diagnostic);
        None
    }

    /// The declaration of a name where only one kind of it will do.
    fn item(
        &mut self,
        name: &Name,
        wanted: &str,
        is_wanted: impl Fn(&ast::ItemKind) -> bool,
    ) -> Option<ItemId> {
        let Some(found) = self.scope.find(&name.text) else {
            let fitting = self.scope.names().filter(|candidate| {
                let id = self.scope.find_quietly(candidate);
                id.is_some_and(|id| is_wanted(&self.declaration(id).kind))
            });
            let help = self.near(&name.text, fitting);
            self.scope.lose(&name.text);
            let message = format!("there is no {} here", name.quoted());
            let diagnostic = Diagnostic::new(&codes::NAME_UNKNOWN, name.span, message);
            let label = format!("expected the name of {wanted}");
            self.sink.push(diagnostic.label(label).maybe_help(help));
            return None;
        };
        let id = found?;
        let declaration = self.declaration(id);
        if !is_wanted(&declaration.kind) {
            let kind = declaration.kind.describe();
            let message = format!("{} is {kind}, not {wanted}", name.quoted());
            let diagnostic = Diagnostic::new(&codes::NAME_KIND, name.span, message)
                .label(format!("expected {wanted}"))
                .related(declaration.name.span, "declared here");
            self.sink.push(diagnostic);
            return None;
        }
        self.warn_deprecated(id, name.span);
        Some(id)
    }

    fn ty(&mut self, written: &TypeRef) -> Type {
        match &written.kind {
            TypeKind::Wrong => Type::Bool,
            TypeKind::Named(name) => plain(name).unwrap_or_else(|| self.named(name, written.span)),
            TypeKind::List(element) => Type::List(Box::new(self.ty(element))),
            TypeKind::Option(value) => {
                let inner = self.ty(value);
                if matches!(inner, Type::Option(_)) {
                    let message = "an `option` in an `option`";
                    let diagnostic = Diagnostic::new(&codes::OPTION_NESTED, value.span, message);
                    self.sink.push(diagnostic.label("this is optional already"));
                    return inner;
                }
                Type::Option(Box::new(inner))
            }
            TypeKind::Map(key, value) => {
                let resolved = self.ty(key);
                if !may_be_key(&resolved) {
                    let message = "this type cannot be the key of a map";
                    let help = "keys are bool, integers, string, bytes, uid, timestamp, duration \
                                and enums";
                    let diagnostic = Diagnostic::new(&codes::MAP_KEY, key.span, message);
                    self.sink.push(diagnostic.label("not a key").help(help));
                }
                Type::Map(Box::new(resolved), Box::new(self.ty(value)))
            }
        }
    }

    fn named(&mut self, name: &str, span: Span) -> Type {
        let Some(found) = self.scope.find(name) else {
            self.unknown_type(name, span);
            return Type::Bool;
        };
        let Some(id) = found else { return Type::Bool };
        let declaration = self.declaration(id);
        let ty = match &declaration.kind {
            ast::ItemKind::Struct(_) => Type::Struct(id),
            ast::ItemKind::Enum(_) => Type::Enum(id),
            ast::ItemKind::Union(_) => Type::Union(id),
            ast::ItemKind::Interface(_) => Type::Interface(id),
            ast::ItemKind::Const(..) | ast::ItemKind::Exception(_) => {
                let kind = declaration.kind.describe();
                let message = format!("{} is {kind}, not a type", declaration.name.quoted());
                let diagnostic = Diagnostic::new(&codes::NAME_KIND, span, message)
                    .label("expected a type")
                    .related(declaration.name.span, "declared here");
                self.sink.push(match &declaration.kind {
                    ast::ItemKind::Exception(_) => {
                        diagnostic.help("exceptions stand behind `raises`; declare a struct")
                    }
                    _ => diagnostic,
                });
                return Type::Bool;
            }
        };
        self.warn_deprecated(id, span);
        ty
    }

    fn unknown_type(&mut self, name: &str, span: Span) {
        let types = self.scope.names().filter(|candidate| {
            self.scope.find_quietly(candidate).is_some_and(|id| {
                let kind = &self.declaration(id).kind;
                !matches!(kind, ast::ItemKind::Const(..) | ast::ItemKind::Exception(_))
            })
        });
        let help = match keyword::type_for(name) {
            Some(known) => Some(format!("did you mean `{known}`?")),
            None => {
                let plain = keyword::PLAIN_TYPES
                    .into_iter()
                    .chain(keyword::GENERIC_TYPES);
                self.near(name, types.chain(plain))
            }
        };
        self.scope.lose(name);
        let quoted = Name {
            text: name.to_owned(),
            span,
        }
        .quoted();
        let message = format!("there is no type {quoted}");
        let diagnostic = Diagnostic::new(&codes::NAME_UNKNOWN, span, message);
        self.sink.push(
            diagnostic
                .label("not declared and not imported")
                .maybe_help(help),
        );
    }

    /// A suggestion, unless nobody would read it.
    fn near<'n>(&self, name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
        if self.sink.is_full() {
            None
        } else {
            suggest::help(name, known)
        }
    }

    fn warn_deprecated(&mut self, id: ItemId, span: Span) {
        let declaration = self.declaration(id);
        let Some(why) = &declaration.attributes.deprecated else {
            return;
        };
        if self.from_deprecated {
            return;
        }
        let message = format!("{} is deprecated: {why}", declaration.name.quoted());
        let diagnostic = Diagnostic::new(&codes::DEPRECATED, span, message)
            .label("deprecated")
            .related(declaration.name.span, "declared here");
        self.sink.push(diagnostic);
    }

    fn declaration(&self, id: ItemId) -> &'_ ast::Item {
        self.scopes.items[id.0 as usize].0
    }
}

fn plain(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "i8" => Type::I8,
        "i16" => Type::I16,
        "i32" => Type::I32,
        "i64" => Type::I64,
        "u8" => Type::U8,
        "u16" => Type::U16,
        "u32" => Type::U32,
        "u64" => Type::U64,
        "f32" => Type::F32,
        "f64" => Type::F64,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "uid" => Type::Uid,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        _ => return None,
    })
}

fn may_be_key(ty: &Type) -> bool {
    match ty {
        Type::Bool
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::String
        | Type::Bytes
        | Type::Uid
        | Type::Timestamp
        | Type::Duration
        | Type::Enum(_) => true,
        Type::F32
        | Type::F64
        | Type::List(_)
        | Type::Map(..)
        | Type::Option(_)
        | Type::Struct(_)
        | Type::Union(_)
        | Type::Interface(_) => false,
    }
}
