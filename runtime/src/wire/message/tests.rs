//! Frames about actions come back as they went; hostile ones are refused.

mod official;

use partha_core::action::path::Joined;
use partha_core::action::scope::ABORTED_MAX;
use partha_core::id::Incarnation;
use partha_core::{Abort, End, Fault};
use partha_wire::Message as Frame;

use super::groups::GROUPS_MAX;
use super::*;
use crate::config::MESSAGE_BYTES_MAX;
use crate::wire::frame::{self, Frame as Parsed};

fn uid(local: u64) -> Uid {
    Uid {
        node: NodeId(7),
        local,
    }
}

fn site(shard: u16) -> Site {
    let node = NodeId(0x1234_5678_9abc_def0);
    Site { node, shard }
}

fn participant(shard: u16) -> Participant {
    Participant {
        site: site(shard),
        incarnation: Incarnation(0x00ab_cdef),
        joined: Joined {
            join: u64::MAX - u64::from(shard),
            updated: shard == 1,
            decider: (shard >= 6).then(|| uid(66)),
            part: shard == 7,
        },
    }
}

fn wait(number: u64) -> WaitId {
    WaitId {
        site: site(3),
        incarnation: Incarnation(5),
        number,
    }
}

fn edge(number: u64) -> Edge {
    let party = |root| Party {
        path: Path::top(uid(root)).nested(uid(root + 1)).top_level(uid(9)),
        home: NodeId(root),
        born_ms: 1_700_000_000_000 + root,
    };
    Edge {
        wait: wait(number),
        object: uid(100 + number),
        waiter: party(1),
        owner: party(20),
    }
}

/// One of each, with each value of each enum.
fn messages() -> Vec<Message> {
    let action = uid(1);
    let mut all = Vec::new();
    for one in [None, Some(uid(40))] {
        all.extend([
            Message::Merge {
                action,
                parent: uid(2),
                part: one,
            },
            Message::Prepare {
                action,
                incarnation: Incarnation(4),
                join: 77,
                aborted: vec![uid(2), uid(3)],
                decider: one,
                part: None,
            },
            Message::Prepare {
                action,
                incarnation: Incarnation::MAX,
                join: u64::MAX,
                aborted: Vec::new(),
                decider: one,
                part: Some(uid(44)),
            },
            Message::Commit { action, part: one },
            Message::Abort { action, part: one },
        ]);
        for other in [None, Some(uid(41))] {
            all.push(Message::Query {
                action,
                decider: one,
                part: other,
            });
        }
        for verdict in [Verdict::Committed, Verdict::Aborted, Verdict::InFlight] {
            all.push(Message::Verdict {
                action,
                verdict,
                part: one,
            });
        }
        for (site, groups) in [
            (true, vec![]),
            (false, vec![uid(42)]),
            (true, vec![uid(43)]),
        ] {
            all.push(Message::Acknowledge {
                action,
                site,
                groups,
                decider: one,
            });
        }
        all.extend(votes(one));
    }
    all.extend(about_deadlocks().map(Message::Deadlock));
    all
}

/// With and without a replicated object, of each vote.
fn votes(one: Option<Uid>) -> Vec<Message> {
    let (mut all, action) = (Vec::new(), uid(1));
    let groups: Vec<Uid> = one.into_iter().collect();
    for vote in [Vote::Yes, Vote::ReadOnly, Vote::No] {
        for moved in [
            Vec::new(),
            vec![participant(5), participant(6), participant(7)],
        ] {
            all.push(Message::Vote {
                action,
                vote,
                moved,
                groups: groups.clone(),
                decider: one,
                part: None,
            });
        }
        all.push(Message::Vote {
            action,
            vote,
            moved: Vec::new(),
            groups: Vec::new(),
            decider: one,
            part: Some(uid(45)),
        });
    }
    all
}

fn about_deadlocks() -> [Deadlock; 7] {
    let (edges, root) = (vec![edge(1), edge(2)], uid(8));
    [
        Deadlock::Waits {
            edges: edges.clone(),
        },
        Deadlock::Resumed {
            wait: wait(6),
            root,
        },
        Deadlock::Probe {
            edges: edges.clone(),
        },
        Deadlock::Confirm {
            cycle: 5,
            to: site(2),
            edge: edge(3),
        },
        Deadlock::Confirmed {
            cycle: 5,
            wait: wait(3),
            holds: true,
        },
        Deadlock::Confirmed {
            cycle: 6,
            wait: wait(4),
            holds: false,
        },
        Deadlock::Break {
            wait: wait(3),
            victim: uid(4),
            cycle: edges,
        },
    ]
}

