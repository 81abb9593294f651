//! Checking a data file before LMDB maps it.
//!
//! LMDB trusts its file: a truncated one ends the process by a signal, a flipped bit in a branch
//! page loses keys silently or jumps out of the map, and a flipped bit in a meta page brings back
//! an older state. So the file is read and checked beforehand, with plain reads and safe code:
//!
//! - always: both meta pages, that they follow each other, that each belongs to the list of free
//!   pages it points to, and that the file is as long as the pages in use;
//! - up to a size limit: the whole newest state. Every page is where it says it is, every key is
//!   in order and inside the range its parents promise, the number of entries is the one counted
//!   at commit, no page is used twice nor free and used at once, every value passes its checksum.
//!
//! Together with the checksums tested at each read this makes a damaged file an error and never a
//! wrong answer. What it cannot find: an old image of a page that is consistent in itself and
//! fits its place (a lost write of the disk), and damage done after the store was opened to inner
//! pages (damaged values are found then, too).

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::pages::{
    META_BYTES, Meta, NO_PAGE, OVERFLOW, Order, PAGE_HEADER_BYTES, Page, Tree, Value, u16_at,
    u32_at, u64_at, wrong_page,
};
use crate::StoreError;
use crate::format::{self, Kind};
use crate::tables::Table;

/// LMDB's own limit of the depth of a tree.
const DEPTH_MAX: u16 = 32;
/// Pages that may be neither in use nor free, besides an eighth of them all.
const UNACCOUNTED_MAX: u64 = 256;

/// How to check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checks {
    /// Files up to this size are checked whole.
    pub(super) whole_bytes_max: u64,
    /// Accept that the newest commit is lost, if the state before it is sound.
    pub(super) accept_older: bool,
}

/// What was found in a sound file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    /// Bytes up to the last page ever used.
    pub(super) used_bytes: u64,
    /// Whether every page and value was checked.
    pub(super) whole: bool,
}

/// Checks the file. `None` if there is none yet, or an empty one.
pub(super) fn check_file(path: &Path, checks: Checks) -> Result<Option<Summary>, StoreError> {
    let io_error = |source: io::Error| StoreError::Io {
        what: "cannot read",
        path: path.to_owned(),
        outcome_unknown: false,
        source: Arc::new(source),
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let file_bytes = file.metadata().map_err(io_error)?.len();
    if file_bytes == 0 {
        return Ok(None);
    }
    let source = Source {
        file: &file,
        file_bytes,
        io_error: &io_error,
    };
    let meta = newest_meta(&source, checks.accept_older)?;
    let used_bytes = meta.used_bytes();
    // A file may end before its last page if the pages at its end are free. That is rare and
    // looks like a truncated one, so it is looked at closely whatever its size.
    let whole = used_bytes <= checks.whole_bytes_max || file_bytes < used_bytes;
    if whole {
        Walk::new(&source, &meta).whole()?;
    }
    Ok(Some(Summary { used_bytes, whole }))
}

/// A file that is read page by page.
struct Source<'f> {
    file: &'f File,
    file_bytes: u64,
    io_error: &'f dyn Fn(io::Error) -> StoreError,
}

impl Source<'_> {
    fn read(&self, page: u64, page_size: usize, buffer: &mut [u8]) -> Result<(), StoreError> {
        let at = page.checked_mul(page_size as u64);
        let end = at.and_then(|at| at.checked_add(buffer.len() as u64));
        let Some(at) = at.filter(|_| end.is_some_and(|end| end <= self.file_bytes)) else {
            let found = format!("the file ends before it, at {} bytes", self.file_bytes);
            return Err(wrong_page(page, found));
        };
        self.file.read_exact_at(buffer, at).map_err(self.io_error)
    }
}

