//! "Did you mean": the known name nearest to an unknown one.

/// `; did you mean 'deposit'?`, or nothing if no known name is near.
pub(crate) fn hint<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let edits_max = (unknown.chars().count() / 3).max(1);
    let near = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .filter(|(edits, name)| *edits <= edits_max && *edits < name.chars().count())
        .min();
    near.map_or_else(String::new, |(_, name)| format!("; did you mean '{name}'?"))
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn near_names_are_offered_and_far_ones_not() {
        let known = ["deposit", "withdraw", "balance"];
        assert_eq!(hint("depsoit", known), "; did you mean 'deposit'?");
        assert_eq!(hint("rename", known), "");
        assert_eq!(hint("x", ["y"]), "");
    }
}
