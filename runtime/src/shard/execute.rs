//! Doing what the engine says.
//!
//! Inputs are queued and handled one after the other, also those that outputs cause at once, so
//! the engine is never entered twice.

use std::rc::Rc;

use partha_core::id::Uid;
use partha_core::time::Time;
use partha_core::{Event, Input, ObjectSlot, Output, Why};

use super::{Shard, count};

/// Why the engine is driven.
enum Cue {
    Input(Input),
    TimeOut,
    GoOn,
}

impl Shard {
    /// Tells the engine what happened and does what it says, until nothing is left to do.
    pub(super) fn feed(self: &Rc<Self>, input: Input) {
        self.drive(None, Cue::Input(input));
    }

    /// The same with a time that was read just now.
    pub(super) fn feed_at(self: &Rc<Self>, now: Time, input: Input) {
        self.drive(Some(now), Cue::Input(input));
    }

    /// The engine's time has come.
    pub(super) fn time_out(self: &Rc<Self>) {
        self.timeout.set(None);
        self.drive(None, Cue::TimeOut);
        self.groups_time_out();
    }

    /// Calls that had to wait have their turn.
    pub(super) fn go_on(self: &Rc<Self>) {
        self.drive(None, Cue::GoOn);
    }

    /// Does what there is to do, and all that comes of it.
    ///
    /// One time serves the first input and those that its outputs cause: they come with it. What
    /// is due by then is looked at when the timer says so.
    fn drive(self: &Rc<Self>, now: Option<Time>, cue: Cue) {
        if self.driving.get() {
            // The drive further up does it.
            if let Cue::Input(input) = cue {
                self.later(input);
            }
            return;
        }
        self.driving.set(true);
        let mut now = now.unwrap_or_else(|| self.now());
        let guard = AbortOnPanic;
        let mut outbox = self.outbox.take();
        match cue {
            Cue::Input(input) => self.engine.borrow_mut().handle(now, input, &mut outbox),
            Cue::TimeOut => self.engine.borrow_mut().handle_timeout(now, &mut outbox),
            Cue::GoOn => {}
        }
        self.execute(&mut outbox);
        let mut ran = 0;
        loop {
            let Some(input) = self.inputs.borrow_mut().pop_front() else {
                if self.run_next(&mut ran) {
                    now = self.now();
                    continue;
                }
                break;
            };
            self.engine.borrow_mut().handle(now, input, &mut outbox);
            self.execute(&mut outbox);
        }
        self.catalog.borrow_mut().forget_failures();
        self.outbox.replace(outbox);
        std::mem::forget(guard);
        self.driving.set(false);
        self.rearm();
    }

