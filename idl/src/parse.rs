//! From tokens to syntax: the file, its `use` lines and its declarations.
//!
//! Every file is read on a thread of its own: the span table of proc-macro2 belongs to a thread
//! and only ever grows, so a long-lived process would keep every text it ever read.
//! A declaration that cannot be read is skipped up to the next `;`, `}` or keyword that may start
//! one; so is a member. The words skipped are kept, so that nobody misses what was meant there.

mod attributes;
mod interface;
mod member;
mod value;

use std::thread;

use proc_macro2::{Delimiter, TokenTree};
use syn::buffer::{Cursor, TokenBuffer};

use self::attributes::{Place, Raw};
use crate::ast::{Item, ItemKind, List, Unit, Use, UsedName};
use crate::codes;
use crate::cursor::{Failed, Parsed, Parser};
use crate::diagnostic::{Diagnostic, Sink};
use crate::keyword;
use crate::source::{FileId, Limits, SourceFile};

/// Reads one text.
pub(crate) fn parse(file: FileId, source: &SourceFile, limits: Limits, sink: &mut Sink) -> Unit {
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut own = Sink::new(limits.diagnostics_max);
            let unit = parse_here(file, source, limits, &mut own);
            (unit, own)
        });
        match reader.join() {
            Ok((unit, own)) => {
                sink.append(own);
                unit
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn parse_here(file: FileId, source: &SourceFile, limits: Limits, sink: &mut Sink) -> Unit {
    match crate::scan::tokens(file, &source.text, limits.depth_max) {
        Err(diagnostic) => {
            sink.push(*diagnostic);
            Unit {
                unreadable: true,
                ..Unit::default()
            }
        }
        Ok(tokens) => {
            let buffer = TokenBuffer::new2(tokens);
            Parser::new(file, source, buffer.begin(), limits.depth_max, sink).unit()
        }
    }
}

impl<'a> Parser<'a> {
    fn unit(mut self) -> Unit {
        let mut unit = Unit {
            docs: self.inner_docs(),
            ..Unit::default()
        };
        let mut raw = self.raw_attributes();
        if self.at_word("module") {
            let start = self.position();
            if self.module(raw, &mut unit).is_err() {
                self.skip_declaration(start, &mut unit);
            }
            raw = self.raw_attributes();
        } else {
            self.no_module();
        }
        while !self.at_end() {
            let start = self.position();
            if self.declaration(raw, &mut unit).is_err() {
                self.skip_declaration(start, &mut unit);
            }
            raw = self.raw_attributes();
        }
        self.stray(&raw);
        unit
    }

    fn no_module(&mut self) {
        let message = "the file does not say which module it is";
        let help = "start the file with `module name;`, where name is the file's name";
        let diagnostic = Diagnostic::new(&codes::MODULE_LINE, self.here(), message);
        self.push(diagnostic.label("expected `module`").help(help));
    }

    fn module(&mut self, raw: Vec<Raw>, unit: &mut Unit) -> Parsed<()> {
        let attributes = self.accept(raw, Place::Module);
        self.bump();
        let name = self.name("the module's name")?;
        unit.id = attributes.id;
        unit.name = Some(name);
        self.punct(';')?;
        Ok(())
    }

    fn declaration(&mut self, raw: Vec<Raw>, unit: &mut Unit) -> Parsed<()> {
        let first = self.here();
        let word = self.word().unwrap_or_default();
        if !keyword::DECLARATIONS.contains(&word.as_str()) {
            return Err(self.no_declaration(&word));
        }
        self.bump();
        match word.as_str() {
            "module" => {
                let message = "a file is one module and says so once, at its start";
                self.push(Diagnostic::new(&codes::MODULE_LINE, first, message).label("not here"));
                Err(Failed)
            }
            "use" => {
                self.accept(raw, Place::Use);
                let line = self.use_line()?;
                unit.uses.push(line);
                Ok(())
            }
            keyword => {
                let attributes = self.accept(raw, Place::Item);
                let item = self.item(keyword, attributes)?;
                unit.items.push(item);
                Ok(())
            }
        }
    }

    /// Neither a keyword nor anything else that starts a declaration.
    fn no_declaration(&mut self, word: &str) -> Failed {
        let mut diagnostic = self.unexpected("a declaration");
        if self.at_punct(';') {
            diagnostic = diagnostic.help("no `;` stands after a closing brace");
        } else if word == "pub" {
            diagnostic = diagnostic.help("everything is public: leave `pub` out");
        } else if let Some(meant) = keyword::declaration_for(word) {
            diagnostic = diagnostic.help(format!("did you mean `{meant}`?"));
        } else {
            let all = "const, struct, enum, union, exception, interface, persistent interface, use";
            diagnostic = diagnostic.help(format!("declarations start with {all}"));
        }
        self.push(diagnostic);
        Failed
    }

    fn use_line(&mut self) -> Parsed<Use> {
        let module = self.name("the name of a module")?;
        if !self.eat_pair(':', ':') {
            let diagnostic = self.unexpected("`::`");
            let help = format!("name what you use: `use {}::Name;`", module.text);
            self.push(diagnostic.help(help));
            return Err(Failed);
        }
        let names = match self.eat_group(Delimiter::Brace) {
            Some(group) => {
                let list: List<UsedName> =
                    self.inside(&group, |parser| parser.list("a name", Self::used_name));
                list.members
            }
            None => vec![self.used_name()?],
        };
        if self.eat_pair(':', ':') {
            let message = "modules are not nested";
            let diagnostic = Diagnostic::new(&codes::PATH, self.last(), message);
            self.push(diagnostic.help("write `use module::Name;`"));
            return Err(Failed);
        }
        self.punct(';')?;
        Ok(Use { module, names })
    }

    fn used_name(&mut self) -> Parsed<UsedName> {
        if self.at_punct('*') {
            let diagnostic = self.unexpected("a name");
            self.push(diagnostic.help("name each declaration: `use module::{First, Second};`"));
            return Err(Failed);
        }
        let name = self.name("a name")?;
        let local = match self.eat_word("as") {
            Some(_) => self.name("a name")?,
            None => name.clone(),
        };
        Ok(UsedName { name, local })
    }

    fn item(&mut self, keyword: &str, attributes: crate::ast::Attributes) -> Parsed<Item> {
        let persistent = keyword == "persistent";
        if persistent && self.eat_word("interface").is_none() {
            return Err(self.expected("`interface`"));
        }
        let name = self.name("a name")?;
        if self.at_punct('<') {
            let message = "declarations have no type parameters";
            let span = self.here();
            self.push(Diagnostic::new(&codes::SYNTAX, span, message).label("not supported"));
            return Err(Failed);
        }
        let kind = match keyword {
            "const" => self.constant()?,
            "struct" => ItemKind::Struct(self.fields()?),
            "exception" => ItemKind::Exception(self.fields()?),
            "enum" => ItemKind::Enum(self.enumerators()?),
            "union" => ItemKind::Union(self.cases()?),
            _ => ItemKind::Interface(self.interface(persistent)?),
        };
        Ok(Item {
            name,
            attributes,
            kind,
        })
    }

    fn constant(&mut self) -> Parsed<ItemKind> {
        self.punct(':')?;
        let ty = self.type_ref()?;
        self.punct('=')?;
        let value = self.value()?;
        self.punct(';')?;
        Ok(ItemKind::Const(ty, value))
    }

    /// After a failure: to the next place where a declaration may start. The words on the way,
    /// from the declaration's start, are noted as lost.
    fn skip_declaration(&mut self, start: Cursor<'a>, unit: &mut Unit) {
        let failed = self.position();
        self.rewind(start);
        let mut passed = start == failed;
        while let Some(token) = self.bump() {
            let at_failure = self.position() == failed;
            match token {
                TokenTree::Ident(ident) => {
                    unit.lost.insert(ident.to_string());
                }
                TokenTree::Punct(punct) if passed && punct.as_char() == ';' => return,
                TokenTree::Group(group) if passed && group.delimiter() == Delimiter::Brace => {
                    return;
                }
                TokenTree::Punct(_) | TokenTree::Group(_) | TokenTree::Literal(_) => {}
            }
            passed |= at_failure;
            if passed && self.may_start_declaration() {
                return;
            }
        }
    }

    fn may_start_declaration(&self) -> bool {
        let keyword = self
            .word()
            .is_some_and(|word| keyword::DECLARATIONS.contains(&word.as_str()));
        (keyword && self.word_follows()) || self.at_punct('#')
    }
}
