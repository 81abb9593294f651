//! Servants of the test classes, and the gates they wait at.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use partha::{Bytes, Context, Result, SystemError};
use tokio::sync::Semaphore;

use super::behaviour::counter::{self, GiveError, TakeError};
use super::behaviour::{Counter, Listener, Pair, TooLittle, named, other};

/// Gates that servants wait at, by name.
static GATES: LazyLock<Mutex<HashMap<String, Arc<Semaphore>>>> = LazyLock::new(Mutex::default);

/// A gate: closed until opened.
pub fn gate(name: &str) -> Arc<Semaphore> {
    let mut gates = GATES.lock().unwrap();
    gates
        .entry(name.to_owned())
        .or_insert_with(|| Arc::new(Semaphore::new(0)))
        .clone()
}

/// How often a servant's method began, by gate name.
static BEGUN: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

pub fn begun(name: &str) -> u64 {
    BEGUN.lock().unwrap().get(name).copied().unwrap_or_default()
}

fn begin(name: &str) {
    *BEGUN.lock().unwrap().entry(name.to_owned()).or_default() += 1;
}

/// What must not be dropped before its time.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        panic!("brittle, as asked");
    }
}

async fn pass(name: &str) {
    begin(name);
    let brittle = name.starts_with("brittle").then(|| Brittle);
    let gate = gate(name);
    while name.starts_with("blocking") && gate.available_permits() == 0 {
        // As a careless servant does it: the whole shard waits.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    gate.acquire().await.unwrap().forget();
    std::mem::forget(brittle);
}

pub struct CounterServant;

/// A counter cannot begin with this value: its servant panics.
pub const UNLUCKY: i64 = -13;

fn take(value: &mut i64, amount: i64) -> std::result::Result<i64, TooLittle> {
    let have = *value;
    // The change comes before the exception, to show that it is undone.
    *value -= amount;
    if have < amount {
        return Err(TooLittle {
            have,
            wanted: amount,
        });
    }
    Ok(*value)
}

impl counter::Servant for CounterServant {
    fn new(&self, value: i64, padding: Bytes) -> counter::State {
        assert!(value != UNLUCKY, "an unlucky number");
        counter::State { value, padding }
    }

    async fn value(&self, state: &counter::State, _cx: &Context) -> Result<i64> {
        Ok(state.value)
    }

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

    async fn tell(&self, state: &counter::State, cx: &Context, listener: Listener) -> Result<i64> {
        listener.heard(cx, state.value).await
    }

    async fn echo(&self, _state: &counter::State, _cx: &Context, data: Bytes) -> Result<Bytes> {
        Ok(data)
    }

    async fn fill(&self, _state: &counter::State, _cx: &Context, bytes: u32) -> Result<Bytes> {
        Ok(vec![5; bytes as usize].into())
    }

    async fn measure(
        &self,
        _state: &counter::State,
        _cx: &Context,
        pieces: Vec<Bytes>,
    ) -> Result<u64> {
        Ok(pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    async fn grow(&self, state: &mut counter::State, _cx: &Context, bytes: u32) -> Result<()> {
        state.padding = vec![7; state.padding.len() + bytes as usize].into();
        Ok(())
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

    async fn meet(&self, _state: &counter::State, cx: &Context, address: String) -> Result<u64> {
        Ok(cx
            .client()
            .locator()
            .introduce(cx.client(), &address)
            .await?
            .0)
    }
}

/// Counters with names: everything but the name is the base's.
pub struct NamedServant;

macro_rules! inherit {
    ($(fn $method:ident($($by:tt)+)($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(async fn $method(
            &self,
            state: $($by)+ named::State,
            cx: &Context,
            $($arg: $type),*
        ) -> $result {
            // The base's own servant works on the base's part of the state.
            counter::Servant::$method(&CounterServant, $($by)+ state.base, cx, $($arg),*).await
        })*
    };
}

impl named::Servant for NamedServant {
    fn new(&self, name: String) -> named::State {
        let base = counter::Servant::new(&CounterServant, 0, Bytes::new());
        named::State { base, name }
    }

    async fn name(&self, state: &named::State, _cx: &Context) -> Result<String> {
        Ok(state.name.clone())
    }

    inherit! {
        fn value(&)() -> Result<i64>;
        fn add(&mut)(amount: i64) -> Result<i64>;
        fn take(&mut)(amount: i64) -> Result<i64, TakeError>;
        fn set(&mut)(value: i64) -> Result<()>;
        fn add_at_gate(&mut)(amount: i64, gate: String) -> Result<i64>;
        fn read_at_gate(&)(gate: String) -> Result<i64>;
        fn panic(&mut)() -> Result<()>;
        fn give_up(&mut)() -> Result<()>;
        fn give(&mut)(to: Counter, amount: i64) -> Result<i64, GiveError>;
        fn tell(&)(listener: Listener) -> Result<i64>;
        fn echo(&)(data: Bytes) -> Result<Bytes>;
        fn fill(&)(bytes: u32) -> Result<Bytes>;
        fn grow(&mut)(bytes: u32) -> Result<()>;
        fn put_row(&mut)(key: String, value: i64) -> Result<u64>;
        fn put_row_and_give_up(&mut)(key: String, value: i64) -> Result<()>;
        fn rows(&)(after: String, limit: u32) -> Result<Vec<Pair>>;
        fn meet(&)(address: String) -> Result<u64>;
        fn measure(&)(pieces: Vec<Bytes>) -> Result<u64>;
    }
}

pub struct OtherServant;

impl other::Servant for OtherServant {
    fn new(&self) -> other::State {
        other::State { nothing: true }
    }

    async fn nothing(&self, state: &other::State, _cx: &Context) -> Result<bool> {
        Ok(state.nothing)
    }
}
