//! Messages between copies, with the bytes that belong to them.

use std::rc::Rc;

use partha_core::group::{Input, Message, Role, Stamp};
use partha_core::id::{NodeId, Peer, Uid};

use super::executing;
use crate::net::actions;
use crate::shard::{Shard, count};
use crate::wire::group::GroupNews;
use crate::wire::message;

/// A message that has arrived.
pub(crate) struct Letter {
    pub(crate) from: Peer,
    pub(crate) news: Box<GroupNews>,
}

impl Shard {
    pub(super) fn send_news(self: &Rc<Self>, uid: Uid, to: NodeId, message: Message) {
        if let Message::Snapshot { .. } = message {
            if let Some(group) = self.groups.borrow_mut().by_object.get_mut(&uid) {
                group.wants_state.insert(to);
            }
            return self.send_states(uid);
        }
        let bodies = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get(&uid) else {
                return;
            };
            let body = |stamp: &Stamp| group.bodies.get(stamp).cloned();
            let bodies: Option<Vec<_>> = match &message {
                Message::Adopt { entries, .. } => entries.iter().map(body).collect(),
                Message::Append { entry, .. } => {
                    let told = entry.iter().map(|stamp| groups.told_of(uid, to, *stamp));
                    told.collect()
                }
                Message::Appended { .. }
                | Message::Differs { .. }
                | Message::Stale { .. }
                | Message::Hello { .. }
                | Message::Check { .. }
                | Message::Read { .. }
                | Message::ReadAt { .. }
                | Message::Snapshot { .. } => Some(Vec::new()),
            };
            // Installed since: it is told again, from a later entry on.
            let Some(bodies) = bodies else { return };
            (0..bodies.len()).for_each(|_| count(&self.counters.told));
            bodies
        };
        self.post_news(to, uid, message, bodies, None);
    }

    pub(super) fn post_news(
        &self,
        to: NodeId,
        object: Uid,
        message: Message,
        bodies: Vec<bytes::Bytes>,
        page: Option<Box<crate::wire::group::Page>>,
    ) {
        let news = GroupNews {
            object,
            message,
            bodies,
            page,
        };
        let what = message::What::Group(Box::new(news));
        let shard = message::Shard::Of(object);
        actions::post_what(&self.client, to, shard, self.handle.index(), what);
    }

    /// Another copy says something.
    pub(in crate::shard) fn group_news(self: &Rc<Self>, letter: Letter) {
        let Letter { from, news } = letter;
        let GroupNews {
            object: uid,
            message,
            bodies,
            page,
        } = *news;
        let Some(bodies) = self.taken_bodies(uid, from.node, &message, bodies) else {
            return;
        };
        let message = {
            let mut groups = self.groups.borrow_mut();
            let Some(group) = groups.by_object.get_mut(&uid) else {
                tracing::debug!(%uid, %from, "news of a group that has no copy here");
                return;
            };
            let stamps: &[Stamp] = match &message {
                Message::Adopt { entries, .. } => entries,
                Message::Append { entry, .. } => entry.as_slice(),
                Message::Differs { .. }
                | Message::Appended { .. }
                | Message::Stale { .. }
                | Message::Hello { .. }
                | Message::Check { .. }
                | Message::Read { .. }
                | Message::ReadAt { .. }
                | Message::Snapshot { .. } => &[],
            };
            // Who comes back and is not wanted any more goes, unless the binder is just asked
            // for something: it may be to include this one.
            let is_strange = matches!(message, Message::Hello { .. })
                && group.serves
                && !group.member.asks()
                && !group.has_room_for(from.node);
            if is_strange {
                drop(groups);
                // Nothing is kept back for it any more.
                let (node, ended) = (from.node, false);
                self.group_input(uid, Input::Lost { node, ended });
                return self.dismiss(uid, node);
            }
            let installed = group.member.log().installed().index;
            let leads = group.member.view().leader() == from.node;
            for (stamp, body) in stamps.iter().zip(bodies) {
                if leads && stamp.index > installed {
                    group.bodies.entry(*stamp).or_insert(body);
                }
            }
            match (message, page) {
                (Message::Snapshot { view, at }, Some(page)) => {
                    let known = group.member.view();
                    let wanted = group.member.role() == Role::Outside
                        && known.leader() == from.node
                        && known.number == view.number;
                    if !wanted {
                        return;
                    }
                    group.take_page(from.node, view, at, *page)
                }
                (message, _) => Some(message),
            }
        };
        if let Some(message) = message {
            Self::note_difference(uid, from, &message);
            let from = from.node;
            self.group_input(uid, Input::Message { from, message });
            self.forget_strays(uid);
        }
    }

    /// What a copy says that whoever reads the log is to know.
    fn note_difference(uid: Uid, from: Peer, message: &Message) {
        if let Message::Differs { number, at, .. } = message {
            let index = at.index;
            tracing::warn!(%uid, %from, view = number, index, "a copy has come to something else");
        }
    }

    /// The bytes of entries as this copy has them: those of one that is a call are what it comes to
    /// here. None if what was said cannot be taken as it was said.
    fn taken_bodies(
        self: &Rc<Self>,
        uid: Uid,
        from: NodeId,
        message: &Message,
        mut bodies: Vec<bytes::Bytes>,
    ) -> Option<Vec<bytes::Bytes>> {
        let Message::Append {
            previous,
            entry: Some(stamp),
            ..
        } = message
        else {
            return Some(bodies);
        };
        let next = {
            let groups = self.groups.borrow();
            let group = groups.by_object.get(&uid);
            group.is_some_and(|group| {
                let log = group.member.log();
                let known = log.has(*stamp) || stamp.index <= log.installed().index;
                group.member.view().leader() == from && !known && log.last() == *previous
            })
        };
        match bodies.pop() {
            Some(body) if next => Some(vec![self.taken(uid, (*previous, *stamp), body)?]),
            // It is not the next one: whatever it is, its bytes are not looked at.
            Some(body) => executing::is_entry(&body).then(|| vec![body]),
            None => Some(bodies),
        }
    }

    /// Bytes of entries that were not taken are not kept.
    fn forget_strays(&self, uid: Uid) {
        let mut groups = self.groups.borrow_mut();
        if let Some(group) = groups.by_object.get_mut(&uid) {
            let log = group.member.log();
            group.arrived.clear();
            let last_write = group.visible;
            group.bodies.retain(|stamp, _| {
                log.has(*stamp)
                    || (stamp.index > last_write && stamp.index <= log.installed().index)
            });
        }
    }
}
