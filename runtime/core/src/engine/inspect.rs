//! What an inspector is shown of actions and locks.

use super::Engine;
use super::view::{ActionPhase, ActionView, HolderView, LockView, WaiterView};
use crate::action::mirror::{Mirror, Phase};
use crate::action::path::Path;
use crate::id::Uid;
use crate::lock::locks::{Holding, LockKey, Request};
use crate::slab::Slot;
use crate::time::Time;

impl Engine {
    /// Each top-level action that has a part here, and each that was decided here and not all
    /// know of, in no special order; for inspection.
    pub fn actions(&self) -> impl Iterator<Item = ActionView> + '_ {
        let here = self.mirrors.iter().map(|(_, mirror)| self.view(mirror));
        let decided = self.decisions.iter().map(|action| ActionView {
            path: Path::top(action),
            phase: ActionPhase::Committing,
            coordinator: Some(self.identity.site()),
            callers: Vec::new(),
            locks: 0,
            objects: 0,
            running: 0,
            pinned: false,
            waiting: 0,
            began: self.now,
            until: Time::NEVER,
        });
        here.chain(decided)
    }

    /// Whether an action, top-level or nested, has a part here that has not ended.
    #[must_use]
    pub fn is_part_of(&self, action: Uid) -> bool {
        self.mirrors.find_level(action).is_some()
    }

    fn view(&self, mirror: &Mirror) -> ActionView {
        let levels = self.mirrors.subtree(mirror.root);
        let levels = levels.iter().map(|slot| self.mirrors.level(*slot));
        let calls = levels.clone().flat_map(|level| &level.calls);
        let runs = |slot: &&Slot| self.calls.leader(**slot).stage.started();
        let running = calls.filter(runs).count();
        let images = levels.flat_map(|level| &level.images);
        let changed = images.filter(|(_, before)| before.changed);
        let mut objects: Vec<Uid> = changed.map(|(uid, _)| *uid).collect();
        objects.sort_unstable();
        objects.dedup();
        let objects = if mirror.stored_only {
            mirror.locks as usize
        } else {
            objects.len()
        };
        ActionView {
            path: mirror.path.clone(),
            phase: match mirror.phase {
                Phase::Active => ActionPhase::Active,
                Phase::Aborting => ActionPhase::Aborting,
                Phase::Preparing { .. } => ActionPhase::Preparing,
                Phase::Prepared { .. } => ActionPhase::Prepared,
                Phase::Installing { .. } => ActionPhase::Installing,
                Phase::Voting(_) => ActionPhase::Voting,
                Phase::Deciding { .. } => ActionPhase::Deciding,
            },
            coordinator: self.coordinator_of(mirror).map(|it| it.site),
            callers: mirror.callers.clone(),
            locks: mirror.locks as usize,
            objects,
            running,
            pinned: mirror.pins > 0,
            waiting: mirror.calls as usize - running,
            began: mirror.began,
            until: mirror.until,
        }
    }

    /// Each locked object with who has it and who waits, in no special order; for inspection.
    pub fn locks(&self) -> impl Iterator<Item = LockView> + '_ {
        self.locks.keys().map(|key| LockView {
            uid: key.uid,
            holders: self
                .locks
                .holders(key)
                .map(|holding| self.holder(key, holding))
                .collect(),
            waiters: self
                .locks
                .waiters(key)
                .map(|request| self.waiter(request))
                .collect(),
        })
    }

    fn holder(&self, key: LockKey, holding: Holding) -> HolderView {
        let Holding {
            owner,
            mode,
            retained,
        } = holding;
        let slot = Slot(owner.index());
        let since = if owner.is_level() {
            self.mirrors.level(slot).locks[&key.uid]
        } else {
            self.calls.leader(slot).since
        };
        HolderView {
            path: self.path_of_owner(owner),
            mode,
            retained,
            since,
            prepared: self.is_prepared(owner),
        }
    }

    fn waiter(&self, request: Request) -> WaiterView {
        let slot = Slot(request.asker.0);
        let mut blockers = Vec::new();
        self.blockers(slot, &mut blockers);
        let blockers = blockers.into_iter();
        WaiterView {
            path: self.path_of_call(slot),
            mode: request.mode,
            caller: self.calls.entry(slot).caller,
            since: self.calls.leader(slot).since,
            blockers: blockers.map(|owner| self.path_of_owner(owner)).collect(),
        }
    }
}
