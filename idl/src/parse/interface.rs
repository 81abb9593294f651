//! The bodies of interfaces.

use proc_macro2::{Delimiter, TokenTree};

use super::attributes::{Place, Raw};
use crate::ast::{Constructor, Interface, List, Method, Name, State, TypeRef};
use crate::codes;
use crate::cursor::{Failed, Parsed, Parser};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::suggest;

/// What a member of an interface starts with.
const MEMBERS: [&str; 4] = ["fn", "new", "state", "locks"];

impl<'a> Parser<'a> {
    pub(super) fn interface(&mut self, persistent: bool) -> Parsed<Interface> {
        let base = if self.eat_punct(':') {
            Some(self.base()?)
        } else {
            None
        };
        let body = self.group(Delimiter::Brace)?;
        let mut interface = Interface {
            persistent,
            base,
            state: None,
            constructor: None,
            methods: List::default(),
        };
        self.inside(&body, |parser| {
            while !parser.at_end() {
                if parser.interface_member(&mut interface).is_err() {
                    interface.methods.damaged = true;
                    parser.skip_interface_member();
                }
            }
        });
        Ok(interface)
    }

    fn base(&mut self) -> Parsed<Name> {
        let base = self.name("the name of an interface")?;
        if self.at_punct(',') || self.at_punct('+') {
            let message = "an interface has one base at most";
            let span = self.here();
            self.push(Diagnostic::new(&codes::SYNTAX, span, message).label("a second base"));
            return Err(Failed);
        }
        Ok(base)
    }

    fn interface_member(&mut self, interface: &mut Interface) -> Parsed<()> {
        let raw = self.raw_attributes();
        if self.at_end() {
            self.stray(&raw);
            return Err(Failed);
        }
        if let Some(keyword) = self.eat_word("fn") {
            let method = self.method(raw, keyword)?;
            interface.methods.members.push(method);
            Ok(())
        } else if self.at_word("new") && self.group_follows(Delimiter::Parenthesis) {
            self.constructor(raw, interface)
        } else if let Some(keyword) = self.eat_word("state") {
            self.accept(raw, Place::State);
            let fields = self.fields()?;
            match &interface.state {
                Some(first) => {
                    let first = first.keyword;
                    self.twice("state", keyword, first);
                }
                None => interface.state = Some(State { keyword, fields }),
            }
            Ok(())
        } else if let Some(keyword) = self.eat_word("locks") {
            self.group(Delimiter::Brace)?;
            let message = "`locks` is not supported yet";
            let diagnostic = Diagnostic::new(&codes::LATER_LOCK, keyword, message);
            self.push(diagnostic.label("not supported yet"));
            Ok(())
        } else {
            Err(self.no_member())
        }
    }

    fn no_member(&mut self) -> Failed {
        let word = self.word().unwrap_or_default();
        let diagnostic = self.unexpected("`fn`, `new` or `state`");
        let help = if word == "pub" || word == "async" {
            Some(format!("leave `{word}` out"))
        } else if self.word_follows() || self.at_punct(';') {
            suggest::help(&word, MEMBERS.into_iter())
        } else if self.group_follows(Delimiter::Parenthesis) {
            Some("a method starts with `fn`".to_owned())
        } else if self.punct_follows(':') {
            Some("fields stand in `state { … }`".to_owned())
        } else {
            None
        };
        self.push(diagnostic.maybe_help(help));
        Failed
    }

    fn constructor(&mut self, raw: Vec<Raw>, interface: &mut Interface) -> Parsed<()> {
        let docs = self.accept(raw, Place::Constructor).docs;
        self.bump();
        let keyword = self.last();
        let group = self.group(Delimiter::Parenthesis)?;
        let params = self.inside(&group, Self::params);
        self.end_of_method()?;
        match &interface.constructor {
            Some(first) => {
                let first = first.keyword;
                self.twice("new", keyword, first);
            }
            None => {
                interface.constructor = Some(Constructor {
                    keyword,
                    docs,
                    params,
                })
            }
        }
        Ok(())
    }

