//! Native frames: one Cap'n Proto message each, root `struct Frame` of wire.capnp.
//!
//! A frame is built where its content is encoded, so that parameters and results are written
//! straight into what will be sent; the question number, known only when a connection is chosen,
//! is patched in at a fixed place.

use std::cell::RefCell;

use bytes::{Buf, Bytes};
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

/// Where the parameters' pointer of an Invoke frame is.
const INVOKE_PARAMETERS: Slot = Slot::at_offset(48);
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

/// A message that begins so, in a buffer that was used before if there is one.
#[inline]
fn writer_of(begun: &[u8]) -> Writer {
    let buffer = BUFFERS.with_borrow_mut(Vec::pop);
    let buffer = buffer.unwrap_or_else(|| Vec::with_capacity(256));
    Writer::beginning_with(buffer, begun, MESSAGE_BYTES_MAX)
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

/// The bytes that begin a frame of a kind: header, root pointer, and a struct of `N` bytes in all
/// with `data` words of data, of which the first says the kind.
const fn begun<const N: usize>(kind: u16, data: u16, pointers: u16) -> [u8; N] {
    assert!(N == HEADER + 8 + (data as usize + pointers as usize) * 8);
    let mut bytes = [0; N];
    bytes[HEADER + 4] = data as u8;
    bytes[HEADER + 6] = pointers as u8;
    bytes[HEADER + 8] = kind as u8;
    bytes
}

const INVOKE_BEGUN: [u8; 72] = begun(INVOKE, INVOKE_DATA, INVOKE_POINTERS);
const RETURN_BEGUN: [u8; 48] = begun(RETURN, SHORT_DATA, RETURN_POINTERS);

/// Begins an Invoke frame; the slot is where the parameters go.
pub(crate) fn invoke(target: Target, interface: ClassId, method: u16) -> (Writer, Slot) {
    let mut begun = INVOKE_BEGUN;
    let mut set = |offset: usize, value: &[u8]| {
        let at = HEADER + 8 + offset;
        begun[at..at + value.len()].copy_from_slice(value);
    };
    match target {
        Target::Object(uid) => {
            set(8, &uid.node.0.to_le_bytes());
            set(16, &uid.local.to_le_bytes());
        }
        Target::Export(export) => {
            set(8, &u64::from(export).to_le_bytes());
            set(34, &1_u16.to_le_bytes());
        }
    }
    set(24, &interface.0.to_le_bytes());
    set(32, &method.to_le_bytes());
    (writer_of(&begun), INVOKE_PARAMETERS)
}

/// Begins a Return frame; the results go to [`body`].
pub(crate) fn returned() -> Writer {
    writer_of(&RETURN_BEGUN)
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
    let e = w.structure(s.slot(0), 1, 3);
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
    if let Some(moved) = error.moved() {
        parts::write_moved(&mut w, e.slot(2), moved);
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

/// The object that a frame calls, read without checking the rest of it.
pub(crate) fn target_of(framed: &[u8]) -> Option<Uid> {
    let data = framed.get(HEADER + 8..HEADER + 8 + 40)?;
    let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"));
    let is_call = word(0) & 0xffff == u64::from(INVOKE) && data[34] == 0;
    is_call.then(|| Uid {
        node: NodeId(word(8)),
        local: word(16),
    })
}

/// Reads one frame, framing included.
pub(crate) fn parse(mut framed: Bytes) -> Result<Frame, DecodeError> {
    if framed.len() < HEADER {
        return Err(DecodeError::invalid("a frame with a header"));
    }
    framed.advance(HEADER);
    let message = Message::from_segment(framed, Vec::new())?;
    let s = message.reader()?;
    let number = s.u32(1);
    let body = s.pointer(0).slot();
    let body = || body.ok_or_else(|| DecodeError::missing().at("body"));
    match s.u16(0) {
        INVOKE => {
            let target = match s.u16(17) {
                0 => Target::Object(Uid {
                    node: NodeId(s.u64(1)),
                    local: s.u64(2),
                }),
                _ => Target::Export(s.u64(1) as u32),
            };
            let (interface, method) = (ClassId(s.u64(3)), s.u16(16));
            let capabilities = descriptors(s.pointer(1))?;
            let body = body()?;
            Ok(Frame::Invoke(Invoke {
                question: number,
                target,
                interface,
                method,
                parameters: message.into_rooted(body),
                capabilities,
            }))
        }
        RETURN => {
            let capabilities = descriptors(s.pointer(1))?;
            let report = parts::read_report(s.pointer(2)).map_err(|e| e.at("report"))?;
            let outcome = match s.u16(1) {
                0 => {
                    let body = body()?;
                    Ok(message.into_rooted(body))
                }
                code => Err(read_error(code, s.pointer(0).structure()?)?),
            };
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
    let moved = parts::read_moved(s.pointer(2)).map_err(|e| e.at("moved"))?;
    let error = SystemError::new(ErrorKind::from_code(code), detail);
    let error = error.completed(completed).handed_on(s.bool(16));
    Ok(error.with_victim(victim).with_moved(moved))
}

fn descriptors(pointer: partha_wire::PointerReader<'_>) -> Result<Vec<Descriptor>, DecodeError> {
    if pointer.is_null() {
        return Ok(Vec::new());
    }
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
mod tests;
