//! JSON to messages.
//!
//! A value is walked along its type and written at once; the same walk into a message that is
//! thrown away tells beforehand whether it fits, and which names of objects it has.

mod scalar;

use std::collections::{BTreeMap, BTreeSet};

use partha::abi::{Slot, StructAt, Writer};
use partha::{ClassId, Uid};
use serde_json::{Map, Value};

use super::schema::{Int, Member, Schema, Struct, Type, find};
use super::{Mismatch, Place};
use crate::suggest;
use scalar::{cases, key_text};

/// What the description of an interface lacks.
const UNDESCRIBED: &str = "of a type that its node does not describe";
/// How deep pointers may nest; readers refuse more.
const DEPTH_MAX: usize = 64;

/// An object that is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) uid: Uid,
    /// 0 if not known.
    pub(crate) class: ClassId,
}

/// What is known of the names of objects in a value.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Those that were looked up.
    pub(crate) known: BTreeMap<String, Reference>,
    /// Those that were met and are not known.
    pub(crate) unknown: BTreeSet<String>,
}

/// Writes the members of a struct, or parameters, from a JSON object. `members` may be fewer than
/// the struct has.
///
/// # Errors
/// The first member that does not fit. What has been written by then is of no use.
pub(crate) fn members(
    schema: &Schema,
    members: &[Member],
    value: &Value,
    names: &mut Names,
    w: &mut Writer,
    at: StructAt,
) -> Result<(), Mismatch> {
    encoder(schema, names, w).members(members, value, at)
}

/// Writes a struct or a union.
///
/// # Errors
/// As [`members`].
#[cfg(test)]
pub(crate) fn structure(
    schema: &Schema,
    found: &Struct,
    value: &Value,
    names: &mut Names,
    w: &mut Writer,
    at: StructAt,
) -> Result<(), Mismatch> {
    let mut encoder = encoder(schema, names, w);
    match found.union {
        Some(tag) => encoder.union(found, tag, value, at),
        None => encoder.members(&found.members, value, at),
    }
}

fn encoder<'s, 'w>(schema: &'s Schema, names: &'w mut Names, w: &'w mut Writer) -> Encoder<'s, 'w> {
    Encoder {
        schema,
        names,
        w,
        place: Place::default(),
        depth: 1,
    }
}

struct Encoder<'s, 'w> {
    schema: &'s Schema,
    names: &'w mut Names,
    w: &'w mut Writer,
    place: Place,
    depth: usize,
}

/// A list under way: its elements, and where they go.
type Elements<'a> = (&'a [Value], Slot);

type Done = Result<(), Mismatch>;

/// A key, as the order of a map sees it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Truth values and enums, too.
    Int(i128),
    Uid(Uid),
    Bytes(Vec<u8>),
    Text(String),
}

