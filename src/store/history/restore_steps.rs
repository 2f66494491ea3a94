//! A restore in steps, for trees with more changes than one operation takes.
//!
//! The path of its data: *begin* refuses every other change at and below the directory (`UnderRestore`), waits for those that run, and
//! queues one operation with the row `C R`, the label of the state before (`restore_before.rs`) and the attributes of the directory itself.
//! Then step after step: plan the next changes without locks (`restore_step_plan.rs`); take the gate if a directory moves or goes; lock
//! what changes, in ascending order; read the changed names again; queue one operation with the changes and the `C R` of the place that
//! the walk has come to; wait until it is committed, without locks. The last operation deletes the `C R`.
//!
//! Every operation touches the `C R`, so they are committed in their order. A crash between two leaves the row and all steps up to it:
//! the next mount of a writer refuses changes from before its first request on, and its task `restore` goes on where the row says. The
//! restored time is kept meanwhile as a label's would be (`RestorePin`).
//!
//! Invariant: memory holds one step of changes and a page of names for each directory on the way down.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::store::commit::operation::Operation;
use crate::store::history::History;
use crate::store::history::restore_before::KeptBefore;
use crate::store::history::restore_lock::{CompletedRestore, RestoredStep};
use crate::store::history::restore_plan::{
    LiveName, MadeName, RestorePlan, RestoreTarget, is_directory, shown,
};
use crate::store::history::restore_progress::{
    MadeTree, RestoreOperation, RestoreProgress, Restored,
};
use crate::store::history::restore_step_plan::StepPlan;
use crate::store::history::restore_tree::DirectoryNumber;
use crate::store::history::restore_walk::{RestoreWalk, top_frame};
use crate::store::model::error::StoreError;
use crate::store::model::ids::{DIRECTORIES_ABOVE_MAX, Dentry};
use crate::store::model::tree_changes::TreeChanges;
use crate::store::model::version::{Author, Ino, Kind, ROOT};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::restore_rows::{RestorePhase, SteppedRestoreRow};
use crate::store::schema::rows::LabelPin;
use crate::store::schema::tables::{RowTable, SteppedRestoreTable};
use crate::store::tree::locked::LockedInode;
use crate::sync::{Arc, lock};

/// Pause after a step that failed, and between two looks at a drain.
const PAUSE: Duration = Duration::from_millis(100);

impl History {
    /// Tells whether a restore may be made in steps: of a directory that exists.
    pub(super) async fn may_step(&self, target: &RestoreTarget) -> Result<bool, StoreError> {
        if target.copies || target.then.kind != Kind::Directory {
            return Ok(false);
        }
        let slot = &target.slot;
        let live = self.tree.entry(slot.parent, &slot.name).await?;
        Ok(live.is_some_and(|row| is_directory(&row)))
    }

    /// Tells whether a tree has more than `most` names, those of now and those of then counted. Reads page by page.
    pub(super) async fn has_more_names(
        &self,
        target: &RestoreTarget,
        most: usize,
    ) -> Result<bool, StoreError> {
        let slot = &target.slot;
        let Some(row) = self.tree.entry(slot.parent, &slot.name).await? else {
            return Ok(false);
        };
        let phases = [RestorePhase::Place, RestorePhase::Remove];
        let mut count = 0;
        for phase in phases {
            let mut walk = RestoreWalk::new(row.ino, begin_row(target, row.ino));
            walk.begin(phase);
            while let Some(frame) = walk.frame() {
                let view = self.view();
                let below = match phase {
                    RestorePhase::Remove => walk.next_live(&view).await?.map(|name| {
                        let directory = is_directory(&name.row).then_some(name.row.ino);
                        (name.slot.name, directory)
                    }),
                    _ => walk.next_then(&view).await?.map(|then| {
                        let directory = then.entry.kind == Kind::Directory;
                        (then.name, directory.then_some(then.entry.ino))
                    }),
                };
                let Some((name, directory)) = below else {
                    walk.leave();
                    continue;
                };
                count += 1;
                if count > most {
                    return Ok(true);
                }
                walk.seen(name);
                if let Some(directory) = directory {
                    walk.enter(frame.former.map(|_| directory), directory, None);
                }
            }
        }
        Ok(false)
    }

