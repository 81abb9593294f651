//! The texts a compilation reads, and places in them.
//!
//! A [`SourceMap`] finds files: in memory first, then on disk, and modules that the caller built
//! in when no file has the name. Invariants: a text is valid UTF-8 without a byte order mark, and
//! every [`Span`] lies on character boundaries of its file's text. Nothing here knows the language.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::diagnostic::Diagnostics;

/// Bounds on what one compilation accepts; beyond them it refuses with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Size of one file in bytes.
    pub file_bytes_max: usize,
    /// Depth of nested brackets, and of nested types.
    pub depth_max: usize,
    /// Cap'n Proto members of one item: fields (an optional scalar counts twice), methods,
    /// parameters, cases.
    pub members_max: usize,
    /// Interfaces in one line of inheritance.
    pub bases_max: usize,
    /// Diagnostics kept and printed; the rest is only counted.
    pub diagnostics_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes_max: 16 << 20,
            depth_max: 64,
            members_max: 65_534,
            bases_max: 64,
            diagnostics_max: 50,
        }
    }
}

/// A file of one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u32);

/// Bytes `start..end` of a file's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) file: FileId,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// From the start of `self` to the end of `other`.
    pub(crate) fn to(self, other: Self) -> Self {
        Self {
            end: other.end.max(self.end),
            ..self
        }
    }
}

/// One text that was read.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// A byte order mark stood before the text.
    pub(crate) bom: bool,
    /// Handed in as a built-in module, not found by path.
    pub(crate) builtin: bool,
    lines: OnceLock<Vec<u32>>,
}

impl SourceFile {
    fn new(path: PathBuf, text: String, builtin: bool) -> Self {
        let (text, bom) = match text.strip_prefix('\u{feff}') {
            Some(rest) => (rest.to_owned(), true),
            None => (text, false),
        };
        Self {
            path,
            text,
            bom,
            builtin,
            lines: OnceLock::new(),
        }
    }

    /// Offsets at which lines start.
    pub(crate) fn line_starts(&self) -> &[u32] {
        self.lines.get_or_init(|| {
            let ends = self
                .text
                .bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0)
                .chain(ends.map(|(at, _)| at as u32 + 1))
                .collect()
        })
    }

    /// Line and column of an offset, both from 1; the column counts characters.
    pub(crate) fn line_column(&self, offset: u32) -> (usize, usize) {
        let starts = self.line_starts();
        let line = starts.partition_point(|start| *start <= offset) - 1;
        let before = &self.text[starts[line] as usize..offset as usize];
        (line + 1, before.chars().count() + 1)
    }
}

/// Why a file could not be taken in. Offsets count bytes of the text without byte order mark.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The system's answer.
    Io(io::Error),
    /// A folder, a pipe or a device.
    NotAFile,
    /// More than [`Limits::file_bytes_max`] bytes.
    TooLarge,
    /// The byte that is no UTF-8; the file is kept, with the rest decoded with replacements.
    NotUtf8 { file: FileId, at: u32, byte: u8 },
}

/// Where a module was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Location {
    /// A path in memory or on disk.
    Path(PathBuf),
    /// The name of a built-in module.
    Builtin(String),
}

/// Finds and keeps the texts of one compilation.
///
/// Imports are looked for beside the importing file, then in the include folders in the order in
/// which they were added, then among the built-in modules.
#[derive(Debug, Default)]
pub struct SourceMap {
    include: Vec<PathBuf>,
    memory: BTreeMap<PathBuf, Vec<u8>>,
    builtins: BTreeMap<String, String>,
    limits: Limits,
    pub(crate) files: Vec<Arc<SourceFile>>,
    pub(crate) warnings: Diagnostics,
}

impl SourceMap {
    /// Without include folders, built-in modules and texts in memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the bounds.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Adds a folder in which imported modules are looked for.
    pub fn add_include(&mut self, folder: impl Into<PathBuf>) {
        self.include.push(folder.into());
    }

    /// Adds a file that exists in memory only, and hides one of the same path on disk.
    pub fn add_memory(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.memory.insert(path.into(), bytes.into());
    }

    /// Adds a module that `use` finds when no file has its name; `file_name` is `partha.idl` for
    /// `module partha;`.
    pub fn add_builtin(&mut self, file_name: &str, text: impl Into<String>) {
        let module = file_name.strip_suffix(".idl").unwrap_or(file_name);
        self.builtins.insert(module.to_owned(), text.into());
    }

