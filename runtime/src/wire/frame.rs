//! Native frames: one Cap'n Proto message each, root `struct Frame` of wire.capnp.
//!
//! A frame is built where its content is encoded, so that parameters and results are written
//! straight into what will be sent; the question number, known only when a connection is chosen,
//! is patched in at a fixed place.

use std::cell::RefCell;

use bytes::Bytes;
use partha_core::action::scope::Report;
use partha_core::id::{ClassId, NodeId, Uid};
use partha_wire::{DecodeError, HEADER, Message, Slot, Writer};

use super::message::{self, Action};
use super::parts;
use crate::config::MESSAGE_BYTES_MAX;
use crate::error::{Completed, ErrorKind, SystemError};
use crate::net::pending::Answer;

const INVOKE: u16 = 1;
const RETURN: u16 = 2;
const CANCEL: u16 = 3;
const PING: u16 = 4;
const PONG: u16 = 5;
const GOODBYE: u16 = 6;
const RELEASE: u16 = 7;
const ACTION: u16 = 8;

/// Capabilities in a frame, at most: each costs the receiver more than its bytes.
pub(crate) const CAPABILITIES_MAX: u32 = 64;

/// Words and pointers of `struct Frame` as each kind needs it.
const INVOKE_DATA: u16 = 5;
const SHORT_DATA: u16 = 1;
const INVOKE_POINTERS: u16 = 2;
const RETURN_POINTERS: u16 = 3;

/// Where the body pointer of a Return frame is: behind the root pointer and one data word.
pub(crate) const RETURN_BODY: Slot = Slot::at_offset(16);
/// Where the capabilities' pointer of a Return frame is.
const RETURN_CAPABILITIES: Slot = Slot::at_offset(24);
/// Where the report's pointer of a Return frame is.
const RETURN_REPORT: Slot = Slot::at_offset(32);
/// Where the capabilities' pointer of an Invoke frame is.
const INVOKE_CAPABILITIES: Slot = Slot::at_offset(56);
/// Where the question number is in the framed bytes.
const QUESTION_AT: usize = HEADER + 8 + 4;

/// A received frame.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A call.
    Invoke(Invoke),
    /// The answer to a call.
    Return(Return),
    /// Nobody waits for the answer any more.
    Cancel {
        /// The call.
        question: u32,
    },
    /// Are you there?
    Ping {
        /// To come back.
        number: u32,
    },
    /// Here I am.
    Pong {
        /// As in the ping.
        number: u32,
    },
    /// The sender takes no new calls on this connection and will close it.
    Goodbye,
    /// An imported capability is not needed any more.
    Release {
        /// The receiver's export.
        export: u32,
    },
    /// About actions.
    Action(Box<Action>),
}

/// A call as it arrived.
#[derive(Debug)]
pub(crate) struct Invoke {
    /// The number to answer to; 0: no answer is wanted.
    pub(crate) question: u32,
    pub(crate) target: Target,
    pub(crate) interface: ClassId,
    pub(crate) method: u16,
    /// Rooted at the parameters.
    pub(crate) parameters: Message,
    pub(crate) capabilities: Vec<Descriptor>,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An object of the receiver's node.
    Object(Uid),
    /// A capability that the receiver has sent on this connection.
    Export(u32),
}

/// An answer as it arrived.
#[derive(Debug)]
pub(crate) struct Return {
    pub(crate) question: u32,
    pub(crate) answer: Answer,
    pub(crate) capabilities: Vec<Descriptor>,
}

/// A capability in a frame: whose it is, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// True: an export of the sender's; false: an export of the receiver's comes home.
    pub(crate) hosted_by_sender: bool,
    pub(crate) export: u32,
    pub(crate) class: ClassId,
}

thread_local! {
    /// Buffers of frames that are out, for the next ones of this thread.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers kept by a thread, at most.
const BUFFERS_MAX: usize = 64;
/// A larger buffer is not kept.
const BUFFER_BYTES_MAX: usize = 4096;

/// An empty message, in a buffer that was used before if there is one.
fn writer() -> Writer {
    let buffer = BUFFERS.with_borrow_mut(Vec::pop);
    let buffer = buffer.unwrap_or_else(|| Vec::with_capacity(256));
    Writer::reusing(buffer, MESSAGE_BYTES_MAX)
}

/// The frame is out: its buffer is for the next one.
pub(crate) fn recycle(w: Writer) {
    let buffer = w.into_buffer();
    if buffer.capacity() <= BUFFER_BYTES_MAX {
        // A thread that ends needs no buffers.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < BUFFERS_MAX {
                buffers.push(buffer);
            }
        });
    }
}

