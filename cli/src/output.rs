//! Standard output: lines, tables for people, JSON for scripts.
//!
//! Buffered, and flushed by whoever has said all, or a page of it. Nothing here panics on a
//! closed pipe: the error goes up and ends the command quietly. Colours are for terminals only,
//! and not where `NO_COLOR` is set.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use comfy_table::{Attribute, Cell, ColumnConstraint, Table, Width, presets};
use serde_json::Value;

use crate::arguments::Format;

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    format: Format,
    styled: bool,
}

/// Rows on their way, page by page. As JSON they are one array; as a table, later pages keep the
/// columns of earlier ones or make them wider.
#[derive(Debug)]
pub(crate) struct Rows {
    header: Vec<&'static str>,
    widths: Vec<u16>,
    pages: usize,
}

impl Output {
    /// In this format.
    pub(crate) fn new(format: Format) -> Self {
        let stdout = io::stdout();
        let styled = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            stdout: BufWriter::new(stdout),
            format,
            styled,
        }
    }

    /// How results look.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// True where a script reads.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// True where everything is wanted.
    pub(crate) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// As it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())
    }

    /// With a line end.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.text(text)?;
        self.text("\n")
    }

    /// A value: on one line for scripts, on several for people.
    pub(crate) fn value(&mut self, value: &Value) -> io::Result<()> {
        let text = if self.is_json() {
            value.to_string()
        } else {
            format!("{value:#}")
        };
        self.line(&text)
    }

    /// Names and what they are, one a line, or one object.
    pub(crate) fn facts(&mut self, facts: &[(&str, Value)]) -> io::Result<()> {
        if self.is_json() {
            let object = facts.iter();
            let object = object.map(|(name, value)| ((*name).to_owned(), value.clone()));
            return self.value(&Value::Object(object.collect()));
        }
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in facts {
            self.line(&format!("{name:width$}  {}", plain(value)))?;
        }
        Ok(())
    }

    /// Lets the reader see it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

impl Rows {
    /// No rows yet.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        let (header, widths) = (header.to_vec(), vec![0; header.len()]);
        Self {
            header,
            widths,
            pages: 0,
        }
    }

    /// Shows some rows; each has a value for each column.
    pub(crate) fn page(&mut self, out: &mut Output, rows: &[Vec<Value>]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if out.is_json() {
            for row in rows {
                let begin = if self.pages == 0 { "[" } else { ",\n " };
                let key = |name: &&str| name.to_lowercase().replace(' ', "_");
                let keys = self.header.iter().map(key);
                let object = keys.zip(row.iter().cloned()).collect();
                out.text(&format!("{begin}{}", Value::Object(object)))?;
                self.pages += 1;
            }
        } else {
            let table = self.table(rows, out.styled);
            for line in table.lines() {
                out.line(line.trim_end())?;
            }
            self.pages += 1;
        }
        out.flush()
    }

    /// Ends them.
    pub(crate) fn end(self, out: &mut Output) -> io::Result<()> {
        match (out.is_json(), self.pages) {
            (true, 0) => out.line("[]"),
            (true, _) => out.line("]"),
            (false, _) => Ok(()),
        }
    }

    fn table(&mut self, rows: &[Vec<Value>], styled: bool) -> Table {
        let texts: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(plain).collect())
            .collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (index, width) in self.widths.iter_mut().enumerate() {
            let cells = texts.iter().map(|row| row[index].chars().count());
            let longest = cells.chain([self.header[index].len()]).max();
            let longest = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX);
            *width = longest.max(*width);
        }
        if self.pages == 0 {
            let cell = |name: &&'static str| match styled {
                true => Cell::new(name).add_attribute(Attribute::Bold),
                false => Cell::new(name),
            };
            table.set_header(self.header.iter().map(cell));
        }
        if styled {
            table.enforce_styling();
        }
        table.add_rows(texts);
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            // Two columns are the gap to the next cell.
            column.set_padding((0, 2));
            let whole = Width::Fixed(width.saturating_add(2));
            column.set_constraint(ColumnConstraint::LowerBoundary(whole));
        }
        table
    }
}

/// A value in a table: texts without quotes, nothing for null.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn later_pages_keep_the_columns() {
        let mut rows = Rows::new(&["NAME", "TYPE"]);
        let first = rows.table(&[vec![json!("/bank/alice"), json!("bank.Account")]], false);
        rows.pages += 1;
        let second = rows.table(&[vec![json!("/b"), json!(null)]], false);
        let lines: Vec<_> = first.lines().chain(second.lines()).collect();
        let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
        assert_eq!(
            lines,
            [
                "NAME         TYPE",
                "/bank/alice  bank.Account",
                "/b           -"
            ]
        );
    }
}
