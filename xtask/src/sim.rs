//! `cargo xtask sim`: the seeded simulator of the core, in release mode.
//!
//! The simulator is `runtime/core/tests/sim`; its command line is handed on as it is, and its
//! `options.rs` has the meaning of each flag. What is said here is for `--help` alone.

use std::process::Stdio;

use anyhow::{Context as _, bail};

use crate::cargo;

/// Which seeds of which world
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// This seed alone
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print every input with its outputs, of one seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Leave a rule out, which has to be noticed: its name, or `all` for one after another
    #[arg(long, value_name = "RULE")]
    mutation: Option<String>,
    /// `calls`, `actions` or `groups`; all of them if not given
    #[arg(long, value_name = "WORLD")]
    world: Option<String>,
    /// How large a run may become, as `nodes=2,actions=1`
    #[arg(long, value_name = "NAME=N,…")]
    caps: Option<String>,
    /// Kinds of faults that do not happen, as `crash,partition`
    #[arg(long, value_name = "KIND,…")]
    without: Option<String>,
}

/// What the continuous integration runs: less, since it has other things to do as well.
pub(crate) const SHORT: Arguments = Arguments {
    seeds: Some(SEEDS_SHORT),
    from: None,
    seed: None,
    trace: false,
    mutation: None,
    world: None,
    caps: None,
    without: None,
};

/// Seeds of a run that nobody said more about.
const SEEDS: u64 = 20_000;
const SEEDS_SHORT: u64 = 6_000;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut command = cargo();
    command
        .args(["test", "--locked", "--quiet", "--release"])
        .args(["--package", "partha-core", "--test", "sim", "--"])
        .args(words(arguments))
        .stdin(Stdio::null());
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the simulator ended with {status}");
    }
    Ok(())
}

/// The command line of the simulator.
fn words(arguments: &Arguments) -> Vec<String> {
    let mut words = Vec::new();
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([format!("--{name}"), value]);
        }
    };
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    flag("seed", text(arguments.seed));
    if arguments.seed.is_none() {
        flag("seeds", text(arguments.seeds.or(Some(SEEDS))));
    }
    flag("from", text(arguments.from));
    flag("mutation", arguments.mutation.clone());
    flag("world", arguments.world.clone());
    flag("caps", arguments.caps.clone());
    flag("without", arguments.without.clone());
    if arguments.trace {
        words.push("--trace".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_not_many() {
        let one = Arguments {
            seed: Some(7),
            seeds: None,
            trace: true,
            ..SHORT
        };
        assert_eq!(words(&one), ["--seed", "7", "--trace"]);
        assert_eq!(words(&SHORT), ["--seeds", "6000"]);
    }
}
