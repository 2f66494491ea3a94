//! `.versions/`: the past as directories and files, which nothing can change.
//!
//! A node here has no method that writes, so read-only needs no flag. What is found, listed and read follows from what a
//! node is ([`PastKind`]): `.versions` itself in `root.rs`, trees in `at.rs`, `@files` in `files.rs`, `@deleted` in `deleted.rs`,
//! `@log` in `log.rs`, `@help` in `help.rs`.
//! Invariant: the kernel may keep only what cannot change any more: names below an instant that is final, attributes of
//! states that have ended, and bytes, which never change.

mod at;
pub(crate) mod attributes;
mod deleted;
#[cfg(test)]
mod deleted_tests;
mod dependents;
mod files;
mod help;
#[cfg(test)]
mod linked_tests;
mod listing;
#[cfg(test)]
mod listing_tests;
mod log;
mod node;
mod resolved_times;
mod root;
pub(crate) mod stamp;
#[cfg(test)]
mod tests;

pub(crate) use deleted::DeletedNames;
pub(crate) use listing::Listing;
pub(crate) use node::{PastKind, PastNode, is_past};
pub(crate) use resolved_times::PinnedTimes;

use crate::fs::acl::ACCESS;
use crate::fs::error::{FsError, FsResult};
use crate::fs::ops::attr::lends_rights;
use crate::fs::{Caller, Entry, FsConfig};
use crate::store::{
    Attrs, CloneSource, Ino, Kind, Namespace, PastEntry, Pin, Stat, StoreError, Timestamp, Whence,
};
use crate::sync::{Arc, AtomicU64, Ordering};
use bytes::Bytes;
use dependents::{Dependents, Forget};
use node::{NodeTable, PastState};
use resolved_times::ResolvedTimes;
use std::time::Duration;

/// The past of a namespace.
pub(crate) struct Past {
    namespace: Namespace,
    ttl: Duration,
    versions_name: Bytes,
    help: Bytes,
    nodes: NodeTable,
    dependents: Arc<Dependents>,
    /// How long the kernel may keep attributes of the live tree.
    live_ttl: Duration,
    /// The past is known to be final below this instant, nanoseconds: it stays so.
    final_below: AtomicU64,
    /// Whether the live tree changes by another process's doing.
    follows: bool,
    meanings: ResolvedTimes,
}

/// What a lookup in the past found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    what: PastKind,
    lasting: Lasting,
}

/// Whether an answer can still become another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// It stays: the kernel may keep it.
    Final,
    /// It stays until versions are deleted: the kernel may keep it as long as something live.
    Kept,
    /// It may change: the kernel asks each time.
    Passing,
}

impl Lasting {
    /// That of an answer that is final or not.
    fn of(is_final: bool) -> Self {
        match is_final {
            true => Self::Final,
            false => Self::Passing,
        }
    }
}

impl Past {
    /// The past of `namespace`, shown as `config` says.
    pub(crate) fn new(namespace: Namespace, config: &FsConfig) -> Self {
        let meanings = ResolvedTimes::new(namespace.env());
        let dependents = Arc::<Dependents>::default();
        Self {
            namespace,
            // Another process may delete a version, which gives its names another meaning.
            ttl: match config.read_only {
                true => config.past_ttl.min(config.live_ttl),
                false => config.past_ttl,
            },
            versions_name: Bytes::copy_from_slice(&config.versions_name),
            help: help::text(&config.versions_name),
            nodes: NodeTable::new(Arc::clone(&dependents)),
            dependents,
            live_ttl: config.live_ttl,
            final_below: AtomicU64::new(0),
            follows: config.read_only,
            meanings,
        }
    }

    /// From now on `forget` makes the kernel forget attributes that changed.
    pub(crate) fn tell_changes(&self, forget: Forget) {
        self.dependents.tell(forget);
    }

