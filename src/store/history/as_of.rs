//! The past: what a name or a directory showed at a timestamp, and reads of historical content.
//!
//! Invariant: `entry_at` and `versions` (`versions.rs`) of one view agree.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::store::data::contents::ResolvedExtent;
use crate::store::history::History;
use crate::store::history::view::PastView;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{DIRECTORIES_ABOVE_MAX, Dentry};
use crate::store::model::version::{
    Attrs, Content, Ino, Kind, PastEntry, ROOT, Retained, SharedState, Stamp, Timestamp,
};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryLocation, ExtentSource, InodeRow, InodeState, LastVersion,
    LinkedRow, VersionRecord,
};
use crate::store::schema::tables::{
    DentryTable, DirectoryLocationTable, LinkedVersionTable, RowTable, VersionTable,
};
use crate::store::tree::seek::Whence;

/// Longest wait of a read of the past for operations that are not queued yet.
const SETTLE: Duration = Duration::from_millis(50);

/// A version as it is read from history: valid from its stamp to its end.
#[derive(Clone, Debug)]
pub(super) struct HistoricalVersion {
    pub(super) ino: Ino,
    pub(super) node: InodeState,
    pub(super) stamp: Stamp,
    pub(super) ended: Option<Timestamp>,
    pub(super) kept: Retained,
    /// For a name of a hard-linked inode: the validity of the inode's state, regardless of when the name was bound.
    pub(super) shared: Option<Box<SharedState>>,
}

impl HistoricalVersion {
    pub(super) fn of(last: LastVersion, ended: Option<Timestamp>) -> Self {
        Self {
            ino: last.ino,
            node: last.node,
            stamp: last.stamp,
            ended,
            kept: Retained::Whole,
            shared: None,
        }
    }

    /// The version of a record; `None` for the binding of a name to a hard-linked inode.
    pub(super) fn ended(closed: VersionRecord) -> Option<Self> {
        Some(Self {
            ino: closed.ino,
            node: closed.node?,
            stamp: closed.stamp,
            ended: Some(closed.end),
            kept: closed.kept,
            shared: None,
        })
    }

    /// Limits a state to the time of a binding; `None` if they do not overlap. The last state that the name showed shows for as long
    /// as the record of the binding lasts.
    fn within(mut self, binding: &Binding<'_>) -> Option<Self> {
        let Binding {
            stamp: bound,
            until,
            kept,
            ..
        } = *binding;
        let start = self.stamp.id.timestamp.max(bound.id.timestamp);
        if until.is_some_and(|until| until.own <= start)
            || self.ended.is_some_and(|end| end <= start)
        {
            return None;
        }
        let end = match (self.ended, until) {
            (Some(end), Some(until)) if end < until.own => Some(end),
            (_, Some(until)) => Some(until.shown),
            (end, None) => end,
        };
        self.shared = Some(Box::new(SharedState {
            stamp: self.stamp.clone(),
            ended: self.ended,
        }));
        if bound.id.timestamp > self.stamp.id.timestamp {
            self.stamp = bound.clone();
        }
        if kept == Retained::Nothing {
            self.kept = kept;
        }
        self.ended = end;
        Some(self)
    }

    fn covers(&self, at: Timestamp) -> bool {
        self.stamp.id.timestamp <= at && self.ended.is_none_or(|end| at < end)
    }

    pub(super) fn into_entry(self) -> PastEntry {
        PastEntry {
            ino: self.ino,
            kind: self.node.kind,
            attrs: self.node.attrs,
            xattrs: self.node.xattrs,
            content: self.node.content,
            allocated: self.node.allocated,
            version: self.stamp.id,
            ended: self.ended,
            op: self.stamp.op,
            author: self.stamp.author,
            host: self.stamp.host,
            renamed_from: self.stamp.origin,
            kept: self.kept,
            shared: self.shared,
        }
    }
}

/// A name's binding to a hard-linked inode: from its stamp to its end, the name shows the inode's states.
#[derive(Clone, Copy)]
pub(super) struct Binding<'a> {
    pub(super) ino: Ino,
    pub(super) stamp: &'a Stamp,
    /// `None` while the name leads to the inode.
    pub(super) until: Option<BindingEnd>,
    pub(super) kept: Retained,
}

/// When a name ceased to lead to a hard-linked inode.
#[derive(Clone, Copy)]
pub(super) struct BindingEnd {
    /// Later states of the inode were not shown by the name.
    own: Timestamp,
    /// Until when the name's last state shows, because the versions after it are gone.
    shown: Timestamp,
}

