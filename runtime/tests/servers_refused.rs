//! What server processes refuse: values that cannot cross to them, and those that only claim to be
//! server processes.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;
#[path = "common/worker.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]
mod worker;
#[path = "common/workshop.rs"]
#[allow(unreachable_pub, reason = "a part of each test binary")]
mod workshop;

use std::path::Path;

use common::{client_of, run, stop};
use partha::SystemError;
use partha::services::system;
use partha::{ActivationPolicy, Client, Context, ErrorKind, Node, Result};
use test_support::temp_dir;
use worker::elsewhere::{Hearer, hearer};
use worker::worker;
use workshop::{be_a_process, workshop};

#[test]
#[ignore = "a server process of the other tests"]
fn server_process() {
    be_a_process();
}

async fn start(dir: &Path) -> (Node, Client) {
    let node = workshop(dir, ActivationPolicy::ProcessPerObject)
        .start()
        .await
        .unwrap();
    let client = client_of(&node).await;
    (node, client)
}

struct HearerServant;

impl hearer::Servant for HearerServant {
    async fn heard(&self, _cx: &Context, value: i64) -> Result<i64> {
        Ok(value)
    }
}

#[test]
fn what_cannot_cross_to_another_process_is_refused_with_the_cure() {
    run(async {
        let dir = temp_dir("servers-refused");
        let (node, client) = start(dir.path()).await;
        let one = worker(&client, &node, 1).await;
        let hearer = Hearer::serve(&client, HearerServant).unwrap();
        let error = one.tell(&client, &hearer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation);
        assert!(
            error.detail().contains("capabilities connect two parties"),
            "{error}"
        );
        let error = one.put_row(&client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadOperation);
        assert!(
            error.detail().contains("serve it in the node's process"),
            "{error}"
        );
        stop(node).await;
    });
}

#[test]
fn strangers_cannot_offer_themselves() {
    run(async {
        let dir = temp_dir("servers-stranger");
        let (node, client) = start(dir.path()).await;
        let one = worker(&client, &node, 1).await;
        one.value(&client).await.unwrap();
        let address = node.address().to_string();
        let handle = client.node_at(&address).await.unwrap();
        let any = system::ServerProcess::serve(&client, Stranger).unwrap();
        let offered = handle.manager().offer(&client, vec![7; 16], &any).await;
        assert_eq!(offered.unwrap_err().kind(), ErrorKind::BadOperation);
        assert_eq!(one.value(&client).await.unwrap(), 1);
        stop(node).await;
    });
}

struct Stranger;

impl system::server_process::Servant for Stranger {
    async fn execute(
        &self,
        _cx: &Context,
        _execution: system::Execution,
    ) -> Result<system::Executed> {
        Err(SystemError::servant("never to be called"))
    }

    async fn stop(&self, _cx: &Context, _number: u64) -> Result<()> {
        Ok(())
    }
}
