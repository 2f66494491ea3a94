//! Directories of keys: lookup now and in the past, creation before a put, and removal after a delete.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::OpenStore;
use super::error::BlobError;
use super::key::ObjectKey;
use crate::store::{Ino, Kind, NewNode, Owner, ROOT, Stat, StoreError};

/// Extended attribute of a directory that a put created. A delete removes such a directory when it is empty; a
/// directory without the attribute is kept.
pub(super) const IMPLICIT: &[u8] = b"user.rewindfs.implicit";

impl OpenStore {
    /// Returns the directory of a key; `None` if a part of the path is missing or not a directory.
    pub(super) async fn directory(&self, key: &ObjectKey) -> Result<Option<Ino>, BlobError> {
        let mut at = ROOT;
        for part in key.directories() {
            match self.namespace.tree().lookup(at, &part).await? {
                Some(stat) if stat.kind == Kind::Directory => at = stat.ino,
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Returns the blob under a key and its directory; `None` if the key does not lead to a file.
    pub(super) async fn find(&self, key: &ObjectKey) -> Result<Option<(Ino, Stat)>, BlobError> {
        let Some(directory) = self.directory(key).await? else {
            return Ok(None);
        };
        let found = self.namespace.tree().lookup(directory, &key.name()).await?;
        Ok(found
            .filter(|stat| stat.kind == Kind::File)
            .map(|stat| (directory, stat)))
    }

    /// Returns the directory of a key, after creating the missing parts of the path.
    pub(super) async fn make_directories(&self, key: &ObjectKey) -> Result<Ino, BlobError> {
        'again: loop {
            let mut at = ROOT;
            for part in key.directories() {
                match self.make_directory(key, at, &part).await {
                    Ok(directory) => at = directory,
                    // A concurrent delete removed the parent directory; the walk starts again at the root.
                    Err(BlobError::Store(StoreError::NotFound)) => continue 'again,
                    Err(error) => return Err(error),
                }
            }
            return Ok(at);
        }
    }

    async fn make_directory(
        &self,
        key: &ObjectKey,
        at: Ino,
        part: &Bytes,
    ) -> Result<Ino, BlobError> {
        loop {
            match self.namespace.tree().lookup(at, part).await? {
                Some(stat) if stat.kind == Kind::Directory => return Ok(stat.ino),
                Some(_) => {
                    let why = "a part of its path is not a directory";
                    return Err(BlobError::conflict(key.bytes(), why));
                }
                None => {}
            }
            let Owner { uid, gid } = self.options.config.owner;
            let node = NewNode {
                kind: Kind::Directory,
                mode: self.options.directory_mode,
                uid,
                gid,
                rdev: 0,
                target: Bytes::new(),
                xattrs: vec![(Bytes::from_static(IMPLICIT), Bytes::from_static(b"1"))],
            };
            let author = &self.options.author;
            match self.namespace.tree().create(at, part, node, author).await {
                Ok(stat) => return Ok(stat.ino),
                Err(StoreError::Exists) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes the directories of a key that puts created and that are empty, innermost first.
    pub(super) async fn prune(&self, key: &ObjectKey) -> Result<(), BlobError> {
        let mut above = vec![ROOT];
        let parts: Vec<Bytes> = key.directories().collect();
        for part in &parts {
            match self
                .namespace
                .tree()
                .lookup(above[above.len() - 1], part)
                .await?
            {
                Some(stat) if stat.kind == Kind::Directory => above.push(stat.ino),
                _ => break,
            }
        }
        while let (Some(directory), Some(parent)) = (above.pop(), above.last()) {
            let part = &parts[above.len() - 1];
            let made = self.namespace.tree().get_xattr(directory, IMPLICIT).await;
            if !matches!(made, Ok(Some(_))) {
                return Ok(());
            }
            match self
                .namespace
                .tree()
                .rmdir(*parent, part, &self.options.author)
                .await
            {
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(StoreError::NotEmpty | StoreError::NotDirectory) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Returns every directory to which the path of a key leads or ever led, oldest first.
    pub(super) async fn directories_ever(&self, key: &ObjectKey) -> Result<Vec<Ino>, BlobError> {
        let mut found = vec![ROOT];
        for part in key.directories() {
            let mut below = BTreeSet::new();
            for directory in found {
                below.extend(
                    self.namespace
                        .history()
                        .view()
                        .directories_under(directory, &part)
                        .await?,
                );
            }
            found = below.into_iter().collect();
        }
        Ok(found)
    }
}
