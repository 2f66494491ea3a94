//! Rows of names that do not agree are made to agree with the entries of directories, which are what readers see.

use crate::meta::MetaRead;
use crate::store::check::config::CheckStep;
use crate::store::check::finding::{Finding, PathFinder};
use crate::store::check::names::{NameFault, NameRows};
use crate::store::check::repair::report::RepairReport;
use crate::store::check::repair::writer::RepairWriter;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::Ino;
use crate::store::schema::keys;
use crate::store::schema::rows::{DirectoryRow, InodeRow, LocationRow};
use crate::store::schema::tables::{InodeTable, RowTable};

/// Whether a fault was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameRepair {
    Mended,
    Left,
}

/// Mends the names whose rows do not agree, as far as other rows say what they should be.
pub(super) async fn mend<F: Fn(CheckStep) + Send + Sync>(
    index: &dyn MetaRead,
    names: &NameRows,
    paths: &mut PathFinder<'_>,
    writer: &mut RepairWriter<'_, F>,
    report: &mut RepairReport,
) -> Result<(), StoreError> {
    let mut faults = names.faults();
    // A directory whose row is written by this repair, and whose entries may have to be counted too.
    let mut written = None;
    while let Some((ino, fault)) = faults.next().await? {
        let done = mend_one(index, ino, &fault, written == Some(ino), writer).await?;
        if matches!(fault, NameFault::MisplacedDirectory { .. }) {
            written = Some(ino);
        }
        let (findings, end) = match done {
            NameRepair::Mended => (&mut report.names, "mended"),
            NameRepair::Left => (&mut report.left, "no other row says what it should be"),
        };
        if findings.is_full() {
            findings.count += 1;
            continue;
        }
        findings.push_named(Finding {
            subject: paths.of_inode(ino).await?,
            what: format!("{}: {end}", fault.text()),
            intact: None,
        });
    }
    Ok(())
}

async fn mend_one<F: Fn(CheckStep) + Send + Sync>(
    index: &dyn MetaRead,
    ino: Ino,
    fault: &NameFault,
    is_written: bool,
    writer: &mut RepairWriter<'_, F>,
) -> Result<NameRepair, StoreError> {
    let key = keys::inode(ino);
    let row = index.get(&key).await?;
    let row = row.map(|row| InodeTable::decode(&row)).transpose()?;
    match (fault, row) {
        (NameFault::Misplaced { entry }, _) => {
            let Dentry { parent, name } = entry.clone();
            let location = LocationRow {
                directory: parent,
                name,
            };
            let place = keys::place(ino);
            writer
                .change(place.clone().bytes(), |txn| txn.put(place, &location))
                .await?;
        }
        (NameFault::StrayPlace, _) => {
            let place = keys::place(ino);
            writer
                .change(place.clone().bytes(), |txn| txn.delete(place))
                .await?;
        }
        (NameFault::MisplacedDirectory { entry }, None | Some(InodeRow::Directory(_))) => {
            let entry = entry.clone();
            writer
                .change(key.clone().bytes(), |txn| {
                    let row = DirectoryRow {
                        place: Some((txn.timestamp, entry)),
                        ..DirectoryRow::default()
                    };
                    txn.merge(key, &InodeRow::Directory(row));
                })
                .await?;
        }
        (NameFault::LinkCount { names }, Some(InodeRow::Linked(mut row))) => {
            row.nlink = *names;
            writer
                .change(key.clone().bytes(), |txn| {
                    txn.put(key, &InodeRow::Linked(row));
                })
                .await?;
        }
        (
            NameFault::EntryCount {
                entries,
                directories,
            },
            row,
        ) if is_written || matches!(row, Some(InodeRow::Directory(_))) => {
            let row = DirectoryRow {
                entries: *entries,
                directories: *directories,
                ..DirectoryRow::default()
            };
            writer
                .change(key.clone().bytes(), |txn| {
                    txn.merge(key, &InodeRow::Directory(row));
                })
                .await?;
        }
        _ => return Ok(NameRepair::Left),
    }
    Ok(NameRepair::Mended)
}
