//! From text to tokens: brackets and quotes first, then the lexer.
//!
//! proc-macro2's lexer tells of an unbalanced bracket only that the text as a whole is no token
//! stream, and recurses into nothing but costs memory by depth. So one pass over the bytes finds
//! brackets that don't match, nesting that is too deep, and strings and comments without an end,
//! and names the place; only a text that passes goes to the lexer. It knows as much of Rust's
//! lexical rules as it takes not to mistake a bracket in a string for a bracket.

use proc_macro2::{TokenStream, TokenTree};

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// The tokens of a text, or the one reason why there are none.
pub(crate) fn tokens(
    file: FileId,
    text: &str,
    depth_max: usize,
) -> Result<TokenStream, Box<Diagnostic>> {
    let scan = Scan {
        file,
        bytes: text.as_bytes(),
        at: 0,
        depth_max,
    };
    scan.run()?;
    let tokens: TokenStream = text.parse().map_err(|error: proc_macro2::LexError| {
        unknown_token(file, text, error.span().byte_range().start)
    })?;
    match deepest(&tokens, depth_max) {
        None => Ok(tokens),
        Some(span) => Err(Box::new(too_deep(span_of(file, span.start, 1), depth_max))),
    }
}

/// The first group that is too deep. The scan has counted, but where it and the lexer should ever
/// disagree about what is a string, this is what keeps syn's recursion bounded.
fn deepest(tokens: &TokenStream, depth_max: usize) -> Option<std::ops::Range<usize>> {
    let mut open = vec![tokens.clone().into_iter()];
    while let Some(innermost) = open.last_mut() {
        match innermost.next() {
            None => {
                open.pop();
            }
            Some(TokenTree::Group(group)) if open.len() > depth_max => {
                return Some(group.span_open().byte_range());
            }
            Some(TokenTree::Group(group)) => open.push(group.stream().into_iter()),
            Some(TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_)) => {}
        }
    }
    None
}

fn too_deep(span: Span, depth_max: usize) -> Diagnostic {
    let message = format!("brackets are nested deeper than {depth_max} levels");
    Diagnostic::new(&codes::DEPTH, span, message).label("one level too many")
}

fn span_of(file: FileId, start: usize, bytes: usize) -> Span {
    Span {
        file,
        start: start as u32,
        end: (start + bytes) as u32,
    }
}

fn unknown_token(file: FileId, text: &str, at: usize) -> Box<Diagnostic> {
    let found = text[at..].chars().next().unwrap_or(' ');
    let end = (at + found.len_utf8()).min(text.len());
    let span = Span {
        file,
        start: at as u32,
        end: end as u32,
    };
    let shown = if found.is_control() {
        found.escape_default().to_string()
    } else {
        found.into()
    };
    let help = match found {
        '\'' => Some("a string stands in double quotes: `\"text\"`"),
        '“' | '”' | '„' | '‘' | '’' => Some("use the plain double quote `\"`"),
        '"' => Some("known escapes are \\n \\r \\t \\\\ \\0 \\' \\\" \\x7f \\u{1f600}"),
        '0'..='9' => Some("numbers are written 42, 0x2a, 1_000 or 2.5"),
        '/' => Some("a comment may not contain a carriage return without a line feed"),
        _ => None,
    };
    let message = format!("`{shown}` starts no token here");
    let diagnostic = Diagnostic::new(&codes::TOKEN, span, message)
        .label("cannot be read")
        .maybe_help(help.map(str::to_owned));
    Box::new(diagnostic)
}

struct Scan<'a> {
    file: FileId,
    bytes: &'a [u8],
    at: usize,
    depth_max: usize,
}

