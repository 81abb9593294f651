//! Targets of what lies on disk, and of scale: P7 to P15.

use super::Bound::{AtLeast, AtMost};
use super::{Check, How, Target, Term, figure, times};
use crate::figure::Metric;

/// A figure of ours.
const fn ours(benchmark: &'static str, of: &'static str, metric: Metric) -> Term {
    figure(benchmark, "partha", of, metric)
}

const ONE: &str = "1 clients";
const AT_64: &str = "64 clients";
const COLD: &str = "passive, at an unknown node";
const KNOWN: &str = "passive, at a known node";
const BOUND: &str = "bound";
const MOVED_4: &str = "4 clients, partha move";
const MOVED_64: &str = "64 clients, partha move";
const RESTLESS_4: &str = "4 clients, by API, no cooldown";
const RESTLESS_64: &str = "64 clients, by API, no cooldown";

/// A figure of ours that is to be within a bound whatever others do.
macro_rules! absolute {
    ($what:literal, $benchmark:literal, $of:expr, $metric:ident, $most:literal) => {
        Check {
            what: $what,
            how: How::Absolute(&[ours($benchmark, $of, Metric::$metric)]),
            bound: AtMost($most),
        }
    };
}

/// Our calls per second with something over ours without.
macro_rules! flat {
    ($what:literal, $benchmark:literal, $with:literal, $without:literal) => {
        Check {
            what: $what,
            how: How::Ratio(
                &[ours($benchmark, $with, Metric::Rate)],
                &[ours($benchmark, $without, Metric::Rate)],
            ),
            bound: AtLeast(0.9),
        }
    };
}

/// The latency of finding and calling an object over that of a call.
macro_rules! bind {
    ($what:literal, $of:expr) => {
        Check {
            what: $what,
            how: How::Ratio(
                &[ours("bind", $of, Metric::P50Us)],
                &[ours("bind", BOUND, Metric::P50Us)],
            ),
            bound: AtMost(5.0),
        }
    };
}

/// Durable calls per second over what LMDB does by itself.
macro_rules! beside_lmdb {
    ($what:literal, $peer:literal) => {
        Check {
            what: $what,
            how: How::Ratio(
                &[ours("durable", AT_64, Metric::Rate)],
                &[figure("durable", $peer, AT_64, Metric::Rate)],
            ),
            bound: AtLeast(0.7),
        }
    };
}

/// Transfers per second while the account moves over those before, in the same run.
macro_rules! while_moving {
    ($what:literal, $of:expr) => {
        Check {
            what: $what,
            how: How::Ratio(
                &[ours("move", $of, Metric::Rate)],
                &[ours("move", $of, Metric::RateBefore)],
            ),
            bound: AtLeast(0.7),
        }
    };
}

/// Attempts of transfers that were undone, of which only moves can be the reason.
macro_rules! none_undone {
    ($what:literal, $of:expr) => {
        absolute!($what, "move", $of, Undone, 0.0)
    };
}

/// Round trips of finding and calling an object.
macro_rules! round_trips {
    ($what:literal, $of:expr, $most:literal) => {
        Check {
            what: $what,
            how: How::Absolute(&[figure("bind", "partha-counted", $of, Metric::RoundTrips)]),
            bound: AtMost($most),
        }
    };
}

