//! Tables for the terminal: peers and cases, each cell with its ratio.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::catalog;
use crate::figure::{Metric, Parameters};
use crate::statistics::{Figures, Of, Pick};
use crate::suite::Benchmark;

/// The table of a benchmark; empty if nothing was found.
pub(crate) fn table(benchmark: &Benchmark, figures: &Figures) -> String {
    let (cases, peers) = (figures.cases(benchmark.name), figures.peers(benchmark.name));
    if cases.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let head = |rest: Vec<String>| std::iter::once(benchmark.name.to_owned()).chain(rest);
    let metrics = benchmark.view.metrics;
    if benchmark.view.tall {
        // Many rows: a cell is one line.
        let labels = peers.iter().map(|peer| catalog::label(peer).to_owned());
        table.set_header(head(labels.collect()));
        for case in cases {
            let of_peer = |peer: &&'static str| cell(benchmark, figures, peer, case, &metrics[..1]);
            table.add_row(std::iter::once(case.to_string()).chain(peers.iter().map(of_peer)));
        }
    } else {
        table.set_header(head(cases.iter().map(ToString::to_string).collect()));
        for peer in peers {
            let of_case = |case: &&Parameters| cell(benchmark, figures, peer, case, metrics);
            let cells = cases.iter().map(of_case);
            table.add_row(std::iter::once(catalog::label(peer).to_owned()).chain(cells));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}\n", legend(benchmark, figures))
}

/// What the figures of a benchmark are.
pub(crate) fn legend(benchmark: &Benchmark, figures: &Figures) -> String {
    let last = figures.of(benchmark.name).map(|figure| figure.round).max();
    let rounds = match last.map_or(0, |last| last + 1) {
        1 => "one round".to_owned(),
        rounds => format!("medians of up to {rounds} rounds"),
    };
    let mut text = format!("{}: {rounds}", benchmark.about);
    if let Some(reference) = benchmark.view.reference {
        let of = benchmark.view.metrics[0].label();
        text += &format!("; × is the {of} over that of {}", catalog::label(reference));
    }
    text
}

fn cell(
    benchmark: &Benchmark,
    figures: &Figures,
    peer: &str,
    case: &Parameters,
    metrics: &[Metric],
) -> String {
    let mut lines = Vec::new();
    for (index, &metric) in metrics.iter().enumerate() {
        let pick = Pick {
            benchmark: benchmark.name,
            peer,
            of: Of::Parameters(case),
            metric,
        };
        let Some(value) = figures.median(pick) else {
            continue;
        };
        let name = match metric {
            Metric::Rate => String::new(),
            other => format!("{} ", other.label()),
        };
        let ratio = (index == 0)
            .then(|| ratio(benchmark, figures, pick))
            .flatten();
        let ratio = ratio.map(|ratio| format!("  {ratio:.2} ×"));
        lines.push(format!(
            "{name}{}{}",
            metric.show(value),
            ratio.unwrap_or_default()
        ));
    }
    lines.join("\n")
}

/// The figure over that of the reference.
pub(crate) fn ratio(benchmark: &Benchmark, figures: &Figures, pick: Pick<'_>) -> Option<f64> {
    let peer = benchmark.view.reference?;
    figures.ratio(pick, Pick { peer, ..pick })
}
