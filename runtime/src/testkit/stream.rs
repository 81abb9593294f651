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
use tokio::net::tcp::OwnedReadHalf;

use super::faults::{Link, Side};
use crate::net::connection::Connection;
use crate::net::links::Links;
use crate::net::socket::{Past, Writer};

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

    /// The halves of a connection; a frame that is alone may be written past its task.
    pub(crate) fn split(
        stream: Stream,
        connection: &Connection,
    ) -> (Gated<OwnedReadHalf>, Gated<Writer>) {
        let (reader, writer) = stream.into_split();
        connection.write_past(writer.past());
        (reader, writer)
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
    pub(crate) fn into_split(mut self) -> (Gated<OwnedReadHalf>, Gated<Writer>) {
        let inner = self.inner.take().expect("it is whole until it is dropped");
        let (reader, writer) = inner.into_split();
        let (writer, link) = (Writer::new(writer), self.link.take());
        (Gated::new(reader, link.clone()), Gated::new(writer, link))
    }
}

impl Gated<Writer> {
    /// The way past the connection's task, unless a test may hold it up.
    fn past(&self) -> Past {
        let writer = self.inner.as_ref().filter(|_| self.link.is_none());
        writer.map(Writer::past).unwrap_or_default()
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

impl Socket for Writer {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use partha_core::id::Incarnation;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::faults::Faults;
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Long enough for what must not happen to be seen if it does.
    const WHILE: Duration = Duration::from_millis(50);

    fn me() -> Peer {
        Peer {
            node: ME,
            incarnation: Incarnation(1),
        }
    }

    struct Scene {
        faults: Arc<Faults>,
        listener: TcpListener,
        links: Links,
    }

    impl Scene {
        async fn open() -> Self {
            let faults: Arc<Faults> = Arc::default();
            Self {
                listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
                links: Links {
                    faults: Some(faults.clone()),
                    ..Links::default()
                },
                faults,
            }
        }

        async fn connect(&self) -> io::Result<Stream> {
            let address = self.listener.local_addr().unwrap().to_string();
            self.links.connect(me(), &address, OTHER).await
        }

        /// Our end, and the other one as it is.
        async fn pair(&self) -> (Stream, TcpStream) {
            let (ours, theirs) = tokio::join!(self.connect(), self.listener.accept());
            (ours.unwrap(), theirs.unwrap().0)
        }
    }

    /// That nothing can be read, not even an end.
    async fn hears_nothing(stream: &mut (impl AsyncRead + Unpin)) {
        let mut byte = [0];
        let read = tokio::time::timeout(WHILE, stream.read(&mut byte)).await;
        read.unwrap_err();
    }

    async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Option<u8> {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await;
        let read = read.expect("somebody wakes who waits").ok()?;
        (read == 1).then_some(byte[0])
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_it_may_go_on() {
        let scene = Scene::open().await;
        let (mut ours, mut theirs) = scene.pair().await;
        type Fault = fn(&Faults);
        let faults: [(Fault, Fault); 3] = [
            (|it| it.part(ME, OTHER), Faults::heal),
            (|it| it.silence(OTHER, ME), Faults::heal),
            (|it| it.pause(ME), |it| it.resume(ME)),
        ];
        for (begin, end) in faults {
            begin(&scene.faults);
            theirs.write_all(&[7]).await.unwrap();
            hears_nothing(&mut ours).await;
            // A task of its own, which nothing else wakes.
            let waiting = tokio::spawn(async move { (next(&mut ours).await, ours) });
            tokio::time::sleep(WHILE).await;
            end(&scene.faults);
            let ended = std::time::Instant::now();
            let (byte, back) = waiting.await.unwrap();
            assert!(
                ended.elapsed() < PATIENCE / 2,
                "it was woken by its deadline"
            );
            assert_eq!(byte, Some(7));
            ours = back;
        }
    }

    #[tokio::test]
    async fn what_is_silenced_is_not_written_and_the_rest_is() {
        let scene = Scene::open().await;
        let (mut ours, mut theirs) = scene.pair().await;
        scene.faults.silence(OTHER, ME);
        ours.write_all(&[1]).await.unwrap();
        assert_eq!(next(&mut theirs).await, Some(1));
        scene.faults.silence(ME, OTHER);
        tokio::time::timeout(WHILE, ours.write_all(&[2]))
            .await
            .unwrap_err();
        hears_nothing(&mut theirs).await;
        scene.faults.heal();
        ours.write_all(&[3]).await.unwrap();
        assert_eq!(next(&mut theirs).await, Some(3));
    }

    #[tokio::test]
    async fn a_connection_is_made_when_both_hear_each_other() {
        let scene = Scene::open().await;
        for (from, to) in [(ME, OTHER), (OTHER, ME)] {
            scene.faults.silence(from, to);
            let connecting = scene.connect();
            tokio::pin!(connecting);
            let early = tokio::time::timeout(WHILE, &mut connecting).await;
            early.map(drop).unwrap_err();
            scene.faults.heal();
            let made = tokio::time::timeout(PATIENCE, connecting).await;
            made.unwrap().unwrap();
        }
        scene.faults.kill(me());
        scene.connect().await.map(drop).unwrap_err();
    }

    #[tokio::test]
    async fn an_end_that_nobody_may_hear_of_is_heard_of_later() {
        let scene = Scene::open().await;
        for (begin, end) in [
            (Faults::pause as fn(&Faults, NodeId), Faults::resume as _),
            (
                |it: &Faults, node| it.silence(node, OTHER),
                |it: &Faults, _| it.heal(),
            ),
        ] as [(fn(&Faults, NodeId), fn(&Faults, NodeId)); 2]
        {
            let (ours, mut theirs) = scene.pair().await;
            begin(&scene.faults, ME);
            // In halves, as connections drop them.
            drop(ours.into_split());
            hears_nothing(&mut theirs).await;
            end(&scene.faults, ME);
            assert_eq!(next(&mut theirs).await, None, "closed");
        }
    }

    #[tokio::test]
    async fn the_sockets_of_the_dead_close_at_once_or_with_the_partition() {
        let scene = Scene::open().await;
        let (ours, mut theirs) = scene.pair().await;
        scene.faults.part(ME, OTHER);
        let (_reader, mut writer) = ours.into_split();
        scene.faults.kill(me());
        writer.write_all(&[1]).await.unwrap_err();
        hears_nothing(&mut theirs).await;
        drop((_reader, writer));
        hears_nothing(&mut theirs).await;
        scene.faults.heal();
        assert_eq!(next(&mut theirs).await, None);

        let scene = Scene::open().await;
        // Nobody polls it, as if its thread hung.
        let (_ours, mut theirs) = scene.pair().await;
        scene.faults.kill(me());
        assert_eq!(next(&mut theirs).await, None);
    }

    #[tokio::test]
    async fn a_cut_breaks_both_ends_and_no_later_connection() {
        let scene = Scene::open().await;
        let (mut ours, mut theirs) = scene.pair().await;
        scene.faults.cut(OTHER, ME);
        let mut byte = [0];
        ours.read(&mut byte).await.unwrap_err();
        assert_eq!(next(&mut theirs).await, None);
        let (mut ours, mut theirs) = scene.pair().await;
        theirs.write_all(&[5]).await.unwrap();
        assert_eq!(next(&mut ours).await, Some(5));
    }
}
