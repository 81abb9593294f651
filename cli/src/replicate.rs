//! The command `replicate`: an object gets copies at several nodes.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::arguments::Cluster;
use crate::cluster::System;
use crate::output::Output;
use crate::sessions::Shape;

/// Give an object copies at several nodes
///
/// One of them leads and answers calls; whatever a call changes is on the disks of all before it is
/// answered, and another one leads if the leader's node is lost. Asked again with another number,
/// more copies are made; copies that are too many stay.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  partha replicate /bank/alice 3\n  \
                  partha replicate /bank/alice 3 --wait 0s")]
pub(crate) struct Arguments {
    /// The object: a name, or a uid
    object: String,
    /// How many copies there are to be, at as many nodes; 1 to 16
    #[arg(value_parser = clap::value_parser!(u16).range(1..=16))]
    copies: u16,
    /// How long to wait until all of them are there
    #[arg(long, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = humantime::parse_duration)]
    wait: Duration,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// Between two looks at how many there are.
const LOOK: Duration = Duration::from_millis(100);

/// `partha replicate`
pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let uid = system.find(&arguments.object).await?.uid;
    let until = Instant::now() + arguments.wait;
    let wanted = usize::from(arguments.copies);
    let copies = loop {
        let copies = system.client.replicate(uid, arguments.copies).await?;
        if copies.members.len() >= wanted || Instant::now() + LOOK > until {
            break copies;
        }
        tokio::time::sleep(LOOK).await;
    };
    let there = copies.members.len();
    let mut nodes = Vec::new();
    for member in &copies.members {
        nodes.push(match system.registered(*member).await {
            Ok(info) => info.description.name.clone(),
            Err(_) => member.to_string(),
        });
    }
    out.facts(&[
        ("object", json!(arguments.object)),
        ("uid", json!(uid.to_string())),
        ("view", json!(copies.view)),
        ("copies", json!(nodes)),
    ])?;
    if there < wanted && !arguments.wait.is_zero() {
        let object = &arguments.object;
        bail!(
            "{object} has {there} of {wanted} copies after {:?}; more come when there are nodes \
             that run its class and are not cordoned: `partha nodes -o wide`, `partha groups`",
            arguments.wait
        );
    }
    Ok(())
}
