//! From the IDL's model to Cap'n Proto nodes.
//!
//! The rules in short: an interface is an interface whose methods take the call context first
//! and answer `value` and `raised`; a persistent one also declares the structs `State` and `New`;
//! a union is a struct with one unnamed union; `option` of what is no pointer is a named union
//! `none`/`some`; `map` is a list of key/value structs; a list or map has no place for an absent
//! element, so `option` in it is a struct around the option. Structs that the generator makes up
//! stand at the end of the file of the module that uses them.

use std::collections::BTreeMap;

use partha_idl::model::{
    Field, Interface as IdlInterface, Item, ItemId, ItemKind, Method as IdlMethod, Model, ModuleId,
    Type as Idl, Value as IdlValue, Variant,
};

use crate::names::{self, Scope, lower_camel, upper_camel};
use crate::node::{
    Body, Enumerant, File, Home, Import, Interface, Member, Method, Node, Schema, Signature,
    Struct, Type, Value,
};
use crate::shape::{self, Laid};
use crate::{ids, intrinsic, system};

/// Lowers all modules of `model`, and the system module if it is not among them.
pub(crate) fn lower(model: &Model) -> Schema {
    let mut schema = Schema::default();
    if model
        .modules
        .iter()
        .all(|module| module.name != intrinsic::MODULE)
    {
        schema.files.extend(files(system::model()));
    }
    schema.files.extend(files(model));
    let system = schema
        .files
        .iter()
        .position(|file| file.module == intrinsic::MODULE);
    schema.system = system.expect("the system module was added if it was absent");
    for (index, file) in schema.files.iter().enumerate() {
        for node in &file.nodes {
            find_homes(index, &[], node, &mut schema.homes);
        }
    }
    for file in 0..schema.files.len() {
        schema.files[file].imports = imports(&schema, file);
    }
    schema
}

/// The files of a model, without imports.
fn files(model: &Model) -> impl Iterator<Item = File> + '_ {
    (0..).zip(&model.modules).map(|(index, module)| {
        let mut nodes = Vec::new();
        if module.name == intrinsic::MODULE {
            nodes = intrinsic::nodes();
        }
        nodes.extend(Lowering::new(model, ModuleId(index)).nodes());
        let (module, id, docs) = (module.name.clone(), module.id, module.docs.clone());
        File {
            module,
            id,
            docs,
            imports: Vec::new(),
            nodes,
        }
    })
}

fn find_homes(file: usize, scope: &[String], node: &Node, homes: &mut BTreeMap<u64, Home>) {
    let mut path = scope.to_vec();
    path.push(node.name.clone());
    node.nested
        .iter()
        .for_each(|nested| find_homes(file, &path, nested, homes));
    homes.insert(node.id, Home { file, path });
}

/// The files that `file` takes types from, with aliases that hide nothing in it.
fn imports(schema: &Schema, file: usize) -> Vec<Import> {
    let mut references = Vec::new();
    let mut scope = Scope::file();
    for node in &schema.files[file].nodes {
        node.references(&mut references);
        scope.note(&node.name);
        node.nested
            .iter()
            .for_each(|nested| scope.note(&nested.name));
    }
    // By name, so that the order in which modules were named does not show.
    let homes = references.iter().map(|id| schema.homes[id].file);
    let mut files: Vec<_> = homes.filter(|other| *other != file).collect();
    files.sort_unstable_by_key(|other| &schema.files[*other].module);
    files.dedup();
    let alias = |other: usize| Import {
        file: other,
        alias: scope.take(&upper_camel(&schema.files[other].module)),
    };
    files.into_iter().map(alias).collect()
}

/// One module on its way.
struct Lowering<'a> {
    model: &'a Model,
    module: ModuleId,
    names: Scope,
    /// Structs made up so far, by the type they stand for: index into `made_up`.
    by_type: BTreeMap<Idl, usize>,
    made_up: Vec<(u64, Option<Node>)>,
}

