//! `.versions/`: the past as directories and files, which nothing can change; only labels and holds are made and end.
//!
//! Each kind of node is a type in a file of its own, which implements [`node::PastDir`] or [`node::PastFile`]: what is found,
//! listed and read follows from the type. No method of them writes, so that read-only needs no flag.
//! Invariant: the kernel may keep only what cannot change any more: names below a timestamp that is final, attributes of versions
//! that have ended, and bytes, which never change.

pub(crate) mod attributes;
mod change_log;
mod deleted_dir;
#[cfg(test)]
mod deleted_tests;
mod dependents;
mod dir_at;
#[cfg(test)]
mod directory_policy_tests;
#[cfg(test)]
mod editor_tests;
mod files_dir;
mod help_file;
mod history_dir;
#[cfg(test)]
mod horizon_tests;
mod label_dir;
#[cfg(test)]
mod linked_tests;
mod listing;
#[cfg(test)]
mod listing_tests;
mod node;
mod pointer;
mod reader;
mod removed_dir;
mod removed_versions_dir;
mod resolved_times;
mod shown;
pub(crate) mod stamp;
mod state;
mod state_file;
mod table;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod thin;
mod time_dir;
#[cfg(test)]
mod times_tests;
mod tree_dir;
pub(crate) mod until;
mod versions_dir;
#[cfg(test)]
mod whole_tree_tests;

pub(crate) use listing::{DrawnListing, ListedName, Listing};
pub(crate) use node::{Found, HoldTarget, LivePlace, PastContent};
pub(crate) use resolved_times::PinnedTimes;
pub(crate) use table::{PastNode, is_past};
pub(crate) use text::part;

use crate::fs::Caller;
use crate::fs::config::FsConfig;
use crate::fs::entry::Entry;
use crate::fs::error::{FsError, FsResult};
use crate::store::{CloneSource, Ino, Kind, Namespace, PastEntry, ReadAhead, Stat, Whence};
use crate::sync::Arc;
use bytes::Bytes;
use dependents::{Dependents, Forget};
use node::{PastDir, PastFile, PastItem, PastNames};
use reader::PastReader;
use shown::ShownAttrs;
use std::time::Duration;
use table::NodeTable;
use time_dir::TimeDir;
use versions_dir::VersionsDir;

/// The past of a namespace.
pub(crate) struct Past {
    reader: PastReader,
    nodes: NodeTable,
    dependents: Arc<Dependents>,
}

impl Past {
    /// The past of `namespace`, shown as `config` says. Where that is the whole tree as of a timestamp, the node with the root's number
    /// is the root directory as of then.
    pub(crate) fn new(namespace: Namespace, config: &FsConfig) -> Self {
        let dependents = Arc::<Dependents>::default();
        let help = help_file::text(&config.versions_name);
        let nodes = NodeTable::new(Arc::clone(&dependents));
        if let Some(at) = config.shown_at {
            nodes.enter_root(PastItem::dir(TimeDir::root(at)));
        }
        Self {
            reader: PastReader::new(namespace, config, help, Arc::clone(&dependents)),
            nodes,
            dependents,
        }
    }

    /// Sets the function that makes the kernel forget attributes that changed.
    pub(crate) fn tell_changes(&self, forget: Forget) {
        self.dependents.tell(forget);
    }

    /// Attributes of the live inode `ino` have changed; called before that is answered.
    pub(crate) fn changed(&self, ino: Ino) {
        self.dependents.changed(ino);
    }

