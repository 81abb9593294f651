//! The machine of a run, so that figures are not compared with those of another one.

use std::fs;
use std::thread;

/// Processor, cores, and kernel, as far as they are told.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, Linux {}",
        model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        kernel.trim()
    )
}
