//! The foreign face: plain Cap'n Proto clients call the same objects through the same dispatcher.
//!
//! Shard 0 hosts their connections, behind the guard. A capability they hold is a number of their
//! connection that stands for an object; a call becomes the same [`Incoming`] as on the native
//! face, and is given up when the client drops its promise or is gone.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use partha_core::id::{ClassId, Incarnation, Peer, Uid};
use partha_guard::{Admission, Flat, ForeignCall, ForeignCapability, Gateway, Limits, Reply};
use partha_wire::{Attachment, Message};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::Shard;
use super::give_up::Waiting;
use super::job::{Incoming, Job, ReplyTo};
use crate::capability::{Capability, Way};
use crate::client::random_node;
use crate::error::{Completed, ErrorKind, SystemError};
use crate::hash::IdMap;
use crate::net::foreign::{ForeignObject, ForeignRequest};
use crate::net::pending::Answer;
use crate::node::{Ending, ForeignLink, Home};

/// The number of the connection manager, which every client is given first.
const BOOTSTRAP: u64 = 0;

/// One client's view of the node.
struct Face {
    home: Arc<Home>,
    peer: Peer,
    me: Weak<Self>,
    /// Where tasks of the shard run: what is left of a call may be dropped outside of it.
    local: Weak<LocalSet>,
    targets: RefCell<Targets>,
    next: Cell<u64>,
}

/// What the client's capabilities stand for.
#[derive(Default)]
struct Targets {
    by_number: IdMap<u64, Capability>,
    by_object: IdMap<Uid, u64>,
}

impl Shard {
    /// Serves a plain Cap'n Proto client.
    pub(super) fn connect_foreign(
        self: &Rc<Self>,
        stream: std::net::TcpStream,
        address: String,
        home: &Arc<Home>,
    ) {
        let (stream, node) = match (TcpStream::from_std(stream), random_node()) {
            (Ok(stream), Ok(node)) => (stream, node),
            (Err(error), _) => {
                tracing::warn!(peer = %address, %error, "an accepted connection was lost");
                return;
            }
            (_, Err(error)) => {
                tracing::error!(%error, "a foreign client cannot be given an identity");
                return;
            }
        };
        let peer = Peer {
            node,
            incarnation: Incarnation(1),
        };
        let link = ForeignLink::new(address.clone());
        let seat = match home.admit_foreign(peer, link.clone()) {
            Ok(seat) => seat,
            Err(error) => {
                tracing::warn!(peer = %address, %error, "connection refused");
                return;
            }
        };
        let face = Face::new(home.clone(), peer, self.local.clone());
        let bootstrap = partha_guard::capability(face.clone(), BOOTSTRAP);
        tokio::task::spawn_local(async move {
            tracing::debug!(peer = %address, "a foreign client has connected");
            let logged = address.clone();
            let cut = move |reason| tracing::warn!(peer = %logged, %reason, "connection cut");
            tokio::select! {
                biased;
                () = link.cut() => {}
                () = partha_guard::serve(stream, Limits::default(), bootstrap, cut) => {}
            }
            drop(face);
            seat.leave(Ending::Lost);
            tracing::debug!(peer = %address, "a foreign client has gone");
        });
    }
}

impl Face {
    fn new(home: Arc<Home>, peer: Peer, local: Weak<LocalSet>) -> Rc<Self> {
        let manager = home.manager_capability();
        let mut targets = Targets::default();
        targets.by_object.insert(home.manager(), BOOTSTRAP);
        targets.by_number.insert(BOOTSTRAP, manager);
        Rc::new_cyclic(|me| Self {
            home,
            peer,
            me: me.clone(),
            local,
            targets: RefCell::new(targets),
            next: Cell::new(BOOTSTRAP + 1),
        })
    }

    /// The number by which the client is to know an object; false if it knows it already.
    fn number(&self, object: Uid, capability: &Capability) -> (u64, bool) {
        let mut targets = self.targets.borrow_mut();
        if let Some(number) = targets.by_object.get(&object) {
            return (*number, false);
        }
        let number = self.next.get();
        self.next.set(number + 1);
        targets.by_object.insert(object, number);
        targets.by_number.insert(number, capability.clone());
        (number, true)
    }

