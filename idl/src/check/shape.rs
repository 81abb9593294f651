//! What types may contain, and how much.

use std::collections::{HashMap, HashSet};

use super::Subject;
use crate::ast::{self, List, Member, Name};
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::model::{Field, Interface, ItemId, ItemKind, Type, Variant};
use crate::source::Span;

pub(super) fn check(subject: &Subject<'_>, sink: &mut Sink) {
    counts(subject, sink);
    circles(subject, sink);
    kept_in_state(subject, sink);
    transient_members(subject, sink);
}

/// Neither too few members nor too many.
fn counts(subject: &Subject<'_>, sink: &mut Sink) {
    for (_, item, syntax) in subject.items() {
        let name = &syntax.name;
        match (&item.kind, &syntax.kind) {
            (ItemKind::Enum(values), ast::ItemKind::Enum(list)) => {
                too_few(name, list, 1, "an enum has at least one value", sink);
                too_many(subject, name, values.len(), sink);
            }
            (ItemKind::Union(cases), ast::ItemKind::Union(list)) => {
                too_few(name, list, 2, "a union has at least two cases", sink);
                let types = cases.iter().filter_map(|case| case.ty.as_ref());
                let bare = cases.iter().filter(|case| case.ty.is_none()).count();
                too_many(
                    subject,
                    name,
                    bare + types.map(capnp_members).sum::<usize>(),
                    sink,
                );
            }
            (ItemKind::Struct(fields) | ItemKind::Exception(fields), _) => {
                too_many(subject, name, members_of(fields), sink);
            }
            (ItemKind::Interface(interface), ast::ItemKind::Interface(written)) => {
                interface_counts(subject, name, interface, written, sink);
            }
            _ => {}
        }
    }
}

fn interface_counts(
    subject: &Subject<'_>,
    name: &Name,
    interface: &Interface,
    written: &ast::Interface,
    sink: &mut Sink,
) {
    too_many(subject, name, interface.methods.len(), sink);
    too_many(subject, name, 1 + members_of(&interface.state), sink);
    too_many(subject, name, members_of(&interface.constructor), sink);
    for (method, written) in interface.methods.iter().zip(&written.methods.members) {
        let context = 1;
        too_many(
            subject,
            &written.name,
            context + members_of(&method.params),
            sink,
        );
        too_many(subject, &written.name, 1 + method.raises.len(), sink);
    }
}

fn too_few(name: &Name, list: &List<Member>, min: usize, message: &str, sink: &mut Sink) {
    if list.members.len() < min && !list.damaged {
        let label = format!("has {}", list.members.len());
        sink.push(Diagnostic::new(&codes::MEMBERS_FEW, name.span, message).label(label));
    }
}

fn too_many(subject: &Subject<'_>, name: &Name, count: usize, sink: &mut Sink) {
    let max = subject.limits.members_max;
    if count > max {
        let message = format!("{} has {count} members, more than {max}", name.quoted());
        sink.push(Diagnostic::new(&codes::MEMBERS_MANY, name.span, message).label("too many"));
    }
}

fn members_of(fields: &[Field]) -> usize {
    fields.iter().map(|field| capnp_members(&field.ty)).sum()
}

/// An optional value that is no pointer becomes two members, one for its absence.
fn capnp_members(ty: &Type) -> usize {
    let Type::Option(inner) = ty else { return 1 };
    match &**inner {
        Type::Bool
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::F32
        | Type::F64
        | Type::Timestamp
        | Type::Duration
        | Type::Enum(_) => 2,
        Type::String
        | Type::Bytes
        | Type::Uid
        | Type::List(_)
        | Type::Map(..)
        | Type::Option(_)
        | Type::Struct(_)
        | Type::Union(_)
        | Type::Interface(_) => 1,
    }
}

/// A member type that holds another item, and where it is written.
type Edge = (ItemId, Span);

