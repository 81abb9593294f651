//! The copies of a story, their disks, the binder, and what is on its way.

use std::collections::{BTreeMap, VecDeque};

use partha_core::group::log::{Log, Stamp};
use partha_core::group::member::Member;
use partha_core::group::message::{Input, Message, Output, Write};
use partha_core::group::view::{Change, View};
use partha_core::id::NodeId;
use partha_core::time::Time;

use super::show;

/// How long promises bind.
const PROMISE_NS: u64 = 1_000_000_000;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Group {
    now: Time,
    binder: Option<View>,
    disks: BTreeMap<NodeId, Disk>,
    members: BTreeMap<NodeId, Copy>,
    mails: Vec<Mail>,
}

#[derive(Clone)]
struct Mail {
    from: NodeId,
    to: NodeId,
    message: Message,
}

/// What a node keeps.
struct Disk {
    view: View,
    log: Log,
}

/// A copy in one life.
struct Copy {
    member: Member,
    /// Writes that are not on the disk yet.
    writes: VecDeque<(u64, Write)>,
    /// What the binder was asked last; none is for the view.
    asked: Option<Change>,
    /// It has not answered.
    asks: bool,
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("'{text}' is not what is expected here"))
}

/// The number behind a letter, as in `m1`.
fn numbered<T: std::str::FromStr>(letter: char, word: &str) -> T {
    let number = word.strip_prefix(letter);
    parse(number.unwrap_or_else(|| panic!("'{word}' is not as {letter}1")))
}

fn stamp(word: &str) -> Stamp {
    let (index, view) = word.split_once('@').expect("an entry is index@view");
    let (index, view) = (parse(index), parse(view));
    Stamp { view, index }
}

impl Group {
    /// Does one line and says what came of it.
    pub(super) fn line(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at_node = words[0].strip_suffix(':');
        if let Some(node) = at_node {
            return self.at(NodeId(numbered('n', node)), &words[1..]);
        }
        match words[0] {
            "group" => self.begin(words[1..].iter().map(|word| NodeId(parse(word))).collect()),
            "at" => {
                let ms = words[1].strip_suffix("ms").expect("a time is 5ms");
                return self.pass(Time(parse::<u64>(ms) * 1_000_000));
            }
            "view" => return vec![show::view(self.binder())],
            "settle" => self.settle(),
            other => panic!("there is no line '{other}'"),
        }
        Vec::new()
    }

    fn begin(&mut self, nodes: Vec<NodeId>) {
        let view = View::first(nodes);
        for node in &view.members {
            let (view, log) = (view.clone(), Log::default());
            self.disks.insert(*node, Disk { view, log });
        }
        self.binder = Some(view);
    }

    fn binder(&self) -> &View {
        self.binder.as_ref().expect("a group has begun")
    }

    fn at(&mut self, node: NodeId, words: &[&str]) -> Vec<String> {
        let input = match words[0] {
            "crash" => {
                self.members.remove(&node);
                return Vec::new();
            }
            "start" => return self.start(node),
            "binder" => {
                self.at_binder(node);
                if words.contains(&"unheard") {
                    return Vec::new();
                }
                Input::View(self.binder().clone())
            }
            "log" => {
                let disk = &self.disks[&node];
                return vec![show::log(&disk.view, &disk.log)];
            }
            "is" => return vec![show::member(&self.members[&node].member)],
            "finds" => {
                let mut digest = [0; 32];
                digest[0] = words[2].as_bytes()[0];
                let (at, view) = (stamp(words[1]), self.members[&node].member.view());
                let (to, number) = (view.leader(), view.number);
                let message = Message::Differs { number, at, digest };
                return vec![self.said(node, &Output::Send { to, message })];
            }
            "add" => Input::Add {
                entry: numbered('e', words[1]),
            },
            "written" => {
                let job = self.keep(node);
                Input::Written { job }
            }
            "hear" => {
                let number: usize = numbered('m', words[1]);
                let Mail { from, message, .. } = self.mails[number - 1].clone();
                Input::Message { from, message }
            }
            "lost" => Input::Lost {
                node: NodeId(parse(words[1])),
                ended: words.contains(&"ended"),
            },
            other => panic!("there is no line '{other}' at a node"),
        };
        let (now, mut out) = (self.now, Vec::new());
        let copy = self.members.get_mut(&node).expect("the node has started");
        copy.member.handle(now, input, &mut out);
        copy.member.check();
        out.iter().map(|output| self.said(node, output)).collect()
    }

