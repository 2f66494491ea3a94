//! The turn of restores and of undeletes of directories, and what belongs to the restore in steps that runs.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{mpsc, oneshot};

use crate::store::model::tree_changes::TreeChanges;
use crate::store::model::version::Timestamp;
use crate::store::schema::label_keys::LabelPoint;
use crate::sync::{Mutex, lock};

/// Serialises undeletes of directories and restores: two concurrent ones could restore a directory under the same inode number.
#[derive(Debug)]
pub(crate) struct RestoreLock {
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Largest number of entries that are restored in one batch.
    pub(crate) entries_max: AtomicUsize,
    /// Number of changes from which on a step of a restore is full.
    pub(crate) step_max: AtomicUsize,
    /// What retention keeps for the restore that runs, as for a label.
    pinned: Mutex<Option<PinnedTime>>,
    /// The restore that this process has completed for an earlier one.
    pub(super) completed: Mutex<Option<CompletedRestore>>,
    /// The mount that follows the steps.
    pub(super) mount: Mutex<Option<mpsc::Sender<RestoredStep>>>,
    /// How many steps are made before a test halts the restore.
    #[cfg(test)]
    pub(crate) halt_after: AtomicUsize,
}

/// A restore in steps that an earlier process began and this one has completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedRestore {
    /// The path of the directory, from the root directory on.
    pub path: String,
    /// The time whose state it has.
    pub at: Timestamp,
    /// The number of changes, those of the earlier process included.
    pub changes: u64,
    /// The paths that stay as they are, because what they showed was forgotten, or their policy does not keep it.
    pub left: Vec<String>,
}

/// Whether retention has read what is pinned, and may file versions under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PinReads {
    None,
    Some,
}

/// A time that retention keeps whole for a restore.
#[derive(Debug)]
struct PinnedTime {
    point: LabelPoint,
    reads: PinReads,
}

/// What a step of a restore changed. The restore waits until the mount has followed it.
#[derive(Debug)]
pub struct RestoredStep {
    /// What changed in the live tree.
    pub changes: TreeChanges,
    /// Told when the mount shows it.
    pub followed: oneshot::Sender<()>,
}

/// Default of `RestoreLock::entries_max`; only tests set another value.
const ENTRIES_MAX: usize = 100_000;
/// Default of `RestoreLock::step_max`.
const STEP_MAX: usize = 10_000;

impl Default for RestoreLock {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::new(()),
            entries_max: ENTRIES_MAX.into(),
            step_max: STEP_MAX.into(),
            pinned: Mutex::default(),
            completed: Mutex::default(),
            mount: Mutex::default(),
            #[cfg(test)]
            halt_after: usize::MAX.into(),
        }
    }
}

impl RestoreLock {
    pub(super) fn pin(&self, point: LabelPoint) {
        let reads = PinReads::None;
        *lock(&self.pinned) = Some(PinnedTime { point, reads });
    }

    /// Ends what `pin` began. Returns it if retention may have filed versions under it.
    pub(super) fn unpin(&self) -> Option<LabelPoint> {
        let pinned = lock(&self.pinned).take();
        let pinned = pinned.filter(|pinned| pinned.reads == PinReads::Some);
        pinned.map(|pinned| pinned.point)
    }

    /// Returns what is pinned in `span`, for retention.
    pub(crate) fn pinned_within(&self, span: &Range<Timestamp>) -> Option<LabelPoint> {
        let mut pinned = lock(&self.pinned);
        let pinned = pinned.as_mut();
        let pinned = pinned.filter(|pinned| span.contains(&pinned.point.timestamp))?;
        pinned.reads = PinReads::Some;
        Some(pinned.point.clone())
    }

    pub(crate) fn pinned(&self) -> Option<LabelPoint> {
        let pinned = lock(&self.pinned);
        pinned.as_ref().map(|pinned| pinned.point.clone())
    }

    /// Returns what the steps of restores change from now on.
    pub(crate) fn follow(&self) -> mpsc::Receiver<RestoredStep> {
        let (mount, steps) = mpsc::channel(1);
        *lock(&self.mount) = Some(mount);
        steps
    }

    /// Stops after as many steps as a test has set, until the namespace stops.
    #[cfg(test)]
    pub(super) async fn halt(
        &self,
        tasks: &crate::task::Tasks,
    ) -> Result<(), crate::store::model::error::StoreError> {
        use std::sync::atomic::Ordering;
        let left = self.halt_after.load(Ordering::SeqCst);
        if left == usize::MAX {
            return Ok(());
        }
        if left <= 1 {
            self.halt_after.store(0, Ordering::SeqCst);
            tasks.stopped().await;
            return Err(crate::store::model::error::StoreError::Closed);
        }
        self.halt_after.store(left - 1, Ordering::SeqCst);
        Ok(())
    }
}
