//! `diff`: how two states of a file, or two trees, differ.
//!
//! Trees are compared directory by directory. A name that one side lacks is kept until the end: if the other side has the same inode
//! under another name, it was renamed. A directory without such a partner is opened then, and what is in it was added or removed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::cat::piece;
use super::error::VerbError;
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::request::{DiffContents, DiffRequest};
use super::rows::{
    AsOfRow, BytesRow, ComparedKind, DiffSide, DifferenceRow, PathDifference, RowSender, SideRow,
    VerbRow, kind_name, mode, stamp,
};
use crate::store::{Ino, Kind, PastEntry, Retained, Timestamp};

/// The most names that one side lacks which are kept to find renames; further files are sent at once.
const UNPAIRED_MAX: usize = 100_000;

/// A directory that both sides have.
#[derive(Debug)]
struct DirectoryPair {
    old: Ino,
    new: Ino,
    /// Its paths from the compared directories.
    old_path: PathText,
    new_path: PathText,
}

/// What the sides have at a place; one of them may have nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryPair<'a> {
    pub(super) old: Option<&'a PastEntry>,
    pub(super) new: Option<&'a PastEntry>,
}

impl EntryPair<'_> {
    /// Sends a difference, and the bytes of both sides where their lines can be compared.
    pub(super) async fn send_compared(
        self,
        reader: &PathReader,
        row: DifferenceRow,
        rows: &RowSender,
    ) -> Result<(), VerbError> {
        let failed = VerbError::at(&row.path);
        let is_compared = row.has_lines();
        rows.put_row(VerbRow::Difference(row)).await?;
        if !is_compared {
            return Ok(());
        }
        let sides = [(DiffSide::Old, self.old), (DiffSide::New, self.new)];
        for (side, entry) in sides {
            // A link that was a file, or the other way round.
            let Some(entry) = entry.filter(|entry| entry.kind == Kind::File) else {
                continue;
            };
            let mut offset = 0;
            while offset < entry.attrs.size {
                let bytes = piece(reader, entry, offset).await.map_err(&failed)?;
                offset += bytes.len() as u64;
                let side = Some(side);
                let row = BytesRow { side, bytes };
                rows.put_row(VerbRow::Bytes(row)).await?;
            }
        }
        Ok(())
    }

    pub(super) fn row(
        self,
        change: PathDifference,
        path: PathText,
        renamed_from: Option<PathText>,
    ) -> DifferenceRow {
        let kind = self.new.or(self.old).map_or("file", |e| kind_name(e.kind));
        DifferenceRow {
            change,
            path,
            renamed_from,
            kind: kind.to_owned(),
            old: self.old.map(side),
            new: self.new.map(side),
        }
    }
}

/// What a directory of one side has.
#[derive(Debug, Default)]
struct ListedSide {
    kept: BTreeMap<Bytes, PastEntry>,
    /// Names of forgotten versions, of which only the kind is known.
    forgotten: BTreeMap<Bytes, Kind>,
}

/// A comparison of two trees.
struct TreeDiff<'a> {
    reader: &'a PathReader,
    old_at: Timestamp,
    new_at: Timestamp,
    contents: DiffContents,
    rows: &'a RowSender,
    open: VecDeque<DirectoryPair>,
    /// Names that only the old side has.
    removed: BTreeMap<PathText, PastEntry>,
    /// Names that only the new side has.
    added: BTreeMap<PathText, PastEntry>,
}

