//! The targets P1 to P15 and S1: what the figures of this run are to show, and whether they do.
//!
//! A target is a list of checks, each a figure of ours over figures of others, and a bound.
//! Figures of one round are compared with those of the same round. A check whose figures are not
//! there says why; it is neither met nor missed. No check makes the program fail unless
//! `--assert` names its target.
//!
//! [`network`] and [`disk`] are the tables.

mod disk;
mod network;

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::catalog;
use crate::figure::{Metric, short};
use crate::statistics::{self, Figures, Of, Pick};
use crate::suite::Absent;

/// What Partha is to reach.
pub(crate) struct Target {
    /// `P1`; `S1` for what others keep beside a stopped reader.
    number: &'static str,
    /// In half a sentence.
    what: &'static str,
    checks: &'static [Check],
}

/// One figure of a target.
pub(crate) struct Check {
    /// In which case, and beside whom.
    what: &'static str,
    how: How,
    bound: Bound,
}

/// How a check finds its value.
pub(crate) enum How {
    /// A sum of figures over another sum of figures.
    Ratio(&'static [Term], &'static [Term]),
    /// A sum of figures by itself.
    Absolute(&'static [Term]),
}

/// What the value may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// So many times a figure.
#[derive(Clone, Copy)]
pub(crate) struct Term {
    times: f64,
    benchmark: &'static str,
    peer: &'static str,
    /// The parameters, as they read.
    of: &'static str,
    metric: Metric,
}

/// One figure.
const fn figure(
    benchmark: &'static str,
    peer: &'static str,
    of: &'static str,
    metric: Metric,
) -> Term {
    Term {
        times: 1.0,
        benchmark,
        peer,
        of,
        metric,
    }
}

/// So many times a figure.
const fn times(times: f64, term: Term) -> Term {
    Term { times, ..term }
}

/// A check and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Judged {
    pub(crate) target: &'static str,
    /// What the target is about.
    pub(crate) about: &'static str,
    /// What the check is about.
    pub(crate) what: &'static str,
    /// The bound, in words.
    pub(crate) bound: String,
    /// The median of our figure, with its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) figure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// Whether a check holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "why", rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    NotMeasured(String),
}

/// All targets, in the order of their numbers.
fn all() -> impl Iterator<Item = &'static Target> {
    [network::TARGETS, disk::TARGETS, network::SLOW_READER]
        .into_iter()
        .flatten()
}

/// What came of each check.
pub(crate) fn judge(figures: &Figures, absent: &[Absent]) -> Vec<Judged> {
    all()
        .flat_map(|target| target.checks.iter().map(move |check| (target, check)))
        .map(|(target, check)| check.judge(target, figures, absent))
        .collect()
}

/// Fails if there is no target with one of these numbers.
pub(crate) fn known(numbers: &[String]) -> anyhow::Result<()> {
    for number in numbers {
        let known: Vec<_> = all().map(|target| target.number).collect();
        ensure!(
            known.contains(&number.as_str()),
            "there is no target `{number}`, expected one of {}",
            known.join(", ")
        );
    }
    Ok(())
}

/// Fails if a target with one of these numbers is not met, or not measured.
pub(crate) fn assert(judged: &[Judged], numbers: &[String]) -> anyhow::Result<()> {
    let not_met: Vec<_> = judged
        .iter()
        .filter(|judged| numbers.iter().any(|number| number == judged.target))
        .filter(|judged| judged.verdict != Verdict::Met)
        .map(|judged| match &judged.verdict {
            Verdict::NotMeasured(why) => {
                format!("{}, {}: not measured, {why}", judged.target, judged.what)
            }
            Verdict::Met | Verdict::Missed => format!(
                "{}, {}: {}, to be {}",
                judged.target,
                judged.what,
                judged.value(),
                judged.bound
            ),
        })
        .collect();
    if !not_met.is_empty() {
        bail!("targets that are not met:\n  {}", not_met.join("\n  "));
    }
    Ok(())
}

