//! Clusters of nodes with all test classes.

use partha::testkit::{Cluster, Plan};
use partha::{Client, Place};

use super::behaviour::Counter;
use super::with_classes;

/// So many nodes with all test classes, not started.
pub fn plan(nodes: usize) -> Plan {
    Cluster::new()
        .nodes(nodes)
        .configure(|_, builder| with_classes(builder))
}

/// So many nodes with all test classes.
pub async fn cluster(nodes: usize) -> Cluster {
    plan(nodes).start().await.unwrap()
}

/// A new counter at the place.
pub async fn counter_at(client: &Client, place: &Place, value: i64) -> Counter {
    Counter::create(client, place, value, partha::Bytes::new())
        .await
        .unwrap()
}
