//! Reading the request: nodes by id first, then each lifted to the terms of the IDL.

use std::collections::HashMap;

use capnp::message::ReaderOptions;
use capnp::schema_capnp::{code_generator_request, field, node, type_};

use super::{Body, Enumerant, Int, Interface, Member, Method, Name, Node, Schema, Struct, Type};

impl Schema {
    /// Reads a framed request.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn read(mut framed: &[u8]) -> capnp::Result<Self> {
        let message = capnp::serialize::read_message(&mut framed, ReaderOptions::new())?;
        let request = message.get_root::<code_generator_request::Reader<'_>>()?;
        let mut raw = Raw::default();
        for node in request.get_nodes()? {
            raw.nodes.insert(node.get_id(), node);
        }
        for info in request.get_source_info()? {
            let members = info.get_members()?.into_iter();
            let members = members.map(|member| lines(member.get_doc_comment()?));
            let members = members.collect::<capnp::Result<_>>()?;
            raw.docs
                .insert(info.get_id(), (lines(info.get_doc_comment()?)?, members));
        }
        let nodes = raw.nodes.values().map(|node| raw.node(*node));
        let nodes = nodes.map(|node| node.map(|node| (node.id, node)));
        Ok(Self {
            nodes: nodes.collect::<capnp::Result<_>>()?,
        })
    }
}

/// A struct that is a group, and its member `some`.
type Group<'a> = (node::struct_::Reader<'a>, field::slot::Reader<'a>);

/// The request while it is read.
#[derive(Default)]
struct Raw<'a> {
    nodes: HashMap<u64, node::Reader<'a>>,
    docs: HashMap<u64, (Vec<String>, Vec<Vec<String>>)>,
}

impl<'a> Raw<'a> {
    fn node(&self, node: node::Reader<'a>) -> capnp::Result<Node> {
        let (id, display) = (node.get_id(), node.get_display_name()?.to_str()?);
        let (file, name) = display.split_once(':').unwrap_or((display, ""));
        let module = file.rsplit('/').next().unwrap_or(file);
        let module = module.strip_suffix(".capnp").unwrap_or(module);
        let nested = node.get_nested_nodes()?.into_iter();
        let nested = nested.map(|nested| Ok((nested.get_name()?.to_string()?, nested.get_id())));
        let docs = self.docs.get(&id);
        Ok(Node {
            id,
            module: module.to_owned(),
            name: name.to_owned(),
            docs: docs.map(|(own, _)| own.clone()).unwrap_or_default(),
            nested: nested.collect::<capnp::Result<_>>()?,
            body: self.body(node)?,
        })
    }

    fn body(&self, node: node::Reader<'a>) -> capnp::Result<Body> {
        let id = node.get_id();
        Ok(match node.which()? {
            node::Struct(body) if !body.get_is_group() => Body::Struct(self.structure(id, body)?),
            node::Enum(body) => {
                let values = body.get_enumerants()?.into_iter().enumerate();
                let values = values.map(|(index, value)| {
                    Ok(Enumerant {
                        name: Name::upper(value.get_name()?.to_str()?),
                        docs: self.member_docs(id, index),
                    })
                });
                Body::Enum(values.collect::<capnp::Result<_>>()?)
            }
            node::Interface(body) => {
                let bases = body.get_superclasses()?.into_iter();
                let mut methods = Vec::new();
                for (index, method) in body.get_methods()?.into_iter().enumerate() {
                    let found = Method {
                        name: Name::snake(method.get_name()?.to_str()?),
                        docs: self.member_docs(id, index),
                        ordinal: u16::try_from(index).unwrap_or(u16::MAX),
                        params: method.get_param_struct_type(),
                        results: method.get_result_struct_type(),
                    };
                    methods.push((method.get_code_order(), found));
                }
                methods.sort_by_key(|(order, _)| *order);
                Body::Interface(Interface {
                    bases: bases.map(|base| base.get_id()).collect(),
                    methods: methods.into_iter().map(|(_, method)| method).collect(),
                })
            }
            _ => Body::Other,
        })
    }

    fn structure(&self, id: u64, body: node::struct_::Reader<'a>) -> capnp::Result<Struct> {
        let mut members = Vec::new();
        for (index, field) in body.get_fields()?.into_iter().enumerate() {
            let docs = self.member_docs(id, index);
            members.push((field.get_code_order(), self.member(field, docs)?));
        }
        members.sort_by_key(|(order, _)| *order);
        let union = body.get_discriminant_count() > 0;
        Ok(Struct {
            data: body.get_data_word_count(),
            pointers: body.get_pointer_count(),
            union: union.then(|| body.get_discriminant_offset()),
            members: members.into_iter().map(|(_, member)| member).collect(),
        })
    }

    fn member(&self, field: field::Reader<'a>, docs: Vec<String>) -> capnp::Result<Member> {
        let name = Name::snake(field.get_name()?.to_str()?);
        let case = field.get_discriminant_value();
        let (ty, offset, optional) = match field.which()? {
            field::Slot(slot) => (self.ty(slot.get_type()?)?, slot.get_offset(), None),
            field::Group(group) => match self.optional(group.get_type_id())? {
                Some((ty, offset, place)) => (ty, offset, Some(place)),
                None => (Type::Other, 0, None),
            },
        };
        Ok(Member {
            name,
            docs,
            ty,
            offset,
            optional,
            case,
        })
    }

