//! The IDL files of the repository as models.

use std::path::{Path, PathBuf};

use partha_idl::model::Model;

/// All files that the front end's tests accept.
pub(crate) fn model() -> Model {
    compile(&files(&root().join("idl/tests/ui/pass")))
}

/// The system's own interfaces.
pub(crate) fn system() -> Model {
    compile(&files(&root().join("runtime/idl")))
}

/// One file of the front end's tests.
pub(crate) fn one(name: &str) -> Model {
    some(&[name])
}

/// Some files of the front end's tests.
pub(crate) fn some(names: &[&str]) -> Model {
    let path = |name| root().join(format!("idl/tests/ui/pass/{name}.idl"));
    compile(&names.iter().map(path).collect::<Vec<_>>())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "idl"))
        .collect();
    paths.sort();
    paths
}

fn compile(paths: &[PathBuf]) -> Model {
    partha_idl::compile(&mut partha_codegen::sources(), paths)
        .unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}
