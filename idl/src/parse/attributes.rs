//! Documentation and attributes: read first, judged when it is known what they stand before.
//!
//! The set of attributes is closed. What is planned is known by name and refused as not built
//! yet, so that it cannot be mistaken for a misspelling.

use std::collections::HashMap;

use proc_macro2::{Delimiter, Literal, TokenTree};

use super::value;
use crate::ast::{Attributes, Name};
use crate::codes::{self, Explanation};
use crate::cursor::Parser;
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::suggest;

/// What attributes stand before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Module,
    Use,
    Item,
    Member,
    Param,
    Method,
    Constructor,
    State,
}

impl Place {
    fn describe(self) -> &'static str {
        match self {
            Self::Module => "a module",
            Self::Use => "a `use` line",
            Self::Item => "a declaration",
            Self::Member => "a member",
            Self::Param => "a parameter",
            Self::Method => "a method",
            Self::Constructor => "`new`",
            Self::State => "`state`",
        }
    }

    /// A place where documentation would be lost.
    fn takes_docs(self) -> bool {
        !matches!(self, Self::Module | Self::Use | Self::State)
    }
}

/// One attribute or one comment, as read.
pub(super) enum Raw {
    Docs {
        lines: Vec<String>,
        inner: bool,
        span: Span,
    },
    Attribute {
        name: Name,
        argument: Argument,
        span: Span,
    },
}

/// What follows an attribute's name.
pub(super) enum Argument {
    None,
    /// `("5s")`
    One(Literal, Span),
    /// Anything else.
    Other(Span),
}

/// Attributes and where each may stand; the planned ones with the code that refuses them.
const KNOWN: &[(&str, &[Place], Option<&Explanation>)] = &[
    (
        "deprecated",
        &[Place::Item, Place::Member, Place::Method],
        None,
    ),
    ("idempotent", &[Place::Method], None),
    ("deadline", &[Place::Method], None),
    ("upgrade", &[Place::Method], None),
    ("blocking", &[Place::Method], None),
    ("any_replica", &[Place::Method], None),
    ("id", &[Place::Module], None),
    ("lock", &[Place::Method], Some(&codes::LATER_LOCK)),
    (
        "compensate",
        &[Place::Method],
        Some(&codes::LATER_COMPENSATE),
    ),
];

impl<'a> Parser<'a> {
    /// The `//!` comments at the start of a file.
    pub(super) fn inner_docs(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while self.at_punct('#') && doc_text(self.text_of(self.here())) == Some(true) {
            lines.extend(doc_lines(self.text_of(self.here())));
            self.bump();
            self.bump();
            self.bump();
        }
        lines
    }

    /// Everything that may stand before a declaration; says what is malformed.
    pub(super) fn raw_attributes(&mut self) -> Vec<Raw> {
        let mut all = Vec::new();
        while self.at_punct('#') {
            all.extend(self.raw_attribute());
        }
        all
    }

    fn raw_attribute(&mut self) -> Option<Raw> {
        let start = self.here();
        self.bump();
        let inner = self.eat_punct('!');
        if doc_text(self.text_of(start)).is_some() {
            self.bump();
            return Some(Raw::Docs {
                lines: doc_lines(self.text_of(start)),
                inner,
                span: start,
            });
        }
        let Ok(group) = self.group(Delimiter::Bracket) else {
            return None;
        };
        let span = start.to(group.span);
        if inner {
            let message = "attributes are written `#[…]`, before what they are about";
            self.push(Diagnostic::new(&codes::SYNTAX, span, message).label("leave the `!` out"));
            return None;
        }
        self.inside(&group, |parser| {
            let name = parser.name("the name of an attribute").ok()?;
            let argument = parser.argument();
            Some(Raw::Attribute {
                name,
                argument,
                span,
            })
        })
    }

    fn argument(&mut self) -> Argument {
        if self.at_end() {
            return Argument::None;
        }
        let rest = self.here();
        let Some(group) = self.eat_group(Delimiter::Parenthesis) else {
            return Argument::Other(rest);
        };
        let literal = self.inside(&group, |parser| {
            let span = parser.here();
            match parser.bump() {
                Some(TokenTree::Literal(literal)) if parser.at_end() => Some((literal, span)),
                _ => None,
            }
        });
        match literal {
            Some((literal, span)) if self.at_end() => Argument::One(literal, span),
            _ => Argument::Other(group.span),
        }
    }

