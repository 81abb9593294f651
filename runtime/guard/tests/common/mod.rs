//! What the guard's tests share: a toy gateway, honest peers of plain capnp-rpc, raw attackers.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

pub(crate) mod attack;
pub(crate) mod raw;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use capnp::any_pointer;
use capnp::capability::Client;
use capnp::message::{Builder, Reader, ReaderOptions};
use capnp::traits::ImbueMut;
use capnp_rpc::rpc_capnp::payload;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures_util::FutureExt;
use partha_guard::{
    CutReason, Flat, ForeignCall, ForeignCapability, Gateway, Limits, Reply, Stream, capability,
    invoke, serve,
};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

/// Interface id of the toy.
pub(crate) const TOY: u64 = 0xf00d_f00d_f00d_f00d;
/// Answers its parameters.
pub(crate) const ECHO: u16 = 0;
/// Fails with the text it is given.
pub(crate) const FAIL: u16 = 1;
/// Answers a new object.
pub(crate) const CHILD: u16 = 2;
/// Calls the object it is given with a text and answers what that answers.
pub(crate) const CALL_BACK: u16 = 3;
/// Answers when the test says so.
pub(crate) const PENDING: u16 = 4;
/// Answers a text of as many bytes as it is told.
pub(crate) const LARGE: u16 = 5;
/// Answers which kind of capability it was given.
pub(crate) const KIND: u16 = 6;
/// Answers a new object when the test says so.
pub(crate) const LATE_CHILD: u16 = 7;
/// Keeps the object it is given.
pub(crate) const KEEP: u16 = 8;

/// Answers an object that was kept.
pub(crate) const TAKE: u16 = 9;

/// Something that must be gone in the end.
pub(crate) struct Live(Rc<Cell<usize>>);

impl Live {
    pub(crate) fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A gateway that knows what is alive.
pub(crate) struct Toy {
    /// Objects clients can call.
    pub(crate) objects: RefCell<BTreeMap<u64, Live>>,
    pub(crate) next: Cell<u64>,
    /// Objects and call futures alive.
    pub(crate) live: Rc<Cell<usize>>,
    /// Servants running, whether or not anybody waits.
    pub(crate) servants: Rc<Cell<usize>>,
    pub(crate) servants_most: Cell<usize>,
    pub(crate) calls: Cell<usize>,
    pub(crate) go: Rc<Notify>,
    pub(crate) kept: RefCell<Vec<ForeignCapability>>,
    /// Servants of PENDING go on after their call was dropped.
    pub(crate) stubborn: Cell<bool>,
    /// No call is answered where it is made, even if it could be.
    pub(crate) late: Cell<bool>,
}

impl Toy {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            objects: RefCell::default(),
            next: Cell::new(1),
            live: Rc::default(),
            servants: Rc::default(),
            servants_most: Cell::new(0),
            calls: Cell::new(0),
            go: Rc::new(Notify::new()),
            kept: RefCell::default(),
            stubborn: Cell::new(false),
            late: Cell::new(false),
        })
    }

    pub(crate) fn object(self: &Rc<Self>, target: u64) -> Client {
        self.objects
            .borrow_mut()
            .entry(target)
            .or_insert_with(|| Live::new(&self.live));
        capability(Rc::clone(self) as Rc<dyn Gateway>, target)
    }

    fn child(self: &Rc<Self>) -> Flat {
        let target = self.next.get();
        self.next.set(target + 1);
        self.objects
            .borrow_mut()
            .insert(target, Live::new(&self.live));
        flat_capability(ForeignCapability::Own(target))
    }

    async fn wait(self: &Rc<Self>, call: &ForeignCall) {
        let live = Live::new(&self.servants);
        self.servants_most
            .set(self.servants_most.get().max(self.servants.get()));
        let go = Rc::clone(&self.go);
        let admission = call.admission.clone();
        let servant = spawn_local(async move {
            go.notified().await;
            drop((live, admission));
        });
        let _aborted = AbortOnDrop((!self.stubborn.get()).then(|| servant.abort_handle()));
        let _ = servant.await;
    }

    async fn answer(self: Rc<Self>, call: ForeignCall) -> Result<Flat, capnp::Error> {
        let _live = Live::new(&self.live);
        self.calls.set(self.calls.get() + 1);
        if call.interface != TOY {
            return Err(capnp::Error::unimplemented(format!(
                "interface {:#x}",
                call.interface
            )));
        }
        match call.method {
            ECHO => Ok(call.params),
            FAIL => Err(capnp::Error::failed(text_of(&call.params))),
            CHILD => Ok(self.child()),
            CALL_BACK => {
                let gateway = Rc::clone(&self) as Rc<dyn Gateway>;
                let object = call.params.capabilities.first().cloned();
                let object = object.ok_or_else(|| capnp::Error::failed("no object".to_owned()))?;
                drop(call.params);
                invoke(&gateway, &object, TOY, ECHO, flat_text("from the server")).await
            }
            PENDING => {
                self.wait(&call).await;
                Ok(call.params)
            }
            LARGE => {
                let bytes = text_of(&call.params).parse().unwrap_or(0);
                Ok(flat_text(&"x".repeat(bytes)))
            }
            KIND => Ok(flat_text(match call.params.capabilities.first() {
                Some(ForeignCapability::Own(_)) => "own",
                Some(ForeignCapability::Imported(_)) => "imported",
                None => "none",
            })),
            LATE_CHILD => {
                self.wait(&call).await;
                Ok(self.child())
            }
            KEEP => {
                self.kept.borrow_mut().extend(call.params.capabilities);
                Ok(flat_text("kept"))
            }
            TAKE => {
                let kept = self.kept.borrow_mut().pop();
                let kept = kept.ok_or_else(|| capnp::Error::failed("none kept".to_owned()))?;
                if let ForeignCapability::Own(target) = kept {
                    // Its clients may all have let go of it meanwhile.
                    let mut objects = self.objects.borrow_mut();
                    objects
                        .entry(target)
                        .or_insert_with(|| Live::new(&self.live));
                }
                Ok(flat_capability(kept))
            }
            other => Err(capnp::Error::unimplemented(format!("method {other}"))),
        }
    }
}

