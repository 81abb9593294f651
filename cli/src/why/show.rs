//! A chain of waits, for people and for scripts.

use serde_json::{Value, json};

use super::{Owner, Seen, Then, Wait};
use crate::survey::{mode, span};

/// Indented lines: who has it, and below what that one waits for.
pub(super) fn text(seen: &Seen) -> String {
    let mut text = format!("{} at node {} ({})\n", seen.name, seen.node, seen.object);
    if seen.owners.is_empty() {
        text += "  nobody has it locked\n";
    }
    for owner in &seen.owners {
        add_owner(&mut text, owner, 1);
    }
    for (index, wait) in seen.waiters.iter().enumerate() {
        text += &format!(
            "  {}. {} of client {} waits to {} for {}\n",
            index + 1,
            wait.action,
            wait.client,
            mode(wait.mode),
            span(wait.age)
        );
    }
    text
}

fn add_owner(text: &mut String, owner: &Owner, depth: usize) {
    let indent = "  ".repeat(depth);
    let has = match &owner.hold {
        Some(hold) => {
            let how = if hold.retained { "retained" } else { "held" };
            format!("{how} to {} for {} by", mode(hold.mode), span(hold.age))
        }
        None => "asked for before by".to_owned(),
    };
    *text += &format!("{indent}{has} {}", owner.action);
    if let Some(parent) = owner.within.last() {
        *text += &format!(" in {parent}");
    }
    if !owner.clients.is_empty() {
        *text += &format!(" of client {}", owner.clients.join(", "));
    }
    *text += "\n";
    let indent = "  ".repeat(depth + 1);
    let waits = match &owner.then {
        Then::Waits(waits) => waits,
        Then::Cycle => {
            *text += &format!("{indent}which waits for all this: a deadlock\n");
            return;
        }
        Then::InDoubt { coordinator } => {
            let coordinator = coordinator.as_deref().unwrap_or("its coordinator");
            *text +=
                &format!("{indent}which is in doubt: {coordinator} has to tell it the outcome\n");
            return;
        }
        Then::Runs { nodes } => {
            *text += &format!(
                "{indent}which waits for nothing and runs at {}\n",
                nodes.join(", ")
            );
            return;
        }
        Then::Open { left } => {
            let left = left.map_or_else(String::new, |left| {
                format!(", and is given up in {}", span(left))
            });
            *text += &format!("{indent}which waits for its client{left}\n");
            return;
        }
        Then::Cut => {
            *text += &format!("{indent}… and so on\n");
            return;
        }
    };
    for wait in waits {
        *text += &format!(
            "{indent}which waits to {} {} at node {} for {}\n",
            mode(wait.mode),
            wait.name,
            wait.node,
            span(wait.age)
        );
        for owner in &wait.owners {
            add_owner(text, owner, depth + 2);
        }
    }
}

/// The same as a tree.
pub(super) fn json(seen: &Seen) -> Value {
    json!({
        "object": seen.object.to_string(),
        "name": seen.name,
        "node": seen.node,
        "owners": seen.owners.iter().map(owner_json).collect::<Vec<_>>(),
        "waiters": seen.waiters.iter().map(wait_json).collect::<Vec<_>>(),
    })
}

fn owner_json(owner: &Owner) -> Value {
    let mut value = json!({
        "action": owner.action,
        "within": owner.within,
        "clients": owner.clients,
    });
    if let Some(hold) = &owner.hold {
        value["mode"] = json!(mode(hold.mode));
        value["retained"] = json!(hold.retained);
        value["age"] = json!(hold.age.as_secs_f64());
    }
    match &owner.then {
        Then::Waits(waits) => {
            value["waits"] = waits.iter().map(wait_json).collect();
        }
        Then::Cycle => value["then"] = json!("deadlock"),
        Then::InDoubt { coordinator } => {
            value["then"] = json!("in doubt");
            value["coordinator"] = json!(coordinator);
        }
        Then::Runs { nodes } => {
            value["then"] = json!("runs");
            value["nodes"] = json!(nodes);
        }
        Then::Open { left } => {
            value["then"] = json!("open");
            value["left"] = json!(left.map(|left| left.as_secs_f64()));
        }
        Then::Cut => value["then"] = json!("…"),
    }
    value
}

fn wait_json(wait: &Wait) -> Value {
    json!({
        "action": wait.action,
        "client": wait.client,
        "mode": mode(wait.mode),
        "age": wait.age.as_secs_f64(),
        "object": wait.object.to_string(),
        "name": wait.name,
        "node": wait.node,
        "owners": wait.owners.iter().map(owner_json).collect::<Vec<_>>(),
    })
}
