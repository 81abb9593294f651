//! Messages of an older and of a newer schema: what was appended reads as its default, and what
//! is not known is passed over.

use codegen_corpus::{evolved_new as new, evolved_old as old};
use partha::abi::{DecodeError, Struct, message};

/// Writes with one schema and reads with another.
fn carry<A: Struct, B: Struct>(value: &A) -> Result<B, DecodeError> {
    let w = message(A::DATA, A::POINTERS, |w, s| value.write(w, s));
    w.into_message()
        .expect("a small message")
        .reader()
        .and_then(B::read)
}

#[test]
fn an_older_record_gets_defaults() {
    let record = old::Record {
        id: 7,
        name: "n".to_owned(),
        tags: vec!["t".to_owned()],
    };
    let expected = new::Record {
        id: 7,
        name: "n".to_owned(),
        tags: vec!["t".to_owned()],
        weight: 0.0,
        note: None,
        parent: None,
        limit: None,
        more: Vec::new(),
    };
    assert_eq!(carry(&record), Ok(expected));
}

#[test]
fn a_newer_record_is_read_by_its_beginning() {
    let record = new::Record {
        id: 7,
        name: "n".to_owned(),
        weight: 1.5,
        note: Some("x".to_owned()),
        limit: Some(0),
        more: vec![1, 2],
        ..new::Record::default()
    };
    let expected = old::Record {
        id: 7,
        name: "n".to_owned(),
        tags: Vec::new(),
    };
    assert_eq!(carry(&record), Ok(expected));
}

#[test]
fn pinned_members_may_be_declared_in_another_order() {
    let value = old::Reordered {
        first: -3,
        second: "two".to_owned(),
    };
    let expected = new::Reordered {
        first: -3,
        second: "two".to_owned(),
        third: false,
    };
    assert_eq!(carry(&value), Ok(expected.clone()));
    assert_eq!(carry(&expected), Ok(value));
}

#[test]
fn lists_of_structs_grow_too() {
    let log = old::Log {
        records: vec![
            old::Record {
                id: 1,
                ..old::Record::default()
            },
            old::Record {
                id: 2,
                ..old::Record::default()
            },
        ],
        events: vec![old::Event::Opened(4), old::Event::Closed],
        last: old::Status::Closed,
        renamed: 9,
    };
    let grown: new::Log = carry(&log).unwrap();
    assert_eq!(
        grown
            .records
            .iter()
            .map(|record| record.id)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(grown.events, [new::Event::Opened(4), new::Event::Closed]);
    assert_eq!((grown.last, grown.now_called_so), (new::Status::Closed, 9));
    assert!(grown.by_id.is_empty());
    assert_eq!(carry(&grown), Ok(log));
}

#[test]
fn a_value_that_is_not_known_here_is_an_error_that_names_it() {
    let log = new::Log {
        records: Vec::new(),
        events: vec![new::Event::Renamed("r".to_owned())],
        last: new::Status::Open,
        now_called_so: 0,
        by_id: Default::default(),
    };
    let error = carry::<_, old::Log>(&log).unwrap_err().to_string();
    assert!(
        error.contains("`events`") && error.contains("evolved_old.Event"),
        "{error}"
    );
    let log = new::Log {
        events: Vec::new(),
        last: new::Status::Lost,
        ..log
    };
    let error = carry::<_, old::Log>(&log).unwrap_err().to_string();
    assert!(
        error.contains("`last`") && error.contains("evolved_old.Status"),
        "{error}"
    );
}

#[test]
fn states_grow_and_say_so_by_their_hash() {
    let state: new::book::State = carry(&old::book::State { pages: 5 }).unwrap();
    assert_eq!(
        state,
        new::book::State {
            pages: 5,
            title: String::new(),
            read: false
        }
    );
    assert_ne!(old::book::INFO.schema, new::book::INFO.schema);
    assert_eq!(codegen_corpus::bank::account::INFO.name, "bank.Account");
}

#[test]
fn the_same_key_twice_is_an_error() {
    use codegen_corpus::maps::Keys;
    // `f` is the sixth map; its entries are a byte each for key and value.
    let w = message(Keys::DATA, Keys::POINTERS, |w, s| {
        let entries = w.structures(s.slot(5), 2, 1, 0);
        for index in 0..2 {
            w.set_u8(entries.structure(index), 0, 1);
            w.set_u8(entries.structure(index), 1, index as u8);
        }
    });
    let message = w.into_message().unwrap();
    let error = message
        .reader()
        .and_then(Keys::read)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`f`") && error.contains("each key once"),
        "{error}"
    );
}
