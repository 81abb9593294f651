//! Ctrl-C: what runs is ended, and whatever was started is put away, as if a run had failed.
//!
//! A first interruption ends the client that runs, so that its run fails and everything is dropped
//! on the way out: servers end, and the folders of this program and of those that it has started
//! are removed. A second one ends this program at once, and leaves the folders where they are.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The process that is waited for now.
static WAITED_FOR: Mutex<Option<Pid>> = Mutex::new(None);

/// What a shell reports of a program that was interrupted.
const EXIT_CODE: i32 = 130;

/// Listens from now on.
pub(crate) fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot make a runtime for signals")?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if INTERRUPTED.swap(true, Ordering::SeqCst) {
                    std::process::exit(EXIT_CODE);
                }
                let pid = *WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(pid) = pid {
                    // It may have ended by itself, of the same interruption.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        });
    });
    Ok(())
}

/// Fails if the user wants no more.
pub(crate) fn check() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Waits for a process that an interruption ends.
pub(crate) fn wait_for<T>(pid: u32, wait: impl FnOnce() -> T) -> T {
    let set = |pid| *WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    set(Pid::from_raw(pid.cast_signed()));
    if check().is_err() {
        // The interruption came before the process was known.
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let outcome = wait();
    set(None);
    outcome
}

/// The failure of a process that was waited for, if it failed.
pub(crate) fn succeeded(what: &str, status: ExitStatus) -> anyhow::Result<()> {
    check()?;
    if !status.success() {
        bail!("{what} failed: {status}");
    }
    Ok(())
}
