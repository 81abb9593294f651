//! The layout of an LMDB data file (data version 1), as far as checking it needs.
//!
//! Numbers are in the byte order of the machine: LMDB writes its structs as they are in memory,
//! and refuses files of a foreign order by their magic number. Pure decoding, no files.

use crate::StoreError;

/// The magic number at the start of both meta pages.
const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
/// Page number of the root of an empty tree.
pub(super) const NO_PAGE: u64 = u64::MAX;
pub(super) const PAGE_HEADER_BYTES: usize = 16;
const NODE_HEADER_BYTES: usize = 8;
/// Bytes of a tree's description, in a meta page or as the value of a named table.
pub(super) const TREE_BYTES: usize = 48;
/// What LMDB needs to know of a file: page header, meta.
pub(super) const META_BYTES: usize = PAGE_HEADER_BYTES + 136;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;

/// The value is on overflow pages.
pub(super) const BIG: u16 = 0x01;
/// The value describes the tree of a named table.
pub(super) const SUB_TREE: u16 = 0x02;
/// Keys are numbers in the machine's byte order.
const INTEGER_KEY: u16 = 0x08;

/// The error for a page that cannot be right.
pub(super) fn wrong_page(page: u64, found: impl Into<String>) -> StoreError {
    let (what, key) = ("the store's file data.mdb", format!("page {page}"));
    StoreError::Corrupt {
        what,
        key,
        found: found.into(),
    }
}

/// The number at `at`; the caller has checked that it is inside.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let bytes = bytes[at..]
        .first_chunk()
        .expect("the caller checked the length");
    u16::from_ne_bytes(*bytes)
}

/// As [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at..]
        .first_chunk()
        .expect("the caller checked the length");
    u32::from_ne_bytes(*bytes)
}

/// As [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes[at..]
        .first_chunk()
        .expect("the caller checked the length");
    u64::from_ne_bytes(*bytes)
}

/// Where a tree is and what it should hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    pub(super) flags: u16,
    pub(super) depth: u16,
    pub(super) entries: u64,
    pub(super) root: u64,
    /// The page size, in the first tree of a meta page.
    pad: u32,
}

impl Tree {
    /// Decodes [`TREE_BYTES`].
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == TREE_BYTES).then(|| Self {
            pad: u32_at(bytes, 0),
            flags: u16_at(bytes, 4),
            depth: u16_at(bytes, 6),
            entries: u64_at(bytes, 32),
            root: u64_at(bytes, 40),
        })
    }
}

/// A meta page: one of the two latest committed states of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) page_size: usize,
    /// Pages that are not in use, by the transaction that freed them.
    pub(super) free: Tree,
    /// The names of the tables.
    pub(super) main: Tree,
    pub(super) last_page: u64,
    pub(super) transaction: u64,
}

impl Meta {
    /// Decodes meta page `page` from its first [`META_BYTES`].
    pub(super) fn parse(page: u64, bytes: &[u8; META_BYTES]) -> Result<Self, StoreError> {
        let wrong = |found: String| wrong_page(page, found);
        let body = &bytes[PAGE_HEADER_BYTES..];
        let flags = u16_at(bytes, 10);
        if u64_at(bytes, 0) != page || flags != META || u32_at(body, 0) != MAGIC {
            return Err(wrong("no meta page of LMDB".to_owned()));
        }
        let version = u32_at(body, 4);
        if version != DATA_VERSION {
            return Err(wrong(format!(
                "LMDB data version {version}, expected {DATA_VERSION}"
            )));
        }
        let tree = |at: usize| {
            Tree::parse(&body[at..at + TREE_BYTES]).expect("the slice is as long as a tree")
        };
        let (free, main) = (tree(24), tree(72));
        let page_size = free.pad as usize;
        if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
            return Err(wrong(format!("a page size of {page_size} bytes")));
        }
        if free.flags != INTEGER_KEY || main.flags != 0 {
            let found = format!("tree flags {:#x} and {:#x}", free.flags, main.flags);
            return Err(wrong(found));
        }
        let (last_page, transaction) = (u64_at(body, 120), u64_at(body, 128));
        Ok(Self {
            page_size,
            free,
            main,
            last_page,
            transaction,
        })
    }

    /// Bytes of the file up to the last page ever used.
    pub(super) fn used_bytes(&self) -> u64 {
        self.last_page
            .saturating_add(1)
            .saturating_mul(self.page_size as u64)
    }
}

/// A branch or leaf page that was checked for consistency in itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'p> {
    number: u64,
    bytes: &'p [u8],
    pub(super) is_leaf: bool,
    /// How many nodes.
    pub(super) len: usize,
}

