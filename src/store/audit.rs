//! Does the log tell the whole story? Its objects, replayed into the twin, against the rows of the index; and the counts
//! of the index against what they count.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::error::StoreError;
use super::namespace::check_name;
use super::queue::log::{self, Base, LogObject};
use super::recover::evidence::{self, Evidence};
use super::rows::{
    self, Applied, Body, Closed, Entry, InodeRow, LineageRow, MovedRow, Node, Orphan, RangeRow,
    SegmentRow, Source, State, decode,
};
use super::version::{Content, ROOT};
use crate::backend::{Backend, BackendError};
use crate::meta::{MemoryStore, MetaRead, MetaStore, SlateConfig, SlateFollower};

/// The index is looked at as it is when it is opened.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// How long the log is left alone before it is read again.
const AGAIN: Duration = Duration::from_secs(2);

/// What [`audit_log`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Log objects read.
    pub objects: usize,
    /// Rows of the index.
    pub rows: usize,
    /// Keys, printed, whose rows differ or are missing on one side.
    pub differing: Vec<String>,
    /// Keys, printed, of counts that are not what a recount gives.
    pub miscounted: Vec<String>,
}

/// Replays the log of a namespace and compares the outcome with every row of its index, as both are now. Takes the
/// namespace from nobody: what its writer does meanwhile is left out, and what it has not yet logged is waited for, up to
/// `patience`; `waits` is called before every wait.
///
/// # Errors
/// `NotFound` where there is no such namespace, or nothing in it; `Unavailable`, also when the log does not catch up;
/// `Corrupt`; `Invalid` for a bad name.
pub async fn audit_log(
    backend: &Backend,
    name: &str,
    patience: Duration,
    waits: impl Fn(),
) -> Result<Audit, StoreError> {
    check_name(name)?;
    let backend = backend.child(name);
    match backend.get("namespace.json").await {
        Ok(_) => {}
        Err(BackendError::NotFound { .. }) => return Err(StoreError::NotFound),
        Err(error) => return Err(error.into()),
    }
    let config = SlateConfig {
        local: backend.is_local(),
        ..SlateConfig::new(rows::merge)
    };
    match evidence::examine(&backend, &config).await? {
        Evidence::Damaged(what) => return Err(StoreError::Damaged(what)),
        Evidence::Unused => return Err(StoreError::NotFound),
        Evidence::Whole | Evidence::LogUnreadable(_) => {}
    }
    let index = SlateFollower::open(backend.object_store(), "meta", &config, NEVER).await?;
    let audit = audit(&backend, &index, (patience, waits)).await;
    index.close().await?;
    audit
}

async fn audit(
    backend: &Backend,
    index: &SlateFollower,
    (patience, waits): (Duration, impl Fn()),
) -> Result<Audit, StoreError> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut objects = Vec::new();
    loop {
        let upto = newest(index).await?;
        log::read_on(backend, &mut objects).await?;
        if let Some(twin) = replayed(&objects, upto).await? {
            let (rows, differing) = compare(index, &twin).await?;
            let audit = Audit {
                objects: objects.len(),
                rows,
                differing,
                miscounted: recount(index).await?,
            };
            // The engine looks for a newer state once by itself, right after it was opened.
            if newest(index).await? == upto {
                return Ok(audit);
            }
        }
        if tokio::time::Instant::now() >= deadline {
            let (epoch, number) = upto;
            return Err(StoreError::Unavailable(format!(
                "its log ends before batch {number} of epoch {epoch}, which the index has: the writer was killed or cannot \
                 upload; the next mount that writes fills the gap"
            )));
        }
        waits();
        tokio::time::sleep(AGAIN).await;
    }
}

/// The newest batch in an index.
async fn newest(index: &SlateFollower) -> Result<(u64, u64), StoreError> {
    let applied = index.get(&super::keys::applied()).await?;
    let applied: Applied = decode("G A", &applied.ok_or(StoreError::NotFound)?)?;
    Ok(applied.batch)
}

/// The rows the log tells up to and with one batch; `None` if it does not go so far.
async fn replayed(
    objects: &[LogObject],
    upto: (u64, u64),
) -> Result<Option<MemoryStore>, StoreError> {
    let mut twin = MemoryStore::new(rows::merge);
    for object in objects {
        if object.base == Base::Nothing {
            twin = MemoryStore::new(rows::merge);
        }
        for (number, batch) in (object.first..).zip(object.batches()?) {
            if !batch.is_empty() {
                twin.commit(batch).await?;
            }
            if object.base == Base::Before && (object.epoch, number) == upto {
                return Ok(Some(twin));
            }
        }
        // Later lists of all rows are of later states.
        if object.upto() == Some(upto) {
            return Ok(Some(twin));
        }
    }
    Ok(None)
}

