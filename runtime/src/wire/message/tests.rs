//! Frames about actions come back as they went; hostile ones are refused.

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
            decider: (shard == 6).then(|| uid(66)),
            part: false,
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
    let (parent, part) = (uid(2), None);
    let mut all = vec![Message::Merge {
        action,
        parent,
        part,
    }];
    for one in [None, Some(uid(40))] {
        all.extend([
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
                part: None,
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
        let groups: Vec<Uid> = one.into_iter().collect();
        for vote in [Vote::Yes, Vote::ReadOnly, Vote::No] {
            for moved in [Vec::new(), vec![participant(5), participant(6)]] {
                all.push(Message::Vote {
                    action,
                    vote,
                    moved,
                    groups: groups.clone(),
                    decider: one,
                    part: None,
                });
            }
        }
    }
    all.extend(about_deadlocks().map(Message::Deadlock));
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
    for tag in [27, 99, u16::MAX] {
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
        tag::PREPARE_DECIDER,
        tag::COMMIT_PART,
        tag::ABORT_PART,
        tag::VERDICT_PART,
    ] {
        let error = read_message(tag, nobody.root());
        assert!(error.is_err(), "{tag}: {error:?}");
    }
    assert!(w.framed().is_ok());
}

fn reframed(message: &Frame) -> bytes::Bytes {
    let mut framed = vec![0; 4];
    framed.extend((message.segment().len() as u32 / 8).to_le_bytes());
    framed.extend(message.segment().iter());
    framed.into()
}

/// What the official compiler is to find about replicated objects.
const ABOUT_GROUPS: &[&str] = &[
    "prepareDecider = (action = (node = 7, local = 1), incarnation = 4, join = 77, aborted = \
         [(node = 7, local = 2), (node = 7, local = 3)], decider = (node = 7, local = 40))",
    "voteGroups = (action = (node = 7, local = 1), vote = yes, groups = [(node = 7, local = \
         40)], decider = (node = 7, local = 40))",
    "commitPart = (action = (node = 7, local = 1), part = (node = 7, local = 40))",
    "abortPart = (action = (node = 7, local = 1), part = (node = 7, local = 40))",
    "acknowledgeGroups = (action = (node = 7, local = 1), groups = [(node = 7, local = 42)], \
         site = false)",
    "queryGroups = (action = (node = 7, local = 1), part = (node = 7, local = 41))",
    "verdictPart = (action = (node = 7, local = 1), verdict = aborted, part = (node = 7, \
         local = 40))",
    "askDecider = (action = (node = 7, local = 1), decider = (node = 7, local = 66))",
    "updated = false, decider = (node = 7, local = 66))], others",
];

#[test]
fn the_official_compiler_reads_actions_by_wire_capnp() {
    let Some(capnp) = test_support::require_tool("capnp") else {
        return;
    };
    let all = actions();
    let dir = test_support::temp_dir("actions");
    let file = dir.path().join("frames");
    let bytes: Vec<u8> = all.iter().flat_map(framed).collect();
    std::fs::write(&file, bytes).unwrap();
    let text = decode(&capnp, "Frame", &file);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), all.len(), "{text}");
    assert!(lines.iter().all(|line| line.contains("kind = 8")), "{text}");

    // The body again, as what it is: by way of its own message.
    let bodies: Vec<u8> = all
        .iter()
        .flat_map(|action| {
            let mut w = Writer::new(MESSAGE_BYTES_MAX);
            action.write(&mut w, Slot::ROOT);
            w.to_framed().unwrap()
        })
        .collect();
    std::fs::write(&file, bodies).unwrap();
    let text = decode(&capnp, "Action", &file);
    for part in [
        "prepare = (action = (node = 7, local = 1), incarnation = 4, join = 77, aborted = [(node \
         = 7, local = 2), (node = 7, local = 3)])",
        "vote = (action = (node = 7, local = 1), vote = readOnly)",
        "commit = (node = 7, local = 1)",
        "acknowledge = (node = 7, local = 1)",
        "abort = (node = 7, local = 1)",
        "merge = (action = (node = 7, local = 1), parent = (node = 7, local = 2))",
        "query = (node = 7, local = 1)",
        "verdict = (action = (node = 7, local = 1), verdict = inFlight)",
        "waits = [(wait = (node = 1311768467463790320, number = 1, incarnation = 5, shard = 3), \
         object = (node = 7, local = 101), waiter = (path = [(node = 7, local = 1), (node = 7, \
         local = 2), (node = 7, local = 9)], enclosing = 2, home = 1, bornMs = 1700000000001)",
        "resumed = (wait = (node = 1311768467463790320, number = 6",
        "probe = [(wait",
        "confirm = (cycle = 5, to = (node = 1311768467463790320, shard = 2), edge = [(wait",
        "confirmed = (cycle = 5, wait = (node = 1311768467463790320, number = 3, incarnation = 5, \
         shard = 3), holds = true)",
        "break = (wait = (node = 1311768467463790320, number = 3, incarnation = 5, shard = 3), \
         victim = (node = 7, local = 4), cycle = [(wait",
        "request = (action = (node = 7, local = 1), coordinator = [(node = 1311768467463790320, \
         join = 18446744073709551615, incarnation = 11259375, shard = 0, updated = false)], \
         others = [(node = 1311768467463790320, join = 18446744073709551614, incarnation = \
         11259375, shard = 1, updated = true)",
        "ask = (node = 7, local = 1)",
        "shard = 0, from = 65535",
        "home = (node = 7, local = 55)",
    ]
    .iter()
    .chain(ABOUT_GROUPS)
    {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
    let ended = body(|w, s| write_ended(w, s, End::Aborted(Abort::Silent(site(2)))));
    std::fs::write(&file, reframed(&ended)).unwrap();
    let text = decode(&capnp, "Ended", &file);
    let expected = "(end = silent, fault = store, site = (node = 1311768467463790320, shard = 2))";
    assert_eq!(text.trim(), expected);
    let told = body(|w, s| write_told(w, s, Some(Verdict::Aborted)));
    std::fs::write(&file, reframed(&told)).unwrap();
    assert_eq!(
        decode(&capnp, "Told", &file).trim(),
        "(known = true, verdict = aborted)"
    );
}

