//! The back end of Partha's IDL compiler.

mod cgr;
mod codec;
mod error;
mod format;
pub mod ids;
mod intrinsic;
pub mod layout;
mod lower;
mod names;
mod node;
mod plain;
mod rust;
mod schema;
mod shape;
mod skeleton;
mod state;
mod stub;
mod types;

use std::collections::BTreeMap;

use partha_idl::model::{Model, ModuleId};

/// How to generate.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Rust path of the runtime crate.
    pub runtime: String,
    /// Rust paths of IDL modules that are generated elsewhere; others are expected beside the
    /// module that imports them.
    pub modules: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            runtime: "::partha".to_owned(),
            modules: BTreeMap::new(),
        }
    }
}

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
pub fn generate(model: &Model, options: &Options) -> Vec<Output> {
    let schema = lower::lower(model);
    let mut out = Vec::new();
    for (index, file) in schema.files.iter().enumerate() {
        let source = format!("{}.idl", file.module);
        if let Some(id) = model.modules.iter().position(|m| m.name == file.module) {
            let text = rust::file(model, options, ModuleId(id as u32), &source);
            out.push(Output {
                file_name: format!("{}.rs", file.module),
                bytes: text.into(),
            });
        }
        let text = schema::text(&schema, index, &source);
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
