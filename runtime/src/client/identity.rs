//! Who a client without a store is, over its restarts: a node id and a count of its lives in a
//! small file.
//!
//! Nodes tell a client that came back from the one that died by its incarnation: what the older
//! life left there is cleared for the newer one, and late messages of the older are refused. So
//! the count must never be seen twice. It is raised, and the raise is on disk, before the client
//! says a word; a lock keeps a second process out; and a file that cannot be read is an error
//! and no reason to begin anew.
//!
//! The file is four lines of text, the last of which is a CRC-32C of the others, and is replaced
//! as a whole: a temporary file, its sync, its rename, the folder's sync.
//!
//! The idea is Rajdoot's stable crash count; a node has its own in its store.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use partha_core::id::{Incarnation, NodeId, Peer};

use super::random_node;
use crate::error::{ErrorKind, Result, SystemError};

/// The identity itself.
const FILE: &str = "client-identity";
/// It while it is written.
const FILE_NEW: &str = "client-identity.new";
/// The file that is locked; it holds the number of the process.
const LOCK_FILE: &str = "client-lock";
/// The version of the format.
const VERSION: u32 = 1;
const TITLE: &str = "partha client identity, version";
/// More than the file ever has.
const BYTES_MAX: u64 = 4096;

/// An identity that is this process's until it is dropped.
#[derive(Debug)]
pub(super) struct Identity {
    me: Peer,
    lock: File,
}

impl Identity {
    /// Takes the identity in the folder, or makes one, and begins its next life. It blocks for
    /// as long as the disk takes.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let is_new = !dir.exists();
        fs::create_dir_all(dir).map_err(|error| failed("make the folder", dir, &error))?;
        let lock = lock(dir)?;
        let me = next(dir)?;
        replace(dir, &encode(me))?;
        if is_new && let Some(parent) = dir.canonicalize().ok().as_deref().and_then(Path::parent) {
            // A parent that we may not read is older than we are.
            if let Err(error) = sync(parent)
                && error.kind() != io::ErrorKind::PermissionDenied
            {
                return Err(failed("sync the folder", parent, &error));
            }
        }
        Ok(Self { me, lock })
    }

    pub(super) fn me(&self) -> Peer {
        self.me
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // Closing the file would do, were there not perhaps a child process just being made,
        // which shares the file until it has become another program.
        let _ = self.lock.unlock();
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed("open", &path, &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = match owner(&mut lock) {
                Some(pid) => format!("process {pid}"),
                None => "another process".to_owned(),
            };
            let detail = format!(
                "the client identity in {} is in use by {owner}; each client needs one of its own",
                dir.display()
            );
            return Err(SystemError::new(ErrorKind::Store, detail));
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
    }
    // Only a hint for whoever comes second; a full disk is met, and told, in what follows.
    if let Err(error) = note_owner(&mut lock) {
        tracing::warn!(%error, path = %path.display(), "cannot note the process number");
    }
    Ok(lock)
}

fn owner(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn note_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

/// Who the client is in the life that begins now.
fn next(dir: &Path) -> Result<Peer> {
    let path = dir.join(FILE);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Peer {
                node: random_node()?,
                incarnation: Incarnation(1),
            });
        }
        Err(error) => return Err(failed("read", &path, &error)),
    }
    let last = decode(&bytes).map_err(|why| {
        let detail = format!("the client identity {} {why}", path.display());
        SystemError::new(ErrorKind::Store, detail)
    })?;
    if last.incarnation >= Incarnation::MAX {
        let detail = format!(
            "the client identity {} has had {} lives, which is all there are; {ANEW}",
            path.display(),
            last.incarnation.0
        );
        return Err(SystemError::new(ErrorKind::Store, detail));
    }
    Ok(Peer {
        node: last.node,
        incarnation: Incarnation(last.incarnation.0 + 1),
    })
}

/// What can be done about an identity that is of no use.
const ANEW: &str = "remove it, and the client begins a new identity; what its last life left at \
                    nodes is then cleared when its lease ends there, and its unfinished calls \
                    cannot be asked for again";

fn encode(me: Peer) -> String {
    let (node, incarnation) = (me.node.0, me.incarnation.0);
    let text = format!("{TITLE} {VERSION}\nnode {node:016x}\nincarnation {incarnation}\n");
    let sum = crc32c::crc32c(text.as_bytes());
    format!("{text}checksum {sum:08x}\n")
}

/// What the file says; `Err` is what is wrong with it, and the cure.
fn decode(bytes: &[u8]) -> std::result::Result<Peer, String> {
    let damaged = |what: &str| format!("is damaged: {what}; {ANEW}");
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let mut lines = text.lines();
    let mut value = |name: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.strip_prefix(' '));
        value.ok_or_else(|| damaged(&format!("there is no line '{name} …' where one belongs")))
    };
    let version = value(TITLE)?;
    if version.parse() != Ok(VERSION) {
        return Err(format!(
            "is of version '{version}', this software knows version {VERSION} only; use the \
             software that wrote it"
        ));
    }
    let (node, incarnation) = (value("node")?, value("incarnation")?);
    let node = u64::from_str_radix(node, 16).map_err(|_| damaged("the node is no number"))?;
    let incarnation = incarnation.parse();
    let incarnation = incarnation.map_err(|_| damaged("the incarnation is no number"))?;
    let me = Peer {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
    };
    if encode(me) != text {
        return Err(damaged("its checksum is not that of what it says"));
    }
    if node == 0 || incarnation == 0 || me.incarnation > Incarnation::MAX {
        return Err(damaged("no client has such a node or incarnation"));
    }
    Ok(me)
}

