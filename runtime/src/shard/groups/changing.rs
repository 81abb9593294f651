//! The policy of a group changes, or another copy comes to lead it, while the object is in use.
//!
//! The leader keeps calls out that begin something, lets those in that running actions and methods
//! need to end, and asks for the change when nothing is under way at the object
//! (`partha_core::Engine::is_at_rest`). It is a change of the view like others: the binder keeps
//! the policy beside the members, under the same number. From the question until the answer
//! nothing is let in at all, since nobody knows which of the two holds; so a call is never turned
//! away, and no action is undone, because of it.
//!
//! | state | calls | goes on |
//! |---|---|---|
//! | Holding | those of actions that have something of the object, and those that a method of it waits for | Asked, at rest; Letting in, after a while |
//! | Letting in | all, so that those who wait for each other through this are found | Holding, after a pause; given up, in the end |
//! | Asked | none | over, when the view is another one; given up, if who is to lead is no member any more |
//!
//! What other processes have bound says which policy they know. A call in an action that knows of
//! another one is told that the object has moved, here, under the number of the view: then it
//! is bound anew.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use partha_core::group::Input;
use partha_core::id::{NodeId, Uid};

use super::Group;
use crate::action::Within;
use crate::error::{ErrorKind, Result, SystemError};
use crate::moved::Moved;
use crate::services::binder::{GroupPolicy, GroupView};
use crate::shard::{Incoming, Shard};
use crate::wire::context::CallContext;

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

/// What a group is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Its copies keep up with each other in this way.
    Policy(GroupPolicy),
    /// The copy at this node leads.
    Lead(NodeId),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(policy) => write!(f, "its policy is about to be '{policy}'"),
            Self::Lead(node) => write!(f, "its copy at node {node} is about to lead"),
        }
    }
}

/// A change of a group, and how far it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changing {
    goal: Goal,
    /// Which change it is: what was begun for an earlier one has nothing to do with it.
    number: u64,
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
pub(crate) enum Progress {
    /// It is as it is wanted, in the view of this number.
    Done(u64),
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
        let wanted = Goal::Policy(view.policy);
        let done = |it: &mut Changing| it.state == State::Asked && it.goal == wanted;
        self.changing.take_if(done);
    }

    /// Whether the policy is that of the present view, where another leader may have changed it.
    pub(super) fn knows_policy(&self) -> bool {
        self.policy.is_some() && self.policy_at >= self.member.view().number
    }

    /// Whether it is what it is to become.
    fn has_become(&self, goal: Goal) -> bool {
        match goal {
            Goal::Policy(policy) => self.serves && self.policy == Some(policy),
            Goal::Lead(node) => self.member.view().leader() == node,
        }
    }

    /// Whether it cannot become that any more.
    fn never_becomes(&self, goal: Goal) -> bool {
        match goal {
            Goal::Policy(_) => false,
            Goal::Lead(node) => !self.member.view().has(node),
        }
    }

    /// Whether nothing of it is on its way into the log, or held back.
    fn is_still(&self) -> bool {
        let log = self.adding.is_empty() && self.entries.is_empty() && self.complete.is_empty();
        let held = self.held.is_empty() && self.unsure.is_empty() && self.owed.is_empty();
        log && held && self.part.is_none() && self.resumed.is_none()
    }
}

impl Shard {
    /// Whether a call has to wait since the policy of its object, or who leads it, is about to be
    /// another one.
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

    /// An object that is led here is to become something else; it is waited for, if it is in use,
    /// for so long.
    ///
    /// # Errors
    /// `LockTimeout` if it is just about to become yet something else.
    pub(crate) fn begin_change(
        self: &Rc<Self>,
        uid: Uid,
        goal: Goal,
        patience: Duration,
    ) -> Result<()> {
        let mut groups = self.groups.borrow_mut();
        groups.changes += 1;
        let number = groups.changes;
        let Some(group) = groups.by_object.get_mut(&uid).filter(|it| it.serves) else {
            return Ok(());
        };
        if let Some(other) = group.changing {
            if other.goal == goal {
                return Ok(());
            }
            let here = self.registry.here();
            let detail = format!("{uid} at {here}: {}; ask again", other.goal);
            return Err(SystemError::new(ErrorKind::LockTimeout, detail));
        }
        if group.has_become(goal) || group.never_becomes(goal) {
            return Ok(());
        }
        let changing = Changing {
            goal,
            number,
            state: State::Holding,
        };
        group.changing = Some(changing);
        drop(groups);
        tracing::info!(%uid, ?goal, "copies are to change");
        let shard = self.clone();
        self.spawn(async move { shard.change(uid, changing, patience).await });
        Ok(())
    }

