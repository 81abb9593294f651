//! Servants and nodes for the behavioural tests.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use partha::{Bytes, Client, Context, Limits, Node, Place, Result, SystemError};
use tokio::sync::Semaphore;

#[rustfmt::skip]
#[path = "../gen/behaviour.rs"]
#[allow(clippy::all, missing_docs, unused, unreachable_pub, reason = "generated code")]
pub mod behaviour;

use behaviour::counter::{self, GiveError, TakeError};
use behaviour::{Counter, Listener, Pair, TooLittle};

/// Gates that servants wait at, by name.
static GATES: LazyLock<Mutex<HashMap<String, Arc<Semaphore>>>> = LazyLock::new(Mutex::default);

/// A gate: closed until opened.
pub fn gate(name: &str) -> Arc<Semaphore> {
    let mut gates = GATES.lock().unwrap();
    gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(0))).clone()
}

/// How often a servant's method began, by gate name.
static BEGUN: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

pub fn begun(name: &str) -> u64 {
    BEGUN.lock().unwrap().get(name).copied().unwrap_or_default()
}

fn begin(name: &str) {
    *BEGUN.lock().unwrap().entry(name.to_owned()).or_default() += 1;
}

async fn pass(name: &str) {
    begin(name);
    let gate = gate(name);
    gate.acquire().await.unwrap().forget();
}

pub struct CounterServant;

macro_rules! counter_methods {
    ($state:ty, $module:ident, $value:expr) => {
        async fn value(&self, state: &$state, _cx: &Context) -> Result<i64> {
            Ok($value(state))
        }
    };
}

fn take(value: &mut i64, amount: i64) -> std::result::Result<i64, TooLittle> {
    let have = *value;
    // The change comes before the exception, to show that it is undone.
    *value -= amount;
    if have < amount {
        return Err(TooLittle { have, wanted: amount });
    }
    Ok(*value)
}

impl counter::Servant for CounterServant {
    fn new(&self, value: i64, padding: Bytes) -> counter::State {
        counter::State { value, padding }
    }

    counter_methods!(counter::State, counter, |s: &counter::State| s.value);

    async fn add(&self, state: &mut counter::State, _cx: &Context, amount: i64) -> Result<i64> {
        state.value += amount;
        Ok(state.value)
    }

    async fn take(
        &self,
        state: &mut counter::State,
        _cx: &Context,
        amount: i64,
    ) -> Result<i64, TakeError> {
        Ok(take(&mut state.value, amount)?)
    }

    async fn set(&self, state: &mut counter::State, _cx: &Context, value: i64) -> Result<()> {
        state.value = value;
        Ok(())
    }

    async fn add_at_gate(
        &self,
        state: &mut counter::State,
        _cx: &Context,
        amount: i64,
        gate: String,
    ) -> Result<i64> {
        state.value += amount;
        pass(&gate).await;
        Ok(state.value)
    }

    async fn read_at_gate(
        &self,
        state: &counter::State,
        _cx: &Context,
        gate: String,
    ) -> Result<i64> {
        pass(&gate).await;
        Ok(state.value)
    }

    async fn panic(&self, state: &mut counter::State, _cx: &Context) -> Result<()> {
        state.value = -1;
        panic!("as asked");
    }

    async fn give_up(&self, state: &mut counter::State, _cx: &Context) -> Result<()> {
        state.value = -1;
        Err(SystemError::servant("no wish to go on"))
    }

    async fn give(
        &self,
        state: &mut counter::State,
        cx: &Context,
        to: Counter,
        amount: i64,
    ) -> Result<i64, GiveError> {
        take(&mut state.value, amount)?;
        Ok(to.add(cx, amount).await?)
    }

    async fn tell(
        &self,
        state: &counter::State,
        cx: &Context,
        listener: Listener,
    ) -> Result<i64> {
        listener.heard(cx, state.value).await
    }

    async fn echo(&self, _state: &counter::State, _cx: &Context, data: Bytes) -> Result<Bytes> {
        Ok(data)
    }

    async fn put_row(
        &self,
        _state: &mut counter::State,
        cx: &Context,
        key: String,
        value: i64,
    ) -> Result<u64> {
        let value = Bytes::copy_from_slice(&value.to_le_bytes());
        cx.rows().put(1, key.as_bytes(), value)?;
        Ok(cx.rows().scan(1, None, 1000)?.len() as u64)
    }

    async fn put_row_and_give_up(
        &self,
        state: &mut counter::State,
        cx: &Context,
        key: String,
        value: i64,
    ) -> Result<()> {
        self.put_row(state, cx, key, value).await?;
        Err(SystemError::servant("no wish to go on"))
    }

    async fn rows(
        &self,
        _state: &counter::State,
        cx: &Context,
        after: String,
        limit: u32,
    ) -> Result<Vec<Pair>> {
        let rows = cx.rows().scan(1, Some(after.as_bytes()), limit as usize)?;
        let pair = |(key, value): (Bytes, Bytes)| Pair {
            name: String::from_utf8(key.to_vec()).unwrap(),
            value: i64::from_le_bytes(value.as_ref().try_into().unwrap()),
        };
        Ok(rows.into_iter().map(pair).collect())
    }
}

/// A node on a folder.
pub async fn node(dir: &Path) -> Node {
    node_with(dir, Limits::default()).await
}

pub async fn node_with(dir: &Path, limits: Limits) -> Node {
    Node::builder()
        .name("a")
        .data_dir(dir)
        .shards(2)
        .limits(limits)
        .class(counter::class(CounterServant))
        .start()
        .await
        .unwrap()
}

/// A client process's view of a node, without a naming service.
pub async fn client_of(node: &Node) -> Client {
    let client = Client::alone().unwrap();
    client.locator().introduce(&client, &node.address().to_string()).await.unwrap();
    client
}

/// A new counter at the node.
pub async fn counter(client: &Client, node: &Node, value: i64) -> Counter {
    let place = Place::Node(node.me().node);
    Counter::create(client, &place, value, &[]).await.unwrap()
}

pub const PATIENCE: Duration = Duration::from_secs(10);
