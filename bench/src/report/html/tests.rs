//! The page is well-formed and needs nothing from elsewhere.

use std::collections::BTreeSet;

use super::*;
use crate::figure::{Figure, Found};
use crate::suite::Effort;
use crate::targets;

/// Fails unless each element that is opened is closed in its turn.
fn check_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(begin) = rest.find('<') {
        let tag = &rest[begin + 1..];
        let end = tag.find('>').expect("a tag without an end");
        let (tag, after) = (&tag[..end], &tag[end + 1..]);
        assert!(!tag.contains('<'), "a tag within a tag: {tag}");
        assert!(
            tag.matches('"').count().is_multiple_of(2),
            "quotes in {tag}"
        );
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/'])
            .next()
            .unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed in the wrong order");
        } else if !tag.ends_with('/') && !tag.starts_with('!') {
            open.push(name);
        }
        rest = after;
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

/// A figure for each case of each benchmark.
fn everything(setting: &Setting) -> Figures {
    let mut figures = Figures::default();
    for benchmark in catalog::benchmarks() {
        let plan = (benchmark.plan)(setting).unwrap();
        for (index, case) in plan.cases.into_iter().enumerate() {
            let mut found = Found::default();
            for &metric in benchmark.view.metrics {
                found = found.with(metric, 1_000.0 + index as f64);
            }
            found.latencies_ns = (1..2_000).map(|step| (step * 1_000, 1)).collect();
            figures.push(Figure {
                benchmark: benchmark.name,
                peer: case.peer,
                parameters: case.parameters,
                round: 0,
                found,
            });
        }
    }
    figures
}

#[test]
fn the_page_is_well_formed_and_self_contained() {
    let setting = Setting::new(Effort::Full);
    let figures = everything(&setting);
    let judged = targets::judge(&figures, &[]);
    let benchmarks: Vec<_> = catalog::benchmarks().collect();
    let page = page(&benchmarks, &figures, &judged, &setting);
    check_well_formed(&page);
    for foreign in [
        "http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link",
    ] {
        assert!(!page.contains(foreign), "the page has `{foreign}`");
    }
    for benchmark in benchmarks {
        assert!(page.contains(&format!("<h2>{}</h2>", benchmark.name)));
        for plot in benchmark.view.plots {
            let (Plot::Curve { title, .. }
            | Plot::Latencies { title, .. }
            | Plot::Bars { title, .. }) = plot;
            assert!(page.contains(&escape(title)), "no plot `{title}`");
        }
    }
    assert!(
        !page.contains("NaN") && !page.contains("inf,"),
        "a plot is broken"
    );
}

#[test]
fn every_peer_has_a_colour_of_its_own() {
    let style = colours();
    let found: BTreeSet<_> = style
        .split('}')
        .filter_map(|rule| rule.split_once('{'))
        .map(|(_, colour)| colour)
        .collect();
    assert_eq!(found.len(), catalog::PEERS.len(), "{style}");
    for (peer, _) in catalog::PEERS {
        let drawn = plot::bars("", Metric::Rate, &[(peer, 1.0)]);
        let (_, class) = drawn.split_once("class=\"peer ").unwrap();
        let class = class.split([' ', '"']).next().unwrap();
        assert!(style.contains(&format!(".{class}{{")), "{peer}: {class}");
    }
}

#[test]
fn text_cannot_break_the_page() {
    assert_eq!(escape("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
}

#[test]
fn quantiles_end_before_the_slowest() {
    let found = quantiles(&[(1_000, 90), (2_000, 9), (9_000, 1)]);
    assert_eq!(found, [(0.9, 1.0), (0.99, 2.0)]);
    assert_eq!(quantiles(&[]), []);
}

#[test]
fn an_open_element_is_noticed() {
    check_well_formed("<p>a<br/></p>");
    assert!(std::panic::catch_unwind(|| check_well_formed("<p><b></p></b>")).is_err());
}
