//! A whole state on its way to a copy that has not got what the log still tells.
//!
//! While a copy is being brought up to date nothing is installed at its leader, so the state can
//! be read page by page, elsewhere than on the shard's thread, and is that of one moment. It is
//! kept whole in memory at both ends, and so bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use partha_core::group::{Message, Stamp, View};
use partha_core::id::{Epoch, NodeId, Uid};
use partha_store::{ActionCursor, Batch, Item, ObjectStore, Record, ReplyCursor, StoreError};
use tokio::sync::Semaphore;

use super::Group;
use crate::config::REPLY_RETENTION;
use crate::error::{ErrorKind, SystemError};
use crate::net::actions;
use crate::shard::Shard;
use crate::wire::group::{GroupNews, Head, PAGE_ITEMS_MAX, Page};
use crate::wire::message::{self, What};

/// Bytes of one page, about.
const PAGE_BYTES: usize = 256 << 10;
/// What a page, a row and a reply count besides their bytes.
const ITEM_BYTES: usize = 64;
/// Bytes of a state that can have copies.
pub(super) const STATE_BYTES_MAX: usize = 64 << 20;

/// States that a shard sends at a time.
const SENDING_MAX: usize = 4;
/// How often one is read, if something is installed meanwhile.
const READS_MAX: usize = 8;
/// How long the sending of one to one copy may take.
const SENDING: Duration = Duration::from_secs(10);

/// A state that has not arrived whole. Pages may get lost, and may overtake each other.
pub(super) struct Arriving {
    from: NodeId,
    number: u64,
    at: Stamp,
    /// Which reading of the state it is.
    sending: u64,
    pages: BTreeMap<u32, Page>,
    /// How many pages it has, once the last one is there.
    count: Option<usize>,
    bytes: usize,
}

/// What a shard sends.
pub(super) struct Sending {
    /// Counts readings of states.
    last: u64,
    turns: Arc<Semaphore>,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            last: 0,
            turns: Arc::new(Semaphore::new(SENDING_MAX)),
        }
    }
}

impl Group {
    /// Whether copies wait for the state, and the store shows what they are to get.
    fn may_send_state(&self) -> bool {
        !self.wants_state.is_empty() && self.visible >= self.member.log().installed().index
    }

    /// Takes a page in; when all of one reading are there the state is, and the copy is told so.
    pub(super) fn take_page(
        &mut self,
        from: NodeId,
        view: View,
        at: Stamp,
        page: Page,
    ) -> Option<Message> {
        let of = (from, view.number, at);
        let known = self.arriving.take();
        let known = known.filter(|it| (it.from, it.number, it.at) == of);
        // What is late of an earlier reading is of no use.
        let known = known.filter(|it| it.sending >= page.sending);
        let mut arriving = known.unwrap_or_else(|| Arriving {
            from,
            number: view.number,
            at,
            sending: page.sending,
            pages: BTreeMap::new(),
            count: None,
            bytes: 0,
        });
        if page.sending == arriving.sending {
            arriving.take(page);
        }
        if arriving.bytes > 2 * STATE_BYTES_MAX {
            tracing::warn!(%from, "a state is larger than any copy may be");
            return None;
        }
        if arriving.count != Some(arriving.pages.len()) {
            self.arriving = Some(arriving);
            return None;
        }
        self.arrived = arriving.pages.into_values().collect();
        Some(Message::Snapshot { view, at })
    }
}

impl Arriving {
    fn take(&mut self, page: Page) {
        if page.last {
            self.count = Some(page.number as usize + 1);
        }
        let bytes = page.bytes();
        if self.pages.insert(page.number, page).is_none() {
            self.bytes += bytes;
        }
    }
}

impl Page {
    fn bytes(&self) -> usize {
        let rows = self
            .rows
            .iter()
            .map(|row| ITEM_BYTES + row.key.len() + row.value.len());
        let replies = self
            .replies
            .iter()
            .map(|reply| ITEM_BYTES + reply.body.len());
        let actions = self.actions.as_ref().map_or(0, bytes::Bytes::len);
        ITEM_BYTES + self.head.state.len() + actions + rows.sum::<usize>() + replies.sum::<usize>()
    }
}

