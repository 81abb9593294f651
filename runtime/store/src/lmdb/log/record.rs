//! Records of the log as they are on disk: what one set of batches changed. A change here is a
//! change of [`crate::format::STORE_FORMAT`].
//!
//! | bytes | what |
//! |---|---|
//! | 0 | `PtL1` |
//! | 4 | CRC-32C of all that follows |
//! | 8 | length of the body |
//! | 12 | number of changes |
//! | 16 | the life of the store, a random number |
//! | 24 | generation of the log |
//! | 32 | number of the record in its generation, from 0 |
//! | 40 | records of the generation before, 0 if that is of an earlier life |
//! | 48 | length of the file at that time |
//! | 56 | the body, filled up to a multiple of 8 |
//!
//! Numbers are little-endian. A change is the table (1), the length of the key (2), the length of
//! the value (4) or all ones if it is removed, key, value. Values are sealed as in the tables.
//!
//! A life lasts from one opening of the store to the next, and its number is told to nobody. So
//! what an earlier life left in the files is never taken for a record, not even if an older copy
//! of `data.mdb` was put in place and counts the same generations again; and neither is what looks
//! like a record inside of a value, which clients choose.

use crate::StoreError;
use crate::layers::Changes;
use crate::tables::Table;

const MAGIC: [u8; 4] = *b"PtL1";
const HEADER_BYTES: usize = 56;
const CHANGE_BYTES: usize = 7;
const REMOVED: u32 = u32::MAX;
/// Records begin at multiples of this.
pub(super) const STEP: usize = 8;

/// Where a record belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) life: u64,
    pub(super) generation: u64,
    pub(super) number: u64,
    pub(super) before: u64,
    /// The file was that long: a shorter one has lost something.
    pub(super) file_bytes: u64,
}

/// A record that passed its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'r> {
    pub(super) place: Place,
    /// Its bytes in the file.
    pub(super) len: usize,
    changes: u32,
    body: &'r [u8],
}

/// The bytes of a record with these changes.
pub(super) fn len(changes: &Changes) -> usize {
    let body_len = changes.entries() * CHANGE_BYTES + changes.bytes();
    (HEADER_BYTES + body_len).next_multiple_of(STEP)
}

/// The record with these changes.
pub(super) fn encode(place: Place, changes: &Changes) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(len(changes));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 12]);
    let numbers = [
        place.life,
        place.generation,
        place.number,
        place.before,
        place.file_bytes,
    ];
    bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
    let mut count = 0_u32;
    for (table, key, value) in changes.iter() {
        let key_len = u16::try_from(key.len()).map_err(|_| too_large(key.len()))?;
        let value_len = match value {
            None => REMOVED,
            Some(value) => length(value.len())?,
        };
        bytes.push(table.index() as u8);
        bytes.extend_from_slice(&key_len.to_le_bytes());
        bytes.extend_from_slice(&value_len.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value.unwrap_or_default());
        count += 1;
    }
    let body_len = length(bytes.len() - HEADER_BYTES)?;
    bytes[8..12].copy_from_slice(&body_len.to_le_bytes());
    bytes[12..16].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(STEP), 0);
    Ok(bytes)
}

fn length(len: usize) -> Result<u32, StoreError> {
    let len_on_disk = u32::try_from(len).ok().filter(|len| *len != REMOVED);
    len_on_disk.ok_or_else(|| too_large(len))
}

fn too_large(len: usize) -> StoreError {
    StoreError::TooLarge {
        what: "a record of the store's log",
        len,
        max: REMOVED as usize - 1,
    }
}

/// The sound record of this life at the start of `bytes`, if there is one.
pub(super) fn decode(bytes: &[u8], life: u64) -> Option<Record<'_>> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    if !looks_like_one(bytes) {
        return None;
    }
    let body_len = u32_at(header, 8) as usize;
    let body = bytes[HEADER_BYTES..].get(..body_len)?;
    let place = Place {
        life: u64_at(header, 16),
        generation: u64_at(header, 24),
        number: u64_at(header, 32),
        before: u64_at(header, 40),
        file_bytes: u64_at(header, 48),
    };
    let sound = place.life == life
        && crc32c::crc32c(&bytes[8..HEADER_BYTES + body_len]) == u32_at(header, 4);
    sound.then(|| Record {
        place,
        len: (HEADER_BYTES + body_len).next_multiple_of(STEP),
        changes: u32_at(header, 12),
        body,
    })
}

