//! rpc.capnp messages byte by byte, as a hostile or broken peer would send them.

use capnp::message::Builder;
use capnp_rpc::rpc_capnp::{cap_descriptor, exception, message, resolve};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Stream, TOY};

/// What a capability descriptor says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cap {
    None,
    Hosted(u32),
    Promise(u32),
    Yours(u32),
    Answer(u32),
}

impl Cap {
    fn write(self, mut descriptor: cap_descriptor::Builder<'_>) {
        match self {
            Self::None => descriptor.set_none(()),
            Self::Hosted(id) => descriptor.set_sender_hosted(id),
            Self::Promise(id) => descriptor.set_sender_promise(id),
            Self::Yours(id) => descriptor.set_receiver_hosted(id),
            Self::Answer(question) => {
                let mut answer = descriptor.init_receiver_answer();
                answer.set_question_id(question);
                answer.init_transform(1).get(0).set_get_pointer_field(0);
            }
        }
    }
}

/// What a call is made on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    Export(u32),
    Answer(u32),
}

fn bytes(fill: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut builder = Builder::new_default();
    fill(builder.init_root());
    capnp::serialize::write_message_to_words(&builder)
}

pub(crate) fn bootstrap(question: u32) -> Vec<u8> {
    bytes(|root| root.init_bootstrap().set_question_id(question))
}

/// A call whose parameters point at the first of `caps`, or at a text.
pub(crate) fn call(question: u32, on: On, method: u16, caps: &[Cap], text: &str) -> Vec<u8> {
    bytes(|root| {
        let mut call = root.init_call();
        call.set_question_id(question);
        call.set_interface_id(TOY);
        call.set_method_id(method);
        let mut target = call.reborrow().init_target();
        match on {
            On::Export(id) => target.set_imported_cap(id),
            On::Answer(question) => {
                let mut answer = target.init_promised_answer();
                answer.set_question_id(question);
                answer.init_transform(1).get(0).set_get_pointer_field(0);
            }
        }
        fill_payload(call.init_params(), caps, text);
    })
}

/// An answer to the peer's question.
pub(crate) fn results(question: u32, caps: &[Cap], text: &str) -> Vec<u8> {
    bytes(|root| {
        let mut answer = root.init_return();
        answer.set_answer_id(question);
        fill_payload(answer.init_results(), caps, text);
    })
}

fn fill_payload(mut payload: capnp_rpc::rpc_capnp::payload::Builder<'_>, caps: &[Cap], text: &str) {
    use capnp::traits::ImbueMut;
    let mut table = Vec::new();
    let mut content: capnp_rpc::rpc_capnp::payload::Builder<'_> =
        payload.reborrow().get_content().init_as();
    content.imbue_mut(&mut table);
    if caps.is_empty() {
        content.get_content().set_as(text).unwrap();
    } else {
        let placeholder = capnp_rpc::new_broken_cap(capnp::Error::failed("a place".to_owned()));
        content.get_content().set_as_capability(placeholder.hook);
    }
    let mut list = payload.init_cap_table(caps.len() as u32);
    for (index, cap) in caps.iter().enumerate() {
        cap.write(list.reborrow().get(index as u32));
    }
}

pub(crate) fn exception_return(question: u32) -> Vec<u8> {
    bytes(|root| {
        let mut answer = root.init_return();
        answer.set_answer_id(question);
        answer.init_exception().set_reason("no");
    })
}

pub(crate) fn cancelled_return(question: u32) -> Vec<u8> {
    bytes(|root| {
        let mut answer = root.init_return();
        answer.set_answer_id(question);
        answer.set_canceled(());
    })
}

pub(crate) fn finish(question: u32, release: bool) -> Vec<u8> {
    bytes(|root| {
        let mut finish = root.init_finish();
        finish.set_question_id(question);
        finish.set_release_result_caps(release);
    })
}

pub(crate) fn release(id: u32, count: u32) -> Vec<u8> {
    bytes(|root| {
        let mut release = root.init_release();
        release.set_id(id);
        release.set_reference_count(count);
    })
}

/// A resolve to a capability, or to an exception.
pub(crate) fn resolve(promise: u32, to: Option<Cap>) -> Vec<u8> {
    bytes(|root| {
        let mut resolve: resolve::Builder<'_> = root.init_resolve();
        resolve.set_promise_id(promise);
        match to {
            Some(cap) => cap.write(resolve.init_cap()),
            None => {
                let mut exception: exception::Builder<'_> = resolve.init_exception();
                exception.set_reason("no");
            }
        }
    })
}

pub(crate) fn disembargo(question: u32, embargo: u32, loopback: bool) -> Vec<u8> {
    bytes(|root| {
        let mut disembargo = root.init_disembargo();
        let mut answer = disembargo.reborrow().init_target().init_promised_answer();
        answer.set_question_id(question);
        answer.init_transform(1).get(0).set_get_pointer_field(0);
        if loopback {
            disembargo.init_context().set_receiver_loopback(embargo);
        } else {
            disembargo.init_context().set_sender_loopback(embargo);
        }
    })
}

