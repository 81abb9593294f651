//! What becomes of servants on threads of their own when their calls are killed, which is what
//! dropping the future of a call does.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partha_core::id::{ClassId, NodeId, Uid};
use partha_core::{Mode, Ticket};
use partha_wire::{DecodeError, StructReader, Writer};
use test_support::eventually;
use tokio::task::LocalSet;

use super::blocking::Blocking;
use super::{Cancel, Done, Order};
use crate::abi::{Call, Class, ClassInfo, LocalFuture, Method, ObjectState, Skeleton, Transient};
use crate::action::{Ground, Serving};
use crate::capability::Capability;
use crate::client::Client;
use crate::context::{Asked, Context};
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;
use crate::rows::Rows;
use crate::shard::ShardHandle;
use crate::system::ConnectionManager;
use crate::wire::context::TraceId;

const LONG: Duration = Duration::from_secs(30);
const CLASS: ClassId = ClassId(1 << 63 | 7);

const fn method(ordinal: u16, name: &'static str) -> Method {
    Method {
        interface: CLASS,
        ordinal,
        name,
        mutating: false,
        mode: Mode::Read,
        idempotent: false,
        any_replica: false,
        blocking: true,
        deadline_us: None,
    }
}

/// `wait` waits for ever, `look` computes until its call is killed, `go_on` until it is let go.
static METHODS: [Method; 3] = [method(0, "wait"), method(1, "look"), method(2, "go_on")];
static INFO: ClassInfo = ClassInfo {
    id: CLASS,
    name: "test.Deaf",
    persistent: false,
    ancestors: &[CLASS],
    methods: &METHODS,
    schema: 0,
    reflection: &[],
};

/// What servant and test tell each other.
#[derive(Default)]
struct Told {
    begun: AtomicBool,
    dropped: AtomicBool,
    let_go: AtomicBool,
    refused: Mutex<Option<SystemError>>,
    uncommitted: Mutex<Option<String>>,
}

struct Deaf(Arc<Told>);

/// Notes that the servant was dropped.
struct Dropped(Arc<Told>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::SeqCst);
    }
}

impl Skeleton for Deaf {
    fn info(&self) -> &'static ClassInfo {
        &INFO
    }

    fn construct(&self, _: StructReader<'_>) -> Result<Box<dyn ObjectState>, DecodeError> {
        Err(DecodeError::invalid("a persistent class"))
    }

    fn restore(&self, _: StructReader<'_>) -> Result<Box<dyn ObjectState>, DecodeError> {
        Err(DecodeError::invalid("a persistent class"))
    }

    fn dispatch(&self, method: usize, call: Call) -> LocalFuture {
        let told = self.0.clone();
        Box::pin(async move {
            let _dropped = Dropped(told.clone());
            told.begun.store(true, Ordering::SeqCst);
            let cx = call.context();
            match method {
                0 => std::future::pending().await,
                1 => while cx.check().is_ok() {},
                _ => {
                    while !told.let_go.load(Ordering::SeqCst) {
                        std::hint::spin_loop();
                    }
                    let refused = call_somebody(cx).await;
                    *lock(&told.refused) = refused.err();
                    let empty = cx.top_level(async |_| Ok::<_, SystemError>(()));
                    *lock(&told.uncommitted) = empty.await.err().map(|error| error.to_string());
                }
            }
            call.failed(SystemError::servant("never to be seen"))
        })
    }
}

async fn call_somebody(cx: &Context) -> Result<()> {
    let (shard, manager) = (ShardHandle::new(0).0, Uid::connection_manager(NodeId(1)));
    let manager = Capability::object_here(shard, manager, CLASS);
    let manager = ConnectionManager::from_capability(manager);
    manager.describe(cx).await.map(drop)
}

fn object() -> Uid {
    let (node, local) = (NodeId(3), 4);
    Uid { node, local }
}

/// A call, and what kills it beside the drop of its future.
fn order(told: &Arc<Told>, method: usize) -> (Order, Cancel) {
    let cancel = Cancel::default();
    let client = Client::alone().unwrap();
    let asked = Asked {
        caller: client.me(),
        call: None,
        foreign: false,
    };
    let shard = ShardHandle::new(0).0;
    let serving = Serving {
        ground: Arc::new(Ground { client, shard }),
        object: object(),
        ticket: Ticket(1),
        deadline: Instant::now() + LONG,
        trace: TraceId::default(),
        within: None,
        cohort: false,
    };
    let context = Context::new(serving, asked, Rows::new(None, object(), false));
    let order = Order {
        class: Class::new(Deaf(told.clone())),
        method,
        parameters: Writer::new(64).into_message().unwrap(),
        state: None,
        context: context.cancelled_by(&cancel),
    };
    (order, cancel)
}

fn is_set(flag: &AtomicBool) -> impl Fn() -> bool {
    || flag.load(Ordering::SeqCst)
}

fn call(
    blocking: &Arc<Blocking>,
    told: &Arc<Told>,
    method: usize,
) -> impl Future<Output = Result<Done>> {
    let (blocking, (order, cancel)) = (blocking.clone(), order(told, method));
    async move { blocking.run(order, cancel, None).await }
}

/// Begins a call, waits until its servant runs, and drops the call's future.
fn begin_and_kill(blocking: &Arc<Blocking>, told: &Arc<Told>, method: usize) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut call = Box::pin(call(blocking, told, method));
        let begun = async {
            while !told.begun.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            done = &mut call => panic!("it has ended: {done:?}"),
            () = begun => {}
        }
        drop(call);
    });
    // The servant's runtime is gone by now, as that of a shard that stops.
}

#[test]
fn one_that_waits_is_dropped_where_it_waits() {
    let (blocking, told) = (Arc::new(Blocking::new(1)), Arc::default());
    begin_and_kill(&blocking, &told, 0);
    eventually(LONG, is_set(&told.dropped));
    eventually(LONG, || blocking.is_idle());
}

#[test]
fn one_that_looks_at_its_context_leaves() {
    let (blocking, told) = (Arc::new(Blocking::new(1)), Arc::default());
    begin_and_kill(&blocking, &told, 1);
    eventually(LONG, is_set(&told.dropped));
    eventually(LONG, || blocking.is_idle());
}

#[test]
fn one_that_goes_on_is_listed_and_counted_and_can_call_nobody() {
    let (blocking, told) = (Arc::new(Blocking::new(1)), Arc::<Told>::default());
    begin_and_kill(&blocking, &told, 2);
    let [runaway] = blocking.runaways()[..] else {
        panic!("{:?}", blocking.runaways());
    };
    assert_eq!((runaway.class, runaway.method), ("test.Deaf", "go_on"));
    assert_eq!(runaway.object, object());
    assert!(runaway.killed <= runaway.running);
    assert!(!told.dropped.load(Ordering::SeqCst));

    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let error = runtime
        .unwrap()
        .block_on(call(&blocking, &Arc::default(), 1));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.detail().contains("1 of them although"), "{error}");

    told.let_go.store(true, Ordering::SeqCst);
    eventually(LONG, || blocking.runaways().is_empty());
    let refused = lock(&told.refused).take().unwrap();
    assert!(refused.detail().contains("was killed"), "{refused}");
    let uncommitted = lock(&told.uncommitted).take().unwrap();
    assert!(uncommitted.contains("was killed"), "{uncommitted}");
    assert!(blocking.is_idle());
}
