//! Pieces of frames about actions: uids, sites, participants, reports.
//!
//! Readers are strict: what must be there is, lists are bounded by what the machines allow,
//! numbers fit their types. Whoever sends anything else is cut off.

use partha_core::action::path::{Joined, Participant, Site};
use partha_core::action::scope::{ABORTED_MAX, PARTICIPANTS_MAX, Report};
use partha_core::id::{Incarnation, NodeId, Uid};
use partha_wire::{DecodeError, ListReader, PointerReader, Slot, StructAt, StructReader, Writer};

use crate::moved::{ADDRESSES_MAX, MOVES_MAX, Moved};

/// Words of `struct Uid`, `struct Site`, `struct Participant`.
const UID_DATA: u16 = 2;
const SITE_DATA: u16 = 2;
const PARTICIPANT_DATA: u16 = 3;
/// The bit of `Participant.updated`.
const UPDATED_BIT: u32 = 2 * 64 + 48;
/// The bit of `Participant.part`.
const PART_BIT: u32 = UPDATED_BIT + 1;

/// The struct behind a pointer that must not be null.
pub(super) fn required(pointer: PointerReader<'_>) -> Result<StructReader<'_>, DecodeError> {
    if pointer.is_null() {
        return Err(DecodeError::missing());
    }
    pointer.structure()
}

/// A list of structs with at most so many elements.
pub(super) fn bounded(
    pointer: PointerReader<'_>,
    max: usize,
) -> Result<ListReader<'_>, DecodeError> {
    let list = pointer.structures()?;
    if list.len() as usize > max {
        return Err(DecodeError::invalid("a shorter list"));
    }
    Ok(list)
}

pub(super) fn incarnation(number: u32) -> Result<Incarnation, DecodeError> {
    let incarnation = Incarnation(number);
    if incarnation > Incarnation::MAX {
        return Err(DecodeError::invalid("an incarnation of 24 bits").at("incarnation"));
    }
    Ok(incarnation)
}

fn set_uid(w: &mut Writer, s: StructAt, uid: Uid) {
    w.set_u64(s, 0, uid.node.0);
    w.set_u64(s, 1, uid.local);
}

fn uid(s: StructReader<'_>) -> Uid {
    Uid {
        node: NodeId(s.u64(0)),
        local: s.u64(1),
    }
}

pub(super) fn write_uid(w: &mut Writer, slot: Slot, uid: Uid) {
    let s = w.structure(slot, UID_DATA, 0);
    set_uid(w, s, uid);
}

pub(super) fn read_uid(pointer: PointerReader<'_>) -> Result<Uid, DecodeError> {
    Ok(uid(required(pointer)?))
}

pub(super) fn read_uid_if_any(pointer: PointerReader<'_>) -> Result<Option<Uid>, DecodeError> {
    match pointer.is_null() {
        true => Ok(None),
        false => read_uid(pointer).map(Some),
    }
}

pub(super) fn write_uid_if_any(w: &mut Writer, slot: Slot, uid: Option<Uid>) {
    if let Some(uid) = uid {
        write_uid(w, slot, uid);
    }
}

pub(super) fn write_uids(w: &mut Writer, slot: Slot, uids: &[Uid]) {
    if uids.is_empty() {
        return;
    }
    let list = w.structures(slot, uids.len(), UID_DATA, 0);
    for (index, uid) in uids.iter().enumerate() {
        set_uid(w, list.structure(index), *uid);
    }
}

pub(super) fn read_uids(pointer: PointerReader<'_>, max: usize) -> Result<Vec<Uid>, DecodeError> {
    Ok(bounded(pointer, max)?.iter_structures().map(uid).collect())
}

pub(super) fn write_site(w: &mut Writer, slot: Slot, site: Site) {
    let s = w.structure(slot, SITE_DATA, 0);
    w.set_u64(s, 0, site.node.0);
    w.set_u16(s, 4, site.shard);
}

pub(super) fn read_site(pointer: PointerReader<'_>) -> Result<Site, DecodeError> {
    let s = required(pointer)?;
    Ok(Site {
        node: NodeId(s.u64(0)),
        shard: s.u16(4),
    })
}