    fn twice(&mut self, what: &str, again: Span, first: Span) {
        let message = format!("an interface has one `{what}` at most");
        let diagnostic = Diagnostic::new(&codes::TWICE_IN_INTERFACE, again, message);
        self.push(diagnostic.label("again here").related(first, "first here"));
    }

    fn method(&mut self, raw: Vec<Raw>, keyword: Span) -> Parsed<Method> {
        let attributes = self.accept(raw, Place::Method);
        let name = self.name("the name of a method")?;
        let ordinal = self.ordinal()?;
        if self.at_punct('<') {
            let message = "methods have no type parameters";
            let span = self.here();
            self.push(Diagnostic::new(&codes::SYNTAX, span, message).label("not supported"));
            return Err(Failed);
        }
        let group = self.group(Delimiter::Parenthesis)?;
        let head = keyword.to(group.span);
        let (mutating, params) = self.inside(&group, |parser| {
            let mutating = parser.receiver(head);
            (mutating, parser.params())
        });
        let result = if self.eat_pair('-', '>') {
            Some(self.result()?)
        } else {
            None
        };
        let raises = self.raises()?;
        self.end_of_method()?;
        Ok(Method {
            name,
            attributes,
            ordinal,
            mutating,
            params,
            result,
            raises,
        })
    }

    /// `&self` or `&mut self`, and the comma behind it; true for the second.
    fn receiver(&mut self, head: Span) -> bool {
        let start = self.here();
        let borrowed = self.eat_punct('&');
        let mutating = self.eat_word("mut").is_some();
        let received = self.eat_word("self").is_some();
        if !borrowed || !received {
            let span = if borrowed || received || mutating {
                start.to(self.last())
            } else {
                head
            };
            let message = "the method does not say whether it changes the object";
            let help = "start the parameters with `&self` (reads) or `&mut self` (changes)";
            self.push(Diagnostic::new(&codes::RECEIVER, span, message).help(help));
            if !borrowed && !received && !mutating {
                return false;
            }
        }
        if !self.at_end() && !self.eat_punct(',') {
            self.push(self.unexpected("`,` or `)`"));
            while !self.at_end() && !self.eat_punct(',') {
                self.bump();
            }
        }
        mutating
    }

    fn result(&mut self) -> Parsed<TypeRef> {
        if self.at_word("stream") && self.word_follows() {
            let span = self.here();
            self.bump();
            let message = "`stream` is not supported yet";
            let diagnostic = Diagnostic::new(&codes::LATER_STREAM, span, message);
            let help = "return a `list`, or take a transient interface to call back";
            self.push(diagnostic.label("not supported yet").help(help));
        }
        self.type_ref()
    }

    fn raises(&mut self) -> Parsed<Vec<Name>> {
        let mut names = Vec::new();
        if self.eat_word("raises").is_none() {
            return Ok(names);
        }
        loop {
            names.push(self.name("the name of an exception")?);
            if !self.eat_punct(',') {
                return Ok(names);
            }
        }
    }

    fn end_of_method(&mut self) -> Parsed<()> {
        if let Some(body) = self.eat_group(Delimiter::Brace) {
            let message = "methods are declared here and written in the servant";
            let opened = Span {
                end: body.span.start + 1,
                ..body.span
            };
            let diagnostic = Diagnostic::new(&codes::BODY, opened, message);
            self.push(diagnostic.label("put `;` in place of the body"));
            return Ok(());
        }
        self.punct(';').map(|_| ())
    }

    /// After a failure: behind the next `;` or body, or before what starts a member.
    fn skip_interface_member(&mut self) {
        while let Some(token) = self.bump() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ';' => return,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
                TokenTree::Ident(_)
                | TokenTree::Punct(_)
                | TokenTree::Group(_)
                | TokenTree::Literal(_) => {}
            }
            let starts = (self.at_word("fn") && self.word_follows())
                || (self.at_word("state") && self.group_follows(Delimiter::Brace))
                || self.at_punct('#');
            if starts {
                return;
            }
        }
    }
}
