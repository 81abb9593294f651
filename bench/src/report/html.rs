//! A page with the targets, the plots and the tables of a run. It needs nothing but itself: no
//! script, no font, no picture from anywhere.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::plot::{self, Axis, Line, Scale};
use super::table;
use crate::catalog;
use crate::figure::Metric;
use crate::machine;
use crate::statistics::{Figures, Of, Pick};
use crate::suite::{Benchmark, Plot, Setting};
use crate::targets::{Judged, Verdict};

/// Writes the page.
pub(crate) fn write(
    path: &Path,
    benchmarks: &[&'static Benchmark],
    figures: &Figures,
    judged: &[Judged],
    setting: &Setting,
) -> anyhow::Result<()> {
    let page = page(benchmarks, figures, judged, setting);
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// The page.
pub(crate) fn page(
    benchmarks: &[&'static Benchmark],
    figures: &Figures,
    judged: &[Judged],
    setting: &Setting,
) -> String {
    let mut body = String::new();
    targets(&mut body, judged);
    for benchmark in benchmarks {
        if figures.of(benchmark.name).next().is_none() {
            continue;
        }
        let _ = writeln!(
            body,
            "<section><h2>{}</h2><p>{}</p>",
            escape(benchmark.name),
            escape(&table::legend(benchmark, figures))
        );
        for plot in benchmark.view.plots {
            let drawn = draw(benchmark, *plot, figures);
            if !drawn.is_empty() {
                let _ = writeln!(body, "<figure>{drawn}</figure>");
            }
        }
        medians(&mut body, benchmark, figures);
        body += "</section>\n";
    }
    let effort = format!("{:?}", setting.effort).to_lowercase();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width\"/>\
         <title>Partha beside its peers</title><style>{STYLE}{}</style></head><body>\n\
         <h1>Partha beside its peers</h1>\n\
         <p>{}. A {effort} run. Absolute figures depend on the machine and the hour: only ratios \
         within one run count.</p>\n{body}</body></html>\n",
        colours(),
        escape(&machine::describe())
    )
}

fn targets(body: &mut String, judged: &[Judged]) {
    *body += "<section><h2>Targets</h2><table><thead><tr><th>number</th><th>what</th>\
              <th>target</th><th>figure</th><th>ratio</th><th>verdict</th></tr></thead><tbody>\n";
    for judged in judged {
        let class = match judged.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::NotMeasured(_) => "unknown",
        };
        let ratio = judged.ratio.map(|ratio| format!("{ratio:.2} ×"));
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}: {}</td><td>{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"{class}\">{}</td></tr>",
            escape(judged.target),
            escape(judged.about),
            escape(judged.what),
            escape(&judged.bound),
            escape(judged.figure.as_deref().unwrap_or_default()),
            ratio.unwrap_or_default(),
            escape(&judged.verdict.to_string())
        );
    }
    *body += "</tbody></table></section>\n";
}

/// All medians: a row for each case and peer.
fn medians(body: &mut String, benchmark: &Benchmark, figures: &Figures) {
    *body += "<details><summary>medians</summary><table><thead><tr><th>case</th><th>who</th>";
    for metric in benchmark.view.metrics {
        let _ = write!(
            body,
            "<th>{}, {}</th>",
            escape(metric.label()),
            escape(metric.unit())
        );
    }
    *body += "<th>ratio</th></tr></thead><tbody>\n";
    for case in figures.cases(benchmark.name) {
        for peer in figures.peers(benchmark.name) {
            let pick = |metric| Pick {
                benchmark: benchmark.name,
                peer,
                of: Of::Parameters(case),
                metric,
            };
            let metrics = benchmark.view.metrics;
            if metrics
                .iter()
                .all(|&metric| figures.median(pick(metric)).is_none())
            {
                continue;
            }
            let _ = write!(
                body,
                "<tr><td>{}</td><td>{}</td>",
                escape(&case.to_string()),
                escape(catalog::label(peer))
            );
            for &metric in metrics {
                let value = figures.median(pick(metric)).map(crate::figure::short);
                let _ = write!(
                    body,
                    "<td class=\"number\">{}</td>",
                    value.unwrap_or_default()
                );
            }
            let ratio = table::ratio(benchmark, figures, pick(metrics[0]));
            let ratio = ratio
                .map(|ratio| format!("{ratio:.2} ×"))
                .unwrap_or_default();
            let _ = writeln!(body, "<td class=\"number\">{ratio}</td></tr>");
        }
    }
    *body += "</tbody></table></details>\n";
}

