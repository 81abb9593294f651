//! "Did you mean": the known name nearest to an unknown one.

/// Longer names are not compared: the cost grows with the square.
const LENGTH_MAX: usize = 100;
/// Names whose length differs by more cannot be near enough.
const LENGTH_GAP_MAX: usize = 3;

/// The help for an unknown name, if a known one is near.
pub(crate) fn help<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(unknown, known).map(|meant| format!("did you mean `{meant}`?"))
}

/// The known name with the fewest edits, at most a third of the length and at least one.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if unknown.len() > LENGTH_MAX {
        return None;
    }
    let edits_max = (unknown.len() / 3).max(1);
    known
        .filter(|name| name.len().abs_diff(unknown.len()) <= LENGTH_GAP_MAX.min(edits_max))
        .map(|name| {
            (
                edits(unknown, name),
                letters(name) != letters(unknown),
                name,
            )
        })
        .filter(|(edits, _, name)| *edits <= edits_max && *edits < name.len())
        .min()
        .map(|(_, _, name)| name)
}

/// A wrong case counts for less than a wrong letter.
fn edits(unknown: &str, name: &str) -> usize {
    if unknown.eq_ignore_ascii_case(name) {
        return 0;
    }
    strsim::damerau_levenshtein(unknown, name)
}

/// Swapped letters are likelier than wrong ones: `i46` is `i64` rather than `i16`.
fn letters(name: &str) -> Vec<char> {
    let mut letters: Vec<char> = name.chars().collect();
    letters.sort_unstable();
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_not() {
        let known = ["deposit", "withdraw", "Account", "i16", "i64"];
        let find = |unknown| nearest(unknown, known.into_iter());
        assert_eq!(find("depsoit"), Some("deposit"));
        assert_eq!(find("account"), Some("Account"));
        assert_eq!(find("i46"), Some("i64"));
        assert_eq!(find("balance"), None);
        assert_eq!(find("x"), None);
    }
}
