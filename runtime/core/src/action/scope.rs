//! What whoever runs an action knows about it: levels, calls, participants, doom.
//!
//! A [`Family`] is one top-level action run by this process, or, at a servant, its part of the
//! action that its caller runs (a *branch*). It says which nested levels are open, which shards
//! take part in each, and what must be told to whom. Whoever owns it sends the messages it
//! returns, makes the calls, and asks for the commit; none of that happens here. The idea is
//! Narayana's `BasicAction` with its record lists and Argus' participant lists that come with
//! each answer, reduced to what presumed abort needs: sites, numbers of mirrors, aborted levels.
//!
//! # Transitions of a level
//!
//! | state | `begin`, `calling` | answer known | unknown, `doom` | end: commit | end: abort |
//! |---|---|---|---|---|---|
//! | Open | under way | noted | Doomed, A | gone, M or plan | gone, A |
//! | Busy | under way | noted | Doomed, A | refused | gone, A |
//! | Doomed | refused | A | A | refused | gone, A |
//! | gone | refused | A | A | refused | - |
//! | Asked | refused | - | - | refused | gone, A |
//!
//! Busy is Open with calls or nested actions under way, Doomed is a level that can only abort or
//! is in one that can, Asked a root whose plan to commit was handed out. A: `Abort` goes to
//! every place where the level or one below it may have been, of a late answer to those that it
//! names. M: `Merge` goes to its participants.
//!
//! # Invariants
//!
//! 1. A site is *live* as long as a level that is not aborted has worked there. Only live sites
//!    are asked to commit: what an aborted level alone has touched, a dead node say, is in
//!    nobody's way ([`Family::settled`] and [`Family::abort`] tell them to forget).
//! 2. A site that answers in another life or with another mirror has lost work: every level that
//!    has worked there is doomed, which is the root if it has, or an ended child of it.
//!    So is one that finds an object with copies led by another than the one that led it before.
//! 3. Whatever a call may have reached is told when its level is aborted, however it ended.
//! 4. Every table has a bound below; over it a request is refused, or, where an answer brings
//!    too much, the root is doomed.
//!
//! What it does not do: send, wait, know the time, choose names.

mod answers;
mod leaders;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use super::message::Message;
use super::path::{Address, PATH_MAX, Participant, Path, Site};
use crate::id::{NodeId, Uid};

pub use leaders::LED_MAX;
pub use words::{CallEnd, CallKey, Doom, Over, Plan, Report, Send};

/// Shards that one top-level action may touch: more would make its commit request longer than
/// is reasonable for one message, and its chance to end well poor.
pub const PARTICIPANTS_MAX: usize = 1_024;

/// Nested actions aborted in one top-level action: they are named in its commit request.
pub const ABORTED_MAX: usize = 4_096;

/// Levels open at the same time: concurrent siblings and their children.
pub const LEVELS_MAX: usize = 1_024;

/// Calls under way at the same time in one family; as many as one node takes of one process.
pub const CALLS_MAX: usize = 8_192;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Family {
    path: Path,
    /// The outermost level: the root, or the leaf of a branch's path.
    base: Uid,
    branch: bool,
    state: State,
    levels: BTreeMap<Uid, Level>,
    known: BTreeMap<Address, Known>,
    /// Where a mirror may be, if only an empty one.
    touched: BTreeSet<Address>,
    calls: BTreeMap<CallKey, Call>,
    calls_begun: u64,
    /// Doomed actions that others run, for the report.
    beyond: Vec<Uid>,
    /// Those of them across the boundary that nobody has taken yet.
    outer: Vec<(Uid, Doom)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Asked,
    Ended,
}

#[derive(Clone, Debug)]
struct Level {
    path: Path,
    parent: Option<Uid>,
    doomed: Option<Doom>,
    /// Where it has worked, or children that committed into it.
    sites: BTreeSet<Address>,
    /// Where the objects were that it has used.
    led: BTreeMap<Uid, Site>,
    /// Where a call of it went that had no answer.
    strays: BTreeSet<Address>,
    /// Aborted below it.
    aborted: Vec<Uid>,
    calls: usize,
    children: usize,
}

/// A participant, and its place in the order in which they came.
#[derive(Clone, Copy, Debug)]
struct Known {
    participant: Participant,
    order: usize,
}

#[derive(Clone, Debug)]
struct Call {
    action: Uid,
    sites: Vec<Address>,
    /// The outermost level that was aborted while it was under way.
    lost: Option<Uid>,
}

