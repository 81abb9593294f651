//! What can be typed at the prompt: one line, one command.

use serde_json::Value;

use crate::dynamic;
use crate::failure::Usage;
use crate::suggest;

/// The words that begin a command, as `help` lists them.
pub(super) const WORDS: [(&str, &str); 10] = [
    (
        "begin",
        "begin an action; within another one it is nested in it",
    ),
    (
        "top-level",
        "begin an action that commits on its own, whatever becomes of the present one",
    ),
    (
        "NAME.METHOD {JSON}",
        "call, in the present action; without one, as an action by itself",
    ),
    (
        "commit",
        "end the present action: what was done in it stays, for its parent or for ever",
    ),
    ("abort", "end the present action: nothing of it was done"),
    ("show", "list the open actions, outermost first"),
    (
        "outcome [ACTION]",
        "what became of an action; else of the last top-level one",
    ),
    (
        "time SECONDS",
        "how long top-level actions begun from now on may take",
    ),
    ("help", "this"),
    ("exit", "abort what is open, and leave"),
];

/// One command.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Nothing,
    Begin,
    TopLevel,
    Commit,
    Abort,
    Show,
    Outcome(Option<String>),
    Time(u64),
    Help,
    Exit,
    Call {
        name: String,
        method: String,
        given: Value,
    },
}

impl Command {
    /// Whether it does nothing to any object or action.
    pub(super) fn is_about_the_shell(&self) -> bool {
        match self {
            Self::Nothing
            | Self::Show
            | Self::Outcome(_)
            | Self::Time(_)
            | Self::Help
            | Self::Exit => true,
            Self::Begin | Self::TopLevel | Self::Commit | Self::Abort | Self::Call { .. } => false,
        }
    }
}

/// Reads a line; blank ones and those that begin with `#` say nothing.
pub(super) fn parse(line: &str) -> Result<Command, Usage> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(Command::Nothing);
    }
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let alone = |command| match rest {
        "" => Ok(command),
        more => Err(Usage(format!(
            "'{word}' stands alone; found '{more}' behind it"
        ))),
    };
    match word {
        "begin" => alone(Command::Begin),
        "top-level" => alone(Command::TopLevel),
        "commit" => alone(Command::Commit),
        "abort" => alone(Command::Abort),
        "show" => alone(Command::Show),
        "help" => alone(Command::Help),
        "exit" | "quit" => alone(Command::Exit),
        "outcome" => Ok(Command::Outcome(
            (!rest.is_empty()).then(|| rest.to_owned()),
        )),
        "time" => match rest.parse() {
            Ok(seconds @ 1..) => Ok(Command::Time(seconds)),
            _ => Err(Usage(format!(
                "expected seconds, as `time 60`; found '{rest}'"
            ))),
        },
        callee => call(callee, rest),
    }
}

fn call(callee: &str, arguments: &str) -> Result<Command, Usage> {
    let (name, method) = callee.rsplit_once('.').ok_or_else(|| unknown(callee))?;
    if name.is_empty() || method.is_empty() {
        return Err(Usage(format!(
            "expected NAME.METHOD, as /bank/alice.balance; found '{callee}'"
        )));
    }
    let given = match arguments {
        "" => Value::Object(serde_json::Map::new()),
        text => dynamic::parse(text).map_err(|error| {
            Usage(format!(
                "the arguments are no JSON: {error}; expected as {{\"amount\": 5}}"
            ))
        })?,
    };
    Ok(Command::Call {
        name: name.to_owned(),
        method: method.to_owned(),
        given,
    })
}

fn unknown(word: &str) -> Usage {
    let known = WORDS
        .iter()
        .map(|(word, _)| word.split(' ').next().unwrap_or(word));
    let hint = suggest::hint(word, known);
    Usage(format!("no command '{word}'; `help` lists them{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_one_command() {
        assert_eq!(parse("  begin ").unwrap(), Command::Begin);
        assert_eq!(parse("# not said").unwrap(), Command::Nothing);
        assert_eq!(parse("").unwrap(), Command::Nothing);
        let id = "00c7d1f20be5a001-000001-0000000001";
        let asked = parse(&format!("outcome {id}")).unwrap();
        assert_eq!(asked, Command::Outcome(Some(id.to_owned())));
        assert_eq!(parse("quit").unwrap(), Command::Exit);
        assert_eq!(parse("time 5").unwrap(), Command::Time(5));
    }

    #[test]
    fn a_call_names_object_and_method_and_brings_json() {
        let called = parse("/bank/al.ice.deposit  {\"amount\": 5}").unwrap();
        let expected = Command::Call {
            name: "/bank/al.ice".to_owned(),
            method: "deposit".to_owned(),
            given: json!({"amount": 5}),
        };
        assert_eq!(called, expected);
        let Command::Call { given, .. } = parse("/bank/alice.balance").unwrap() else {
            panic!("no call");
        };
        assert_eq!(given, json!({}));
    }

    #[test]
    fn what_is_wrong_says_what_was_expected() {
        let wrong = [
            ("beginn", "did you mean 'begin'?"),
            ("commit now", "'commit' stands alone"),
            ("/bank/alice.", "expected NAME.METHOD"),
            ("/bank/alice.deposit {amount", "no JSON"),
            ("time 0", "expected seconds"),
        ];
        for (line, expected) in wrong {
            let Usage(error) = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
