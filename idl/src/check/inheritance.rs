//! Inheritance: no circles, no endless lines, no method twice in one line.

use std::collections::HashMap;

use heck::ToLowerCamelCase;

use super::Subject;
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::model::{ItemId, ItemKind, Model};
use crate::scope::Scopes;
use crate::source::{Limits, Span};

/// Complains of every circle and of lines that are too long, and takes away the base of the
/// interface where it did: afterwards [`Model::ancestry`] ends.
pub(super) fn cut_circles(scopes: &Scopes<'_>, model: &mut Model, limits: Limits, sink: &mut Sink) {
    // How many bases an interface has, once known; `usize::MAX` while it is being found out.
    let mut depths: HashMap<ItemId, usize> = HashMap::new();
    for number in 0..model.items.len() {
        let mut line = Vec::new();
        let mut next = Some(ItemId(number as u32)).filter(|id| is_interface(model, *id));
        let mut depth = 0;
        while let Some(id) = next {
            match depths.get(&id) {
                Some(&usize::MAX) => {
                    circle(scopes, model, &line, id, sink);
                    break;
                }
                Some(known) => {
                    depth = known + 1;
                    break;
                }
                None => {
                    depths.insert(id, usize::MAX);
                    line.push(id);
                    next = model.interface(id).base;
                }
            }
        }
        for id in line.into_iter().rev() {
            if depth > limits.bases_max {
                too_long(scopes, model, id, limits, sink);
                depth = 0;
            }
            depths.insert(id, depth);
            depth += 1;
        }
    }
}

fn is_interface(model: &Model, id: ItemId) -> bool {
    matches!(model.item(id).kind, ItemKind::Interface(_))
}

/// `line` ends with the interface whose base is `first`, which stands in it, too.
fn circle(scopes: &Scopes<'_>, model: &mut Model, line: &[ItemId], first: ItemId, sink: &mut Sink) {
    const NAMES_MAX: usize = 8;
    let from = line.iter().position(|id| *id == first).unwrap_or(0);
    let Some(last) = line.last().copied() else {
        return;
    };
    let mut names: Vec<&str> = line[from..]
        .iter()
        .take(NAMES_MAX)
        .map(|id| model.item(*id).name.as_str())
        .collect();
    if line.len() - from > NAMES_MAX {
        names.push("…");
    }
    names.push(&model.item(first).name);
    let message = format!(
        "interfaces inherit from each other in a circle: {}",
        names.join(" → ")
    );
    let diagnostic = Diagnostic::new(&codes::BASE_CYCLE, base_span(scopes, last), message);
    sink.push(diagnostic.label("closes the circle"));
    cut(model, last);
}

fn too_long(scopes: &Scopes<'_>, model: &mut Model, id: ItemId, limits: Limits, sink: &mut Sink) {
    let message = format!(
        "more than {} interfaces inherit one from the other",
        limits.bases_max
    );
    let diagnostic = Diagnostic::new(&codes::BASES_MANY, base_span(scopes, id), message);
    sink.push(diagnostic.label("one too many"));
    cut(model, id);
}

fn cut(model: &mut Model, id: ItemId) {
    if let ItemKind::Interface(interface) = &mut model.items[id.0 as usize].kind {
        interface.base = None;
    }
}

fn base_span(scopes: &Scopes<'_>, id: ItemId) -> Span {
    let item = scopes.items[id.0 as usize].0;
    match &item.kind {
        crate::ast::ItemKind::Interface(interface) => interface
            .base
            .as_ref()
            .map_or(item.name.span, |base| base.span),
        _ => item.name.span,
    }
}

/// No method has the name of an inherited one.
pub(super) fn check(subject: &Subject<'_>, sink: &mut Sink) {
    let mut own: HashMap<ItemId, HashMap<String, Span>> = HashMap::new();
    for (id, _, syntax) in subject.items() {
        if let crate::ast::ItemKind::Interface(interface) = &syntax.kind {
            let names = interface.methods.members.iter().map(|method| &method.name);
            let keyed = names.map(|name| (name.text.to_lower_camel_case(), name.span));
            own.insert(id, keyed.collect());
        }
    }
    for (id, _, syntax) in subject.items() {
        let crate::ast::ItemKind::Interface(interface) = &syntax.kind else {
            continue;
        };
        let bases: Vec<ItemId> = subject.model.ancestry(id).skip(1).collect();
        for method in &interface.methods.members {
            let key = method.name.text.to_lower_camel_case();
            let found = bases
                .iter()
                .find_map(|base| Some((*base, *own[base].get(&key)?)));
            let Some((base, span)) = found else { continue };
            let base = &subject.syntax(base).name;
            let message = format!(
                "method {} is inherited from {} and cannot be declared again",
                method.name.quoted(),
                base.quoted()
            );
            let diagnostic = Diagnostic::new(&codes::INHERITED_TWICE, method.name.span, message)
                .label("declared again")
                .related(span, "inherited from here");
            sink.push(diagnostic);
        }
    }
}
