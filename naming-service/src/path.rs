//! Names as text: what a path may look like.

use partha::services::naming::BadName;

/// Bytes of one part, at most: what file systems allow, so that any file name is a name.
const PART_BYTES_MAX: usize = 255;
/// Parts of a path, at most: each costs a step, and nobody types more.
const PARTS_MAX: usize = 64;

/// The parts of a path from the root; none for the root itself.
pub(crate) fn parts(path: &str) -> Result<Vec<&str>, BadName> {
    let relative = path.strip_prefix('/').unwrap_or(path);
    if relative.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = relative.split('/').collect();
    let bad = |reason: String| BadName {
        path: path.to_owned(),
        reason,
    };
    if parts.len() > PARTS_MAX {
        return Err(bad(format!(
            "{} parts, but {PARTS_MAX} are the most",
            parts.len()
        )));
    }
    match parts.iter().find_map(|part| fault(part)) {
        Some(reason) => Err(bad(reason)),
        None => Ok(parts),
    }
}

/// What is wrong with a part, if anything.
fn fault(part: &str) -> Option<String> {
    if part.is_empty() {
        return Some("a part is empty: a slash too many".to_owned());
    }
    if part.len() > PART_BYTES_MAX {
        let shown: String = part.chars().take(16).collect();
        let bytes = part.len();
        return Some(format!(
            "'{shown}…' has {bytes} bytes, but {PART_BYTES_MAX} are the most"
        ));
    }
    if part == "." || part == ".." {
        return Some(format!(
            "'{part}' is no name: paths go down from the root only"
        ));
    }
    if part.chars().any(char::is_control) {
        return Some(format!("{part:?} has control characters"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_front_makes_no_difference() {
        assert_eq!(parts("bank/alice").unwrap(), ["bank", "alice"]);
        assert_eq!(parts("/bank/alice").unwrap(), ["bank", "alice"]);
        assert_eq!(parts("/").unwrap(), parts("").unwrap());
        assert!(parts("").unwrap().is_empty());
    }

    #[test]
    fn people_may_write_in_their_own_language() {
        assert_eq!(parts("/banque/Élodie 2/口座").unwrap().len(), 3);
        assert!(parts(&format!("/{}", "x".repeat(255))).is_ok());
        assert!(parts(&["x"; 64].join("/")).is_ok());
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let cases = [
            ("//", "empty"),
            ("/bank/", "empty"),
            ("/bank//alice", "empty"),
            ("//bank", "empty"),
            ("/bank/../alice", "'..' is no name"),
            ("/bank/./alice", "'.' is no name"),
            ("/bank/a\nb", "control characters"),
            ("/bank/a\0", "control characters"),
        ];
        for (path, reason) in cases {
            let error = parts(path).unwrap_err();
            assert!(error.reason.contains(reason), "{path:?}: {}", error.reason);
            assert_eq!(error.path, path);
        }
        let long = "é".repeat(128);
        assert!(parts(&long).unwrap_err().reason.contains("256 bytes"));
        let deep = ["x"; 65].join("/");
        assert!(parts(&deep).unwrap_err().reason.contains("65 parts"));
    }
}
