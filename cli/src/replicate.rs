//! The command `replicate`: an object gets copies at several nodes, or another number of them; and
//! how copies are asked for in other commands.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, ValueEnum};
use partha::services::binder::{GroupOrder, GroupPolicy, Label, NodeEntry};
use partha::{Copies, ErrorKind, Replication, Uid};
use serde_json::json;

use crate::arguments::Cluster;
use crate::cluster::System;
use crate::output::Output;
use crate::sessions::Shape;

/// Give an object copies at several nodes
///
/// One of them leads and answers calls; whatever a call changes is on the disks of all before it is
/// answered, and another one leads if the leader's node is lost. Asked again with another number,
/// more copies are made, or those that are too many go, the youngest first; with 1 the leader's
/// stays. Asked with another policy, the copies keep up with each other in that way from then on:
/// the change waits, as long as --wait says and 8 s at least, until no action or call has the
/// object in use.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  partha replicate /bank/alice 3\n  \
                  partha replicate /bank/alice 2 --on zone=a,zone=b\n  \
                  partha replicate /bank/alice 3 --policy cohort\n  \
                  partha replicate /bank/alice 3 --wait 0s")]
pub(crate) struct Arguments {
    /// The object: a name, or a uid
    object: String,
    /// How many copies there are to be, at as many nodes; 1 to 16
    #[arg(value_parser = clap::value_parser!(u16).range(1..=16))]
    copies: u16,
    /// How long to wait until there are so many, and until the policy can change
    #[arg(long, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = humantime::parse_duration)]
    wait: Duration,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// How copies keep up with each other, and where they are to be.
#[derive(Args, Clone, Debug)]
pub(crate) struct How {
    /// How the copies keep up with each other; as it is, or passive, if not said
    #[arg(long, value_enum, value_name = "POLICY")]
    policy: Option<Policy>,
    /// Which nodes get copies first: different zones and racks by their labels, or the first by
    /// name; as it is, or spread, if not said
    #[arg(long, value_enum, value_name = "ORDER")]
    place: Option<Order>,
    /// Copies only at nodes with these labels, as zone=a,zone=b: of each name one of the values
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    on: Vec<Label>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// One works, and what a call changes is on all disks before it is answered
    Passive,
    /// The same, and if it is lost another one goes on in the middle of actions
    Cohort,
    /// The same, and all execute the calls that are made outside of actions, and compare
    Active,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    Spread,
    Pack,
}

impl Policy {
    /// Whether actions go on when a leader is lost.
    pub(crate) fn takes_over(self) -> bool {
        match self {
            Self::Passive => false,
            Self::Cohort | Self::Active => true,
        }
    }

    pub(crate) fn with(self, copies: u16) -> Replication {
        let policy = match self {
            Self::Passive => GroupPolicy::Passive,
            Self::Cohort => GroupPolicy::Cohort,
            Self::Active => GroupPolicy::Active,
        };
        Replication::with(policy, copies)
    }
}

impl How {
    /// Whether anything of it was said.
    pub(crate) fn is_said(&self) -> bool {
        self.policy.is_some() || self.place.is_some() || !self.on.is_empty()
    }

    /// So many copies.
    pub(crate) fn with(&self, copies: u16) -> Replication {
        let policy = self.policy.map(|policy| policy.with(copies));
        let mut replication = policy.unwrap_or_else(|| Replication::of(copies));
        if self.place.is_some() || !self.on.is_empty() {
            let placement = replication.placement.get_or_insert_default();
            placement.on.clone_from(&self.on);
            placement.order = match self.place {
                Some(Order::Pack) => GroupOrder::Pack,
                Some(Order::Spread) | None => GroupOrder::Spread,
            };
        }
        replication
    }
}

/// Between two looks at how many there are.
const LOOK: Duration = Duration::from_millis(100);

/// `partha replicate`
pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let uid = system.find(&arguments.object).await?.uid;
    let replication = arguments.how.with(arguments.copies);
    let copies = when_there(&system, uid, &replication, arguments.wait).await?;
    out.facts(&[
        ("object", json!(arguments.object)),
        ("uid", json!(uid.to_string())),
        ("view", json!(copies.view)),
        ("copies", json!(names(&system, &copies).await)),
    ])?;
    warn_of_labels(&system, arguments).await;
    let (there, wanted) = (copies.members.len(), usize::from(arguments.copies));
    if there == wanted || arguments.wait.is_zero() {
        return Ok(());
    }
    let (object, wait) = (&arguments.object, arguments.wait);
    let why = match (there > wanted, copies.lacking.as_str()) {
        (true, _) => "those that are too many go by and by; `partha groups`".to_owned(),
        (false, "") => "more come by and by; `partha groups`".to_owned(),
        (false, why) => format!(
            "{why}; more come when there are other nodes: `partha nodes -o wide`, `partha groups`"
        ),
    };
    bail!("{object} has {there} copies instead of {wanted} after {wait:?}: {why}");
}

/// Says so where copies can be made at fewer nodes than there are to be copies.
async fn warn_of_labels(system: &System, arguments: &Arguments) {
    let (on, client) = (&arguments.how.on, &system.client);
    if on.is_empty() {
        return;
    }
    // It is a note: that it cannot be told is none.
    let Ok(nodes) = client.locator().nodes(client).await else {
        return;
    };
    let fitting = nodes.iter().filter(|node| node.alive && fits(node, on));
    let fitting = fitting.count();
    if fitting < usize::from(arguments.copies) {
        let labels: Vec<_> = on.iter().map(ToString::to_string).collect();
        eprintln!(
            "note: {fitting} living {} the labels {}, and copies are made only there; those that \
             there are stay",
            if fitting == 1 {
                "node has"
            } else {
                "nodes have"
            },
            labels.join(",")
        );
    }
}

/// Whether a node has one of the values of each name.
fn fits(node: &NodeEntry, on: &[Label]) -> bool {
    let has = |label: &Label| node.label(&label.name) == Some(label.value.as_str());
    on.iter()
        .all(|wanted| on.iter().any(|one| one.name == wanted.name && has(one)))
}

/// The copies when there are as many as wanted, or no time is left.
pub(crate) async fn when_there(
    system: &System,
    object: Uid,
    replication: &Replication,
    wait: Duration,
) -> anyhow::Result<Copies> {
    let until = Instant::now() + wait;
    loop {
        let last = Instant::now() + LOOK > until;
        match system.client.replicate_as(object, replication).await {
            // Somebody has it in use, changes its policy or moves it, and nothing has happened.
            Err(error)
                if matches!(error.kind(), ErrorKind::LockTimeout | ErrorKind::Moved) && !last => {}
            Err(error) => return Err(error.into()),
            Ok(copies) => {
                let there = copies.members.len() == usize::from(replication.copies);
                if there || last {
                    return Ok(copies);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The names of their nodes.
pub(crate) async fn names(system: &System, copies: &Copies) -> Vec<String> {
    let mut names = Vec::new();
    for member in &copies.members {
        names.push(match system.registered(*member).await {
            Ok(info) => info.description.name.clone(),
            Err(_) => member.to_string(),
        });
    }
    names
}