    /// The type, the offset and the discriminant of an optional member, if the group is one.
    fn optional(&self, group: u64) -> capnp::Result<Option<(Type, u32, u32)>> {
        let Some((body, some)) = self.none_or_some(group)? else {
            return Ok(None);
        };
        let ty = self.ty(some.get_type()?)?;
        Ok(Some((
            ty,
            some.get_offset(),
            body.get_discriminant_offset(),
        )))
    }

    fn none_or_some(&self, group: u64) -> capnp::Result<Option<Group<'a>>> {
        let Some(Ok(node::Struct(body))) = self.nodes.get(&group).map(|node| node.which()) else {
            return Ok(None);
        };
        let fields = body.get_fields()?;
        if body.get_discriminant_count() != 2 || fields.len() != 2 {
            return Ok(None);
        }
        let (none, some) = (fields.get(0), fields.get(1));
        let named = none.get_name()? == "none" && some.get_name()? == "some";
        Ok(match some.which()? {
            field::Slot(slot) if named => Some((body, slot)),
            _ => None,
        })
    }

    fn ty(&self, ty: type_::Reader<'a>) -> capnp::Result<Type> {
        Ok(match ty.which()? {
            type_::Void(()) => Type::Void,
            type_::Bool(()) => Type::Bool,
            type_::Int8(()) => Type::Int(Int::I8),
            type_::Int16(()) => Type::Int(Int::I16),
            type_::Int32(()) => Type::Int(Int::I32),
            type_::Int64(()) => Type::Int(Int::I64),
            type_::Uint8(()) => Type::Int(Int::U8),
            type_::Uint16(()) => Type::Int(Int::U16),
            type_::Uint32(()) => Type::Int(Int::U32),
            type_::Uint64(()) => Type::Int(Int::U64),
            type_::Float32(()) => Type::F32,
            type_::Float64(()) => Type::F64,
            type_::Text(()) => Type::Text,
            type_::Data(()) => Type::Bytes,
            type_::Enum(found) => Type::Enum(found.get_type_id()),
            type_::Interface(found) => Type::Interface(found.get_type_id()),
            type_::Struct(found) => self.struct_type(found.get_type_id())?,
            type_::List(list) => match self.ty(list.get_element_type()?)? {
                Type::Struct(id) if self.is_entry(id)? => Type::Map(id),
                element => Type::List(Box::new(element)),
            },
            type_::AnyPointer(_) => Type::Other,
        })
    }

    fn struct_type(&self, id: u64) -> capnp::Result<Type> {
        use partha_codegen::ids;
        let system = ids::module("partha");
        Ok(if id == ids::child(system, "Uid") {
            Type::Uid
        } else if id == ids::child(system, "ObjectRef") {
            Type::Reference
        } else if self.is_optional_element(id)? {
            Type::Option(id)
        } else {
            Type::Struct(id)
        })
    }

    /// The struct that stands for an entry of a map.
    fn is_entry(&self, id: u64) -> capnp::Result<bool> {
        let (name, fields) = self.shape(id)?;
        let end = name.trim_end_matches(|c: char| c.is_ascii_digit());
        Ok(name.starts_with("Map") && end.ends_with("Entry") && fields == ["key", "value"])
    }

    /// The struct that stands around an optional element.
    fn is_optional_element(&self, id: u64) -> capnp::Result<bool> {
        let (name, fields) = self.shape(id)?;
        if !name.starts_with("Option") || fields != ["value"] {
            return Ok(false);
        }
        let Some(Ok(node::Struct(body))) = self.nodes.get(&id).map(|node| node.which()) else {
            return Ok(false);
        };
        Ok(match body.get_fields()?.get(0).which()? {
            field::Group(group) => self.none_or_some(group.get_type_id())?.is_some(),
            field::Slot(slot) => matches!(
                slot.get_type()?.which()?,
                type_::Text(())
                    | type_::Data(())
                    | type_::List(_)
                    | type_::Struct(_)
                    | type_::Interface(_)
            ),
        })
    }

    /// The name of a struct at file level, and its members'.
    fn shape(&self, id: u64) -> capnp::Result<(&'a str, Vec<&'a str>)> {
        let Some(node) = self.nodes.get(&id) else {
            return Ok(("", Vec::new()));
        };
        let display = node.get_display_name()?.to_str()?;
        let (_, name) = display.split_once(':').unwrap_or((display, ""));
        let node::Struct(body) = node.which()? else {
            return Ok(("", Vec::new()));
        };
        let fields = body.get_fields()?.into_iter();
        let fields = fields.map(|field| Ok(field.get_name()?.to_str()?));
        Ok((name, fields.collect::<capnp::Result<_>>()?))
    }

    fn member_docs(&self, id: u64, index: usize) -> Vec<String> {
        let docs = self
            .docs
            .get(&id)
            .and_then(|(_, members)| members.get(index));
        docs.cloned().unwrap_or_default()
    }
}

fn lines(text: capnp::text::Reader<'_>) -> capnp::Result<Vec<String>> {
    Ok(text.to_str()?.lines().map(str::to_owned).collect())
}