    /// Restores a directory in steps. The caller has the turn of restores and the pin of the restored time.
    pub(super) async fn restore_in_steps(
        &self,
        target: &RestoreTarget,
        author: &Author,
    ) -> Result<MadeTree, StoreError> {
        let slot = &target.slot;
        let Some(row) = self.tree.entry(slot.parent, &slot.name).await? else {
            return Err(StoreError::NotFound);
        };
        let directory = row.ino;
        self.tree.begin_restored(directory).await;
        let begun = match self.check_unused(target, directory).await {
            Ok(()) => self.begin_steps(target, directory, author).await,
            Err(error) => Err(error),
        };
        let (made, row) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.tree.under_restore.clear();
                return Err(error);
            }
        };
        let began = row.began;
        self.tell(made.restored.changes).await;
        let walk = self.run_steps(RestoreWalk::new(directory, row)).await?;
        let unchanged = MadeTree::unchanged(walk.left.into_iter().collect());
        Ok(MadeTree {
            restored: Restored {
                at: Some(began),
                count: usize::try_from(walk.row.count).unwrap_or(usize::MAX),
                ..unchanged.restored
            },
            ..unchanged
        })
    }

    /// Returns what the steps of restores change from now on; each restore waits until a step is followed.
    pub fn follow_restores(&self) -> mpsc::Receiver<RestoredStep> {
        self.restore_lock.follow()
    }

    /// Finds a restore that an earlier process has begun, and refuses changes until the task that goes on with it is done.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn resume_restore(self: &Arc<Self>) -> Result<(), StoreError> {
        let (from, end) = (
            SteppedRestoreTable::all(),
            keys::after(&SteppedRestoreTable::PREFIX),
        );
        let Some((key, value)) = self.core.index.first(from, end).await? else {
            return Ok(());
        };
        let row = SteppedRestoreTable::decode(&value)?;
        let Some(directory) = keys::trailing_ino(&key) else {
            return Err(StoreError::Corrupt("C R key: no inode".to_owned()));
        };
        let pin = self.pin_resumed(LabelPin {
            timestamp: row.at,
            directory: row.former,
        });
        self.tree.under_restore.set(directory);
        let history = Arc::clone(self);
        let task = async move {
            let _turn = history.restore_lock.turn.lock().await;
            let walk = history.run_steps(RestoreWalk::new(directory, row)).await;
            drop(pin);
            match walk {
                Ok(walk) => history.completed(walk).await,
                Err(error) => {
                    tracing::debug!(%error, "the next mount goes on with the restore");
                }
            }
        };
        drop(self.core.tasks.spawn("restore", task));
        Ok(())
    }
}

impl History {
    /// Returns the restore in steps that an earlier process began and this one has completed; `None` if there was none.
    pub fn completed_restore(&self) -> Option<CompletedRestore> {
        lock(&self.restore_lock.completed).clone()
    }

    /// Tells that a restore is done whose caller is gone.
    async fn completed(&self, walk: RestoreWalk) {
        let mut left = Vec::new();
        for Dentry { parent, name } in walk.left {
            let above = self.path_now(parent).await;
            left.push(format!("{}/{}", above.trim_end_matches('/'), shown(&name)));
        }
        let done = CompletedRestore {
            path: self.path_now(walk.directory).await,
            at: walk.row.at,
            changes: walk.row.count,
            left,
        };
        tracing::info!(
            path = done.path,
            changes = done.changes,
            left = ?done.left,
            "completed a restore that an earlier mount began; what is left stays as it is, because what it showed was forgotten, or its policy does not keep it"
        );
        *lock(&self.restore_lock.completed) = Some(done);
    }

    /// Returns the path of a directory for messages, from the root directory on; without what cannot be read.
    async fn path_now(&self, directory: Ino) -> String {
        let (mut names, mut at) = (Vec::new(), directory);
        while at != ROOT && names.len() < DIRECTORIES_ABOVE_MAX {
            match self.view().where_now(at).await {
                Ok(Some(place)) => {
                    names.push(shown(&place.name));
                    at = place.parent;
                }
                Ok(None) | Err(_) => break,
            }
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }
}

/// The row of a restore that begins.
fn begin_row(target: &RestoreTarget, directory: Ino) -> SteppedRestoreRow {
    SteppedRestoreRow {
        former: target.then.ino,
        at: target.at,
        began: target.at,
        keeps_new: target.keeps_new,
        author: Author::default(),
        phase: RestorePhase::Place,
        has_links: false,
        walk: vec![top_frame(directory, target.then.ino)],
        count: 0,
        left: Vec::new(),
    }
}

impl History {
    /// Fails if a file below cannot be restored now.
    async fn check_unused(&self, target: &RestoreTarget, directory: Ino) -> Result<(), StoreError> {
        self.check_saved(target, directory).await?;
        self.check_no_program(target, directory).await
    }

