//! How stories show what copies do.

use partha_core::group::log::{Difference, Log, Stamp};
use partha_core::group::member::{Member, Role};
use partha_core::group::message::{Message, Output, Write};
use partha_core::group::view::{Change, View, Wish};

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = items.iter().map(show).collect();
    items.join(" ")
}

fn stamps(stamps: &[Stamp]) -> String {
    list(stamps, |stamp| format!("{stamp:?}"))
}

/// `view 1 of 1 2 3`
pub(super) fn view(view: &View) -> String {
    let members = list(&view.members, |node| node.0.to_string());
    format!("view {} of {members}", view.number)
}

/// What a disk has.
pub(super) fn log(known: &View, log: &Log) -> String {
    let staged: Vec<Stamp> = log.staged().collect();
    let staged = match staged.as_slice() {
        [] => String::new(),
        some => format!(", staged {}", stamps(some)),
    };
    format!("{}; installed {:?}{staged}", view(known), log.installed())
}

/// What a copy is.
pub(super) fn member(member: &Member) -> String {
    let role = match member.role() {
        Role::Leading { active: true } => "leads".to_owned(),
        Role::Leading { active: false } => "begins to lead".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    format!("{role}; complete up to {}", member.complete())
}

/// What a copy does.
pub(super) fn output(output: &Output) -> String {
    match output {
        Output::AskView => "Ask for the view".to_owned(),
        Output::Change(Change { expected, wish, .. }) => {
            format!("Ask to {} in view {expected}", wished(*wish))
        }
        Output::Send { to, message } => format!("Send n{} {}", to.0, self::message(message)),
        Output::Write { job, write } => format!("Write j{job} {}", written(write)),
        Output::Added { entry, stamp } => format!("Added e{entry} as {stamp:?}"),
        Output::NotAdded { entry, why } => format!("NotAdded e{entry}: {why:?}"),
        Output::Complete { stamp } => format!("Complete {stamp:?}"),
        Output::Leads { view: led } => format!("Leads {}", view(led)),
        other => format!("{other:?}"),
    }
}

fn wished(wish: Wish) -> String {
    match wish {
        Wish::Renew => "lead again".to_owned(),
        Wish::Lead => "lead".to_owned(),
        Wish::Exclude(node) => format!("exclude {}", node.0),
        Wish::Include(node) => format!("include {}", node.0),
        Wish::HandOver(node) => format!("have {} lead", node.0),
        Wish::Policy(policy) => format!("have {policy:?}"),
    }
}

fn message(message: &Message) -> String {
    match message {
        Message::Adopt {
            view: led,
            previous,
            entries,
            complete,
            ..
        } => {
            let entries = match entries.as_slice() {
                [] => "nothing".to_owned(),
                some => stamps(some),
            };
            format!(
                "Adopt {}: after {previous:?} {entries}, complete up to {complete}",
                view(led)
            )
        }
        Message::Append {
            number,
            previous,
            entry,
            complete,
            ..
        } => {
            let entry = entry.map_or("nothing".to_owned(), |entry| format!("{entry:?}"));
            format!(
                "Append in view {number}: after {previous:?} {entry}, complete up to {complete}"
            )
        }
        Message::Appended { number, last, .. } => {
            format!("Appended in view {number}: up to {last:?}")
        }
        Message::Differs { number, at, .. } => format!("Differs in view {number}: {at:?}"),
        Message::Stale { view: known } => format!("Stale: it is {}", view(known)),
        Message::Hello {
            number,
            installed,
            last,
        } => {
            let installed = match installed {
                Some(installed) => format!("installed {installed:?}, the last is {last:?}"),
                None => "no state".to_owned(),
            };
            format!("Hello in view {number}: {installed}")
        }
        Message::Snapshot { view: led, at } => format!("Snapshot in {}: {at:?}", view(led)),
        Message::Check { number } => format!("Check of view {number}"),
        other => format!("{other:?}"),
    }
}

fn written(write: &Write) -> String {
    match write {
        Write::Log {
            view: known,
            difference: Difference { truncate, add },
        } => {
            let truncate = truncate.map_or(String::new(), |kept| format!(", nothing after {kept}"));
            let add = match add.as_slice() {
                [] => String::new(),
                some => format!(", and {}", stamps(some)),
            };
            format!("log: {}{truncate}{add}", view(known))
        }
        Write::Install { index } => format!("install up to {index}"),
        Write::Snapshot { view: known, at } => format!("snapshot: {}, {at:?}", view(known)),
    }
}
