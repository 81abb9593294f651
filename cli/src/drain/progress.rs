//! What is seen while a node is drained: one line that is drawn anew on a terminal, a line every
//! few seconds elsewhere. Both go to standard error, since the result goes to standard output.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the line of a terminal is drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is printed elsewhere.
const LINE: Duration = Duration::from_secs(2);

/// How far it is.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
    /// Objects there were at the start.
    total: u64,
    moved: Cell<u64>,
    /// Objects that stayed in this pass, for now or for good.
    stays: Cell<u64>,
}

impl Progress {
    pub(super) fn begin(total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template("{bar:20} {msg}");
            ProgressBar::new(total)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            begun: Instant::now(),
            total,
            moved: Cell::new(0),
            stays: Cell::new(0),
        }
    }

    pub(super) fn begin_pass(&self) {
        self.stays.set(0);
    }

    pub(super) fn moved(&self) {
        self.moved.set(self.moved.get() + 1);
    }

    pub(super) fn stays(&self) {
        self.stays.set(self.stays.get() + 1);
    }

    /// Objects that have moved.
    pub(super) fn moved_so_far(&self) -> u64 {
        self.moved.get()
    }

    /// Since the start.
    pub(super) fn time(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Shows it until nobody waits for this any more.
    pub(super) async fn show(&self) -> Infallible {
        // It may have ended before, and objects have come.
        if let Some(bar) = &self.bar {
            bar.reset();
        }
        let pause = if self.bar.is_some() { REDRAW } else { LINE };
        loop {
            tokio::time::sleep(pause).await;
            let line = self.line();
            match &self.bar {
                Some(bar) => {
                    // More may have come than there were at the start.
                    bar.set_length(self.total.max(self.moved.get()));
                    bar.set_position(self.moved.get());
                    bar.set_message(line);
                }
                None => eprintln!("{line}"),
            }
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self) -> String {
        let (time, moved) = (self.begun.elapsed(), self.moved.get());
        let stay = match self.stays.get() {
            0 => String::new(),
            stays => format!("  {stays} stay so far"),
        };
        let (seconds, rate) = (time.as_secs(), moved as f64 / time.as_secs_f64().max(0.001));
        format!(
            "{seconds:>3} s  {moved} of {} moved  {rate:.0}/s{stay}",
            self.total
        )
    }
}