impl<'a> Binding<'a> {
    /// The binding of a name that leads to the inode now.
    pub(super) fn live(ino: Ino, stamp: &'a Stamp) -> Self {
        Self {
            ino,
            stamp,
            until: None,
            kept: Retained::Whole,
        }
    }

    /// The binding of a record without a node.
    pub(super) fn ended(record: &'a VersionRecord) -> Self {
        Self {
            ino: record.ino,
            stamp: &record.stamp,
            until: Some(BindingEnd {
                own: record.own_end(),
                shown: record.end,
            }),
            kept: record.kept,
        }
    }

    /// Returns the time at which the inode had the state that the name shows at `at`.
    pub(super) fn state_time(&self, at: Timestamp) -> Timestamp {
        match self.until {
            Some(until) => at.min(Timestamp(until.own.0.saturating_sub(1))),
            None => at,
        }
    }

    /// Returns the part of a state that the name shows; `None` if there is none.
    pub(super) fn shows(&self, state: HistoricalVersion) -> Option<HistoricalVersion> {
        state.within(self)
    }
}

impl History {
    /// Waits until no timestamp reservation at or before `at` is open, for at most 50 ms.
    pub async fn settle(&self, at: Timestamp) {
        let released = self.core.clock.wait_released(at);
        let _late = tokio::time::timeout(SETTLE, released).await;
    }

    /// Reads bytes of a historical state; returns fewer than `len` only at its end.
    ///
    /// # Errors
    /// `Stale` when the version has been deleted and no pin holds its content; `Unavailable`, `Corrupt`.
    pub async fn read_past(
        &self,
        entry: &PastEntry,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, StoreError> {
        let end = offset.saturating_add(u64::from(len)).min(entry.attrs.size);
        if entry.kept == Retained::Nothing {
            return Err(crate::store::data::hold::deleted());
        }
        let Some(content) = entry.content.reference().filter(|_| offset < end) else {
            return Ok(Bytes::new());
        };
        let bytes = self.tree.read_content(content, offset, end).await;
        self.data.verify_referenced(content, bytes).await
    }

    /// Returns the offset of the next data or hole at or after `offset` in a historical state; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn seek_past(
        &self,
        entry: &PastEntry,
        offset: u64,
        whence: Whence,
    ) -> Result<Option<u64>, StoreError> {
        let size = entry.attrs.size;
        let Some(content) = entry.content.reference().filter(|_| offset < size) else {
            return Ok(None);
        };
        let view = self.data.contents.view(&self.core.index);
        let resolve = view.resolve(content, offset, size).await?;
        let is_hole = |stretch: &ResolvedExtent| {
            matches!(
                stretch,
                ResolvedExtent::Zero | ResolvedExtent::Staged(crate::cache::Source::Zero)
            )
        };
        let wanted = resolve
            .iter()
            .find(|(_, _, stretch)| is_hole(stretch) == (whence == Whence::Hole));
        Ok(match (wanted, whence) {
            (Some((start, ..)), _) => Some(*start),
            (None, Whence::Hole) => Some(size),
            (None, Whence::Data) => None,
        })
    }

    /// Returns the bytes in segments that a historical state is read from. Each extent counts once; inline bytes are not counted.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn stored_past(&self, entry: &PastEntry) -> Result<u64, StoreError> {
        let Some(content) = entry.content.reference() else {
            return Ok(0);
        };
        let len = entry.attrs.size;
        let view = self.data.contents.view(&self.core.index);
        let resolve = view.resolve(content, 0, len).await?;
        let mut extents = BTreeSet::new();
        for (_, _, stretch) in resolve {
            if let ResolvedExtent::Stored(source, _) = stretch
                && let ExtentSource::Segment {
                    epoch,
                    sequence,
                    offset,
                    len,
                    ..
                } = source
            {
                extents.insert((epoch, sequence, offset, len));
            }
        }
        Ok(extents.iter().map(|(.., len)| u64::from(*len)).sum())
    }

    /// Returns the target of a historical symbolic link; empty for any other file type.
    pub fn target_past(&self, entry: &PastEntry) -> Bytes {
        match &entry.content {
            Content::Target(target) => target.clone(),
            Content::Bytes(_) | Content::Shared(_) | Content::Empty => Bytes::new(),
        }
    }
}

