//! LMDB by itself, through heed: what a store on this disk could do if it did nothing else.
//!
//! The environment is opened with LMDB's default flags, as the store's is, so each commit is
//! synced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, WithoutTls};
use serde::{Deserialize, Serialize};

use crate::disk::load::{Pace, Recorder};
use crate::figure::Found;

/// More than any run fills.
const MAP_BYTES: usize = 8 << 30;
/// More than the store has.
const TABLES_MAX: u32 = 32;
/// Of a key that stands for an object.
const KEY_BYTES: usize = 18;
/// The table of the store that tells about itself.
const META: &str = "meta";

type Rows = Database<'static, Bytes, Bytes>;

/// The entries of a store: by table and key, with the length of the value and a sum of it.
pub(crate) type Entries = BTreeMap<(String, Vec<u8>), (usize, u64)>;

/// What one durable call puts: one entry a put.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Puts(Vec<Put>);

/// A put of so many bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Put {
    table: String,
    key_bytes: usize,
    value_bytes: usize,
    /// It replaces what was there: the next call of the same object does so again. Others add.
    replaces: bool,
}

impl Puts {
    /// One put of so many bytes, at least those of a key, that replaces what was there.
    pub(crate) fn of_bytes(bytes: usize) -> Self {
        Self(vec![Put {
            table: "one".to_owned(),
            key_bytes: KEY_BYTES,
            value_bytes: bytes.saturating_sub(KEY_BYTES),
            replaces: true,
        }])
    }

    /// Keys and values together.
    pub(crate) fn bytes(&self) -> usize {
        self.0
            .iter()
            .map(|put| put.key_bytes + put.value_bytes)
            .sum()
    }
}

/// What stands for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// One put of as many bytes as the call puts in all.
    One,
    /// The same puts.
    Same,
}

/// Synced commits, one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Commits {
    /// The folder of the environment.
    pub(crate) dir: PathBuf,
    pub(crate) puts: Puts,
    pub(crate) shape: Shape,
    /// Its clients are the calls that a transaction stands for.
    pub(crate) pace: Pace,
}

#[expect(
    unsafe_code,
    reason = "LMDB maps the file: nobody but this program knows of the folder, and a store that \
              is looked at is never cut while a node has it"
)]
fn open(dir: &Path) -> anyhow::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_dbs(TABLES_MAX);
    // SAFETY: see the reason above.
    let env = unsafe { options.open(dir) };
    env.with_context(|| format!("cannot open LMDB in {}", dir.display()))
}

/// The entries of the store in a folder; its node may run.
pub(crate) fn entries(dir: &Path) -> anyhow::Result<Entries> {
    let env = open(dir)?;
    let mut names = Vec::new();
    let all = table(&env, None)?.context("a store without tables")?;
    let txn = env.read_txn()?;
    for name in all.iter(&txn)? {
        names.push(String::from_utf8(name?.0.to_vec()).context("a table's name is no text")?);
    }
    let mut entries = Entries::new();
    for name in names.iter().filter(|name| *name != META) {
        let table = table(&env, Some(name))?.context("a table that is gone")?;
        let txn = env.read_txn()?;
        for entry in table.iter(&txn)? {
            let (key, value) = entry?;
            let sum = value.iter().fold(0_u64, |sum, &byte| {
                sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into())
            });
            entries.insert((name.clone(), key.to_vec()), (value.len(), sum));
        }
    }
    Ok(entries)
}

fn table(env: &Env<WithoutTls>, name: Option<&str>) -> anyhow::Result<Option<Rows>> {
    let opened = env.open_databases_and_commit(env.read_txn()?, |opener, txn| {
        let table = opener.open_database::<Bytes, Bytes>(txn, name)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(table))
    });
    Ok(opened?.unwrap_commit())
}

fn make_table(env: &Env<WithoutTls>, name: &str) -> anyhow::Result<Rows> {
    let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        let table = opener.create_database::<Bytes, Bytes>(txn, Some(name))?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(table))
    });
    Ok(made?.unwrap_commit())
}

