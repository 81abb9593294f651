//! Each ticket gets exactly one reply, unless nobody waits for it any more, and exactly one
//! `Forget`, last; nothing is said of a ticket that is not known.

use std::collections::BTreeMap;

use partha_core::Ticket;
use partha_core::id::Peer;

#[derive(Debug)]
struct State {
    caller: Peer,
    replied: bool,
    /// Nobody waits: it was cancelled, or its caller is dead.
    excused: bool,
}

/// The tickets of one shard that were not forgotten.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    states: BTreeMap<Ticket, State>,
}

impl Tickets {
    pub(crate) fn open(&mut self, ticket: Ticket, caller: Peer) {
        let (replied, excused) = (false, false);
        self.states.insert(
            ticket,
            State {
                caller,
                replied,
                excused,
            },
        );
    }

    pub(crate) fn excuse(&mut self, ticket: Ticket) {
        if let Some(state) = self.states.get_mut(&ticket) {
            state.excused = true;
        }
    }

    pub(crate) fn excuse_all_of(&mut self, caller: Peer) {
        for state in self
            .states
            .values_mut()
            .filter(|state| state.caller == caller)
        {
            state.excused = true;
        }
    }

    pub(crate) fn used(&self, ticket: Ticket) -> Result<(), String> {
        if self.states.contains_key(&ticket) {
            return Ok(());
        }
        Err(format!("tickets: {ticket:?} is used but was forgotten"))
    }

    pub(crate) fn replied(&mut self, ticket: Ticket) -> Result<(), String> {
        match self.states.get_mut(&ticket) {
            Some(state) if !state.replied => {
                state.replied = true;
                Ok(())
            }
            Some(_) => Err(format!("tickets: {ticket:?} is answered twice")),
            None => Err(format!("tickets: {ticket:?} is answered but was forgotten")),
        }
    }

    pub(crate) fn forgotten(&mut self, ticket: Ticket) -> Result<(), String> {
        match self.states.remove(&ticket) {
            Some(state) if state.replied || state.excused => Ok(()),
            Some(_) => Err(format!(
                "tickets: {ticket:?} is forgotten without an answer"
            )),
            None => Err(format!("tickets: {ticket:?} is forgotten twice")),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}
