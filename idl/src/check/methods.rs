//! Attributes that do not fit their method.

use super::Subject;
use crate::ast::{Interface, ItemKind, Method};
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};

pub(super) fn check(subject: &Subject<'_>, sink: &mut Sink) {
    for (_, _, syntax) in subject.items() {
        if let ItemKind::Interface(interface) = &syntax.kind {
            for method in &interface.methods.members {
                upgrade(interface, method, sink);
                any_replica(interface, method, sink);
            }
        }
    }
}

/// `#[upgrade]` is for reading methods of objects that take part in actions.
fn upgrade(interface: &Interface, method: &Method, sink: &mut Sink) {
    let Some(span) = method.attributes.upgrade else {
        return;
    };
    let (message, label, help) = if method.mutating {
        (
            "`#[upgrade]` has no meaning for a method that changes its object",
            "the method has `&mut self`",
            "leave it out: `&mut self` takes a write lock from the start",
        )
    } else if interface.persistent {
        return;
    } else {
        (
            "`#[upgrade]` has no meaning for an object that is not persistent",
            "the interface is not persistent",
            "leave it out: such an object takes no part in actions",
        )
    };
    let diagnostic = Diagnostic::new(&codes::UPGRADE_METHOD, span, message);
    sink.push(diagnostic.label(label).help(help));
}

/// `#[any_replica]` is for reading methods of objects that can have copies.
fn any_replica(interface: &Interface, method: &Method, sink: &mut Sink) {
    let Some(span) = method.attributes.any_replica else {
        return;
    };
    let (message, label, help) = if method.mutating {
        (
            "`#[any_replica]` has no meaning for a method that changes its object",
            "the method has `&mut self`",
            "leave it out: changes go through the copy that leads",
        )
    } else if !interface.persistent {
        (
            "`#[any_replica]` has no meaning for an object that is not persistent",
            "the interface is not persistent",
            "leave it out: such an object has no copies",
        )
    } else if method.attributes.upgrade.is_some() {
        (
            "`#[any_replica]` and `#[upgrade]` exclude each other",
            "the method has `#[upgrade]`",
            "leave one of them out: who is going to change the object reads it at the copy that \
             leads",
        )
    } else {
        return;
    };
    let diagnostic = Diagnostic::new(&codes::ANY_REPLICA_METHOD, span, message);
    sink.push(diagnostic.label(label).help(help));
}
