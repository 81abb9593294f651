//! Frames about actions: the messages between shards, and the two requests of whoever runs an
//! action.
//!
//! Layout: `struct Action` of wire.capnp, the body of a frame of kind 8. A message has question 0
//! and no answer; a request has a question and is answered by a Return frame whose body is
//! [`Ended`](write_ended) or [`Told`](write_told). Reading is strict: a member that must be there
//! is, lists are bounded, enums are known; anything else cuts the connection.

mod ends;
mod groups;

use partha_core::action::message::{Deadlock, Edge, Message, Party, Verdict, Vote, WaitId};
use partha_core::action::path::{PATH_MAX, Participant, Path, Site};
use partha_core::id::{NodeId, Uid};
use partha_wire::{DecodeError, PointerReader, Slot, StructReader, Writer};

use super::group::{self, GroupNews};
use super::parts::{
    bounded, incarnation, read_participants, read_site, read_uid, read_uid_if_any, read_uids,
    required, write_participants, write_site, write_uid, write_uids,
};

pub(crate) use self::ends::{read_ended, read_told, write_ended, write_told};

/// Edges in one message: the longest path of waits, and as many owners of one lock.
pub(crate) const EDGES_MAX: usize = 1_024;

/// A frame about actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    /// The number to answer to; 0 for a message.
    pub(crate) question: u32,
    /// The shard it is for.
    pub(crate) shard: Shard,
    /// The sender's shard.
    pub(crate) from: u16,
    pub(crate) what: What,
}

/// Which shard of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shard {
    /// The one with this number.
    Number(u16),
    /// The one that an object with this uid would have.
    Of(Uid),
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Message(Message),
    Commit(CommitRequest),
    Ask {
        action: Uid,
        /// The replicated object whose log has the decision, if it is one's.
        decider: Option<Uid>,
    },
    /// What a copy of an object tells another one.
    Group(Box<GroupNews>),
}

/// Whoever runs an action wants it committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRequest {
    pub(crate) action: Uid,
    /// The coordinator as whoever asks knows it.
    pub(crate) coordinator: Participant,
    pub(crate) others: Vec<Participant>,
    pub(crate) aborted: Vec<Uid>,
    /// The replicated object whose log is to have the decision, if it is one's.
    pub(crate) decider: Option<Uid>,
}

/// Values of the union of `struct Action`.
mod tag {
    pub(super) const PREPARE: u16 = 0;
    pub(super) const VOTE: u16 = 1;
    pub(super) const COMMIT: u16 = 2;
    pub(super) const ACKNOWLEDGE: u16 = 3;
    pub(super) const ABORT: u16 = 4;
    pub(super) const MERGE: u16 = 5;
    pub(super) const QUERY: u16 = 6;
    pub(super) const VERDICT: u16 = 7;
    pub(super) const WAITS: u16 = 8;
    pub(super) const RESUMED: u16 = 9;
    pub(super) const PROBE: u16 = 10;
    pub(super) const CONFIRM: u16 = 11;
    pub(super) const CONFIRMED: u16 = 12;
    pub(super) const BREAK: u16 = 13;
    pub(super) const COMMIT_REQUEST: u16 = 14;
    pub(super) const ASK: u16 = 15;
    pub(super) const VOTE_MOVED: u16 = 16;
    pub(super) const GROUP: u16 = 17;
    pub(super) const PREPARE_GROUPS: u16 = 18;
    pub(super) const VOTE_GROUPS: u16 = 19;
    pub(super) const COMMIT_PART: u16 = 20;
    pub(super) const ACKNOWLEDGE_GROUPS: u16 = 21;
    pub(super) const ABORT_PART: u16 = 22;
    pub(super) const QUERY_GROUPS: u16 = 23;
    pub(super) const VERDICT_PART: u16 = 24;
    pub(super) const REQUEST_DECIDER: u16 = 25;
    pub(super) const ASK_DECIDER: u16 = 26;
    pub(super) const MERGE_PART: u16 = 27;
}

impl Action {
    /// Writes the body of the frame.
    pub(super) fn write(&self, w: &mut Writer, slot: Slot) {
        let s = w.structure(slot, 1, 2);
        match self.shard {
            Shard::Number(shard) => w.set_u16(s, 0, shard),
            Shard::Of(uid) => write_uid(w, s.slot(0), uid),
        }
        w.set_u16(s, 1, self.from);
        let body = s.slot(1);
        let tag = match &self.what {
            What::Message(message) => write_message(w, body, message),
            What::Commit(request) => groups::write_request(w, body, request),
            What::Ask { action, decider } => groups::write_ask(w, body, *action, *decider),
            What::Group(news) => {
                group::write(w, body, news);
                tag::GROUP
            }
        };
        w.set_u16(s, 2, tag);
    }
}

