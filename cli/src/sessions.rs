//! The command `sessions`, and what others need of sessions: their names and their pages.
//!
//! The session of the program itself is left out: it is there only because somebody looks.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use partha::system::SessionDescription;
use partha::{Client, Incarnation, NodeHandle, NodeId, Peer};
use serde_json::{Value, json};

use crate::arguments::{Cluster, Format, Shown};
use crate::cluster::System;
use crate::elsewhere;
use crate::nodes;
use crate::output::{Output, Rows};
use crate::survey;

/// Sessions asked for at a time.
const PAGE: u32 = 500;

/// List the processes that are connected to nodes, and what they have there
///
/// A process has one session with each node it uses: all its connections, with a lease that its
/// heartbeats renew. `-o wide` shows more.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The node: its name, its id, or an address; else all
    node: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    pub(crate) shape: Shape,
}

/// How results look, with a short word for scripts.
#[derive(Args, Debug)]
pub(crate) struct Shape {
    #[command(flatten)]
    shown: Shown,
    /// The same as `-o json`
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl Shape {
    /// How results look.
    pub(crate) fn format(&self) -> Format {
        match self.json {
            true => Format::Json,
            false => self.shown.output,
        }
    }
}

/// A process in one of its lives, or in whichever: `00c7d1f20be5a001/3`, `00c7d1f20be5a001`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) process: NodeId,
    pub(crate) life: Option<Incarnation>,
}

impl Session {
    /// Of a session that a node told of.
    pub(crate) fn of(session: &SessionDescription) -> Self {
        Self {
            process: NodeId(session.process),
            life: Some(Incarnation(session.incarnation)),
        }
    }

    /// Whether a session that a node told of is meant.
    pub(crate) fn is(&self, session: &SessionDescription) -> bool {
        let life = Incarnation(session.incarnation);
        self.process.0 == session.process && self.life.is_none_or(|wanted| wanted == life)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.process)?;
        match self.life {
            Some(life) => write!(f, "/{}", life.0),
            None => Ok(()),
        }
    }
}

impl FromStr for Session {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a session as `partha sessions` shows it, 00c7d1f20be5a001/1";
        let (process, life) = match text.split_once('/') {
            Some((process, life)) => {
                let life = life.parse().ok().filter(|life| *life > 0);
                (process, Some(Incarnation(life.ok_or_else(wrong)?)))
            }
            None => (text, None),
        };
        let process = u64::from_str_radix(process, 16).ok();
        let process = NodeId(process.filter(|id| *id > 0).ok_or_else(wrong)?);
        Ok(Self { process, life })
    }
}

/// `partha sessions`
pub(crate) async fn sessions(arguments: &Arguments, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let (reached, mut silent) = match &arguments.node {
        Some(node) => (vec![nodes::named(&system, node).await?], Vec::new()),
        None => survey::reach_all(&system).await?,
    };
    let all = out.is_wide() || out.is_json();
    let mut rows = Rows::new(header(all));
    for node in &reached {
        let name = &node.description.name;
        match survey::in_time(of_node(&system.client, &node.handle)).await {
            Ok(sessions) => {
                let row = |session| row(session, name, out.is_json(), all);
                let page: Vec<_> = sessions.iter().map(row).collect();
                rows.page(out, &page)?;
            }
            Err(error) => {
                let error = elsewhere::explain(&system.client, node, error).await;
                if arguments.node.is_some() {
                    return Err(error);
                }
                let name = name.clone();
                silent.push(survey::Silent { name, error });
            }
        }
    }
    rows.end(out)?;
    survey::warn(&silent);
    Ok(())
}

const HEADER_WIDE: &[&str] = &[
    "SESSION",
    "NAME",
    "NODE",
    "KIND",
    "AGE",
    "LEASE",
    "BINDINGS",
    "CALLS",
    "ACTIONS",
    "JOINED",
    "SOFTWARE",
    "CONNECTIONS",
];

/// The columns of every list of sessions.
pub(crate) const HEADER: &[&str] = HEADER_WIDE.split_at(9).0;

/// What is shown of a session.
pub(crate) fn header(all: bool) -> &'static [&'static str] {
    match all {
        true => HEADER_WIDE,
        false => HEADER,
    }
}

/// A session as a row.
pub(crate) fn row(session: &SessionDescription, node: &str, exact: bool, all: bool) -> Vec<Value> {
    let time = |time| survey::time(time, exact);
    let text = |text: &str| match text {
        "" => Value::Null,
        text => json!(text),
    };
    let mut row = vec![
        json!(Session::of(session).to_string()),
        text(&session.name),
        json!(node),
        json!(if session.foreign { "foreign" } else { "native" }),
        time(session.age),
        session.lease_left.map_or(Value::Null, time),
        json!(session.bindings),
        json!(session.calls),
        json!(session.actions_begun),
    ];
    if all {
        let connections = session.connections.iter();
        let connections = connections.map(|one| format!("{}#{}", one.address, one.shard));
        row.extend([
            json!(session.actions_joined),
            text(&session.software),
            json!(connections.collect::<Vec<_>>()),
        ]);
    }
    row
}

/// All sessions of a node but that of this program.
pub(crate) async fn of_node(
    client: &Client,
    node: &NodeHandle,
) -> anyhow::Result<Vec<SessionDescription>> {
    let (mut sessions, mut after) = (Vec::new(), 0);
    let Peer { node: me, .. } = client.me();
    loop {
        let page = node.manager().sessions(client, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(sessions);
        };
        after = last.process;
        let others = page.into_iter().filter(|session| session.process != me.0);
        sessions.extend(others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_come_back_from_their_text() {
        for text in ["00c7d1f20be5a001/3", "00c7d1f20be5a001"] {
            assert_eq!(text.parse::<Session>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "x",
            "0",
            "00c7d1f20be5a001/",
            "00c7d1f20be5a001/0",
            "1/2/3",
        ] {
            assert!(wrong.parse::<Session>().is_err(), "{wrong}");
        }
    }
}
