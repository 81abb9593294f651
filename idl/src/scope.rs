//! What names mean inside a module: its own declarations, and what it uses from others.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use crate::ast::{self, Name, UsedName};
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::load::{Load, Loaded};
use crate::model::ItemId;
use crate::source::Span;
use crate::suggest;

/// A name's meaning.
#[derive(Debug)]
pub(crate) struct Binding {
    /// `None` for what was complained about elsewhere.
    pub(crate) item: Option<ItemId>,
    pub(crate) declared: Span,
    imported: bool,
    used: Cell<bool>,
}

/// The names of one module.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    names: HashMap<String, Binding>,
    /// Names that may have been declared in text that could not be read, and unknown ones that
    /// were complained about.
    lost: RefCell<HashSet<String>>,
    all_lost: bool,
}

impl Scope {
    /// What the name means; `None` if there is no such name and it was not lost either.
    pub(crate) fn find(&self, name: &str) -> Option<Option<ItemId>> {
        if let Some(binding) = self.names.get(name) {
            binding.used.set(true);
            return Some(binding.item);
        }
        let lost = self.all_lost || self.lost.borrow().contains(name);
        lost.then_some(None)
    }

    /// Notes that the name was complained about: from now on it is known as lost.
    pub(crate) fn lose(&self, name: &str) {
        self.lost.borrow_mut().insert(name.to_owned());
    }

    /// As [`Self::find`] for a declared name, but does not count as a use.
    pub(crate) fn find_quietly(&self, name: &str) -> Option<ItemId> {
        self.names.get(name)?.item
    }

    /// All names, for suggestions.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }
}

/// The scopes of all modules, by the load's numbers, and every declaration in the order of ids.
pub(crate) struct Scopes<'a> {
    pub(crate) scopes: Vec<Scope>,
    /// Item and module of each [`ItemId`].
    pub(crate) items: Vec<(&'a ast::Item, usize)>,
}

/// Gives every declaration an id and every module its names.
pub(crate) fn collect<'a>(load: &'a Load, sink: &mut Sink) -> Scopes<'a> {
    let mut all = Scopes {
        scopes: Vec::new(),
        items: Vec::new(),
    };
    all.scopes.resize_with(load.modules.len(), Scope::default);
    for &number in &load.order {
        let module = &load.modules[number];
        let mut scope = Scope {
            lost: RefCell::new(module.unit.lost.clone()),
            all_lost: module.unit.unreadable,
            ..Scope::default()
        };
        for (line, imported) in module.unit.uses.iter().zip(&module.imports) {
            for used in &line.names {
                let item = imported.and_then(|from| import(load, &all, from, used, sink));
                declare(&mut scope, &used.local, item, true, sink);
            }
        }
        for item in &module.unit.items {
            let id = ItemId(all.items.len() as u32);
            all.items.push((item, number));
            declare(&mut scope, &item.name, Some(id), false, sink);
        }
        all.scopes[number] = scope;
    }
    all
}

fn declare(scope: &mut Scope, name: &Name, item: Option<ItemId>, imported: bool, sink: &mut Sink) {
    let binding = Binding {
        item,
        declared: name.span,
        imported,
        used: Cell::new(false),
    };
    let Some(first) = scope.names.get(&name.text) else {
        scope.names.insert(name.text.clone(), binding);
        return;
    };
    if first.item.is_none() || item.is_none() {
        return;
    }
    let message = format!("the name {} is declared twice", name.quoted());
    let verb = if first.imported {
        "imported"
    } else {
        "declared"
    };
    let mut diagnostic = Diagnostic::new(&codes::ITEM_TWICE, name.span, message)
        .label("again here")
        .related(first.declared, format!("first {verb} here"));
    if imported || first.imported {
        diagnostic = diagnostic.help(format!("import it as `{} as …`", name.text));
    }
    sink.push(diagnostic);
}

/// The declaration that a `use` line names; only own declarations of a module can be used.
fn import(
    load: &Load,
    all: &Scopes<'_>,
    from: usize,
    used: &UsedName,
    sink: &mut Sink,
) -> Option<ItemId> {
    let scope = &all.scopes[from];
    let own = scope
        .names
        .get(&used.name.text)
        .filter(|binding| !binding.imported);
    if let Some(binding) = own {
        return binding.item;
    }
    let lost = scope.all_lost || scope.lost.borrow().contains(&used.name.text);
    if !lost {
        let module = &load.modules[from];
        let names = module.unit.items.iter().map(|item| item.name.text.as_str());
        let help = if sink.is_full() {
            None
        } else {
            elsewhere(load, from, used).or_else(|| suggest::help(&used.name.text, names))
        };
        let message = format!(
            "module `{}` declares no {}",
            module.name,
            used.name.quoted()
        );
        let diagnostic = Diagnostic::new(&codes::USE_UNKNOWN, used.name.span, message);
        sink.push(diagnostic.label("not declared there").maybe_help(help));
    }
    None
}

/// Where the module has the name from, if it only imports it.
fn elsewhere(load: &Load, from: usize, used: &UsedName) -> Option<String> {
    let module: &Loaded = &load.modules[from];
    let has = |line: &&ast::Use| line.names.iter().any(|n| n.local.text == used.name.text);
    let line = module.unit.uses.iter().find(has)?;
    Some(format!(
        "it is declared in `{}`: use it from there",
        line.module.text
    ))
}

/// Warns of names that were imported for nothing. Only for a run without errors: what could not
/// be read may have used them.
pub(crate) fn unused(load: &Load, all: &Scopes<'_>, sink: &mut Sink) {
    for &number in &load.order {
        let module = &load.modules[number];
        if !module.requested {
            continue;
        }
        for used in module.unit.uses.iter().flat_map(|line| &line.names) {
            let binding = all.scopes[number].names.get(&used.local.text);
            let idle = binding.is_some_and(|binding| {
                binding.imported && binding.item.is_some() && !binding.used.get()
            });
            if idle {
                let message = format!("{} is imported and not used", used.local.quoted());
                let diagnostic = Diagnostic::new(&codes::UNUSED_IMPORT, used.local.span, message);
                sink.push(diagnostic.label("not used in this file"));
            }
        }
    }
}