impl<'a> Lowering<'a> {
    fn new(model: &'a Model, module: ModuleId) -> Self {
        let (by_type, made_up) = (BTreeMap::new(), Vec::new());
        Self {
            model,
            module,
            names: Scope::file(),
            by_type,
            made_up,
        }
    }

    fn nodes(mut self) -> Vec<Node> {
        let module = self.model.module(self.module);
        if module.name == intrinsic::MODULE {
            intrinsic::nodes()
                .iter()
                .for_each(|node| self.names.note(&node.name));
        }
        let mut named = Vec::new();
        for &id in &module.items {
            let item = self.model.item(id);
            let name = match item.kind {
                ItemKind::Const(..) => self.names.take(&lower_camel(&item.name)),
                _ => self.names.take(&item.name),
            };
            named.push((id, name));
        }
        let mut nodes: Vec<_> = named
            .into_iter()
            .map(|(id, name)| self.item(self.model.item(id), name))
            .collect();
        nodes.extend(self.made_up.into_iter().filter_map(|(_, node)| node));
        nodes
    }

    fn item(&mut self, item: &Item, name: String) -> Node {
        let mut nested = Vec::new();
        let body = match &item.kind {
            ItemKind::Const(ty, value) => Body::Const(self.ty(ty), constant(value)),
            ItemKind::Struct(fields) | ItemKind::Exception(fields) => {
                Body::Struct(self.fields(Vec::new(), fields))
            }
            ItemKind::Enum(values) => {
                let enumerant = |value: &partha_idl::model::Enumerator| Enumerant {
                    name: lower_camel(&value.name),
                    docs: docs(&value.docs, value.deprecated.as_deref()),
                    ordinal: value.ordinal,
                };
                Body::Enum(values.iter().map(enumerant).collect())
            }
            ItemKind::Union(variants) => Body::Struct(self.variants(variants)),
            ItemKind::Interface(interface) => {
                let (body, nodes) = self.interface(item, interface);
                nested = nodes;
                Body::Interface(body)
            }
        };
        let docs = docs(&item.docs, item.deprecated.as_deref());
        Node {
            name,
            id: item.id,
            docs,
            nested,
            body,
        }
    }

    fn fields(&mut self, leading: Vec<Member>, fields: &[Field]) -> Struct {
        let laid = shape::fields(leading.len(), fields);
        let mut members = leading;
        for field in fields {
            members.push(Member {
                name: lower_camel(&field.name),
                docs: docs(&field.docs, field.deprecated.as_deref()),
                ty: self.ty(&field.ty),
            });
        }
        Struct { laid, members }
    }

    fn variants(&mut self, variants: &[Variant]) -> Struct {
        let member = |variant: &Variant| Member {
            name: lower_camel(&variant.name),
            docs: docs(&variant.docs, variant.deprecated.as_deref()),
            ty: variant.ty.as_ref().map_or(Type::Void, |ty| self.ty(ty)),
        };
        let members = variants.iter().map(member).collect();
        Struct {
            laid: shape::variants(variants),
            members,
        }
    }

    fn interface(&mut self, item: &Item, interface: &IdlInterface) -> (Interface, Vec<Node>) {
        let mut nested = Vec::new();
        if interface.persistent {
            let base = interface.base.map(|base| self.base_state(base));
            let state = self.fields(base.into_iter().collect(), &interface.state);
            nested.push(node(item.id, "State", "What an object keeps.", state));
            let new = self.fields(Vec::new(), &interface.constructor);
            let mut new = node(item.id, "New", "What the constructor takes.", new);
            new.docs.extend(interface.constructor_docs.iter().cloned());
            nested.push(new);
        }
        let methods = interface.methods.iter();
        let methods = methods
            .map(|method| self.method(item, method, &mut nested))
            .collect();
        let base = interface.base.map(|base| self.model.item(base).id);
        (Interface { base, methods }, nested)
    }

    fn base_state(&self, base: ItemId) -> Member {
        let ty = Type::Struct(ids::child(self.model.item(base).id, "State"));
        Member {
            name: "base".to_owned(),
            docs: Vec::new(),
            ty,
        }
    }