    /// Fails if a file below has writes that are no version yet.
    async fn check_saved(&self, target: &RestoreTarget, directory: Ino) -> Result<(), StoreError> {
        for inode in self.tree.inodes.dirty_inodes() {
            if !self.tree.is_at_or_below(inode.ino, directory).await? {
                continue;
            }
            let place = self.core.index.row(&keys::place(inode.ino)).await?;
            let name = match place {
                Some(place) => {
                    let slot = Dentry::new(place.directory, place.name);
                    self.path_below(target, &slot).await?
                }
                None => format!("inode {}", inode.ino.0),
            };
            return Err(StoreError::Busy(format!(
                "{name} has writes that are no version yet; close it first"
            )));
        }
        Ok(())
    }

    /// Queues the first operation: the intent, the label of the state before, and the attributes of the directory itself.
    async fn begin_steps(
        &self,
        target: &RestoreTarget,
        directory: Ino,
        author: &Author,
    ) -> Result<(MadeTree, SteppedRestoreRow), StoreError> {
        let slot = &target.slot;
        let mut locked = self.tree.lock_all(&[directory]).await?;
        let row = self.tree.entry(slot.parent, &slot.name).await?;
        let row = row
            .filter(|row| row.ino == directory)
            .ok_or(StoreError::NotFound)?;
        let mut plan = RestorePlan::default();
        let itself = LiveName {
            slot: slot.clone(),
            row,
        };
        let then = MadeName {
            slot: slot.clone(),
            origin: None,
            entry: target.then.clone(),
            number: Some(DirectoryNumber {
                ino: directory,
                generation: 0,
            }),
        };
        plan.place_directory(&itself, then);
        plan.directories.insert(directory);
        let mut dependencies = match slot.parent {
            Ino(0) => Dependencies::default(),
            parent => self.tree.order_in(parent, &slot.name, directory).await?,
        };
        dependencies.touches.push(keys::inode(directory).bytes());
        let answer = self.core.clock.begin();
        let at = answer.at();
        let kept = self.kept_before(slot, at).await?;
        let row = SteppedRestoreRow {
            began: at,
            author: author.clone(),
            count: plan.len() as u64,
            ..begin_row(target, directory)
        };
        let operation = RestoreOperation {
            at,
            began: at,
            author,
            dependencies,
            kept,
            progress: RestoreProgress::At(directory, Box::new(row.clone())),
        };
        let made = self.restore_rows(&mut locked, operation, plan)?;
        Ok((made, row))
    }

    /// Makes the steps that are left; returns the walk at its end. A step that fails is tried again until the namespace stops.
    async fn run_steps(&self, mut walk: RestoreWalk) -> Result<RestoreWalk, StoreError> {
        let (directory, mut row) = (walk.directory, walk.row.clone());
        let mut is_noted = false;
        loop {
            self.core.health.check()?;
            if self.core.tasks.is_stopped() {
                return Err(StoreError::Closed);
            }
            // Calls that wait for the bucket come first.
            if self.core.health.is_draining() {
                self.core.sleep(PAUSE).await;
                continue;
            }
            match self.step(&mut walk).await {
                Ok(true) => break,
                Ok(false) => row = walk.here(),
                Err(error) => {
                    let is_quiet = matches!(
                        error,
                        StoreError::Busy(_) | StoreError::ProgramRuns(_) | StoreError::Closed
                    );
                    if !is_quiet && !is_noted {
                        is_noted = true;
                        self.core.health.note(format!(
                            "the restore of directory {} waits: {error}",
                            directory.0
                        ));
                    }
                    self.core.sleep(PAUSE).await;
                    let left = std::mem::take(&mut walk.left);
                    walk = RestoreWalk::new(directory, row.clone());
                    walk.left = left;
                }
            }
        }
        self.tree.under_restore.clear();
        Ok(walk)
    }

