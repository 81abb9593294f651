//! Tokens to text: formatted, with a header, and with the blank lines that prettyplease leaves
//! out.

use proc_macro2::TokenStream;

/// The text of a Rust file.
///
/// # Panics
/// If the tokens are no Rust file: a bug of the generator.
pub(crate) fn file(header: &str, tokens: TokenStream) -> String {
    let file = match syn::parse2(tokens.clone()) {
        Ok(file) => file,
        Err(error) => panic!("the generator emitted what is no Rust: {error}\n{tokens}"),
    };
    format!("{header}\n{}", spaced(&prettyplease::unparse(&file)))
}

/// Puts a blank line between items.
fn spaced(text: &str) -> String {
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
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut previous: Option<&str> = None;
    for line in text.lines() {
        let ended = previous.is_some_and(|previous| {
            let end = previous.trim_start();
            let indent = |line: &str| line.len() - line.trim_start().len();
            let same = indent(previous) == indent(line);
            let item = end == "}" || end.ends_with(';') || end == "};" || end == "];";
            same && item
                && ITEMS
                    .iter()
                    .any(|start| line.trim_start().starts_with(start))
        });
        let pair = previous.is_some_and(|previous| {
            let one_line = |line: &str| {
                let line = line.trim_start();
                line.starts_with("const ") || line.starts_with("pub use ")
            };
            one_line(previous) && one_line(line)
        });
        if ended && !pair {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
        previous = Some(line);
    }
    out
}