/// Sends the differences between two paths.
pub(super) async fn diff(
    reader: &PathReader,
    request: &DiffRequest,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let old = reader.state(&request.old).await?;
    let new = reader.state(&request.new).await?;
    let mut tree = TreeDiff {
        reader,
        old_at: old.at,
        new_at: new.at,
        contents: request.contents,
        rows,
        open: VecDeque::new(),
        removed: BTreeMap::new(),
        added: BTreeMap::new(),
    };
    match (&old.node, &new.node) {
        (NodeState::Directory(old), NodeState::Directory(new)) => {
            rows.put_row(VerbRow::Compared(ComparedKind::Trees)).await?;
            if request.contents == DiffContents::OfFile {
                tree.contents = DiffContents::Never;
            }
            tree.open.push_back(DirectoryPair {
                old: *old,
                new: *new,
                old_path: PathText::default(),
                new_path: PathText::default(),
            });
            tree.compare().await
        }
        (NodeState::Other(old), NodeState::Other(new)) => {
            rows.put_row(VerbRow::Compared(ComparedKind::Files)).await?;
            let path = PathText::of_names(&request.new.names());
            let former = PathText::of_names(&request.old.names());
            let renamed_from = (former != path).then_some(former);
            tree.compare_entries(old, new, path, renamed_from).await
        }
        _ => Err(VerbError::Unlike {
            old: request.old.to_string(),
            new: request.new.to_string(),
        }),
    }
}

/// Sends what a restore of `path` would change.
pub(super) async fn preview(
    reader: &PathReader,
    path: &TimedPath,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let then = reader.state(path).await?;
    let as_of = AsOfRow {
        as_of: stamp(then.at),
        as_of_ns: then.at.0,
    };
    rows.put_row(VerbRow::AsOf(as_of)).await?;
    let now = TimedPath {
        path: path.path.clone(),
        time: None,
    };
    let names = path.names();
    let is_tree = |node: &NodeState| matches!(node, NodeState::Directory(_));
    let live = reader.node_at(&names, None).await?;
    if let Some(live) = live.filter(|live| is_tree(live) == is_tree(&then.node)) {
        let request = DiffRequest {
            old: now,
            new: path.clone(),
            contents: DiffContents::Never,
        };
        drop(live);
        return diff(reader, &request, rows).await;
    }
    // The whole name comes back, in place of what may be there now.
    rows.put_row(VerbRow::Compared(ComparedKind::Trees)).await?;
    let shown = PathText::of_names(&names);
    let (kind, new) = match &then.node {
        NodeState::Directory(_) => ("directory", None),
        NodeState::Other(entry) => (kind_name(entry.kind), Some(side(entry))),
    };
    let row = DifferenceRow {
        change: PathDifference::Added,
        path: shown,
        renamed_from: None,
        kind: kind.to_owned(),
        old: None,
        new,
    };
    rows.put_row(VerbRow::Difference(row)).await
}

fn side(entry: &PastEntry) -> SideRow {
    SideRow {
        stamp: stamp(entry.version.timestamp),
        size: entry.attrs.size,
        mode: mode(entry.attrs.mode),
        uid: entry.attrs.uid,
        gid: entry.attrs.gid,
    }
}

