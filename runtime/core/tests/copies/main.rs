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
//! | `n1: add e1` | the shell wants an entry added: a call was executed |
//! | `n1: written` | the first write under way is on the disk |
//! | `n2: hear m1` | a message arrives |
//! | `n2: binder` | the binder gets what the copy has asked last, and the copy hears the answer |
//! | `n2: binder unheard` | the same, but the answer gets lost |
//! | `n2: lost 1`, `n2: lost 1 ended` | the other node is silent; its process is known to have ended |
//! | `n3: finds 1@1 x` | it has executed that entry, and come to something else than the leader |
//! | `n1: crash` | its process ends |
//! | `settle` | disks and binder do what they were asked, and what is sent from here on is heard, until nothing happens any more; not shown, and numbers of messages begin anew |
//! | `at 50ms` | time passes at all nodes |
//! | `view` | the binder's |
//! | `n1: log` | what is on disk: what is installed, and what is staged after it |
//! | `n1: is` | what it is, and up to where it knows entries to be complete |

mod group;
mod show;
#[path = "../stories/mod.rs"]
mod stories;

use group::Group;

#[test]
fn every_story_is_told_as_written() {
    stories::are_told_as_written("tests/copies", 8, || {
        let mut group = Group::default();
        move |line: &str| group.line(line)
    });
}
