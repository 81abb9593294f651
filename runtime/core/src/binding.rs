//! The client's side of a reference: where its object is, and what to do when it is not there.
//!
//! A [`Binding`] belongs to one reference and is shared by all its calls; each call has an
//! [`Attempt`] beside it. A call asks [`Binding::want`] until it is told [`Step::Go`] or
//! [`Step::Fail`]. Whoever is told [`Step::Resolve`] asks the name service or the binder, and
//! reports with [`Binding::resolved`]; the others wait for that, so that a thousand calls of one
//! reference cost one resolution.
//!
//! | state | `want` | `resolved` ok | `resolved` not | `stale`, `moved` | `lost` | `gave_up` |
//! |---|---|---|---|---|---|---|
//! | Unbound | Resolving | – | – | Resolving | – | – |
//! | Resolving | wait | Bound | Broken | wait | – | Broken |
//! | Bound, this generation | go | – | – | Resolving | Broken | – |
//! | Bound, a later one | go | – | – | go | – | – |
//! | Broken | Resolving, after a pause | – | – | Resolving, after a pause | – | – |
//!
//! `–` has no effect: it is late news about something that is over. A round of resolution that
//! fails fails every call that waited for it, not only the one that asked.
//!
//! *Stale*: the server said "not here". If the place was cached, the call gets exactly one
//! resolution that began after it; if that place denies the object too, the error stands.
//! *Moved*: the server said where the object is now. The call follows, and the binding with it:
//! it goes on as another generation and is not broken. But for a few, each hop must bring a higher
//! number of moves than those before, and their number is bounded ([`Hops`]), so that a call is not
//! sent in a circle for long; the object that outruns a call for so long has to be called again.
//! A hop without news comes from a node that has not heard yet that the object is to be there, as
//! the copy that is to lead: it is given time to hear, more with each.
//! *Lost*: the connection broke. Each loss or failed resolution in a row makes the next pause
//! longer: none, 20 ms, 40 ms … 2 s, shortened by up to half by a random number of the shell,
//! so that a thousand clients of a restarted server do not come in step. [`Binding::worked`]
//! ends the row.
//!
//! Whether a call may be sent again after a loss is not decided here (it may if it has a call
//! id), nor for how long to go on trying (until its deadline).

use core::time::Duration;

use crate::time::Time;

/// The pause after the first loss in a row is none, after the second this.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// No pause is longer: a restarted server is found again within 2 s.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A call follows an object that moves as it comes over so many hops.
pub const HOPS_MAX: u32 = 1024;
/// So many of them may bring no news: somebody else's older news can be between. With their pauses
/// they take 2.6 s.
pub const IDLE_HOPS_MAX: u32 = 32;
/// The pause after the first hop without news; twice as long after each.
const IDLE_PAUSE_MIN: Duration = Duration::from_millis(1);
/// No such pause is longer.
const IDLE_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Why a reference cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Those who should know say that there is no such object.
    NoSuchObject,
    /// Nobody who should know could be reached.
    Unreachable,
    /// The place just resolved denies having the object.
    NotThere,
    /// The places name each other and none has the object, or it moves faster than the call.
    Wandering,
}

/// What a call is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sleep for `pause`, ask where the object is, call [`Binding::resolved`], wake those who
    /// wait. If this call is dropped meanwhile: [`Binding::gave_up`], and wake them too.
    Resolve {
        /// How long to sleep first.
        pause: Duration,
    },
    /// Another call resolves: sleep until woken, then ask [`Binding::want`] again.
    Wait,
    /// Send the call to [`Binding::place`].
    Go {
        /// Names this place in later news about it.
        generation: u64,
    },
    /// Give up.
    Fail(Why),
}

/// A random number of the shell; decides how much of a pause is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jitter(pub u16);

/// What one call remembers about the binding it uses. A new one for each call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// The round of resolution it waits for or makes.
    round: Option<u64>,
    /// The generation from which on a place counts as fresh for this call; set when a cached
    /// one proved stale.
    fresh_from: Option<u64>,
    hops: Hops,
}

