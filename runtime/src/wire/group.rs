//! What copies of an object tell each other: the machine's messages with the bytes that it never
//! sees.
//!
//! Layout: `struct GroupNews` of wire.capnp. Reading is as strict as that of messages about
//! actions: a member that must be there is, lists are bounded, kinds are known.

use bytes::Bytes;
use partha_core::group::member::STAGED_MAX;
use partha_core::group::view::MEMBERS_MAX;
use partha_core::group::{Message, Stamp, View};
use partha_core::id::{CallId, ClassId, NodeId, Peer, Uid};
use partha_core::time::Time;
use partha_store::{KeptReply, Row};
use partha_wire::{DecodeError, PointerReader, Slot, StructAt, StructReader, Writer};

use super::parts::{bounded, incarnation, read_uid, required, write_uid};

/// Rows and saved replies in one page of a state, at most.
pub(crate) const PAGE_ITEMS_MAX: usize = 16_384;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupNews {
    pub(crate) object: Uid,
    pub(crate) message: Message,
    /// The bytes of the entries that the message names, in their order.
    pub(crate) bodies: Vec<Bytes>,
    /// A part of the state, with a snapshot.
    pub(crate) page: Option<Box<Page>>,
}

/// A part of an object's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Which reading of the state it is of: a page of another one does not fit.
    pub(crate) sending: u64,
    /// Counts the pages of that reading; the first one has zero.
    pub(crate) number: u32,
    /// The last page of a state; the first as well, if there is one.
    pub(crate) last: bool,
    /// The plain record, with the first page.
    pub(crate) head: Head,
    pub(crate) rows: Vec<Row>,
    pub(crate) replies: Vec<KeptReply>,
    /// What is about actions at the copy, as the store tells it; or nothing.
    pub(crate) actions: Option<Bytes>,
}

/// The plain record, without the epoch, which belongs to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) class: ClassId,
    pub(crate) schema: u64,
    pub(crate) version: u64,
    pub(crate) state: Bytes,
}

/// Values of `GroupNews.kind`.
mod kind {
    pub(super) const ADOPT: u16 = 0;
    pub(super) const APPEND: u16 = 1;
    pub(super) const APPENDED: u16 = 2;
    pub(super) const STALE: u16 = 3;
    pub(super) const HELLO: u16 = 4;
    pub(super) const CHECK: u16 = 5;
    pub(super) const SNAPSHOT: u16 = 6;
    pub(super) const READ: u16 = 7;
    pub(super) const READ_AT: u16 = 8;
    pub(super) const DIFFERS: u16 = 9;
}

/// The bit of `GroupNews.empty`.
const EMPTY_BIT: u32 = 5 * 64 + 16;
const NEWS_DATA: u16 = 6;
const NEWS_POINTERS: u16 = 4;

/// Writes the body of a frame.
pub(super) fn write(w: &mut Writer, slot: Slot, news: &GroupNews) {
    let s = w.structure(slot, NEWS_DATA, NEWS_POINTERS);
    write_uid(w, s.slot(0), news.object);
    let kind = match &news.message {
        Message::Adopt {
            view,
            previous,
            entries,
            complete,
            asked,
        } => {
            set_view(w, s, view);
            set_stamp(w, s, *previous);
            set_progress(w, s, *complete, *asked);
            write_entries(w, s.slot(2), entries, &news.bodies);
            kind::ADOPT
        }
        Message::Append {
            number,
            previous,
            entry,
            complete,
            asked,
        } => {
            w.set_u64(s, 0, *number);
            set_stamp(w, s, *previous);
            set_progress(w, s, *complete, *asked);
            write_entries(w, s.slot(2), entry.as_slice(), &news.bodies);
            kind::APPEND
        }
        Message::Appended {
            number,
            last,
            asked,
        } => {
            w.set_u64(s, 0, *number);
            set_stamp(w, s, *last);
            set_progress(w, s, 0, *asked);
            kind::APPENDED
        }
        Message::Snapshot { view, at } => {
            set_view(w, s, view);
            set_stamp(w, s, *at);
            kind::SNAPSHOT
        }
        Message::Differs { number, at, digest } => {
            w.set_u64(s, 0, *number);
            let digest = Bytes::copy_from_slice(digest);
            write_entries(w, s.slot(2), &[*at], &[digest]);
            kind::DIFFERS
        }
        short => write_short(w, s, short),
    };
    w.set_u16(s, 20, kind);
    if let Some(page) = &news.page {
        write_page(w, s.slot(3), page);
    }
}

