//! Lists of members, and types.

use proc_macro2::{Delimiter, TokenTree};

use super::attributes::Place;
use super::value;
use crate::ast::{List, Member, Ordinal, TypeKind, TypeRef};
use crate::codes;
use crate::cursor::{Failed, Parsed, Parser};
use crate::diagnostic::Diagnostic;
use crate::keyword;
use crate::source::Span;

impl<'a> Parser<'a> {
    /// `{ name: type, … }`
    pub(super) fn fields(&mut self) -> Parsed<List<Member>> {
        let group = self.group(Delimiter::Brace)?;
        Ok(self.inside(&group, |parser| {
            parser.list("a member", |parser| parser.field(Place::Member))
        }))
    }

    /// `(name: type, …)`
    pub(super) fn params(&mut self) -> List<Member> {
        self.list("a parameter", |parser| parser.field(Place::Param))
    }

    /// `{ Name, … }`
    pub(super) fn enumerators(&mut self) -> Parsed<List<Member>> {
        let group = self.group(Delimiter::Brace)?;
        Ok(self.inside(&group, |parser| {
            parser.list("a value", |parser| {
                let member = parser.member_head()?;
                if !parser.at_punct(':') && !parser.at_punct('=') {
                    return Ok(member);
                }
                let diagnostic = parser.unexpected("`,`");
                let help = if parser.at_punct(':') {
                    "the values of an enum carry nothing; a `union` has cases with types"
                } else {
                    "values are numbered in order; pin them as in `Name @2`"
                };
                parser.push(diagnostic.help(help));
                Err(Failed)
            })
        }))
    }

    /// `{ name, name: type, … }`
    pub(super) fn cases(&mut self) -> Parsed<List<Member>> {
        let group = self.group(Delimiter::Brace)?;
        Ok(self.inside(&group, |parser| {
            parser.list("a case", |parser| {
                let mut member = parser.member_head()?;
                if parser.eat_punct(':') {
                    member.ty = Some(parser.type_ref()?);
                }
                Ok(member)
            })
        }))
    }

    fn field(&mut self, place: Place) -> Parsed<Member> {
        let raw = self.raw_attributes();
        if self.at_end() {
            self.stray(&raw);
            return Err(Failed);
        }
        let attributes = self.accept(raw, place);
        let name = self.name("a name")?;
        let ordinal = self.ordinal()?;
        self.punct(':')?;
        let ty = Some(self.type_ref()?);
        Ok(Member {
            name,
            attributes,
            ordinal,
            ty,
        })
    }

    fn member_head(&mut self) -> Parsed<Member> {
        let raw = self.raw_attributes();
        if self.at_end() {
            self.stray(&raw);
            return Err(Failed);
        }
        let attributes = self.accept(raw, Place::Member);
        let name = self.name("a name")?;
        let ordinal = self.ordinal()?;
        Ok(Member {
            name,
            attributes,
            ordinal,
            ty: None,
        })
    }

    /// `@n`, where it stands.
    pub(super) fn ordinal(&mut self) -> Parsed<Option<Ordinal>> {
        if !self.eat_punct('@') {
            return Ok(None);
        }
        let at = self.last();
        let number = self.here();
        let Some(TokenTree::Literal(literal)) = self.bump() else {
            let message = "expected a number after `@`";
            self.push(Diagnostic::new(&codes::SYNTAX, at, message).label("as in `@0`"));
            return Err(Failed);
        };
        let value = value::integer(&literal.to_string()).flatten();
        match value.and_then(|value| u64::try_from(value).ok()) {
            Some(value) => Ok(Some(Ordinal {
                value,
                span: at.to(number),
            })),
            None => {
                let message = "an ordinal is a plain whole number";
                self.push(Diagnostic::new(&codes::SYNTAX, number, message).label("as in `@0`"));
                Err(Failed)
            }
        }
    }

