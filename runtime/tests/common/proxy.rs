//! A relay between clients and a node that can cut its connections.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A port that leads to a node.
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    relays: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Proxy {
    /// A new port that leads to `target`; works as long as the test's runtime.
    pub async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(target));
        let relays = Arc::new(Mutex::new(Vec::new()));
        let (to, made) = (target.clone(), relays.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let target = *to.lock().unwrap();
                let relay = tokio::spawn(relay(stream, target));
                made.lock().unwrap().push(relay.abort_handle());
            }
        });
        Self {
            address,
            target,
            relays,
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

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) {
    if let Ok(mut node) = TcpStream::connect(target).await {
        // Either end may close; the other learns it by the end of this.
        drop(tokio::io::copy_bidirectional(&mut client, &mut node).await);
    }
}