fn draw(benchmark: &Benchmark, plot: Plot, figures: &Figures) -> String {
    let peers = figures.peers(benchmark.name);
    match plot {
        Plot::Curve { title, x, y } => {
            let lines: Vec<_> = peers
                .into_iter()
                .map(|peer| curve(benchmark, figures, peer, x, y))
                .collect();
            let x = Axis {
                label: x.to_owned(),
                scale: if x == "bytes" {
                    Scale::Sizes
                } else {
                    Scale::Doublings
                },
            };
            plot::lines(title, &x, &axis_of(y), &lines)
        }
        Plot::Latencies { title, of } => {
            let lines: Vec<_> = peers
                .into_iter()
                .map(|peer| Line {
                    peer,
                    points: quantiles(&figures.latencies_ns(benchmark.name, peer, Of::Text(of))),
                })
                .collect();
            let x = Axis {
                label: "share of the calls that took no longer".to_owned(),
                scale: Scale::Nines,
            };
            let y = Axis {
                label: "latency, µs".to_owned(),
                scale: Scale::Tens,
            };
            plot::lines(title, &x, &y, &lines)
        }
        Plot::Bars { title, y } => {
            let cases = figures.cases(benchmark.name);
            let Some(case) = cases.first() else {
                return String::new();
            };
            let values: Vec<_> = peers
                .into_iter()
                .filter_map(|peer| {
                    let pick = Pick {
                        benchmark: benchmark.name,
                        peer,
                        of: Of::Parameters(case),
                        metric: y,
                    };
                    Some((peer, figures.median(pick)?))
                })
                .collect();
            plot::bars(title, y, &values)
        }
    }
}

fn axis_of(metric: Metric) -> Axis {
    Axis {
        label: format!("{}, {}", metric.label(), metric.unit()),
        scale: Scale::Tens,
    }
}

fn curve(
    benchmark: &Benchmark,
    figures: &Figures,
    peer: &'static str,
    x: &str,
    metric: Metric,
) -> Line {
    let mut points = Vec::new();
    for case in figures.cases(benchmark.name) {
        let value = figures.median(Pick {
            benchmark: benchmark.name,
            peer,
            of: Of::Parameters(case),
            metric,
        });
        if let (Some(x), Some(value)) = (case.number(x), value) {
            points.push((x as f64, value));
        }
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Line { peer, points }
}

/// Which share of all took no longer than so many microseconds: a hundred points for each nine.
fn quantiles(latencies_ns: &[(u64, u64)]) -> Vec<(f64, f64)> {
    let total: u64 = latencies_ns.iter().map(|(_, count)| count).sum();
    let (mut points, mut seen, mut next) = (Vec::new(), 0, 0.0);
    for &(nanoseconds, count) in latencies_ns {
        seen += count;
        let share = seen as f64 / total as f64;
        // The last ones are too few to say anything of further nines.
        if seen == total {
            break;
        }
        let position = -(1.0 - share).log10();
        if position >= next {
            points.push((share, nanoseconds as f64 / 1_000.0));
            next = position + 0.01;
        }
    }
    points
}

/// Text that may stand in the page.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A colour for each peer that is told apart on white and on black.
fn colours() -> String {
    let mut style = String::new();
    for index in 0..catalog::PEERS.len() {
        // The golden angle: neighbours in the catalog lie far apart on the circle.
        let hue = (index as f64 * 137.5 + 210.0) % 360.0;
        let shade = 13 * (index % 2);
        let _ = write!(
            style,
            ".c{index}{{--c:hsl({hue:.0} 70% calc(var(--shade) + {shade}%))}}"
        );
    }
    style
}

const STYLE: &str = "
:root{color-scheme:light dark;--ground:#fff;--text:#1c1c1e;--faint:#8884;--shade:40%}
@media (prefers-color-scheme:dark){:root{--ground:#17181b;--text:#e4e4e7;--shade:58%}}
body{background:var(--ground);color:var(--text);font:15px/1.5 system-ui,sans-serif;
max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em}h2{font-size:1.25em;margin:2em 0 .3em}p{margin:.3em 0 1em}
table{border-collapse:collapse;font-size:.9em;margin:.5em 0}
th,td{padding:.2em .7em;border-bottom:1px solid var(--faint);text-align:left;vertical-align:top}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.met{color:#2e9e5b;font-weight:600}.missed{color:#d64545;font-weight:600}.unknown{opacity:.65}
figure{margin:1em 0}svg{width:100%;height:auto;max-width:900px}
summary{cursor:pointer;margin:.5em 0}
svg text{fill:var(--text)}.title{font-size:15px;font-weight:600}.mark{font-size:12px}
.axis{font-size:13px}.grid{stroke:var(--faint);stroke-width:1}
.peer{stroke:var(--c);fill:none;stroke-width:1.6}circle.peer,rect.peer{fill:var(--c);stroke:none}
.ours{stroke-width:3.2}
";

#[cfg(test)]
mod tests;
