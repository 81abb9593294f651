//! Names: how they are spelt, which are taken, and which would become one elsewhere.
//!
//! The same names are used in Rust and in Cap'n Proto, where `foo_bar` is `fooBar`. A name that
//! breaks the spelling and becomes one with another is complained about once.

use std::collections::{HashMap, HashSet};

use heck::{ToLowerCamelCase, ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};

use super::Subject;
use crate::ast::{self, ItemKind, List, Member, Name};
use crate::codes::{self, Explanation};
use crate::diagnostic::{Diagnostic, Sink};
use crate::keyword;
use crate::source::Span;

/// Longer names are refused.
const BYTES_MAX: usize = 120;

pub(super) fn check(subject: &Subject<'_>, sink: &mut Sink) {
    for number in &subject.load.order {
        let module = &subject.load.modules[*number];
        if let Some(name) = &module.unit.name {
            spelling(name, Style::Snake, "modules", sink);
        }
        let merged = items_that_merge(&module.unit.items, sink);
        for item in &module.unit.items {
            if !merged.contains(&item.name.span) {
                item_name(item, sink);
            }
            reserved_item(item, &module.name, sink);
            members(item, sink);
        }
        for used in module.unit.uses.iter().flat_map(|line| &line.names) {
            let constant = used.name.text.chars().all(|c| !c.is_ascii_lowercase());
            if used.local.span != used.name.span && !constant {
                spelling(&used.local, Style::Upper, "types", sink);
            }
        }
    }
}

/// How names of one kind are spelt.
#[derive(Clone, Copy)]
enum Style {
    Snake,
    Upper,
    Shouting,
}

impl Style {
    fn name(self) -> &'static str {
        match self {
            Self::Snake => "snake_case",
            Self::Upper => "UpperCamelCase",
            Self::Shouting => "SCREAMING_SNAKE_CASE",
        }
    }

    fn convert(self, text: &str) -> String {
        match self {
            Self::Snake => text.to_snake_case(),
            Self::Upper => text.to_upper_camel_case(),
            Self::Shouting => text.to_shouty_snake_case(),
        }
    }

    fn is_kept(self, text: &str) -> bool {
        let letters = |test: fn(&u8) -> bool| {
            let part = |part: &str| part.bytes().all(|b| test(&b) || b.is_ascii_digit());
            text.split('_').all(|word| !word.is_empty() && part(word))
        };
        let first = text.as_bytes().first().copied().unwrap_or_default();
        match self {
            Self::Snake => first.is_ascii_lowercase() && letters(u8::is_ascii_lowercase),
            Self::Shouting => first.is_ascii_uppercase() && letters(u8::is_ascii_uppercase),
            Self::Upper => {
                first.is_ascii_uppercase() && text.bytes().all(|b| b.is_ascii_alphanumeric())
            }
        }
    }
}

fn spelling(name: &Name, style: Style, what: &str, sink: &mut Sink) {
    if keyword::NEVER_RAW.contains(&name.text.as_str()) {
        let why = "it is a keyword of Rust that cannot be quoted as `r#…`";
        reserved(name, why, sink);
        return;
    }
    if !name.text.is_ascii() || name.text.len() > BYTES_MAX {
        let message = format!("{} is no name for all languages", name.quoted());
        let label = format!("at most {BYTES_MAX} letters and digits of ASCII, and `_`");
        sink.push(Diagnostic::new(&codes::NAME_FORM, name.span, message).label(label));
        return;
    }
    if style.is_kept(&name.text) {
        return;
    }
    let message = format!(
        "{} is not {}, as the names of {what} are",
        name.quoted(),
        style.name()
    );
    let better = style.convert(&name.text);
    let help = style.is_kept(&better).then(|| format!("write `{better}`"));
    let diagnostic = Diagnostic::new(&codes::NAME_STYLE, name.span, message);
    sink.push(
        diagnostic
            .label(format!("not {}", style.name()))
            .maybe_help(help),
    );
}

fn reserved(name: &Name, why: &str, sink: &mut Sink) {
    let message = format!("the name {} cannot be used: {why}", name.quoted());
    let diagnostic = Diagnostic::new(&codes::NAME_RESERVED, name.span, message);
    sink.push(diagnostic.label("choose another name"));
}

fn item_name(item: &ast::Item, sink: &mut Sink) {
    match &item.kind {
        ItemKind::Const(..) => spelling(&item.name, Style::Shouting, "constants", sink),
        ItemKind::Struct(_)
        | ItemKind::Enum(_)
        | ItemKind::Union(_)
        | ItemKind::Exception(_)
        | ItemKind::Interface(_) => spelling(&item.name, Style::Upper, "types", sink),
    }
}

