//! Random models, reproducible from a seed.
//!
//! They keep the promises of a resolved model: names differ, ordinals are dense, values do not
//! contain themselves but through lists and maps.

use partha_codegen::ids;
use partha_idl::model::{
    Enumerator, Field, Interface, Item, ItemId, ItemKind, Method, Model, Module, ModuleId, Type,
    Value, Variant,
};

/// A small generator of numbers (splitmix64), so that a seed means the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A model of `modules` modules called `{prefix}0`, `{prefix}1`, …
pub(crate) fn model(seed: u64, prefix: &str, modules: usize) -> Model {
    let mut maker = Maker {
        random: Random::new(seed),
        model: Model::default(),
        here: Vec::new(),
    };
    for index in 0..modules {
        maker.module(format!("{prefix}{index}"));
    }
    maker.model
}

struct Maker {
    random: Random,
    model: Model,
    /// Items of this module and of those it imports.
    here: Vec<ItemId>,
}

const SCALARS: [Type; 16] = [
    Type::Bool,
    Type::Bool,
    Type::Bool,
    Type::I8,
    Type::U8,
    Type::I16,
    Type::U16,
    Type::I32,
    Type::U32,
    Type::F32,
    Type::I64,
    Type::U64,
    Type::F64,
    Type::Timestamp,
    Type::Duration,
    Type::Bool,
];
const KEYS: [Type; 8] = [
    Type::Bool,
    Type::I8,
    Type::U64,
    Type::String,
    Type::Bytes,
    Type::Uid,
    Type::Timestamp,
    Type::I32,
];
/// Names that mean something in Cap'n Proto's text or in Rust.
const WORDS: [&str; 14] = [
    "union",
    "struct",
    "group",
    "using",
    "const",
    "import",
    "interface",
    "enum",
    "extends",
    "true",
    "void",
    "type",
    "move",
    "snake_case_name",
];

impl Maker {
    fn module(&mut self, name: String) {
        let id = ModuleId(self.model.modules.len() as u32);
        let imports: Vec<_> = match id.0 {
            0 => Vec::new(),
            n if self.random.one_in(3) => vec![ModuleId(self.random.below(n as usize) as u32)],
            _ => Vec::new(),
        };
        self.here = imports
            .iter()
            .flat_map(|m| self.model.module(*m).items.clone())
            .collect();
        let docs = self.docs();
        self.model.modules.push(Module {
            id: ids::module(&name),
            path: format!("{name}.idl").into(),
            name,
            source: String::new(),
            docs,
            requested: true,
            imports,
            items: Vec::new(),
        });
        let items = 2 + self.random.below(8);
        for index in 0..items {
            self.item(id, index);
        }
    }

    fn item(&mut self, module: ModuleId, index: usize) {
        let id = ItemId(self.model.items.len() as u32);
        let mut name = format!("T{index}");
        let kind = match self.random.below(16) {
            0..=4 => ItemKind::Struct(self.fields(20)),
            5..=8 => ItemKind::Union(self.variants()),
            9 | 10 => ItemKind::Enum(self.enumerators()),
            11 => ItemKind::Exception(self.fields(6)),
            12 => {
                name = format!("C_{index}");
                let (ty, value) = self.constant();
                ItemKind::Const(ty, value)
            }
            _ => ItemKind::Interface(self.interface()),
        };
        if matches!(kind, ItemKind::Struct(_)) && self.random.one_in(20) {
            name = (*self
                .random
                .pick(&["State", "Text", "Partha", "Int64", "Data"]))
            .to_owned();
            let same = |id: &ItemId| self.model.item(*id).name == name;
            if self.model.module(module).items.iter().any(same) {
                name = format!("T{index}");
            }
        }
        let docs = self.docs();
        let deprecated = self.random.one_in(9).then(|| "use another".to_owned());
        let item = ids::child(self.model.module(module).id, &name);
        self.model.items.push(Item {
            name,
            module,
            id: item,
            docs,
            deprecated,
            kind,
        });
        self.model.modules[module.0 as usize].items.push(id);
        self.here.push(id);
    }

    fn docs(&mut self) -> Vec<String> {
        let lines = self.random.below(12).saturating_sub(8);
        let words = ["", "What it is.", "  indented # more", "grüße \"x\"", "end"];
        let mut docs: Vec<_> = (0..lines)
            .map(|_| (*self.random.pick(&words)).to_owned())
            .collect();
        docs.dedup();
        docs
    }

    fn name(&mut self, index: usize) -> String {
        if self.random.one_in(12) {
            return (*self.random.pick(&WORDS)).to_owned();
        }
        format!("f_{index}_x")
    }

    /// Ordinals for `count` members: of the declaration, or shuffled as if pinned.
    fn ordinals(&mut self, count: usize) -> Vec<u16> {
        let mut ordinals: Vec<_> = (0..count as u16).collect();
        if self.random.one_in(3) {
            for index in (1..count).rev() {
                ordinals.swap(index, self.random.below(index + 1));
            }
        }
        ordinals
    }

    fn fields(&mut self, max: usize) -> Vec<Field> {
        let count = self.random.below(max + 1);
        let mut fields: Vec<Field> = Vec::new();
        for (index, ordinal) in self.ordinals(count).into_iter().enumerate() {
            let mut name = self.name(index);
            if fields.iter().any(|field| field.name == name) {
                name = format!("f_{index}_y");
            }
            let (docs, ty) = (self.docs(), self.ty(0));
            let deprecated = self.random.one_in(20).then(|| "old".to_owned());
            fields.push(Field {
                name,
                docs,
                deprecated,
                ordinal,
                ty,
            });
        }
        fields
    }

