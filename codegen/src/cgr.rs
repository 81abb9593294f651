//! The CodeGeneratorRequest: the schema in Cap'n Proto's own compiled form.
//!
//! What `capnp compile -o-` would make of the `.capnp` files, so that `capnpc-*` plug-ins, schema
//! loaders and our own reflection need no compiler. It is complete: every node of the requested
//! file and of all files it reaches, with groups, parameter structs and comments.

use std::collections::BTreeSet;

use capnp::message::{Builder, HeapAllocator};
use capnp::schema_capnp::{code_generator_request, field, node, type_, value};

use crate::ids;
use crate::node::{
    Body, Enumerant, File, Interface, Member, Method, Node, Schema, Signature, Struct, Type, Value,
};
use crate::shape::Laid;

/// The Cap'n Proto release whose rules these are; plug-ins warn if it is not theirs.
const VERSION: (u16, u8, u8) = (1, 0, 2);

/// The framed message for one file.
pub(crate) fn request(schema: &Schema, file: usize) -> Vec<u8> {
    let mut files = BTreeSet::new();
    reach(schema, file, &mut files);
    let mut flat = Vec::new();
    // By name, so that the order in which modules were named does not show.
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_unstable_by_key(|other| (*other != file, &schema.files[*other].module));
    for index in files {
        flatten_file(&schema.files[index], &mut flat);
    }
    let mut message = Builder::new(HeapAllocator::new());
    let mut root = message.init_root::<code_generator_request::Builder<'_>>();
    let mut version = root.reborrow().init_capnp_version();
    version.set_major(VERSION.0);
    version.set_minor(VERSION.1);
    version.set_micro(VERSION.2);
    let mut nodes = root.reborrow().init_nodes(count(flat.len()));
    for (index, flat) in flat.iter().enumerate() {
        write_node(nodes.reborrow().get(count(index)), flat);
    }
    let documented: Vec<_> = flat.iter().filter(|flat| !flat.is_list).collect();
    let mut infos = root.reborrow().init_source_info(count(documented.len()));
    for (index, flat) in documented.into_iter().enumerate() {
        write_source_info(infos.reborrow().get(count(index)), flat);
    }
    requested(schema, file, root.init_requested_files(1).get(0));
    capnp::serialize::write_message_to_words(&message)
}

fn reach(schema: &Schema, file: usize, files: &mut BTreeSet<usize>) {
    if files.insert(file) {
        schema.files[file]
            .imports
            .iter()
            .for_each(|import| reach(schema, import.file, files));
    }
}

fn requested(
    schema: &Schema,
    file: usize,
    mut requested: code_generator_request::requested_file::Builder<'_>,
) {
    let File {
        module,
        id,
        imports,
        ..
    } = &schema.files[file];
    requested.set_id(*id);
    requested.set_filename(format!("{module}.capnp"));
    let mut list = requested.init_imports(count(imports.len()));
    for (index, import) in imports.iter().enumerate() {
        let File { module, id, .. } = &schema.files[import.file];
        let mut import = list.reborrow().get(count(index));
        import.set_id(*id);
        import.set_name(format!("{module}.capnp"));
    }
}

/// A node as the request lists it: each group and each parameter list is one of its own.
struct Flat<'a> {
    id: u64,
    scope: u64,
    /// Length of what precedes the node's own name in `display`.
    prefix: usize,
    display: String,
    docs: &'a [String],
    nested: Vec<(&'a str, u64)>,
    kind: Kind<'a>,
    /// Parameters or results: no documentation of their own.
    is_list: bool,
}