    /// Attributes of the live inode `ino` have changed; called before that is answered.
    pub(crate) fn changed(&self, ino: Ino) {
        self.dependents.changed(ino);
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
        let found = match node.what() {
            PastKind::Versions(dir) => self.find_in_versions(caller, *dir, name).await?,
            PastKind::Time { dir, at, .. } => self.find_in_tree(*dir, *at, name).await?,
            PastKind::Tree(seen) | PastKind::Gone(seen) => {
                self.find_in_tree(seen.entry.ino, seen.at, name).await?
            }
            PastKind::Files(dir) => self.find_history(*dir, name).await?,
            PastKind::History(dir, slot) => self.find_state(node, *dir, slot, name).await?,
            PastKind::Deleted(dir) => self.find_deleted(*dir, name).await?,
            _ => return Err(FsError::NotDirectory),
        };
        let entry_ttl = self.ttl_of(found.lasting);
        let node = self.nodes.enter(node.number(), name, found.what);
        let entry = match node.what() {
            // It was read just now.
            PastKind::Tree(seen) | PastKind::State(seen) => {
                let (stat, attr_ttl) = self.state_stat(&node, seen, seen.entry.clone());
                Entry {
                    stat,
                    entry_ttl,
                    attr_ttl,
                }
            }
            _ => self.entry(&node, entry_ttl).await?,
        };
        Ok(self.unless_changed(changes, entry))
    }

    /// What was read after so many changes: it is kept by the kernel only if there was none since, which may have come before
    /// the node was noted.
    fn unless_changed(&self, changes: u64, entry: Entry) -> Entry {
        match changes == self.dependents.changes() {
            true => entry,
            // Those of states that have ended never change.
            false if entry.attr_ttl > self.live_ttl => entry,
            false => Entry {
                attr_ttl: Duration::ZERO,
                ..entry
            },
        }
    }

    /// Counts one more lookup of a node, found by its number.
    ///
    /// # Errors
    /// `Stale` when what it showed is gone.
    pub(crate) async fn again(&self, node: &Arc<PastNode>) -> FsResult<Entry> {
        self.nodes.again(node);
        self.entry(node, Duration::ZERO).await
    }

