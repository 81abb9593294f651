//! What the cases of a benchmark share: servers, objects, a folder; made when the first case runs,
//! gone with the last.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::load::Pace;
use crate::figure::{Found, Parameters};
pub(crate) use crate::process::folder;
use crate::suite::{Case, Effort, Setting};

/// Something that is made when it is wanted first.
pub(crate) struct Lazy<T> {
    make: Box<dyn Fn() -> anyhow::Result<T>>,
    made: RefCell<Option<Rc<T>>>,
}

impl<T: 'static> Lazy<T> {
    /// Something that `make` makes.
    pub(crate) fn new(make: impl Fn() -> anyhow::Result<T> + 'static) -> Rc<Self> {
        Rc::new(Self {
            make: Box::new(make),
            made: RefCell::default(),
        })
    }

    fn wanted(&self) -> anyhow::Result<Rc<T>> {
        if let Some(made) = &*self.made.borrow() {
            return Ok(Rc::clone(made));
        }
        let made = Rc::new((self.make)()?);
        *self.made.borrow_mut() = Some(Rc::clone(&made));
        Ok(made)
    }

    /// A case that uses it.
    pub(crate) fn case(
        self: &Rc<Self>,
        peer: &'static str,
        parameters: Parameters,
        (rounds, takes): (usize, Duration),
        run: impl Fn(&T) -> anyhow::Result<Found> + 'static,
    ) -> Case {
        let stage = Rc::clone(self);
        Case {
            peer,
            parameters,
            rounds,
            takes,
            run: Box::new(move || run(&*stage.wanted()?)),
        }
    }
}

/// The load of a case that the disk sets the pace of. Batches of the store, and checkpoints of
/// databases, want more time than a call over the network.
pub(crate) fn pace(setting: &Setting, clients: usize) -> Pace {
    Pace {
        clients,
        warm_up_ms: setting.warm_up.as_millis() as u64,
        measure_ms: 2 * setting.measure.as_millis() as u64,
    }
}

/// About how long a run of such a case takes.
pub(crate) fn takes(setting: &Setting) -> Duration {
    setting.warm_up + 2 * setting.measure + Duration::from_millis(60)
}

/// Clients whose number the targets name; those of the curve besides are for longer runs.
const CLIENTS_NAMED: [u64; 2] = [1, 64];
const CLIENTS: [u64; 5] = [1, 4, 16, 64, 256];

/// The most clients there are.
pub(crate) const CLIENTS_MAX: usize = 256;

/// Each number of clients, and in how many rounds it is measured.
pub(crate) fn clients(setting: &Setting) -> Vec<(u64, usize)> {
    let all: &[u64] = match setting.effort {
        Effort::Smoke | Effort::Quick => &CLIENTS_NAMED,
        Effort::Normal | Effort::Full => &CLIENTS,
    };
    let rounds = |clients: u64| match CLIENTS_NAMED.contains(&clients) {
        true => setting.rounds,
        false => setting.curve_rounds(),
    };
    all.iter()
        .map(|&clients| (clients, rounds(clients)))
        .collect()
}
