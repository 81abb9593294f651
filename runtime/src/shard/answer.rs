//! Answering callers: with what a servant said, what another ticket's did, what was saved, or why
//! there is nothing.

use std::rc::Rc;

use partha_core::action::path::{Joined, Participant};
use partha_core::action::scope::Report;
use partha_core::id::{CallId, Uid};
use partha_core::{Answer, GaveUp, Refusal, Ticket};
use partha_wire::{Message, Writer};

use super::arrive::{Entry, Outcome};
use super::entries::Entries;
use super::job::{ReplyTo, send};
use super::{Shard, count, saved};
use crate::abi::Method;
use crate::action::{Branch, Within, describe_cycle, is_call};
use crate::error::{Completed, ErrorKind, SystemError};
use crate::net::pending;
use crate::wire::frame;

impl Shard {
    pub(super) fn reply(self: &Rc<Self>, ticket: Ticket, answer: Answer, joined: Option<Joined>) {
        let mut entries = self.entries.borrow_mut();
        let Some(reply) = entries
            .find_mut(ticket)
            .and_then(|entry| entry.reply.take())
        else {
            return;
        };
        match answer {
            Answer::Outcome => {
                let entry = entries.find_mut(ticket).expect("it was there just now");
                let report = self.report_of(joined, entry);
                answer_with(reply, &mut entry.outcome, entry.joined, report);
            }
            Answer::SameAs(first) => match asked_again(&mut entries, ticket, first) {
                Some(Ok(first)) => {
                    let report = self.report_of(joined, first);
                    answer_with(reply, &mut first.outcome, true, report);
                }
                Some(Err(error)) => reply.fail(error),
                None => {
                    let detail = "the first call's answer is gone";
                    let error = SystemError::new(ErrorKind::Internal, detail);
                    reply.fail(error.completed(Completed::Maybe));
                }
            },
            Answer::Saved(call) => {
                count(&self.counters.duplicates);
                let entry = entries.find(ticket).expect("it was there just now");
                let (method, object) = (entry.method, entry.saved_under());
                drop(entries);
                self.answer_saved(reply, call, method, object);
            }
            Answer::Refused(refusal) => {
                let entry = entries.find_mut(ticket).expect("it was there just now");
                let error = match refusal {
                    Refusal::Moved => self.moved_away(entry),
                    _ => self.refused(entry, refusal),
                };
                let report = self.report_of(joined, entry);
                reply.fail_reporting(error, report);
            }
        }
    }

    /// What the answer of a call in an action says of it: this shard's part, and those that the
    /// servant's own calls joined.
    pub(super) fn report_of(&self, joined: Option<Joined>, ran: &Entry) -> Option<Box<Report>> {
        let below = ran.branch.as_ref().map(Branch::report);
        if joined.is_none() && below.is_none() {
            return None;
        }
        let mut report = below.unwrap_or_default();
        report.aborted.extend(&ran.lost);
        if let Some(joined) = joined {
            report.participants.push(Participant {
                site: self.site(),
                incarnation: self.registry.me.incarnation,
                joined,
            });
        }
        Some(Box::new(report))
    }

    /// `object` is none where the call makes one: a repeated request proposes another uid.
    fn answer_saved(
        &self,
        reply: ReplyTo,
        call: CallId,
        method: &'static Method,
        object: Option<Uid>,
    ) {
        let saved = match &self.registry.store {
            Some(store) => store.read_reply(call).map_err(|error| error.to_string()),
            None => Ok(None),
        };
        match saved {
            Ok(Some(saved)) if object.is_some_and(|object| object != saved.uid) => {
                reply.fail(reused(call, &format!("a call of object {}", saved.uid)));
            }
            Ok(Some(saved)) => match saved::decode(&saved.body) {
                Some((of, framed)) if of.is(method) => answer_as_saved(reply, framed.to_vec()),
                Some((of, _)) => {
                    let known = self.registry.method(of.interface, of.ordinal);
                    let name = known.map_or("another method", |method| method.name);
                    reply.fail(reused(call, &format!("a call of {name}")));
                }
                None => {
                    let detail = format!("the saved reply of call {call} is of another version");
                    let error = SystemError::new(ErrorKind::Store, detail);
                    reply.fail(error.completed(Completed::Yes));
                }
            },
            Ok(None) => {
                let detail = format!("the saved reply of call {call} has just expired");
                let error = SystemError::new(ErrorKind::Deadline, detail);
                reply.fail(error.completed(Completed::Yes));
            }
            Err(text) => {
                let detail = format!("the saved reply of call {call} cannot be read: {text}");
                let error = SystemError::new(ErrorKind::Store, detail);
                reply.fail(error.completed(Completed::Maybe));
            }
        }
    }

