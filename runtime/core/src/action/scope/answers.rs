//! What the answers of calls say, and where a level has been.

use std::collections::BTreeSet;

use super::{ABORTED_MAX, Doom, Family, Known, Level, PARTICIPANTS_MAX, Report, Send};
use crate::action::path::Address;
use crate::id::Uid;

impl Family {
    /// Notes the participants that an answer names, for the level of its call.
    pub(super) fn absorb(&mut self, action: Uid, report: &Report) -> Vec<Send> {
        let mut lost = Vec::new();
        let mut too_much = report.aborted.len() > ABORTED_MAX;
        for participant in &report.participants {
            let order = self.known.len();
            let address = participant.address();
            match self.known.get_mut(&address) {
                Some(known) if known.participant.is_same_mirror(participant) => {
                    known.participant.joined.merge(participant.joined);
                }
                Some(known) => {
                    known.participant = *participant;
                    lost.push(address);
                }
                None if order >= PARTICIPANTS_MAX => {
                    too_much = true;
                    continue;
                }
                None => {
                    let participant = *participant;
                    self.known.insert(address, Known { participant, order });
                }
            }
            if !lost.contains(&address)
                && let Some(level) = self.levels.get_mut(&action)
            {
                level.sites.insert(address);
            }
        }
        let mut sends = Vec::new();
        for site in lost {
            sends.extend(self.lost(action, site));
        }
        if too_much {
            sends.extend(self.doom(self.base, Doom::TooMuch));
        }
        sends
    }

    /// The mirror at `site` is another one than before; the call in `action` has met it.
    fn lost(&mut self, action: Uid, site: Address) -> Vec<Send> {
        let at = self.known[&site].participant.site;
        let has_worked = |level: &&Level| level.sites.contains(&site);
        let levels = self.levels.values().filter(has_worked);
        let levels: Vec<Uid> = levels.filter_map(|level| level.path.leaf()).collect();
        let alive = |uid: &Uid| self.doomed(*uid).is_none();
        let alive: Vec<Uid> = levels.into_iter().filter(alive).collect();
        let mut sends = Vec::new();
        if let Some(level) = self.levels.get_mut(&action) {
            level.sites.insert(site);
        }
        for level in alive {
            sends.extend(self.doom(level, Doom::Lost(at)));
        }
        sends
    }

    /// An answer to a call in `call` says that `action` was or is to be aborted.
    pub(super) fn note_aborted(&mut self, call: Uid, action: Uid) -> Vec<Send> {
        if self.levels.contains_key(&action) || self.path.whole().contains(&action) {
            return self.victim(call, action, Doom::Below);
        }
        if self.check_room().is_err() {
            return self.doom(self.base, Doom::TooMuch);
        }
        if let Some(level) = self.levels.get_mut(&call)
            && !level.aborted.contains(&action)
        {
            level.aborted.push(action);
        }
        Vec::new()
    }

    pub(super) fn victim(&mut self, call: Uid, victim: Uid, why: Doom) -> Vec<Send> {
        let path = self.levels.get(&call).map(|level| &level.path);
        let concerns = path.is_some_and(|path| path.whole().contains(&victim));
        self.doom(if concerns { victim } else { call }, why)
    }

    pub(super) fn note_beyond(&mut self, action: Uid, why: Doom) {
        if self.beyond.contains(&action) {
            return;
        }
        self.beyond.push(action);
        if self.path.is_enclosed_by(action) {
            self.outer.push((action, why));
        }
    }

    /// Every place where the level or one below it has worked or may have.
    pub(super) fn below(&self, action: Uid) -> BTreeSet<Address> {
        let mut sites = BTreeSet::new();
        for level in self.levels.values() {
            if level.path.is_within(action) {
                sites.extend(&level.sites);
                sites.extend(&level.strays);
            }
        }
        for call in self.calls.values() {
            let level = self.levels.get(&call.action);
            if level.is_some_and(|level| level.path.is_within(action)) {
                sites.extend(&call.sites);
            }
        }
        sites
    }

    pub(super) fn touch(&mut self, sites: &BTreeSet<Address>) {
        for site in sites {
            // Over the bound an empty mirror somewhere waits for the end of its time.
            if self.touched.len() < 2 * PARTICIPANTS_MAX {
                self.touched.insert(*site);
            }
        }
    }
}
