//! Frames there and back.

use partha_core::action::path::{Joined, Participant, Site};
use partha_core::id::Incarnation;

use super::*;

fn round(mut bytes: Vec<u8>) -> Frame {
    set_question(&mut bytes, 77);
    parse(bytes.into()).unwrap()
}

#[test]
fn what_a_frame_begins_with_is_what_a_writer_lays_out() {
    let laid_out = |kind, data, pointers| {
        let mut w = Writer::new(MESSAGE_BYTES_MAX);
        let s = w.structure(Slot::ROOT, data, pointers);
        w.set_u16(s, 0, kind);
        (w.into_buffer(), s.slot(0))
    };
    let (bytes, slot) = laid_out(INVOKE, INVOKE_DATA, INVOKE_POINTERS);
    assert_eq!((bytes, slot), (INVOKE_BEGUN.to_vec(), INVOKE_PARAMETERS));
    let (bytes, slot) = laid_out(RETURN, SHORT_DATA, RETURN_POINTERS);
    assert_eq!((bytes, slot), (RETURN_BEGUN.to_vec(), RETURN_BODY));
}

#[test]
fn an_invoke_carries_target_parameters_and_capabilities() {
    let uid = Uid {
        node: NodeId(5),
        local: 6,
    };
    let (mut w, slot) = invoke(Target::Object(uid), ClassId(9), 3);
    let p = w.structure(slot, 1, 0);
    w.set_u64(p, 0, 42);
    let sent = Descriptor {
        hosted_by_sender: true,
        export: 8,
        class: ClassId(1),
    };
    set_capabilities(&mut w, true, &[sent]);
    let Frame::Invoke(invoke) = round(w.finish().unwrap().0) else {
        panic!("no invoke")
    };
    assert_eq!((invoke.question, invoke.method), (77, 3));
    assert_eq!(
        (invoke.target, invoke.interface),
        (Target::Object(uid), ClassId(9))
    );
    assert_eq!(invoke.parameters.reader().unwrap().u64(0), 42);
    assert_eq!(invoke.capabilities, [sent]);
}

#[test]
fn an_invoke_of_an_export_is_told_from_an_object() {
    let (w, _) = invoke(Target::Export(4), ClassId(9), 3);
    let Frame::Invoke(invoke) = round(w.finish().unwrap().0) else {
        panic!("no invoke")
    };
    assert_eq!(invoke.target, Target::Export(4));
}

#[test]
fn a_return_laid_out_elsewhere_can_be_gone_on_with() {
    let mut w = returned();
    let r = w.structure(body(&w), 1, 0);
    w.set_i64(r, 0, -1);
    let framed = w.finish().unwrap().0;
    let mut resumed = returned_elsewhere(framed.clone()).unwrap();
    set_report(&mut resumed, &Report::default());
    let Frame::Return(good) = round(resumed.finish().unwrap().0) else {
        panic!("no return")
    };
    assert!(good.answer.report.is_some());
    let results = good.answer.outcome.unwrap();
    assert_eq!(results.reader().unwrap().i64(0), -1);

    let error = SystemError::new(ErrorKind::Servant, "no");
    let mut longer = framed.clone();
    longer.extend([0; 8]);
    let bad = [
        failed(&error, None),
        longer,
        framed[..32].to_vec(),
        Vec::new(),
    ];
    for framed in bad {
        assert!(returned_elsewhere(framed).is_err());
    }
}

#[test]
fn a_return_carries_results_or_an_error() {
    let mut w = returned();
    let slot = body(&w);
    let r = w.structure(slot, 1, 0);
    w.set_i64(r, 0, -1);
    let sent = Descriptor {
        hosted_by_sender: false,
        export: 2,
        class: ClassId(3),
    };
    set_capabilities(&mut w, false, &[sent]);
    let Frame::Return(good) = round(w.finish().unwrap().0) else {
        panic!("no return")
    };
    assert_eq!(good.question, 77);
    assert_eq!(good.answer.outcome.unwrap().reader().unwrap().i64(0), -1);
    assert_eq!(good.capabilities, [sent]);

    assert_eq!(good.answer.report, None);

    let error = SystemError::new(ErrorKind::Store, "disk full").completed(Completed::Maybe);
    let to = crate::moved::Moved {
        node: NodeId(9),
        addresses: vec!["10.0.0.1:7".to_owned(), "there:8".to_owned()],
        moves: 3,
    };
    let moved = SystemError::moved_to("object 7", to.clone(), None);
    assert_eq!(moved.moved(), Some(&to));
    for error in [error.clone(), error.handed_on(true), moved] {
        let Frame::Return(bad) = round(failed(&error, None)) else {
            panic!("no return")
        };
        assert_eq!(bad.answer.outcome.unwrap_err(), error);
    }
}

