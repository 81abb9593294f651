//! Messages to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use partha::Uid;
use partha::abi::{DecodeError, PointerReader, StructReader};
use serde_json::{Map, Number, Value};

use super::schema::{Int, Member, Schema, Struct, Type};
use super::{Mismatch, Place};

/// Reads one member of a struct.
///
/// # Errors
/// Where the message is not what the schema says.
pub(crate) fn member(
    schema: &Schema,
    member: &Member,
    at: StructReader<'_>,
) -> Result<Value, Mismatch> {
    decoder(schema).member(member, at)
}

/// Reads a struct: an object with its members, or a union's case.
///
/// # Errors
/// As [`member`].
#[cfg(test)]
pub(crate) fn structure(
    schema: &Schema,
    found: &Struct,
    at: StructReader<'_>,
) -> Result<Value, Mismatch> {
    decoder(schema).structure(found, at)
}

/// Reads a union: the case it is, and what it holds.
///
/// # Errors
/// As [`member`]; also if it is of a case that the schema does not know.
pub(crate) fn union<'s>(
    schema: &'s Schema,
    union: &'s Struct,
    at: StructReader<'_>,
) -> Result<(&'s Member, Value), Mismatch> {
    decoder(schema).case(union, union.union.unwrap_or_default(), at)
}

fn decoder(schema: &Schema) -> Decoder<'_> {
    let place = Place::default();
    Decoder { schema, place }
}

struct Decoder<'s> {
    schema: &'s Schema,
    place: Place,
}

type Found = Result<Value, Mismatch>;

impl<'s> Decoder<'s> {
    fn structure(&mut self, found: &'s Struct, at: StructReader<'_>) -> Found {
        if let Some(tag) = found.union {
            let (case, value) = self.case(found, tag, at)?;
            let name = case.name.idl.clone();
            return Ok(match case.ty {
                Type::Void => Value::String(name),
                _ => Value::Object(Map::from_iter([(name, value)])),
            });
        }
        let mut object = Map::new();
        for member in &found.members {
            let value = self.member(member, at)?;
            object.insert(member.name.idl.clone(), value);
        }
        Ok(Value::Object(object))
    }

    fn case(
        &mut self,
        union: &'s Struct,
        tag: u32,
        at: StructReader<'_>,
    ) -> Result<(&'s Member, Value), Mismatch> {
        let number = at.u16(tag);
        let Some(case) = union.members.iter().find(|case| case.case == number) else {
            let what = format!("case {number}, which its node does not describe");
            return Err(self.place.mismatch(what));
        };
        Ok((case, self.member(case, at)?))
    }

    fn member(&mut self, member: &Member, at: StructReader<'_>) -> Found {
        if member.optional.is_some_and(|tag| at.u16(tag) == 0) {
            return Ok(Value::Null);
        }
        self.place.member(&member.name.idl);
        let value = self.slot(&member.ty, member.offset, at)?;
        self.place.leave();
        Ok(value)
    }

