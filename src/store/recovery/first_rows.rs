//! The rows that every mount needs, read at the same time.
//!
//! The recovery reads them one after the other, each from tables that no one has read yet: their indexes, filters and blocks are three
//! requests each. After this, they are in the cache of the index.

use std::ops::Range;

use bytes::Bytes;

use crate::store::index::current::Index;
use crate::store::index::provisional::ProvisionalStates;
use crate::store::model::error::StoreError;
use crate::store::model::version::ROOT;
use crate::store::schema::tables::{
    DirectoryPolicyTable, OrphanTable, RestoredTreeTable, RowTable, SteppedRestoreTable,
};
use crate::store::schema::{keys, retention_keys};

/// Reads the first row of each range, so that a later read of it finds the row in the cache.
///
/// # Errors
/// Errors of the index. The later reads would fail as well, after another wait for a bucket that does not answer.
pub(crate) async fn read_first_rows(index: &Index) -> Result<(), StoreError> {
    let reads = ranges().into_iter().map(|range| async {
        let first = index.first(range.start, range.end).await;
        first.map(drop)
    });
    // Most provisional states are gone: the range of their rows begins with very many that were deleted.
    let provisional = ProvisionalStates::load(index);
    futures::try_join!(futures::future::try_join_all(reads), provisional)?;
    Ok(())
}

fn ranges() -> Vec<Range<Bytes>> {
    let rows = [
        keys::applied().bytes(),
        keys::archived_watermarks().bytes(),
        keys::logged().bytes(),
        keys::inode(ROOT).bytes(),
        keys::policy().bytes(),
        retention_keys::cap().bytes(),
        DirectoryPolicyTable::all(),
        RestoredTreeTable::all(),
        OrphanTable::all(),
        SteppedRestoreTable::all(),
    ];
    let range = |row: Bytes| {
        let end = keys::after(&row);
        row..end
    };
    rows.map(range).into()
}
