//! A plain Cap'n Proto RPC program: no stubs, no code of the runtime but the codec that lays the
//! parameters out. It is what anybody could write against `behaviour.capnp`.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use capnp::any_pointer;
use capnp::capability::{
    Client, DispatchCallResult, FromClientHook, FromServer, Params, Promise, Results, Server,
};
use capnp::message::{Builder, HeapAllocator, ReaderOptions};
use capnp::private::capability::ClientHook;
use capnp::private::layout::CapTable;
use capnp::traits::{Imbue, ImbueMut};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use partha::abi::{Message, Slot, StructAt, StructReader, Writer, write_uid};
use partha::{CallId, Incarnation, NodeId, Peer, Uid};
use tokio::net::TcpStream;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::How;
use super::behaviour::listener;

/// The id of `ConnectionManager`; its methods in the order of `partha.idl`.
const MANAGER: u64 = partha::system::connection_manager::CLASS.0;

/// A connection of a plain Cap'n Proto client.
pub struct Wire {
    bootstrap: Client,
    /// Names this client's calls.
    me: Peer,
    sequence: Cell<u64>,
    task: tokio::task::JoinHandle<()>,
}

/// Parameters: the struct and what its capability pointers stand for.
pub struct Parameters {
    pub data: u16,
    pub pointers: u16,
    pub capabilities: Vec<Box<dyn ClientHook>>,
}

/// The results of a call.
pub struct Answer {
    message: Message,
    capabilities: CapTable,
}

impl Wire {
    /// Connects; needs a `LocalSet`.
    pub async fn connect(address: &str) -> Rc<Self> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        let network = twoparty::VatNetwork::new(
            reader.compat(),
            writer.compat_write(),
            Side::Client,
            ReaderOptions::new(),
        );
        let mut rpc = RpcSystem::new(Box::new(network), None);
        let bootstrap = rpc.bootstrap(Side::Server);
        // The peer may end the connection; the calls say so.
        let task = tokio::task::spawn_local(async move { drop(rpc.await) });
        let node = NodeId(super::random());
        let incarnation = Incarnation(1);
        let (me, sequence) = (Peer { node, incarnation }, Cell::new(1));
        Rc::new(Self {
            bootstrap,
            me,
            sequence,
            task,
        })
    }

    /// A name for a call.
    pub fn new_call_id(&self) -> CallId {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        CallId {
            caller: self.me,
            sequence,
        }
    }

    /// Calls the connection manager.
    pub async fn manager(
        &self,
        method: u16,
        how: &How,
        size: (u16, u16),
        fill: impl FnOnce(&mut Writer, StructAt),
    ) -> capnp::Result<Answer> {
        let parameters = Parameters::new(size.0, size.1);
        call(&self.bootstrap, (MANAGER, method), how, parameters, fill).await
    }

    /// `initiate`: the answer holds `Bound`.
    pub async fn initiate(&self, object: Uid, class: u64) -> capnp::Result<Answer> {
        self.manager(0, &How::default(), (1, 2), |w, s| {
            w.set_u64(s, 0, class);
            write_uid(w, s.slot(1), object);
        })
        .await
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Parameters {
    pub fn new(data: u16, pointers: u16) -> Self {
        Self {
            data,
            pointers,
            capabilities: Vec::new(),
        }
    }
}

impl Answer {
    /// The struct of results.
    pub fn results(&self) -> StructReader<'_> {
        self.message.reader().unwrap()
    }

    /// The capability with this index in the message.
    pub fn capability(&self, index: usize) -> Client {
        Client::new(self.capabilities[index].as_ref().unwrap().add_ref())
    }
}

