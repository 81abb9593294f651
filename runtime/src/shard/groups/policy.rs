//! The policy of a group changes while the object is in use.
//!
//! The leader keeps calls out that begin something, lets those in that running actions and methods
//! need to end, and asks for the change when nothing is under way at the object
//! (`partha_core::Engine::is_at_rest`). It is a change of the view like others: the binder keeps
//! the policy beside the members, under the same number. From the question until the answer
//! nothing is let in at all, since nobody knows which of the two holds.
//!
//! | state | calls | goes on |
//! |---|---|---|
//! | Holding | those of actions that have something of the object, and those that a method of it waits for | Asked, at rest; Letting in, after a while |
//! | Letting in | all, so that those who wait for each other through this are found | Holding, after a pause; given up, in the end |
//! | Asked | none | over, when the view is another one |
//!
//! What other processes have bound says which policy they know. A call in an action that knows of
//! another one is told that the object has moved, here, under the number of the view: then it
//! is bound anew.

use std::rc::Rc;
use std::time::{Duration, Instant};

use partha_core::group::Input;
use partha_core::id::Uid;

use super::{Group, Groups};
use crate::action::Within;
use crate::error::{ErrorKind, Result, SystemError};
use crate::moved::Moved;
use crate::services::binder::{GroupPolicy, GroupView};
use crate::shard::{Incoming, Shard};
use crate::wire::context::CallContext;

/// For so long an object is waited for that is in use, in all.
const PATIENCE: Duration = Duration::from_secs(8);
/// Calls are kept out for so long, at most, before the question; at first, and twice as long each
/// time: actions of a busy system take their time to end, and those that wait for each other
/// through this never do.
const HOLD: Duration = Duration::from_millis(300);
const HOLD_MAX: Duration = Duration::from_secs(2);
/// Then they are let in, for so long at first, and longer each time.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(300);
/// Between two looks whether nothing is under way.
const LOOK: Duration = Duration::from_millis(2);
/// Between two questions about the view.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A change of the policy, and how far it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changing {
    to: GroupPolicy,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Holding,
    LettingIn,
    Asked,
}

/// How far a change is, for whoever wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyChange {
    /// The policy is the one that is wanted.
    Done,
    /// Something of the object is in use.
    Waits,
    /// The binder has been asked.
    Asked,
    /// It was in use all the time.
    GivenUp,
    /// This copy does not lead.
    NotLed,
}

impl Group {
    /// What the binder says of the policy, unless it is older than what is known.
    pub(super) fn learn_policy(&mut self, view: &GroupView) {
        if view.number < self.policy_at {
            return;
        }
        (self.policy, self.policy_at) = (Some(view.policy), view.number);
        let done = |it: &mut Changing| it.state == State::Asked && it.to == view.policy;
        self.changing.take_if(done);
    }

    /// Whether the policy is that of the present view, where another leader may have changed it.
    pub(super) fn knows_policy(&self) -> bool {
        self.policy.is_some() && self.policy_at >= self.member.view().number
    }

    /// Whether nothing of it is on its way into the log, or held back.
    fn is_still(&self) -> bool {
        let log = self.adding.is_empty() && self.entries.is_empty() && self.complete.is_empty();
        let held = self.held.is_empty() && self.unsure.is_empty() && self.owed.is_empty();
        log && held && self.part.is_none() && self.resumed.is_none()
    }
}

impl Groups {
    /// What becomes of a change, and calls that it has kept out.
    fn set_changing(&mut self, uid: Uid, changing: Option<Changing>) {
        if let Some(group) = self.by_object.get_mut(&uid) {
            group.changing = changing;
        }
    }
}

impl Shard {
    /// Whether a call has to wait since the policy of its object is about to change.
    pub(super) fn is_kept_out(&self, group: &Group, incoming: &Incoming) -> bool {
        match group.changing.map(|it| it.state) {
            None | Some(State::LettingIn) => false,
            Some(State::Asked) => true,
            Some(State::Holding) => !self.is_needed(incoming),
        }
    }

    /// Whether something that is under way at an object needs this call to end.
    fn is_needed(&self, incoming: &Incoming) -> bool {
        let parameters = incoming.parameters.reader();
        let context = parameters.and_then(CallContext::of_parameters);
        // What cannot be read is refused inside.
        let Ok(context) = context else { return true };
        let Some(actions) = context.actions else {
            return false;
        };
        let uid = incoming.object;
        let engine = self.engine.borrow();
        let has = |root| engine.has_of(root, uid);
        actions.stack.contains(&uid) || actions.path.root().is_some_and(has)
    }

