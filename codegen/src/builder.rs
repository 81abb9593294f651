//! Generating from a `build.rs`.
//!
//! ```no_run
//! // build.rs
//! partha_codegen::compile("idl/bank.idl");
//! ```
//! ```ignore
//! // src/main.rs
//! mod bank {
//!     include!(concat!(env!("OUT_DIR"), "/bank.rs"));
//! }
//! ```

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use partha_idl::{Diagnostics, SourceMap};

use crate::{Options, generate, sources, write};

/// Compiles one file from a `build.rs` into `OUT_DIR`; its errors go to standard error in the
/// look of rustc's, and the build stops.
pub fn compile(path: impl AsRef<Path>) {
    Builder::new().compile(&[path]);
}

/// A compilation from a `build.rs` with wishes.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    options: Options,
    includes: Vec<PathBuf>,
    out_dir: Option<PathBuf>,
}

/// Why nothing was generated.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The IDL is wrong.
    Idl(Box<Diagnostics>),
    /// A file could not be written.
    Io(io::Error),
    /// There is no folder to write to: outside a `build.rs`, one must be named.
    NoOutDir,
}

impl Builder {
    /// Without wishes: output to `OUT_DIR`, imports found beside the importing file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also looks for imported modules in this folder.
    #[must_use]
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.includes.push(folder.into());
        self
    }

    /// Writes into this folder instead of `OUT_DIR`.
    #[must_use]
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(folder.into());
        self
    }

    /// The Rust path of the runtime crate, if it is not `::partha`.
    #[must_use]
    pub fn runtime(mut self, path: impl Into<String>) -> Self {
        self.options.runtime = path.into();
        self
    }

    /// The Rust path of a module that is generated elsewhere.
    #[must_use]
    pub fn module(mut self, name: impl Into<String>, path: impl Into<String>) -> Self {
        self.options.modules.insert(name.into(), path.into());
        self
    }

    /// Compiles; on errors prints them and ends the process with status 1.
    pub fn compile(&self, paths: &[impl AsRef<Path>]) {
        if let Err(error) = self.try_compile(paths) {
            match &error {
                Error::Idl(diagnostics) => {
                    eprint!("{}", diagnostics.render(io::stderr().is_terminal()));
                }
                Error::Io(_) | Error::NoOutDir => eprintln!("error: {error}"),
            }
            std::process::exit(1);
        }
    }

    /// Compiles and tells cargo which files it has read. Returns the files that changed.
    ///
    /// # Errors
    /// [`Error`]
    pub fn try_compile(&self, paths: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>, Error> {
        let roots: Vec<_> = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        let mut sources = sources();
        self.includes
            .iter()
            .for_each(|folder| sources.add_include(folder));
        let model = partha_idl::compile(&mut sources, &roots);
        tell_cargo(&sources, &roots);
        let model = model.map_err(|diagnostics| Error::Idl(Box::new(diagnostics)))?;
        let named = self.out_dir.clone();
        let folder = named.or_else(|| std::env::var_os("OUT_DIR").map(PathBuf::from));
        let folder = folder.ok_or(Error::NoOutDir)?;
        write(&generate(&model, &self.options), &folder).map_err(Error::Io)
    }
}

/// What to watch, and what is worth a change.
fn tell_cargo(sources: &SourceMap, roots: &[PathBuf]) {
    let read = sources.paths().map(Path::to_owned);
    let mut watched: Vec<_> = read.chain(roots.iter().cloned()).collect();
    watched.sort();
    watched.dedup();
    for path in watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let warnings = sources.warnings();
    for warning in warnings.iter() {
        let place = warnings
            .place(warning)
            .map_or_else(String::new, |(path, line, column)| {
                format!("{}:{line}:{column}: ", path.display())
            });
        println!("cargo::warning={place}{}", warning.message());
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idl(diagnostics) => f.write_str(&diagnostics.render(false)),
            Self::Io(error) => fmt::Display::fmt(error, f),
            Self::NoOutDir => f.write_str(
                "no folder to write to: OUT_DIR is not set; call this from a build.rs, or name a \
                 folder with out_dir",
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Idl(_) | Self::NoOutDir => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compiled_into_the_folder_named() {
        let folder = test_support::temp_dir("builder");
        let idl = folder.path().join("tiny.idl");
        std::fs::write(&idl, "module tiny;\nstruct Point { x: i64, y: i64 }\n").unwrap();
        let out = folder.path().join("out");
        let written = Builder::new().out_dir(&out).try_compile(&[&idl]).unwrap();
        let names: Vec<_> = written.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["tiny.rs", "tiny.capnp", "tiny.cgr"]);
        assert!(
            Builder::new()
                .out_dir(&out)
                .try_compile(&[&idl])
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn errors_are_those_of_the_language() {
        let folder = test_support::temp_dir("builder");
        let idl = folder.path().join("bad.idl");
        std::fs::write(&idl, "module bad;\nstruct Point { x: i46 }\n").unwrap();
        let error = Builder::new()
            .out_dir(folder.path())
            .try_compile(&[&idl])
            .unwrap_err();
        assert!(error.to_string().contains("i46"), "{error}");
    }
}
