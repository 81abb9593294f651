//! The children's logs: on standard error, each line after the name of its process.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use crate::supervise::Sink;

/// Terminal colours that are readable on dark and bright grounds.
const COLOURS: [u8; 6] = [36, 35, 32, 33, 34, 31];

/// Prints lines, aligned and with a colour for each name if somebody looks.
pub(super) fn sink(names: Vec<String>) -> Sink {
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    Arc::new(move |name, line| {
        let index = names.iter().position(|known| known == name).unwrap_or(0);
        let mut out = std::io::stderr().lock();
        // Whoever closed standard error does not want to read it.
        let _ = match coloured {
            true => {
                let colour = COLOURS[index % COLOURS.len()];
                writeln!(out, "\x1b[{colour}m{name:<width$} |\x1b[0m {line}")
            }
            false => writeln!(out, "{name:<width$} | {line}"),
        };
    })
}
