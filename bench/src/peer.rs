//! Who is measured.
//!
//! A peer is a way to make a null call. To add one: a variant here with its label, the arms of
//! [`serve`] and [`drive`], and a module in [`crate::peers`] with its server and its
//! [`Caller`](crate::load::Caller). Partha's own three ways have their place here too, the native
//! face between processes first ([`Kind::Processes`]), then the same shard and another shard of
//! one process ([`Kind::OneProcess`]).
//!
//! Each peer has one thread for its client and one for its server, `TCP_NODELAY` where there is
//! TCP, and otherwise the settings its documentation shows.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};

use crate::load::{self, Load, Measurement};
use crate::peers;

/// A way to make a null call, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// Frames with a length over tokio's TCP, coalesced: the floor between processes
    Raw,
    /// tarpc with bincode
    Tarpc,
    /// capnp-rpc, buffered
    CapnpRpc,
    /// Partha's native face
    Partha,
    /// A tokio channel there and a oneshot back, between two threads: the floor in one process
    Oneshot,
    /// Partha, from one shard of a node to another
    ParthaAcross,
    /// Partha, within a shard
    ParthaWithin,
}

/// Where a peer's server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In a process of its own, reached over loopback TCP.
    Processes,
    /// In the client's process.
    OneProcess,
}

impl Peer {
    /// For the table.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Raw => "raw frames, tokio TCP",
            Self::Tarpc => "tarpc 0.38, bincode",
            Self::CapnpRpc => "capnp-rpc 0.27, buffered",
            Self::Partha => "partha, native face",
            Self::Oneshot => "tokio oneshot, two threads",
            Self::ParthaAcross => "partha, across shards",
            Self::ParthaWithin => "partha, same shard",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Raw | Self::Tarpc | Self::CapnpRpc | Self::Partha => Kind::Processes,
            Self::Oneshot | Self::ParthaAcross | Self::ParthaWithin => Kind::OneProcess,
        }
    }

    /// Whom this one's calls per second are compared with.
    pub(crate) fn reference(self) -> Self {
        match self.kind() {
            Kind::Processes => Self::Tarpc,
            Kind::OneProcess => Self::Oneshot,
        }
    }
}

/// Serves `peer` to all who connect, for ever. Must run in a `LocalSet`.
pub(crate) async fn serve(peer: Peer, listener: TcpListener) -> anyhow::Result<()> {
    if peer == Peer::Partha {
        let address = listener
            .local_addr()
            .context("a listener without an address")?;
        drop(listener);
        return peers::partha::serve(address).await;
    }
    loop {
        let (stream, _) = listener
            .accept()
            .await
            .context("cannot accept a connection")?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        match peer {
            Peer::Raw => drop(tokio::task::spawn_local(peers::raw::serve(stream))),
            Peer::Tarpc => drop(tokio::task::spawn_local(peers::tarpc::serve(stream))),
            Peer::CapnpRpc => drop(tokio::task::spawn_local(peers::capnp::serve(stream))),
            Peer::Partha | Peer::Oneshot | Peer::ParthaAcross | Peer::ParthaWithin => {
                bail!("{} has no server of its own", peer.label())
            }
        }
    }
}

/// Loads `peer`, whose server listens at `address` if it has one. Must run in a `LocalSet`.
pub(crate) async fn drive(
    peer: Peer,
    address: Option<SocketAddr>,
    load: Load,
) -> anyhow::Result<Measurement> {
    match peer {
        Peer::Raw => peers::raw::drive(connect(address).await?, load).await,
        Peer::Tarpc => load::drive(peers::tarpc::Client::new(connect(address).await?), load).await,
        Peer::CapnpRpc => {
            load::drive(peers::capnp::Client::new(connect(address).await?), load).await
        }
        Peer::Partha => {
            let address = address.context("this peer needs --address")?;
            load::drive(peers::partha::Native::new(address).await?, load).await
        }
        Peer::Oneshot => load::drive(peers::oneshot::Client::new()?, load).await,
        Peer::ParthaAcross => peers::partha::drive_inside(true, load).await,
        Peer::ParthaWithin => peers::partha::drive_inside(false, load).await,
    }
}

async fn connect(address: Option<SocketAddr>) -> anyhow::Result<TcpStream> {
    let address = address.context("this peer needs --address")?;
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::task::LocalSet;

    async fn run(peer: Peer) -> anyhow::Result<Measurement> {
        let load = Load {
            outstanding: 4,
            warm_up_ms: 2,
            measure_ms: 10,
        };
        let address = match peer.kind() {
            Kind::Processes => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let address = listener.local_addr()?;
                tokio::task::spawn_local(serve(peer, listener));
                Some(address)
            }
            Kind::OneProcess => None,
        };
        drive(peer, address, load).await
    }

    #[tokio::test]
    async fn every_peer_answers_right() {
        for &peer in Peer::value_variants() {
            let found = LocalSet::new().run_until(run(peer)).await;
            let found = found.unwrap_or_else(|error| panic!("{peer:?}: {error:#}"));
            assert!(found.calls_per_second > 0.0, "{peer:?}: {found:?}");
        }
    }

    #[test]
    fn a_reference_is_its_own_and_of_the_same_kind() {
        for peer in Peer::value_variants() {
            assert_eq!(peer.reference().reference(), peer.reference());
            assert_eq!(peer.reference().kind(), peer.kind());
        }
    }
}
