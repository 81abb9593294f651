//! From roots to all modules that they reach, imported ones before their importers.
//!
//! Invariants: every file is read once, however its path is written; a module's name belongs to
//! one file; imports have no cycle (one that closes a cycle is complained about and left out).
//! Walks without recursion, so that a long chain of imports costs no stack.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::ast::{Name, Unit};
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::parse;
use crate::source::{self, FileId, Location, ReadError, SourceMap, Span};
use crate::suggest;

/// A module that was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) file: FileId,
    /// As its file says, or by the file's name where it says nothing.
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) requested: bool,
    /// For each `use` line the module, as an index into [`Load::modules`]; `None` if there was a
    /// complaint.
    pub(crate) imports: Vec<Option<usize>>,
}

/// All modules, and an order in which each stands behind what it imports.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) modules: Vec<Loaded>,
    pub(crate) order: Vec<usize>,
}

/// Reads the roots and what they import.
pub(crate) fn load(sources: &mut SourceMap, roots: &[PathBuf], sink: &mut Sink) -> Load {
    let mut loader = Loader {
        sources,
        sink,
        load: Load::default(),
        known: HashMap::new(),
    };
    for root in roots {
        if let Some(module) = loader.root(root) {
            loader.load.modules[module].requested = true;
            loader.walk(module);
        }
    }
    loader.one_file_a_name();
    loader.load
}

struct Loader<'a> {
    sources: &'a mut SourceMap,
    sink: &'a mut Sink,
    load: Load,
    known: HashMap<Location, Option<usize>>,
}

/// A module whose imports are being followed, up to and without `next`.
struct Open {
    module: usize,
    next: usize,
}

