//! Lookup of directories by a name that they have or had when they were removed.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, Kind};
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryBody, DirectoryLocation, InodeRow, VersionRecord};
use crate::store::schema::tables::{DirectoryLocationTable, RowTable, VersionTable};

impl PastView {
    /// Returns the directory that a name leads to, and the directories that were removed under this name.
    pub(crate) async fn directories_under(
        &self,
        parent: Ino,
        name: &Bytes,
    ) -> Result<Vec<Ino>, StoreError> {
        let mut found = BTreeSet::new();
        if let Some(entry) = self.entry(parent, name).await?
            && matches!(&entry.body, DentryBody::Own { node, .. } if node.kind == Kind::Directory)
        {
            found.insert(entry.ino);
        }
        let from = keys::history(parent, name);
        let end = keys::after(&from);
        for (_, value) in self.rows.scan(from, end, usize::MAX).await? {
            let closed: VersionRecord = VersionTable::decode(&value)?;
            let directory = closed.node.is_some_and(|n| n.kind == Kind::Directory);
            if directory
                && self.last_place(closed.ino).await? == Some(Dentry::new(parent, name.clone()))
            {
                found.insert(closed.ino);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Returns the location of a directory now, or its last location if it was removed.
    async fn last_place(&self, directory: Ino) -> Result<Option<Dentry>, StoreError> {
        let row = self.rows.row(&keys::inode(directory)).await?;
        if let Some(InodeRow::Directory(row)) = row {
            return Ok(row.place.map(|(_, place)| place));
        }
        let from = keys::directory_locations(directory);
        let Some((_, value)) = self.rows.first(from.clone(), keys::after(&from)).await? else {
            return Ok(None);
        };
        let directory_location: DirectoryLocation = DirectoryLocationTable::decode(&value)?;
        Ok(Some(Dentry::new(
            directory_location.parent,
            directory_location.name,
        )))
    }
}
