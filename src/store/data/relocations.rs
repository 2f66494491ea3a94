//! Relocations: where the extents are that garbage collection copied to another segment.

use std::collections::HashMap;

use crate::meta::MetaRead;
use crate::store::model::error::StoreError;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::MovedRow;
use crate::store::schema::tables::{MovedTable, RowTable};
use crate::sync::{Arc, Mutex, lock};

/// Maximum number of relocation rows in the cache; the next one empties it first.
const KNOWN_MAX: usize = 4096;
/// How often an extent may have been copied; more is a circle in the rows of a damaged index.
pub(super) const HOPS_MAX: usize = 1024;

/// The relocation rows (`G M`) of copied segments, with a cache of those that were read.
#[derive(Debug)]
pub(crate) struct RelocationTable {
    rows: Arc<dyn MetaRead>,
    known: Mutex<HashMap<SegmentId, Arc<MovedRow>>>,
}

/// A segment and an offset in it, bytes.
pub(crate) type RelocatedExtent = (SegmentId, u32);

/// Returns where a row says that the extent at `offset` of its segment was copied to.
fn target(row: &MovedRow, offset: u32) -> Option<RelocatedExtent> {
    let (epoch, sequence, offset) = *row.extents.get(&offset)?;
    Some((SegmentId { epoch, sequence }, offset))
}

impl RelocationTable {
    /// Returns a table that reads relocation rows from `rows`.
    pub(crate) fn new(rows: Arc<dyn MetaRead>) -> Self {
        Self {
            rows,
            known: Mutex::default(),
        }
    }

    /// Returns where an extent is according to the cached rows; `extent` itself if none of them relocates it.
    pub(crate) fn known(&self, mut extent: RelocatedExtent) -> RelocatedExtent {
        let known = lock(&self.known);
        for _ in 0..HOPS_MAX {
            match known.get(&extent.0).and_then(|row| target(row, extent.1)) {
                Some(next) => extent = next,
                None => break,
            }
        }
        extent
    }

    /// Reads from the index where an extent was copied to; `None` if it was not copied.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when the row cannot be decoded.
    pub(crate) async fn next(
        &self,
        extent: RelocatedExtent,
    ) -> Result<Option<RelocatedExtent>, StoreError> {
        let key = keys::moved(extent.0.epoch, extent.0.sequence);
        let Some(value) = self.rows.get(&key).await? else {
            return Ok(None);
        };
        let row: MovedRow = MovedTable::decode(&value)?;
        let next = target(&row, extent.1);
        let mut known = lock(&self.known);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(extent.0, Arc::new(row));
        Ok(next)
    }
}
