//! What is said about replicated objects in actions. Such messages have tags of their own: who
//! does not know of them must not take them for ones that are about nothing of the kind.

use partha_core::action::message::{Message, Vote};
use partha_core::action::path::Participant;
use partha_core::action::scope::ABORTED_MAX;
use partha_core::id::{Incarnation, Uid};
use partha_wire::{DecodeError, PointerReader, Slot, Writer};

use super::super::parts::{
    incarnation, read_participants, read_uid, read_uid_if_any, read_uids, required,
    write_participants, write_uid, write_uid_if_any, write_uids,
};
use super::{CommitRequest, tag, verdict, verdict_number, vote, vote_number};

/// Replicated objects with a part of one action, at most: as many as the engine lets it have.
pub(crate) const GROUPS_MAX: usize = 1_024;

/// What a Prepare says besides its action.
pub(super) struct Prepare<'m> {
    pub(super) incarnation: Incarnation,
    pub(super) join: u64,
    pub(super) aborted: &'m [Uid],
    pub(super) decider: Option<Uid>,
    pub(super) part: Option<Uid>,
}

pub(super) fn write_prepare(w: &mut Writer, body: Slot, action: Uid, it: &Prepare<'_>) -> u16 {
    let named = it.decider.or(it.part).is_some();
    let s = w.structure(body, 2, if named { 4 } else { 2 });
    w.set_u32(s, 0, it.incarnation.0);
    w.set_u64(s, 1, it.join);
    write_uid(w, s.slot(0), action);
    write_uids(w, s.slot(1), it.aborted);
    if !named {
        return tag::PREPARE;
    }
    write_uid_if_any(w, s.slot(2), it.decider);
    write_uid_if_any(w, s.slot(3), it.part);
    tag::PREPARE_GROUPS
}

pub(super) fn write_vote(
    w: &mut Writer,
    body: Slot,
    action: Uid,
    (vote, decider, part): (Vote, Option<Uid>, Option<Uid>),
    moved: &[Participant],
    groups: &[Uid],
) -> u16 {
    let s = w.structure(body, 1, if part.is_some() { 5 } else { 4 });
    w.set_u16(s, 0, vote_number(vote));
    write_uid(w, s.slot(0), action);
    write_participants(w, s.slot(1), moved);
    write_uids(w, s.slot(2), groups);
    write_uid_if_any(w, s.slot(3), decider);
    if let Some(part) = part {
        write_uid(w, s.slot(4), part);
    }
    tag::VOTE_GROUPS
}

/// A nested action that commits, at everybody, or the work of it at one replicated object.
pub(super) fn write_merge(
    w: &mut Writer,
    body: Slot,
    (action, parent): (Uid, Uid),
    part: Option<Uid>,
) -> u16 {
    let s = w.structure(body, 0, if part.is_some() { 3 } else { 2 });
    write_uid(w, s.slot(0), action);
    write_uid(w, s.slot(1), parent);
    match part {
        None => tag::MERGE,
        Some(part) => {
            write_uid(w, s.slot(2), part);
            tag::MERGE_PART
        }
    }
}

/// An action and one replicated object.
pub(super) fn write_part(w: &mut Writer, body: Slot, action: Uid, part: Uid) {
    let s = w.structure(body, 0, 2);
    write_uid(w, s.slot(0), action);
    write_uid(w, s.slot(1), part);
}

pub(super) fn write_acknowledge(
    w: &mut Writer,
    body: Slot,
    action: Uid,
    (site, groups, decider): (bool, &[Uid], Option<Uid>),
) -> u16 {
    if site && groups.is_empty() && decider.is_none() {
        write_uid(w, body, action);
        return tag::ACKNOWLEDGE;
    }
    let s = w.structure(body, 1, 3);
    w.set_bool(s, 0, site);
    write_uid(w, s.slot(0), action);
    write_uids(w, s.slot(1), groups);
    write_uid_if_any(w, s.slot(2), decider);
    tag::ACKNOWLEDGE_GROUPS
}

pub(super) fn write_query(
    w: &mut Writer,
    body: Slot,
    action: Uid,
    decider: Option<Uid>,
    part: Option<Uid>,
) -> u16 {
    if decider.is_none() && part.is_none() {
        write_uid(w, body, action);
        return tag::QUERY;
    }
    let s = w.structure(body, 0, 3);
    write_uid(w, s.slot(0), action);
    write_uid_if_any(w, s.slot(1), decider);
    write_uid_if_any(w, s.slot(2), part);
    tag::QUERY_GROUPS
}

pub(super) fn write_verdict(
    w: &mut Writer,
    body: Slot,
    action: Uid,
    verdict: partha_core::action::message::Verdict,
    part: Uid,
) {
    let s = w.structure(body, 1, 2);
    w.set_u16(s, 0, verdict_number(verdict));
    write_uid(w, s.slot(0), action);
    write_uid(w, s.slot(1), part);
}

pub(super) fn write_request(w: &mut Writer, body: Slot, request: &CommitRequest) -> u16 {
    let pointers = if request.decider.is_some() { 5 } else { 4 };
    let s = w.structure(body, 0, pointers);
    write_uid(w, s.slot(0), request.action);
    write_participants(w, s.slot(1), &[request.coordinator]);
    write_participants(w, s.slot(2), &request.others);
    write_uids(w, s.slot(3), &request.aborted);
    match request.decider {
        None => tag::COMMIT_REQUEST,
        Some(decider) => {
            write_uid(w, s.slot(4), decider);
            tag::REQUEST_DECIDER
        }
    }
}

