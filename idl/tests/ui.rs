//! The corpus: every `.idl` file under `ui` is a test.
//!
//! `pass` compiles without a word and its model is in `.model`; `warn` compiles with the warnings
//! in `.stderr`; `fail` does not compile, with the errors in `.stderr`. `BLESS=1` rewrites the
//! expected files. A line `// test: name = value` sets a limit, or names another root.

mod dump;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use partha_idl::{Limits, SourceMap, compile, explanations};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("every code has a file", every_code_has_a_file),
        Trial::test("every expectation has a file", every_expectation_has_a_file),
    ];
    for (folder, kind) in [
        ("pass", Kind::Pass),
        ("warn", Kind::Warn),
        ("fail", Kind::Fail),
    ] {
        for path in files(&ui().join(folder), "idl") {
            let name = format!("{folder}/{}", stem(&path));
            trials.push(Trial::test(name, move || one(&path, kind)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pass,
    Warn,
    Fail,
}

fn one(path: &Path, kind: Kind) -> Result<(), Failed> {
    let folder = path.parent().expect("a file in a folder");
    let mut sources = SourceMap::new();
    sources.add_include(folder.join("support"));
    sources.add_include(folder);
    sources.add_builtin(
        "partha.idl",
        "module partha;\n\npersistent interface Object { }\n",
    );
    let mut roots = vec![path.to_owned()];
    directives(path, &mut sources, &mut roots);
    match (compile(&mut sources, &roots), kind) {
        (Ok(model), Kind::Pass | Kind::Warn) => {
            let warnings = sources.warnings();
            if kind == Kind::Pass && !warnings.is_empty() {
                return Err(format!("warnings:\n{warnings}").into());
            }
            if kind == Kind::Warn {
                expect(
                    &path.with_extension("stderr"),
                    &relative(&warnings.render(false)),
                )?;
            }
            expect(&path.with_extension("model"), &dump::model(&model))
        }
        (Err(diagnostics), Kind::Fail) => {
            let text = relative(&diagnostics.render(false));
            if text.contains("\u{1b}") {
                return Err("escape characters in plain output".into());
            }
            expect(&path.with_extension("stderr"), &text)
        }
        (Ok(_), Kind::Fail) => Err("compiles, but stands in `fail`".into()),
        (Err(diagnostics), Kind::Pass | Kind::Warn) => Err(diagnostics.to_string().into()),
    }
}

fn directives(path: &Path, sources: &mut SourceMap, roots: &mut Vec<PathBuf>) {
    let text = String::from_utf8_lossy(&fs::read(path).expect("a file of the corpus")).into_owned();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("// test: "));
    for (name, value) in lines.filter_map(|line| line.split_once(" = ")) {
        if name == "roots" {
            roots.push(path.with_file_name(value));
            continue;
        }
        let mut limits: Limits = sources.limits();
        let limit = match name {
            "file_bytes_max" => &mut limits.file_bytes_max,
            "members_max" => &mut limits.members_max,
            "bases_max" => &mut limits.bases_max,
            "diagnostics_max" => &mut limits.diagnostics_max,
            other => panic!("no directive `{other}`"),
        };
        *limit = value.parse().expect("a number");
        sources.set_limits(limits);
    }
}

fn every_code_has_a_file() -> Result<(), Failed> {
    let mut expected = String::new();
    for folder in ["warn", "fail"] {
        for path in files(&ui().join(folder), "stderr") {
            expected.push_str(&fs::read_to_string(path)?);
        }
    }
    let missing: Vec<&str> = explanations()
        .iter()
        .map(|known| known.code)
        .filter(|code| !expected.contains(&format!("[{code}]")))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("without a file: {missing:?}").into())
    }
}

fn every_expectation_has_a_file() -> Result<(), Failed> {
    let orphans: Vec<PathBuf> = ["pass", "warn", "fail"]
        .iter()
        .flat_map(|folder| ["model", "stderr"].map(|kind| files(&ui().join(folder), kind)))
        .flatten()
        .filter(|path| !path.with_extension("idl").exists())
        .collect();
    if orphans.is_empty() {
        Ok(())
    } else {
        Err(format!("left over: {orphans:?}").into())
    }
}

fn expect(path: &Path, actual: &str) -> Result<(), Failed> {
    test_support::bless::compare(path, actual).map_err(|mismatch| mismatch.to_string().into())
}

/// Paths as they look from the corpus, wherever the checkout lies.
fn relative(text: &str) -> String {
    text.replace(&format!("{}/", ui().display()), "")
}

fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui")
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the corpus");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let sorted: BTreeSet<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    sorted.into_iter().collect()
}