/// A message type no two-party end has.
pub(crate) fn join(question: u32) -> Vec<u8> {
    bytes(|root| root.init_join().set_question_id(question))
}

/// Sends a resolve of the peer's back.
pub(crate) fn unimplemented_resolve(promise: u32, cap: Cap) -> Vec<u8> {
    bytes(|root| {
        let mut resolve = root.init_unimplemented().init_resolve();
        resolve.set_promise_id(promise);
        cap.write(resolve.init_cap());
    })
}

/// A call that wants its results elsewhere.
pub(crate) fn call_yourself(question: u32) -> Vec<u8> {
    bytes(|root| {
        let mut call = root.init_call();
        call.set_question_id(question);
        call.reborrow().init_target().set_imported_cap(0);
        call.get_send_results_to().set_yourself(());
    })
}

/// Writes everything, as far as the other end takes it.
pub(crate) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    // An attacked end may close at any moment.
    let _ = stream.write_all(bytes).await;
}

/// Reads until the other end closes; the reason of its Abort, if it sent one.
pub(crate) async fn abort_reason<S: Stream>(stream: &mut S) -> Option<String> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let mut rest = all.as_slice();
    let mut reason = None;
    while let Ok(message) = capnp::serialize::read_message(&mut rest, Default::default()) {
        let root: message::Reader<'_> = message.get_root().unwrap();
        if let Ok(message::Abort(Ok(abort))) = root.which() {
            reason = Some(abort.get_reason().unwrap().to_string().unwrap());
        }
    }
    reason
}

/// Reads one message and says what it is.
pub(crate) async fn read_kind<S: Stream>(stream: &mut S) -> Option<String> {
    let count = stream.read_u32_le().await.ok()? as usize + 1;
    let mut table = vec![0; (4 + 4 * count).next_multiple_of(8) - 4];
    stream.read_exact(&mut table).await.ok()?;
    let mut words = 0;
    for size in table.chunks(4).take(count) {
        words += u32::from_le_bytes(size.try_into().unwrap()) as usize;
    }
    let mut bytes = (count as u32 - 1).to_le_bytes().to_vec();
    bytes.extend(table);
    let start = bytes.len();
    bytes.resize(start + words * 8, 0);
    stream.read_exact(&mut bytes[start..]).await.ok()?;
    let mut rest = bytes.as_slice();
    let message = capnp::serialize::read_message(&mut rest, Default::default()).unwrap();
    let root: message::Reader<'_> = message.get_root().unwrap();
    Some(match root.which().unwrap() {
        message::Return(answer) => format!("return {}", answer.unwrap().get_answer_id()),
        message::Call(call) => format!("call {}", call.unwrap().get_question_id()),
        message::Finish(finish) => format!("finish {}", finish.unwrap().get_question_id()),
        message::Release(release) => format!("release {}", release.unwrap().get_id()),
        message::Abort(_) => "abort".to_owned(),
        message::Unimplemented(_) => "unimplemented".to_owned(),
        _ => "other".to_owned(),
    })
}

/// An echo of a short text.
pub(crate) fn call_text(question: u32) -> Vec<u8> {
    call(question, On::Export(0), super::ECHO, &[], "text")
}

/// What a peer needs to know of a message it is sent.
pub(crate) enum Heard {
    Returned { exports: Vec<u32> },
    Called { question: u32, exports: Vec<u32> },
    Embargo { embargo: u32 },
    Other,
}

/// Takes all whole messages out of `bytes`.
pub(crate) fn hear(bytes: &mut Vec<u8>) -> Vec<Heard> {
    let mut heard = Vec::new();
    loop {
        let mut rest = bytes.as_slice();
        let Ok(message) = capnp::serialize::read_message(&mut rest, Default::default()) else {
            return heard;
        };
        let taken = bytes.len() - rest.len();
        bytes.drain(..taken);
        let root: message::Reader<'_> = message.get_root().unwrap();
        heard.push(match root.which().unwrap() {
            message::Return(answer) => match answer.unwrap().which().unwrap() {
                capnp_rpc::rpc_capnp::return_::Results(results) => Heard::Returned {
                    exports: exports(results.unwrap()),
                },
                _ => Heard::Other,
            },
            message::Call(call) => {
                let call = call.unwrap();
                Heard::Called {
                    question: call.get_question_id(),
                    exports: exports(call.get_params().unwrap()),
                }
            }
            message::Disembargo(disembargo) => {
                use capnp_rpc::rpc_capnp::disembargo::context;
                match disembargo.unwrap().get_context().which().unwrap() {
                    context::SenderLoopback(embargo) => Heard::Embargo { embargo },
                    _ => Heard::Other,
                }
            }
            _ => Heard::Other,
        });
    }
}

fn exports(payload: capnp_rpc::rpc_capnp::payload::Reader<'_>) -> Vec<u32> {
    let table = payload.get_cap_table().unwrap();
    table
        .iter()
        .filter_map(|descriptor| match descriptor.which().unwrap() {
            cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id) => Some(id),
            _ => None,
        })
        .collect()
}
