//! What can be measured, and beside whom: the lists that the command line knows.

use crate::suite::Benchmark;
use crate::{disk, locks, network};

/// All benchmarks, in the order in which they are run.
pub(crate) fn benchmarks() -> impl Iterator<Item = &'static Benchmark> {
    [network::BENCHMARKS, locks::BENCHMARKS, disk::BENCHMARKS]
        .into_iter()
        .flatten()
}

/// All who are measured, Partha's own ways among them: the name on the command line and in the
/// JSON lines, and the label in tables.
pub(crate) const PEERS: &[(&str, &str)] = &[
    ("raw", "raw frames, tokio TCP"),
    ("tarpc", "tarpc 0.38, bincode"),
    ("capnp-rpc", "capnp-rpc 0.27, buffered"),
    ("capnp-rpc-unbuffered", "capnp-rpc 0.27, unbuffered"),
    ("capnp-rpc-guard", "capnp-rpc 0.27, guard's network"),
    ("tonic", "tonic 0.14"),
    ("ice", "Ice 3.7, C++"),
    ("omniorb", "omniORB 4, C++"),
    ("partha", "partha, native face"),
    ("partha-foreign", "partha, called by capnp-rpc"),
    ("oneshot", "tokio oneshot, two threads"),
    ("partha-across", "partha, across shards"),
    ("partha-within", "partha, same shard"),
    ("partha-core", "partha's core alone"),
    ("partha-null", "partha, a call that reads"),
    ("partha-counted", "partha, counted on the wire"),
    ("partha-plain", "partha, no copies"),
    ("partha-passive", "partha, three copies, passive"),
    ("partha-cohort", "partha, three copies, cohort"),
    ("partha-active", "partha, three copies, active"),
    ("fdatasync", "fdatasync"),
    ("heed", "LMDB by heed 0.23"),
    ("heed-same-puts", "LMDB by heed 0.23, the same puts"),
    ("postgres-2pc", "PostgreSQL 15, two-phase commit"),
    ("etcd-put", "etcd, a put of 256 B"),
];

/// The label of a peer.
pub(crate) fn label(peer: &str) -> &'static str {
    let known = PEERS.iter().find(|(name, _)| *name == peer);
    known.map_or("unknown", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Effort, Setting};

    #[test]
    fn every_case_is_of_a_known_peer() {
        for benchmark in benchmarks() {
            let plan = (benchmark.plan)(&Setting::new(Effort::Full)).unwrap();
            for case in &plan.cases {
                assert_ne!(label(case.peer), "unknown", "{}", case.peer);
            }
            for absent in &plan.absent {
                assert_ne!(label(absent.peer), "unknown", "{}", absent.peer);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = benchmarks().map(|benchmark| benchmark.name).collect();
        names.extend(PEERS.iter().map(|(name, _)| *name));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
