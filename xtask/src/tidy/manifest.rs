//! Rules about packages: what each inherits from the workspace, and which may depend on which.
//!
//! The table of edges is [`EDGES`]. It is closed: a new package or a new edge between our own
//! packages fails here until the table says so, and that change is where a reviewer asks for the
//! record in `docs/decisions/`. Edges for tests alone (`[dev-dependencies]`) are free but for the
//! core's. What a package takes from the registry is its own business, as long as the version
//! comes from the workspace.

use anyhow::Context as _;
use toml::{Table, Value};

use super::Problem;
use super::source::Source;

const CORE: &str = "partha-core";
const CORE_ROOT: &str = "runtime/core/src/lib.rs";
const TEST_SUPPORT: &str = "test-support";
const LICENCE: &str = "MIT OR Apache-2.0";

/// Package, and the packages of ours that its `[dependencies]` and `[build-dependencies]` may
/// name. Bottom up: the decisions first, without any edge, then the shell, then what is built on
/// it; the compiler of the interface language stands beside the runtime, and neither knows the
/// other.
const EDGES: &[(&str, &[&str])] = &[
    (CORE, &[]),
    ("partha-wire", &[]),
    ("partha-guard", &[]),
    ("partha-store", &[CORE, "partha-wire"]),
    (
        "partha",
        &[CORE, "partha-guard", "partha-store", "partha-wire"],
    ),
    ("partha-idl", &[]),
    ("partha-codegen", &["partha-idl"]),
    ("codegen-corpus", &["partha", "partha-codegen"]),
    // What all daemons share stands between the runtime and them, so that neither the runtime
    // learns of flags and signals nor each daemon writes them anew.
    ("partha-daemon", &["partha"]),
    ("partha-naming", &["partha", "partha-daemon"]),
    ("partha-binder", &["partha", "partha-daemon"]),
    ("bank", &["partha", "partha-codegen", "partha-daemon"]),
    (
        "partha-cli",
        &[
            "bank",
            "partha",
            "partha-binder",
            "partha-codegen",
            "partha-daemon",
            "partha-idl",
            "partha-naming",
        ],
    ),
    (
        "bench",
        &[
            "bank",
            "partha",
            "partha-binder",
            "partha-codegen",
            "partha-core",
            "partha-guard",
            "partha-naming",
            "partha-store",
        ],
    ),
    ("bench-count", &["partha"]),
    (TEST_SUPPORT, &[]),
    ("xtask", &["partha-codegen", "partha-idl"]),
];

/// Fields of `[package]` that come from the workspace.
const INHERITED: &[&str] = &[
    "version",
    "edition",
    "rust-version",
    "license",
    "repository",
    "publish",
];

pub(super) fn check(sources: &[Source]) -> anyhow::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| source.is_manifest()) {
        let manifest: Table = source
            .text
            .parse()
            .with_context(|| format!("cannot read {}", source.path.display()))?;
        let manifest = Manifest {
            source,
            table: &manifest,
        };
        manifest.check_workspace(&mut problems);
        manifest.check_package(&mut problems);
    }
    check_core(sources, &mut problems);
    Ok(problems)
}

/// That clippy is asked to refuse wildcard arms in the core.
fn check_core(sources: &[Source], problems: &mut Vec<Problem>) {
    let root = sources
        .iter()
        .find(|source| source.path.as_os_str() == CORE_ROOT);
    let Some(root) = root else { return };
    if !root
        .text
        .contains("#![deny(clippy::wildcard_enum_match_arm)]")
    {
        let what = "the core does not say `#![deny(clippy::wildcard_enum_match_arm)]`";
        problems.push(root.problem(1, what));
    }
}

struct Manifest<'a> {
    source: &'a Source,
    table: &'a Table,
}

impl Manifest<'_> {
    fn check_workspace(&self, problems: &mut Vec<Problem>) {
        let Some(workspace) = self.table.get("workspace") else {
            return;
        };
        let licence = workspace
            .get("package")
            .and_then(|package| package.get("license"));
        if licence.and_then(Value::as_str) != Some(LICENCE) {
            let what = format!("`workspace.package.license` is not \"{LICENCE}\"");
            problems.push(self.source.problem(0, what));
        }
    }

    fn check_package(&self, problems: &mut Vec<Problem>) {
        let Some(package) = self.table.get("package") else {
            return;
        };
        let name = package
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut report = |what: String| problems.push(self.source.problem(0, what));
        for field in INHERITED
            .iter()
            .filter(|field| !inherits(package.get(field)))
        {
            report(format!("`{name}` does not say `{field}.workspace = true`"));
        }
        if package.get("description").is_none() {
            report(format!("`{name}` has no description"));
        }
        if !inherits(self.table.get("lints")) {
            report(format!("`{name}` does not inherit the workspace's lints"));
        }
        let edges = EDGES.iter().find(|(package, _)| *package == name);
        if edges.is_none() {
            report(format!(
                "`{name}` is not in the table of edges of `cargo xtask tidy`"
            ));
        }
        let allowed = edges.map_or(&[][..], |(_, allowed)| allowed);
        for (section, dependency, value) in self.dependencies() {
            if !inherits(Some(value)) {
                report(format!(
                    "`{dependency}` of `{name}` is not `workspace = true`"
                ));
            }
            if let Some(what) = refused(name, allowed, section, dependency) {
                report(what);
            }
        }
    }

    /// All dependencies: section, name, value; those of a target as well.
    fn dependencies(&self) -> Vec<(&str, &str, &Value)> {
        let targets = self.table.get("target").and_then(Value::as_table);
        let targets = targets
            .into_iter()
            .flat_map(Table::values)
            .filter_map(Value::as_table);
        let mut found = Vec::new();
        for table in std::iter::once(self.table).chain(targets) {
            for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
                let entries = table.get(section).and_then(Value::as_table);
                for (name, value) in entries.into_iter().flatten() {
                    found.push((section, name.as_str(), value));
                }
            }
        }
        found
    }
}

