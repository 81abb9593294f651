//! Connections that a test can hold up: sockets behind a [`Link`].
//!
//! Where there is no switchboard, as in every process that no test kit has made, they pass
//! everything through.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use partha_core::id::{NodeId, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::faults::{Link, Side};
use crate::net::links::Links;

/// A connection.
pub(crate) type Stream = Gated<TcpStream>;

/// A socket, or a half of one, that asks before it does anything.
#[derive(Debug)]
pub(crate) struct Gated<T: Socket> {
    /// None only while it is dropped or taken apart.
    inner: Option<T>,
    link: Option<Arc<Link>>,
}

/// What can be gated.
pub(crate) trait Socket: Unpin {
    /// Gives it up without a word to the peer; the link keeps the connection open.
    fn forget(self);
}

impl Links {
    /// Connects to whoever listens at `address`, once the test lets it.
    pub(crate) async fn connect(
        &self,
        me: Peer,
        address: &str,
        node: NodeId,
    ) -> io::Result<Stream> {
        let (stream, link) = match &self.faults {
            Some(faults) => {
                let (stream, link) = faults.connect(me, address, node).await?;
                (stream, Some(link))
            }
            None => (TcpStream::connect(address).await?, None),
        };
        crate::net::prepare(&stream)?;
        Ok(Gated::new(stream, link))
    }

    /// Who is at the other end of a connection that this one opened.
    pub(crate) fn met(&self, stream: &Stream, peer: Peer) {
        if let Some(link) = &stream.link {
            link.met(peer.node);
        }
    }

    /// A connection that a peer opened.
    pub(crate) fn accepted(&self, stream: TcpStream, me: Peer, peer: Peer) -> io::Result<Stream> {
        let link = match &self.faults {
            Some(faults) => Some(faults.link(&stream, me, peer.node)?),
            None => None,
        };
        Ok(Gated::new(stream, link))
    }
}

impl Stream {
    /// Its two halves.
    pub(crate) fn into_split(mut self) -> (Gated<OwnedReadHalf>, Gated<OwnedWriteHalf>) {
        let inner = self.inner.take().expect("it is whole until it is dropped");
        let (reader, writer) = inner.into_split();
        let link = self.link.take();
        (Gated::new(reader, link.clone()), Gated::new(writer, link))
    }
}

impl<T: Socket> Gated<T> {
    fn new(inner: T, link: Option<Arc<Link>>) -> Self {
        let inner = Some(inner);
        Self { inner, link }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, side: Side) -> Poll<io::Result<Pin<&mut T>>> {
        if let Some(link) = &self.link {
            ready!(link.poll_open(cx, side))?;
        }
        let inner = self.inner.as_mut();
        let inner = inner.expect("it is whole until it is dropped");
        Poll::Ready(Ok(Pin::new(inner)))
    }
}

impl<T: Socket> Drop for Gated<T> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take()
            && self.link.as_ref().is_some_and(|link| link.is_unheard())
        {
            inner.forget();
        }
    }
}

impl Socket for TcpStream {
    fn forget(self) {}
}

impl Socket for OwnedReadHalf {
    fn forget(self) {}
}

impl Socket for OwnedWriteHalf {
    fn forget(self) {
        // Dropping it would tell the peer that nothing more comes.
        Self::forget(self);
    }
}

impl<T: Socket + AsyncRead> AsyncRead for Gated<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx, Side::Read))?.poll_read(cx, buffer)
    }
}

impl<T: Socket + AsyncWrite> AsyncWrite for Gated<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx, Side::Write))?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx, Side::Write))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx, Side::Write))?.poll_shutdown(cx)
    }
}
