//! Who knows the whole graph of waits at each moment, and judges.
//!
//! What cannot go on is found without any cycle: suppose that whoever does not wait ends, and
//! strike out each wait that is over then, until none is left to strike out.

use std::collections::{BTreeMap, BTreeSet};

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
    edges: BTreeMap<(WaitId, Path), Vec<Span>>,
    stuck: BTreeMap<WaitId, Vec<Span>>,
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
        let now = |spans: &&Vec<Span>| spans.iter().any(|span| span.1.is_none());
        self.stuck.values().filter(now).count()
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
        let mut needed: Vec<&[Span]> = Vec::new();
        for edge in cycle {
            let spans = self.edges.get(&(edge.wait, edge.owner.path.clone()));
            needed.push(spans.unwrap_or_else(|| panic!("{edge:?} never was: {refused:?}")));
            let stuck = self.stuck.get(&edge.wait);
            needed.push(stuck.unwrap_or_else(|| panic!("{edge:?} could go on: {refused:?}")));
        }
        let at_once = |at: Time| {
            let mut needed = needed.iter();
            needed.all(|spans| spans.iter().any(|span| covers(*span, at)))
        };
        let mut starts = needed.iter().flat_map(|spans| spans.iter());
        let ever = starts.any(|span| at_once(span.0));
        assert!(ever, "never all at once at {now:?}: {needed:?} {refused:?}");
        at_once(now)
    }

    /// Forgets what ended before.
    pub(super) fn forget(&mut self, before: Time) {
        let recent = |span: &Span| span.1.is_none_or(|to| to >= before);
        let keep = |spans: &mut Vec<Span>| {
            spans.retain(recent);
            !spans.is_empty()
        };
        self.edges.retain(|_, spans| keep(spans));
        self.stuck.retain(|_, spans| keep(spans));
    }
}

fn covers(span: Span, at: Time) -> bool {
    span.0 <= at && span.1.is_none_or(|to| at <= to)
}

/// Brings spans up to date with what is now.
fn follow<K: Ord>(now: Time, all: &mut BTreeMap<K, Vec<Span>>, here: Vec<K>) {
    let here: BTreeSet<K> = here.into_iter().collect();
    for (key, spans) in all.iter_mut() {
        for span in spans.iter_mut().filter(|span| span.1.is_none()) {
            span.1 = (!here.contains(key)).then_some(now);
        }
    }
    for key in here {
        let spans = all.entry(key).or_default();
        if spans.iter().all(|span| span.1.is_some()) {
            spans.push((now, None));
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