/// The batches that make a state that has arrived the copy's: one that removes what was there,
/// then the pages, the last one with the record.
pub(super) fn batches(uid: Uid, view: &View, at: Stamp, pages: Vec<Page>) -> Vec<Batch> {
    let item = |record, rows, replies, actions, (page, last)| {
        Batch::from(Item::GroupSnapshot {
            uid,
            view: view.clone(),
            at,
            record,
            rows,
            replies,
            actions,
            page,
            last,
        })
    };
    let mut batches = vec![item(None, Vec::new(), Vec::new(), None, (0, false))];
    let mut head = None;
    for page in pages {
        if page.number == 0 {
            let Head {
                class,
                schema,
                version,
                state,
            } = page.head;
            let epoch = Epoch(0);
            head = Some(Record {
                class,
                schema,
                version,
                epoch,
                state,
            });
        }
        let record = head.take_if(|_| page.last);
        let number = u32::try_from(batches.len()).unwrap_or(u32::MAX);
        let end = (number, page.last);
        batches.push(item(record, page.rows, page.replies, page.actions, end));
    }
    batches
}

impl Shard {
    /// Sends the state to the copies that wait for it, if the store shows what they are to get.
    pub(super) fn send_states(self: &Rc<Self>, uid: Uid) {
        let Some(store) = self.registry.store.clone() else {
            return;
        };
        let (turns, sending) = {
            let mut groups = self.groups.borrow_mut();
            let turns = groups.sending.turns.clone();
            groups.sending.last += 1;
            let sending = groups.sending.last;
            let Some(group) = groups.by_object.get_mut(&uid) else {
                return;
            };
            if !group.may_send_state() || group.sending {
                return;
            }
            group.sending = true;
            (turns, sending)
        };
        let shard = self.clone();
        self.spawn(async move {
            // It is closed by nobody.
            let turn = turns.acquire_owned().await;
            let (to, view) = shard.send_state(store, uid, sending).await;
            drop(turn);
            {
                let mut groups = shard.groups.borrow_mut();
                let Some(group) = groups.by_object.get_mut(&uid) else {
                    return;
                };
                group.sending = false;
                // Who has asked again meanwhile did not know that it is on its way; but what is of
                // an older view is not taken.
                if *group.member.view() == view {
                    group.wants_state.retain(|node| !to.contains(node));
                }
            }
            shard.send_states(uid);
        });
    }

    /// Reads the state and sends it, again if something was installed while it was read; to whom,
    /// and of which view.
    async fn send_state(
        self: &Rc<Self>,
        store: Arc<dyn ObjectStore>,
        uid: Uid,
        sending: u64,
    ) -> (BTreeSet<NodeId>, View) {
        for _ in 0..READS_MAX {
            let begun = {
                let groups = self.groups.borrow();
                let group = groups.by_object.get(&uid);
                let group = group.filter(|it| it.may_send_state());
                group.map(|it| (it.member.log().installed(), it.member.view().clone()))
            };
            let Some((at, view)) = begun else {
                // It is asked for again when the store shows all.
                return (BTreeSet::new(), View::default());
            };
            let store = store.clone();
            let reading = tokio::task::spawn_blocking(move || read_pages(&store, uid, sending));
            let pages = match reading.await {
                Ok(Ok(pages)) => pages,
                Ok(Err(error)) => {
                    tracing::error!(%uid, %error, "no copy can be made");
                    break;
                }
                Err(error) => {
                    tracing::error!(%uid, %error, "reading a state for a copy failed");
                    break;
                }
            };
            let to = {
                let mut groups = self.groups.borrow_mut();
                let group = groups.by_object.get_mut(&uid);
                let same = |it: &&mut Group| {
                    it.member.log().installed() == at && *it.member.view() == view
                };
                let group = group.filter(same);
                group.map(|group| std::mem::take(&mut group.wants_state))
            };
            if let Some(to) = to {
                self.send_pages(uid, &to, (&view, at), &pages).await;
                return (to, view);
            }
        }
        // They ask again.
        let mut groups = self.groups.borrow_mut();
        if let Some(group) = groups.by_object.get_mut(&uid) {
            group.wants_state.clear();
        }
        (BTreeSet::new(), View::default())
    }

    async fn send_pages(
        self: &Rc<Self>,
        uid: Uid,
        to: &BTreeSet<NodeId>,
        (view, at): (&View, Stamp),
        pages: &[Page],
    ) {
        for to in to {
            let news = pages.iter().map(|page| {
                let view = view.clone();
                let news = GroupNews {
                    object: uid,
                    message: Message::Snapshot { view, at },
                    bodies: Vec::new(),
                    page: Some(Box::new(page.clone())),
                };
                What::Group(Box::new(news))
            });
            let of = (message::Shard::Of(uid), self.handle.index());
            let sent = actions::send_in_turn(&self.client, *to, of, news);
            let sent = tokio::time::timeout(SENDING, sent).await;
            if let Err(error) = sent.unwrap_or_else(|_| Err(late(uid))) {
                tracing::debug!(%uid, %to, %error, "a copy has not got the state yet");
            }
        }
    }
}

