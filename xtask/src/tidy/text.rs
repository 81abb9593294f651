//! Rules about lines: length of files and lines, stray space, leftover marks, machine paths.

use super::Problem;
use super::source::Source;

const FILE_LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Marks of unfinished work. Written in two parts, so that this file does not break its own rule.
const MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!"),
    concat!("dbg", "!"),
    concat!("unimplemented", "!"),
];

/// Starts of paths that exist on one machine alone.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/t", "mp/"),
];

pub(super) fn check(source: &Source, problems: &mut Vec<Problem>) {
    let mut last = 0;
    for (index, line) in source.text.split('\n').enumerate() {
        last = index;
        for what in check_line(line, source.is_rust()) {
            problems.push(source.problem(index + 1, what));
        }
    }
    if source.is_rust() && last > FILE_LINES_MAX {
        let what = format!("the file has {last} lines, at most {FILE_LINES_MAX}: split it");
        problems.push(source.problem(0, what));
    }
    if !source.text.is_empty() && (!source.text.ends_with('\n') || source.text.ends_with("\n\n")) {
        problems.push(source.problem(0, "the file does not end with exactly one line end"));
    }
}

fn check_line(line: &str, rust: bool) -> Vec<String> {
    let mut found = Vec::new();
    if line.ends_with([' ', '\t', '\r']) {
        found.push("the line ends with white space".to_owned());
    }
    if rust {
        let columns = line.chars().count();
        // A link cannot be broken, nor a row of a table in documentation.
        let row = ["//! |", "/// |"]
            .iter()
            .any(|start| line.trim_start().starts_with(start));
        if columns > COLUMNS_MAX && !line.contains("://") && !row {
            found.push(format!(
                "the line has {columns} columns, at most {COLUMNS_MAX}"
            ));
        }
        if line.contains('\t') {
            found.push("the line contains a tab".to_owned());
        }
    }
    for mark in MARKS.iter().filter(|mark| contains_word(line, mark)) {
        found.push(format!("`{mark}`: finish it or write it down elsewhere"));
    }
    for path in MACHINE_PATHS
        .iter()
        .filter(|path| contains_path(line, path))
    {
        found.push(format!("a path of one machine: `{path}`"));
    }
    found
}

/// Whether `word` stands in `line` with no letter, digit or `_` before or after it.
fn contains_word(line: &str, word: &str) -> bool {
    let part_of_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let closed = word.ends_with('!') || !after.is_some_and(part_of_word);
        closed && !before.is_some_and(part_of_word)
    })
}

/// Whether `path` stands in `line` as the start of a path, not in the midst of one.
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "._-/}>)".contains(letter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        check(
            &Source {
                path: path.into(),
                text: text.to_owned(),
            },
            &mut problems,
        );
        problems.iter().map(Problem::to_string).collect()
    }

    #[track_caller]
    fn breaks(path: &str, text: &str, rule: &str) {
        let found = problems(path, text);
        assert!(
            found.len() == 1 && found[0].contains(rule),
            "expected `{rule}`: {found:?}"
        );
    }

    #[test]
    fn a_clean_file_has_no_problem() {
        assert!(problems("a.rs", "//! A.\n\nfn main() {}\n").is_empty());
        assert!(problems("a.rs", "").is_empty());
    }

    #[test]
    fn long_files_are_found_in_rust_alone() {
        breaks("a.rs", &"//\n".repeat(601), "601 lines");
        assert!(problems("a.rs", &"//\n".repeat(600)).is_empty());
        assert!(problems("a.md", &"x\n".repeat(601)).is_empty());
    }

    #[test]
    fn long_lines_are_counted_in_letters_and_links_may_be_long() {
        breaks(
            "a.rs",
            &format!("// {}\n", "ü".repeat(98)),
            "a.rs:1: the line has 101 columns",
        );
        assert!(problems("a.rs", &format!("// {}\n", "ü".repeat(97))).is_empty());
        assert!(problems("a.rs", &format!("// https://{}\n", "a".repeat(98))).is_empty());
        assert!(problems("a.rs", &format!("//! | {} |\n", "a".repeat(98))).is_empty());
        assert!(problems("a.md", &format!("{}\n", "a".repeat(300))).is_empty());
    }

    #[test]
    fn white_space_is_found_at_line_ends_and_file_ends() {
        breaks(
            "a.md",
            "one \ntwo\n",
            "a.md:1: the line ends with white space",
        );
        breaks("a.idl", "one\r\ntwo\n", "ends with white space");
        breaks("a.rs", "\tone\n", "tab");
        breaks("a.toml", "one", "exactly one line end");
        breaks("a.toml", "one\n\n", "exactly one line end");
    }

    #[test]
    fn marks_are_found_as_words() {
        for mark in MARKS {
            breaks("a.rs", &format!("// {mark}: later\n"), mark);
            assert!(problems("a.rs", &format!("// A{mark}\n")).is_empty());
        }
        assert!(problems("a.sh", &format!("mktemp -d {}\n", "X".repeat(6))).is_empty());
    }

    #[test]
    fn machine_paths_are_found_at_their_start_alone() {
        for path in MACHINE_PATHS {
            breaks("a.md", &format!("see `{path}x`\n"), "a path of one machine");
            breaks(
                "a.toml",
                &format!("path = \"{path}x\"\n"),
                "a path of one machine",
            );
            assert!(problems("a.md", &format!("see frame{path}x and .{path}x\n")).is_empty());
        }
    }
}