    /// The object has gone to another node, and the call has to go there.
    fn moved_away(&self, entry: &mut Entry) -> SystemError {
        let to = match self.is_group(entry.object) {
            true => self.led_elsewhere(entry.object).map(Some),
            false => self.forward(entry.object),
        };
        match to {
            Ok(Some(to)) => {
                let Entry { object, method, .. } = entry;
                let here = self.registry.here();
                let what = format!("{} of {object} at {here}", method.name);
                SystemError::moved_to(what, to, entry.parameters.take())
            }
            // It has come back in the meantime, or gone for good.
            Ok(None) => self.refused(entry, Refusal::NoSuchObject),
            Err(error) => error,
        }
    }

    fn refused(&self, entry: &Entry, refusal: Refusal) -> SystemError {
        let Entry { object, method, .. } = entry;
        let here = self.registry.here();
        let error = |kind, text: String| {
            SystemError::new(
                kind,
                format!("{} of {object} at {here}: {text}", method.name),
            )
        };
        match refusal {
            Refusal::NoSuchObject => error(
                ErrorKind::NoSuchObject,
                "the node does not have the object".to_owned(),
            ),
            Refusal::Moved => error(ErrorKind::Moved, "the object is not here".to_owned()),
            Refusal::Malformed { what } => error(ErrorKind::Malformed, what.to_owned()),
            Refusal::Exists => error(ErrorKind::Internal, "the uid is taken".to_owned()),
            Refusal::Overloaded { what, limit } => {
                error(ErrorKind::Overloaded, format!("{what}: more than {limit}"))
            }
            Refusal::Deadline { started: false } => self.waited(entry, &error),
            Refusal::Deadline { started: true } => error(
                ErrorKind::Deadline,
                "the call did not end before its deadline".to_owned(),
            )
            .completed(Completed::Maybe),
            Refusal::Draining => error(ErrorKind::Draining, "the node is shutting down".to_owned()),
            Refusal::OldIncarnation { known } => {
                let text = format!("incarnation {known} of the caller is known already");
                error(ErrorKind::OldIncarnation, text)
            }
            Refusal::CallIdReused => {
                let text = "the call id was used for a call of another object".to_owned();
                error(ErrorKind::BadOperation, text)
            }
            Refusal::LockTimeout { owner, in_doubt } => self.lock_timeout(owner, in_doubt, &error),
            Refusal::Deadlock { victim, cycle } => {
                error(ErrorKind::Deadlock, describe_cycle(victim, &cycle)).with_victim(Some(victim))
            }
            Refusal::Reentrant { owner } => {
                let text = format!(
                    "{} has the object and waits for this very call; an object cannot be called \
                     by what it waits for",
                    described(owner)
                );
                error(ErrorKind::Reentrant, text)
            }
            Refusal::ActionAborted { action, why } => {
                let text = format!("action {action} is aborted here{}", because(why));
                error(ErrorKind::ActionAborted, text).with_victim(Some(action))
            }
            Refusal::Killed => {
                let text = "it was stopped, since nobody waited for it, just when it was asked for \
                            again; nothing of it stays at the object";
                error(ErrorKind::Orphaned, text.to_owned()).completed(Completed::Maybe)
            }
            Refusal::Repeated => {
                let text = "the call was executed in this action before, and its answer is lost";
                error(ErrorKind::ActionAborted, text.to_owned())
            }
            Refusal::Store(_) => match &entry.outcome {
                Outcome::Failed(failure) => failure.clone(),
                Outcome::None | Outcome::Frame(_) => {
                    let failure = self.catalog.borrow().failure(*object);
                    failure
                        .unwrap_or_else(|| error(ErrorKind::Store, "the store failed".to_owned()))
                }
            },
        }
    }
}

