//! Listings: keys by a prefix of their bytes, ascending, read as they are asked for.
//!
//! The tree is walked name by name. A directory's keys sort as if its name ended in a slash: it is kept back while names
//! that sort between the two are still to come.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::BlobError;
use super::key::ObjectKey;
use super::{BlobStore, OpenStore};
use crate::store::{DirectoryListing, Ino, Kind, ROOT, Stat, StoreError, Time};
use crate::sync::Arc;

/// A blob as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its key.
    pub key: Bytes,
    /// Its length in bytes.
    pub size: u64,
    /// When its content changed last.
    pub modified: Time,
}

/// What a listing with a delimiter shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListItem {
    /// A blob.
    Blob(BlobEntry),
    /// A prefix that ends in `/`, with blobs below it.
    Prefix(Bytes),
}

impl ListItem {
    /// The key or the prefix.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Blob(blob) => &blob.key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// What is listed.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Bytes that keys begin with; none mean all keys.
    pub prefix: Bytes,
    /// Only what sorts behind it: the last key of the page before.
    pub after: Option<Bytes>,
    /// Whether all keys with a `/` behind the prefix are shown as one, up to that `/`.
    pub delimited: bool,
    /// Entries of a page, at most.
    pub limit: usize,
}

impl ListOptions {
    /// All keys that begin with `prefix`, in pages of 1000.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self {
            prefix: Bytes::copy_from_slice(prefix.as_ref()),
            after: None,
            delimited: false,
            limit: 1000,
        }
    }
}

/// Part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Ascending.
    pub entries: Vec<ListItem>,
    /// What the next page is to come after; `None` for the last one.
    pub next: Option<Bytes>,
}

impl Page {
    /// Keys of the blobs in it.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.entries.iter().filter_map(|entry| match entry {
            ListItem::Blob(blob) => Some(&blob.key),
            ListItem::Prefix(_) => None,
        })
    }
}

impl BlobStore {
    /// Lists the keys that begin with `prefix`, ascending by their bytes. Blobs that come or go meanwhile may or may not be
    /// among them; all others appear once.
    pub fn list(&self, prefix: impl AsRef<[u8]>) -> BlobList {
        self.list_with(&ListOptions::prefix(prefix))
    }

    /// As [`BlobStore::list`]; the limit is that of pages and means nothing here.
    pub fn list_with(&self, options: &ListOptions) -> BlobList {
        BlobList {
            open: Arc::clone(&self.0),
            options: options.clone(),
            levels: Vec::new(),
            begun: false,
        }
    }

    /// A page of a listing.
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

/// Keys as they are asked for.
#[derive(Debug)]
pub struct BlobList {
    open: Arc<OpenStore>,
    options: ListOptions,
    levels: Vec<ListLevel>,
    begun: bool,
}

/// A directory on the way.
#[derive(Debug)]
struct ListLevel {
    /// Its path with a slash at the end; empty for the root.
    path: Vec<u8>,
    names: DirectoryListing,
    /// What names must begin with.
    filter: Vec<u8>,
    /// Names read and not yet passed on, by how their keys sort.
    held: BTreeMap<Vec<u8>, Stat>,
    /// The last name that was read; `None` behind the last.
    read: Option<Bytes>,
}

impl BlobList {
    /// The next entry; `None` behind the last.
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

    /// The directory in which the prefix ends.
    async fn begin(&mut self) -> Result<(), BlobError> {
        let prefix = self.options.prefix.clone();
        let cut = prefix
            .iter()
            .rposition(|b| *b == b'/')
            .map_or(0, |at| at + 1);
        let (path, rest) = prefix.split_at(cut);
        let mut directory = Some(ROOT);
        if let Some(above) = path.strip_suffix(b"/") {
            // A path that no key can have leads nowhere.
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

    /// A directory from the first name on that can matter; `None` if none can.
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
    /// The next key, with a slash behind a directory's, and what it leads to.
    async fn next(&mut self) -> Result<Option<(Vec<u8>, Stat)>, BlobError> {
        loop {
            // Whatever is still to come sorts behind the last name that was read.
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

/// How the keys of a name sort in its directory.
fn sorted(name: &[u8], kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Directory => [name, b"/"].concat(),
        _ => name.to_vec(),
    }
}

impl OpenStore {
    /// Directories whose names sort before `name` and whose keys sort behind it: `a` holds `a/b`, which is behind `a!`.
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

    /// Whether there is any blob below a directory.
    async fn has_blob(&self, directory: Ino) -> Result<bool, BlobError> {
        let mut open = vec![directory];
        while let Some(directory) = open.pop() {
            let mut names = match self.namespace.tree().list(directory).await {
                Ok(names) => names,
                // It went while it was looked at.
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
