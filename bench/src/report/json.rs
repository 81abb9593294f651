//! Lines of JSON: each run as it ends, then each median, each peer that was absent, each target.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::figure::{Figure, Metric, Parameters};
use crate::report::table;
use crate::statistics::{Figures, Of, Pick};
use crate::suite::{Absent, Benchmark};
use crate::targets::Judged;

/// A line.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Run(&'a Figure),
    Median {
        benchmark: &'static str,
        peer: &'static str,
        parameters: &'a Parameters,
        metric: Metric,
        value: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ratio: Option<f64>,
    },
    Absent {
        benchmark: &'static str,
        peer: &'static str,
        why: &'a str,
    },
    Target(&'a Judged),
}

/// A line for each peer that could not be measured.
pub(crate) fn absent<'a>(benchmark: &Benchmark, absent: &'a Absent) -> Line<'a> {
    Line::Absent {
        benchmark: benchmark.name,
        peer: absent.peer,
        why: &absent.why,
    }
}

/// A line for each median of a benchmark.
pub(crate) fn medians<'a>(benchmark: &Benchmark, figures: &'a Figures) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for parameters in figures.cases(benchmark.name) {
        for peer in figures.peers(benchmark.name) {
            for &metric in benchmark.view.metrics {
                let pick = Pick {
                    benchmark: benchmark.name,
                    peer,
                    of: Of::Parameters(parameters),
                    metric,
                };
                lines.extend(figures.median(pick).map(|value| Line::Median {
                    benchmark: benchmark.name,
                    peer,
                    parameters,
                    metric,
                    value,
                    ratio: table::ratio(benchmark, figures, pick),
                }));
            }
        }
    }
    lines
}

/// A file of such lines.
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
    pub(crate) fn line(&mut self, line: &Line<'_>) -> anyhow::Result<()> {
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
