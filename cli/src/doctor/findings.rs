//! What may be wrong: one function each, in the order in which they are told.
//!
//! A finding has a kind that scripts may rely on, says what was found where, and what to do. What
//! is usual and passes by itself is none.

use std::time::Duration;

use partha::Uid;
use partha::system::{
    ActionDescription, ActionPhase, LockDescription, LockWaiter, SessionDescription,
};
use serde_json::{Value, json};

use super::checkup::{Checkup, ELSEWHERE, Examined, PLACES};
use super::{places, servants};
use crate::sessions::Session;
use crate::survey::{self, leaf_text, own, span};

/// Something that is wrong.
pub(super) struct Finding {
    pub(super) kind: &'static str,
    pub(super) node: Option<String>,
    /// Which session, action, object.
    pub(super) subject: Option<String>,
    pub(super) text: String,
    pub(super) cure: String,
}

impl Finding {
    pub(super) fn as_json(&self) -> Value {
        json!({
            "kind": self.kind,
            "node": self.node,
            "subject": self.subject,
            "text": self.text,
            "cure": self.cure,
        })
    }
}

/// A check: what was told, how long a wait may be, what it has found.
type Check = fn(&Checkup, Duration, &mut Vec<Finding>);

/// All of them, the gravest first.
const CHECKS: &[Check] = &[
    binder_is_silent,
    node_is_silent,
    node_told_too_little,
    store_has_failed,
    action_is_in_doubt,
    places::are_headless,
    places::are_astray,
    places::are_misplaced,
    places::are_few,
    servants::is_stuck,
    servants::crashes,
    servants::runs_away,
    call_waits,
    lease_runs_out,
];

/// All that is wrong.
pub(super) fn of(checkup: &Checkup, after: Duration) -> Vec<Finding> {
    let mut found = Vec::new();
    for check in CHECKS {
        check(checkup, after, &mut found);
    }
    found
}

fn binder_is_silent(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    let Some(why) = &checkup.no_binder else {
        return;
    };
    found.push(Finding {
        kind: "binder-silent",
        node: None,
        subject: None,
        text: format!("the binder does not tell which nodes there are: {why}"),
        cure: "see whether it runs, and start it again on its folder".to_owned(),
    });
}

fn node_is_silent(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for node in &checkup.nodes {
        let Err(error) = &node.answer else { continue };
        let name = &node.name;
        let heard = node.heard();
        let heard = heard.map_or_else(String::new, |heard| {
            format!("; the binder has heard of it {heard}")
        });
        found.push(Finding {
            kind: "node-silent",
            node: Some(name.clone()),
            subject: node.id.map(|id| id.to_string()),
            text: match node.listens {
                true => format!(
                    "node '{name}' accepts connections, but does not answer: {error:#}{heard}"
                ),
                false => format!("node '{name}' does not answer: {error:#}{heard}"),
            },
            cure: match node.listens {
                true => {
                    "its process is stopped, or servants keep the threads of all its shards: \
                         then its log names their methods, to be marked #[blocking]; continue \
                         the process, or start it again on its folder"
                }
                false => {
                    "see whether its process runs and is not stopped; start it again on its \
                          folder"
                }
            }
            .to_owned(),
        });
    }
}

fn node_told_too_little(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    // Where a servant keeps a shard's thread, what is missing is told with that.
    let answers = checkup.answers();
    for (node, answer) in answers.filter(|(_, answer)| answer.elsewhere.stuck.is_empty()) {
        for (what, why) in &answer.missing {
            found.push(Finding {
                kind: "not-told",
                node: Some(node.name.clone()),
                subject: Some((*what).to_owned()),
                text: format!("node '{}' has not told its {what}: {why}", node.name),
                cure: match *what {
                    ELSEWHERE | PLACES => format!("`partha doctor {}` asks it alone", node.name),
                    "statistics" => format!("`partha stats {}` waits longer", node.name),
                    _ => format!("`partha {what} {}` waits longer", node.name),
                },
            });
        }
    }
}

fn store_has_failed(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for (node, answer) in checkup.answers() {
        let statistics = answer.statistics.as_ref();
        let Some(statistics) = statistics.filter(|told| told.store_failures > 0) else {
            continue;
        };
        let (failures, since) = (statistics.store_failures, span(statistics.up));
        found.push(Finding {
            kind: "store-failed",
            node: Some(node.name.clone()),
            subject: None,
            text: format!(
                "the store of node '{}' did not take {failures} batches in the {since} since its \
                 start",
                node.name
            ),
            cure: "its log says why; see whether its disk is full".to_owned(),
        });
    }
}