impl Family {
    /// A top-level action that this process runs: `path` ends with its root.
    ///
    /// # Panics
    /// If the path has not exactly one entry of its own.
    #[must_use]
    pub fn top(path: Path) -> Self {
        assert_eq!(path.own().len(), 1, "{path:?} is not that of a root");
        Self::new(path, false)
    }

    /// A servant's part of the action it is called in: the leaf of `path`. It cannot be
    /// committed here; its [`Family::report`] goes back with the answer.
    ///
    /// # Panics
    /// If the path has no entry of its own.
    #[must_use]
    pub fn branch(path: Path) -> Self {
        Self::new(path, true)
    }

    fn new(path: Path, branch: bool) -> Self {
        let base = path.leaf().expect("the path of an action has a leaf");
        let level = Level::new(path.clone(), None);
        Self {
            path,
            base,
            branch,
            state: State::Open,
            levels: BTreeMap::from([(base, level)]),
            known: BTreeMap::new(),
            touched: BTreeSet::new(),
            calls: BTreeMap::new(),
            calls_begun: 0,
            beyond: Vec::new(),
            outer: Vec::new(),
        }
    }

    /// The path of the outermost level: the root, or what the branch's caller called in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a level that has not ended.
    #[must_use]
    pub fn path_of(&self, action: Uid) -> Option<&Path> {
        self.levels.get(&action).map(|level| &level.path)
    }

    /// Whether work that counts was done at this node, and is lost when the node is: what whoever
    /// leads an object has, the next leader takes over.
    #[must_use]
    pub fn works_at(&self, node: NodeId) -> bool {
        let mut sites = self.levels.values().flat_map(|level| &level.sites);
        sites.any(|address| match address {
            Address::Site(site) => site.node == node,
            Address::Leader(_) => false,
        })
    }

    /// Begins the nested action `child`; what it is called in calls is returned.
    ///
    /// # Errors
    /// [`Over`]: the parent has ended, is doomed, is too deep or has too many.
    ///
    /// # Panics
    /// If there is a level named `child`.
    pub fn begin(&mut self, parent: Uid, child: Uid) -> Result<Path, Over> {
        self.check_open(parent)?;
        self.check_room()?;
        let level = self.levels.get_mut(&parent).ok_or(Over::Ended)?;
        if level.path.whole().len() >= PATH_MAX {
            return Err(Over::TooDeep { limit: PATH_MAX });
        }
        level.children += 1;
        let path = level.path.nested(child);
        let earlier = self
            .levels
            .insert(child, Level::new(path.clone(), Some(parent)));
        assert!(earlier.is_none(), "{child} is the name of another action");
        Ok(path)
    }

    /// A call is about to be made in `action`.
    ///
    /// # Errors
    /// [`Over`]: the action has ended, is doomed, or too many calls are under way.
    pub fn calling(&mut self, action: Uid) -> Result<CallKey, Over> {
        self.check_open(action)?;
        if self.calls.len() >= CALLS_MAX {
            let what = "calls under way in one action";
            return Err(Over::TooMany {
                what,
                limit: CALLS_MAX,
            });
        }
        let level = self.levels.get_mut(&action).ok_or(Over::Ended)?;
        level.calls += 1;
        self.calls_begun += 1;
        let (sites, lost) = (Vec::new(), None);
        let key = CallKey(self.calls_begun);
        self.calls.insert(
            key,
            Call {
                action,
                sites,
                lost,
            },
        );
        Ok(key)
    }

    /// The call is about to be sent to this shard, or to whoever leads its object. To be said
    /// before it is, since whatever may have arrived there has to be aborted with the action. Said
    /// again if it goes elsewhere.
    pub fn reaching(&mut self, key: CallKey, site: Address) {
        if let Some(call) = self.calls.get_mut(&key)
            && !call.sites.contains(&site)
        {
            call.sites.push(site);
        }
    }

    /// The call has ended; once for each key.
    pub fn answered(&mut self, key: CallKey, report: &Report, ended: CallEnd) -> Vec<Send> {
        let Some(call) = self.calls.remove(&key) else {
            return Vec::new();
        };
        let reported = report.participants.iter().map(Participant::address);
        let named: BTreeSet<Address> = match ended {
            CallEnd::Unknown => reported.chain(call.sites).collect(),
            CallEnd::Known | CallEnd::Doomed { .. } => reported.collect(),
        };
        self.touch(&named);
        let Some(level) = self.levels.get_mut(&call.action) else {
            return abort_at(call.lost.unwrap_or(call.action), named);
        };
        level.calls -= 1;
        if ended == CallEnd::Unknown {
            level.strays.extend(&named);
        }
        let already = self.doomed(call.action);
        let mut sends = self.absorb(call.action, report);
        sends.extend(match ended {
            CallEnd::Known => Vec::new(),
            CallEnd::Unknown => self.doom(call.action, Doom::Unknown),
            CallEnd::Doomed { victim, why } => self.victim(call.action, victim, why),
        });
        for action in &report.aborted {
            sends.extend(self.note_aborted(call.action, *action));
        }
        if let Some((action, _)) = already {
            sends.extend(abort_at(action, named));
        }
        sends
    }