#[test]
fn the_official_compiler_reads_news_of_groups_by_wire_capnp() {
    let Some(capnp) = test_support::require_tool("capnp") else {
        return;
    };
    let dir = test_support::temp_dir("groups");
    let file = dir.path().join("news");
    let all = actions().into_iter();
    let news = all.filter(|action| matches!(action.what, What::Group(_)));
    let bodies: Vec<u8> = news
        .flat_map(|action| {
            let mut w = Writer::new(MESSAGE_BYTES_MAX);
            action.write(&mut w, Slot::ROOT);
            w.to_framed().unwrap()
        })
        .collect();
    std::fs::write(&file, bodies).unwrap();
    let text = decode(&capnp, "Action", &file);
    for part in [
        "group = (object = (node = 7, local = 4), number = 9, view = 8, index = 40, complete = 41, \
         asked = 77, kind = 0, members = [1, 2, 3], entries = [(view = 8, index = 41, body = \
         \"first\"), (view = 9, index = 42, body = \"second\")], empty = false)",
        "page = (class = 17, schema = 18, version = 19, first = true, last = true, state = \
         \"state\", rows = [(part = 2, key = \"key\", value = \"value\")], replies = [(node = 6, \
         sequence = 5, keepMs = 4, incarnation = 3, body = \"reply\")], actions \
         = \"actions\")",
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
}

fn decode(capnp: &std::path::Path, of: &str, file: &std::path::Path) -> String {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/idl/wire.capnp");
    let output = std::process::Command::new(capnp)
        .args(["decode", "--short", schema, of])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}
