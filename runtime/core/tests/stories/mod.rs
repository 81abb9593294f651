//! Texts that tell what happens, with what comes of it below, told again and compared.
//!
//! `BLESS=1` writes what is told now into the texts; `STORY=locks` tells only those with such a
//! name, aloud.

use std::path::{Path, PathBuf};

/// Tells a text again: `line` does one line and says what came of it.
fn tell(text: &str, mut line: impl FnMut(&str) -> Vec<String>) -> String {
    let mut told = String::new();
    let aloud = std::env::var_os("STORY").is_some();
    for written in text.lines().filter(|line| !line.starts_with("    ")) {
        let written = written.trim_end();
        if aloud {
            eprintln!("{written}");
        }
        let mut said = String::new();
        if !written.is_empty() && !written.starts_with('#') {
            for output in line(written) {
                said += &format!("    {output}\n");
            }
        }
        if aloud {
            eprint!("{said}");
        }
        told += &format!("{written}\n{said}");
    }
    told
}

fn stories(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(folder).expect("the stories are beside the test");
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
    let mut texts: Vec<_> = texts.map(read).collect();
    texts.sort();
    texts
}

/// All stories of a folder, of which there are so many at least; `begin` makes what does the lines
/// of one of them.
#[expect(clippy::disallowed_methods, reason = "blessing rewrites the stories")]
pub(crate) fn are_told_as_written<L>(folder: &str, least: usize, begin: impl Fn() -> L)
where
    L: FnMut(&str) -> Vec<String>,
{
    let bless = std::env::var_os("BLESS").is_some();
    let stories = stories(folder);
    let few = stories.len() < least && std::env::var_os("STORY").is_none();
    assert!(!few, "only {} stories are found", stories.len());
    let mut wrong = Vec::new();
    for (path, text) in stories {
        let told = tell(&text, begin());
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
