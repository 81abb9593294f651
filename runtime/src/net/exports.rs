//! Capabilities that one end of a connection gave to the other: its export table.
//!
//! A transient object travels as a number that means something on this connection only. What the
//! peer releases, or what is left when the connection ends, is dropped here; the object itself
//! lives as long as somebody holds its [`Capability`].

use std::collections::HashMap;

use partha_core::id::Uid;

use crate::capability::Capability;
use crate::error::{ErrorKind, SystemError};

/// Capabilities the peer may hold at a time.
pub(super) const EXPORTS_MAX: usize = 4096;

/// What the peer was given, by number.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    by_number: HashMap<u32, Export>,
    by_object: HashMap<Uid, u32>,
    last: u32,
}

#[derive(Debug)]
struct Export {
    capability: Capability,
    object: Uid,
    /// How many times it was sent; the peer releases each.
    sent: u32,
}

impl Exports {
    /// The number under which the peer knows this local capability.
    pub(crate) fn number(
        &mut self,
        object: Uid,
        capability: &Capability,
    ) -> Result<u32, SystemError> {
        if let Some(number) = self.by_object.get(&object)
            && let Some(export) = self.by_number.get_mut(number)
        {
            export.sent += 1;
            return Ok(*number);
        }
        if self.by_number.len() >= EXPORTS_MAX {
            let detail = format!("the peer holds {EXPORTS_MAX} capabilities of this end already");
            return Err(SystemError::new(ErrorKind::Overloaded, detail));
        }
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            if !self.by_number.contains_key(&self.last) {
                break;
            }
        }
        let capability = capability.clone();
        self.by_number.insert(
            self.last,
            Export {
                capability,
                object,
                sent: 1,
            },
        );
        self.by_object.insert(object, self.last);
        Ok(self.last)
    }

    /// What the peer means by a number.
    pub(crate) fn find(&self, number: u32) -> Option<&Capability> {
        self.by_number.get(&number).map(|export| &export.capability)
    }

    /// The peer dropped one of what it was sent.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(export) = self.by_number.get_mut(&number) else {
            return;
        };
        export.sent -= 1;
        if export.sent == 0
            && let Some(gone) = self.by_number.remove(&number)
        {
            self.by_object.remove(&gone.object);
        }
    }

    /// How many times the peer was sent it.
    #[cfg(test)]
    pub(crate) fn sent(&self, number: u32) -> u32 {
        self.by_number.get(&number).map_or(0, |export| export.sent)
    }

    /// The connection ended.
    pub(crate) fn clear(&mut self) -> Self {
        std::mem::take(self)
    }
}