pub(super) fn write_ask(w: &mut Writer, body: Slot, action: Uid, decider: Option<Uid>) -> u16 {
    match decider {
        None => {
            write_uid(w, body, action);
            tag::ASK
        }
        Some(decider) => {
            write_part(w, body, action, decider);
            tag::ASK_DECIDER
        }
    }
}

pub(super) fn read_prepare(body: PointerReader<'_>, has: bool) -> Result<Message, DecodeError> {
    let s = required(body)?;
    let (decider, part) = match has {
        true => (
            read_uid_if_any(s.pointer(2))?,
            read_uid_if_any(s.pointer(3))?,
        ),
        false => (None, None),
    };
    if has && decider.or(part).is_none() {
        return Err(DecodeError::missing().at("decider"));
    }
    Ok(Message::Prepare {
        action: read_uid(s.pointer(0))?,
        incarnation: incarnation(s.u32(0))?,
        join: s.u64(1),
        aborted: read_uids(s.pointer(1), ABORTED_MAX).map_err(|e| e.at("aborted"))?,
        decider,
        part,
    })
}

pub(super) fn read_merge(body: PointerReader<'_>, has: bool) -> Result<Message, DecodeError> {
    let s = required(body)?;
    let part = match has {
        true => Some(read_uid(s.pointer(2)).map_err(|e| e.at("part"))?),
        false => None,
    };
    Ok(Message::Merge {
        action: read_uid(s.pointer(0))?,
        parent: read_uid(s.pointer(1))?,
        part,
    })
}

pub(super) fn read_request(
    body: PointerReader<'_>,
    has: bool,
) -> Result<CommitRequest, DecodeError> {
    let s = required(body)?;
    let coordinator = read_participants(s.pointer(1))?;
    let [coordinator] = coordinator[..] else {
        return Err(DecodeError::invalid("one coordinator").at("coordinator"));
    };
    let decider = one(s.pointer(4), has)?;
    // Whoever leads the object is asked, and its log is to have the decision.
    if coordinator.joined.part && coordinator.joined.decider != decider {
        return Err(DecodeError::invalid("the part's object").at("decider"));
    }
    Ok(CommitRequest {
        action: read_uid(s.pointer(0))?,
        coordinator,
        others: read_participants(s.pointer(2)).map_err(|e| e.at("others"))?,
        aborted: read_uids(s.pointer(3), ABORTED_MAX).map_err(|e| e.at("aborted"))?,
        decider,
    })
}

/// The decider: there where the tag says so, and not read elsewhere.
fn one(pointer: PointerReader<'_>, has: bool) -> Result<Option<Uid>, DecodeError> {
    match has {
        true => read_uid(pointer).map(Some).map_err(|e| e.at("decider")),
        false => Ok(None),
    }
}

/// An action with a replicated object.
pub(super) fn read_part(body: PointerReader<'_>) -> Result<(Uid, Uid), DecodeError> {
    let s = required(body)?;
    let object = read_uid(s.pointer(1)).map_err(|e| e.at("object"))?;
    Ok((read_uid(s.pointer(0))?, object))
}

/// A message with one of the tags of replicated objects; none with another tag.
pub(super) fn read(tag: u16, body: PointerReader<'_>) -> Result<Option<Message>, DecodeError> {
    Ok(Some(match tag {
        tag::PREPARE_GROUPS => read_prepare(body, true)?,
        tag::MERGE_PART => read_merge(body, true)?,
        tag::VOTE_GROUPS => {
            let s = required(body)?;
            Message::Vote {
                action: read_uid(s.pointer(0))?,
                vote: vote(s.u16(0))?,
                moved: read_participants(s.pointer(1)).map_err(|e| e.at("moved"))?,
                groups: read_uids(s.pointer(2), GROUPS_MAX).map_err(|e| e.at("groups"))?,
                decider: read_uid_if_any(s.pointer(3))?,
                part: read_uid_if_any(s.pointer(4))?,
            }
        }
        tag::COMMIT_PART => {
            let (action, part) = read_part(body)?;
            let part = Some(part);
            Message::Commit { action, part }
        }
        tag::ABORT_PART => {
            let (action, part) = read_part(body)?;
            let part = Some(part);
            Message::Abort { action, part }
        }
        tag::ACKNOWLEDGE_GROUPS => {
            let s = required(body)?;
            Message::Acknowledge {
                action: read_uid(s.pointer(0))?,
                site: s.bool(0),
                groups: read_uids(s.pointer(1), GROUPS_MAX).map_err(|e| e.at("groups"))?,
                decider: read_uid_if_any(s.pointer(2))?,
            }
        }
        tag::QUERY_GROUPS => {
            let s = required(body)?;
            Message::Query {
                action: read_uid(s.pointer(0))?,
                decider: read_uid_if_any(s.pointer(1))?,
                part: read_uid_if_any(s.pointer(2))?,
            }
        }
        tag::VERDICT_PART => {
            let (action, part) = read_part(body)?;
            let verdict = verdict(required(body)?.u16(0))?;
            let part = Some(part);
            Message::Verdict {
                action,
                verdict,
                part,
            }
        }
        _ => return Ok(None),
    }))
}
