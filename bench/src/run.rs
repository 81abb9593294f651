//! Runs benchmarks: plans them, says how long it will take, and takes turns.
//!
//! A case that fails ends its benchmark, not the others: what was found until then is reported, and
//! the program fails at its end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::catalog;
use crate::figure::Figure;
use crate::interrupt;
use crate::statistics::Figures;
use crate::suite::{Absent, Benchmark, Case, Setting};

/// A benchmark and its cases.
pub(crate) struct Planned {
    pub(crate) benchmark: &'static Benchmark,
    pub(crate) absent: Vec<Absent>,
    cases: Vec<Case>,
}

/// A benchmark that did not come to its end.
pub(crate) struct Failed {
    pub(crate) benchmark: &'static str,
    pub(crate) error: anyhow::Error,
}

/// Plans the named benchmarks, or all that are not run on request alone.
pub(crate) fn plan(
    names: &[String],
    peers: &[String],
    setting: &Setting,
) -> anyhow::Result<Vec<Planned>> {
    for name in names {
        let known: Vec<_> = catalog::benchmarks().map(|known| known.name).collect();
        ensure!(
            known.contains(&name.as_str()),
            "there is no benchmark `{name}`, expected one of {}",
            known.join(", ")
        );
    }
    for peer in peers {
        let known: Vec<_> = catalog::PEERS.iter().map(|(name, _)| *name).collect();
        ensure!(
            known.contains(&peer.as_str()),
            "there is no peer `{peer}`, expected one of {}",
            known.join(", ")
        );
    }
    let wanted = |benchmark: &&Benchmark| match names {
        [] => !benchmark.on_request,
        names => names.iter().any(|name| name == benchmark.name),
    };
    let mut planned = Vec::new();
    for benchmark in catalog::benchmarks().filter(wanted) {
        let mut plan = (benchmark.plan)(setting)
            .with_context(|| format!("cannot plan the benchmark {}", benchmark.name))?;
        let chosen = |peer: &str| peers.is_empty() || peers.iter().any(|name| name == peer);
        plan.cases.retain(|case| chosen(case.peer));
        plan.absent.retain(|absent| chosen(absent.peer));
        planned.push(Planned {
            benchmark,
            absent: plan.absent,
            cases: plan.cases,
        });
    }
    Ok(planned)
}

/// About how long all of it takes.
pub(crate) fn takes(planned: &[Planned]) -> Duration {
    planned.iter().map(|planned| takes_of(&planned.cases)).sum()
}

/// Runs all of it with a progress bar on standard error; `each` is told every figure at once.
///
/// # Errors
/// If the user interrupts it, or `each` fails.
pub(crate) fn execute(
    planned: Vec<Planned>,
    mut each: impl FnMut(&Figure) -> anyhow::Result<()>,
) -> anyhow::Result<(Figures, Vec<Failed>)> {
    let progress = Progress::new(takes(&planned))?;
    let (mut figures, mut failures) = (Figures::default(), Vec::new());
    for Planned {
        benchmark, cases, ..
    } in planned
    {
        let left: Duration = takes_of(&cases);
        let before = progress.done();
        let ended = rounds(benchmark, cases, &progress, |figure| {
            each(&figure)?;
            figures.push(figure);
            Ok(())
        });
        interrupt::check()?;
        if let Err(error) = ended {
            let benchmark = benchmark.name;
            failures.push(Failed { benchmark, error });
        }
        progress.set(before + left);
    }
    progress.bar.finish_and_clear();
    Ok((figures, failures))
}

fn takes_of(cases: &[Case]) -> Duration {
    cases
        .iter()
        .map(|case| case.takes * case.rounds as u32)
        .sum()
}

fn rounds(
    benchmark: &'static Benchmark,
    mut cases: Vec<Case>,
    progress: &Progress,
    mut each: impl FnMut(Figure) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let rounds = cases.iter().map(|case| case.rounds).max().unwrap_or(0);
    for round in 0..rounds {
        for case in cases.iter_mut().filter(|case| round < case.rounds) {
            interrupt::check()?;
            let label = catalog::label(case.peer);
            let what = format!("{}: {label}, {}", benchmark.name, case.parameters);
            progress.tell(&what);
            let found = (case.run)().with_context(|| format!("{what}, round {round}"))?;
            each(Figure {
                benchmark: benchmark.name,
                peer: case.peer,
                parameters: case.parameters.clone(),
                round,
                found,
            })?;
            progress.set(progress.done() + case.takes);
        }
    }
    Ok(())
}

/// A bar whose length is time, and what is left of it as the runs so far tell.
struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    fn new(total: Duration) -> anyhow::Result<Self> {
        let bar = ProgressBar::new(total.as_millis() as u64);
        bar.set_style(ProgressStyle::with_template(
            "{bar:30} {percent:>3} %  {prefix}  {wide_msg}",
        )?);
        let begun = Instant::now();
        Ok(Self { bar, begun })
    }

    fn done(&self) -> Duration {
        Duration::from_millis(self.bar.position())
    }

    fn set(&self, done: Duration) {
        self.bar.set_position(done.as_millis() as u64);
    }

    fn tell(&self, what: &str) {
        let total = Duration::from_millis(self.bar.length().unwrap_or_default());
        let (done, left) = (self.done(), total.saturating_sub(self.done()));
        let pace = match done.as_secs_f64() {
            // Too early to tell.
            done if done < 2.0 => 1.0,
            done => self.begun.elapsed().as_secs_f64() / done,
        };
        self.bar
            .set_prefix(format!("{} left", minutes(left.mul_f64(pace))));
        self.bar.set_message(what.to_owned());
    }
}

/// `1 min 5 s`.
pub(crate) fn minutes(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Effort;

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let setting = Setting::new(Effort::Quick);
        let error = plan(&["nul".to_owned()], &[], &setting).err().unwrap();
        assert!(error.to_string().contains("null, "), "{error}");
        let error = plan(&[], &["tarcp".to_owned()], &setting).err().unwrap();
        assert!(error.to_string().contains("tarpc"), "{error}");
    }

    #[test]
    fn the_time_of_a_suite_is_known_before_it_begins() {
        let whole = |effort| takes(&plan(&[], &[], &Setting::new(effort)).unwrap());
        assert!(whole(Effort::Quick) < Duration::from_secs(4 * 60));
        assert!(whole(Effort::Full) < Duration::from_secs(25 * 60));
        assert!(whole(Effort::Smoke) < whole(Effort::Quick));
        assert_eq!(minutes(Duration::from_secs(65)), "1 min 5 s");
    }
}