    fn method(&mut self, item: &Item, method: &IdlMethod, nested: &mut Vec<Node>) -> Method {
        let camel = upper_camel(&method.name);
        let context = Member {
            name: "context".to_owned(),
            docs: Vec::new(),
            ty: intrinsic::call_context(),
        };
        let params = self.fields(vec![context], &method.params);
        let params = signature(item.id, method, &camel, params, nested);
        let mut answers = Vec::new();
        if let Some(result) = &method.result {
            let ty = self.ty(result);
            answers.push(Member {
                name: "value".to_owned(),
                docs: Vec::new(),
                ty,
            });
        }
        if !method.raises.is_empty() {
            let raised = self.raised(item.id, method, &camel);
            let ty = Type::Struct(raised.id);
            nested.push(raised);
            answers.push(Member {
                name: "raised".to_owned(),
                docs: Vec::new(),
                ty,
            });
        }
        let laid = shape::results(method.result.as_ref(), !method.raises.is_empty());
        let answers = Struct {
            laid,
            members: answers,
        };
        let results = signature(item.id, method, &camel, answers, nested);
        Method {
            name: lower_camel(&method.name),
            docs: docs(&method.docs, method.deprecated.as_deref()),
            ordinal: method.ordinal,
            params,
            results,
        }
    }

    fn raised(&self, interface: u64, method: &IdlMethod, camel: &str) -> Node {
        let items = || method.raises.iter().map(|id| self.model.item(*id));
        let names = names::exceptions(items(), "none", lower_camel);
        let mut members = vec![Member {
            name: "none".to_owned(),
            docs: Vec::new(),
            ty: Type::Void,
        }];
        for (item, name) in items().zip(names) {
            members.push(Member {
                name,
                docs: Vec::new(),
                ty: Type::Struct(item.id),
            });
        }
        let laid = shape::raised(method.raises.len());
        let doc = format!("The exceptions of `{}`.", lower_camel(&method.name));
        node(
            interface,
            &format!("{camel}Raised"),
            &doc,
            Struct { laid, members },
        )
    }

    fn ty(&mut self, ty: &Idl) -> Type {
        match ty {
            Idl::Bool => Type::Bool,
            Idl::I8 => Type::Int8,
            Idl::I16 => Type::Int16,
            Idl::I32 => Type::Int32,
            Idl::I64 | Idl::Timestamp | Idl::Duration => Type::Int64,
            Idl::U8 => Type::Uint8,
            Idl::U16 => Type::Uint16,
            Idl::U32 => Type::Uint32,
            Idl::U64 => Type::Uint64,
            Idl::F32 => Type::Float32,
            Idl::F64 => Type::Float64,
            Idl::String => Type::Text,
            Idl::Bytes => Type::Data,
            Idl::Uid => intrinsic::uid(),
            Idl::List(element) => Type::List(Box::new(self.element(element))),
            Idl::Map(key, value) => Type::List(Box::new(self.entry(ty, key, value))),
            Idl::Option(inner) => self.ty(inner),
            Idl::Enum(id) => Type::Enum(self.model.item(*id).id),
            Idl::Struct(id) | Idl::Union(id) => Type::Struct(self.model.item(*id).id),
            Idl::Interface(id) if self.model.interface(*id).persistent => intrinsic::object_ref(),
            Idl::Interface(id) => Type::Interface(self.model.item(*id).id),
        }
    }

    /// What stands in a list: an option needs a struct around it.
    fn element(&mut self, ty: &Idl) -> Type {
        if !matches!(ty, Idl::Option(_)) {
            return self.ty(ty);
        }
        self.make_up(ty, "", |lowering| {
            let laid = shape::types(&[ty]);
            let value = lowering.ty(ty);
            let members = vec![Member {
                name: "value".to_owned(),
                docs: Vec::new(),
                ty: value,
            }];
            Struct { laid, members }
        })
    }

