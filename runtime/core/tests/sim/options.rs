//! What is to be run: read from the command line of the binary.
//!
//! Without any of our flags the binary is an ordinary test of cargo's (`suite`); a word without
//! dashes is then a part of the names of the tests to run.

use partha_core::engine::Mutation;

use crate::MUTANTS;

/// How large a run may become; a seed decides the rest. What shrinking lowers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Server processes.
    pub(crate) nodes: u64,
    /// Shards of each.
    pub(crate) shards: u64,
    /// Client processes.
    pub(crate) clients: u64,
    /// Objects of each node at the beginning.
    pub(crate) objects: u64,
    /// Top-level actions, or calls, of each client.
    pub(crate) actions: u64,
    /// Steps of each program: calls, nested actions.
    pub(crate) steps: u64,
    /// How deep actions nest.
    pub(crate) depth: u64,
    /// Milliseconds in which things go wrong.
    pub(crate) trouble_ms: u64,
    /// Kinds of faults that do not happen, one bit each.
    pub(crate) without: u32,
}

impl Caps {
    /// No cap at all.
    pub(crate) const NONE: Self = Self {
        nodes: u64::MAX,
        shards: u64::MAX,
        clients: u64::MAX,
        objects: u64::MAX,
        actions: u64::MAX,
        steps: u64::MAX,
        depth: u64::MAX,
        trouble_ms: u64::MAX,
        without: 0,
    };

    /// The caps with their names on the command line.
    pub(crate) fn named(&mut self) -> [(&'static str, &mut u64); 8] {
        [
            ("nodes", &mut self.nodes),
            ("shards", &mut self.shards),
            ("clients", &mut self.clients),
            ("objects", &mut self.objects),
            ("actions", &mut self.actions),
            ("steps", &mut self.steps),
            ("depth", &mut self.depth),
            ("trouble", &mut self.trouble_ms),
        ]
    }

    /// Whether a kind of fault is left out.
    pub(crate) fn lacks(&self, kind: FaultKind) -> bool {
        self.without & kind.bit() != 0
    }
}

/// What can go wrong in the world of actions; each can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// A node dies.
    Crash,
    /// A client dies.
    ClientCrash,
    /// A connection breaks.
    Cut,
    /// Processes cannot hear each other for a time.
    Partition,
    /// A process stands still for a time.
    Freeze,
    /// A node is told to stop.
    Drain,
    /// An object is evicted.
    Evict,
    /// Somebody else activates an object.
    Fence,
    /// A message is lost.
    Loss,
    /// A message or a request comes twice.
    Double,
    /// A message is very late.
    Late,
    /// The disk is full.
    Disk,
    /// A servant fails.
    Servant,
    /// A servant never returns.
    Stuck,
    /// A link is dead, and nobody says so.
    HalfOpen,
    /// A caller gives a call up.
    Cancel,
    /// Clocks differ, and run at different speeds.
    Skew,
    /// An object moves to another node.
    Move,
    /// The leader of a replicated object is taken for dead.
    Depose,
}

impl FaultKind {
    pub(crate) const ALL: [(Self, &'static str); 19] = [
        (Self::Crash, "crash"),
        (Self::ClientCrash, "client-crash"),
        (Self::Cut, "cut"),
        (Self::Partition, "partition"),
        (Self::Freeze, "freeze"),
        (Self::Drain, "drain"),
        (Self::Evict, "evict"),
        (Self::Fence, "fence"),
        (Self::Loss, "loss"),
        (Self::Double, "double"),
        (Self::Late, "late"),
        (Self::Disk, "disk"),
        (Self::Servant, "servant"),
        (Self::Stuck, "stuck"),
        (Self::HalfOpen, "half-open"),
        (Self::Cancel, "cancel"),
        (Self::Skew, "skew"),
        (Self::Move, "move"),
        (Self::Depose, "depose"),
    ];

    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Which world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// Calls outside actions.
    Calls,
    /// Nested actions, and calls outside them on the same objects.
    Actions,
    /// Copies of objects.
    Groups,
}

impl World {
    pub(crate) const ALL: [Self; 3] = [Self::Calls, Self::Actions, Self::Groups];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Actions => "actions",
            Self::Groups => "groups",
        }
    }
}

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many seeds.
    pub(crate) seeds: u64,
    /// The first one.
    pub(crate) from: u64,
    /// Print every input with its outputs.
    pub(crate) trace: bool,
    /// Rules left out; each is to be caught.
    pub(crate) mutations: Vec<Mutation>,
    /// Which worlds.
    pub(crate) worlds: Vec<World>,
    pub(crate) caps: Caps,
}

