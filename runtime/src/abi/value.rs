//! Values in messages: what generated types implement, and the intrinsic types.

use std::sync::Arc;
use std::time::Duration;

use partha_core::id::{ClassId, NodeId, Uid};
use partha_wire::{DecodeError, PointerReader, Slot, StructAt, StructReader, Writer};

use crate::capability::Capability;
use crate::config::MESSAGE_BYTES_MAX;
use crate::reference::Ref;

/// A type that lies in a message as a struct.
pub trait Struct: Sized {
    /// Words of its data section.
    const DATA: u16;
    /// Pointers of its pointer section.
    const POINTERS: u16;
    /// Writes all members into a fresh struct.
    fn write(&self, w: &mut Writer, s: StructAt);
    /// Reads all members.
    ///
    /// # Errors
    /// [`DecodeError`], naming the member.
    fn read(r: StructReader<'_>) -> Result<Self, DecodeError>;
}

/// A type that lies in a message as a number with names.
pub trait Enum: Copy {
    /// Its number.
    fn ordinal(self) -> u16;
    /// The value with this number.
    ///
    /// # Errors
    /// [`DecodeError`] if no value has it here; a newer peer may know one.
    fn from_ordinal(ordinal: u16) -> Result<Self, DecodeError>;
}

/// A framed message with one struct at its root: constructor arguments, state records.
#[must_use]
pub fn message(data: u16, pointers: u16, fill: impl FnOnce(&mut Writer, StructAt)) -> Writer {
    let mut w = Writer::new(MESSAGE_BYTES_MAX);
    let s = w.structure(Slot::ROOT, data, pointers);
    fill(&mut w, s);
    w
}

/// Writes a uid.
pub fn write_uid(w: &mut Writer, slot: Slot, uid: Uid) {
    let s = w.structure(slot, 2, 0);
    w.set_u64(s, 0, uid.node.0);
    w.set_u64(s, 1, uid.local);
}

/// Reads a uid; the nil uid if null.
///
/// # Errors
/// [`DecodeError`] if the pointer is no struct.
pub fn read_uid(pointer: PointerReader<'_>) -> Result<Uid, DecodeError> {
    let s = pointer.structure()?;
    Ok(Uid {
        node: NodeId(s.u64(0)),
        local: s.u64(1),
    })
}

/// Writes a reference to a persistent object.
pub fn write_ref(w: &mut Writer, slot: Slot, reference: &Ref) {
    let s = w.structure(slot, 1, 1);
    w.set_u64(s, 0, reference.class().0);
    write_uid(w, s.slot(0), reference.uid());
}

/// Reads a reference; none if null.
///
/// # Errors
/// [`DecodeError`] if the pointer is no reference.
pub fn read_ref(pointer: PointerReader<'_>) -> Result<Option<Ref>, DecodeError> {
    if pointer.is_null() {
        return Ok(None);
    }
    let s = pointer.structure()?;
    let uid = read_uid(s.pointer(0))?;
    if uid == Uid::NIL {
        return Err(DecodeError::missing());
    }
    Ok(Some(Ref::new(uid, ClassId(s.u64(0)))))
}

/// Writes a capability of a transient interface.
pub fn write_capability(w: &mut Writer, slot: Slot, capability: &Capability) {
    w.capability(slot, Arc::new(capability.clone()));
}

/// Reads a capability; none if null.
///
/// # Errors
/// [`DecodeError`] if the pointer is no capability of the message.
pub fn read_capability(pointer: PointerReader<'_>) -> Result<Option<Capability>, DecodeError> {
    let Some(attachment) = pointer.capability()? else {
        return Ok(None);
    };
    match attachment.downcast_ref::<Capability>() {
        Some(capability) => Ok(Some(capability.clone())),
        None => Err(DecodeError::invalid("a capability that can be called")),
    }
}

/// A duration as microseconds.
#[must_use]
pub fn write_duration(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A duration from microseconds.
///
/// # Errors
/// [`DecodeError`] if negative.
pub fn read_duration(micros: i64) -> Result<Duration, DecodeError> {
    let micros = u64::try_from(micros);
    micros
        .map(Duration::from_micros)
        .map_err(|_| DecodeError::invalid("a duration of 0 or more"))
}
