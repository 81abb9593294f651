//! Temporary folders and the place of the workspace.
//!
//! A folder made here is removed when its owner is dropped; with `PARTHA_KEEP_TEMP=1` it stays
//! and its path is printed, to look at what a failed test left.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub use tempfile::TempDir;

/// A new, empty folder whose name starts with `partha-` and `label`.
///
/// # Panics
///
/// When the folder cannot be made.
#[track_caller]
#[must_use]
pub fn temp_dir(label: &str) -> TempDir {
    let keep = env::var_os("PARTHA_KEEP_TEMP").is_some_and(|value| value == "1");
    let made = tempfile::Builder::new()
        .prefix(&format!("partha-{label}-"))
        .disable_cleanup(keep)
        .tempdir();
    let folder = match made {
        Ok(folder) => folder,
        Err(error) => {
            panic!(
                "cannot make a folder under {}: {error}",
                env::temp_dir().display()
            )
        }
    };
    if keep {
        // Straight to the stream: the test harness swallows what `print!` says.
        let _ = writeln!(std::io::stderr(), "kept: {}", folder.path().display());
    }
    folder
}

/// The top folder of the workspace this package was built in.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package lies in a folder of the workspace")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_new_each_time_and_goes_with_its_owner() {
        let (one, two) = (temp_dir("same"), temp_dir("same"));
        assert_ne!(one.path(), two.path());
        let path = one.path().to_owned();
        assert!(path.is_dir());
        drop(one);
        assert!(!path.exists());
    }

    #[test]
    fn the_workspace_root_holds_the_workspace_manifest() {
        let text = std::fs::read_to_string(workspace_root().join("Cargo.toml")).unwrap();
        assert!(text.contains("[workspace]"));
    }
}
