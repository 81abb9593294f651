//! Messages between nodes, and what the binder does with questions about the view.

use partha_core::group::{Change, Input, Message, Rule, Stamp, Wish};
use partha_core::id::NodeId;

use super::plan::{BEAT, SILENCE};
use super::truth::Object;
use super::world::{Check, Event, Packet, World, index, node_id};

impl World {
    pub(super) fn mail(&mut self, from: usize, to: NodeId, message: Message) {
        let to = index(to);
        let process = self.process(from);
        let stamps: Vec<Stamp> = match &message {
            Message::Adopt { entries, .. } => entries.clone(),
            Message::Append { entry, .. } => entry.iter().copied().collect(),
            _ => Vec::new(),
        };
        let ops = stamps.iter().map(|stamp| (*stamp, process.ops[stamp]));
        let ops = ops.collect();
        let object = match &message {
            Message::Snapshot { .. } => process.object.clone(),
            _ => Object::default(),
        };
        let packet = Packet {
            from,
            to,
            message,
            ops,
            object,
        };
        self.send(from, to, &Event::Packet(Box::new(packet)));
    }

    pub(super) fn packet(&mut self, packet: Packet) -> Check {
        let Packet {
            from,
            to,
            message,
            ops,
            object,
        } = packet;
        if self.nodes[to].process.is_none() {
            return Ok(());
        }
        if let Some(differs) = self.differs(to, &message) {
            self.mail(to, node_id(from), differs);
            return Ok(());
        }
        if let Message::Differs { .. } = message {
            let process = self.process(to);
            let (before, from) = (process.member.wants_another(), node_id(from));
            self.input(to, Input::Message { from, message })?;
            if !before && self.process(to).member.wants_another() {
                self.summary.reach("differs: by most");
            }
            return Ok(());
        }
        let before = {
            let process = self.process(to);
            process.ops.extend(ops);
            let before = process.object.clone();
            if let Message::Snapshot { .. } = &message {
                process.object = object;
            }
            before
        };
        let snapshots = self.summary.reached.get("snapshot").copied();
        let is_snapshot = matches!(message, Message::Snapshot { .. });
        let from = node_id(from);
        self.input(to, Input::Message { from, message })?;
        let taken = snapshots != self.summary.reached.get("snapshot").copied();
        if is_snapshot && !taken {
            self.process(to).object = before;
        }
        Ok(())
    }

    /// Now and then a copy comes to something else than its leader by what it is told, and takes
    /// it only when it is told again.
    fn differs(&mut self, node: usize, message: &Message) -> Option<Message> {
        let Message::Append {
            number,
            entry: Some(at),
            ..
        } = message
        else {
            return None;
        };
        let known = self.process(node).member.log().has(*at);
        if known || !self.rng.chance(self.plan.differs_per_mille) {
            return None;
        }
        self.summary.reach("differs");
        Some(Message::Differs {
            number: *number,
            at: *at,
            digest: [u8::from(self.rng.chance(250)); 32],
        })
    }

    pub(super) fn ask_binder(&mut self, from: usize, change: Option<Change>) {
        self.send(from, self.nodes.len(), &Event::AtBinder { from, change });
    }

    pub(super) fn at_binder(&mut self, from: usize, change: Option<Change>) {
        if self.binder_away_until > self.now {
            return;
        }
        if let Some(mut change) = change {
            if self.rule == Some(Rule::NameView) {
                change.expected = self.binder.number;
            }
            match self.binder.change(&change) {
                Ok(view) => {
                    if let Wish::Policy(_) = change.wish {
                        self.another_policy = Some((from, view.number));
                    }
                    self.summary.reach(match change.wish {
                        Wish::Renew => "view: renewed",
                        Wish::Lead => "view: taken over",
                        Wish::Exclude(_) => "view: excluded",
                        Wish::Include(_) => "view: included",
                        Wish::HandOver(_) => "view: handed over",
                        Wish::Policy(_) => "view: another policy",
                    });
                    self.binder = view;
                }
                Err(_) => self.summary.reach("view: stale"),
            }
        }
        let view = self.binder.clone();
        self.send(
            self.nodes.len(),
            from,
            &Event::FromBinder { to: from, view },
        );
    }

    pub(super) fn tick(&mut self, node: usize, life: u32) -> Check {
        if self.nodes[node].life != life || self.nodes[node].process.is_none() {
            return Ok(());
        }
        self.schedule(BEAT, Event::Tick { node, life });
        let local = self.nodes[node].local(self.now);
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let from = node;
            self.send(from, to, &Event::Beat { from, to });
            let process = self.process(node);
            if local.0.saturating_sub(process.heard[&to]) > SILENCE {
                process.lost.insert(to, true);
            }
            if process.lost.get(&to) == Some(&true) {
                let (of, ended) = (node_id(to), false);
                self.input(node, Input::Lost { node: of, ended })?;
            }
        }
        Ok(())
    }

    pub(super) fn beat(&mut self, from: usize, to: usize) -> Check {
        let local = self.nodes[to].local(self.now);
        if self.nodes[to].process.is_none() {
            return Ok(());
        }
        let process = self.process(to);
        process.heard.insert(from, local.0);
        if process.lost.insert(from, false) == Some(true) {
            let node = node_id(from);
            return self.input(to, Input::Found { node });
        }
        Ok(())
    }
}
