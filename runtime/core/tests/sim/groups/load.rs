//! What clients want, and how a node answers them.

use partha_core::group::Input;

use super::client::Want;
use super::plan::MS;
use super::shell::WAITING;
use super::truth::{Op, PART};
use super::world::{Check, Event, Reply, World};

impl World {
    pub(super) fn client(&mut self, client: usize, asked: u64) {
        if self.clients[client].asked != asked {
            return;
        }
        let want = match self.clients[client].want {
            Some(want) => {
                // It has waited for long enough.
                self.clients[client].node = self.rng.below(self.nodes.len() as u64) as usize;
                want.anywhere()
            }
            None if self.clients[client].left == 0 => return,
            None => {
                self.clients[client].left -= 1;
                self.next_op += 1;
                let op = self.next_op;
                if self.rng.chance(400) {
                    let owed = self.truth.owed;
                    let near = self.rng.chance(self.plan.near_per_mille);
                    let near = near.then(|| self.rng.below(self.nodes.len() as u64) as usize);
                    Want::Read {
                        number: op,
                        owed,
                        near,
                    }
                } else {
                    Want::Add(op)
                }
            }
        };
        self.ask(client, want);
    }

    pub(super) fn ask(&mut self, client: usize, want: Want) {
        let state = &mut self.clients[client];
        state.want = Some(want);
        state.asked += 1;
        let (node, asked) = match want {
            Want::Read {
                near: Some(near), ..
            } => (near, state.asked),
            Want::Read { .. } | Want::Add(_) => (state.node, state.asked),
        };
        let request = Event::Request { client, node, want };
        let at = self.nodes.len() + 1 + client;
        self.send(at, node, &request);
        let patience = self.plan.patience;
        self.schedule(patience, Event::Client { client, asked });
    }

    pub(super) fn reply(&mut self, node: usize, client: usize, number: Op, reply: Reply) {
        let at = self.nodes.len() + 1 + client;
        self.send(
            node,
            at,
            &Event::Answer {
                client,
                number,
                reply,
            },
        );
    }

    pub(super) fn request(&mut self, client: usize, node: usize, want: Want) -> Check {
        let now = self.nodes[node].local(self.now);
        let number = want.number();
        let Some(process) = &mut self.nodes[node].process else {
            return Ok(());
        };
        if !process.leads {
            if let Want::Read { near: Some(_), .. } = want {
                process.last_read += 1;
                let read = process.last_read;
                process.reads.insert(read, (client, number));
                return self.input(node, Input::Read { read });
            }
            self.summary.reach("not leading");
            self.reply(node, client, number, Reply::Elsewhere);
            return Ok(());
        }
        if process.locked.is_some() {
            self.summary.reach("locked");
            self.reply(node, client, number, Reply::Elsewhere);
            return Ok(());
        }
        match want {
            Want::Read { .. } => {
                if process.member.serves_until() > now {
                    let list = self.shown(node);
                    self.summary.reach("read");
                    self.reply(node, client, number, Reply::Read(list));
                } else {
                    process.readers.push((client, number));
                    self.summary.reach("read: waits for promises");
                    return self.input(node, Input::Confirm);
                }
            }
            Want::Add(op) => {
                let mut pending = process.pending.values_mut();
                if let Some((_, clients)) = pending.find(|(it, _)| *it == op) {
                    clients.push(client);
                    return Ok(());
                }
                let shown = self.shown(node);
                if shown.contains(&op) {
                    self.summary.reach("answered again");
                    let length = shown.len();
                    self.reply(node, client, number, Reply::Added { length });
                    return Ok(());
                }
                let entry = match self.rng.chance(self.plan.parts_per_mille) {
                    true => op | PART,
                    false => op,
                };
                let process = self.process(node);
                process.pending.insert(WAITING, (op, vec![client]));
                return self.input(node, Input::Add { entry });
            }
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, client: usize, number: Op, reply: Reply) -> Check {
        let want = self.clients[client].want;
        let Some(want) = want.filter(|want| want.number() == number) else {
            return Ok(());
        };
        match (reply, want) {
            (Reply::Added { length }, Want::Add(_)) => self.truth.answered(length),
            (Reply::Read(list), Want::Read { owed, .. }) => {
                self.truth.read(&list, owed)?;
                self.truth.answered(list.len());
            }
            (Reply::Elsewhere, want @ Want::Read { near: Some(_), .. }) => {
                return self.ask_later(client, want.anywhere());
            }
            (Reply::Elsewhere, want) => {
                self.clients[client].node = self.rng.below(self.nodes.len() as u64) as usize;
                return self.ask_later(client, want);
            }
            (reply, want) => return Err(format!("answer: {reply:?} to {want:?}")),
        }
        let state = &mut self.clients[client];
        state.want = None;
        state.asked += 1;
        let asked = state.asked;
        let pause = self.rng.range(1, self.plan.pause);
        self.schedule(pause, Event::Client { client, asked });
        Ok(())
    }

    pub(super) fn ask_later(&mut self, client: usize, want: Want) -> Check {
        let state = &mut self.clients[client];
        state.want = Some(want);
        state.asked += 1;
        let asked = state.asked;
        let pause = self.rng.range(MS, 4 * MS);
        self.schedule(pause, Event::Client { client, asked });
        Ok(())
    }
}
