//! The resolved model: what the back ends read.
//!
//! Everything here is checked: names are resolved to [`ItemId`]s, inheritance and value
//! containment are free of cycles, ordinals are dense and unique, ids are computed, and what the
//! language refuses is gone. A back end needs no error path.

use std::path::PathBuf;

/// All modules that one compilation reached, and their items.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Modules, imported ones before their importers.
    pub modules: Vec<Module>,
    /// Items of all modules; [`ItemId`] is an index.
    pub items: Vec<Item>,
}

/// Index into [`Model::modules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(pub u32);

/// Index into [`Model::items`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u32);

/// One `.idl` file.
#[derive(Clone, Debug)]
pub struct Module {
    /// `bank` for `module bank;`.
    pub name: String,
    /// The Cap'n Proto file id: from the name, or as `#[id(0x…)]` says.
    pub id: u64,
    /// Where it was read.
    pub path: PathBuf,
    /// The source text, for the hash in the header of generated files.
    pub source: String,
    /// `//!` lines, without the marker and one leading space.
    pub docs: Vec<String>,
    /// True for a file named on the command line, false for one that was only imported.
    pub requested: bool,
    /// Modules named in `use` lines, in order, each once.
    pub imports: Vec<ModuleId>,
    /// Items in the order of declaration.
    pub items: Vec<ItemId>,
}

/// A named declaration of a module.
#[derive(Clone, Debug)]
pub struct Item {
    /// As written, UpperCamelCase (constants: SCREAMING_SNAKE_CASE).
    pub name: String,
    /// The module it stands in.
    pub module: ModuleId,
    /// The Cap'n Proto type id, by Cap'n Proto's rule from module id and name.
    pub id: u64,
    /// `///` lines, without the marker and one leading space.
    pub docs: Vec<String>,
    /// The text of `#[deprecated("why")]`.
    pub deprecated: Option<String>,
    /// What it is.
    pub kind: ItemKind,
}

/// The kinds of items.
#[derive(Clone, Debug)]
pub enum ItemKind {
    /// `const NAME: type = value;`
    Const(Type, Value),
    /// `struct`
    Struct(Vec<Field>),
    /// `enum`
    Enum(Vec<Enumerator>),
    /// `union`
    Union(Vec<Variant>),
    /// `exception`: laid out as a struct.
    Exception(Vec<Field>),
    /// `interface` or `persistent interface`
    Interface(Interface),
}

/// The value of a constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A `bool`.
    Bool(bool),
    /// Any integer type, `timestamp` and `duration` (µs) included; fits its type.
    Int(i128),
    /// `f32` or `f64`.
    Float(f64),
    /// A `string`.
    Text(String),
}

/// A member with a type: a field of a struct, an exception or a state, or a parameter.
#[derive(Clone, Debug)]
pub struct Field {
    /// snake_case, as written.
    pub name: String,
    /// `///` lines.
    pub docs: Vec<String>,
    /// `#[deprecated("why")]`.
    pub deprecated: Option<String>,
    /// Dense from 0 in its list: declaration order, or the pinned `@n`. Members are listed in
    /// the order of declaration, which is the order of Rust's fields and parameters.
    pub ordinal: u16,
    /// Its type.
    pub ty: Type,
}

/// A value of an `enum`.
#[derive(Clone, Debug)]
pub struct Enumerator {
    /// UpperCamelCase.
    pub name: String,
    /// `///` lines.
    pub docs: Vec<String>,
    /// `#[deprecated("why")]`.
    pub deprecated: Option<String>,
    /// Value on the wire; dense from 0.
    pub ordinal: u16,
}

/// A case of a `union`.
#[derive(Clone, Debug)]
pub struct Variant {
    /// snake_case in the IDL, UpperCamelCase in Rust.
    pub name: String,
    /// `///` lines.
    pub docs: Vec<String>,
    /// `#[deprecated("why")]`.
    pub deprecated: Option<String>,
    /// Dense from 0.
    pub ordinal: u16,
    /// `None` for a bare case.
    pub ty: Option<Type>,
}

