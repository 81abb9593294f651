//! What the compiler has to say: errors and warnings with places, labels and cures.
//!
//! Phases push [`Diagnostic`]s into a [`Sink`], which bounds how many are kept; the end of a run
//! turns it into [`Diagnostics`], which owns the texts it points into. How they look is in
//! `render.rs`. One cause gives one diagnostic: a phase that meets something already complained
//! about stays silent.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::codes::Explanation;
use crate::source::{SourceFile, SourceMap, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is generated.
    Error,
    /// Worth a change, but the result stands.
    Warning,
}

/// One error or warning.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub(crate) code: &'static Explanation,
    pub(crate) message: String,
    pub(crate) span: Option<Span>,
    pub(crate) label: String,
    pub(crate) related: Vec<(Span, String)>,
    pub(crate) notes: Vec<String>,
    pub(crate) help: Vec<String>,
}

impl Diagnostic {
    pub(crate) fn new(code: &'static Explanation, span: Span, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::without_place(code, message)
        }
    }

    /// For what stands in no file, as a root that cannot be read.
    pub(crate) fn without_place(code: &'static Explanation, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            span: None,
            label: String::new(),
            related: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
        }
    }

    /// Text at the carets.
    pub(crate) fn label(mut self, text: impl Into<String>) -> Self {
        self.label = text.into();
        self
    }

    /// Another place that has to do with it.
    pub(crate) fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push((span, text.into()));
        self
    }

    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Adds the help, if there is one.
    pub(crate) fn maybe_help(mut self, text: Option<String>) -> Self {
        self.help.extend(text);
        self
    }

    /// The code, as `E0201`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code.code
    }

    /// Error or warning: the first letter of the code.
    #[must_use]
    pub fn severity(&self) -> Severity {
        if self.code.code.starts_with('W') {
            Severity::Warning
        } else {
            Severity::Error
        }
    }

    /// What is wrong, in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Collects the diagnostics of a run.
#[derive(Debug)]
pub(crate) struct Sink {
    kept: Vec<Diagnostic>,
    kept_max: usize,
    errors: usize,
    warnings: usize,
}

impl Sink {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self {
            kept: Vec::new(),
            kept_max,
            errors: 0,
            warnings: 0,
        }
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        // Counted apart, so that warnings never take the place of errors.
        let count = match diagnostic.severity() {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= self.kept_max {
            self.kept.push(diagnostic);
        }
    }

    /// Further errors would only be counted: costly hints can be left out.
    pub(crate) fn is_full(&self) -> bool {
        self.errors >= self.kept_max
    }

    pub(crate) fn append(&mut self, other: Self) {
        let (errors, warnings) = (self.errors + other.errors, self.warnings + other.warnings);
        for diagnostic in other.kept {
            self.push(diagnostic);
        }
        (self.errors, self.warnings) = (errors, warnings);
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Sorted by place, with the texts they point into.
    pub(crate) fn finish(mut self, sources: &SourceMap) -> Diagnostics {
        self.kept
            .sort_by_key(|diagnostic| (diagnostic.span, diagnostic.code.code));
        Diagnostics {
            list: self.kept,
            errors: self.errors,
            warnings: self.warnings,
            files: sources.files.clone(),
        }
    }
}

/// The errors and warnings of one compilation, in the order of their places.
#[derive(Clone, Default)]
pub struct Diagnostics {
    pub(crate) list: Vec<Diagnostic>,
    pub(crate) errors: usize,
    pub(crate) warnings: usize,
    pub(crate) files: Vec<Arc<SourceFile>>,
}

impl Diagnostics {
    /// The kept ones: at most [`Limits::diagnostics_max`](crate::Limits::diagnostics_max) errors
    /// and as many warnings.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// All errors, also those that were not kept.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.errors
    }

    /// All warnings, also those that were not kept.
    #[must_use]
    pub fn warning_count(&self) -> usize {
        self.warnings
    }

    /// Nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Where a diagnostic stands: path, line and column, both from 1.
    #[must_use]
    pub fn place(&self, diagnostic: &Diagnostic) -> Option<(&Path, usize, usize)> {
        let span = diagnostic.span?;
        let file = self.file(span);
        let (line, column) = file.line_column(span.start);
        Some((&file.path, line, column))
    }

    pub(crate) fn file(&self, span: Span) -> &SourceFile {
        &self.files[span.file.0 as usize]
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

impl std::error::Error for Diagnostics {}
