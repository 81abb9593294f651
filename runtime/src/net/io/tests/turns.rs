//! How many frames are taken before what they caused is written.

use super::*;

/// How many of so many that are there are taken in one turn that its time does not end: the thread
/// may lose its processor for longer.
fn taken(there: usize, open_questions: usize) -> usize {
    let mut turns = (0..1_000).filter_map(|_| taken_in_time(there, open_questions));
    turns.next().expect("no turn is over in time")
}

fn taken_in_time(there: usize, open_questions: usize) -> Option<usize> {
    let connection = connection(|hello| hello, Traffic::default());
    let later = Instant::now() + Duration::from_secs(60);
    let questions: Vec<_> = (0..open_questions)
        .map(|_| connection.call(&mut invoke(&Bytes::new()), later).unwrap())
        .collect();
    let echo = Echo {
        silent: true,
        ..Echo::default()
    };
    let mut buffer = BytesMut::from(&framed(8).repeat(there)[..]);
    let mut parts = Parts::new(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
    let into = (&mut parts, &mut Later::default());
    let begun = Instant::now();
    take_frames(&mut buffer, into, READ_BYTES, &connection, &echo).unwrap();
    let in_time = begun.elapsed() < TURN;
    let came = lock(&echo.came).len();
    assert_eq!(buffer.len(), framed(8).len() * (there - came));
    drop(questions);
    in_time.then_some(came)
}

#[test]
fn a_turn_is_a_quarter_of_what_is_there_or_open_within_bounds() {
    for (there, expected) in [(1, 1), (16, 16), (17, 16), (64, 16), (100, 25), (1000, 64)] {
        assert_eq!(taken(there, 0), expected, "{there} are there");
    }
    assert_eq!(taken(40, 64), 16);
    assert_eq!(taken(40, 120), 30);
    assert_eq!(taken(100, 4_000), 64);
}
