//! Reading what is about objects that move: places, and what an object takes along.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use partha_core::id::{CallId, Uid};

use super::{is_here, visit_actions};
use crate::StoreError;
use crate::format::{self, Kind};
use crate::place::{KeptReply, Place, ReplyCursor, ReplyNames, ReplyPage, Row, RowPage};
use crate::store::check_row;
use crate::tables::{Reads, Table, below, prefix_end};

/// So many expiry times are looked at in one step: some milliseconds.
const STEP_ENTRIES: usize = 4096;

/// See [`crate::ObjectStore::read_place`].
pub(crate) fn read_place(tables: &impl Reads, uid: Uid) -> Result<Option<Place>, StoreError> {
    let key = uid.to_bytes();
    let value = tables.value(Table::Place, &key)?;
    let unseal = |value| format::unseal_place(Kind::Place, &key, value);
    value.map(unseal).transpose()
}

/// See [`crate::ObjectStore::scan_places`].
pub(crate) fn scan_places(
    tables: &impl Reads,
    after: Option<Uid>,
    limit: usize,
) -> Result<Vec<(Uid, Place)>, StoreError> {
    let mut found = Vec::new();
    visit_actions(tables, Table::Place, after, limit, &mut |key, value| {
        let place = format::unseal_place(Kind::Place, key, value)?;
        found.push((format::leading_uid(Kind::Place, key)?, place));
        Ok(())
    })?;
    Ok(found)
}

/// See [`crate::ObjectStore::scan_untold`].
pub(crate) fn scan_untold(
    tables: &impl Reads,
    after: Option<Uid>,
    limit: usize,
) -> Result<Vec<(Uid, Place)>, StoreError> {
    let mut uids = Vec::new();
    visit_actions(tables, Table::Untold, after, limit, &mut |key, value| {
        format::unseal(Kind::Untold, key, value)?;
        uids.push(format::leading_uid(Kind::Untold, key)?);
        Ok(())
    })?;
    let mut found = Vec::new();
    for uid in uids {
        found.extend(read_place(tables, uid)?.map(|place| (uid, place)));
    }
    Ok(found)
}

