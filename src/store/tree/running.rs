//! Programs that run from files: the kernel denies writing to such a file, and nothing else changes its bytes either.
//!
//! The kernel checks most calls itself, before they come here. It does not check an open for reading with `O_TRUNC`: the open empties the
//! file, and only then does the kernel refuse it, and the program dies of its missing pages. Nor does it know of restores.
//! Invariants: a file has no program that runs and no such change at the same time; the lock is a leaf lock.

use crate::store::model::version::Ino;
use crate::sync::{Arc, Mutex, lock};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a change waits for the release of a program: the kernel sends it before the end of the process is seen, and it may be
/// overtaken.
const RELEASE_WAIT: Duration = Duration::from_millis(100);

/// What is done with the files of programs now.
#[derive(Debug, Default)]
pub(crate) struct RunningPrograms {
    uses: Mutex<HashMap<Ino, FileUse>>,
    ended: Notify,
}

/// How a file is used, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileUse {
    Runs(usize),
    Changes(usize),
}

/// A use of a file; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct ProgramUse {
    programs: Arc<RunningPrograms>,
    ino: Ino,
}

impl RunningPrograms {
    /// Begins to run the program of a file. Waits for changes that are being made.
    pub(crate) async fn run(self: &Arc<Self>, ino: Ino) -> ProgramUse {
        self.begin(ino, FileUse::Runs(1)).await
    }

    /// Begins to change the bytes of a file without an open for writing; `None` if the program of the file runs.
    pub(crate) async fn change(self: &Arc<Self>, ino: Ino) -> Option<ProgramUse> {
        let begun = tokio::time::timeout(RELEASE_WAIT, self.begin(ino, FileUse::Changes(1)));
        begun.await.ok()
    }

    /// Tells whether the program of a file runs.
    pub(crate) fn runs(&self, ino: Ino) -> bool {
        matches!(lock(&self.uses).get(&ino), Some(FileUse::Runs(_)))
    }

    /// Returns the files whose programs run.
    pub(crate) fn running(&self) -> Vec<Ino> {
        let uses = lock(&self.uses);
        let running = uses
            .iter()
            .filter(|(_, now)| matches!(now, FileUse::Runs(_)));
        running.map(|(ino, _)| *ino).collect()
    }

    async fn begin(self: &Arc<Self>, ino: Ino, wanted: FileUse) -> ProgramUse {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.try_begin(ino, wanted) {
                let programs = Arc::clone(self);
                return ProgramUse { programs, ino };
            }
            ended.await;
        }
    }

    fn try_begin(&self, ino: Ino, wanted: FileUse) -> bool {
        let mut uses = lock(&self.uses);
        let now = uses.entry(ino).or_insert(wanted.times(0));
        let count = now.count() + 1;
        let is_free = *now == wanted.times(now.count());
        if is_free {
            *now = wanted.times(count);
        }
        is_free
    }
}

impl FileUse {
    fn count(self) -> usize {
        match self {
            Self::Runs(count) | Self::Changes(count) => count,
        }
    }

    fn times(self, count: usize) -> Self {
        match self {
            Self::Runs(_) => Self::Runs(count),
            Self::Changes(_) => Self::Changes(count),
        }
    }
}

impl Drop for ProgramUse {
    fn drop(&mut self) {
        let mut uses = lock(&self.programs.uses);
        let left = uses.get(&self.ino).map(|now| now.times(now.count() - 1));
        match left {
            Some(left) if left.count() > 0 => {
                uses.insert(self.ino, left);
            }
            Some(_) | None => {
                uses.remove(&self.ino);
            }
        }
        drop(uses);
        self.programs.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino(7);

    #[tokio::test(start_paused = true)]
    async fn a_running_program_is_not_changed_until_all_its_processes_end() {
        let programs = Arc::new(RunningPrograms::default());
        let first = programs.run(FILE).await;
        let second = programs.run(FILE).await;
        drop(first);
        assert!(programs.change(FILE).await.is_none());
        assert!(programs.runs(FILE) && programs.running() == [FILE]);
        assert!(programs.change(Ino(8)).await.is_some());
        drop(second);
        assert!(programs.change(FILE).await.is_some());
        assert!(!programs.runs(FILE));
        assert!(lock(&programs.uses).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_a_little_for_a_program_that_has_just_ended() {
        let programs = Arc::new(RunningPrograms::default());
        let running = programs.run(FILE).await;
        let (change, ()) = tokio::join!(programs.change(FILE), async {
            tokio::time::sleep(RELEASE_WAIT / 2).await;
            drop(running);
        });
        assert!(change.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_begins_to_run_behind_a_change() {
        let programs = Arc::new(RunningPrograms::default());
        let change = programs.change(FILE).await.unwrap();
        let began = programs.run(FILE);
        let early = tokio::time::timeout(RELEASE_WAIT * 10, began).await;
        assert!(early.is_err());
        drop(change);
        programs.run(FILE).await;
    }
}
