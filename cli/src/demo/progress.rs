//! What is seen while the load runs: one line that is drawn anew on a terminal, a line a second
//! elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::counts::Counts;
use super::millis;

/// How often the line of a terminal is drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is printed elsewhere.
const LINE: Duration = Duration::from_secs(1);

/// Shows the counts until the time is over.
pub(super) async fn show(counts: &Counts, begun: Instant, time: Duration) -> anyhow::Result<()> {
    let terminal = std::io::stderr().is_terminal();
    let bar = terminal.then(|| {
        let style = ProgressStyle::with_template("{bar:20} {msg}");
        ProgressBar::new(time.as_millis() as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let pause = if terminal { REDRAW } else { LINE };
    let mut before = (begun, 0);
    while begun.elapsed() + pause <= time {
        tokio::time::sleep(pause).await;
        let (now, answered) = (Instant::now(), counts.answered());
        let rate = (answered - before.1) as f64 / (now - before.0).as_secs_f64();
        before = (now, answered);
        let (payment, transfer) = counts.latency(0.50);
        let line = format!(
            "{:>3} s  {answered} done  {rate:.0}/s  payment {}  transfer {}  deadlocks {}  \
             kills {}",
            begun.elapsed().as_secs(),
            millis(payment),
            millis(transfer),
            counts.deadlocks.count(),
            counts.kills.get(),
        );
        match &bar {
            Some(bar) => {
                bar.set_position(begun.elapsed().as_millis() as u64);
                bar.set_message(line);
            }
            None => println!("{line}"),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}