/// Puts the text in the file's place, durably.
fn replace(dir: &Path, text: &str) -> Result<()> {
    let new = dir.join(FILE_NEW);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let path: PathBuf = dir.join(FILE);
    let failed = |what, error: &io::Error| {
        // Best effort: what is left over is written over by the next attempt.
        let _ = fs::remove_file(&new);
        failed(what, &path, error)
    };
    written.map_err(|error| failed("write", &error))?;
    fs::rename(&new, &path).map_err(|error| failed("replace", &error))?;
    sync(dir).map_err(|error| failed("sync the folder of", &error))
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn failed(what: &str, path: &Path, error: &io::Error) -> SystemError {
    let cure = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; make room: the incarnation has to be on disk first"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; the client's identity needs a folder that it may write to"
        }
        _ => "",
    };
    let path = path.display();
    let detail = format!("the client identity: cannot {what} {path}: {error}{cure}");
    SystemError::new(ErrorKind::Store, detail)
}

#[cfg(test)]
mod tests {
    use test_support::temp_dir;

    use super::*;

    fn peer(incarnation: u32) -> Peer {
        Peer {
            node: NodeId(0xabcd),
            incarnation: Incarnation(incarnation),
        }
    }

    fn refusal(dir: &Path) -> String {
        let error = Identity::take(dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store);
        error.to_string()
    }

    #[test]
    fn each_life_is_the_next_one() {
        let dir = temp_dir("identity");
        let dir = dir.path().join("below").join("it");
        let first = Identity::take(&dir).unwrap().me();
        assert_eq!(first.incarnation, Incarnation(1));
        for life in 2..5 {
            let me = Identity::take(&dir).unwrap().me();
            assert_eq!((me.node, me.incarnation.0), (first.node, life));
        }
    }

    #[test]
    fn the_second_is_refused_until_the_first_lets_go() {
        let dir = temp_dir("identity");
        let first = Identity::take(dir.path()).unwrap();
        let text = refusal(dir.path());
        let owner = format!("in use by process {}", std::process::id());
        assert!(text.contains(&owner), "{text}");
        let life = first.me().incarnation.0;
        drop(first);
        let second = Identity::take(dir.path()).unwrap();
        assert_eq!(
            second.me().incarnation.0,
            life + 1,
            "a refusal takes no life"
        );
    }

    #[test]
    fn every_damage_is_told_and_nothing_is_replaced() {
        let dir = temp_dir("identity");
        let path = dir.path().join(FILE);
        let good = encode(peer(7)).into_bytes();
        let damages = (0..good.len()).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        });
        let cuts = (0..good.len()).map(|len| good[..len].to_vec());
        let longer = [good.as_slice(), b"more\n"].concat();
        let twice = [good.as_slice(), &good].concat();
        for bytes in damages.chain(cuts).chain([longer, twice, vec![0xff; 80]]) {
            fs::write(&path, &bytes).unwrap();
            let text = refusal(dir.path());
            let is_version = text.contains("use the software that wrote it");
            assert!(is_version || text.contains("remove it"), "{text}");
            assert!(text.contains(&path.display().to_string()), "{text}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "it was replaced");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(Identity::take(dir.path()).unwrap().me(), peer(8));
    }

    #[test]
    fn what_a_crash_left_half_written_is_written_over() {
        let dir = temp_dir("identity");
        fs::write(dir.path().join(FILE), encode(peer(7))).unwrap();
        fs::write(dir.path().join(FILE_NEW), &encode(peer(8))[..20]).unwrap();
        assert_eq!(Identity::take(dir.path()).unwrap().me(), peer(8));
        assert!(!dir.path().join(FILE_NEW).exists());
    }

    #[test]
    fn the_last_life_is_the_last() {
        let dir = temp_dir("identity");
        let path = dir.path().join(FILE);
        fs::write(&path, encode(peer(Incarnation::MAX.0 - 1))).unwrap();
        let last = Identity::take(dir.path()).unwrap();
        assert_eq!(last.me().incarnation, Incarnation::MAX);
        drop(last);
        let text = refusal(dir.path());
        assert!(text.contains("16777215 lives"), "{text}");
        assert!(text.contains("remove it"), "{text}");
        fs::remove_file(&path).unwrap();
        let anew = Identity::take(dir.path()).unwrap().me();
        assert_eq!(anew.incarnation, Incarnation(1));
        assert_ne!(anew.node, peer(1).node);
    }

    #[test]
    fn a_version_to_come_is_not_taken_for_damage() {
        let dir = temp_dir("identity");
        let text = "partha client identity, version 2\nwho knows\n";
        fs::write(dir.path().join(FILE), text).unwrap();
        let told = refusal(dir.path());
        assert!(told.contains("version '2'"), "{told}");
        assert!(!told.contains("remove"), "{told}");
    }
}
