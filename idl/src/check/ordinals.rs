//! Ordinals: the order of declaration, or as pinned by `@n`.

use crate::ast::{List, Member, Method, Name, Ordinal};
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};

/// What can have an ordinal.
pub(crate) trait Numbered {
    fn name(&self) -> &Name;
    fn ordinal(&self) -> Option<Ordinal>;
}

impl Numbered for Member {
    fn name(&self) -> &Name {
        &self.name
    }

    fn ordinal(&self) -> Option<Ordinal> {
        self.ordinal
    }
}

impl Numbered for Method {
    fn name(&self) -> &Name {
        &self.name
    }

    fn ordinal(&self) -> Option<Ordinal> {
        self.ordinal
    }
}

/// The ordinal of each member: dense from 0 and unique, or there is a complaint.
pub(crate) fn assign<T: Numbered>(list: &List<T>, sink: &mut Sink) -> Vec<u16> {
    let members = &list.members;
    let by_order = (0..members.len()).map(|index| index as u16);
    let pinned = members
        .iter()
        .filter(|member| member.ordinal().is_some())
        .count();
    // Members that could not be read would make holes.
    if pinned == 0 || list.damaged {
        return by_order.collect();
    }
    if pinned < members.len() {
        not_all_pinned(members, sink);
        return by_order.collect();
    }
    let mut holders: Vec<Option<&T>> = members.iter().map(|_| None).collect();
    for member in members {
        let Some(ordinal) = member.ordinal() else {
            continue;
        };
        match holders.get_mut(ordinal.value as usize) {
            None => out_of_range(member.name(), ordinal, members.len(), sink),
            Some(Some(first)) => twice(ordinal, first.name(), sink),
            Some(holder) => *holder = Some(member),
        }
    }
    members
        .iter()
        .filter_map(Numbered::ordinal)
        .map(|ordinal| ordinal.value as u16)
        .collect()
}

fn not_all_pinned<T: Numbered>(members: &[T], sink: &mut Sink) {
    let bare = members.iter().find(|member| member.ordinal().is_none());
    let first = members.iter().find_map(Numbered::ordinal);
    let (Some(bare), Some(first)) = (bare, first) else {
        return;
    };
    let message = format!(
        "{} has no ordinal, but others here have",
        bare.name().quoted()
    );
    let diagnostic = Diagnostic::new(&codes::ORDINALS_MIXED, bare.name().span, message)
        .label("no `@n` behind this name")
        .related(first.span, "pinned here")
        .help("pin all members of a list or none");
    sink.push(diagnostic);
}

fn out_of_range(name: &Name, ordinal: Ordinal, count: usize, sink: &mut Sink) {
    let message = format!(
        "ordinal {} of {} leaves a gap",
        ordinal.value,
        name.quoted()
    );
    let last = count - 1;
    let diagnostic = Diagnostic::new(&codes::ORDINAL_GAP, ordinal.span, message)
        .label(format!("{count} members have the ordinals 0 to {last}"))
        .help("a member that is gone keeps its ordinal: leave it in, `#[deprecated(\"…\")]`");
    sink.push(diagnostic);
}

fn twice(ordinal: Ordinal, first: &Name, sink: &mut Sink) {
    let message = format!("ordinal {} is taken by {}", ordinal.value, first.quoted());
    let diagnostic = Diagnostic::new(&codes::ORDINAL_TWICE, ordinal.span, message)
        .label("taken")
        .related(first.span, "has it already");
    sink.push(diagnostic);
}
