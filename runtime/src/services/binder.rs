//! The binding service: stubs and skeletons of `runtime/idl/binder.idl`, and labels as text.

use std::fmt;
use std::str::FromStr;

pub use super::generated::binder::*;
pub use super::generated::partha::{GroupOrder, GroupPlacement, GroupPolicy, Label};
pub use super::group_view::{COPIES_MAX, GROUPS_MAX, VIEW_NUMBER_MAX};

/// Objects that [`Binder::moved`] takes at a time, at most.
pub const MOVED_MAX: usize = 1_000;
/// Labels of a node, at most: they are in every entry of every list of nodes.
pub const LABELS_MAX: usize = 32;
/// Bytes of a label's name, at most.
pub const LABEL_NAME_BYTES_MAX: usize = 63;
/// Bytes of a label's value, at most.
pub const LABEL_VALUE_BYTES_MAX: usize = 255;

impl Label {
    /// Refuses what is no label: a name is a letter, then letters, digits and `._-/`; a value has
    /// neither commas, since lists of labels have them, nor control characters, and is not empty.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        let Self { name, value } = self;
        let inner = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(inner) {
            return Err(format!(
                "'{name}' is no name of a label: a letter, then letters, digits and ._-/"
            ));
        }
        if name.len() > LABEL_NAME_BYTES_MAX {
            return Err(format!(
                "a label's name of {} bytes: at most {LABEL_NAME_BYTES_MAX}",
                name.len()
            ));
        }
        if value.len() > LABEL_VALUE_BYTES_MAX {
            return Err(format!(
                "the value of label '{name}' has {} bytes: at most {LABEL_VALUE_BYTES_MAX}",
                value.len()
            ));
        }
        if value.is_empty() || value.contains(|c: char| c == ',' || c.is_control()) {
            return Err(format!(
                "'{value}' is no value of label '{name}': a text without commas"
            ));
        }
        Ok(())
    }

    /// Refuses labels that cannot be those of one node.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check_all(labels: &[Self]) -> Result<(), String> {
        if labels.len() > LABELS_MAX {
            return Err(format!("{} labels: at most {LABELS_MAX}", labels.len()));
        }
        for (index, label) in labels.iter().enumerate() {
            label.check()?;
            if let Some(other) = labels[..index].iter().find(|one| one.name == label.name) {
                return Err(format!(
                    "there are two labels of one name: {other}, {label}"
                ));
            }
        }
        Ok(())
    }
}

impl NodeEntry {
    /// Whether it has the label.
    #[must_use]
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        self.label(name) == Some(value)
    }

    /// The value of its label of this name.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|label| label.name == name);
        found.map(|label| label.value.as_str())
    }
}

impl fmt::Display for Label {
    /// `zone=a`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl FromStr for Label {
    type Err = String;

    /// Reads `zone=a`.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, value)) = text.split_once('=') else {
            return Err(format!(
                "'{text}' is no label: expected NAME=VALUE, as zone=a"
            ));
        };
        let (name, value) = (name.to_owned(), value.to_owned());
        let label = Self { name, value };
        label.check()?;
        Ok(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_from_their_text() {
        for text in ["zone=a", "rack=12", "k8s.io/host-name_1=x=y z"] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        let long_name = format!("{}=a", "n".repeat(LABEL_NAME_BYTES_MAX + 1));
        let long_value = format!("a={}", "v".repeat(LABEL_VALUE_BYTES_MAX + 1));
        let wrong = ["zone", "=a", "zone=", "1=a", "a b=c", "a=b,c", "a=b\nc"];
        for text in wrong.into_iter().chain([&*long_name, &*long_value]) {
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_has_one_label_of_a_name_and_not_too_many() {
        let label = |name: String| Label {
            name,
            value: "x".to_owned(),
        };
        let many = |count| {
            (0..count)
                .map(|n| label(format!("l{n}")))
                .collect::<Vec<_>>()
        };
        assert_eq!(Label::check_all(&many(LABELS_MAX)), Ok(()));
        assert!(Label::check_all(&many(LABELS_MAX + 1)).is_err());
        let two = [label("a".to_owned()), label("a".to_owned())];
        assert!(Label::check_all(&two).unwrap_err().contains("a=x, a=x"));
    }
}