fn reserved_item(item: &ast::Item, module: &str, sink: &mut Sink) {
    let name = item.name.text.as_str();
    let why = match &item.kind {
        _ if keyword::CAPNP_TYPES.contains(&name) => "it means something else in Cap'n Proto",
        _ if module == "partha" && keyword::INTRINSICS.contains(&name) => {
            "the generator adds a struct of this name"
        }
        ItemKind::Exception(_) if name == "System" => {
            "generated errors have a case `System` for the system's own"
        }
        ItemKind::Exception(_) if name == "None" => {
            "in Cap'n Proto `none` says that none was raised"
        }
        ItemKind::Interface(_)
            if keyword::NEVER_RAW.contains(&name.to_snake_case().as_str()) && name != "Self" =>
        {
            "its Rust module would be named by a keyword"
        }
        ItemKind::Const(..)
        | ItemKind::Struct(_)
        | ItemKind::Enum(_)
        | ItemKind::Union(_)
        | ItemKind::Exception(_)
        | ItemKind::Interface(_) => return,
    };
    reserved(&item.name, why, sink);
}

/// Interfaces whose Rust modules, and constants whose Cap'n Proto names, would be one.
fn items_that_merge(items: &[ast::Item], sink: &mut Sink) -> HashSet<Span> {
    let interfaces = items
        .iter()
        .filter(|item| matches!(item.kind, ItemKind::Interface(_)));
    let constants = items
        .iter()
        .filter(|item| matches!(item.kind, ItemKind::Const(..)));
    let mut merged = HashSet::new();
    let keyed = interfaces.map(|item| (&item.name, item.name.text.to_snake_case()));
    merge("the Rust module", keyed, None, &mut merged, sink);
    let keyed = constants.map(|item| (&item.name, item.name.text.to_lower_camel_case()));
    merge("the Cap'n Proto name", keyed, None, &mut merged, sink);
    merged
}

/// Complains of names with the same key. The same name twice is complained about with `twice`,
/// or elsewhere.
fn merge<'a>(
    what: &str,
    keyed: impl Iterator<Item = (&'a Name, String)>,
    twice: Option<&'static Explanation>,
    merged: &mut HashSet<Span>,
    sink: &mut Sink,
) {
    let mut first: HashMap<String, &Name> = HashMap::new();
    for (name, key) in keyed {
        let Some(other) = first.get(&key) else {
            first.insert(key, name);
            continue;
        };
        if other.text == name.text {
            let Some(code) = twice else { continue };
            let message = format!("{} is declared twice", name.quoted());
            let diagnostic = Diagnostic::new(code, name.span, message).label("again here");
            sink.push(diagnostic.related(other.span, "first declared here"));
            continue;
        }
        let message = format!(
            "{} and {} would both have {what} `{key}`",
            other.quoted(),
            name.quoted()
        );
        let diagnostic = Diagnostic::new(&codes::NAMES_MERGE, name.span, message)
            .label("becomes the same name")
            .related(other.span, "as this")
            .help("choose names that differ in more than case and `_`");
        sink.push(diagnostic);
        merged.extend([name.span, other.span]);
    }
}

fn members(item: &ast::Item, sink: &mut Sink) {
    match &item.kind {
        ItemKind::Const(..) => {}
        ItemKind::Struct(list) | ItemKind::Exception(list) => {
            list_names(list, Style::Snake, "members", sink);
        }
        ItemKind::Union(list) => list_names(list, Style::Snake, "cases", sink),
        ItemKind::Enum(list) => list_names(list, Style::Upper, "values", sink),
        ItemKind::Interface(interface) => interface_names(interface, sink),
    }
}

fn interface_names(interface: &ast::Interface, sink: &mut Sink) {
    if let Some(state) = &interface.state {
        list_names(&state.fields, Style::Snake, "members", sink);
        let base = state
            .fields
            .members
            .iter()
            .find(|member| member.name.text == "base");
        if let (Some(member), Some(_)) = (base, &interface.base) {
            reserved(&member.name, "the inherited state has it", sink);
        }
    }
    if let Some(new) = &interface.constructor {
        params(&new.params, sink);
    }
    let methods = &interface.methods.members;
    let names: Vec<&Name> = methods.iter().map(|method| &method.name).collect();
    distinct(&names, Style::Snake, "methods", sink);
    for method in methods {
        let name = method.name.text.as_str();
        let elsewhere = !interface.persistent && keyword::PERSISTENT_STUB_METHODS.contains(&name);
        if keyword::STUB_METHODS.contains(&name) && !elsewhere {
            let why = "every stub has a method of this name, or Rust gives it a meaning";
            reserved(&method.name, why, sink);
        }
        params(&method.params, sink);
    }
}

fn params(list: &List<Member>, sink: &mut Sink) {
    list_names(list, Style::Snake, "parameters", sink);
    for member in list
        .members
        .iter()
        .filter(|member| member.name.text == "context")
    {
        reserved(
            &member.name,
            "it is the first parameter of every call in Cap'n Proto",
            sink,
        );
    }
}

fn list_names(list: &List<Member>, style: Style, what: &str, sink: &mut Sink) {
    let names: Vec<&Name> = list.members.iter().map(|member| &member.name).collect();
    distinct(&names, style, what, sink);
}

fn distinct(names: &[&Name], style: Style, what: &str, sink: &mut Sink) {
    let mut merged = HashSet::new();
    let keyed = names
        .iter()
        .map(|name| (*name, name.text.to_lower_camel_case()));
    let twice = Some(&codes::MEMBER_TWICE);
    merge("the Cap'n Proto name", keyed, twice, &mut merged, sink);
    for name in names {
        if !merged.contains(&name.span) {
            spelling(name, style, what, sink);
        }
    }
}
