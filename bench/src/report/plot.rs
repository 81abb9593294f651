//! Plots as inline SVG: lines over logarithmic axes, and bars.
//!
//! Colours and text come from the page's style, so that they follow a light or a dark screen.

use std::fmt::Write as _;

use super::html::escape;
use crate::catalog;
use crate::figure::{Metric, grouped, short, size};

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 50.0;
const BAR: f64 = 22.0;

/// What one peer's line goes through.
pub(crate) struct Line {
    pub(crate) peer: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Each doubling takes the same room.
    Doublings,
    /// The same for bytes, marked in the units people use.
    Sizes,
    /// Each power of ten takes the same room.
    Tens,
    /// Shares of all below 1: each further nine takes the same room.
    Nines,
}

/// An axis.
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

impl Scale {
    fn position(self, value: f64) -> f64 {
        match self {
            Self::Doublings | Self::Sizes => value.log2(),
            Self::Tens => value.log10(),
            Self::Nines => -(1.0 - value).log10(),
        }
    }

    /// Where there is a mark, and what it says, between two positions.
    fn marks(self, from: f64, to: f64) -> Vec<(f64, String)> {
        let whole = from.ceil() as i32..=to.floor() as i32;
        match self {
            Self::Doublings => whole
                .map(|power| (f64::from(power), grouped(2_f64.powi(power))))
                .collect(),
            Self::Sizes => whole
                .filter(|power| power % 2 == 0)
                .map(|power| (f64::from(power), size(1 << power)))
                .collect(),
            Self::Tens => {
                let mut marks = Vec::new();
                // With few powers of ten there is room for more.
                let steps: &[f64] = if to - from < 2.5 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                for power in from.floor() as i32..=to.ceil() as i32 {
                    for step in steps {
                        let value = step * 10_f64.powi(power);
                        let text = if value < 1.0 {
                            short(value)
                        } else {
                            grouped(value)
                        };
                        marks.push((value.log10(), text));
                    }
                }
                marks.retain(|(at, _)| (from..=to).contains(at));
                marks
            }
            Self::Nines => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]
                .into_iter()
                .map(|share: f64| (self.position(share), format!("{} %", share * 100.0)))
                .filter(|(at, _)| (from - 0.001..=to + 0.001).contains(at))
                .collect(),
        }
    }
}

/// Lines over two axes; empty if there is nothing to draw.
pub(crate) fn lines(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let placed: Vec<(&Line, Vec<(f64, f64)>)> = lines
        .iter()
        .map(|line| (line, place(line, x.scale, y.scale)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || placed.iter().flat_map(|(_, points)| points);
    let (Some(xs), Some(ys)) = (range(all().map(|p| p.0)), range(all().map(|p| p.1))) else {
        return String::new();
    };
    // A little air above and below.
    let air = (ys.1 - ys.0) * 0.05;
    let ys = (ys.0 - air, ys.1 + air);
    let across = |at: f64| LEFT + (at - xs.0) / (xs.1 - xs.0) * (WIDTH - LEFT - RIGHT);
    let up = |at: f64| HEIGHT - BOTTOM - (at - ys.0) / (ys.1 - ys.0) * (HEIGHT - TOP - BOTTOM);
    let mut svg = begin(title, HEIGHT);
    for (at, text) in x.scale.marks(xs.0, xs.1) {
        let (at, low) = (across(at), HEIGHT - BOTTOM);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{low}\"/>\
             <text class=\"mark\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            low + 17.0
        );
    }
    for (at, text) in y.scale.marks(ys.0, ys.1) {
        let (at, end) = (up(at), WIDTH - RIGHT);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\"/>\
             <text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" transform=\"translate(14 {:.1}) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        escape(&x.label),
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(&y.label),
    );
    for (row, (line, points)) in placed.iter().enumerate() {
        draw(&mut svg, line, points, row, across, up);
    }
    svg + "</svg>\n"
}

fn draw(
    svg: &mut String,
    line: &Line,
    points: &[(f64, f64)],
    row: usize,
    across: impl Fn(f64) -> f64,
    up: impl Fn(f64) -> f64,
) {
    let class = class(line.peer);
    let path: Vec<_> = points
        .iter()
        .map(|&(x, y)| format!("{:.1},{:.1}", across(x), up(y)))
        .collect();
    let _ = write!(
        svg,
        "<polyline class=\"{class}\" points=\"{}\"/>",
        path.join(" ")
    );
    // Dots where there are few: each was measured.
    if points.len() <= 16 {
        for (&(x, y), (tell_x, tell_y)) in points.iter().zip(&line.points) {
            let _ = write!(
                svg,
                "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\">\
                 <title>{}, {}: {}</title></circle>",
                across(x),
                up(y),
                escape(catalog::label(line.peer)),
                grouped(*tell_x),
                short(*tell_y)
            );
        }
    }
    let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 8.0 + row as f64 * 20.0);
    let _ = write!(
        svg,
        "<line class=\"{class}\" x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>\
         <text class=\"mark\" x=\"{}\" y=\"{}\">{}</text>",
        x + 20.0,
        x + 26.0,
        y + 4.0,
        escape(catalog::label(line.peer))
    );
}

