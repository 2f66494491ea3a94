//! Listings: keys with a common prefix, in ascending order of their bytes. A listing reads the tree as the caller asks
//! for entries.
//!
//! The tree is walked directory by directory, in the order of names. Keys below a directory sort as if the name ended
//! in a slash, so a directory is returned only after all names that sort before `NAME/`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::BlobError;
use super::key::ObjectKey;
use super::{BlobStore, OpenStore};
use crate::store::{DirectoryListing, Ino, Kind, ROOT, Stat, StoreError, Time};
use crate::sync::Arc;

/// A blob in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// The key.
    pub key: Bytes,
    /// The length in bytes.
    pub size: u64,
    /// The time of the last change of the content.
    pub modified: Time,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListItem {
    /// A blob.
    Blob(BlobEntry),
    /// A prefix that ends in `/` and has at least one blob below it; only with `delimited`.
    Prefix(Bytes),
}

impl ListItem {
    /// Returns the key or the prefix.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Blob(blob) => &blob.key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// Options of a listing.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// The prefix of the keys, in bytes; an empty prefix means all keys.
    pub prefix: Bytes,
    /// Lists only keys after this one: the last key of the previous page.
    pub after: Option<Bytes>,
    /// Whether all keys that have a `/` after the prefix are shown as one entry, up to that `/`.
    pub delimited: bool,
    /// Maximum number of entries of a page.
    pub limit: usize,
}

impl ListOptions {
    /// Returns options for all keys that begin with `prefix`, in pages of 1000.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self {
            prefix: Bytes::copy_from_slice(prefix.as_ref()),
            after: None,
            delimited: false,
            limit: 1000,
        }
    }
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, in ascending order.
    pub entries: Vec<ListItem>,
    /// The value of `after` for the next page; `None` on the last page.
    pub next: Option<Bytes>,
}

impl Page {
    /// Returns the keys of the blobs on the page.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.entries.iter().filter_map(|entry| match entry {
            ListItem::Blob(blob) => Some(&blob.key),
            ListItem::Prefix(_) => None,
        })
    }
}

impl BlobStore {
    /// Lists the keys that begin with `prefix`, in ascending order of their bytes. A blob that is put or deleted during
    /// the listing may or may not be listed; every other blob is listed once.
    pub fn list(&self, prefix: impl AsRef<[u8]>) -> BlobList {
        self.list_with(&ListOptions::prefix(prefix))
    }

    /// As [`BlobStore::list`] with options. The `limit` is ignored.
    pub fn list_with(&self, options: &ListOptions) -> BlobList {
        BlobList {
            open: Arc::clone(&self.0),
            options: options.clone(),
            levels: Vec::new(),
            begun: false,
        }
    }

    /// Returns one page of a listing.
    ///
    /// # Errors
    /// `Store`.
    pub async fn list_page(&self, options: &ListOptions) -> Result<Page, BlobError> {
        let mut list = self.list_with(options);
        let mut entries = Vec::new();
        while entries.len() < options.limit {
            match list.next().await? {
                Some(entry) => entries.push(entry),
                None => {
                    return Ok(Page {
                        entries,
                        next: None,
                    });
                }
            }
        }
        let next = entries.last().map(|entry: &ListItem| entry.key().clone());
        Ok(Page { entries, next })
    }
}

/// A listing in progress.
#[derive(Debug)]
pub struct BlobList {
    open: Arc<OpenStore>,
    options: ListOptions,
    levels: Vec<ListLevel>,
    begun: bool,
}

/// A directory that the listing is reading.
#[derive(Debug)]
struct ListLevel {
    /// The path of the directory with a slash at the end; empty for the root.
    path: Vec<u8>,
    names: DirectoryListing,
    /// Prefix of the names to list, in bytes.
    filter: Vec<u8>,
    /// Names that were read and not returned yet, by the order of their keys.
    held: BTreeMap<Vec<u8>, Stat>,
    /// The last name that was read; `None` at the end of the directory.
    read: Option<Bytes>,
}

