//! `cargo xtask bench --check`: instructions of one step beside those that are written down.
//!
//! The program `bench/count` does a fixed number of steps under valgrind's callgrind;
//! `bench/counts.toml` keeps what a step took when it was last blessed. Instructions, unlike
//! times, hardly depend on the machine and on what else it does, so a few per cent are a fact
//! about the code.
//!
//! The program calls a function between equal segments of steps, and callgrind writes a part for
//! each segment. The median over the segments is taken, so a timer that happens to fire
//! in one of them does not count. The main thread is the client, all others belong to the nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, anyhow, bail, ensure};
use toml::{Table, Value};

use crate::{cargo, workspace_root};

/// Where the counts are kept.
const FILE: &str = "bench/counts.toml";
/// What callgrind is to write a part at: the name in the program, up to the compiler's suffix.
const MARK: &str = "bench_count::mark*";
/// Instructions may differ by so much, in per cent.
const TOLERANCE_PERCENT: f64 = 5.0;
/// Leaves out the variants of memcpy and the like that not every processor has.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM";
/// Parts that are counted; the median is taken.
const SEGMENTS: u64 = 7;

/// What the program can do step by step, and how many steps are a segment.
const SCENARIOS: &[(&str, u64)] = &[
    ("call", 100),
    ("call-of64", 320),
    ("foreign-of64", 320),
    ("durable", 50),
    ("action", 25),
];

/// Instructions of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    client: u64,
    nodes: u64,
}

/// Counts by scenario.
type Counts = BTreeMap<String, Count>;

/// How it ended.
pub(crate) enum Checked {
    /// Nothing got worse.
    Fine,
    /// It cannot be told here, and why.
    Skipped(String),
}

/// Counts, and compares with what is written down or writes it down.
pub(crate) fn run(bless: bool) -> anyhow::Result<Checked> {
    if !is_installed() {
        let cure = "valgrind is not installed (Debian: `apt-get install valgrind`)";
        return Ok(Checked::Skipped(cure.to_owned()));
    }
    let path = workspace_root().join(FILE);
    let mut all = written_down(&path)?;
    let architecture = std::env::consts::ARCH;
    let was = read(&all, architecture)?;
    if was.is_empty() && !bless {
        let what = format!("{FILE} has no counts for {architecture}; `--bless` writes them");
        return Ok(Checked::Skipped(what));
    }
    let program = build()?;
    let mut is = Counts::new();
    for (scenario, steps) in SCENARIOS {
        is.insert((*scenario).to_owned(), count(&program, scenario, *steps)?);
    }
    let (table, verdict) = compare(&was, &is);
    println!("{table}");
    if bless {
        all.insert(architecture.to_owned(), Value::Table(written(&is)));
        fs::write(&path, render(&all)).with_context(|| format!("cannot write {FILE}"))?;
        println!("written to {FILE}");
        return Ok(Checked::Fine);
    }
    verdict.map(|()| Checked::Fine)
}

/// All counts that are written down.
fn written_down(path: &Path) -> anyhow::Result<Table> {
    let cannot = || format!("cannot read {FILE}");
    let text = fs::read_to_string(path).with_context(cannot)?;
    text.parse().with_context(cannot)
}

fn is_installed() -> bool {
    let mut command = Command::new("valgrind");
    command.arg("--version").stdout(Stdio::null());
    command.stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Builds the program; its path.
fn build() -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "--release"]);
    let status = command.args(["--package", "bench-count"]).status()?;
    ensure!(
        status.success(),
        "the program `bench-count` cannot be built"
    );
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| workspace_root().join("target"), PathBuf::from);
    Ok(target.join("release").join("bench-count"))
}

/// Runs one scenario twice under callgrind, for parts with all threads and for parts with the
/// client's alone: when callgrind keeps threads apart, it writes that of the marking thread only.
/// Both at a time: valgrind runs one thread of a program after the other, and instructions are
/// not time.
fn count(program: &Path, scenario: &str, steps: u64) -> anyhow::Result<Count> {
    let (all, client) = thread::scope(|scope| {
        let client = scope.spawn(|| count_threads(program, scenario, steps, true));
        let all = count_threads(program, scenario, steps, false);
        (all, client.join())
    });
    let client = client.map_err(|_| anyhow!("{scenario}: counting panicked"))??;
    let all = all?;
    ensure!(
        0 < client && client < all,
        "{scenario}: {client} instructions of the client in {all} of all"
    );
    let nodes = all - client;
    Ok(Count { client, nodes })
}

/// The median over the segments, for one step.
fn count_threads(
    program: &Path,
    scenario: &str,
    steps: u64,
    client_only: bool,
) -> anyhow::Result<u64> {
    let sides = if client_only { "client" } else { "all" };
    let dir = workspace_root().join("target/counts");
    let dir = dir.join(scenario).join(sides);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--dump-before={MARK}"))
        .arg(format!(
            "--callgrind-out-file={}",
            dir.join("out").display()
        ))
        .args(client_only.then_some("--separate-threads=yes"))
        .arg(program)
        .arg(scenario)
        .args(["--steps", &steps.to_string()])
        .args(["--segments", &SEGMENTS.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    let output = command.output().context("cannot start valgrind")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("scenario {scenario}: {}\n{said}", output.status);
    }
    let thread = if client_only { "-01" } else { "" };
    // The first part is start-up and warm-up.
    let parts = (2..SEGMENTS + 2).map(|part| {
        let path = dir.join(format!("out.{part}{thread}"));
        let text = fs::read_to_string(&path).with_context(|| {
            format!("callgrind wrote no part {part}: is the function {MARK} still there?")
        })?;
        total(&text).with_context(|| format!("no total in {}", path.display()))
    });
    let mut parts = parts.collect::<anyhow::Result<Vec<_>>>()?;
    parts.sort_unstable();
    Ok(parts[parts.len() / 2] / steps)
}

/// What the line `totals: N` of a callgrind file says.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok()
}