/// Rows of `one`, and the keys at which the two differ.
pub(crate) async fn compare(
    one: &dyn MetaRead,
    other: &dyn MetaRead,
) -> Result<(usize, Vec<String>), StoreError> {
    let all = || Bytes::from_static(b"C")..Bytes::from_static(b"I");
    let (mut left, mut right) = (one.scan(all()).await?, other.scan(all()).await?);
    let (mut a, mut b) = (left.next().await?, right.next().await?);
    let (mut rows, mut differing) = (0, Vec::new());
    loop {
        let keys = (a.as_ref().map(|r| &r.0), b.as_ref().map(|r| &r.0));
        let order = match keys {
            (None, None) => return Ok((rows, differing)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => x.cmp(y),
        };
        if a != b
            && let Some(key) = if order.is_le() { keys.0 } else { keys.1 }
        {
            differing.push(key.escape_ascii().to_string());
        }
        if order.is_le() {
            rows += 1;
            a = left.next().await?;
        }
        if order.is_ge() {
            b = right.next().await?;
        }
    }
}

/// Keys of counts (`G R`, `G B`, the bytes and files of `G A`) that differ from what the other rows show, cite and hold.
pub(crate) async fn recount(index: &dyn MetaRead) -> Result<Vec<String>, StoreError> {
    let mut counts: BTreeMap<Bytes, i64> = BTreeMap::new();
    let mut cited: BTreeMap<Bytes, BTreeMap<u32, i64>> = BTreeMap::new();
    let mut usage = (0_i64, 0_i64);
    let all = Bytes::from_static(b"C")..Bytes::from_static(b"I");
    let mut scan = index.scan(all).await?;
    while let Some((key, value)) = scan.next().await? {
        match key.get(..2) {
            Some(b"CL") => {
                let row: LineageRow = decode("C L", &value)?;
                *counts.entry(super::keys::count(row.parent)).or_default() += 1;
            }
            Some(b"CF") => cite(&mut cited, &decode("C F", &value)?),
            Some(b"GM") => {
                let row: MovedRow = decode("G M", &value)?;
                for (epoch, sequence, offset) in row.extents.into_values() {
                    let segment = cited
                        .entry(super::keys::segment(epoch, sequence))
                        .or_default();
                    *segment.entry(offset).or_default() += 1;
                }
            }
            Some(b"GR") => *counts.entry(key).or_default() -= decode::<i64>("G R", &value)?,
            Some(b"GB") => {
                let row: SegmentRow = decode("G B", &value)?;
                let extents = cited.entry(key).or_default();
                for (offset, (_, citing)) in row.extents {
                    *extents.entry(offset).or_default() -= citing;
                }
            }
            Some(b"GA") => {
                let row: Applied = decode("G A", &value)?;
                usage = (usage.0.wrapping_sub(row.bytes), usage.1 - row.files);
            }
            Some(table) => {
                if let Some(bytes) = taken(table, &value)? {
                    usage = (usage.0.wrapping_add(bytes), usage.1 + 1);
                }
                for content in shown(table, &value)? {
                    if let Some(content) = content.reference() {
                        *counts.entry(super::keys::count(content)).or_default() += 1;
                    }
                }
            }
            None => {}
        }
    }
    let wrong = counts
        .into_iter()
        .filter(|(_, off)| *off != 0)
        .map(|(key, _)| key);
    let miscited = cited
        .into_iter()
        .filter(|(_, extents)| extents.values().any(|off| *off != 0))
        .map(|(key, _)| key);
    let misused = (usage != (0, 0)).then(super::keys::applied);
    Ok(wrong
        .chain(miscited)
        .chain(misused)
        .map(|key| key.escape_ascii().to_string())
        .collect())
}

fn cite(cited: &mut BTreeMap<Bytes, BTreeMap<u32, i64>>, row: &RangeRow) {
    let mut extents = std::collections::BTreeSet::new();
    for piece in row.pieces() {
        if let Source::Segment {
            epoch,
            sequence,
            offset,
            ..
        } = piece.source
        {
            extents.insert((epoch, sequence, offset));
        }
    }
    for (epoch, sequence, offset) in extents {
        let segment = cited
            .entry(super::keys::segment(epoch, sequence))
            .or_default();
        *segment.entry(offset).or_default() += 1;
    }
}

/// Bytes taken up by the live inode that has its row here; the root is there before anything is counted.
fn taken(table: &[u8], value: &Bytes) -> Result<Option<i64>, StoreError> {
    let node = match table {
        b"CD" => match decode::<Entry>("C D", value)? {
            Entry {
                ino,
                body: Body::Own { node, .. },
                ..
            } if ino != ROOT => node,
            _ => return Ok(None),
        },
        b"CI" => match decode::<InodeRow>("C I", value)? {
            InodeRow::Linked(row) => row.node,
            InodeRow::Directory(_) => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(node.space().cast_signed()))
}

/// The contents a row shows.
fn shown(table: &[u8], value: &Bytes) -> Result<Vec<Content>, StoreError> {
    let current = |node: Node, state: State| {
        let behind = match state {
            State::Version(_) => None,
            State::Unborn { behind } => behind.map(|last| last.node.content),
            State::Provisional(last) => Some(last.node.content),
        };
        [Some(node.content), behind].into_iter().flatten().collect()
    };
    Ok(match table {
        b"CD" => match decode::<Entry>("C D", value)?.body {
            Body::Own { node, state } => current(node, state),
            Body::Linked(_) => Vec::new(),
        },
        b"CI" => match decode::<InodeRow>("C I", value)? {
            InodeRow::Linked(row) => current(row.node, row.state),
            InodeRow::Directory(_) => Vec::new(),
        },
        b"CO" => {
            let orphan: Orphan = decode("C O", value)?;
            vec![orphan.node.content]
        }
        b"HV" | b"HW" => {
            let closed: Closed = decode("H V", value)?;
            closed.node.map(|node| node.content).into_iter().collect()
        }
        _ => Vec::new(),
    })
}