enum Kind<'a> {
    File,
    /// With the ids of its groups, by member.
    Struct(&'a Struct, Vec<Option<u64>>),
    /// A named union of nothing and the member, whose index is given.
    Group(&'a Struct, usize),
    Enum(&'a [Enumerant]),
    Interface(&'a Interface),
    Const(&'a Type, &'a Value),
}

fn flatten_file<'a>(file: &'a File, flat: &mut Vec<Flat<'a>>) {
    let display = format!("{}.capnp", file.module);
    flat.push(Flat {
        id: file.id,
        scope: 0,
        prefix: file.module.len() + 1,
        display: display.clone(),
        docs: &file.docs,
        nested: file
            .nodes
            .iter()
            .map(|node| (node.name.as_str(), node.id))
            .collect(),
        kind: Kind::File,
        is_list: false,
    });
    file.nodes
        .iter()
        .for_each(|node| flatten(node, file.id, &format!("{display}:"), flat));
}

fn flatten<'a>(node: &'a Node, scope: u64, prefix: &str, flat: &mut Vec<Flat<'a>>) {
    let display = format!("{prefix}{}", node.name);
    let inner = format!("{display}.");
    let mut more = Vec::new();
    let kind = match &node.body {
        Body::Struct(body) => Kind::Struct(body, groups(body, node.id, &inner, &mut more)),
        Body::Enum(values) => Kind::Enum(values),
        Body::Interface(interface) => {
            for Method {
                name,
                params,
                results,
                ..
            } in &interface.methods
            {
                for (signature, end) in [(params, "Params"), (results, "Results")] {
                    let Signature::List(id, body) = signature else {
                        continue;
                    };
                    let display = format!("{inner}{name}${end}");
                    let kind = Kind::Struct(body, vec![None; body.members.len()]);
                    let (docs, nested, prefix) = (&[][..], Vec::new(), inner.len());
                    let (id, scope, is_list) = (*id, 0, true);
                    more.push(Flat {
                        id,
                        scope,
                        prefix,
                        display,
                        docs,
                        nested,
                        kind,
                        is_list,
                    });
                }
            }
            Kind::Interface(interface)
        }
        Body::Const(ty, value) => Kind::Const(ty, value),
    };
    let nested = node
        .nested
        .iter()
        .map(|node| (node.name.as_str(), node.id))
        .collect();
    let (id, docs, prefix, is_list) = (node.id, node.docs.as_slice(), prefix.len(), false);
    flat.push(Flat {
        id,
        scope,
        prefix,
        display,
        docs,
        nested,
        kind,
        is_list,
    });
    flat.append(&mut more);
    node.nested
        .iter()
        .for_each(|nested| flatten(nested, id, &inner, flat));
}

/// Adds the groups of a struct; their ids by member.
fn groups<'a>(
    body: &'a Struct,
    parent: u64,
    inner: &str,
    flat: &mut Vec<Flat<'a>>,
) -> Vec<Option<u64>> {
    let mut found = vec![None; body.members.len()];
    for (position, member) in by_ordinal(&body.laid).into_iter().enumerate() {
        if body.laid.place(member).discriminant.is_none() {
            continue;
        }
        let id = ids::group(parent, position.try_into().expect("ordinals are 16 bits"));
        found[member] = Some(id);
        let Member { name, docs, .. } = &body.members[member];
        flat.push(Flat {
            id,
            scope: parent,
            prefix: inner.len(),
            display: format!("{inner}{name}"),
            docs,
            nested: Vec::new(),
            kind: Kind::Group(body, member),
            is_list: false,
        });
    }
    found
}

/// Members by ordinal.
fn by_ordinal(laid: &Laid) -> Vec<usize> {
    let mut order: Vec<_> = (0..laid.ordinals.len()).collect();
    order.sort_by_key(|member| laid.ordinals[*member]);
    order
}

fn write_node(mut node: node::Builder<'_>, flat: &Flat<'_>) {
    node.set_id(flat.id);
    node.set_display_name(&flat.display);
    node.set_display_name_prefix_length(count(flat.prefix));
    node.set_scope_id(flat.scope);
    if !flat.nested.is_empty() {
        let mut list = node.reborrow().init_nested_nodes(count(flat.nested.len()));
        for (index, (name, id)) in flat.nested.iter().enumerate() {
            let mut nested = list.reborrow().get(count(index));
            nested.set_name(name);
            nested.set_id(*id);
        }
    }
    match &flat.kind {
        Kind::File => node.set_file(()),
        Kind::Struct(body, groups) => write_struct(node.init_struct(), body, groups),
        Kind::Group(body, member) => write_group(node.init_struct(), body, *member),
        Kind::Enum(values) => write_enum(node.init_enum(), values),
        Kind::Interface(interface) => write_interface(node.init_interface(), interface),
        Kind::Const(ty, value) => {
            let mut constant = node.init_const();
            write_type(constant.reborrow().init_type(), ty);
            write_value(constant.init_value(), ty, value);
        }
    }
}

