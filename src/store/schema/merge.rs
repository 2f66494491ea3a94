//! The merge function of the index, for the rows `C I`, `G R`, `G B` and `G a`. Values and operands have one encoding; the merge
//! is associative and commutative.

use bytes::Bytes;

use crate::store::schema::rows::{InodeRow, encode, younger};
use crate::store::schema::tables::{AmountTable, CountTable, InodeTable, RowTable, SegmentTable};

/// Merges an operand into a value. In a table that does not merge, and where one of the two cannot be decoded, the operand
/// replaces the value.
pub(crate) fn merge(key: &[u8], existing: Option<&[u8]>, operand: &[u8]) -> Bytes {
    let merged = existing.and_then(|existing| match key.get(..2)?.try_into().ok()? {
        InodeTable::PREFIX => merge_inode(existing, operand),
        CountTable::PREFIX => {
            let (a, b) = (
                CountTable::decode(existing).ok()?,
                CountTable::decode(operand).ok()?,
            );
            Some(encode(&(a + b)))
        }
        AmountTable::PREFIX => {
            let (a, b) = (
                AmountTable::decode(existing).ok()?,
                AmountTable::decode(operand).ok()?,
            );
            Some(encode(&a.wrapping_add(b)))
        }
        SegmentTable::PREFIX => merge_segment(existing, operand),
        _ => None,
    });
    merged.unwrap_or_else(|| Bytes::copy_from_slice(operand))
}

fn merge_inode(existing: &[u8], operand: &[u8]) -> Option<Bytes> {
    let (mine, other) = (
        InodeTable::decode(existing).ok()?,
        InodeTable::decode(operand).ok()?,
    );
    let (InodeRow::Directory(mut mine), InodeRow::Directory(other)) = (mine, other) else {
        return None;
    };
    mine.merge(other);
    Some(encode(&InodeRow::Directory(mine)))
}

fn merge_segment(existing: &[u8], operand: &[u8]) -> Option<Bytes> {
    let (mut mine, other) = (
        SegmentTable::decode(existing).ok()?,
        SegmentTable::decode(operand).ok()?,
    );
    for (offset, (len, citing)) in other.extents {
        mine.extents.entry(offset).or_insert((len, 0)).1 += citing;
    }
    younger(&mut mine.dead_since, other.dead_since);
    Some(encode(&mine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::version::{Ino, Timestamp};
    use crate::store::schema::keys;
    use crate::store::schema::rows::DirectoryRow;

    fn touched(at: u64, entries: i64) -> Bytes {
        encode(&InodeRow::Directory(DirectoryRow {
            mtime: Some((Timestamp(at), Timestamp(at).time())),
            entries,
            ..DirectoryRow::default()
        }))
    }

    #[test]
    fn directory_rows_merge_the_same_in_any_order_and_grouping() {
        let key = keys::inode(Ino(7));
        let (a, b, c) = (touched(1, 1), touched(3, -1), touched(2, 1));
        let left = merge(&key, Some(&merge(&key, Some(&a), &b)), &c);
        let right = merge(&key, Some(&a), &merge(&key, Some(&c), &b));
        assert_eq!(left, right);
        let InodeRow::Directory(row) = InodeTable::decode(&left).unwrap() else {
            panic!("a directory")
        };
        assert_eq!(
            (row.entries, row.mtime),
            (1, Some((Timestamp(3), Timestamp(3).time())))
        );
    }
}
