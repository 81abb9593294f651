//! The rules of the language that need more than one name at a time.
//!
//! Each rule is a function; all run, none stops at the first complaint. They get the model and
//! the syntax it was made from, item by item.

pub(crate) mod constant;
mod ids;
mod inheritance;
mod methods;
mod names;
pub(crate) mod ordinals;
mod shape;

use crate::ast;
use crate::diagnostic::Sink;
use crate::load::Load;
use crate::model::{Item, ItemId, Model};
use crate::scope::Scopes;
use crate::source::{Limits, SourceMap};

/// What a rule may look at.
pub(crate) struct Subject<'a> {
    pub(crate) load: &'a Load,
    pub(crate) model: &'a Model,
    pub(crate) scopes: &'a Scopes<'a>,
    pub(crate) limits: Limits,
}

impl<'a> Subject<'a> {
    /// Every item with its syntax.
    fn items(&self) -> impl Iterator<Item = (ItemId, &'a Item, &'a ast::Item)> {
        let syntax = self.scopes.items.iter().map(|(item, _)| *item);
        let numbered = self.model.items.iter().zip(syntax).enumerate();
        numbered.map(|(id, (item, syntax))| (ItemId(id as u32), item, syntax))
    }

    fn syntax(&self, id: ItemId) -> &'a ast::Item {
        self.scopes.items[id.0 as usize].0
    }
}

/// Cuts circles of inheritance, then applies every rule.
pub(crate) fn check(
    sources: &SourceMap,
    load: &Load,
    scopes: &Scopes<'_>,
    model: &mut Model,
    sink: &mut Sink,
) {
    let limits = sources.limits();
    inheritance::cut_circles(scopes, model, limits, sink);
    let subject = Subject {
        load,
        model,
        scopes,
        limits,
    };
    names::check(&subject, sink);
    inheritance::check(&subject, sink);
    shape::check(&subject, sink);
    methods::check(&subject, sink);
    ids::check(&subject, sink);
}