fn sizes(node: &mut node::struct_::Builder<'_>, laid: &Laid) {
    node.set_data_word_count(laid.layout.data_words);
    node.set_pointer_count(laid.layout.pointers);
    node.set_preferred_list_encoding(capnp::schema_capnp::ElementSize::InlineComposite);
}

fn write_struct(mut node: node::struct_::Builder<'_>, body: &Struct, groups: &[Option<u64>]) {
    sizes(&mut node, &body.laid);
    if let Some(offset) = body.laid.layout.discriminant {
        node.set_discriminant_count(short(body.members.len()));
        node.set_discriminant_offset(offset);
    }
    let union = body.laid.layout.discriminant.is_some();
    if body.members.is_empty() {
        return;
    }
    let mut fields = node.init_fields(count(body.members.len()));
    for (position, member) in by_ordinal(&body.laid).into_iter().enumerate() {
        let mut field = fields.reborrow().get(count(position));
        let Member { name, ty, .. } = &body.members[member];
        field.set_name(name);
        field.set_code_order(short(member));
        if union {
            field.set_discriminant_value(short(position));
        }
        if let Some(id) = groups[member] {
            field.reborrow().init_ordinal().set_implicit(());
            field.init_group().set_type_id(id);
        } else {
            field
                .reborrow()
                .init_ordinal()
                .set_explicit(body.laid.ordinals[member]);
            write_slot(field.init_slot(), body.laid.place(member).offset, ty);
        }
    }
}

fn write_group(mut node: node::struct_::Builder<'_>, body: &Struct, member: usize) {
    sizes(&mut node, &body.laid);
    let place = body.laid.place(member);
    node.set_is_group(true);
    node.set_discriminant_count(2);
    node.set_discriminant_offset(place.discriminant.expect("a group is an optional member"));
    let mut fields = node.init_fields(2);
    let cases = [
        ("none", 0, &Type::Void),
        ("some", place.offset, &body.members[member].ty),
    ];
    for (index, (name, offset, ty)) in (0..).zip(cases) {
        let mut field = fields.reborrow().get(index.into());
        field.set_name(name);
        field.set_code_order(index);
        field.set_discriminant_value(index);
        field
            .reborrow()
            .init_ordinal()
            .set_explicit(body.laid.ordinals[member] + index);
        write_slot(field.init_slot(), offset, ty);
    }
}

fn write_slot(mut slot: field::slot::Builder<'_>, offset: u32, ty: &Type) {
    slot.set_offset(offset);
    write_type(slot.reborrow().init_type(), ty);
    let mut default = slot.init_default_value();
    match ty {
        Type::Void => default.set_void(()),
        Type::Bool => default.set_bool(false),
        Type::Int8 => default.set_int8(0),
        Type::Int16 => default.set_int16(0),
        Type::Int32 => default.set_int32(0),
        Type::Int64 => default.set_int64(0),
        Type::Uint8 => default.set_uint8(0),
        Type::Uint16 => default.set_uint16(0),
        Type::Uint32 => default.set_uint32(0),
        Type::Uint64 => default.set_uint64(0),
        Type::Float32 => default.set_float32(0.0),
        Type::Float64 => default.set_float64(0.0),
        Type::Text => default.set_text(""),
        Type::Data => default.set_data(&[]),
        Type::List(_) => drop(default.init_list()),
        Type::Enum(_) => default.set_enum(0),
        Type::Struct(_) => drop(default.init_struct()),
        Type::Interface(_) => default.set_interface(()),
    }
}

