//! Audit logs: rows beside the state record, so that a log may be as long as it likes.
//!
//! Part 1 has the lines by number, part 2 the number of each reference.

use partha::abi::{Message, Struct as _, message};
use partha::{Bytes, Context, Result, Rows};

use crate::audit_log::{self, NoteError};
use crate::{Account, AuditLine, BadReference, Noted};

const LINES: u16 = 1;
const REFERENCES: u16 = 2;
/// Bytes of a reference, at most: it is the key of a row.
const REFERENCE_MAX: usize = 100;
/// Lines listed at a time, at most.
const PAGE_MAX: u32 = 1_000;

/// The servant of audit logs.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditLogServant;

impl audit_log::Servant for AuditLogServant {
    fn new(&self) -> audit_log::State {
        audit_log::State { lines: 0 }
    }

    async fn note(
        &self,
        state: &mut audit_log::State,
        cx: &Context,
        reference: String,
        from: Account,
        to: Account,
        amount: i64,
    ) -> Result<Noted, NoteError> {
        if reference.is_empty() || reference.len() > REFERENCE_MAX {
            let reason = format!("it has to have 1 to {REFERENCE_MAX} bytes");
            return Err(BadReference { reference, reason }.into());
        }
        if let Some(found) = cx.rows().read(REFERENCES, reference.as_bytes())? {
            let line = line_of(cx.rows(), &found)?;
            if (&line.from, &line.to, line.amount) != (&from, &to, amount) {
                let reason = format!("line {} says something else under it", line.number);
                return Err(BadReference { reference, reason }.into());
            }
            return Ok(Noted {
                number: line.number,
                before: true,
            });
        }
        state.lines += 1;
        let number = state.lines;
        let line = AuditLine {
            number,
            reference,
            from,
            to,
            amount,
        };
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        cx.rows().put(LINES, &key, encode(&line)?)?;
        cx.rows().put(REFERENCES, line.reference.as_bytes(), key)?;
        Ok(Noted {
            number,
            before: false,
        })
    }

    async fn lines(
        &self,
        _state: &audit_log::State,
        cx: &Context,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditLine>> {
        let limit = limit.min(PAGE_MAX) as usize;
        let rows = cx.rows().scan(LINES, Some(&after.to_be_bytes()), limit)?;
        rows.into_iter().map(|(_, row)| decode(row)).collect()
    }
}

fn line_of(rows: &Rows, key: &[u8]) -> Result<AuditLine> {
    let row = rows.read(LINES, key)?;
    decode(row.unwrap_or_default())
}

fn encode(line: &AuditLine) -> Result<Bytes> {
    let written = message(AuditLine::DATA, AuditLine::POINTERS, |w, s| {
        line.write(w, s)
    });
    let (framed, _) = written.finish()?;
    Ok(framed.into())
}

fn decode(row: Bytes) -> Result<AuditLine> {
    let row = Message::from_framed(row, Vec::new())?;
    Ok(AuditLine::read(row.reader()?)?)
}
