//! The command `why`: who has an object, what that one waits for, and so on over all nodes, to
//! the end of the chain or round a cycle.
//!
//! The rule is that of deadlock detection. A waiter goes on when the owner's action has ended,
//! or, where both are in one family, the part of it that the waiter is not in; and an action
//! ends when nothing in it waits any more. So from an owner the chain goes to the waits of
//! whatever is in it.

mod show;

use std::collections::HashMap;
use std::time::Duration;

use partha::Uid;
use partha::system::{
    ActionDescription, ActionPath, ActionPhase, LockDescription, LockHolder, LockMode, LockWaiter,
};

use crate::arguments;
use crate::cluster::System;
use crate::output::Output;
use crate::survey::{self, Locks, Survey, Surveyed, own};

/// Owners that are followed, at most: a chain may branch at each of them.
const FOLLOWED_MAX: usize = 200;

/// `partha why`
pub(crate) async fn why(arguments: &arguments::Why, out: &mut Output) -> anyhow::Result<()> {
    let system = System::connect(&arguments.cluster).await?;
    let object = system.find(&arguments.name).await?.uid;
    let node = system.owner(object).await?.node;
    let survey = Survey::of_all(&system, Locks::Contended).await?;
    let lock = node.handle.manager().why(&system.client, object).await?;
    let mut names = survey.object_names(&system).await;
    names.insert(object, arguments.name.clone());
    let mut chase = Chase {
        survey: &survey,
        names: &names,
        followed: 0,
    };
    let seen = chase.object(&node.description.name, &lock);
    if out.is_json() {
        out.value(&show::json(&seen))?;
    } else {
        out.text(&show::text(&seen))?;
    }
    survey.warn();
    Ok(())
}

/// An object that was asked about.
#[derive(Debug)]
struct Seen {
    object: Uid,
    name: String,
    node: String,
    owners: Vec<Owner>,
    waiters: Vec<Wait>,
}

/// Somebody waits for a lock.
#[derive(Debug)]
struct Wait {
    /// Who.
    action: String,
    client: String,
    mode: LockMode,
    age: Duration,
    object: Uid,
    name: String,
    node: String,
    /// Whom for; not told for the waiters of the object in question, who all wait for the same.
    owners: Vec<Owner>,
}

/// Somebody has a lock, or stands before another in its queue.
#[derive(Debug)]
struct Owner {
    action: String,
    /// From its top-level action inwards, without itself.
    within: Vec<String>,
    clients: Vec<String>,
    hold: Option<Hold>,
    then: Then,
}

/// How a lock is held.
#[derive(Debug)]
struct Hold {
    mode: LockMode,
    retained: bool,
    age: Duration,
}

/// What an owner waits for.
#[derive(Debug)]
enum Then {
    /// For these locks.
    Waits(Vec<Wait>),
    /// For somebody further up in the chain.
    Cycle,
    /// For the decision of its coordinator.
    InDoubt { coordinator: Option<String> },
    /// For its own calls, that run at these nodes.
    Runs { nodes: Vec<String> },
    /// For its client, until it is given up.
    Open { left: Option<Duration> },
    /// Not looked at: the chain is too long.
    Cut,
}

struct Chase<'a> {
    survey: &'a Survey,
    names: &'a HashMap<Uid, String>,
    followed: usize,
}

impl<'a> Chase<'a> {
    fn object(&mut self, node: &str, lock: &LockDescription) -> Seen {
        let mut owners = Vec::new();
        for holder in &lock.holders {
            let Some(target) = own(&holder.path).first().copied() else {
                continue;
            };
            owners.push(self.owner(&holder.path, Some(holder), target, &mut Vec::new()));
        }
        let waiter = |waiter: &LockWaiter| self.wait(node, lock, waiter, Vec::new());
        Seen {
            object: lock.object,
            name: self.name(lock.object),
            node: node.to_owned(),
            owners,
            waiters: lock.waiters.iter().map(waiter).collect(),
        }
    }

    /// An owner, with what keeps `target`, itself or one it is in, from ending.
    fn owner(
        &mut self,
        path: &ActionPath,
        holder: Option<&LockHolder>,
        target: Uid,
        chain: &mut Vec<Uid>,
    ) -> Owner {
        let own = own(path);
        let within = own.iter().take(own.len().saturating_sub(1));
        let parts = self.parts(own.first().copied());
        let mut clients: Vec<_> = parts
            .iter()
            .flat_map(|(_, part)| &part.callers)
            .map(|caller| self.survey.process(caller.node))
            .collect();
        clients.sort();
        clients.dedup();
        Owner {
            action: survey::leaf_text(path),
            within: within.map(ToString::to_string).collect(),
            clients,
            hold: holder.map(|holder| Hold {
                mode: holder.mode,
                retained: holder.retained,
                age: holder.age,
            }),
            then: self.then(target, &parts, chain),
        }
    }

