//! Medians, the table and the JSON lines.
//!
//! A ratio is the median of the ratios within each round, not the ratio of two medians: what
//! disturbed a round disturbed both of its runs.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::load::Measurement;
use crate::peer::{Kind, Peer};
use crate::plan::{Plan, Run};

/// The middle of all rounds for one peer and load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    peer: Peer,
    outstanding: usize,
    found: Measurement,
    /// Calls per second over those of [`Peer::reference`]; `None` if it was not measured.
    ratio: Option<f64>,
}

/// A line of the JSON file.
#[derive(Serialize)]
pub(crate) struct Line {
    kind: &'static str,
    benchmark: &'static str,
    peer: Peer,
    outstanding: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<usize>,
    #[serde(flatten)]
    found: Measurement,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

/// One median for each peer and load of the plan, in its order.
pub(crate) fn medians(plan: &Plan, runs: &[Run]) -> Vec<Median> {
    let mut medians = Vec::new();
    for &peer in &plan.peers {
        for &outstanding in &plan.outstanding {
            let of_peer = select(runs, peer, outstanding);
            let over = |field: fn(&Measurement) -> f64| {
                median(of_peer.iter().map(field).collect()).unwrap_or_default()
            };
            let references = select(runs, peer.reference(), outstanding);
            let pairs = of_peer.iter().zip(&references);
            let ratios = pairs.map(|(own, other)| own.calls_per_second / other.calls_per_second);
            let found = Measurement {
                calls_per_second: over(|found| found.calls_per_second),
                p50_us: over(|found| found.p50_us),
                p99_us: over(|found| found.p99_us),
            };
            medians.push(Median {
                peer,
                outstanding,
                found,
                ratio: median(ratios.collect()),
            });
        }
    }
    medians
}

/// The figures of one peer and load, in the order of the rounds.
fn select(runs: &[Run], peer: Peer, outstanding: usize) -> Vec<Measurement> {
    let chosen = runs
        .iter()
        .filter(|run| run.peer == peer && run.outstanding == outstanding);
    chosen.map(|run| run.found).collect()
}

/// The middle value; none of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Peers as rows, loads as columns.
pub(crate) fn table(plan: &Plan, medians: &[Median]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let heads = plan
        .outstanding
        .iter()
        .map(|count| format!("{count} outstanding"));
    table.set_header(std::iter::once("null call, u64 to u64".to_owned()).chain(heads));
    for &peer in &plan.peers {
        let cells = plan.outstanding.iter().map(|&outstanding| {
            let of_cell = |m: &&Median| m.peer == peer && m.outstanding == outstanding;
            medians.iter().find(of_cell).map(cell).unwrap_or_default()
        });
        table.add_row(std::iter::once(peer.label().to_owned()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}", legend(plan))
}

/// What the figures are medians of, if a round takes the `part`-th part of its time.
pub(crate) fn rounds(plan: &Plan, part: u32) -> String {
    format!(
        "medians of {} rounds of {:?}",
        plan.rounds,
        plan.measure / part
    )
}

fn legend(plan: &Plan) -> String {
    let mut text = rounds(plan, 1);
    let mut references = Vec::new();
    for reference in plan.peers.iter().map(|peer| peer.reference()) {
        if !references.contains(&reference) {
            let kind = match reference.kind() {
                Kind::Processes => "between processes",
                Kind::OneProcess => "in one process",
            };
            text += &format!("\n× {kind}: calls/s over {}", reference.label());
            references.push(reference);
        }
    }
    text
}

fn cell(median: &Median) -> String {
    let Measurement {
        calls_per_second,
        p50_us,
        p99_us,
    } = median.found;
    let ratio = median
        .ratio
        .map(|ratio| format!("  {ratio:.2} ×"))
        .unwrap_or_default();
    let rate = grouped(calls_per_second);
    format!("{rate}/s{ratio}\np50 {p50_us:.1} µs\np99 {p99_us:.1} µs")
}

/// `1234567.8` as `1,234,568`.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A line for each run and one for each median.
pub(crate) fn lines(runs: &[Run], medians: &[Median]) -> Vec<Line> {
    let benchmark = "null";
    let runs = runs.iter().map(|run| Line {
        kind: "run",
        benchmark,
        peer: run.peer,
        outstanding: run.outstanding,
        round: Some(run.round),
        found: run.found,
        ratio: None,
    });
    let medians = medians.iter().map(|median| Line {
        kind: "median",
        benchmark,
        peer: median.peer,
        outstanding: median.outstanding,
        round: None,
        found: median.found,
        ratio: median.ratio,
    });
    runs.chain(medians).collect()
}

/// A file of lines of JSON.
pub(crate) struct Json {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Json {
    /// Begins a file, over what it held before.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(line)?;
        let written = writeln!(self.file, "{text}");
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Hands the last lines to the system.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        let written = self.file.flush();
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Cores;
    use std::time::Duration;

    fn plan() -> Plan {
        Plan {
            peers: vec![Peer::Raw, Peer::Tarpc],
            outstanding: vec![1],
            rounds: 3,
            warm_up: Duration::ZERO,
            measure: Duration::from_secs(1),
            cores: Cores::Any,
        }
    }

    fn run(round: usize, peer: Peer, calls_per_second: f64) -> Run {
        let found = Measurement {
            calls_per_second,
            p50_us: 1.0,
            p99_us: 2.0,
        };
        Run {
            round,
            peer,
            outstanding: 1,
            found,
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // A machine that is ten times slower in the second round leaves the ratio at 2.
        let rates = [(0, 200.0, 100.0), (1, 20.0, 10.0), (2, 240.0, 120.0)];
        let mut runs = Vec::new();
        for (round, raw, tarpc) in rates {
            runs.push(run(round, Peer::Raw, raw));
            runs.push(run(round, Peer::Tarpc, tarpc));
        }
        let found = medians(&plan(), &runs);
        assert_eq!(found[0].ratio, Some(2.0));
        assert_eq!(found[0].found.calls_per_second, 200.0);
        assert_eq!(found[1].ratio, Some(1.0));
        let table = table(&plan(), &found);
        assert!(
            table.contains("2.00 ×") && table.contains("raw frames"),
            "{table}"
        );
    }

    #[test]
    fn without_its_reference_a_peer_has_no_ratio() {
        let found = medians(&plan(), &[run(0, Peer::Raw, 5.0)]);
        assert_eq!(found[0].ratio, None);
    }

    #[test]
    fn figures_are_grouped_by_thousands() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.6), "1,000");
        assert_eq!(grouped(1_234_567.8), "1,234,568");
    }
}
