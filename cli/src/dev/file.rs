//! `partha.toml`: what `partha dev` runs beside the naming service and the binder.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::failure::Usage;

/// The name of the file.
pub(super) const NAME: &str = "partha.toml";

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// A command that is run before anything starts, in the file's folder.
    pub(super) build: Option<Vec<String>>,
    /// The nodes, in the order of their start.
    #[serde(default, rename = "node")]
    pub(super) nodes: Vec<Node>,
    /// Objects to create where their names do not exist yet.
    #[serde(default, rename = "object")]
    pub(super) objects: Vec<Object>,
}

/// A node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    /// Its name.
    pub(super) name: String,
    /// The program and its first arguments, run in the file's folder; the flags that every daemon
    /// takes are added.
    pub(super) command: Vec<String>,
    /// Where it listens, if not at the next port.
    pub(super) listen: Option<SocketAddr>,
}

/// An object.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    /// Its name, as `/bank/alice`.
    pub(super) name: String,
    /// Its class, as `bank.Account`.
    pub(super) class: String,
    /// The node to create it at; any that runs the class, if not said.
    pub(super) node: Option<String>,
    /// What its constructor takes.
    #[serde(default)]
    pub(super) arguments: toml::Table,
}

impl File {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read {}, which says what to run; `partha dev DIR` looks in DIR",
                path.display()
            )
        })?;
        let refused = |what: &str| Usage(format!("{}: {}", path.display(), what.trim_end()));
        let file: Self = toml::from_str(&text).map_err(|error| refused(&error.to_string()))?;
        file.check().map_err(|error| refused(&error.to_string()))?;
        Ok(file)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.build.as_ref().is_some_and(Vec::is_empty) {
            bail!("`build` names no program");
        }
        let mut names = HashSet::from(["naming", "binder"]);
        for Node { name, command, .. } in &self.nodes {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                bail!("'{name}' cannot be the name of a node: it becomes the name of a folder");
            }
            if !names.insert(name) {
                bail!("there are two nodes of the name '{name}'");
            }
            if command.is_empty() {
                bail!("the `command` of node '{name}' names no program");
            }
        }
        for Object { name, node, .. } in &self.objects {
            if let Some(node) = node.as_ref().filter(|node| !names.contains(node.as_str())) {
                bail!("{name} is to be created at node '{node}', which is not in this file");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use test_support::temp_dir;

    use super::*;

    fn read(text: &str) -> Result<File, String> {
        let folder = temp_dir("dev");
        let path = folder.path().join(NAME);
        std::fs::write(&path, text).unwrap();
        File::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_is_read() {
        let path = test_support::workspace_root().join("examples/bank/partha.toml");
        let file = File::read(&path).unwrap();
        assert_eq!(file.nodes.len(), 2);
        assert_eq!(file.objects[0].arguments["owner"].as_str(), Some("alice"));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_place() {
        let error = read("[[node]]\nname = \"a\"\ncmd = [\"x\"]\n").unwrap_err();
        assert!(
            error.contains("partha.toml: ") && error.contains("line 3"),
            "{error}"
        );
        let node = |name: &str| format!("[[node]]\nname = \"{name}\"\ncommand = [\"x\"]\n");
        let cases = [
            (node("a") + &node("a"), "two nodes of the name 'a'"),
            (node("naming"), "two nodes of the name 'naming'"),
            (node("../a"), "cannot be the name of a node"),
            (node(""), "cannot be the name of a node"),
            (
                "[[node]]\nname = \"a\"\ncommand = []\n".to_owned(),
                "names no program",
            ),
            ("build = []\n".to_owned(), "`build` names no program"),
            (
                "[[object]]\nname = \"/x\"\nclass = \"m.X\"\nnode = \"z\"\n".to_owned(),
                "at node 'z', which is not in this file",
            ),
        ];
        for (text, expected) in cases {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_absent_file_is_named() {
        let error = File::read(Path::new("absent/partha.toml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("absent/partha.toml"), "{error}");
    }
}
