//! Calls of foreign clients as plain data, for a dispatcher that knows no generated code.
//!
//! [`capability`] makes a capnp server object of a number; a call to it becomes a
//! [`ForeignCall`], given to the [`Gateway`], and the [`Flat`] it answers becomes the results.
//! Capabilities in either are passed as [`ForeignCapability`]; [`invoke`] calls one.
//!
//! Objects of the same gateway and number that are alive at the same time are one object for the
//! peer: it sees one capability, however often it was made.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::{Rc, Weak};

use capnp::any_pointer;
use capnp::capability::{
    Client, DispatchCallResult, FromClientHook, FromServer, Params, Promise, Results, Server,
};
use capnp::private::capability::ClientHook;
use foldhash::HashMap;
use futures_util::future::LocalBoxFuture;

use crate::flat::{Flat, ForeignCapability};
use crate::steady::{self, innermost};
use crate::ticket::{Admission, observe, until_cancelled};

/// One call of a foreign client, as plain data.
#[derive(Debug)]
pub struct ForeignCall {
    /// The number given when the capability was made.
    pub target: u64,
    /// Cap'n Proto's id of the interface.
    pub interface: u64,
    /// Ordinal of the method.
    pub method: u16,
    /// The struct of parameters.
    pub params: Flat,
    /// Keep it as long as the servant runs: it is what the limit on executing calls counts. None
    /// if the call did not come over a guarded connection.
    pub admission: Option<Admission>,
}

/// The struct of results of a call, or why there is none.
pub enum Reply {
    /// It is there: such a call costs no future.
    Ready(Result<Flat, capnp::Error>),
    /// It will be.
    ///
    /// The future is polled inside capnp-rpc and is **dropped** when the client finishes the call
    /// early or its connection ends. So it must not be what runs the servant: spawn that, give it
    /// the call's [`Admission`] to keep, wait for it in the future, and take the drop as the signal
    /// that nobody waits any more.
    Later(LocalBoxFuture<'static, Result<Flat, capnp::Error>>),
}

/// Where the calls of foreign clients go.
pub trait Gateway: 'static {
    /// Answers one call.
    ///
    /// An own capability in the results becomes an object when the answer is there, and
    /// [`Gateway::released`] is called for it even if the client is gone by then.
    fn call(self: Rc<Self>, call: ForeignCall) -> Reply;

    /// No client can call `target` any more, until a capability for it is made again.
    ///
    /// A target passed as a parameter is held for that call; a gateway that wants to pass it on
    /// later must keep what it stands for.
    fn released(&self, target: u64);
}

/// A capability whose calls go to `gateway` with the number `target`.
pub fn capability(gateway: Rc<dyn Gateway>, target: u64) -> Client {
    let key = Key::new(&gateway, target);
    let known = OBJECTS.with_borrow(|objects| objects.by_key.get(&key).and_then(Weak::upgrade));
    let object = known.unwrap_or_else(|| {
        let object = Rc::new(Object { gateway, target });
        OBJECTS.with_borrow_mut(|objects| {
            objects.by_key.insert(key, Rc::downgrade(&object));
            objects.by_address.insert(object.address(), key);
        });
        object
    });
    let face: Face = capnp_rpc::new_client_from_rc(object);
    face.0
}

/// Calls a capability that came in a [`Flat`]; one of our own goes straight to the gateway.
///
/// Dropping the result finishes the call early. There is no deadline: the peer may never answer.
pub fn invoke(
    gateway: &Rc<dyn Gateway>,
    capability: &ForeignCapability,
    interface: u64,
    method: u16,
    params: Flat,
) -> LocalBoxFuture<'static, Result<Flat, capnp::Error>> {
    let gateway = Rc::clone(gateway);
    let hook = match capability {
        ForeignCapability::Imported(hook) => hook.add_ref(),
        ForeignCapability::Own(target) => {
            let call = ForeignCall {
                target: *target,
                interface,
                method,
                params,
                admission: None,
            };
            return match gateway.call(call) {
                Reply::Ready(result) => Box::pin(std::future::ready(result)),
                Reply::Later(result) => result,
            };
        }
    };
    Box::pin(async move {
        let make = |target| hook_of(&gateway, target);
        let own = |hook: &dyn ClientHook| own_object(&gateway, hook).map(|object| object.target);
        steady::send(hook, interface, method, params, make, own).await
    })
}

type Hook = Box<dyn ClientHook>;

fn hook_of(gateway: &Rc<dyn Gateway>, target: u64) -> Hook {
    capability(Rc::clone(gateway), target).hook
}

/// The object behind `hook` if it is one of `gateway`.
fn own_object(gateway: &Rc<dyn Gateway>, hook: &dyn ClientHook) -> Option<Rc<Object>> {
    let innermost = innermost(hook);
    // Objects of this process have no brand; all others belong to some connection.
    if innermost.get_brand() != 0 {
        return None;
    }
    OBJECTS.with_borrow(|objects| {
        let key = objects.by_address.get(&innermost.get_ptr())?;
        let ours = *key == Key::new(gateway, key.target);
        ours.then(|| objects.by_key.get(key)?.upgrade()).flatten()
    })
}