/// Says what a refused call was, before the reason.
type Say<'a> = dyn Fn(ErrorKind, String) -> SystemError + 'a;

impl Shard {
    /// The call has waited until its deadline, most likely for whoever has the object.
    fn waited(&self, entry: &Entry, error: &Say<'_>) -> SystemError {
        let holder = self.engine.borrow().lock_owner(entry.object);
        let in_action = entry.within.as_deref().is_some_and(Within::is_in_action);
        match holder {
            Some((owner, true)) => self.lock_timeout(owner, true, error),
            Some((owner, false)) => {
                let kind = match in_action {
                    true => ErrorKind::LockTimeout,
                    false => ErrorKind::Deadline,
                };
                let owner = described(owner);
                let text = format!("the call waited until its deadline; {owner} has the object");
                error(kind, text)
            }
            None => {
                let text = "the call waited until its deadline".to_owned();
                error(ErrorKind::Deadline, text)
            }
        }
    }

    /// `owner` has had the lock for as long as a call may wait for one.
    fn lock_timeout(&self, owner: Uid, in_doubt: bool, error: &Say<'_>) -> SystemError {
        if !in_doubt {
            let owner = described(owner);
            let text = format!("waited for the lock that {owner} has, for as long as is allowed");
            return error(ErrorKind::LockTimeout, text);
        }
        let engine = self.engine.borrow();
        let mut views = engine.actions();
        let view = views.find(|view| view.path.root() == Some(owner));
        let decides = match view.and_then(|view| view.coordinator) {
            Some(site) => format!("shard {} of node {}", site.shard, site.node),
            None => "its coordinator".to_owned(),
        };
        let text = format!(
            "action {owner} has changed the object and is in doubt: {decides} has to say whether \
             it is committed, and does not answer"
        );
        error(ErrorKind::InDoubt, text)
    }
}

/// Who has a lock, in words.
fn described(owner: Uid) -> String {
    match is_call(owner) {
        true => format!("a call outside actions ({owner})"),
        false => format!("action {owner}"),
    }
}

/// The first request for a call, if the second one asks for the same.
fn asked_again(
    entries: &mut Entries,
    second: Ticket,
    first: Ticket,
) -> Option<Result<&mut Entry, SystemError>> {
    let asked = entries.find(second).map(|entry| entry.method)?;
    let entry = entries.find_mut(first)?;
    if std::ptr::eq(asked, entry.method) {
        return Some(Ok(entry));
    }
    let call = entry.call?;
    let what = format!("a call of {}", entry.method.name);
    Some(Err(reused(call, &what)))
}

fn reused(call: CallId, what: &str) -> SystemError {
    let detail = format!(
        "call id {call} was used for {what}; ask again with the same method and arguments, or \
         use a new call id"
    );
    SystemError::new(ErrorKind::BadOperation, detail)
}

/// Answers with an outcome, taking it unless it is needed again.
fn answer_with(reply: ReplyTo, outcome: &mut Outcome, keep: bool, report: Option<Box<Report>>) {
    match outcome {
        Outcome::None => {
            let error = SystemError::new(ErrorKind::Internal, "an answer without an outcome");
            reply.fail_reporting(error.completed(Completed::Maybe), report);
        }
        Outcome::Failed(error) => reply.fail_reporting(error.clone(), report),
        // Long byte strings are shared by the two.
        Outcome::Frame(w) if keep && (report.is_some() || w.is_sharing()) => {
            answer_writer(reply, w.clone(), report);
        }
        Outcome::Frame(w) if keep => match w.to_framed() {
            Ok(framed) => answer_framed(reply, framed),
            Err(error) => reply.fail(SystemError::from(error).completed(Completed::Yes)),
        },
        Outcome::Frame(_) => {
            if let Outcome::Frame(w) = std::mem::replace(outcome, Outcome::None) {
                answer_writer(reply, w, report);
            }
        }
    }
}

