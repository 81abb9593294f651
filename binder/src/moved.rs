//! The rows of objects that have moved.
//!
//! A row is kept for as long as its object may be looked for, also when the object is back at the
//! node that made it: the number of its moves is what tells late news from new.

use partha::services::binder::MovedObject;
use partha::{ErrorKind, Result, Rows, SystemError, Uid};

/// The part of the rows that has them.
const MOVED: u16 = 2;
/// Bytes of a value: the node, then the number of moves, both in big-endian.
const VALUE: usize = 16;

/// The row of an object, if it has one.
pub(crate) fn find(rows: &Rows, object: Uid) -> Result<Option<MovedObject>> {
    let Some(row) = rows.read(MOVED, &object.to_bytes())? else {
        return Ok(None);
    };
    let value: [u8; VALUE] = row.as_ref().try_into().map_err(|_| {
        let detail = format!("the row of moved object {object} has {} bytes", row.len());
        SystemError::new(ErrorKind::Store, detail)
    })?;
    let value = u128::from_be_bytes(value);
    Ok(Some(MovedObject {
        object,
        node: (value >> u64::BITS) as u64,
        moves: value as u64,
    }))
}

/// Writes the row of an object that has moved oftener than is known. True if it has.
pub(crate) fn put(rows: &Rows, moved: &MovedObject) -> Result<bool> {
    let known = find(rows, moved.object)?.map_or(0, |known| known.moves);
    if moved.moves <= known {
        return Ok(false);
    }
    let value = u128::from(moved.node) << u64::BITS | u128::from(moved.moves);
    let value = value.to_be_bytes().to_vec().into();
    rows.put(MOVED, &moved.object.to_bytes(), value)?;
    Ok(true)
}
