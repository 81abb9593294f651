//! Where objects are: what the nodes know of those that have moved, and the binder of all that have
//! moved or have copies; and the checks of that.
//!
//! Of each node [`PLACES_MAX`] objects that have moved are looked at, and of the binder's groups
//! the first [`GROUPS_MAX`]. What contradicts is asked once more, since objects move meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use partha::services::binder::GroupView;
use partha::system::{CopyDescription, MovedPlace};
use partha::{NodeId, Uid};
use tokio::time::Instant;

use super::checkup::{Checkup, Examined};
use super::findings::Finding;
use crate::cluster::{NodeInfo, System};

/// Objects that have moved, of each node.
pub(super) const PLACES_MAX: u32 = 1_000;
/// Groups that are looked at.
const GROUPS_MAX: usize = 10_000;
/// Groups with too few copies whose leaders are asked why.
const FEW_MAX: usize = 1_000;
/// Questions to the binder at a time.
const TOGETHER: usize = 64;
/// How long all questions may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Objects of which the same is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several {
    pub(super) count: usize,
    /// One of them.
    pub(super) one: Uid,
}

/// What contradicts, or leads nowhere.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// An object, the node that it is at, and the one that the binder has it at.
    pub(super) misplaced: Vec<(Uid, u64, u64)>,
    /// Objects that have left a node for one that does not answer.
    pub(super) astray: BTreeMap<(u64, u64), Several>,
    /// Groups by their leader, which does not answer.
    pub(super) headless: BTreeMap<u64, Several>,
    /// Groups by their leader and by what it says why they have fewer copies than wanted.
    pub(super) few: BTreeMap<(u64, String), Several>,
}

/// An object of which its node says one thing.
#[derive(Clone, Copy)]
struct Claim<'a> {
    info: &'a NodeInfo,
    place: &'a MovedPlace,
}

impl Places {
    /// Looks at what the nodes have told, and asks the binder.
    pub(super) async fn of(system: &System, nodes: &[Examined], all: bool) -> Self {
        let until = Instant::now() + PATIENCE;
        let groups = tokio::time::timeout_at(until, groups(system)).await;
        // Without the binder nothing can be compared; that it is silent is told elsewhere.
        let Ok(Ok(groups)) = groups else {
            return Self::default();
        };
        let mut places = Self::default();
        let silent = |node: u64| {
            let known = nodes.iter().find(|other| other.id == Some(NodeId(node)));
            known.map_or(all, |node| node.answer.is_err())
        };
        let replicated: BTreeSet<Uid> = groups.iter().map(|group| group.object).collect();
        places.look_at_groups(system, nodes, &groups, silent).await;
        let claims = nodes.iter().flat_map(|node| {
            let told = node.answer.as_ref().ok().zip(node.info.as_ref());
            let told = told.into_iter();
            told.flat_map(|(answer, info)| answer.places.iter().map(move |place| (info, place)))
        });
        let claims = claims.filter(|(_, place)| !replicated.contains(&place.object));
        let claims = claims.filter(|(_, place)| match place.here {
            // It is told again and again until the binder answers.
            true => place.told,
            false => silent(place.node),
        });
        let claims = claims.map(|(info, place)| Claim { info, place });
        let mut asked = stream::iter(claims)
            .map(async |claim| (claim, contradicted(system, claim, &silent).await))
            .buffer_unordered(TOGETHER);
        while let Ok(Some((claim, found))) = tokio::time::timeout_at(until, asked.next()).await {
            let (here, object) = (claim.info.handle.id().0, claim.place.object);
            match (claim.place.here, found) {
                (true, Some(binder)) => places.misplaced.push((object, here, binder)),
                (false, Some(target)) => note(&mut places.astray, (here, target), object),
                (_, None) => {}
            }
        }
        places.misplaced.sort_unstable();
        places
    }

    async fn look_at_groups(
        &mut self,
        system: &System,
        nodes: &[Examined],
        groups: &[GroupView],
        silent: impl Fn(u64) -> bool,
    ) {
        let mut few: BTreeMap<u64, Vec<Uid>> = BTreeMap::new();
        let mut count = 0;
        for group in groups {
            let Some(leader) = group.members.first().copied() else {
                continue;
            };
            if silent(leader) {
                note(&mut self.headless, leader, group.object);
            } else if group.members.len() < usize::from(group.wanted) && count < FEW_MAX {
                few.entry(leader).or_default().push(group.object);
                count += 1;
            }
        }
        for (leader, objects) in few {
            let of_leader = |node: &&Examined| node.id == Some(NodeId(leader));
            let info = nodes
                .iter()
                .find(of_leader)
                .and_then(|node| node.info.as_ref());
            let Some(info) = info else { continue };
            let told = info.handle.manager().copies(&system.client, &objects);
            let told = tokio::time::timeout(PATIENCE, told).await;
            for copy in told.ok().and_then(Result::ok).unwrap_or_default() {
                self.look_at_copy(leader, copy);
            }
        }
    }

