//! How a command that failed says so, and with which exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use partha::{CallId, Completed, SystemError};
use serde_json::{Value, json};

use crate::arguments::Format;

/// An exception that the interface speaks of: the call was executed and answered with it.
#[derive(Debug)]
pub(crate) struct Raised {
    /// `bank.InsufficientFunds`
    pub(crate) name: String,
    /// Its members.
    pub(crate) members: Value,
}

/// What was asked for makes no sense; nothing has been done.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

/// Prints the error to standard error; the exit status it stands for.
pub(crate) fn report(error: &anyhow::Error, format: Format) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    match format {
        Format::Table | Format::Wide => eprintln!("{}", text(error)),
        Format::Json => eprintln!("{}", as_json(error)),
    }
    if error.is::<Usage>() {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}

/// Whoever read the output has seen enough.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn text(error: &anyhow::Error) -> String {
    if let Some(Raised { name, .. }) = error.downcast_ref() {
        return format!("error[{name}]: {error}");
    }
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("\n  cause: {cause}"));
    }
    if let Some(call) = open_outcome(error) {
        text.push_str(&format!(
            "\n  help: the same command with `--again {call}` tells the outcome"
        ));
    }
    text
}

/// The id of a call that may or may not have been executed.
fn open_outcome(error: &anyhow::Error) -> Option<CallId> {
    let error = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<SystemError>())?;
    (error.completion() == Completed::Maybe).then(|| error.call())?
}

fn as_json(error: &anyhow::Error) -> Value {
    if let Some(Raised { name, members }) = error.downcast_ref() {
        return json!({ "raised": name, "members": members });
    }
    let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
    let mut object = json!({ "error": error.to_string() });
    if !causes.is_empty() {
        object["causes"] = json!(causes);
    }
    if let Some(call) = open_outcome(error) {
        object["ask_again"] = json!(call.to_string());
    }
    object
}

impl fmt::Display for Raised {
    /// `balance 1, wanted 5`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value::Object(members) = &self.members else {
            return write!(f, "{}", self.members);
        };
        for (index, (name, value)) in members.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match value {
                Value::String(text) => write!(f, "{comma}{name} '{text}'")?,
                value => write!(f, "{comma}{name} {value}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Raised {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_exception_shows_its_name_and_members() {
        let raised = Raised {
            name: "bank.InsufficientFunds".to_owned(),
            members: json!({ "balance": 1, "wanted": 5, "of": "alice" }),
        };
        let error = anyhow::Error::new(raised);
        assert_eq!(
            text(&error),
            "error[bank.InsufficientFunds]: balance 1, wanted 5, of 'alice'"
        );
    }

    #[test]
    fn a_closed_pipe_is_found_under_what_was_said_about_it() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&error.context("cannot write the list")));
        let other = anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound));
        assert!(!is_broken_pipe(&other));
    }
}
