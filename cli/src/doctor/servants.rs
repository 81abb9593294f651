//! Checks of servants that keep others waiting, that do not stop, or that end their processes.

use std::time::Duration;

use partha::system::{BusyServant, ServerDescription};

use super::checkup::{Answer, Checkup, Examined};
use super::findings::Finding;
use crate::elsewhere::keeps;
use crate::survey::span;

/// A killed servant that goes on for less is about to notice.
const RUNAWAY_AFTER: Duration = Duration::from_secs(1);
/// One crash is mended by the next start; a second without a call that went well is not chance.
const CRASHES: u32 = 2;

/// One that keeps its shard's thread, and with it all other objects there.
pub(super) fn is_stuck(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for (node, answer) in checkup.answers() {
        for servant in &answer.elsewhere.stuck {
            found.push(stuck(checkup, node, answer, servant));
        }
    }
}

fn stuck(checkup: &Checkup, node: &Examined, answer: &Answer, servant: &BusyServant) -> Finding {
    let object = checkup.object(servant.object);
    let missing: Vec<_> = answer.missing.iter().map(|(what, _)| *what).collect();
    let untold = match missing.len() {
        0 => String::new(),
        _ => format!(", and the node has not told its {}", missing.join(", ")),
    };
    Finding {
        kind: "servant-stuck",
        node: Some(node.name.clone()),
        subject: Some(servant.object.to_string()),
        text: format!(
            "{}: all other objects of the shard wait{untold}",
            keeps(servant, &object, &node.name)
        ),
        cure: format!(
            "mark {}.{} #[blocking] in the IDL, or let it await; the shard goes on when it ends, \
             or when the node is started again",
            servant.class, servant.method
        ),
    }
}

/// One whose call was killed and that goes on.
pub(super) fn runs_away(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for (node, answer) in checkup.answers() {
        for servant in &answer.elsewhere.runaways {
            let killed = servant.killed.unwrap_or_default();
            if killed >= RUNAWAY_AFTER {
                found.push(runaway(checkup, node, servant, killed));
            }
        }
    }
}

fn runaway(checkup: &Checkup, node: &Examined, servant: &BusyServant, killed: Duration) -> Finding {
    let object = checkup.object(servant.object);
    Finding {
        kind: "servant-runaway",
        node: Some(node.name.clone()),
        subject: Some(servant.object.to_string()),
        text: format!(
            "{}.{} of {object} at node '{}' has run for {} and goes on, although its call was \
             killed {} ago; what it does is thrown away",
            servant.class,
            servant.method,
            node.name,
            span(servant.busy),
            span(killed),
        ),
        cure: "the object can be called again already, with its committed state; let the method \
               look at cx.check() now and then, and start the node again to be rid of the thread"
            .to_owned(),
    }
}

/// A server process that ends again and again.
pub(super) fn crashes(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for (node, answer) in checkup.answers() {
        let servers = answer.elsewhere.servers.iter();
        for server in servers.filter(|server| server.crashes >= CRASHES) {
            found.push(crashing(checkup, node, server));
        }
    }
}

