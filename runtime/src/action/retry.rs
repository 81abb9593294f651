//! Trying a whole top-level action again.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::error::ActionError;
use super::level::Level;
use super::line::Standing;
use super::{Action, ActionOptions, run};
use crate::client::Client;

/// The pause after the first failure, on average half of it.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Runs the closure until it commits, fails for good, or tries or time are used up.
pub(super) async fn tries<T, E>(
    client: &Client,
    within: &Standing,
    options: ActionOptions,
    body: impl AsyncFnOnce(&Action) -> Result<T, E> + Clone,
) -> Result<T, ActionError<E>> {
    let limit = Instant::now() + options.deadline;
    let mut born_ms = None;
    let mut tried = 0;
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        // It grows older with each try, and so is not the victim for ever.
        let level = Level::top(client, within, left, born_ms);
        born_ms = Some(level.born_ms());
        tried += 1;
        let outcome = run(level, body.clone()).await;
        let pause = pause(tried);
        let left = limit.saturating_duration_since(Instant::now());
        match outcome {
            Err(error) if error.is_passing() && tried < options.tries && pause < left => {
                tracing::debug!(action = %error.action(), tried, ?pause, "action is tried again");
                tokio::time::sleep(pause).await;
            }
            outcome => return outcome,
        }
    }
}

/// How long to wait after this many failures: longer each time, and by chance, so that those who
/// were in each other's way meet less likely again.
pub(super) fn pause(tried: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << tried.min(16).saturating_sub(1));
    let longest = longest.min(PAUSE_MAX);
    let random = RandomState::new().hash_one(tried) as u32;
    longest.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        for tried in [1, 2, 5, 30, u32::MAX] {
            let longest = (0..200).map(|_| pause(tried)).max().unwrap();
            let bound = PAUSE_MIN * 2_u32.pow(tried.min(10) - 1);
            assert!(longest <= bound.min(PAUSE_MAX), "{tried}: {longest:?}");
            assert!(longest >= bound.min(PAUSE_MAX) / 2, "{tried}: {longest:?}");
        }
    }
}
