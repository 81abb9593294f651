//! What makes a daemon stop: SIGTERM, SIGINT, or the end of whoever started it.

use std::io::Read as _;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Why a daemon is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// SIGTERM.
    Terminate,
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// Standard input ended.
    InputEnded,
}

/// The wishes to stop, from the moment it is made.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    input_ended: Option<watch::Receiver<bool>>,
}

impl Stop {
    /// Begins to listen; `with_stdin` also to the end of standard input.
    ///
    /// # Errors
    /// If the system refuses the signal handlers.
    pub fn new(with_stdin: bool) -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            input_ended: with_stdin.then(watch_stdin),
        })
    }

    /// Waits for the next wish. The end of standard input is told once.
    pub async fn requested(&mut self) -> Why {
        let input_ended = async {
            match &mut self.input_ended {
                // The sender lives in a thread that ends with the input.
                Some(ended) => drop(ended.wait_for(|ended| *ended).await),
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            _ = self.terminate.recv() => Why::Terminate,
            _ = self.interrupt.recv() => Why::Interrupt,
            () = input_ended => Why::InputEnded,
        };
        if why == Why::InputEnded {
            self.input_ended = None;
        }
        why
    }
}

/// A thread of its own, since a read of standard input cannot be taken back: tokio's would keep
/// the process from ending.
fn watch_stdin() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 256];
        while !matches!(stdin.read(&mut ignored), Ok(0) | Err(_)) {}
        sender.send_replace(true);
        // The value must stay to be seen.
        std::thread::park();
    });
    receiver
}
