//! The commands about names: `ls`, `rm`, `alias`.
//!
//! `ls` shows a page while the next is not yet asked for, so that any number of names needs the
//! memory of one page a level.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use partha::services::naming::Entry;
use partha::services::naming::name_service::ListError;
use partha::{ClassId, Client, Uid};
use serde_json::{Value, json};

use crate::arguments::{Alias, Ls, Rm};
use crate::cluster::System;
use crate::naming;
use crate::output::{Output, Rows};
use crate::owner::Owned;

/// Names asked for at a time.
const PAGE: u32 = 500;
/// Objects asked about at a time.
const ASKED_MAX: usize = 64;
/// Names looked through for those of given objects, at most.
const WALKED_MAX: usize = 20_000;
/// How long that may take.
const WALK_DEADLINE: Duration = Duration::from_secs(2);

/// A context under way.
struct Level {
    /// From the root, with a slash at the end.
    path: String,
    after: String,
    /// Names of the present page that are still to be shown.
    entries: VecDeque<Entry>,
    complete: bool,
}

/// A name that is to be shown.
struct Line {
    path: String,
    entry: Entry,
}

/// `partha ls`
pub(crate) async fn ls(arguments: &Ls, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let long = arguments.long || out.is_wide() || out.is_json();
    let mut header = vec!["NAME", "TYPE", "NODE", "STATE", "UID"];
    if long {
        header.extend(["VERSION", "BYTES", "USERS"]);
    }
    let mut rows = Rows::new(&header);
    let mut listing = Listing::begin(&system.client, &arguments.path, arguments.recursive).await?;
    loop {
        let lines = listing.next(&system.client).await?;
        if lines.is_empty() {
            break;
        }
        let page = describe(&system, lines, long).await;
        rows.page(out, &page)?;
    }
    rows.end(out)?;
    Ok(())
}

/// `partha rm`
pub(crate) async fn rm(arguments: &Rm, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    naming::delete(&system.client, &arguments.name).await?;
    out.facts(&[("removed", json!(arguments.name))])?;
    Ok(())
}

/// `partha alias`
pub(crate) async fn alias(arguments: &Alias, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let found = system.find(&arguments.name).await?;
    let mut class = found.class;
    if class == ClassId(0) {
        class = ClassId(system.owner(found.uid).await?.found.class);
    }
    naming::add(&system.client, &arguments.new, found.uid, class).await?;
    let uid = found.uid.to_string();
    out.facts(&[("added", json!(arguments.new)), ("object", json!(uid))])?;
    Ok(())
}

/// The names of objects, where they are found soon: nothing waits for them for long, since names
/// are for people.
pub(crate) async fn of_objects(system: &System, wanted: &BTreeSet<Uid>) -> HashMap<Uid, String> {
    let mut found = HashMap::new();
    let walk = async {
        let mut listing = Listing::begin(&system.client, "/", true).await?;
        let mut walked = 0;
        while found.len() < wanted.len() && walked < WALKED_MAX {
            let lines = listing.next(&system.client).await?;
            if lines.is_empty() {
                break;
            }
            walked += lines.len();
            for Line { path, entry } in lines {
                if wanted.contains(&entry.object) {
                    found.entry(entry.object).or_insert(path);
                }
            }
        }
        anyhow::Ok(())
    };
    // Without a name an object is called by its uid.
    let _ = tokio::time::timeout(WALK_DEADLINE, walk).await;
    found
}

/// A walk over names.
struct Listing {
    levels: Vec<Level>,
    recursive: bool,
    /// The one name that was asked for, if it is no context.
    single: Option<Line>,
}

impl Listing {
    async fn begin(client: &Client, path: &str, recursive: bool) -> anyhow::Result<Self> {
        let path = format!("/{}", path.trim_matches('/'));
        let mut listing = Self {
            levels: Vec::new(),
            recursive,
            single: None,
        };
        let mut level = Level::new(&path);
        match level.turn(client).await {
            Ok(()) => listing.levels.push(level),
            Err(ListError::NotAContext(_)) => {
                let entry = client.naming()?.lookup(client, &path).await?;
                listing.single = Some(Line { path, entry });
            }
            Err(error) => return Err(naming::listing(&path, error)),
        }
        Ok(listing)
    }

    /// The next names, at most a page; none at the end.
    async fn next(&mut self, client: &Client) -> anyhow::Result<Vec<Line>> {
        if let Some(single) = self.single.take() {
            return Ok(vec![single]);
        }
        let mut lines = Vec::new();
        while lines.len() < PAGE as usize {
            let Some(level) = self.levels.last_mut() else {
                break;
            };
            let Some(entry) = level.entries.pop_front() else {
                if level.complete {
                    self.levels.pop();
                } else {
                    match level.turn(client).await {
                        Ok(()) => {}
                        // It was taken away while we looked elsewhere.
                        Err(ListError::NameNotFound(_)) => level.complete = true,
                        Err(error) => return Err(naming::listing(&level.path, error)),
                    }
                }
                continue;
            };
            let path = format!("{}{}", level.path, entry.name);
            if self.recursive && entry.context {
                self.levels.push(Level::new(&path));
            }
            lines.push(Line { path, entry });
        }
        Ok(lines)
    }
}

impl Level {
    fn new(path: &str) -> Self {
        Self {
            path: format!("{}/", path.trim_end_matches('/')),
            after: String::new(),
            entries: VecDeque::new(),
            complete: false,
        }
    }

    /// Takes in the next page.
    async fn turn(&mut self, client: &Client) -> Result<(), ListError> {
        let naming = client.naming().map_err(ListError::System)?;
        let path = self.path.trim_matches('/');
        let page = naming.list(client, path, &self.after, PAGE).await?;
        self.complete = page.len() < PAGE as usize;
        if let Some(last) = page.last() {
            self.after.clone_from(&last.name);
        }
        self.entries = page.into();
        Ok(())
    }
}

/// Rows of a table, each with what the object's node knows of it.
async fn describe(system: &System, lines: Vec<Line>, long: bool) -> Vec<Vec<Value>> {
    for line in &lines {
        // The same node is asked once, and then known; if it cannot be reached, that is known.
        let _ = system.birthplace(line.entry.object).await;
    }
    let rows = lines
        .into_iter()
        .map(|line| async move { row(system, &line, long).await });
    stream::iter(rows).buffered(ASKED_MAX).collect().await
}

async fn row(system: &System, line: &Line, long: bool) -> Vec<Value> {
    let Line { path, entry } = line;
    let class = ClassId(entry.class);
    let (node, found) = match system.owner(entry.object).await {
        Ok(Owned { node, found, .. }) => (Some(node), Some(found)),
        Err(_) => (system.birthplace(entry.object).await.ok(), None),
    };
    let node = node.as_deref();
    let name = match (&found, node) {
        (Some(found), _) if !found.class_name.is_empty() => found.class_name.clone(),
        (_, Some(node)) => node.class_name(class),
        (_, None) => class.to_string(),
    };
    let state = match (&found, node) {
        (Some(found), _) if found.active => "active",
        (Some(_), _) => "passive",
        (None, Some(_)) => "absent",
        (None, None) => "unreachable",
    };
    let mut row = vec![
        json!(path),
        json!(name),
        node.map_or_else(
            || json!(entry.object.node.to_string()),
            |node| json!(node.description.name),
        ),
        json!(state),
        json!(entry.object.to_string()),
    ];
    if long {
        let found = found.as_ref();
        row.push(json!(found.map(|found| found.version)));
        row.push(json!(found.map(|found| found.state_bytes)));
        row.push(json!(found.map(|found| found.users)));
    }
    row
}