/// Answers with a Return frame.
pub(super) fn answer_writer(reply: ReplyTo, mut w: Writer, report: Option<Box<Report>>) {
    match reply {
        ReplyTo::Connection { question: 0, .. } => {}
        ReplyTo::Connection {
            connection,
            question,
        } => {
            if let Some(report) = &report {
                frame::set_report(&mut w, report);
            }
            if let Err(error) = connection.answer(w, question) {
                let error = error.completed(Completed::Yes);
                connection.fail_reporting(&error, report.as_deref(), question);
            }
        }
        ReplyTo::Channel(sender) | ReplyTo::Foreign(sender) => {
            let slot = frame::body(&w);
            let answer = w.into_message().map(|message| message.into_rooted(slot));
            // A receiver that is gone has stopped waiting: nothing is lost.
            let outcome = answer.map_err(|e| SystemError::from(e).completed(Completed::Yes));
            let _ = sender.send(pending::Answer { outcome, report });
        }
    }
}

/// Answers with a saved Return frame: an error, too, and with a report, if it is of a call in an
/// action.
fn answer_as_saved(reply: ReplyTo, framed: Vec<u8>) {
    match reply {
        ReplyTo::Connection { .. } => answer_framed(reply, framed),
        ReplyTo::Channel(sender) | ReplyTo::Foreign(sender) => {
            let answer = match frame::parse(framed.into()) {
                Ok(frame::Frame::Return(returned)) => returned.answer,
                Ok(_) => {
                    let error = SystemError::new(ErrorKind::Store, "a saved reply is none");
                    error.completed(Completed::Yes).into()
                }
                Err(error) => SystemError::from(error).completed(Completed::Yes).into(),
            };
            // A receiver that is gone has stopped waiting: nothing is lost.
            let _ = sender.send(answer);
        }
    }
}

fn answer_framed(reply: ReplyTo, framed: Vec<u8>) {
    match reply {
        ReplyTo::Connection { question: 0, .. } => {}
        ReplyTo::Connection {
            connection,
            question,
        } => send(&connection, framed, question),
        ReplyTo::Channel(sender) | ReplyTo::Foreign(sender) => {
            let answer = Message::from_framed(framed.into(), Vec::new());
            let slot = frame::RETURN_BODY;
            let answer = answer
                .map(|message| message.into_rooted(slot))
                .map_err(|error| SystemError::from(error).completed(Completed::Yes));
            // A receiver that is gone has stopped waiting: nothing is lost.
            let _ = sender.send(answer.into());
        }
    }
}

/// Why an action is aborted, where this shard did it on its own.
fn because(why: Option<GaveUp>) -> &'static str {
    match why {
        None => "",
        Some(GaveUp::CallerGone) => ", since a process that had called in it is gone",
        Some(GaveUp::Expired) => ", since its time was up",
        Some(GaveUp::Expelled) => ", since an object that it had locked is led elsewhere now",
        Some(GaveUp::OldIncarnation) => {
            ", since the process that began it was started again meanwhile"
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use partha_core::id::{Incarnation, NodeId, Peer};

    use super::*;
    use crate::net::asker::Asker;
    use crate::net::connection::Connection;
    use crate::net::handshake::Hello;
    use crate::net::links::Lease;
    use crate::net::traffic::Traffic;

    #[tokio::test]
    async fn a_large_answer_that_is_kept_is_not_copied() {
        let peer = Peer {
            node: NodeId(3),
            incarnation: Incarnation(1),
        };
        let hello = Hello::new(peer, "other", 0, 1, NodeId(0));
        let (lease, traffic) = (Lease::default(), Traffic::default());
        let connection = Connection::new(hello, "nowhere".to_owned(), lease, traffic);
        let data = Bytes::from(vec![1; 1 << 20]);
        let mut w = frame::returned();
        let s = w.structure(frame::body(&w), 0, 1);
        w.bytes(s.slot(0), &data);
        let mut outcome = Outcome::Frame(w);
        for question in [1, 2] {
            let reply = ReplyTo::Connection {
                connection: Asker::new(&connection),
                question,
            };
            answer_with(reply, &mut outcome, true, None);
        }
        let batch = connection.next_batch().await;
        let part = batch.last().unwrap();
        assert!(data.as_ptr_range().contains(&part.as_ptr()));
        assert!(matches!(outcome, Outcome::Frame(_)), "it is kept");
    }
}