fn actions() -> Vec<Action> {
    let whats = messages().into_iter().map(What::Message).chain([
        What::Commit(CommitRequest {
            action: uid(1),
            coordinator: participant(0),
            others: vec![participant(1), participant(2)],
            aborted: vec![uid(3)],
            decider: None,
        }),
        What::Commit(CommitRequest {
            action: uid(1),
            coordinator: participant(6),
            others: vec![participant(1)],
            aborted: Vec::new(),
            decider: Some(uid(66)),
        }),
        What::Commit(CommitRequest {
            action: uid(1),
            coordinator: participant(7),
            others: vec![participant(7)],
            aborted: Vec::new(),
            decider: Some(uid(66)),
        }),
        What::Ask {
            action: uid(1),
            decider: None,
        },
        What::Ask {
            action: uid(1),
            decider: Some(uid(66)),
        },
    ]);
    let news = group::tests::news().into_iter().map(Box::new);
    let whats = whats.chain(news.map(What::Group));
    let number = |(index, what): (usize, What)| {
        let is_message = matches!(what, What::Message(_) | What::Group(_));
        Action {
            question: if is_message { 0 } else { 31 },
            shard: match index % 2 {
                0 => Shard::Number(index as u16),
                _ => Shard::Of(uid(55)),
            },
            from: u16::MAX - index as u16,
            what,
        }
    };
    whats.enumerate().map(number).collect()
}

fn framed(action: &Action) -> Vec<u8> {
    let mut bytes = frame::action(action).to_framed().unwrap();
    frame::set_question(&mut bytes, action.question);
    bytes
}

fn parse(bytes: Vec<u8>) -> Result<Action, DecodeError> {
    match frame::parse(bytes.into())? {
        Parsed::Action(action) => Ok(*action),
        other => panic!("no action: {other:?}"),
    }
}

#[test]
fn every_message_and_request_comes_back_as_it_went() {
    for action in actions() {
        assert_eq!(parse(framed(&action)).unwrap(), action);
    }
}

#[test]
fn every_end_and_answer_comes_back_as_it_went() {
    let faults = [Fault::Store, Fault::Fenced, Fault::Full, Fault::Exists];
    let mut aborts = faults.map(Abort::Store).to_vec();
    aborts.extend([
        Abort::Lost(site(1)),
        Abort::Refused(site(2)),
        Abort::Silent(site(3)),
        Abort::Busy(site(4)),
        Abort::Ended,
    ]);
    let ends = aborts.into_iter().map(End::Aborted);
    for end in ends.chain([End::Committed, End::Unknown]) {
        let message = body(|w, slot| write_ended(w, slot, end));
        assert_eq!(read_ended(message.root()).unwrap(), end);
    }
    let verdicts = [Verdict::Committed, Verdict::Aborted, Verdict::InFlight];
    for told in verdicts.map(Some).into_iter().chain([None]) {
        let message = body(|w, slot| write_told(w, slot, told));
        assert_eq!(read_told(message.root()).unwrap(), told);
    }
}

fn body(write: impl FnOnce(&mut Writer, Slot)) -> Frame {
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    write(&mut w, Slot::ROOT);
    w.into_message().unwrap()
}

#[test]
fn a_request_needs_a_question_and_a_message_has_none() {
    for action in actions() {
        let mut bytes = framed(&action);
        frame::set_question(&mut bytes, if action.question == 0 { 1 } else { 0 });
        assert!(parse(bytes).is_err(), "{action:?}");
    }
}

#[test]
fn more_than_is_allowed_is_refused() {
    let action = |what| Action {
        question: 0,
        shard: Shard::Number(0),
        from: 0,
        what: What::Message(what),
    };
    let prepare = |count| {
        action(Message::Prepare {
            action: uid(1),
            incarnation: Incarnation(1),
            join: 1,
            aborted: vec![uid(2); count],
            decider: None,
            part: None,
        })
    };
    let acknowledge = |count| {
        action(Message::Acknowledge {
            action: uid(1),
            site: false,
            groups: vec![uid(2); count],
            decider: None,
        })
    };
    assert!(parse(framed(&acknowledge(GROUPS_MAX))).is_ok());
    assert!(parse(framed(&acknowledge(GROUPS_MAX + 1))).is_err());
    let vote = |count| {
        action(Message::Vote {
            action: uid(1),
            vote: Vote::Yes,
            moved: Vec::new(),
            groups: vec![uid(2); count],
            decider: None,
            part: None,
        })
    };
    assert!(parse(framed(&vote(GROUPS_MAX))).is_ok());
    assert!(parse(framed(&vote(GROUPS_MAX + 1))).is_err());
    assert!(parse(framed(&prepare(ABORTED_MAX))).is_ok());
    assert!(parse(framed(&prepare(ABORTED_MAX + 1))).is_err());

    let mut old = Incarnation::MAX;
    old.0 += 1;
    let action = action(Message::Prepare {
        action: uid(1),
        incarnation: old,
        join: 1,
        aborted: Vec::new(),
        decider: None,
        part: None,
    });
    assert!(parse(framed(&action)).is_err());
}

