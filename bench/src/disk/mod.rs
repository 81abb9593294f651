//! The benchmarks that need a disk, or a system of several processes: durable calls, transfers
//! between two nodes, copies, objects that move, binding, memory, growth, start-up, compile times.
//!
//! Everything they store is in one temporary folder each, on the disk of `TMPDIR`, and goes with
//! them. [`device`] says what a sync costs there. Servers and clients are this program again, in
//! the roles of [`role`]; [`external`] are the databases of others.

mod bind;
mod copies;
mod device;
mod durable;
mod external;
mod load;
mod moving;
mod node;
pub(crate) mod role;
mod scale;
mod stage;
mod transfer;

use crate::suite::Benchmark;

/// In the order in which they are run.
pub(crate) const BENCHMARKS: &[Benchmark] = &[
    device::BENCHMARK,
    durable::BENCHMARK,
    transfer::BENCHMARK,
    copies::BENCHMARK,
    moving::BENCHMARK,
    bind::BENCHMARK,
    scale::memory::BENCHMARK,
    scale::growth::GROWTH,
    scale::growth::WAITERS,
    scale::start_up::BENCHMARK,
    scale::compile::BENCHMARK,
];