impl PastView {
    /// Returns the directory that `.versions/AT` in `directory` means: the directory itself if it existed then, else the one that
    /// was at the same path; `None` if there was none.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn directory_at(
        &self,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Option<Ino>, StoreError> {
        if self.location_at(directory, at).await? {
            return Ok(Some(directory));
        }
        if directory == ROOT {
            return Ok(None);
        }
        let Some(Dentry { parent, name }) = self.where_now(directory).await? else {
            return Ok(None);
        };
        let mut path = vec![name];
        let mut above = parent;
        while above != ROOT {
            if self.location_at(above, at).await? {
                break;
            }
            let place = self.where_now(above).await?;
            let place = place.filter(|_| path.len() < DIRECTORIES_ABOVE_MAX);
            let Some(Dentry { parent, name }) = place else {
                return Ok(None);
            };
            path.push(name);
            above = parent;
        }
        while let Some(name) = path.pop() {
            match self.entry_at(above, &name, at).await? {
                Some(entry) if entry.kind == Kind::Directory => above = entry.ino,
                _ => return Ok(None),
            }
        }
        Ok(Some(above))
    }

    /// Returns a directory's own state at a timestamp (mode, owner, times); `None` if the directory did not exist then.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn directory_entry_at(
        &self,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Option<PastEntry>, StoreError> {
        match self.place_at(directory, at).await? {
            Some(Dentry { parent, name }) => self.entry_at(parent, &name, at).await,
            None => Ok(None),
        }
    }

    /// Returns what `name` showed at a timestamp; `None` if the name did not exist then.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn entry_at(
        &self,
        directory: Ino,
        name: &[u8],
        at: Timestamp,
    ) -> Result<Option<PastEntry>, StoreError> {
        let current = self.entry(directory, name).await?;
        Ok(self
            .version_at(directory, name, current.as_ref(), at)
            .await?
            .map(HistoricalVersion::into_entry))
    }

    /// Lists what a directory held at a timestamp, in ascending order of names.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn list_at(
        &self,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Vec<(Bytes, PastEntry)>, StoreError> {
        let from = keys::entries(directory);
        let rows = self
            .rows
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?;
        let mut names: Vec<(Bytes, Option<DentryRow>)> = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            names.push((keys::entry_name(&key), Some(DentryTable::decode(&value)?)));
        }
        let live: BTreeSet<Bytes> = names.iter().map(|(name, _)| name.clone()).collect();
        let gone = interval_tree::alive_at(&self.rows, directory, at).await?;
        names.extend(
            gone.into_iter()
                .filter(|name| !live.contains(name))
                .map(|name| (name, None)),
        );
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let mut found = Vec::with_capacity(names.len());
        for (name, entry) in names {
            if let Some(version) = self
                .version_at(directory, &name, entry.as_ref(), at)
                .await?
            {
                found.push((name, version.into_entry()));
            }
        }
        Ok(found)
    }
}

impl PastView {
    /// Returns the state of a name at a timestamp. `current` is the name's present entry, which the caller has read before.
    pub(super) async fn version_at(
        &self,
        directory: Ino,
        name: &[u8],
        current: Option<&DentryRow>,
        at: Timestamp,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        if let Some(entry) = current {
            match &entry.body {
                DentryBody::Own { node, state } => {
                    let last = state.shown(entry.ino, node, entry.alive_since);
                    if let Some(mut last) = last.filter(|last| last.stamp.id.timestamp <= at) {
                        if last.node.kind == Kind::Directory {
                            self.times_at(entry.ino, at, &mut last.node.attrs).await?;
                        }
                        return Ok(Some(HistoricalVersion::of(last, None)));
                    }
                }
                DentryBody::Linked(stamp) if stamp.id.timestamp <= at => {
                    return self.linked_at(&Binding::live(entry.ino, stamp), at).await;
                }
                DentryBody::Linked(_) => {}
            }
        }
        let from = keys::history_at(directory, name, at);
        let end = keys::after(&keys::history(directory, name));
        let Some((_, value)) = self.rows.first(from, end).await? else {
            return Ok(None);
        };
        let closed: VersionRecord = VersionTable::decode(&value)?;
        if closed.end <= at {
            return Ok(None);
        }
        match closed.node {
            None => self.linked_at(&Binding::ended(&closed), at).await,
            Some(_) => Ok(HistoricalVersion::ended(closed)),
        }
    }

    /// Sets the times of a live directory that have not changed since a timestamp.
    async fn times_at(&self, ino: Ino, at: Timestamp, attrs: &mut Attrs) -> Result<(), StoreError> {
        let Some(InodeRow::Directory(row)) = self.rows.row(&keys::inode(ino)).await? else {
            return Ok(());
        };
        let times = [
            (row.mtime, &mut attrs.mtime),
            (row.ctime, &mut attrs.ctime),
            (row.atime, &mut attrs.atime),
        ];
        for (register, time) in times {
            if let Some((_, value)) = register.filter(|(since, _)| *since <= at) {
                *time = value;
            }
        }
        Ok(())
    }