    fn then(
        &mut self,
        target: Uid,
        parts: &[(&Surveyed, &ActionDescription)],
        chain: &mut Vec<Uid>,
    ) -> Then {
        if chain.contains(&target) {
            return Then::Cycle;
        }
        self.followed += 1;
        if self.followed > FOLLOWED_MAX {
            return Then::Cut;
        }
        chain.push(target);
        let waits = self.waits_in(target, chain);
        chain.pop();
        if !waits.is_empty() {
            return Then::Waits(waits);
        }
        let prepared = parts
            .iter()
            .find(|(_, part)| part.phase == ActionPhase::Prepared);
        if let Some((_, part)) = prepared {
            let site = part.coordinator.as_ref();
            let coordinator = site.map(|site| self.survey.process(site.node));
            return Then::InDoubt { coordinator };
        }
        let running = parts.iter().filter(|(_, part)| part.running > 0);
        let nodes: Vec<_> = running
            .map(|(node, _)| node.info.description.name.clone())
            .collect();
        if nodes.is_empty() {
            let left = parts.iter().map(|(_, part)| part.left).min();
            return Then::Open { left };
        }
        Then::Runs { nodes }
    }

    /// What the action, or anything in it, waits for.
    fn waits_in(&mut self, action: Uid, chain: &mut Vec<Uid>) -> Vec<Wait> {
        let mut waits = Vec::new();
        let survey = self.survey;
        for node in &survey.nodes {
            for lock in &node.locks {
                for waiter in &lock.waiters {
                    if !waiter.path.actions.contains(&action) {
                        continue;
                    }
                    let mut owners = Vec::new();
                    for blocker in &waiter.blockers {
                        let Some(target) = target(blocker, &waiter.path) else {
                            continue;
                        };
                        let mut holders = lock.holders.iter();
                        let holder = holders.find(|holder| holder.path == *blocker);
                        owners.push(self.owner(blocker, holder, target, chain));
                    }
                    waits.push(self.wait(&node.info.description.name, lock, waiter, owners));
                }
            }
        }
        waits
    }

    fn wait(
        &self,
        node: &str,
        lock: &LockDescription,
        waiter: &LockWaiter,
        owners: Vec<Owner>,
    ) -> Wait {
        Wait {
            action: survey::leaf_text(&waiter.path),
            client: self.survey.process(waiter.caller.node),
            mode: waiter.mode,
            age: waiter.age,
            object: lock.object,
            name: self.name(lock.object),
            node: node.to_owned(),
            owners,
        }
    }

    /// The parts of a top-level action at all nodes.
    fn parts(&self, root: Option<Uid>) -> Vec<(&'a Surveyed, &'a ActionDescription)> {
        let nodes = self.survey.nodes.iter();
        let parts = nodes.flat_map(|node| node.parts.iter().map(move |part| (node, part)));
        parts
            .filter(|(_, part)| root.is_some() && own(&part.path).first().copied() == root)
            .collect()
    }

    fn name(&self, object: Uid) -> String {
        let name = self.names.get(&object).cloned();
        name.unwrap_or_else(|| object.to_string())
    }
}

/// What has to end before a waiter can go on: the owner, or the outermost action that it is in
/// and the waiter is not; none if the waiter is in the owner.
fn target(owner: &ActionPath, waiter: &ActionPath) -> Option<Uid> {
    let both = owner.actions.iter().zip(&waiter.actions);
    let common = both.take_while(|(one, other)| one == other).count();
    owner.actions.get(common).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use partha::{Incarnation, NodeId};

    fn path(numbers: &[u64]) -> ActionPath {
        let uid = |number: &u64| Uid::new(NodeId(1), Incarnation(1), *number);
        ActionPath {
            actions: numbers.iter().map(uid).collect(),
            enclosing: 0,
        }
    }

    #[test]
    fn what_has_to_end_lies_just_below_what_both_are_in() {
        let uid = |number| Some(path(&[number]).actions[0]);
        assert_eq!(target(&path(&[1, 2]), &path(&[3])), uid(1));
        assert_eq!(target(&path(&[1, 2, 4]), &path(&[1, 3])), uid(2));
        assert_eq!(target(&path(&[1]), &path(&[1, 3])), None);
    }
}