#[test]
fn a_longer_list_of_edges_is_cut_when_it_is_sent() {
    let waits = Message::Deadlock(Deadlock::Waits {
        edges: vec![edge(1); EDGES_MAX + 1],
    });
    let action = Action {
        question: 0,
        shard: Shard::Number(0),
        from: 0,
        what: What::Message(waits),
    };
    let What::Message(Message::Deadlock(Deadlock::Waits { edges })) =
        parse(framed(&action)).unwrap().what
    else {
        panic!("no waits")
    };
    assert_eq!(edges.len(), EDGES_MAX);
}

/// What a hostile peer may send: every bit of every message turned over, one at a time, and every
/// message cut short. It is an error or another message, never a panic, never large.
#[test]
fn turned_bits_and_missing_bytes_do_no_harm() {
    for action in actions() {
        let good = framed(&action);
        // The framing header is looked at before a frame is parsed.
        for bit in partha_wire::HEADER * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Whatever it is now: it was read to its end or refused.
            let _ = frame::parse(bad.into());
        }
        for words in 1..good.len() / 8 {
            let short = good[..words * 8].to_vec();
            let _ = frame::parse(short.into());
        }
    }
}

#[test]
fn nonsense_is_refused() {
    let mut w = frame::action(&actions()[0]);
    let nothing = body(|w, slot| {
        let s = w.structure(slot, 1, 1);
        w.set_u16(s, 0, 8);
    });
    assert!(frame::parse(reframed(&nothing)).is_err(), "no body");
    for tag in [28, 99, u16::MAX] {
        let unknown = body(|w, slot| {
            let s = w.structure(slot, 1, 1);
            w.set_u16(s, 0, 8);
            let action = w.structure(s.slot(0), 1, 2);
            w.set_u16(action, 2, tag);
            write_uid(w, action.slot(1), uid(1));
        });
        let error = frame::parse(reframed(&unknown)).unwrap_err();
        assert!(error.to_string().contains("Action"), "{error}");
    }
    // A path whose boundary lies outside of it, a vote that nobody knows.
    let party = |enclosing: u16, length: usize| {
        body(|w, slot| {
            let s = w.structure(slot, 3, 1);
            w.set_u16(s, 0, enclosing);
            write_uids(w, s.slot(0), &vec![uid(1); length]);
        })
    };
    assert!(read_party(party(2, 2).root()).is_ok());
    assert!(read_party(party(3, 2).root()).is_err());
    assert!(read_party(party(0, 0).root()).is_err(), "an empty path");
    assert!(read_party(party(0, PATH_MAX + 1).root()).is_err());
    let vote = body(|w, slot| write_enum(w, slot, uid(1), 3));
    assert!(read_message(tag::VOTE, vote.root()).is_err());
    assert!(read_message(tag::VERDICT, vote.root()).is_err());
    let nobody = body(|w, slot| write_enum(w, slot, uid(1), 0));
    assert!(read_message(tag::VOTE, nobody.root()).is_ok());
    assert!(read_message(tag::VOTE_MOVED, nobody.root()).is_err());
    // What has to name a replicated object names none.
    for tag in [
        tag::PREPARE_GROUPS,
        tag::MERGE_PART,
        tag::COMMIT_PART,
        tag::ABORT_PART,
        tag::VERDICT_PART,
    ] {
        let error = read_message(tag, nobody.root());
        assert!(error.is_err(), "{tag}: {error:?}");
    }
    assert!(w.framed().is_ok());
}

#[test]
fn a_part_is_of_an_object_and_has_its_decision_in_that_ones_log() {
    let mut nameless = participant(7);
    nameless.joined.decider = None;
    let request = |coordinator, others: &[Participant], decider| Action {
        question: 31,
        shard: Shard::Of(uid(66)),
        from: 0,
        what: What::Commit(CommitRequest {
            action: uid(1),
            coordinator,
            others: others.to_vec(),
            aborted: Vec::new(),
            decider,
        }),
    };
    let (part, decider) = (participant(7), Some(uid(66)));
    assert!(parse(framed(&request(part, &[part], decider))).is_ok());
    assert!(parse(framed(&request(participant(1), &[part], None))).is_ok());
    for bad in [
        request(nameless, &[], decider),
        request(part, &[nameless], decider),
        request(part, &[], None),
        request(part, &[], Some(uid(67))),
    ] {
        assert!(parse(framed(&bad)).is_err(), "{bad:?}");
    }
}

fn reframed(message: &Frame) -> bytes::Bytes {
    let mut framed = vec![0; 4];
    framed.extend((message.segment().len() as u32 / 8).to_le_bytes());
    framed.extend(message.segment().iter());
    framed.into()
}