    /// The policy of an object that is led here is to be another one.
    ///
    /// # Errors
    /// `LockTimeout` if it is just about to be yet another one.
    pub(crate) fn begin_policy(self: &Rc<Self>, uid: Uid, to: GroupPolicy) -> Result<()> {
        let mut groups = self.groups.borrow_mut();
        let Some(group) = groups.by_object.get_mut(&uid).filter(|it| it.serves) else {
            return Ok(());
        };
        if let Some(other) = group.changing {
            if other.to == to {
                return Ok(());
            }
            let detail = format!(
                "{uid} at {}: its policy is about to be '{}'; ask again",
                self.registry.here(),
                other.to
            );
            return Err(SystemError::new(ErrorKind::LockTimeout, detail));
        }
        if group.policy == Some(to) {
            return Ok(());
        }
        let state = State::Holding;
        group.changing = Some(Changing { to, state });
        drop(groups);
        tracing::info!(%uid, policy = %to, "the policy of copies is to change");
        let shard = self.clone();
        self.spawn(async move { shard.change_policy(uid, to).await });
        Ok(())
    }

    /// How far that is.
    pub(crate) fn policy_change(&self, uid: Uid, to: GroupPolicy) -> PolicyChange {
        let groups = self.groups.borrow();
        let Some(group) = groups.by_object.get(&uid).filter(|it| it.serves) else {
            return PolicyChange::NotLed;
        };
        match group.changing.map(|it| it.state) {
            Some(State::Asked) => PolicyChange::Asked,
            Some(State::Holding | State::LettingIn) => PolicyChange::Waits,
            None if group.policy == Some(to) => PolicyChange::Done,
            None => PolicyChange::GivenUp,
        }
    }

    async fn change_policy(self: Rc<Self>, uid: Uid, to: GroupPolicy) {
        let until = Instant::now() + PATIENCE;
        let (mut hold, mut pause) = (HOLD, PAUSE);
        while !self.asked_at_rest(uid, to, hold).await {
            let over = Instant::now() >= until;
            if over {
                tracing::info!(%uid, "it is in use: the policy of copies stays");
            }
            let state = State::LettingIn;
            let changing = Some(Changing { to, state }).filter(|_| !over);
            if !self.change_goes_on(uid, changing) || over {
                return;
            }
            tokio::time::sleep(pause).await;
            hold = (2 * hold).min(HOLD_MAX);
            pause = (2 * pause).min(PAUSE_MAX);
            let state = State::Holding;
            if !self.change_goes_on(uid, Some(Changing { to, state })) {
                return;
            }
        }
        // The answer may be lost, and the view be heard of from others, who do not say the policy.
        while self.is_changing(uid) {
            tokio::time::sleep(ASK_AGAIN).await;
            if self.is_changing(uid) {
                self.ask_view(uid);
            }
        }
    }

    /// Waits for so long until nothing is under way at an object, and asks for the change then;
    /// whether that is done, or there is nothing to be asked for any more.
    async fn asked_at_rest(self: &Rc<Self>, uid: Uid, to: GroupPolicy, hold: Duration) -> bool {
        let until = Instant::now() + hold;
        loop {
            let rests = {
                let groups = self.groups.borrow();
                let group = groups.by_object.get(&uid);
                let Some(group) = group.filter(|it| it.serves && it.changing.is_some()) else {
                    return true;
                };
                group.leads() && group.is_still() && self.engine.borrow().is_at_rest(uid)
            };
            if rests {
                let state = State::Asked;
                let changing = Some(Changing { to, state });
                self.groups.borrow_mut().set_changing(uid, changing);
                let policy = to.into();
                self.group_input(uid, Input::Policy { policy });
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The change goes on like this, or is given up, if it is still wanted here; those who were
    /// kept out are let in.
    fn change_goes_on(self: &Rc<Self>, uid: Uid, changing: Option<Changing>) -> bool {
        if !self.is_changing(uid) {
            return false;
        }
        let holds = changing.is_some_and(|it| it.state == State::Holding);
        self.groups.borrow_mut().set_changing(uid, changing);
        if !holds {
            self.release_incoming(uid);
        }
        true
    }

    fn is_changing(&self, uid: Uid) -> bool {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        group.is_some_and(|it| it.serves && it.changing.is_some())
    }

    /// This copy leads no more: what was asked for is done or not, which the next leader knows.
    pub(super) fn forget_change(&self, uid: Uid) {
        self.groups.borrow_mut().set_changing(uid, None);
    }

    /// Refuses a call in an action whose caller knows of another policy: it is to bind the object
    /// anew.
    ///
    /// # Errors
    /// `Moved`, to here.
    pub(in crate::shard) fn check_bound(&self, uid: Uid, within: Option<&Within>) -> Result<()> {
        let in_action = within.filter(|it| it.is_in_action() && self.has_groups.get());
        let Some(within) = in_action else {
            return Ok(());
        };
        let groups = self.groups.borrow();
        let Some(group) = groups.by_object.get(&uid) else {
            return Ok(());
        };
        let takes_over = group.policy.map(GroupPolicy::takes_over);
        if takes_over == Some(within.is_followed()) {
            return Ok(());
        }
        let me = self.registry.me.node;
        let to = Moved {
            node: me,
            addresses: self.client.locator().addresses_of(me),
            moves: group.member.view().number,
        };
        let here = self.registry.here();
        let what = format_args!("{uid} at {here}: its copies have another policy by now");
        Err(SystemError::moved_to(what, to, None))
    }
}
