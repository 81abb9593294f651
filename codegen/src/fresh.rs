//! Outputs on disk: writing what changed, and telling what is stale.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use similar::TextDiff;

use crate::Output;

/// Writes outputs into `folder`, which is made if need be. Files that are right already are left
/// alone, so that nothing is rebuilt for nothing. Returns what was written.
///
/// # Errors
/// The system's, with the path in its text.
pub fn write(outputs: &[Output], folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).map_err(|error| at("cannot make", folder, &error))?;
    let mut written = Vec::new();
    for Output { file_name, bytes } in outputs {
        let path = folder.join(file_name);
        if fs::read(&path).is_ok_and(|found| same(&found, bytes)) {
            continue;
        }
        fs::write(&path, bytes).map_err(|error| at("cannot write", &path, &error))?;
        written.push(path);
    }
    Ok(written)
}

/// A unified diff from the files in `folder` to what they should be; empty if they are that.
///
/// # Errors
/// The system's, with the path in its text; an absent file is a difference, no error.
pub fn check(outputs: &[Output], folder: &Path) -> io::Result<String> {
    let mut report = String::new();
    for Output { file_name, bytes } in outputs {
        let path = folder.join(file_name);
        let found = match fs::read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(at("cannot read", &path, &error)),
        };
        if !same(&found, bytes) {
            report += &difference(&path, &found, bytes);
        }
    }
    Ok(report)
}

/// Equal but for line ends, which a checkout may change.
fn same(found: &[u8], expected: &[u8]) -> bool {
    if found == expected {
        return true;
    }
    match (std::str::from_utf8(found), std::str::from_utf8(expected)) {
        (Ok(found), Ok(expected)) => found.replace("\r\n", "\n") == expected,
        _ => false,
    }
}

fn difference(path: &Path, found: &[u8], expected: &[u8]) -> String {
    let name = path.display().to_string();
    match (std::str::from_utf8(found), std::str::from_utf8(expected)) {
        (Ok(found), Ok(expected)) => {
            let found = found.replace("\r\n", "\n");
            let diff = TextDiff::from_lines(found.as_str(), expected);
            diff.unified_diff()
                .header(&name, &format!("{name} (generated)"))
                .to_string()
        }
        _ => format!(
            "{name}: {} bytes, should be {} others\n",
            found.len(),
            expected.len()
        ),
    }
}

fn at(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_files_are_told_and_written_once() {
        let folder = test_support::temp_dir("fresh");
        let outputs = [
            Output {
                file_name: "a.rs".to_owned(),
                bytes: b"one\ntwo\n".to_vec(),
            },
            Output {
                file_name: "a.cgr".to_owned(),
                bytes: vec![0xff, 0],
            },
        ];
        let report = check(&outputs, folder.path()).unwrap();
        assert!(
            report.contains("+one\n") && report.contains("should be 2 others"),
            "{report}"
        );
        assert_eq!(write(&outputs, folder.path()).unwrap().len(), 2);
        assert_eq!(check(&outputs, folder.path()).unwrap(), "");
        assert_eq!(
            write(&outputs, folder.path()).unwrap(),
            Vec::<PathBuf>::new()
        );
        fs::write(folder.path().join("a.rs"), "one\r\ntwo\r\n").unwrap();
        assert_eq!(check(&outputs, folder.path()).unwrap(), "");
        fs::write(folder.path().join("a.rs"), "one\nthree\n").unwrap();
        let report = check(&outputs, folder.path()).unwrap();
        assert!(report.contains("-three\n+two\n"), "{report}");
    }
}