impl TreeDiff<'_> {
    /// Compares the open directories and all below them.
    async fn compare(&mut self) -> Result<(), VerbError> {
        loop {
            while let Some(pair) = self.open.pop_front() {
                self.compare_directories(&pair).await?;
            }
            self.pair_renames().await?;
            if self.open.is_empty() && !self.open_unpaired().await? {
                break;
            }
        }
        for (path, entry) in std::mem::take(&mut self.removed) {
            self.tell_one(DiffSide::Old, path, &entry).await?;
        }
        for (path, entry) in std::mem::take(&mut self.added) {
            self.tell_one(DiffSide::New, path, &entry).await?;
        }
        Ok(())
    }

    async fn compare_directories(&mut self, pair: &DirectoryPair) -> Result<(), VerbError> {
        let is_kept =
            self.keeps(pair.old, self.old_at).await? && self.keeps(pair.new, self.new_at).await?;
        if !is_kept {
            let path = pair.new_path.clone();
            return self.tell_not_kept(path, Kind::Directory).await;
        }
        let old = self.list(pair.old, self.old_at, &pair.old_path).await?;
        let new = self.list(pair.new, self.new_at, &pair.new_path).await?;
        let (mut forgotten, mut old, mut new) = (new.forgotten, old, new.kept);
        forgotten.append(&mut old.forgotten);
        for (name, kind) in forgotten {
            old.kept.remove(&name);
            new.remove(&name);
            self.tell_not_kept(pair.new_path.join(&name), kind).await?;
        }
        for (name, old) in old.kept {
            let (old_path, path) = (pair.old_path.join(&name), pair.new_path.join(&name));
            match new.remove(&name) {
                Some(new) if new.kind == old.kind => {
                    if old.kind == Kind::Directory {
                        self.open.push_back(DirectoryPair {
                            old: old.ino,
                            new: new.ino,
                            old_path,
                            new_path: path.clone(),
                        });
                    }
                    self.compare_entries(&old, &new, path, None).await?;
                }
                Some(new) => {
                    self.hold_back(DiffSide::Old, old_path, old).await?;
                    self.hold_back(DiffSide::New, path, new).await?;
                }
                None => self.hold_back(DiffSide::Old, old_path, old).await?,
            }
        }
        for (name, new) in new {
            self.hold_back(DiffSide::New, pair.new_path.join(&name), new)
                .await?;
        }
        Ok(())
    }

    /// Sends how two entries of one kind differ; a rename is a difference too.
    async fn compare_entries(
        &self,
        old: &PastEntry,
        new: &PastEntry,
        path: PathText,
        renamed_from: Option<PathText>,
    ) -> Result<(), VerbError> {
        let owned = |entry: &PastEntry| (entry.attrs.mode, entry.attrs.uid, entry.attrs.gid);
        let is_same = old.kind == new.kind && self.is_same_content(old, new, &path).await?;
        let change = match is_same {
            false => PathDifference::Changed,
            true if owned(old) != owned(new) => PathDifference::Mode,
            true => return Ok(()),
        };
        let (old, new) = (Some(old), Some(new));
        self.tell(EntryPair { old, new }, change, path, renamed_from)
            .await
    }

    /// Tells whether two entries of one kind have the same bytes, target or device; two directories do.
    async fn is_same_content(
        &self,
        old: &PastEntry,
        new: &PastEntry,
        path: &PathText,
    ) -> Result<bool, VerbError> {
        if old.kind != Kind::File {
            let history = self.reader.namespace.history();
            return Ok(old.attrs.rdev == new.attrs.rdev
                && history.target_past(old) == history.target_past(new));
        }
        if old.attrs.size != new.attrs.size {
            return Ok(false);
        }
        if old.content.reference() == new.content.reference() {
            return Ok(true);
        }
        let failed = VerbError::at(path);
        let mut offset = 0;
        while offset < old.attrs.size {
            let before = piece(self.reader, old, offset).await.map_err(&failed)?;
            let after = piece(self.reader, new, offset).await.map_err(&failed)?;
            if before != after {
                return Ok(false);
            }
            offset += before.len() as u64;
        }
        Ok(true)
    }

    /// Sends the names that lead to one inode on both sides as renamed, and opens the directories among them.
    async fn pair_renames(&mut self) -> Result<(), VerbError> {
        let removed = self.removed.iter();
        let by_inode: BTreeMap<Ino, PathText> = removed
            .map(|(path, entry)| (entry.ino, path.clone()))
            .collect();
        let renamed: Vec<(PathText, PathText)> = self
            .added
            .iter()
            .filter_map(|(path, entry)| Some((by_inode.get(&entry.ino)?.clone(), path.clone())))
            .collect();
        for (old_path, new_path) in renamed {
            // Of several names of an inode one pair is a rename.
            let Some(old) = self.removed.remove(&old_path) else {
                continue;
            };
            let Some(new) = self.added.remove(&new_path) else {
                continue;
            };
            if old.kind == Kind::Directory {
                self.open.push_back(DirectoryPair {
                    old: old.ino,
                    new: new.ino,
                    old_path: old_path.clone(),
                    new_path: new_path.clone(),
                });
            }
            let pair = EntryPair {
                old: Some(&old),
                new: Some(&new),
            };
            self.tell(pair, PathDifference::Renamed, new_path, Some(old_path))
                .await?;
        }
        Ok(())
    }

    /// Sends the directories that one side lacks, and keeps what is in them; tells whether there were any.
    async fn open_unpaired(&mut self) -> Result<bool, VerbError> {
        let is_directory = |entry: &PastEntry| entry.kind == Kind::Directory;
        let mut opened = false;
        for side in [DiffSide::Old, DiffSide::New] {
            let (unpaired, at) = match side {
                DiffSide::Old => (&mut self.removed, self.old_at),
                DiffSide::New => (&mut self.added, self.new_at),
            };
            let directories: Vec<(PathText, PastEntry)> = unpaired
                .extract_if(.., |_, entry| is_directory(entry))
                .collect();
            for (path, entry) in directories {
                opened = true;
                self.tell_one(side, path.clone(), &entry).await?;
                if !self.keeps(entry.ino, at).await? {
                    self.tell_not_kept(path, Kind::Directory).await?;
                    continue;
                }
                let listed = self.list(entry.ino, at, &path).await?;
                for (name, kind) in listed.forgotten {
                    self.tell_not_kept(path.join(&name), kind).await?;
                }
                for (name, below) in listed.kept {
                    self.hold_back(side, path.join(&name), below).await?;
                }
            }
        }
        Ok(opened)
    }

    /// Keeps a name that the other side lacks, for the search for renames.
    async fn hold_back(
        &mut self,
        side: DiffSide,
        path: PathText,
        entry: PastEntry,
    ) -> Result<(), VerbError> {
        let is_full = self.removed.len() + self.added.len() >= UNPAIRED_MAX;
        if is_full && entry.kind != Kind::Directory {
            return self.tell_one(side, path, &entry).await;
        }
        match side {
            DiffSide::Old => self.removed.insert(path, entry),
            DiffSide::New => self.added.insert(path, entry),
        };
        Ok(())
    }

    /// Sends an entry that only one side has.
    async fn tell_one(
        &self,
        side: DiffSide,
        path: PathText,
        entry: &PastEntry,
    ) -> Result<(), VerbError> {
        let (pair, change) = match side {
            DiffSide::Old => (
                EntryPair {
                    old: Some(entry),
                    new: None,
                },
                PathDifference::Removed,
            ),
            DiffSide::New => (
                EntryPair {
                    old: None,
                    new: Some(entry),
                },
                PathDifference::Added,
            ),
        };
        self.tell(pair, change, path, None).await
    }

    /// Sends a difference, and the bytes of both sides if the request asks for them.
    async fn tell(
        &self,
        pair: EntryPair<'_>,
        change: PathDifference,
        path: PathText,
        renamed_from: Option<PathText>,
    ) -> Result<(), VerbError> {
        let row = pair.row(change, path, renamed_from);
        match self.contents {
            DiffContents::Never => self.rows.put_row(VerbRow::Difference(row)).await,
            DiffContents::OfFile | DiffContents::OfAll => {
                pair.send_compared(self.reader, row, self.rows).await
            }
        }
    }

    /// Tells whether what a directory showed at a time is kept, in spite of the policies of directories.
    async fn keeps(&self, directory: Ino, at: Timestamp) -> Result<bool, VerbError> {
        let history = self.reader.namespace.history();
        let is_cut_off = history.is_cut_off(directory, at).await;
        let is_cut_off = is_cut_off.map_err(VerbError::at(&"a directory of a tree"))?;
        Ok(!is_cut_off)
    }

    /// Names what cannot be compared.
    async fn tell_not_kept(&self, path: PathText, kind: Kind) -> Result<(), VerbError> {
        let row = DifferenceRow {
            change: PathDifference::NotKept,
            path,
            renamed_from: None,
            kind: kind_name(kind).to_owned(),
            old: None,
            new: None,
        };
        self.rows.put_row(VerbRow::Difference(row)).await
    }

    /// Lists a directory of one side.
    async fn list(
        &self,
        directory: Ino,
        at: Timestamp,
        path: &PathText,
    ) -> Result<ListedSide, VerbError> {
        let entries = self.reader.view().list_at(directory, at).await;
        let mut listed = ListedSide::default();
        for (name, entry) in entries.map_err(VerbError::at(path))? {
            if entry.kept == Retained::Nothing {
                listed.forgotten.insert(name, entry.kind);
            } else {
                listed.kept.insert(name, entry);
            }
        }
        Ok(listed)
    }
}
