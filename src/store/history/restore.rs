//! Restore: a name shows again exactly what it showed at a timestamp. No bytes move: contents are shared.
//!
//! Steps: take the turn of restores and the gate of directory moves; plan without locks; keep programs from running from the files that
//! are rewritten; lock every directory at and below the name and
//! every inode that changes, in ascending order; take the timestamp; plan again; in one operation write all rows. A plan that needs
//! further locks starts over.
//!
//! Invariant: one operation at one timestamp: a crash leaves the tree before or after it. While the locks are held no name below
//! changes, and a save that the second plan does not see has a later timestamp.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::store::history::History;
use crate::store::history::restore_plan::{RestorePlan, RestoreTarget, shown};
use crate::store::history::restore_progress::{
    MadeTree, RestoreOperation, RestoreProgress, Restored,
};
use crate::store::model::error::StoreError;
use crate::store::model::ids::{DIRECTORIES_ABOVE_MAX, Dentry, DentryRef};
use crate::store::model::version::{
    Author, Ino, Kind, Origin, PastEntry, ROOT, Retained, Timestamp,
};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::LabelPin;

/// How long a restore waits for saves that have been closed: a release follows a close without a caller that waits.
const SAVE_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks.
const SAVE_PAUSE: Duration = Duration::from_millis(20);
/// A tree with more names than this many times the changes of one operation, those of now and those of then counted, is restored in
/// steps, however few of them change: a plan of one operation holds all names in memory.
const NAMES_FACTOR: usize = 10;

/// What became of a restore in one operation.
enum WholeRestore {
    Made(MadeTree),
    /// It is this many changes, too many for one operation.
    TooMany(usize),
}

/// What is done with names that were added since the restored time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedNames {
    /// They are removed; `.versions/@deleted` lists them.
    Remove,
    /// They stay.
    Keep,
}

impl History {
    /// Makes a name show again what it showed at `at`: `then`, as [`crate::store::PastView::entry_at`] returns it, and for a
    /// directory all below it. The root directory is the empty name in directory 0.
    ///
    /// A file keeps its inode, and its state of before becomes a version. A directory that was moved within the restored one goes back; one
    /// that was moved out of it stays, and a copy of its state takes its place. Names of a hard-linked file outside a restored directory keep
    /// their state.
    ///
    /// # Errors
    /// A directory that takes more changes than one operation has is restored in steps (`restore_steps.rs`).
    ///
    /// `ProgramRuns` with the name of a file that would be rewritten and from which a program runs.
    ///
    /// `Busy` with the name of a file that has writes which are no version yet, and while another directory is restored in steps; `Invalid`
    /// for a state that was deleted, and for more changes than fit in one operation where steps are not possible: of a name that does not
    /// lead to a directory now, or did not then; `NotFound` if the directory of the name is gone; `Stale` for a state that a prune has dropped.
    pub async fn restore(
        &self,
        name: DentryRef<'_>,
        then: PastEntry,
        at: Timestamp,
        added: AddedNames,
        author: &Author,
    ) -> Result<Restored, StoreError> {
        let target = RestoreTarget {
            slot: name.to_dentry(),
            then,
            at,
            origin: None,
            keeps_new: added == AddedNames::Keep,
            copies: false,
        };
        self.restore_target(&target, author).await
    }

    /// Makes a new name with the state that `from` showed at `at`; the list of its versions continues that of `from`.
    ///
    /// # Errors
    /// As [`Self::restore`]; `Exists` if the name is taken.
    pub async fn restore_as(
        &self,
        from: Option<DentryRef<'_>>,
        to: DentryRef<'_>,
        then: PastEntry,
        at: Timestamp,
        author: &Author,
    ) -> Result<Restored, StoreError> {
        crate::store::tree::create::check_entry_name(to.name)?;
        let target = RestoreTarget {
            slot: to.to_dentry(),
            then,
            at,
            origin: from.map(|from| {
                let Dentry { parent, name } = from.to_dentry();
                Origin {
                    directory: parent,
                    name,
                }
            }),
            keeps_new: true,
            copies: true,
        };
        self.restore_target(&target, author).await
    }

    async fn restore_target(
        &self,
        target: &RestoreTarget,
        author: &Author,
    ) -> Result<Restored, StoreError> {
        self.check_no_steps()?;
        let _turn = self.restore_lock.turn.lock().await;
        self.check_no_steps()?;
        let _pin = self.pin_restored(pinned_by(target));
        let made = self.restore_kept(target, author).await?;
        for directory in &made.directories {
            self.tree.inodes.revive(*directory).await;
        }
        Ok(made.restored)
    }

