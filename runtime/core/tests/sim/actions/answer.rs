//! What leaves a shard: answers of calls, ends of commits, messages to other shards.

use partha_core::action::message::{From, Message, To, Verdict, Vote};
use partha_core::action::path::{Joined, Participant, Site};
use partha_core::action::scope::Report;
use partha_core::id::{CallId, Uid};
use partha_core::{Answer, End, Refusal, Ticket};

use super::checker::{atomic, durable};
use super::net::{Life, Response};
use super::plan::{MS, S};
use super::truth::Outcome;
use super::world::{Check, Event, Place, World};
use crate::options::FaultKind;

impl World {
    pub(crate) fn reply(
        &mut self,
        at: Place,
        ticket: Ticket,
        answer: Answer,
        joined: Option<Joined>,
    ) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        shard.tickets.replied(ticket)?;
        let node = &self.nodes[at.node];
        let shard = &node.shards[at.shard];
        let held = &shard.held[&ticket];
        let (conn, call, op) = (held.conn, held.call, held.op);
        let first = if let Answer::SameAs(first) = answer {
            first
        } else {
            ticket
        };
        let outcome_of = |ticket: Ticket| {
            let outcome = shard
                .held
                .get(&ticket)
                .and_then(|held| held.outcome.clone());
            outcome.ok_or_else(|| format!("tickets: {ticket:?} has no outcome to answer with"))
        };
        let executed = matches!(answer, Answer::Outcome | Answer::SameAs(_));
        let mut known = None;
        let result = match answer {
            Answer::Outcome | Answer::SameAs(_) => Ok(outcome_of(first)?),
            Answer::Saved(call) if held.path().is_some() => {
                let saved = self.saved_in_log(at, held.uid, call)?;
                known = Some(saved.1);
                Ok(saved.0)
            }
            Answer::Saved(call) => match node.disk.replies.get(&call) {
                Some(outcome) => Ok(outcome.clone()),
                None => return Err(format!("durable: no reply is saved under {call}")),
            },
            Answer::Refused(refusal) => Err(refusal),
        };
        if let Ok(outcome) = &result
            && held.path().is_none()
        {
            let (kind, uid) = (held.kind, outcome.uid);
            durable::leaves(op, kind, outcome, self.stored_list(uid))?;
        }
        if executed && held.path().is_some() != joined.is_some() {
            return Err(format!("tickets: {held:?} has joined {joined:?}"));
        }
        let mut moved = None;
        if let Err(Refusal::Moved) = &result {
            let uid = held.uid;
            let forward = node.disk.forwards.get(&uid).copied();
            let to = forward.or_else(|| self.leader_site(uid));
            let to = to.ok_or_else(|| format!("moves: {uid} has moved, nobody knows where"))?;
            moved = Some((self.site_at(at), to));
        }
        let mut report = self.report_of(at, first, joined);
        self.add_saved(&mut report, known);
        self.respond(
            conn,
            Response::Return {
                call,
                result,
                report,
                moved,
            },
        );
        Ok(())
    }

    fn saved_in_log(&self, at: Place, uid: Uid, call: CallId) -> Result<(Outcome, Report), String> {
        let shown = self.shown(at.node, uid);
        let saved = shown.and_then(|shown| shown.saved.get(&call)).cloned();
        saved.ok_or_else(|| format!("cohort: {call} has no saved answer"))
    }

    /// An answer from a log says what it said when it was put there.
    fn add_saved(&mut self, report: &mut Report, saved: Option<Report>) {
        if let Some(saved) = saved {
            self.summary.reach("cohort: a saved answer");
            report.participants.extend(saved.participants);
            report.aborted.extend(saved.aborted);
        }
    }

    /// What an answer says about who takes part.
    fn report_of(&self, at: Place, first: Ticket, joined: Option<Joined>) -> Report {
        let mut report = self.servant_report(at, first);
        let (process, life) = (at.node, at.life);
        let incarnation = Self::peer_of(Life { process, life }).incarnation;
        report.participants.extend(joined.map(|joined| Participant {
            site: self.site_at(at),
            incarnation,
            joined,
        }));
        report
    }

    /// What the calls of a servant say about who takes part.
    pub(crate) fn servant_report(&self, at: Place, first: Ticket) -> Report {
        let mut report = Report::default();
        if let Some(first) = self.nodes[at.node].shards[at.shard].held.get(&first) {
            if let Some(run) = first.run {
                report = self.runs[run].family.report();
            }
            report.aborted.extend(&first.dooms);
        }
        report
    }

    /// Sends a message of an engine; some get lost, come twice or late.
    pub(crate) fn mail_out(&mut self, at: Place, to: To, message: Message) {
        let (node, shard) = match to {
            To::Site(site) => (Self::node_of(site.node), usize::from(site.shard)),
            To::Home { node, root } => (Self::node_of(node), self.shard_of(root)),
            To::Leader { object } => {
                let stale = self.group_rng.chance(50);
                let known = self.leader_site(object).filter(|_| !stale);
                let site = known.unwrap_or_else(|| self.site_of(object));
                (Self::node_of(site.node), usize::from(site.shard))
            }
        };
        let from = From {
            peer: Self::peer_of(Life {
                process: at.node,
                life: at.life,
            }),
            shard: at.shard as u16,
        };
        if self.dies_voting(at, &message) {
            return;
        }
        if node == at.node {
            let delay = self.rng.range(1_000, 50_000);
            let message = Box::new(message);
            return self.schedule(
                self.now + delay,
                Event::Mail {
                    node,
                    shard,
                    from,
                    message,
                },
            );
        }
        let trouble = self.in_faults();
        let deaf = self.blocked(at.node, node) > self.now;
        if deaf || (trouble && self.rng.chance(self.plan.lost)) {
            self.summary.reach("lost: of a shard");
            self.unheard = true;
            return;
        }
        let copies = 1 + u32::from(trouble && self.rng.chance(self.plan.doubled));
        for _ in 0..copies {
            let delay = if trouble && self.rng.chance(self.plan.late) {
                self.rng.range(MS, 3 * S)
            } else {
                self.rng.range(10_000, 3 * MS)
            };
            let message = Box::new(message.clone());
            self.schedule(
                self.now + delay,
                Event::Mail {
                    node,
                    shard,
                    from,
                    message,
                },
            );
        }
    }

    /// A node may die with a vote that says where objects went: its next life does not know that.
    fn dies_voting(&mut self, at: Place, message: &Message) -> bool {
        let tells =
            matches!(message, Message::Vote { vote: Vote::Yes, moved, .. } if !moved.is_empty());
        let may = self.in_faults() && !self.plan.caps.lacks(FaultKind::Crash);
        if !tells || !may || !self.rng.chance(self.plan.moved_lost) {
            return false;
        }
        self.summary.reach("lost: a vote, with its node");
        self.unheard = true;
        let (node, life) = (at.node, at.life);
        self.schedule(self.now, Event::Dies { node, life });
        true
    }

    /// The site of a place.
    pub(crate) fn site_at(&self, at: Place) -> Site {
        let shard = at.shard as u16;
        Site {
            node: Self::node_id(at.node),
            shard,
        }
    }

    pub(crate) fn ended(&mut self, at: Place, ticket: Ticket, end: End) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let asked = shard.asked.remove(&ticket).filter(|asked| asked.commit);
        let asked = asked.ok_or_else(|| format!("tickets: {ticket:?} asked for no commit"))?;
        let root = self.runs[asked.run].root;
        match end {
            End::Committed => durable::told_committed(&self.truth, root)?,
            // A request that was sent twice, and is late: nobody hears the answer.
            End::Aborted(_) if self.truth.roots[&root].forgotten => {}
            End::Aborted(_) => {
                atomic::told_aborted(&self.truth, root)?;
                self.truth.root(root).dead = true;
            }
            End::Unknown => {}
        }
        if let Some(conn) = asked.conn {
            self.respond(
                conn,
                Response::Ended {
                    run: asked.run,
                    end,
                },
            );
        }
        Ok(())
    }

    pub(crate) fn told_out(
        &mut self,
        at: Place,
        ticket: Ticket,
        verdict: Option<Verdict>,
    ) -> Check {
        let shard = &mut self.nodes[at.node].shards[at.shard];
        let asked = shard.asked.remove(&ticket).filter(|asked| !asked.commit);
        let asked = asked.ok_or_else(|| format!("tickets: {ticket:?} asked for no verdict"))?;
        let root = self.runs[asked.run].root;
        match verdict {
            Some(Verdict::Committed) => durable::told_committed(&self.truth, root)?,
            Some(Verdict::Aborted) if self.truth.roots[&root].forgotten => {}
            Some(Verdict::Aborted) => {
                atomic::told_aborted(&self.truth, root)?;
                self.truth.root(root).dead = true;
            }
            Some(Verdict::InFlight) | None => {}
        }
        match asked.conn {
            Some(conn) => self.respond(
                conn,
                Response::Told {
                    run: asked.run,
                    verdict,
                },
            ),
            None => atomic::outcome_agrees(&self.truth, root, verdict)?,
        }
        Ok(())
    }
}
