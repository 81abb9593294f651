//! The guarded two-party network: what capnp-rpc asks of a `VatNetwork`, passed on to the
//! [`Wire`](crate::wire::Wire), which does the work.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use capnp::capability::Promise;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_twoparty_capnp::Side;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::Limits;
use crate::wire::Wire;

/// First segment of a message of ours: capnp-rpc's hints are too small for its own smallest
/// messages and far too large (8 KiB, zeroed) for a usual call.
const FIRST_WORDS_MIN: u32 = 32;
const FIRST_WORDS_MAX: u32 = 128;

/// What a stream must be: bytes both ways, on one thread.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Stream for T {}

/// A `VatNetwork` of two parties within [`Limits`].
///
/// Give it to a `capnp_rpc::RpcSystem`, best within a [`SafeRpc`](crate::SafeRpc).
pub struct Network<S: Stream> {
    wire: Rc<RefCell<Wire<S>>>,
    side: Side,
    accepted: bool,
}

impl<S: Stream> Network<S> {
    /// A network over `stream`; `side` is the side of this end.
    ///
    /// Must be called within a tokio runtime with time enabled.
    pub fn new(stream: S, side: Side, limits: Limits) -> Self {
        Self {
            wire: Rc::new(RefCell::new(Wire::new(stream, limits))),
            side,
            accepted: false,
        }
    }

    /// Where the reason is found once the connection has ended.
    pub(crate) fn wire(&self) -> Rc<RefCell<Wire<S>>> {
        Rc::clone(&self.wire)
    }

    fn connection(&self) -> Box<dyn capnp_rpc::Connection<Side>> {
        Box::new(Connection {
            wire: Rc::clone(&self.wire),
            side: self.side,
        })
    }
}

impl<S: Stream> capnp_rpc::VatNetwork<Side> for Network<S> {
    fn connect(&mut self, host: Side) -> Option<Box<dyn capnp_rpc::Connection<Side>>> {
        if host == self.side {
            None
        } else {
            Some(self.connection())
        }
    }

    fn accept(&mut self) -> Promise<Box<dyn capnp_rpc::Connection<Side>>, capnp::Error> {
        if self.accepted {
            return Promise::from_future(std::future::pending());
        }
        self.accepted = true;
        Promise::ok(self.connection())
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), capnp::Error> {
        let wire = Rc::clone(&self.wire);
        let mut sleep = Box::pin(tokio::time::sleep_until(Instant::now()));
        Promise::from_future(async move {
            poll_fn(|cx| wire.borrow_mut().poll_drive(cx, sleep.as_mut())).await;
            Ok(())
        })
    }
}

/// capnp-rpc's handle of the one connection.
struct Connection<S: Stream> {
    wire: Rc<RefCell<Wire<S>>>,
    side: Side,
}

impl<S: Stream> capnp_rpc::Connection<Side> for Connection<S> {
    fn get_peer_vat_id(&self) -> Side {
        match self.side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    fn new_outgoing_message(&mut self, words: u32) -> Box<dyn capnp_rpc::OutgoingMessage> {
        let words = words.clamp(FIRST_WORDS_MIN, FIRST_WORDS_MAX);
        let builder = Builder::new(HeapAllocator::new().first_segment_words(words));
        Box::new(Outgoing {
            builder,
            wire: Rc::clone(&self.wire),
        })
    }

    fn receive_incoming_message(
        &mut self,
    ) -> Promise<Option<Box<dyn capnp_rpc::IncomingMessage>>, capnp::Error> {
        let wire = Rc::clone(&self.wire);
        Promise::from_future(poll_fn(move |cx| {
            let received = ready!(wire.borrow_mut().poll_receive(cx))?;
            Poll::Ready(Ok(
                received.map(|m| Box::new(m) as Box<dyn capnp_rpc::IncomingMessage>)
            ))
        }))
    }

    fn shutdown(&mut self, result: capnp::Result<()>) -> Promise<(), capnp::Error> {
        let closed = self.wire.borrow_mut().shutdown(result.err());
        Promise::from_future(async move {
            // An error means that the driver was dropped, with the stream: closed as well.
            let _ = closed.await;
            Ok(())
        })
    }
}

struct Outgoing<S: Stream> {
    builder: Builder<HeapAllocator>,
    wire: Rc<RefCell<Wire<S>>>,
}

impl<S: Stream> capnp_rpc::OutgoingMessage for Outgoing<S> {
    fn get_body(&mut self) -> capnp::Result<capnp::any_pointer::Builder<'_>> {
        self.builder.get_root()
    }

    fn get_body_as_reader(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.builder.get_root_as_reader()
    }

    fn send(self: Box<Self>) -> (Promise<(), capnp::Error>, Rc<Builder<HeapAllocator>>) {
        self.wire.borrow_mut().send(&self.builder);
        (Promise::ok(()), Rc::new(self.builder))
    }

    fn take(self: Box<Self>) -> Builder<HeapAllocator> {
        self.builder
    }

    fn size_in_words(&self) -> usize {
        self.builder.size_in_words()
    }
}