/// Calls a method; `fill` writes the parameters behind the context.
pub async fn call(
    object: &Client,
    (interface, method): (u64, u16),
    how: &How,
    parameters: Parameters,
    fill: impl FnOnce(&mut Writer, StructAt),
) -> capnp::Result<Answer> {
    let mut w = Writer::new(64 << 20);
    let s = w.structure(Slot::ROOT, parameters.data, parameters.pointers);
    how.write(&mut w, s.slot(0));
    fill(&mut w, s);
    let (framed, _) = w.finish().unwrap();
    let table: CapTable = parameters.capabilities.into_iter().map(Some).collect();
    let mut request =
        object.new_call::<any_pointer::Owned, any_pointer::Owned>(interface, method, None);
    copy_in(&framed, &table, request.get())?;
    let response = request.send().promise.await?;
    let (message, capabilities) = copy_out(response.get()?)?;
    Ok(Answer {
        message,
        capabilities,
    })
}

/// Makes room in parameters for a capability that comes separately.
pub fn write_hook(w: &mut Writer, slot: Slot) {
    w.capability(slot, Arc::new(()));
}

/// A listener that answers what `hear` says.
pub fn listener(hear: impl Fn(i64) -> i64 + 'static) -> Box<dyn ClientHook> {
    let listener = Hears {
        hear: Box::new(hear),
    };
    let face: Face = capnp_rpc::new_client_from_rc(Rc::new(listener));
    face.0.hook
}

fn copy_in(
    framed: &[u8],
    table: &CapTable,
    mut target: any_pointer::Builder<'_>,
) -> capnp::Result<()> {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(None);
    let message = capnp::serialize::read_message(&mut &*framed, options)?;
    let mut root: any_pointer::Reader<'_> = message.get_root()?;
    root.imbue(table);
    target.set_as(root)
}

fn copy_out(pointer: any_pointer::Reader<'_>) -> capnp::Result<(Message, CapTable)> {
    let mut table = CapTable::new();
    let words = u32::try_from(pointer.target_size()?.word_count + 1).unwrap();
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(words));
    let mut root: any_pointer::Builder<'_> = builder.init_root();
    root.imbue_mut(&mut table);
    root.set_as(pointer)?;
    let segment = builder.get_segments_for_output()[0].to_vec();
    let stand_ins = table.iter().map(|_| Arc::new(()) as _).collect();
    Ok((
        Message::from_segment(segment.into(), stand_ins).unwrap(),
        table,
    ))
}

struct Hears {
    hear: Box<dyn Fn(i64) -> i64>,
}

/// The client type that capnp-rpc wants for a server; only its untyped client is used.
struct Face(Client);

impl FromClientHook for Face {
    fn new(hook: Box<dyn ClientHook>) -> Self {
        Self(Client::new(hook))
    }

    fn into_client_hook(self) -> Box<dyn ClientHook> {
        self.0.hook
    }

    fn as_client_hook(&self) -> &dyn ClientHook {
        self.0.hook.as_ref()
    }
}

impl FromServer<Hears> for Face {
    type Dispatch = Dispatch;

    fn from_server(server: Rc<Hears>) -> Dispatch {
        Dispatch(server)
    }
}

#[derive(Clone)]
struct Dispatch(Rc<Hears>);

impl Deref for Dispatch {
    type Target = Hears;

    fn deref(&self) -> &Hears {
        &self.0
    }
}

impl Server for Dispatch {
    fn dispatch_call(
        self,
        interface: u64,
        method: u16,
        params: Params<any_pointer::Owned>,
        mut results: Results<any_pointer::Owned>,
    ) -> DispatchCallResult {
        let mut answer = move || {
            if (interface, method) != (listener::CLASS.0, 0) {
                return Err(capnp::Error::unimplemented(format!(
                    "{interface:x}.{method}"
                )));
            }
            let (message, _) = copy_out(params.hook.get()?)?;
            let said = (self.hear)(message.reader().unwrap().i64(0));
            let mut w = Writer::new(1 << 10);
            let s = w.structure(Slot::ROOT, 1, 0);
            w.set_i64(s, 0, said);
            let (framed, _) = w.finish().unwrap();
            copy_in(&framed, &CapTable::new(), results.hook.get()?)
        };
        DispatchCallResult::new(Promise::from_future(async move { answer() }), false)
    }

    fn as_ptr(&self) -> usize {
        std::ptr::from_ref::<Hears>(&self.0).addr()
    }
}
