//! Values of the rows of labels and holds.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::model::version::{Author, Ino, Timestamp};

/// A label of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabelRow {
    /// The timestamp as of which it shows the directory.
    pub(crate) timestamp: Timestamp,
    /// When it was made. Its rows are younger than everything it shows.
    pub(crate) made: Timestamp,
    pub(crate) author: Author,
    pub(crate) host: String,
    /// When it is removed, unless a hold is longer.
    pub(crate) expires: Option<Timestamp>,
    /// Until when it cannot be removed.
    pub(crate) hold: Option<Timestamp>,
}

impl LabelRow {
    /// Returns when the label is due to be removed; `None` if it stays until a user removes it.
    pub(crate) fn lapses(&self) -> Option<Timestamp> {
        let expires = self.expires?;
        Some(self.hold.map_or(expires, |hold| hold.max(expires)))
    }
}

/// A hold on one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldRow {
    /// The version cannot be deleted until then.
    pub(crate) until: Timestamp,
    /// The directory and the name under which the version was held, for messages.
    pub(crate) directory: Ino,
    pub(crate) name: Bytes,
    pub(crate) author: Author,
    pub(crate) host: String,
}
