//! The back end of Partha's IDL compiler: from a resolved model to Rust, `.capnp` and `.cgr`.
//!
//! For `bank.idl` it makes
//!
//! | file | what |
//! |---|---|
//! | `bank.rs` | plain types, client stubs, servant traits, skeletons, codecs |
//! | `bank.capnp` | the same interfaces for other languages |
//! | `bank.cgr` | the CodeGeneratorRequest, for reflection and for `capnpc-*` plug-ins |
//! | `partha.capnp` | what the others import, unless it is generated itself |
//!
//! Three ways in: [`generate`] with [`fn@write`] (behind `partha generate`), [`check`] for
//! continuous integration, and [`compile`] or [`Builder`] in a `build.rs`.
//!
//! Stages: `shape` and `layout` place members; `lower` makes Cap'n Proto nodes, which `schema`
//! prints and `cgr` encodes; `rust` and the modules below it emit Rust with the same places.
//! Layout and ids agree with the official `capnp` compiler bit by bit, which is not needed: no
//! foreign tool is run.
//!
//! Invariants: the output depends on the model and the options alone, so that it can be committed
//! and compared; a resolved model never makes a stage fail.

mod builder;
mod cgr;
mod codec;
mod error;
mod format;
mod fresh;
pub mod ids;
mod intrinsic;
pub mod layout;
mod lower;
mod names;
mod node;
mod parallel;
mod plain;
mod rust;
mod schema;
mod shape;
mod skeleton;
mod state;
mod stub;
mod system;
mod types;

use std::collections::BTreeMap;

use partha_idl::model::{Model, Module, ModuleId};

pub use builder::{Builder, Error, compile};
pub use fresh::{check, write};
/// The front end, for build scripts that look into a model themselves.
pub use partha_idl as idl;
pub use system::{SYSTEM_IDL, sources};

/// How to generate.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Rust path of the runtime crate.
    pub runtime: String,
    /// Rust paths of IDL modules that are generated elsewhere, by module name. Others are
    /// expected beside the module that imports them, the system module in the runtime.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name, without folder.
    pub file_name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Generates the files of all modules that were asked for, and what they import of the system.
#[must_use]
pub fn generate(model: &Model, options: &Options) -> Vec<Output> {
    let rust = || {
        let mut outputs = Vec::new();
        for (index, module) in (0..).zip(&model.modules) {
            if module.requested {
                let text = rust::file(model, options, ModuleId(index), &source(module));
                outputs.push(Output {
                    file_name: format!("{}.rs", module.name),
                    bytes: text.into(),
                });
            }
        }
        outputs
    };
    let (mut outputs, schemas) = parallel::both(rust, || schemas(model));
    outputs.extend(schemas);
    outputs
}

/// The part of [`generate`] that is not Rust: `.capnp` and `.cgr` files.
#[must_use]
pub fn schemas(model: &Model) -> Vec<Output> {
    let schema = lower::lower(model);
    let mut outputs = Vec::new();
    let mut output = |module: &str, extension: &str, bytes: Vec<u8>| {
        outputs.push(Output {
            file_name: format!("{module}.{extension}"),
            bytes,
        });
    };
    let (mut system_used, mut system_asked) = (false, false);
    for (index, file) in schema.files.iter().enumerate() {
        let mut modules = model.modules.iter().filter(|module| module.requested);
        let Some(module) = modules.find(|module| module.name == file.module) else {
            continue;
        };
        output(
            &file.module,
            "capnp",
            schema::text(&schema, index, &source(module)).into(),
        );
        output(&file.module, "cgr", cgr::request(&schema, index));
        system_used |= file
            .imports
            .iter()
            .any(|import| import.file == schema.system);
        system_asked |= index == schema.system;
    }
    if system_used && !system_asked {
        let text = schema::text(&schema, schema.system, &source(system::module()));
        output(&schema.files[schema.system].module, "capnp", text.into());
    }
    outputs
}

/// What a file was made from, for its first line. Line ends do not count.
fn source(module: &Module) -> String {
    let hash = state::fnv(module.source.replace("\r\n", "\n").as_bytes());
    format!("{}.idl (source {hash:016x})", module.name)
}
