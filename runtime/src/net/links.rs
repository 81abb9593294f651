//! How the connections of a process are made and watched.
//!
//! A node and each of its clients have the same; it is fixed before the first connection. An
//! embedded node has none at all. With the feature `testkit` connections pass through a switch
//! that a test can throw; without it they are plain sockets.

use std::time::Duration;

use super::traffic::Traffic;
use crate::config::{HEARTBEAT, PEER_SILENT_MAX};
use crate::error::{ErrorKind, Result, SystemError};

/// The shortest heartbeat: one that is due before the last can be answered says nothing.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

/// How the connections of a process are made and watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    pub(crate) lease: Lease,
    pub(crate) traffic: Traffic,
    /// No connections are made.
    pub(crate) embedded: bool,
    /// What a test does to the connections.
    #[cfg(feature = "testkit")]
    pub(crate) faults: Option<std::sync::Arc<crate::testkit::Faults>>,
}

/// When a silent peer is asked whether it lives, and when it is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) heartbeat: Duration,
    pub(crate) silent_max: Duration,
}

impl Lease {
    /// One that leaves room for a heartbeat that got lost.
    pub(crate) fn new(heartbeat: Duration, silent_max: Duration) -> Result<Self> {
        let wrong = |what: String| Err(SystemError::new(ErrorKind::BadOperation, what));
        if heartbeat < HEARTBEAT_MIN {
            return wrong(format!(
                "a heartbeat each {heartbeat:?}; at least {HEARTBEAT_MIN:?} have to lie between two"
            ));
        }
        if silent_max < heartbeat.saturating_mul(2) {
            return wrong(format!(
                "a lease of {silent_max:?} with a heartbeat each {heartbeat:?}; it has to be at \
                 least two heartbeats long"
            ));
        }
        Ok(Self {
            heartbeat,
            silent_max,
        })
    }

    /// How often to look at the clock, so that neither comes much too late.
    pub(crate) fn tick(self) -> Duration {
        Duration::from_millis(250).min(self.heartbeat / 2)
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            heartbeat: HEARTBEAT,
            silent_max: PEER_SILENT_MAX,
        }
    }
}

/// Sockets as they are. With the test kit these are in `testkit::stream`.
#[cfg(not(feature = "testkit"))]
mod plain {
    use partha_core::id::{NodeId, Peer};
    use tokio::net::TcpStream;
    use tokio::net::tcp::OwnedReadHalf;

    use crate::net::connection::Connection;
    use crate::net::socket::Writer;

    impl super::Links {
        /// Connects to whoever listens at `address`.
        pub(crate) async fn connect(
            &self,
            _me: Peer,
            address: &str,
            _node: NodeId,
        ) -> std::io::Result<TcpStream> {
            let stream = TcpStream::connect(address).await?;
            crate::net::prepare(&stream)?;
            Ok(stream)
        }

        /// Who is at the other end of a connection that this one opened.
        pub(crate) fn met(&self, _stream: &TcpStream, _peer: Peer) {}

        /// The halves of a connection; a frame that is alone may be written past its task.
        pub(crate) fn split(stream: TcpStream, connection: &Connection) -> (OwnedReadHalf, Writer) {
            let (reader, writer) = stream.into_split();
            let writer = Writer::new(writer);
            connection.write_past(writer.past());
            (reader, writer)
        }

        /// A connection that a peer opened.
        pub(crate) fn accepted(
            &self,
            stream: TcpStream,
            _me: Peer,
            _peer: Peer,
        ) -> std::io::Result<TcpStream> {
            Ok(stream)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_room_for_a_lost_heartbeat() {
        let ms = Duration::from_millis;
        assert!(Lease::new(ms(50), ms(100)).is_ok());
        let error = Lease::new(ms(50), ms(99)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation);
        assert!(error.detail().contains("two heartbeats"), "{error}");
        assert!(Lease::new(ms(0), ms(100)).is_err());
        assert!(Lease::new(Duration::MAX, ms(100)).is_err());
        let default = Lease::default();
        assert_eq!(
            Lease::new(default.heartbeat, default.silent_max).unwrap(),
            default
        );
    }

    #[test]
    fn both_are_seen_in_time() {
        let ms = Duration::from_millis;
        assert_eq!(Lease::default().tick(), ms(250));
        assert_eq!(Lease::new(ms(20), ms(60)).unwrap().tick(), ms(10));
    }
}
