//! Two nodes that know each other, and a client of both: what actions are tried on.

use partha::{Client, Node, SystemError, Uid};
use test_support::{TempDir, temp_dir};

use super::behaviour::Counter;
use super::{builder, client_of, counter, stop, until};

/// Two nodes and a client of both.
pub struct Pair {
    pub dirs: [TempDir; 2],
    pub nodes: [Node; 2],
    pub client: Client,
}

impl Pair {
    pub async fn start() -> Self {
        let dirs = [temp_dir("pair"), temp_dir("pair")];
        Self::on(dirs).await
    }

    pub async fn on(dirs: [TempDir; 2]) -> Self {
        let a = builder(dirs[0].path()).start().await.unwrap();
        let b = builder(dirs[1].path()).name("b").start().await.unwrap();
        let client = client_of(&a).await;
        let locator = client.locator();
        let address = b.address().to_string();
        locator.introduce(&client, &address).await.unwrap();
        for (node, other) in [(&a, &b), (&b, &a)] {
            acquaint(&client, node, other).await;
        }
        let nodes = [a, b];
        Self {
            dirs,
            nodes,
            client,
        }
    }

    /// A counter at each node.
    pub async fn counters(&self, value: i64) -> [Counter; 2] {
        let [a, b] = &self.nodes;
        let a = counter(&self.client, a, value).await;
        [a, counter(&self.client, b, value).await]
    }

    pub async fn restart(self) -> Self {
        for node in self.nodes {
            stop(node).await;
        }
        Self::on(self.dirs).await
    }

    /// Nothing is left of any action, at any node.
    pub async fn is_clean(&self) {
        for node in &self.nodes {
            let address = node.address().to_string();
            let handle = self.client.node_at(&address).await.unwrap();
            let manager = handle.manager();
            until(|| async {
                let statistics = manager.statistics(&self.client).await.unwrap();
                let locks = manager.locks(&self.client, Uid::NIL, 10, false);
                let locks = locks.await.unwrap();
                // The question itself is a call of the manager.
                let mut locks = locks.iter().map(|lock| lock.object);
                statistics.actions_active == 0 && locks.all(|it| it == manager_of(node))
            })
            .await;
        }
    }

    pub async fn stop(self) {
        self.is_clean().await;
        for node in self.nodes {
            stop(node).await;
        }
    }
}

fn manager_of(node: &Node) -> Uid {
    let node = node.me().node;
    Uid { node, local: 1 }
}

/// Has a node know where the other one is, as the binder would tell it.
async fn acquaint(client: &Client, node: &Node, other: &Node) {
    let object = counter(client, node, 0).await;
    let address = other.address().to_string();
    object.meet(client, &address).await.unwrap();
}

/// What the objects hold now, for everybody.
pub async fn values(client: &Client, counters: &[Counter]) -> Vec<i64> {
    let mut values = Vec::new();
    for counter in counters {
        values.push(counter.value(client).await.unwrap());
    }
    values
}

/// A failure of the program's own.
pub fn given_up() -> SystemError {
    SystemError::servant("changed my mind")
}