fn write_type(mut target: type_::Builder<'_>, ty: &Type) {
    match ty {
        Type::Void => target.set_void(()),
        Type::Bool => target.set_bool(()),
        Type::Int8 => target.set_int8(()),
        Type::Int16 => target.set_int16(()),
        Type::Int32 => target.set_int32(()),
        Type::Int64 => target.set_int64(()),
        Type::Uint8 => target.set_uint8(()),
        Type::Uint16 => target.set_uint16(()),
        Type::Uint32 => target.set_uint32(()),
        Type::Uint64 => target.set_uint64(()),
        Type::Float32 => target.set_float32(()),
        Type::Float64 => target.set_float64(()),
        Type::Text => target.set_text(()),
        Type::Data => target.set_data(()),
        Type::List(element) => write_type(target.init_list().init_element_type(), element),
        Type::Enum(id) => target.init_enum().set_type_id(*id),
        Type::Struct(id) => target.init_struct().set_type_id(*id),
        Type::Interface(id) => target.init_interface().set_type_id(*id),
    }
}

fn write_value(mut target: value::Builder<'_>, ty: &Type, value: &Value) {
    match value {
        Value::Bool(value) => target.set_bool(*value),
        Value::Text(value) => target.set_text(value),
        Value::Float(value) if *ty == Type::Float32 => target.set_float32(*value as f32),
        Value::Float(value) => target.set_float64(*value),
        // The resolver has checked the range.
        Value::Int(value) => match ty {
            Type::Int8 => target.set_int8(*value as i8),
            Type::Int16 => target.set_int16(*value as i16),
            Type::Int32 => target.set_int32(*value as i32),
            Type::Uint8 => target.set_uint8(*value as u8),
            Type::Uint16 => target.set_uint16(*value as u16),
            Type::Uint32 => target.set_uint32(*value as u32),
            Type::Uint64 => target.set_uint64(*value as u64),
            Type::Float32 => target.set_float32(*value as f32),
            Type::Float64 => target.set_float64(*value as f64),
            _ => target.set_int64(*value as i64),
        },
    }
}

fn write_enum(node: node::enum_::Builder<'_>, values: &[Enumerant]) {
    let mut list = node.init_enumerants(count(values.len()));
    for (order, Enumerant { name, ordinal, .. }) in values.iter().enumerate() {
        let mut enumerant = list.reborrow().get((*ordinal).into());
        enumerant.set_name(name);
        enumerant.set_code_order(short(order));
    }
}

fn write_interface(mut node: node::interface::Builder<'_>, interface: &Interface) {
    if let Some(base) = interface.base {
        node.reborrow().init_superclasses(1).get(0).set_id(base);
    }
    let mut list = node.init_methods(count(interface.methods.len()));
    for (
        order,
        Method {
            name,
            ordinal,
            params,
            results,
            ..
        },
    ) in interface.methods.iter().enumerate()
    {
        let mut method = list.reborrow().get((*ordinal).into());
        method.set_name(name);
        method.set_code_order(short(order));
        method.set_param_struct_type(params.id());
        method.set_result_struct_type(results.id());
    }
}

fn write_source_info(mut info: node::source_info::Builder<'_>, flat: &Flat<'_>) {
    info.set_id(flat.id);
    if !flat.docs.is_empty() {
        info.set_doc_comment(comment(flat.docs));
    }
    let mut members: Vec<(u16, &[String])> = match &flat.kind {
        Kind::File | Kind::Const(..) => return,
        Kind::Struct(body, _) => {
            let docs = body.members.iter().map(|member| member.docs.as_slice());
            body.laid.ordinals.iter().copied().zip(docs).collect()
        }
        Kind::Group(..) => vec![(0, &[]), (1, &[])],
        Kind::Enum(values) => values
            .iter()
            .map(|v| (v.ordinal, v.docs.as_slice()))
            .collect(),
        Kind::Interface(interface) => interface
            .methods
            .iter()
            .map(|m| (m.ordinal, m.docs.as_slice()))
            .collect(),
    };
    members.sort_by_key(|(ordinal, _)| *ordinal);
    let mut list = info.init_members(count(members.len()));
    for (index, (_, docs)) in members.into_iter().enumerate() {
        if !docs.is_empty() {
            list.reborrow()
                .get(count(index))
                .set_doc_comment(comment(docs));
        }
    }
}

fn comment(docs: &[String]) -> String {
    docs.iter()
        .flat_map(|doc| doc.split('\n'))
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn count(len: usize) -> u32 {
    len.try_into().expect("lists of a schema are short")
}

fn short(index: usize) -> u16 {
    index
        .try_into()
        .expect("members of a node are numbered in 16 bits")
}
