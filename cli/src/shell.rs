//! `partha shell`: actions by hand, at a terminal or from a script.
//!
//! Each open action is a closure that runs as long as the action is open: the levels of the
//! stack are the levels of nested scopes, and an action whose time is up takes all within it
//! along. An error ends nothing but the command that made it; what it means for the action is
//! said by the next command in it.

mod command;
mod input;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use partha::{Action, ActionError, ActionId, ActionOptions, Caller};
use serde_json::{Value, json};

use self::command::{Command, WORDS};
use self::input::{Input, Line};
use crate::arguments::{Cluster, Shown};
use crate::cluster::System;
use crate::failure::{self, Usage};
use crate::invoke::Callee;
use crate::outcome;
use crate::output::Output;

/// Run actions by hand: begin, call, nest, commit, abort
///
/// One command a line, from the terminal or from standard input; `help` lists them. A script ends
/// at the first command that fails, with status 1, and so it does if it leaves an action open;
/// what is open then is aborted.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  begin
  /bank/alice.withdraw {\"amount\": 5}
  /bank/bob.deposit {\"amount\": 5}
  commit")]
pub(crate) struct Arguments {
    /// Go on with a script after a command has failed
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// A running shell.
struct Shell<'a> {
    system: System,
    out: &'a mut Output,
    input: Input,
    callees: HashMap<String, Rc<Callee>>,
    /// The open actions, outermost first.
    stack: Vec<Open>,
    options: ActionOptions,
    /// The last top-level action that ended.
    last: Option<(ActionId, &'static str)>,
    /// Commands that failed.
    failures: usize,
    /// A command that fails ends the shell.
    strict: bool,
    /// An action that has ended without being told to, and nobody has taken note of that yet.
    lost: Option<ActionId>,
}

/// How an action ended.
type Ended = Result<(), ActionError<Leave>>;

/// Objects whose descriptions are kept.
const CALLEES_MAX: usize = 1_000;

/// An open action.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: ActionId,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Top,
    Nested,
    /// On its own, within others.
    Independent,
}

/// Why a level is left other than to commit it.
#[derive(Debug)]
enum Leave {
    /// It is aborted.
    Abort,
    /// The shell ends: all levels are.
    End,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Output) -> anyhow::Result<ExitCode> {
    let system = System::connect(&arguments.cluster).await?;
    let input = Input::start()?;
    let mut shell = Shell {
        system,
        out,
        strict: !input.is_interactive() && !arguments.keep_going,
        lost: None,
        input,
        callees: HashMap::new(),
        stack: Vec::new(),
        options: ActionOptions::new(),
        last: None,
        failures: 0,
    };
    let left_open = shell.session().await?;
    shell.out.flush()?;
    let failed = left_open || shell.failures > 0;
    Ok(match failed && !shell.input.is_interactive() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

impl Shell<'_> {
    /// Takes commands outside of any action, until the end; whether actions were open then.
    async fn session(&mut self) -> anyhow::Result<bool> {
        loop {
            let Some(command) = self.next().await?.filter(|_| !self.has_to_stop()) else {
                return Ok(false);
            };
            let (client, options) = (self.system.client.clone(), self.options);
            let done = match command {
                command if self.lost.is_some() && !command.is_about_the_shell() => {
                    self.take_note(&command)
                }
                Command::Begin | Command::TopLevel => {
                    let body = async |action: &Action| self.level(action, Kind::Top).await;
                    let ended = client.action_with(options, body).await;
                    if self.ended(0, ended)? {
                        return Ok(true);
                    }
                    continue;
                }
                Command::Commit | Command::Abort => Err(anyhow!("no action is open")),
                Command::Exit => return Ok(false),
                other => self.anywhere(&client, other).await,
            };
            self.note(done)?;
        }
    }

    /// Takes commands in an action until it is to end.
    async fn level(&mut self, action: &Action, kind: Kind) -> Result<(), Leave> {
        let depth = self.stack.len();
        let id = action.id();
        self.stack.push(Open { id, kind });
        let begun = self.say("begun", json!(id.to_string()));
        self.note(begun.map_err(Into::into))
            .map_err(|_| Leave::End)?;
        loop {
            let Ok(Some(command)) = self.next().await else {
                // It is the end, or nobody reads what is said.
                return Err(Leave::End);
            };
            if self.has_to_stop() {
                return Err(Leave::End);
            }
            let done = match command {
                command if self.lost.is_some() && !command.is_about_the_shell() => {
                    self.take_note(&command)
                }
                Command::Begin => {
                    let body = async |inner: &Action| self.level(inner, Kind::Nested).await;
                    let ended = Box::pin(action.nested(body)).await;
                    self.within(depth, ended)?;
                    continue;
                }
                Command::TopLevel => {
                    let body = async |inner: &Action| self.level(inner, Kind::Independent).await;
                    let ended = Box::pin(action.top_level(body)).await;
                    self.within(depth, ended)?;
                    continue;
                }
                Command::Commit => return Ok(()),
                Command::Abort => return Err(Leave::Abort),
                Command::Exit => return Err(Leave::End),
                other => self.anywhere(action, other).await,
            };
            self.note(done).map_err(|_| Leave::End)?;
        }
    }

    /// An action within another one has ended.
    fn within(&mut self, depth: usize, ended: Ended) -> Result<(), Leave> {
        match self.ended(depth + 1, ended) {
            Ok(false) => Ok(()),
            Ok(true) | Err(_) => Err(Leave::End),
        }
    }

    /// Says how the action at this depth of the stack ended; whether the shell ends with it.
    fn ended(&mut self, depth: usize, ended: Ended) -> anyhow::Result<bool> {
        let open = self.stack.get(depth).copied();
        self.stack.truncate(depth);
        let Some(Open { mut id, kind }) = open else {
            // It could not even begin.
            self.note(ended.map_err(|error| anyhow!("{error}")))?;
            return Ok(false);
        };
        let (mut end, mut lost) = (false, None);
        let word = match ended {
            Ok(()) => "committed",
            Err(error) => {
                id = error.action();
                match error.cause() {
                    Some(Leave::Abort) => {}
                    Some(Leave::End) => end = true,
                    None => lost = Some(anyhow!("{error}")),
                }
                match error {
                    ActionError::OutcomeUnknown { .. } => "unknown",
                    _ => "aborted",
                }
            }
        };
        if kind != Kind::Nested {
            self.last = Some((id, word));
        }
        if let Some(error) = lost {
            self.lost = Some(id);
            self.note(Err(error))?;
        }
        if end && !self.out.is_json() {
            eprintln!("warning: the shell ends: action {id} is aborted");
        }
        self.say(word, json!(id.to_string()))?;
        self.out.flush()?;
        Ok(end)
    }
}

impl Shell<'_> {
    /// The next command that makes sense; none at the end.
    async fn next(&mut self) -> anyhow::Result<Option<Command>> {
        loop {
            self.out.flush()?;
            let prompt = match self.stack.len() {
                0 => "partha> ".to_owned(),
                depth => format!("partha {depth}> "),
            };
            let parsed = match self.input.next(&prompt).await {
                Line::Text(line) => command::parse(&line),
                Line::Dropped => Ok(Command::Nothing),
                Line::End => return Ok(None),
                Line::Failed(error) => bail!("cannot read commands: {error}"),
            };
            match parsed {
                Ok(Command::Nothing) => {}
                Ok(command) => return Ok(Some(command)),
                Err(error) => self.note(Err(error.into()))?,
            }
        }
    }

    /// What can be said in an action as well as outside of any.
    async fn anywhere(&mut self, caller: &impl Caller, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Show => self.show()?,
            Command::Outcome(action) => self.outcome(action).await?,
            Command::Time(seconds) => {
                self.options = self.options.deadline(Duration::from_secs(seconds));
            }
            Command::Help => {
                let width = WORDS.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
                for (word, meaning) in WORDS {
                    self.out.line(&format!("{word:width$}  {meaning}"))?;
                }
            }
            Command::Call {
                name,
                method,
                given,
            } => {
                let callee = self.callee(&name).await?;
                let answer = callee.call(&self.system, caller, &method, &given).await?;
                match (answer, self.out.is_json()) {
                    (Some(value), _) => self.out.value(&value)?,
                    (None, true) => self.out.value(&Value::Null)?,
                    (None, false) => {}
                }
            }
            Command::Nothing
            | Command::Begin
            | Command::TopLevel
            | Command::Commit
            | Command::Abort
            | Command::Exit => unreachable!("each level takes these itself"),
        }
        Ok(())
    }

    /// Whether a command has failed that must not be followed by others.
    fn has_to_stop(&self) -> bool {
        self.strict && self.failures > 0
    }

    /// After an action has ended without being told to: what was meant for it must not be done
    /// outside of it, so somebody has to say first that he knows.
    fn take_note(&mut self, command: &Command) -> anyhow::Result<()> {
        let lost = self.lost.expect("only called when an action is lost");
        if matches!(command, Command::Commit | Command::Abort) {
            self.lost = None;
            return Ok(());
        }
        bail!("action {lost} has ended by itself, so this is not done; say `abort` to go on")
    }

    /// An object by name, looked up outside of any action, once.
    async fn callee(&mut self, name: &str) -> anyhow::Result<Rc<Callee>> {
        if let Some(known) = self.callees.get(name) {
            return Ok(known.clone());
        }
        self.system.forget();
        let found = Rc::new(Callee::find(&self.system, name).await?);
        if self.callees.len() >= CALLEES_MAX {
            self.callees.clear();
        }
        self.callees.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    fn show(&mut self) -> anyhow::Result<()> {
        if self.out.is_json() {
            let open = self
                .stack
                .iter()
                .map(|open| json!({ "action": open.id.to_string(), "kind": open.kind.word() }));
            let open: Vec<_> = open.collect();
            self.out.value(&json!({ "open": open }))?;
            return Ok(());
        }
        if self.stack.is_empty() {
            self.out.line("no action is open")?;
        }
        for (depth, open) in self.stack.iter().enumerate() {
            let (indent, kind) = ("  ".repeat(depth), open.kind.word());
            self.out.line(&format!("{indent}{} {kind}", open.id))?;
        }
        Ok(())
    }

    /// What became of an action: of the last one if none is named.
    async fn outcome(&mut self, action: Option<String>) -> anyhow::Result<()> {
        let action = match action {
            Some(text) => text.parse().map_err(|error| Usage(format!("{error}")))?,
            None => match self.last {
                Some((action, _)) => action,
                None => bail!("no top-level action has ended yet"),
            },
        };
        let open = self.stack.iter().any(|open| open.id.uid() == action.uid());
        let word = match self.last {
            _ if open => "open",
            Some((last, word)) if last.uid() == action.uid() && word != "unknown" => word,
            _ => outcome::word(outcome::find(&self.system, action, false).await?.outcome),
        };
        self.say(word, json!(action.to_string()))?;
        Ok(())
    }

    /// One fact: `committed 00c7…`.
    fn say(&mut self, word: &str, value: Value) -> io::Result<()> {
        self.out.facts(&[(word, value)])
    }

    /// Shows an error, which ends nothing; only a reader who is gone does.
    fn note(&mut self, done: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = done else {
            return Ok(());
        };
        if failure::is_broken_pipe(&error) {
            return Err(error);
        }
        self.out.flush()?;
        self.failures += 1;
        failure::report(&error, self.out.format());
        Ok(())
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Top => "top-level",
            Self::Nested => "nested",
            Self::Independent => "top-level, on its own",
        }
    }
}

impl fmt::Display for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abort => "abort",
            Self::End => "the shell ends",
        })
    }
}