/// The meta page that LMDB will choose, after checks of both.
fn newest_meta(source: &Source<'_>, accept_older: bool) -> Result<Meta, StoreError> {
    let mut bytes = [0; META_BYTES];
    source.read(0, META_BYTES, &mut bytes)?;
    let first = Meta::parse(0, &bytes)?;
    source.read(1, first.page_size, &mut bytes)?;
    let second = Meta::parse(1, &bytes)?;
    if first.page_size != second.page_size {
        return Err(wrong_page(
            1,
            format!("a page size of {} bytes", second.page_size),
        ));
    }
    // LMDB keeps transaction n in page n mod 2, so the two differ by one; a new file has 0 twice.
    let (a, b) = (first.transaction, second.transaction);
    let fresh = a == 0 && b == 0;
    if !fresh && (a.abs_diff(b) != 1 || a % 2 != 0) {
        return Err(wrong_page(
            0,
            format!("transactions {a} and {b} in the meta pages"),
        ));
    }
    let (newest, older, older_page) = if b > a {
        (second, first, 0)
    } else {
        (first, second, 1)
    };
    check_age(source, &newest)?.map_or(Ok(()), |freed| {
        Err(wrong_age(1 - older_page, &newest, freed))
    })?;
    if let Some(freed) = check_age(source, &older)? {
        if !accept_older {
            return Err(wrong_age(older_page, &older, freed));
        }
        tracing::warn!(
            transaction = newest.transaction,
            "the other meta page of the store belongs to transaction {freed}; going on without it"
        );
    }
    Ok(newest)
}

fn wrong_age(page: u64, meta: &Meta, freed: u64) -> StoreError {
    let found = format!(
        "transaction {} in the meta page, but its free pages are of transaction {freed}: the \
         newest commit may be lost (accept_older opens the state before it)",
        meta.transaction
    );
    wrong_page(page, found)
}

/// Every transaction frees at least the page it replaced at the root, under its own number: the
/// last key of the free tree must be the transaction of the meta page. The other number, if not.
fn check_age(source: &Source<'_>, meta: &Meta) -> Result<Option<u64>, StoreError> {
    // The first transaction of a file has nothing to free.
    if meta.transaction < 2 {
        return Ok(None);
    }
    let mut number = meta.free.root;
    let mut buffer = vec![0; meta.page_size];
    for _ in 0..DEPTH_MAX {
        if number == NO_PAGE {
            return Ok(Some(0));
        }
        source.read(number, meta.page_size, &mut buffer)?;
        let page = Page::parse(number, &buffer)?;
        let last = page.node(page.len - 1);
        match last.value {
            Value::Child(child) => number = child,
            Value::Inline { .. } | Value::Big { .. } => {
                let newest = last
                    .key
                    .first_chunk()
                    .map_or(0, |key| u64::from_ne_bytes(*key));
                return Ok((newest != meta.transaction).then_some(newest));
            }
        }
    }
    Err(wrong_page(number, "a tree of free pages without end"))
}

/// The walk over one committed state.
struct Walk<'w> {
    source: &'w Source<'w>,
    meta: &'w Meta,
    /// One bit a page: used or free.
    seen: Vec<u64>,
    /// How many pages are used or free.
    accounted: u64,
}

/// What happens to an entry of a leaf.
type Entry<'e> = &'e mut dyn FnMut(&mut Walk<'_>, &[u8], Found<'_>) -> Result<(), StoreError>;

/// A value, wherever it is.
struct Found<'v> {
    bytes: &'v [u8],
    is_tree: bool,
}

/// The range of keys that a page may hold: from `low`, below `high`.
#[derive(Clone, Copy)]
struct Range<'k> {
    order: Order,
    low: Option<&'k [u8]>,
    high: Option<&'k [u8]>,
}