fn late(uid: Uid) -> SystemError {
    let detail = format!("the state of {uid} was not taken within {SENDING:?}");
    SystemError::new(ErrorKind::Unreachable, detail)
}

/// Reads an object's whole state.
fn read_pages(
    store: &Arc<dyn ObjectStore>,
    uid: Uid,
    sending: u64,
) -> Result<Vec<Page>, SystemError> {
    let state = store.group_state(uid);
    let record = state
        .map_err(|it| unreadable(uid, &it))?
        .and_then(|state| state.record)
        .ok_or_else(|| {
            let detail = format!("{uid} has no state in the store");
            SystemError::new(ErrorKind::NoSuchObject, detail)
        })?;
    let mut pages = vec![Page {
        head: Head {
            class: record.class,
            schema: record.schema,
            version: record.version,
            state: record.state,
        },
        ..Page::default()
    }];
    let mut bytes = pages[0].bytes();
    let mut after: Option<(u16, bytes::Bytes)> = None;
    loop {
        let from = after.as_ref().map(|(part, key)| (*part, &key[..]));
        let found = store
            .export_rows(uid, from, PAGE_BYTES)
            .map_err(|it| unreadable(uid, &it))?;
        let Some(last) = found.rows.last() else { break };
        after = Some((last.part, last.key.clone()));
        let more = found.more;
        for rows in found.rows.chunks(PAGE_ITEMS_MAX) {
            let page = Page {
                rows: rows.to_vec(),
                ..Page::default()
            };
            bytes += page.bytes();
            pages.push(page);
        }
        if bytes > STATE_BYTES_MAX {
            let detail =
                format!("{uid} has more than {STATE_BYTES_MAX} bytes, too many for a copy");
            return Err(SystemError::new(ErrorKind::TooLarge, detail));
        }
        if !more {
            break;
        }
    }
    read_replies(store, uid, &mut pages)?;
    read_actions(store, uid, &mut pages)?;
    for (number, page) in (0..).zip(&mut pages) {
        (page.sending, page.number) = (sending, number);
    }
    if let Some(last) = pages.last_mut() {
        last.last = true;
    }
    Ok(pages)
}