/// See [`crate::ObjectStore::export_rows`].
pub(crate) fn export_rows(
    tables: &impl Reads,
    uid: Uid,
    after: Option<(u16, &[u8])>,
    limit_bytes: usize,
) -> Result<RowPage, StoreError> {
    let mut page = RowPage::default();
    if !is_here(tables, uid)? {
        return Ok(page);
    }
    let from = match after {
        None => format::plain_key(uid).to_vec(),
        Some((part, key)) => {
            check_row(uid, part, key)?;
            format::row_key(uid, part, key)
        }
    };
    let end = prefix_end(&uid.to_bytes());
    let range = (Bound::Excluded(&from[..]), below(end.as_deref()));
    let mut bytes = 0;
    tables.visit(Table::State, range, &mut |key, value| {
        let payload = format::unseal(Kind::Row, key, value)?;
        let (head, row) = key.split_at(format::OBJECT_KEY_BYTES);
        bytes += row.len() + payload.len();
        if bytes > limit_bytes && !page.rows.is_empty() {
            page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        page.rows.push(Row {
            part: u16::from_be_bytes([head[16], head[17]]),
            key: Bytes::copy_from_slice(row),
            value: Bytes::copy_from_slice(payload),
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// What a walk over saved replies looks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyWalk<'w> {
    /// The objects whose replies they are.
    pub(crate) uids: &'w BTreeSet<Uid>,
    /// For how long replies are saved meanwhile.
    pub(crate) keep_ms: u64,
    /// No reply that cannot be read yet was saved earlier.
    pub(crate) now_ms: u64,
    /// Bodies in a page.
    pub(crate) limit_bytes: usize,
}

/// See [`crate::ObjectStore::replies_of`].
///
/// Expiry times ascend with the time of saving. So the walk has all replies behind it that were
/// saved before it was begun, and those saved since expire `keep_ms` later than that, or later.
pub(crate) fn replies_of(
    tables: &impl Reads,
    walk: ReplyWalk<'_>,
    from: ReplyCursor,
) -> Result<ReplyPage, StoreError> {
    let mut page = ReplyPage::default();
    let mut bytes = 0;
    let step = Step {
        keep_ms: walk.keep_ms,
        now_ms: walk.now_ms,
    };
    let (next, done) = step.from(tables, from, &mut |expiry_ms, call, uid| {
        if uid.is_none_or(|uid| walk.uids.contains(&uid))
            && let Some(reply) = reply_of(tables, &walk, expiry_ms, call)?
        {
            bytes += reply.body.len();
            if bytes > walk.limit_bytes && !page.replies.is_empty() {
                return Ok(ControlFlow::Break(()));
            }
            page.replies.push(reply);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    (page.next, page.done) = (next, done);
    Ok(page)
}

/// See [`crate::ObjectStore::reply_names`].
pub(crate) fn reply_names(
    tables: &impl Reads,
    (keep_ms, now_ms): (u64, u64),
    from: ReplyCursor,
) -> Result<ReplyNames, StoreError> {
    let mut names = Vec::new();
    let step = Step { keep_ms, now_ms };
    let (next, done) = step.from(tables, from, &mut |_, call, uid| {
        let uid = match uid {
            Some(uid) => Some(uid),
            // An entry that was written before entries named objects.
            None => super::read_reply(tables, call)?.map(|reply| reply.uid),
        };
        names.extend(uid.map(|uid| (uid, call)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(ReplyNames { names, next, done })
}

/// See [`crate::ObjectStore::kept_replies`].
pub(crate) fn kept_replies(
    tables: &impl Reads,
    (uid, now_ms): (Uid, u64),
    calls: &[CallId],
    limit_bytes: usize,
) -> Result<(Vec<KeptReply>, usize), StoreError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (at, call) in calls.iter().enumerate() {
        let Some((reply, _)) = kept_reply(tables, *call, now_ms)? else {
            continue;
        };
        if reply.uid != uid {
            continue;
        }
        bytes += reply.body.len();
        if bytes > limit_bytes && !found.is_empty() {
            return Ok((found, at));
        }
        found.push(reply);
    }
    Ok((found, calls.len()))
}

/// A step of a walk over expiry times.
struct Step {
    keep_ms: u64,
    now_ms: u64,
}

impl Step {
    /// Looks at some entries: their expiry times, calls, and objects if they name them. One at
    /// which `look` breaks off is looked at again in the next step. Where to go on, and whether
    /// all have been looked at.
    fn from(
        &self,
        tables: &impl Reads,
        from: ReplyCursor,
        look: &mut dyn FnMut(u64, CallId, Option<Uid>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(ReplyCursor, bool), StoreError> {
        let begun_ms = from.begun_ms.unwrap_or(self.now_ms);
        let begin = from.after.map(|(expiry_ms, call)| {
            let key = format::expiry_key(expiry_ms, call.unwrap_or_default());
            (key, call.is_some())
        });
        let begin = match &begin {
            None => Bound::Unbounded,
            Some((key, true)) => Bound::Excluded(&key[..]),
            Some((key, false)) => Bound::Included(&key[..]),
        };
        let (mut seen, mut last, mut done) = (0, None, true);
        let range = (begin, Bound::Unbounded);
        tables.visit(Table::ReplyExpiry, range, &mut |key, value| {
            if seen == STEP_ENTRIES {
                done = false;
                return Ok(ControlFlow::Break(()));
            }
            let wrong = || format::corrupt(Kind::ReplyExpiry, key, "a short key".to_owned());
            let (expiry_ms, call_key) = format::split_expiry_key(key).ok_or_else(wrong)?;
            let call = format::call_id(call_key).ok_or_else(wrong)?;
            let uid = format::unseal_expiry_uid(key, value)?;
            if look(expiry_ms, call, uid)?.is_break() {
                done = false;
                return Ok(ControlFlow::Break(()));
            }
            seen += 1;
            last = Some((expiry_ms, Some(call)));
            Ok(ControlFlow::Continue(()))
        })?;
        let next = match done {
            true => ReplyCursor {
                begun_ms: None,
                after: Some((begun_ms.saturating_add(self.keep_ms), None)),
            },
            false => ReplyCursor {
                begun_ms: Some(begun_ms),
                after: last.or(from.after),
            },
        };
        Ok((next, done))
    }
}

/// The reply of the call, if it is one of theirs and expires then: an entry of an expiry time may
/// have been left behind by a reply that was saved again.
fn reply_of(
    tables: &impl Reads,
    walk: &ReplyWalk<'_>,
    expiry_ms: u64,
    call: CallId,
) -> Result<Option<KeptReply>, StoreError> {
    let kept = kept_reply(tables, call, walk.now_ms)?;
    let theirs =
        kept.filter(|(reply, at_ms)| *at_ms == expiry_ms && walk.uids.contains(&reply.uid));
    Ok(theirs.map(|(reply, _)| reply))
}

/// The reply of the call, if it is kept, and when it expires.
fn kept_reply(
    tables: &impl Reads,
    call: CallId,
    now_ms: u64,
) -> Result<Option<(KeptReply, u64)>, StoreError> {
    let key = call.to_bytes();
    let Some(value) = tables.value(Table::Reply, &key)? else {
        return Ok(None);
    };
    let (uid, at_ms, body) = format::unseal_reply(&key, value)?;
    let keep_ms = at_ms.saturating_sub(now_ms);
    if keep_ms == 0 {
        return Ok(None);
    }
    let body = Bytes::copy_from_slice(body);
    let kept = KeptReply {
        call,
        uid,
        body,
        keep_ms,
    };
    Ok(Some((kept, at_ms)))
}
