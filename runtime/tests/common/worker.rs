//! The servant of `elsewhere.idl`, and the files that it waits for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use partha::{Bytes, Client, Context, Node, Place, Result, SystemError};

use elsewhere::worker::{self, TakeApartError, TakeError};
use elsewhere::{Hearer, Refused, Worker};

#[rustfmt::skip]
#[path = "../gen/elsewhere.rs"]
#[allow(clippy::all, missing_docs, unused, unreachable_pub, reason = "generated code")]
pub mod elsewhere;

/// A place where a servant waits, seen from all processes.
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    pub fn new(dir: &Path, name: &str) -> Self {
        let path = dir.join(name);
        Self { path }
    }

    pub fn name(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }

    pub fn open(&self) {
        std::fs::write(&self.path, "").unwrap();
    }

    /// Whether a servant has come to it.
    pub fn is_reached(&self) -> bool {
        begun(&self.name()).exists()
    }
}

fn begun(gate: &str) -> PathBuf {
    PathBuf::from(format!("{gate}.begun"))
}

fn reach(gate: &str) {
    std::fs::write(begun(gate), "").unwrap();
}

/// Keeps the thread, and its processor, until the gate is open.
fn compute(gate: &str) {
    reach(gate);
    while !Path::new(gate).exists() {
        (0..20_000).for_each(|_| std::hint::spin_loop());
    }
}

fn take(state: &mut worker::State, amount: i64) -> Result<i64, Refused> {
    let (have, wanted) = (state.value, amount);
    state.value -= amount;
    if have < amount {
        return Err(Refused { have, wanted });
    }
    Ok(state.value)
}

fn fail(state: &mut worker::State, panic: bool) -> Result<()> {
    state.value = -1;
    assert!(!panic, "as asked");
    Err(SystemError::servant("as asked"))
}

async fn add_both(
    state: &mut worker::State,
    cx: &Context,
    other: &Worker,
    amount: i64,
) -> Result<i64> {
    state.value += amount;
    other.add(cx, amount).await
}

fn thread() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

pub struct WorkerServant;

impl worker::Servant for WorkerServant {
    fn new(&self, value: i64) -> worker::State {
        worker::State { value }
    }

    async fn value(&self, state: &worker::State, _cx: &Context) -> Result<i64> {
        Ok(state.value)
    }

    async fn add(&self, state: &mut worker::State, _cx: &Context, amount: i64) -> Result<i64> {
        state.value += amount;
        Ok(state.value)
    }

    async fn take(
        &self,
        state: &mut worker::State,
        _cx: &Context,
        amount: i64,
    ) -> Result<i64, TakeError> {
        Ok(take(state, amount)?)
    }

    async fn fail(&self, state: &mut worker::State, _cx: &Context, panic: bool) -> Result<()> {
        fail(state, panic)
    }

    async fn process(&self, _state: &worker::State, _cx: &Context) -> Result<u32> {
        Ok(std::process::id())
    }

    async fn thread(&self, _state: &worker::State, _cx: &Context) -> Result<String> {
        Ok(thread())
    }

    async fn asked(&self, _state: &worker::State, cx: &Context) -> Result<String> {
        Ok(format!("{} {:?}", cx.caller(), cx.call_id()))
    }

    async fn crash(&self, state: &mut worker::State, _cx: &Context, status: u8) -> Result<()> {
        state.value = -1;
        std::process::exit(status.into());
    }

    async fn crash_reading(&self, _: &worker::State, _cx: &Context, status: u8) -> Result<()> {
        std::process::exit(status.into());
    }

    async fn add_both_and_wait(
        &self,
        state: &mut worker::State,
        cx: &Context,
        other: Worker,
        amount: i64,
        gate: String,
    ) -> Result<()> {
        add_both(state, cx, &other, amount).await?;
        reach(&gate);
        std::future::pending().await
    }

    async fn wait(&self, state: &mut worker::State, _cx: &Context, gate: String) -> Result<()> {
        state.value = -1;
        reach(&gate);
        std::future::pending().await
    }

    async fn compute(&self, state: &mut worker::State, _cx: &Context, gate: String) -> Result<i64> {
        state.value += 1;
        compute(&gate);
        Ok(state.value)
    }

    async fn add_both(
        &self,
        state: &mut worker::State,
        cx: &Context,
        other: Worker,
        amount: i64,
    ) -> Result<i64> {
        add_both(state, cx, &other, amount).await
    }

    async fn make(&self, _state: &mut worker::State, cx: &Context, value: i64) -> Result<Worker> {
        Worker::create(cx, &Place::Beside(cx.uid()), value).await
    }

    async fn put_row(&self, _state: &mut worker::State, cx: &Context) -> Result<()> {
        cx.rows().put(1, b"key", Bytes::new())
    }

    async fn tell(&self, state: &worker::State, cx: &Context, hearer: Hearer) -> Result<i64> {
        hearer.heard(cx, state.value).await
    }

    async fn thread_apart(&self, _state: &worker::State, _cx: &Context) -> Result<String> {
        Ok(thread())
    }

    async fn compute_apart(
        &self,
        state: &mut worker::State,
        _cx: &Context,
        gate: String,
    ) -> Result<i64> {
        state.value += 1;
        compute(&gate);
        Ok(state.value)
    }

    async fn read_apart(&self, state: &worker::State, _cx: &Context, gate: String) -> Result<i64> {
        compute(&gate);
        Ok(state.value)
    }

    async fn take_apart(
        &self,
        state: &mut worker::State,
        _cx: &Context,
        amount: i64,
    ) -> Result<i64, TakeApartError> {
        Ok(take(state, amount)?)
    }

    async fn fail_apart(
        &self,
        state: &mut worker::State,
        _cx: &Context,
        panic: bool,
    ) -> Result<()> {
        fail(state, panic)
    }

    async fn add_both_apart(
        &self,
        state: &mut worker::State,
        cx: &Context,
        other: Worker,
        amount: i64,
    ) -> Result<i64> {
        add_both(state, cx, &other, amount).await
    }

    async fn put_row_apart(
        &self,
        state: &mut worker::State,
        cx: &Context,
        value: i64,
    ) -> Result<i64> {
        let before = cx.rows().read(1, b"key")?;
        let before = before.map_or(0, |row| row.first().copied().map_or(0, i64::from));
        let row = Bytes::copy_from_slice(&[u8::try_from(value).unwrap()]);
        cx.rows().put(1, b"key", row)?;
        state.value += 1;
        if value == 0 {
            return Err(SystemError::servant("no such value"));
        }
        Ok(before)
    }

    async fn with_task(&self, state: &worker::State, _cx: &Context) -> Result<i64> {
        let value = state.value;
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            value
        });
        Ok(task.await.unwrap())
    }
}

/// A new worker at the node.
pub async fn worker(client: &Client, node: &Node, value: i64) -> Worker {
    let place = Place::Node(node.me().node);
    Worker::create(client, &place, value).await.unwrap()
}