/// An interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// `persistent interface`: has state in the store and is referred to by uid.
    pub persistent: bool,
    /// Single inheritance, of the same kind.
    pub base: Option<ItemId>,
    /// Own state, without the base's.
    pub state: Vec<Field>,
    /// The constructor's parameters; empty where none is declared. Not inherited.
    pub constructor: Vec<Field>,
    /// `///` lines of `new(…)`.
    pub constructor_docs: Vec<String>,
    /// Own methods in the order of declaration, without the base's.
    pub methods: Vec<Method>,
}

/// A method.
#[derive(Clone, Debug)]
pub struct Method {
    /// snake_case; lowerCamelCase in Cap'n Proto.
    pub name: String,
    /// `///` lines.
    pub docs: Vec<String>,
    /// `#[deprecated("why")]`.
    pub deprecated: Option<String>,
    /// The Cap'n Proto method ordinal; dense from 0 in its interface.
    pub ordinal: u16,
    /// `&mut self`: takes a WRITE lock and gets `&mut State`.
    pub mutating: bool,
    /// `#[upgrade]`, of a method that is not mutating: takes an UPGRADE lock instead of a READ
    /// lock, since its action is going to write.
    pub upgrade: bool,
    /// Parameters after the receiver. On the wire they follow the call context, which is
    /// parameter 0: field `ordinal` n is Cap'n Proto member n + 1 before groups are counted.
    pub params: Vec<Field>,
    /// `None` without `->`.
    pub result: Option<Type>,
    /// Exceptions, in order.
    pub raises: Vec<ItemId>,
    /// `#[idempotent]`: may be retried silently.
    pub idempotent: bool,
    /// `#[blocking]`: its servant may compute or block for long, so it runs on a thread of its
    /// own.
    pub blocking: bool,
    /// `#[any_replica]`, of a method that is not mutating: any copy of the object may answer it,
    /// and the nearest one is asked.
    pub any_replica: bool,
    /// `#[deadline("5s")]` in microseconds.
    pub deadline_us: Option<u64>,
}

/// A type as used by a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// One bit.
    Bool,
    /// Signed integers.
    I8,
    /// 16 bits.
    I16,
    /// 32 bits.
    I32,
    /// 64 bits.
    I64,
    /// Unsigned integers.
    U8,
    /// 16 bits.
    U16,
    /// 32 bits.
    U32,
    /// 64 bits.
    U64,
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 64 bits.
    F64,
    /// UTF-8.
    String,
    /// Bytes.
    Bytes,
    /// An object's identity: `struct Uid { node :UInt64; local :UInt64 }` of the system module.
    Uid,
    /// Microseconds since 1970, UTC: Int64.
    Timestamp,
    /// Microseconds: Int64, not negative.
    Duration,
    /// `list<T>`; T is no `option` of an `option`.
    List(Box<Self>),
    /// `map<K, V>`; K is bool, an integer, `string`, `bytes`, `uid`, `timestamp`, `duration` or
    /// an enum.
    Map(Box<Self>, Box<Self>),
    /// `option<T>`; T is no option.
    Option(Box<Self>),
    /// A struct.
    Struct(ItemId),
    /// An enum.
    Enum(ItemId),
    /// A union.
    Union(ItemId),
    /// A reference to an object of a persistent interface, or a capability of a transient one:
    /// see [`Interface::persistent`] of the item.
    Interface(ItemId),
}

impl Model {
    /// The item with this id.
    #[must_use]
    pub fn item(&self, id: ItemId) -> &Item {
        &self.items[id.0 as usize]
    }

    /// The module with this id.
    #[must_use]
    pub fn module(&self, id: ModuleId) -> &Module {
        &self.modules[id.0 as usize]
    }

    /// The interface with this id.
    ///
    /// # Panics
    /// If the item is no interface: a bug in the resolver.
    #[must_use]
    pub fn interface(&self, id: ItemId) -> &Interface {
        match &self.item(id).kind {
            ItemKind::Interface(interface) => interface,
            other => panic!("item {id:?} is no interface but {other:?}"),
        }
    }

    /// The interface and its bases, most derived first.
    pub fn ancestry(&self, id: ItemId) -> impl Iterator<Item = ItemId> + '_ {
        std::iter::successors(Some(id), |id| self.interface(*id).base)
    }
}
