//! Rows that the log has and the index lacks.
//!
//! Only a log that is whole up to the newest batch of the index proves that a row should be there: with a missing object a row may have
//! been deleted by a batch in it. A row that only the index has, or that the log tells otherwise, is kept: it is what readers see.

use bytes::Bytes;

use crate::meta::{Change, MetaRead, RowScan};
use crate::store::check::comparison::{DifferingRow, checkpoint, compare_rows, newest};
use crate::store::check::config::{CheckConfig, CheckStep};
use crate::store::check::finding::{Findings, PathFinder};
use crate::store::check::repair::report::RepairReport;
use crate::store::check::repair::writer::RepairWriter;
use crate::store::model::error::StoreError;
use crate::store::namespace::Namespace;
use crate::store::replay::faulty::FaultyKeys;
use crate::store::replay::log_replay::{LogPosition, LogProgress, LogReplay};
use crate::store::replay::sorted::{SortedRows, Spill};
use crate::store::schema::merge;
use crate::store::schema::tables;
use crate::store::schema::tally::RowTally;

/// Whether the log proves which rows the index has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogProof {
    /// It has every batch, and the index agrees with it but for rows that were put back.
    Whole,
    /// It has every batch; the index has other rows.
    Differs,
    /// Objects are missing or damaged, or it ends before the index.
    Incomplete,
}

/// Compares the index with its log, and puts back the rows that only the log has.
pub(super) async fn put_back<F: Fn(CheckStep) + Send + Sync>(
    namespace: &Namespace,
    config: &CheckConfig,
    step: &F,
    report: &mut RepairReport,
) -> Result<LogProof, StoreError> {
    let index = namespace.core.index.rows();
    let spill = Spill {
        memory: config.spill.memory / 2,
        ..config.spill.clone()
    };
    let rows = SortedRows::new(merge::merge, spill);
    let from = checkpoint(&**index).await?;
    let mut replay = LogReplay::new(&namespace.core.backend, rows, from);
    let end = newest(&**index).await?;
    let told = |LogProgress { read, all }| step(CheckStep::Log { read, all });
    let reached = replay.read_to(end.batch, end.logged, &told).await?;
    report.log_objects = Findings::of_log(&replay.damage);
    if reached != LogPosition::There || !report.log_objects.is_empty() {
        return Ok(LogProof::Incomplete);
    }
    replay.rows.write_run()?;
    let mut missing = SortedRows::new(merge::merge, config.share());
    let (mut lacking, mut kept) = (FaultyKeys::default(), FaultyKeys::default());
    let differs = |row: DifferingRow<'_>| {
        let is_readable = row.index.is_some_and(|value| is_readable(row.key, value));
        match row.other.filter(|_| !is_readable) {
            Some(logged) => {
                lacking.add(row.key);
                missing.add(row.key.clone(), Change::Put(logged.clone()))
            }
            None => {
                kept.add(row.key);
                Ok(())
            }
        }
    };
    let mut logged = replay.rows.rows();
    report.rows = compare_rows(&**index, &mut logged, step, |_| Ok(()), differs).await?;
    drop(logged);
    let mut writer = RepairWriter::new(namespace, step);
    let mut rows = missing.rows();
    while let Some((key, value)) = rows.next().await? {
        writer
            .change(key.clone(), |txn| txn.rows.put(key, value))
            .await?;
    }
    writer.write().await?;
    let proof = match kept.count {
        0 => LogProof::Whole,
        _ => LogProof::Differs,
    };
    let mut paths = PathFinder::new(&**index, [&lacking, &kept]).await?;
    let what = |row: &str| format!("{row} was put back from the log");
    report.put_back = paths.findings(lacking, what).await?;
    let what = |row: &str| format!("{row} is as the index has it; the log had it otherwise");
    report.kept = paths.findings(kept, what).await?;
    Ok(proof)
}

/// Tells whether a row of the index can be decoded, as far as a check decodes it.
fn is_readable(key: &Bytes, value: &Bytes) -> bool {
    tables::count(key, value, &mut RowTally::default()).is_ok()
}

/// Returns findings for the counts that a recount changes.
pub(super) async fn recounted(
    index: &dyn MetaRead,
    miscounted: FaultyKeys,
) -> Result<Findings, StoreError> {
    let none = FaultyKeys::default();
    let mut paths = PathFinder::new(index, [&miscounted, &none]).await?;
    let what = |row: &str| format!("{row} is set to the recount");
    paths.findings(miscounted, what).await
}
