//! Values through messages: what is written is read back, by us and by the official tool.

use std::fmt::Debug;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use codegen_corpus::sample::{Random, Sample, Visitor, every};
use partha::abi::{DecodeError, Message, Struct, message};
use test_support::require_tool;

/// How many samples of each type.
const SAMPLES: u64 = 25;

fn encode(value: &impl Struct, data: u16, pointers: u16) -> Vec<u8> {
    message(data, pointers, |w, s| value.write(w, s))
        .finish()
        .expect("a small message")
        .0
}

fn decode<T: Struct>(bytes: &[u8]) -> Result<T, DecodeError> {
    Message::from_framed(bytes.to_vec().into(), Vec::new())?
        .reader()
        .and_then(T::read)
}

fn samples<T: Sample>(name: &str) -> Vec<T> {
    let seed = name
        .bytes()
        .fold(7, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
    (0..SAMPLES)
        .map(|index| T::sample(&mut Random::new(seed ^ index << 32)))
        .collect()
}

/// Counts what it has seen.
#[derive(Default)]
struct RoundTrip {
    types: usize,
}

impl Visitor for RoundTrip {
    fn visit<T: Struct + Sample + Debug + PartialEq>(&mut self, module: &str, name: &str) {
        for value in samples::<T>(name) {
            let bytes = encode(&value, T::DATA, T::POINTERS);
            assert_eq!(decode::<T>(&bytes).as_ref(), Ok(&value), "{module}.{name}");
        }
        self.types += 1;
    }
}

#[test]
fn every_type_comes_back_from_its_message() {
    let mut visitor = RoundTrip::default();
    every(&mut visitor);
    assert!(visitor.types > 60, "only {} types", visitor.types);
}

/// Reads damaged messages.
struct Damage;

impl Visitor for Damage {
    fn visit<T: Struct + Sample + Debug + PartialEq>(&mut self, _: &str, name: &str) {
        let mut random = Random::new(11);
        for value in samples::<T>(name) {
            let bytes = encode(&value, T::DATA, T::POINTERS);
            for _ in 0..10 {
                let mut damaged = bytes.clone();
                let at = 8 + random.bits() as usize % (damaged.len() - 8);
                damaged[at] ^= 1 << (random.bits() % 8);
                // Any value or error will do; a panic or a loop will not.
                let _ = decode::<T>(&damaged);
            }
        }
    }
}

#[test]
fn no_damage_makes_a_decoder_panic() {
    every(&mut Damage);
}

/// Sends messages through the official tool: to text and back.
struct Official {
    capnp: PathBuf,
    types: usize,
}

impl Official {
    fn convert(&self, what: &str, module: &str, name: &str, input: &[u8]) -> Vec<u8> {
        let folder = Path::new(env!("OUT_DIR"));
        let mut child = Command::new(&self.capnp)
            .arg(what)
            // Its guess at the format of very short messages is wrong.
            .args((what == "decode").then_some("--quiet"))
            .args([&format!("{module}.capnp"), name])
            .current_dir(folder)
            .env_remove("PWD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("the tool ends");
        writer
            .join()
            .expect("no panic")
            .expect("the tool reads all");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{module}.{name}: {errors}"
        );
        output.stdout
    }
}

/// Splits a stream of messages of one segment each.
fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some(header) = stream.first_chunk::<8>() {
        assert_eq!(header[..4], [0; 4], "a message of several segments");
        let words = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let (message, rest) = stream.split_at(8 + words as usize * 8);
        found.push(message);
        stream = rest;
    }
    found
}

impl Official {
    fn check<T: Struct>(&self, module: &str, name: &str, values: &[T]) {
        let encode = |value: &T| encode(value, T::DATA, T::POINTERS);
        let ours: Vec<_> = values.iter().flat_map(encode).collect();
        let text = self.convert("decode", module, name, &ours);
        let official = self.convert("encode", module, name, &text);
        let official = messages(&official);
        assert_eq!(official.len(), values.len(), "{module}.{name}");
        let back = official.into_iter().map(|message| {
            decode::<T>(message).unwrap_or_else(|error| panic!("{module}.{name}: {error}"))
        });
        // Texts are compared, since in them an absent text of a union looks like an empty one.
        let back: Vec<_> = back.flat_map(|value| encode(&value)).collect();
        let back = self.convert("decode", module, name, &back);
        let lines = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        assert_eq!(lines(&back), lines(&text), "{module}.{name}");
    }
}

impl Visitor for Official {
    fn visit<T: Struct + Sample + Debug + PartialEq>(&mut self, module: &str, name: &str) {
        self.check(module, name, &samples::<T>(name));
        self.types += 1;
    }
}

#[test]
fn the_official_tool_reads_and_writes_every_type() {
    let Some(capnp) = require_tool("capnp") else {
        return;
    };
    let mut visitor = Official { capnp, types: 0 };
    every(&mut visitor);
    assert!(visitor.types > 60, "only {} types", visitor.types);
}

#[test]
fn the_official_tool_sees_each_value_under_its_name() {
    use codegen_corpus::bank::Card;
    use codegen_corpus::options::Mixed;
    use partha::Timestamp;
    let Some(capnp) = require_tool("capnp") else {
        return;
    };
    let official = Official { capnp, types: 0 };
    let text = |module: &str, name: &str, bytes: &[u8]| {
        let text = official.convert("decode", module, name, bytes);
        String::from_utf8(text)
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let card = Card {
        number: "4711".to_owned(),
        valid_until: Timestamp::from_micros(-5),
    };
    assert_eq!(
        text("bank", "Card", &encode(&card, Card::DATA, Card::POINTERS)),
        "(number = \"4711\", validUntil = -5)"
    );
    let mixed = Mixed {
        before: 1,
        middle: Some(0),
        between: true,
        last: Some(false),
        after: 65535,
    };
    assert_eq!(
        text(
            "options",
            "Mixed",
            &encode(&mixed, Mixed::DATA, Mixed::POINTERS)
        ),
        "( before = 1, middle = (some = 0), between = true, last = (some = false), after = 65535 )"
    );
}
