//! Front end of the Partha interface definition language.
//!
//! [`compile`] reads `.idl` files and returns a [`model::Model`], which is checked and resolved,
//! or [`Diagnostics`] that say what is wrong and where. The stages, in order:
//!
//! 1. `scan`: brackets, strings and comments; then proc-macro2's lexer
//! 2. `parse`: tokens to syntax (`ast`), going on after errors
//! 3. `load`: imports, until every module is read
//! 4. `scope`, `resolve`: names to ids, syntax to the model
//! 5. `check`: the rules that need the whole
//!
//! No input makes it panic or hang: sizes and depths are bounded by [`Limits`], walks over what
//! the user wrote are loops or have a bounded depth. Generating code is not done here.

mod ast;
mod check;
mod codes;
mod cursor;
mod diagnostic;
pub mod id;
mod keyword;
mod load;
pub mod model;
mod parse;
mod render;
mod resolve;
mod scan;
mod scope;
mod source;
mod suggest;

use std::path::PathBuf;

pub use codes::{Explanation, explain, explanations};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use model::Model;
pub use source::{Limits, SourceMap};

/// Compiles the modules in `roots` and everything they import.
///
/// After a success [`SourceMap::warnings`] tells what is worth a change.
///
/// # Errors
///
/// All errors and warnings of the run, each cause once.
pub fn compile(sources: &mut SourceMap, roots: &[PathBuf]) -> Result<Model, Diagnostics> {
    sources.files.clear();
    sources.warnings = Diagnostics::default();
    let mut sink = diagnostic::Sink::new(sources.limits().diagnostics_max);
    let load = load::load(sources, roots, &mut sink);
    let scopes = scope::collect(&load, &mut sink);
    let mut model = resolve::resolve(sources, &load, &scopes, &mut sink);
    check::check(sources, &load, &scopes, &mut model, &mut sink);
    if sink.has_errors() {
        return Err(sink.finish(sources));
    }
    scope::unused(&load, &scopes, &mut sink);
    sources.warnings = sink.finish(sources);
    Ok(model)
}