    fn start(&mut self, node: NodeId) -> Vec<String> {
        let disk = &self.disks[&node];
        let (view, log) = (disk.view.clone(), disk.log.clone());
        // Whatever an earlier life has promised.
        let bound = match self.now {
            Time(0) => Time(0),
            Time(now) => Time(now + PROMISE_NS),
        };
        let mut copy = Copy {
            member: Member::new(node, view, log, PROMISE_NS, bound),
            writes: VecDeque::new(),
            asked: None,
            asks: false,
        };
        let mut out = Vec::new();
        copy.member.handle_timeout(self.now, &mut out);
        self.members.insert(node, copy);
        out.iter().map(|output| self.said(node, output)).collect()
    }

    /// Time passes: each copy does what is due, at the very time.
    fn pass(&mut self, until: Time) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let due = self.members.iter().filter_map(|(node, copy)| {
                let due = copy.member.next_timeout()?;
                (due <= until).then_some((due, *node))
            });
            let Some((due, node)) = due.min() else { break };
            self.now = self.now.max(due);
            let (now, mut out) = (self.now, Vec::new());
            let copy = self.members.get_mut(&node).expect("it is due");
            copy.member.handle_timeout(now, &mut out);
            copy.member.check();
            let ms = now.0 / 1_000_000;
            for output in &out {
                said.push(format!("{ms}ms n{}: {}", node.0, self.said(node, output)));
            }
        }
        self.now = until;
        said
    }

    /// Disks and binder do what they are asked, and what is sent from here on is heard.
    fn settle(&mut self) {
        let mut heard = self.mails.len();
        loop {
            let mut quiet = true;
            for node in self.members.keys().copied().collect::<Vec<_>>() {
                let copy = &self.members[&node];
                if !copy.writes.is_empty() {
                    self.at(node, &["written"]);
                    quiet = false;
                } else if copy.asks {
                    self.at(node, &["binder"]);
                    quiet = false;
                }
            }
            while heard < self.mails.len() {
                let (to, number) = (self.mails[heard].to, format!("m{}", heard + 1));
                if self.members.contains_key(&to) {
                    self.at(to, &["hear", &number]);
                }
                (heard, quiet) = (heard + 1, false);
            }
            if quiet {
                // What was sent is heard or lost, and is not told of any more.
                return self.mails.clear();
            }
        }
    }

    fn at_binder(&mut self, node: NodeId) {
        self.copy(node).asks = false;
        let asked = self.members[&node].asked;
        let changed = asked.and_then(|change| self.binder().change(&change).ok());
        self.binder = changed.or_else(|| self.binder.take());
    }

    /// The first write under way is on the disk.
    fn keep(&mut self, node: NodeId) -> u64 {
        let copy = self.members.get_mut(&node).expect("the node has started");
        let (job, write) = copy.writes.pop_front().expect("a write is under way");
        let disk = self.disks.get_mut(&node).expect("each node has one");
        match write {
            Write::Log { view, difference } => {
                disk.view = view;
                disk.log.apply(&difference);
            }
            Write::Install { index } => disk.log.install(index),
            Write::Snapshot { view, at } => (disk.view, disk.log) = (view, Log::at(at)),
        }
        job
    }

    /// Notes what a copy does, and shows it.
    fn said(&mut self, node: NodeId, output: &Output) -> String {
        let shown = show::output(output);
        match output {
            Output::Send { to, message } => {
                let (from, to, message) = (node, *to, message.clone());
                self.mails.push(Mail { from, to, message });
                return format!("{shown} (m{})", self.mails.len());
            }
            Output::AskView => self.copy(node).asks(None),
            Output::Change(change) => self.copy(node).asks(Some(*change)),
            Output::Write { job, write } => {
                let write = (*job, write.clone());
                self.copy(node).writes.push_back(write);
            }
            _ => {}
        }
        shown
    }

    fn copy(&mut self, node: NodeId) -> &mut Copy {
        self.members.get_mut(&node).expect("the node has started")
    }
}

impl Copy {
    fn asks(&mut self, change: Option<Change>) {
        (self.asked, self.asks) = (change, true);
    }
}
