//! Tokens to text: formatted, with a header, and with the blank lines that prettyplease leaves
//! out.
//!
//! A file is formatted in parts of one or more items. Each has the text that it would have within
//! the whole, so that parts need not be in memory together, nor be made by one thread.

use proc_macro2::TokenStream;

/// The text of some items of a Rust file.
///
/// # Panics
/// If the tokens are no items: a bug of the generator.
pub(crate) fn items(emit: impl Fn() -> TokenStream) -> String {
    let file = match syn::parse2(emit()) {
        Ok(file) => file,
        // They are made again for the message: to keep them would be to copy them every time.
        Err(error) => {
            let tokens = emit();
            panic!("the generator emitted what is no Rust: {error}\n{tokens}")
        }
    };
    spaced(&prettyplease::unparse(&file))
}

/// The text of a file of these parts.
pub(crate) fn file(header: &str, parts: &[String]) -> String {
    let length = header.len() + 1 + parts.iter().map(|part| part.len() + 1).sum::<usize>();
    let mut out = String::with_capacity(length);
    out.push_str(header);
    out.push('\n');
    let mut previous: Option<&str> = None;
    for part in parts {
        if let (Some(previous), Some(line)) = (previous, part.lines().next())
            && apart(previous, line)
        {
            out.push('\n');
        }
        out.push_str(part);
        previous = part.lines().next_back().or(previous);
    }
    out
}

/// Puts a blank line between items.
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut previous: Option<&str> = None;
    for line in text.lines() {
        if previous.is_some_and(|previous| apart(previous, line)) {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
        previous = Some(line);
    }
    out
}

/// Whether a blank line belongs between two lines: one ends an item, the other begins one.
fn apart(previous: &str, line: &str) -> bool {
    const ITEMS: [&str; 13] = [
        "///",
        "#[",
        "pub ",
        "impl",
        "fn ",
        "async fn ",
        "const ",
        "static ",
        "struct ",
        "enum ",
        "trait ",
        "mod ",
        "use ",
    ];
    // Most lines end no item; this is the cheapest way to tell.
    if !previous.ends_with(['}', ';']) {
        return false;
    }
    let (end, start) = (previous.trim_start(), line.trim_start());
    let same = previous.len() - end.len() == line.len() - start.len();
    let ended = end == "}" || end.ends_with(';');
    let one_line = |line: &str| line.starts_with("const ") || line.starts_with("pub use ");
    same && ended
        && ITEMS.iter().any(|item| start.starts_with(item))
        && !(one_line(end) && one_line(start))
}
