//! Stories of one group of copies: what happens is written in a text, what the copies do about it
//! stands below. They are those of the fifth figure of Little's thesis, in which a member fails
//! while it answers so that some of the others have heard it and some have not, for calls that are
//! entries of the group's log; those of calls in actions are in `tests/scenario`.
//!
//! `BLESS=1` writes what the copies do now into the texts; the difference is then read, not
//! believed. `STORY=answer` tells only those with such a name, aloud.
//!
//! The disks keep what was written, so a copy that starts again has that; the binder keeps the
//! view. Messages have numbers, `(m1)`, and get lost unless a line says that they are heard.
//!
//! | line | meaning |
//! |---|---|
//! | `group 1 2 3` | copies at these nodes, the first one leads; the view is 1, and all logs are empty |
//! | `n1: start` | the node starts, or starts again, with what its disk has |
//! | `n4: start empty` | it has no state |
//! | `n1: add e1` | the shell wants an entry added: a call was executed |
//! | `n1: written` | the first write under way is on the disk |
//! | `n2: hear m1` | a message arrives |
//! | `n2: binder` | the binder gets what the copy has asked last, and the copy hears the answer |
//! | `n2: binder unheard` | the same, but the answer gets lost |
//! | `n2: lost 1`, `n2: lost 1 ended` | the other node is silent; its process is known to have ended |
//! | `n2: found 1` | it is heard of again |
//! | `n3: finds 1@1 x` | it has executed that entry, and come to something else than the leader |
//! | `n1: crash` | its process ends |
//! | `settle` | disks and binder do what they were asked, and what is sent from here on is heard, until nothing happens any more; not shown, and numbers of messages begin anew |
//! | `at 50ms` | time passes at all nodes |
//! | `view` | the binder's |
//! | `n1: log` | what is on disk: what is installed, and what is staged after it |
//! | `n1: is` | what it is, and up to where it knows entries to be complete |

mod group;
mod show;

use std::path::{Path, PathBuf};

use group::Group;

/// Tells a story again, with what the copies do now.
fn tell(text: &str) -> String {
    let mut group = Group::default();
    let mut told = String::new();
    let aloud = std::env::var_os("STORY").is_some();
    for line in text.lines().filter(|line| !line.starts_with("    ")) {
        let line = line.trim_end();
        let mut said = format!("{line}\n");
        if !line.is_empty() && !line.starts_with('#') {
            for output in group.line(line) {
                said += &format!("    {output}\n");
            }
        }
        if aloud {
            eprint!("{said}");
        }
        told += &said;
    }
    told
}

fn stories() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/copies");
    let files = std::fs::read_dir(folder).expect("the stories are beside this file");
    let paths = files.map(|file| file.expect("a readable folder").path());
    let one = std::env::var("STORY").unwrap_or_default();
    let texts = paths.filter(|path| {
        let name = path.to_string_lossy();
        name.ends_with(".txt") && name.contains(&one)
    });
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a text");
        (path, text)
    };
    texts.map(read).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "blessing rewrites the stories")]
fn every_story_is_told_as_written() {
    let bless = std::env::var_os("BLESS").is_some();
    let stories = stories();
    let few = stories.len() < 8 && std::env::var_os("STORY").is_none();
    assert!(!few, "only {} stories are found", stories.len());
    let mut wrong = Vec::new();
    for (path, text) in stories {
        let told = tell(&text);
        if told == text {
            continue;
        }
        if bless {
            std::fs::write(&path, told).expect("the story can be written");
            continue;
        }
        let mut lines = text.lines().zip(told.lines()).enumerate();
        let first = lines.find(|(_, (written, told))| written != told);
        let over = (text.lines().count(), ("", "(more, or less)"));
        let (at, (written, told)) = first.unwrap_or(over);
        let place = format!("{}:{}", path.display(), at + 1);
        wrong.push(format!("{place}\n  written: {written}\n  told:    {told}"));
    }
    let wrong = wrong.join("\n");
    assert!(wrong.is_empty(), "{wrong}\nBLESS=1 rewrites the stories");
}