impl<'w> Walk<'w> {
    fn new(source: &'w Source<'w>, meta: &'w Meta) -> Self {
        // Never more than the file has room for, whatever the meta page says.
        let pages = meta
            .last_page
            .min(source.file_bytes / 512)
            .saturating_add(1);
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            source,
            meta,
            seen: vec![0; words],
            accounted: 0,
        }
    }

    fn whole(mut self) -> Result<(), StoreError> {
        let mut trees = Vec::new();
        self.tree(&self.meta.main, Order::Bytes, &mut |_, name, found| {
            let tree = Tree::parse(found.bytes).filter(|_| found.is_tree);
            let Some(tree) = tree.filter(|tree| tree.flags == 0) else {
                return Err(wrong_page(0, "a table without a description"));
            };
            trees.push((name.to_vec(), tree));
            Ok(())
        })?;
        check_names(&trees)?;
        for (name, tree) in trees {
            let table = Table::ALL
                .into_iter()
                .find(|table| table.name().as_bytes() == name);
            self.tree(&tree, Order::Bytes, &mut |_, key, found| {
                if found.is_tree {
                    return Err(wrong_page(tree.root, "a table inside a table"));
                }
                table.map_or(Ok(()), |table| check_value(table, key, found.bytes))
            })?;
        }
        self.tree(&self.meta.free, Order::Number, &mut |walk, key, found| {
            walk.free_pages(key, found.bytes)
        })?;
        // LMDB accounts for every page, but would not mind to lose some. A last page that is far
        // off would make it grow the file by as much.
        let pages = self.meta.last_page.saturating_sub(1);
        if pages - pages / 8 > self.accounted + UNACCOUNTED_MAX {
            let found = format!("{} of {pages} pages in use or free", self.accounted);
            return Err(wrong_page(0, found));
        }
        Ok(())
    }

    /// The free pages of one transaction: a count, then so many page numbers.
    fn free_pages(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        let wrong = || wrong_page(self.meta.free.root, "a list of free pages that is none");
        if key.len() != 8 || bytes.len() < 8 || !bytes.len().is_multiple_of(8) {
            return Err(wrong());
        }
        let count = usize::try_from(u64_at(bytes, 0)).map_err(|_| wrong())?;
        if count > bytes.len() / 8 - 1 {
            return Err(wrong());
        }
        for index in 1..=count {
            let page = u64_at(bytes, 8 * index);
            // Free pages past the end of the file were never written.
            if page.saturating_mul(self.meta.page_size as u64) < self.source.file_bytes {
                self.mark(page, 1)?;
            } else if page > self.meta.last_page {
                return Err(wrong_page(page, "a free page past the last one"));
            } else {
                self.accounted += 1;
            }
        }
        Ok(())
    }

    /// Notes pages as seen; each may be seen once.
    fn mark(&mut self, first: u64, count: u64) -> Result<(), StoreError> {
        let end = first.saturating_add(count);
        if first < 2 || end > self.meta.last_page.saturating_add(1) {
            return Err(wrong_page(first, "a page outside of the pages in use"));
        }
        for page in first..end {
            let word = usize::try_from(page / 64)
                .ok()
                .and_then(|i| self.seen.get_mut(i));
            let Some(word) = word else {
                return Err(wrong_page(page, "the file ends before it"));
            };
            let bit = 1 << (page % 64);
            if *word & bit != 0 {
                return Err(wrong_page(
                    page,
                    "a page that is used twice, or used and free",
                ));
            }
            *word |= bit;
        }
        self.accounted += count;
        Ok(())
    }

    fn tree(&mut self, tree: &Tree, order: Order, entry: Entry<'_>) -> Result<(), StoreError> {
        if tree.depth > DEPTH_MAX || (tree.root == NO_PAGE) != (tree.depth == 0) {
            return Err(wrong_page(
                tree.root,
                format!("a tree of depth {}", tree.depth),
            ));
        }
        let mut entries = 0;
        if tree.root != NO_PAGE {
            let all = Range {
                order,
                low: None,
                high: None,
            };
            entries = self.page(tree.root, tree.depth, all, entry)?;
        }
        if entries != tree.entries {
            let found = format!("{entries} entries in a tree of {}", tree.entries);
            return Err(wrong_page(tree.root, found));
        }
        Ok(())
    }

    /// Checks a page and all below it; the number of entries.
    fn page(
        &mut self,
        number: u64,
        depth: u16,
        range: Range<'_>,
        entry: Entry<'_>,
    ) -> Result<u64, StoreError> {
        self.mark(number, 1)?;
        let mut buffer = vec![0; self.meta.page_size];
        self.source.read(number, self.meta.page_size, &mut buffer)?;
        let page = Page::parse(number, &buffer)?;
        if page.is_leaf != (depth == 1) {
            return Err(wrong_page(
                number,
                format!("the wrong kind of page at depth {depth}"),
            ));
        }
        check_order(number, &page, range)?;
        let mut entries = 0;
        for index in 0..page.len {
            let node = page.node(index);
            match node.value {
                Value::Child(child) => {
                    let low = if index == 0 {
                        range.low
                    } else {
                        Some(node.key)
                    };
                    let next = index + 1;
                    let high = if next < page.len {
                        Some(page.node(next).key)
                    } else {
                        range.high
                    };
                    let inner = Range { low, high, ..range };
                    entries += self.page(child, depth - 1, inner, &mut *entry)?;
                }
                Value::Inline { bytes, is_tree } => {
                    entry(self, node.key, Found { bytes, is_tree })?;
                    entries += 1;
                }
                Value::Big { page, len } => {
                    let bytes = self.big_value(page, len)?;
                    entry(
                        self,
                        node.key,
                        Found {
                            bytes: &bytes,
                            is_tree: false,
                        },
                    )?;
                    entries += 1;
                }
            }
        }
        Ok(entries)
    }

    fn big_value(&mut self, number: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut header = [0; PAGE_HEADER_BYTES];
        self.source.read(number, self.meta.page_size, &mut header)?;
        let pages = u32_at(&header, 12);
        let room = pages as usize * self.meta.page_size;
        let sound = u64_at(&header, 0) == number && u16_at(&header, 10) == OVERFLOW;
        if !sound || room < PAGE_HEADER_BYTES + len {
            return Err(wrong_page(number, format!("no large value of {len} bytes")));
        }
        self.mark(number, pages.into())?;
        let end = number
            .saturating_mul(self.meta.page_size as u64)
            .saturating_add(len as u64);
        if end > self.source.file_bytes {
            return Err(wrong_page(number, "the file ends inside of a large value"));
        }
        let mut bytes = vec![0; PAGE_HEADER_BYTES + len];
        self.source.read(number, self.meta.page_size, &mut bytes)?;
        Ok(bytes.split_off(PAGE_HEADER_BYTES))
    }
}