/// What names no entries and brings no state: its kind.
fn write_short(w: &mut Writer, s: StructAt, message: &Message) -> u16 {
    match message {
        Message::Stale { view } => {
            set_view(w, s, view);
            kind::STALE
        }
        Message::Hello {
            number,
            installed,
            last,
        } => {
            w.set_u64(s, 0, *number);
            set_stamp(w, s, installed.unwrap_or_default());
            w.set_bool(s, EMPTY_BIT, installed.is_none());
            set_progress(w, s, last.view, Time(last.index));
            kind::HELLO
        }
        Message::Check { number } => {
            w.set_u64(s, 0, *number);
            kind::CHECK
        }
        Message::Read { number, asked } => {
            w.set_u64(s, 0, *number);
            set_progress(w, s, 0, *asked);
            kind::READ
        }
        Message::ReadAt {
            number,
            asked,
            index,
        } => {
            w.set_u64(s, 0, *number);
            w.set_bool(s, EMPTY_BIT, index.is_none());
            set_progress(w, s, index.unwrap_or_default(), *asked);
            kind::READ_AT
        }
        Message::Adopt { .. }
        | Message::Append { .. }
        | Message::Appended { .. }
        | Message::Differs { .. }
        | Message::Snapshot { .. } => unreachable!("it is written by whoever asks for this"),
    }
}

fn set_view(w: &mut Writer, s: StructAt, view: &View) {
    w.set_u64(s, 0, view.number);
    let members = view.members.iter().map(|member| member.0);
    w.u64s(s.slot(1), members);
}

fn set_stamp(w: &mut Writer, s: StructAt, stamp: Stamp) {
    w.set_u64(s, 1, stamp.view);
    w.set_u64(s, 2, stamp.index);
}

fn set_progress(w: &mut Writer, s: StructAt, complete: u64, asked: Time) {
    w.set_u64(s, 3, complete);
    w.set_u64(s, 4, asked.0);
}

fn write_entries(w: &mut Writer, slot: Slot, entries: &[Stamp], bodies: &[Bytes]) {
    if entries.is_empty() {
        return;
    }
    let list = w.structures(slot, entries.len(), 2, 1);
    for (index, (stamp, body)) in entries.iter().zip(bodies).enumerate() {
        let s = list.structure(index);
        w.set_u64(s, 0, stamp.view);
        w.set_u64(s, 1, stamp.index);
        w.bytes(s.slot(0), body);
    }
}

fn write_page(w: &mut Writer, slot: Slot, page: &Page) {
    let s = w.structure(slot, 5, 4);
    w.set_u64(s, 0, page.head.class.0);
    w.set_u64(s, 1, page.head.schema);
    w.set_u64(s, 2, page.head.version);
    w.set_bool(s, 3 * 64, page.number == 0);
    w.set_bool(s, 3 * 64 + 1, page.last);
    w.set_u32(s, 7, page.number);
    w.set_u64(s, 4, page.sending);
    w.bytes(s.slot(0), &page.head.state);
    if !page.rows.is_empty() {
        let list = w.structures(s.slot(1), page.rows.len(), 1, 2);
        for (index, row) in page.rows.iter().enumerate() {
            let s = list.structure(index);
            w.set_u16(s, 0, row.part);
            w.bytes(s.slot(0), &row.key);
            w.bytes(s.slot(1), &row.value);
        }
    }
    if !page.replies.is_empty() {
        let list = w.structures(s.slot(2), page.replies.len(), 4, 1);
        for (index, reply) in page.replies.iter().enumerate() {
            let s = list.structure(index);
            w.set_u64(s, 0, reply.call.caller.node.0);
            w.set_u64(s, 1, reply.call.sequence);
            w.set_u64(s, 2, reply.keep_ms);
            w.set_u32(s, 6, reply.call.caller.incarnation.0);
            w.bytes(s.slot(0), &reply.body);
        }
    }
    if let Some(actions) = &page.actions {
        w.bytes(s.slot(3), actions);
    }
}

/// The digest of what a copy has come to stands in the place of an entry's bytes.
fn read_differs(number: u64, stamps: &[Stamp], bodies: Vec<Bytes>) -> Result<Message, DecodeError> {
    let digest = bodies.first().and_then(|body| body[..].try_into().ok());
    match (digest, stamps) {
        (Some(digest), [at]) => Ok(Message::Differs {
            number,
            at: *at,
            digest,
        }),
        _ => Err(DecodeError::invalid("one digest").at("entries")),
    }
}

