//! `cargo xtask ci`: the steps of the continuous integration, one by one, with their times.
//!
//! The list of steps is here alone: `.ci/run` installs the foreign tools and then runs this. A
//! failed step does not keep the later ones from running, so that one run tells all; the last
//! lines are the verdict.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::counts::{self, Checked};
use crate::{cargo, codegen, crash_points, sim, tidy, workspace_root};

/// Which steps to run
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print the names of the steps and what they run
    #[arg(long)]
    list: bool,
    /// Stop at the first step that fails
    #[arg(long)]
    fail_fast: bool,
    /// Only these steps, in their own order
    #[arg(value_name = "STEP")]
    only: Vec<String>,
}

/// One step: a name and what it runs.
struct Step {
    name: &'static str,
    action: Action,
}

/// What a step runs.
enum Action {
    /// `cargo` with these arguments and environment.
    Cargo(
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
    ),
    /// The house rules, in this process.
    Tidy,
    /// Whether generated files are fresh, in this process.
    Codegen,
    /// Seeds of the simulator, in release mode.
    Sim,
    /// Nodes that die at each point of a commit, built apart.
    CrashPoints,
    /// Instructions of a call beside those written down, where valgrind is installed.
    Counts,
    /// `cargo deny`, where it is installed.
    Deny,
}

/// How a step ended.
enum Ended {
    Passed,
    Skipped(String),
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        action: Action::Cargo(&["fmt", "--all", "--", "--check"], &[]),
    },
    Step {
        name: "tidy",
        action: Action::Tidy,
    },
    Step {
        name: "codegen",
        action: Action::Codegen,
    },
    Step {
        name: "clippy",
        action: Action::Cargo(
            &[
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
            &[],
        ),
    },
    Step {
        name: "docs",
        action: Action::Cargo(
            &["doc", "--locked", "--workspace", "--no-deps"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        ),
    },
    Step {
        name: "test",
        action: Action::Cargo(
            &[
                "nextest",
                "run",
                "--locked",
                "--workspace",
                "--profile",
                "ci",
                "--no-fail-fast",
            ],
            &[("PARTHA_REQUIRE_TOOLS", "1")],
        ),
    },
    Step {
        name: "examples",
        action: Action::Cargo(&["test", "--locked", "--workspace", "--doc"], &[]),
    },
    Step {
        name: "sim",
        action: Action::Sim,
    },
    Step {
        name: "crashes",
        action: Action::CrashPoints,
    },
    Step {
        name: "demo",
        action: Action::Cargo(
            &[
                "run",
                "--locked",
                "--bin",
                "partha",
                "--",
                "demo",
                "--seconds",
                "10",
                "--kill",
            ],
            &[],
        ),
    },
    Step {
        name: "counts",
        action: Action::Counts,
    },
    Step {
        name: "deny",
        action: Action::Deny,
    },
];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.list {
        for step in STEPS {
            println!("{:<8}{}", step.name, step.action);
        }
        return Ok(());
    }
    let mut verdict = Vec::new();
    let mut failed = Vec::new();
    for step in chosen(&arguments.only)? {
        println!("==> {}: {}", step.name, step.action);
        let start = Instant::now();
        let ended = perform(&step.action);
        let line = report(step.name, &ended, start.elapsed());
        println!("{line}");
        verdict.push(line);
        if ended.is_err() {
            failed.push(step.name);
            if arguments.fail_fast {
                break;
            }
        }
    }
    println!("\n{}", verdict.join("\n"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<&'static Step>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step `{unknown}`, expected one of {}", known.join(", "));
    }
    let wanted = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    Ok(STEPS.iter().filter(wanted).collect())
}

fn perform(action: &Action) -> anyhow::Result<Ended> {
    match action {
        Action::Tidy => tidy::run(&workspace_root())?,
        Action::Codegen => codegen::run(&workspace_root(), &codegen::CHECK)?,
        Action::Sim => sim::run(&sim::SHORT)?,
        Action::CrashPoints => crash_points::run(&crash_points::ONCE)?,
        Action::Cargo(arguments, environment) => {
            succeed(cargo().args(*arguments).envs(environment.iter().copied()))?;
        }
        Action::Counts => {
            if let Checked::Skipped(why) = counts::run(false)? {
                return Ok(Ended::Skipped(why));
            }
        }
        Action::Deny => {
            let installed = cargo()
                .args(["deny", "--version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
            if !installed {
                return Ok(Ended::Skipped("cargo-deny not installed".to_owned()));
            }
            succeed(cargo().args(["deny", "--locked", "check", "bans", "licenses", "sources"]))?;
        }
    }
    Ok(Ended::Passed)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    Ok(())
}

fn report(name: &str, ended: &anyhow::Result<Ended>, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let (verdict, why) = match ended {
        Ok(Ended::Passed) => ("passed", String::new()),
        Ok(Ended::Skipped(why)) => ("skipped", format!("  {why}")),
        Err(error) => ("FAILED", format!("  {error:#}")),
    };
    format!("<== {name:<8} {verdict:<8} {seconds:>7.1} s{why}")
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tidy => f.write_str("cargo xtask tidy"),
            Self::Codegen => f.write_str("cargo xtask codegen --check"),
            Self::Sim => f.write_str("cargo xtask sim --seeds 6000"),
            Self::CrashPoints => f.write_str("cargo xtask crash-points"),
            Self::Counts => f.write_str("cargo xtask bench --check"),
            Self::Deny => f.write_str("cargo deny --locked check bans licenses sources"),
            Self::Cargo(arguments, environment) => {
                for (name, value) in *environment {
                    write!(f, "{name}=\"{value}\" ")?;
                }
                write!(f, "cargo {}", arguments.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_step_is_refused_with_the_known_names() {
        let error = chosen(&["fnt".to_owned()]).err().unwrap().to_string();
        assert!(
            error.contains("`fnt`") && error.contains("fmt, tidy, codegen"),
            "{error}"
        );
    }

    #[test]
    fn steps_run_in_their_own_order() {
        let names = ["test", "fmt"].map(str::to_owned);
        let chosen = chosen(&names).unwrap();
        assert_eq!(
            chosen.iter().map(|step| step.name).collect::<Vec<_>>(),
            ["fmt", "test"]
        );
    }

    #[test]
    fn every_cargo_step_that_resolves_is_locked() {
        for step in STEPS {
            let Action::Cargo(arguments, _) = &step.action else {
                continue;
            };
            assert!(
                arguments[0] == "fmt" || arguments.contains(&"--locked"),
                "{}",
                step.name
            );
        }
    }
}
