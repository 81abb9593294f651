//! Asking before something is done that cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};

use crate::failure::Usage;

/// Asks at the terminal whether this is to be done, unless that was said beforehand.
///
/// # Errors
/// If the answer is anything but yes, or there is no terminal to ask at: nothing is to be done.
pub(crate) fn confirm(what: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let text = format!("asked to {what}, with no terminal to confirm it at; say --yes");
        return Err(Usage(text).into());
    }
    eprint!("{what}? [y/N] ");
    io::stderr().flush().context("cannot ask")?;
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.context("cannot read the answer")?;
    if !is_yes(&answer) {
        bail!("not confirmed; nothing has been done");
    }
    Ok(())
}

/// Whether it is yes; an empty answer, or the end of the input, is no.
fn is_yes(answer: &str) -> bool {
    let answer = answer.trim().to_lowercase();
    answer == "y" || answer == "yes"
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn nothing_but_yes_is_yes() {
        assert!(["y", "Y\n", " yes "].iter().all(|answer| is_yes(answer)));
        assert!(
            !["", "\n", "n", "yess", "ok"]
                .iter()
                .any(|answer| is_yes(answer))
        );
    }
}
