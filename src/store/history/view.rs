//! The past as one state of the index shows it.
//!
//! Answers of one view agree with each other: a version that a list shows is found by its timestamp in the same view. A follower's
//! rows may become newer between two reads. Therefore all reads here take current rows before version records: a state that is
//! superseded between the two is found in one of them.

use crate::store::history::History;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::DentryRow;

/// The past of a namespace, read from one snapshot of its rows. Not for keeping: it holds old rows in the index.
#[derive(Clone, Debug)]
pub struct PastView {
    pub(super) rows: Snapshot,
    /// The newest timestamp that is shown.
    pub(super) newest: Timestamp,
}

impl History {
    /// Returns the past as the index shows it now.
    pub fn view(&self) -> PastView {
        PastView {
            rows: self.core.index.snapshot(),
            newest: self.core.now(),
        }
    }
}

impl PastView {
    /// Returns the directory entry of `name`; `None` if there is no such name.
    pub(super) async fn entry(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<Option<DentryRow>, StoreError> {
        self.rows.row(&keys::entry(directory, name)).await
    }
}
