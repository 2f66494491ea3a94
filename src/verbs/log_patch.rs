//! `log --patch`: how a change of a file differs from the state before it.

use super::error::VerbError;
use super::path::PathText;
use super::reader::PathReader;
use super::rows::{PathDifference, RowSender};
use super::tree_diff::EntryPair;
use crate::store::{
    DentryRef, DirectoryChange, EndOp, Kind, Op, Origin, PastEntry, Retained, Timestamp,
};

/// A change, of which the difference is sent.
pub(super) struct Patch<'a> {
    pub(super) reader: &'a PathReader,
    /// The name under which the change is stored.
    pub(super) stored: DentryRef<'a>,
    /// The path that changed.
    pub(super) path: PathText,
    /// The path that a rename took it from.
    pub(super) former: Option<PathText>,
}

impl Patch<'_> {
    /// Sends the difference; nothing for a directory, and for a name that moved away: its new name has the rest.
    pub(super) async fn send_patch(
        self,
        change: &DirectoryChange,
        rows: &RowSender,
    ) -> Result<(), VerbError> {
        let at = change.at();
        let new = match change {
            DirectoryChange::Left { how, .. } if *how == EndOp::RenamedTo => return Ok(()),
            DirectoryChange::Left { .. } => None,
            DirectoryChange::Stood { entry, .. } => Some(&**entry),
        };
        let old = match new.map(|entry| (entry.op, &entry.renamed_from)) {
            Some((Op::Rename, Some(Origin { directory, name }))) => {
                self.before(DentryRef::new(*directory, name), at).await?
            }
            _ => self.before(self.stored, at).await?,
        };
        let pair = EntryPair {
            old: old.as_ref(),
            new,
        };
        let kind = pair.new.or(pair.old).map(|entry| entry.kind);
        if kind.is_none_or(|kind| kind == Kind::Directory) {
            return Ok(());
        }
        let is_renamed = new.is_some_and(|new| new.op == Op::Rename) && self.former.is_some();
        let difference = match (pair.old, pair.new) {
            (None, _) => PathDifference::Added,
            (Some(_), None) => PathDifference::Removed,
            (Some(_), Some(_)) if is_renamed => PathDifference::Renamed,
            (Some(_), Some(_)) => PathDifference::Changed,
        };
        let former = self.former.filter(|_| is_renamed && pair.old.is_some());
        let row = pair.row(difference, self.path, former);
        pair.send_compared(self.reader, row, rows).await
    }

    /// Returns the state of a file that a name had just before a timestamp; `None` if there was none, or nothing of it is kept.
    async fn before(
        &self,
        name: DentryRef<'_>,
        at: Timestamp,
    ) -> Result<Option<PastEntry>, VerbError> {
        let Some(before) = at.0.checked_sub(1) else {
            return Ok(None);
        };
        let view = self.reader.view();
        let entry = view
            .entry_at(name.parent, name.name, Timestamp(before))
            .await;
        let entry = entry.map_err(VerbError::at(&self.path))?;
        Ok(entry.filter(|entry| entry.kind != Kind::Directory && entry.kept != Retained::Nothing))
    }
}
