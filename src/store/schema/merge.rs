//! The merge function of the index, for the rows `C I`, `G R`, `G B` and `G a`. Values and operands have one encoding; the merge
//! is associative and commutative.

use bytes::Bytes;

use crate::store::schema::rows::{InodeRow, SegmentRow, encode, younger};
use crate::store::schema::tables::{AmountTable, CountTable, InodeTable, RowTable, SegmentTable};

/// Merges operands, oldest first, into a value. In a table that does not merge, and where one of two cannot be decoded, the later one
/// replaces what is before it. Each is decoded once: the row of a segment is merged with an operand for each file in it.
pub(crate) fn merge(key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let table = key.get(..2).and_then(|prefix| prefix.try_into().ok());
    match table.unwrap_or_default() {
        InodeTable::PREFIX => merge_rows::<InodeTable>(existing, operands, join_inodes),
        CountTable::PREFIX => merge_rows::<CountTable>(existing, operands, |a, b| {
            *a = a.wrapping_add(b);
            None
        }),
        AmountTable::PREFIX => merge_rows::<AmountTable>(existing, operands, |a, b| {
            *a = a.wrapping_add(b);
            None
        }),
        SegmentTable::PREFIX => merge_rows::<SegmentTable>(existing, operands, join_segments),
        _ => operands.last().map_or_else(Bytes::new, copied),
    }
}

fn copied(operand: &Bytes) -> Bytes {
    Bytes::copy_from_slice(operand)
}

/// Merges by `join`, which adds its second value to the first one or returns it if they do not merge.
fn merge_rows<T: RowTable>(
    existing: Option<&[u8]>,
    operands: &[Bytes],
    join: impl Fn(&mut T::Value, T::Value) -> Option<T::Value>,
) -> Bytes {
    let mut merged = existing.and_then(|existing| T::decode(existing).ok());
    // The operand that stands alone for all before it, as it was encoded.
    let mut alone = None;
    for operand in operands {
        let new = T::decode(operand).ok();
        let left = match (&mut merged, new) {
            (Some(merged), Some(new)) => join(merged, new),
            (_, new) => {
                (merged, alone) = (new, Some(operand));
                continue;
            }
        };
        alone = left.is_some().then_some(operand);
        merged = left.or(merged);
    }
    match (alone, merged) {
        (Some(alone), _) => copied(alone),
        (None, Some(merged)) => encode(&merged),
        (None, None) => Bytes::new(),
    }
}

fn join_inodes(mine: &mut InodeRow, other: InodeRow) -> Option<InodeRow> {
    match (mine, other) {
        (InodeRow::Directory(mine), InodeRow::Directory(other)) => {
            mine.merge(other);
            None
        }
        (_, other) => Some(other),
    }
}

fn join_segments(mine: &mut SegmentRow, other: SegmentRow) -> Option<SegmentRow> {
    for (offset, (len, citing)) in other.extents {
        let (_, count) = mine.extents.entry(offset).or_insert((len, 0));
        *count = count.wrapping_add(citing);
    }
    younger(&mut mine.dead_since, other.dead_since);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::version::{ContentRef, Ino, Timestamp};
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
        let one = |existing: &Bytes, operand: &Bytes| {
            merge(&key, Some(existing), std::slice::from_ref(operand))
        };
        let left = one(&one(&a, &b), &c);
        let right = one(&a, &one(&c, &b));
        assert_eq!(left, right);
        assert_eq!(left, merge(&key, Some(&a), &[b.clone(), c.clone()]));
        assert_eq!(left, merge(&key, None, &[a, b, c]));
        let InodeRow::Directory(row) = InodeTable::decode(&left).unwrap() else {
            panic!("a directory")
        };
        assert_eq!(
            (row.entries, row.mtime),
            (1, Some((Timestamp(3), Timestamp(3).time())))
        );
    }

    #[test]
    fn an_operand_that_cannot_be_merged_replaces_what_is_before_it() {
        let key = keys::count(ContentRef {
            cid: 1,
            timestamp: Timestamp(1),
        });
        let (one, two, damaged) = (encode(&1_i64), encode(&2_i64), Bytes::from_static(&[0xff]));
        let of = |existing: Option<&Bytes>, operands: &[&Bytes]| {
            let operands: Vec<Bytes> = operands.iter().copied().cloned().collect();
            merge(&key, existing.map(AsRef::as_ref), &operands)
        };
        assert_eq!(of(Some(&one), &[&two]), encode(&3_i64));
        assert_eq!(of(Some(&damaged), &[&two]), two);
        assert_eq!(of(Some(&one), &[&two, &damaged]), damaged);
        assert_eq!(of(Some(&one), &[&damaged, &two, &one]), encode(&3_i64));
        assert_eq!(of(None, &[&damaged]), damaged);
    }
}