pub(super) const TARGETS: &[Target] = &[
    Target {
        number: "P7",
        what: "an object found by its name and called",
        checks: &[
            round_trips!(
                "round trips beside the handshake, node not known",
                COLD,
                4.0
            ),
            round_trips!("round trips, node known", KNOWN, 4.0),
            round_trips!("round trips, bound: the call", BOUND, 1.0),
            bind!("p50 over a call's, node not known", COLD),
            bind!("p50 over a call's, node known", KNOWN),
        ],
    },
    Target {
        number: "P8",
        what: "durable call, 1 client",
        checks: &[Check {
            what: "p50 over a commit of LMDB and a null call",
            how: How::Ratio(
                &[ours("durable", ONE, Metric::P50Us)],
                &[
                    figure("durable", "heed", ONE, Metric::P50Us),
                    figure("durable", "partha-null", ONE, Metric::P50Us),
                ],
            ),
            bound: AtMost(1.1),
        }],
    },
    Target {
        number: "P9",
        what: "durable calls of 64 objects, 64 clients",
        checks: &[
            beside_lmdb!(
                "calls/s over LMDB with the same puts, 64 in a commit",
                "heed-same-puts"
            ),
            beside_lmdb!("calls/s over LMDB with one put of as many bytes", "heed"),
        ],
    },
    Target {
        number: "P10",
        what: "transfer between two nodes, 1 client",
        checks: &[
            Check {
                // Two calls, the wish to commit, and the coordinator's question to the other.
                what: "p50 over two commits of LMDB and four null calls",
                how: How::Ratio(
                    &[ours("transfer", ONE, Metric::P50Us)],
                    &[
                        times(2.0, figure("transfer", "heed", ONE, Metric::P50Us)),
                        times(4.0, figure("transfer", "partha-null", ONE, Metric::P50Us)),
                    ],
                ),
                bound: AtMost(1.2),
            },
            Check {
                what: "transfers/s over PostgreSQL's",
                how: How::Ratio(
                    &[ours("transfer", ONE, Metric::Rate)],
                    &[figure("transfer", "postgres-2pc", ONE, Metric::Rate)],
                ),
                bound: AtLeast(1.0),
            },
        ],
    },
    Target {
        number: "P11",
        what: "transfers between two nodes, 64 clients, 1,000 accounts",
        checks: &[Check {
            what: "transfers/s over PostgreSQL's",
            how: How::Ratio(
                &[ours("transfer", AT_64, Metric::Rate)],
                &[figure("transfer", "postgres-2pc", AT_64, Metric::Rate)],
            ),
            bound: AtLeast(8.0),
        }],
    },
    Target {
        number: "P12",
        what: "memory",
        checks: &[
            absolute!("passive object", "memory", "passive object", BytesEach, 1.0),
            absolute!(
                "active small object, over its state",
                "memory",
                "active object, over its state",
                BytesEach,
                1_024.0
            ),
            absolute!("session", "memory", "session", BytesEach, 10_240.0),
            absolute!(
                "idle connection",
                "memory",
                "idle connection",
                BytesEach,
                65_536.0
            ),
        ],
    },
    Target {
        number: "P13",
        what: "compile times",
        checks: &[
            absolute!(
                "bank.idl to Rust",
                "compile",
                "bank.idl to Rust",
                TimeMs,
                10.0
            ),
            absolute!(
                "1,000 interfaces to Rust",
                "compile",
                "1,000 interfaces to Rust",
                TimeMs,
                1_000.0
            ),
            absolute!(
                "a user's first build of the library",
                "compile",
                "first build of the library",
                TimeMs,
                120_000.0
            ),
        ],
    },
    Target {
        number: "P14",
        what: "growth",
        checks: &[
            flat!(
                "calls/s with 100 objects over 1",
                "growth",
                "100 objects",
                "1 objects"
            ),
            flat!(
                "calls/s with 10,000 objects over 1",
                "growth",
                "10,000 objects",
                "1 objects"
            ),
            flat!(
                "calls/s with 100,000 objects over 1",
                "growth",
                "100,000 objects",
                "1 objects"
            ),
            flat!(
                "durable calls/s of one object with 256 clients over 1",
                "waiters",
                "256 clients",
                "1 clients"
            ),
            absolute!(
                "start of a node with 10 million objects",
                "start-up",
                "10,000,000 objects",
                TimeMs,
                2_000.0
            ),
        ],
    },
    Target {
        number: "P15",
        what: "an account moves back and forth, all transfers use it",
        checks: &[
            while_moving!("transfers/s over those before, 4 clients", MOVED_4),
            none_undone!("attempts undone, 4 clients", MOVED_4),
            while_moving!("transfers/s over those before, 64 clients", MOVED_64),
            none_undone!("attempts undone, 64 clients", MOVED_64),
            none_undone!("attempts undone, 4 clients, no cooldown", RESTLESS_4),
            none_undone!("attempts undone, 64 clients, no cooldown", RESTLESS_64),
        ],
    },
];
