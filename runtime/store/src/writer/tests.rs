//! When sets are waited for, and how the thread ends.

use partha_core::id::{Incarnation, Uid};

use super::*;
use crate::batch::Item;

#[test]
fn only_a_crowd_is_waited_for_and_not_for_long() {
    let last = |waited_for, took_us| Last {
        waited_for,
        took: Duration::from_micros(took_us),
    };
    // Whoever was alone, and what is as large as before, leaves at once.
    assert_eq!(Last::default().pause(1), None);
    assert_eq!(last(1, 900).pause(1), None);
    assert_eq!(last(8, 900).pause(8), None);
    assert_eq!(last(8, 900).pause(9), None);
    // A sweep of what has expired has no batch at all.
    assert_eq!(last(8, 900).pause(0), None);
    assert_eq!(last(8, 300).pause(7), Some(Duration::from_micros(100)));
    assert_eq!(last(8, 90_000).pause(1), Some(GATHER_MAX));
}

/// Commits a set when it is told to.
struct Slow {
    begun: SyncSender<()>,
    go_on: Receiver<()>,
}

impl Backend for Slow {
    fn commit(&mut self, batches: &[Batch], _sweep: Sweep) -> Outcome {
        self.begun.send(()).unwrap();
        self.go_on.recv().unwrap();
        Outcome {
            results: batches.iter().map(|_| Ok(())).collect(),
            ..Outcome::default()
        }
    }
}

#[test]
fn what_is_abandoned_is_answered_in_the_order_of_submission() {
    let (begun, has_begun) = sync_channel(9);
    let (go, go_on) = sync_channel(9);
    let fences = Arc::new(Fences::new(Incarnation(1)));
    let backend = Slow { begun, go_on };
    let limits = Limits {
        sweep_interval_ms: 0,
        ..Limits::default()
    };
    let writer = Writer::start(backend, fences, limits).unwrap();
    // The first look for what has expired.
    has_begun.recv().unwrap();
    let (done, answers) = sync_channel(9);
    let submit = |name: char, batch: Batch| {
        let done = done.clone();
        let completion = move |result: Result<(), StoreError>| {
            done.send((name, result.is_ok())).unwrap();
        };
        writer.submit(batch, Box::new(completion));
    };
    let undo = || Item::DeleteShadow { action: Uid::NIL };
    let delete = || Item::Delete { uid: Uid::NIL };
    submit('a', undo().into());
    submit('b', undo().into());
    submit('c', delete().into());
    submit('d', undo().into());
    submit('e', delete().into());
    writer.abandon();
    go.send(()).unwrap();
    writer.close();
    let answered: Vec<_> = answers.try_iter().collect();
    let expected = ['a', 'b', 'c', 'd', 'e'].map(|name| (name, false));
    assert_eq!(answered, expected);
}

/// Panics whenever nothing happens.
struct Nervous(SyncSender<()>);

impl Backend for Nervous {
    fn commit(&mut self, batches: &[Batch], _sweep: Sweep) -> Outcome {
        Outcome {
            results: batches.iter().map(|_| Ok(())).collect(),
            next_expiry_ms: Some(None),
            ..Outcome::default()
        }
    }

    fn quiet_after(&self) -> Option<Duration> {
        Some(Duration::from_millis(1))
    }

    fn quiet(&mut self) {
        let _ = self.0.try_send(());
        panic!("it is too quiet");
    }
}

#[test]
fn a_panic_while_nothing_happens_does_not_end_the_thread() {
    let (panics, has_panicked) = sync_channel(1);
    let fences = Arc::new(Fences::new(Incarnation(1)));
    let writer = Writer::start(Nervous(panics), fences, Limits::default()).unwrap();
    has_panicked.recv().unwrap();
    let (done, answer) = sync_channel(1);
    let completion = move |result: Result<(), StoreError>| done.send(result.is_ok()).unwrap();
    writer.submit(Batch::default(), Box::new(completion));
    assert_eq!(answer.recv(), Ok(true));
    writer.close();
}
