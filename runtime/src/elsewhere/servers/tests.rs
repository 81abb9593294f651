//! What a call that wants a process is told of it; no process is started.

use super::keeper::Command;
use super::*;
use crate::client::Client;
use crate::context::Context;
use crate::system::server_process::Servant;
use crate::system::{Executed, Execution};

struct Nobody;

impl Servant for Nobody {
    async fn execute(&self, _cx: &Context, _execution: Execution) -> Result<Executed> {
        Err(SystemError::servant("never to be called"))
    }

    async fn stop(&self, _cx: &Context, _number: u64) -> Result<()> {
        Ok(())
    }
}

pub(super) const KEY: Key = Key {
    class: ClassId(1),
    object: None,
    name: "Class",
};

pub(super) type Orders = mpsc::UnboundedReceiver<Command>;

/// Servers whose keeper is the test.
pub(super) fn kept() -> (Arc<Servers>, Orders) {
    let policies = HashMap::from([(KEY.class, ActivationPolicy::ProcessPerClass)]);
    let servers = Servers::new(policies, 1, Duration::from_secs(60));
    let (keeper, orders) = mpsc::unbounded_channel();
    servers.keeper.set(keeper).unwrap();
    (Arc::new(servers), orders)
}

/// A process that takes calls, were there one.
pub(super) fn server(number: u64) -> Server {
    let client = Client::alone().unwrap();
    Server {
        number,
        pid: std::process::id(),
        stub: ServerProcess::serve(&client, Nobody).unwrap(),
    }
}

/// A call that wants the process.
fn wanted(servers: &Arc<Servers>) -> tokio::task::JoinHandle<Result<Arc<Server>>> {
    let servers = servers.clone();
    let deadline = Instant::now() + Duration::from_secs(30);
    tokio::spawn(async move { servers.up(KEY, deadline).await })
}

async fn started(orders: &mut Orders) -> u64 {
    let order = tokio::time::timeout(Duration::from_secs(30), orders.recv());
    match order.await.unwrap().unwrap() {
        Command::Start { number, .. } => number,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_process_that_is_killed_for_another_call_is_no_failed_start() {
    let (servers, mut orders) = kept();
    let call = wanted(&servers);
    let number = started(&mut orders).await;
    // Before the call has its turn, another one there is given up.
    lock(&servers.table).ready(KEY, server(number));
    lock(&servers.table).doubt(KEY, number);
    tokio::task::yield_now().await;
    let killed = "killed by its node, since another call was given up".to_owned();
    lock(&servers.table).gone(KEY, number, killed, true);
    let next = started(&mut orders).await;
    assert_ne!(next, number);
    // What becomes of that start is its answer.
    lock(&servers.table).gone(KEY, next, "exit status: 3".to_owned(), true);
    let error = call.await.unwrap().unwrap_err();
    assert!(error.detail().contains("exit status: 3"), "{error}");
    assert!(error.is_safe_to_retry(), "it was never sent: {error}");
}