/// What a struct or union holds; with `all`, also what it holds in lists and maps.
fn edges(subject: &Subject<'_>, id: ItemId, all: bool) -> Vec<Edge> {
    let list = match &subject.syntax(id).kind {
        ast::ItemKind::Struct(list)
        | ast::ItemKind::Exception(list)
        | ast::ItemKind::Union(list) => list,
        ast::ItemKind::Const(..) | ast::ItemKind::Enum(_) | ast::ItemKind::Interface(_) => {
            return Vec::new();
        }
    };
    let types: Vec<Option<&Type>> = match &subject.model.item(id).kind {
        ItemKind::Struct(fields) | ItemKind::Exception(fields) => {
            fields.iter().map(|Field { ty, .. }| Some(ty)).collect()
        }
        ItemKind::Union(cases) => cases.iter().map(|Variant { ty, .. }| ty.as_ref()).collect(),
        ItemKind::Const(..) | ItemKind::Enum(_) | ItemKind::Interface(_) => Vec::new(),
    };
    let mut edges = Vec::new();
    for (ty, member) in types.into_iter().zip(&list.members) {
        let (Some(ty), Some(written)) = (ty, &member.ty) else {
            continue;
        };
        held(ty, all, &mut |id| edges.push((id, written.span)));
    }
    edges
}

/// Calls `found` with every item in a type; lists and maps are looked into only with `all`.
fn held(ty: &Type, all: bool, found: &mut impl FnMut(ItemId)) {
    match ty {
        Type::Struct(id) | Type::Union(id) | Type::Interface(id) => found(*id),
        Type::Option(inner) => held(inner, all, found),
        Type::List(inner) if all => held(inner, all, found),
        Type::Map(_, value) if all => held(value, all, found),
        Type::List(_)
        | Type::Map(..)
        | Type::Enum(_)
        | Type::Bool
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::F32
        | Type::F64
        | Type::String
        | Type::Bytes
        | Type::Uid
        | Type::Timestamp
        | Type::Duration => {}
    }
}

/// No value holds itself: its size would have no end.
fn circles(subject: &Subject<'_>, sink: &mut Sink) {
    let mut done: HashSet<ItemId> = HashSet::new();
    for (root, ..) in subject.items() {
        // The way from the root to where we are, each with the edges still to follow.
        let mut path: Vec<(ItemId, Vec<Edge>, Option<Span>)> = Vec::new();
        let mut on_path: HashSet<ItemId> = HashSet::new();
        if !done.contains(&root) {
            on_path.insert(root);
            path.push((root, edges(subject, root, false), None));
        }
        while let Some((id, left, followed)) = path.last_mut() {
            let Some((next, span)) = left.pop() else {
                done.insert(*id);
                on_path.remove(id);
                path.pop();
                continue;
            };
            *followed = Some(span);
            if on_path.contains(&next) {
                // Of a circle that nobody will read about the first step is enough.
                let from = if sink.is_full() { path.len() - 1 } else { 0 };
                let steps: Vec<(ItemId, Span)> = path[from..]
                    .iter()
                    .skip_while(|(id, ..)| from == 0 && *id != next)
                    .filter_map(|(id, _, span)| Some((*id, (*span)?)))
                    .collect();
                circle(subject, &steps, sink);
            } else if !done.contains(&next) {
                on_path.insert(next);
                path.push((next, edges(subject, next, false), None));
            }
        }
    }
}

fn circle(subject: &Subject<'_>, steps: &[(ItemId, Span)], sink: &mut Sink) {
    const NAMES_MAX: usize = 8;
    let Some(((first, span), rest)) = steps.split_first() else {
        return;
    };
    let name = |id: &ItemId| subject.model.item(*id).name.as_str();
    let mut names: Vec<&str> = steps
        .iter()
        .take(NAMES_MAX)
        .map(|(id, _)| name(id))
        .collect();
    if steps.len() > NAMES_MAX {
        names.push("…");
    }
    names.push(name(first));
    let message = format!(
        "`{}` holds itself, so it has no finite size: {}",
        name(first),
        names.join(" → ")
    );
    let mut diagnostic = Diagnostic::new(&codes::VALUE_CYCLE, *span, message)
        .label("holds itself")
        .help("break the circle with a `list` or a `map`, which may be empty");
    for (_, span) in rest.iter().take(NAMES_MAX) {
        diagnostic = diagnostic.related(*span, "through this");
    }
    sink.push(diagnostic);
}

