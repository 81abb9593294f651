//! Targets of calls between processes and between shards: P1 to P6, and S1.

use super::Bound::{AtLeast, AtMost};
use super::{Check, How, Target, Term, figure, times};
use crate::figure::Metric;

/// A figure of the null call.
const fn null(peer: &'static str, of: &'static str, metric: Metric) -> Term {
    figure("null", peer, of, metric)
}

const SAME: &str = "1 outstanding, same core";
const TWO: &str = "1 outstanding, two cores";
const AT_64: &str = "64 outstanding, two cores";
const AT_256: &str = "256 outstanding, two cores";
const CONNECTIONS: &str = "16 connections, 8 outstanding, two cores";

/// A figure of null calls, alone or beside a reader that stops.
const fn beside(of: &'static str, metric: Metric) -> Term {
    figure("slow-reader", "partha", of, metric)
}

const ALONE: &str = "alone";
const STOPPED: &str = "beside a stopped reader";

/// Our median latency over a peer's in one case of the null call.
macro_rules! latency {
    ($what:literal, $of:expr, $peer:literal, $bound:expr) => {
        Check {
            what: $what,
            how: How::Ratio(
                &[null("partha", $of, Metric::P50Us)],
                &[null($peer, $of, Metric::P50Us)],
            ),
            bound: $bound,
        }
    };
}

/// Our calls per second over a peer's in one case of a benchmark.
macro_rules! rate {
    ($what:literal, $benchmark:literal, $of:expr, $peer:literal, $bound:expr) => {
        Check {
            what: $what,
            how: How::Ratio(
                &[figure($benchmark, "partha", $of, Metric::Rate)],
                &[figure($benchmark, $peer, $of, Metric::Rate)],
            ),
            bound: $bound,
        }
    };
}

pub(super) const TARGETS: &[Target] = &[
    Target {
        number: "P1",
        what: "null call, 1 outstanding",
        checks: &[
            latency!("p50 over raw TCP, same core", SAME, "raw", AtMost(1.15)),
            latency!("p50 over raw TCP, two cores", TWO, "raw", AtMost(1.15)),
            latency!("p50 over tarpc, same core", SAME, "tarpc", AtMost(1.0)),
            latency!("p50 over tarpc, two cores", TWO, "tarpc", AtMost(1.0)),
            latency!("p50 over Ice, same core", SAME, "ice", AtMost(1.0)),
            latency!("p50 over Ice, two cores", TWO, "ice", AtMost(1.0)),
            // Level: what differs by a tenth is not told apart reliably on a shared machine.
            latency!("p50 over omniORB, same core", SAME, "omniorb", AtMost(1.1)),
            latency!("p50 over omniORB, two cores", TWO, "omniorb", AtMost(1.1)),
        ],
    },
    Target {
        number: "P2",
        what: "null call, 64 outstanding",
        checks: &[
            rate!("calls/s over tarpc", "null", AT_64, "tarpc", AtLeast(2.0)),
            rate!(
                "calls/s over capnp-rpc buffered",
                "null",
                AT_64,
                "capnp-rpc",
                AtLeast(4.0)
            ),
            rate!("calls/s over tonic", "null", AT_64, "tonic", AtLeast(8.0)),
        ],
    },
    Target {
        number: "P3",
        what: "null call, 256 outstanding",
        checks: &[
            rate!("calls/s over tarpc", "null", AT_256, "tarpc", AtLeast(1.5)),
            Check {
                what: "calls/s over those at 64",
                how: How::Ratio(
                    &[null("partha", AT_256, Metric::Rate)],
                    &[null("partha", AT_64, Metric::Rate)],
                ),
                bound: AtLeast(1.0),
            },
        ],
    },
    Target {
        number: "P4",
        what: "null call, 16 connections × 8 outstanding",
        checks: &[rate!(
            "calls/s over tarpc",
            "null",
            CONNECTIONS,
            "tarpc",
            AtLeast(1.5)
        )],
    },
    Target {
        number: "P5",
        what: "echo, 8 outstanding; connect + call + close",
        checks: &[
            rate!("64 KiB over raw TCP", "echo", "64 KiB", "raw", AtLeast(0.8)),
            rate!("1 MiB over raw TCP", "echo", "1 MiB", "raw", AtLeast(0.8)),
            rate!("1 KiB over Ice", "echo", "1 KiB", "ice", AtLeast(1.0)),
            rate!("64 KiB over Ice", "echo", "64 KiB", "ice", AtLeast(1.0)),
            rate!("1 MiB over Ice", "echo", "1 MiB", "ice", AtLeast(1.0)),
            rate!(
                "connections/s over raw TCP",
                "connect",
                "one after the other",
                "raw",
                AtLeast(0.75)
            ),
        ],
    },
    Target {
        number: "P6",
        what: "call within a process",
        checks: &[
            Check {
                what: "p50 on the same shard",
                how: How::Absolute(&[figure(
                    "inside",
                    "partha-within",
                    "1 outstanding",
                    Metric::P50Us,
                )]),
                bound: AtMost(1.0),
            },
            Check {
                what: "p50 across shards over a tokio oneshot",
                how: How::Ratio(
                    &[figure(
                        "inside",
                        "partha-across",
                        "1 outstanding",
                        Metric::P50Us,
                    )],
                    &[figure("inside", "oneshot", "1 outstanding", Metric::P50Us)],
                ),
                bound: AtMost(1.3),
            },
        ],
    },
];

/// What others keep beside a reader that stops.
pub(super) const SLOW_READER: &[Target] = &[Target {
    number: "S1",
    what: "others beside 10,000 calls of a reader that stops",
    checks: &[
        Check {
            what: "calls/s over those alone",
            how: How::Ratio(
                &[beside(STOPPED, Metric::Rate)],
                &[beside(ALONE, Metric::Rate)],
            ),
            bound: AtLeast(0.9),
        },
        Check {
            what: "memory of the server beyond that alone",
            how: How::Absolute(&[
                beside(STOPPED, Metric::ServerPeakMib),
                times(-1.0, beside(ALONE, Metric::ServerPeakMib)),
            ]),
            // Answers that a peer leaves unread, see docs/operations.md.
            bound: AtMost(28.0),
        },
    ],
}];
