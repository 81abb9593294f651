//! Words with a meaning: ours, Rust's, Cap'n Proto's, and those of generated code.

/// What a declaration starts with.
pub(crate) const DECLARATIONS: [&str; 9] = [
    "use",
    "module",
    "const",
    "struct",
    "enum",
    "union",
    "exception",
    "interface",
    "persistent",
];

/// Built-in types without arguments.
pub(crate) const PLAIN_TYPES: [&str; 16] = [
    "bool",
    "i8",
    "i16",
    "i32",
    "i64",
    "u8",
    "u16",
    "u32",
    "u64",
    "f32",
    "f64",
    "string",
    "bytes",
    "uid",
    "timestamp",
    "duration",
];

/// Built-in types with arguments.
pub(crate) const GENERIC_TYPES: [&str; 4] = ["list", "map", "option", "table"];

/// Keywords that Rust does not allow as raw identifiers.
pub(crate) const NEVER_RAW: [&str; 5] = ["self", "Self", "super", "crate", "_"];

/// Methods that every stub has already, or that Rust code expects to mean something else.
pub(crate) const STUB_METHODS: [&str; 22] = [
    "as_ref",
    "await",
    "bind",
    "borrow",
    "class",
    "clone",
    "cmp",
    "create",
    "drop",
    "eq",
    "fmt",
    "from",
    "from_ref",
    "from_uid",
    "hash",
    "into",
    "ne",
    "new",
    "partial_cmp",
    "reference",
    "serve",
    "uid",
];

/// Those of them that only the stubs of persistent interfaces have.
pub(crate) const PERSISTENT_STUB_METHODS: [&str; 5] =
    ["bind", "create", "from_uid", "reference", "uid"];

/// Type names that mean something else in every `.capnp` file.
pub(crate) const CAPNP_TYPES: [&str; 20] = [
    "AnyList",
    "AnyPointer",
    "AnyStruct",
    "Bool",
    "Capability",
    "Data",
    "Float32",
    "Float64",
    "Int16",
    "Int32",
    "Int64",
    "Int8",
    "List",
    "Partha",
    "Text",
    "UInt16",
    "UInt32",
    "UInt64",
    "UInt8",
    "Void",
];

/// Structs that the generator adds to the module `partha`.
pub(crate) const INTRINSICS: [&str; 3] = ["CallContext", "ObjectRef", "Uid"];

/// The keyword for one that other languages use, or that is misspelt.
pub(crate) fn declaration_for(word: &str) -> Option<&'static str> {
    let known = match word {
        "trait" | "service" | "protocol" | "object" => "interface",
        "class" => "persistent interface",
        "message" | "record" | "type" => "struct",
        "oneof" | "variant" => "union",
        "error" => "exception",
        "import" | "include" | "using" => "use",
        "package" | "mod" | "namespace" => "module",
        "static" | "let" => "const",
        _ => return crate::suggest::nearest(word, DECLARATIONS.into_iter()),
    };
    Some(known)
}

/// The built-in type for a name that it has elsewhere.
pub(crate) fn type_for(name: &str) -> Option<&'static str> {
    let known = match name {
        "String" | "str" | "Text" | "text" | "char" => "string",
        "Bytes" | "Data" | "data" | "blob" => "bytes",
        "int" | "int64" | "Int64" | "i128" | "isize" | "long" | "sint64" => "i64",
        "int32" | "Int32" | "sint32" => "i32",
        "int16" | "Int16" | "short" => "i16",
        "int8" | "Int8" => "i8",
        "uint" | "uint64" | "UInt64" | "u128" | "usize" => "u64",
        "uint32" | "UInt32" => "u32",
        "uint16" | "UInt16" => "u16",
        "uint8" | "UInt8" | "byte" => "u8",
        "float" | "Float32" | "float32" => "f32",
        "double" | "Float64" | "float64" => "f64",
        "Bool" | "boolean" => "bool",
        "Vec" | "List" | "vec" | "array" | "sequence" | "repeated" => "list",
        "HashMap" | "BTreeMap" | "Map" | "dict" => "map",
        "Option" | "optional" | "Optional" => "option",
        "Uid" | "uuid" | "Uuid" => "uid",
        "Timestamp" | "SystemTime" | "datetime" | "time" => "timestamp",
        "Duration" => "duration",
        _ => return None,
    };
    Some(known)
}
