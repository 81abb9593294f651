//! A relay between clients and a node that can cut its connections, or lose answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A port that leads to a node.
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    relays: Arc<Mutex<Vec<AbortHandle>>>,
    /// Set while what the node says is lost.
    mute: Arc<AtomicBool>,
}

impl Proxy {
    /// A new port that leads to `target`; works as long as the test's runtime.
    pub async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(target));
        let relays = Arc::new(Mutex::new(Vec::new()));
        let mute = Arc::new(AtomicBool::new(false));
        let (to, made, muted) = (target.clone(), relays.clone(), mute.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let target = *to.lock().unwrap();
                let relay = tokio::spawn(relay(stream, target, muted.clone()));
                made.lock().unwrap().push(relay.abort_handle());
            }
        });
        Self {
            address,
            target,
            relays,
            mute,
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Breaks all connections there are; new ones can be made.
    pub fn cut(&self) {
        for relay in self.relays.lock().unwrap().drain(..) {
            relay.abort();
        }
    }

    /// From now on all is lost that the node says, or nothing any more.
    pub fn mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::Relaxed);
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

async fn relay(client: TcpStream, target: SocketAddr, mute: Arc<AtomicBool>) {
    if let Ok(node) = TcpStream::connect(target).await {
        let ((from_client, to_client), (from_node, to_node)) =
            (client.into_split(), node.into_split());
        // Either end may close; the other learns it by the end of this.
        tokio::select! {
            () = pass(from_client, to_node, Arc::default()) => {}
            () = pass(from_node, to_client, mute) => {}
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mute: Arc<AtomicBool>) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count) = from.read(&mut bytes).await {
        if count == 0 {
            return;
        }
        if !mute.load(Ordering::Relaxed) && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