/// One entry of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'p> {
    pub(super) key: &'p [u8],
    pub(super) value: Value<'p>,
}

/// What belongs to a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'p> {
    /// In a branch: the page with the keys from this one on.
    Child(u64),
    /// In a leaf: the value itself, and whether it describes a tree.
    Inline { bytes: &'p [u8], is_tree: bool },
    /// In a leaf: first overflow page and length of a large value.
    Big { page: u64, len: usize },
}

impl<'p> Page<'p> {
    /// Checks the header of page `number` and that its nodes have room in it.
    pub(super) fn parse(number: u64, bytes: &'p [u8]) -> Result<Self, StoreError> {
        let wrong = |found: String| wrong_page(number, found);
        if u64_at(bytes, 0) != number {
            return Err(wrong(format!("page number {}", u64_at(bytes, 0))));
        }
        let is_leaf = match u16_at(bytes, 10) {
            LEAF => true,
            BRANCH => false,
            flags => return Err(wrong(format!("page flags {flags:#x}"))),
        };
        let (lower, upper) = (
            usize::from(u16_at(bytes, 12)),
            usize::from(u16_at(bytes, 14)),
        );
        let sane = (PAGE_HEADER_BYTES..=upper).contains(&lower) && upper <= bytes.len();
        let len = lower.saturating_sub(PAGE_HEADER_BYTES) / 2;
        if !sane || lower % 2 != 0 || len < if is_leaf { 1 } else { 2 } {
            return Err(wrong(format!("bounds {lower} and {upper}")));
        }
        let page = Self {
            number,
            bytes,
            is_leaf,
            len,
        };
        let mut nodes_bytes = 0;
        for index in 0..len {
            nodes_bytes += page.node_bytes(index, upper)?;
        }
        if nodes_bytes > bytes.len() - upper {
            return Err(wrong("nodes that overlap".to_owned()));
        }
        Ok(page)
    }

    /// The size of a node, after a check that it is inside.
    fn node_bytes(&self, index: usize, upper: usize) -> Result<usize, StoreError> {
        let at = self.offset(index);
        let outside = || wrong_page(self.number, format!("node {index} outside of the page"));
        if at < upper || !at.is_multiple_of(2) || at + NODE_HEADER_BYTES > self.bytes.len() {
            return Err(outside());
        }
        let flags = u16_at(self.bytes, at + 4);
        let value_bytes = match (self.is_leaf, flags) {
            (false, _) => 0,
            (true, BIG) => 8,
            (true, 0 | SUB_TREE) => self.value_len(at),
            (true, _) => {
                return Err(wrong_page(self.number, format!("node flags {flags:#x}")));
            }
        };
        let len = NODE_HEADER_BYTES + usize::from(u16_at(self.bytes, at + 6)) + value_bytes;
        if len > self.bytes.len() - at {
            return Err(outside());
        }
        Ok(len.next_multiple_of(2))
    }

    fn offset(&self, index: usize) -> usize {
        usize::from(u16_at(self.bytes, PAGE_HEADER_BYTES + 2 * index))
    }

    fn value_len(&self, at: usize) -> usize {
        let (low, high) = (u16_at(self.bytes, at), u16_at(self.bytes, at + 2));
        usize::from(low) | usize::from(high) << 16
    }

    /// The node with this index, below [`Page::len`].
    pub(super) fn node(&self, index: usize) -> Node<'p> {
        let at = self.offset(index);
        let bytes: &'p [u8] = self.bytes;
        let flags = u16_at(bytes, at + 4);
        let value_at = at + NODE_HEADER_BYTES + usize::from(u16_at(bytes, at + 6));
        let key = &bytes[at + NODE_HEADER_BYTES..value_at];
        let len = self.value_len(at);
        let value = if !self.is_leaf {
            Value::Child(len as u64 | u64::from(flags) << 32)
        } else if flags == BIG {
            Value::Big {
                page: u64_at(bytes, value_at),
                len,
            }
        } else {
            Value::Inline {
                bytes: &bytes[value_at..value_at + len],
                is_tree: flags == SUB_TREE,
            }
        };
        Node { key, value }
    }
}

/// How a tree sorts its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As bytes.
    Bytes,
    /// As 8-byte numbers in the machine's byte order.
    Number,
}

impl Order {
    /// Compares two keys.
    pub(super) fn compare(self, a: &[u8], b: &[u8]) -> std::cmp::Ordering {
        match (self, a.first_chunk(), b.first_chunk()) {
            (Self::Number, Some(a), Some(b)) => u64::from_ne_bytes(*a).cmp(&u64::from_ne_bytes(*b)),
            (Self::Number | Self::Bytes, _, _) => a.cmp(b),
        }
    }
}