    /// Judges what was read by the place it stands in.
    pub(super) fn accept(&mut self, raw: Vec<Raw>, place: Place) -> Attributes {
        let mut accepted = Attributes::default();
        let mut seen: HashMap<String, Span> = HashMap::new();
        for one in raw {
            match one {
                Raw::Docs { lines, inner, span } => {
                    if inner || !place.takes_docs() {
                        self.misplaced_docs(inner, place, span);
                    }
                    accepted.docs.extend(lines);
                }
                Raw::Attribute {
                    name,
                    argument,
                    span,
                } => {
                    if let Some(first) = seen.get(&name.text) {
                        let message = format!("attribute {} stands twice", name.quoted());
                        let again = Diagnostic::new(&codes::ATTRIBUTE_TWICE, span, message);
                        self.push(again.label("again here").related(*first, "first here"));
                        continue;
                    }
                    seen.insert(name.text.clone(), span);
                    self.accept_one(&name, &argument, place, &mut accepted);
                }
            }
        }
        accepted
    }

    fn accept_one(&mut self, name: &Name, argument: &Argument, place: Place, to: &mut Attributes) {
        let Some((_, places, later)) = KNOWN.iter().find(|(known, ..)| *known == name.text) else {
            let known = KNOWN.iter().map(|(known, ..)| *known);
            let message = format!("there is no attribute {}", name.quoted());
            let help = suggest::help(&name.text, known);
            let diagnostic = Diagnostic::new(&codes::ATTRIBUTE_UNKNOWN, name.span, message);
            self.push(diagnostic.label("unknown attribute").maybe_help(help));
            return;
        };
        if let Some(code) = later {
            let message = format!("`#[{}]` is not supported yet", name.text);
            self.push(Diagnostic::new(code, name.span, message).label("not supported yet"));
            return;
        }
        if !places.contains(&place) {
            let message = format!(
                "`#[{}]` has no meaning before {}",
                name.text,
                place.describe()
            );
            let meant = places
                .iter()
                .map(|place| place.describe())
                .collect::<Vec<_>>()
                .join(", ");
            let diagnostic = Diagnostic::new(&codes::ATTRIBUTE_PLACE, name.span, message);
            self.push(
                diagnostic
                    .label("not here")
                    .help(format!("it belongs before {meant}")),
            );
            return;
        }
        match name.text.as_str() {
            "idempotent" => {
                to.idempotent = true;
                self.no_argument(name, argument);
            }
            "blocking" => {
                to.blocking = true;
                self.no_argument(name, argument);
            }
            "upgrade" => {
                to.upgrade = Some(name.span);
                self.no_argument(name, argument);
            }
            "any_replica" => {
                to.any_replica = Some(name.span);
                self.no_argument(name, argument);
            }
            "deprecated" => to.deprecated = self.deprecated(name, argument),
            "deadline" => to.deadline_us = self.deadline(name, argument),
            _ => to.id = self.module_id(name, argument),
        }
    }

    fn no_argument(&mut self, name: &Name, argument: &Argument) {
        if let Argument::One(_, span) | Argument::Other(span) = argument {
            let message = format!("`#[{}]` takes no argument", name.text);
            self.bad_argument(&message, *span, None);
        }
    }

    fn deprecated(&mut self, name: &Name, argument: &Argument) -> Option<String> {
        let text = match argument {
            Argument::One(literal, _) => value::string(literal),
            Argument::None | Argument::Other(_) => None,
        };
        if text.is_none() {
            let message = "`#[deprecated]` says why, in a string";
            let help = "write `#[deprecated(\"use … instead\")]`";
            self.bad_argument(message, argument.span(name), Some(help.to_owned()));
        }
        text
    }

