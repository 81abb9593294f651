//! JSON to messages and back, for every type of the interface language, and what does not fit.
//!
//! The schemas are those of the front end's corpus, made in this process; what the dynamic layer
//! writes is also read by generated code, and the other way round.

mod bad;
mod round_trip;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use partha::abi::{Message, Slot, Writer};
use serde_json::Value;

use super::encode::{self, Names};
use super::schema::{Schema, Struct};
use super::{Mismatch, decode};

/// The schemas of the corpus, by module.
fn corpus() -> &'static BTreeMap<String, Schema> {
    static CORPUS: OnceLock<BTreeMap<String, Schema>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let mut files = Vec::new();
        for folder in ["idl/tests/ui/pass", "codegen/corpus/idl"] {
            let folder = std::fs::read_dir(test_support::workspace_root().join(folder)).unwrap();
            let paths = folder.map(|file| file.unwrap().path());
            files.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "idl")));
        }
        assert!(files.len() > 10, "{files:?}");
        let mut sources = partha_codegen::sources();
        let model = partha_idl::compile(&mut sources, &files);
        let model = model.unwrap_or_else(|errors| panic!("{errors}"));
        let outputs = partha_codegen::schemas(&model).into_iter();
        let modules = outputs.filter_map(|output| {
            let name = output.file_name.strip_suffix(".cgr")?;
            Some((name.to_owned(), Schema::read(&output.bytes).unwrap()))
        });
        modules.collect()
    })
}

/// The struct or union of this name in a module of the corpus.
fn named(module: &str, name: &str) -> (&'static Schema, &'static Struct) {
    let schema = &corpus()[module];
    let found = schema
        .all()
        .find(|node| node.module == module && node.name == name);
    let found = found.unwrap_or_else(|| panic!("no {module}.{name}"));
    (schema, schema.structure(found.id).unwrap())
}

/// As the root of a message.
fn encoded(schema: &Schema, ty: &Struct, value: &Value) -> Result<Message, Mismatch> {
    let mut w = Writer::new(1 << 20);
    let at = w.structure(Slot::ROOT, ty.data, ty.pointers);
    let mut names = Names::default();
    encode::structure(schema, ty, value, &mut names, &mut w, at)?;
    assert!(names.unknown.is_empty(), "{:?}", names.unknown);
    let (framed, attached) = w.finish().unwrap();
    Ok(Message::from_framed(framed.into(), attached).unwrap())
}

fn decoded(schema: &Schema, ty: &Struct, message: &Message) -> Result<Value, Mismatch> {
    decode::structure(schema, ty, message.reader().unwrap())
}
