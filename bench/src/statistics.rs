//! Medians and ratios of figures.
//!
//! A ratio is the median of the ratios within each round, not the ratio of two medians: what
//! disturbed a round disturbed both of its runs.

use std::collections::BTreeMap;

use crate::figure::{Figure, Metric, Parameters};

/// All figures of a run of the program.
#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

/// What is asked for: one metric of one peer in one case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick<'a> {
    pub(crate) benchmark: &'a str,
    pub(crate) peer: &'a str,
    pub(crate) of: Of<'a>,
    pub(crate) metric: Metric,
}

/// Which cases.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of<'a> {
    /// Those with these parameters.
    Parameters(&'a Parameters),
    /// Those whose parameters read so.
    Text(&'a str),
}

impl Figures {
    pub(crate) fn push(&mut self, figure: Figure) {
        self.0.push(figure);
    }

    /// The figures of one benchmark.
    pub(crate) fn of(&self, benchmark: &str) -> impl Iterator<Item = &Figure> {
        self.0
            .iter()
            .filter(move |figure| figure.benchmark == benchmark)
    }

    /// The parameters of a benchmark's cases, in the order in which they were run.
    pub(crate) fn cases(&self, benchmark: &str) -> Vec<&Parameters> {
        distinct(self.of(benchmark).map(|figure| &figure.parameters))
    }

    /// The peers of a benchmark, in the order in which they were run.
    pub(crate) fn peers(&self, benchmark: &str) -> Vec<&'static str> {
        distinct(self.of(benchmark).map(|figure| figure.peer))
    }

    /// The value of each round.
    pub(crate) fn rounds(&self, pick: Pick<'_>) -> BTreeMap<usize, f64> {
        self.of(pick.benchmark)
            .filter(|figure| figure.peer == pick.peer && pick.of.is(&figure.parameters))
            .filter_map(|figure| Some((figure.round, *figure.found.metrics.get(&pick.metric)?)))
            .collect()
    }

    /// The middle of all rounds.
    pub(crate) fn median(&self, pick: Pick<'_>) -> Option<f64> {
        median(self.rounds(pick).into_values().collect())
    }

    /// The middle of the ratios of all rounds that both have.
    pub(crate) fn ratio(&self, over: Pick<'_>, under: Pick<'_>) -> Option<f64> {
        ratio(&self.rounds(over), &self.rounds(under))
    }

    /// All latencies of a peer in a case, of all rounds: nanoseconds and how often, ascending.
    pub(crate) fn latencies_ns(&self, benchmark: &str, peer: &str, of: Of<'_>) -> Vec<(u64, u64)> {
        let mut all = BTreeMap::new();
        let chosen = self
            .of(benchmark)
            .filter(|figure| figure.peer == peer && of.is(&figure.parameters));
        for &(nanoseconds, count) in chosen.flat_map(|figure| &figure.found.latencies_ns) {
            *all.entry(nanoseconds).or_default() += count;
        }
        all.into_iter().collect()
    }
}

impl Of<'_> {
    fn is(&self, parameters: &Parameters) -> bool {
        match self {
            Self::Parameters(wanted) => *wanted == parameters,
            Self::Text(text) => parameters.to_string() == *text,
        }
    }
}

/// The middle of the ratios of the rounds that both have.
pub(crate) fn ratio(over: &BTreeMap<usize, f64>, under: &BTreeMap<usize, f64>) -> Option<f64> {
    let pairs = over
        .iter()
        .filter_map(|(round, over)| Some(over / under.get(round)?));
    median(pairs.collect())
}

/// The middle value; none of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut known = Vec::new();
    for one in all {
        if !known.contains(&one) {
            known.push(one);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Found;

    fn figures(rates: &[(usize, &'static str, f64)]) -> Figures {
        let mut figures = Figures::default();
        for &(round, peer, rate) in rates {
            figures.push(Figure {
                benchmark: "null",
                peer,
                parameters: Parameters::default().with("outstanding", 1),
                round,
                found: Found::default().with(Metric::Rate, rate),
            });
        }
        figures
    }

    fn pick(peer: &str) -> Pick<'_> {
        Pick {
            benchmark: "null",
            peer,
            of: Of::Text("1 outstanding"),
            metric: Metric::Rate,
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // A machine that is ten times slower in the second round leaves the ratio at 2.
        let found = figures(&[
            (0, "raw", 200.0),
            (0, "tarpc", 100.0),
            (1, "raw", 20.0),
            (1, "tarpc", 10.0),
            (2, "raw", 240.0),
            (2, "tarpc", 120.0),
        ]);
        assert_eq!(found.ratio(pick("raw"), pick("tarpc")), Some(2.0));
        assert_eq!(found.median(pick("raw")), Some(200.0));
        assert_eq!(found.peers("null"), ["raw", "tarpc"]);
    }

    #[test]
    fn without_the_other_there_is_no_ratio() {
        let found = figures(&[(0, "raw", 5.0), (1, "tarpc", 5.0)]);
        assert_eq!(found.ratio(pick("raw"), pick("tarpc")), None);
        assert_eq!(found.median(pick("tonic")), None);
    }
}