/// A table, and whether all is as good as it was.
fn compare(was: &Counts, is: &Counts) -> (String, anyhow::Result<()>) {
    let head = ["step", "side", "was", "is", "change"];
    let mut table = row(&head.map(str::to_owned));
    let mut problems = Vec::new();
    for (scenario, is) in is {
        let was = was.get(scenario);
        let sides = [
            ("client", was.map(|was| was.client), is.client),
            ("nodes", was.map(|was| was.nodes), is.nodes),
        ];
        for (side, was, is) in sides {
            let percent = was.map(|was| (is as f64 / was as f64 - 1.0) * 100.0);
            let (before, change) = match (was, percent) {
                (Some(was), Some(percent)) => (was.to_string(), format!("{percent:+.1} %")),
                _ => ("-".to_owned(), "new".to_owned()),
            };
            table += &row(&[
                scenario.clone(),
                side.into(),
                before,
                is.to_string(),
                change,
            ]);
            match percent {
                Some(percent) if percent > TOLERANCE_PERCENT => {
                    problems.push(format!("{scenario}, {side}: {percent:+.1} %"));
                }
                Some(percent) if percent < -TOLERANCE_PERCENT => {
                    let _ = writeln!(table, "  ^ better than is written down: bless it");
                }
                None => problems.push(format!("{scenario}: is not written down")),
                Some(_) => {}
            }
        }
    }
    if problems.is_empty() {
        return (table, Ok(()));
    }
    let verdict = anyhow::anyhow!(
        "instructions grew by more than {TOLERANCE_PERCENT} %: {}\n\
         find out why (docs/performance.md, \"The regression guard\"), or, if it is worth it, \
         write it down: cargo xtask bench --bless",
        problems.join("; ")
    );
    (table, Err(verdict))
}

fn row(cells: &[String; 5]) -> String {
    let [scenario, side, was, is, change] = cells;
    format!("{scenario:<14} {side:<7} {was:>10} {is:>10} {change:>9}\n")
}

/// The counts of one architecture.
fn read(all: &Table, architecture: &str) -> anyhow::Result<Counts> {
    let Some(table) = all.get(architecture).and_then(Value::as_table) else {
        return Ok(Counts::new());
    };
    let of = |(scenario, value): (&String, &Value)| {
        let side = |name| {
            let count = value.get(name).and_then(Value::as_integer);
            let count = count.and_then(|count| u64::try_from(count).ok());
            count.with_context(|| format!("{FILE}: {architecture}.{scenario} has no `{name}`"))
        };
        let (client, nodes) = (side("client")?, side("nodes")?);
        Ok((scenario.clone(), Count { client, nodes }))
    };
    table.iter().map(of).collect()
}

fn written(counts: &Counts) -> Table {
    let of = |(scenario, count): (&String, &Count)| {
        let sides = [("client", count.client), ("nodes", count.nodes)];
        let table: Table = sides
            .into_iter()
            .map(|(side, count)| (side.to_owned(), Value::Integer(count as i64)))
            .collect();
        (scenario.clone(), Value::Table(table))
    };
    counts.iter().map(of).collect()
}

fn render(all: &Table) -> String {
    let head = "# Instructions of one step, by valgrind's callgrind, with the toolchain of\n\
        # rust-toolchain.toml. `cargo xtask bench --bless` writes them, `--check` compares.\n";
    format!("{head}\n{all}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(client: u64, nodes: u64) -> Counts {
        [("call".to_owned(), Count { client, nodes })].into()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let counts = counts(1_234, 56_789);
        let mut all = Table::new();
        all.insert("x86_64".to_owned(), Value::Table(written(&counts)));
        let all: Table = render(&all).parse().unwrap();
        assert_eq!(read(&all, "x86_64").unwrap(), counts);
        assert!(read(&all, "aarch64").unwrap().is_empty());
    }

    #[test]
    fn counts_that_are_not_there_are_an_error() {
        let all = written_down(&workspace_root().join(FILE)).unwrap();
        assert!(!read(&all, "x86_64").unwrap().is_empty());
        let missing = written_down(&workspace_root().join("bench/no-counts.toml"));
        assert!(missing.unwrap_err().to_string().contains(FILE));
    }

    #[test]
    fn only_what_is_worse_by_more_than_the_tolerance_fails() {
        let was = counts(10_000, 20_000);
        let cases = [
            ((10_000, 20_000), true, false),
            ((10_499, 20_999), true, false),
            ((10_501, 20_000), false, false),
            ((10_000, 21_001), false, false),
            ((9_499, 20_000), true, true),
            ((9_501, 19_001), true, false),
        ];
        for ((client, nodes), fine, better) in cases {
            let (table, verdict) = compare(&was, &counts(client, nodes));
            assert_eq!(verdict.is_ok(), fine, "{client}, {nodes}: {table}");
            assert_eq!(table.contains("bless it"), better, "{client}, {nodes}");
        }
        let (table, verdict) = compare(&Counts::new(), &was);
        assert!(verdict.is_err() && table.contains("new"), "{table}");
    }

    #[test]
    fn a_total_is_found() {
        let text = "events: Ir\nfn=(1)\n1 5\n\ntotals: 4711\n";
        assert_eq!(total(text), Some(4_711));
        assert_eq!(total("events: Ir\n"), None);
    }
}