    fn deadline(&mut self, name: &Name, argument: &Argument) -> Option<u64> {
        let help = "write a number and a unit of us, ms, s, m, h, as in `#[deadline(\"5s\")]`";
        let text = match argument {
            Argument::One(literal, _) => value::string(literal),
            Argument::None | Argument::Other(_) => None,
        };
        let span = argument.span(name);
        let Some(text) = text else {
            self.bad_argument(
                "`#[deadline]` takes a time in a string",
                span,
                Some(help.into()),
            );
            return None;
        };
        let time = value::time_us(&text);
        if time.is_none() {
            let message = format!("{text:?} is no time that a call can be given");
            self.bad_argument(&message, span, Some(help.to_owned()));
        }
        time
    }

    fn module_id(&mut self, name: &Name, argument: &Argument) -> Option<(u64, Span)> {
        let span = argument.span(name);
        let number = match argument {
            Argument::One(literal, _) => value::integer(&literal.to_string()).flatten(),
            Argument::None | Argument::Other(_) => None,
        };
        let id = number.and_then(|number| u64::try_from(number).ok());
        let marked = id.filter(|id| id & crate::id::ID_MARK != 0);
        if marked.is_none() {
            let message = "a module's id is a number of 64 bits with the top bit set";
            let help = number.and_then(|number| {
                let low = u64::try_from(number).ok()?;
                Some(format!("write `#[id({:#018x})]`", low | crate::id::ID_MARK))
            });
            self.push(
                Diagnostic::new(&codes::MODULE_ID, span, message)
                    .label("no such number")
                    .maybe_help(help),
            );
        }
        marked.map(|id| (id, span))
    }

    fn bad_argument(&mut self, message: &str, span: Span, help: Option<String>) {
        let diagnostic = Diagnostic::new(&codes::ATTRIBUTE_ARGUMENT, span, message);
        self.push(diagnostic.maybe_help(help));
    }

    fn misplaced_docs(&mut self, inner: bool, place: Place, span: Span) {
        let (message, help) = if inner {
            let help = "write `///` to document what follows";
            (
                "`//!` documents a module and stands at the start of its file".to_owned(),
                help,
            )
        } else {
            let help = match place {
                Place::Module => "write `//!` at the start of the file to document the module",
                _ => "write `//` for a comment",
            };
            (format!("{} takes no documentation", place.describe()), help)
        };
        let diagnostic = Diagnostic::new(&codes::STRAY_DOCS, self.first_line(span), message);
        self.push(diagnostic.label("documents nothing").help(help));
    }

    /// Complains that there is nothing behind these attributes.
    pub(super) fn stray(&mut self, raw: &[Raw]) {
        let Some(span) = raw.iter().map(Raw::span).next_back() else {
            return;
        };
        let message = "nothing follows that this could be about";
        let diagnostic = Diagnostic::new(&codes::STRAY_DOCS, self.first_line(span), message);
        self.push(diagnostic.label("stands before nothing"));
    }

    fn first_line(&self, span: Span) -> Span {
        let first = self.text_of(span).lines().next().map_or(0, str::len);
        Span {
            end: span.start + first as u32,
            ..span
        }
    }
}

impl Raw {
    fn span(&self) -> Span {
        match self {
            Self::Docs { span, .. } | Self::Attribute { span, .. } => *span,
        }
    }
}

impl Argument {
    /// The argument, or the attribute's name where there is none.
    fn span(&self, name: &Name) -> Span {
        match self {
            Self::None => name.span,
            Self::One(_, span) | Self::Other(span) => *span,
        }
    }
}

/// Whether a token's text is a documentation comment, and if so an inner one.
fn doc_text(text: &str) -> Option<bool> {
    let comment = text.starts_with("//") || text.starts_with("/*");
    comment.then(|| text[2..].starts_with('!'))
}

/// The lines of a comment without its marks and one leading space.
fn doc_lines(comment: &str) -> Vec<String> {
    let strip_space = |line: &str| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned();
    if comment.starts_with("//") {
        return vec![strip_space(&comment[3..])];
    }
    let body = comment[3..].strip_suffix("*/").unwrap_or_default();
    let lines = body.lines().enumerate().map(|(index, line)| {
        let line = if index == 0 { line } else { line.trim_start() };
        let line = if index == 0 {
            line
        } else {
            line.strip_prefix('*').unwrap_or(line)
        };
        strip_space(line)
    });
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if lines.first().is_some_and(String::is_empty) {
        lines.remove(0);
    }
    lines
}
