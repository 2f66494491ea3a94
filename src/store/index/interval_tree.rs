//! When the past names of a directory existed: an interval tree over time, stored in the rows `H T`.
//!
//! A row exists for each interval that has ended: a name existed in the directory from its start (inclusive) to its end
//! (exclusive). The tree is the dyadic tree over seconds since 1970. An interval is stored at the node given by the highest bit
//! in which its start and end second differ, or at the node of its second if they are the same. A node has two lists: `S` by
//! start, oldest first, and `E` by end, newest first. To find the names that existed at `t`, one list per level is read: `S`
//! while start <= t at a node whose middle is after `t`, `E` while end > t at a node whose middle is at or before `t`; and of
//! the node of `t`'s second, `S`. The cost is the number of names found and one scan per level, however many past names the
//! directory has.

use std::ops::Range;

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::meta::Batch;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::keys;

const SECOND: u64 = 1_000_000_000;
/// Number of levels above the nodes of single seconds. Seconds since 1970 fit into 32 bits until 2106, and into 33 until 2242.
const LEVELS: u32 = 33;
/// Follows the timestamp in the values of an interval that ended because the name was removed.
const REMOVED: u8 = b'D';
/// Maximum number of rows that one scan reads.
const CHUNK: usize = 512;

/// Returns the node of an interval. A node at which two seconds differ is twice its middle in seconds; the node of one second
/// is twice that second plus one.
fn node(start: Timestamp, end: Timestamp) -> u64 {
    let (a, b) = (start.0 / SECOND, end.0 / SECOND);
    if a == b {
        return a << 1 | 1;
    }
    let level = 63 - (a ^ b).leading_zeros();
    (b >> level << level) << 1
}

/// Adds the rows of an interval in which a name existed and that ended otherwise than by the removal of the name.
pub(crate) fn add(rows: &mut Batch, directory: Ino, name: &[u8], life: Range<Timestamp>) {
    put(rows, directory, name, life, &[]);
}

/// Adds the rows of an interval in which a name existed and that the removal of the name ended.
pub(crate) fn add_removed(rows: &mut Batch, directory: Ino, name: &[u8], life: Range<Timestamp>) {
    put(rows, directory, name, life, &[REMOVED]);
}

fn put(rows: &mut Batch, directory: Ino, name: &[u8], life: Range<Timestamp>, mark: &[u8]) {
    let (start, end) = (life.start, life.end);
    let node = node(start, end);
    let value = |other: Timestamp| Bytes::from([&other.0.to_be_bytes()[..], mark].concat());
    rows.put(
        keys::interval_start(directory, node, start, name),
        value(end),
    );
    rows.put(keys::interval_end(directory, node, end, name), value(start));
}

/// Removes the rows of an interval that has ended, if there are any. Intervals of one name with the same start may share a row: an
/// exchange of two names ends an interval, and the name goes on. The row stays then.
///
/// # Errors
/// Errors of the meta store.
pub(crate) async fn remove(
    index: &Snapshot,
    rows: &mut Batch,
    directory: Ino,
    name: &[u8],
    life: Range<Timestamp>,
) -> Result<(), StoreError> {
    let (start, end) = (life.start, life.end);
    let node = node(start, end);
    let by_start = keys::interval_start(directory, node, start, name);
    let value = index.get(&by_start).await?;
    if value.is_some_and(|value| word(value.get(..8)) == Some(end.0)) {
        rows.delete(by_start);
    }
    rows.delete(keys::interval_end(directory, node, end, name));
    Ok(())
}

/// Returns the names that existed in the directory at `at`, in an interval that has ended.
///
/// # Errors
/// Errors of the meta store; `Corrupt` when a row is too short.
pub(crate) async fn alive_at(
    index: &Snapshot,
    directory: Ino,
    at: Timestamp,
) -> Result<BTreeSet<Bytes>, StoreError> {
    let from = keys::intervals(directory);
    let end = keys::after(&from);
    let rows = index.scan(from, end, CHUNK).await?;
    if rows.len() == CHUNK {
        return alive_in_tree(index, directory, at).await;
    }
    // Most directories have few past names: one scan over all of them costs less than one scan per level.
    let mut names = BTreeSet::new();
    for (key, value) in rows {
        if key.get(18) != Some(&b'S') {
            continue;
        }
        let (Some(start), Some(end)) = (word(key.get(19..27)), word(value.get(..8))) else {
            return Err(StoreError::Corrupt("H T row: too short".to_owned()));
        };
        if start <= at.0 && at.0 < end {
            names.insert(keys::interval_name(&key));
        }
    }
    Ok(names)
}

/// As [`alive_at`], with one scan per level of the tree: for a directory with many past names.
async fn alive_in_tree(
    index: &Snapshot,
    directory: Ino,
    at: Timestamp,
) -> Result<BTreeSet<Bytes>, StoreError> {
    let second = at.0 / SECOND;
    let mut names = BTreeSet::new();
    collect(index, directory, second << 1 | 1, at, b'S', &mut names).await?;
    for level in 0..LEVELS {
        let middle = second >> level << level | (1 << level);
        for (node, list) in [(middle, b'S'), (second >> level << level, b'E')] {
            let is_middle = node >> level & 1 == 1;
            if is_middle && (list == b'S') == (second < node) {
                collect(index, directory, node << 1, at, list, &mut names).await?;
            }
        }
    }
    Ok(names)
}