    /// How far that is.
    pub(crate) fn progress(&self, uid: Uid, goal: Goal) -> Progress {
        let groups = self.groups.borrow();
        let Some(group) = groups.by_object.get(&uid) else {
            return Progress::NotLed;
        };
        let changing = group.changing.filter(|it| it.goal == goal && group.serves);
        match changing.map(|it| it.state) {
            Some(State::Asked) => Progress::Asked,
            Some(State::Holding | State::LettingIn) => Progress::Waits,
            None if group.has_become(goal) => Progress::Done(group.member.view().number),
            None if group.serves => Progress::GivenUp,
            None => Progress::NotLed,
        }
    }

    async fn change(self: Rc<Self>, uid: Uid, mut changing: Changing, patience: Duration) {
        let until = Instant::now() + patience;
        let (mut hold, mut pause) = (HOLD, PAUSE);
        while !self
            .asked_at_rest(uid, &mut changing, hold.min(patience))
            .await
        {
            if Instant::now() >= until {
                tracing::info!(%uid, goal = ?changing.goal, "it is in use, and stays as it is");
                return self.give_change_up(uid, changing);
            }
            changing.state = State::LettingIn;
            if !self.change_goes_on(uid, changing) {
                return;
            }
            self.release_incoming(uid);
            tokio::time::sleep(pause).await;
            hold = (2 * hold).min(HOLD_MAX);
            pause = (2 * pause).min(PAUSE_MAX);
            changing.state = State::Holding;
            if !self.change_goes_on(uid, changing) {
                return;
            }
        }
        // The answer may be lost, and the view be heard of from others, who do not say the policy.
        while self.is_changing(uid, changing) {
            tokio::time::sleep(ASK_AGAIN).await;
            let never = {
                let groups = self.groups.borrow();
                let group = groups.by_object.get(&uid);
                group.is_some_and(|it| it.never_becomes(changing.goal))
            };
            if never {
                return self.give_change_up(uid, changing);
            }
            if self.is_changing(uid, changing) {
                self.ask_view(uid);
            }
        }
    }

    /// Waits for so long until nothing is under way at an object, and asks for the change then;
    /// whether that is done, or there is nothing to be asked for any more.
    async fn asked_at_rest(
        self: &Rc<Self>,
        uid: Uid,
        changing: &mut Changing,
        hold: Duration,
    ) -> bool {
        let until = Instant::now() + hold;
        loop {
            if !self.is_changing(uid, *changing) {
                return true;
            }
            if self.is_quiet(uid) {
                changing.state = State::Asked;
                self.change_goes_on(uid, *changing);
                let input = match changing.goal {
                    Goal::Policy(policy) => Input::Policy {
                        policy: policy.into(),
                    },
                    Goal::Lead(to) => Input::HandOver { to },
                };
                self.group_input(uid, input);
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether an object is led here, and nothing is under way at it.
    fn is_quiet(&self, uid: Uid) -> bool {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid);
        let quiet = group.is_some_and(|it| it.leads() && it.is_still());
        quiet && self.engine.borrow().is_at_rest(uid)
    }

    /// The change is that far now; whether it is still wanted here.
    fn change_goes_on(&self, uid: Uid, changing: Changing) -> bool {
        let goes_on = self.is_changing(uid, changing);
        if let Some(group) = self
            .groups
            .borrow_mut()
            .by_object
            .get_mut(&uid)
            .filter(|_| goes_on)
        {
            group.changing = Some(changing);
        }
        goes_on
    }

    /// Nothing comes of a change; those who were kept out are let in.
    fn give_change_up(self: &Rc<Self>, uid: Uid, changing: Changing) {
        if self.is_changing(uid, changing) {
            self.forget_change(uid);
            self.release_incoming(uid);
        }
    }

    fn is_changing(&self, uid: Uid, changing: Changing) -> bool {
        let groups = self.groups.borrow();
        let group = groups.by_object.get(&uid).filter(|it| it.serves);
        let present = group.and_then(|it| it.changing);
        present.is_some_and(|it| it.number == changing.number)
    }

    /// This copy leads no more: what was asked for is done or not, which the next leader knows.
    pub(super) fn forget_change(&self, uid: Uid) {
        if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
            group.changing = None;
        }
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
            addresses: self.client.locator().addresses(me),
            moves: group.member.view().number,
        };
        let here = self.registry.here();
        let what = format_args!("{uid} at {here}: its copies have another policy by now");
        Err(SystemError::moved_to(what, to, None))
    }
}
