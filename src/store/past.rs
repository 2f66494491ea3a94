//! The past: what a name and a directory showed at an instant, and the versions of a name.
//!
//! Current rows are looked at before history rows, so that a state which is superseded meanwhile is found in one of them.
//! Invariant: `entry_at` and `versions` never disagree.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::error::StoreError;
use super::interval;
use super::keys;
use super::namespace::{Namespace, Shared};
use super::rows::{Body, Closed, Entry, Hung, InodeRow, Last, LinkedRow, Node, State, decode};
use super::version::{Content, EndOp, Ino, Instant, Kind, PastEntry, ROOT, Stamp};

/// How long a look into the past waits for answers under way.
const SETTLE: Duration = Duration::from_millis(50);
/// Renames a list of versions follows back.
const ORIGINS_MAX: usize = 64;

/// A state that stood: from its stamp to its end.
#[derive(Clone, Debug)]
struct Stood {
    ino: Ino,
    node: Node,
    stamp: Stamp,
    ended: Option<Instant>,
}

impl Stood {
    fn of(last: Last, ended: Option<Instant>) -> Self {
        Self {
            ino: last.ino,
            node: last.node,
            stamp: last.stamp,
            ended,
        }
    }

    /// The part within a binding, or `None`.
    fn within(mut self, bound: &Stamp, until: Option<Instant>) -> Option<Self> {
        let start = self.stamp.id.instant.max(bound.id.instant);
        let end = match (self.ended, until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if end.is_some_and(|end| end <= start) {
            return None;
        }
        if bound.id.instant > self.stamp.id.instant {
            self.stamp = bound.clone();
        }
        self.ended = end;
        Some(self)
    }

    fn covers(&self, at: Instant) -> bool {
        self.stamp.id.instant <= at && self.ended.is_none_or(|end| at < end)
    }

    fn into_entry(self) -> PastEntry {
        PastEntry {
            ino: self.ino,
            kind: self.node.kind,
            attrs: self.node.attrs,
            xattrs: self.node.xattrs,
            content: self.node.content,
            version: self.stamp.id,
            ended: self.ended,
            op: self.stamp.op,
            author: self.stamp.author,
            host: self.stamp.host,
            renamed_from: self.stamp.origin,
        }
    }
}

/// The version a current state shows in the past.
fn last_of(ino: Ino, node: &Node, state: &State, alive_since: Instant) -> Option<Last> {
    match state {
        State::Version(stamp) => Some(Last {
            ino,
            node: node.clone(),
            stamp: stamp.clone(),
            alive_since,
        }),
        State::Provisional(last) => Some(Last::clone(last)),
        State::Unborn { behind } => behind.as_deref().cloned(),
    }
}

impl Namespace {
    /// Waits, 50 ms at most, until nothing at or before `at` is still being answered.
    pub async fn settle(&self, at: Instant) {
        let deadline = tokio::time::Instant::now() + SETTLE;
        while self
            .0
            .clock
            .oldest_answer()
            .is_some_and(|oldest| oldest <= at)
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether nothing at or before `at` can change any more.
    pub fn is_final(&self, at: Instant) -> bool {
        at < self.0.floor()
    }

    /// Which directory `.versions/AT` in `directory` means: itself if it was there then, else the one that stood at the same
    /// path; `None` if there was none.
    ///
    /// # Errors
    /// `NotFound` when the directory is gone now.
    pub async fn directory_at(
        &self,
        directory: Ino,
        at: Instant,
    ) -> Result<Option<Ino>, StoreError> {
        if self.0.hung_at(directory, at).await? {
            return Ok(Some(directory));
        }
        if directory == ROOT {
            return Ok(None);
        }
        let Some((parent, name)) = self.0.where_now(directory).await? else {
            return Ok(None);
        };
        let mut path = vec![name];
        let mut above = parent;
        while above != ROOT {
            if self.0.hung_at(above, at).await? {
                break;
            }
            let Some((parent, name)) = self.0.where_now(above).await? else {
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

    /// What `name` showed at an instant.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn entry_at(
        &self,
        directory: Ino,
        name: &[u8],
        at: Instant,
    ) -> Result<Option<PastEntry>, StoreError> {
        let current = self.0.entry(directory, name).await?;
        Ok(self
            .0
            .stood_at(directory, name, current.as_ref(), at)
            .await?
            .map(Stood::into_entry))
    }

    /// What a directory held at an instant, names ascending.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn list_at(
        &self,
        directory: Ino,
        at: Instant,
    ) -> Result<Vec<(Bytes, PastEntry)>, StoreError> {
        let from = keys::entry(directory, b"");
        let rows = self
            .0
            .view
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?;
        let mut names: Vec<(Bytes, Option<Entry>)> = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            names.push((keys::entry_name(&key), Some(decode("C D", &value)?)));
        }
        let live: BTreeSet<Bytes> = names.iter().map(|(name, _)| name.clone()).collect();
        let gone = interval::alive_at(&self.0.view, directory, at).await?;
        names.extend(
            gone.into_iter()
                .filter(|name| !live.contains(name))
                .map(|name| (name, None)),
        );
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let mut found = Vec::with_capacity(names.len());
        for (name, entry) in names {
            if let Some(stood) = self
                .0
                .stood_at(directory, &name, entry.as_ref(), at)
                .await?
            {
                found.push((name, stood.into_entry()));
            }
        }
        Ok(found)
    }

    /// Every state of a name that stood, oldest first, the current one last. Goes on through the rename that made the name.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn versions(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<Vec<PastEntry>, StoreError> {
        let mut all = self.0.slot_versions(directory, name, None).await?;
        for _ in 0..ORIGINS_MAX {
            let Some(first) = all.first() else { break };
            let (Some(origin), end) = (first.stamp.origin.clone(), first.stamp.id.instant) else {
                break;
            };
            if first.stamp.op != super::version::Op::Rename {
                break;
            }
            let mut before = self
                .0
                .slot_versions(origin.directory, &origin.name, Some(end))
                .await?;
            if before.last().and_then(|last| last.ended) != Some(end) {
                break;
            }
            let gap = before
                .windows(2)
                .rposition(|pair| pair[0].ended != Some(pair[1].stamp.id.instant));
            before.drain(..gap.map_or(0, |at| at + 1));
            before.append(&mut all);
            all = before;
        }
        Ok(all.into_iter().map(Stood::into_entry).collect())
    }