impl<'s> Encoder<'s, '_> {
    fn members(&mut self, members: &[Member], value: &Value, at: StructAt) -> Done {
        let Value::Object(object) = value else {
            let names: Vec<_> = members
                .iter()
                .map(|member| member.name.idl.as_str())
                .collect();
            let expected = format!("an object with the members {}", names.join(", "));
            return Err(self.expected(&expected, value));
        };
        self.no_strangers(members, object)?;
        for member in members {
            let given = object.iter();
            let mut given = given.filter(|(name, _)| {
                find(members, |member| &member.name, name)
                    .is_some_and(|(_, found)| std::ptr::eq(found, member))
            });
            let found = given.next().map(|(_, value)| value);
            self.place.member(&member.name.idl);
            if given.next().is_some() {
                return Err(self.place.mismatch("given twice"));
            }
            self.member(member, found, at)?;
            self.place.leave();
        }
        Ok(())
    }

    fn no_strangers(&mut self, members: &[Member], object: &Map<String, Value>) -> Done {
        for name in object.keys() {
            if find(members, |member| &member.name, name).is_none() {
                let known: Vec<_> = members
                    .iter()
                    .map(|member| member.name.idl.as_str())
                    .collect();
                let hint = suggest::hint(name, known.iter().copied());
                self.place.member(name);
                let known = match known.as_slice() {
                    [] => "there is none".to_owned(),
                    known => format!("there are {}", known.join(", ")),
                };
                return Err(self
                    .place
                    .mismatch(format!("not known here; {known}{hint}")));
            }
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, value: Option<&Value>, at: StructAt) -> Done {
        if let Some(tag) = member.optional {
            return match value {
                None | Some(Value::Null) => Ok(()),
                Some(value) => {
                    self.w.set_u16(at, tag, 1);
                    self.slot(&member.ty, member.offset, value, at)
                }
            };
        }
        match value {
            Some(value) => self.slot(&member.ty, member.offset, value, at),
            None if matches!(member.ty, Type::Interface(_)) => Err(self.capability(&member.ty)),
            None => {
                let expected = self.schema.type_text(&member.ty);
                let or_null = if member.ty.is_pointer() {
                    " (null, if it is an option without a value)"
                } else {
                    ""
                };
                Err(self
                    .place
                    .mismatch(format!("missing; expected {expected}{or_null}")))
            }
        }
    }

    /// A value at its place in a struct.
    fn slot(&mut self, ty: &Type, offset: u32, value: &Value, at: StructAt) -> Done {
        match ty {
            Type::Void if value.is_null() => {}
            Type::Void => return Err(self.expected("null", value)),
            Type::Bool => {
                let bit = self.bool(value)?;
                self.w.set_bool(at, offset, bit);
            }
            Type::Int(int) => {
                let number = self.int(*int, value)?;
                self.set_int(*int, at, offset, number);
            }
            Type::F32 => {
                let number = self.f32(value)?;
                self.w.set_f32(at, offset, number);
            }
            Type::F64 => {
                let number = self.f64(value, "f64")?;
                self.w.set_f64(at, offset, number);
            }
            Type::Enum(id) => {
                let ordinal = self.enumerant(*id, value)?;
                self.w.set_u16(at, offset, ordinal);
            }
            Type::Text
            | Type::Bytes
            | Type::Uid
            | Type::Reference
            | Type::Struct(_)
            | Type::Interface(_)
            | Type::List(_)
            | Type::Map(_)
            | Type::Option(_)
            | Type::Other => {
                let index = u16::try_from(offset).unwrap_or(u16::MAX);
                return self.pointer(ty, at.slot(index), value);
            }
        }
        Ok(())
    }

    fn set_int(&mut self, int: Int, at: StructAt, offset: u32, number: i128) {
        // The range has been checked: nothing is cut off.
        match int {
            Int::I8 => self.w.set_i8(at, offset, number as i8),
            Int::I16 => self.w.set_i16(at, offset, number as i16),
            Int::I32 => self.w.set_i32(at, offset, number as i32),
            Int::I64 => self.w.set_i64(at, offset, number as i64),
            Int::U8 => self.w.set_u8(at, offset, number as u8),
            Int::U16 => self.w.set_u16(at, offset, number as u16),
            Int::U32 => self.w.set_u32(at, offset, number as u32),
            Int::U64 => self.w.set_u64(at, offset, number as u64),
        }
    }

    /// A value behind a pointer.
    fn pointer(&mut self, ty: &Type, slot: Slot, value: &Value) -> Done {
        if value.is_null() && !matches!(ty, Type::Option(_)) {
            return Ok(());
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let what = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(self.place.mismatch(what));
        }
        match ty {
            Type::Text => {
                let text = self.text(value)?;
                self.w.text(slot, text);
            }
            Type::Bytes => {
                let bytes = self.bytes(value)?;
                self.w.data(slot, &bytes);
            }
            Type::List(element) => self.list(element, slot, value)?,
            Type::Map(entry) => self.map(*entry, slot, value)?,
            Type::Uid => {
                let at = self.w.structure(slot, 2, 0);
                self.inline(ty, at, value)?;
            }
            Type::Reference => {
                let at = self.w.structure(slot, 1, 1);
                self.inline(ty, at, value)?;
            }
            Type::Struct(id) | Type::Option(id) => {
                let &Struct { data, pointers, .. } = self.structure(*id)?;
                let at = self.w.structure(slot, data, pointers);
                self.inline(ty, at, value)?;
            }
            Type::Interface(_) => return Err(self.capability(ty)),
            Type::Void
            | Type::Bool
            | Type::Int(_)
            | Type::F32
            | Type::F64
            | Type::Enum(_)
            | Type::Other => return Err(self.place.mismatch("of a type that cannot be given")),
        }
        self.depth -= 1;
        Ok(())
    }

    /// A value that lies in a message as a struct.
    fn inline(&mut self, ty: &Type, at: StructAt, value: &Value) -> Done {
        match ty {
            Type::Uid => {
                let uid = self.uid(value)?;
                self.put_uid(at, uid);
            }
            Type::Reference => {
                let Reference { uid, class } = self.reference(value)?;
                self.w.set_u64(at, 0, class.0);
                partha::abi::write_uid(self.w, at.slot(0), uid);
            }
            Type::Option(id) => {
                let around = self.structure(*id)?;
                for member in &around.members {
                    self.member(member, Some(value), at)?;
                }
            }
            Type::Struct(id) => {
                let found = self.structure(*id)?;
                return match found.union {
                    Some(tag) => self.union(found, tag, value, at),
                    None => self.members(&found.members, value, at),
                };
            }
            _ => return Err(self.place.mismatch("of a type that is no struct")),
        }
        Ok(())
    }

    fn put_uid(&mut self, at: StructAt, uid: Uid) {
        self.w.set_u64(at, 0, uid.node.0);
        self.w.set_u64(at, 1, uid.local);
    }

    fn union(&mut self, union: &Struct, tag: u32, value: &Value, at: StructAt) -> Done {
        let (name, inner) = match value {
            Value::String(name) => (name, None),
            Value::Object(object) if object.len() == 1 => {
                let (name, inner) = object.iter().next().expect("it has one");
                (name, Some(inner))
            }
            value => return Err(self.expected(&cases(union), value)),
        };
        let Some((_, case)) = find(&union.members, |case| &case.name, name) else {
            let known = union.members.iter().map(|case| case.name.idl.as_str());
            let hint = suggest::hint(name, known);
            let what = format!("expected {}, found the case \"{name}\"{hint}", cases(union));
            return Err(self.place.mismatch(what));
        };
        self.w.set_u16(at, tag, case.case);
        self.place.member(&case.name.idl);
        match (&case.ty, inner) {
            (Type::Void, None) => {}
            (_, inner) => self.member(case, inner, at)?,
        }
        self.place.leave();
        Ok(())
    }

    fn list(&mut self, element: &Type, slot: Slot, value: &Value) -> Done {
        let Value::Array(values) = value else {
            let expected = format!("list<{}>", self.schema.type_text(element));
            return Err(self.expected(&expected, value));
        };
        let (w_list, depth) = ((values.as_slice(), slot), self.depth);
        match element {
            Type::Bool => {
                let bits = self.each(values, Self::bool)?;
                self.w.bools(slot, bits.into_iter());
            }
            Type::Int(int) => self.ints(*int, w_list)?,
            Type::F32 => {
                let numbers = self.each(values, Self::f32)?;
                self.w.f32s(slot, numbers.into_iter());
            }
            Type::F64 => {
                let numbers = self.each(values, |this, value| this.f64(value, "f64"))?;
                self.w.f64s(slot, numbers.into_iter());
            }
            Type::Enum(id) => {
                let ordinals = self.each(values, |this, value| this.enumerant(*id, value))?;
                self.w.u16s(slot, ordinals.into_iter());
            }
            Type::Text | Type::Bytes | Type::List(_) | Type::Map(_) => {
                let at = self.w.pointers(slot, values.len());
                for (index, value) in values.iter().enumerate() {
                    self.place.index(index);
                    self.not_null(element, value)?;
                    self.pointer(element, at.slot(index), value)?;
                    self.place.leave();
                }
            }
            Type::Uid | Type::Reference | Type::Struct(_) | Type::Option(_) => {
                let (data, pointers) = self.size(element)?;
                let at = self.w.structures(slot, values.len(), data, pointers);
                for (index, value) in values.iter().enumerate() {
                    self.place.index(index);
                    self.inline(element, at.structure(index), value)?;
                    self.place.leave();
                }
            }
            Type::Interface(_) if values.is_empty() => {
                self.w.pointers(slot, 0);
            }
            Type::Interface(_) => return Err(self.capability(element)),
            Type::Void | Type::Other => {
                return Err(self.place.mismatch("a list of what cannot be given"));
            }
        }
        debug_assert_eq!(depth, self.depth, "what goes down comes up");
        Ok(())
    }

    fn ints(&mut self, int: Int, (values, slot): Elements<'_>) -> Done {
        let numbers = self.each(values, |this, value| this.int(int, value))?;
        let numbers = numbers.into_iter();
        // As above: nothing is cut off.
        match int {
            Int::I8 => self.w.i8s(slot, numbers.map(|n| n as i8)),
            Int::I16 => self.w.i16s(slot, numbers.map(|n| n as i16)),
            Int::I32 => self.w.i32s(slot, numbers.map(|n| n as i32)),
            Int::I64 => self.w.i64s(slot, numbers.map(|n| n as i64)),
            Int::U8 => self.w.u8s(slot, numbers.map(|n| n as u8)),
            Int::U16 => self.w.u16s(slot, numbers.map(|n| n as u16)),
            Int::U32 => self.w.u32s(slot, numbers.map(|n| n as u32)),
            Int::U64 => self.w.u64s(slot, numbers.map(|n| n as u64)),
        }
        Ok(())
    }

    fn each<T>(
        &mut self,
        values: &[Value],
        read: impl Fn(&Self, &Value) -> Result<T, Mismatch>,
    ) -> Result<Vec<T>, Mismatch> {
        let mut found = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            self.place.index(index);
            found.push(read(self, value)?);
            self.place.leave();
        }
        Ok(found)
    }

    /// A map: an object, or a list of pairs. Entries go in the order of their keys.
    fn map(&mut self, entry: u64, slot: Slot, value: &Value) -> Done {
        let schema = self.schema;
        let found = self.structure(entry)?;
        let [key, inner] = found.members.as_slice() else {
            return Err(self.place.mismatch("a map without key and value"));
        };
        let mut entries = BTreeMap::new();
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let text = Value::String(name.clone());
                    self.entry(&mut entries, key, &text, value)?;
                }
            }
            Value::Array(pairs) => {
                for (index, pair) in pairs.iter().enumerate() {
                    self.place.index(index);
                    let Some([name, value]) = pair.as_array().map(Vec::as_slice) else {
                        return Err(self.expected("a pair [key, value]", pair));
                    };
                    self.place.leave();
                    self.entry(&mut entries, key, name, value)?;
                }
            }
            value => {
                let expected = schema.type_text(&Type::Map(entry));
                return Err(self.expected(&format!("an object for {expected}"), value));
            }
        }
        let (data, pointers) = (found.data, found.pointers);
        let list = self.w.structures(slot, entries.len(), data, pointers);
        for (index, (text, value)) in entries.into_values().enumerate() {
            let at = list.structure(index);
            self.place.key(&key_text(&text));
            self.key_slot(key, &text, at)?;
            self.not_null(&inner.ty, value)?;
            self.slot(&inner.ty, inner.offset, value, at)?;
            self.place.leave();
        }
        Ok(())
    }

    fn entry<'v>(
        &mut self,
        entries: &mut BTreeMap<Key, (Value, &'v Value)>,
        key: &Member,
        name: &Value,
        value: &'v Value,
    ) -> Done {
        self.place.key(&key_text(name));
        let sortable = self.key(&key.ty, name)?;
        if entries.insert(sortable, (name.clone(), value)).is_some() {
            return Err(self.place.mismatch("the key is there twice"));
        }
        self.place.leave();
        Ok(())
    }

    fn key_slot(&mut self, key: &Member, text: &Value, at: StructAt) -> Done {
        match self.key(&key.ty, text)? {
            Key::Int(bit) if key.ty == Type::Bool => self.w.set_bool(at, key.offset, bit == 1),
            Key::Int(number) => match &key.ty {
                Type::Int(int) => self.set_int(*int, at, key.offset, number),
                _ => self.w.set_u16(at, key.offset, number as u16),
            },
            Key::Uid(_) | Key::Bytes(_) | Key::Text(_) => {
                self.slot(&key.ty, key.offset, text, at)?;
            }
        }
        Ok(())
    }

    fn not_null(&self, ty: &Type, value: &Value) -> Done {
        if value.is_null() && !matches!(ty, Type::Option(_)) {
            return Err(self.expected(&self.schema.type_text(ty), value));
        }
        Ok(())
    }

    fn structure(&self, id: u64) -> Result<&'s Struct, Mismatch> {
        let found = self.schema.structure(id);
        found.ok_or_else(|| self.place.mismatch(UNDESCRIBED))
    }

    fn size(&self, ty: &Type) -> Result<(u16, u16), Mismatch> {
        match ty {
            Type::Uid => Ok((2, 0)),
            Type::Reference => Ok((1, 1)),
            Type::Struct(id) | Type::Option(id) => {
                let found = self.structure(*id)?;
                Ok((found.data, found.pointers))
            }
            _ => Err(self.place.mismatch("of a type that is no struct")),
        }
    }
}
