//! `partha shell`, told what to do line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::LONG;
use super::system::System;

/// A running shell. It is killed when it is dropped.
pub(crate) struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Shell {
    /// Starts one. What goes wrong in it is said among the other lines.
    pub(crate) fn start(system: &System) -> Self {
        // Errors in one pipe with all else, so that what it says comes in order.
        let script = format!(
            "exec {} shell --keep-going 2>&1",
            env!("CARGO_BIN_EXE_partha")
        );
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]);
        command.env("PARTHA_NAMING", &system.naming);
        let (sender, said) = channel();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                // The test may have heard enough.
                let _ = sender.send(line.unwrap());
            }
        });
        let input = child.stdin.take();
        Self { child, input, said }
    }

    /// Says a line, without waiting for anything.
    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// The next line that it says.
    #[track_caller]
    pub(crate) fn hear(&self) -> String {
        let heard = self.said.recv_timeout(LONG);
        heard.unwrap_or_else(|error| panic!("the shell says nothing: {error}"))
    }

    /// Whether it says nothing for a moment.
    pub(crate) fn is_silent(&self, time: Duration) -> bool {
        self.said.recv_timeout(time).is_err()
    }

    /// Says a line and answers what it says to it, one line.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Begins an action; its id.
    #[track_caller]
    pub(crate) fn begin(&mut self) -> String {
        let said = self.ask("begin");
        let id = said.strip_prefix("begun  ");
        id.unwrap_or_else(|| panic!("not begun: {said}")).to_owned()
    }

    /// Ends its input and waits for it: its status, and what it said last.
    #[track_caller]
    pub(crate) fn end(mut self) -> (i32, Vec<String>) {
        drop(self.input.take());
        let status = self.child.wait().unwrap();
        let said = std::iter::from_fn(|| self.said.recv_timeout(LONG).ok());
        (status.code().unwrap(), said.collect())
    }

    /// Stops it where it is: it holds what it holds, and says nothing any more.
    pub(crate) fn freeze(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
