//! A readable text for each node of a CodeGeneratorRequest, for comparison.
//!
//! Covered is everything that bears on the wire or on tools: names, ids, scopes, ordinals,
//! offsets, sizes, discriminants, types, defaults, orders, comments.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use capnp::message::ReaderOptions;
use capnp::schema_capnp::{code_generator_request, field, node, type_, value};

/// What a request says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// By id.
    pub(crate) nodes: BTreeMap<u64, String>,
    /// By file id.
    pub(crate) requested: BTreeMap<u64, String>,
    /// By id of the node, where there are any.
    pub(crate) comments: BTreeMap<u64, String>,
}

impl Request {
    /// Adds what another request says.
    ///
    /// # Panics
    /// If it says something else about the same node.
    pub(crate) fn merge(&mut self, other: Self) {
        for (into, from) in [
            (&mut self.nodes, other.nodes),
            (&mut self.requested, other.requested),
            (&mut self.comments, other.comments),
        ] {
            for (id, text) in from {
                if let Some(known) = into.insert(id, text.clone()) {
                    assert_eq!(known, text, "two requests differ about {id:#x}");
                }
            }
        }
    }
}

/// Reads a framed request.
///
/// # Panics
/// If it is none.
pub(crate) fn read(bytes: &[u8]) -> Request {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(None);
    let message = capnp::serialize::read_message(&mut &*bytes, options).expect("a message");
    let root = message
        .get_root::<code_generator_request::Reader<'_>>()
        .expect("a request");
    dump(root).expect("a well-formed request")
}

fn dump(root: code_generator_request::Reader<'_>) -> capnp::Result<Request> {
    let mut request = Request::default();
    for node in root.get_nodes()? {
        let known = request.nodes.insert(node.get_id(), dump_node(node)?);
        assert!(known.is_none(), "node {:#x} is there twice", node.get_id());
    }
    for file in root.get_requested_files()? {
        let mut text = file.get_filename()?.to_string()?;
        let mut imports = Vec::new();
        for import in file.get_imports()? {
            imports.push(format!(
                "{}={:#x}",
                import.get_name()?.to_str()?,
                import.get_id()
            ));
        }
        imports.sort();
        let _ = write!(text, " imports {imports:?}");
        request.requested.insert(file.get_id(), text);
    }
    for info in root.get_source_info()? {
        let mut text = format!("{:?}", info.get_doc_comment()?.to_str()?);
        let mut any = !info.get_doc_comment()?.is_empty();
        for member in info.get_members()? {
            any |= !member.get_doc_comment()?.is_empty();
            let _ = write!(text, " {:?}", member.get_doc_comment()?.to_str()?);
        }
        if any {
            request.comments.insert(info.get_id(), text);
        }
    }
    Ok(request)
}

fn dump_node(node: node::Reader<'_>) -> capnp::Result<String> {
    let mut text = String::new();
    let display = node.get_display_name()?.to_str()?;
    let prefix = node.get_display_name_prefix_length();
    let _ = writeln!(text, "{display} ({prefix}) in {:#x}", node.get_scope_id());
    for nested in node.get_nested_nodes()? {
        let _ = writeln!(
            text,
            "nested {} {:#x}",
            nested.get_name()?.to_str()?,
            nested.get_id()
        );
    }
    let generic = (node.get_is_generic(), node.get_parameters()?.len());
    assert_eq!((generic, node.get_annotations()?.len()), ((false, 0), 0));
    match node.which()? {
        node::File(()) => text.push_str("file\n"),
        node::Struct(node) => {
            let _ = writeln!(
                text,
                "struct {} {} {:?} group {} union {} at {}",
                node.get_data_word_count(),
                node.get_pointer_count(),
                node.get_preferred_list_encoding()?,
                node.get_is_group(),
                node.get_discriminant_count(),
                node.get_discriminant_offset(),
            );
            for field in node.get_fields()? {
                dump_field(&mut text, field)?;
            }
        }
        node::Enum(node) => {
            for value in node.get_enumerants()? {
                let name = value.get_name()?.to_str()?;
                let _ = writeln!(text, "enumerant {name} order {}", value.get_code_order());
            }
        }
        node::Interface(node) => {
            for class in node.get_superclasses()? {
                let _ = writeln!(text, "extends {:#x}", class.get_id());
            }
            for method in node.get_methods()? {
                let name = method.get_name()?.to_str()?;
                let (params, results) = (
                    method.get_param_struct_type(),
                    method.get_result_struct_type(),
                );
                let order = method.get_code_order();
                let _ = writeln!(text, "method {name} order {order} {params:#x} {results:#x}");
            }
        }
        node::Const(node) => {
            let _ = write!(text, "const ");
            dump_type(&mut text, node.get_type()?)?;
            dump_value(&mut text, node.get_value()?)?;
        }
        node::Annotation(_) => panic!("an annotation"),
    }
    Ok(text)
}

