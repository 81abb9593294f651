//! The files the house rules are about.
//!
//! Found by walking the tree, not by asking git, so that an unpacked archive is checked too.
//! Left out are what builds leave behind, hidden folders but the few we keep files in, and the
//! corpora of tests, which are often wrong on purpose.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Problem;

/// What marks a file as generated, if its first line contains it.
pub(super) const GENERATED: &str = concat!("@", "generated");

const EXTENSIONS: &[&str] = &["capnp", "idl", "md", "py", "rs", "sh", "toml", "yml"];
const HIDDEN_KEPT: &[&str] = &[".cargo", ".ci", ".config", ".github"];
const FOLDERS_LEFT_OUT: &[&str] = &["target", "__pycache__", "node_modules", "venv"];
/// Folders under `tests` that hold inputs and expected outputs, not tests.
const CORPORA: &[&str] = &["ui", "expand", "corpus", "scenario"];

/// One file.
pub(super) struct Source {
    /// From the root of the workspace.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Source {
    pub(super) fn is_rust(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    pub(super) fn is_manifest(&self) -> bool {
        self.path
            .file_name()
            .is_some_and(|name| name == "Cargo.toml")
    }

    pub(super) fn is_generated(&self) -> bool {
        self.text
            .lines()
            .next()
            .is_some_and(|line| line.contains(GENERATED))
    }

    /// Whether all of the file is test code: it lies in `tests/` or `benches/`, or is the body of
    /// a `mod tests;`.
    pub(super) fn is_test(&self) -> bool {
        let test_folder = |part: &std::ffi::OsStr| part == "tests" || part == "benches";
        self.path.iter().any(test_folder)
            || self.path.file_name().is_some_and(|name| name == "tests.rs")
    }

    /// The module of a Rust file, as the path its submodules' files begin with.
    pub(super) fn module(&self) -> PathBuf {
        let root = ["mod.rs", "lib.rs", "main.rs"];
        match self.path.file_name().and_then(|name| name.to_str()) {
            Some(name) if root.contains(&name) => self.path.with_file_name(""),
            _ => self.path.with_extension(""),
        }
    }

    pub(super) fn problem(&self, line: usize, what: impl Into<String>) -> Problem {
        Problem {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }
}

/// All files under `root` that rules are about, sorted by path.
pub(super) fn read_all(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("cannot list the folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let in_tests = folder.file_name().is_some_and(|folder| folder == "tests");
                if is_walked(&name, in_tests) {
                    folders.push(path);
                }
            } else if is_read(&path, root) {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

fn is_walked(name: &str, in_tests: bool) -> bool {
    let hidden = name.starts_with('.') && !HIDDEN_KEPT.contains(&name);
    let corpus = in_tests && CORPORA.contains(&name);
    !(hidden || corpus || FOLDERS_LEFT_OUT.contains(&name))
}

fn is_read(path: &Path, root: &Path) -> bool {
    let known = path
        .extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.contains(&extension));
    known || path == root.join(".ci/run")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn folders_of_builds_and_corpora_are_left_out() {
        assert!(is_walked("src", false) && is_walked(".ci", false) && is_walked("corpus", false));
        assert!(!is_walked("target", false) && !is_walked(".git", false));
        assert!(!is_walked("ui", true) && is_walked("ui", false));
    }

    #[test]
    fn the_mark_counts_on_the_first_line_alone() {
        let first = format!("// {GENERATED} from a.idl\nfn f() {{}}\n");
        assert!(named("a.rs", &first).is_generated());
        assert!(!named("a.rs", &format!("\n{first}")).is_generated());
    }

    #[test]
    fn test_files_are_known_by_their_place() {
        assert!(named("idl/tests/ui.rs", "").is_test());
        assert!(named("idl/src/tests.rs", "").is_test());
        assert!(!named("idl/src/parse.rs", "").is_test());
    }
}
