//! Labels in files and flags: `zone=a`.

use std::str::FromStr;

use partha::services::binder::Label;
use serde::Deserialize;

/// A label, readable from `zone=a`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeLabel(pub Label);

impl TryFrom<String> for NodeLabel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for NodeLabel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}