    /// Ends a binding of the client; an object that is not bound is none the worse for it.
    fn terminate(&self, object: Uid) {
        self.home.shard(object).post(Job::Terminate {
            object,
            caller: self.peer,
        });
    }

    fn attachments(&self, capabilities: Vec<ForeignCapability>) -> Vec<Attachment> {
        let attach = |capability| -> Attachment {
            match capability {
                ForeignCapability::Own(number) => {
                    let known = self.targets.borrow().by_number.get(&number).cloned();
                    Arc::new(known.unwrap_or_else(|| self.home.manager_capability()))
                }
                imported @ ForeignCapability::Imported(_) => {
                    let (object, requests) = ForeignObject::new();
                    if let Some(me) = self.me.upgrade() {
                        tokio::task::spawn_local(call_out(me, imported, requests));
                    }
                    Arc::new(Capability::foreign(object))
                }
            }
        };
        capabilities.into_iter().map(attach).collect()
    }

    /// What the client is told.
    fn results(&self, answer: Answer) -> Result<Flat, capnp::Error> {
        let message = answer.outcome.map_err(|error| to_capnp(&error))?;
        self.flat(&message).map_err(|error| to_capnp(&error))
    }

    /// Results of ours, for the client.
    fn flat(&self, message: &Message) -> Result<Flat, SystemError> {
        let mut capabilities = Vec::new();
        for attachment in message.attached() {
            let capability = attachment.downcast_ref::<Capability>();
            let known = capability.and_then(|c| c.local_object().map(|object| (c, object)));
            let Some((capability, object)) = known else {
                let detail = "a capability of a third party cannot be passed to a foreign client";
                return Err(SystemError::new(ErrorKind::BadOperation, detail));
            };
            let (number, is_new) = self.number(object, capability);
            if !is_new {
                // However often it was bound, the client has one capability, and gives back one.
                self.terminate(object);
            }
            capabilities.push(ForeignCapability::Own(number));
        }
        Ok(Flat {
            segment: message.detached_segment()?,
            capabilities,
        })
    }
}

impl Gateway for Face {
    fn call(self: Rc<Self>, call: ForeignCall) -> Reply {
        let refused = |text: &str| Reply::Ready(Err(capnp::Error::failed(text.to_owned())));
        let target = self.targets.borrow().by_number.get(&call.target).cloned();
        let Some(capability) = target else {
            return refused("the capability is gone");
        };
        let Way::Local(shard, object) = capability.way() else {
            return refused("the object runs elsewhere");
        };
        let attached = self.attachments(call.params.capabilities);
        let parameters = match Message::from_segment(call.params.segment.into(), attached) {
            Ok(parameters) => parameters,
            Err(error) => return refused(&error.to_string()),
        };
        let (sender, mut receiver) = oneshot::channel();
        let open = shard.call(Incoming {
            object,
            interface: ClassId(call.interface),
            method: call.method,
            parameters,
            caller: self.peer,
            reply: ReplyTo::Foreign(sender),
            // The guard counts for itself.
            held: None,
            create: None,
            number: None,
        });
        // A client that drops its promise gives the call up.
        let waiting = Waiting(open);
        // A servant that waits for nothing has answered by now.
        if let Ok(answer) = receiver.try_recv() {
            waiting.answered();
            return Reply::Ready(self.results(answer));
        }
        let mut executing = Executing {
            receiver: Some(receiver),
            admission: call.admission,
            local: self.local.clone(),
        };
        Reply::Later(Box::pin(async move {
            let answer = executing.answer().await;
            waiting.answered();
            match answer {
                Some(answer) => self.results(answer),
                None => Err(stopped()),
            }
        }))
    }

