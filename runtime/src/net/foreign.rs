//! Objects beyond the foreign face: capabilities that a plain Cap'n Proto client passed to us.
//!
//! capnp-rpc's client hooks belong to one thread; a [`ForeignObject`] sends calls there and waits
//! for their results, so that the rest of the process need not know.

use std::fmt;
use std::time::Instant;

use partha_core::id::ClassId;
use partha_wire::Message;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Completed, ErrorKind, Result, SystemError};

/// A call for the thread that has the object.
pub(crate) struct ForeignRequest {
    pub(crate) interface: ClassId,
    pub(crate) method: u16,
    pub(crate) parameters: Message,
    pub(crate) answer: oneshot::Sender<Result<Message>>,
}

/// An object beyond the foreign face.
#[derive(Clone)]
pub(crate) struct ForeignObject {
    calls: mpsc::Sender<ForeignRequest>,
}

/// Calls of one object that wait to be sent.
const CALLS_MAX: usize = 1024;

impl ForeignObject {
    /// The object and the calls it will be asked to make.
    pub(crate) fn new() -> (Self, mpsc::Receiver<ForeignRequest>) {
        let (calls, requests) = mpsc::channel(CALLS_MAX);
        (Self { calls }, requests)
    }

    /// What it is known as; a capability does not say.
    pub(crate) fn class(&self) -> ClassId {
        ClassId(0)
    }

    /// Calls the object.
    pub(crate) async fn call(
        &self,
        interface: ClassId,
        method: u16,
        parameters: Message,
        deadline: Instant,
    ) -> Result<Message> {
        let (answer, receiver) = oneshot::channel();
        let request = ForeignRequest {
            interface,
            method,
            parameters,
            answer,
        };
        let gone = || {
            let detail = "the foreign client that passed the capability has gone";
            SystemError::new(ErrorKind::BindingBroken, detail)
        };
        self.calls.send(request).await.map_err(|_| gone())?;
        match tokio::time::timeout_at(deadline.into(), receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(gone().completed(Completed::Maybe)),
            Err(_) => {
                let detail = "the foreign client did not answer a call of its capability in time";
                let error = SystemError::new(ErrorKind::Deadline, detail);
                Err(error.completed(Completed::Maybe))
            }
        }
    }
}

impl fmt::Debug for ForeignObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForeignObject")
    }
}
