//! One naming context: names, each one part of a path.
//!
//! A name is a row: its key the name's bytes, so that names are listed in their order, its value
//! the [`Entry`] as a framed Cap'n Proto message, so that entries may get more members later
//! without a change of the rows. The state record has only what belongs to the whole context, so
//! its size does not grow with the names, and neither does what a change of one name writes.

use partha::abi::{Message, Struct, message};
use partha::services::naming::name_context::{CloseError, PutError, Servant, State};
use partha::services::naming::{Closed, ContextNotEmpty, Entry, Taken};
use partha::{Bytes, Context, Result, Rows, Uid};

/// The part of the rows that has the names.
const NAMES: u16 = 1;
/// Names listed at a time, at most: with the longest entries less than a message may have.
pub const LIST_MAX: u32 = 1_000;

/// The servant of all contexts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContextServant;

impl Servant for ContextServant {
    fn new(&self, path: String) -> State {
        State {
            path,
            closed: false,
        }
    }

    async fn find(&self, _state: &State, cx: &Context, name: String) -> Result<Option<Entry>> {
        find(cx.rows(), &name)
    }

    async fn put(
        &self,
        state: &mut State,
        cx: &Context,
        entry: Entry,
        replace: bool,
    ) -> Result<(), PutError> {
        if state.closed {
            return Err(Closed {
                path: state.path.clone(),
            }
            .into());
        }
        if let Some(found) = find(cx.rows(), &entry.name)? {
            let same = found.object == entry.object;
            if !replace || (found.context && !same) {
                return Err(Taken { entry: found }.into());
            }
        }
        cx.rows()
            .put(NAMES, entry.name.as_bytes(), encode(&entry)?)?;
        Ok(())
    }

    async fn take(
        &self,
        _state: &mut State,
        cx: &Context,
        name: String,
        object: Uid,
    ) -> Result<bool> {
        let found = find(cx.rows(), &name)?;
        let stands = found.is_some_and(|entry| entry.object == object);
        if stands {
            cx.rows().remove(NAMES, name.as_bytes())?;
        }
        Ok(stands)
    }

    async fn close(
        &self,
        state: &mut State,
        cx: &Context,
        path: String,
    ) -> Result<bool, CloseError> {
        if state.path != path {
            return Ok(false);
        }
        let some = cx.rows().scan(NAMES, None, LIST_MAX as usize)?;
        if !some.is_empty() {
            return Err(ContextNotEmpty {
                path,
                names: some.len() as u64,
            }
            .into());
        }
        state.closed = true;
        Ok(true)
    }

    async fn list(
        &self,
        _state: &State,
        cx: &Context,
        after: String,
        limit: u32,
    ) -> Result<Vec<Entry>> {
        let after = Some(after.as_bytes()).filter(|after| !after.is_empty());
        let rows = cx.rows().scan(NAMES, after, limit.min(LIST_MAX) as usize)?;
        rows.into_iter().map(|(_, row)| decode(row)).collect()
    }
}

fn find(rows: &Rows, name: &str) -> Result<Option<Entry>> {
    rows.read(NAMES, name.as_bytes())?.map(decode).transpose()
}

fn encode(entry: &Entry) -> Result<Bytes> {
    let (framed, _) = message(Entry::DATA, Entry::POINTERS, |w, s| entry.write(w, s)).finish()?;
    Ok(framed.into())
}

fn decode(row: Bytes) -> Result<Entry> {
    let row = Message::from_framed(row, Vec::new())?;
    Ok(Entry::read(row.reader()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_row() {
        let entry = Entry {
            name: "Élodie".to_owned(),
            object: Uid::NAMING_ROOT,
            class: u64::MAX,
            context: true,
            hints: vec!["127.0.0.1:7402".to_owned(), String::new()],
        };
        assert_eq!(decode(encode(&entry).unwrap()).unwrap(), entry);
    }

    #[test]
    fn a_damaged_row_is_an_error() {
        assert!(decode(Bytes::from_static(b"not a message")).is_err());
        assert!(decode(Bytes::new()).is_err());
    }
}
