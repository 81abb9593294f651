//! Cap'n Proto's rules for ids that nobody wrote down.
//!
//! All of them are the first eight bytes of an MD5 over the parent's id and what tells this node
//! from its siblings, with the top bit set. Ids of modules and of items come resolved from the
//! model; what is here are the ids of nodes that only the back end knows.
//!
//! Source of the rules: Cap'n Proto's schema language documentation and `type-id.c++`.

use md5::{Digest, Md5};

/// The id of a node called `name` in the scope `parent`.
#[must_use]
pub fn child(parent: u64, name: &str) -> u64 {
    digest(&[&parent.to_le_bytes(), name.as_bytes()])
}

/// The id of a group or a named union, the `index`-th member of `parent`.
#[must_use]
pub fn group(parent: u64, index: u16) -> u64 {
    digest(&[&parent.to_le_bytes(), &index.to_le_bytes()])
}

/// The id of the struct that a method's parameter or result list stands for.
#[must_use]
pub fn method_struct(interface: u64, method: u16, results: bool) -> u64 {
    digest(&[
        &interface.to_le_bytes(),
        &method.to_le_bytes(),
        &[u8::from(results)],
    ])
}

/// The id of a module that states none.
#[must_use]
pub fn module(name: &str) -> u64 {
    digest(&[b"partha:", name.as_bytes()])
}

fn digest(parts: &[&[u8]]) -> u64 {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    let bytes: [u8; 16] = md5.finalize().into();
    let (first, _) = bytes.split_first_chunk().expect("an MD5 has 16 bytes");
    u64::from_be_bytes(*first) | 1 << 63
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_those_of_the_official_compiler() {
        assert_eq!(super::child(14938800379369832641, "E"), 9954719812540291875);
        assert_eq!(super::group(16091721883976679617, 15), 10325138916695285884);
        assert_eq!(
            super::method_struct(16091721883976679619, 0, false),
            15251908508011202977
        );
        assert_eq!(
            super::method_struct(16091721883976679619, 0, true),
            9672334723104771509
        );
    }
}
