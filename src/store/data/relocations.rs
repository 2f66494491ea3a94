//! Where the extents of copied segments are now.

use std::collections::HashMap;

use crate::meta::MetaRead;
use crate::store::model::error::StoreError;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::MovedRow;
use crate::store::schema::tables::{MovedTable, RowTable};
use crate::sync::{Arc, Mutex, lock};

/// Moved segments remembered; all are forgotten when there are more.
const KNOWN_MAX: usize = 4096;

/// Where the extents of rewritten segments went.
#[derive(Debug)]
pub(crate) struct RelocationTable {
    rows: Arc<dyn MetaRead>,
    known: Mutex<HashMap<SegmentId, Arc<MovedRow>>>,
}

/// A segment and an offset in it, bytes.
pub(crate) type RelocatedExtent = (SegmentId, u32);

fn target(row: &MovedRow, offset: u32) -> Option<RelocatedExtent> {
    let (epoch, sequence, offset) = *row.extents.get(&offset)?;
    Some((SegmentId { epoch, sequence }, offset))
}

impl RelocationTable {
    pub(crate) fn new(rows: Arc<dyn MetaRead>) -> Self {
        Self {
            rows,
            known: Mutex::default(),
        }
    }

    /// Where an extent lies, as far as that is known here.
    pub(crate) fn known(&self, mut extent: RelocatedExtent) -> RelocatedExtent {
        let known = lock(&self.known);
        while let Some(next) = known.get(&extent.0).and_then(|row| target(row, extent.1)) {
            extent = next;
        }
        extent
    }

    /// Where an extent went that is not there any more; `None` if it was not moved.
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