    /// Restores a state that retention keeps from now on.
    async fn restore_kept(
        &self,
        target: &RestoreTarget,
        author: &Author,
    ) -> Result<MadeTree, StoreError> {
        self.check_kept(target).await?;
        let deadline = tokio::time::Instant::now() + SAVE_WAIT;
        loop {
            match self.try_restore(target, author).await {
                Err(StoreError::Busy(_)) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(SAVE_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Fails if what is to be restored was forgotten, or a prune has dropped it since it was looked up.
    async fn check_kept(&self, target: &RestoreTarget) -> Result<(), StoreError> {
        if target.then.kept == Retained::Nothing {
            return Err(StoreError::Invalid(format!(
                "the version of {} at that time was deleted",
                shown(&target.slot.name)
            )));
        }
        let is_kept = match (target.then.kind, target.then.content.reference()) {
            (Kind::Directory, _) => {
                let exact = self.exact_time(target.then.ino, target.at).await?;
                exact == Some(target.at)
            }
            (_, Some(content)) => {
                let showing = self.core.index.row(&keys::count(content)).await?;
                showing.is_some_and(|showing| showing > 0)
            }
            (_, None) => true,
        };
        match is_kept {
            true => Ok(()),
            false => Err(StoreError::Stale),
        }
    }

    async fn try_restore(
        &self,
        target: &RestoreTarget,
        author: &Author,
    ) -> Result<MadeTree, StoreError> {
        let most = self.restore_lock.entries_max.load(Ordering::Relaxed);
        let may_step = self.may_step(target).await?;
        let names_max = NAMES_FACTOR.saturating_mul(most);
        if may_step && self.has_more_names(target, names_max).await? {
            return self.restore_in_steps(target, author).await;
        }
        match self.restore_whole(target, author).await? {
            WholeRestore::Made(made) => Ok(made),
            WholeRestore::TooMany(_) if may_step => self.restore_in_steps(target, author).await,
            WholeRestore::TooMany(count) => Err(StoreError::Invalid(format!(
                "{count} changes; one operation makes at most {most}: restore the directories in it one by one"
            ))),
        }
    }

    /// Restores in one operation.
    async fn restore_whole(
        &self,
        target: &RestoreTarget,
        author: &Author,
    ) -> Result<WholeRestore, StoreError> {
        let parent = target.slot.parent;
        let most = self.restore_lock.entries_max.load(Ordering::Relaxed);
        let _gate = self.tree.renames.lock().await;
        let mut plan = self.checked_plan(target).await?;
        loop {
            match plan.len() {
                0 => return Ok(WholeRestore::Made(MadeTree::unchanged(plan.left))),
                count if count > most => return Ok(WholeRestore::TooMany(count)),
                _ => {}
            }
            let files = match self.begin_rewriting(&plan).await {
                Ok(files) => files,
                Err(slot) => return Err(self.program_runs(target, &slot).await),
            };
            let wanted: Vec<Ino> = plan.inodes(parent).into_iter().collect();
            let mut locked = match self.tree.lock_all(&wanted).await {
                // An inode was removed since the plan.
                Err(StoreError::NotFound)
                    if self.tree.stat(parent_or_root(parent)).await.is_ok() =>
                {
                    plan = self.checked_plan(target).await?;
                    continue;
                }
                locked => locked?,
            };
            // Taken before the second plan: what that does not see has a later timestamp.
            let answer = self.core.clock.begin();
            plan = self.checked_plan(target).await?;
            let held: HashSet<Ino> = wanted.into_iter().collect();
            let is_held = plan.inodes(parent).is_subset(&held.into_iter().collect());
            if is_held && files.cover(&plan) && plan.len() <= most {
                let operation = self.whole(target, answer.at(), author).await?;
                let made = self.restore_rows(&mut locked, operation, plan)?;
                return Ok(WholeRestore::Made(made));
            }
        }
    }

    /// The operation that is the whole restore.
    async fn whole<'a>(
        &self,
        target: &RestoreTarget,
        at: Timestamp,
        author: &'a Author,
    ) -> Result<RestoreOperation<'a>, StoreError> {
        let slot = &target.slot;
        let dependencies = match slot.parent {
            Ino(0) => Dependencies::default(),
            parent => {
                let ino = target.then.ino;
                self.tree.order_in(parent, &slot.name, ino).await?
            }
        };
        Ok(RestoreOperation {
            at,
            began: at,
            author,
            dependencies,
            kept: self.kept_before(slot, at).await?,
            progress: RestoreProgress::Whole,
        })
    }

    /// Plans, and refuses what cannot be restored now.
    async fn checked_plan(&self, target: &RestoreTarget) -> Result<RestorePlan, StoreError> {
        let unsaved: HashSet<Ino> = self
            .tree
            .inodes
            .dirty_inodes()
            .iter()
            .map(|inode| inode.ino)
            .collect();
        let plan = self.plan_restore(target).await?;
        let is_taken = !plan.directories.is_empty() || !plan.files.is_empty();
        if target.copies && is_taken {
            return Err(StoreError::Exists);
        }
        let busy = unsaved.iter().find_map(|ino| plan.files.get(ino));
        if let Some(slot) = busy {
            let name = self.path_below(target, slot).await?;
            return Err(StoreError::Busy(format!(
                "{name} has writes that are no version yet; close it first"
            )));
        }
        Ok(plan)
    }

    /// Fails while a directory is restored in steps: that keeps the turn of restores for long.
    pub(super) fn check_no_steps(&self) -> Result<(), StoreError> {
        match self.tree.under_restore.directory() {
            None => Ok(()),
            Some(_) => Err(StoreError::Busy(
                "the restore of a large directory is not done yet; try again when it is".to_owned(),
            )),
        }
    }

    /// Returns a path from the restored name on.
    pub(super) async fn path_below(
        &self,
        target: &RestoreTarget,
        slot: &Dentry,
    ) -> Result<String, StoreError> {
        let (mut names, mut at) = (Vec::new(), slot.clone());
        loop {
            names.push(shown(&at.name));
            let is_last = at == target.slot || at.parent == Ino(0);
            if is_last || names.len() == DIRECTORIES_ABOVE_MAX {
                break;
            }
            match self.view().where_now(at.parent).await? {
                Some(above) => at = above,
                None => break,
            }
        }
        names.retain(|name| !name.is_empty());
        names.reverse();
        Ok(names.join("/"))
    }
}

/// What retention keeps while a restore runs, as for a label.
fn pinned_by(target: &RestoreTarget) -> LabelPin {
    let directory = match target.then.kind {
        Kind::Directory => target.then.ino,
        // Its names then may have been anywhere.
        _ => ROOT,
    };
    LabelPin {
        timestamp: target.at,
        directory,
    }
}

fn parent_or_root(parent: Ino) -> Ino {
    match parent {
        Ino(0) => ROOT,
        parent => parent,
    }
}