    /// The level can only abort from now on. Its participants are told at once, so that its
    /// locks go; [`Family::end_nested`] or [`Family::abort`] is still to come. Of an action that
    /// this one is in, whoever runs it, the outermost level here is doomed.
    pub fn doom(&mut self, action: Uid, why: Doom) -> Vec<Send> {
        if self.state != State::Open {
            return Vec::new();
        }
        let level = if self.levels.contains_key(&action) {
            action
        } else if self.path.whole().contains(&action) {
            self.note_beyond(action, why);
            self.base
        } else {
            return Vec::new();
        };
        if self.doomed(level).is_some() {
            return Vec::new();
        }
        let sites = self.below(level);
        if let Some(level) = self.levels.get_mut(&level) {
            level.doomed = Some(why);
        }
        // What is across the boundary has mirrors of its own: only what is here is aborted.
        let named = if self.path.is_enclosed_by(action) {
            level
        } else {
            action
        };
        abort_at(named, sites)
    }

    /// Why the level can only abort, if so: it or one that it is in is doomed.
    #[must_use]
    pub fn doomed(&self, action: Uid) -> Option<(Uid, Doom)> {
        let path = &self.levels.get(&action)?.path;
        path.own().iter().find_map(|uid| {
            let why = self.levels.get(uid)?.doomed?;
            Some((*uid, why))
        })
    }

    /// A nested action ends. An abort is never refused: what is under way in it is given up.
    ///
    /// # Errors
    /// [`Over`], for a commit: it has ended, is doomed or busy; it is to be aborted then.
    pub fn end_nested(&mut self, child: Uid, commit: bool) -> Result<Vec<Send>, Over> {
        let Some(parent) = self.levels.get(&child).and_then(|level| level.parent) else {
            return if commit {
                Err(Over::Ended)
            } else {
                Ok(Vec::new())
            };
        };
        if !commit {
            return Ok(self.abort_nested(child, parent));
        }
        self.check_open(child)?;
        self.check_idle(child)?;
        let level = self.levels.remove(&child).ok_or(Over::Ended)?;
        let message = |address: &Address| Message::Merge {
            action: child,
            parent,
            part: address.object(),
        };
        let sends = level.sites.iter().map(|site| (*site, message(site)));
        let sends = sends.collect();
        if let Some(parent) = self.levels.get_mut(&parent) {
            parent.children -= 1;
            parent.sites.extend(level.sites);
            for (object, leader) in level.led {
                parent.note_led(object, leader);
            }
            parent.aborted.extend(level.aborted);
        }
        Ok(sends)
    }

    fn abort_nested(&mut self, child: Uid, parent: Uid) -> Vec<Send> {
        let sites = self.below(child);
        self.touch(&sites);
        for call in self.calls.values_mut() {
            let level = self.levels.get(&call.action);
            if level.is_some_and(|level| level.path.is_within(child)) {
                call.lost = Some(child);
            }
        }
        // A level that has done nothing itself may have had nested ones that did, and are
        // aborted: whoever has not heard of that by the commit is to hear it then.
        let mut within = self.levels.values();
        let worked = !sites.is_empty()
            || within.any(|level| level.path.is_within(child) && !level.aborted.is_empty());
        self.levels.retain(|_, level| !level.path.is_within(child));
        if let Some(parent) = self.levels.get_mut(&parent) {
            parent.children -= 1;
            if worked {
                parent.aborted.push(child);
            }
        }
        abort_at(child, sites)
    }

    /// The root is to be committed: no call can be made in it any more.
    ///
    /// # Errors
    /// [`Over`]: it has ended, is doomed or busy; it is to be aborted then.
    ///
    /// # Panics
    /// For a branch.
    pub fn commit(&mut self) -> Result<Plan, Over> {
        assert!(!self.branch, "{} is committed by its own runner", self.base);
        self.check_open(self.base)?;
        self.check_idle(self.base)?;
        self.state = State::Asked;
        let root = &self.levels[&self.base];
        let mut live: Vec<Known> = root.sites.iter().map(|site| self.known[site]).collect();
        live.sort_by_key(|known| known.order);
        let decider = |it: &Known| it.participant.decider().is_some();
        let carried = live
            .iter()
            .position(|it| it.participant.joined.part && decider(it));
        let decides = carried.or_else(|| live.iter().position(decider));
        let updating = || live.iter().position(|it| it.participant.joined.updated);
        if live.is_empty() {
            return Ok(Plan::Nothing);
        }
        let coordinator = decides.or_else(updating).unwrap_or(0);
        let coordinator = live.remove(coordinator).participant;
        let decider = coordinator.decider().or_else(|| coordinator.part());
        let others = live.iter().map(|known| known.participant).collect();
        let aborted = root.aborted.clone();
        Ok(Plan::Ask {
            coordinator,
            decider,
            others,
            aborted,
        })
    }

