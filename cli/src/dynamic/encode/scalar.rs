//! The values without parts: numbers, texts, keys, names of values and of objects.

use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use partha::{ClassId, Uid};
use serde_json::Value;

use super::{Encoder, Key, Reference};
use crate::dynamic::Mismatch;
use crate::dynamic::schema::{Int, Struct, Type, find};
use crate::suggest;

impl Encoder<'_, '_> {
    /// A key as the order of the map sees it; in an object, all keys are texts.
    pub(super) fn key(&self, ty: &Type, value: &Value) -> Result<Key, Mismatch> {
        Ok(match (ty, value) {
            (Type::Bool, Value::String(text)) if text == "true" => Key::Int(1),
            (Type::Bool, Value::String(text)) if text == "false" => Key::Int(0),
            (Type::Bool, value) => Key::Int(self.bool(value)?.into()),
            (Type::Int(int), value) => match value.as_str().and_then(|text| text.parse().ok()) {
                Some(number) => Key::Int(self.in_range(*int, number, value)?),
                None => Key::Int(self.int(*int, value)?),
            },
            (Type::Enum(id), value) => Key::Int(self.enumerant(*id, value)?.into()),
            (Type::Uid, value) => Key::Uid(self.uid(value)?),
            (Type::Bytes, value) => Key::Bytes(self.bytes(value)?),
            (Type::Text, value) => Key::Text(self.text(value)?.to_owned()),
            _ => {
                return Err(self.place.mismatch("a key of a type that cannot be given"));
            }
        })
    }

    pub(super) fn bool(&self, value: &Value) -> Result<bool, Mismatch> {
        value.as_bool().ok_or_else(|| self.expected("bool", value))
    }

    pub(super) fn int(&self, int: Int, value: &Value) -> Result<i128, Mismatch> {
        let number = match value {
            Value::Number(number) => {
                let small = number.as_i64().map(i128::from);
                small.or_else(|| number.as_u64().map(i128::from))
            }
            Value::String(text) if int == Int::I64 => micros(text),
            _ => None,
        };
        match number {
            Some(number) => self.in_range(int, number, value),
            None => {
                let (min, max) = int.range();
                let name = int.text();
                Err(self.expected(&format!("{name} ({min} to {max})"), value))
            }
        }
    }

    pub(super) fn in_range(&self, int: Int, number: i128, value: &Value) -> Result<i128, Mismatch> {
        let (min, max) = int.range();
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        let name = int.text();
        Err(self.expected(&format!("{name} ({min} to {max})"), value))
    }

    pub(super) fn f32(&self, value: &Value) -> Result<f32, Mismatch> {
        let wide = self.f64(value, "f32")?;
        let number = wide as f32;
        if number.is_infinite() && wide.is_finite() {
            return Err(self.expected("f32 (up to 3.4e38)", value));
        }
        Ok(number)
    }

    pub(super) fn f64(&self, value: &Value, name: &str) -> Result<f64, Mismatch> {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "inf" => Some(f64::INFINITY),
                "-inf" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            _ => None,
        };
        number.ok_or_else(|| self.expected(name, value))
    }

    pub(super) fn text<'v>(&self, value: &'v Value) -> Result<&'v str, Mismatch> {
        value.as_str().ok_or_else(|| self.expected("string", value))
    }

    pub(super) fn bytes(&self, value: &Value) -> Result<Vec<u8>, Mismatch> {
        let expected = || self.expected("bytes as base64", value);
        let text = value.as_str().ok_or_else(expected)?;
        BASE64.decode(text).map_err(|_| expected())
    }

    pub(super) fn uid(&self, value: &Value) -> Result<Uid, Mismatch> {
        let uid = value.as_str().and_then(|text| text.parse().ok());
        uid.ok_or_else(|| self.expected("a uid", value))
    }

    pub(super) fn reference(&mut self, value: &Value) -> Result<Reference, Mismatch> {
        let Value::String(text) = value else {
            return Err(self.expected("the name or the uid of an object", value));
        };
        if let Ok(uid) = text.parse() {
            let class = ClassId(0);
            return Ok(Reference { uid, class });
        }
        if let Some(known) = self.names.known.get(text) {
            return Ok(*known);
        }
        self.names.unknown.insert(text.clone());
        let (uid, class) = (Uid::NIL, ClassId(0));
        Ok(Reference { uid, class })
    }

    pub(super) fn enumerant(&self, id: u64, value: &Value) -> Result<u16, Mismatch> {
        let values = self.schema.enumerants(id).unwrap_or_default();
        let name = value.as_str();
        let found = name.and_then(|name| find(values, |value| &value.name, name));
        if let Some((ordinal, _)) = found {
            return Ok(u16::try_from(ordinal).unwrap_or(u16::MAX));
        }
        let names: Vec<_> = values.iter().map(|value| value.name.idl.as_str()).collect();
        let hint = name.map_or_else(String::new, |name| {
            suggest::hint(name, names.iter().copied())
        });
        let mut problem = self.expected(&format!("one of {}", names.join(", ")), value);
        problem.problem.push_str(&hint);
        Err(problem)
    }

    pub(super) fn capability(&self, ty: &Type) -> Mismatch {
        let class = self.schema.type_text(ty);
        self.place.mismatch(format!(
            "an object of {class} lives in the process that serves it; only null can be given \
             from here"
        ))
    }

    pub(super) fn expected(&self, expected: &str, value: &Value) -> Mismatch {
        let found = found(value);
        self.place
            .mismatch(format!("expected {expected}, found {found}"))
    }
}

/// A time or a duration in words, as microseconds.
fn micros(text: &str) -> Option<i128> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        return i128::try_from(since.as_micros()).ok();
    }
    let duration = humantime::parse_duration(text).ok()?;
    i128::try_from(duration.as_micros()).ok()
}

/// What somebody wrote, for a message.
fn found(value: &Value) -> String {
    const SHOWN_MAX: usize = 40;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => {
            let short: String = text.chars().take(SHOWN_MAX).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("the text {short:?}{more}")
        }
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// How a key is shown in a place.
pub(super) fn key_text(key: &Value) -> String {
    key.as_str().map_or_else(|| key.to_string(), str::to_owned)
}

/// What a union takes.
pub(super) fn cases(union: &Struct) -> String {
    let case = |case: &super::Member| match case.ty {
        Type::Void => format!("\"{}\"", case.name.idl),
        _ => format!("{{\"{}\": …}}", case.name.idl),
    };
    let cases: Vec<_> = union.members.iter().map(case).collect();
    format!("one of {}", cases.join(", "))
}
