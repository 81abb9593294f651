//! Keeping one child process running.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::supervise::{Process, Program, Sink};

/// The pause before the first restart; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Whoever ran this long is restarted after the shortest pause again.
const HEALTHY: Duration = Duration::from_secs(30);

/// A process that is started again whenever it ends.
#[derive(Debug)]
pub(super) struct Kept {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Kept {
    pub(super) fn new(program: Program, process: Process, sink: Sink) -> Self {
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(keep(program, process, sink, stopping));
        Self { stop, task }
    }

    /// Stops it for good.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        if self.task.await.is_err() {
            eprintln!("warning: the task of a child process panicked");
        }
    }
}

async fn keep(
    program: Program,
    mut process: Process,
    sink: Sink,
    mut stopping: watch::Receiver<bool>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            ended = run(&mut process) => ended,
            () = asked_to_stop(&mut stopping) => {
                if let Err(error) = process.stop().await {
                    eprintln!("warning: {error:#}");
                }
                return;
            }
        };
        if begun.elapsed() >= HEALTHY {
            pause = PAUSE_MIN;
        }
        let name = &program.name;
        println!(
            "{name:<8} {ended}; starting it again in {:.1} s",
            pause.as_secs_f64()
        );
        process = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked_to_stop(&mut stopping) => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match program.spawn(&sink) {
                Ok(process) => break process,
                Err(error) => println!("{name:<8} {error:#}"),
            }
        };
    }
}

/// Waits for the end of a process, and says how it ended; tells when it is ready before that.
async fn run(process: &mut Process) -> String {
    if !process.is_ready() {
        if let Err(error) = process.ready().await {
            return format!("{error:#}");
        }
        println!("{:<8} ready again", process.name());
    }
    match process.ended().await {
        Ok(status) => format!("ended: {status}"),
        Err(error) => format!("{error:#}"),
    }
}

async fn asked_to_stop(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}