fn action_is_in_doubt(checkup: &Checkup, after: Duration, found: &mut Vec<Finding>) {
    for (node, answer) in checkup.answers() {
        for part in &answer.parts {
            if part.phase == ActionPhase::Prepared && part.age >= after {
                found.push(in_doubt(checkup, node, part));
            }
        }
    }
}

fn in_doubt(checkup: &Checkup, node: &Examined, part: &ActionDescription) -> Finding {
    let root = own(&part.path).first().copied().unwrap_or(Uid::NIL);
    let coordinator = part.coordinator.as_ref();
    let decides = coordinator.map(|site| checkup.process(site.node));
    let silent = coordinator.is_some_and(|site| checkup.is_silent(site.node));
    let cure = match (&decides, silent) {
        (Some(name), true) => format!("start node '{name}' again: it alone can tell the outcome"),
        (Some(name), false) => {
            format!("it asks node '{name}' again and again; `partha outcome {root}` asks, too")
        }
        (None, _) => format!("`partha outcome {root}` asks all nodes"),
    };
    let decides = decides.map_or_else(
        || "a node that is not known".to_owned(),
        |name| format!("node '{name}'"),
    );
    Finding {
        kind: "in-doubt",
        node: Some(node.name.clone()),
        subject: Some(root.to_string()),
        text: format!(
            "action {root}, which is {} old, is in doubt at node '{}', with {} objects locked; \
             {decides} decides",
            span(part.age),
            node.name,
            part.locks
        ),
        cure,
    }
}

fn call_waits(checkup: &Checkup, after: Duration, found: &mut Vec<Finding>) {
    for (node, answer) in checkup.answers() {
        for lock in &answer.locks {
            // Who comes next is told; the others wait for the same.
            let waiter = lock.waiters.iter().find(|waiter| waiter.age >= after);
            if let Some(waiter) = waiter {
                found.push(waits(checkup, node, lock, waiter));
            }
        }
    }
}

fn waits(
    checkup: &Checkup,
    node: &Examined,
    lock: &LockDescription,
    waiter: &LockWaiter,
) -> Finding {
    let object = checkup.object(lock.object);
    let blockers: Vec<_> = waiter.blockers.iter().map(leaf_text).collect();
    let others = match lock.waiters.len() {
        1 => String::new(),
        count => format!(", with {} more", count - 1),
    };
    // An action that can be ended by hand, if one is in the way.
    let holder = lock.holders.iter().find_map(|holder| {
        let root = own(&holder.path).first().copied()?;
        (!holder.prepared && !survey::is_call(root)).then_some(root)
    });
    let end = holder.map_or_else(String::new, |action| {
        format!("; `partha doctor abort {action}` ends the action that has it")
    });
    Finding {
        kind: "long-wait",
        node: Some(node.name.clone()),
        subject: Some(lock.object.to_string()),
        text: format!(
            "{} of client {} waits to {} {object} at node '{}' for {}{others}; in its way: {}",
            leaf_text(&waiter.path),
            checkup.process(waiter.caller.node),
            survey::mode(waiter.mode),
            node.name,
            span(waiter.age),
            blockers.join(", "),
        ),
        cure: format!("`partha why {object}` follows the chain{end}"),
    }
}

/// What is left of a session's lease, if it has been silent for two heartbeats of the node, or half
/// way from the first one to the end of a lease that is too short for that.
fn low_lease(session: &SessionDescription) -> Option<Duration> {
    let (left, lease) = (session.lease_left?, session.lease?);
    let heartbeat = session.heartbeat?;
    let allowed = (heartbeat * 2).min((heartbeat + lease) / 2);
    (lease.saturating_sub(left) > allowed).then_some(left)
}