impl BlobList {
    /// Returns the next entry; `None` at the end.
    ///
    /// # Errors
    /// `Store`.
    pub async fn next(&mut self) -> Result<Option<ListItem>, BlobError> {
        if !self.begun {
            self.begun = true;
            self.begin().await?;
        }
        while let Some(level) = self.levels.last_mut() {
            let Some((key, stat)) = level.next().await? else {
                self.levels.pop();
                continue;
            };
            match stat.kind {
                Kind::File if self.is_behind(&key) => {
                    return Ok(Some(ListItem::Blob(BlobEntry {
                        key: key.into(),
                        size: stat.attrs.size,
                        modified: stat.attrs.mtime,
                    })));
                }
                Kind::Directory if !self.options.delimited => {
                    let level = self.level(key, stat.ino, Vec::new()).await?;
                    self.levels.extend(level);
                }
                Kind::Directory if self.is_behind(&key) && self.open.has_blob(stat.ino).await? => {
                    return Ok(Some(ListItem::Prefix(key.into())));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Opens the directory in which the prefix ends.
    async fn begin(&mut self) -> Result<(), BlobError> {
        let prefix = self.options.prefix.clone();
        let cut = prefix
            .iter()
            .rposition(|b| *b == b'/')
            .map_or(0, |at| at + 1);
        let (path, rest) = prefix.split_at(cut);
        let mut directory = Some(ROOT);
        if let Some(above) = path.strip_suffix(b"/") {
            // A path that is not a valid key has no blobs below it.
            directory = match ObjectKey::new(&[above, b"/x"].concat()) {
                Ok(key) => self.open.directory(&key).await?,
                Err(_) => None,
            };
        }
        if let Some(ino) = directory {
            let level = self.level(path.to_vec(), ino, rest.to_vec()).await?;
            self.levels.extend(level);
        }
        Ok(())
    }

    fn is_behind(&self, key: &[u8]) -> bool {
        self.options
            .after
            .as_ref()
            .is_none_or(|after| key > &after[..])
    }

    /// Opens a directory at the first name that can be listed; `None` if all its keys sort before `after`.
    async fn level(
        &self,
        path: Vec<u8>,
        directory: Ino,
        filter: Vec<u8>,
    ) -> Result<Option<ListLevel>, BlobError> {
        let mut from = filter.clone();
        let mut held = BTreeMap::new();
        if let Some(after) = &self.options.after {
            match after.strip_prefix(&path[..]) {
                Some(rest) => {
                    let end = rest.iter().position(|b| *b == b'/');
                    let name = &rest[..end.unwrap_or(rest.len())];
                    if name > &from[..] {
                        held = self.open.before(directory, name, &filter).await?;
                        from = name.to_vec();
                    }
                }
                None if after[..] > path[..] => return Ok(None),
                None => {}
            }
        }
        let tree = Arc::clone(self.open.namespace.tree());
        Ok(Some(ListLevel {
            path,
            names: DirectoryListing::starting_at(tree, directory, &from),
            filter,
            held,
            read: Some(Bytes::new()),
        }))
    }
}

impl ListLevel {
    /// Returns the next key, with a slash at the end for a directory, and what the key leads to.
    async fn next(&mut self) -> Result<Option<(Vec<u8>, Stat)>, BlobError> {
        loop {
            // Every name that is still to come sorts after the last name that was read.
            let first = self.held.first_entry().filter(|first| match &self.read {
                Some(read) => first.key()[..] <= read[..],
                None => true,
            });
            if let Some(first) = first {
                let (name, stat) = first.remove_entry();
                return Ok(Some(([&self.path[..], &name].concat(), stat)));
            }
            if self.read.is_none() {
                return Ok(None);
            }
            let next = self.names.next().await?;
            let next = next.filter(|(name, _)| name.starts_with(&self.filter));
            self.read = next.as_ref().map(|(name, _)| name.clone());
            if let Some((name, stat)) = next {
                self.held.insert(sorted(&name, stat.kind), stat);
            }
        }
    }
}

/// Returns the bytes by which the keys of a name sort in its directory.
fn sorted(name: &[u8], kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Directory => [name, b"/"].concat(),
        _ => name.to_vec(),
    }
}

impl OpenStore {
    /// Returns the directories whose names sort before `name` and whose keys sort after it: the directory `a` sorts
    /// before the name `a!`, but its key `a/b` sorts after `a!`.
    async fn before(
        &self,
        directory: Ino,
        name: &[u8],
        filter: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, Stat>, BlobError> {
        let mut found = BTreeMap::new();
        for (at, byte) in name.iter().enumerate().skip(filter.len().max(1)) {
            if *byte >= b'/' {
                continue;
            }
            if let Some(stat) = self.namespace.tree().lookup(directory, &name[..at]).await?
                && stat.kind == Kind::Directory
            {
                found.insert(sorted(&name[..at], stat.kind), stat);
            }
        }
        Ok(found)
    }

    /// Tells whether a directory has a blob anywhere below it.
    async fn has_blob(&self, directory: Ino) -> Result<bool, BlobError> {
        let mut open = vec![directory];
        while let Some(directory) = open.pop() {
            let mut names = match self.namespace.tree().list(directory).await {
                Ok(names) => names,
                // A concurrent delete removed the directory.
                Err(StoreError::NotFound | StoreError::NotDirectory) => continue,
                Err(error) => return Err(error.into()),
            };
            while let Some((_, stat)) = names.next().await? {
                match stat.kind {
                    Kind::File => return Ok(true),
                    Kind::Directory => open.push(stat.ino),
                    _ => {}
                }
            }
        }
        Ok(false)
    }
}
