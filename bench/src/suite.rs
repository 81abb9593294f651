//! What a benchmark is: a name, and cases that are run in turn, round after round.
//!
//! A benchmark plans its cases without starting anything, so that the time of a whole suite can be
//! told before it begins; a case starts what it needs when it is run first. All cases of a round
//! are run before the next round begins. A machine that slows down for a minute then slows us and
//! our peers alike, and medians and ratios hold.

use std::time::Duration;

use crate::figure::{Found, Metric, Parameters};

/// Something that can be measured by its name.
pub(crate) struct Benchmark {
    /// On the command line.
    pub(crate) name: &'static str,
    /// In half a sentence.
    pub(crate) about: &'static str,
    /// What its figures are compared with, and how they are shown.
    pub(crate) view: View,
    /// Whether it is run only where it is named.
    pub(crate) on_request: bool,
    /// Its cases.
    pub(crate) plan: fn(&Setting) -> anyhow::Result<Plan>,
}

/// How the figures of a benchmark are shown.
pub(crate) struct View {
    /// The peer whose figures the others' are divided by.
    pub(crate) reference: Option<&'static str>,
    /// What a cell of its table tells, of one that is [`tall`](Self::tall) only the first; the
    /// ratio is of the first.
    pub(crate) metrics: &'static [Metric],
    /// Whether the parameters are the rows of its table, since there are many.
    pub(crate) tall: bool,
    /// What is drawn.
    pub(crate) plots: &'static [Plot],
}

/// A picture of a benchmark.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plot {
    /// How a figure depends on a parameter, a line for each peer.
    Curve {
        title: &'static str,
        /// The parameter, a number.
        x: &'static str,
        y: Metric,
    },
    /// Which share of the calls took how long, a line for each peer.
    Latencies {
        title: &'static str,
        /// Of the cases whose parameters read so.
        of: &'static str,
    },
    /// A bar for each peer.
    Bars { title: &'static str, y: Metric },
}

/// The cases of a benchmark.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) cases: Vec<Case>,
    /// Peers that cannot be measured here.
    pub(crate) absent: Vec<Absent>,
}

/// A peer that cannot be measured here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) peer: &'static str,
    /// What is missing, and how to get it.
    pub(crate) why: String,
}

/// What is run once a round.
pub(crate) struct Case {
    pub(crate) peer: &'static str,
    pub(crate) parameters: Parameters,
    /// In so many of the rounds, the first ones.
    pub(crate) rounds: usize,
    /// About how long a run takes.
    pub(crate) takes: Duration,
    /// Makes one run.
    pub(crate) run: Box<dyn FnMut() -> anyhow::Result<Found>>,
}

/// How thorough to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effort {
    /// One short run of each case, to see that it works.
    Smoke,
    /// Enough to see ratios.
    Quick,
    /// In between.
    Normal,
    /// For figures that are written down.
    Full,
}

/// What a benchmark is to know when it plans.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) effort: Effort,
    /// Rounds of the benchmarks that matter most; curves may take fewer.
    pub(crate) rounds: usize,
    /// Of each run, before what is measured.
    pub(crate) warm_up: Duration,
    /// Of each run.
    pub(crate) measure: Duration,
}

impl Setting {
    pub(crate) fn new(effort: Effort) -> Self {
        let (rounds, warm_up_ms, measure_ms) = match effort {
            Effort::Smoke => (1, 5, 25),
            Effort::Quick => (3, 50, 150),
            Effort::Normal => (5, 100, 400),
            Effort::Full => (5, 200, 600),
        };
        Self {
            effort,
            rounds,
            warm_up: Duration::from_millis(warm_up_ms),
            measure: Duration::from_millis(measure_ms),
        }
    }

    /// Rounds for a curve, whose points support each other.
    pub(crate) fn curve_rounds(&self) -> usize {
        self.rounds.div_ceil(2)
    }

    /// About how long a run with a client process takes.
    pub(crate) fn run_takes(&self) -> Duration {
        self.warm_up + self.measure + Duration::from_millis(30)
    }

    /// Of a list of values, all if there is time for them; else every second one, or in a smoke run
    /// the first and the last.
    pub(crate) fn thin(&self, values: &[u64]) -> Vec<u64> {
        let step = match self.effort {
            Effort::Smoke => values.len().max(2) - 1,
            Effort::Quick => 2,
            Effort::Normal | Effort::Full => 1,
        };
        values.iter().copied().step_by(step).collect()
    }
}