struct AbortOnDrop(Option<tokio::task::AbortHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

impl Gateway for Toy {
    fn call(self: Rc<Self>, call: ForeignCall) -> Reply {
        let late = self.late.get();
        let mut answer = Box::pin(self.answer(call));
        if !late && let Some(result) = answer.as_mut().now_or_never() {
            return Reply::Ready(result);
        }
        Reply::Later(answer)
    }

    fn released(&self, target: u64) {
        assert!(
            self.objects.borrow_mut().remove(&target).is_some(),
            "object {target} twice"
        );
    }
}

/// A flat struct with one pointer, to a text.
pub(crate) fn flat_text(text: &str) -> Flat {
    let words = text.len() as u32 / 8 + 8;
    let allocator = capnp::message::HeapAllocator::new().first_segment_words(words);
    let mut message = Builder::new(allocator);
    let root: payload::Builder<'_> = message.init_root();
    root.get_content().set_as(text).unwrap();
    let segments = message.get_segments_for_output();
    assert_eq!(segments.len(), 1);
    Flat {
        segment: segments[0].to_vec(),
        capabilities: Vec::new(),
    }
}

/// A flat struct with one pointer, to a capability.
pub(crate) fn flat_capability(capability: ForeignCapability) -> Flat {
    let mut table = Vec::new();
    let mut message = Builder::new_default();
    {
        let mut root: payload::Builder<'_> = message.init_root();
        root.imbue_mut(&mut table);
        let placeholder = capnp_rpc::new_broken_cap(capnp::Error::failed("a place".to_owned()));
        root.get_content().set_as_capability(placeholder.hook);
    }
    let segment = message.get_segments_for_output()[0].to_vec();
    Flat {
        segment,
        capabilities: vec![capability],
    }
}

/// The text in a struct made by [`flat_text`]; empty if it is none.
pub(crate) fn text_of(flat: &Flat) -> String {
    let words: Vec<&[u8]> = vec![&flat.segment];
    let message = Reader::new(words, ReaderOptions::new());
    let text = message.get_root().and_then(|root: payload::Reader<'_>| {
        let text: capnp::text::Reader<'_> = root.get_content().get_as()?;
        Ok(text.to_string()?)
    });
    text.unwrap_or_default()
}

type Request = capnp::capability::Request<payload::Owned, payload::Owned>;
type Pending =
    capnp::capability::Promise<capnp::capability::Response<any_pointer::Owned>, capnp::Error>;

/// Starts a call with a text.
pub(crate) fn send_text(object: &Client, method: u16, text: &str) -> Pending {
    let mut request: Request = object.new_call(TOY, method, None);
    request.get().get_content().set_as(text).unwrap();
    request.hook.send().promise
}