/// Reads the command line; none means that it is cargo's, and its words are filters.
///
/// # Errors
/// A flag that nobody knows, or a value that does not fit.
pub(crate) fn parse(words: &[String]) -> Result<Option<Options>, String> {
    if !words.iter().any(|word| OURS.contains(&word.as_str())) {
        return Ok(None);
    }
    let mut options = Options {
        seeds: 20_000,
        from: 0,
        trace: false,
        mutations: Vec::new(),
        worlds: World::ALL.to_vec(),
        caps: Caps::NONE,
    };
    let mut words = words.iter();
    while let Some(flag) = words.next() {
        let mut value = || {
            let value = words.next();
            value.ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--seeds" => options.seeds = number(flag, value()?)?,
            "--from" => options.from = number(flag, value()?)?,
            "--seed" => {
                options.from = number(flag, value()?)?;
                options.seeds = 1;
            }
            "--trace" => options.trace = true,
            "--mutation" => options.mutations = mutations(value()?)?,
            "--world" => options.worlds = worlds(value()?)?,
            "--caps" => caps(&mut options.caps, value()?)?,
            "--without" => options.caps.without = without(value()?)?,
            unknown => return Err(format!("{unknown} is none of {}", OURS.join(", "))),
        }
    }
    Ok(Some(options))
}

const OURS: [&str; 8] = [
    "--seeds",
    "--from",
    "--seed",
    "--trace",
    "--mutation",
    "--world",
    "--caps",
    "--without",
];

fn number(what: &str, text: &str) -> Result<u64, String> {
    let number = text.replace('_', "").parse();
    number.map_err(|_| format!("{what} is '{text}', expected a number"))
}

fn mutations(text: &str) -> Result<Vec<Mutation>, String> {
    let known = MUTANTS.iter().map(|mutant| mutant.0);
    if text == "all" {
        return Ok(known.collect());
    }
    let found = known.clone().find(|known| format!("{known:?}") == text);
    found.map(|one| vec![one]).ok_or_else(|| {
        let names: Vec<String> = known.map(|known| format!("{known:?}")).collect();
        format!(
            "no mutation '{text}', expected all or one of {}",
            names.join(", ")
        )
    })
}

fn worlds(text: &str) -> Result<Vec<World>, String> {
    let found = World::ALL.iter().find(|world| world.name() == text);
    found
        .map(|world| vec![*world])
        .ok_or_else(|| format!("no world '{text}', expected calls, actions or groups"))
}

fn caps(caps: &mut Caps, text: &str) -> Result<(), String> {
    for pair in text.split(',') {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("'{pair}' is no cap, expected NAME=NUMBER"))?;
        let mut named = caps.named();
        let known = named.iter_mut().find(|cap| cap.0 == name);
        *known.ok_or_else(|| format!("no cap '{name}'"))?.1 = number(name, value)?;
    }
    Ok(())
}

fn without(text: &str) -> Result<u32, String> {
    let mut bits = 0;
    for name in text.split(',') {
        let known = FaultKind::ALL.iter().find(|kind| kind.1 == name);
        bits |= known
            .ok_or_else(|| format!("no kind of fault '{name}'"))?
            .0
            .bit();
    }
    Ok(bits)
}

/// The command that runs this one seed again.
pub(crate) fn again(world: World, seed: u64, mutation: Mutation, caps: &Caps) -> String {
    let mut line = format!(
        "cargo xtask sim --world {} --seed {seed} --trace",
        world.name()
    );
    if mutation != Mutation::None {
        line += &format!(" --mutation {mutation:?}");
    }
    let mut caps = *caps;
    let without = caps.without;
    let named = caps.named();
    let set = named.iter().filter(|cap| *cap.1 != u64::MAX);
    let set: Vec<String> = set.map(|(name, value)| format!("{name}={value}")).collect();
    if !set.is_empty() {
        line += &format!(" --caps {}", set.join(","));
    }
    let lacking = FaultKind::ALL
        .iter()
        .filter(|kind| without & kind.0.bit() != 0);
    let lacking: Vec<&str> = lacking.map(|kind| kind.1).collect();
    if !lacking.is_empty() {
        line += &format!(" --without {}", lacking.join(","));
    }
    line
}