    /// `.versions` of the live directory `dir`; counts one lookup.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub(crate) async fn versions_of(&self, dir: Ino) -> FsResult<Entry> {
        let changes = self.dependents.changes();
        let stat = self.reader.namespace.tree().stat(dir).await?;
        if stat.kind != Kind::Directory {
            return Err(FsError::NotDirectory);
        }
        let item = PastItem::dir(VersionsDir(dir));
        let node = self.nodes.enter(dir.0, &self.reader.versions_name, item);
        let shown = ShownAttrs::mirror(&stat, self.reader.changing_ttl());
        let entry = entry(&node, shown, self.reader.ttl);
        Ok(self.unless_changed(changes, entry))
    }

    /// Finds what `name` in `node` is to `caller` and counts one lookup of it.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub(crate) async fn lookup(
        &self,
        caller: &Caller,
        node: &PastNode,
        name: &[u8],
    ) -> FsResult<Entry> {
        let changes = self.dependents.changes();
        let found = dir(node)?.lookup(&self.reader, caller, name).await?;
        let entry_ttl = self.reader.ttl_of(found.lasting);
        let node = self.nodes.enter(node.number(), name, found.item);
        let shown = node.object().found_attributes(&self.reader).await;
        let entry = entry(&node, self.unless_failed(&node, shown)?, entry_ttl);
        Ok(self.unless_changed(changes, entry))
    }

    /// Counts one lookup of what a listing of `node` found under `name`.
    ///
    /// # Errors
    /// `NotFound`, `Stale` when it was deleted since.
    pub(crate) async fn enter(
        &self,
        node: &PastNode,
        name: &[u8],
        found: Found,
    ) -> FsResult<Entry> {
        let changes = self.dependents.changes();
        let entry_ttl = self.reader.ttl_of(found.lasting);
        let node = self.nodes.enter(node.number(), name, found.item);
        let entry = self.entry(&node, entry_ttl).await?;
        Ok(self.unless_changed(changes, entry))
    }

    /// Counts one more lookup of a node, found by its number.
    ///
    /// # Errors
    /// `Stale` when what it showed was deleted.
    pub(crate) async fn again(&self, node: &Arc<PastNode>) -> FsResult<Entry> {
        self.nodes.again(node);
        self.entry(node, Duration::ZERO).await
    }

    /// The node with this number, if the kernel references it.
    pub(crate) fn node(&self, number: u64) -> Option<Arc<PastNode>> {
        self.nodes.node(number)
    }

    /// Gives back `count` lookups of a number.
    pub(crate) fn forget(&self, number: u64, count: u64) {
        self.nodes.forget(number, count);
    }

    /// The attributes of `node`, and how long they hold.
    ///
    /// # Errors
    /// `Stale` when what it showed was deleted.
    pub(crate) async fn stat(&self, node: &PastNode) -> FsResult<(Stat, Duration)> {
        let shown = node.object().attributes(&self.reader).await?;
        let ttl = shown.ttl;
        Ok((shown.into_stat(node.number(), node.item().kind()), ttl))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` when `node` is none; `Stale` when it was deleted.
    pub(crate) async fn readlink(&self, node: &PastNode) -> FsResult<Bytes> {
        match node.item() {
            PastItem::File(file) => file.target(&self.reader),
            PastItem::Dir(_) => Err(FsError::Invalid("not a symbolic link".to_owned())),
        }
    }

    /// Opens a file for reading. What it returns keeps the bytes readable, also when the version is deleted meanwhile.
    ///
    /// # Errors
    /// `IsDirectory`; `Invalid` for what has no bytes; `Stale` when it was deleted, `Corrupt` where only its name is left.
    pub(crate) async fn open(&self, node: &PastNode) -> FsResult<PastContent> {
        match node.item() {
            PastItem::Dir(_) => Err(FsError::IsDirectory),
            PastItem::File(file) if file.kind() == Kind::File => file.open(&self.reader).await,
            PastItem::File(_) => Err(FsError::Invalid("it has no content".to_owned())),
        }
    }

    /// Keeps the times that `node` shows remembered for the callers that asked for them, as long as the result lives.
    pub(crate) fn in_use(&self, node: &PastNode) -> Option<PinnedTimes> {
        self.reader.times.hold(node.object().shown_times()?)
    }

    /// Refuses to open what has no names, or whose names are not kept; tells whether the kernel may keep them.
    ///
    /// # Errors
    /// `NotDirectory`; `NotFound`; `Stale`; those of the store.
    pub(crate) async fn check_opendir(&self, node: &PastNode) -> FsResult<bool> {
        let dir = dir(node)?;
        dir.check_open(&self.reader).await?;
        Ok(dir.is_listed_for_good(&self.reader))
    }

    /// The names in `node`.
    ///
    /// # Errors
    /// `NotDirectory`; `Stale` when what it showed was deleted: never an empty list.
    pub(crate) async fn list(&self, node: &PastNode) -> FsResult<Listing> {
        let dir = dir(node)?;
        Ok(match dir.list(&self.reader).await? {
            PastNames::Whole(names) => Listing::Whole(
                names
                    .into_iter()
                    .map(|(name, found)| {
                        let mut listed = self.listed(node.number(), name, found);
                        if dir.looks_up_again() {
                            listed.found = None;
                        }
                        listed
                    })
                    .collect(),
            ),
            PastNames::Drawn(names) => Listing::Drawn(DrawnListing {
                number: node.number(),
                names,
            }),
        })
    }

    /// The next name of a listing.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next_name(
        &self,
        listing: &mut DrawnListing,
    ) -> FsResult<Option<ListedName>> {
        let next = listing.names.next().await?;
        Ok(next.map(|(name, found)| self.listed(listing.number, name, found)))
    }

    /// The live directory whose removed names `node` shows, if it is an `@deleted`.
    pub(crate) fn removed_names_of(&self, node: &PastNode) -> Option<Ino> {
        dir(node).ok()?.removed_names_of()
    }

    /// The directory whose labels are made, renamed and removed in `node`, if it is a `.versions`.
    pub(crate) fn labels_of(&self, node: &PastNode) -> Option<Ino> {
        dir(node).ok()?.labels_of()
    }

    /// Reads at most `len` bytes at `offset`; short only at the end.
    ///
    /// # Errors
    /// `Stale` when the version was deleted, `Unavailable`, `Corrupt`.
    pub(crate) async fn read(&self, node: &PastNode, offset: u64, len: u32) -> FsResult<Bytes> {
        file(node)?.read(&self.reader, offset, len).await
    }

    /// Begins to fetch what a handle of `node` seems to need after a read that is about to be executed.
    pub(crate) async fn read_ahead(
        &self,
        node: &PastNode,
        runs: &Arc<ReadAhead>,
        offset: u64,
        len: u32,
    ) {
        if let Ok(file) = file(node) {
            file.read_ahead(&self.reader, runs, offset, len).await;
        }
    }

    /// The bytes of a version as a source that a live file can share; `None` for what has none.
    pub(crate) fn clone_source(&self, node: &PastNode) -> Option<CloneSource> {
        file(node).ok()?.clone_source(&self.reader)
    }

    /// The next data or hole at or after `offset`; `None` after the last.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub(crate) async fn seek(
        &self,
        node: &PastNode,
        offset: u64,
        whence: Whence,
    ) -> FsResult<Option<u64>> {
        file(node)?.seek(&self.reader, offset, whence).await
    }

    /// The value of an extended attribute: what a version says about itself, what was set on it, and the access list that guards
    /// its directory.
    ///
    /// # Errors
    /// `NoAttribute`; `Stale` when what it showed was deleted.
    pub(crate) async fn getxattr(&self, node: &PastNode, name: &[u8]) -> FsResult<Bytes> {
        let value = node.object().xattr(&self.reader, name).await?;
        value.ok_or(FsError::NoAttribute)
    }

    /// The names of the extended attributes that were set on it.
    ///
    /// # Errors
    /// `Stale` when what it showed was deleted.
    pub(crate) async fn listxattr(&self, node: &PastNode) -> FsResult<Vec<Bytes>> {
        node.object().xattr_names(&self.reader).await
    }

    /// The value of an extended attribute of a version: what it says about itself, or what was set on it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn attribute(
        &self,
        entry: &PastEntry,
        name: &[u8],
    ) -> FsResult<Option<Bytes>> {
        self.reader.attribute(entry, name).await
    }

    /// A name of the node `parent` and what was found there.
    fn listed(&self, parent: u64, name: Bytes, found: Found) -> ListedName {
        ListedName {
            ino: self.nodes.number(parent, &name, &found.item),
            kind: found.item.kind(),
            found: Some(found),
            name,
        }
    }

    /// The reply to a counted lookup of `node`, with its attributes as they are now.
    async fn entry(&self, node: &PastNode, entry_ttl: Duration) -> FsResult<Entry> {
        let shown = node.object().attributes(&self.reader).await;
        Ok(entry(node, self.unless_failed(node, shown)?, entry_ttl))
    }

    /// Takes back the counted lookup of a node whose attributes cannot be read: the kernel gets an error and sends no FORGET.
    fn unless_failed(&self, node: &PastNode, shown: FsResult<ShownAttrs>) -> FsResult<ShownAttrs> {
        shown.inspect_err(|_| self.nodes.forget(node.number(), 1))
    }

    /// A reply that was read after `changes` changes of the live tree. The kernel may keep the attributes only if there was no
    /// change since: the node may have been noted as a dependent after that change.
    fn unless_changed(&self, changes: u64, entry: Entry) -> Entry {
        match changes == self.dependents.changes() {
            true => entry,
            // Those of versions that have ended never change.
            false if entry.attr_ttl > self.reader.live_ttl => entry,
            false => Entry {
                attr_ttl: Duration::ZERO,
                ..entry
            },
        }
    }
}

/// The directory that a node is.
fn dir(node: &PastNode) -> FsResult<&dyn PastDir> {
    match node.item() {
        PastItem::Dir(dir) => Ok(dir.as_ref()),
        PastItem::File(_) => Err(FsError::NotDirectory),
    }
}

/// The file that a node is.
fn file(node: &PastNode) -> FsResult<&dyn PastFile> {
    match node.item() {
        PastItem::File(file) => Ok(file.as_ref()),
        PastItem::Dir(_) => Err(FsError::BadHandle),
    }
}

/// The reply to a lookup.
fn entry(node: &PastNode, shown: ShownAttrs, entry_ttl: Duration) -> Entry {
    Entry {
        attr_ttl: shown.ttl,
        stat: shown.into_stat(node.number(), node.item().kind()),
        entry_ttl,
    }
}
