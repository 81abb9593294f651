//! No two modules or declarations have the same id.

use std::collections::HashMap;

use super::Subject;
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::source::Span;

pub(super) fn check(subject: &Subject<'_>, sink: &mut Sink) {
    let mut holders: HashMap<u64, (String, Span)> = HashMap::new();
    let modules = subject
        .model
        .modules
        .iter()
        .zip(&subject.load.order)
        .map(|(module, number)| {
            let loaded = &subject.load.modules[*number];
            let start = Span {
                file: loaded.file,
                start: 0,
                end: 0,
            };
            let name = loaded.unit.name.as_ref().map_or(start, |name| name.span);
            let span = loaded.unit.id.map_or(name, |(_, span)| span);
            (module.id, format!("module `{}`", module.name), span)
        });
    let items = subject.items().map(|(_, item, syntax)| {
        let module = &subject.model.module(item.module).name;
        (
            item.id,
            format!("`{module}.{}`", item.name),
            syntax.name.span,
        )
    });
    for (id, name, span) in modules.chain(items) {
        // Declared twice, and so complained about: the same name has the same id.
        let Some((other, first)) = holders.get(&id).filter(|(other, _)| *other != name) else {
            holders.entry(id).or_insert((name, span));
            continue;
        };
        let message = format!("{name} has the same id as {other}: {id:#018x}");
        let diagnostic = Diagnostic::new(&codes::ID_COLLISION, span, message)
            .label("same id")
            .related(*first, "as this")
            .help("give one module another `#[id(0x…)]`");
        sink.push(diagnostic);
    }
}