    /// Names of files that have versions: live ones and gone ones, ascending.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn names_with_versions(&self, directory: Ino) -> Result<Vec<Bytes>, StoreError> {
        let mut names = BTreeSet::new();
        for name in interval::all(&self.0.view, directory).await? {
            let from = keys::history(directory, &name);
            if let Some((_, value)) = self.0.view.first(from.clone(), keys::after(&from)).await? {
                let closed: Closed = decode("H V", &value)?;
                let shown =
                    closed.end_op != EndOp::Passed || self.0.has_stayed(directory, &name).await?;
                if shown && closed.node.is_none_or(|node| node.kind != Kind::Directory) {
                    names.insert(name);
                }
            }
        }
        let from = keys::entry(directory, b"");
        for (key, value) in self
            .0
            .view
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
        {
            let entry: Entry = decode("C D", &value)?;
            let has_one = match &entry.body {
                Body::Own { node, .. } if node.kind == Kind::Directory => false,
                Body::Own { state, .. } => !matches!(state, State::Unborn { behind: None }),
                Body::Linked(_) => true,
            };
            if has_one {
                names.insert(keys::entry_name(&key));
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Instants at which the entries of a directory changed, newest first, at most `limit`.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn changes(&self, directory: Ino, limit: usize) -> Result<Vec<Instant>, StoreError> {
        let from = keys::entry(directory, b"");
        let mut instants = interval::bounds(&self.0.view, directory).await?;
        for (_, value) in self
            .0
            .view
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
        {
            let entry: Entry = decode("C D", &value)?;
            match entry.body {
                Body::Own { node, state } => {
                    instants.extend(
                        last_of(entry.ino, &node, &state, entry.alive_since)
                            .map(|last| last.stamp.id.instant),
                    );
                }
                Body::Linked(stamp) => {
                    instants.insert(stamp.id.instant);
                }
            }
        }
        let from = keys::histories(directory);
        for (key, _) in self
            .0
            .view
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
        {
            instants.extend(keys::trailing_id(&key).map(|id| id.instant));
        }
        Ok(instants.into_iter().rev().take(limit).collect())
    }

    /// Bytes of a state of the past; fewer than `len` only at its end.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn read_past(
        &self,
        entry: &PastEntry,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, StoreError> {
        let end = offset.saturating_add(u64::from(len)).min(entry.attrs.size);
        match entry.content.reference() {
            Some(content) if offset < end => self.0.read_content(content, offset, end).await,
            _ => Ok(Bytes::new()),
        }
    }

    /// Where a symbolic link of the past pointed; empty if it is none.
    pub fn target_past(&self, entry: &PastEntry) -> Bytes {
        match &entry.content {
            Content::Target(target) => target.clone(),
            Content::Bytes(_) | Content::Shared(_) | Content::Empty => Bytes::new(),
        }
    }
}

impl Shared {
    /// The state of a name that stood at an instant; `current` is its present entry, read before.
    async fn stood_at(
        &self,
        directory: Ino,
        name: &[u8],
        current: Option<&Entry>,
        at: Instant,
    ) -> Result<Option<Stood>, StoreError> {
        if let Some(entry) = current {
            match &entry.body {
                Body::Own { node, state } => {
                    let last = last_of(entry.ino, node, state, entry.alive_since);
                    if let Some(last) = last.filter(|last| last.stamp.id.instant <= at) {
                        return Ok(Some(Stood::of(last, None)));
                    }
                }
                Body::Linked(bound) if bound.id.instant <= at => {
                    return self.linked_at(entry.ino, (bound, None), at).await;
                }
                Body::Linked(_) => {}
            }
        }
        let from = keys::history_at(directory, name, at);
        let end = keys::after(&keys::history(directory, name));
        let Some((_, value)) = self.view.first(from, end).await? else {
            return Ok(None);
        };
        let closed: Closed = decode("H V", &value)?;
        if closed.end <= at {
            return Ok(None);
        }
        match closed.node {
            Some(node) => Ok(Some(Stood {
                ino: closed.ino,
                node,
                stamp: closed.stamp,
                ended: Some(closed.end),
            })),
            None => {
                self.linked_at(closed.ino, (&closed.stamp, Some(closed.end)), at)
                    .await
            }
        }
    }

    /// The state of a hard-linked inode that stood at an instant, seen through a binding.
    async fn linked_at(
        &self,
        ino: Ino,
        bound: (&Stamp, Option<Instant>),
        at: Instant,
    ) -> Result<Option<Stood>, StoreError> {
        let states = self.linked_states(ino).await?;
        Ok(states
            .into_iter()
            .filter_map(|s| s.within(bound.0, bound.1))
            .find(|s| s.covers(at)))
    }

    /// All states of a hard-linked inode, oldest first.
    async fn linked_states(&self, ino: Ino) -> Result<Vec<Stood>, StoreError> {
        let row: Option<InodeRow> = self.view.row("C I", &keys::inode(ino)).await?;
        let from = keys::linked_history(ino);
        let mut states = Vec::new();
        for (_, value) in self
            .view
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
            .into_iter()
            .rev()
        {
            let closed: Closed = decode("H W", &value)?;
            if let Some(node) = closed.node {
                states.push(Stood {
                    ino,
                    node,
                    stamp: closed.stamp,
                    ended: Some(closed.end),
                });
            }
        }
        if let Some(InodeRow::Linked(row)) = row {
            let LinkedRow { node, state, .. } = *row;
            states
                .extend(last_of(ino, &node, &state, Instant(0)).map(|last| Stood::of(last, None)));
        }
        Ok(states)
    }

    /// Whether any closed version of a slot is not one in passing.
    async fn has_stayed(&self, directory: Ino, name: &[u8]) -> Result<bool, StoreError> {
        let from = keys::history(directory, name);
        let rows = self
            .view
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?;
        for (_, value) in rows {
            if decode::<Closed>("H V", &value)?.end_op != EndOp::Passed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every state of one slot that began before `until`, oldest first.
    async fn slot_versions(
        &self,
        directory: Ino,
        name: &[u8],
        until: Option<Instant>,
    ) -> Result<Vec<Stood>, StoreError> {
        let current = self.entry(directory, name).await?;
        let from = keys::history(directory, name);
        let rows = self
            .view
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?;
        let mut all = Vec::with_capacity(rows.len() + 1);
        for (_, value) in rows.into_iter().rev() {
            let closed: Closed = decode("H V", &value)?;
            match closed.node {
                _ if closed.end_op == EndOp::Passed => {}
                Some(node) => all.push(Stood {
                    ino: closed.ino,
                    node,
                    stamp: closed.stamp,
                    ended: Some(closed.end),
                }),
                None => {
                    let states = self.linked_states(closed.ino).await?;
                    all.extend(
                        states
                            .into_iter()
                            .filter_map(|s| s.within(&closed.stamp, Some(closed.end))),
                    );
                }
            }
        }
        match current.map(|entry| (entry.ino, entry.alive_since, entry.body)) {
            Some((ino, alive_since, Body::Own { node, state })) => {
                all.extend(
                    last_of(ino, &node, &state, alive_since).map(|last| Stood::of(last, None)),
                );
            }
            Some((ino, _, Body::Linked(bound))) => {
                let states = self.linked_states(ino).await?;
                all.extend(states.into_iter().filter_map(|s| s.within(&bound, None)));
            }
            None => {}
        }
        if let Some(until) = until {
            all.retain(|s| s.stamp.id.instant < until);
        }
        all.sort_by_key(|s| s.stamp.id);
        all.dedup_by_key(|s| s.stamp.id);
        Ok(all)
    }

    /// Whether a directory's id hung anywhere at an instant.
    async fn hung_at(&self, directory: Ino, at: Instant) -> Result<bool, StoreError> {
        if let Some(InodeRow::Directory(row)) =
            self.view.row("C I", &keys::inode(directory)).await?
            && row.place.is_some_and(|(since, _)| since <= at)
        {
            return Ok(true);
        }
        let end = keys::after(&keys::hangings(directory));
        let Some((_, value)) = self.view.first(keys::hung(directory, at), end).await? else {
            return Ok(false);
        };
        let hung: Hung = decode("H N", &value)?;
        Ok(at < hung.end)
    }

    /// Where a directory hangs now, or hung last.
    pub(crate) async fn where_now(
        &self,
        directory: Ino,
    ) -> Result<Option<(Ino, Bytes)>, StoreError> {
        if let Some(InodeRow::Directory(row)) =
            self.view.row("C I", &keys::inode(directory)).await?
        {
            return Ok(row.place.map(|(_, place)| place));
        }
        let from = keys::hangings(directory);
        let Some((_, value)) = self.view.first(from.clone(), keys::after(&from)).await? else {
            return Ok(None);
        };
        let hung: Hung = decode("H N", &value)?;
        Ok(Some((hung.parent, hung.name)))
    }
}
