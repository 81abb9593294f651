//! A readable text of a model, for the corpus.

use std::fmt::Write as _;

use partha_idl::Model;
use partha_idl::model::{Field, Interface, Item, ItemId, ItemKind, Module, Type};

/// Modules in order, each with its items.
pub(crate) fn model(model: &Model) -> String {
    let mut text = String::new();
    for module in &model.modules {
        Dump {
            model,
            text: &mut text,
        }
        .module(module);
    }
    text
}

struct Dump<'a> {
    model: &'a Model,
    text: &'a mut String,
}

impl Dump<'_> {
    fn line(&mut self, depth: usize, line: &str) {
        let _ = writeln!(self.text, "{}{line}", "  ".repeat(depth));
    }

    fn head(&mut self, depth: usize, docs: &[String], deprecated: Option<&String>) {
        for doc in docs {
            self.line(depth, format!("/// {doc}").trim_end());
        }
        if let Some(why) = deprecated {
            self.line(depth, &format!("deprecated {why:?}"));
        }
    }

    fn module(&mut self, module: &Module) {
        let requested = if module.requested { "" } else { " imported" };
        self.line(
            0,
            &format!("module {} @{:#018x}{requested}", module.name, module.id),
        );
        self.head(1, &module.docs, None);
        for import in &module.imports {
            let name = self.model.module(*import).name.clone();
            self.line(1, &format!("use {name}"));
        }
        for item in &module.items {
            self.item(*item);
        }
    }

    fn item(&mut self, id: ItemId) {
        let item: &Item = self.model.item(id);
        self.head(1, &item.docs, item.deprecated.as_ref());
        let name = format!("{} @{:#018x}", item.name, item.id);
        match &item.kind {
            ItemKind::Const(ty, value) => {
                self.line(1, &format!("const {name}: {} = {value:?}", self.ty(ty)));
            }
            ItemKind::Struct(fields) => {
                self.line(1, &format!("struct {name}"));
                self.fields(2, fields);
            }
            ItemKind::Exception(fields) => {
                self.line(1, &format!("exception {name}"));
                self.fields(2, fields);
            }
            ItemKind::Enum(values) => {
                self.line(1, &format!("enum {name}"));
                for value in values {
                    self.head(2, &value.docs, value.deprecated.as_ref());
                    self.line(2, &format!("{} {}", value.ordinal, value.name));
                }
            }
            ItemKind::Union(cases) => {
                self.line(1, &format!("union {name}"));
                for case in cases {
                    self.head(2, &case.docs, case.deprecated.as_ref());
                    let ty = case.ty.as_ref().map(|ty| format!(": {}", self.ty(ty)));
                    let line = format!("{} {}{}", case.ordinal, case.name, ty.unwrap_or_default());
                    self.line(2, &line);
                }
            }
            ItemKind::Interface(interface) => self.interface(&name, interface),
        }
    }

    fn interface(&mut self, name: &str, interface: &Interface) {
        let kind = if interface.persistent {
            "persistent interface"
        } else {
            "interface"
        };
        let base = interface.base.map(|base| format!(": {}", self.name(base)));
        self.line(1, &format!("{kind} {name}{}", base.unwrap_or_default()));
        if interface.persistent {
            self.line(2, "state");
            self.fields(3, &interface.state);
            self.head(2, &interface.constructor_docs, None);
            self.line(2, "new");
            self.fields(3, &interface.constructor);
        }
        for method in &interface.methods {
            self.head(2, &method.docs, method.deprecated.as_ref());
            let receiver = if method.mutating {
                "&mut self"
            } else {
                "&self"
            };
            let mut line = format!("{} fn {}({receiver})", method.ordinal, method.name);
            if let Some(result) = &method.result {
                let _ = write!(line, " -> {}", self.ty(result));
            }
            if !method.raises.is_empty() {
                let names: Vec<String> = method.raises.iter().map(|id| self.name(*id)).collect();
                let _ = write!(line, " raises {}", names.join(", "));
            }
            if method.upgrade {
                line.push_str(" upgrade");
            }
            if method.idempotent {
                line.push_str(" idempotent");
            }
            if method.blocking {
                line.push_str(" blocking");
            }
            if method.any_replica {
                line.push_str(" any_replica");
            }
            if let Some(time) = method.deadline_us {
                let _ = write!(line, " deadline {time} us");
            }
            self.line(2, &line);
            self.fields(3, &method.params);
        }
    }

    fn fields(&mut self, depth: usize, fields: &[Field]) {
        for field in fields {
            self.head(depth, &field.docs, field.deprecated.as_ref());
            let line = format!("{} {}: {}", field.ordinal, field.name, self.ty(&field.ty));
            self.line(depth, &line);
        }
    }

    fn name(&self, id: ItemId) -> String {
        let item = self.model.item(id);
        format!("{}.{}", self.model.module(item.module).name, item.name)
    }

    fn ty(&self, ty: &Type) -> String {
        match ty {
            Type::List(inner) => format!("list<{}>", self.ty(inner)),
            Type::Map(key, value) => format!("map<{}, {}>", self.ty(key), self.ty(value)),
            Type::Option(inner) => format!("option<{}>", self.ty(inner)),
            Type::Struct(id) | Type::Enum(id) | Type::Union(id) | Type::Interface(id) => {
                self.name(*id)
            }
            plain => format!("{plain:?}").to_lowercase(),
        }
    }
}