/// Begins an Invoke frame; the slot is where the parameters go.
pub(crate) fn invoke(target: Target, interface: ClassId, method: u16) -> (Writer, Slot) {
    let mut w = writer();
    let s = w.structure(Slot::ROOT, INVOKE_DATA, INVOKE_POINTERS);
    w.set_u16(s, 0, INVOKE);
    match target {
        Target::Object(uid) => {
            w.set_u64(s, 1, uid.node.0);
            w.set_u64(s, 2, uid.local);
        }
        Target::Export(export) => {
            w.set_u64(s, 1, export.into());
            w.set_u16(s, 17, 1);
        }
    }
    w.set_u64(s, 3, interface.0);
    w.set_u16(s, 16, method);
    (w, s.slot(0))
}

/// Begins a Return frame; the results go to [`body`].
pub(crate) fn returned() -> Writer {
    let mut w = writer();
    let s = w.structure(Slot::ROOT, SHORT_DATA, RETURN_POINTERS);
    w.set_u16(s, 0, RETURN);
    w
}

/// A Return frame that another process has laid out with [`returned`]; it brings no capabilities
/// and no report.
pub(crate) fn returned_elsewhere(framed: Vec<u8>) -> Result<Writer, DecodeError> {
    let mut fresh = returned();
    let fresh_bytes = fresh.framed().expect("an empty frame is within the limit");
    // Root pointer and header are the same, the pointers behind the results are null.
    let parts = [HEADER..HEADER + 16, HEADER + 24..HEADER + 40];
    let same = parts.map(|part| framed.get(part.clone()) == fresh_bytes.get(part));
    recycle(fresh);
    if same != [true, true] {
        return Err(DecodeError::invalid("a Return frame with results"));
    }
    Writer::resuming(framed, MESSAGE_BYTES_MAX)
}

/// Where the results of a Return frame go.
pub(crate) fn body(_returned: &Writer) -> Slot {
    RETURN_BODY
}

/// Writes the report of a call in an action into its Return frame.
pub(crate) fn set_report(returned: &mut Writer, report: &Report) {
    parts::write_report(returned, RETURN_REPORT, report);
}

/// A Return frame without results.
pub(crate) fn failed(error: &SystemError, report: Option<&Report>) -> Vec<u8> {
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    let s = w.structure(Slot::ROOT, SHORT_DATA, RETURN_POINTERS);
    w.set_u16(s, 0, RETURN);
    w.set_u16(s, 1, error.kind() as u16);
    let e = w.structure(s.slot(0), 1, 2);
    let completed = match error.completion() {
        Completed::No => 0,
        Completed::Maybe => 1,
        Completed::Yes => 2,
    };
    w.set_u16(e, 0, completed);
    w.set_bool(e, 16, error.has_begun());
    let mut detail = error.detail();
    if detail.len() > 4096 {
        detail = &detail[..detail.floor_char_boundary(4096)];
    }
    w.text(e.slot(0), detail);
    if let Some(victim) = error.victim() {
        parts::write_uid(&mut w, e.slot(1), victim);
    }
    if let Some(report) = report {
        set_report(&mut w, report);
    }
    finish(w)
}

/// A frame about actions; its question number is set when it is sent.
pub(crate) fn action(action: &Action) -> Writer {
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    let s = w.structure(Slot::ROOT, SHORT_DATA, 1);
    w.set_u16(s, 0, ACTION);
    action.write(&mut w, s.slot(0));
    w
}

/// A frame that is all header.
pub(crate) fn short(frame: &Frame) -> (Vec<u8>, u32) {
    let (kind, number) = match *frame {
        Frame::Cancel { question } => (CANCEL, question),
        Frame::Ping { number } => (PING, number),
        Frame::Pong { number } => (PONG, number),
        Frame::Goodbye => (GOODBYE, 0),
        Frame::Release { export } => (RELEASE, export),
        Frame::Invoke(_) | Frame::Return(_) | Frame::Action(_) => {
            unreachable!("calls, answers and actions have builders of their own")
        }
    };
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    let s = w.structure(Slot::ROOT, SHORT_DATA, 0);
    w.set_u16(s, 0, kind);
    (finish(w), number)
}

fn finish(w: Writer) -> Vec<u8> {
    w.finish().expect("a bounded frame is within the limit").0
}

