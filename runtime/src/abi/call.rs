//! One call on its way through a servant.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use partha_core::id::Uid;
use partha_wire::{DecodeError, Message, Slot, StructAt, StructReader, Writer};

use super::class::ObjectState;
use crate::context::Context;
use crate::error::{ErrorKind, SystemError};
use crate::rows::Changes;
use crate::wire::frame;

/// What a skeleton returns: the call, finished.
pub type LocalFuture = Pin<Box<dyn Future<Output = Finished>>>;

/// A call handed to a skeleton: arguments, state and context in, results out.
#[derive(Debug)]
pub struct Call {
    arguments: Message,
    state: Option<Rc<dyn ObjectState>>,
    /// Boxed, since a call is moved often.
    context: Box<Context>,
    reply: Writer,
}

/// A call that has its answer.
#[derive(Debug)]
pub struct Finished {
    pub(crate) state: Option<Rc<dyn ObjectState>>,
    pub(crate) end: End,
    /// What the servant did to rows.
    pub(crate) changes: Changes,
    /// The servant has had to do with nobody else.
    pub(crate) alone: bool,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum End {
    /// A Return frame with results.
    Returned(Writer),
    /// A Return frame with a raised exception.
    Raised(Writer),
    /// No results at all.
    Failed(SystemError),
}

impl std::fmt::Debug for dyn ObjectState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectState")
    }
}

impl Call {
    pub(crate) fn new(
        arguments: Message,
        state: Option<Rc<dyn ObjectState>>,
        context: Context,
    ) -> Self {
        let mut reply = frame::returned();
        reply.set_bytes_max(context.own_client().message_bytes_max());
        Self {
            arguments,
            state,
            context: Box::new(context),
            reply,
        }
    }

    /// The parameters' struct, for one pass.
    ///
    /// # Errors
    /// [`DecodeError`] if there is none.
    pub fn arguments(&self) -> Result<StructReader<'_>, DecodeError> {
        self.arguments.reader()
    }

    /// The context, for a transient servant.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// State and context, for a method that only reads.
    ///
    /// # Panics
    /// If the state is of another class: a bug of the runtime.
    #[must_use]
    pub fn read<S: 'static>(&self) -> (&S, &Context) {
        let state = self
            .state
            .as_ref()
            .and_then(|state| state.as_any().downcast_ref());
        (
            state.expect("the catalog hands out the state of the object's class"),
            &self.context,
        )
    }

    /// State and context, for a method that writes.
    ///
    /// # Panics
    /// If the state is of another class, or somebody else has it: bugs of the runtime, whose
    /// lock table admits a writer alone.
    pub fn write<S: 'static>(&mut self) -> (&mut S, &Context) {
        let state = self.state.as_mut().and_then(Rc::get_mut);
        let state = state.and_then(|state| state.as_any_mut().downcast_mut());
        (state.expect("a writer has the state alone"), &self.context)
    }

    /// The call returned normally.
    pub fn returned(
        mut self,
        data: u16,
        pointers: u16,
        fill: impl FnOnce(&mut Writer, StructAt),
    ) -> Finished {
        self.results(data, pointers, fill);
        let end = End::Returned(self.reply);
        Finished {
            state: self.state,
            end,
            alone: !self.context.has_looked_out(),
            changes: self.context.rows.into_changes(),
        }
    }

    /// The call raised an exception of its interface.
    pub fn raised(
        mut self,
        data: u16,
        pointers: u16,
        fill: impl FnOnce(&mut Writer, StructAt),
    ) -> Finished {
        self.results(data, pointers, fill);
        let end = End::Raised(self.reply);
        Finished {
            state: self.state,
            end,
            alone: !self.context.has_looked_out(),
            changes: self.context.rows.into_changes(),
        }
    }

    /// The servant gave up.
    #[must_use]
    pub fn failed(self, error: SystemError) -> Finished {
        // The connection manager has done nothing where it says no, as a shard that refuses.
        let manager = Uid::connection_manager(self.context.own_client().me().node);
        let is_users = self.context.uid() != manager;
        self.refused(error.handed_on(is_users))
    }

    fn refused(self, error: SystemError) -> Finished {
        Finished {
            state: self.state,
            end: End::Failed(error),
            alone: !self.context.has_looked_out(),
            changes: self.context.rows.into_changes(),
        }
    }

    /// The arguments are not those of the method.
    #[must_use]
    pub fn malformed(self, error: DecodeError) -> Finished {
        let error = SystemError::new(ErrorKind::Malformed, format!("argument {error}"));
        self.refused(error)
    }

    fn results(&mut self, data: u16, pointers: u16, fill: impl FnOnce(&mut Writer, StructAt)) {
        let slot: Slot = frame::body(&self.reply);
        let s = self.reply.structure(slot, data, pointers);
        fill(&mut self.reply, s);
    }
}
