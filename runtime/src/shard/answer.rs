//! Answering callers: with what a servant said, what another ticket's did, what was saved, or why
//! there is nothing.

use std::rc::Rc;

use partha_core::id::{CallId, Uid};
use partha_core::{Answer, Refusal, Ticket};
use partha_wire::{Message, Writer};

use super::execute::{Entry, Outcome};
use super::job::{ReplyTo, send};
use super::{Shard, count, saved};
use crate::abi::Method;
use crate::error::{Completed, ErrorKind, SystemError};
use crate::hash::IdMap;
use crate::wire::frame;

impl Shard {
    pub(super) fn reply(self: &Rc<Self>, ticket: Ticket, answer: Answer) {
        let mut entries = self.entries.borrow_mut();
        let Some(reply) = entries
            .get_mut(&ticket)
            .and_then(|entry| entry.reply.take())
        else {
            return;
        };
        match answer {
            Answer::Outcome => {
                let entry = entries.get_mut(&ticket).expect("it was there just now");
                answer_with(reply, &mut entry.outcome, entry.joined);
            }
            Answer::SameAs(first) => match asked_again(&mut entries, ticket, first) {
                Some(Ok(outcome)) => answer_with(reply, outcome, true),
                Some(Err(error)) => reply.fail(error),
                None => {
                    let detail = "the first call's answer is gone";
                    reply.fail(SystemError::new(ErrorKind::Internal, detail));
                }
            },
            Answer::Saved(call) => {
                count(&self.counters.duplicates);
                let entry = entries.get(&ticket).expect("it was there just now");
                let (method, object) = (entry.method, entry.saved_under());
                drop(entries);
                self.answer_saved(reply, call, method, object);
            }
            Answer::Refused(refusal) => {
                let entry = entries.get(&ticket).expect("it was there just now");
                let error = self.refused(entry, refusal);
                reply.fail(error);
            }
        }
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
                Some((of, framed)) if of.is(method) => answer_framed(reply, framed.to_vec()),
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
            Refusal::Exists => error(ErrorKind::Internal, "the uid is taken".to_owned()),
            Refusal::Overloaded { what, limit } => {
                error(ErrorKind::Overloaded, format!("{what}: more than {limit}"))
            }
            Refusal::Deadline { started: false } => error(
                ErrorKind::Deadline,
                "the call waited until its deadline".to_owned(),
            ),
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
            Refusal::LockTimeout { owner, .. } => error(
                ErrorKind::Overloaded,
                format!("waited too long for a lock of {owner}"),
            ),
            Refusal::Deadlock { victim, .. } => {
                error(ErrorKind::Overloaded, format!("deadlock; victim {victim}"))
            }
            Refusal::Reentrant { owner } => {
                error(ErrorKind::BadOperation, format!("re-entry of {owner}"))
            }
            Refusal::ActionAborted { action } => {
                error(ErrorKind::Internal, format!("action {action} is aborted"))
            }
            Refusal::Repeated => error(ErrorKind::Internal, "executed before".to_owned()),
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

/// The outcome of the first request for a call, if the second one asks for the same.
fn asked_again(
    entries: &mut IdMap<Ticket, Entry>,
    second: Ticket,
    first: Ticket,
) -> Option<Result<&mut Outcome, SystemError>> {
    let asked = entries.get(&second).map(|entry| entry.method)?;
    let entry = entries.get_mut(&first)?;
    if std::ptr::eq(asked, entry.method) {
        return Some(Ok(&mut entry.outcome));
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
fn answer_with(reply: ReplyTo, outcome: &mut Outcome, keep: bool) {
    match outcome {
        Outcome::None => {
            reply.fail(SystemError::new(
                ErrorKind::Internal,
                "an answer without an outcome",
            ));
        }
        Outcome::Failed(error) => reply.fail(error.clone()),
        Outcome::Frame(w) if keep => match w.to_framed() {
            Ok(framed) => answer_framed(reply, framed),
            Err(error) => reply.fail(error.into()),
        },
        Outcome::Frame(_) => {
            if let Outcome::Frame(w) = std::mem::replace(outcome, Outcome::None) {
                answer_writer(reply, w);
            }
        }
    }
}

fn answer_writer(reply: ReplyTo, w: Writer) {
    match reply {
        ReplyTo::Connection { question: 0, .. } => {}
        ReplyTo::Connection {
            connection,
            question,
        } => {
            if let Err(error) = connection.answer(w, question) {
                connection.fail(&error.completed(Completed::Yes), question);
            }
        }
        ReplyTo::Channel(sender) | ReplyTo::Foreign(sender) => {
            let slot = frame::body(&w);
            let answer = w.into_message().map(|message| message.rooted(slot));
            // A receiver that is gone has stopped waiting: nothing is lost.
            let _ = sender
                .send(answer.map_err(|error| SystemError::from(error).completed(Completed::Yes)));
        }
    }
}

fn answer_framed(reply: ReplyTo, framed: Vec<u8>) {
    match reply {
        ReplyTo::Connection { question: 0, .. } => {}
        ReplyTo::Connection {
            connection,
            question,
        } => send(&connection, &framed, question),
        ReplyTo::Channel(sender) | ReplyTo::Foreign(sender) => {
            let answer = Message::from_framed(framed.into(), Vec::new());
            let slot = frame::RETURN_BODY;
            let answer = answer
                .map(|message| message.rooted(slot))
                .map_err(SystemError::from);
            // A receiver that is gone has stopped waiting: nothing is lost.
            let _ = sender.send(answer);
        }
    }
}
