//! How diagnostics look: rustc's way for people, one JSON object a line for tools.
//!
//! Only the lines around the marked bytes go to the renderer, and none that is very long, so that
//! a file of many megabytes costs no more than a small one.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::json;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::source::{SourceFile, Span};

/// More text is not shown, if a line is that long.
const SHOWN_BYTES_MAX: usize = 20_000;
/// Marked lines that lie further apart are shown as two snippets.
const GAP_LINES_MAX: usize = 30;

impl Diagnostics {
    /// In rustc's look; with `color`, with terminal escapes.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = String::new();
        for diagnostic in &self.list {
            text.push_str(&renderer.render(&[self.report(diagnostic)]));
            text.push_str("\n\n");
        }
        text.push_str(&self.closing_lines());
        text
    }

    /// One JSON object a line: `code`, `level`, `message`, and where there is a place `file`,
    /// `byte_start`, `byte_end` (of the file, byte order mark included), `line`, `column` (from
    /// 1, in characters), `label`; then `related`, `notes`, `help`.
    #[must_use]
    pub fn render_json(&self) -> String {
        self.list
            .iter()
            .map(|diagnostic| format!("{}\n", self.json(diagnostic)))
            .collect()
    }

    fn closing_lines(&self) -> String {
        let mut text = String::new();
        let kept = |severity| {
            self.list
                .iter()
                .filter(|d| d.severity() == severity)
                .count()
        };
        let hidden = self.errors - kept(Severity::Error);
        if hidden > 0 {
            text.push_str(&format!(
                "… and {hidden} more {}\n",
                plural(hidden, "error")
            ));
        }
        let hidden = self.warnings - kept(Severity::Warning);
        if hidden > 0 {
            text.push_str(&format!(
                "… and {hidden} more {}\n",
                plural(hidden, "warning")
            ));
        }
        if let Some(first) = self.list.iter().find(|d| d.severity() == Severity::Error) {
            text.push_str(&format!(
                "more about an error: `partha explain {}`\n",
                first.code()
            ));
        }
        text
    }

    fn report<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level
            .primary_title(diagnostic.message())
            .id(diagnostic.code());
        let mut group = Group::with_title(title);
        for window in self.windows(diagnostic) {
            group = if window.is_huge() {
                let labels = window
                    .marks
                    .iter()
                    .filter(|(_, label, _)| !label.is_empty());
                let notes = labels.map(|(_, label, _)| Level::NOTE.message(*label));
                group.element(window.origin()).elements(notes)
            } else {
                group.element(window.snippet())
            };
        }
        let notes = diagnostic
            .notes
            .iter()
            .map(|text| Level::NOTE.message(text));
        let help = diagnostic.help.iter().map(|text| Level::HELP.message(text));
        group.elements(notes).elements(help)
    }

    /// The marked places, gathered into pieces of text: the primary one first.
    fn windows<'a>(&'a self, diagnostic: &'a Diagnostic) -> Vec<Window<'a>> {
        let primary = diagnostic
            .span
            .map(|span| (span, diagnostic.label.as_str(), true));
        let related = diagnostic
            .related
            .iter()
            .map(|(span, text)| (*span, text.as_str(), false));
        let mut windows: Vec<Window<'a>> = Vec::new();
        for mark in primary.into_iter().chain(related) {
            let file = self.file(mark.0);
            if !windows.iter_mut().any(|window| window.take_in(file, mark)) {
                windows.push(Window::new(file, mark));
            }
        }
        windows
    }

    fn json(&self, diagnostic: &Diagnostic) -> serde_json::Value {
        let mut object = json!({
            "code": diagnostic.code(),
            "level": match diagnostic.severity() {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "message": diagnostic.message(),
        });
        if let Some(span) = diagnostic.span {
            self.json_place(&mut object, span, &diagnostic.label);
        }
        let related = diagnostic.related.iter().map(|(span, label)| {
            let mut place = json!({});
            self.json_place(&mut place, *span, label);
            place
        });
        object["related"] = related.collect();
        object["notes"] = json!(diagnostic.notes);
        object["help"] = json!(diagnostic.help);
        object
    }

    fn json_place(&self, object: &mut serde_json::Value, span: Span, label: &str) {
        let file = self.file(span);
        let (line, column) = file.line_column(span.start);
        let shift = if file.bom { 3 } else { 0 };
        object["file"] = json!(file.path.to_string_lossy());
        object["byte_start"] = json!(span.start + shift);
        object["byte_end"] = json!(span.end + shift);
        object["line"] = json!(line);
        object["column"] = json!(column);
        object["label"] = json!(label);
    }
}

type Mark<'a> = (Span, &'a str, bool);

/// Neighbouring lines of a file with the marks on them.
struct Window<'a> {
    file: &'a SourceFile,
    lines: Range<usize>,
    marks: Vec<Mark<'a>>,
}

impl<'a> Window<'a> {
    fn new(file: &'a SourceFile, mark: Mark<'a>) -> Self {
        Self {
            file,
            lines: lines_of(file, mark.0),
            marks: vec![mark],
        }
    }

    /// Adds a mark that stands near enough.
    fn take_in(&mut self, file: &SourceFile, mark: Mark<'a>) -> bool {
        let lines = lines_of(file, mark.0);
        let start = self.lines.start.min(lines.start);
        let end = self.lines.end.max(lines.end);
        let near = std::ptr::eq(self.file, file)
            && end - start <= GAP_LINES_MAX
            && self.bytes_of(start..end).len() <= SHOWN_BYTES_MAX;
        if near {
            self.lines = start..end;
            self.marks.push(mark);
        }
        near
    }

    fn bytes_of(&self, lines: Range<usize>) -> Range<usize> {
        let starts = self.file.line_starts();
        let end = starts
            .get(lines.end)
            .map_or(self.file.text.len(), |end| *end as usize);
        starts[lines.start] as usize..end
    }

    /// Too long to be shown: then the place and the label have to do.
    fn is_huge(&self) -> bool {
        self.bytes_of(self.lines.clone()).len() > SHOWN_BYTES_MAX
    }

    fn origin(&self) -> Origin<'a> {
        let (line, column) = self.file.line_column(self.marks[0].0.start);
        Origin::path(self.file.path.to_string_lossy())
            .line(line)
            .char_column(column)
    }

    fn snippet(&self) -> Snippet<'a, Annotation<'a>> {
        let shown = self.bytes_of(self.lines.clone());
        let source = &self.file.text[shown.clone()];
        let marks = self.marks.iter().map(|(span, label, primary)| {
            let kind = if *primary {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            let label = (!label.is_empty()).then_some(*label);
            let range = span.start as usize - shown.start..span.end as usize - shown.start;
            kind.span(range).label(label)
        });
        let path = self.file.path.to_string_lossy();
        Snippet::source(source)
            .line_start(self.lines.start + 1)
            .path(path)
            .annotations(marks)
    }
}

/// The lines, from 0, on which a span lies.
fn lines_of(file: &SourceFile, span: Span) -> Range<usize> {
    let starts = file.line_starts();
    let line_at = |offset: u32| starts.partition_point(|start| *start <= offset) - 1;
    line_at(span.start)..line_at(span.end.saturating_sub(1).max(span.start)) + 1
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}