    /// Returns the state of a hard-linked inode that was current at a timestamp, as seen through a binding.
    async fn linked_at(
        &self,
        binding: &Binding<'_>,
        at: Timestamp,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        let state = self
            .linked_before(binding.ino, binding.state_time(at))
            .await?;
        let shown = state.and_then(|state| binding.shows(state));
        Ok(shown.filter(|shown| shown.covers(at)))
    }

    /// Returns all states of a hard-linked inode, oldest first.
    pub(super) async fn linked_states(
        &self,
        ino: Ino,
    ) -> Result<Vec<HistoricalVersion>, StoreError> {
        let row: Option<InodeRow> = self.rows.row(&keys::inode(ino)).await?;
        let from = keys::linked_history(ino);
        let mut states = Vec::new();
        for (_, value) in self
            .rows
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
            .into_iter()
            .rev()
        {
            let closed: VersionRecord = LinkedVersionTable::decode(&value)?;
            states.extend(HistoricalVersion::ended(closed));
        }
        if let Some(InodeRow::Linked(row)) = row {
            let LinkedRow { node, state, .. } = *row;
            states.extend(
                state
                    .shown(ino, &node, Timestamp(0))
                    .map(|last| HistoricalVersion::of(last, None)),
            );
        }
        Ok(states)
    }

    /// Tells whether a directory existed anywhere at a timestamp.
    async fn location_at(&self, directory: Ino, at: Timestamp) -> Result<bool, StoreError> {
        Ok(self.place_at(directory, at).await?.is_some())
    }

    /// Returns where a directory was located at a timestamp.
    pub(super) async fn place_at(
        &self,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Option<Dentry>, StoreError> {
        if let Some(InodeRow::Directory(row)) = self.rows.row(&keys::inode(directory)).await?
            && let Some((_, place)) = row.place.filter(|(since, _)| *since <= at)
        {
            return Ok(Some(place));
        }
        let directory_location = self.location_row_at(directory, at).await?;
        Ok(directory_location.map(|at| Dentry::new(at.parent, at.name)))
    }

    /// Returns the row of a directory's former location at a timestamp; `None` if it had none, or is still at that location.
    pub(super) async fn location_row_at(
        &self,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Option<DirectoryLocation>, StoreError> {
        let end = keys::after(&keys::directory_locations(directory));
        let Some((_, value)) = self
            .rows
            .first(keys::directory_location(directory, at).bytes(), end)
            .await?
        else {
            return Ok(None);
        };
        let directory_location: DirectoryLocation = DirectoryLocationTable::decode(&value)?;
        Ok((at < directory_location.end).then_some(directory_location))
    }

    /// Returns the last former location of a directory.
    pub(super) async fn last_location(
        &self,
        directory: Ino,
    ) -> Result<Option<DirectoryLocation>, StoreError> {
        let from = keys::directory_locations(directory);
        let row = self.rows.first(from.clone(), keys::after(&from)).await?;
        row.map(|(_, value)| DirectoryLocationTable::decode(&value))
            .transpose()
    }

    /// Returns the location of a directory now, or its last location if it was removed.
    pub(crate) async fn where_now(&self, directory: Ino) -> Result<Option<Dentry>, StoreError> {
        if let Some(InodeRow::Directory(row)) = self.rows.row(&keys::inode(directory)).await? {
            return Ok(row.place.map(|(_, place)| place));
        }
        let directory_location = self.last_location(directory).await?;
        Ok(directory_location.map(|at| Dentry::new(at.parent, at.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::TestCluster;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_of_the_past_waits_for_open_reservations_for_at_most_50_ms() {
        let world = TestCluster::new("settle");
        let ns = world.open().await;
        let start = tokio::time::Instant::now();
        ns.history.settle(ns.now()).await;
        assert!(start.elapsed() < SETTLE);
        let answer = ns.core.clock.begin();
        let at = answer.at();
        // The reservation stays open: the wait ends after its limit.
        let start = tokio::time::Instant::now();
        ns.history.settle(at).await;
        assert!(start.elapsed() >= SETTLE);
        // A reservation after the timestamp is not waited for.
        ns.history.settle(Timestamp(at.0 - 1)).await;
        let waiting = tokio::spawn({
            let ns = ns.clone();
            async move {
                ns.history.settle(at).await;
                ns.core.clock.oldest_reservation()
            }
        });
        tokio::time::sleep(SETTLE / 10).await;
        drop(answer);
        assert_eq!(waiting.await.unwrap(), None);
        ns.close().await.unwrap();
    }
}
