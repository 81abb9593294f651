//! The one table of codes: what each means, and a file that produces it.
//!
//! Codes are stable: a code that is no longer given is not given to anything else. The examples
//! are the failing files of the corpus, so they are known to produce their code.

/// What `partha explain` says about a code.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// `E0201`; warnings start with `W`.
    pub code: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// The rule, and its reason.
    pub text: &'static str,
    /// A file that produces it; `None` where no text can.
    pub example: Option<&'static str>,
}

/// The explanation of a code, in upper or lower case.
#[must_use]
pub fn explain(code: &str) -> Option<&'static Explanation> {
    explanations()
        .iter()
        .find(|known| known.code.eq_ignore_ascii_case(code))
        .copied()
}

/// All codes in order.
#[must_use]
pub fn explanations() -> &'static [&'static Explanation] {
    ALL
}

macro_rules! codes {
    ($($name:ident $code:literal $title:literal $example:expr, $text:literal;)*) => {
        $(
            pub(crate) static $name: Explanation = Explanation {
                code: $code,
                title: $title,
                text: $text,
                example: $example,
            };
        )*
        static ALL: &[&Explanation] = &[$(&$name),*];
    };
}

macro_rules! example {
    ($kind:literal, $file:literal) => {
        Some(include_str!(concat!(
            "../tests/ui/",
            $kind,
            "/",
            $file,
            ".idl"
        )))
    };
}