fn lease_runs_out(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for (node, answer) in checkup.answers() {
        for session in &answer.sessions {
            let Some(left) = low_lease(session) else {
                continue;
            };
            let id = Session::of(session).to_string();
            let name = match session.name.as_str() {
                "" => "a process",
                name => name,
            };
            found.push(Finding {
                kind: "lease-low",
                node: Some(node.name.clone()),
                subject: Some(id.clone()),
                text: format!(
                    "session {id} of {name} at node '{}' is silent; its lease ends in {}",
                    node.name,
                    span(left)
                ),
                cure: format!(
                    "see whether the process is stopped or cut off; it is given up by itself, \
                     `partha doctor break {id}` does so now"
                ),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use anyhow::anyhow;
    use partha::system::{ActionPath, ActionSite, Elsewhere, NodeStatistics, SessionDescription};
    use partha::{Incarnation, NodeId};

    use super::*;
    use crate::doctor::checkup::Answer;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(number: u64, answer: anyhow::Result<Answer>) -> Examined {
        Examined {
            name: format!("n{number}"),
            id: Some(NodeId(number)),
            entry: None,
            answer,
            info: None,
            listens: false,
        }
    }

    fn answer() -> Answer {
        Answer {
            life: 1,
            statistics: Some(NodeStatistics::default()),
            sessions: Vec::new(),
            parts: Vec::new(),
            locks: Vec::new(),
            elsewhere: Elsewhere::default(),
            places: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn found(nodes: Vec<Examined>) -> Vec<Finding> {
        let checkup = Checkup {
            nodes,
            no_binder: None,
            places: places::Places::default(),
            names: HashMap::new(),
        };
        of(&checkup, 5 * SECOND)
    }

    fn prepared(age: Duration) -> Answer {
        let action = Uid::new(NodeId(7), Incarnation(1), 1);
        let path = ActionPath {
            actions: vec![action],
            enclosing: 0,
        };
        let coordinator = Some(ActionSite { node: 2, shard: 1 });
        let part = ActionDescription {
            path,
            shard: 0,
            phase: ActionPhase::Prepared,
            coordinator,
            callers: Vec::new(),
            locks: 2,
            objects: 2,
            running: 0,
            waiting: 0,
            age,
            left: Duration::ZERO,
        };
        let parts = vec![part];
        Answer { parts, ..answer() }
    }

    #[test]
    fn what_is_in_doubt_for_long_is_told_with_who_decides() {
        let quiet = found(vec![node(1, Ok(prepared(SECOND))), node(2, Ok(answer()))]);
        assert!(quiet.is_empty(), "a commit takes a moment");
        let asking = found(vec![
            node(1, Ok(prepared(9 * SECOND))),
            node(2, Ok(answer())),
        ]);
        let [asking] = &asking[..] else { panic!() };
        assert_eq!(asking.kind, "in-doubt");
        assert!(
            asking.text.ends_with("node 'n2' decides"),
            "{}",
            asking.text
        );
        assert!(asking.cure.contains("`partha outcome "), "{}", asking.cure);
        let lost = node(2, Err(anyhow!("no answer")));
        let lost = found(vec![node(1, Ok(prepared(9 * SECOND))), lost]);
        let kinds: Vec<_> = lost.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, ["node-silent", "in-doubt"]);
        assert!(
            lost[1].cure.contains("start node 'n2' again"),
            "{}",
            lost[1].cure
        );
    }

    #[test]
    fn a_lease_that_runs_out_and_a_store_that_fails_are_told() {
        let usual = (3 * SECOND, 10 * SECOND);
        let leases = [Some((usual, 7 * SECOND)), Some((usual, 3 * SECOND)), None];
        let mut answer = answer();
        answer.sessions = leases.map(session).into();
        answer.statistics.as_mut().unwrap().store_failures = 2;
        let told = found(vec![node(1, Ok(answer))]);
        let kinds: Vec<_> = told.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, ["store-failed", "lease-low"]);
        let break_it = "`partha doctor break 0000000000000005/3`";
        assert!(told[1].cure.contains(break_it), "{}", told[1].cure);
    }

    /// With the node's heartbeat and lease, and what is left of that; none has a foreign one.
    fn session(lease: Option<((Duration, Duration), Duration)>) -> SessionDescription {
        SessionDescription {
            process: 5,
            incarnation: 3,
            lease_left: lease.map(|(_, left)| left),
            lease: lease.map(|((_, lease), _)| lease),
            heartbeat: lease.map(|((heartbeat, _), _)| heartbeat),
            ..SessionDescription::default()
        }
    }

    #[test]
    fn a_lease_is_judged_by_what_the_node_has_configured() {
        let ms = Duration::from_millis;
        // Heartbeat, lease, the longest silence that is in order; all in milliseconds.
        let configured = [
            (3_000, 10_000, 6_000),
            (20_000, 60_000, 40_000),
            (300, 1_500, 600),
            (1_000, 2_000, 1_500),
        ];
        for (heartbeat, lease, allowed) in configured {
            let of = (ms(heartbeat), ms(lease));
            let silent = |silent| session(Some((of, ms(lease - silent))));
            assert_eq!(low_lease(&silent(allowed)), None, "{of:?}");
            let low = low_lease(&silent(allowed + 1));
            assert_eq!(low, Some(ms(lease - allowed - 1)), "{of:?}");
        }
        assert_eq!(low_lease(&session(None)), None);
    }
}
