//! Random actions and operations against a model that follows the rules word by word, with lists
//! and recursion and no shortcut.

use super::super::*;
use super::key;

const KEYS: u64 = 3;

/// A source of numbers that a seed repeats (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// Levels by number: the parent, and whether it has not ended. Asked about a level that ended,
/// or about two of different families, it panics: that would be a broken promise.
#[derive(Default)]
struct Tree(Vec<(Option<u32>, bool)>);

impl Tree {
    fn begin(&mut self, parent: Option<Owner>) -> Owner {
        self.0.push((parent.map(Owner::index), true));
        Owner::level(self.0.len() as u32 - 1)
    }

    fn end(&mut self, level: Owner) {
        self.0[level.index() as usize].1 = false;
    }

    fn parent(&self, level: Owner) -> Option<Owner> {
        assert!(level.is_level(), "{level:?} is asked about");
        let (parent, alive) = self.0[level.index() as usize];
        assert!(alive, "{level:?} ended and is asked about");
        parent.map(Owner::level)
    }

    fn is_leaf(&self, level: Owner) -> bool {
        let mut all = self.0.iter();
        !all.any(|(parent, alive)| *alive && *parent == Some(level.index()))
    }

    fn alive(&self) -> Vec<Owner> {
        let all = self.0.iter().zip(0..);
        all.filter(|((_, alive), _)| *alive)
            .map(|(_, index)| Owner::level(index))
            .collect()
    }

    fn above(&self, ancestor: Owner, of: Owner) -> bool {
        let up = |level: &Owner| self.parent(*level);
        let mut line = core::iter::successors(Some(of), |at| at.is_level().then(|| up(at))?);
        line.any(|at| at == ancestor)
    }

    fn top(&self, of: Owner) -> Owner {
        let mut at = of;
        while at.is_level()
            && let Some(parent) = self.parent(at)
        {
            at = parent;
        }
        at
    }
}

impl Family for Tree {
    fn includes(&self, ancestor: Owner, of: Owner) -> bool {
        let together = self.top(ancestor) == self.top(of);
        assert!(together, "{ancestor:?} and {of:?} are strangers");
        self.above(ancestor, of)
    }

    fn root(&self, of: Owner) -> Owner {
        self.top(of)
    }
}

/// One lock by the rules.
#[derive(Clone, Default)]
struct Plain {
    holders: Vec<Holding>,
    /// Whether it goes in front, and the request.
    queue: Vec<(bool, Request)>,
}

