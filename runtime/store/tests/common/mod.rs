//! Helpers of the tests of the store on disk.

#![allow(dead_code, reason = "each test binary uses some of them")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use partha_core::action::path::Site;
use partha_core::group::{Stamp, View};
use partha_core::id::{CallId, ClassId, Epoch, Incarnation, NodeId, Peer, Uid};
use partha_store::{Batch, Item, ObjectStore, Record, Row, StoreError};

pub(crate) fn uid(local: u64) -> Uid {
    Uid {
        node: NodeId(7),
        local,
    }
}

pub(crate) fn record(epoch: u64, state: &str) -> Record {
    let state = Bytes::copy_from_slice(state.as_bytes());
    Record {
        class: ClassId(0xC1A5),
        schema: 1,
        version: epoch,
        epoch: Epoch(epoch),
        state,
    }
}

pub(crate) fn create(local: u64, state: &str) -> Item {
    Item::Create {
        uid: uid(local),
        record: record(1, state),
    }
}

pub(crate) fn write(local: u64, epoch: Epoch, state: &str) -> Item {
    Item::WriteState {
        uid: uid(local),
        record: record(epoch.0, state),
    }
}

pub(crate) fn put_row(local: u64, part: u16, key: &[u8], value: &str) -> Item {
    let (key, value) = (
        Bytes::copy_from_slice(key),
        Bytes::copy_from_slice(value.as_bytes()),
    );
    Item::PutRow {
        uid: uid(local),
        part,
        key,
        value,
    }
}

/// A row of part 1 as it is sent.
pub(crate) fn row(key: &[u8], value: &str) -> Row {
    Row {
        part: 1,
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

pub(crate) fn call(sequence: u64) -> CallId {
    CallId {
        caller: Peer {
            node: NodeId(3),
            incarnation: Incarnation(4),
        },
        sequence,
    }
}

pub(crate) fn save_reply(sequence: u64, body: &str, keep_ms: u64) -> Item {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Item::SaveReply {
        call: call(sequence),
        uid: uid(1),
        body,
        keep_ms,
    }
}

/// The action whose number this is.
pub(crate) fn action(number: u64) -> Uid {
    Uid {
        node: NodeId(8),
        local: number,
    }
}

pub(crate) fn site(shard: u16) -> Site {
    let node = NodeId(5);
    Site { node, shard }
}

pub(crate) fn shadow(number: u64, local: u64, epoch: Epoch, state: &str) -> Item {
    Item::WriteShadow {
        action: action(number),
        uid: uid(local),
        record: record(epoch.0, state),
    }
}

pub(crate) fn create_shadow(number: u64, local: u64, state: &str) -> Item {
    Item::CreateShadow {
        action: action(number),
        uid: uid(local),
        record: record(0, state),
    }
}

pub(crate) fn shadow_row(number: u64, local: u64, key: &[u8], value: Option<&str>) -> Item {
    Item::ShadowRow {
        action: action(number),
        uid: uid(local),
        part: 1,
        key: Bytes::copy_from_slice(key),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    }
}

/// Shard 1 decides.
pub(crate) fn prepare(number: u64) -> Item {
    let action = action(number);
    Item::Prepare {
        action,
        coordinator: site(1).into(),
    }
}

pub(crate) fn install(number: u64) -> Item {
    let action = action(number);
    Item::CommitShadow { action }
}

pub(crate) fn undo(number: u64) -> Item {
    let action = action(number);
    Item::DeleteShadow { action }
}

/// Shard 2 is to be told, unless it is `alone`.
pub(crate) fn decide(number: u64, alone: bool, keep_ms: u64) -> Item {
    Item::Decide {
        action: action(number),
        participants: if alone { vec![] } else { vec![site(2)] },
        groups: vec![],
        keep_ms,
    }
}

pub(crate) fn settle(number: u64) -> Item {
    let action = action(number);
    Item::Settle { action }
}

pub(crate) fn view(number: u64) -> View {
    View {
        number,
        members: vec![NodeId(1), NodeId(2)],
    }
}

pub(crate) fn at(view: u64, index: u64) -> Stamp {
    Stamp { view, index }
}

pub(crate) fn join(local: u64, has_state: bool) -> Item {
    Item::JoinGroup {
        uid: uid(local),
        view: view(1),
        has_state,
    }
}

/// An entry that changes state and row of an object.
pub(crate) fn entry(local: u64, stamp: Stamp, text: &str) -> (Stamp, Bytes) {
    let changes = vec![
        write(local, Epoch(u64::MAX), text),
        put_row(local, 1, b"count", text),
    ];
    (stamp, partha_store::entry::encode(&Batch::new(changes)))
}

pub(crate) fn stage(local: u64, stamp: Stamp, text: &str) -> Item {
    Item::GroupLog {
        uid: uid(local),
        view: view(stamp.view),
        truncate: None,
        add: vec![entry(local, stamp, text)],
    }
}

pub(crate) fn install_entries(local: u64, index: u64) -> Item {
    let uid = uid(local);
    Item::GroupInstall { uid, index }
}

pub(crate) fn commit(store: &dyn ObjectStore, items: Vec<Item>) -> Result<(), StoreError> {
    store.commit(Batch::new(items))
}

pub(crate) fn state(store: &dyn ObjectStore, local: u64) -> Option<String> {
    let record = store.read_state(uid(local)).unwrap();
    record.map(|record| String::from_utf8(record.state.to_vec()).unwrap())
}

pub(crate) fn submit(
    store: &dyn ObjectStore,
    items: Vec<Item>,
) -> mpsc::Receiver<Result<(), StoreError>> {
    let (sender, receiver) = mpsc::channel();
    store.submit(
        Batch::new(items),
        Box::new(move |result| sender.send(result).unwrap()),
    );
    receiver
}

/// Keeps the store thread busy until the answer is dropped.
pub(crate) fn busy(store: &dyn ObjectStore) -> mpsc::Sender<()> {
    let (free, freed) = mpsc::channel::<()>();
    let (enter, entered) = mpsc::channel();
    let done = move |result: Result<(), StoreError>| {
        enter.send(result).unwrap();
        let _ = freed.recv();
    };
    store.submit(Batch::default(), Box::new(done));
    entered.recv().unwrap().unwrap();
    free
}

pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

const CHILD_DIR: &str = "PARTHA_STORE_TEST_CHILD_DIR";

/// This test binary again, to run only the (ignored) test `name` on the store in `dir`.
pub(crate) fn child(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", name])
        .env(CHILD_DIR, dir);
    command
}

/// In a child: the folder it is to work on.
pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// In a child: a line for the parent.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {line}")
        .and_then(|()| out.flush())
        .expect("the parent listens");
}

/// The lines a child says.
pub(crate) fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
    // The first line may follow what the test harness prints before it, on the same line.
    out.lines()
        .map_while(Result::ok)
        .filter_map(|line| line.split_once("> ").map(|(_, said)| said.to_owned()))
}

pub(crate) fn wait_for_line(child: &mut Child, expected: &str) {
    let found = lines(child).find(|line| line == expected);
    assert!(
        found.is_some(),
        "the child ended without saying '{expected}'"
    );
}

/// A small generator of repeatable numbers (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