fn write_message(w: &mut Writer, body: Slot, message: &Message) -> u16 {
    match message {
        Message::Prepare {
            action,
            incarnation,
            join,
            aborted,
            decider,
            part,
        } => {
            let prepare = groups::Prepare {
                incarnation: *incarnation,
                join: *join,
                aborted,
                decider: *decider,
                part: *part,
            };
            groups::write_prepare(w, body, *action, &prepare)
        }
        Message::Vote {
            action,
            vote,
            moved,
            groups,
            decider: None,
            part: None,
        } if groups.is_empty() => write_vote(w, body, *action, *vote, moved),
        Message::Vote {
            action,
            vote,
            moved,
            groups,
            decider,
            part,
        } => groups::write_vote(w, body, *action, (*vote, *decider, *part), moved, groups),
        Message::Merge {
            action,
            parent,
            part,
        } => groups::write_merge(w, body, (*action, *parent), *part),
        Message::Deadlock(message) => write_deadlock(w, body, message),
        Message::Commit { .. }
        | Message::Acknowledge { .. }
        | Message::Abort { .. }
        | Message::Query { .. }
        | Message::Verdict { .. } => write_end(w, body, message),
    }
}

/// Writes a message about how an action ends.
fn write_end(w: &mut Writer, body: Slot, message: &Message) -> u16 {
    match message {
        Message::Commit {
            action,
            part: Some(part),
        } => {
            groups::write_part(w, body, *action, *part);
            tag::COMMIT_PART
        }
        Message::Commit { action, part: None } => {
            write_uid(w, body, *action);
            tag::COMMIT
        }
        Message::Acknowledge {
            action,
            site,
            groups,
            decider,
        } => groups::write_acknowledge(w, body, *action, (*site, groups, *decider)),
        Message::Abort {
            action,
            part: Some(part),
        } => {
            groups::write_part(w, body, *action, *part);
            tag::ABORT_PART
        }
        Message::Abort { action, part: None } => {
            write_uid(w, body, *action);
            tag::ABORT
        }
        Message::Query {
            action,
            decider,
            part,
        } => groups::write_query(w, body, *action, *decider, *part),
        Message::Verdict {
            action,
            verdict,
            part: Some(part),
        } => {
            groups::write_verdict(w, body, *action, *verdict, *part);
            tag::VERDICT_PART
        }
        Message::Verdict {
            action,
            verdict,
            part: None,
        } => {
            write_enum(w, body, *action, verdict_number(*verdict));
            tag::VERDICT
        }
        Message::Prepare { .. }
        | Message::Vote { .. }
        | Message::Merge { .. }
        | Message::Deadlock(_) => unreachable!("{message:?} is written elsewhere"),
    }
}

/// A vote that names where objects went has a tag of its own: a coordinator that does not know of
/// moves must not take it for one that names nobody.
fn write_vote(w: &mut Writer, body: Slot, action: Uid, vote: Vote, moved: &[Participant]) -> u16 {
    let vote = vote_number(vote);
    if moved.is_empty() {
        write_enum(w, body, action, vote);
        return tag::VOTE;
    }
    let s = w.structure(body, 1, 2);
    w.set_u16(s, 0, vote);
    write_uid(w, s.slot(0), action);
    write_participants(w, s.slot(1), moved);
    tag::VOTE_MOVED
}

fn write_deadlock(w: &mut Writer, body: Slot, message: &Deadlock) -> u16 {
    match message {
        Deadlock::Waits { edges } => {
            write_edges(w, body, edges);
            tag::WAITS
        }
        Deadlock::Resumed { wait, root } => {
            let s = w.structure(body, 0, 2);
            write_wait(w, s.slot(0), *wait);
            write_uid(w, s.slot(1), *root);
            tag::RESUMED
        }
        Deadlock::Probe { edges } => {
            write_edges(w, body, edges);
            tag::PROBE
        }
        Deadlock::Confirm { cycle, to, edge } => {
            let s = w.structure(body, 1, 2);
            w.set_u64(s, 0, *cycle);
            write_site(w, s.slot(0), *to);
            write_edges(w, s.slot(1), std::slice::from_ref(edge));
            tag::CONFIRM
        }
        Deadlock::Confirmed { cycle, wait, holds } => {
            let s = w.structure(body, 2, 1);
            w.set_u64(s, 0, *cycle);
            w.set_bool(s, 64, *holds);
            write_wait(w, s.slot(0), *wait);
            tag::CONFIRMED
        }
        Deadlock::Break {
            wait,
            victim,
            cycle,
        } => {
            let s = w.structure(body, 0, 3);
            write_wait(w, s.slot(0), *wait);
            write_uid(w, s.slot(1), *victim);
            write_edges(w, s.slot(2), cycle);
            tag::BREAK
        }
    }
}

