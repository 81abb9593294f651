//! Daemons and commands as child processes of a test.
//!
//! A [`Child`] runs in a process group of its own, its output is collected line by line by two
//! threads, and it is killed with its whole group when dropped, so that a failed test leaves
//! nothing running. The process is reaped only then: until its group has been killed its id
//! cannot pass to a stranger.
//!
//! It does not speak to the child: what a daemon says when it is ready is the caller's knowledge.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::wait::eventually_some;

/// A running process, killed on drop.
#[derive(Debug)]
pub struct Child {
    name: String,
    inner: std::process::Child,
    pid: Pid,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It left with this status.
    Code(i32),
    /// This signal ended it: 9 for SIGKILL.
    Signal(i32),
}

impl Child {
    /// Starts `command` with its standard input closed; `name` heads the reports of failures.
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    #[track_caller]
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut inner = match spawned {
            Ok(inner) => inner,
            Err(error) => panic!("cannot start {name} as {command:?}: {error}"),
        };
        let pid = Pid::from_child(&inner);
        let (stdout, out_reader) = collect(inner.stdout.take().expect("stdout is piped"));
        let (stderr, err_reader) = collect(inner.stderr.take().expect("stderr is piped"));
        let readers = vec![out_reader, err_reader];
        Self {
            name: name.to_owned(),
            inner,
            pid,
            stdout,
            stderr,
            readers,
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// The first line of standard output, past ones too, that `matches`; without its line end.
    ///
    /// # Panics
    ///
    /// When standard output ends, or `deadline` passes, without such a line.
    #[track_caller]
    pub fn wait_for_line(&self, deadline: Duration, matches: impl Fn(&str) -> bool) -> String {
        match self.stdout.find(deadline, matches) {
            Ok(line) => line,
            Err(why) => panic!("{} did not print the awaited line: {why}{self}", self.name),
        }
    }

    /// As [`Child::wait_for_line`], for a line of standard error.
    ///
    /// # Panics
    ///
    /// When standard error ends, or `deadline` passes, without such a line.
    #[track_caller]
    pub fn wait_for_log(&self, deadline: Duration, matches: impl Fn(&str) -> bool) -> String {
        match self.stderr.find(deadline, matches) {
            Ok(line) => line,
            Err(why) => panic!("{} did not log the awaited line: {why}{self}", self.name),
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    ///
    /// When it still runs after `deadline`.
    #[track_caller]
    pub fn wait(&self, deadline: Duration) -> Exit {
        let start = Instant::now();
        eventually_some(Duration::MAX, || {
            let exit = self.exit();
            let late = exit.is_none() && start.elapsed() >= deadline;
            assert!(!late, "{} still runs after {deadline:?}{self}", self.name);
            exit
        })
    }

    /// How the process ended, or `None` while it runs.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        // NOWAIT leaves the process to be reaped by `drop`, after its group has been killed.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::Pid(self.pid), options)
            .expect("the child is not reaped before drop")?;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Exit::Code(code)),
            (None, Some(signal)) => Some(Exit::Signal(signal)),
            (None, None) => None,
        }
    }

    /// Sends `signal` to the process alone, not to its group; nothing if it has ended.
    pub fn signal(&self, signal: Signal) {
        // The only failure left is that the process has ended, since it is our own child.
        let _ = rustix::process::kill_process(self.pid, signal);
    }

    /// Stops the process with SIGSTOP, and waits until it stands still: until then a thread of it
    /// that is busy goes on, and may answer what it was not to hear any more. SIGCONT ends it.
    ///
    /// # Panics
    ///
    /// When it has ended, or does not stand still after `deadline`.
    #[track_caller]
    pub fn freeze(&self, deadline: Duration) {
        self.signal(Signal::STOP);
        // The system says so to the parent when the last of the threads has stopped.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let start = Instant::now();
        eventually_some(Duration::MAX, || {
            let exit = self.exit();
            assert!(exit.is_none(), "{} is gone, {exit:?}{self}", self.name);
            // One that has ended cannot stop, which is an error: it is seen in the next round.
            let status = rustix::process::waitid(WaitId::Pid(self.pid), options)
                .ok()
                .flatten();
            let late = status.is_none() && start.elapsed() >= deadline;
            assert!(!late, "{} still runs after {deadline:?}{self}", self.name);
            status
        });
    }

    /// Kills the process alone with SIGKILL, as a crash would, and waits until it is gone.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        // Unlike `wait` without a deadline of ours: SIGKILL cannot be refused.
        self.wait(Duration::from_secs(60));
    }

    /// All lines of standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().lines.clone()
    }

    /// All lines of standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().lines.clone()
    }

    /// Waits for the end of the process and of its output: status, standard output and error.
    ///
    /// # Panics
    ///
    /// When it still runs after `deadline`.
    #[track_caller]
    pub fn finish(&self, deadline: Duration) -> (Exit, String, String) {
        let exit = self.wait(deadline);
        let (out, err) = (self.stdout.text(deadline), self.stderr.text(deadline));
        (exit, out, err)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A group whose members have all ended is no error here.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        let _ = self.inner.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// What the process has printed so far, for reports of failures.
impl std::fmt::Display for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (stream, lines) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let shown = lines.len().min(200);
            write!(text, "\n--- {stream} of {}, last {shown} lines", self.name)?;
            for line in &lines[lines.len() - shown..] {
                write!(text, "\n{line}")?;
            }
        }
        f.write_str(&text)
    }
}