    /// Makes the next step; `true` after the last.
    async fn step(&self, walk: &mut RestoreWalk) -> Result<bool, StoreError> {
        let most = self.restore_lock.step_max.load(Ordering::Relaxed);
        let mut step = StepPlan::default();
        loop {
            match walk.row.phase {
                RestorePhase::Place => self.plan_places(walk, &mut step, most).await?,
                RestorePhase::Link => self.plan_links(walk, &mut step, most).await?,
                RestorePhase::Remove => self.plan_removals(walk, &mut step, most).await?,
            }
            // The next phase sees what the steps before it did.
            if step.plan.len() > 0 {
                break;
            }
            match walk.row.phase {
                _ if walk.frame().is_some() => break,
                RestorePhase::Place if walk.row.has_links => walk.begin(RestorePhase::Link),
                RestorePhase::Place | RestorePhase::Link => walk.begin(RestorePhase::Remove),
                RestorePhase::Remove => break,
            }
        }
        let is_last = walk.row.phase == RestorePhase::Remove && walk.frame().is_none();
        step.count_made();
        walk.row.count += step.plan.len() as u64;
        let progress = match is_last {
            true => RestoreProgress::Done(
                walk.directory,
                LabelPin {
                    timestamp: walk.row.at,
                    directory: walk.row.former,
                },
            ),
            false => RestoreProgress::At(walk.directory, Box::new(walk.here())),
        };
        let made = self.queue_step(walk, step.plan, progress).await?;
        for directory in &made.directories {
            self.tree.inodes.revive(*directory).await;
        }
        self.tell(made.restored.changes).await;
        if let Some(operation) = &made.operation {
            self.wait_committed(operation).await?;
        }
        #[cfg(test)]
        self.restore_lock.halt(&self.core.tasks).await?;
        Ok(is_last)
    }

    /// Queues the operation of a step.
    async fn queue_step(
        &self,
        walk: &RestoreWalk,
        mut plan: RestorePlan,
        progress: RestoreProgress,
    ) -> Result<MadeTree, StoreError> {
        self.tree.room_for_names().await;
        let mut ended = plan.ended.iter();
        let moves = !plan.moved.is_empty() || ended.any(|ended| is_directory(&ended.name.row));
        let _gate = match moves {
            true => Some(self.tree.renames.lock().await),
            false => None,
        };
        // The next plan sees the program that has begun to run.
        let _files = self
            .begin_rewriting(&plan)
            .await
            .map_err(|slot| StoreError::ProgramRuns(shown(&slot.name)))?;
        let wanted: Vec<Ino> = plan.inodes(Ino(0)).into_iter().collect();
        let mut locked: Vec<LockedInode> = self.tree.lock_all(&wanted).await?;
        self.read_again(&mut plan).await?;
        let dependencies = Dependencies {
            touches: vec![keys::inode(walk.directory).bytes()],
            below: self.tree.ancestors(walk.directory).await?,
            ..Dependencies::default()
        };
        let answer = self.core.clock.begin();
        let operation = RestoreOperation {
            at: answer.at(),
            began: walk.row.began,
            author: &walk.row.author,
            dependencies,
            kept: KeptBefore::Nothing,
            progress,
        };
        self.restore_rows(&mut locked, operation, plan)
    }

    /// Reads the names that change again, under the locks: retention may have changed their rows.
    async fn read_again(&self, plan: &mut RestorePlan) -> Result<(), StoreError> {
        let ended = plan.ended.iter_mut().map(|ended| &mut ended.name);
        let moved = plan.moved.iter_mut().map(|moved| &mut moved.from);
        let states = plan.states.iter_mut().chain(&mut plan.attributes);
        let names = states.map(|changed| &mut changed.name);
        for name in ended.chain(moved).chain(names) {
            let slot = &name.slot;
            let row = self.tree.entry(slot.parent, &slot.name).await?;
            let row = row.filter(|row| row.ino == name.row.ino);
            name.row = row.ok_or(StoreError::Stale)?;
        }
        Ok(())
    }

    /// Waits until the index has an operation: the rows of the steps before are not in memory then.
    async fn wait_committed(&self, operation: &Operation) -> Result<(), StoreError> {
        let mut stage = operation.stage();
        loop {
            if operation.is_committed() {
                return Ok(());
            }
            self.core.health.check()?;
            tokio::select! {
                _ = stage.changed() => {}
                () = self.core.tasks.stopped() => return Err(StoreError::Closed),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Tells a mount what a step changed, and waits until its kernel knows.
    async fn tell(&self, changes: TreeChanges) {
        let Some(mount) = lock(&self.restore_lock.mount).clone() else {
            return;
        };
        let (followed, wait) = oneshot::channel();
        if mount.send(RestoredStep { changes, followed }).await.is_ok() {
            wait.await.ok();
        }
    }
}
