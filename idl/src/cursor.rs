//! The parser's hands: look at the next token, take it, or say what was expected.
//!
//! Works on syn's token buffer. A function that fails has said why, and returns [`Failed`]; who
//! catches it skips to a place where reading can go on. Skipping always takes a token or is at
//! the end, so no loop over failures is endless. proc-macro2's spans stay in here: they belong to
//! the thread that made them.

use proc_macro2::{Delimiter, LineColumn, TokenTree};
use syn::buffer::Cursor;

use crate::ast::Name;
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::source::{FileId, SourceFile, Span};

/// It was complained about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed;

/// What a function of the parser returns.
pub(crate) type Parsed<T> = Result<T, Failed>;

/// A position in the tokens of one file.
pub(crate) struct Parser<'a> {
    pub(crate) file: FileId,
    pub(crate) text: &'a str,
    /// Where lines start.
    lines: &'a [u32],
    pub(crate) sink: &'a mut Sink,
    pub(crate) depth_max: usize,
    cursor: Cursor<'a>,
    /// The closing bracket of the innermost group, or nothing at the end of the file.
    end: Span,
    end_name: &'static str,
    /// The last token taken.
    last: Span,
}

/// A bracketed part that was found but not entered.
pub(crate) struct Group<'a> {
    inside: Cursor<'a>,
    delimiter: Delimiter,
    pub(crate) span: Span,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(
        file: FileId,
        source: &'a SourceFile,
        cursor: Cursor<'a>,
        depth_max: usize,
        sink: &'a mut Sink,
    ) -> Self {
        let text = source.text.as_str();
        let end = Span {
            file,
            start: text.len() as u32,
            end: text.len() as u32,
        };
        let start = Span {
            file,
            start: 0,
            end: 0,
        };
        let end_name = "the end of the file";
        Self {
            file,
            text,
            lines: source.line_starts(),
            sink,
            depth_max,
            cursor,
            end,
            end_name,
            last: start,
        }
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.sink.push(diagnostic);
    }

    pub(crate) fn at_end(&self) -> bool {
        self.cursor.eof()
    }

    /// Equal positions have nothing between them.
    pub(crate) fn position(&self) -> Cursor<'a> {
        self.cursor
    }

    /// Back to where it was.
    pub(crate) fn rewind(&mut self, position: Cursor<'a>) {
        self.cursor = position;
    }

    /// The next token; of a group its opening bracket.
    pub(crate) fn here(&self) -> Span {
        match self.cursor.token_tree() {
            None => self.end,
            Some((TokenTree::Group(group), _)) => self.span(group.span_open()),
            Some((token, _)) => self.span(token.span()),
        }
    }

    /// The last token that was taken.
    pub(crate) fn last(&self) -> Span {
        self.last
    }

    /// The bytes of a token. proc-macro2 counts characters, and remembers every one that it
    /// converted; so of a line of usual length the conversion is done here.
    pub(crate) fn span(&self, span: proc_macro2::Span) -> Span {
        let (start, end) = match (self.offset(span.start()), self.offset(span.end())) {
            (Some(start), Some(end)) => (start, end),
            _ => (span.byte_range().start as u32, span.byte_range().end as u32),
        };
        Span {
            file: self.file,
            start,
            end,
        }
    }

    fn offset(&self, at: LineColumn) -> Option<u32> {
        const LINE_BYTES_MAX: usize = 4_096;
        let start = *self.lines.get(at.line - 1)? as usize;
        let end = self
            .lines
            .get(at.line)
            .map_or(self.text.len(), |end| *end as usize);
        let line = &self.text[start..end];
        if line.len() > LINE_BYTES_MAX {
            return None;
        }
        let column = if line.is_ascii() {
            at.column
        } else {
            line.char_indices()
                .nth(at.column)
                .map_or(line.len(), |(column, _)| column)
        };
        Some((start + column) as u32)
    }

    /// The text of a span.
    pub(crate) fn text_of(&self, span: Span) -> &'a str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// The next token in quotes, shortened, for a message.
    pub(crate) fn found(&self) -> String {
        const CHARS_MAX: usize = 30;
        if self.at_end() {
            return self.end_name.to_owned();
        }
        let text = self.text_of(self.here());
        let line = text.lines().next().unwrap_or_default();
        match line.char_indices().nth(CHARS_MAX) {
            Some((cut, _)) => format!("`{}…`", &line[..cut]),
            None => format!("`{line}`"),
        }
    }

    /// Complains that something else stands here.
    pub(crate) fn expected(&mut self, what: &str) -> Failed {
        self.push(self.unexpected(what));
        Failed
    }

    /// The complaint of [`Self::expected`], for one who has more to say.
    pub(crate) fn unexpected(&self, what: &str) -> Diagnostic {
        let message = format!("expected {what}, found {}", self.found());
        Diagnostic::new(&codes::SYNTAX, self.here(), message).label(format!("expected {what}"))
    }

    /// Takes any token; a group counts as one.
    pub(crate) fn bump(&mut self) -> Option<TokenTree> {
        let (token, rest) = self.cursor.token_tree()?;
        self.last = self.span(token.span());
        self.cursor = rest;
        Some(token)
    }

    /// The next token is this word.
    pub(crate) fn at_word(&self, word: &str) -> bool {
        self.cursor.ident().is_some_and(|(ident, _)| ident == word)
    }

    /// The next token is a word; without the `r#` of a raw identifier.
    pub(crate) fn word(&self) -> Option<String> {
        self.cursor
            .ident()
            .map(|(ident, _)| plain(ident.to_string()))
    }

    /// The token after the next is a word, too.
    pub(crate) fn word_follows(&self) -> bool {
        self.cursor
            .token_tree()
            .is_some_and(|(_, rest)| rest.ident().is_some())
    }

    /// The token after the next is this punctuation.
    pub(crate) fn punct_follows(&self, wanted: char) -> bool {
        self.cursor
            .token_tree()
            .and_then(|(_, rest)| rest.punct())
            .is_some_and(|(punct, _)| punct.as_char() == wanted)
    }

    /// The token after the next is a group in these brackets.
    pub(crate) fn group_follows(&self, delimiter: Delimiter) -> bool {
        self.cursor
            .token_tree()
            .is_some_and(|(_, rest)| rest.group(delimiter).is_some())
    }

    pub(crate) fn eat_word(&mut self, word: &str) -> Option<Span> {
        if !self.at_word(word) {
            return None;
        }
        self.bump();
        Some(self.last)
    }

    pub(crate) fn name(&mut self, what: &str) -> Parsed<Name> {
        let Some(text) = self.word() else {
            return Err(self.expected(what));
        };
        self.bump();
        Ok(Name {
            text,
            span: self.last,
        })
    }

    pub(crate) fn at_punct(&self, wanted: char) -> bool {
        self.cursor
            .punct()
            .is_some_and(|(punct, _)| punct.as_char() == wanted)
    }

    pub(crate) fn eat_punct(&mut self, wanted: char) -> bool {
        let found = self.at_punct(wanted);
        if found {
            self.bump();
        }
        found
    }

    pub(crate) fn punct(&mut self, wanted: char) -> Parsed<Span> {
        if self.eat_punct(wanted) {
            return Ok(self.last);
        }
        let mut diagnostic = self.unexpected(&format!("`{wanted}`"));
        let here = self.here();
        // What is missing is missed at the end of a line, not at the start of the next.
        if self.text[self.last.end as usize..here.start as usize].contains('\n') {
            diagnostic.span = Some(Span {
                start: self.last.end,
                ..self.last
            });
            diagnostic = diagnostic.related(here, "found here");
        }
        self.push(diagnostic);
        Err(Failed)
    }

    /// `->` or `::`: two characters with nothing between.
    pub(crate) fn eat_pair(&mut self, first: char, second: char) -> bool {
        let Some((punct, rest)) = self.cursor.punct() else {
            return false;
        };
        let joint = punct.spacing() == proc_macro2::Spacing::Joint;
        let pair = punct.as_char() == first
            && joint
            && rest
                .punct()
                .is_some_and(|(punct, _)| punct.as_char() == second);
        if pair {
            self.bump();
            self.bump();
        }
        pair
    }

    /// A group in these brackets, taken as a whole.
    pub(crate) fn eat_group(&mut self, delimiter: Delimiter) -> Option<Group<'a>> {
        let (inside, span, rest) = self.cursor.group(delimiter)?;
        let span = self.span(span.join());
        self.last = span;
        self.cursor = rest;
        Some(Group {
            inside,
            delimiter,
            span,
        })
    }

    pub(crate) fn group(&mut self, delimiter: Delimiter) -> Parsed<Group<'a>> {
        let wanted = match delimiter {
            Delimiter::Parenthesis => "`(`",
            Delimiter::Bracket => "`[`",
            Delimiter::Brace | Delimiter::None => "`{`",
        };
        self.eat_group(delimiter)
            .ok_or_else(|| self.expected(wanted))
    }

    /// Reads inside a group; what `read` leaves is not looked at.
    pub(crate) fn inside<T>(&mut self, group: &Group<'a>, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = (self.cursor, self.end, self.end_name, self.last);
        let opened = Span {
            end: group.span.start + 1,
            ..group.span
        };
        let closed = Span {
            start: group.span.end - 1,
            ..group.span
        };
        self.cursor = group.inside;
        self.end = closed;
        self.last = opened;
        self.end_name = match group.delimiter {
            Delimiter::Parenthesis => "`)`",
            Delimiter::Bracket => "`]`",
            Delimiter::Brace | Delimiter::None => "`}`",
        };
        let result = read(self);
        (self.cursor, self.end, self.end_name, self.last) = outer;
        result
    }
}

/// A raw identifier without its mark: our names may be Rust's keywords anyway.
fn plain(text: String) -> String {
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}
