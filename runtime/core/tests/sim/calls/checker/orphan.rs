//! No call of a caller's earlier life starts once a call of a later life was seen, for calls
//! that are executed at most once (the others may, they say).

use std::collections::BTreeMap;

use partha_core::id::{CallId, Incarnation, NodeId};

/// The newest life of each caller that one shard has seen.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    newest: BTreeMap<NodeId, Incarnation>,
}

impl Lives {
    pub(crate) fn seen(&mut self, call: CallId) {
        let newest = self.newest.entry(call.caller.node).or_default();
        *newest = (*newest).max(call.caller.incarnation);
    }

    pub(crate) fn starts(&self, call: CallId) -> Result<(), String> {
        match self.newest.get(&call.caller.node) {
            Some(newest) if call.caller.incarnation < *newest => Err(format!(
                "orphan: {call} starts though incarnation {newest} is alive"
            )),
            Some(_) | None => Ok(()),
        }
    }
}
