//! Programs that run from files: the kernel denies writing to such a file, and this room denies emptying it.
//!
//! The kernel checks most calls itself, before they come here. It does not check an open for reading with `O_TRUNC`: the open empties the
//! file, and only then does the kernel refuse it, and the program dies of its missing pages.
//! Invariants: a file has no program that runs and no truncation at the same time; the lock is a leaf lock.

use crate::fs::error::{FsError, FsResult};
use crate::store::Ino;
use crate::sync::{Arc, Mutex, lock};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Notify;

/// `__FMODE_EXEC` of the kernel: it opens a program that is about to run. No flag of open(2) has this bit.
pub(crate) const FOR_EXECUTION: i32 = 0x20;

/// How long a truncation waits for the release of a program: the kernel sends it before the end of the process is seen, and it may be
/// overtaken.
const RELEASE_WAIT: Duration = Duration::from_millis(100);

/// What is done with the files of programs now.
#[derive(Default)]
pub(crate) struct RunningPrograms {
    uses: Mutex<HashMap<Ino, FileUse>>,
    ended: Notify,
}

/// How a file is used, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileUse {
    Runs(usize),
    IsTruncated(usize),
}

/// A use of a file; it ends when it is dropped.
pub(crate) struct ProgramUse {
    programs: Arc<RunningPrograms>,
    ino: Ino,
}

impl RunningPrograms {
    /// Begins to run the program of a file. Waits for truncations that are being made.
    pub(crate) async fn run(self: &Arc<Self>, ino: Ino) -> ProgramUse {
        self.begin(ino, FileUse::Runs(1)).await
    }

    /// Begins an open that truncates a file, although it is not one for writing.
    ///
    /// # Errors
    /// `ProgramRuns` if the program of the file runs.
    pub(crate) async fn truncate(self: &Arc<Self>, ino: Ino) -> FsResult<ProgramUse> {
        let begun = tokio::time::timeout(RELEASE_WAIT, self.begin(ino, FileUse::IsTruncated(1)));
        begun.await.map_err(|_late| FsError::ProgramRuns)
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
            Self::Runs(count) | Self::IsTruncated(count) => count,
        }
    }

    fn times(self, count: usize) -> Self {
        match self {
            Self::Runs(_) => Self::Runs(count),
            Self::IsTruncated(_) => Self::IsTruncated(count),
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
    use crate::fs::testing::{ALICE, world};

    const FILE: Ino = Ino(7);

    #[tokio::test(start_paused = true)]
    async fn a_running_program_is_not_truncated_until_all_its_processes_end() {
        let programs = Arc::new(RunningPrograms::default());
        let first = programs.run(FILE).await;
        let second = programs.run(FILE).await;
        drop(first);
        let refused = programs.truncate(FILE).await;
        assert_eq!(refused.err(), Some(FsError::ProgramRuns));
        assert!(programs.truncate(Ino(8)).await.is_ok());
        drop(second);
        assert!(programs.truncate(FILE).await.is_ok());
        assert!(lock(&programs.uses).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_truncation_waits_a_little_for_a_program_that_has_just_ended() {
        let programs = Arc::new(RunningPrograms::default());
        let running = programs.run(FILE).await;
        let (truncation, ()) = tokio::join!(programs.truncate(FILE), async {
            tokio::time::sleep(RELEASE_WAIT / 2).await;
            drop(running);
        });
        assert!(truncation.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_begins_to_run_behind_a_truncation() {
        let programs = Arc::new(RunningPrograms::default());
        let truncation = programs.truncate(FILE).await.unwrap();
        let began = programs.run(FILE);
        let early = tokio::time::timeout(RELEASE_WAIT * 10, began).await;
        assert!(early.is_err());
        drop(truncation);
        programs.run(FILE).await;
    }

    #[tokio::test]
    async fn an_open_that_reads_and_truncates_leaves_a_running_program_as_it_is() {
        let world = world().await;
        let ino = world.save("program", "text").await;
        let run = libc::O_RDONLY | FOR_EXECUTION;
        let running = world.open(&ALICE, ino, run).await.unwrap().handle;
        let emptied = libc::O_RDONLY | libc::O_TRUNC;
        let refused = world.open(&ALICE, ino, emptied).await;
        assert_eq!(refused.err(), Some(FsError::ProgramRuns));
        assert_eq!(world.cat("program").await.unwrap(), "text");
        // For writing the kernel has asked itself whether the program runs; a late release refuses nothing.
        let written = libc::O_WRONLY | libc::O_TRUNC;
        let written = world.open(&ALICE, ino, written).await.unwrap().handle;
        world.close((ino, written)).await;
        world.release(ino, running).await.unwrap();
        world.save("program", "new").await;
        let opened = world.open(&ALICE, ino, emptied).await.unwrap().handle;
        assert_eq!(world.cat("program").await.unwrap(), "");
        world.close((ino, opened)).await;
        // Nothing is left of a truncation that is done.
        let again = world.open(&ALICE, ino, run).await.unwrap().handle;
        world.release(ino, again).await.unwrap();
    }
}