    fn slot(&mut self, ty: &Type, offset: u32, at: StructReader<'_>) -> Found {
        Ok(match ty {
            Type::Void => Value::Null,
            Type::Bool => at.bool(offset).into(),
            Type::Int(int) => match int {
                Int::I8 => at.i8(offset).into(),
                Int::I16 => at.i16(offset).into(),
                Int::I32 => at.i32(offset).into(),
                Int::I64 => at.i64(offset).into(),
                Int::U8 => at.u8(offset).into(),
                Int::U16 => at.u16(offset).into(),
                Int::U32 => at.u32(offset).into(),
                Int::U64 => at.u64(offset).into(),
            },
            Type::F32 => from_f32(at.f32(offset)),
            Type::F64 => from_f64(at.f64(offset)),
            Type::Enum(id) => self.enumerant(*id, at.u16(offset)),
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
                return self.pointer(ty, at.pointer(index));
            }
        })
    }

    fn pointer(&mut self, ty: &Type, pointer: PointerReader<'_>) -> Found {
        if pointer.is_null() {
            return Ok(Value::Null);
        }
        match ty {
            Type::Text => pointer.text().map(Value::from).map_err(|e| self.bad(&e)),
            Type::Bytes => {
                let data = pointer.data().map_err(|e| self.bad(&e))?;
                Ok(BASE64.encode(data).into())
            }
            Type::List(element) => self.list(element, pointer),
            Type::Map(entry) => self.map(*entry, pointer),
            Type::Interface(_) => Ok(Value::Object(Map::from_iter([(
                "capability".to_owned(),
                self.schema.type_text(ty).into(),
            )]))),
            Type::Uid | Type::Reference | Type::Struct(_) | Type::Option(_) => {
                let at = pointer.structure().map_err(|e| self.bad(&e))?;
                self.inline(ty, at)
            }
            Type::Void
            | Type::Bool
            | Type::Int(_)
            | Type::F32
            | Type::F64
            | Type::Enum(_)
            | Type::Other => Err(self.place.mismatch("of a type that cannot be read")),
        }
    }

    /// A value that lies in a message as a struct.
    fn inline(&mut self, ty: &Type, at: StructReader<'_>) -> Found {
        match ty {
            Type::Uid => Ok(uid(at).to_string().into()),
            Type::Reference => {
                let object = at.pointer(0).structure().map_err(|e| self.bad(&e))?;
                Ok(uid(object).to_string().into())
            }
            Type::Option(id) => {
                let around = self.described(*id)?;
                match around.members.first() {
                    Some(member) => self.member(member, at),
                    None => Ok(Value::Null),
                }
            }
            Type::Struct(id) => {
                let found = self.described(*id)?;
                self.structure(found, at)
            }
            _ => Err(self.place.mismatch("of a type that is no struct")),
        }
    }

    fn list(&mut self, element: &Type, pointer: PointerReader<'_>) -> Found {
        let values = match element {
            Type::Bool => values(pointer.bools(), Value::from),
            Type::Int(int) => match int {
                Int::I8 => values(pointer.i8s(), Value::from),
                Int::I16 => values(pointer.i16s(), Value::from),
                Int::I32 => values(pointer.i32s(), Value::from),
                Int::I64 => values(pointer.i64s(), Value::from),
                Int::U8 => values(pointer.u8s(), Value::from),
                Int::U16 => values(pointer.u16s(), Value::from),
                Int::U32 => values(pointer.u32s(), Value::from),
                Int::U64 => values(pointer.u64s(), Value::from),
            },
            Type::F32 => values(pointer.f32s(), from_f32),
            Type::F64 => values(pointer.f64s(), from_f64),
            Type::Enum(id) => values(pointer.u16s(), |number| self.enumerant(*id, number)),
            Type::Text | Type::Bytes | Type::List(_) | Type::Map(_) | Type::Interface(_) => {
                let list = pointer.pointers().map_err(|e| self.bad(&e))?;
                let mut values = Vec::new();
                for (index, pointer) in list.iter_pointers().enumerate() {
                    self.place.index(index);
                    values.push(self.pointer(element, pointer)?);
                    self.place.leave();
                }
                Ok(values)
            }
            Type::Uid | Type::Reference | Type::Struct(_) | Type::Option(_) => {
                let list = pointer.structures().map_err(|e| self.bad(&e))?;
                let mut values = Vec::new();
                for (index, at) in list.iter_structures().enumerate() {
                    self.place.index(index);
                    values.push(self.inline(element, at)?);
                    self.place.leave();
                }
                Ok(values)
            }
            Type::Void | Type::Other => {
                return Err(self.place.mismatch("a list of what cannot be read"));
            }
        };
        values.map(Value::Array).map_err(|e| self.bad(&e))
    }

    /// An object; keys of all types become texts.
    fn map(&mut self, entry: u64, pointer: PointerReader<'_>) -> Found {
        let found = self.described(entry)?;
        let [key, inner] = found.members.as_slice() else {
            return Err(self.place.mismatch("a map without key and value"));
        };
        let list = pointer.structures().map_err(|e| self.bad(&e))?;
        let mut object = Map::new();
        for at in list.iter_structures() {
            let key = match self.slot(&key.ty, key.offset, at)? {
                Value::String(text) => text,
                // An empty text may be written as no pointer at all.
                Value::Null => String::new(),
                other => other.to_string(),
            };
            self.place.key(&key);
            let value = self.slot(&inner.ty, inner.offset, at)?;
            if object.insert(key, value).is_some() {
                return Err(self.place.mismatch("the key is there twice"));
            }
            self.place.leave();
        }
        Ok(Value::Object(object))
    }

    /// The name of an enum's value; its number, if it is newer than the description.
    fn enumerant(&self, id: u64, ordinal: u16) -> Value {
        let values = self.schema.enumerants(id).unwrap_or_default();
        let found = values.get(usize::from(ordinal));
        found.map_or_else(|| ordinal.into(), |value| value.name.idl.clone().into())
    }

    fn described(&self, id: u64) -> Result<&'s Struct, Mismatch> {
        let found = self.schema.structure(id);
        found.ok_or_else(|| {
            self.place
                .mismatch("of a type that its node does not describe")
        })
    }

    fn bad(&self, error: &DecodeError) -> Mismatch {
        self.place.mismatch(error.to_string())
    }
}

fn values<T>(
    list: Result<Vec<T>, DecodeError>,
    value: impl FnMut(T) -> Value,
) -> Result<Vec<Value>, DecodeError> {
    Ok(list?.into_iter().map(value).collect())
}

fn uid(at: StructReader<'_>) -> Uid {
    Uid {
        node: partha::NodeId(at.u64(0)),
        local: at.u64(1),
    }
}

/// JSON has no word for these three.
pub(super) fn from_f64(number: f64) -> Value {
    let no_number = || {
        Value::from(if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        })
    };
    Number::from_f64(number).map_or_else(no_number, Value::Number)
}

/// With the digits that `f32` needs: 0.1, not 0.10000000149011612.
pub(super) fn from_f32(number: f32) -> Value {
    from_f64(number.to_string().parse().unwrap_or_else(|_| number.into()))
}
