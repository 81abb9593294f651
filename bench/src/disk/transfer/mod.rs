//! Atomic transfers between accounts at two nodes, beside what else can do the same durably.
//!
//! A transfer takes one cent from an account at one node or server and adds it to one at the
//! other, both or neither. Everybody takes the account at the first node first, so that transfers
//! do not block each other in a ring. After each run the accounts are added up: a run that has
//! made or lost money fails.
//!
//! Peers: PostgreSQL with two-phase commit over two servers; synced commits of LMDB, of which two,
//! one after the other, are the physical floor (a vote, then a decision); puts of 256 bytes into
//! etcd, which is a durable write of one server over gRPC, and no transfer.

pub(crate) mod partha;

use anyhow::ensure;
use tempfile::TempDir;

use super::durable::lmdb::{Commits, Puts, Shape};
use super::external::{etcd, postgres};
use super::load::Pace;
use super::node::{Making, Wishes};
use super::role::{self, Client, Server};
use super::stage::{self, Lazy};
use crate::figure::{Found, Metric, Parameters};
use crate::process::Running;
use crate::suite::{Benchmark, Plan, Plot, Setting, View};

/// What a commit of LMDB writes that stands for one of ours: an account's state, and a note of the
/// action.
const COMMIT_BYTES: usize = 256;
/// Accounts at both nodes together.
const ACCOUNTS: usize = 1_000;

pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "transfer",
    about: "money moved between accounts at two nodes, in one action",
    view: View {
        reference: Some("postgres-2pc"),
        metrics: &[Metric::Rate, Metric::P50Us, Metric::Syncs],
        tall: true,
        plots: &[
            Plot::Curve {
                title: "Transfers a second against clients",
                x: "clients",
                y: Metric::Rate,
            },
            Plot::Latencies {
                title: "Latency of transfers, 64 clients",
                of: "64 clients",
            },
        ],
    },
    on_request: false,
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let (nodes, lmdb) = (Lazy::new(Nodes::prepare), Lazy::new(Lmdb::prepare));
    let pair = Lazy::new(|| postgres::Pair::start(ACCOUNTS / 2));
    let member = Lazy::new(etcd::Member::start);
    let (postgres, etcd) = (postgres::absent(), etcd::absent());
    let mut cases = Vec::new();
    for (clients, rounds) in stage::clients(setting) {
        let pace = stage::pace(setting, clients as usize);
        let parameters = || Parameters::default().with("clients", clients);
        let often = (rounds, stage::takes(setting));
        cases.push(nodes.case("partha", parameters(), often, move |nodes| {
            nodes.transfers(pace, false)
        }));
        if postgres.is_none() {
            cases.push(pair.case("postgres-2pc", parameters(), often, move |pair| {
                pair.transfers(pace)
            }));
        }
        if etcd.is_none() {
            cases.push(member.case("etcd-put", parameters(), often, move |member| {
                member.puts(pace)
            }));
        }
        if clients == 1 {
            cases.push(lmdb.case("heed", parameters(), often, move |lmdb| lmdb.commits(pace)));
            cases.push(
                nodes.case("partha-null", parameters(), often, move |nodes| {
                    nodes.transfers(pace, true)
                }),
            );
        }
    }
    let absent = postgres.into_iter().chain(etcd).collect();
    Ok(Plan { cases, absent })
}

/// The two accounts of the transfer of this number, by their places at the two nodes, and whether
/// the money goes from the first to the second. All peers make the same ones.
pub(crate) fn choose(number: u64, accounts: [usize; 2]) -> (usize, usize, bool) {
    // SplitMix64: numbers in a row are spread evenly.
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let (high, low) = ((mixed >> 32) as usize, (mixed & 0x7fff_ffff) as usize);
    (
        high % accounts[0],
        low % accounts[1],
        mixed & 0x8000_0000 == 0,
    )
}

/// Fails unless the money that was there is there.
pub(crate) fn check_total(found: i64, accounts: usize, begin: i64) -> anyhow::Result<()> {
    let expected = accounts as i64 * begin;
    ensure!(
        found == expected,
        "the accounts hold {found} after the run, and held {expected} before: money was {}",
        if found < expected { "lost" } else { "made" }
    );
    Ok(())
}

