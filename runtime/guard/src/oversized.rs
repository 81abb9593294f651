//! Replies larger than a message may be.
//!
//! Such a reply is our own servant's doing, so the peer is told by an exception in its place
//! instead of being cut. Capabilities in the reply stay exported until the peer finishes the
//! question.

use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::{exception, message, return_};

/// What to send instead of `builder`, if it is a reply with results of more than `bytes_max`.
pub(crate) fn replacement(
    builder: &Builder<HeapAllocator>,
    root: message::Reader<'_>,
    bytes_max: usize,
) -> Option<Builder<HeapAllocator>> {
    let bytes: usize = builder
        .get_segments_for_output()
        .iter()
        .map(|s| s.len())
        .sum();
    if bytes <= bytes_max {
        return None;
    }
    let Ok(message::Return(Ok(reply))) = root.which() else {
        return None;
    };
    let Ok(return_::Results(_)) = reply.which() else {
        return None;
    };
    let mut instead = Builder::new(HeapAllocator::new().first_segment_words(32));
    let mut refusal = instead.init_root::<message::Builder<'_>>().init_return();
    refusal.set_answer_id(reply.get_answer_id());
    refusal.set_release_param_caps(reply.get_release_param_caps());
    refusal.set_no_finish_needed(reply.get_no_finish_needed());
    let mut exception = refusal.init_exception();
    exception.set_type(exception::Type::Overloaded);
    exception.set_reason(format!(
        "the reply has {bytes} bytes, at most {bytes_max} are sent; ask for less at a time"
    ));
    Some(instead)
}