    /// The commit has ended well: tells those that did nothing but aborted work to forget it.
    #[must_use]
    pub fn settled(&mut self) -> Vec<Send> {
        let root = self.levels.remove(&self.base);
        self.state = State::Ended;
        self.levels.clear();
        let live = root.map(|root| root.sites).unwrap_or_default();
        let forget = self.touched.difference(&live).copied().collect();
        abort_at(self.base, forget)
    }

    /// The root is aborted with all below; a branch's level is doomed.
    #[must_use]
    pub fn abort(&mut self) -> Vec<Send> {
        if self.branch {
            return self.doom(self.base, Doom::Program);
        }
        let mut sites = self.below(self.base);
        sites.extend(&self.touched);
        for call in self.calls.values_mut() {
            call.lost = Some(self.base);
        }
        self.state = State::Ended;
        self.levels.clear();
        self.touched.clear();
        abort_at(self.base, sites)
    }

    /// What the answer of a branch's call has to say. What has not ended by then is to be
    /// aborted, so it names that too.
    #[must_use]
    pub fn report(&self) -> Report {
        let levels = self.levels.values();
        let sites: BTreeSet<Address> = levels.flat_map(|level| &level.sites).copied().collect();
        let mut live: Vec<&Known> = sites.iter().map(|site| &self.known[site]).collect();
        live.sort_by_key(|known| known.order);
        let participants = live.iter().map(|known| known.participant).collect();
        let mut aborted: Vec<Uid> = self.beyond.clone();
        let base = self.levels.get(&self.base);
        if base.is_some_and(|base| base.doomed.is_some() || base.calls > 0) {
            aborted.push(self.base);
        }
        let open = self.levels.keys().filter(|uid| **uid != self.base);
        aborted.extend(open);
        aborted.extend(self.levels.values().flat_map(|level| &level.aborted));
        Report {
            participants,
            aborted,
        }
    }

    /// Actions across the boundary that an answer wants aborted, each once: for whoever runs
    /// them, see [`Path::is_enclosed_by`].
    #[must_use]
    pub fn take_outer(&mut self) -> Vec<(Uid, Doom)> {
        std::mem::take(&mut self.outer)
    }

    fn check_open(&self, action: Uid) -> Result<(), Over> {
        if self.state != State::Open || !self.levels.contains_key(&action) {
            return Err(Over::Ended);
        }
        match self.doomed(action) {
            Some((action, why)) => Err(Over::Doomed { action, why }),
            None => Ok(()),
        }
    }

    fn check_room(&self) -> Result<(), Over> {
        let aborted: usize = self.levels.values().map(|level| level.aborted.len()).sum();
        let bounds = [
            (
                "nested actions at the same time",
                self.levels.len(),
                LEVELS_MAX,
            ),
            (
                "aborted nested actions in one top-level action",
                aborted,
                ABORTED_MAX,
            ),
        ];
        let over = bounds.iter().find(|(_, count, limit)| count >= limit);
        match over {
            Some((what, _, limit)) => Err(Over::TooMany {
                what,
                limit: *limit,
            }),
            None => Ok(()),
        }
    }

    fn check_idle(&self, action: Uid) -> Result<(), Over> {
        let level = self.levels.get(&action).ok_or(Over::Ended)?;
        let (calls, children) = (level.calls, level.children);
        match (calls, children) {
            (0, 0) => Ok(()),
            _ => Err(Over::Busy { calls, children }),
        }
    }
}

impl Level {
    fn new(path: Path, parent: Option<Uid>) -> Self {
        Self {
            path,
            parent,
            doomed: None,
            sites: BTreeSet::new(),
            led: BTreeMap::new(),
            strays: BTreeSet::new(),
            aborted: Vec::new(),
            calls: 0,
            children: 0,
        }
    }
}

fn abort_at(action: Uid, sites: BTreeSet<Address>) -> Vec<Send> {
    let message = |address: Address| {
        let part = address.object();
        Message::Abort { action, part }
    };
    let sends = sites.into_iter().map(|site| (site, message(site)));
    sends.collect()
}
