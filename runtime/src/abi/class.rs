//! Classes: what a node knows about the interfaces it can run.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use partha_core::Mode;
use partha_core::id::ClassId;
use partha_wire::{DecodeError, Slot, StructReader, Writer};

use super::call::{Call, LocalFuture};
use super::value::Struct;
use crate::capability::Capability;
use crate::reference::Ref;

/// What is known of an interface at compile time.
#[derive(Debug)]
pub struct ClassInfo {
    /// The Cap'n Proto interface id.
    pub id: ClassId,
    /// `bank.Account`.
    pub name: &'static str,
    /// True if its objects live in the store.
    pub persistent: bool,
    /// The class itself, then its bases.
    pub ancestors: &'static [ClassId],
    /// The bases' methods, then its own.
    pub methods: &'static [Method],
    /// A hash of the state's layout.
    pub schema: u64,
    /// The module's `CodeGeneratorRequest`, framed.
    pub reflection: &'static [u8],
}

/// What is known of a method at compile time.
#[derive(Debug)]
pub struct Method {
    /// The interface that declares it.
    pub interface: ClassId,
    /// Its number there.
    pub ordinal: u16,
    /// Its name in the IDL.
    pub name: &'static str,
    /// It changes its object, and its servant gets `&mut State`.
    pub mutating: bool,
    /// The lock it takes: WRITE if it is mutating, otherwise READ, or UPGRADE with `#[upgrade]`.
    pub mode: Mode,
    /// It may be executed again.
    pub idempotent: bool,
    /// Its servant may compute or block for long, and runs on a thread of its own.
    pub blocking: bool,
    /// Any copy of the object may answer it.
    pub any_replica: bool,
    /// How long a call may take, in microseconds, where the IDL says so.
    pub deadline_us: Option<u64>,
}

/// The state of an object in memory.
pub trait ObjectState: Any {
    /// Writes the state record.
    fn save(&self, w: &mut Writer);
    /// For the way back to the concrete type.
    fn as_any(&self) -> &dyn Any;
    /// For the way back to the concrete type.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Struct + 'static> ObjectState for T {
    fn save(&self, w: &mut Writer) {
        let s = w.structure(Slot::ROOT, T::DATA, T::POINTERS);
        self.write(w, s);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The server side of a class: decodes, calls the servant, encodes.
pub trait Skeleton: Send + Sync + 'static {
    /// What is known of the class.
    fn info(&self) -> &'static ClassInfo;
    /// Runs the constructor on its arguments, the `New` struct of the class.
    ///
    /// # Errors
    /// [`DecodeError`] if they are not that.
    fn construct(&self, arguments: StructReader<'_>) -> Result<Box<dyn ObjectState>, DecodeError>;
    /// Reads a state record.
    ///
    /// # Errors
    /// [`DecodeError`] if it is none of this class.
    fn restore(&self, record: StructReader<'_>) -> Result<Box<dyn ObjectState>, DecodeError>;
    /// Runs the method at this index of [`ClassInfo::methods`].
    fn dispatch(&self, method: usize, call: Call) -> LocalFuture;
}

/// A class with its servant, ready for a node.
#[derive(Clone)]
pub struct Class {
    skeleton: Arc<dyn Skeleton>,
}

impl Class {
    /// Wraps a generated skeleton.
    pub fn new(skeleton: impl Skeleton) -> Self {
        Self {
            skeleton: Arc::new(skeleton),
        }
    }

    /// What is known of the class.
    #[must_use]
    pub fn info(&self) -> &'static ClassInfo {
        self.skeleton.info()
    }

    pub(crate) fn skeleton(&self) -> &Arc<dyn Skeleton> {
        &self.skeleton
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Class({})", self.info().name)
    }
}

impl ClassInfo {
    /// True if an object of this class is one of `class` too.
    #[must_use]
    pub fn is_a(&self, class: ClassId) -> bool {
        self.ancestors.contains(&class)
    }

    /// The index of a method.
    #[must_use]
    pub fn method(&self, interface: ClassId, ordinal: u16) -> Option<usize> {
        self.methods
            .iter()
            .position(|m| m.interface == interface && m.ordinal == ordinal)
    }
}

/// A client stub of a persistent interface.
pub trait Stub: Sized {
    /// What is known of the class.
    const INFO: &'static ClassInfo;
    /// The stub of a reference.
    fn from_ref(reference: Ref) -> Self;
    /// The reference of the stub.
    fn as_ref(&self) -> &Ref;
}

/// A client stub of a transient interface.
pub trait Transient: Sized {
    /// What is known of the class.
    const INFO: &'static ClassInfo;
    /// The stub of a capability.
    fn from_capability(capability: Capability) -> Self;
    /// The capability of the stub.
    fn as_capability(&self) -> &Capability;
}