/// State is stored, and what is stored refers to persistent objects only.
fn kept_in_state(subject: &Subject<'_>, sink: &mut Sink) {
    let fleeting = holders_of_transient(subject);
    for (_, item, syntax) in subject.items() {
        let (ItemKind::Interface(interface), ast::ItemKind::Interface(written)) =
            (&item.kind, &syntax.kind)
        else {
            continue;
        };
        if !interface.persistent {
            continue;
        }
        if let Some(state) = &written.state {
            let fields = interface.state.iter().zip(&state.fields.members);
            storable(subject, fields, &fleeting, "kept in state", sink);
        }
        if let Some(new) = &written.constructor {
            let params = interface.constructor.iter().zip(&new.params.members);
            storable(subject, params, &fleeting, "given to `new`", sink);
        }
    }
}

fn storable<'a>(
    subject: &Subject<'_>,
    members: impl Iterator<Item = (&'a Field, &'a Member)>,
    fleeting: &HashMap<ItemId, ItemId>,
    what: &str,
    sink: &mut Sink,
) {
    for (field, member) in members {
        let mut found = None;
        held(&field.ty, true, &mut |id| {
            found = found.or_else(|| Some((id, *fleeting.get(&id)?)))
        });
        let (Some((holder, interface)), Some(ty)) = (found, &member.ty) else {
            continue;
        };
        let name = &subject.model.item(interface).name;
        let message = format!("`{name}` is not persistent and cannot be {what}");
        let label = if holder == interface {
            "not persistent".to_owned()
        } else {
            format!("`{}` holds it", subject.model.item(holder).name)
        };
        let diagnostic = Diagnostic::new(&codes::STATE_TRANSIENT, ty.span, message)
            .label(label)
            .related(
                subject.syntax(interface).name.span,
                "declared here without `persistent`",
            );
        sink.push(diagnostic);
    }
}

/// Transient interfaces, and the structs and unions that hold one, each with the interface.
fn holders_of_transient(subject: &Subject<'_>) -> HashMap<ItemId, ItemId> {
    let mut held_by: HashMap<ItemId, Vec<ItemId>> = HashMap::new();
    let mut holders: HashMap<ItemId, ItemId> = HashMap::new();
    let mut fresh: Vec<ItemId> = Vec::new();
    for (id, item, _) in subject.items() {
        for (inner, _) in edges(subject, id, true) {
            held_by.entry(inner).or_default().push(id);
        }
        if matches!(&item.kind, ItemKind::Interface(interface) if !interface.persistent) {
            holders.insert(id, id);
            fresh.push(id);
        }
    }
    while let Some(inner) = fresh.pop() {
        let interface = holders[&inner];
        for outer in held_by.get(&inner).into_iter().flatten() {
            if holders.insert(*outer, interface).is_none() {
                fresh.push(*outer);
            }
        }
    }
    holders
}

/// `state` and `new` belong to persistent interfaces.
fn transient_members(subject: &Subject<'_>, sink: &mut Sink) {
    for (_, _, syntax) in subject.items() {
        let ast::ItemKind::Interface(interface) = &syntax.kind else {
            continue;
        };
        if interface.persistent {
            continue;
        }
        let state = interface
            .state
            .as_ref()
            .map(|state| (state.keyword, "state"));
        let new = interface
            .constructor
            .as_ref()
            .map(|new| (new.keyword, "new"));
        for (span, what) in state.into_iter().chain(new) {
            let name = &syntax.name;
            let message = format!("{} is not persistent and has no `{what}`", name.quoted());
            let diagnostic = Diagnostic::new(&codes::TRANSIENT_MEMBER, span, message)
                .label("only in a `persistent interface`")
                .related(name.span, "declared without `persistent`");
            sink.push(diagnostic);
        }
    }
}
