//! Some detectors and the network between them, which may lose, double and delay.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::action::message::{Deadlock, Edge, From, To};
use crate::action::path::Site;
use crate::deadlock::{Act, Detector, Locks, Rule};
use crate::id::{Incarnation, NodeId, Peer, Uid};
use crate::time::Time;

/// Xorshift64*, so that a seed is a whole run.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Less than `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// From `low` to `high`, both included.
    pub(super) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in this many of a thousand cases.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

/// What the network does to messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) lost_per_mille: u64,
    pub(super) doubled_per_mille: u64,
    pub(super) delay_us: (u64, u64),
}

impl Weather {
    pub(super) const FAIR: Self = Self {
        lost_per_mille: 0,
        doubled_per_mille: 0,
        delay_us: (200, 1_000),
    };
}

/// A call that was refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) at: usize,
    pub(super) number: u64,
    pub(super) victim: Uid,
    pub(super) cycle: Vec<Edge>,
}

/// What one detector does with an input.
pub(super) type Heard<'a, T> = &'a mut dyn FnMut(&mut Detector, Time, &T, &mut Vec<Act>);

/// Shards with their lock tables.
pub(super) struct Cluster<T> {
    pub(super) now: Time,
    pub(super) sites: Vec<Site>,
    pub(super) tables: Vec<T>,
    pub(super) detectors: Vec<Detector>,
    pub(super) weather: Weather,
    pub(super) rng: Rng,
    /// Refusals that nobody has looked at.
    pub(super) refused: Vec<Refused>,
    /// Messages that were sent to other shards.
    pub(super) sent: u64,
    packets: BTreeMap<(Time, u64), (usize, From, Deadlock)>,
    posted: u64,
}

pub(super) const LIFE: Incarnation = Incarnation(3);

impl<T: Locks + Default> Cluster<T> {
    /// `shards` of them at each of `nodes` nodes, which are numbered from 1.
    pub(super) fn new(nodes: u64, shards: u16, seed: u64, rule: Option<Rule>) -> Self {
        let shard = |node| (0..shards).map(move |shard| Site { node, shard });
        let sites: Vec<Site> = (1..=nodes).map(NodeId).flat_map(shard).collect();
        let detector = |site: &Site| Detector::without(*site, LIFE, rule);
        Self {
            now: Time(0),
            tables: sites.iter().map(|_| T::default()).collect(),
            detectors: sites.iter().map(detector).collect(),
            sites,
            weather: Weather::FAIR,
            rng: Rng::new(seed),
            refused: Vec::new(),
            sent: 0,
            packets: BTreeMap::new(),
            posted: 0,
        }
    }

    /// Hands something to one detector and does what comes of it.
    pub(super) fn tell(&mut self, at: usize, what: Heard<'_, T>) {
        let mut acts = Vec::new();
        let detector = &mut self.detectors[at];
        what(detector, self.now, &self.tables[at], &mut acts);
        detector.check();
        let from = self.name(at);
        for act in acts {
            match act {
                Act::Send { to, message } => self.post(from, to, message),
                Act::Refuse {
                    number,
                    victim,
                    cycle,
                } => self.refused.push(Refused {
                    at,
                    number,
                    victim,
                    cycle,
                }),
            }
        }
    }

    /// Whom a message says it is from.
    pub(super) fn name(&self, at: usize) -> From {
        let Site { node, shard } = self.sites[at];
        let incarnation = LIFE;
        let peer = Peer { node, incarnation };
        From { peer, shard }
    }

    /// Puts a message into the network.
    pub(super) fn post(&mut self, from: From, to: To, message: Deadlock) {
        let Some(at) = self.place(to) else { return };
        self.sent += 1;
        let copies = 1 + u64::from(self.rng.chance(self.weather.doubled_per_mille));
        for _ in 0..copies {
            if self.rng.chance(self.weather.lost_per_mille) {
                continue;
            }
            let (low, high) = self.weather.delay_us;
            let delay = Duration::from_micros(self.rng.range(low, high));
            let due = (self.now.after(delay), self.posted);
            self.posted += 1;
            self.packets.insert(due, (at, from, message.clone()));
        }
    }

    fn place(&self, to: To) -> Option<usize> {
        let site = match to {
            To::Site(site) => site,
            To::Leader { .. } => return None,
            To::Home { node, root } => {
                let shards = self.sites.iter().filter(|site| site.node == node).count();
                let shard = root.local.checked_rem(shards as u64)?;
                let shard = u16::try_from(shard).expect("few shards");
                Site { node, shard }
            }
        };
        self.sites.iter().position(|other| *other == site)
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Time> {
        let packet = self.packets.first_key_value().map(|((at, _), _)| *at);
        let timeouts = self.detectors.iter().filter_map(Detector::next_timeout);
        timeouts.chain(packet).min().map(|at| at.max(self.now))
    }

    /// Does one of the things that are due.
    pub(super) fn step(&mut self) {
        let packet = self.packets.first_entry();
        if let Some(packet) = packet.filter(|packet| packet.key().0 <= self.now) {
            let (at, from, message) = packet.remove();
            self.tell(at, &mut |detector, now, table, acts| {
                detector.message(now, from, message.clone(), table, acts);
            });
            return;
        }
        let due = |detector: &Detector| detector.next_timeout().is_some_and(|at| at <= self.now);
        let Some(at) = self.detectors.iter().position(due) else {
            return;
        };
        self.tell(at, &mut |detector, now, table, acts| {
            detector.handle_timeout(now, table, acts);
            let next = detector.next_timeout();
            assert!(next.is_none_or(|next| next > now), "what is due stays due");
        });
    }
}