fn crashing(checkup: &Checkup, node: &Examined, server: &ServerDescription) -> Finding {
    let served = match server.object {
        Some(object) => format!("{} {}", server.class, checkup.object(object)),
        None => server.class.clone(),
    };
    let exit = server.last_exit.as_deref();
    let next = match (server.pause, server.pid) {
        (Some(pause), _) => format!("the next start waits {}", span(pause)),
        (None, Some(pid)) => format!("process {pid} tries again"),
        (None, None) => "the next call starts it again".to_owned(),
    };
    Finding {
        kind: "server-crashing",
        node: Some(node.name.clone()),
        subject: Some(match server.object {
            Some(object) => object.to_string(),
            None => server.class.clone(),
        }),
        text: format!(
            "the server process of {served} at node '{}' has crashed {} times without a call \
             that ended well; the latest: {}; {next}",
            node.name,
            server.crashes,
            exit.unwrap_or("nothing is known"),
        ),
        cure: "what it says goes where the node's own output goes: mend the servant, or the \
               program that is started; no state is lost, and after the pause the next call \
               starts it again"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use partha::system::Elsewhere;
    use partha::{Incarnation, NodeId, Uid};

    use super::*;
    use crate::doctor::findings;
    use crate::doctor::places::Places;

    const SECOND: Duration = Duration::from_secs(1);

    fn found(elsewhere: Elsewhere, missing: Vec<(&'static str, String)>) -> Vec<Finding> {
        let answer = Answer {
            life: 1,
            statistics: None,
            sessions: Vec::new(),
            parts: Vec::new(),
            locks: Vec::new(),
            elsewhere,
            places: Vec::new(),
            missing,
        };
        let node = Examined {
            name: "n1".to_owned(),
            id: Some(NodeId(1)),
            entry: None,
            answer: Ok(answer),
            info: None,
            listens: false,
        };
        let checkup = Checkup {
            nodes: vec![node],
            no_binder: None,
            places: Places::default(),
            names: HashMap::from([(object(), "/x".to_owned())]),
        };
        findings::of(&checkup, 5 * SECOND)
    }

    fn object() -> Uid {
        Uid::new(NodeId(1), Incarnation(1), 20)
    }

    fn busy(killed: Option<Duration>) -> BusyServant {
        BusyServant {
            class: "a.B".to_owned(),
            method: "think".to_owned(),
            object: object(),
            shard: 3,
            busy: 9 * SECOND,
            killed,
        }
    }

    #[test]
    fn what_a_stuck_shard_keeps_from_being_told_is_told_with_it() {
        let missing = ["statistics", "locks"].map(|what| (what, "no answer".to_owned()));
        let elsewhere = Elsewhere {
            stuck: vec![busy(None)],
            ..Elsewhere::default()
        };
        let told = found(elsewhere, missing.clone().into());
        let [stuck] = &told[..] else { panic!() };
        assert_eq!(stuck.kind, "servant-stuck");
        let text = "a.B.think of /x has kept the thread of shard 3 of node 'n1' for 9s: all \
                    other objects of the shard wait, and the node has not told its statistics, \
                    locks";
        assert_eq!(stuck.text, text);
        let kinds = |found: &[Finding]| found.iter().map(|one| one.kind).collect::<Vec<_>>();
        let told = found(Elsewhere::default(), missing.into());
        assert_eq!(kinds(&told), ["not-told", "not-told"]);
    }

    #[test]
    fn a_killed_servant_may_take_a_moment_to_notice() {
        let elsewhere = |killed| Elsewhere {
            runaways: vec![busy(Some(killed))],
            ..Elsewhere::default()
        };
        let brief = found(elsewhere(SECOND / 2), Vec::new());
        assert!(brief.is_empty(), "{}", brief[0].text);
        let told = found(elsewhere(2 * SECOND), Vec::new());
        assert_eq!(told[0].kind, "servant-runaway");
        assert!(told[0].text.contains("killed 2s ago"), "{}", told[0].text);
    }

    #[test]
    fn one_crash_is_shown_and_two_are_a_finding() {
        let elsewhere = |crashes| Elsewhere {
            servers: vec![ServerDescription {
                class: "a.B".to_owned(),
                crashes,
                last_exit: Some("exit status: 3".to_owned()),
                pause: Some(SECOND),
                ..ServerDescription::default()
            }],
            ..Elsewhere::default()
        };
        let one = found(elsewhere(1), Vec::new());
        assert!(one.is_empty(), "{}", one[0].text);
        let told = found(elsewhere(2), Vec::new());
        let [told] = &told[..] else { panic!() };
        assert_eq!(told.subject.as_deref(), Some("a.B"));
        let ends = "the latest: exit status: 3; the next start waits 1s";
        assert!(told.text.ends_with(ends), "{}", told.text);
    }
}