/// Two nodes with accounts.
pub(super) struct Nodes {
    nodes: [Running; 2],
    /// The naming service and the binder, if they are registered.
    services: Vec<Running>,
    pub(super) accounts: [Vec<String>; 2],
    /// Last, so that it goes when nobody has files in it any more.
    _folder: TempDir,
}

impl Nodes {
    /// Known to each other alone.
    pub(super) fn prepare() -> anyhow::Result<Self> {
        Self::start(stage::folder()?, Vec::new(), None)
    }

    /// Known to a naming service and a binder, as `a` and `b`; what has moved stays as long as is
    /// usual, if nothing else is said.
    pub(super) fn registered(move_cooldown_ms: Option<u64>) -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        let naming = Wishes::alone(folder.path().join("naming"));
        let naming = role::start("the naming service", &Server::Naming(naming))?;
        let binder = Wishes {
            naming: Some(naming.address().to_owned()),
            ..Wishes::alone(folder.path().join("binder"))
        };
        let binder = role::start("the binder", &Server::Binder(binder))?;
        Self::start(folder, vec![naming, binder], move_cooldown_ms)
    }

    fn start(
        folder: TempDir,
        services: Vec<Running>,
        move_cooldown_ms: Option<u64>,
    ) -> anyhow::Result<Self> {
        let naming = services.first().map(|naming| naming.address().to_owned());
        let node = |name: &str| {
            let wishes = Wishes {
                naming: naming.clone(),
                move_cooldown_ms,
                ..Wishes::alone(folder.path().join(name))
            };
            role::start("a node", &Server::Node(wishes))
        };
        let (mut a, mut b) = (node("a")?, node("b")?);
        a.tell(&format!("introduce {}", b.address()))?;
        b.tell(&format!("introduce {}", a.address()))?;
        let open = |node: &Running| {
            let making = Making {
                address: node.address().to_owned(),
                count: ACCOUNTS / 2,
                naming: None,
            };
            role::run::<Vec<String>>("a client", &Client::MakeAccounts(making))
        };
        Ok(Self {
            accounts: [open(&a)?, open(&b)?],
            nodes: [a, b],
            services,
            _folder: folder,
        })
    }

    /// Where the naming service listens, if they are registered.
    pub(super) fn naming(&self) -> Option<String> {
        let naming = self.services.first();
        naming.map(|naming| naming.address().to_owned())
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> Vec<String> {
        let addresses = self.nodes.iter().map(|node| node.address().to_owned());
        addresses.collect()
    }

    /// Transfers, or calls that change nothing and belong to no action.
    fn transfers(&self, pace: Pace, read_only: bool) -> anyhow::Result<Found> {
        let transfers = partha::Transfers {
            addresses: self.addresses(),
            accounts: self.accounts.to_vec(),
            pace,
            read_only,
            servers: self.nodes.iter().map(Running::pid).collect(),
        };
        role::run("the client of two nodes", &Client::Transfers(transfers))
    }
}

/// A folder for commits of LMDB.
struct Lmdb {
    folder: TempDir,
}

impl Lmdb {
    fn prepare() -> anyhow::Result<Self> {
        let folder = stage::folder()?;
        Ok(Self { folder })
    }

    /// One synced commit of as many bytes as a vote or a decision writes.
    fn commits(&self, pace: Pace) -> anyhow::Result<Found> {
        let commits = Commits {
            dir: self.folder.path().to_owned(),
            puts: Puts::of_bytes(COMMIT_BYTES),
            shape: Shape::One,
            pace,
        };
        role::run("the client of LMDB", &Client::Lmdb(commits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_spread_over_accounts_and_both_ways() {
        let (mut counts, mut there) = ([[0; 10]; 2], 0);
        for number in 0..10_000 {
            let (first, second, onward) = choose(number, [10, 10]);
            counts[0][first] += 1;
            counts[1][second] += 1;
            there += u32::from(onward);
        }
        let even = |count: &u32| (800..1200).contains(count);
        assert!(counts.iter().flatten().all(even), "{counts:?}");
        assert!((4_800..5_200).contains(&there), "{there}");
    }

    #[test]
    fn a_run_that_loses_or_makes_money_fails() {
        check_total(30, 3, 10).unwrap();
        let lost = check_total(29, 3, 10).unwrap_err().to_string();
        assert!(lost.ends_with("lost"), "{lost}");
        let made = check_total(31, 3, 10).unwrap_err().to_string();
        assert!(made.ends_with("made"), "{made}");
    }
}
