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