    /// The node with this number, if the kernel holds it.
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
    /// `Stale` when what it showed is gone.
    pub(crate) async fn stat(&self, node: &PastNode) -> FsResult<(Stat, Duration)> {
        let asked_again = Duration::ZERO;
        match node.what() {
            PastKind::Versions(dir) | PastKind::Files(dir) | PastKind::History(dir, _) => {
                let stat = mirror(node, &self.live_dir(*dir).await?);
                Ok((stat, self.changing_ttl()))
            }
            PastKind::Deleted(dir) => {
                let dir = self.live_dir(*dir).await?;
                Ok((sticky(mirror(node, &dir), &dir), self.changing_ttl()))
            }
            PastKind::Time { dir, at, asked } => {
                let ttl = match dir == asked && self.is_final(*at) {
                    true => self.changing_ttl(),
                    false => asked_again,
                };
                let attrs = self.time_attrs((*dir, *at), *asked).await?;
                Ok((stat_of(node, attrs), ttl))
            }
            PastKind::Gone(seen) => {
                let attrs = deleted::open_to_owner(seen.entry.attrs.clone());
                Ok((stat_of(node, attrs), asked_again))
            }
            PastKind::Log(dir) => {
                let dir = self.live_dir(*dir).await?;
                Ok((stat_of(node, log::attrs(&dir)), self.changing_ttl()))
            }
            PastKind::Tree(seen) | PastKind::State(seen) => {
                Ok(self.state_stat(node, seen, self.newest(seen).await?))
            }
            PastKind::Pointer(link) => {
                let owner = self.live_dir(link.dir).await?.attrs;
                let attrs = Attrs {
                    mode: 0o777,
                    size: link.target.len() as u64,
                    ..owner
                };
                Ok((stat_of(node, attrs), asked_again))
            }
            PastKind::Help => Ok((stat_of(node, help_attrs(&self.help)), self.ttl)),
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` when `node` is none; `Stale` when it is gone.
    pub(crate) async fn readlink(&self, node: &PastNode) -> FsResult<Bytes> {
        match node.what() {
            PastKind::State(seen) if seen.entry.kind == Kind::Symlink => {
                Ok(self.namespace.history().target_past(&seen.entry))
            }
            PastKind::Pointer(link) => Ok(link.target.clone()),
            _ => Err(FsError::Invalid("not a symbolic link".to_owned())),
        }
    }

    /// Refuses to open what has no bytes.
    ///
    /// # Errors
    /// `IsDirectory`, `Invalid`.
    pub(crate) fn check_open(&self, node: &PastNode) -> FsResult<()> {
        match node.what().kind() {
            Kind::File => Ok(()),
            Kind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid("it has no content".to_owned())),
        }
    }

    /// Holds the bytes of a version: they are read as long as this is held, also when it is deleted meanwhile.
    ///
    /// # Errors
    /// `Stale` when it has gone, `Corrupt` where only its name is left.
    pub(crate) async fn hold(&self, node: &PastNode) -> FsResult<Option<Pin>> {
        let PastKind::State(seen) = node.what() else {
            return Ok(None);
        };
        let held = self.namespace.data().hold_standing(&seen.entry).await;
        held.map_err(|error| FsError::from(error).by_number())
    }

    /// Keeps the instants that `node` shows remembered for those who asked for them, as long as the result lives.
    pub(crate) fn in_use(&self, node: &PastNode) -> Option<PinnedTimes> {
        let shown = match node.what() {
            PastKind::Time { at, .. } => *at..=*at,
            PastKind::Tree(seen) => seen.at..=seen.at,
            // One node for every instant at which it stood.
            PastKind::State(seen) => {
                let end = seen.entry.ended.map_or(u64::MAX, |end| end.0 - 1);
                seen.entry.version.timestamp..=Timestamp(end)
            }
            _ => return None,
        };
        self.meanings.hold(shown)
    }

    /// Refuses to open what has no names; tells whether the kernel may keep them.
    ///
    /// # Errors
    /// `NotDirectory`.
    pub(crate) fn check_opendir(&self, node: &PastNode) -> FsResult<bool> {
        match node.what() {
            PastKind::Time { at, .. } => Ok(self.is_final(*at)),
            PastKind::Tree(seen) => Ok(self.is_final(seen.at)),
            PastKind::Versions(_)
            | PastKind::Files(_)
            | PastKind::History(..)
            | PastKind::Deleted(_)
            | PastKind::Gone(_) => Ok(false),
            _ => Err(FsError::NotDirectory),
        }
    }

    /// Reads at most `len` bytes at `offset`; short only at the end.
    ///
    /// # Errors
    /// `Stale` when the version was pruned, `Unavailable`, `Corrupt`.
    pub(crate) async fn read(&self, node: &PastNode, offset: u64, len: u32) -> FsResult<Bytes> {
        match node.what() {
            PastKind::State(seen) => {
                let bytes = self
                    .namespace
                    .history()
                    .read_past(&seen.entry, offset, len)
                    .await;
                bytes.map_err(|error| FsError::from(error).by_number())
            }
            PastKind::Help => Ok(part(&self.help, offset, len)),
            _ => Err(FsError::BadHandle),
        }
    }

    /// The bytes of a state, to be shown in a live file; `None` for what has none.
    pub(crate) fn clone_source(&self, node: &PastNode) -> Option<CloneSource> {
        match node.what() {
            PastKind::State(seen) => Some(self.namespace.tree().clone_source(&seen.entry)),
            _ => None,
        }
    }

    /// The next data or hole at or after `offset`; `None` behind the last.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub(crate) async fn seek(
        &self,
        node: &PastNode,
        offset: u64,
        whence: Whence,
    ) -> FsResult<Option<u64>> {
        match node.what() {
            PastKind::State(seen) => {
                let found = self
                    .namespace
                    .history()
                    .seek_past(&seen.entry, offset, whence)
                    .await;
                found.map_err(|error| FsError::from(error).by_number())
            }
            _ => {
                // A text of ours is data up to its end.
                let size = self.stat(node).await?.0.attrs.size;
                Ok((offset < size).then_some(match whence {
                    Whence::Data => offset,
                    Whence::Hole => size,
                }))
            }
        }
    }

    /// The value of an attribute: what a version says about itself, what was set on it, and the access list that guards
    /// its directory.
    ///
    /// # Errors
    /// `NoAttribute`; `Stale` when what it showed is gone.
    pub(crate) async fn getxattr(&self, node: &PastNode, name: &[u8]) -> FsResult<Bytes> {
        let value = match node.what() {
            PastKind::Tree(seen) | PastKind::State(seen) | PastKind::Gone(seen) => {
                let entry = self.newest(seen).await?;
                self.attribute(&entry, name).await?
            }
            PastKind::Time { dir, at, asked } => {
                match self
                    .namespace
                    .history()
                    .view()
                    .directory_entry_at(*dir, *at)
                    .await?
                {
                    Some(entry) => self.attribute(&entry, name).await?,
                    None if name == ACCESS => self.namespace.tree().get_xattr(*asked, name).await?,
                    None => None,
                }
            }
            PastKind::Versions(dir)
            | PastKind::Files(dir)
            | PastKind::History(dir, _)
            | PastKind::Deleted(dir)
            | PastKind::Log(dir)
                if name == ACCESS =>
            {
                self.namespace.tree().get_xattr(*dir, name).await?
            }
            _ => None,
        };
        value.ok_or(FsError::NoAttribute)
    }

    /// The names of the attributes that were set on it.
    ///
    /// # Errors
    /// `Stale` when what it showed is gone.
    pub(crate) async fn listxattr(&self, node: &PastNode) -> FsResult<Vec<Bytes>> {
        match node.what() {
            PastKind::Tree(seen) | PastKind::State(seen) | PastKind::Gone(seen) => {
                let entry = self.newest(seen).await?;
                Ok(entry.xattrs.iter().map(|(name, _)| name.clone()).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The value of an attribute of a state: what it says about itself, or what was set on it.
    pub(crate) async fn attribute(
        &self,
        entry: &PastEntry,
        name: &[u8],
    ) -> FsResult<Option<Bytes>> {
        if attributes::is_ours(name) {
            return attributes::value(&self.namespace, entry, name).await;
        }
        Ok(find(&entry.xattrs, name))
    }

    /// The attributes of the state `seen`, which was read just now as `entry`.
    fn state_stat(&self, node: &PastNode, seen: &PastState, entry: PastEntry) -> (Stat, Duration) {
        let is_over = entry.is_over();
        let blocks = entry.allocated.min(entry.attrs.size).div_ceil(512);
        let stat = Stat {
            blocks,
            nlink: seen.links,
            ..stat_of(node, entry.attrs)
        };
        let ttl = match is_over {
            true => self.ttl,
            // Its attributes are the live inode's until it ends; those of a program that lends rights are never kept, as live.
            false if lends_rights(&stat) || !self.is_final(seen.at) => Duration::ZERO,
            false => self.changing_ttl(),
        };
        (stat, ttl)
    }

    /// How long the kernel may keep attributes that change with the live tree: as those, if it learns of changes.
    fn changing_ttl(&self) -> Duration {
        match self.follows || self.dependents.are_told() {
            true => self.live_ttl,
            false => Duration::ZERO,
        }
    }

    async fn entry(&self, node: &PastNode, entry_ttl: Duration) -> FsResult<Entry> {
        match self.stat(node).await {
            Ok((stat, attr_ttl)) => Ok(Entry {
                stat,
                entry_ttl,
                attr_ttl,
            }),
            Err(error) => {
                // The lookup was counted; the kernel gets an error and will send no FORGET for it.
                self.nodes.forget(node.number(), 1);
                Err(error)
            }
        }
    }

    /// A state with the attributes it has now: those of one that has not ended still change.
    async fn newest(&self, seen: &PastState) -> FsResult<PastEntry> {
        if !seen.entry.is_over() {
            let again = self
                .namespace
                .history()
                .view()
                .entry_at(seen.dir, &seen.name, seen.at)
                .await;
            match again {
                Ok(Some(entry)) if entry.version == seen.entry.version => return Ok(entry),
                Ok(Some(entry)) if seen.entry.shared.is_some() => {
                    let entry = entry.of_inode();
                    if entry.version == seen.entry.version {
                        return Ok(entry);
                    }
                }
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(seen.entry.clone())
    }

    /// The live directory whose `.versions` this is about.
    async fn live_dir(&self, dir: Ino) -> FsResult<Stat> {
        let stat = self.namespace.tree().stat(dir).await;
        stat.map_err(|error| FsError::from(error).by_number())
    }

    fn ttl_of(&self, lasting: Lasting) -> Duration {
        match lasting {
            Lasting::Final => self.ttl,
            Lasting::Kept => self.live_ttl.min(self.ttl),
            Lasting::Passing => Duration::ZERO,
        }
    }

    /// Whether what is read of `at` from now on stays so. Asked before the read: an instant that became final during it may
    /// have gained what the read missed.
    fn lasting_at(&self, at: Timestamp) -> Lasting {
        Lasting::of(self.is_final(at))
    }

    /// Whether nothing at or before `at` can change any more. The namespace looks through all that is queued to tell, so what it
    /// told is remembered.
    fn is_final(&self, at: Timestamp) -> bool {
        if at.0 < self.final_below.load(Ordering::SeqCst) {
            return true;
        }
        let is_final = self.namespace.history().is_final(at);
        if is_final {
            self.final_below.fetch_max(at.0 + 1, Ordering::SeqCst);
        }
        is_final
    }
}

/// The node for a state: a directory is a tree as of the instant asked for.
fn state_node(seen: PastState) -> PastKind {
    let kind = seen.entry.kind;
    let seen = Box::new(seen);
    match kind {
        Kind::Directory => PastKind::Tree(seen),
        _ => PastKind::State(seen),
    }
}

fn find(xattrs: &[(Bytes, Bytes)], name: &[u8]) -> Option<Bytes> {
    xattrs
        .iter()
        .find(|(other, _)| other.as_ref() == name)
        .map(|(_, value)| value.clone())
}

fn stat_of(node: &PastNode, attrs: Attrs) -> Stat {
    let kind = node.what().kind();
    Stat {
        ino: Ino(node.number()),
        generation: 0,
        kind,
        // Of a directory: that it counts nothing, so that find(1) does not take it for one without others in it.
        nlink: 1,
        blocks: attrs.size.div_ceil(512),
        content_stamp: 0,
        attrs,
    }
}

/// A directory of ours is open to whom its live directory is open, the owner's write bit included: the kernel then lets
/// a change through to us, and it gets its proper error.
fn mirror(node: &PastNode, dir: &Stat) -> Stat {
    let attrs = Attrs {
        mode: dir.attrs.mode & 0o777,
        size: 0,
        ..dir.attrs.clone()
    };
    stat_of(node, attrs)
}

/// As the live directory: of others' files only their owner takes away the name, also by bringing it back.
fn sticky(mut stat: Stat, dir: &Stat) -> Stat {
    stat.attrs.mode |= dir.attrs.mode & 0o1000;
    stat
}

/// At most `len` bytes of a text from `offset` on.
pub(crate) fn part(text: &Bytes, offset: u64, len: u32) -> Bytes {
    // A position beyond 64 bits of memory is beyond the end.
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(text.len());
    let end = start.saturating_add(len as usize).min(text.len());
    text.slice(start..end)
}

fn help_attrs(text: &Bytes) -> Attrs {
    Attrs {
        mode: 0o444,
        size: text.len() as u64,
        ..Attrs::default()
    }
}