fn write_enum(w: &mut Writer, body: Slot, action: Uid, value: u16) {
    let s = w.structure(body, 1, 1);
    w.set_u16(s, 0, value);
    write_uid(w, s.slot(0), action);
}

fn vote_number(vote: Vote) -> u16 {
    match vote {
        Vote::Yes => 0,
        Vote::ReadOnly => 1,
        Vote::No => 2,
    }
}

fn verdict_number(verdict: Verdict) -> u16 {
    match verdict {
        Verdict::Committed => 0,
        Verdict::Aborted => 1,
        Verdict::InFlight => 2,
    }
}

fn write_wait(w: &mut Writer, slot: Slot, wait: WaitId) {
    let s = w.structure(slot, 3, 0);
    w.set_u64(s, 0, wait.site.node.0);
    w.set_u64(s, 1, wait.number);
    w.set_u32(s, 4, wait.incarnation.0);
    w.set_u16(s, 10, wait.site.shard);
}

/// At most [`EDGES_MAX`] of them: what is left out is found again, or ends by a time-out.
fn write_edges(w: &mut Writer, slot: Slot, edges: &[Edge]) {
    let edges = &edges[..edges.len().min(EDGES_MAX)];
    let list = w.structures(slot, edges.len(), 0, 4);
    for (index, edge) in edges.iter().enumerate() {
        let s = list.structure(index);
        write_wait(w, s.slot(0), edge.wait);
        write_uid(w, s.slot(1), edge.object);
        write_party(w, s.slot(2), &edge.waiter);
        write_party(w, s.slot(3), &edge.owner);
    }
}

fn write_party(w: &mut Writer, slot: Slot, party: &Party) {
    let s = w.structure(slot, 3, 1);
    w.set_u16(s, 0, party.path.enclosing() as u16);
    w.set_u64(s, 1, party.home.0);
    w.set_u64(s, 2, party.born_ms);
    write_uids(w, s.slot(0), party.path.whole());
}

/// Reads the body of a frame about actions.
pub(super) fn read(question: u32, body: PointerReader<'_>) -> Result<Action, DecodeError> {
    let s = required(body)?;
    let shard = match read_uid_if_any(s.pointer(0))? {
        Some(uid) => Shard::Of(uid),
        None => Shard::Number(s.u16(0)),
    };
    let body = s.pointer(1);
    let what = match s.u16(2) {
        tag::COMMIT_REQUEST => What::Commit(groups::read_request(body, false)?),
        tag::REQUEST_DECIDER => What::Commit(groups::read_request(body, true)?),
        tag::ASK => What::Ask {
            action: read_uid(body)?,
            decider: None,
        },
        tag::ASK_DECIDER => {
            let (action, decider) = groups::read_part(body)?;
            let decider = Some(decider);
            What::Ask { action, decider }
        }
        tag::GROUP => What::Group(Box::new(group::read(body)?)),
        tag => What::Message(read_message(tag, body)?),
    };
    let is_message = matches!(what, What::Message(_) | What::Group(_));
    if is_message != (question == 0) {
        return Err(DecodeError::invalid(
            "a question of a request, none of a message",
        ));
    }
    let from = s.u16(1);
    Ok(Action {
        question,
        shard,
        from,
        what,
    })
}

fn read_message(tag: u16, body: PointerReader<'_>) -> Result<Message, DecodeError> {
    Ok(match tag {
        tag::PREPARE => groups::read_prepare(body, false)?,
        tag::VOTE => {
            let (action, value) = read_enum(body)?;
            Message::Vote {
                action,
                vote: vote(value)?,
                moved: Vec::new(),
                groups: Vec::new(),
                decider: None,
                part: None,
            }
        }
        tag::VOTE_MOVED => {
            let (action, value) = read_enum(body)?;
            let moved = read_participants(required(body)?.pointer(1));
            let moved = moved.map_err(|e| e.at("moved"))?;
            if moved.is_empty() {
                return Err(DecodeError::invalid("somebody").at("moved"));
            }
            Message::Vote {
                action,
                vote: vote(value)?,
                moved,
                groups: Vec::new(),
                decider: None,
                part: None,
            }
        }
        tag::COMMIT => Message::Commit {
            action: read_uid(body)?,
            part: None,
        },
        tag::ACKNOWLEDGE => Message::Acknowledge {
            action: read_uid(body)?,
            site: true,
            groups: Vec::new(),
            decider: None,
        },
        tag::ABORT => Message::Abort {
            action: read_uid(body)?,
            part: None,
        },
        tag::MERGE => groups::read_merge(body, false)?,
        tag::QUERY => Message::Query {
            action: read_uid(body)?,
            decider: None,
            part: None,
        },
        tag::VERDICT => {
            let (action, value) = read_enum(body)?;
            let verdict = verdict(value)?;
            let part = None;
            Message::Verdict {
                action,
                verdict,
                part,
            }
        }
        tag => match groups::read(tag, body)? {
            Some(message) => message,
            None => Message::Deadlock(read_deadlock(tag, body)?),
        },
    })
}