/// Adds to `names` those of one list of a node that existed at `at`. Reads the list up to the first interval that begins after
/// `at` (`S`) or has ended at `at` (`E`): all further ones have, too.
async fn collect(
    index: &Snapshot,
    directory: Ino,
    node: u64,
    at: Timestamp,
    list: u8,
    names: &mut BTreeSet<Bytes>,
) -> Result<(), StoreError> {
    let mut from = keys::interval_list(directory, node, list);
    let end = keys::after(&from);
    loop {
        let rows = index.scan(from, end.clone(), CHUNK).await?;
        let full = rows.len() == CHUNK;
        let mut last = Bytes::new();
        for (key, value) in rows {
            let (Some(own), Some(other)) = (word(key.get(19..27)), word(value.get(..8))) else {
                return Err(StoreError::Corrupt("H T row: too short".to_owned()));
            };
            let (start, end) = if list == b'S' {
                (own, other)
            } else {
                (other, !own)
            };
            let goes_on = if list == b'S' {
                start <= at.0
            } else {
                end > at.0
            };
            if !goes_on {
                return Ok(());
            }
            if start <= at.0 && at.0 < end {
                names.insert(keys::interval_name(&key));
            }
            last = key;
        }
        if !full {
            return Ok(());
        }
        from = [&last[..], &[0]].concat().into();
    }
}

fn word(bytes: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}

/// Returns all names that existed in the directory in an interval that has ended.
///
/// # Errors
/// Errors of the meta store.
pub(crate) async fn all(index: &Snapshot, directory: Ino) -> Result<BTreeSet<Bytes>, StoreError> {
    let from = keys::intervals(directory);
    let end = keys::after(&from);
    let rows = index.scan(from, end, usize::MAX).await?;
    Ok(rows
        .into_iter()
        .map(|(key, _)| keys::interval_name(&key))
        .collect())
}

/// Returns the names that were removed from the directory at least once, also if they exist again now.
///
/// # Errors
/// Errors of the meta store.
pub(crate) async fn removed(
    index: &Snapshot,
    directory: Ino,
) -> Result<BTreeSet<Bytes>, StoreError> {
    let mut names = BTreeSet::new();
    let mut from = keys::intervals(directory);
    let end = keys::after(&from);
    loop {
        let rows = index.scan(from, end.clone(), CHUNK).await?;
        let next = rows
            .last()
            .filter(|_| rows.len() == CHUNK)
            .map(|(key, _)| [&key[..], &[0]].concat());
        let marked = rows
            .iter()
            .filter(|(key, value)| key.get(18) == Some(&b'S') && value.get(8) == Some(&REMOVED));
        names.extend(marked.map(|(key, _)| keys::interval_name(key)));
        match next {
            Some(next) => from = next.into(),
            None => return Ok(names),
        }
    }
}

/// Returns the starts and ends of all intervals that have ended.
///
/// # Errors
/// Errors of the meta store.
pub(crate) async fn bounds(
    index: &Snapshot,
    directory: Ino,
) -> Result<BTreeSet<Timestamp>, StoreError> {
    let from = keys::intervals(directory);
    let end = keys::after(&from);
    let rows = index.scan(from, end, usize::MAX).await?;
    Ok(rows
        .into_iter()
        .filter(|(key, _)| key.get(18) == Some(&b'S'))
        .flat_map(|(key, value)| {
            [word(key.get(19..27)), word(value.get(..8))]
                .into_iter()
                .flatten()
                .map(Timestamp)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{MemoryStore, MetaStore};
    use crate::store::index::current::Index;
    use crate::store::schema::merge;
    use crate::sync::Arc;

    #[tokio::test]
    async fn a_name_is_found_exactly_at_the_times_at_which_it_existed() {
        let meta = Arc::new(MemoryStore::new(merge::merge));
        let base = 1_700_000_000 * SECOND;
        let lives = [
            ("short", 5, 9),
            ("second", 3 * SECOND, 4 * SECOND),
            ("long", 0, 900_000 * SECOND),
            ("edge", 63 * SECOND + 1, 64 * SECOND),
            ("across", 63 * SECOND, 65 * SECOND),
            ("same", 7 * SECOND, 7 * SECOND + 10),
        ];
        let mut batch = Batch::new();
        for (name, start, end) in lives {
            let life = Timestamp(base + start)..Timestamp(base + end);
            if name.len() == 4 {
                add_removed(&mut batch, Ino(1), name.as_bytes(), life);
            } else {
                add(&mut batch, Ino(1), name.as_bytes(), life);
            }
        }
        meta.commit(batch).await.unwrap();
        let index = Index::of_writer(meta).await.unwrap().snapshot();
        let mut probes: Vec<u64> = lives
            .iter()
            .flat_map(|(_, s, e)| [*s, *e, s + 1, e - 1])
            .collect();
        probes.extend([64 * SECOND, 64 * SECOND + 5, 100 * SECOND, 900_001 * SECOND]);
        for probe in probes {
            let at = Timestamp(base + probe);
            let found = alive_at(&index, Ino(1), at).await.unwrap();
            let in_tree = alive_in_tree(&index, Ino(1), at).await.unwrap();
            assert_eq!(found, in_tree, "at {probe}");
            let expected: BTreeSet<Bytes> = lives
                .iter()
                .filter(|(_, s, e)| *s <= probe && probe < *e)
                .map(|(n, ..)| Bytes::from_static(n.as_bytes()))
                .collect();
            assert_eq!(found, expected, "at {probe}");
        }
        assert_eq!(all(&index, Ino(1)).await.unwrap().len(), lives.len());
        let gone: Vec<_> = removed(&index, Ino(1)).await.unwrap().into_iter().collect();
        assert_eq!(gone, ["edge", "long", "same"]);
    }
}
