//! How many bytes live files show, and how many their history has.
//!
//! Both are read from two rows that change with the rows that they count (`schema/amounts.rs`). Stored bytes are those of extents that
//! at least one row cites, each once, and inline bytes; history is what is stored beyond the bytes that live files show.

use bytes::Bytes;

use crate::meta::MetaRead;
use crate::store::model::error::StoreError;
use crate::store::model::policy::DAY;
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::schema::amounts;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::SegmentRow;
use crate::store::schema::tables::{
    AmountTable, AppliedTable, RangeTable, RowKey, RowTable, SegmentTable,
};

/// How many days the largest live sizes are kept.
const PEAK_DAYS: u64 = 30;
/// By how much the live size of a day must grow before it is written again, as a divisor of it.
const PEAK_STEP: u64 = 64;
/// Segments that one operation lists for review.
const LISTED: usize = 1000;

/// The bytes of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Bytes that live files show, without holes. Bytes that several files show count for each.
    pub live: u64,
    /// Bytes of extents that a row cites, each once, and inline bytes; `None`: they are not counted yet.
    pub stored: Option<u64>,
}

impl Amounts {
    /// Returns the bytes that are stored beyond those that live files show; `None`: they are not counted yet. It is too low by the
    /// bytes that several live files share.
    pub fn history(&self) -> Option<u64> {
        self.stored.map(|stored| stored.saturating_sub(self.live))
    }
}

/// Reads a row.
async fn row<T: RowTable>(
    rows: &dyn MetaRead,
    key: RowKey<T>,
) -> Result<Option<T::Value>, StoreError> {
    let value = rows.get(&key).await?;
    value.map(|value| T::decode(&value)).transpose()
}

/// Reads the amounts from one state of an index.
async fn read(rows: &dyn MetaRead) -> Result<Amounts, StoreError> {
    let applied: Option<AppliedRow> = row::<AppliedTable>(rows, keys::applied()).await?;
    let before = row(rows, amounts::stored_before()).await?;
    let since = row(rows, amounts::stored()).await?.unwrap_or(0);
    let sum = |before: i64| u64::try_from(before.wrapping_add(since)).unwrap_or(0);
    Ok(Amounts {
        live: applied.map_or(0, |row| u64::try_from(row.bytes).unwrap_or(0)),
        stored: before.map(sum),
    })
}

impl Retention {
    /// Returns the bytes of the namespace as of its newest batch.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn amounts(&self) -> Result<Amounts, StoreError> {
        read(self.core.index.stored().as_ref()).await
    }

    /// Counts the stored bytes of a namespace that was made before they were counted, once. Reads every range row and segment row.
    ///
    /// # Errors
    /// Errors of the index and the queue.
    pub(crate) async fn count_stored(&self) -> Result<(), StoreError> {
        let rows = self.core.index.stored();
        let rows = rows.as_ref();
        if row(rows, amounts::stored_before()).await?.is_some() {
            return Ok(());
        }
        let (mut stored, mut uncited) = (0_i64, Vec::new());
        let mut scan = rows.scan(of::<RangeTable>()).await?;
        while let Some((_, value)) = scan.next().await? {
            stored += RangeTable::decode(&value)?.inline_bytes();
        }
        drop(scan);
        let mut scan = rows.scan(of::<SegmentTable>()).await?;
        while let Some((key, value)) = scan.next().await? {
            let segment: SegmentRow = SegmentTable::decode(&value)?;
            let extents = segment.extents.values();
            stored += extents.map(|(len, _)| i64::from(*len)).sum::<i64>();
            if segment.extents.values().any(|(_, citing)| *citing == 0)
                && let Some(id) = keys::segment_of(&key)
            {
                uncited.push(id);
            }
        }
        drop(scan);
        let mut scan = rows.scan(of::<AmountTable>()).await?;
        while let Some((key, value)) = scan.next().await? {
            if amounts::is_sum(&key) {
                stored -= AmountTable::decode(&value)?;
            }
        }
        drop(scan);
        // The review of these segments subtracts what no row cites.
        for some in uncited.chunks(LISTED) {
            let mut txn = self.amounts_txn();
            for (epoch, sequence) in some {
                let at = txn.timestamp;
                txn.put(keys::emptied(*epoch, *sequence, at), &());
            }
            self.commit.enqueue(txn)?;
        }
        let mut txn = self.amounts_txn();
        txn.put(amounts::stored_before(), &stored);
        self.commit.enqueue(txn)?;
        tracing::info!(stored, "counted the bytes of the namespace");
        Ok(())
    }

    /// Begins an operation on the amounts.
    fn amounts_txn(&self) -> crate::store::commit::txn::Txn {
        let dependencies = Dependencies {
            touches: vec![amounts::stored_before().bytes()],
            ..Dependencies::default()
        };
        self.commit.txn(self.core.clock.begin().at(), dependencies)
    }

    /// Records the live size at `now` if it is the largest of the day, and forgets those of more than 30 days ago.
    ///
    /// # Errors
    /// Errors of the index and the queue.
    pub(crate) async fn note_live_peak(&self, now: Timestamp) -> Result<(), StoreError> {
        let live = self.amounts().await?.live;
        let day = now.0 / DAY;
        let known = self.core.index.row(&amounts::live_peak(day)).await?;
        let known = known.map(i64::cast_unsigned);
        if known.is_some_and(|known| live <= known.saturating_add(known / PEAK_STEP)) {
            return Ok(());
        }
        let mut txn = self.amounts_txn();
        txn.put(amounts::live_peak(day), &live.cast_signed());
        for (key, _) in self.peaks().await? {
            if amounts::peak_day(&key).is_none_or(|old| old.saturating_add(PEAK_DAYS) < day) {
                txn.delete(RowKey::<AmountTable>::scanned(key)?);
            }
        }
        self.commit.enqueue(txn)?;
        Ok(())
    }

    /// Returns the largest live size of the last 30 days in bytes.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn live_peak(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut largest = self.amounts().await?.live;
        for (key, bytes) in self.peaks().await? {
            if amounts::peak_day(&key).is_some_and(|day| day + PEAK_DAYS >= now.0 / DAY) {
                largest = largest.max(bytes);
            }
        }
        Ok(largest)
    }

    async fn peaks(&self) -> Result<Vec<(Bytes, u64)>, StoreError> {
        let from = amounts::live_peaks();
        let end = keys::after(&from);
        let rows = self.core.index.scan(from, end, usize::MAX).await?;
        let peak = |(key, value): (Bytes, Bytes)| {
            let bytes = AmountTable::decode(&value)?;
            Ok((key, bytes.cast_unsigned()))
        };
        rows.into_iter().map(peak).collect()
    }
}

/// Returns the range of all keys of a table.
fn of<T: RowTable>() -> std::ops::Range<Bytes> {
    T::all()..keys::after(&T::all())
}