    fn released(&self, target: u64) {
        if target == BOOTSTRAP {
            return;
        }
        let mut targets = self.targets.borrow_mut();
        let Some(capability) = targets.by_number.remove(&target) else {
            return;
        };
        if let Some(object) = capability.local_object() {
            targets.by_object.remove(&object);
            self.terminate(object);
        }
    }
}

/// A call that is being executed. Its admission is kept until the servant has answered, even if
/// the client gives up: it counts what executes, not what is waited for.
struct Executing {
    receiver: Option<oneshot::Receiver<Answer>>,
    admission: Option<Admission>,
    local: Weak<LocalSet>,
}

impl Executing {
    /// Waits for the answer; none if the shard has stopped.
    async fn answer(&mut self) -> Option<Answer> {
        let answer = self.receiver.as_mut()?.await;
        self.receiver = None;
        answer.ok()
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        if let (Some(receiver), Some(admission)) = (self.receiver.take(), self.admission.take())
            && let Some(local) = self.local.upgrade()
        {
            local.spawn_local(async move {
                // Either way the servant is done.
                let _ = receiver.await;
                drop(admission);
            });
        }
    }
}

fn stopped() -> capnp::Error {
    let error = SystemError::new(ErrorKind::Draining, "the shard has stopped");
    to_capnp(&error.completed(Completed::Maybe))
}

/// Makes the calls of a capability that the client passed to us, as long as anybody holds it.
async fn call_out(
    face: Rc<Face>,
    capability: ForeignCapability,
    mut requests: mpsc::Receiver<ForeignRequest>,
) {
    let gateway: Rc<dyn Gateway> = face.clone();
    while let Some(request) = requests.recv().await {
        let ForeignRequest {
            interface,
            method,
            parameters,
            answer,
        } = request;
        let params = match face.flat(&parameters) {
            Ok(params) => params,
            Err(error) => {
                // Whoever asked may have stopped waiting.
                let _ = answer.send(Err(error));
                continue;
            }
        };
        let calling = partha_guard::invoke(&gateway, &capability, interface.0, method, params);
        let face = face.clone();
        tokio::task::spawn_local(async move {
            let result = match calling.await {
                Ok(flat) => {
                    let attached = face.attachments(flat.capabilities);
                    Message::from_segment(flat.segment.into(), attached).map_err(SystemError::from)
                }
                Err(error) => Err(from_capnp(&error)),
            };
            // Whoever asked may have stopped waiting.
            let _ = answer.send(result);
        });
    }
}

fn to_capnp(error: &SystemError) -> capnp::Error {
    let text = error.to_string();
    match error.kind() {
        // A client that sees the kind of a refusal would call again.
        _ if error.has_begun() => capnp::Error::failed(text),
        ErrorKind::Overloaded | ErrorKind::Deadline => capnp::Error::overloaded(text),
        ErrorKind::Unreachable | ErrorKind::BindingBroken | ErrorKind::Draining => {
            capnp::Error::disconnected(text)
        }
        ErrorKind::BadOperation => capnp::Error::unimplemented(text),
        _ => capnp::Error::failed(text),
    }
}

fn from_capnp(error: &capnp::Error) -> SystemError {
    let kind = match error.kind {
        capnp::ErrorKind::Overloaded => ErrorKind::Overloaded,
        capnp::ErrorKind::Disconnected => ErrorKind::BindingBroken,
        capnp::ErrorKind::Unimplemented => ErrorKind::BadOperation,
        _ => ErrorKind::Servant,
    };
    let detail = format!("the foreign client's object: {}", error.extra);
    SystemError::new(kind, detail).completed(Completed::Maybe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_tell_a_foreign_client_to_call_again() {
        for kind in [
            ErrorKind::Unreachable,
            ErrorKind::BindingBroken,
            ErrorKind::Draining,
        ] {
            let refusal = SystemError::new(kind, "x");
            let told = to_capnp(&refusal);
            assert_eq!(told.kind, capnp::ErrorKind::Disconnected, "{kind:?}");
            let told = to_capnp(&refusal.handed_on(true));
            assert_eq!(told.kind, capnp::ErrorKind::Failed, "{kind:?}");
        }
    }
}