/// The live objects of this thread.
#[derive(Default)]
struct Objects {
    by_key: HashMap<Key, Weak<Object>>,
    by_address: HashMap<usize, Key>,
}

thread_local! {
    static OBJECTS: RefCell<Objects> = RefCell::default();
}

/// An object is alive only with its gateway, so the gateway's address tells it from others.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    gateway: usize,
    target: u64,
}

impl Key {
    fn new(gateway: &Rc<dyn Gateway>, target: u64) -> Self {
        Self {
            gateway: Rc::as_ptr(gateway).addr(),
            target,
        }
    }
}

/// The server object behind a capability of ours.
struct Object {
    gateway: Rc<dyn Gateway>,
    target: u64,
}

impl Object {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let key = Key::new(&self.gateway, self.target);
        let address = self.address();
        // On a thread that ends, the table may have gone before.
        let _ = OBJECTS.try_with(|objects| {
            let mut objects = objects.borrow_mut();
            objects.by_address.remove(&address);
            objects.by_key.remove(&key);
        });
        self.gateway.released(self.target);
    }
}

/// The client type capnp-rpc wants for an object; only its untyped client is used.
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

impl FromServer<Object> for Face {
    type Dispatch = Dispatch;

    fn from_server(object: Rc<Object>) -> Dispatch {
        Dispatch(object)
    }
}

#[derive(Clone)]
struct Dispatch(Rc<Object>);

impl Deref for Dispatch {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.0
    }
}

impl Server for Dispatch {
    fn dispatch_call(
        self,
        interface: u64,
        method: u16,
        params: Params<any_pointer::Owned>,
        results: Results<any_pointer::Owned>,
    ) -> DispatchCallResult {
        DispatchCallResult::new(self.answer(interface, method, &params, results), false)
    }

    fn as_ptr(&self) -> usize {
        self.0.address()
    }
}

impl Dispatch {
    /// Starts the call; the parameters are not needed once it returns.
    fn answer(
        self,
        interface: u64,
        method: u16,
        params: &Params<any_pointer::Owned>,
        mut results: Results<any_pointer::Owned>,
    ) -> Promise<(), capnp::Error> {
        let (pointer, seen) = observe(|| params.hook.get());
        // A client may let go of an object it has just passed; it lives as long as this call.
        let mut passed = Vec::new();
        let params = pointer.and_then(|pointer| {
            Flat::copy_from(pointer, seen.as_ref(), |hook| {
                let object = own_object(&self.gateway, hook)?;
                let target = object.target;
                passed.push(object);
                Some(target)
            })
        });
        let params = match params {
            Ok(params) => params,
            Err(error) => return Promise::err(error),
        };
        let admission = seen.and_then(|seen| seen.admission);
        let call = ForeignCall {
            target: self.target,
            interface,
            method,
            params,
            admission: admission.clone(),
        };
        let gateway = Rc::clone(&self.gateway);
        match Rc::clone(&gateway).call(call) {
            Reply::Ready(Ok(flat)) if flat.is_settled() => {
                let objects = objects_in(&flat, &gateway);
                let make = |target| hook_of(&gateway, target);
                let copied = results.hook.get().and_then(|to| flat.copy_to(to, make));
                drop(objects);
                match copied {
                    Ok(()) => Promise::ok(()),
                    Err(error) => Promise::err(error),
                }
            }
            Reply::Ready(Err(error)) => Promise::err(error),
            Reply::Ready(Ok(flat)) => {
                let objects = objects_in(&flat, &gateway);
                let ready = std::future::ready(Ok((flat, objects)));
                self.hand_over(ready, admission, passed, results)
            }
            Reply::Later(result) => {
                let result = async move {
                    let flat = result.await?;
                    let objects = objects_in(&flat, &gateway);
                    Ok((flat, objects))
                };
                self.hand_over(result, admission, passed, results)
            }
        }
    }

    /// Waits for the results, and until they may be sent.
    fn hand_over(
        self,
        result: impl Future<Output = capnp::Result<(Flat, Vec<Hook>)>> + 'static,
        admission: Option<Admission>,
        passed: Vec<Rc<Object>>,
        mut results: Results<any_pointer::Owned>,
    ) -> Promise<(), capnp::Error> {
        Promise::from_future(async move {
            let settled = async {
                let (flat, objects) = result.await?;
                flat.settle().await;
                Ok((flat, objects))
            };
            let (flat, objects) = until_cancelled(settled, admission).await?;
            flat.copy_to(results.hook.get()?, |target| hook_of(&self.gateway, target))?;
            drop((self, passed, objects));
            Ok(())
        })
    }
}

/// Makes the objects in results: from here on each of them is released, whatever happens.
fn objects_in(flat: &Flat, gateway: &Rc<dyn Gateway>) -> Vec<Hook> {
    let targets = flat.own_targets();
    targets.map(|target| hook_of(gateway, target)).collect()
}
