//! Who knows the whole graph of waits at each moment, and judges.
//!
//! What cannot go on is found without any cycle: suppose that whoever does not wait ends, and
//! strike out each wait that is over then, until none is left to strike out.

use std::collections::BTreeMap;

use super::cluster::{Cluster, LIFE, Refused};
use super::world::{Lock, Table, Use};
use crate::action::message::WaitId;
use crate::action::path::Path;
use crate::deadlock::Locks;
use crate::id::Uid;
use crate::time::Time;

/// From when to when something was so; none if it still is.
type Span = (Time, Option<Time>);

/// All that was.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    edges: BTreeMap<(WaitId, Path), Span>,
    stuck: BTreeMap<WaitId, Span>,
    /// Since when somebody is stuck and nothing was done about it.
    pub(super) idle_since: Option<Time>,
}

/// A wait, and what must end before it can.
struct Waiting {
    id: WaitId,
    path: Path,
    needs: Vec<Uid>,
    /// Those that must get the lock before.
    behind: Vec<WaitId>,
}

impl Oracle {
    /// Looks at the world.
    pub(super) fn look(&mut self, cluster: &Cluster<Table>) {
        let now = cluster.now;
        let mut waits = Vec::new();
        let mut edges = Vec::new();
        for (site, table) in cluster.sites.iter().zip(&cluster.tables) {
            for lock in table.locks.values() {
                for at in 0..lock.queue.len() {
                    let number = lock.queue[at].number;
                    let id = WaitId {
                        site: *site,
                        incarnation: LIFE,
                        number,
                    };
                    let owners = table.owners(number).into_iter();
                    edges.extend(owners.map(|owner| (id, owner.path)));
                    waits.push(waiting(id, lock, at));
                }
            }
        }
        follow(now, &mut self.edges, edges);
        let stuck = stuck(waits);
        self.idle_since = match (stuck.is_empty(), self.idle_since) {
            (true, _) => None,
            (false, None) => Some(now),
            (false, since) => since,
        };
        follow(now, &mut self.stuck, stuck);
    }

    /// How many waits cannot go on.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.values().filter(|span| span.1.is_none()).count()
    }

    /// All locks that somebody waits for, for a person to look at.
    pub(super) fn describe(&self, cluster: &Cluster<Table>) -> String {
        let short = |path: &Path| {
            let text = format!("{path:?}");
            text.replace("0000000000000000-000000-", "")
        };
        let mut text = String::new();
        for (site, table) in cluster.sites.iter().zip(&cluster.tables) {
            for (object, lock) in table
                .locks
                .iter()
                .filter(|(_, lock)| !lock.queue.is_empty())
            {
                text += &format!("\n{} at {site:?}:", object.local);
                for one in &lock.holders {
                    let how = if one.write { "writes" } else { "reads" };
                    text += &format!("\n    {} {how}", short(&one.party.path));
                }
                for one in &lock.queue {
                    let how = if one.write { "write" } else { "read" };
                    text += &format!(
                        "\n    wait {} {} to {how}",
                        one.number,
                        short(&one.party.path)
                    );
                    for owner in table.owners(one.number) {
                        text += &format!(", for {}", short(&owner.path));
                    }
                }
            }
        }
        text
    }

    /// Judges a refusal: panics unless its cycle was there, all of it at once, and stuck. Says
    /// whether it still was at the end.
    pub(super) fn judge(&self, now: Time, refused: &Refused) -> bool {
        let Refused {
            victim,
            number,
            cycle,
            ..
        } = refused;
        let first = &cycle[0];
        assert_eq!(first.wait.number, *number);
        assert!(first.waiter.path.whole().contains(victim), "{refused:?}");
        let youngest = cycle.iter().map(|edge| edge.waiter.born_ms).max();
        assert_eq!(youngest, Some(first.waiter.born_ms), "{refused:?}");
        let span = |edge: &crate::action::message::Edge| {
            let span = self.edges.get(&(edge.wait, edge.owner.path.clone()));
            *span.unwrap_or_else(|| panic!("{edge:?} never was, yet {refused:?}"))
        };
        let spans: Vec<Span> = cycle.iter().map(span).collect();
        let began = spans.iter().map(|span| span.0).max().unwrap();
        let ended = spans.iter().filter_map(|span| span.1).min();
        let until = ended.unwrap_or(now);
        assert!(
            began <= until,
            "never at once at {now:?}: {spans:?} {refused:?}"
        );
        for edge in cycle {
            let stuck = self.stuck.get(&edge.wait);
            let stuck = stuck.filter(|span| span.0 <= until && span.1.is_none_or(|to| to >= began));
            assert!(stuck.is_some(), "{edge:?} could go on, yet {refused:?}");
        }
        ended.is_none()
    }

    /// Forgets what ended before.
    pub(super) fn forget(&mut self, before: Time) {
        let recent = |span: &Span| span.1.is_none_or(|to| to >= before);
        self.edges.retain(|_, span| recent(span));
        self.stuck.retain(|_, span| recent(span));
    }
}

/// Brings spans up to date with what is now.
fn follow<K: Ord>(now: Time, spans: &mut BTreeMap<K, Span>, here: Vec<K>) {
    let here: std::collections::BTreeSet<K> = here.into_iter().collect();
    for (key, span) in spans.iter_mut() {
        if span.1.is_none() && !here.contains(key) {
            span.1 = Some(now);
        }
    }
    for key in here {
        let span = spans.entry(key).or_insert((now, None));
        if span.1.is_some() {
            *span = (now, None);
        }
    }
}

fn waiting(id: WaitId, lock: &Lock, at: usize) -> Waiting {
    let own = &lock.queue[at];
    let path = own.party.path.clone();
    let ahead = (0..at).filter(|ahead| lock.stands_behind(at, *ahead));
    let ahead: Vec<&Use> = ahead.map(|ahead| &lock.queue[ahead]).collect();
    let behind = ahead.iter().map(|one| WaitId {
        number: one.number,
        ..id
    });
    let behind = behind.collect();
    let holders = lock.holders.iter().filter(|one| own.write || one.write);
    let others = ahead.into_iter().chain(holders);
    let needs = others.filter_map(|other| outermost(&path, &other.party.path));
    let needs = needs.collect();
    Waiting {
        id,
        path,
        needs,
        behind,
    }
}

/// The action whose end brings a lock of `owner` to an ancestor of `waiter`, or sets it free. If
/// it comes to one that the waiter is in across a boundary, the waiter is refused then.
fn outermost(waiter: &Path, owner: &Path) -> Option<Uid> {
    let shares = |action: &Uid| waiter.whole().contains(action);
    let mut level = owner.own().iter().rev();
    let mut needed = level.next().filter(|leaf| !shares(leaf))?;
    for outer in level {
        if shares(outer) {
            break;
        }
        needed = outer;
    }
    Some(*needed)
}

/// Those that never can go on, if nobody intervenes.
fn stuck(mut waits: Vec<Waiting>) -> Vec<WaitId> {
    loop {
        let inside = |action: &Uid| waits.iter().any(|wait| wait.path.whole().contains(action));
        let waits_still = |id: &WaitId| waits.iter().any(|wait| wait.id == *id);
        let stays =
            |one: &Waiting| one.needs.iter().any(inside) || one.behind.iter().any(waits_still);
        let left: Vec<bool> = waits.iter().map(stays).collect();
        let before = waits.len();
        let mut left = left.into_iter();
        waits.retain(|_| left.next().unwrap());
        if waits.len() == before {
            return waits.into_iter().map(|wait| wait.id).collect();
        }
    }
}