impl Scan<'_> {
    fn run(mut self) -> Result<(), Box<Diagnostic>> {
        let mut open: Vec<usize> = Vec::new();
        let mut misaligned = None;
        while let Some(byte) = self.peek(0) {
            let start = self.at;
            match byte {
                b'/' if self.peek(1) == Some(b'/') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment()?,
                b'"' => self.string(start)?,
                b'\'' => self.quote(),
                b'(' | b'[' | b'{' => {
                    open.push(start);
                    if open.len() > self.depth_max {
                        return Err(Box::new(too_deep(self.span(start, 1), self.depth_max)));
                    }
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    let opener = self.close(open.pop(), start)?;
                    if misaligned.is_none() && self.is_misaligned(opener, start) {
                        misaligned = Some((opener, start));
                    }
                    self.at += 1;
                }
                b'0'..=b'9' => self.skip_word(),
                b'_' | b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => self.word()?,
                _ => self.at += 1,
            }
        }
        open.last().map_or(Ok(()), |opener| {
            Err(Box::new(self.unclosed(*opener, misaligned)))
        })
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn line_comment(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(rest.len());
    }

    fn block_comment(&mut self) -> Result<(), Box<Diagnostic>> {
        let start = self.at;
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(self.endless(start, 2, "comment", "`*/`")),
            }
        }
    }

    /// A string with escapes; `at` is on its opening quote.
    fn string(&mut self, start: usize) -> Result<(), Box<Diagnostic>> {
        self.at += 1;
        loop {
            match self.peek(0) {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.endless(start, 1, "string", "`\"`")),
            }
        }
        self.at += 1;
        self.skip_word();
        Ok(())
    }

    /// Letters and digits, as in a number or in the suffix of a literal.
    fn skip_word(&mut self) {
        let part = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80;
        while self.peek(0).is_some_and(part) {
            self.at += 1;
        }
    }

    /// `'a'` is a character, `'a` a lifetime: neither is in the language, but both are tokens,
    /// and `'{'` is no bracket.
    fn quote(&mut self) {
        let character = match self.peek(1) {
            Some(b'\\') => 3,
            Some(byte) => 1 + char_bytes(byte),
            None => 1,
        };
        let closes = self.peek(character) == Some(b'\'');
        self.at = (self.at + if closes { character + 1 } else { 1 }).min(self.bytes.len());
    }

    /// An identifier, or the prefix of a raw string.
    fn word(&mut self) -> Result<(), Box<Diagnostic>> {
        let start = self.at;
        self.skip_word();
        let raw = matches!(&self.bytes[start..self.at], b"r" | b"br" | b"cr");
        if !raw {
            return Ok(());
        }
        let hashes = self.bytes[self.at..]
            .iter()
            .take_while(|byte| **byte == b'#')
            .count();
        if self.peek(hashes) != Some(b'"') {
            return Ok(());
        }
        self.at += hashes + 1;
        loop {
            let Some(byte) = self.peek(0) else {
                return Err(self.endless(start, 1, "string", "its closing quote and `#`s"));
            };
            self.at += 1;
            let rest = &self.bytes[self.at..];
            if byte == b'"' && rest.len() >= hashes && rest[..hashes].iter().all(|b| *b == b'#') {
                self.at += hashes;
                self.skip_word();
                return Ok(());
            }
        }
    }

    /// Matches a bracket that closes with the innermost open one, and returns that.
    fn close(&self, opener: Option<usize>, closer: usize) -> Result<usize, Box<Diagnostic>> {
        let found = char::from(self.bytes[closer]);
        let Some(opener) = opener else {
            let message = format!("`{found}` closes nothing");
            let diagnostic = Diagnostic::new(&codes::BRACKET, self.span(closer, 1), message);
            return Err(Box::new(diagnostic.label("no bracket is open here")));
        };
        let wanted = closing(self.bytes[opener]);
        if found == wanted {
            return Ok(opener);
        }
        let message = format!("expected `{wanted}`, found `{found}`");
        let diagnostic = Diagnostic::new(&codes::BRACKET, self.span(closer, 1), message)
            .label("does not match")
            .related(self.span(opener, 1), "opened here");
        Err(Box::new(diagnostic))
    }

    /// A bracket that closes at the start of a line, where the line of the opening one starts
    /// further in or out: one between the two is likely to be missing.
    fn is_misaligned(&self, opener: usize, closer: usize) -> bool {
        let indent = |at: usize| {
            let before = &self.bytes[..at];
            let start = before
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            let line = &self.bytes[start..];
            let blanks = line
                .iter()
                .take_while(|b| matches!(b, b' ' | b'\t'))
                .count();
            (start, start + blanks)
        };
        // Looked for only where a line starts with the bracket, so no line is read often.
        let starts_line = self.bytes[..closer]
            .iter()
            .rev()
            .find(|b| !matches!(b, b' ' | b'\t'))
            .is_none_or(|b| *b == b'\n');
        if !starts_line {
            return false;
        }
        let ((closing_line, closing), (opening_line, opening)) = (indent(closer), indent(opener));
        closing_line != opening_line && closing - closing_line != opening - opening_line
    }

    fn unclosed(&self, opener: usize, misaligned: Option<(usize, usize)>) -> Diagnostic {
        let wanted = closing(self.bytes[opener]);
        let found = char::from(self.bytes[opener]);
        let message = format!("`{found}` is never closed");
        let mut diagnostic = Diagnostic::new(&codes::BRACKET, self.span(opener, 1), message)
            .label(format!("no `{wanted}` for this up to the end of the file"));
        if let Some((inner, closer)) = misaligned.filter(|(inner, _)| *inner > opener) {
            diagnostic = diagnostic
                .related(self.span(inner, 1), "or for this …")
                .related(self.span(closer, 1), "… if this was meant for another");
        }
        diagnostic
    }

    fn endless(&self, start: usize, bytes: usize, what: &str, wanted: &str) -> Box<Diagnostic> {
        let message = format!("the {what} has no end");
        let diagnostic = Diagnostic::new(&codes::ENDLESS, self.span(start, bytes), message);
        Box::new(diagnostic.label(format!("starts here; missing: {wanted}")))
    }

    fn span(&self, start: usize, bytes: usize) -> Span {
        span_of(self.file, start, bytes)
    }
}

fn closing(opener: u8) -> char {
    match opener {
        b'(' => ')',
        b'[' => ']',
        _ => '}',
    }
}

/// Length of a character in UTF-8, by its first byte.
fn char_bytes(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}
