//! A crash after every single change that a day's work makes in the bucket.
//!
//! The objects that a day writes and deletes are recorded in their order, and after each the cache directory is copied: segments, the
//! rows of commits, objects of the log, of its checkpoint and of the index, and what is deleted of all these. Each state that the bucket
//! had is then mounted, with the cache of that moment and without one.

use super::past::Past;
use super::walk::{Walk, open};
use super::work::Work;
use super::*;
use crate::backend::tests::recorded::{ObjectChange, Recording};
use crate::env::Env;
use crate::store::model::failpoints::Failpoint;
use crate::store::tests::rng::number;
use crate::sync::{Mutex, lock};
use std::path::Path;

const WORK: Work = Work {
    directories: 8,
    names: 5,
    days: 48,
    steps: 14,
    policies: true,
    limits: true,
    trees: true,
    crashes: u32::MAX,
    recounts: 1,
    part_bytes: 4 << 10,
    fault: None,
};

/// What a day did in the bucket.
struct Recorded {
    /// The bucket before it.
    bucket: TestCluster,
    changes: Vec<ObjectChange>,
    /// The cache directory before the first change, and after each.
    caches: Vec<tempfile::TempDir>,
    /// How many changes there were when all that was acknowledged was in the bucket.
    drained: usize,
    /// The model before the run, and the policy to which `history-max` had shortened that of the namespace.
    past: Past,
    before: Option<Policy>,
}

/// The machine's part of what a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    Kept,
    Lost,
}

/// Copies a directory in which a journal is written.
fn copied(from: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).into_iter().flatten() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                std::fs::create_dir_all(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                // It may be deleted meanwhile.
                let _copied = std::fs::copy(entry.path(), to);
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy(from, to.path());
    to
}

/// How many objects a day wrote and deleted, by the first part of their keys.
#[derive(Debug, Default)]
struct Counted(std::collections::BTreeMap<String, [usize; 2]>);

impl Counted {
    fn add(&mut self, changes: &[ObjectChange]) {
        for change in changes {
            let part = change.key.split('/').nth(1).unwrap_or_default();
            let counts = self.0.entry(part.to_owned()).or_default();
            counts[usize::from(change.bytes.is_none())] += 1;
        }
    }
}

impl Walk {
    /// The day's last operations, which only the journal has, then a run, garbage collection and a checkpoint of the log, all recorded.
    async fn record(&mut self, recording: &Recording) -> Recorded {
        self.ns.drain().await.unwrap();
        let _none = recording.begin(|| {});
        let bucket = self.cluster.fork().await;
        set_failpoint(&self.ns, Some(Failpoint::Pack));
        for _ in 0..5 {
            self.file_step().await;
        }
        let cache = self.cluster.cache.path().to_owned();
        let caches = Arc::new(Mutex::new(vec![copied(&cache)]));
        let kept = Arc::clone(&caches);
        // What the index did by itself since the copy.
        let since = recording.begin(move || lock(&kept).push(copied(&cache)));
        for change in &since {
            change.apply(&bucket.backend).await;
        }
        set_failpoint(&self.ns, None);
        self.ns.drain().await.unwrap();
        let drained = lock(&caches).len() - 1;
        let (now, before) = (self.cluster.env.now(), self.cap().await);
        let report = self.ns.retention.run(CONFIRMED).await.unwrap();
        self.ns.drain().await.unwrap();
        self.ns.gc.reclaim().await.unwrap();
        self.ns.gc.checkpoint().await.unwrap();
        self.ns.drain().await.unwrap();
        let changes = recording.end();
        let caches = std::mem::take(&mut *lock(&caches));
        assert_eq!(caches.len(), changes.len() + 1);
        let past = self.past.clone();
        self.has_run(now, before.as_ref(), &report).await;
        Recorded {
            bucket,
            changes,
            caches,
            drained,
            past,
            before,
        }
    }

