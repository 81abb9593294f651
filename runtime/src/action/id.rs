//! How actions are named for people and tools.

use std::fmt;
use std::str::FromStr;

use partha_core::action::path::{Coordinator, Site};
use partha_core::id::{NodeId, Uid};

/// The identity of an action and, once its commit was asked for, who decides about it.
///
/// It prints as `UID`, `UID@NODE#SHARD`, or, if the decision is in the log of an object with
/// copies, `UID@NODE#SHARD+OBJECT`; `partha outcome` takes any.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActionId {
    uid: Uid,
    coordinator: Option<Coordinator>,
}

/// Why a text is no [`ActionId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseActionIdError {
    text: String,
}

impl ActionId {
    /// An action of which nothing but the identity is known.
    #[must_use]
    pub fn of(uid: Uid) -> Self {
        let coordinator = None;
        Self { uid, coordinator }
    }

    /// The action itself.
    #[must_use]
    pub fn uid(self) -> Uid {
        self.uid
    }

    /// The node that decides about it, where known.
    #[must_use]
    pub fn coordinator(self) -> Option<NodeId> {
        self.coordinator.map(|it| it.site.node)
    }

    /// The object with copies whose log has the decision, if there is one: whoever leads it can
    /// tell the outcome, also when the coordinator is gone.
    #[must_use]
    pub fn decider(self) -> Option<Uid> {
        self.coordinator.and_then(|it| it.decider)
    }

    pub(super) fn decided_at(uid: Uid, coordinator: impl Into<Coordinator>) -> Self {
        let coordinator = Some(coordinator.into());
        Self { uid, coordinator }
    }

    pub(super) fn decided_by(self) -> Option<Coordinator> {
        self.coordinator
    }
}

impl From<Uid> for ActionId {
    fn from(uid: Uid) -> Self {
        Self::of(uid)
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.coordinator {
            Some(Coordinator { site, decider }) => {
                write!(f, "{}@{site:?}", self.uid)?;
                decider.map_or(Ok(()), |decider| write!(f, "+{decider}"))
            }
            None => write!(f, "{}", self.uid),
        }
    }
}

impl fmt::Debug for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ActionId {
    type Err = ParseActionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let Some((uid, site)) = text.split_once('@') else {
                return Some(Self::of(text.parse().ok()?));
            };
            let (node, shard) = site.split_once('#')?;
            let (shard, decider) = match shard.split_once('+') {
                Some((shard, decider)) => (shard, Some(decider.parse().ok()?)),
                None => (shard, None),
            };
            let hex = node.len() == 16 && node.bytes().all(|b| b.is_ascii_hexdigit());
            let node = NodeId(u64::from_str_radix(node, 16).ok().filter(|_| hex)?);
            let digits = shard.bytes().all(|b| b.is_ascii_digit());
            let shard = shard.parse().ok().filter(|_| digits)?;
            let site = Site { node, shard };
            Some(Self::decided_at(
                uid.parse().ok()?,
                Coordinator { site, decider },
            ))
        };
        parse().ok_or_else(|| ParseActionIdError {
            text: text.chars().take(80).collect(),
        })
    }
}

impl fmt::Display for ParseActionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(
            f,
            "'{text}' names no action: expected a uid, or a uid, '@', 16 hexadecimal digits of a \
             node, '#' and the number of a shard"
        )
    }
}

impl std::error::Error for ParseActionIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_from_its_text() {
        let uid = Uid {
            node: NodeId(0xdead_beef),
            local: 7,
        };
        let (node, shard) = (NodeId(9), 3);
        let with = ActionId::decided_at(uid, Site { node, shard });
        let site = Site { node, shard };
        let decider = Some(uid);
        let of_copies = ActionId::decided_at(uid, Coordinator { site, decider });
        assert_eq!(of_copies.decider(), decider);
        for id in [ActionId::of(uid), with, of_copies] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(
            with.to_string(),
            "00000000deadbeef-000000-0000000007@0000000000000009#3"
        );
        let bad = ["", "7", "00000000deadbeef-000000-0000000007@9#3"];
        for text in bad {
            assert!(text.parse::<ActionId>().is_err(), "{text}");
        }
    }
}
