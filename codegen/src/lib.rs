//! The back end of Partha's IDL compiler.

mod cgr;
pub mod ids;
mod intrinsic;
pub mod layout;
mod lower;
mod names;
mod node;
mod schema;
mod shape;

use partha_idl::model::Model;

/// How to generate.
#[derive(Clone, Debug, Default)]
pub struct Options {}

/// A generated file.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name, without folder.
    pub file_name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Generates all files for the requested modules of `model`.
#[must_use]
pub fn generate(model: &Model, _options: &Options) -> Vec<Output> {
    let schema = lower::lower(model);
    let mut out = Vec::new();
    for (index, file) in schema.files.iter().enumerate() {
        let text = schema::text(&schema, index, &format!("{}.idl", file.module));
        out.push(Output {
            file_name: format!("{}.capnp", file.module),
            bytes: text.into(),
        });
        let bytes = cgr::request(&schema, index);
        out.push(Output {
            file_name: format!("{}.cgr", file.module),
            bytes,
        });
    }
    out
}
