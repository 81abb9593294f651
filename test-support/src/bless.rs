//! Expected texts in files, rewritten by `BLESS=1`.
//!
//! A test computes a text and names the file that holds what it should be. Without `BLESS=1` a
//! difference, or an absent file, fails with a unified diff; with it the file is rewritten, and
//! the difference is reviewed in the commit. Line ends are compared as `\n`, so that a checkout
//! with `\r\n` passes. The files' content is never interpreted.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use similar::TextDiff;

/// A text that is not what its file expects.
#[derive(Debug)]
pub struct Mismatch {
    path: PathBuf,
    diff: String,
    absent: bool,
}

/// Fails the test unless `actual` is the text of `path`, or rewrites `path` if `BLESS=1` is set.
///
/// # Panics
///
/// When the text differs, or when the file cannot be read or written.
#[track_caller]
pub fn check(path: impl AsRef<Path>, actual: &str) {
    if let Err(mismatch) = compare(path, actual) {
        panic!("{mismatch}");
    }
}

/// As [`check`], but hands the difference to the caller: for test runners of their own.
///
/// # Errors
///
/// When the text differs or the file is absent, and `BLESS=1` is not set.
///
/// # Panics
///
/// When the file exists but cannot be read, or cannot be written under `BLESS=1`.
#[track_caller]
pub fn compare(path: impl AsRef<Path>, actual: &str) -> Result<(), Mismatch> {
    compare_as(path.as_ref(), actual, blessing())
}

/// Whether this run rewrites expected texts: `BLESS` is set to something but `0` or nothing.
#[must_use]
pub fn blessing() -> bool {
    env::var_os("BLESS").is_some_and(|value| !value.is_empty() && value != "0")
}

/// A unified diff from `expected` to `actual`, headed by the names given; empty if they agree.
#[must_use]
pub fn diff(expected: &str, actual: &str, expected_name: &str, actual_name: &str) -> String {
    TextDiff::from_lines(expected, actual)
        .unified_diff()
        .context_radius(3)
        .header(expected_name, actual_name)
        .to_string()
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let what = if self.absent { "is absent" } else { "differs" };
        writeln!(f, "expected text {path} {what}; BLESS=1 rewrites it")?;
        f.write_str(&self.diff)
    }
}

impl std::error::Error for Mismatch {}

fn compare_as(path: &Path, actual: &str, bless: bool) -> Result<(), Mismatch> {
    let found = match fs::read_to_string(path) {
        Ok(text) => Some(text.replace("\r\n", "\n")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("cannot read expected text {}: {error}", path.display()),
    };
    let actual = actual.replace("\r\n", "\n");
    if found.as_deref() == Some(actual.as_str()) {
        return Ok(());
    }
    if bless {
        write(path, &actual);
        return Ok(());
    }
    let absent = found.is_none();
    let diff = diff(&found.unwrap_or_default(), &actual, "expected", "actual");
    Err(Mismatch {
        path: path.to_owned(),
        diff,
        absent,
    })
}

fn write(path: &Path, text: &str) {
    let written = match path.parent() {
        Some(folder) => fs::create_dir_all(folder).and_then(|()| fs::write(path, text)),
        None => fs::write(path, text),
    };
    if let Err(error) = written {
        panic!("cannot write expected text {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp_dir;

    #[test]
    fn an_absent_file_is_a_mismatch_that_shows_the_text() {
        let folder = temp_dir("bless");
        let error = compare_as(&folder.path().join("new.txt"), "one\n", false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("is absent") && text.contains("+one"),
            "{text}"
        );
    }

    #[test]
    fn blessing_writes_folders_and_file_and_then_the_texts_agree() {
        let folder = temp_dir("bless");
        let path = folder.path().join("deep/new.txt");
        compare_as(&path, "one\r\ntwo\n", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        compare_as(&path, "one\ntwo\n", false).unwrap();
    }

    #[test]
    fn a_difference_shows_both_sides_and_leaves_the_file() {
        let folder = temp_dir("bless");
        let path = folder.path().join("old.txt");
        fs::write(&path, "same\nold\n").unwrap();
        let text = compare_as(&path, "same\nnew\n", false)
            .unwrap_err()
            .to_string();
        assert!(text.contains("-old\n+new\n"), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "same\nold\n");
    }
}
