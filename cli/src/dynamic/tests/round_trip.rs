//! Values that fit come back as they were.

use std::fmt::Debug;

use codegen_corpus::sample::{Sample, Visitor, every};
use partha::{NodeId, Uid};
use serde_json::{Map, Value, json};

use super::super::decode;
use super::super::schema::{Body, Member, Schema, Struct, Type};
use super::{corpus, decoded, encoded, named};

#[test]
fn every_struct_of_the_corpus_carries_random_values() {
    const VALUES: u64 = 20;
    let (mut structs, mut texts) = (0, 0);
    for (module, schema) in corpus() {
        for node in schema.all() {
            let Body::Struct(ty) = &node.body else {
                continue;
            };
            structs += 1;
            for seed in 1..=VALUES {
                let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ node.id);
                let value = random.structure(schema, ty, 0);
                texts += value.to_string().len();
                let name = node.qualified();
                let message = encoded(schema, ty, &value);
                let message =
                    message.unwrap_or_else(|e| panic!("{module}: {name}: {e}\n{value:#}"));
                let back = decoded(schema, ty, &message);
                let back = back.unwrap_or_else(|e| panic!("{module}: {name}: {e}\n{value:#}"));
                assert_eq!(back, value, "{module}: {name}, seed {seed}");
            }
        }
    }
    assert!(
        structs > 100 && texts > 100_000,
        "{structs} structs, {texts} bytes"
    );
}

#[test]
fn other_spellings_mean_the_same() {
    let cases = [
        ("bank", "Payment", json!("none"), json!("none")),
        ("bank", "Payment", json!({"none": null}), json!("none")),
        (
            "bank",
            "Card",
            json!({"validUntil": "1970-01-01T00:00:01Z", "number": "5"}),
            json!({"number": "5", "valid_until": 1_000_000}),
        ),
        (
            "bank",
            "Card",
            json!({"valid_until": "1h 30m", "number": "5"}),
            json!({"number": "5", "valid_until": 5_400_000_000_u64}),
        ),
        (
            "options",
            "Mixed",
            json!({"before": 1, "between": true, "last": false, "after": 65535}),
            json!({"before": 1, "middle": null, "between": true, "last": false, "after": 65535}),
        ),
        (
            "types",
            "Point",
            json!({"x": "NaN", "y": "-inf"}),
            json!({"x": "NaN", "y": "-inf"}),
        ),
    ];
    for (module, name, given, expected) in cases {
        let (schema, ty) = named(module, name);
        let message = encoded(schema, ty, &given).unwrap();
        assert_eq!(decoded(schema, ty, &message).unwrap(), expected, "{given}");
    }
}