/// LMDB makes a table anew that it does not find, so one whose name is damaged would be empty. All
/// tables of a format were made in one transaction. Ones that are not known are of a later format.
fn check_names(trees: &[(Vec<u8>, Tree)]) -> Result<(), StoreError> {
    let is_there = |table: &&Table| {
        trees
            .iter()
            .any(|(name, _)| name == table.name().as_bytes())
    };
    let mut later_may_be_there = true;
    let mut first = 0;
    for end in Table::OF_FORMATS {
        let tables = &Table::ALL[first..end];
        let is_whole = tables.iter().all(|table| is_there(&table));
        let may_be_absent = match first {
            0 => trees.is_empty(),
            _ => !tables.iter().any(|table| is_there(&table)),
        };
        if !is_whole && !may_be_absent || is_whole && !later_may_be_there {
            let lost = Table::ALL.iter().find(|table| !is_there(table));
            let found = format!("no table '{}'", lost.map_or("", |table| table.name()));
            return Err(wrong_page(0, found));
        }
        later_may_be_there = is_whole;
        first = end;
    }
    Ok(())
}

/// Keys ascend, and are inside of what the parent promised. The first key of a branch counts as
/// lowest whatever it is.
fn check_order(number: u64, page: &Page<'_>, range: Range<'_>) -> Result<(), StoreError> {
    let first = usize::from(!page.is_leaf);
    let mut before = range.low;
    for index in first..page.len {
        let key = page.node(index).key;
        let strict = index > first || !page.is_leaf;
        let ascends = before.is_none_or(|before| match range.order.compare(before, key) {
            Ordering::Less => true,
            Ordering::Equal => !strict,
            Ordering::Greater => false,
        });
        let inside = range
            .high
            .is_none_or(|high| range.order.compare(key, high).is_lt());
        if !ascends || !inside {
            return Err(wrong_page(number, format!("key {index} out of order")));
        }
        before = Some(key);
    }
    Ok(())
}

fn check_value(table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let kind = match table {
        Table::Meta => Kind::Meta,
        Table::State => format::state_kind(key),
        Table::Shadow => Kind::Shadow,
        Table::Reply => Kind::Reply,
        Table::ReplyExpiry => Kind::ReplyExpiry,
        Table::ShadowRow => Kind::ShadowRow,
        Table::Prepared => Kind::Prepared,
        Table::Decision => format::decision_kind(value),
        Table::Outcome => Kind::Outcome,
        Table::OutcomeExpiry => Kind::OutcomeExpiry,
        Table::Place => Kind::Place,
        Table::ShadowPlace => Kind::ShadowPlace,
        Table::Untold => Kind::Untold,
        Table::Leftover => Kind::Leftover,
        Table::Group => Kind::GroupCopy,
        Table::GroupLog => Kind::GroupEntry,
        Table::GroupPart => Kind::GroupPart,
        Table::GroupDecision => Kind::GroupDecision,
        Table::GroupOutcome => Kind::GroupOutcome,
        Table::GroupOutcomeExpiry => Kind::GroupOutcomeExpiry,
        Table::GroupCheckpoint => Kind::GroupCheckpoint,
    };
    format::unseal(kind, key, value).map(|_| ())
}