fn read_replies(
    store: &Arc<dyn ObjectStore>,
    uid: Uid,
    pages: &mut Vec<Page>,
) -> Result<(), SystemError> {
    let keep_ms = REPLY_RETENTION.as_millis() as u64;
    let (of, mut cursor) = (BTreeSet::from([uid]), ReplyCursor::default());
    let mut step = || -> Result<ControlFlow<()>, SystemError> {
        let found = store
            .replies_of(&of, keep_ms, cursor, PAGE_BYTES)
            .map_err(|it| unreadable(uid, &it))?;
        for replies in found.replies.chunks(PAGE_ITEMS_MAX) {
            pages.push(Page {
                replies: replies.to_vec(),
                ..Page::default()
            });
        }
        cursor = found.next;
        Ok(if found.done {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    };
    while step()?.is_continue() {}
    Ok(())
}

/// A part of an action is as large as an entry may be, and goes whole.
fn read_actions(
    store: &Arc<dyn ObjectStore>,
    uid: Uid,
    pages: &mut Vec<Page>,
) -> Result<(), SystemError> {
    let mut cursor = ActionCursor::default();
    loop {
        let found = store
            .export_actions(uid, cursor, PAGE_BYTES)
            .map_err(|it| unreadable(uid, &it))?;
        let Some(actions) = found.actions else {
            return Ok(());
        };
        cursor = found.next;
        pages.push(Page {
            actions: Some(actions),
            ..Page::default()
        });
    }
}

fn unreadable(uid: Uid, error: &StoreError) -> SystemError {
    SystemError::new(ErrorKind::Store, format!("the state of {uid}: {error}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use partha_core::action::path::Site;
    use partha_core::group::Member;
    use partha_core::group::log::Log;
    use partha_core::id::ClassId;
    use partha_core::time::Time;
    use partha_store::{MemoryStore, entry};

    use super::*;

    const UID: Uid = Uid {
        node: NodeId(1),
        local: 2,
    };

    fn action(local: u64) -> Uid {
        Uid { local, ..UID }
    }

    fn page(sending: u64, number: u32, count: u32) -> Page {
        Page {
            sending,
            number,
            last: number + 1 == count,
            ..Page::default()
        }
    }

    /// Pages as they come, each of a reading and with its number; the last of which the copy is
    /// told that the state is there, and of what.
    fn arrives(pages: &[(u64, u32)], count: u32) -> Option<(usize, Vec<(u64, u32)>)> {
        let view = View::first(vec![NodeId(1), NodeId(2)]);
        let at = Stamp { view: 1, index: 1 };
        let log = Log::restored(Stamp::default(), &[]);
        let member = Member::new(NodeId(2), view.clone(), log, 1, Time(0));
        let mut group = Group::new(member.without_state(), ClassId(1), 2);
        let mut whole = None;
        for (turn, (sending, number)) in pages.iter().enumerate() {
            let page = page(*sending, *number, count);
            if group.take_page(NodeId(1), view.clone(), at, page).is_some() {
                let of = |page: &Page| (page.sending, page.number);
                whole = Some((turn, group.arrived.iter().map(of).collect()));
            }
        }
        whole
    }

    #[test]
    fn a_state_is_there_when_all_pages_of_one_reading_are() {
        let first = vec![(1, 0), (1, 1), (1, 2)];
        assert_eq!(arrives(&first, 3), Some((2, first.clone())));
        // They overtake each other, or come twice.
        let mixed = [(1, 2), (1, 0), (1, 0), (1, 1)];
        assert_eq!(arrives(&mixed, 3), Some((3, first)));
        // One is lost; also where its number comes again with another reading.
        assert_eq!(arrives(&[(1, 0), (1, 2)], 3), None);
        assert_eq!(arrives(&[(1, 0), (1, 1), (2, 0), (1, 2)], 3), None);
        assert_eq!(arrives(&[(1, 0), (2, 1), (1, 2)], 3), None);
        // The next reading does.
        let second = vec![(2, 0), (2, 1), (2, 2)];
        let pages = [(1, 0), (2, 0), (1, 1), (2, 2), (1, 2), (2, 1)];
        assert_eq!(arrives(&pages, 3), Some((5, second)));
        assert_eq!(arrives(&[(1, 0)], 1), Some((0, vec![(1, 0)])));
    }

    /// What an action has prepared at the copy, and what the copy has decided on, come along.
    #[test]
    fn a_state_has_what_is_about_actions() {
        let view = View::first(vec![NodeId(1), NodeId(2)]);
        let at = Stamp { view: 1, index: 1 };
        let record = Record {
            class: ClassId(1),
            schema: 0,
            version: 1,
            epoch: Epoch(1),
            state: Bytes::from_static(b"state"),
        };
        let mut changed = vec![Item::PreparePart {
            uid: UID,
            action: action(90),
            coordinator: Site::default().into(),
            body: entry::encode(&Batch::default()),
        }];
        // More than a page of them.
        let groups = vec![action(3); 64];
        let decisions = 1 + (PAGE_BYTES / (16 * groups.len())) as u64;
        changed.extend((0..decisions).map(|number| Item::DecideGroup {
            uid: UID,
            action: action(100 + number),
            participants: vec![Site::default()],
            groups: groups.clone(),
            keep_ms: 1 << 40,
        }));
        let from: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        let join = |has_state| Item::JoinGroup {
            uid: UID,
            view: view.clone(),
            has_state,
        };
        let log = Item::GroupLog {
            uid: UID,
            view: view.clone(),
            truncate: None,
            add: vec![(at, entry::encode(&Batch::new(changed)))],
        };
        let create = Item::Create { uid: UID, record };
        let install = Item::GroupInstall { uid: UID, index: 1 };
        let items = vec![create, join(true), log, install];
        from.commit(Batch::new(items)).unwrap();

        let pages = read_pages(&from, UID, 1).unwrap();
        assert!(pages.iter().filter(|page| page.actions.is_some()).count() > 1);
        let to = MemoryStore::new();
        to.commit(join(false).into()).unwrap();
        for batch in batches(UID, &view, at, pages) {
            to.commit(batch).unwrap();
        }
        assert_eq!(to.read_part(UID).unwrap(), from.read_part(UID).unwrap());
        let unsettled = to.unsettled(UID).unwrap();
        assert_eq!(unsettled.len() as u64, decisions);
        assert_eq!(unsettled, from.unsettled(UID).unwrap());
    }
}
