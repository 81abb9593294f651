//! Identifiers: who and what a message is about.
//!
//! All of them are plain numbers, fixed in size, made without coordination and compared by
//! value. A [`Uid`] is 128 bits, as Khazana's addresses are, so that objects and regions can
//! share one space; unlike Narayana's `Uid` nothing in it comes from a host name or an address
//! (containers move), but from the node id and incarnation that live in the node's store.

use core::fmt;
use core::str::FromStr;

/// A node's name for life: 64 random bits, made when its store is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// The crash count of a node or client process: raised by one at each start, before anything
/// else happens (Rajdoot's crash count, measure M2).
///
/// At most [`Incarnation::MAX`], since a [`Uid`] has 24 bits for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The last incarnation a node can have.
    pub const MAX: Self = Self((1 << 24) - 1);
}

/// The identity of an object, for ever: node id (64) ‖ incarnation (24) ‖ counter (40).
///
/// Sorting by value is the order of creation within an incarnation. The node part is the *birth*
/// node: an object that never moved is found there without any table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid {
    /// The node that made the object.
    pub node: NodeId,
    /// Incarnation (upper 24 bits) and counter (lower 40 bits).
    pub local: u64,
}

impl Uid {
    /// Bits of the counter.
    pub const COUNTER_BITS: u32 = 40;
    /// The largest counter value.
    pub const COUNTER_MAX: u64 = (1 << Self::COUNTER_BITS) - 1;
    /// No object at all.
    pub const NIL: Self = Self {
        node: NodeId(0),
        local: 0,
    };
    /// The root naming context of a system: the one object everybody knows beforehand.
    pub const NAMING_ROOT: Self = Self {
        node: NodeId(0),
        local: 1,
    };

    /// The uid with this counter, made by `node` in `incarnation`.
    ///
    /// # Panics
    /// If the incarnation or the counter does not fit; both are bounded where they are made.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation, counter: u64) -> Self {
        assert!(
            incarnation <= Incarnation::MAX,
            "incarnation {incarnation} exceeds 24 bits"
        );
        assert!(
            counter <= Self::COUNTER_MAX,
            "uid counter {counter} exceeds 40 bits"
        );
        Self {
            node,
            local: u64::from(incarnation.0) << Self::COUNTER_BITS | counter,
        }
    }

    /// The connection manager of `node`: one at each node, in every incarnation.
    #[must_use]
    pub fn connection_manager(node: NodeId) -> Self {
        Self { node, local: 1 }
    }

    /// The incarnation of the birth node in which the object was made.
    #[must_use]
    pub fn incarnation(self) -> Incarnation {
        Incarnation((self.local >> Self::COUNTER_BITS) as u32)
    }

    /// The counter part.
    #[must_use]
    pub fn counter(self) -> u64 {
        self.local & Self::COUNTER_MAX
    }

    /// 16 bytes, big-endian, so that byte order is numeric order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.node.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.local.to_be_bytes());
        bytes
    }

    /// The inverse of [`Uid::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let value = u128::from_be_bytes(bytes);
        Self {
            node: NodeId((value >> 64) as u64),
            local: value as u64,
        }
    }
}

/// What class an object is of: the Cap'n Proto interface id of the IDL interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClassId(pub u64);

/// A caller process: a node, or a client without a store, in one of its incarnations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

/// The name of one call, chosen by the caller: asking again with the same one never executes
/// the call twice (Rajdoot's sequence numbers; Birrell and Nelson's at-most-once).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CallId {
    /// The caller.
    pub caller: Peer,
    /// Counts up from 1 in each incarnation of the caller.
    pub sequence: u64,
}

impl CallId {
    /// 20 bytes, big-endian: node, incarnation, sequence.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.caller.node.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.caller.incarnation.0.to_be_bytes());
        bytes[12..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

/// The number of one activation of an object: incarnation of the node (32) ‖ count (32).
///
/// It grows with every activation, over restarts too, and the store refuses a state written
/// under an older one (`Fenced`), so that two activations of one object can never both commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The `count`-th activation in `incarnation`.
    #[must_use]
    pub fn new(incarnation: Incarnation, count: u32) -> Self {
        Self(u64::from(incarnation.0) << 32 | u64::from(count))
    }
}

/// Why a text is no [`Uid`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseUidError {
    text: String,
}

impl fmt::Display for ParseUidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is no uid: expected 16, 6 and 10 hexadecimal digits with dashes between",
            self.text
        )
    }
}

impl core::error::Error for ParseUidError {}

impl FromStr for Uid {
    type Err = ParseUidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseUidError {
            text: text.chars().take(64).collect(),
        };
        let hex = |part: Option<&str>, digits: usize| -> Result<u64, ParseUidError> {
            let part = part.ok_or_else(error)?;
            if part.len() != digits || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            u64::from_str_radix(part, 16).map_err(|_| error())
        };
        let mut parts = text.split('-');
        let node = hex(parts.next(), 16)?;
        let incarnation = hex(parts.next(), 6)?;
        let counter = hex(parts.next(), 10)?;
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self {
            node: NodeId(node),
            local: incarnation << Self::COUNTER_BITS | counter,
        })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let incarnation = self.incarnation().0;
        write!(
            f,
            "{:016x}-{incarnation:06x}-{:010x}",
            self.node.0,
            self.counter()
        )
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@0x{:016x}", self.0)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.incarnation)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.caller, self.sequence)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

macro_rules! debug_as_display {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display!(Uid, NodeId, Incarnation, ClassId, Peer, CallId, Epoch);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_text_and_bytes_are_inverse_and_keep_order() {
        let a = Uid::new(NodeId(0xdead_beef), Incarnation(7), 1);
        let b = Uid::new(NodeId(0xdead_beef), Incarnation(7), 2);
        let c = Uid::new(NodeId(0xdead_beef), Incarnation(8), 0);
        assert!(a < b && b < c);
        assert!(a.to_bytes() < b.to_bytes() && b.to_bytes() < c.to_bytes());
        assert!(a.to_string() < b.to_string() && b.to_string() < c.to_string());
        for uid in [a, b, c, Uid::NIL, Uid::NAMING_ROOT] {
            assert_eq!(uid.to_string().parse::<Uid>(), Ok(uid));
            assert_eq!(Uid::from_bytes(uid.to_bytes()), uid);
        }
        assert_eq!(a.to_string(), "00000000deadbeef-000007-0000000001");
    }

    #[test]
    fn bad_uid_texts_are_refused() {
        for text in [
            "",
            "1-2-3",
            "00000000deadbeef-000007",
            "00000000deadbeef-000007-000000000g",
        ] {
            assert!(text.parse::<Uid>().is_err(), "{text}");
        }
        assert!("+0000000deadbeef-000007-0000000001".parse::<Uid>().is_err());
        assert!(
            "00000000deadbeef-000007-0000000001-0"
                .parse::<Uid>()
                .is_err()
        );
    }

    #[test]
    fn epochs_grow_over_restarts() {
        assert!(Epoch::new(Incarnation(1), u32::MAX) < Epoch::new(Incarnation(2), 0));
    }
}
