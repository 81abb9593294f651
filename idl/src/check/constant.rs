//! Constants: which types they may have, and whether the value fits.

use crate::ast::{self, TypeRef, ValueKind};
use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::model::{Type, Value};

/// The value as its type has it, or a stand-in and a complaint.
pub(crate) fn value(ty: &Type, written: &TypeRef, value: &ast::Value, sink: &mut Sink) -> Value {
    if matches!(written.kind, ast::TypeKind::Wrong) {
        return Value::Bool(false);
    }
    match range(ty) {
        Kind::None => {
            let message = "a constant cannot have this type";
            let help = "constants are bool, numbers, string, timestamp or duration";
            let diagnostic = Diagnostic::new(&codes::CONST_TYPE, written.span, message);
            sink.push(diagnostic.label("not a type of constants").help(help));
            Value::Bool(false)
        }
        kind => match convert(&kind, &value.kind) {
            Ok(value) => value,
            Err(problem) => {
                sink.push(problem.diagnostic(&kind, value));
                Value::Bool(false)
            }
        },
    }
}

enum Kind {
    None,
    Bool,
    Int(i128, i128),
    Float(f64),
    Text,
}

fn range(ty: &Type) -> Kind {
    match ty {
        Type::Bool => Kind::Bool,
        Type::I8 => Kind::Int(i8::MIN.into(), i8::MAX.into()),
        Type::I16 => Kind::Int(i16::MIN.into(), i16::MAX.into()),
        Type::I32 => Kind::Int(i32::MIN.into(), i32::MAX.into()),
        Type::I64 | Type::Timestamp => Kind::Int(i64::MIN.into(), i64::MAX.into()),
        Type::U8 => Kind::Int(0, u8::MAX.into()),
        Type::U16 => Kind::Int(0, u16::MAX.into()),
        Type::U32 => Kind::Int(0, u32::MAX.into()),
        Type::U64 => Kind::Int(0, u64::MAX.into()),
        Type::Duration => Kind::Int(0, i64::MAX.into()),
        Type::F32 => Kind::Float(f32::MAX.into()),
        Type::F64 => Kind::Float(f64::MAX),
        Type::String => Kind::Text,
        Type::Bytes
        | Type::Uid
        | Type::List(_)
        | Type::Map(..)
        | Type::Option(_)
        | Type::Struct(_)
        | Type::Enum(_)
        | Type::Union(_)
        | Type::Interface(_) => Kind::None,
    }
}

enum Problem {
    Mismatch,
    Range,
}

fn convert(kind: &Kind, value: &ValueKind) -> Result<Value, Problem> {
    match (kind, value) {
        (Kind::Bool, ValueKind::Bool(value)) => Ok(Value::Bool(*value)),
        (Kind::Text, ValueKind::Text(text)) => Ok(Value::Text(text.clone())),
        (Kind::Int(min, max), ValueKind::Int(value)) => {
            let value = value.filter(|value| (*min..=*max).contains(value));
            value.map(Value::Int).ok_or(Problem::Range)
        }
        (Kind::Float(max), ValueKind::Float(value)) if value.abs() <= *max => {
            Ok(Value::Float(*value))
        }
        (Kind::Float(_), ValueKind::Float(_)) => Err(Problem::Range),
        _ => Err(Problem::Mismatch),
    }
}

impl Problem {
    fn diagnostic(self, kind: &Kind, value: &ast::Value) -> Diagnostic {
        let (wanted, help) = match kind {
            Kind::None => ("nothing", None),
            Kind::Bool => ("`true` or `false`", None),
            Kind::Int(..) => ("a whole number", None),
            Kind::Float(_) => ("a number with a point", Some("write `1.0` for 1")),
            Kind::Text => ("a string", None),
        };
        match (self, kind) {
            (Self::Range, Kind::Int(min, max)) => {
                let message = "the value does not fit the constant's type";
                let label = format!("not from {min} to {max}");
                Diagnostic::new(&codes::CONST_VALUE, value.span, message).label(label)
            }
            (Self::Range, _) => {
                let message = "the value does not fit the constant's type";
                Diagnostic::new(&codes::CONST_VALUE, value.span, message).label("too large")
            }
            (Self::Mismatch, _) => {
                let found = match &value.kind {
                    ValueKind::Bool(_) => "a bool",
                    ValueKind::Int(_) => "a whole number",
                    ValueKind::Float(_) => "a number with a point",
                    ValueKind::Text(_) => "a string",
                };
                let message = format!("expected {wanted}, found {found}");
                Diagnostic::new(&codes::CONST_VALUE, value.span, message)
                    .label(format!("expected {wanted}"))
                    .maybe_help(help.map(str::to_owned))
            }
        }
    }
}
