//! The bank on two nodes, with naming and binder, in this process.

#![allow(dead_code, reason = "each test file uses a part")]

use std::time::Duration;

use bank::{Account, AuditLog, Branch};
use partha::{Client, Node, Place};
use test_support::{TempDir, temp_dir};

/// Long enough for a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A bank of its own for one test.
pub(crate) struct Bank {
    pub(crate) folder: TempDir,
    pub(crate) naming: Node,
    _binder: Node,
    pub(crate) a: Node,
    _b: Node,
    pub(crate) client: Client,
}

impl Bank {
    pub(crate) async fn open() -> Self {
        let folder = temp_dir("bank");
        let builder = |name: &str| {
            Node::builder()
                .name(name)
                .data_dir(folder.path().join(name))
                .shards(2)
        };
        let naming = partha_naming::start(builder("naming")).await.unwrap();
        let address = naming.address().to_string();
        let lease = Duration::from_secs(10);
        let binder = builder("binder").naming(&address);
        let binder = partha_binder::start(binder, Vec::new(), lease)
            .await
            .unwrap();
        let a = bank::node::start(builder("a").naming(&address))
            .await
            .unwrap();
        let b = bank::node::start(builder("b").naming(&address))
            .await
            .unwrap();
        a.registered().await;
        b.registered().await;
        let client = Client::connect(address).await.unwrap();
        Self {
            folder,
            naming,
            _binder: binder,
            a,
            _b: b,
            client,
        }
    }

    pub(crate) async fn account(&self, node: &str) -> Account {
        let place = Place::Named(node.to_owned());
        Account::create(&self.client, &place, "somebody")
            .await
            .unwrap()
    }

    /// A branch at a, with its log at b.
    pub(crate) async fn branch(&self) -> (Branch, AuditLog) {
        let place = |node: &str| Place::Named(node.to_owned());
        let log = AuditLog::create(&self.client, &place("b")).await.unwrap();
        let branch = Branch::create(&self.client, &place("a"), &log).await;
        (branch.unwrap(), log)
    }
}
