//! Comparison of the rows of an index with other rows, and what an index says about its log.

use bytes::Bytes;

use crate::meta::{MetaRead, RowScan};
use crate::store::check::config::CheckStep;
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::replay::faulty::FaultyKeys;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::keys;
use crate::store::schema::rows::LogPlace;
use crate::store::schema::tables::{AppliedTable, CheckpointTable, LoggedTable, RowTable};

/// Number of rows between two progress reports.
const ROWS_TOLD: u64 = 10_000;

/// Returns the range of all rows.
pub(crate) fn all_rows() -> std::ops::Range<Bytes> {
    Bytes::from_static(b"C")..Bytes::from_static(b"I")
}

/// Returns where the newest checkpoint that an index names begins.
pub(super) async fn checkpoint(index: &dyn MetaRead) -> Result<Option<LogPlace>, StoreError> {
    let row = index.get(&keys::checkpoint()).await?;
    let row = row.map(|row| CheckpointTable::decode(&row)).transpose()?;
    Ok(row.map(|row| row.began))
}

/// The newest batch in an index, and the newest log object that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEnd {
    pub(super) batch: BatchId,
    pub(super) logged: Option<LogPlace>,
}

/// Returns the end of an index.
///
/// # Errors
/// `NotFound` for an index without a batch; errors of the index.
pub(super) async fn newest(index: &dyn MetaRead) -> Result<IndexEnd, StoreError> {
    let applied = index.get(&keys::applied()).await?;
    let applied: AppliedRow = AppliedTable::decode(&applied.ok_or(StoreError::NotFound)?)?;
    let logged = index.get(&keys::logged()).await?;
    Ok(IndexEnd {
        batch: applied.batch,
        logged: logged.map(|row| LoggedTable::decode(&row)).transpose()?,
    })
}

/// A row of an index.
#[derive(Clone, Copy)]
pub(crate) struct IndexRow<'a> {
    pub(crate) key: &'a Bytes,
    pub(crate) value: &'a Bytes,
}

/// A row that differs between an index and other rows; `None` where it does not exist.
#[derive(Clone, Copy)]
pub(crate) struct DifferingRow<'a> {
    pub(crate) key: &'a Bytes,
    pub(crate) index: Option<&'a Bytes>,
    pub(crate) other: Option<&'a Bytes>,
}

/// The result of [`compare`].
pub(crate) struct Comparison {
    /// Number of rows in the index.
    pub(crate) rows: u64,
    pub(crate) differing: FaultyKeys,
}

/// Compares the rows of an index with the rows of `other`, both ordered by key, and passes each row of the index to
/// `each`.
pub(crate) async fn compare(
    index: &dyn MetaRead,
    other: &mut (dyn RowScan + '_),
    step: &(impl Fn(CheckStep) + Sync),
    each: impl FnMut(IndexRow<'_>) -> Result<(), StoreError> + Send,
) -> Result<Comparison, StoreError> {
    let mut differing = FaultyKeys::default();
    let differs = |row: DifferingRow<'_>| {
        differing.add(row.key);
        Ok(())
    };
    let rows = compare_rows(index, other, step, each, differs).await?;
    Ok(Comparison { rows, differing })
}

/// As [`compare`]; passes each row that differs to `differs`, and returns the number of rows in the index.
pub(super) async fn compare_rows(
    index: &dyn MetaRead,
    other: &mut (dyn RowScan + '_),
    step: &(impl Fn(CheckStep) + Sync),
    mut each: impl FnMut(IndexRow<'_>) -> Result<(), StoreError> + Send,
    mut differs: impl FnMut(DifferingRow<'_>) -> Result<(), StoreError> + Send,
) -> Result<u64, StoreError> {
    let mut left = index.scan(all_rows()).await?;
    let (mut a, mut b) = (left.next().await?, other.next().await?);
    let mut rows = 0;
    loop {
        let keys = (a.as_ref().map(|r| &r.0), b.as_ref().map(|r| &r.0));
        let order = match keys {
            (None, None) => return Ok(rows),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => x.cmp(y),
        };
        if a != b
            && let Some(key) = if order.is_le() { keys.0 } else { keys.1 }
        {
            differs(DifferingRow {
                key,
                index: a.as_ref().filter(|_| order.is_le()).map(|row| &row.1),
                other: b.as_ref().filter(|_| order.is_ge()).map(|row| &row.1),
            })?;
        }
        if order.is_le() {
            if let Some((key, value)) = &a {
                each(IndexRow { key, value })?;
            }
            rows += 1;
            if rows % ROWS_TOLD == 0 {
                step(CheckStep::Rows(rows));
            }
            a = left.next().await?;
        }
        if order.is_ge() {
            b = other.next().await?;
        }
    }
}
