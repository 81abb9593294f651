//! `partha node drain`: everything that can move away from a node does, so that it may be stopped.
//!
//! The node is cordoned first. Then its objects are gone over page by page, some moves at a time,
//! until a pass finds none that could be moved: whatever was busy is tried again in the next pass,
//! and so is what came in the meantime. What has moved is not at the node any more, so a drain that
//! was interrupted goes on where it was when it is begun again.
//!
//! `targets` says where the next object goes, `copies` has copies of replicated objects replaced,
//! `tally` counts, `progress` shows, `report` says at the end what stays and why.

mod copies;
mod progress;
mod report;
mod tally;
mod targets;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, bail};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use partha::services::binder::{MovedObject, NodeEntry};
use partha::system::StoredObject;
use partha::system::connection_manager::MoveObjectError;
use partha::{ErrorKind, NodeId, Uid};

use self::progress::Progress;
use self::report::Report;
use self::tally::{Kind, Tally, Why};
use self::targets::{Order, Targets, To};
use crate::arguments::Cluster;
use crate::cluster::{NodeInfo, System};
use crate::failure::Usage;
use crate::output::Output;
use crate::sessions::Shape;
use crate::{moving, node, nodes, survey};

/// Objects asked for at a time.
const PAGE: u32 = 500;
/// Pause before what was busy is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether the actions at the node have ended.
const LOOK: Duration = Duration::from_millis(200);

const STATUS: &str = "\
Exit status:
  0 the node may be stopped, 1 not yet, or the system cannot be asked, 2 wrong usage

Examples:
  partha node drain a                     spread its objects over the other nodes
  partha node drain a --to zone=east      only to nodes of that label
  partha node drain a --spread zone       as many to each zone, whatever nodes it has
  partha node drain a --pack --to b       to b, as long as it takes them
  partha node drain a --dry-run           say what would go where, and do nothing";

/// Move everything away from a node, and say when it may be stopped
///
/// The node is cordoned first, and stays so: `partha node uncordon` takes that back. What is busy
/// is tried again. A drain that was interrupted goes on where it was when it is begun again.
/// Objects that no other node can run stay, and are told. Copies of replicated objects are made
/// anew elsewhere before they go, wherever those objects may have copies, whatever --to says.
#[derive(Args, Debug)]
#[command(after_help = STATUS)]
pub(crate) struct Arguments {
    /// The node: its name, or its id
    node: String,
    /// Only to nodes with this label, as zone=east, or to this node; may be repeated
    #[arg(long, value_name = "LABEL|NODE", value_parser = To::read)]
    to: Vec<To>,
    /// Spread the objects evenly over the values of this label, and then over nodes; else over
    /// nodes alone
    #[arg(long, value_name = "LABEL")]
    spread: Option<String>,
    /// To one node after the other, by name: the next one when the one before takes no more
    #[arg(long, conflicts_with = "spread")]
    pack: bool,
    /// How long each object may wait for its calls and for actions that are about to commit
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = moving::wait)]
    wait: Duration,
    /// Give up when nothing could be moved for so long
    #[arg(long, value_name = "TIME", default_value = "1m")]
    #[arg(value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Objects that are moved at a time: more are sooner done, fewer leave more to others
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Say what would be moved and where to; do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// A node that is being drained.
struct Drain<'a> {
    system: &'a System,
    arguments: &'a Arguments,
    entry: NodeEntry,
    targets: RefCell<Targets>,
    progress: Progress,
    /// Objects that have moved and that the binder was not told of yet.
    news: RefCell<Vec<MovedObject>>,
}

/// How many objects of each class there are.
type Counts = BTreeMap<u64, u64>;

