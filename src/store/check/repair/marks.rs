//! Marks of damaged contents, and what garbage collection does not know of.

use crate::meta::MetaRead;
use crate::store::check::config::{CheckStep, DataReads};
use crate::store::check::damage::{DamageMark, DamagedContents};
use crate::store::check::references::References;
use crate::store::check::repair::report::RepairReport;
use crate::store::check::repair::writer::RepairWriter;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Timestamp};
use crate::store::schema::damage_keys;
use crate::store::schema::keys;
use crate::store::schema::rows::{DamagedRow, Loss};
use crate::store::schema::tables::{CountTable, DamagedTable, RowTable};

/// Marks the contents with bytes that cannot be read, and removes the marks of those that can be read again or that nothing shows.
/// All of `contents` are marked afterwards.
pub(super) async fn mark<F: Fn(CheckStep) + Send + Sync>(
    index: &dyn MetaRead,
    contents: &mut DamagedContents,
    data: DataReads,
    writer: &mut RepairWriter<'_, F>,
    report: &mut RepairReport,
) -> Result<(), StoreError> {
    for (content, damage) in &mut contents.all {
        let key = damage_keys::damaged(*content);
        let known = index.get(&key).await?;
        let known = known.map(|row| DamagedTable::decode(&row)).transpose()?;
        let (bytes, loss) = (damage.bytes, damage.first.loss);
        let is_known = known.is_some_and(|row| (row.bytes, row.loss) == (bytes, loss));
        if !is_known {
            let found = known.map(|row| row.found);
            writer
                .change(key.clone().bytes(), |txn| {
                    let row = DamagedRow {
                        found: found.unwrap_or(txn.timestamp),
                        bytes,
                        loss,
                    };
                    txn.put(key, &row);
                })
                .await?;
        }
        report.newly_marked += u64::from(damage.mark == DamageMark::Unmarked);
        damage.mark = DamageMark::Marked;
    }
    unmark(index, contents, data, writer, report).await
}

async fn unmark<F: Fn(CheckStep) + Send + Sync>(
    index: &dyn MetaRead,
    contents: &DamagedContents,
    data: DataReads,
    writer: &mut RepairWriter<'_, F>,
    report: &mut RepairReport,
) -> Result<(), StoreError> {
    let mut marks = index
        .scan(DamagedTable::all()..keys::after(&DamagedTable::PREFIX))
        .await?;
    while let Some((key, value)) = marks.next().await? {
        let Some(content) = keys::counted(&key) else {
            continue;
        };
        let row: DamagedRow = DamagedTable::decode(&value)?;
        // Bytes that do not match their hash are found only where they are read.
        let is_judged = row.loss == Loss::Missing || data == DataReads::All;
        let is_damaged = contents.all.contains_key(&content) || contents.is_cut || !is_judged;
        if is_damaged && is_shown(index, content).await? {
            continue;
        }
        let key = damage_keys::damaged(content);
        writer
            .change(key.clone().bytes(), |txn| txn.delete(key))
            .await?;
        report.unmarked += 1;
    }
    Ok(())
}

async fn is_shown(index: &dyn MetaRead, content: ContentRef) -> Result<bool, StoreError> {
    let count = index.get(&keys::count(content)).await?;
    let count = count.map(|row| CountTable::decode(&row)).transpose()?;
    Ok(count.is_some_and(|count| count > 0))
}

/// Has garbage collection look at the segments and lineages that nothing needs and that it does not know of. Returns their number.
pub(super) async fn queue_leaks<F: Fn(CheckStep) + Send + Sync>(
    references: &References,
    writer: &mut RepairWriter<'_, F>,
) -> Result<u64, StoreError> {
    let mut queued = 0;
    let mut segments = references.segment_cursor();
    while let Some((id, facts)) = segments.next().await? {
        if facts.is_leaked() {
            let key = keys::segment(id.epoch, id.sequence).bytes();
            writer
                .change(key, |txn| {
                    let at: Timestamp = txn.timestamp;
                    txn.put(keys::emptied(id.epoch, id.sequence, at), &());
                })
                .await?;
            queued += 1;
        }
    }
    let mut lineages = references.lineage_cursor();
    while let Some((cid, facts)) = lineages.next().await? {
        if facts.is_unshown() && !facts.is_waiting() {
            writer
                .change(keys::counts(cid), |txn| {
                    let timestamp = txn.timestamp;
                    let content = ContentRef { cid, timestamp };
                    txn.put(keys::dropped(content, timestamp), &());
                })
                .await?;
            queued += 1;
        }
    }
    Ok(queued)
}