/// Whether a record may have been meant to be here.
pub(super) fn looks_like_one(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The generation that is told at the start of `bytes` by a record of this life, sound or not.
pub(super) fn told_generation(bytes: &[u8], life: u64) -> Option<u64> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let is_one = looks_like_one(header) && u64_at(header, 16) == life;
    is_one.then(|| u64_at(header, 24))
}

impl Record<'_> {
    /// Goes through the changes in their order. False if the body is not made of them.
    pub(super) fn each(
        &self,
        mut change: impl FnMut(Table, &[u8], Option<&[u8]>) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let mut rest = self.body;
        for _ in 0..self.changes {
            let Some((table, key, value, behind)) = split_change(rest) else {
                return Ok(false);
            };
            change(table, key, value)?;
            rest = behind;
        }
        Ok(rest.is_empty())
    }
}

type Change<'c> = (Table, &'c [u8], Option<&'c [u8]>, &'c [u8]);

fn split_change(bytes: &[u8]) -> Option<Change<'_>> {
    let (head, rest) = bytes.split_first_chunk::<CHANGE_BYTES>()?;
    let table = *Table::ALL.get(usize::from(head[0]))?;
    let key_len = u16::from_le_bytes([head[1], head[2]]);
    let (key, rest) = rest.split_at_checked(usize::from(key_len))?;
    match u32_at(head, 3) {
        REMOVED => Some((table, key, None, rest)),
        len => {
            let (value, rest) = rest.split_at_checked(len as usize)?;
            Some((table, key, Some(value), rest))
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at..]
        .first_chunk()
        .expect("headers have their length");
    u32::from_le_bytes(*bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes[at..]
        .first_chunk()
        .expect("headers have their length");
    u64::from_le_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        life: 9,
        generation: 5,
        number: 3,
        before: 0,
        file_bytes: 4096,
    };

    fn changes() -> Changes {
        let mut changes = Changes::default();
        changes.set(Table::State, b"key".to_vec(), Some(b"value".to_vec()));
        changes.set(Table::Shadow, b"gone".to_vec(), None);
        changes.set(Table::OutcomeExpiry, Vec::new(), Some(Vec::new()));
        changes
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let bytes = encode(PLACE, &changes()).unwrap();
        assert_eq!(bytes.len() % STEP, 0);
        assert_eq!(bytes.len(), len(&changes()));
        let record = decode(&bytes, 9).unwrap();
        assert_eq!((record.place, record.len), (PLACE, bytes.len()));
        let mut found = Changes::default();
        let whole = record.each(|table, key, value| {
            found.set(table, key.to_vec(), value.map(<[u8]>::to_vec));
            Ok(())
        });
        assert!(whole.unwrap());
        assert!(found.iter().eq(changes().iter()));
        assert!(decode(&bytes, 8).is_none(), "of another life");
        // No value that looks like many of them is to be warned of again and again.
        assert_eq!(told_generation(&bytes, 9), Some(5));
        assert_eq!(told_generation(&bytes, 8), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = encode(PLACE, &changes()).unwrap();
        let filling = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let filling = filling.min(STEP - 1);
        for bit in 0..8 * (bytes.len() - filling) {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, 9).is_none(), "bit {bit}");
        }
        for len in 0..bytes.len() - filling {
            assert!(decode(&bytes[..len], 9).is_none(), "cut at {len}");
        }
    }

    #[test]
    fn a_body_that_is_not_made_of_changes_is_told() {
        for (count, body) in [
            (2, &[0_u8; 7][..]),
            (1, &[99, 0, 0, 0, 0, 0, 0]),
            (1, &[0; 8]),
        ] {
            let record = Record {
                place: PLACE,
                len: 64,
                changes: count,
                body,
            };
            assert!(!record.each(|_, _, _| Ok(())).unwrap(), "{count} {body:?}");
        }
    }
}