/// How far a call has followed an object that moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// How often the object had moved by what the call was told.
    moves: u64,
    /// How often it was told so.
    all: u32,
    /// How often that was no news.
    idle: u32,
}

impl Hops {
    /// The object has moved for the `moves`th time, as somebody says: how long to wait before the
    /// call follows it, or nothing if it has followed for long enough.
    pub fn follow(&mut self, moves: u64) -> Option<Duration> {
        self.all += 1;
        let is_idle = moves <= self.moves;
        self.idle += u32::from(is_idle);
        if self.all > HOPS_MAX || self.idle > IDLE_HOPS_MAX {
            return None;
        }
        self.moves = self.moves.max(moves);
        let doublings = self.idle.saturating_sub(1).min(16);
        let pause = IDLE_PAUSE_MIN * (1 << doublings);
        Some(if is_idle {
            pause.min(IDLE_PAUSE_MAX)
        } else {
            Duration::ZERO
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State<P> {
    Unbound,
    /// `not_before` is when the round may ask, kept for the one who takes over.
    Resolving {
        not_before: Time,
    },
    Bound(P),
    Broken {
        not_before: Time,
    },
}

/// Where the object of one reference is. What a call along a known way needs is in front.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Binding<P> {
    state: State<P>,
    /// Counts the places found; names the one of `Bound`.
    generation: u64,
    /// Counts the rounds begun; names the one of `Resolving`.
    round: u64,
    /// The last round that failed, and why.
    failed: Option<(u64, Why)>,
    /// Losses and failed rounds since a call last worked.
    failures: u32,
    /// The last generation of which the connection broke, or that nobody was found at.
    broken: u64,
}

impl<P: Clone> Default for Binding<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Clone> Binding<P> {
    /// A binding that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Unbound,
            generation: 0,
            round: 0,
            failed: None,
            failures: 0,
            broken: 0,
        }
    }

    /// A binding to a place known beforehand; it counts as cached.
    #[must_use]
    pub fn bound(place: P) -> Self {
        Self {
            state: State::Bound(place),
            generation: 1,
            ..Self::new()
        }
    }

    /// What a call is to do now; to be asked before it is sent, and after each wait.
    pub fn want(&mut self, now: Time, attempt: &mut Attempt) -> Step {
        let not_before = match &self.state {
            State::Bound(_) => {
                attempt.round = None;
                let generation = self.generation;
                return Step::Go { generation };
            }
            State::Resolving { .. } => {
                attempt.round = Some(self.round);
                return Step::Wait;
            }
            State::Unbound => now,
            State::Broken { not_before } => *not_before,
        };
        match (attempt.round.take(), self.failed) {
            (Some(waited), Some((round, why))) if waited == round => Step::Fail(why),
            (Some(_) | None, _) => self.begin_round(now, not_before, attempt),
        }
    }

    fn begin_round(&mut self, now: Time, not_before: Time, attempt: &mut Attempt) -> Step {
        self.state = State::Resolving { not_before };
        self.round += 1;
        attempt.round = Some(self.round);
        let pause = not_before.remaining(now);
        assert!(pause <= PAUSE_MAX, "a pause of {pause:?}");
        Step::Resolve { pause }
    }

    /// The round this call was told to make has ended; says what this call is to do.
    pub fn resolved(
        &mut self,
        now: Time,
        attempt: &mut Attempt,
        result: Result<P, Why>,
        jitter: Jitter,
    ) -> Step {
        if !self.makes_round(attempt) {
            return self.want(now, attempt);
        }
        match result {
            Ok(place) => {
                self.generation += 1;
                self.state = State::Bound(place);
            }
            Err(why) => {
                self.failed = Some((self.round, why));
                self.break_off(now, jitter);
            }
        }
        self.want(now, attempt)
    }

    fn makes_round(&self, attempt: &Attempt) -> bool {
        let resolving = match self.state {
            State::Resolving { .. } => true,
            State::Unbound | State::Bound(_) | State::Broken { .. } => false,
        };
        resolving && attempt.round == Some(self.round)
    }

    /// The call that made the round of resolution is no more; the next to ask makes another.
    pub fn gave_up(&mut self, attempt: &Attempt) {
        if !self.makes_round(attempt) {
            return;
        }
        match self.state {
            State::Resolving { not_before } => self.state = State::Broken { not_before },
            State::Unbound | State::Bound(_) | State::Broken { .. } => {}
        }
    }

    /// The server at the place of `generation` said that the object is not there.
    pub fn stale(&mut self, now: Time, generation: u64, attempt: &mut Attempt) -> Step {
        if attempt.fresh_from.is_some_and(|from| generation >= from) {
            return Step::Fail(Why::NotThere);
        }
        attempt.fresh_from = Some(generation + 1);
        if self.unbind(generation) {
            self.broken = generation;
        }
        self.want(now, attempt)
    }

    /// The server at the place of `generation` said that the object has moved, for the `moves`th
    /// time, and where to. Whoever resolves next knows that.
    pub fn moved(&mut self, now: Time, generation: u64, moves: u64, attempt: &mut Attempt) -> Step {
        let Some(pause) = attempt.hops.follow(moves) else {
            return Step::Fail(Why::Wandering);
        };
        // Where it has moved to is a place that this call has not tried.
        attempt.fresh_from = None;
        if self.unbind(generation) && !pause.is_zero() {
            let not_before = now.after(pause);
            self.state = State::Broken { not_before };
        }
        self.want(now, attempt)
    }

    /// Whether calls went to the place of this generation, and do not any more.
    fn unbind(&mut self, generation: u64) -> bool {
        let bound = match self.state {
            State::Bound(_) => generation == self.generation,
            State::Unbound | State::Resolving { .. } | State::Broken { .. } => false,
        };
        if bound {
            self.state = State::Unbound;
        }
        bound
    }

    /// The connection to the place of `generation` broke.
    pub fn lost(&mut self, now: Time, generation: u64, jitter: Jitter) {
        match self.state {
            State::Bound(_) if generation == self.generation => self.break_off(now, jitter),
            State::Bound(_) | State::Unbound | State::Resolving { .. } | State::Broken { .. } => {}
        }
    }

    /// The place of `generation` answered a call.
    pub fn worked(&mut self, generation: u64) {
        if generation == self.generation {
            self.failures = 0;
        }
    }

    /// The place to send a call to that was told to go.
    #[must_use]
    pub fn place(&self) -> Option<&P> {
        match &self.state {
            State::Bound(place) => Some(place),
            State::Unbound | State::Resolving { .. } | State::Broken { .. } => None,
        }
    }

    /// Whether the binding of this generation has broken, or one that it has become since by
    /// following the object.
    #[must_use]
    pub fn is_broken(&self, generation: u64) -> bool {
        self.broken >= generation
    }

    /// The generation of that place.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.place().map(|_| self.generation)
    }

    fn break_off(&mut self, now: Time, jitter: Jitter) {
        self.broken = self.generation;
        self.state = State::Broken {
            not_before: now.after(pause(self.failures, jitter)),
        };
        self.failures = self.failures.saturating_add(1);
    }
}

/// The pause after this many failures in a row before the latest one.
fn pause(failures_before: u32, jitter: Jitter) -> Duration {
    let Some(doublings) = failures_before.checked_sub(1) else {
        return Duration::ZERO;
    };
    let full = PAUSE_MIN
        .saturating_mul(1 << doublings.min(10))
        .min(PAUSE_MAX);
    assert!(
        full >= PAUSE_MIN && full <= PAUSE_MAX,
        "a pause of {full:?}"
    );
    full - full / 2 * u32::from(jitter.0) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests;