/// The table of all checks, and a line that counts them.
pub(crate) fn table(judged: &[Judged]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "what", "target", "figure", "ratio", "verdict"]);
    for judged in judged {
        let ratio = judged.ratio.map(|ratio| format!("{} ×", short(ratio)));
        table.add_row([
            judged.target.to_owned(),
            format!("{}: {}", judged.about, judged.what),
            judged.bound.clone(),
            judged.figure.clone().unwrap_or_default(),
            ratio.unwrap_or_default(),
            judged.verdict.to_string(),
        ]);
    }
    let count = |wanted: fn(&Verdict) -> bool| {
        let chosen = judged.iter().filter(|judged| wanted(&judged.verdict));
        chosen.count()
    };
    format!(
        "{table}\n{} checks met, {} missed, {} not measured\n",
        count(|verdict| *verdict == Verdict::Met),
        count(|verdict| *verdict == Verdict::Missed),
        count(|verdict| matches!(verdict, Verdict::NotMeasured(_))),
    )
}

impl Check {
    fn judge(&self, target: &Target, figures: &Figures, absent: &[Absent]) -> Judged {
        let unit = match self.how {
            How::Absolute([first, ..]) => format!(" {}", first.metric.unit()),
            _ => String::new(),
        };
        let mut judged = Judged {
            target: target.number,
            about: target.what,
            what: self.what,
            bound: format!("{}{unit}", self.bound),
            figure: None,
            ratio: None,
            verdict: Verdict::Missed,
        };
        let sum = |terms| sum(terms, figures, absent);
        let value = match self.how {
            How::Absolute(ours) => sum(ours).map(|ours| {
                judged.figure = ours.shown();
                statistics::median(ours.rounds.into_values().collect())
            }),
            How::Ratio(ours, others) => sum(ours).and_then(|ours| {
                judged.figure = ours.shown();
                let others = sum(others)?;
                judged.ratio = statistics::ratio(&ours.rounds, &others.rounds);
                Ok(judged.ratio)
            }),
        };
        judged.verdict = match value {
            Err(why) => Verdict::NotMeasured(why),
            Ok(None) => Verdict::NotMeasured("no round has all the figures".to_owned()),
            Ok(Some(value)) if self.bound.holds(value) => Verdict::Met,
            Ok(Some(_)) => Verdict::Missed,
        };
        judged
    }
}

/// A sum of figures, for each round that has all of them.
struct Sum {
    rounds: BTreeMap<usize, f64>,
    metric: Metric,
}

impl Sum {
    fn shown(&self) -> Option<String> {
        let median = statistics::median(self.rounds.values().copied().collect());
        median.map(|median| self.metric.show(median))
    }
}

/// The sum of the terms, or why there is none.
fn sum(terms: &[Term], figures: &Figures, absent: &[Absent]) -> Result<Sum, String> {
    let [first, rest @ ..] = terms else {
        return Err("no benchmark measures it yet".to_owned());
    };
    let mut rounds = first.rounds(figures, absent)?;
    for term in rest {
        let other = term.rounds(figures, absent)?;
        rounds = rounds
            .into_iter()
            .filter_map(|(round, sum)| Some((round, sum + other.get(&round)?)))
            .collect();
    }
    let metric = first.metric;
    Ok(Sum { rounds, metric })
}

impl Term {
    fn rounds(&self, figures: &Figures, absent: &[Absent]) -> Result<BTreeMap<usize, f64>, String> {
        let pick = Pick {
            benchmark: self.benchmark,
            peer: self.peer,
            of: Of::Text(self.of),
            metric: self.metric,
        };
        let found = figures.rounds(pick);
        if !found.is_empty() {
            let scaled = found
                .into_iter()
                .map(|(round, value)| (round, value * self.times));
            return Ok(scaled.collect());
        }
        if figures.of(self.benchmark).next().is_none() {
            return Err(format!("the benchmark `{}` was not run", self.benchmark));
        }
        let label = catalog::label(self.peer);
        if let Some(absent) = absent.iter().find(|absent| absent.peer == self.peer) {
            return Err(format!("{label}: {}", absent.why));
        }
        Err(format!(
            "`{}` has no figure of {label}, {}",
            self.benchmark, self.of
        ))
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

impl Judged {
    /// What was compared with the bound.
    fn value(&self) -> String {
        match (self.ratio, &self.figure) {
            (Some(ratio), _) => short(ratio),
            (None, Some(figure)) => figure.clone(),
            (None, None) => String::new(),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Met => f.write_str("met"),
            Self::Missed => f.write_str("missed"),
            Self::NotMeasured(why) => write!(f, "not measured: {why}"),
        }
    }
}

#[cfg(test)]
mod tests;
