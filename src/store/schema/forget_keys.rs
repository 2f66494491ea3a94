//! The keys of the rows of forgetting.
//!
//! | key | bytes after the prefix | read by, for | order |
//! |---|---|---|---|
//! | `G f` | directory, name | forgetting: names whose versions are deleted or about to be, and whose bytes have to go | few, all scanned |

use crate::store::model::version::Ino;
use crate::store::schema::keys::KeyBuilder;
use crate::store::schema::tables::{ForgottenTable, RowKey, RowTable};

/// The versions of a name that are being forgotten.
pub(crate) fn forgotten(directory: Ino, name: &[u8]) -> RowKey<ForgottenTable> {
    KeyBuilder::new(ForgottenTable::PREFIX)
        .u64(directory.0)
        .bytes(name)
        .row()
}