pub(super) fn write_participants(w: &mut Writer, slot: Slot, participants: &[Participant]) {
    if participants.is_empty() {
        return;
    }
    // All elements are of one size, and few actions have a decider.
    let decided = participants.iter().any(|it| it.joined.decider.is_some());
    let list = w.structures(slot, participants.len(), PARTICIPANT_DATA, decided.into());
    for (index, participant) in participants.iter().enumerate() {
        let s = list.structure(index);
        w.set_u64(s, 0, participant.site.node.0);
        w.set_u64(s, 1, participant.joined.join);
        w.set_u32(s, 4, participant.incarnation.0);
        w.set_u16(s, 10, participant.site.shard);
        w.set_bool(s, UPDATED_BIT, participant.joined.updated);
        w.set_bool(s, PART_BIT, participant.joined.part);
        if let Some(decider) = participant.joined.decider {
            write_uid(w, s.slot(0), decider);
        }
    }
}

pub(super) fn read_participants(
    pointer: PointerReader<'_>,
) -> Result<Vec<Participant>, DecodeError> {
    let list = bounded(pointer, PARTICIPANTS_MAX)?;
    let read = |s: StructReader<'_>| {
        let (decider, part) = (read_uid_if_any(s.pointer(0))?, s.bool(PART_BIT));
        if part && decider.is_none() {
            return Err(DecodeError::missing().at("decider"));
        }
        Ok(Participant {
            site: Site {
                node: NodeId(s.u64(0)),
                shard: s.u16(10),
            },
            incarnation: incarnation(s.u32(4))?,
            joined: Joined {
                join: s.u64(1),
                updated: s.bool(UPDATED_BIT),
                decider,
                part,
            },
        })
    };
    list.iter_structures().map(read).collect()
}

/// Writes what the answer of a call in an action says about it.
pub(super) fn write_report(w: &mut Writer, slot: Slot, report: &Report) {
    let s = w.structure(slot, 0, 2);
    write_participants(w, s.slot(0), &report.participants);
    write_uids(w, s.slot(1), &report.aborted);
}

/// None for a call outside actions.
pub(super) fn read_report(pointer: PointerReader<'_>) -> Result<Option<Box<Report>>, DecodeError> {
    if pointer.is_null() {
        return Ok(None);
    }
    let s = pointer.structure()?;
    let participants = read_participants(s.pointer(0)).map_err(|e| e.at("participants"))?;
    let aborted = read_uids(s.pointer(1), ABORTED_MAX).map_err(|e| e.at("aborted"))?;
    Ok(Some(Box::new(Report {
        participants,
        aborted,
    })))
}

/// Writes where an object has moved to.
pub(super) fn write_moved(w: &mut Writer, slot: Slot, moved: &Moved) {
    let s = w.structure(slot, 2, 1);
    w.set_u64(s, 0, moved.node.0);
    w.set_u64(s, 1, moved.moves);
    let addresses = &moved.addresses[..moved.addresses.len().min(ADDRESSES_MAX)];
    let list = w.pointers(s.slot(0), addresses.len());
    for (index, address) in addresses.iter().enumerate() {
        w.text(list.slot(index), address);
    }
}

/// None of an error that is about something else.
pub(super) fn read_moved(pointer: PointerReader<'_>) -> Result<Option<Moved>, DecodeError> {
    if pointer.is_null() {
        return Ok(None);
    }
    let s = pointer.structure()?;
    let list = s.pointer(0);
    let mut addresses = Vec::new();
    if !list.is_null() {
        let list = list.pointers()?;
        if list.len() as usize > ADDRESSES_MAX {
            return Err(DecodeError::invalid("a shorter list").at("addresses"));
        }
        for address in list.iter_pointers() {
            addresses.push(address.text()?.to_owned());
        }
    }
    let moves = s.u64(1);
    if moves > MOVES_MAX {
        return Err(DecodeError::invalid("a lower number").at("moves"));
    }
    Ok(Some(Moved {
        node: NodeId(s.u64(0)),
        addresses,
        moves,
    }))
}