/// Reads what [`write`] wrote.
pub(super) fn read(body: PointerReader<'_>) -> Result<GroupNews, DecodeError> {
    let s = required(body)?;
    let number = s.u64(0);
    let stamp = read_stamp(s, 1);
    let (complete, asked) = (s.u64(3), Time(s.u64(4)));
    let (stamps, mut bodies) = read_entries(s.pointer(2)).map_err(|e| e.at("entries"))?;
    let view = || {
        read_members(s.pointer(1))
            .map(|members| View { number, members })
            .map_err(|e| e.at("members"))
    };
    let message = match s.u16(20) {
        kind::ADOPT => Message::Adopt {
            view: view()?,
            previous: stamp,
            entries: stamps,
            complete,
            asked,
        },
        kind::APPEND if stamps.len() <= 1 => Message::Append {
            number,
            previous: stamp,
            entry: stamps.first().copied(),
            complete,
            asked,
        },
        kind::APPEND => return Err(DecodeError::invalid("one entry at most").at("entries")),
        kind::APPENDED => Message::Appended {
            number,
            last: stamp,
            asked,
        },
        kind::DIFFERS => read_differs(number, &stamps, std::mem::take(&mut bodies))?,
        kind::STALE => Message::Stale { view: view()? },
        kind::HELLO => Message::Hello {
            number,
            installed: (!s.bool(EMPTY_BIT)).then_some(stamp),
            last: read_stamp(s, 3),
        },
        kind::CHECK => Message::Check { number },
        kind::SNAPSHOT => Message::Snapshot {
            view: view()?,
            at: stamp,
        },
        kind::READ => Message::Read { number, asked },
        kind::READ_AT => Message::ReadAt {
            number,
            asked,
            index: (!s.bool(EMPTY_BIT)).then_some(complete),
        },
        other => return Err(DecodeError::enumerant("GroupNews", other)),
    };
    let page = s.pointer(3);
    let has_page = matches!(message, Message::Snapshot { .. });
    if has_page == page.is_null() {
        return Err(DecodeError::invalid("a page with a snapshot alone").at("page"));
    }
    let object = read_uid(s.pointer(0))?;
    let page = match has_page {
        true => Some(Box::new(read_page(page, object).map_err(|e| e.at("page"))?)),
        false => None,
    };
    Ok(GroupNews {
        object,
        message,
        bodies,
        page,
    })
}

/// The name of an entry in this word and the next.
fn read_stamp(s: StructReader<'_>, word: u32) -> Stamp {
    Stamp {
        view: s.u64(word),
        index: s.u64(word + 1),
    }
}

/// A view has members, each once.
fn read_members(pointer: PointerReader<'_>) -> Result<Vec<NodeId>, DecodeError> {
    let members = pointer.u64s()?;
    let mut sorted = members.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if members.is_empty() || members.len() > MEMBERS_MAX || sorted.len() < members.len() {
        return Err(DecodeError::invalid("1 to 16 different members"));
    }
    Ok(members.into_iter().map(NodeId).collect())
}

fn read_entries(pointer: PointerReader<'_>) -> Result<(Vec<Stamp>, Vec<Bytes>), DecodeError> {
    let list = bounded(pointer, STAGED_MAX)?;
    let (mut stamps, mut bodies) = (Vec::new(), Vec::new());
    for s in list.iter_structures() {
        let stamp = Stamp {
            view: s.u64(0),
            index: s.u64(1),
        };
        let follows = stamps.last().is_none_or(|last: &Stamp| {
            last.index.checked_add(1) == Some(stamp.index) && last.view <= stamp.view
        });
        if !follows {
            return Err(DecodeError::invalid("entries that follow each other"));
        }
        stamps.push(stamp);
        bodies.push(s.pointer(0).bytes()?);
    }
    Ok((stamps, bodies))
}

