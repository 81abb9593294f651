//! The writing half of a connection's socket.
//!
//! The connection's task writes with it, and knows when there is room again. Whoever finds nothing
//! queued may write past the task: that saves waking it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;

/// The half itself, which the connection's task has. The socket is closed with it.
#[derive(Debug)]
pub(crate) struct Writer(Arc<OwnedWriteHalf>);

/// The way past the task, as long as that has the half.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past(Weak<OwnedWriteHalf>);

impl Writer {
    pub(crate) fn new(half: OwnedWriteHalf) -> Self {
        Self(Arc::new(half))
    }

    pub(crate) fn past(&self) -> Past {
        Past(Arc::downgrade(&self.0))
    }

    /// Gives it up without a word to the peer.
    #[cfg(feature = "testkit")]
    pub(crate) fn forget(self) {
        if let Some(half) = Arc::into_inner(self.0) {
            half.forget();
        }
    }

    fn poll_with<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&OwnedWriteHalf) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.0.as_ref().as_ref().poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl Past {
    /// Writes as much as the socket takes at once.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; `NotConnected` if there is no way.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.upgrade() {
            Some(half) => half.try_write(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |half| half.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |half| half.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream: &tokio::net::TcpStream = self.0.as_ref().as_ref();
        Poll::Ready(SockRef::from(stream).shutdown(std::net::Shutdown::Write))
    }
}