/// The lines of one stream, filled by a thread, awaited by tests.
#[derive(Debug, Default)]
struct Lines {
    state: Mutex<LinesState>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct LinesState {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, LinesState> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn find(&self, within: Duration, matches: impl Fn(&str) -> bool) -> Result<String, String> {
        let start = Instant::now();
        let mut state = self.lock();
        let mut seen = 0;
        loop {
            if let Some(line) = state.lines[seen..].iter().find(|line| matches(line)) {
                return Ok(line.clone());
            }
            seen = state.lines.len();
            if state.ended {
                return Err("its output ended".to_owned());
            }
            let Some(left) = within.checked_sub(start.elapsed()) else {
                return Err(format!("waited {within:?}"));
            };
            let waited = self.grown.wait_timeout(state, left);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    fn text(&self, within: Duration) -> String {
        // A grandchild may hold the stream open after the child's end: hence the deadline.
        let _ = self.find(within, |_| false);
        let state = self.lock();
        state.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }
}

fn collect(stream: impl Read + Send + 'static) -> (Arc<Lines>, JoinHandle<()>) {
    let lines = Arc::new(Lines::default());
    let filled = Arc::clone(&lines);
    let reader = thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']).to_owned();
            filled.lock().lines.push(text);
            filled.grown.notify_all();
            line.clear();
        }
        filled.lock().ended = true;
        filled.grown.notify_all();
    });
    (lines, reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Child {
        Child::spawn("shell", Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn it_collects_both_streams_and_the_status() {
        let child = shell("echo out; echo err >&2; printf tail; exit 3");
        let (exit, out, err) = child.finish(LONG);
        assert_eq!(exit, Exit::Code(3));
        assert_eq!((out.as_str(), err.as_str()), ("out\ntail\n", "err\n"));
    }

    #[test]
    fn it_waits_for_the_line_that_says_ready() {
        let child = shell("echo starting; echo ready 127.0.0.1:80; echo 'a log' >&2; sleep 600");
        let line = child.wait_for_line(LONG, |line| line.starts_with("ready "));
        assert_eq!(line, "ready 127.0.0.1:80");
        assert_eq!(child.wait_for_log(LONG, |_| true), "a log");
        assert_eq!(child.exit(), None);
        child.kill();
        assert_eq!(child.exit(), Some(Exit::Signal(9)));
    }

    #[test]
    fn a_process_that_ends_too_early_is_reported_with_its_output() {
        let child = shell("echo 'port taken' >&2; exit 1");
        let wait = AssertUnwindSafe(|| child.wait_for_line(LONG, |line| line == "ready"));
        let report = *catch_unwind(wait)
            .unwrap_err()
            .downcast::<String>()
            .unwrap();
        assert!(report.contains("its output ended"), "{report}");
        let logged = child.wait_for_log(LONG, |line| line == "port taken");
        assert!(child.to_string().contains(&logged));
    }

    #[test]
    fn a_signal_reaches_the_process() {
        let child =
            shell("trap 'echo got it; exit 0' TERM; echo ready; while :; do sleep 0.02; done");
        child.wait_for_line(LONG, |line| line == "ready");
        child.signal(Signal::TERM);
        assert_eq!(child.wait(LONG), Exit::Code(0));
        child.wait_for_line(LONG, |line| line == "got it");
    }

    #[test]
    fn what_is_frozen_stands_still_and_goes_on() {
        let child = shell("while :; do echo on; sleep 0.01; done");
        for _ in 0..2 {
            child.freeze(LONG);
            // One letter: T is stopped.
            let status = format!("/proc/{}/status", child.id());
            let status = std::fs::read_to_string(status).unwrap();
            assert!(status.contains("State:\tT"), "{status}");
            let said = child.stdout().len();
            child.signal(Signal::CONT);
            eventually(LONG, || child.stdout().len() > said + 1);
        }
    }

    #[test]
    fn what_has_ended_cannot_be_frozen() {
        let child = shell("exit 2");
        child.wait(LONG);
        let report = catch_unwind(AssertUnwindSafe(|| child.freeze(LONG))).unwrap_err();
        let report = *report.downcast::<String>().unwrap();
        assert!(report.contains("is gone"), "{report}");
    }

    #[test]
    fn dropping_it_kills_what_it_started() {
        let child = shell("sleep 600 & echo $!; wait");
        let grandchild = child.wait_for_line(LONG, |_| true);
        let grandchild = Pid::from_raw(grandchild.parse().unwrap()).unwrap();
        assert!(rustix::process::test_kill_process(grandchild).is_ok());
        drop(child);
        // An orphan that ended stays visible until the machine's first process reaps it.
        let status = format!("/proc/{}/status", grandchild.as_raw_nonzero());
        eventually(LONG, || match std::fs::read_to_string(&status) {
            Ok(text) => text.contains("State:\tZ"),
            Err(_) => true,
        });
    }
}
