//! The answers to requests of whoever runs an action.

use partha_core::action::message::Verdict;
use partha_core::{Abort, End, Fault};
use partha_wire::{DecodeError, PointerReader, Slot, Writer};

use super::super::parts::{read_site, required, write_site};
use super::{verdict, verdict_number};

/// Writes the answer to a request to commit.
pub(crate) fn write_ended(w: &mut Writer, slot: Slot, end: End) {
    let s = w.structure(slot, 1, 1);
    let (number, site, fault) = match end {
        End::Committed => (0, None, None),
        End::Aborted(Abort::Lost(site)) => (1, Some(site), None),
        End::Aborted(Abort::Refused(site)) => (2, Some(site), None),
        End::Aborted(Abort::Silent(site)) => (3, Some(site), None),
        End::Aborted(Abort::Busy(site)) => (4, Some(site), None),
        End::Aborted(Abort::Store(fault)) => (5, None, Some(fault)),
        End::Aborted(Abort::Ended) => (6, None, None),
        End::Unknown => (7, None, None),
    };
    w.set_u16(s, 0, number);
    if let Some(site) = site {
        write_site(w, s.slot(0), site);
    }
    let fault = match fault {
        None | Some(Fault::Store) => 0,
        Some(Fault::Fenced) => 1,
        Some(Fault::Full) => 2,
        Some(Fault::Exists) => 3,
    };
    w.set_u16(s, 1, fault);
}

/// Reads what [`write_ended`] wrote.
pub(crate) fn read_ended(body: PointerReader<'_>) -> Result<End, DecodeError> {
    let s = required(body)?;
    let site = || read_site(s.pointer(0)).map_err(|e| e.at("site"));
    Ok(match s.u16(0) {
        0 => End::Committed,
        1 => End::Aborted(Abort::Lost(site()?)),
        2 => End::Aborted(Abort::Refused(site()?)),
        3 => End::Aborted(Abort::Silent(site()?)),
        4 => End::Aborted(Abort::Busy(site()?)),
        5 => End::Aborted(Abort::Store(match s.u16(1) {
            0 => Fault::Store,
            1 => Fault::Fenced,
            2 => Fault::Full,
            3 => Fault::Exists,
            other => return Err(DecodeError::enumerant("Ended.fault", other)),
        })),
        6 => End::Aborted(Abort::Ended),
        7 => End::Unknown,
        other => return Err(DecodeError::enumerant("Ended.end", other)),
    })
}

/// Writes the answer to a question about an outcome.
pub(crate) fn write_told(w: &mut Writer, slot: Slot, told: Option<Verdict>) {
    let s = w.structure(slot, 1, 0);
    w.set_bool(s, 0, told.is_some());
    w.set_u16(s, 1, told.map_or(0, verdict_number));
}

/// Reads what [`write_told`] wrote.
pub(crate) fn read_told(body: PointerReader<'_>) -> Result<Option<Verdict>, DecodeError> {
    let s = required(body)?;
    match s.bool(0) {
        false => Ok(None),
        true => verdict(s.u16(1)).map(Some),
    }
}
