//! `partha doctor`: the whole system on one screen, what is wrong first.
//!
//! `checkup` asks all nodes at a time, each within a bound; `findings` holds the checks, each of
//! which looks at what was told and says what is wrong and what to do; `sections` holds what is
//! shown besides. A further check, or a further section, is one more function in a list there;
//! `servants` holds the checks of servants that do not end, or end their processes, `places` those
//! of where objects are.
//! `cure` has the three things that may be done.

mod checkup;
mod cure;
mod findings;
mod places;
mod sections;
mod servants;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use partha::ActionId;
use serde_json::{Map, Value, json};

use self::checkup::Checkup;
use self::findings::Finding;
use crate::arguments::{Cluster, Format};
use crate::cluster::System;
use crate::output::{Output, Rows};
use crate::sessions::{Session, Shape};

/// Exit status where something is wrong.
const FINDINGS: u8 = 1;

/// Look the whole system over, say what is wrong, and mend it
///
/// Asks all nodes, each for at most two seconds: sessions and their leases, bindings, active
/// objects, locks and who waits for them, actions in doubt, orphans killed, servants that do not
/// end, server processes, objects that have moved or have copies. What is wrong comes first, with
/// the cure.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit status:\n  0 nothing is wrong, 1 something is, or the system cannot be \
                  asked, 2 wrong usage"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    cure: Option<Cure>,
    /// Only these nodes: names, ids, or addresses
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// How long a call may wait for a lock, or an action be in doubt, before that is wrong
    #[arg(long, value_name = "TIME", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    after: Duration,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    shape: Shape,
}

impl Arguments {
    /// How results look.
    pub(crate) fn format(&self) -> Format {
        let given = match &self.cure {
            None => return self.shape.format(),
            Some(Cure::Break(cure)) => &cure.given,
            Some(Cure::Abort(cure)) => &cure.given,
            Some(Cure::Evict(cure)) => &cure.given,
        };
        given.shape.format()
    }
}

/// What may be done.
#[derive(Debug, Subcommand)]
enum Cure {
    Break(Break),
    Abort(Abort),
    Evict(Evict),
}

/// What all of them take.
#[derive(Args, Debug)]
struct Given {
    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    shape: Shape,
}

/// End the session of a process, as if its connections had broken
///
/// Its connections are cut, its bindings are broken, its actions that are not prepared are aborted
/// and their locks are free. A process that lives may come again and begin another session.
#[derive(Args, Debug)]
struct Break {
    /// The session, as `partha sessions` shows it; without a life, whichever there is
    session: Session,
    /// At this node only: its name, its id, or an address
    #[arg(long)]
    node: Option<String>,
    #[command(flatten)]
    given: Given,
}

/// Abort an action that nobody ends, as `partha abort` does
#[derive(Args, Debug)]
struct Abort {
    /// The top-level action, as `partha actions` shows it
    action: ActionId,
    #[command(flatten)]
    given: Given,
}

/// Take an object out of memory, if nothing uses it
///
/// Its next call brings it back with what was committed.
#[derive(Args, Debug)]
struct Evict {
    /// The object: a name, or a uid
    object: String,
    #[command(flatten)]
    given: Given,
}

/// `partha doctor`
pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<ExitCode> {
    match &arguments.cure {
        None => return examine(arguments, out).await,
        Some(Cure::Break(cure)) => cure::break_session(cure, out).await?,
        Some(Cure::Abort(cure)) => cure::abort(cure, out).await?,
        Some(Cure::Evict(cure)) => cure::evict(cure, out).await?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn examine(arguments: &Arguments, out: &mut Output) -> anyhow::Result<ExitCode> {
    let system = System::connect(&arguments.cluster).await?;
    let checkup = Checkup::of(&system, &arguments.nodes).await?;
    let found = findings::of(&checkup, arguments.after);
    match out.is_json() {
        true => out.value(&as_json(&checkup, &found))?,
        false => show(&checkup, &found, out)?,
    }
    out.flush()?;
    Ok(match found.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FINDINGS),
    })
}

fn show(checkup: &Checkup, found: &[Finding], out: &mut Output) -> anyhow::Result<()> {
    match found.len() {
        0 => out.line("nothing is wrong")?,
        1 => out.line("1 finding")?,
        count => out.line(&format!("{count} findings"))?,
    }
    for (index, finding) in found.iter().enumerate() {
        out.line(&format!("  {}. {}", index + 1, finding.text))?;
        out.line(&format!("     cure: {}", finding.cure))?;
    }
    let wide = out.is_wide();
    for section in sections::ALL {
        let page = (section.rows)(checkup, false);
        if page.is_empty() {
            continue;
        }
        out.line("")?;
        let shown = match wide {
            true => page.len(),
            false => page.len().min(sections::SHOWN_MAX),
        };
        let mut rows = Rows::new(section.header);
        rows.page(out, &page[..shown])?;
        rows.end(out)?;
        if page.len() > shown {
            let more = page.len() - shown;
            out.line(&format!("… and {more} more; -o wide shows all"))?;
        }
    }
    Ok(())
}

/// A stable shape: members may be added, none is renamed or taken away.
fn as_json(checkup: &Checkup, found: &[Finding]) -> Value {
    let mut all = Map::new();
    all.insert("healthy".to_owned(), json!(found.is_empty()));
    let findings = found.iter().map(Finding::as_json).collect();
    all.insert("findings".to_owned(), findings);
    for section in sections::ALL {
        let keys = section.header.iter();
        let keys: Vec<_> = keys
            .map(|name| name.to_lowercase().replace(' ', "_"))
            .collect();
        let object = |row: Vec<Value>| Value::Object(keys.iter().cloned().zip(row).collect());
        let rows = (section.rows)(checkup, true);
        let rows = rows.into_iter().map(object).collect();
        all.insert(section.key.to_owned(), rows);
    }
    Value::Object(all)
}
