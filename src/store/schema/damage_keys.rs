//! The keys of the marks of damaged contents.
//!
//! | key | bytes after the prefix | read by, for | order |
//! |---|---|---|---|
//! | `G x` | cid, timestamp | `.versions`: whether bytes of a version are lost; `check`: which damage is known | few, all scanned |

use crate::store::model::version::ContentRef;
use crate::store::schema::keys::KeyBuilder;
use crate::store::schema::tables::{DamagedTable, RowKey, RowTable};

/// The mark of a content with bytes that cannot be read.
pub(crate) fn damaged(content: ContentRef) -> RowKey<DamagedTable> {
    KeyBuilder::new(DamagedTable::PREFIX)
        .u64(content.cid)
        .u64(content.timestamp.0)
        .row()
}