    /// Mounts what a crash left, checks it, runs again, and compares everything with the model.
    async fn resume(&self, left: TestCluster, recorded: &Recorded) {
        let before = recorded.before.as_ref();
        let ns = open(&left, self.work).await;
        let mut after = self.beside(left, ns, recorded.past.clone());
        after.ns.drain().await.unwrap();
        after.check().await;
        let now = after.cluster.env.now();
        if before.is_some() && after.cap().await.as_ref() != before {
            after.past.run(now, [before, None]);
        }
        after.prune().await;
        amounts::assert_recounted(&after.ns).await;
        // Every directory as it is now, with the bytes of all files.
        let (view, now) = (after.ns.history.view(), after.ns.now());
        for directory in after.directories.clone() {
            after.compare_time(&view, directory, now).await;
        }
        leave(after.ns).await;
    }

    /// What the command `check` says.
    async fn check(&self) {
        let config = CheckConfig::default();
        let report = check_log(&self.cluster.backend, "default", &config, |_| {}).await;
        let report = report.unwrap();
        assert!(report.is_sound() && report.rows > 0, "{report:#?}");
    }

    /// Mounts a bucket that lacks acknowledged operations, because the machine is lost, and checks it.
    async fn check_without_cache(&self, left: TestCluster) {
        let ns = open(&left, self.work).await;
        let after = self.beside(left, ns, Past::default());
        after.ns.drain().await.unwrap();
        after.check().await;
        after.ns.retention.run(CONFIRMED).await.unwrap();
        amounts::assert_recounted(&after.ns).await;
        leave(after.ns).await;
    }
}

/// Crashes after each of a day's changes. Returns how many there were.
async fn crash_everywhere(walk: &mut Walk, recording: &Recording, counted: &mut Counted) -> usize {
    let recorded = walk.record(recording).await;
    counted.add(&recorded.changes);
    for (number, cache) in recorded.caches.iter().enumerate() {
        let change = number.checked_sub(1).map(|last| &recorded.changes[last]);
        if let Some(change) = change {
            change.apply(&recorded.bucket.backend).await;
        }
        let what = change.map(|change| (&change.key, change.bytes.is_some()));
        for lost in [Cache::Kept, Cache::Lost] {
            let _context = PanicContext(format!("change {number}, {what:?}, cache {lost:?}"));
            let mut left = recorded.bucket.fork().await;
            left.wipe();
            match lost {
                Cache::Kept => left.cache = copied(cache.path()),
                Cache::Lost if number < recorded.drained => {
                    walk.check_without_cache(left).await;
                    continue;
                }
                Cache::Lost => {}
            }
            walk.resume(left, &recorded).await;
        }
    }
    recorded.changes.len()
}

/// Every change of the bucket on some days of a short walk.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_behind_any_change_of_the_bucket_a_run_leaves_what_the_policy_keeps() {
    let seeds = number("REWINDFS_TEST_SEEDS").unwrap_or(1);
    let first = number("REWINDFS_TEST_SEED").unwrap_or(1);
    let usual = if std::env::var_os("REWINDFS_TEST_LONG").is_some() {
        12
    } else {
        24
    };
    let every = number("REWINDFS_TEST_CRASH_DAYS").unwrap_or(usual) as u32;
    for seed in first..first + seeds {
        let _context = PanicContext(format!("seed {seed}"));
        let recording = Recording::default();
        let cluster = TestCluster {
            backend: recording.bucket(),
            ..TestCluster::new("crash-points")
        };
        let mut walk = Walk::on(cluster, seed, WORK).await;
        let (mut counted, mut points, begun) =
            (Counted::default(), Vec::new(), tokio::time::Instant::now());
        for day in 1..=WORK.days {
            let _context = PanicContext(format!("day {day}"));
            walk.day().await;
            if day % every == 0 {
                points.push(crash_everywhere(&mut walk, &recording, &mut counted).await);
            } else {
                walk.prune().await;
                walk.ns.gc.reclaim().await.unwrap();
            }
        }
        println!("{points:?} changes in {:?}: {counted:?}", begun.elapsed());
        for part in ["data", "log", "meta"] {
            assert_ne!(counted.0[part][0], 0, "{part}: {counted:?}");
        }
        assert_ne!(counted.0["data"][1], 0, "{counted:?}");
        assert_ne!(counted.0["log"][1], 0, "{counted:?}");
        leave(walk.ns).await;
    }
}