fn dump_field(text: &mut String, field: field::Reader<'_>) -> capnp::Result<()> {
    let name = field.get_name()?.to_str()?;
    let ordinal = match field.get_ordinal().which()? {
        field::ordinal::Implicit(()) => None,
        field::ordinal::Explicit(ordinal) => Some(ordinal),
    };
    let (order, case) = (field.get_code_order(), field.get_discriminant_value());
    let _ = write!(
        text,
        "field {name} order {order} case {case} ordinal {ordinal:?} "
    );
    match field.which()? {
        field::Slot(slot) => {
            let _ = write!(text, "at {} ", slot.get_offset());
            assert!(!slot.get_had_explicit_default());
            dump_type(text, slot.get_type()?)?;
            dump_value(text, slot.get_default_value()?)?;
        }
        field::Group(group) => {
            let _ = writeln!(text, "group {:#x}", group.get_type_id());
        }
    }
    Ok(())
}

fn dump_type(text: &mut String, ty: type_::Reader<'_>) -> capnp::Result<()> {
    match ty.which()? {
        type_::List(list) => {
            text.push_str("list of ");
            return dump_type(text, list.get_element_type()?);
        }
        type_::Enum(named) => write!(text, "enum {:#x}", named.get_type_id()),
        type_::Struct(named) => write!(text, "struct {:#x}", named.get_type_id()),
        type_::Interface(named) => write!(text, "interface {:#x}", named.get_type_id()),
        type_::AnyPointer(_) => panic!("an AnyPointer"),
        type_::Void(()) => write!(text, "void"),
        type_::Bool(()) => write!(text, "bool"),
        type_::Int8(()) => write!(text, "int8"),
        type_::Int16(()) => write!(text, "int16"),
        type_::Int32(()) => write!(text, "int32"),
        type_::Int64(()) => write!(text, "int64"),
        type_::Uint8(()) => write!(text, "uint8"),
        type_::Uint16(()) => write!(text, "uint16"),
        type_::Uint32(()) => write!(text, "uint32"),
        type_::Uint64(()) => write!(text, "uint64"),
        type_::Float32(()) => write!(text, "float32"),
        type_::Float64(()) => write!(text, "float64"),
        type_::Text(()) => write!(text, "text"),
        type_::Data(()) => write!(text, "data"),
    }
    .expect("a string takes all");
    Ok(())
}

fn dump_value(text: &mut String, value: value::Reader<'_>) -> capnp::Result<()> {
    match value.which()? {
        value::Void(()) => writeln!(text, " = void"),
        value::Bool(v) => writeln!(text, " = bool {v}"),
        value::Int8(v) => writeln!(text, " = int8 {v}"),
        value::Int16(v) => writeln!(text, " = int16 {v}"),
        value::Int32(v) => writeln!(text, " = int32 {v}"),
        value::Int64(v) => writeln!(text, " = int64 {v}"),
        value::Uint8(v) => writeln!(text, " = uint8 {v}"),
        value::Uint16(v) => writeln!(text, " = uint16 {v}"),
        value::Uint32(v) => writeln!(text, " = uint32 {v}"),
        value::Uint64(v) => writeln!(text, " = uint64 {v}"),
        value::Float32(v) => writeln!(text, " = float32 {v:?}"),
        value::Float64(v) => writeln!(text, " = float64 {v:?}"),
        value::Text(v) => writeln!(text, " = text {:?}", v?.to_str()?),
        value::Data(v) => writeln!(text, " = data {:?}", v?),
        value::List(v) => writeln!(text, " = list null {}", v.is_null()),
        value::Enum(v) => writeln!(text, " = enum {v}"),
        value::Struct(v) => writeln!(text, " = struct null {}", v.is_null()),
        value::Interface(()) => writeln!(text, " = interface"),
        value::AnyPointer(_) => panic!("an AnyPointer"),
    }
    .expect("a string takes all");
    Ok(())
}
