//! A deadlock in words.
//!
//! It is said where the victim's call is refused, and travels as text. Names are whole, so that
//! they can be handed to `partha why`, `outcome` and `abort`.

use std::fmt::Write as _;

use partha_core::action::message::{Edge, Party};
use partha_core::id::Uid;

/// What a cycle of waits looks like to a person: one after the other, the victim's first.
pub(crate) fn describe(victim: Uid, cycle: &[Edge]) -> String {
    let mut text = format!("action {victim} has to be aborted to break the cycle");
    for (index, edge) in cycle.iter().enumerate() {
        let separator = if index == 0 { ":" } else { ";" };
        let Edge {
            wait,
            object,
            waiter,
            owner,
        } = edge;
        // A cycle is short and bounded where it is found.
        let _ = write!(
            text,
            "{separator} {} waits at node {} for object {object}, which {} has",
            party(waiter),
            wait.site.node,
            party(owner),
        );
    }
    text
}

fn party(party: &Party) -> String {
    let path = &party.path;
    match path.leaf() {
        Some(leaf) if is_call(leaf) => format!("call {leaf}"),
        Some(leaf) => {
            let mut text = format!("action {leaf}");
            for outer in path.own().iter().rev().skip(1) {
                let _ = write!(text, " in {outer}");
            }
            text
        }
        None => "a call".to_owned(),
    }
}

/// Whether it is the name of a call outside actions.
pub(crate) fn is_call(action: Uid) -> bool {
    action.counter() >> (Uid::COUNTER_BITS - 1) == 1
}

#[cfg(test)]
mod tests {
    use partha_core::action::message::WaitId;
    use partha_core::action::path::{Path, Site};
    use partha_core::id::{Incarnation, NodeId};

    use super::*;

    #[test]
    fn a_cycle_reads_as_who_waits_for_whom() {
        let uid = |n| Uid::new(NodeId(0xaaaa_bbbb_cccc_dddd), Incarnation(2), n);
        let party = |path| Party {
            path,
            home: NodeId(1),
            born_ms: 0,
        };
        let edge = |number, object, waiter, owner| Edge {
            wait: WaitId {
                site: Site {
                    node: NodeId(5),
                    shard: 0,
                },
                incarnation: Incarnation(1),
                number,
            },
            object: uid(object),
            waiter,
            owner,
        };
        let nested = party(Path::top(uid(1)).nested(uid(2)));
        let other = party(Path::top(uid(3)));
        let cycle = [
            edge(1, 20, nested.clone(), other.clone()),
            edge(2, 21, other, nested),
        ];
        assert_eq!(
            describe(uid(1), &cycle),
            "action aaaabbbbccccdddd-000002-0000000001 has to be aborted to break the cycle: \
             action aaaabbbbccccdddd-000002-0000000002 in aaaabbbbccccdddd-000002-0000000001 \
             waits at node 0000000000000005 for object aaaabbbbccccdddd-000002-0000000014, \
             which action aaaabbbbccccdddd-000002-0000000003 has; \
             action aaaabbbbccccdddd-000002-0000000003 \
             waits at node 0000000000000005 for object aaaabbbbccccdddd-000002-0000000015, \
             which action aaaabbbbccccdddd-000002-0000000002 in \
             aaaabbbbccccdddd-000002-0000000001 has"
        );
    }
}