fn read_deadlock(tag: u16, body: PointerReader<'_>) -> Result<Deadlock, DecodeError> {
    Ok(match tag {
        tag::WAITS => Deadlock::Waits {
            edges: read_edges(body)?,
        },
        tag::RESUMED => {
            let s = required(body)?;
            Deadlock::Resumed {
                wait: read_wait(s.pointer(0))?,
                root: read_uid(s.pointer(1))?,
            }
        }
        tag::PROBE => Deadlock::Probe {
            edges: read_edges(body)?,
        },
        tag::CONFIRM => {
            let s = required(body)?;
            let mut edges = read_edges(s.pointer(1))?;
            let (Some(edge), true) = (edges.pop(), edges.is_empty()) else {
                return Err(DecodeError::invalid("one edge").at("edge"));
            };
            Deadlock::Confirm {
                cycle: s.u64(0),
                to: read_site(s.pointer(0))?,
                edge,
            }
        }
        tag::CONFIRMED => {
            let s = required(body)?;
            Deadlock::Confirmed {
                cycle: s.u64(0),
                wait: read_wait(s.pointer(0))?,
                holds: s.bool(64),
            }
        }
        tag::BREAK => {
            let s = required(body)?;
            Deadlock::Break {
                wait: read_wait(s.pointer(0))?,
                victim: read_uid(s.pointer(1))?,
                cycle: read_edges(s.pointer(2))?,
            }
        }
        other => return Err(DecodeError::enumerant("Action", other)),
    })
}

fn read_enum(body: PointerReader<'_>) -> Result<(Uid, u16), DecodeError> {
    let s = required(body)?;
    Ok((read_uid(s.pointer(0))?, s.u16(0)))
}

fn vote(value: u16) -> Result<Vote, DecodeError> {
    match value {
        0 => Ok(Vote::Yes),
        1 => Ok(Vote::ReadOnly),
        2 => Ok(Vote::No),
        other => Err(DecodeError::enumerant("Vote", other)),
    }
}

fn verdict(value: u16) -> Result<Verdict, DecodeError> {
    match value {
        0 => Ok(Verdict::Committed),
        1 => Ok(Verdict::Aborted),
        2 => Ok(Verdict::InFlight),
        other => Err(DecodeError::enumerant("Verdict", other)),
    }
}

fn read_wait(pointer: PointerReader<'_>) -> Result<WaitId, DecodeError> {
    let s = required(pointer).map_err(|e| e.at("wait"))?;
    Ok(WaitId {
        site: Site {
            node: NodeId(s.u64(0)),
            shard: s.u16(10),
        },
        incarnation: incarnation(s.u32(4))?,
        number: s.u64(1),
    })
}

fn read_edges(pointer: PointerReader<'_>) -> Result<Vec<Edge>, DecodeError> {
    let list = bounded(pointer, EDGES_MAX).map_err(|e| e.at("edges"))?;
    let read = |s: StructReader<'_>| {
        Ok(Edge {
            wait: read_wait(s.pointer(0))?,
            object: read_uid(s.pointer(1))?,
            waiter: read_party(s.pointer(2)).map_err(|e| e.at("waiter"))?,
            owner: read_party(s.pointer(3)).map_err(|e| e.at("owner"))?,
        })
    };
    list.iter_structures().map(read).collect()
}

fn read_party(pointer: PointerReader<'_>) -> Result<Party, DecodeError> {
    let s = required(pointer)?;
    let uids = read_uids(s.pointer(0), PATH_MAX).map_err(|e| e.at("path"))?;
    let path = Path::new(uids, s.u16(0).into());
    let path = path.filter(|path| !path.whole().is_empty());
    Ok(Party {
        path: path.ok_or_else(|| DecodeError::invalid("a path with its boundary inside"))?,
        home: NodeId(s.u64(1)),
        born_ms: s.u64(2),
    })
}

#[cfg(test)]
mod tests;
