//! Programs that run from files which a restore would rewrite: they keep their bytes.
//!
//! A restore that would rewrite such a file is refused before its first change. In steps a program may begin to run later: its name
//! then gets a new inode.

use std::collections::HashMap;

use crate::store::history::History;
use crate::store::history::restore_plan::{ChangedState, RestorePlan, RestoreTarget};
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, Kind, Retained};
use crate::store::schema::keys;
use crate::store::schema::rows::DentryBody;
use crate::store::tree::running::ProgramUse;

/// Files that an operation rewrites: a program that is about to run from one waits until this is dropped.
#[derive(Debug, Default)]
pub(super) struct RewrittenFiles {
    uses: HashMap<Ino, ProgramUse>,
}

impl RewrittenFiles {
    /// Tells whether a plan rewrites no other files.
    pub(super) fn cover(&self, plan: &RestorePlan) -> bool {
        let mut rewritten = plan.states.iter().filter(|changed| changed.rewrites());
        rewritten.all(|changed| self.uses.contains_key(&changed.name.row.ino))
    }
}

impl ChangedState {
    /// Tells whether the bytes of a file change. Those of a hard-linked file are not looked up.
    fn rewrites(&self) -> bool {
        self.entry.kind == Kind::File
            && match &self.name.row.body {
                DentryBody::Own { node, .. } => {
                    node.content.reference() != self.entry.content.reference()
                }
                DentryBody::Linked(_) => true,
            }
    }
}

impl History {
    /// Keeps programs from running from the files that a plan rewrites. Returns the name of one that runs, if there is one.
    ///
    /// The caller has no inode lock: an open that truncates takes those later too.
    pub(super) async fn begin_rewriting(
        &self,
        plan: &RestorePlan,
    ) -> Result<RewrittenFiles, Dentry> {
        let mut files = RewrittenFiles::default();
        for changed in plan.states.iter().filter(|changed| changed.rewrites()) {
            let ino = changed.name.row.ino;
            match self.tree.programs().change(ino).await {
                Some(change) => {
                    files.uses.insert(ino, change);
                }
                None => return Err(changed.name.slot.clone()),
            }
        }
        Ok(files)
    }

    /// Tells whether a change would rewrite the file of a program that runs.
    pub(super) fn rewrites_program(&self, changed: &ChangedState) -> bool {
        changed.rewrites() && self.tree.programs().runs(changed.name.row.ino)
    }

    /// Returns the error for a program that runs.
    pub(super) async fn program_runs(&self, target: &RestoreTarget, slot: &Dentry) -> StoreError {
        match self.path_below(target, slot).await {
            Ok(path) => StoreError::ProgramRuns(format!(
                "{path} is a program that runs; stop it, or restore to another name with --to"
            )),
            Err(error) => error,
        }
    }

    /// Fails if a program runs below a directory from a file that had other bytes then.
    pub(super) async fn check_no_program(
        &self,
        target: &RestoreTarget,
        directory: Ino,
    ) -> Result<(), StoreError> {
        for ino in self.tree.programs().running() {
            // Names of a hard-linked file get another inode.
            let Some(place) = self.core.index.row(&keys::place(ino)).await? else {
                continue;
            };
            let slot = Dentry::new(place.directory, place.name);
            let live = self.tree.entry(slot.parent, &slot.name).await?;
            let Some(DentryBody::Own { node, .. }) = live.map(|row| row.body) else {
                continue;
            };
            if !self.tree.is_at_or_below(ino, directory).await? {
                continue;
            }
            let former = match slot.parent == directory {
                true => target.then.ino,
                false => slot.parent,
            };
            let view = self.view();
            let then = view.entry_at(former, &slot.name, target.at).await?;
            let is_other = then.is_some_and(|then| {
                then.kind == Kind::File
                    && then.kept != Retained::Nothing
                    && then.content.reference() != node.content.reference()
            });
            if is_other && self.tree.programs().change(ino).await.is_none() {
                return Err(self.program_runs(target, &slot).await);
            }
        }
        Ok(())
    }
}
