//! Repair of a namespace, by its writer: what a check finds is mended as far as something proves what it should be. Nothing that can be
//! read is deleted.
//!
//! Steps, each of which a crash leaves to the next repair: rows that only the log has are put back; rows of names are made to agree; counts
//! are set to their recount; contents with bytes that cannot be read are marked, and the marks of those that can be read again are removed;
//! what nothing needs is left to garbage collection; a log with missing or damaged objects, or with other rows than the index, begins
//! again with a list of all rows. All rows are changed by operations of the commit queue, so that journal, index and log agree.

mod counters;
mod marks;
mod mend_names;
mod put_back;
pub(super) mod report;
mod writer;

use crate::meta::MetaRead;
use crate::store::check::config::{CheckConfig, CheckStep};
use crate::store::check::damage::{DamagedContents, DamagedStates};
use crate::store::check::finding::{Findings, PathFinder, Subject};
use crate::store::check::lost::ExtentSearch;
use crate::store::check::repair::put_back::{LogProof, put_back};
use crate::store::check::repair::report::{LogRepair, RepairReport};
use crate::store::check::repair::writer::RepairWriter;
use crate::store::check::scan::ScannedRows;
use crate::store::model::error::StoreError;
use crate::store::model::role::Role;
use crate::store::namespace::Namespace;
use crate::store::replay::faulty::FaultyKeys;
use crate::store::replay::recount::Recount;
use crate::store::schema::keys;
use crate::store::schema::tables::{RestoredTreeTable, RowTable, SteppedRestoreTable};

/// Mends what can be mended in a namespace that nothing else changes meanwhile. `step` receives the progress. A call after a crash goes on.
///
/// # Errors
/// `Busy` while a directory is being restored; `ReadOnly` on a follower; `Unavailable`, `Fenced`, `LocalDisk`, errors of the index. What was
/// mended until then stays mended.
pub async fn repair(
    namespace: &Namespace,
    config: &CheckConfig,
    step: impl Fn(CheckStep) + Send + Sync,
) -> Result<RepairReport, StoreError> {
    if !matches!(namespace.core.role, Role::Writer) {
        return Err(StoreError::ReadOnly);
    }
    let index = &**namespace.core.index.rows();
    namespace.drain().await?;
    refuse_unfinished(index).await?;
    let mut report = RepairReport::default();
    let proof = put_back(namespace, config, &step, &mut report).await?;
    let mut scanned = ScannedRows::new(config);
    report.rows = scanned.scan_all(index, &step).await?;
    let mut writer = RepairWriter::new(namespace, &step);
    let none = FaultyKeys::default();
    let mut paths = PathFinder::new(index, [&none, &none]).await?;
    mend_names::mend(index, &scanned.names, &mut paths, &mut writer, &mut report).await?;
    mend_counts(index, &scanned, proof, &mut writer, &mut report).await?;
    let mut contents = find_damage(namespace, config, &step, &mut scanned, &mut report).await?;
    marks::mark(index, &mut contents, config.data, &mut writer, &mut report).await?;
    if contents.is_cut {
        let what = "has more damage than one repair marks: repeat the command";
        let subject = Subject::Other("the namespace".to_owned());
        report.left.add(subject, what);
    }
    // Where the log is incomplete, a row that needs them may be missing.
    if proof == LogProof::Whole {
        report.queued = marks::queue_leaks(&scanned.references, &mut writer).await?;
    }
    writer.write().await?;
    report.damaged = DamagedStates::name(index, &contents, &mut paths, &step)
        .await?
        .marked;
    if proof != LogProof::Whole {
        namespace.gc.log_anew().await?;
        report.log = LogRepair::BegunAnew;
    }
    namespace.drain().await?;
    Ok(report)
}

/// Refuses a namespace in which a directory is being restored in several batches.
async fn refuse_unfinished(index: &dyn MetaRead) -> Result<(), StoreError> {
    for table in [RestoredTreeTable::all(), SteppedRestoreTable::all()] {
        let end = keys::after(&table);
        if index.seek(table..end).await?.next().await?.is_some() {
            let why = "a directory is being restored: mount the namespace until the restore has ended, then repair it";
            return Err(StoreError::Busy(why.to_owned()));
        }
    }
    Ok(())
}

/// Sets the counts to the recount, and makes that durable.
async fn mend_counts<F: Fn(CheckStep) + Send + Sync>(
    index: &dyn MetaRead,
    scanned: &ScannedRows,
    proof: LogProof,
    writer: &mut RepairWriter<'_, F>,
    report: &mut RepairReport,
) -> Result<(), StoreError> {
    let counts: &Recount = &scanned.counts;
    let mut miscounted = counts.finish().await?;
    let left = counters::mend(index, counts, &scanned.references, proof, writer).await?;
    miscounted.keys.retain(|key| !left.keys.contains(key));
    miscounted.count -= left.count;
    report.recounted = put_back::recounted(index, miscounted).await?;
    let none = FaultyKeys::default();
    let mut paths = PathFinder::new(index, [&left, &none]).await?;
    let what = |row: &str| format!("{row}: no other row says what it should be");
    let left: Findings = paths.findings(left, what).await?;
    report.left.count += left.count;
    report.left.named.extend(left.named);
    writer.write().await
}

/// Finds the contents with bytes that cannot be read.
async fn find_damage<F: Fn(CheckStep) + Send + Sync>(
    namespace: &Namespace,
    config: &CheckConfig,
    step: &F,
    scanned: &mut ScannedRows,
    report: &mut RepairReport,
) -> Result<DamagedContents, StoreError> {
    let core = &namespace.core;
    let (index, references) = (&**core.index.rows(), &mut scanned.references);
    references.list(&core.backend, step).await?;
    let mut search = ExtentSearch::new(&core.backend, index, config.data, references, step);
    let lost = search.run(references).await?;
    report.verified = search.read;
    DamagedContents::find(index, &core.index.snapshot(), &lost).await
}