/// A bar for each peer, from the left; empty if there is nothing to draw.
pub(crate) fn bars(title: &str, metric: Metric, values: &[(&'static str, f64)]) -> String {
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let begins = 190.0;
    let mut svg = begin(title, TOP + 16.0 + values.len() as f64 * BAR);
    for (row, (peer, value)) in values.iter().enumerate() {
        let y = TOP + 4.0 + row as f64 * BAR;
        let long = value / most * (WIDTH - begins - 130.0);
        let _ = write!(
            svg,
            "<text class=\"mark\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{begins}\" y=\"{y}\" width=\"{long:.1}\" height=\"{}\"/>\
             <text class=\"mark\" x=\"{:.1}\" y=\"{}\">{}</text>",
            begins - 8.0,
            y + 13.0,
            escape(catalog::label(peer)),
            class(peer),
            BAR - 5.0,
            begins + long + 6.0,
            y + 13.0,
            escape(&metric.show(*value))
        );
    }
    svg + "</svg>\n"
}

fn begin(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>{0}</title>\
         <text class=\"title\" x=\"{LEFT}\" y=\"18\">{0}</text>",
        escape(title)
    )
}

/// Each peer has a colour of its own in all plots; ours stand out.
fn class(peer: &str) -> String {
    let index = catalog::PEERS.iter().position(|(name, _)| *name == peer);
    let ours = if peer.starts_with("partha") {
        " ours"
    } else {
        ""
    };
    format!("peer c{}{ours}", index.unwrap_or_default())
}

fn place(line: &Line, x: Scale, y: Scale) -> Vec<(f64, f64)> {
    let points = line.points.iter();
    let placed = points.map(|point| (x.position(point.0), y.position(point.1)));
    placed
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect()
}

/// The least and the greatest, a little apart if they are one.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let found = values.fold(None, |range: Option<(f64, f64)>, value| {
        let (least, most) = range.unwrap_or((value, value));
        Some((least.min(value), most.max(value)))
    });
    found.map(|(least, most)| {
        if most - least < 0.1 {
            (least - 0.5, most + 0.5)
        } else {
            (least, most)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_marks_where_values_are() {
        let doublings = Scale::Doublings.marks(0.0, 10.0);
        assert_eq!(doublings.len(), 11);
        assert_eq!(doublings[10].1, "1,024");
        let sizes: Vec<_> = Scale::Sizes.marks(10.0, 20.0);
        assert_eq!((sizes.len(), sizes[3].1.as_str()), (6, "64 KiB"));
        let tens: Vec<_> = Scale::Tens
            .marks(1.0, 2.0)
            .into_iter()
            .map(|mark| mark.1)
            .collect();
        assert_eq!(tens, ["10", "20", "50", "100"]);
        let nines: Vec<_> = Scale::Nines
            .marks(0.0, 3.0)
            .into_iter()
            .map(|mark| mark.1)
            .collect();
        assert_eq!(nines, ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn nothing_to_draw_is_no_plot() {
        let axis = |scale| Axis {
            label: String::new(),
            scale,
        };
        let drawn = lines("", &axis(Scale::Tens), &axis(Scale::Tens), &[]);
        assert_eq!(drawn, "");
        assert_eq!(bars("", Metric::Rate, &[]), "");
    }

    #[test]
    fn a_single_point_has_a_place() {
        let axis = |scale| Axis {
            label: "x".to_owned(),
            scale,
        };
        let line = Line {
            peer: "raw",
            points: vec![(64.0, 1_000.0)],
        };
        let drawn = lines("t", &axis(Scale::Doublings), &axis(Scale::Tens), &[line]);
        assert!(
            drawn.contains("<circle") && !drawn.contains("NaN"),
            "{drawn}"
        );
    }
}
