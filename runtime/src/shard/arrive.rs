//! Calls arriving: what is kept of them, and what the engine is told.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::action::path::Membership;
use partha_core::id::{CallId, ClassId, Peer, Uid};
use partha_core::time::Time;
use partha_core::{Input, Invoke, Mode, ObjectSlot, Ticket};
use partha_store::Record;
use partha_wire::{Message, Writer};

use super::catalog::{Active, Catalog};
use super::give_up::Stoppable;
use super::groups::AtCopy;
use super::held::HeldHere;
use super::job::{Incoming, ReplyTo};
use super::{Shard, count};
use crate::abi::{Class, Method};
use crate::action::{Branch, Within};
use crate::config::{CALL_DEADLINE, CALL_DEADLINE_MAX};
use crate::error::{ErrorKind, SystemError};
use crate::net::connection::Held;
use crate::rows::Changes;
use crate::wire::context::{CallContext, TraceId};

/// What the shell keeps of a call until the engine says `Forget`.
pub(super) struct Entry {
    pub(super) object: Uid,
    /// Where the object lies, once the call runs.
    pub(super) slot: Option<ObjectSlot>,
    pub(super) method: &'static Method,
    pub(super) create: Option<ClassId>,
    /// What the parameters count for, until the call is over.
    held: Option<Held>,
    /// The same for its object.
    #[expect(dead_code, reason = "it counts until it is dropped")]
    held_here: Option<HeldHere>,
    pub(super) caller: Peer,
    pub(super) call: Option<CallId>,
    pub(super) deadline: Instant,
    /// Its caller has asked for it before.
    pub(super) again: bool,
    pub(super) trace: TraceId,
    /// Taken by the servant.
    pub(super) parameters: Option<Message>,
    /// Taken by the answer.
    pub(super) reply: Option<ReplyTo>,
    pub(super) outcome: Outcome,
    /// Other tickets wait for the same answer.
    pub(super) joined: bool,
    /// What the call says about actions.
    pub(super) within: Option<Arc<Within>>,
    /// The servant's part of the action, once it runs: says what its calls joined.
    pub(super) branch: Option<Branch>,
    /// The object's state after the call, encoded.
    pub(super) record: Option<Box<Record>>,
    /// What the servant did to rows.
    pub(super) rows: Changes,
    /// The object's state from before this write in an action, encoded.
    pub(super) before: Option<Box<Bytes>>,
    /// It runs in an action.
    pub(super) in_action: bool,
    /// Whoever leads its object next goes on with what actions have of it.
    pub(super) cohort: bool,
    /// Nested actions in which it had called when an earlier leader of its object executed it:
    /// aborted.
    pub(super) lost: Vec<Uid>,
    /// What the other copies of its object are told, if they are to execute it, too.
    pub(super) executed: Option<Box<super::groups::Executed>>,
    /// What it did to a replicated object is at all copies, or surely at none.
    pub(super) replicated: bool,
    /// It reads at a copy that follows.
    pub(super) at_copy: Option<Box<AtCopy>>,
    /// The servant, once it waits for something.
    pub(super) running: Option<Rc<Stoppable>>,
    /// By which a caller on another thread gives it up.
    pub(super) number: Option<u64>,
}

impl Entry {
    /// Whether the call makes the object.
    pub(super) fn makes(&self) -> bool {
        self.create.is_some()
    }

    /// The object that the call runs on.
    pub(super) fn active<'c>(&self, catalog: &'c mut Catalog) -> Option<&'c mut Active> {
        catalog.active_at(self.slot?, self.object)
    }

    /// The object's state from before this write, if it runs in an action and has not ended.
    pub(super) fn before_running(&self) -> Option<&Bytes> {
        let runs = self.in_action && matches!(self.outcome, Outcome::None);
        self.before.as_deref().filter(|_| runs)
    }

    /// The object that a saved reply of this call is of; none where the call makes one.
    pub(super) fn saved_under(&self) -> Option<Uid> {
        self.create.is_none().then_some(self.object)
    }
}

/// What there is to answer.
pub(super) enum Outcome {
    /// Nothing yet.
    None,
    /// A Return frame.
    Frame(Writer),
    /// The servant gave up, or something of ours failed.
    Failed(SystemError),
}

impl Shard {
    /// A call has arrived: its ticket, unless it is refused at once.
    pub(super) fn invoke(self: &Rc<Self>, incoming: Incoming) -> Option<Ticket> {
        count(&self.counters.calls);
        let incoming = match self.has_groups.get() {
            true => self.at_the_door(incoming)?,
            false => incoming,
        };
        self.take_in(incoming, false)
    }