/// `partha node drain`
pub(crate) async fn drain(arguments: &Arguments, out: &mut Output) -> anyhow::Result<ExitCode> {
    let system = System::connect(&arguments.cluster).await?;
    let all = system.client.locator().nodes(&system.client).await?;
    let entry = nodes::find(&all, &arguments.node)?.clone();
    check_wishes(&all, &entry, &arguments.to)?;
    let source = system.reach(&entry).await?;
    let counts = count(&system, &source).await?;
    let order = match (&arguments.spread, arguments.pack) {
        (Some(label), _) => Order::SpreadOver(label.clone()),
        (None, true) => Order::Pack,
        (None, false) => Order::Spread,
    };
    let targets = Targets::new(all, NodeId(entry.node), &arguments.to, order);
    if arguments.dry_run {
        report::plan(&source, targets, &counts, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let patience = arguments.patience;
    let goes = |class: &u64| {
        let returns = targets.may_return(*class, &arguments.to, patience);
        targets.has(*class) || returns.is_some()
    };
    if !counts.is_empty() && !counts.keys().any(goes) {
        bail!(
            "none of the objects of node '{}' can go anywhere: {}; nothing has been done",
            entry.name,
            report::no_target(&source, counts.keys().copied())
        );
    }
    if !node::set(&system, &entry, true).await? {
        let name = &entry.name;
        eprintln!("node '{name}' is cordoned; `partha node uncordon {name}` takes that back");
    }
    let drain = Drain {
        system: &system,
        arguments,
        progress: Progress::begin(counts.values().sum()),
        entry,
        targets: RefCell::new(targets),
        news: RefCell::default(),
    };
    let report = drain.run_to_the_end(&counts).await?;
    report.show(&system, out).await?;
    out.flush()?;
    Ok(match report.may_be_stopped() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Refuses to look for nodes that nobody has heard of, or that may get no objects.
fn check_wishes(all: &[NodeEntry], from: &NodeEntry, to: &[To]) -> anyhow::Result<()> {
    for to in to {
        let To::Node(name) = to else { continue };
        let node = nodes::find(all, name)?;
        if node.node == from.node {
            return Err(Usage(format!("'{name}' is the node that is to be drained")).into());
        }
        if node.cordoned {
            bail!(
                "node '{name}' is cordoned; `partha node uncordon {name}` lets objects come to it"
            );
        }
    }
    Ok(())
}

/// The objects of a node by class.
async fn count(system: &System, source: &NodeInfo) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let mut objects = std::pin::pin!(objects(system, source));
    while let Some(object) = objects.try_next().await? {
        *counts.entry(object.class).or_default() += 1;
    }
    Ok(counts)
}

/// The objects of a node, asked for page by page.
fn objects(
    system: &System,
    source: &NodeInfo,
) -> impl stream::Stream<Item = anyhow::Result<StoredObject>> {
    let pages = stream::try_unfold(Uid::NIL, async |after| {
        let manager = source.handle.manager();
        let page = manager.objects(&system.client, after, PAGE).await?;
        let Some(last) = page.last() else {
            return anyhow::Ok(None);
        };
        let after = last.object;
        Ok(Some((stream::iter(page).map(anyhow::Ok), after)))
    });
    pages.try_flatten()
}

impl Drain<'_> {
    /// Moves what can be moved, also what comes while the end is looked at, unless that goes on
    /// for longer than anybody has patience.
    async fn run_to_the_end(&self, counts: &Counts) -> anyhow::Result<Report> {
        let mut done = self.progress.moved_so_far();
        let mut progressed = Instant::now();
        loop {
            let tally = self.run().await?;
            if self.progress.moved_so_far() > done {
                done = self.progress.moved_so_far();
                progressed = Instant::now();
            }
            let report = Report::of(self, counts, tally).await;
            if !report.is_behind() || progressed.elapsed() >= self.arguments.patience {
                return Ok(report);
            }
        }
    }

    /// Goes over the objects until none is left that could be moved; what stays.
    async fn run(&self) -> anyhow::Result<Tally> {
        let working = self.passes();
        let done = tokio::select! {
            done = working => done,
            never = self.progress.show() => match never {},
        };
        self.progress.end();
        self.tell().await?;
        done
    }

    async fn passes(&self) -> anyhow::Result<Tally> {
        let mut progressed = Instant::now();
        loop {
            let passed = self.pass().await;
            let out_of_patience = progressed.elapsed() >= self.arguments.patience;
            match passed {
                Ok(tally) => {
                    if tally.moved > 0 {
                        progressed = Instant::now();
                    }
                    let idle = tally.moved == 0 && (tally.busy() == 0 || out_of_patience);
                    if idle {
                        return Ok(tally);
                    }
                    if tally.busy() == 0 {
                        continue;
                    }
                }
                // It may be restarting: it is back within seconds.
                Err(error) if out_of_patience => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
            let client = &self.system.client;
            if let Ok(nodes) = client.locator().nodes(client).await {
                let from = NodeId(self.entry.node);
                let mut targets = self.targets.borrow_mut();
                targets.renew(nodes, from, &self.arguments.to);
            }
        }
    }

    /// Goes over the objects once.
    async fn pass(&self) -> anyhow::Result<Tally> {
        let source = self.reach().await?;
        let tally = RefCell::new(Tally::default());
        self.progress.begin_pass();
        let parallel = usize::from(self.arguments.parallel);
        let objects = objects(self.system, &source);
        let moving = objects.try_for_each_concurrent(parallel, async |object| {
            self.send(&source, &object, &tally).await
        });
        moving.await?;
        Ok(tally.into_inner())
    }

    /// The node, wherever it is now.
    async fn reach(&self) -> anyhow::Result<NodeInfo> {
        self.system.registered(NodeId(self.entry.node)).await
    }

    /// Moves one object, if it can be.
    async fn send(
        &self,
        source: &NodeInfo,
        object: &StoredObject,
        tally: &RefCell<Tally>,
    ) -> anyhow::Result<()> {
        if object.copy {
            self.give_up(source, object, tally).await;
            return Ok(());
        }
        let &StoredObject { object, class, .. } = object;
        let (mut refused, mut failure) = (Vec::new(), None);
        loop {
            let chosen = self.targets.borrow_mut().choose(class, &refused);
            let Some(chosen) = chosen else { break };
            let wait = self.arguments.wait;
            match moving::send(self.system, source, object, chosen.node, wait).await {
                Ok(moves) => {
                    self.targets.borrow_mut().went_well(chosen.node);
                    tally.borrow_mut().moved += 1;
                    self.progress.moved();
                    return self.moved(object, chosen.node, moves).await;
                }
                // Somebody else has moved it.
                Err(MoveObjectError::NoSuchObject(_)) => return Ok(()),
                Err(MoveObjectError::System(error)) if error.kind() == ErrorKind::Moved => {
                    return Ok(());
                }
                Err(error) => {
                    let why = Why::of(&error);
                    if matches!(error, MoveObjectError::System(_)) {
                        // It is away, stopping or full, which is nothing of the object's.
                        self.targets.borrow_mut().failed(chosen.node);
                    }
                    let may_pass = why.may_pass();
                    let text = match error {
                        MoveObjectError::NotMovable(error) => error.reason,
                        error => format!("to node '{}': {error}", chosen.name),
                    };
                    failure = Some((why, text));
                    if may_pass {
                        break;
                    }
                    // Others may take it, as those whose version of the class is the same.
                    refused.push(chosen.node);
                }
            }
        }
        let (why, text) = failure.unwrap_or_else(|| {
            let text = report::no_target(source, [class].into_iter());
            self.unless_one_returns(class, &self.arguments.to, Why::NoTarget, text)
        });
        tally.borrow_mut().stays(object, class, why, text);
        self.progress.stays();
        Ok(())
    }

    /// Why an object stays for which there is no node: nobody, or one that is just away.
    fn unless_one_returns(
        &self,
        class: u64,
        to: &[To],
        nobody: Why,
        text: String,
    ) -> (Why, String) {
        let targets = self.targets.borrow();
        match targets.may_return(class, to, self.arguments.patience) {
            Some(away) => {
                let text = format!("{text}; node '{away}' is away, and may come back");
                (Why::Busy(Kind::of(&text)), text)
            }
            None => (nobody, text),
        }
    }

    /// The binder is to know of a move before the node may be stopped, whose word it is until
    /// then where the object has gone. The object's new node tells it too, when it comes to it.
    async fn moved(&self, object: Uid, node: NodeId, moves: u64) -> anyhow::Result<()> {
        let many = {
            let mut news = self.news.borrow_mut();
            let node = node.0;
            news.push(MovedObject {
                object,
                node,
                moves,
            });
            news.len() >= PAGE as usize
        };
        match many {
            true => self.tell().await,
            false => Ok(()),
        }
    }

    async fn tell(&self) -> anyhow::Result<()> {
        let news = self.news.take();
        let client = &self.system.client;
        let told = client.locator().tell_moved(client, &news);
        let told = tokio::time::timeout(self.arguments.patience, told).await;
        let untold = "the binder could not be told where objects have gone";
        let told = told.map_err(Error::new).and_then(|told| Ok(told?));
        if told.is_err() {
            self.news.borrow_mut().extend(news);
        }
        told.context(untold)
    }

    /// The actions that have a part at the node, when they have had this time to end.
    async fn actions(
        &self,
        source: &NodeInfo,
        time: Duration,
    ) -> anyhow::Result<Vec<(Uid, &'static str)>> {
        let begun = Instant::now();
        loop {
            let parts = survey::parts(self.system, source).await?;
            if parts.is_empty() || begun.elapsed() >= time {
                let mut actions: Vec<_> = parts
                    .iter()
                    .filter_map(|part| {
                        let root = survey::own(&part.path).first();
                        root.map(|root| (*root, survey::phase(part.phase)))
                    })
                    .collect();
                actions.dedup_by_key(|(action, _)| *action);
                return Ok(actions);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