    /// The paths that the last compilation read, built-in modules apart: what a build has to
    /// watch. Complete also when the compilation failed.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files
            .iter()
            .filter(|file| !file.builtin)
            .map(|file| file.path.as_path())
    }

    /// What the last successful compilation warned about.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    pub(crate) fn file(&self, id: FileId) -> &Arc<SourceFile> {
        &self.files[id.0 as usize]
    }

    /// The text of the built-in module of this name.
    pub(crate) fn builtin(&self, module: &str) -> Option<&str> {
        self.builtins.get(module).map(String::as_str)
    }

    /// One spelling for every way to write the path of a file.
    pub(crate) fn identity(&self, location: &Location) -> Location {
        match location {
            Location::Path(path) if !self.memory.contains_key(path) => {
                Location::Path(path.canonicalize().unwrap_or_else(|_| path.clone()))
            }
            Location::Path(_) | Location::Builtin(_) => location.clone(),
        }
    }

    /// Where `module` is, as imported by `importer`.
    pub(crate) fn find(&self, importer: FileId, module: &str) -> Option<Location> {
        let file_name = format!("{module}.idl");
        let found = self
            .folders(importer)
            .map(|folder| folder.join(&file_name))
            .find(|path| self.memory.contains_key(path) || path.is_file());
        found.map(Location::Path).or_else(|| {
            self.builtins
                .contains_key(module)
                .then(|| Location::Builtin(module.to_owned()))
        })
    }

    /// The folders in which imports of this file are looked for.
    pub(crate) fn folders(&self, importer: FileId) -> impl Iterator<Item = &Path> {
        let file = &self.files[importer.0 as usize];
        let own = if file.builtin {
            None
        } else {
            file.path.parent()
        };
        own.into_iter()
            .chain(self.include.iter().map(PathBuf::as_path))
    }

    /// Modules that an import could have meant.
    pub(crate) fn known_modules(&self, importer: FileId) -> Vec<String> {
        const ENTRIES_MAX: usize = 1_000;
        let on_disk = self.folders(importer).filter_map(|folder| {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            fs::read_dir(folder).ok()
        });
        let mut found: Vec<String> = on_disk
            .flat_map(|entries| entries.take(ENTRIES_MAX))
            .filter_map(|entry| module_name(&entry.ok()?.path()))
            .chain(self.memory.keys().filter_map(|path| module_name(path)))
            .chain(self.builtins.keys().cloned())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Reads a text and keeps it.
    pub(crate) fn read(&mut self, location: &Location) -> Result<FileId, ReadError> {
        let (path, bytes, builtin) = match location {
            Location::Builtin(module) => {
                let text = self.builtins.get(module).cloned().unwrap_or_default();
                let path = PathBuf::from(format!("<builtin>/{module}.idl"));
                (path, text.into_bytes(), true)
            }
            Location::Path(path) => match self.memory.get(path) {
                Some(bytes) => (path.clone(), bytes.clone(), false),
                None => (
                    path.clone(),
                    read_file(path, self.limits.file_bytes_max)?,
                    false,
                ),
            },
        };
        if bytes.len() > self.limits.file_bytes_max {
            return Err(ReadError::TooLarge);
        }
        self.keep(path, bytes, builtin)
    }

    fn keep(&mut self, path: PathBuf, bytes: Vec<u8>, builtin: bool) -> Result<FileId, ReadError> {
        let id = FileId(self.files.len() as u32);
        let (text, wrong) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let wrong = Some((at as u32, bytes[at]));
                (String::from_utf8_lossy(&bytes).into_owned(), wrong)
            }
        };
        let file = SourceFile::new(path, text, builtin);
        let shift = if file.bom { 3 } else { 0 };
        self.files.push(Arc::new(file));
        match wrong {
            None => Ok(id),
            Some((at, byte)) => Err(ReadError::NotUtf8 {
                file: id,
                at: at - shift,
                byte,
            }),
        }
    }
}

/// The module that a file of this path may define.
pub(crate) fn module_name(path: &Path) -> Option<String> {
    if path.extension()? != "idl" {
        return None;
    }
    path.file_stem()?.to_str().map(str::to_owned)
}

fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let metadata = fs::metadata(path).map_err(ReadError::Io)?;
    if !metadata.is_file() {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes))
        .map_err(ReadError::Io)?;
    Ok(bytes)
}
