//! The books of one connection: what each side has asked, answered, exported and imported.
//!
//! Fed with every rpc.capnp message in either direction, in the order of the wire; says whether
//! the message may pass. It mirrors the four tables of the protocol, not capnp-rpc's own ones, so
//! it needs no access to them. No IO, no clock.
//!
//! Besides the bounds of [`Limits`] it keeps three rules capnp-rpc 0.27 does not:
//!
//! - *No rings.* A `Resolve` (or the result of a call-back) may not refer to something that is
//!   still open here: a promise to itself, a call that is still pending, an exported promise.
//!   capnp-rpc would tie its own reference-counted objects into a ring and keep the connection,
//!   its calls and its capabilities for ever. For the same reason a returned call may only be
//!   referred to if all capabilities in its results are settled ones of ours: an echoed promise
//!   of the peer's would be resolved to itself that way.
//! - *A `Finish` waits for its `Return`.* capnp-rpc drops a call that is finished early, but then
//!   never sends its `Return` and never frees its question id. Here the call is told that it is
//!   cancelled, ends, is returned, and only then finished.
//! - *Each question is answered once*, and call results never go elsewhere (`sendResultsTo`
//!   other than the caller is half implemented in capnp-rpc and leaks a table entry a call).

mod arrive;
mod depart;

use capnp_rpc::rpc_capnp::message;
use foldhash::HashMap;

use crate::frame::Message;
use crate::reason::{Table, malformed};
use crate::ticket::Admission;
use crate::{CutReason, Limits};

/// What kind of message arrived, as far as its delivery depends on it.
pub(crate) enum Arrival {
    /// A call, which may have to wait.
    Call(AnswerKey),
    /// The end of a question, which may have to wait for its `Return`.
    Finish(AnswerKey),
    /// An answer to a question of ours, which must not wait behind calls.
    Return,
    /// The peer says good-bye.
    Abort,
    /// Anything else.
    Plain,
}

/// One use of a question id by the peer; ids are used again, keys are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerKey {
    question: u32,
    generation: u64,
}

/// A question of the peer.
struct Answer {
    generation: u64,
    bootstrap: bool,
    returned: bool,
    finished: bool,
    /// Whether `Finish` gave the capabilities of the results back.
    release: bool,
    /// Length of the chain of pending calls this one hangs on.
    depth: usize,
    /// Capabilities of ours in the results.
    exports: Vec<u32>,
    /// Whether the results hold nothing but settled capabilities of ours.
    settled: bool,
    admission: Option<Admission>,
    /// A `Finish` that waits for the `Return`.
    held: Option<Message>,
}

/// A capability of ours the peer holds.
struct Export {
    references: u32,
    settled: bool,
}

/// A capability of the peer held here.
struct Import {
    references: u32,
    /// Promises that were resolved to this one, one after the other.
    chain: usize,
}

/// Our question, as long as its id is in use: `(returned, finished)` never both.
#[derive(Default)]
struct Question {
    returned: bool,
    finished: bool,
}

/// See the module.
///
/// The peer chooses ids; what it could do to the tables with them is kept from it by a seed of
/// their own for each, and by the bounds.
pub(crate) struct Account {
    limits: Limits,
    generations: u64,
    answers: HashMap<u32, Answer>,
    /// Answers that are not returned.
    answers_open: usize,
    bootstraps: usize,
    questions: HashMap<u32, Question>,
    /// Questions that are not returned.
    questions_open: usize,
    exports: HashMap<u32, Export>,
    imports: HashMap<u32, Import>,
}

impl Account {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            generations: 0,
            answers: HashMap::default(),
            answers_open: 0,
            bootstraps: 0,
            questions: HashMap::default(),
            questions_open: 0,
            exports: HashMap::default(),
            imports: HashMap::default(),
        }
    }

    /// Whether either side has a question open.
    pub(crate) fn anything_open(&self) -> bool {
        self.answers_open > 0 || self.questions_open > 0
    }

    /// Whether either side holds a capability of the other.
    pub(crate) fn anything_held(&self) -> bool {
        !self.exports.is_empty() || !self.imports.is_empty()
    }

    /// Enters a message of the peer.
    pub(crate) fn arrive(&mut self, message: &Message) -> Result<Arrival, CutReason> {
        let root: message::Reader<'_> = message.get_root().map_err(malformed)?;
        self.arrive_message(root).map_err(Fault::into_reason)
    }

    /// A call begins to be executed.
    pub(crate) fn executing(&mut self, key: AnswerKey, admission: &Admission) {
        let Some(answer) = self.answer_of(key) else {
            return;
        };
        answer.admission = Some(admission.clone());
        if answer.finished {
            admission.cancel();
        }
    }

    /// The turn of a `Finish` has come: gives it back if it may be delivered now, or keeps it
    /// until the `Return` is sent.
    pub(crate) fn finish(&mut self, key: AnswerKey, message: Message) -> Option<Message> {
        match self.answer_of(key) {
            Some(answer) if !answer.returned => {
                answer.held = Some(message);
                None
            }
            Some(_) | None => Some(message),
        }
    }

    /// Enters a message of ours; the result is a `Finish` that has waited for it.
    pub(crate) fn depart(
        &mut self,
        message: message::Reader<'_>,
    ) -> Result<Option<Message>, CutReason> {
        self.depart_message(message).map_err(Fault::into_reason)
    }

    /// Enters a question of ours.
    fn asked(&mut self, id: u32) {
        let before = self.questions.insert(id, Question::default());
        if before.is_none_or(|before| before.returned) {
            self.questions_open += 1;
        }
    }

    fn answer_of(&mut self, key: AnswerKey) -> Option<&mut Answer> {
        self.answers
            .get_mut(&key.question)
            .filter(|answer| answer.generation == key.generation)
    }
}

/// A reason, or a message that cannot be read.
enum Fault {
    Cut(CutReason),
    Malformed(capnp::Error),
}

impl Fault {
    fn into_reason(self) -> CutReason {
        match self {
            Self::Cut(reason) => reason,
            Self::Malformed(error) => malformed(error),
        }
    }
}

impl From<capnp::Error> for Fault {
    fn from(error: capnp::Error) -> Self {
        Self::Malformed(error)
    }
}

fn too_many(what: Table, count: usize, max: usize) -> Result<(), Fault> {
    if count > max {
        Err(Fault::Cut(CutReason::TooMany { what, max }))
    } else {
        Ok(())
    }
}

fn protocol(detail: String) -> Fault {
    Fault::Cut(CutReason::Protocol { detail })
}

fn unsupported(what: &'static str) -> Fault {
    Fault::Cut(CutReason::Unsupported { what })
}

fn not_in_schema(error: capnp::NotInSchema) -> Fault {
    protocol(error.to_string())
}
