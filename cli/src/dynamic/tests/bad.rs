//! Values that do not fit are refused with the place and the reason.

use serde_json::{Value, json};

use super::super::decode;
use super::super::schema::{Schema, Struct, Type};
use super::{corpus, encoded, named};

/// What is wrong with a value; `types.Plain+` fills in the members that are not given.
fn problem(ty: &str, json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap();
    let (module, name) = ty.split_once('.').unwrap();
    let (schema, found) = named(module, name.trim_end_matches('+'));
    let mut whole = value.clone();
    if name.ends_with('+') {
        whole = good(found);
        let given = value.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(given);
    }
    match encoded(schema, found, &whole) {
        Ok(_) => "fits".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A value of a struct without structs in it.
fn good(ty: &Struct) -> Value {
    let members = ty.members.iter().map(|member| {
        let value = match member.ty {
            Type::Bool => json!(true),
            Type::Map(_) => json!({}),
            Type::Enum(_) => json!("Red"),
            ref ty if ty.is_pointer() => Value::Null,
            _ => json!(1),
        };
        (member.name.idl.clone(), value)
    });
    Value::Object(members.collect())
}

#[test]
fn what_does_not_fit_is_told_with_its_place_and_what_was_expected() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/dynamic/tests/mismatches.txt"
    );
    let table = std::fs::read_to_string(path).unwrap();
    let mut told = String::new();
    for line in table.lines().filter(|line| !line.starts_with("    ")) {
        told.push_str(&format!("{line}\n"));
        if let Some((ty, json)) = line.split_once(' ').filter(|_| !line.starts_with('#')) {
            told.push_str(&format!("    {}\n", problem(ty, json)));
        }
    }
    test_support::bless::check(path, &told);
}

#[test]
fn a_value_that_is_nested_too_deeply_is_refused() {
    let mut tree = json!({"value": 1, "children": []});
    for _ in 0..80 {
        tree = json!({"value": 1, "children": [tree]});
    }
    let (schema, ty) = named("recursive", "Tree");
    let text = encoded(schema, ty, &tree).unwrap_err().to_string();
    assert!(text.ends_with("nested deeper than 64 levels"), "{text}");
}

#[test]
fn what_a_peer_sends_wrongly_is_an_error_and_never_a_panic() {
    let (schema, ty) = named("recursive", "Json");
    let value = json!({"object": {"a": {"list": [{"text": "x"}, "null", {"truth": true}]}}});
    let message = encoded(schema, ty, &value).unwrap();
    let segment = message.segment().to_vec();
    let mut refused = 0;
    for byte in 0..segment.len() {
        for bit in 0..8 {
            let mut bytes = segment.clone();
            bytes[byte] ^= 1 << bit;
            let message = partha::abi::Message::from_segment(bytes.into(), Vec::new()).unwrap();
            let read = message
                .reader()
                .map(|at| decode::structure(schema, ty, at).is_ok());
            refused += u32::from(read != Ok(true));
        }
    }
    assert!(
        refused > 100,
        "{refused} of {} were refused",
        segment.len() * 8
    );
}

#[test]
fn a_description_that_is_none_is_an_error_and_never_a_panic() {
    assert!(Schema::read(b"").is_err());
    assert!(Schema::read(b"no description at all, but text").is_err());
    let model = {
        let mut sources = partha_codegen::sources();
        let text = "module m; union U { a: option<i64>, b: map<u8, list<U>>, c }
            interface I { fn f(&self, u: U, o: list<option<U>>) -> U; }";
        sources.add_memory("m.idl", text);
        partha_idl::compile(&mut sources, &["m.idl".into()]).unwrap()
    };
    let outputs = partha_codegen::schemas(&model);
    let cgr = outputs
        .iter()
        .find(|output| output.file_name == "m.cgr")
        .unwrap();
    // A prime, so that all eight bytes of words are met.
    for byte in (0..cgr.bytes.len()).step_by(61) {
        let mut bytes = cgr.bytes.clone();
        bytes[byte] ^= 0x15;
        let Ok(schema) = Schema::read(&bytes) else {
            continue;
        };
        for node in schema.all() {
            schema.interface_text(node.id);
        }
    }
}

#[test]
fn an_interface_is_printed_back() {
    let schema = &corpus()["bank"];
    let node = schema
        .all()
        .find(|node| node.qualified() == "bank.Savings")
        .unwrap();
    let expected = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dynamic/tests/savings.txt");
    test_support::bless::check(expected, &schema.interface_text(node.id));
}
