//! `cargo xtask codegen [--check]`: the committed files that come from our own interfaces.
//!
//! The services of the runtime are described in our own language, and what the compiler makes of
//! them is committed, so that building the runtime needs no generator and its text can be read.
//! This command writes those files, or with `--check` compares them. It reads the descriptions
//! under paths that begin at the workspace, so that the output is the same on every machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use partha_codegen::Options;
use partha_idl::SourceMap;
use similar::TextDiff;

/// Folders of descriptions, and where what is generated from each goes.
const GROUPS: &[(&str, &str)] = &[
    ("runtime/idl", "runtime/src/services/gen"),
    ("runtime/tests", "runtime/tests/gen"),
    ("examples/bank/idl", "examples/bank/src/gen"),
    ("bench/idl", "bench/src/gen"),
];

/// What to do with the files
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; show the differences and exit with status 1 if there are any
    #[arg(long)]
    check: bool,
}

/// To compare alone.
pub(crate) const CHECK: Arguments = Arguments { check: true };

/// A generated file: its place in the workspace and what belongs there.
struct Generated {
    path: PathBuf,
    bytes: Vec<u8>,
}

pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut stale = Vec::new();
    for file in generate(root)? {
        let path = root.join(&file.path);
        // An absent file is an empty one: all of it is a difference.
        let found = fs::read(&path).unwrap_or_default();
        if found == file.bytes {
            continue;
        }
        if arguments.check {
            println!("{}", difference(&file.path, &found, &file.bytes));
        } else {
            write(&path, &file.bytes)?;
            println!("written: {}", file.path.display());
        }
        stale.push(file.path.display().to_string());
    }
    if arguments.check && !stale.is_empty() {
        bail!(
            "not what `cargo xtask codegen` writes: {}",
            stale.join(", ")
        );
    }
    Ok(())
}

fn generate(root: &Path) -> anyhow::Result<Vec<Generated>> {
    let mut files = Vec::new();
    for (input, output) in GROUPS {
        files.extend(generate_group(root, input, output)?);
    }
    Ok(files)
}

fn generate_group(root: &Path, input: &str, output: &str) -> anyhow::Result<Vec<Generated>> {
    let mut sources = SourceMap::new();
    let roots = inputs(root, input)?;
    for path in &roots {
        let text =
            fs::read(root.join(path)).with_context(|| format!("cannot read {}", path.display()))?;
        sources.add_memory(path, text);
    }
    let model = match partha_idl::compile(&mut sources, &roots) {
        Ok(model) => model,
        Err(diagnostics) => bail!("{input} does not compile\n{}", diagnostics.render(false)),
    };
    let outputs = partha_codegen::generate(&model, &Options::default());
    let place = |file: partha_codegen::Output| Generated {
        path: Path::new(output).join(file.file_name),
        bytes: file.bytes,
    };
    Ok(outputs.into_iter().map(place).collect())
}

/// All descriptions, sorted, from the root of the workspace.
fn inputs(root: &Path, input: &str) -> anyhow::Result<Vec<PathBuf>> {
    let folder = root.join(input);
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = Path::new(input).join(entry?.file_name());
        if path.extension().is_some_and(|extension| extension == "idl") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().expect("a generated file lies in a folder");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What is found against what is expected, as a unified diff if both are text.
fn difference(path: &Path, found: &[u8], expected: &[u8]) -> String {
    let path = path.display().to_string();
    match (str::from_utf8(found), str::from_utf8(expected)) {
        (Ok(old), Ok(new)) => TextDiff::from_lines(old, new)
            .unified_diff()
            .header(&path, &format!("{path} (generated)"))
            .to_string(),
        _ => format!(
            "{path}: {} bytes, generated {} others",
            found.len(),
            expected.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_fresh() {
        run(&crate::workspace_root(), &CHECK).unwrap();
    }

    #[test]
    fn texts_differ_by_lines_and_bytes_by_their_number() {
        let path = Path::new("a.rs");
        assert!(difference(path, b"one\n", b"two\n").contains("-one\n+two\n"));
        assert_eq!(
            difference(path, &[0xff], b"two\n"),
            "a.rs: 1 bytes, generated 4 others"
        );
    }
}