fn read_page(pointer: PointerReader<'_>, uid: Uid) -> Result<Page, DecodeError> {
    let s = required(pointer)?;
    let rows = bounded(s.pointer(1), PAGE_ITEMS_MAX)?;
    let rows = rows.iter_structures().map(|s: StructReader<'_>| {
        Ok(Row {
            part: s.u16(0),
            key: s.pointer(0).bytes()?,
            value: s.pointer(1).bytes()?,
        })
    });
    let replies = bounded(s.pointer(2), PAGE_ITEMS_MAX)?;
    let replies = replies.iter_structures().map(|s: StructReader<'_>| {
        let caller = Peer {
            node: NodeId(s.u64(0)),
            incarnation: incarnation(s.u32(6))?,
        };
        let sequence = s.u64(1);
        Ok(KeptReply {
            call: CallId { caller, sequence },
            uid,
            keep_ms: s.u64(2),
            body: s.pointer(0).bytes()?,
        })
    });
    let (first, number) = (s.bool(3 * 64), s.u32(7));
    if first != (number == 0) {
        return Err(DecodeError::invalid("a first page with the number 0").at("number"));
    }
    Ok(Page {
        sending: s.u64(4),
        number,
        last: s.bool(3 * 64 + 1),
        head: Head {
            class: ClassId(s.u64(0)),
            schema: s.u64(1),
            version: s.u64(2),
            state: s.pointer(0).bytes()?,
        },
        rows: rows.collect::<Result<_, DecodeError>>()?,
        replies: replies.collect::<Result<_, DecodeError>>()?,
        actions: match s.pointer(3) {
            none if none.is_null() => None,
            actions => Some(actions.bytes()?),
        },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use partha_core::id::Incarnation;

    use super::*;

    fn object() -> Uid {
        Uid {
            node: NodeId(7),
            local: 4,
        }
    }

    fn at(view: u64, index: u64) -> Stamp {
        Stamp { view, index }
    }

    /// One of each.
    pub(in crate::wire) fn news() -> Vec<GroupNews> {
        let view = View {
            number: 9,
            members: vec![NodeId(1), NodeId(2), NodeId(3)],
        };
        let (number, asked) = (9, Time(77));
        let one = |message, bodies: &[&'static str]| GroupNews {
            object: object(),
            message,
            bodies: bodies
                .iter()
                .map(|it| Bytes::from_static(it.as_bytes()))
                .collect(),
            page: None,
        };
        let adopt = Message::Adopt {
            view: view.clone(),
            previous: at(8, 40),
            entries: vec![at(8, 41), at(9, 42)],
            complete: 41,
            asked,
        };
        let append = |entry| Message::Append {
            number,
            previous: at(9, 42),
            entry,
            complete: 42,
            asked,
        };
        let last = at(9, 43);
        let appended = Message::Appended {
            number,
            last,
            asked,
        };
        let hello = Message::Hello {
            number,
            installed: Some(at(4, 30)),
            last: at(5, 31),
        };
        let empty = Message::Hello {
            number,
            installed: None,
            last: at(0, 0),
        };
        let mut snapshot = one(
            Message::Snapshot {
                view: view.clone(),
                at: at(9, 43),
            },
            &[],
        );
        snapshot.page = Some(Box::new(page()));
        vec![
            one(adopt, &["first", "second"]),
            one(append(Some(at(9, 43))), &["third"]),
            one(append(None), &[]),
            one(appended, &[]),
            one(Message::Stale { view }, &[]),
            one(hello, &[]),
            one(empty, &[]),
            one(Message::Check { number }, &[]),
            one(Message::Read { number, asked }, &[]),
            one(read_at(number, Some(43)), &[]),
            one(read_at(number, None), &[]),
            one(differs(number), &[]),
            snapshot,
        ]
    }

    fn differs(number: u64) -> Message {
        Message::Differs {
            number,
            at: at(9, 43),
            digest: [7; 32],
        }
    }

    fn read_at(number: u64, index: Option<u64>) -> Message {
        let asked = Time(78);
        Message::ReadAt {
            number,
            asked,
            index,
        }
    }

    fn page() -> Page {
        Page {
            sending: 7,
            number: 0,
            last: true,
            head: Head {
                class: ClassId(17),
                schema: 18,
                version: 19,
                state: Bytes::from_static(b"state"),
            },
            rows: vec![Row {
                part: 2,
                key: Bytes::from_static(b"key"),
                value: Bytes::from_static(b"value"),
            }],
            replies: vec![KeptReply {
                call: CallId {
                    caller: Peer {
                        node: NodeId(6),
                        incarnation: Incarnation(3),
                    },
                    sequence: 5,
                },
                uid: object(),
                keep_ms: 4,
                body: Bytes::from_static(b"reply"),
            }],
            actions: Some(Bytes::from_static(b"actions")),
        }
    }

    fn read_back(news: &GroupNews) -> Result<GroupNews, DecodeError> {
        let mut w = Writer::new(1 << 20);
        write(&mut w, Slot::ROOT, news);
        let message = w.into_message().expect("it is small");
        read(message.root())
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let mut all = news();
        let snapshot = all.pop().expect("there are some");
        for mut other in all.clone() {
            other.page.clone_from(&snapshot.page);
            assert!(
                read_back(&other).is_err(),
                "a page with {:?}",
                other.message
            );
        }
        let without = GroupNews {
            page: None,
            ..snapshot
        };
        assert!(read_back(&without).is_err(), "no page");
        let views = [vec![], vec![NodeId(1), NodeId(1)], vec![NodeId(1); 17]];
        for members in views {
            let view = View { number: 1, members };
            let stale = GroupNews {
                message: Message::Stale { view },
                ..all[0].clone()
            };
            assert!(read_back(&stale).is_err());
        }
        let mut gap = all[0].clone();
        if let Message::Adopt { entries, .. } = &mut gap.message {
            entries[1].index += 1;
        }
        assert!(read_back(&gap).is_err(), "a gap");
    }
}
