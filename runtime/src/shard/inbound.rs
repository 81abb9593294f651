//! The shard's side of a native connection: calls in, cancellations in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use partha_core::id::Uid;
use partha_core::{Input, Ticket};

use super::Shard;
use super::give_up::{Open, OpenCalls};
use super::job::{Incoming, ReplyTo};
use crate::capability::Way;
use crate::error::{ErrorKind, SystemError};
use crate::hash::shard_of;
use crate::net::asker::Asker;
use crate::net::connection::Connection;
use crate::net::io::Inbound;
use crate::node::{Ending, Home, Seat};
use crate::wire::frame::{Invoke, Target};
use crate::wire::message::Action;

/// Takes the calls of one connection.
pub(crate) struct ShardInbound {
    shard: Rc<Shard>,
    home: Arc<Home>,
    /// Its place in the session of the peer.
    seat: Cell<Option<Seat>>,
    /// What the peer waits for.
    open: RefCell<OpenCalls<At>>,
}

/// Where a call of the peer is.
enum At {
    /// At this shard.
    Here(Ticket),
    /// At another one.
    There(Open),
}

impl ShardInbound {
    pub(crate) fn new(shard: Rc<Shard>, home: Arc<Home>, seat: Seat) -> Self {
        Self {
            shard,
            home,
            seat: Cell::new(Some(seat)),
            open: RefCell::default(),
        }
    }

    fn give_up(&self, at: At) {
        match at {
            At::Here(ticket) => self.shard.feed(Input::Cancel { ticket }),
            At::There(open) => open.give_up(),
        }
    }
}

impl Inbound for ShardInbound {
    fn invoke(&self, connection: &Arc<Connection>, call: Invoke) {
        let Invoke {
            question,
            target,
            interface,
            method,
            parameters,
            ..
        } = call;
        let reply = ReplyTo::Connection {
            connection: Asker::new(connection),
            question,
        };
        let caller = connection.peer();
        let (object, elsewhere) = match target {
            Target::Object(object) => {
                let index = shard_of(object, self.home.shards.len() as u16);
                let is_manager = object == self.home.manager();
                let here = is_manager || index == self.shard.handle.index();
                (
                    object,
                    (!here).then(|| self.home.shards[index as usize].clone()),
                )
            }
            Target::Export(number) => match connection.export(number) {
                Ok(capability) => match capability.way() {
                    Way::Local(shard, object) => (object, Some(shard.clone())),
                    Way::Imported(_) | Way::Foreign(_) => {
                        let detail = "a capability of a third party cannot be called through here";
                        reply.fail(SystemError::new(ErrorKind::BadOperation, detail));
                        return;
                    }
                },
                Err(error) => {
                    reply.fail(error);
                    return;
                }
            },
        };
        let held = match connection.hold(parameters.segment().len()) {
            Ok(held) => held,
            Err(error) => return reply.fail(error),
        };
        let create = None;
        let incoming = Incoming {
            object,
            interface,
            method,
            parameters,
            caller,
            reply,
            held,
            create,
            number: None,
        };
        let at = match elsewhere {
            Some(shard) => shard.call(incoming).map(At::There),
            None => self.shard.invoke(incoming).map(At::Here),
        };
        self.open.borrow_mut().note(question, at);
    }

    fn coming(&self, objects: &[Uid]) {
        self.shard.touch(objects);
    }

    fn action(&self, connection: &Arc<Connection>, action: Action) {
        let question = action.question;
        let reply = || ReplyTo::Connection {
            connection: Asker::new(connection),
            question,
        };
        self.home.action(connection.peer(), action, reply);
    }

    fn cancel(&self, _connection: &Arc<Connection>, question: u32) {
        let at = self.open.borrow_mut().take(question);
        if let Some(at) = at {
            self.give_up(at);
        }
    }

    fn idle(&self, connection: &Arc<Connection>) {
        if !connection.is_asked() {
            self.open.borrow_mut().clear();
        }
    }

    fn closed(&self, reason: &SystemError) {
        // Nobody hears the answers to what came by it.
        let open = self.open.borrow_mut().take_all();
        open.for_each(|at| self.give_up(at));
        let ending = if reason.kind() == ErrorKind::Unreachable {
            Ending::Expired
        } else {
            Ending::Lost
        };
        if let Some(seat) = self.seat.take() {
            seat.leave(ending);
        }
    }
}
