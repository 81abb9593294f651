//! Lines from a person at a terminal, or from a script.
//!
//! They are read on a thread of their own, one at a time and only when asked for, so that the
//! prompt appears when it is due, and a script is not read further than it is executed.

use std::io::{self, BufRead as _, IsTerminal as _};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::sync::mpsc;

/// What came.
#[derive(Debug)]
pub(super) enum Line {
    Text(String),
    /// Ctrl-C at the prompt: what was typed is not meant.
    Dropped,
    End,
    Failed(io::Error),
}

/// Where lines come from.
#[derive(Debug)]
pub(super) struct Input {
    prompts: mpsc::Sender<String>,
    lines: mpsc::Receiver<Line>,
    /// The line that is being read was asked for by somebody who is gone.
    owed: bool,
    interactive: bool,
}

impl Input {
    /// Standard input.
    pub(super) fn start() -> anyhow::Result<Self> {
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        let editor = interactive.then(DefaultEditor::new).transpose()?;
        let (prompts, mut asked) = mpsc::channel::<String>(1);
        let (sender, lines) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("partha-shell-input".to_owned())
            .spawn(move || {
                let mut editor = editor;
                while let Some(prompt) = asked.blocking_recv() {
                    let line = match &mut editor {
                        Some(editor) => edit(editor, &prompt),
                        None => read(),
                    };
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            prompts,
            lines,
            owed: false,
            interactive,
        })
    }

    /// Whether a person types.
    pub(super) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// The next line. Whoever stops waiting for it loses nothing: the next to ask gets it.
    pub(super) async fn next(&mut self, prompt: &str) -> Line {
        if !self.owed {
            self.owed = true;
            if self.prompts.send(prompt.to_owned()).await.is_err() {
                return Line::End;
            }
        }
        let line = self.lines.recv().await.unwrap_or(Line::End);
        self.owed = false;
        line
    }
}

fn edit(editor: &mut DefaultEditor, prompt: &str) -> Line {
    match editor.readline(prompt) {
        Ok(line) => {
            // Without a history the shell is as good; a full one drops its oldest line.
            let _ = editor.add_history_entry(&line);
            Line::Text(line)
        }
        Err(ReadlineError::Eof) => Line::End,
        Err(ReadlineError::Interrupted) => Line::Dropped,
        Err(ReadlineError::Io(error)) => Line::Failed(error),
        Err(other) => Line::Failed(io::Error::other(other)),
    }
}

fn read() -> Line {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) => Line::End,
        Ok(_) => Line::Text(line),
        Err(error) => Line::Failed(error),
    }
}
