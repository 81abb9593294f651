//! Generates the corpus: all IDL files that the front end's tests accept, and those in `idl`.
//!
//! Beside the generated modules it writes a sample of each value type, for the tests to carry
//! through messages.

mod samples;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use partha_codegen::{Options, generate, idl, sources, write};

fn main() {
    let folders = ["idl", "../../idl/tests/ui/pass"];
    let mut paths = Vec::new();
    for folder in folders {
        println!("cargo::rerun-if-changed={folder}");
        paths.extend(idl_files(Path::new(folder)));
    }
    let model = match idl::compile(&mut sources(), &paths) {
        Ok(model) => model,
        Err(errors) => {
            eprint!("{}", errors.render(false));
            std::process::exit(1);
        }
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut outputs = generate(&model, &Options::default());
    let mut modules = String::new();
    for module in model.modules.iter().filter(|module| module.requested) {
        let name = &module.name;
        let _ = writeln!(modules, "/// From `{name}.idl`.\npub mod {name} {{");
        let _ = writeln!(
            modules,
            "include!(concat!(env!(\"OUT_DIR\"), \"/{name}.rs\"));\n}}"
        );
    }
    for (file_name, text) in [
        ("modules.rs", modules),
        ("samples.rs", samples::emit(&model)),
    ] {
        outputs.push(partha_codegen::Output {
            file_name: file_name.to_owned(),
            bytes: text.into(),
        });
    }
    write(&outputs, &out).expect("OUT_DIR can be written");
}

fn idl_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let mut found: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "idl"))
        .collect();
    found.sort();
    found
}