impl Plain {
    fn obstacles(&self, tree: &Tree, asked: Request, ahead: usize) -> Vec<Owner> {
        let mut found = Vec::new();
        for holder in &self.holders {
            if holder.mode.excludes(asked.mode) && !tree.above(holder.owner, asked.owner) {
                found.push(holder.owner);
            }
        }
        let present = self
            .holders
            .iter()
            .any(|h| tree.above(h.owner, asked.owner));
        for (at, (_, other)) in self.queue[..ahead].iter().enumerate() {
            let stands_behind = other.mode.excludes(asked.mode)
                && !asked.passes
                && !present
                && !tree.above(other.owner, asked.owner)
                && !self.waits_for_family(tree, at, tree.top(asked.owner));
            if stands_behind {
                found.push(other.owner);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether the one at a place of the queue is of another family and must wait for this one.
    fn waits_for_family(&self, tree: &Tree, at: usize, root: Owner) -> bool {
        let waiter = self.queue[at].1;
        let ours = |owner: Owner| tree.top(owner) == root;
        let held = |h: &Holding| ours(h.owner) && h.mode.excludes(waiter.mode);
        let behind = |before: usize| {
            let other = self.queue[before].1;
            other.mode.excludes(waiter.mode)
                && (ours(other.owner) || self.waits_for_family(tree, before, root))
        };
        !ours(waiter.owner) && (self.holders.iter().any(held) || (0..at).any(behind))
    }

    fn position(&self, owner: Owner) -> Option<usize> {
        self.holders.iter().position(|h| h.owner == owner)
    }

    fn acquire(&mut self, tree: &Tree, asked: Request) -> Acquired {
        if self.obstacles(tree, asked, self.queue.len()).is_empty() {
            return Acquired::Granted(self.grant(asked));
        }
        let front = self.position(asked.owner).is_some();
        let others_in_front = self.queue.iter().filter(|(front, _)| *front).count();
        let at = if front {
            others_in_front
        } else {
            self.queue.len()
        };
        self.queue.insert(at, (front, asked));
        Acquired::Waits
    }

    fn grant(&mut self, asked: Request) -> Grant {
        let Some(at) = self.position(asked.owner) else {
            self.add(Holding {
                owner: asked.owner,
                mode: asked.mode,
                retained: false,
            });
            return Grant::Fresh;
        };
        let own = &mut self.holders[at];
        own.retained = false;
        if own.mode >= asked.mode {
            return Grant::Present;
        }
        own.mode = asked.mode;
        Grant::Converted
    }

    fn add(&mut self, holding: Holding) {
        self.holders.push(holding);
        for (front, waiter) in &mut self.queue {
            *front |= waiter.owner == holding.owner;
        }
        self.queue.sort_by_key(|(front, _)| !front);
    }

    fn let_go(&mut self, owner: Owner) -> Holding {
        let at = self.position(owner).expect("it holds");
        self.holders.remove(at)
    }

    fn inherit(&mut self, child: Owner, parent: Owner) {
        let given = self.let_go(child);
        match self.position(parent) {
            Some(at) => {
                let own = &mut self.holders[at];
                own.mode = own.mode.max(given.mode);
            }
            None => self.add(Holding {
                owner: parent,
                mode: given.mode,
                retained: true,
            }),
        }
    }

    fn settle(&mut self, tree: &Tree) -> Vec<Granted> {
        let mut granted = Vec::new();
        loop {
            let free = |at: &usize| self.obstacles(tree, self.queue[*at].1, *at).is_empty();
            let Some(at) = (0..self.queue.len()).find(free) else {
                return granted;
            };
            let (_, asked) = self.queue.remove(at);
            granted.push(Granted {
                asker: asked.asker,
                owner: asked.owner,
                grant: self.grant(asked),
            });
        }
    }
}

/// Both, side by side.
struct World {
    random: Random,
    tree: Tree,
    locks: Locks,
    plain: Vec<Plain>,
    askers: u32,
    calls: Vec<Owner>,
    /// What happened, to see that a run was about something.
    waits: u32,
    grants: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            tree: Tree::default(),
            locks: Locks::seeded(seed),
            plain: vec![Plain::default(); KEYS as usize],
            askers: 0,
            calls: Vec::new(),
            waits: 0,
            grants: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0 => drop(self.tree.begin(None)),
            1 | 2 => {
                let alive = self.tree.alive();
                let parent = self.random.pick(&alive);
                self.tree.begin(parent);
            }
            3..=9 => self.ask(),
            10 => self.withdraw(),
            11 | 12 => self.end(true),
            13 => self.end(false),
            _ => self.end_call(),
        }
    }

    fn ask(&mut self) {
        let alive = self.tree.alive();
        self.askers += 1;
        let level = self
            .random
            .pick(&alive)
            .filter(|_| self.random.below(4) > 0);
        let owner = level.unwrap_or_else(|| Owner::call(self.askers));
        if !owner.is_level() {
            self.calls.push(owner);
        }
        let request = Request {
            owner,
            asker: Asker(self.askers),
            mode: Mode::ALL[self.random.below(3)],
            passes: self.random.below(12) == 0,
        };
        let at = self.random.below(KEYS as usize);
        let mut granted = Vec::new();
        let (locks, tree) = (&mut self.locks, &self.tree);
        let acquired = locks.acquire(key(at as u64), request, tree, &mut granted);
        assert_eq!(acquired, self.plain[at].acquire(&self.tree, request));
        self.waits += u32::from(acquired == Acquired::Waits);
        self.compare(at, &granted);
    }

    fn withdraw(&mut self) {
        let at = self.random.below(KEYS as usize);
        let askers: Vec<Asker> = self.plain[at].queue.iter().map(|w| w.1.asker).collect();
        if let Some(asker) = self.random.pick(&askers) {
            self.withdraw_one(at, asker);
        }
    }

    fn withdraw_one(&mut self, at: usize, asker: Asker) {
        let mut granted = Vec::new();
        let locks = &mut self.locks;
        locks.withdraw(key(at as u64), asker, &self.tree, &mut granted);
        self.plain[at].queue.retain(|(_, w)| w.asker != asker);
        self.compare(at, &granted);
    }

    /// A level without living ones below ends: what it waits for is withdrawn, what it has goes
    /// to its parent, or away.
    fn end(&mut self, commit: bool) {
        let mut leaves = self.tree.alive();
        leaves.retain(|level| self.tree.is_leaf(*level));
        if let Some(level) = self.random.pick(&leaves) {
            self.end_owner(level, commit);
            self.tree.end(level);
        }
    }

    fn end_call(&mut self) {
        if let Some(call) = self.random.pick(&self.calls) {
            self.calls.retain(|other| *other != call);
            self.end_owner(call, false);
        }
    }

    fn end_owner(&mut self, owner: Owner, commit: bool) {
        for at in 0..KEYS as usize {
            let queue = self.plain[at].queue.iter();
            let own = queue.filter(|w| w.1.owner == owner).map(|w| w.1.asker);
            for asker in own.collect::<Vec<_>>() {
                // An earlier withdrawal may have granted it.
                if self.plain[at].queue.iter().any(|w| w.1.asker == asker) {
                    self.withdraw_one(at, asker);
                }
            }
        }
        let parent = owner.is_level().then(|| self.tree.parent(owner)).flatten();
        for at in 0..KEYS as usize {
            if self.plain[at].position(owner).is_none() {
                continue;
            }
            let (tree, key) = (&self.tree, key(at as u64));
            let mut granted = Vec::new();
            match parent.filter(|_| commit) {
                Some(parent) => {
                    let locks = &mut self.locks;
                    locks.inherit(key, owner, parent, tree, &mut granted);
                    self.plain[at].inherit(owner, parent);
                }
                None => {
                    self.locks.release(key, owner, tree, &mut granted);
                    self.plain[at].let_go(owner);
                }
            }
            self.compare(at, &granted);
        }
    }

    /// Settles the model and compares all there is to see; then looks at the promises themselves.
    fn compare(&mut self, at: usize, granted: &[Granted]) {
        let (tree, key) = (&self.tree, key(at as u64));
        let plain = &mut self.plain[at];
        assert_eq!(granted, plain.settle(tree), "{key:?}");
        self.grants += granted.len() as u32;
        self.locks.check(tree);
        let by_owner = |mut holders: Vec<Holding>| {
            holders.sort_unstable_by_key(|h| h.owner);
            holders
        };
        let holders = by_owner(self.locks.holders(key).collect());
        assert_eq!(holders, by_owner(plain.holders.clone()), "{key:?}");
        let waiters: Vec<Request> = self.locks.waiters(key).collect();
        let queue: Vec<Request> = plain.queue.iter().map(|w| w.1).collect();
        assert_eq!(waiters, queue, "{key:?}");
        for holder in &holders {
            assert_eq!(self.locks.holding(key, holder.owner), Some(*holder));
            for other in holders.iter().filter(|h| h.mode.excludes(holder.mode)) {
                let (a, b) = (holder.owner, other.owner);
                assert!(tree.above(a, b) || tree.above(b, a), "{a:?} beside {b:?}");
            }
        }
        for (place, waiter) in waiters.iter().enumerate() {
            let mut blockers = Vec::new();
            let locks = &self.locks;
            locks.blockers(key, waiter.asker, tree, &mut blockers);
            assert!(!blockers.is_empty(), "{waiter:?} was not woken up");
            assert_eq!(
                blockers,
                plain.obstacles(tree, *waiter, place),
                "{waiter:?}"
            );
            let own = blockers.iter().find(|b| tree.above(**b, waiter.owner));
            assert_eq!(own, None, "{waiter:?} waits for its own line");
        }
    }

    /// Ends everything, innermost first: nobody may be left over.
    fn finish(mut self) -> (u32, u32) {
        for _ in 0..2 {
            while let Some(call) = self.calls.pop() {
                self.end_owner(call, false);
            }
            for level in self.tree.alive().into_iter().rev() {
                let commit = self.random.below(2) == 0;
                self.end_owner(level, commit);
                self.tree.end(level);
            }
        }
        assert!(self.locks.is_empty(), "{:?}", self.locks);
        (self.waits, self.grants)
    }
}

#[test]
fn random_actions_find_the_locks_that_the_rules_say() {
    let (mut waits, mut grants) = (0, 0);
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        let (waited, granted) = world.finish();
        (waits, grants) = (waits + waited, grants + granted);
    }
    assert!(
        waits > 4_000 && grants > 1_000,
        "{waits} waits, {grants} grants"
    );
}