#[test]
fn an_object_that_has_moved_more_often_than_can_be_is_not_believed() {
    let mut to = crate::moved::Moved {
        node: NodeId(9),
        addresses: Vec::new(),
        moves: crate::moved::MOVES_MAX,
    };
    let frame = |to| failed(&SystemError::moved_to("object 7", to, None), None);
    assert!(parse(frame(to.clone()).into()).is_ok());
    to.moves += 1;
    let error = parse(frame(to).into()).unwrap_err();
    assert!(error.to_string().contains("moves"), "{error}");
}

#[test]
fn an_answer_in_an_action_says_who_takes_part_whatever_it_is() {
    let uid = |local| Uid {
        node: NodeId(5),
        local,
    };
    let participant = |shard| Participant {
        site: Site {
            node: NodeId(5),
            shard,
        },
        incarnation: Incarnation(3),
        joined: Joined {
            join: 9,
            updated: shard == 0,
            decider: None,
            part: false,
        },
    };
    let report = Report {
        participants: vec![participant(0), participant(1)],
        aborted: vec![uid(1), uid(2)],
    };
    let mut w = returned();
    let slot = body(&w);
    w.structure(slot, 1, 0);
    set_report(&mut w, &report);
    let error = SystemError::new(ErrorKind::Deadlock, "a cycle").with_victim(Some(uid(4)));
    for frame in [w.finish().unwrap().0, failed(&error, Some(&report))] {
        let Frame::Return(answer) = round(frame) else {
            panic!("no return")
        };
        assert_eq!(answer.answer.report.as_deref(), Some(&report));
        if let Err(failure) = answer.answer.outcome {
            assert_eq!(failure.victim(), Some(uid(4)));
        }
    }
}

#[test]
fn a_frame_with_very_many_capabilities_is_refused() {
    let one = Descriptor {
        hosted_by_sender: true,
        export: 1,
        class: ClassId(1),
    };
    for (count, fits) in [(CAPABILITIES_MAX as usize, true), (65, false)] {
        let (mut w, slot) = invoke(Target::Export(4), ClassId(9), 3);
        w.structure(slot, 0, 1);
        set_capabilities(&mut w, true, &vec![one; count]);
        let frame = parse(w.finish().unwrap().0.into());
        assert_eq!(frame.is_ok(), fits, "{count}: {frame:?}");
    }
}

#[test]
fn short_frames_come_back() {
    for frame in [
        Frame::Cancel { question: 77 },
        Frame::Ping { number: 77 },
        Frame::Pong { number: 77 },
        Frame::Release { export: 77 },
    ] {
        let text = format!("{frame:?}");
        assert_eq!(format!("{:?}", round(short(&frame).0)), text);
    }
    assert!(matches!(round(short(&Frame::Goodbye).0), Frame::Goodbye));
}

#[test]
fn an_unknown_kind_is_an_error() {
    let mut w = Writer::new(1024);
    let s = w.structure(Slot::ROOT, SHORT_DATA, RETURN_POINTERS);
    w.set_u16(s, 0, 99);
    assert!(parse(w.finish().unwrap().0.into()).is_err());
}

#[test]
fn the_official_compiler_reads_our_frames_by_wire_capnp() {
    let Some(capnp) = test_support::require_tool("capnp") else {
        return;
    };
    let uid = Uid {
        node: NodeId(5),
        local: 6,
    };
    let (mut w, slot) = invoke(Target::Object(uid), ClassId(9), 3);
    w.structure(slot, 1, 0);
    let sent = Descriptor {
        hosted_by_sender: true,
        export: 8,
        class: ClassId(1),
    };
    set_capabilities(&mut w, true, &[sent]);
    let mut call = w.finish().unwrap().0;
    set_question(&mut call, 77);
    let error = failed(&SystemError::new(ErrorKind::Store, "disk full"), None);
    let dir = test_support::temp_dir("frames");
    let file = dir.path().join("frames");
    std::fs::write(&file, [call, error].concat()).unwrap();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/idl/wire.capnp");
    let output = std::process::Command::new(capnp)
        .args(["decode", "--short", schema, "Frame"])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines.len(),
        2,
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in [
        "kind = 1",
        "number = 77",
        "node = 5",
        "local = 6",
        "interface = 9",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(lines[0].contains("method = 3"), "{}", lines[0]);
    let descriptor = "(hostedByReceiver = false, export = 8, class = 1)";
    assert!(lines[0].contains(descriptor), "{}", lines[0]);
    assert!(lines[1].contains("kind = 2, status = 32"), "{}", lines[1]);
}

#[test]
fn the_object_that_a_call_is_for_is_seen_without_parsing() {
    let uid = Uid {
        node: NodeId(7),
        local: 9,
    };
    let framed = |w: Writer| w.to_framed().unwrap();
    let call = |target| framed(invoke(target, ClassId(1), 2).0);
    let called = call(Target::Object(uid));
    assert_eq!(target_of(&called), Some(uid));
    assert_eq!(target_of(&called[..20]), None);
    assert_eq!(target_of(&call(Target::Export(3))), None);
    assert_eq!(target_of(&framed(returned())), None);
}