    /// That copies are being made passes by itself: then it has no reason.
    fn look_at_copy(&mut self, leader: u64, copy: CopyDescription) {
        if copy.leads && !copy.lacking.is_empty() {
            note(&mut self.few, (leader, copy.lacking), copy.object);
        }
    }

    /// What is to be named.
    pub(super) fn objects(&self) -> impl Iterator<Item = Uid> {
        let misplaced = self.misplaced.iter().map(|(object, ..)| *object);
        let astray = self.astray.values().map(|it| it.one);
        let headless = self.headless.values().map(|it| it.one);
        let few = self.few.values().map(|it| it.one);
        misplaced.chain(astray).chain(headless).chain(few)
    }
}

fn note<K: Ord>(all: &mut BTreeMap<K, Several>, key: K, one: Uid) {
    all.entry(key).or_insert(Several { count: 0, one }).count += 1;
}

async fn groups(system: &System) -> partha::Result<Vec<GroupView>> {
    let (mut all, mut after) = (Vec::new(), Uid::NIL);
    loop {
        let (page, last) = system
            .client
            .locator()
            .groups(&system.client, after)
            .await?;
        after = page.last().map_or(after, |group| group.object);
        all.extend(page);
        if last || all.len() >= GROUPS_MAX {
            return Ok(all);
        }
    }
}

/// The node that the binder has an object at that is elsewhere; for one that has left, the silent
/// node that it went to, unless the binder has it at one that answers.
async fn contradicted(
    system: &System,
    claim: Claim<'_>,
    silent: impl Fn(u64) -> bool,
) -> Option<u64> {
    let Claim { info, place } = claim;
    let known = system
        .client
        .locator()
        .location(&system.client, place.object)
        .await;
    if !place.here {
        let later = known.is_ok_and(|known| known.moved && !silent(known.node.node));
        return (!later).then_some(place.node);
    }
    let binder = known.ok()?.node.node;
    if NodeId(binder) == info.handle.id() {
        return None;
    }
    // It may have moved on since it was told of.
    let found = info
        .handle
        .manager()
        .inspect(&system.client, place.object)
        .await;
    found
        .ok()
        .filter(|found| found.moves == place.moves)
        .map(|_| binder)
}

/// Objects of which the same is to be said, in words.
fn several(checkup: &Checkup, several: Several) -> String {
    let object = checkup.object(several.one);
    match several.count {
        1 => format!("object {object}"),
        count => format!("{count} objects, {object} among them,"),
    }
}

/// Objects that the binder has elsewhere than they are.
pub(super) fn are_misplaced(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for (object, here, binder) in &checkup.places.misplaced {
        let (name, node) = (checkup.object(*object), checkup.process(*here));
        let binder = checkup.process(*binder);
        found.push(Finding {
            kind: "misplaced",
            node: Some(node.clone()),
            subject: Some(object.to_string()),
            text: format!("object {name} is at node '{node}', but the binder has it at '{binder}'"),
            cure: format!(
                "a move tells the binder anew: `partha move {name} {binder}`; until then it is \
                 found by way of the node that made it alone"
            ),
        });
    }
}

/// Objects that have left a node for one that does not answer.
pub(super) fn are_astray(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for ((from, to), objects) in &checkup.places.astray {
        let (from, to) = (checkup.process(*from), checkup.process(*to));
        found.push(Finding {
            kind: "astray",
            node: Some(from.clone()),
            subject: Some(objects.one.to_string()),
            text: format!(
                "{} left node '{from}' for node '{to}', which does not answer",
                several(checkup, *objects)
            ),
            cure: format!("start node '{to}' again on its folder: what is there is nowhere else"),
        });
    }
}

/// Copies that nobody leads.
pub(super) fn are_headless(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for (leader, objects) in &checkup.places.headless {
        let node = checkup.process(*leader);
        found.push(Finding {
            kind: "leader-silent",
            node: Some(node.clone()),
            subject: Some(objects.one.to_string()),
            text: format!(
                "{} with copies would be led by node '{node}', which does not answer",
                several(checkup, *objects)
            ),
            cure: format!(
                "another copy with the latest state takes over within a lease, if there is one \
                 and its node answers; else start node '{node}' again on its folder"
            ),
        });
    }
}

/// Fewer copies than wanted.
pub(super) fn are_few(checkup: &Checkup, _after: Duration, found: &mut Vec<Finding>) {
    for ((leader, why), objects) in &checkup.places.few {
        let name = checkup.object(objects.one);
        found.push(Finding {
            kind: "copies-few",
            node: Some(checkup.process(*leader)),
            subject: Some(objects.one.to_string()),
            text: format!(
                "{} fewer copies than wanted: {why}",
                match objects.count {
                    1 => format!("object {name} has"),
                    count => format!("{count} objects, {name} among them, have"),
                }
            ),
            cure: "`partha groups` shows where they are; start nodes that run the class and fit \
                   the placement, or want fewer with `partha replicate`"
                .to_owned(),
        });
    }
}