/// Writes the descriptors of an Invoke or Return frame's capabilities.
pub(crate) fn set_capabilities(w: &mut Writer, is_invoke: bool, descriptors: &[Descriptor]) {
    let slot = if is_invoke {
        INVOKE_CAPABILITIES
    } else {
        RETURN_CAPABILITIES
    };
    let list = w.structures(slot, descriptors.len(), 2, 0);
    for (index, descriptor) in descriptors.iter().enumerate() {
        let s = list.structure(index);
        w.set_bool(s, 0, !descriptor.hosted_by_sender);
        w.set_u32(s, 1, descriptor.export);
        w.set_u64(s, 1, descriptor.class.0);
    }
}

/// Patches the question number of framed bytes.
pub(crate) fn set_question(framed: &mut [u8], question: u32) {
    framed[QUESTION_AT..QUESTION_AT + 4].copy_from_slice(&question.to_le_bytes());
}

/// Reads one frame, framing included.
pub(crate) fn parse(framed: &Bytes) -> Result<Frame, DecodeError> {
    let message = Message::from_segment(framed.slice(HEADER..), Vec::new())?;
    let s = message.reader()?;
    let number = s.u32(1);
    let rooted = || match s.pointer(0).slot() {
        Some(slot) => Ok(message.rooted(slot)),
        None => Err(DecodeError::missing().at("body")),
    };
    match s.u16(0) {
        INVOKE => {
            let target = match s.u16(17) {
                0 => Target::Object(Uid {
                    node: NodeId(s.u64(1)),
                    local: s.u64(2),
                }),
                _ => Target::Export(s.u64(1) as u32),
            };
            Ok(Frame::Invoke(Invoke {
                question: number,
                target,
                interface: ClassId(s.u64(3)),
                method: s.u16(16),
                parameters: rooted()?,
                capabilities: descriptors(s.pointer(1))?,
            }))
        }
        RETURN => {
            let outcome = match s.u16(1) {
                0 => Ok(rooted()?),
                code => Err(read_error(code, s.pointer(0).structure()?)?),
            };
            let capabilities = descriptors(s.pointer(1))?;
            let report = parts::read_report(s.pointer(2)).map_err(|e| e.at("report"))?;
            let answer = Answer { outcome, report };
            Ok(Frame::Return(Return {
                question: number,
                answer,
                capabilities,
            }))
        }
        CANCEL => Ok(Frame::Cancel { question: number }),
        PING => Ok(Frame::Ping { number }),
        PONG => Ok(Frame::Pong { number }),
        GOODBYE => Ok(Frame::Goodbye),
        RELEASE => Ok(Frame::Release { export: number }),
        ACTION => {
            let action = message::read(number, s.pointer(0)).map_err(|e| e.at("action"))?;
            Ok(Frame::Action(Box::new(action)))
        }
        kind => Err(DecodeError::enumerant("Frame.kind", kind)),
    }
}

fn read_error(code: u16, s: partha_wire::StructReader<'_>) -> Result<SystemError, DecodeError> {
    let completed = match s.u16(0) {
        0 => Completed::No,
        1 => Completed::Maybe,
        _ => Completed::Yes,
    };
    let detail = s.pointer(0).text()?;
    let victim = parts::read_uid_if_any(s.pointer(1))?;
    let error = SystemError::new(ErrorKind::from_code(code), detail);
    let error = error.completed(completed).handed_on(s.bool(16));
    Ok(error.with_victim(victim))
}

fn descriptors(pointer: partha_wire::PointerReader<'_>) -> Result<Vec<Descriptor>, DecodeError> {
    let list = pointer.structures()?;
    if list.len() > CAPABILITIES_MAX {
        return Err(DecodeError::invalid("at most 64 capabilities in a frame").at("capabilities"));
    }
    let read = |s: partha_wire::StructReader<'_>| Descriptor {
        hosted_by_sender: !s.bool(0),
        export: s.u32(1),
        class: ClassId(s.u64(1)),
    };
    Ok(list.iter_structures().map(read).collect())
}

#[cfg(test)]
mod tests {
    use partha_core::action::path::{Joined, Participant, Site};
    use partha_core::id::Incarnation;

    use super::*;

    fn round(mut bytes: Vec<u8>) -> Frame {
        set_question(&mut bytes, 77);
        parse(&bytes.into()).unwrap()
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
        for error in [error.clone(), error.handed_on(true)] {
            let Frame::Return(bad) = round(failed(&error, None)) else {
                panic!("no return")
            };
            assert_eq!(bad.answer.outcome.unwrap_err(), error);
        }
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
            let frame = parse(&w.finish().unwrap().0.into());
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
        assert!(parse(&w.finish().unwrap().0.into()).is_err());
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
}