    fn entry(&mut self, map: &Idl, key: &Idl, value: &Idl) -> Type {
        self.make_up(map, "Entry", |lowering| {
            let laid = entry(key, value);
            let member = |name: &str, ty| Member {
                name: name.to_owned(),
                docs: Vec::new(),
                ty,
            };
            let key = member("key", lowering.ty(key));
            let value = member("value", lowering.element(value));
            Struct {
                laid,
                members: vec![key, value],
            }
        })
    }

    /// The struct that stands for `ty`; made once in a module.
    fn make_up(&mut self, ty: &Idl, end: &str, body: impl FnOnce(&mut Self) -> Struct) -> Type {
        if let Some(index) = self.by_type.get(ty) {
            return Type::Struct(self.made_up[*index].0);
        }
        let tag = names::tag(self.model, self.module, ty);
        let name = self.names.take(&format!("{tag}{end}"));
        let id = ids::child(self.model.module(self.module).id, &name);
        let index = self.made_up.len();
        self.by_type.insert(ty.clone(), index);
        self.made_up.push((id, None));
        let body = Body::Struct(body(self));
        let (docs, nested) = (Vec::new(), Vec::new());
        self.made_up[index].1 = Some(Node {
            name,
            id,
            docs,
            nested,
            body,
        });
        Type::Struct(id)
    }
}

/// The places of a map's key and value. An optional value is a pointer to a struct around it.
pub(crate) fn entry(key: &Idl, value: &Idl) -> Laid {
    match value {
        Idl::Option(_) => shape::types(&[key, &Idl::Uid]),
        value => shape::types(&[key, value]),
    }
}

fn node(scope: u64, name: &str, doc: &str, body: Struct) -> Node {
    Node {
        name: name.to_owned(),
        id: ids::child(scope, name),
        docs: vec![doc.to_owned()],
        nested: Vec::new(),
        body: Body::Struct(body),
    }
}

/// A list of members, or a struct with a name where one of them is a union.
fn signature(
    interface: u64,
    method: &IdlMethod,
    camel: &str,
    body: Struct,
    nested: &mut Vec<Node>,
) -> Signature {
    let results = body
        .members
        .first()
        .is_none_or(|first| first.name != "context");
    let union = body
        .laid
        .layout
        .places
        .iter()
        .any(|place| place.discriminant.is_some());
    if !union {
        let id = ids::method_struct(interface, method.ordinal, results);
        return Signature::List(id, by_ordinal(body));
    }
    let (end, what) = if results {
        ("Results", "answers")
    } else {
        ("Params", "takes")
    };
    let doc = format!("What `{}` {what}.", lower_camel(&method.name));
    let node = node(interface, &format!("{camel}{end}"), &doc, body);
    let id = node.id;
    nested.push(node);
    Signature::Named(id)
}

/// In a list the position is the ordinal.
fn by_ordinal(body: Struct) -> Struct {
    let Struct { mut laid, members } = body;
    let mut order: Vec<_> = (0..members.len()).collect();
    order.sort_by_key(|index| laid.ordinals[*index]);
    laid.layout.places = order.iter().map(|index| laid.place(*index)).collect();
    laid.ordinals = order.iter().map(|index| laid.ordinals[*index]).collect();
    let mut members: Vec<_> = members.into_iter().map(Some).collect();
    let taken = order.into_iter().filter_map(|index| members[index].take());
    Struct {
        laid,
        members: taken.collect(),
    }
}

fn constant(value: &IdlValue) -> Value {
    match value {
        IdlValue::Bool(value) => Value::Bool(*value),
        IdlValue::Int(value) => Value::Int(*value),
        IdlValue::Float(value) => Value::Float(*value),
        IdlValue::Text(value) => Value::Text(value.clone()),
    }
}

fn docs(lines: &[String], deprecated: Option<&str>) -> Vec<String> {
    let mut lines = lines.to_vec();
    if let Some(why) = deprecated {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("Deprecated: {why}"));
    }
    lines
}