/// Starts a call with a capability.
pub(crate) fn send_object(object: &Client, method: u16, argument: &Client) -> Pending {
    let mut request: Request = object.new_call(TOY, method, None);
    request
        .get()
        .get_content()
        .set_as_capability(argument.hook.add_ref());
    request.hook.send().promise
}

/// Waits for a text.
pub(crate) async fn text(pending: Pending) -> Result<String, capnp::Error> {
    let response = pending.await?;
    let results: payload::Reader<'_> = response.get()?.get_as()?;
    let text: capnp::text::Reader<'_> = results.get_content().get_as()?;
    Ok(text.to_string().unwrap())
}

/// Waits for a capability.
pub(crate) async fn object(pending: Pending) -> Result<Client, capnp::Error> {
    let response = pending.await?;
    let results: payload::Reader<'_> = response.get()?.get_as()?;
    results.get_content().get_as_capability()
}

/// Runs a test on one thread, within a deadline.
pub(crate) fn on_local_set<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("the test hangs")
    });
    drop(runtime);
    result
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A peer of plain capnp-rpc: its bootstrap client of the other end and its task.
pub(crate) fn plain_client<S: Stream>(stream: S) -> (Client, JoinHandle<()>) {
    let (reader, writer) = tokio::io::split(stream);
    let network = twoparty::VatNetwork::new(
        reader.compat(),
        writer.compat_write(),
        Side::Client,
        ReaderOptions::new(),
    );
    let mut rpc = RpcSystem::new(Box::new(network), None);
    let bootstrap = rpc.bootstrap(Side::Server);
    let task = spawn_local(async move {
        let _ = rpc.await;
    });
    (bootstrap, task)
}

/// A guarded server of `toy` at one end of a stream: its task, and why it was cut.
pub(crate) struct Served {
    pub(crate) task: JoinHandle<()>,
    pub(crate) cut: Rc<RefCell<Option<CutReason>>>,
}

impl Served {
    pub(crate) fn new<S: Stream>(stream: S, limits: Limits, toy: &Rc<Toy>) -> Self {
        let cut = Rc::new(RefCell::new(None));
        let why = Rc::clone(&cut);
        let bootstrap = toy.object(0);
        let served = serve(stream, limits, bootstrap, move |reason| {
            *why.borrow_mut() = Some(reason);
        });
        Self {
            task: spawn_local(served),
            cut,
        }
    }

    /// Waits for the end of the connection; why it was cut.
    pub(crate) async fn end(self) -> Option<CutReason> {
        self.task.await.unwrap();
        self.cut.take()
    }
}

/// Two ends of a TCP connection on the loopback.
pub(crate) async fn tcp_pair() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A pure capnp-rpc object on the client's side which answers its parameters.
pub(crate) fn echo_object(calls: &Rc<Cell<usize>>) -> Client {
    struct Echo {
        calls: Rc<Cell<usize>>,
    }
    #[derive(Clone)]
    struct Dispatch(Rc<Echo>);
    impl std::ops::Deref for Dispatch {
        type Target = Echo;
        fn deref(&self) -> &Echo {
            &self.0
        }
    }
    impl capnp::capability::Server for Dispatch {
        fn dispatch_call(
            self,
            _interface: u64,
            _method: u16,
            params: capnp::capability::Params<any_pointer::Owned>,
            mut results: capnp::capability::Results<any_pointer::Owned>,
        ) -> capnp::capability::DispatchCallResult {
            self.calls.set(self.calls.get() + 1);
            let result = params.get().and_then(|params| results.set(params));
            capnp::capability::DispatchCallResult::new(result.into(), false)
        }
        fn as_ptr(&self) -> usize {
            Rc::as_ptr(&self.0).addr()
        }
    }
    struct Face(Client);
    impl capnp::capability::FromClientHook for Face {
        fn new(hook: Box<dyn capnp::private::capability::ClientHook>) -> Self {
            Self(Client::new(hook))
        }
        fn into_client_hook(self) -> Box<dyn capnp::private::capability::ClientHook> {
            self.0.hook
        }
        fn as_client_hook(&self) -> &dyn capnp::private::capability::ClientHook {
            self.0.hook.as_ref()
        }
    }
    impl capnp::capability::FromServer<Echo> for Face {
        type Dispatch = Dispatch;
        fn from_server(server: Rc<Echo>) -> Dispatch {
            Dispatch(server)
        }
    }
    let face: Face = capnp_rpc::new_client(Echo {
        calls: Rc::clone(calls),
    });
    face.0
}
