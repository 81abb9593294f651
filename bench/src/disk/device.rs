//! The disk that the stores are on: what a sync costs there, below any database.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use tempfile::TempDir;

use super::load::{Pace, Recorder};
use super::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::suite::{Benchmark, Plan, Setting, View};

/// What is written for a sync.
const BLOCK: [u8; 4096] = [7; 4096];

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "sync",
    about: "fdatasync after 4 KiB were written, on the disk of all that follows",
    view: View {
        reference: None,
        metrics: &[Metric::Rate, Metric::P50Us, Metric::P99Us],
        tall: true,
        plots: &[],
    },
    on_request: false,
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let folder = Lazy::new(stage::folder);
    let kind = file_system(&std::env::temp_dir())?;
    if is_memory(&kind) {
        eprintln!(
            "warning: the temporary folder is on {kind}, where a sync costs nothing: set TMPDIR to \
             a folder on a disk"
        );
    }
    let often = (setting.rounds, stage::takes(setting));
    let case = |how: &str, step: u64| {
        let parameters = Parameters::default().with("write", format!("4 KiB {how}, {kind}"));
        let pace = stage::pace(setting, 1);
        folder.case("fdatasync", parameters, often, move |folder: &TempDir| {
            syncs(folder.path(), pace, step)
        })
    };
    Ok(Plan {
        cases: vec![case("overwritten", 0), case("appended", BLOCK.len() as u64)],
        ..Plan::default()
    })
}

/// Writes blocks, `step` bytes apart, each synced.
fn syncs(dir: &Path, pace: Pace, step: u64) -> anyhow::Result<Found> {
    let path = dir.join("file");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let recorder = Recorder::new(pace);
    let mut at = 0;
    loop {
        let start = Instant::now();
        file.write_all_at(&BLOCK, at).context("cannot write")?;
        file.sync_data().context("fdatasync failed")?;
        at += step;
        if !recorder.end(start) {
            return recorder.found(1);
        }
    }
}

/// Whether nothing outlives a loss of power there.
fn is_memory(file_system: &str) -> bool {
    matches!(file_system, "tmpfs" | "ramfs")
}

/// The type of the file system that a folder is on: that of the longest mount point above it.
fn file_system(dir: &Path) -> anyhow::Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot list mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    // Of two at one place the later one is seen.
    let found = above.max_by_key(|(point, _)| point.components().count());
    Ok(found.map_or("unknown", |(_, kind)| kind).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_timed_and_file_systems_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let pace = Pace {
            clients: 1,
            warm_up_ms: 0,
            measure_ms: 1,
        };
        for step in [0, 4096] {
            let found = syncs(dir.path(), pace, step).unwrap();
            assert!(found.metrics[&Metric::P50Us] > 0.0, "{found:?}");
        }
        assert_eq!(file_system(Path::new("/proc/self")).unwrap(), "proc");
        assert!(is_memory("tmpfs") && !is_memory("ext4"));
    }
}
