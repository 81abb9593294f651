//! What a run finds: figures, each with the benchmark, the peer and the parameters it is of.
//!
//! Everything the reports and the targets say is computed from these, and each is a line of the
//! JSON file. To add a kind of figure: a variant of [`Metric`] with its label and its unit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

/// What is measured of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Calls, or whatever else the benchmark repeats, that ended in a second.
    Rate,
    /// Median latency, in microseconds.
    P50Us,
    /// Latency that 99 of 100 kept, in microseconds.
    P99Us,
    /// Processor time of the client for each call, in microseconds.
    ClientCpuUs,
    /// Processor time of the server for each call, in microseconds.
    ServerCpuUs,
    /// System calls of the client for each call.
    ClientSyscalls,
    /// System calls of the server for each call.
    ServerSyscalls,
    /// Calls that ended in the whole run, warm-up and all.
    Calls,
    /// The most memory the server had resident, in MiB.
    ServerPeakMib,
    /// Forced writes to disk of all servers for each call.
    Syncs,
    /// Batches of changes, all or nothing each, that all stores made durable for each call.
    Batches,
    /// Times that the client waited for somebody, for each call.
    RoundTrips,
    /// Memory for each of what is counted, in bytes.
    BytesEach,
    /// How long something took that is done once, in milliseconds.
    TimeMs,
    /// The same as the rate, before that of which it is the rate.
    RateBefore,
    /// The same, after it.
    RateAfter,
    /// Attempts at actions that were undone and made again.
    Undone,
}

impl Metric {
    /// For the head of a table or an axis.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50Us => "p50",
            Self::P99Us => "p99",
            Self::ClientCpuUs => "CPU of the client",
            Self::ServerCpuUs => "CPU of the server",
            Self::ClientSyscalls => "syscalls of the client",
            Self::ServerSyscalls => "syscalls of the server",
            Self::Calls => "calls",
            Self::ServerPeakMib => "memory of the server",
            Self::Syncs => "syncs",
            Self::Batches => "batches",
            Self::RoundTrips => "round trips",
            Self::BytesEach => "memory",
            Self::TimeMs => "time",
            Self::RateBefore => "before",
            Self::RateAfter => "after",
            Self::Undone => "attempts undone",
        }
    }

    /// What the values are counted in.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate | Self::RateBefore | Self::RateAfter => "/s",
            Self::P50Us | Self::P99Us => "µs",
            Self::ClientCpuUs | Self::ServerCpuUs => "µs a call",
            Self::ClientSyscalls | Self::ServerSyscalls => "a call",
            Self::Calls | Self::Undone => "in all",
            Self::ServerPeakMib => "MiB",
            Self::Syncs | Self::Batches | Self::RoundTrips => "a call",
            Self::BytesEach => "B",
            Self::TimeMs => "ms",
        }
    }

    /// The value with its unit, as precise as such figures are.
    pub(crate) fn show(self, value: f64) -> String {
        let unit = self.unit();
        match self {
            Self::Rate | Self::RateBefore | Self::RateAfter => {
                format!("{}{unit}", grouped(value))
            }
            Self::Undone => format!("{} {unit}", grouped(value)),
            _ => format!("{} {unit}", short(value)),
        }
    }
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// How many.
    Number(u64),
    /// Which.
    Text(Cow<'static, str>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

/// What tells the runs of one benchmark apart, in the order in which it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(&'static str, Value)>);

impl Parameters {
    /// With one more parameter.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// The value of a parameter.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        let mut found = self.0.iter().filter(|(known, _)| *known == name);
        found.next().map(|(_, value)| value)
    }

    /// The value of a parameter that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Number(number) => Some(*number),
            Value::Text(_) => None,
        }
    }
}

/// `64 outstanding, same core`; sizes in the units people use.
impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match value {
                Value::Number(bytes) if *name == "bytes" => f.write_str(&size(*bytes))?,
                Value::Number(number) => write!(f, "{} {name}", grouped(*number as f64))?,
                Value::Text(text) => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

impl Serialize for Parameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// What one run found. A client process prints it as a line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Each figure that could be taken.
    pub(crate) metrics: BTreeMap<Metric, f64>,
    /// How often which latency was seen, in nanoseconds, ascending; to a five-hundredth of each
    /// or better.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) latencies_ns: Vec<(u64, u64)>,
}

impl Found {
    /// With one more figure.
    pub(crate) fn with(mut self, metric: Metric, value: f64) -> Self {
        self.metrics.insert(metric, value);
        self
    }

    /// With the most memory that the server had resident, where the kernel tells it.
    pub(crate) fn with_peak(self, bytes: Option<u64>) -> Self {
        match bytes {
            Some(bytes) => self.with(Metric::ServerPeakMib, bytes as f64 / f64::from(1 << 20)),
            None => self,
        }
    }

    /// With the median and the 99th percentile of latencies, and how often which was seen.
    pub(crate) fn with_latencies(mut self, latencies: &Latencies) -> Self {
        let Latencies(histogram) = latencies;
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        let seen = histogram.iter_recorded();
        self.latencies_ns = seen
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
            .collect();
        self.with(Metric::P50Us, us(0.5))
            .with(Metric::P99Us, us(0.99))
    }
}

/// Latencies as they are collected.
pub(crate) struct Latencies(Histogram<u64>);

/// An hour: slower calls count as so slow.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(LATENCY_NS_MAX, DIGITS);
        Self(histogram.expect("three digits of an hour are possible"))
    }
}

impl Latencies {
    /// Adds one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }
}

/// What one run found, and of what it was one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) benchmark: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) parameters: Parameters,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) found: Found,
}

/// `1234567.8` as `1,234,568`.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits that count, or all of a large number.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => grouped(value),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// `65536` as `64 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..0x10_0000 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes / 0x10_0000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_kept_to_a_five_hundredth() {
        let told = [7, 999, 1_234, 987_654, 123_456_789];
        let mut latencies = Latencies::default();
        for nanoseconds in told {
            latencies.record(Duration::from_nanos(nanoseconds));
        }
        assert_eq!(latencies.count(), told.len() as u64);
        let found = Found::default().with_latencies(&latencies);
        assert_eq!(found.latencies_ns.len(), told.len());
        for ((kept, count), told) in found.latencies_ns.into_iter().zip(told) {
            assert!(
                count == 1 && kept.abs_diff(told) * 500 <= told,
                "{kept}, {told}"
            );
        }
        assert!((found.metrics[&Metric::P50Us] - 1.234).abs() < 0.003);
        assert!((found.metrics[&Metric::P99Us] / 123_456.789 - 1.0).abs() < 0.002);
    }

    #[test]
    fn figures_are_written_as_precisely_as_they_are_known() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.6), "1,000");
        assert_eq!(grouped(1_234_567.8), "1,234,568");
        assert_eq!(Metric::P50Us.show(21.25), "21.2 µs");
        assert_eq!(Metric::ClientCpuUs.show(0.957), "0.96 µs a call");
        assert_eq!(Metric::Rate.show(1_449_000.0), "1,449,000/s");
    }

    #[test]
    fn parameters_are_told_in_their_order() {
        let parameters = Parameters::default()
            .with("connections", 16)
            .with("bytes", 65_536)
            .with("cores", "same core");
        assert_eq!(parameters.to_string(), "16 connections, 64 KiB, same core");
        assert_eq!(parameters.number("connections"), Some(16));
        assert_eq!(parameters.number("cores"), None);
        let json = serde_json::to_string(&parameters).unwrap();
        assert_eq!(
            json,
            r#"{"connections":16,"bytes":65536,"cores":"same core"}"#
        );
    }
}
