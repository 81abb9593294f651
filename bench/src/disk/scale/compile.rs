//! Compile times: of interfaces to Rust, and of the library itself for who uses it first.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use partha_codegen::idl::SourceMap;
use partha_codegen::{Options, idl};

use crate::disk::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::interrupt;
use crate::suite::{Benchmark, Effort, Plan, Setting, View};

const BANK: &str = include_str!("../../../../examples/bank/idl/bank.idl");
/// Interfaces of the file that is large.
const MANY: usize = 1_000;

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "compile",
    about: "interfaces to Rust, and a first build of the library",
    view: View {
        reference: None,
        metrics: &[Metric::TimeMs],
        tall: true,
        plots: &[],
    },
    on_request: false,
    plan,
};

/// What is compiled.
pub(crate) const BANK_IDL: &str = "bank.idl to Rust";
/// A file with as many as [`MANY`].
pub(crate) const LARGE_IDL: &str = "1,000 interfaces to Rust";
/// In the profile that `cargo build` has.
pub(crate) const FIRST_BUILD: &str = "first build of the library";

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let nothing = Lazy::new(|| Ok(()));
    let case =
        |what: &'static str, rounds, takes_ms: u64, run: fn() -> anyhow::Result<Duration>| {
            let parameters = Parameters::default().with("what", what);
            let often = (rounds, Duration::from_millis(takes_ms));
            nothing.case("partha", parameters, often, move |()| {
                Ok(Found::default().with(Metric::TimeMs, run()?.as_secs_f64() * 1e3))
            })
        };
    let mut cases = vec![case(BANK_IDL, setting.rounds, 20, || compile("bank", BANK))];
    if setting.effort > Effort::Smoke {
        cases.push(case(LARGE_IDL, setting.rounds.min(3), 1_000, || {
            compile("many", &many(MANY))
        }));
    }
    if setting.effort == Effort::Full {
        cases.push(case(FIRST_BUILD, 1, 120_000, first_build));
    }
    Ok(Plan {
        cases,
        ..Plan::default()
    })
}

/// How long it takes to make Rust and Cap'n Proto of the module, from its text to theirs.
fn compile(module: &str, text: &str) -> anyhow::Result<Duration> {
    let path = PathBuf::from(format!("{module}.idl"));
    let begun = Instant::now();
    let mut sources = SourceMap::new();
    sources.add_memory(&path, text.as_bytes().to_vec());
    let model = match idl::compile(&mut sources, &[path]) {
        Ok(model) => model,
        Err(diagnostics) => bail!("{module} does not compile\n{}", diagnostics.render(false)),
    };
    let outputs = partha_codegen::generate(&model, &Options::default());
    let took = begun.elapsed();
    ensure!(
        outputs.iter().all(|file| !file.bytes.is_empty()),
        "an empty file"
    );
    Ok(took)
}

/// A module with so many interfaces, every second one persistent, each with a struct of its own.
fn many(interfaces: usize) -> String {
    let mut text = "//! Many interfaces.\nmodule many;\n".to_owned();
    for n in 0..interfaces {
        let (kind, state) = match n % 2 {
            0 => ("", ""),
            _ => (
                "persistent ",
                "    state { name: string, values: list<u64> }\n",
            ),
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "/// A value.\nstruct Value{n} {{\n    /// A name.\n    name: string,\n    \
             /// A number.\n    number: u64,\n}}\n\
             /// An interface.\n{kind}interface Service{n} {{\n{state}    \
             /// A question.\n    \
             fn ask(&self, value: Value{n}, count: u32) -> list<Value{n}>;\n    \
             /// Another.\n    fn tell(&self, text: string) -> u64;\n}}\n"
        );
    }
    text
}

/// A program that uses the library, built where nothing has been built.
fn first_build() -> anyhow::Result<Duration> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize();
    let root = root.context("the sources of Partha are not where this program was built")?;
    let folder = stage::folder()?;
    let user = folder.path();
    std::fs::create_dir(user.join("src"))?;
    let manifest = format!(
        "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [dependencies]\npartha = {{ path = {:?} }}\n\n[workspace]\n",
        root.join("runtime")
    );
    std::fs::write(user.join("Cargo.toml"), manifest)?;
    // The versions that are there already: what is measured is compiling.
    std::fs::copy(root.join("Cargo.lock"), user.join("Cargo.lock"))?;
    let program = "fn main() {\n    println!(\"{:?}\", partha::Node::builder());\n}\n";
    std::fs::write(user.join("src/main.rs"), program)?;
    let begun = Instant::now();
    let child = Command::new("cargo")
        .args(["build", "--offline"])
        .current_dir(user)
        .env("CARGO_TARGET_DIR", user.join("target"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let built = interrupt::wait_for(child.id(), || child.wait_with_output())?;
    let took = begun.elapsed();
    interrupt::check()?;
    ensure!(
        built.status.success(),
        "cargo build failed; `cargo fetch` brings what it lacks\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_compile_in_some_time() {
        assert!(compile("bank", BANK).unwrap() > Duration::ZERO);
        assert!(compile("many", &many(20)).unwrap() > Duration::ZERO);
        let wrong = compile("many", "module many;\ninterface {").unwrap_err();
        assert!(wrong.to_string().contains("does not compile"), "{wrong}");
    }
}