    /// The same of one that may be done here; at a copy that follows, if it is so.
    pub(super) fn take_in(self: &Rc<Self>, incoming: Incoming, at_copy: bool) -> Option<Ticket> {
        match self.admit(&incoming) {
            Ok((invoke, now, mut entry)) => {
                let (is_new, ticket) = (incoming.create.is_some(), invoke.ticket);
                if at_copy {
                    entry.at_copy = Some(Box::new(AtCopy::new(&incoming)));
                    self.note_read(incoming.object, ticket);
                }
                entry.parameters = Some(incoming.parameters);
                entry.held = incoming.held;
                entry.reply = Some(incoming.reply);
                if let Some(number) = entry.number {
                    self.numbers.borrow_mut().insert(number, ticket);
                }
                self.entries.borrow_mut().insert(ticket, entry);
                let input = if is_new {
                    Input::Create(invoke)
                } else {
                    Input::Invoke(invoke)
                };
                self.feed_at(now, input);
                Some(ticket)
            }
            Err(error) => {
                // Who calls from within this process gets what it has written back, to send it on.
                let error = error.giving_back(incoming.parameters);
                incoming.reply.fail(error);
                None
            }
        }
    }

    fn admit(&self, incoming: &Incoming) -> Result<(Invoke, Time, Entry), SystemError> {
        let Incoming {
            object,
            interface,
            method,
            ..
        } = *incoming;
        let parameters = incoming.parameters.reader()?;
        let context = CallContext::of_parameters(parameters)?;
        let (info, volatile) = self.method(object, interface, method)?;
        let (left, now) = (time_left(&context, info), Instant::now());
        let (deadline, now) = (now + left, self.time_of(now));
        let (creating, ticket) = (incoming.create.is_some(), self.ticket());
        let cohort = !creating && self.is_cohort(object) == Some(true);
        let mode = if creating { Mode::Write } else { info.mode };
        let save = mode == Mode::Write
            && !volatile
            && (creating || !info.idempotent)
            && context.call.is_some();
        let (caller, call) = (incoming.caller, context.call);
        let within = context.actions.map(Within::new).map(Arc::new);
        self.check_bound(object, within.as_deref().filter(|_| !creating))?;
        let action = self.membership(within.as_deref(), incoming, volatile)?;
        let bytes = incoming.parameters.segment().len();
        let held_here = self.held.hold(object, bytes)?;
        let invoke = Invoke {
            ticket,
            uid: object,
            caller,
            call,
            mode,
            save,
            volatile,
            cohort,
            deadline: Time(now.0.saturating_add(left.as_nanos() as u64)),
            action,
        };
        let entry = Entry {
            object,
            slot: None,
            method: info,
            create: incoming.create,
            held: None,
            held_here,
            caller,
            call,
            deadline,
            again: context.again,
            trace: context.trace,
            parameters: None,
            reply: None,
            outcome: Outcome::None,
            joined: false,
            within,
            branch: None,
            record: None,
            rows: Changes::new(),
            before: None,
            in_action: false,
            cohort,
            lost: Vec::new(),
            executed: None,
            replicated: false,
            at_copy: None,
            running: None,
            number: incoming.number,
        };
        Ok((invoke, now, entry))
    }

    /// What the engine is to know about the action of a call.
    ///
    /// A transient object takes no part in actions: it has nothing to be undone, and perhaps
    /// runs at a process that nobody can reach later. What its servant calls does.
    fn membership(
        &self,
        within: Option<&Within>,
        incoming: &Incoming,
        volatile: bool,
    ) -> Result<Option<Box<Membership>>, SystemError> {
        let Some(within) = within else {
            return Ok(None);
        };
        if matches!(incoming.reply, ReplyTo::Foreign(_)) {
            let detail = "a plain Cap'n Proto client cannot call in an action; leave the call \
                          context's `actions` empty";
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        let mut membership = within.membership(|until| self.time_of(until));
        if volatile {
            membership.path = membership.path.outside();
        }
        Ok(Some(Box::new(membership)))
    }

    /// What is known of a method, and whether the object is a transient one.
    fn method(
        &self,
        object: Uid,
        interface: ClassId,
        ordinal: u16,
    ) -> Result<(&'static Method, bool), SystemError> {
        let class = self.catalog.borrow().volatile(object).map(Class::info);
        let (method, volatile) = match class {
            Some(info) => {
                let index = info.method(interface, ordinal);
                (index.map(|index| &info.methods[index]), true)
            }
            None => (self.registry.method(interface, ordinal), false),
        };
        let method = method.ok_or_else(|| {
            let here = self.registry.here();
            let whose = class.map_or_else(
                || format!("no class of {here}"),
                |info| format!("{object} at {here} is of class {}, which", info.name),
            );
            let has = if class.is_some() { "has no" } else { "has" };
            let detail = format!("{whose} {has} method {ordinal} of interface {interface}");
            SystemError::new(ErrorKind::BadOperation, detail)
        })?;
        Ok((method, volatile))
    }
}

/// For how long a call may go on: what its caller says, or its method.
fn time_left(context: &CallContext, method: &Method) -> Duration {
    let usual = || method.deadline_us.map(Duration::from_micros);
    let wish = context.deadline.or_else(usual);
    wish.unwrap_or(CALL_DEADLINE).min(CALL_DEADLINE_MAX)
}