    pub(super) fn rearm(&self) {
        let next = self.engine.borrow().next_timeout();
        let next = match self.has_groups.get() {
            true => next
                .into_iter()
                .chain(self.groups.borrow().next_timeout())
                .min(),
            false => next,
        };
        let earlier = match (next, self.timeout.get()) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            self.timeout.set(next);
            self.rearmed.notify_one();
        }
    }

    fn execute(self: &Rc<Self>, outbox: &mut partha_core::Outbox) {
        let mut first = true;
        for output in outbox.drain() {
            match output {
                Output::Search { ticket, call } => self.search_shown(ticket, call),
                Output::Load { uid, slot } => self.load_shown(uid, slot),
                Output::Dispatch {
                    ticket,
                    uid,
                    slot,
                    mode,
                    new: false,
                    action: None,
                } if self.waits_its_turn(uid, mode, std::mem::take(&mut first)) => {
                    self.turns.borrow_mut().push(uid, slot, ticket);
                }
                Output::Dispatch {
                    ticket,
                    uid,
                    slot,
                    mode,
                    new,
                    action,
                } => self.dispatch(ticket, (uid, slot), mode, new, action),
                Output::Flush {
                    ticket,
                    uid,
                    state,
                    reply,
                    create,
                } => self.flush(ticket, uid, state, reply, create),
                Output::Reply {
                    ticket,
                    answer,
                    joined,
                } => self.reply_if_sure(ticket, answer, joined),
                Output::Kill { ticket } => self.kill(ticket),
                Output::Forget { ticket } => self.forget_if_answered(ticket),
                Output::Discard { uid } | Output::Passivate { uid } => self.drop_image(uid),
                Output::Capture { uid, action } => self.capture(uid, action),
                Output::Undo { ticket, uid } => self.undo(ticket, uid),
                Output::Keep {
                    ticket,
                    uid,
                    action,
                } => self.keep(ticket, uid, action),
                Output::Restore { uid, action } => self.restore(uid, action),
                Output::Inherit {
                    uid,
                    child,
                    parent,
                    keep,
                } => self.inherit(uid, child, parent, keep),
                Output::Release { uid, action } => self.release(uid, action),
                Output::Store { job, batch } => self.store(job, *batch),
                Output::Send { to, message } => self.send(to, *message),
                Output::Ended { ticket, end } => self.ended_action(ticket, end),
                Output::Told { ticket, verdict } => self.told(ticket, verdict),
                Output::Event(event) => self.note(event),
                Output::Drained => self.tell_drained(),
                other => self.execute_rarer(other),
            }
        }
    }

    /// What is wanted of few actions.
    fn execute_rarer(self: &Rc<Self>, output: Output) {
        match output {
            Output::SearchDecision {
                job,
                action,
                decider,
            } => self.search_decision(job, action, decider),
            Output::EndPart {
                object,
                action,
                commit,
            } => self.end_part(object, action, commit),
            Output::Checkpoint {
                job,
                object,
                checkpoint,
                replies,
            } => self.add_checkpoint(job, object, &checkpoint, &replies),
            Output::Resume { object, slot } => self.resume(object, slot),
            Output::Watch { caller } => self.watch(caller),
            Output::GoOut { ticket } => self.go_out(ticket),
            Output::Again { ticket, lost } => self.begins_again(ticket, lost),
            about_a_move => self.moving(about_a_move),
        }
    }

    pub(super) fn load(&self, uid: Uid, slot: ObjectSlot) {
        let mut catalog = self.catalog.borrow_mut();
        let replicated = self.is_group(uid);
        let outcome = catalog.load(uid, slot, replicated, &self.registry);
        if replicated {
            self.note_loaded(uid);
        }
        self.later(Input::Loaded { uid, outcome });
    }

    fn tell_drained(&self) {
        if let Some(done) = self.drained.borrow_mut().take() {
            // Whoever asked for the drain may be gone.
            let _ = done.send(());
        }
    }

    /// Queues an input that an output caused.
    pub(super) fn later(&self, input: Input) {
        self.inputs.borrow_mut().push_back(input);
    }

    pub(super) fn drop_image(&self, uid: Uid) {
        self.images.borrow_mut().forget(uid);
        let epoch = self.catalog.borrow_mut().remove(uid);
        if let (Some(epoch), Some(store)) = (epoch, &self.registry.store) {
            store.deactivate(uid, epoch);
        }
        self.registry.elsewhere.dropped(uid);
    }

    fn note(&self, event: Event) {
        match event {
            Event::Activated { uid, epoch } => {
                count(&self.counters.activations);
                tracing::debug!(%uid, %epoch, "activated");
            }
            Event::Passivated { uid, why } => {
                count(&self.counters.passivations);
                if matches!(why, Why::Memory | Why::NoRoom) {
                    count(&self.counters.evictions);
                }
                self.registry.elsewhere.passivated(uid);
                tracing::debug!(%uid, ?why, "passivated");
            }
            Event::Joined { first, .. } => {
                count(&self.counters.duplicates);
                if let Some(entry) = self.entries.borrow_mut().find_mut(first) {
                    entry.joined = true;
                }
            }
            Event::Created { uid } => tracing::debug!(%uid, "created"),
            Event::Fenced { uid } => tracing::warn!(%uid, "a newer activation has written"),
            Event::NotEvicted { uid } => tracing::info!(%uid, "in use, not evicted"),
            Event::Overloaded { what, limit } => tracing::warn!(what, limit, "overloaded"),
            Event::Reborn { old, incarnation } => {
                tracing::info!(%old, %incarnation, "a caller came back in a new life");
            }
            Event::Departed { uid, to, actions } => {
                tracing::info!(%uid, ?to, actions, "moved away");
            }
            Event::Arrived { uid, from, actions } => {
                tracing::info!(%uid, ?from, actions, "moved here");
            }
            Event::InDoubt {
                action,
                coordinator,
            } => tracing::warn!(%action, ?coordinator, "in doubt: waiting for the decision"),
            Event::GaveUp { action, why } => {
                count(&self.counters.aborted);
                tracing::info!(%action, ?why, "an action was aborted here");
            }
            Event::OrphanKilled { uid, why } => {
                count(&self.counters.killed);
                tracing::info!(%uid, ?why, "a servant is stopped, nobody needs its answer");
            }
            Event::DeadlockBroken { victim, length } => {
                count(&self.counters.deadlocks);
                tracing::info!(%victim, length, "a deadlock was broken");
            }
        }
    }
}

/// A panic of the engine or its shell must not be taken for one of the servant or task that it
/// happens beneath: going on would be guessing.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        super::run::die();
    }
}
