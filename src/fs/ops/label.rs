//! Labels and holds: mkdir, rmdir and rename in a `.versions`, and setxattr of a hold.

use crate::fs::past::attributes::HOLD;
use crate::fs::past::until::parse_until;
use crate::fs::past::{HoldTarget, PastNode, is_past};
use crate::fs::{Caller, Entry, FileSystem, FsError, FsResult, Node, check_name};
use crate::store::{DentryRef, Ino, XattrMode};
use crate::sync::Arc;

/// A `.versions` whose labels can be changed.
pub(super) struct LabelPlace {
    /// The directory whose labels it shows.
    pub(super) directory: Ino,
    node: Arc<PastNode>,
}

impl FileSystem {
    /// The labels that are changed in the node `parent`; `None` if it is no `.versions`, or nothing can be changed.
    pub(super) fn labels_in(&self, parent: u64) -> FsResult<Option<LabelPlace>> {
        let Some(node) = self.changeable(parent)? else {
            return Ok(None);
        };
        let directory = self.past().labels_of(&node);
        Ok(directory.map(|directory| LabelPlace { directory, node }))
    }

    /// Makes a label and counts one lookup of it.
    pub(super) async fn make_label(
        &self,
        caller: &Caller,
        labels: LabelPlace,
        name: &[u8],
    ) -> FsResult<Entry> {
        check_name(name)?;
        let (history, author) = (self.namespace().history(), caller.author());
        history
            .create_label(labels.directory, name, None, &author)
            .await?;
        let mut entry = self.past().lookup(caller, &labels.node, name).await?;
        entry.stat = self.shown(entry.stat);
        Ok(entry)
    }

    /// Renames a label; `flags` are renameat2(2)'s. Another label is never replaced.
    pub(super) async fn rename_label(
        &self,
        directory: Ino,
        name: &[u8],
        new_name: &[u8],
        flags: u32,
    ) -> FsResult<()> {
        check_name(new_name)?;
        if !matches!(flags, 0 | libc::RENAME_NOREPLACE) {
            return Err(FsError::Invalid("rename flags".to_owned()));
        }
        let history = self.namespace().history();
        Ok(history.rename_label(directory, name, new_name).await?)
    }

    /// The node `ino`, if it is a label or a version that can be held.
    pub(super) fn holdable(&self, ino: u64) -> FsResult<Option<Arc<PastNode>>> {
        let node = self.changeable(ino)?;
        Ok(node.filter(|node| node.object().hold_target().is_some()))
    }

    /// Holds what `node` shows until the time that `text` says.
    pub(super) async fn hold(
        &self,
        caller: &Caller,
        node: &PastNode,
        text: &[u8],
        mode: XattrMode,
    ) -> FsResult<()> {
        let until = parse_until(text, self.namespace().now())
            .map_err(|error| FsError::Invalid(error.to_string()))?;
        match (mode, self.past().getxattr(node, HOLD).await) {
            (XattrMode::Create, Ok(_)) => return Err(FsError::Exists),
            (XattrMode::Replace, Err(error)) => return Err(error),
            (XattrMode::Any | XattrMode::Create | XattrMode::Replace, _) => {}
        }
        let history = self.namespace().history();
        match node.object().hold_target().ok_or(FsError::ReadOnly)? {
            HoldTarget::Label { directory, name } => {
                history.hold_label(directory, &name, until).await?;
            }
            HoldTarget::Version {
                directory,
                name,
                entry,
            } => {
                let (slot, author) = (DentryRef::new(directory, &name), caller.author());
                let held = history.hold_version(slot, &entry, until, &author).await;
                held.map_err(|error| FsError::from(error).by_number())?;
            }
        }
        Ok(())
    }

    /// The node of the past `number`, unless this mount changes nothing.
    fn changeable(&self, number: u64) -> FsResult<Option<Arc<PastNode>>> {
        self.admit()?;
        if !is_past(number) || self.config().read_only {
            return Ok(None);
        }
        match self.node(number)? {
            Node::Past(node) => Ok(Some(node)),
            Node::Live(_) => Ok(None),
        }
    }
}
