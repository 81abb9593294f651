//! Values that do not fit are refused with the place and the reason.

use serde_json::{Value, json};

use super::super::schema::Schema;
use super::super::{Mismatch, decode};
use super::{corpus, encoded, named};

/// A `types.Plain` in which all is well but for one member.
fn plain(member: &str, value: Value) -> Value {
    let uid = "00000000000000c7-000001-0000000001";
    let mut plain = json!({
        "a": true, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1, "i": 1, "j": 1.5,
        "k": 1.5, "l": "text", "m": "AA==", "n": uid, "o": 1, "p": 1, "q": "Red",
        "r": {"x": 1, "y": 2}, "s": "nothing", "t": null, "u": uid,
    });
    plain[member] = value;
    plain
}

fn problem(module: &str, name: &str, value: &Value) -> String {
    let (schema, ty) = named(module, name);
    match encoded(schema, ty, value) {
        Ok(_) => "fits".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn each_type_says_what_it_expects() {
    let cases = [
        ("a", json!(1), "`a`: expected bool, found 1"),
        ("b", json!(128), "`b`: expected i8 (-128 to 127), found 128"),
        (
            "b",
            json!("5"),
            "`b`: expected i8 (-128 to 127), found the text \"5\"",
        ),
        (
            "d",
            json!(1.5),
            "`d`: expected i32 (-2147483648 to 2147483647), found 1.5",
        ),
        (
            "e",
            json!("5"),
            "`e`: expected i64 (-9223372036854775808 to 9223372036854775807), \
            found the text \"5\"",
        ),
        ("f", json!(-1), "`f`: expected u8 (0 to 255), found -1"),
        (
            "i",
            json!(1e20),
            "`i`: expected u64 (0 to 18446744073709551615), found 1e+20",
        ),
        (
            "i",
            json!(null),
            "`i`: expected u64 (0 to 18446744073709551615), found null",
        ),
        (
            "j",
            json!(1e39),
            "`j`: expected f32 (up to 3.4e38), found 1e+39",
        ),
        ("k", json!("x"), "`k`: expected f64, found the text \"x\""),
        ("l", json!(5), "`l`: expected string, found 5"),
        (
            "m",
            json!("a"),
            "`m`: expected bytes as base64, found the text \"a\"",
        ),
        (
            "m",
            json!([1]),
            "`m`: expected bytes as base64, found a list",
        ),
        (
            "n",
            json!("/bank"),
            "`n`: expected a uid, found the text \"/bank\"",
        ),
        (
            "q",
            json!("Rde"),
            "`q`: expected one of Red, Green, Blue, found the text \"Rde\"; \
            did you mean 'Red'?",
        ),
        (
            "q",
            json!(1),
            "`q`: expected one of Red, Green, Blue, found 1",
        ),
        (
            "r",
            json!([]),
            "`r`: expected an object with the members x, y, found a list",
        ),
        ("r", json!({"x": 1}), "`r.y`: missing; expected f64"),
        (
            "r",
            json!({"x": 1, "y": 1, "z": 1}),
            "`r.z`: not known here; there are x, y",
        ),
        (
            "s",
            json!({"circle": true}),
            "`s.circle`: expected f64, found true",
        ),
        ("s", json!("circle"), "`s.circle`: missing; expected f64"),
        (
            "s",
            json!("cirle"),
            "`s`: expected one of {\"point\": …}, {\"circle\": …}, \"nothing\", \
            found the case \"cirle\"; did you mean 'circle'?",
        ),
        (
            "s",
            json!({}),
            "`s`: expected one of {\"point\": …}, {\"circle\": …}, \"nothing\", \
            found an object",
        ),
        (
            "s",
            json!({"nothing": 1}),
            "`s.nothing`: expected null, found 1",
        ),
        (
            "t",
            json!("/x"),
            "`t`: an object of types.Watcher lives in the process that serves it; \
            only null can be given from here",
        ),
        (
            "u",
            json!(5),
            "`u`: expected the name or the uid of an object, found 5",
        ),
        ("l", json!("fits"), "fits"),
    ];
    for (member, value, expected) in cases {
        assert_eq!(problem("types", "Plain", &plain(member, value)), expected);
    }
}

#[test]
fn lists_maps_and_options_say_where() {
    let cases = [
        (
            "recursive",
            "Tree",
            json!({"value": 1, "children": [
            {"value": 2, "children": []}, {"value": "x", "children": []}]}),
            "`children[1].value`: expected i64 (-9223372036854775808 to 9223372036854775807), \
            found the text \"x\"",
        ),
        (
            "recursive",
            "Tree",
            json!({"value": 1, "children": {}}),
            "`children`: expected list<recursive.Tree>, found an object",
        ),
        (
            "recursive",
            "Json",
            json!({"object": {"a": {"number": "x"}}}),
            "`object[\"a\"].number`: expected f64, found the text \"x\"",
        ),
        (
            "recursive",
            "Json",
            json!({"object": {"a": null}}),
            "`object[\"a\"]`: expected recursive.Json, found null",
        ),
        (
            "recursive",
            "Json",
            json!({"object": [["a", "null"], ["a", "null"]]}),
            "`object[\"a\"]`: the key is there twice",
        ),
        (
            "recursive",
            "Json",
            json!({"object": [["a"]]}),
            "`object[0]`: expected a pair [key, value], found a list",
        ),
        (
            "recursive",
            "Json",
            json!({"object": 5}),
            "`object`: expected an object for map<string, recursive.Json>, found 5",
        ),
        (
            "recursive",
            "Json",
            json!({"list": [null]}),
            "`list[0]`: expected one of \"null\", {\"truth\": …}, {\"number\": …}, \
            {\"text\": …}, {\"list\": …}, {\"object\": …}, found null",
        ),
        (
            "options",
            "Maybe",
            json!({"number": "x"}),
            "`number`: expected i64 (-9223372036854775808 to 9223372036854775807), \
            found the text \"x\"",
        ),
        (
            "bank",
            "Card",
            json!({"number": "1"}),
            "`valid_until`: missing; expected i64",
        ),
        (
            "bank",
            "Card",
            json!({"valid_until": 1}),
            "`number`: missing; expected string (null, if it is an option without a value)",
        ),
        (
            "bank",
            "Card",
            json!({"valid_until": 1, "validUntil": 1, "number": "1"}),
            "`valid_until`: given twice",
        ),
        (
            "bank",
            "Card",
            json!({"valid_untli": 1, "number": "1"}),
            "`valid_untli`: not known here; there are number, valid_until; \
            did you mean 'valid_until'?",
        ),
        (
            "types",
            "Empty",
            json!({"x": 1}),
            "`x`: not known here; there is none",
        ),
    ];
    for (module, name, value, expected) in cases {
        assert_eq!(problem(module, name, &value), expected, "{value}");
    }
    let (schema, ty) = named("maps", "Keys");
    let names = ty
        .members
        .iter()
        .map(|member| (member.name.idl.clone(), json!({})));
    let mut value = Value::Object(names.collect());
    for (member, key, expected) in [
        (
            "f",
            "256",
            "`f[\"256\"]`: expected u8 (0 to 255), found the text \"256\"",
        ),
        (
            "f",
            "x",
            "`f[\"x\"]`: expected u8 (0 to 255), found the text \"x\"",
        ),
        (
            "a",
            "yes",
            "`a[\"yes\"]`: expected bool, found the text \"yes\"",
        ),
    ] {
        value[member] = json!({ key: 1 });
        let error: Mismatch = encoded(schema, ty, &value).unwrap_err();
        assert_eq!(error.to_string(), expected);
        value[member] = json!({});
    }
}

#[test]
fn a_value_that_is_nested_too_deeply_is_refused() {
    let mut tree = json!({"value": 1, "children": []});
    for _ in 0..80 {
        tree = json!({"value": 1, "children": [tree]});
    }
    let text = problem("recursive", "Tree", &tree);
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
    for byte in (0..cgr.bytes.len()).step_by(17) {
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