fn inherits(value: Option<&Value>) -> bool {
    value
        .and_then(|value| value.get("workspace"))
        .and_then(Value::as_bool)
        == Some(true)
}

/// Why `package` may not depend on `dependency`, if so.
fn refused(package: &str, allowed: &[&str], section: &str, dependency: &str) -> Option<String> {
    let dev = section == "dev-dependencies";
    if package == CORE {
        let harmless = dev && dependency == TEST_SUPPORT;
        return (!harmless).then(|| format!("the core depends on `{dependency}`, and must not"));
    }
    let ours = EDGES.iter().any(|(package, _)| *package == dependency);
    if dev || !ours || allowed.contains(&dependency) {
        return None;
    }
    if dependency == TEST_SUPPORT {
        return Some(format!(
            "`{package}` depends on `{TEST_SUPPORT}` outside its tests"
        ));
    }
    let cure = "a new edge needs a record in docs/decisions and a line in the table of edges";
    Some(format!(
        "`{package}` may not depend on `{dependency}`: {cure}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "version.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\nrepository.workspace = true\n\
        publish.workspace = true\ndescription = \"D\"\n";

    fn package(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{HEAD}{rest}\n[lints]\nworkspace = true\n")
    }

    fn problems(path: &str, text: &str) -> Vec<String> {
        let source = Source {
            path: path.into(),
            text: text.to_owned(),
        };
        check(&[source])
            .unwrap()
            .iter()
            .map(Problem::to_string)
            .collect()
    }

    #[track_caller]
    fn breaks(text: &str, rule: &str) {
        let found = problems("a/Cargo.toml", text);
        assert!(
            found.len() == 1 && found[0].contains(rule),
            "expected `{rule}`: {found:?}"
        );
    }

    #[track_caller]
    fn keeps(text: &str) {
        let found = problems("a/Cargo.toml", text);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_package_inherits_its_fields_and_lints() {
        let whole = package("partha", "");
        keeps(&whole);
        for field in INHERITED {
            let without = whole.replace(&format!("\n{field}.workspace = true"), "");
            breaks(
                &without,
                &format!("does not say `{field}.workspace = true`"),
            );
        }
        breaks(
            &whole.replace("license.workspace = true", "license = \"MIT\""),
            "`license",
        );
        breaks(
            &whole.replace("\n[lints]\nworkspace = true", ""),
            "inherit the workspace's lints",
        );
        breaks(&whole.replace("description = \"D\"", ""), "no description");
    }

    #[test]
    fn the_workspace_names_its_licence() {
        keeps("[workspace.package]\nlicense = \"MIT OR Apache-2.0\"\n");
        breaks(
            "[workspace.package]\nlicense = \"GPL-3.0\"\n",
            "`workspace.package.license`",
        );
    }

    #[test]
    fn an_edge_that_the_table_does_not_have_is_refused() {
        let with = |name, section, dependency| {
            package(
                name,
                &format!("[{section}]\n{dependency}.workspace = true\n"),
            )
        };
        keeps(&with("partha", "dependencies", "partha-core"));
        keeps(&with("partha", "dependencies", "tokio"));
        keeps(&with("partha", "dev-dependencies", "partha-idl"));
        breaks(
            &with("partha", "dependencies", "partha-idl"),
            "may not depend on `partha-idl`",
        );
        breaks(
            &with("partha-codegen", "dependencies", "partha"),
            "may not depend on `partha`",
        );
        breaks(
            &with("partha", "build-dependencies", "partha-codegen"),
            "`partha-codegen`",
        );
        breaks(
            &with("partha", "target.x.dependencies", "partha-idl"),
            "`partha-idl`",
        );
        breaks(
            &with("partha", "dependencies", "test-support"),
            "outside its tests",
        );
        breaks(
            &with("stranger", "dependencies", "tokio"),
            "not in the table of edges",
        );
    }

    #[test]
    fn the_core_depends_on_nothing() {
        let with = |section, dependency: &str| {
            package(
                CORE,
                &format!("[{section}]\n{dependency}.workspace = true\n"),
            )
        };
        keeps(&with("dev-dependencies", "test-support"));
        breaks(
            &with("dependencies", "thiserror"),
            "the core depends on `thiserror`",
        );
        breaks(
            &with("build-dependencies", "quote"),
            "the core depends on `quote`",
        );
        breaks(
            &with("dev-dependencies", "tokio"),
            "the core depends on `tokio`",
        );
    }

    #[test]
    fn versions_come_from_the_workspace() {
        breaks(
            &package("partha", "[dependencies]\ntokio = \"1\"\n"),
            "not `workspace = true`",
        );
        keeps(&package(
            "partha",
            "[dependencies]\nx = { workspace = true, features = [] }\n",
        ));
    }

    #[test]
    fn the_core_refuses_wildcard_arms() {
        let found = problems(CORE_ROOT, "//! Core.\n");
        assert!(
            found.len() == 1 && found[0].contains("wildcard_enum_match_arm"),
            "{found:?}"
        );
        let asked = "//! Core.\n#![deny(clippy::wildcard_enum_match_arm)]\n";
        assert!(problems(CORE_ROOT, asked).is_empty());
    }

    #[test]
    fn the_table_of_edges_has_no_cycle() {
        // Each package may only name those above it.
        for (index, (package, allowed)) in EDGES.iter().enumerate() {
            for edge in *allowed {
                let at = EDGES.iter().position(|(name, _)| name == edge);
                assert!(at.is_some_and(|at| at < index), "{package} -> {edge}");
            }
        }
    }
}
