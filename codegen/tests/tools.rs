//! Other tools accept the `.cgr` files: Cap'n Proto's plug-ins and Python's schema loader.

#![allow(dead_code, reason = "shared helpers are used in part by each test")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::corpus;
use partha_codegen::{schemas, write};
use test_support::{TempDir, require_python, require_tool, temp_dir};

/// A folder with the schemas of the corpus and of the system.
fn schemas_on_disk() -> TempDir {
    let folder = temp_dir("tools");
    for model in [corpus::model(), corpus::system()] {
        write(&schemas(&model), folder.path()).expect("schemas are written");
    }
    folder
}

fn requests(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "cgr"))
        .collect()
}

/// Feeds each request to a plug-in, which must accept it in silence.
fn plug_in(name: &str) {
    let Some(program) = require_tool(name) else {
        return;
    };
    let (folder, out) = (schemas_on_disk(), temp_dir("plug-in"));
    let requests = requests(folder.path());
    assert!(requests.len() > 15, "the corpus is gone");
    for request in requests {
        let input = std::fs::File::open(&request).expect("a request");
        let output = Command::new(&program)
            .current_dir(out.path())
            .env_remove("PWD")
            .stdin(Stdio::from(input))
            .output()
            .expect("the plug-in runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", request.display());
    }
}

#[test]
fn the_plug_in_for_cpp_accepts_them() {
    plug_in("capnpc-c++");
}

#[test]
fn the_plug_in_that_prints_schemas_accepts_them() {
    plug_in("capnpc-capnp");
}

#[test]
fn pythons_schema_loader_accepts_them() {
    const SCRIPT: &str = "
import capnp, os, sys
own = os.path.dirname(capnp.__file__)
schema = capnp.load(os.path.join(own, 'schema.capnp'), imports=[os.path.dirname(own)])
count = 0
for path in sys.argv[1:]:
    with open(path, 'rb') as file:
        request = schema.CodeGeneratorRequest.read(file, traversal_limit_in_words=1 << 40)
    loader = capnp.SchemaLoader()
    for node in request.nodes:
        loader.load_dynamic(node)
    for node in request.nodes:
        loader.get(node.id)
        count += 1
print(count)
";
    let Some(python) = require_python("capnp") else {
        return;
    };
    let folder = schemas_on_disk();
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .args(requests(folder.path()))
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let count: usize = text
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{text}{errors}"));
    assert!(count > 500, "only {count} nodes");
}
