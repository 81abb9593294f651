//! Verdicts of given figures.

use super::*;
use crate::figure::{Figure, Found, Parameters};
use crate::suite::Setting;

/// Figures of the null call with 64 outstanding: the rates of each round.
fn figures(rates: &[(&'static str, &[f64])]) -> Figures {
    let mut figures = Figures::default();
    for &(peer, rates) in rates {
        for (round, &rate) in rates.iter().enumerate() {
            figures.push(Figure {
                benchmark: "null",
                peer,
                parameters: Parameters::default()
                    .with("outstanding", 64)
                    .with("cores", "two cores"),
                round,
                found: Found::default().with(Metric::Rate, rate),
            });
        }
    }
    figures
}

fn of<'a>(judged: &'a [Judged], target: &str) -> Vec<(&'a str, &'a Verdict)> {
    judged
        .iter()
        .filter(|judged| judged.target == target)
        .map(|judged| (judged.what, &judged.verdict))
        .collect()
}

#[test]
fn given_figures_are_judged_by_the_median_of_their_ratios() {
    let cases: &[(&[f64], &[f64], Verdict)] = &[
        (&[200.0], &[100.0], Verdict::Met),
        (&[199.0], &[100.0], Verdict::Missed),
        // The second round was disturbed for both, the third for one: the median does not care.
        (&[200.0, 20.0, 1.0], &[100.0, 10.0, 100.0], Verdict::Met),
        (&[200.0, 19.0, 1.0], &[100.0, 10.0, 100.0], Verdict::Missed),
    ];
    for (ours, theirs, expected) in cases {
        let judged = judge(&figures(&[("partha", ours), ("tarpc", theirs)]), &[]);
        let of_p2 = of(&judged, "P2");
        assert_eq!(of_p2[0], ("calls/s over tarpc", expected), "{ours:?}");
    }
}

#[test]
fn what_is_not_there_is_said() {
    let absent = [Absent {
        peer: "ice",
        why: "not installed: apt-get install zeroc-ice-all-dev".to_owned(),
    }];
    let judged = judge(&figures(&[("partha", &[1.0]), ("raw", &[1.0])]), &absent);
    let reason = |target: &str, what: &str| {
        let found = of(&judged, target)
            .into_iter()
            .find(|(known, _)| *known == what);
        found.map(|(_, verdict)| verdict.to_string()).unwrap()
    };
    let (null, echo) = (
        reason("P2", "calls/s over tonic"),
        reason("P5", "64 KiB over raw TCP"),
    );
    assert!(null.contains("no figure of tonic"), "{null}");
    assert!(echo.contains("`echo` was not run"), "{echo}");
    let table = table(&judged);
    assert!(
        table.contains("P1") && table.contains("not measured"),
        "{table}"
    );
    let ice = figures(&[("partha", &[1.0])]);
    let of_ice = null_of(&ice, &absent, "ice");
    assert!(of_ice.unwrap_err().contains("apt-get install"));
    // Whoever is absent elsewhere is not why nothing was run here.
    let of_ice = null_of(&Figures::default(), &absent, "ice");
    assert!(of_ice.unwrap_err().contains("`null` was not run"));
}

fn null_of(
    figures: &Figures,
    absent: &[Absent],
    peer: &'static str,
) -> Result<BTreeMap<usize, f64>, String> {
    let term = figure("null", peer, "64 outstanding, two cores", Metric::Rate);
    term.rounds(figures, absent)
}

#[test]
fn sums_are_of_the_rounds_that_have_all_terms() {
    let figures = figures(&[("raw", &[1.0, 2.0, 3.0]), ("tarpc", &[10.0, 20.0])]);
    let term = |peer, times| Term {
        times,
        ..figure("null", peer, "64 outstanding, two cores", Metric::Rate)
    };
    let found = sum(&[term("raw", 2.0), term("tarpc", 1.0)], &figures, &[]).unwrap();
    assert_eq!(found.rounds, BTreeMap::from([(0, 12.0), (1, 24.0)]));
}

#[test]
fn only_what_is_asserted_fails() {
    let judged = judge(&figures(&[("partha", &[1.0]), ("tarpc", &[1.0])]), &[]);
    assert!(assert(&judged, &[]).is_ok());
    let error = assert(&judged, &["P2".to_owned()]).unwrap_err().to_string();
    assert!(
        error.contains("to be ≥ 2") && error.contains("not measured"),
        "{error}"
    );
    assert!(known(&["P99".to_owned()]).is_err());
    assert!(known(&["P1".to_owned()]).is_ok());
}

#[test]
fn every_figure_that_a_target_needs_is_measured_by_a_full_run() {
    let mut measured = Vec::new();
    for benchmark in catalog::benchmarks() {
        let plan = (benchmark.plan)(&Setting::new(crate::suite::Effort::Full)).unwrap();
        for case in plan.cases {
            measured.push((benchmark.name, case.peer, case.parameters.to_string()));
        }
        for absent in plan.absent {
            measured.push((benchmark.name, absent.peer, String::new()));
        }
    }
    for check in all().flat_map(|target| target.checks) {
        let terms: Vec<&Term> = match check.how {
            How::Ratio(ours, others) => ours.iter().chain(others).collect(),
            How::Absolute(ours) => ours.iter().collect(),
        };
        for term in terms {
            let there = measured.iter().any(|(benchmark, peer, of)| {
                *benchmark == term.benchmark
                    && *peer == term.peer
                    && (of.is_empty() || *of == term.of)
            });
            assert!(there, "{} {} {}", term.benchmark, term.peer, term.of);
        }
    }
}