/// What was put between two looks at a store.
pub(crate) fn difference(before: &Entries, after: &Entries) -> anyhow::Result<Puts> {
    let changed = after
        .iter()
        .filter(|(at, value)| before.get(*at) != Some(value));
    let puts = changed.map(|(at, &(value_bytes, _))| Put {
        table: at.0.clone(),
        key_bytes: at.1.len(),
        value_bytes,
        replaces: before.contains_key(at),
    });
    let puts: Vec<_> = puts.collect();
    ensure!(
        !puts.is_empty(),
        "a durable call has left the store as it was"
    );
    Ok(Puts(puts))
}

/// A table, and what is put into it.
struct Target {
    rows: Rows,
    put: Put,
}

/// The role of the client.
pub(crate) fn run(told: &Commits) -> anyhow::Result<Found> {
    let env = open(&told.dir)?;
    let puts = match told.shape {
        Shape::Same => told.puts.0.clone(),
        Shape::One => Puts::of_bytes(told.puts.bytes()).0,
    };
    let mut targets = Vec::new();
    for put in puts {
        let rows = make_table(&env, &put.table)?;
        targets.push(Target { rows, put });
    }
    // One transaction after the other, each timed; a call is a share of one.
    let calls = told.pace.clients as u64;
    let recorder = Recorder::new(told.pace);
    // Entries that are added go on where an earlier run, which may be long ago, has ended.
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let (mut number, begun) = (started, Instant::now());
    loop {
        let start = Instant::now();
        let mut txn = env.write_txn()?;
        for call in 0..calls {
            for target in &targets {
                let at = if target.put.replaces { call } else { number };
                let (key, value) = bytes(&target.put, at, number);
                target.rows.put(&mut txn, &key, &value)?;
            }
            number += 1;
        }
        txn.commit()?;
        if !recorder.end(start) {
            break;
        }
        let limit = Duration::from_millis(told.pace.warm_up_ms + told.pace.measure_ms);
        ensure!(
            begun.elapsed() < 4 * limit + Duration::from_secs(30),
            "a commit takes too long"
        );
    }
    recorder.found(calls)
}

/// Key and value of a put: the key ends with `at`, the value begins with `number`.
fn bytes(put: &Put, at: u64, number: u64) -> (Vec<u8>, Vec<u8>) {
    let mut key = vec![1; put.key_bytes.max(8)];
    let end = key.len() - 8;
    key[end..].copy_from_slice(&at.to_be_bytes());
    let mut value = vec![2; put.value_bytes];
    for (to, from) in value.iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    (key, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(clients: usize) -> Pace {
        Pace {
            clients,
            warm_up_ms: 1,
            measure_ms: 20,
        }
    }

    #[test]
    fn what_is_put_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let put = |table: &str, value_bytes, replaces| Put {
            table: table.to_owned(),
            key_bytes: 18,
            value_bytes,
            replaces,
        };
        let puts = Puts(vec![put("state", 68, true), put("reply", 80, false)]);
        assert_eq!(puts.bytes(), 184);
        let commits = |shape| Commits {
            dir: dir.path().to_owned(),
            puts: puts.clone(),
            shape,
            pace: pace(3),
        };
        let found = run(&commits(Shape::Same)).unwrap();
        assert!(
            found.metrics[&crate::figure::Metric::Rate] > 0.0,
            "{found:?}"
        );
        let before = entries(dir.path()).unwrap();
        let count = |of: &Entries, table: &str| of.keys().filter(|(name, _)| name == table).count();
        assert_eq!(count(&before, "state"), 3);
        assert!(count(&before, "reply") >= 6 && count(&before, "reply") % 3 == 0);
        run(&commits(Shape::One)).unwrap();
        let after = entries(dir.path()).unwrap();
        assert_eq!(count(&after, "one"), 3);
        let new = difference(&before, &after).unwrap();
        assert_eq!((new.0.len(), new.bytes()), (3, 3 * 184));
        assert!(difference(&after, &after).is_err());
    }
}