codes! {
    // What keeps a file from being read
    UNREADABLE "E0001" "a file cannot be read"
        None,
        "The file that was named, or that a `use` line leads to, does not exist, is not a \
         regular file, or may not be read.";
    TOO_LARGE "E0002" "a file is too large"
        example!("fail", "too_large"),
        "One file may have 16 MiB. Split the module.";
    NOT_UTF8 "E0003" "a file is not UTF-8"
        None,
        "IDL files are UTF-8, with or without a byte order mark. The message gives the \
         offset of the first byte that is not. Most editors can save a file with another \
         encoding.";
    BRACKET "E0004" "a bracket does not match"
        example!("fail", "bracket_mismatch"),
        "Every `(`, `[` and `{` is closed by its own kind. Nothing else in the file is \
         looked at until this is right.";
    DEPTH "E0005" "something is nested too deeply"
        example!("fail", "too_deep"),
        "Brackets, and types in types, may be nested 64 levels deep.";
    ENDLESS "E0006" "a string or a comment has no end"
        example!("fail", "endless_string"),
        "A string ends with `\"`, a comment that starts with `/*` ends with `*/`.";
    TOKEN "E0007" "something is no token"
        example!("fail", "token"),
        "An IDL file consists of Rust's tokens: names, numbers, strings in double quotes, \
         punctuation and comments.";
    // Form
    SYNTAX "E0101" "something else was expected"
        example!("fail", "syntax"),
        "The text does not have the form of a declaration or of a member. The rest of the \
         file is read on from the next one.";
    MODULE_LINE "E0102" "the `module` line is missing or misplaced"
        example!("fail", "module_missing"),
        "A file is one module. Its first line, after the documentation, is `module name;`.";
    RECEIVER "E0103" "a method has no receiver"
        example!("fail", "receiver"),
        "A method that only reads takes `&self`, one that changes the object takes `&mut \
         self`. It chooses the lock that a call takes.";
    BODY "E0104" "a method has a body"
        example!("fail", "body"),
        "The IDL declares; methods are written in Rust, in the servant.";
    PATH "E0105" "a name has a path"
        example!("fail", "path"),
        "Names of other modules are made known by a `use` line and then written without \
         their module.";
    TYPE_ARGUMENTS "E0106" "a type has the wrong number of arguments"
        example!("fail", "type_arguments"),
        "`list<T>` and `option<T>` take one argument, `map<K, V>` takes two, all other \
         types take none.";
    STRAY_DOCS "E0107" "documentation or an attribute stands before nothing"
        example!("fail", "stray_docs"),
        "Documentation and attributes stand before what they are about. `//!` documents the \
         module and stands at the start of the file.";
    TWICE_IN_INTERFACE "E0108" "`state` or `new` stands twice in an interface"
        example!("fail", "state_twice"),
        "An interface has one `state { … }` and one `new(…)` at most.";
    // Names
    NAME_UNKNOWN "E0201" "a name is not known"
        example!("fail", "unknown_type"),
        "A name means a declaration of the same file, one that is imported by `use`, or a \
         built-in type.";
    NAME_KIND "E0202" "a name means another kind of thing"
        example!("fail", "name_kind"),
        "Types are built in or declared by `struct`, `enum`, `union` or `interface`; behind \
         `raises` stand exceptions, behind the `:` of an interface an interface.";
    ITEM_TWICE "E0203" "a name is declared twice in a module"
        example!("fail", "item_twice"),
        "Declarations and imported names of a module share one space of names. An imported \
         one can be given another name by `as`.";
    MEMBER_TWICE "E0204" "a member is declared twice"
        example!("fail", "member_twice"),
        "The members of one declaration have different names.";
    NAMES_MERGE "E0205" "two names become one"
        example!("fail", "names_merge"),
        "A name is used in Rust as it is and in Cap'n Proto in lowerCamelCase: `foo_bar` is \
         `fooBar` there. An interface `Account` has a Rust module `account`. Two names that \
         become one in either language are refused.";
    NAME_STYLE "E0206" "a name is not spelt as its kind is"
        example!("fail", "name_style"),
        "Modules and members are spelt in snake_case, types and the values of enums in \
         UpperCamelCase, constants in SCREAMING_SNAKE_CASE: the generated code of every \
         language depends on it.";
    NAME_FORM "E0207" "a name is not plain"
        example!("fail", "name_form"),
        "Names are made of letters and digits of ASCII and `_`, at most 120 of them: Cap'n \
         Proto allows no others.";
    NAME_RESERVED "E0208" "a name is reserved"
        example!("fail", "name_reserved"),
        "Some names are taken: Rust's keywords `self`, `Self`, `super` and `crate`, methods \
         that every stub has, types that every `.capnp` file has, the parameter `context`, \
         and a few more. Rust's other keywords may be used.";
    // Modules
    MODULE_UNKNOWN "E0301" "a module is not found"
        example!("fail", "module_unknown"),
        "`use shop::Order;` looks for `shop.idl` beside the file, then in the include \
         folders.";
    USE_UNKNOWN "E0302" "a module does not declare a name"
        example!("fail", "use_unknown"),
        "Only what a module declares itself can be used from it, not what it imports.";
    IMPORT_CYCLE "E0303" "modules import each other in a circle"
        example!("fail", "import_cycle"),
        "A module cannot import itself, not even by way of others.";
    FILE_NAME "E0304" "a module stands in a file of another name"
        example!("fail", "file_name"),
        "Module `bank` stands in `bank.idl`: so it is found by name.";
    MODULE_TWICE "E0305" "a module's name is taken"
        example!("fail", "module_twice"),
        "A module's name makes its id and the names of the generated files. No two files of \
         a compilation have the same, and none has that of a built-in module.";
    ID_COLLISION "E0306" "two ids are the same"
        example!("fail", "id_collision"),
        "Ids are computed from names, by Cap'n Proto's rule, or given by `#[id(0x…)]` \
         before `module`. They are unique.";
    MODULE_ID "E0307" "a module's id is not valid"
        example!("fail", "module_id"),
        "An id has 64 bits, the highest of which is set.";
    // Types and interfaces
    MAP_KEY "E0401" "a type cannot be the key of a map"
        example!("fail", "map_key"),
        "Keys have an order and equality that all languages agree on: bool, integers, \
         string, bytes, uid, timestamp, duration and enums.";
    OPTION_NESTED "E0402" "an option in an option"
        example!("fail", "option_nested"),
        "An absent value and a present one that is absent cannot be told apart. Declare a \
         `union` if you need three cases.";
    VALUE_CYCLE "E0403" "a value holds itself"
        example!("fail", "value_cycle"),
        "Structs and unions are stored in place, also in an `option`, so none can hold \
         itself, not even by way of others. A `list` or a `map` breaks the circle.";
    STATE_TRANSIENT "E0404" "what is not persistent is kept in state"
        example!("fail", "state_transient"),
        "State outlives the process, but a reference to an object of an interface that is \
         not persistent does not. The parameters of `new` become state, too.";
    BASE_KIND "E0405" "an interface inherits from one of the other kind"
        example!("fail", "base_kind"),
        "Persistent interfaces inherit from persistent ones, others from others.";
    BASE_CYCLE "E0406" "interfaces inherit from each other in a circle"
        example!("fail", "base_cycle"),
        "An interface cannot be its own base, not even by way of others.";
    BASES_MANY "E0407" "a line of inheritance is too long"
        example!("fail", "bases_many"),
        "At most 64 interfaces inherit one from the other. (The example is for a limit of \
         1.)";
    INHERITED_TWICE "E0408" "an inherited method is declared again"
        example!("fail", "inherited_twice"),
        "Methods are inherited as they are: a caller of the base must be able to use the \
         derived interface. The servant of a derived class writes its own body for each.";
    RAISES_TWICE "E0409" "an exception is listed twice"
        example!("fail", "raises_twice"),
        "Each exception stands once behind `raises`; two of the same name from different \
         modules cannot be told apart in the generated error type.";
    TRANSIENT_MEMBER "E0410" "`state` or `new` in an interface that is not persistent"
        example!("fail", "transient_member"),
        "Objects of such an interface live in the process that made them, are made by it, \
         and are not stored.";
    CONST_TYPE "E0411" "a type that constants do not have"
        example!("fail", "const_type"),
        "Constants are bool, numbers, strings, timestamps and durations (both in \
         microseconds).";
    CONST_VALUE "E0412" "a constant's value does not fit its type"
        example!("fail", "const_value"),
        "The value is written as its type asks for, without a suffix, and lies in its \
         range.";
    MEMBERS_FEW "E0413" "too few members"
        example!("fail", "members_few"),
        "An enum has at least one value, a union at least two cases.";
    MEMBERS_MANY "E0414" "too many members"
        example!("fail", "members_many"),
        "Cap'n Proto numbers members with 16 bits. An optional number, bool or enum counts \
         twice. (The example is for a limit of 3.)";
    // Attributes and ordinals
    ATTRIBUTE_UNKNOWN "E0501" "an attribute is not known"
        example!("fail", "attribute_unknown"),
        "The attributes are `idempotent`, `deadline`, `upgrade`, `blocking`, `any_replica`, \
         `deprecated` and `id`.";
    ATTRIBUTE_PLACE "E0502" "an attribute stands in the wrong place"
        example!("fail", "attribute_place"),
        "`#[idempotent]`, `#[deadline]`, `#[upgrade]`, `#[blocking]` and `#[any_replica]` stand \
         before methods, `#[id]` before `module`, `#[deprecated]` before declarations, members \
         and methods.";
    ATTRIBUTE_ARGUMENT "E0503" "an attribute's argument is wrong"
        example!("fail", "attribute_argument"),
        "`#[deadline(\"5s\")]` takes a time with a unit of us, ms, s, m or h; \
         `#[deprecated(\"why\")]` a reason; `#[idempotent]`, `#[upgrade]`, `#[blocking]` and \
         `#[any_replica]` nothing.";
    ATTRIBUTE_TWICE "E0504" "an attribute stands twice"
        example!("fail", "attribute_twice"),
        "Each attribute stands once before a declaration.";
    ORDINALS_MIXED "E0505" "only some ordinals are pinned"
        example!("fail", "ordinals_mixed"),
        "Ordinals follow the order of declaration, or all members of a list are pinned by \
         `@n`.";
    ORDINAL_GAP "E0506" "ordinals have a gap"
        example!("fail", "ordinal_gap"),
        "The ordinals of n members are 0 to n - 1. One that is no longer used stays, marked \
         as deprecated: what old programs send there must stay readable.";
    ORDINAL_TWICE "E0507" "an ordinal is taken"
        example!("fail", "ordinal_twice"),
        "No two members of a list have the same ordinal.";
    UPGRADE_METHOD "E0508" "`#[upgrade]` stands before a method that it is not for"
        example!("fail", "attribute_upgrade"),
        "`#[upgrade]` is for methods with `&self` of persistent interfaces: such a method reads, \
         and its action is going to write. One with `&mut self` takes the stronger write lock \
         anyway, and objects that are not persistent take no part in actions.";
    ANY_REPLICA_METHOD "E0509" "`#[any_replica]` stands before a method that it is not for"
        example!("fail", "attribute_any_replica"),
        "`#[any_replica]` is for methods with `&self` of persistent interfaces: such a method \
         reads, so that any copy of the object can answer it. What changes an object goes \
         through the copy that leads, `#[upgrade]` is about an action that is going to, and \
         objects that are not persistent have no copies.";
    // Planned
    LATER_STREAM "E0901" "`stream` is not supported yet"
        example!("fail", "later_stream"),
        "`-> stream T` is reserved for results that come piece by piece.";
    LATER_COMPENSATE "E0902" "`#[compensate]` is not supported yet"
        example!("fail", "later_compensate"),
        "`#[compensate(method)]` is reserved for methods that are undone by another.";
    LATER_LOCK "E0903" "`#[lock]` and `locks` are not supported yet"
        example!("fail", "later_lock"),
        "`#[lock(name)]` and `locks { … }` are reserved for locks with a table of \
         conflicts. Today `&self` takes a read lock and `&mut self` a write lock.";
    LATER_TABLE "E0905" "`table` is not supported yet"
        example!("fail", "later_table"),
        "`table<K, V>` is reserved for rows that are stored each on its own. A `map` is \
         stored and read as a whole.";
    // Warnings
    DEPRECATED "W0001" "something deprecated is used"
        example!("warn", "deprecated"),
        "The declaration says what to use instead. What is itself deprecated may use what \
         is deprecated.";
    UNUSED_IMPORT "W0002" "an import is not used"
        example!("warn", "unused_import"),
        "The name is imported and does not occur in the file.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<&str> = explanations().iter().map(|known| known.code).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
    }

    #[test]
    fn any_case_is_found() {
        assert_eq!(explain("e0201"), Some(&NAME_UNKNOWN));
        assert_eq!(explain("E9999"), None);
    }
}
