//! Rules about `docs/features.md`: each promise names a test, and the test is there.

use std::path::PathBuf;

use super::Problem;
use super::source::Source;

const FEATURES: &str = "docs/features.md";

/// A cell may name several tests, each as `file: function` between backticks.
pub(super) fn check(sources: &[Source], problems: &mut Vec<Problem>) {
    let Some(features) = sources
        .iter()
        .find(|source| source.path.ends_with(FEATURES))
    else {
        return;
    };
    for (index, line) in features.text.lines().enumerate() {
        for named in line.split('`').skip(1).step_by(2) {
            let Some((file, function)) = named.split_once(": ") else {
                continue;
            };
            let found = sources.iter().find(|source| source.path.ends_with(file));
            let is_there = found.is_some_and(|source| {
                source.text.contains(&format!("fn {function}("))
                    || source.text.contains(&format!("fn {function}<"))
            });
            if !is_there {
                problems.push(Problem {
                    path: PathBuf::from(FEATURES),
                    line: index + 1,
                    what: format!("there is no test `{named}`"),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_without_its_test_is_told() {
        let named = |path: &str, text: &str| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        let table = "| A1 | kept | `a/tests/x.rs: kept` |\n| A2 | not | `a/tests/x.rs: broken` |\n";
        let sources = [
            named(FEATURES, table),
            named("a/tests/x.rs", "fn kept() {}\n"),
        ];
        let mut problems = Vec::new();
        check(&sources, &mut problems);
        let told: Vec<_> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            told,
            ["docs/features.md:2: there is no test `a/tests/x.rs: broken`"]
        );
    }
}