    /// Members with commas between, up to the end of the group. After a failure reads on behind
    /// the next comma.
    pub(super) fn list<T>(
        &mut self,
        what: &str,
        mut member: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> List<T> {
        let mut list = List::default();
        let mut semicolons = false;
        while !self.at_end() {
            match member(self) {
                Ok(one) => list.members.push(one),
                Err(Failed) => {
                    list.damaged = true;
                    self.skip_member();
                    continue;
                }
            }
            if !self.at_end() && !self.eat_punct(',') {
                list.damaged = true;
                // One who takes the wrong mark takes it everywhere: say so once.
                if self.at_punct(';') && semicolons {
                    self.bump();
                    continue;
                }
                semicolons |= self.at_punct(';');
                self.no_comma(what);
            }
        }
        list
    }

    fn no_comma(&mut self, what: &str) {
        let mut diagnostic = self.unexpected("`,`");
        if self.at_punct(';') {
            diagnostic = diagnostic.help("members are separated by `,`");
        }
        let forgotten = self.word().is_some()
            && (self.punct_follows(':') || self.punct_follows('@') || self.punct_follows(','));
        if forgotten {
            let after = Span {
                start: self.last().end,
                end: self.last().end,
                ..self.last()
            };
            let message = format!("`,` is missing before {}", self.found());
            diagnostic = Diagnostic::new(&codes::SYNTAX, after, message).label(format!(
                "put `,` between one and the next: {what} ends here"
            ));
        }
        self.push(diagnostic);
        if !forgotten && !self.at_punct('#') {
            self.skip_member();
        }
    }

    fn skip_member(&mut self) {
        while let Some(token) = self.bump() {
            if let TokenTree::Punct(punct) = token
                && matches!(punct.as_char(), ',' | ';')
            {
                return;
            }
        }
    }

    pub(super) fn type_ref(&mut self) -> Parsed<TypeRef> {
        self.type_at(0)
    }

    fn type_at(&mut self, depth: usize) -> Parsed<TypeRef> {
        let start = self.here();
        let Some(text) = self.word() else {
            return Err(self.no_type());
        };
        if depth >= self.depth_max {
            let message = format!("types are nested deeper than {} levels", self.depth_max);
            self.push(Diagnostic::new(&codes::DEPTH, start, message).label("one level too many"));
            return Err(Failed);
        }
        self.bump();
        if self.eat_pair(':', ':') {
            return Err(self.path(&text, start));
        }
        let arguments = if self.eat_punct('<') {
            self.arguments(depth + 1)?
        } else {
            Vec::new()
        };
        let span = start.to(self.last());
        let kind = self.type_kind(text, arguments, start, span);
        Ok(TypeRef { span, kind })
    }

    fn arguments(&mut self, depth: usize) -> Parsed<Vec<TypeRef>> {
        let mut arguments = Vec::new();
        while !self.eat_punct('>') {
            arguments.push(self.type_at(depth)?);
            if !self.at_punct('>') && !self.eat_punct(',') {
                return Err(self.expected("`,` or `>`"));
            }
        }
        Ok(arguments)
    }

    fn type_kind(
        &mut self,
        text: String,
        arguments: Vec<TypeRef>,
        name: Span,
        span: Span,
    ) -> TypeKind {
        let wanted = match text.as_str() {
            "list" | "option" => 1,
            "map" | "table" => 2,
            _ => 0,
        };
        // A wrong name is worth more than its wrong arguments.
        if arguments.len() != wanted && keyword::type_for(&text).is_none() {
            self.wrong_arguments(&text, wanted, arguments.len(), span);
            return TypeKind::Wrong;
        }
        let mut arguments = arguments.into_iter().map(Box::new);
        match (text.as_str(), arguments.next(), arguments.next()) {
            ("list", Some(element), None) => TypeKind::List(element),
            ("option", Some(value), None) => TypeKind::Option(value),
            ("map", Some(key), Some(value)) => TypeKind::Map(key, value),
            ("table", Some(_), Some(_)) => {
                let message = "`table` is not supported yet";
                let diagnostic = Diagnostic::new(&codes::LATER_TABLE, name, message);
                let help = "use `map` for a small one: it is stored and read as a whole";
                self.push(diagnostic.label("not supported yet").help(help));
                TypeKind::Wrong
            }
            _ => TypeKind::Named(text),
        }
    }

    fn wrong_arguments(&mut self, name: &str, wanted: usize, found: usize, span: Span) {
        let message = match wanted {
            0 => format!("type `{name}` takes no arguments, found {found}"),
            1 => format!("type `{name}` takes one argument, found {found}"),
            _ => format!("type `{name}` takes two arguments, found {found}"),
        };
        let label = match wanted {
            0 => format!("write `{name}`"),
            1 => format!("write `{name}<T>`"),
            _ => format!("write `{name}<K, V>`"),
        };
        self.push(Diagnostic::new(&codes::TYPE_ARGUMENTS, span, message).label(label));
    }

    fn no_type(&mut self) -> Failed {
        let diagnostic = self.unexpected("a type");
        let help = match self.found().as_str() {
            "`&`" => Some("all values are owned: leave `&` out"),
            "`[`" => Some("a sequence is written `list<T>`"),
            "`(`" => Some("declare a struct for values that belong together"),
            _ => None,
        };
        self.push(diagnostic.maybe_help(help.map(str::to_owned)));
        Failed
    }

    /// `shop::Order` where only `Order` is allowed.
    fn path(&mut self, module: &str, start: Span) -> Failed {
        let name = self.word().unwrap_or_else(|| "Name".to_owned());
        self.bump();
        let diagnostic = Diagnostic::new(
            &codes::PATH,
            start.to(self.last()),
            "a type is named without its module",
        );
        let help = format!("write `use {module}::{name};` at the top, and `{name}` here");
        self.push(diagnostic.help(help));
        Failed
    }
}