#[test]
fn maps_take_objects_and_pairs_and_are_sorted_by_key() {
    let (schema, ty) = named("maps", "Keys");
    let names = ty
        .members
        .iter()
        .map(|member| (member.name.idl.clone(), json!({})));
    let mut value = Value::Object(names.collect());
    value["b"] = json!([[3, 1], [-7, 2], ["12", 3]]);
    value["o"] = json!({"blue": 1, "Red": 2});
    value["a"] = json!({"true": 1, "false": 0});
    let message = encoded(schema, ty, &value).unwrap();
    let back = decoded(schema, ty, &message).unwrap();
    // The order of a JSON object is part of its text alone.
    assert_eq!(back["b"].to_string(), r#"{"-7":2,"3":1,"12":3}"#);
    assert_eq!(back["o"].to_string(), r#"{"Red":2,"Blue":1}"#);
    assert_eq!(back["a"].to_string(), r#"{"false":0,"true":1}"#);
}

/// Values of generated types through JSON and back.
struct ThroughJson {
    types: usize,
}

impl Visitor for ThroughJson {
    fn visit<T>(&mut self, module: &'static str, name: &'static str)
    where
        T: partha::abi::Struct + Sample + Debug + PartialEq,
    {
        const VALUES: u64 = 20;
        let (schema, ty) = named(module, name);
        for seed in 0..VALUES {
            let value = T::sample(&mut codegen_corpus::sample::Random::new(seed << 32));
            let w = partha::abi::message(T::DATA, T::POINTERS, |w, s| value.write(w, s));
            let json = decoded(schema, ty, &w.into_message().unwrap());
            let json = json.unwrap_or_else(|e| panic!("{module}.{name}: {e}\n{value:?}"));
            let message = encoded(schema, ty, &json);
            let message = message.unwrap_or_else(|e| panic!("{module}.{name}: {e}\n{json:#}"));
            let back = message.reader().and_then(T::read);
            assert_eq!(back.as_ref(), Ok(&value), "{module}.{name}\n{json:#}");
        }
        self.types += 1;
    }
}

#[test]
fn generated_code_reads_what_is_written_here_and_the_other_way_round() {
    let mut visitor = ThroughJson { types: 0 };
    every(&mut visitor);
    assert!(visitor.types > 60, "only {} types", visitor.types);
}

/// A small generator of numbers: the same seed makes the same value.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn structure(&mut self, schema: &Schema, ty: &Struct, depth: u32) -> Value {
        if ty.union.is_some() {
            let index = self.below(ty.members.len() as u64) as usize;
            let case = &ty.members[index];
            let name = case.name.idl.clone();
            if case.ty == Type::Void {
                return Value::String(name);
            }
            let value = self.member(schema, case, depth);
            return Value::Object(Map::from_iter([(name, value)]));
        }
        let members = ty.members.iter();
        let members = members.map(|m| (m.name.idl.clone(), self.member(schema, m, depth)));
        Value::Object(members.collect())
    }

    fn member(&mut self, schema: &Schema, member: &Member, depth: u32) -> Value {
        let nullable = member.optional.is_some() || member.ty.is_pointer();
        let deep = depth > 6 && member.ty.is_pointer();
        if nullable && (deep || self.below(8) == 0) || matches!(member.ty, Type::Interface(_)) {
            return Value::Null;
        }
        self.value(schema, &member.ty, depth)
    }

    fn value(&mut self, schema: &Schema, ty: &Type, depth: u32) -> Value {
        match ty {
            Type::Void => Value::Null,
            Type::Bool => json!(self.below(2) == 1),
            Type::Int(int) => {
                let (min, max) = int.range();
                let number = match self.below(4) {
                    0 => min,
                    1 => max,
                    _ => min + i128::from(self.next()) % (max - min + 1),
                };
                i64::try_from(number).map_or_else(|_| json!(number as u64), |small| json!(small))
            }
            Type::F32 => decode::from_f32(f32::from_bits(self.next() as u32)),
            Type::F64 => decode::from_f64(f64::from_bits(self.next())),
            Type::Text => json!(["", "alice", "€ \"quoted\"\n", "\u{0}"][self.below(4) as usize]),
            Type::Bytes => json!(["", "AA==", "////", "AQID"][self.below(4) as usize]),
            Type::Uid | Type::Reference => {
                let node = NodeId(self.next());
                let local = self.next();
                json!(Uid { node, local }.to_string())
            }
            Type::Enum(id) => {
                let values = schema.enumerants(*id).unwrap();
                json!(values[self.below(values.len() as u64) as usize].name.idl)
            }
            Type::Struct(id) => self.structure(schema, schema.structure(*id).unwrap(), depth + 1),
            Type::Option(id) => self.member(
                schema,
                &schema.structure(*id).unwrap().members[0],
                depth + 1,
            ),
            Type::List(element) if matches!(**element, Type::Interface(_)) => json!([]),
            Type::List(element) => {
                let count = if depth > 4 { 0 } else { self.below(4) };
                let values = (0..count).map(|_| self.value(schema, element, depth + 1));
                values.collect()
            }
            Type::Map(id) => self.map(schema, schema.structure(*id).unwrap(), depth),
            Type::Interface(_) | Type::Other => panic!("{ty:?} has no values"),
        }
    }

    fn map(&mut self, schema: &Schema, entry: &Struct, depth: u32) -> Value {
        let [key, value] = entry.members.as_slice() else {
            panic!("a map has keys and values");
        };
        if matches!(value.ty, Type::Interface(_)) || depth > 4 {
            return json!({});
        }
        let mut object = Map::new();
        for _ in 0..self.below(4) {
            let key = match self.value(schema, &key.ty, depth + 1) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            object.insert(key, self.value(schema, &value.ty, depth + 1));
        }
        Value::Object(object)
    }
}
