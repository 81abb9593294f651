//! Stable ids: Cap'n Proto's own rules, so that every tool computes the same.
//!
//! An id is the first eight bytes of an MD5 digest, read big-endian, with the top bit set. The
//! digest is over the parent's id (little-endian) and what tells its children apart.

use md5::{Digest, Md5};

/// The top bit, set in every id: smaller numbers could be mistaken for ordinals.
pub const ID_MARK: u64 = 1 << 63;

/// Id of a module without `#[id(0x…)]`: from its name alone, wherever its file lies.
#[must_use]
pub fn module_id(name: &str) -> u64 {
    digest(&[b"partha:", name.as_bytes()])
}

/// Id of a named declaration inside `parent`, a module or a type.
#[must_use]
pub fn child_id(parent: u64, name: &str) -> u64 {
    digest(&[&parent.to_le_bytes(), name.as_bytes()])
}

/// Id of the group that is the `index`-th member of the struct `parent`, as the compiler counts.
#[must_use]
pub fn group_id(parent: u64, index: u16) -> u64 {
    digest(&[&parent.to_le_bytes(), &index.to_le_bytes()])
}

/// Id of the implicit struct of a method's parameters, or of its results.
#[must_use]
pub fn method_struct_id(interface: u64, ordinal: u16, results: bool) -> u64 {
    digest(&[
        &interface.to_le_bytes(),
        &ordinal.to_le_bytes(),
        &[u8::from(results)],
    ])
}

fn digest(parts: &[&[u8]]) -> u64 {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    let bytes = md5.finalize();
    let folded = bytes
        .iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte));
    folded | ID_MARK
}

#[cfg(test)]
mod tests {
    use super::*;

    // From Cap'n Proto's schema.capnp, whose types have no ids of their own.
    const SCHEMA_FILE: u64 = 0xa93f_c509_624c_72d9;
    const NODE: u64 = 0xe682_ab4c_f923_a417;

    #[test]
    fn children_as_capnp_numbers_them() {
        assert_eq!(child_id(SCHEMA_FILE, "Node"), NODE);
        assert_eq!(child_id(NODE, "Parameter"), 0xb952_1bcc_f10f_a3b1);
    }

    #[test]
    fn groups_as_capnp_numbers_them() {
        assert_eq!(group_id(NODE, 7), 0x9ea0_b19b_37fb_4435);
    }

    #[test]
    fn modules_are_marked_and_told_apart() {
        assert_eq!(module_id("bank"), 0xdf06_e231_901e_e435);
        assert_ne!(module_id("bank"), module_id("shop"));
        assert_eq!(module_id("bank") & ID_MARK, ID_MARK);
    }
}