impl Loader<'_> {
    fn root(&mut self, path: &Path) -> Option<usize> {
        let location = Location::Path(path.to_owned());
        let identity = self.sources.identity(&location);
        if let Some(known) = self.known.get(&identity) {
            return *known;
        }
        let module = match self.sources.read(&location) {
            Ok(file) => Some(self.take_in(file)),
            Err(error) => {
                let path = path.display();
                let diagnostic = cannot_read(&path.to_string(), error, None, self.sources);
                self.sink.push(diagnostic);
                None
            }
        };
        self.known.insert(identity, module);
        module
    }

    fn take_in(&mut self, file: FileId) -> usize {
        let limits = self.sources.limits();
        let source = self.sources.file(file).clone();
        let unit = parse::parse(file, &source, limits, self.sink);
        let stem = source::module_name(&source.path);
        let name = match (&unit.name, stem) {
            (Some(name), Some(stem)) => {
                if name.text != stem {
                    self.wrong_name(name, &stem);
                }
                stem
            }
            (Some(name), None) => {
                self.wrong_name(name, "");
                name.text.clone()
            }
            (None, stem) => stem.unwrap_or_default(),
        };
        let imports = Vec::with_capacity(unit.uses.len());
        let requested = false;
        self.load.modules.push(Loaded {
            file,
            name,
            unit,
            requested,
            imports,
        });
        self.load.modules.len() - 1
    }

    fn wrong_name(&mut self, name: &Name, stem: &str) {
        let file_name = format!("{}.idl", name.text);
        let message = format!(
            "module {} stands in a file that is not {file_name}",
            name.quoted()
        );
        let help = if stem.is_empty() {
            format!("name the file {file_name}")
        } else {
            format!("write `module {stem};`, or name the file {file_name}")
        };
        let diagnostic = Diagnostic::new(&codes::FILE_NAME, name.span, message);
        self.sink
            .push(diagnostic.label("not the file's name").help(help));
    }

    /// Follows the imports of `root`, depth first.
    fn walk(&mut self, root: usize) {
        if self.load.order.contains(&root) {
            return;
        }
        let mut path = vec![Open {
            module: root,
            next: 0,
        }];
        while let Some(open) = path.last_mut() {
            let importer = open.module;
            let Some(line) = self.load.modules[importer].unit.uses.get(open.next) else {
                self.load.order.push(importer);
                path.pop();
                continue;
            };
            open.next += 1;
            let name = line.module.clone();
            let found = self.import(importer, &name);
            let cycle = found.filter(|found| path.iter().any(|open| open.module == *found));
            let found = match cycle {
                Some(first) => {
                    self.cycle(&path, first, &name);
                    None
                }
                None => found,
            };
            self.load.modules[importer].imports.push(found);
            if let Some(found) = found
                && !self.load.order.contains(&found)
            {
                path.push(Open {
                    module: found,
                    next: 0,
                });
            }
        }
    }

    fn import(&mut self, importer: usize, name: &Name) -> Option<usize> {
        let file = self.load.modules[importer].file;
        let Some(location) = self.sources.find(file, &name.text) else {
            self.not_found(file, name);
            return None;
        };
        let identity = self.sources.identity(&location);
        if let Some(known) = self.known.get(&identity) {
            return *known;
        }
        let module = match self.sources.read(&location) {
            Ok(file) => Some(self.take_in(file)),
            Err(error) => {
                let what = match &location {
                    Location::Path(path) => path.display().to_string(),
                    Location::Builtin(module) => format!("the built-in module {module}"),
                };
                let diagnostic = cannot_read(&what, error, Some(name.span), self.sources);
                self.sink.push(diagnostic);
                None
            }
        };
        self.known.insert(identity, module);
        module
    }

    fn not_found(&mut self, importer: FileId, name: &Name) {
        let mut looked: Vec<String> = Vec::new();
        for folder in self.sources.folders(importer) {
            let folder = folder.display().to_string();
            let folder = if folder.is_empty() {
                "./".to_owned()
            } else {
                folder
            };
            if !looked.contains(&folder) {
                looked.push(folder);
            }
        }
        let known = if self.sink.is_full() {
            Vec::new()
        } else {
            self.sources.known_modules(importer)
        };
        let message = format!("there is no module {}", name.quoted());
        let note = format!("looked for {}.idl in {}", name.text, looked.join(", "));
        let help = suggest::help(&name.text, known.iter().map(String::as_str));
        let diagnostic = Diagnostic::new(&codes::MODULE_UNKNOWN, name.span, message);
        self.sink
            .push(diagnostic.label("not found").note(note).maybe_help(help));
    }

    fn cycle(&mut self, path: &[Open], first: usize, name: &Name) {
        let from = path
            .iter()
            .position(|open| open.module == first)
            .unwrap_or(0);
        let names = path[from..]
            .iter()
            .map(|open| self.load.modules[open.module].name.as_str());
        let circle: Vec<&str> = names.chain([name.text.as_str()]).collect();
        let message = format!(
            "modules import each other in a circle: {}",
            circle.join(" → ")
        );
        let mut diagnostic = Diagnostic::new(&codes::IMPORT_CYCLE, name.span, message)
            .label("closes the circle")
            .help("move what both need into a module of its own");
        // The lines that lead here, but not more than one can read.
        const LINES_MAX: usize = 4;
        for open in path[from..path.len() - 1].iter().take(LINES_MAX) {
            let line = &self.load.modules[open.module].unit.uses[open.next - 1];
            diagnostic = diagnostic.related(line.module.span, "imported here");
        }
        self.sink.push(diagnostic);
    }

    /// A module's name makes its id and the names of its output: two files may not share one,
    /// and none may pose as a built-in module.
    fn one_file_a_name(&mut self) {
        let mut first: HashMap<&str, &Loaded> = HashMap::new();
        for module in &self.load.modules {
            let start = Span {
                file: module.file,
                start: 0,
                end: 0,
            };
            let span = module.unit.name.as_ref().map_or(start, |name| name.span);
            let source = self.sources.file(module.file);
            let posing = self.sources.builtin(&module.name).is_some_and(|text| {
                !source.builtin && text.trim_start_matches('\u{feff}') != source.text
            });
            if posing {
                let message = format!("the module name `{}` is taken by the system", module.name);
                let diagnostic = Diagnostic::new(&codes::MODULE_TWICE, span, message);
                self.sink.push(diagnostic.label("choose another name"));
            } else if let Some(other) = first.insert(&module.name, module) {
                let message = format!("module `{}` stands in two files", module.name);
                let other = self.sources.file(other.file).path.display();
                let diagnostic = Diagnostic::new(&codes::MODULE_TWICE, span, message);
                self.sink
                    .push(diagnostic.label(format!("the other one is {other}")));
            }
        }
    }
}

fn cannot_read(
    what: &str,
    error: ReadError,
    import: Option<Span>,
    sources: &SourceMap,
) -> Diagnostic {
    let (code, why) = match error {
        ReadError::NotUtf8 { file, at, byte } => {
            let shift = if sources.file(file).bom { 3 } else { 0 };
            let span = Span {
                file,
                start: at,
                end: at + '\u{fffd}'.len_utf8() as u32,
            };
            let offset = at + shift;
            let message = format!("byte {byte:#04x} at offset {offset} is not UTF-8");
            return Diagnostic::new(&codes::NOT_UTF8, span, message)
                .label("cannot be decoded")
                .help("save the file as UTF-8");
        }
        ReadError::Io(error) => (&codes::UNREADABLE, format!("cannot read {what}: {error}")),
        ReadError::NotAFile => (
            &codes::UNREADABLE,
            format!("cannot read {what}: not a file"),
        ),
        ReadError::TooLarge => {
            let max = sources.limits().file_bytes_max;
            (
                &codes::TOO_LARGE,
                format!("{what} is larger than {max} bytes"),
            )
        }
    };
    match import {
        Some(span) => Diagnostic::new(code, span, why).label("imported here"),
        None => Diagnostic::without_place(code, why),
    }
}
