//! Who is measured between processes and within one.
//!
//! To add a peer: a variant here with its name, the arms of [`serve`] and [`drive`], a module in
//! [`peers`] with its server and its [`Connector`](super::load::Connector), and its label in the
//! catalog. Partha's own ways have their place here too.
//!
//! Each peer in Rust runs its calls on one thread a side; those in C++ have the threads of their
//! own libraries. Each has `TCP_NODELAY` where there is TCP, and otherwise the settings its
//! documentation shows.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use tokio::net::{TcpListener, TcpStream};

use super::load::{self, Load};
use super::peers::{self, capnp::Buffers};
use crate::figure::Found;
use crate::process;

/// A way to make calls, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    /// Frames with a length over tokio's TCP, coalesced: the floor between processes
    Raw,
    /// tarpc with bincode
    Tarpc,
    /// capnp-rpc, buffered
    CapnpRpc,
    /// capnp-rpc on the bare socket
    CapnpRpcUnbuffered,
    /// capnp-rpc over the network of Partha's guard
    CapnpRpcGuard,
    /// tonic
    Tonic,
    /// Ice, in C++
    Ice,
    /// omniORB, in C++
    Omniorb,
    /// Partha's native face
    Partha,
    /// Partha called by capnp-rpc
    ParthaForeign,
    /// A tokio channel there and a oneshot back, between two threads: the floor in one process
    Oneshot,
    /// Partha, from one shard of a node to another
    ParthaAcross,
    /// Partha, within a shard
    ParthaWithin,
}

impl Peer {
    /// Those with a server process.
    pub(crate) const SERVERS: [Self; 10] = [
        Self::Raw,
        Self::Tarpc,
        Self::CapnpRpc,
        Self::CapnpRpcUnbuffered,
        Self::CapnpRpcGuard,
        Self::Tonic,
        Self::Ice,
        Self::Omniorb,
        Self::Partha,
        Self::ParthaForeign,
    ];

    /// Those of which a curve is drawn.
    pub(crate) const CURVES: [Self; 6] = [
        Self::Raw,
        Self::Tarpc,
        Self::CapnpRpc,
        Self::Tonic,
        Self::Partha,
        Self::ParthaForeign,
    ];

    /// Those within a process.
    pub(crate) const INSIDE: [Self; 3] = [Self::Oneshot, Self::ParthaAcross, Self::ParthaWithin];

    /// Its name in the catalog, and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Tarpc => "tarpc",
            Self::CapnpRpc => "capnp-rpc",
            Self::CapnpRpcUnbuffered => "capnp-rpc-unbuffered",
            Self::CapnpRpcGuard => "capnp-rpc-guard",
            Self::Tonic => "tonic",
            Self::Ice => "ice",
            Self::Omniorb => "omniorb",
            Self::Partha => "partha",
            Self::ParthaForeign => "partha-foreign",
            Self::Oneshot => "oneshot",
            Self::ParthaAcross => "partha-across",
            Self::ParthaWithin => "partha-within",
        }
    }
}

/// Serves `peer` to all who connect, for ever. Must run in a `LocalSet`.
pub(crate) async fn serve(peer: Peer, shards: u16) -> anyhow::Result<()> {
    match peer {
        Peer::Raw => accept(peers::raw::serve).await,
        Peer::Tarpc => accept(peers::tarpc::serve).await,
        Peer::CapnpRpc => accept(|stream| peers::capnp::serve(stream, Buffers::Both)).await,
        Peer::CapnpRpcUnbuffered => {
            accept(|stream| peers::capnp::serve(stream, Buffers::None)).await
        }
        Peer::CapnpRpcGuard => accept(|stream| peers::capnp::serve(stream, Buffers::Guard)).await,
        Peer::Tonic => peers::tonic::serve(listen().await?).await,
        Peer::Partha | Peer::ParthaForeign => peers::partha::serve(shards).await,
        Peer::Oneshot | Peer::ParthaAcross | Peer::ParthaWithin => {
            bail!("{} has no server of its own", peer.name())
        }
        Peer::Ice | Peer::Omniorb => bail!("{} is a program of its own", peer.name()),
    }
}

async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context("cannot listen on 127.0.0.1, port 0")?;
    process::ready(listener.local_addr()?);
    Ok(listener)
}

/// Serves each connection by a task.
async fn accept<F>(serve: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    let listener = listen().await?;
    loop {
        let (stream, _) = listener
            .accept()
            .await
            .context("cannot accept a connection")?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        let connection = serve(stream);
        // A client that goes in the middle of something is the client's affair: its run fails.
        tokio::task::spawn_local(async move { drop(connection.await) });
    }
}

/// Loads `peer`, whose server listens at `address` if it has one. Must run in a `LocalSet`.
pub(crate) async fn drive(
    peer: Peer,
    address: Option<SocketAddr>,
    load: Load,
) -> anyhow::Result<Found> {
    let address = || address.context("this peer needs --address");
    let unknown = load.stopped_reader && peer != Peer::Partha;
    ensure!(!unknown, "{} has no reader that stops", peer.name());
    match peer {
        Peer::Raw => peers::raw::drive(address()?, load).await,
        Peer::Tarpc => load::drive(peers::tarpc::Tarpc(address()?), load).await,
        Peer::CapnpRpc | Peer::CapnpRpcUnbuffered | Peer::CapnpRpcGuard => {
            let buffers = match peer {
                Peer::CapnpRpc => Buffers::Both,
                Peer::CapnpRpcGuard => Buffers::Guard,
                _ => Buffers::None,
            };
            let address = address()?;
            load::drive(peers::capnp::Capnp { address, buffers }, load).await
        }
        Peer::Tonic => load::drive(peers::tonic::Tonic(address()?), load).await,
        Peer::Partha => peers::partha::drive(address()?, load).await,
        Peer::ParthaForeign => {
            let address = address()?;
            let object = peers::partha::make_objects(address, 1).await?[0];
            load::drive(peers::foreign::Foreign { address, object }, load).await
        }
        Peer::Ice | Peer::Omniorb => bail!("{} is a program of its own", peer.name()),
        Peer::Oneshot => load::drive(peers::oneshot::Oneshot, load).await,
        Peer::ParthaAcross => peers::partha::drive_inside(true, load).await,
        Peer::ParthaWithin => peers::partha::drive_inside(false, load).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn the_command_line_knows_peers_by_their_names() {
        for peer in Peer::value_variants() {
            let value = peer.to_possible_value().unwrap();
            assert_eq!(value.get_name(), peer.name());
            assert_ne!(catalog::label(peer.name()), "unknown");
        }
    }
}