    fn variants(&mut self) -> Vec<Variant> {
        let count = 2 + self.random.below(14);
        let mut variants: Vec<Variant> = Vec::new();
        for (index, ordinal) in self.ordinals(count).into_iter().enumerate() {
            let mut name = self.name(index);
            if variants.iter().any(|variant| variant.name == name) {
                name = format!("f_{index}_y");
            }
            let ty = (!self.random.one_in(5)).then(|| self.ty(0));
            let (docs, deprecated) = (self.docs(), None);
            variants.push(Variant {
                name,
                docs,
                deprecated,
                ordinal,
                ty,
            });
        }
        variants
    }

    fn enumerators(&mut self) -> Vec<Enumerator> {
        let count = 1 + self.random.below(9);
        let ordinals = self.ordinals(count);
        let value = |(index, ordinal)| Enumerator {
            name: format!("Value{index}"),
            docs: self.docs(),
            deprecated: None,
            ordinal,
        };
        ordinals.into_iter().enumerate().map(value).collect()
    }

    fn constant(&mut self) -> (Type, Value) {
        let bits = self.random.next();
        match self.random.below(8) {
            0 => (Type::Bool, Value::Bool(bits & 1 == 0)),
            1 => (Type::I64, Value::Int((bits as i64).into())),
            2 => (Type::U64, Value::Int(bits.into())),
            3 => (Type::I8, Value::Int((bits as i8).into())),
            4 => (Type::F64, Value::Float(bits as i64 as f64 / 1e12)),
            5 => (Type::F32, Value::Float(f64::from(bits as i16) / 64.0)),
            6 => (Type::Duration, Value::Int((bits >> 2).into())),
            _ => (
                Type::String,
                Value::Text(format!("a\"\\\n\t\r\x01ü€ {bits}")),
            ),
        }
    }

    fn interface(&mut self) -> Interface {
        let persistent = !self.random.one_in(3);
        let bases = self.items(|item| match &item.kind {
            ItemKind::Interface(interface) => interface.persistent == persistent,
            _ => false,
        });
        let base = (!bases.is_empty() && self.random.one_in(3)).then(|| *self.random.pick(&bases));
        let (state, constructor) = if persistent {
            (self.fields(9), self.fields(4))
        } else {
            (Vec::new(), Vec::new())
        };
        let count = self.random.below(6);
        let ordinals = self.ordinals(count);
        let methods = ordinals
            .into_iter()
            .enumerate()
            .map(|(index, n)| self.method(index, n))
            .collect();
        let constructor_docs = Vec::new();
        Interface {
            persistent,
            base,
            state,
            constructor,
            constructor_docs,
            methods,
        }
    }

    fn method(&mut self, index: usize, ordinal: u16) -> Method {
        // An interface and its base have no method of the same name.
        let item = self.model.items.len();
        let exceptions = self.items(|item| matches!(item.kind, ItemKind::Exception(_)));
        let mut raises: Vec<_> = exceptions
            .into_iter()
            .filter(|_| self.random.one_in(2))
            .collect();
        raises.dedup();
        let name = if self.random.one_in(10) {
            format!("{}_{index}_{item}", self.random.pick(&WORDS))
        } else {
            format!("do_{index}_of_{item}")
        };
        let mutating = self.random.one_in(2);
        Method {
            name,
            docs: self.docs(),
            deprecated: None,
            ordinal,
            mutating,
            upgrade: !mutating && self.random.one_in(4),
            any_replica: !mutating && self.random.one_in(4),
            params: self.fields(6),
            result: (!self.random.one_in(4)).then(|| self.ty(0)),
            raises,
            idempotent: self.random.one_in(4),
            blocking: self.random.one_in(4),
            deadline_us: self.random.one_in(4).then_some(5_000_000),
        }
    }

    fn items(&self, wanted: impl Fn(&Item) -> bool) -> Vec<ItemId> {
        self.here
            .iter()
            .copied()
            .filter(|id| wanted(self.model.item(*id)))
            .collect()
    }

    fn ty(&mut self, depth: usize) -> Type {
        match self.random.below(if depth < 3 { 24 } else { 18 }) {
            0..=10 => self.random.pick(&SCALARS).clone(),
            11 => Type::String,
            12 => Type::Bytes,
            13 => Type::Uid,
            14..=17 => self.named(),
            18 | 19 => Type::List(Box::new(self.ty(depth + 1))),
            20 => {
                let key = self.random.pick(&KEYS).clone();
                Type::Map(Box::new(key), Box::new(self.ty(depth + 1)))
            }
            _ => match self.ty(depth + 1) {
                Type::Option(inner) => Type::Option(inner),
                inner => Type::Option(Box::new(inner)),
            },
        }
    }

    fn named(&mut self) -> Type {
        if self.here.is_empty() {
            return Type::U8;
        }
        let id = *self.random.pick(&self.here);
        match self.model.item(id).kind {
            ItemKind::Const(..) | ItemKind::Exception(_) => Type::I16,
            ItemKind::Struct(_) => Type::Struct(id),
            ItemKind::Enum(_) => Type::Enum(id),
            ItemKind::Union(_) => Type::Union(id),
            ItemKind::Interface(_) => Type::Interface(id),
        }
    }
}
