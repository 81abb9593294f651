//! Emits `impl Sample` for each value type and a list of them all.
//!
//! Left out are types that cannot be without a capability, which only a running process has;
//! where one is optional it is left out of the value.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use heck::{ToSnakeCase, ToUpperCamelCase};
use partha_codegen::idl::model::{Field, Item, ItemId, ItemKind, Model, Type};

/// The text of `samples.rs`.
pub(crate) fn emit(model: &Model) -> String {
    let samples = Samples { model };
    let mut out = String::new();
    let mut list = String::new();
    for index in 0..model.items.len() {
        let id = ItemId(u32::try_from(index).expect("item ids are 32 bits"));
        let item = model.item(id);
        if model.module(item.module).requested {
            samples.item(id, item, &mut out, &mut list);
        }
    }
    let _ = writeln!(out, "/// Shows all value types to a visitor.");
    let _ = writeln!(
        out,
        "#[allow(deprecated, clippy::too_many_lines, reason = \"generated\")]"
    );
    let _ = writeln!(out, "pub fn every(visitor: &mut impl Visitor) {{\n{list}}}");
    out
}

struct Samples<'a> {
    model: &'a Model,
}

impl Samples<'_> {
    fn item(&self, id: ItemId, item: &Item, out: &mut String, list: &mut String) {
        let module = &self.model.module(item.module).name;
        let path = format!("crate::{module}::{}", item.name);
        match &item.kind {
            ItemKind::Const(..) => {}
            ItemKind::Enum(values) => {
                let count = values.len();
                sample(
                    out,
                    &path,
                    &format!(
                        "partha::abi::Enum::from_ordinal(r.ordinal({count})).expect(\"an ordinal\")"
                    ),
                );
            }
            ItemKind::Struct(fields) | ItemKind::Exception(fields) => {
                if self.makeable(&Type::Struct(id)) {
                    sample(out, &path, &self.literal(fields, ""));
                    visit(list, &path, module, &item.name);
                }
            }
            ItemKind::Union(variants) => {
                if self.makeable(&Type::Union(id)) {
                    let mut body = format!("match r.ordinal({}) {{\n", variants.len());
                    for (index, variant) in variants.iter().enumerate() {
                        let last = index + 1 == variants.len();
                        let pattern = if last {
                            "_".to_owned()
                        } else {
                            index.to_string()
                        };
                        let name = variant.name.to_upper_camel_case();
                        let value = match &variant.ty {
                            Some(ty) => format!("(r.deeper(|r| {}))", self.value(ty)),
                            None => String::new(),
                        };
                        let _ = writeln!(body, "{pattern} => Self::r#{name}{value},");
                    }
                    sample(out, &path, &(body + "}"));
                    visit(list, &path, module, &item.name);
                }
            }
            ItemKind::Interface(interface) if interface.persistent => {
                sample(out, &path, "Self::from_uid(Sample::sample(r))");
                let state = format!("crate::{module}::r#{}::State", item.name.to_snake_case());
                let line = self.model.ancestry(id).map(|id| self.model.interface(id));
                let mut fields = line.flat_map(|interface| &interface.state);
                if fields.all(|field| self.has_value(&field.ty)) {
                    let base = interface.base.map_or("", |_| "base: Sample::sample(r), ");
                    sample(out, &state, &self.literal(&interface.state, base));
                    visit(list, &state, module, &format!("{}.State", item.name));
                }
            }
            ItemKind::Interface(_) => {}
        }
    }

    fn literal(&self, fields: &[Field], leading: &str) -> String {
        let mut body = format!("Self {{ {leading}");
        for field in fields {
            let _ = write!(
                body,
                "r#{}: r.deeper(|r| {}), ",
                field.name,
                self.value(&field.ty)
            );
        }
        body + "}"
    }

    /// An expression of a value of this type.
    fn value(&self, ty: &Type) -> String {
        match ty {
            Type::Option(inner) if !self.makeable(inner) => "{ let _ = r; None }".to_owned(),
            Type::List(_) | Type::Map(..) if !self.makeable(ty) => {
                "{ let _ = r; Default::default() }".to_owned()
            }
            _ => "Sample::sample(r)".to_owned(),
        }
    }

    /// Whether there is a value of the type without a capability, if only an empty one.
    fn has_value(&self, ty: &Type) -> bool {
        matches!(ty, Type::Option(_) | Type::List(_) | Type::Map(..)) || self.makeable(ty)
    }

    /// Whether `Sample` is there for the type.
    fn makeable(&self, ty: &Type) -> bool {
        self.is_makeable(ty, &mut BTreeSet::new())
    }

    fn is_makeable(&self, ty: &Type, seen: &mut BTreeSet<ItemId>) -> bool {
        match ty {
            Type::Option(inner) | Type::List(inner) => self.is_makeable(inner, seen),
            Type::Map(key, value) => self.is_makeable(key, seen) && self.is_makeable(value, seen),
            Type::Interface(id) => self.model.interface(*id).persistent,
            Type::Struct(id) | Type::Union(id) if seen.insert(*id) => {
                let mut has = |ty: &Type| match ty {
                    Type::Option(_) | Type::List(_) | Type::Map(..) => true,
                    ty => self.is_makeable(ty, seen),
                };
                match &self.model.item(*id).kind {
                    ItemKind::Struct(fields) | ItemKind::Exception(fields) => {
                        fields.iter().all(|field| has(&field.ty))
                    }
                    ItemKind::Union(variants) => variants
                        .iter()
                        .all(|variant| variant.ty.as_ref().is_none_or(&mut has)),
                    _ => true,
                }
            }
            _ => true,
        }
    }
}

fn sample(out: &mut String, path: &str, body: &str) {
    let _ = writeln!(
        out,
        "#[allow(deprecated, clippy::all, unused, reason = \"generated\")]\n\
         impl Sample for {path} {{\nfn sample(r: &mut Random) -> Self {{\n{body}\n}}\n}}\n",
    );
}

fn visit(list: &mut String, path: &str, module: &str, name: &str) {
    let _ = writeln!(list, "visitor.visit::<{path}>({module:?}, {name:?});");
}
