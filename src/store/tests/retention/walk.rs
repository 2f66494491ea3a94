//! Random work of many days, pruned each day and compared with the model after each run, and again after crashes.

use super::past::Past;
use super::words::DAY;
use super::work::{LIMITS, Work};
use super::*;
use crate::env::Env;
use crate::store::model::failpoints::Failpoint;
use crate::store::tests::labels::mkdir;
use crate::store::tests::rng::{SeededRng, number};

pub(super) struct Walk {
    pub(super) cluster: TestCluster,
    pub(super) ns: Namespace,
    pub(super) rng: SeededRng,
    pub(super) past: Past,
    pub(super) directories: Vec<Ino>,
    pub(super) work: Work,
    pub(super) saved: u32,
    pub(super) seen: Seen,
}

/// What a walk has met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Directories at a time at which they were shown whole.
    pub(super) exact: u32,
    /// Directories at a time at which their policies left nothing.
    pub(super) cut_off: u32,
    /// Directories that were removed.
    pub(super) removed: u32,
    /// Directories that were undeleted.
    pub(super) undeleted: u32,
    /// Versions that were held.
    pub(super) held: u32,
}

impl Walk {
    /// Makes the directories of a walk in an empty namespace.
    pub(super) async fn on(cluster: TestCluster, seed: u64, work: Work) -> Self {
        let ns = open(&cluster, work).await;
        let mut walk = Self {
            cluster,
            ns,
            rng: SeededRng(seed),
            past: Past::default(),
            directories: vec![ROOT],
            work,
            saved: 0,
            seen: Seen::default(),
        };
        while walk.directories.len() < work.directories {
            let at = walk.free_folder();
            let made = mkdir(&walk.ns, Ino(at.0), at.1.as_bytes()).await;
            let start = walk.began(&at).await;
            walk.past.make_directory(&at, made.0, start);
            walk.directories.push(made);
        }
        if work.limits {
            // While any directory has a policy, the places of all are kept; this one has it to the end.
            walk.limit(walk.directories[1], Some(LIMITS[4])).await;
        }
        walk.plant();
        walk
    }

    fn plant(&self) {
        if let Some(fault) = self.work.fault {
            self.ns.core.health.failpoints.plant(fault);
        }
    }

    /// Prunes, and compares rows, lists, bytes and times with the model.
    pub(super) async fn prune(&mut self) {
        self.ns.drain().await.unwrap();
        let (now, before) = (self.cluster.env.now(), self.cap().await);
        let report = self.ns.retention.run(CONFIRMED).await.unwrap();
        self.has_run(now, before.as_ref(), &report).await;
    }

    /// The namespace has run at `now`, when `history-max` had shortened the policy to `before`.
    pub(super) async fn has_run(
        &mut self,
        now: u64,
        before: Option<&Policy>,
        report: &RetentionReport,
    ) {
        let after = self.cap().await;
        self.past.run(now, [before, after.as_ref()]);
        if let Some(after) = after.filter(|after| before != Some(after)) {
            let (words, capped) = (self.past.words, self.past.words.capped(&after));
            assert!(words.may_become(&capped), "{words:?} became {capped:?}");
        }
        self.compare_rows(report).await;
    }

    /// The steps of a day.
    pub(super) async fn day(&mut self) {
        if self.work.policies && self.rng.below(20) == 0 {
            self.set_policy().await;
        }
        for _ in 0..self.work.steps {
            self.step().await;
        }
        let rest = self.rng.below(DAY as usize / 4) as u64;
        self.cluster.env.advance(rest);
    }

    /// The same walk on what a crash left.
    pub(super) fn beside(&self, cluster: TestCluster, ns: Namespace, past: Past) -> Self {
        Self {
            cluster,
            ns,
            rng: SeededRng(self.rng.0),
            past,
            directories: self.directories.clone(),
            work: self.work,
            saved: self.saved,
            seen: self.seen,
        }
    }

    /// The policy to which `history-max` has shortened the one that was set.
    pub(super) async fn cap(&self) -> Option<Policy> {
        let cap = self.ns.retention.cap().await.unwrap();
        cap.map(|cap| cap.policy)
    }

    async fn compare_rows(&self, report: &RetentionReport) {
        self.ns.drain().await.unwrap();
        let expected = self.past.kept();
        let found = recorded(&self.ns).await;
        let lost: Vec<_> = expected.difference(&found).collect();
        let left: Vec<_> = found.difference(&expected).collect();
        assert!(
            lost.is_empty() && left.is_empty(),
            "lost {lost:?}, left {left:?}, dropped {:?}, kept {:?}",
            report.dropped,
            report.kept
        );
        linked::compare(&self.ns, &self.past).await;
    }

    /// Begins a run, garbage collection and a checkpoint of the log, halts the pipeline before a step or not, crashes at some time, and mounts again, half of
    /// the times from the bucket alone. The moment depends on the machine, not on the seed.
    async fn cut(mut self) -> Self {
        self.ns.drain().await.unwrap();
        let step = [
            None,
            Some(Failpoint::Upload),
            Some(Failpoint::Commit),
            Some(Failpoint::Flush),
            Some(Failpoint::Log),
        ];
        set_failpoint(&self.ns, step[self.rng.below(step.len())]);
        let (now, before) = (self.cluster.env.now(), self.cap().await);
        let ns = self.ns.clone();
        let work = async {
            let _report = ns.retention.run(CONFIRMED).await;
            let _outcome = ns.gc.reclaim().await;
            let _is_done = ns.gc.checkpoint().await;
        };
        let time = Duration::from_micros(self.rng.below(20_000) as u64);
        let _ended = tokio::time::timeout(time, work).await;
        drop(ns);
        self.cluster = self.cluster.kill(self.ns).await;
        if self.rng.below(2) == 0 {
            self.cluster.wipe();
        }
        self.ns = open(&self.cluster, self.work).await;
        self.plant();
        if before.is_some() && self.cap().await != before {
            // The run has dropped what was due, and then ended or shortened the policy of `history-max`.
            self.past.run(now, [before.as_ref(), None]);
        }
        self
    }
}

/// Mounts with small limits, so that the log gets checkpoints.
pub(super) async fn open(cluster: &TestCluster, work: Work) -> Namespace {
    let limits = CheckpointLimits {
        min_bytes: 1 << 20,
        part_bytes: work.part_bytes,
        ..CheckpointLimits::default()
    };
    cluster.open_with(limits).await
}

pub(super) async fn walk(seed: u64, work: Work) {
    let _context = PanicContext(format!("seed {seed}"));
    let mut walk = Walk::on(TestCluster::new("retention-walk"), seed, work).await;
    for day in 1..=work.days {
        walk.day().await;
        if day % work.crashes == 0 {
            walk = walk.cut().await;
        }
        walk.prune().await;
        if day % work.recounts == 0 {
            amounts::assert_recounted(&walk.ns).await;
        }
        if day % 5 == 0 {
            let again = walk.ns.retention.run(CONFIRMED).await.unwrap();
            assert_eq!(again.dropped.versions, 0, "a second run");
            walk.ns.gc.reclaim().await.unwrap();
        }
        if day % 15 == 0 {
            walk.compare_times().await;
        }
    }
    walk.ns.drain().await.unwrap();
    check::log_twin(&walk.ns, &walk.cluster).await;
    println!("{} days: {:?}", work.days, walk.seen);
    leave(walk.ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_day_exactly_the_versions_are_left_that_the_words_of_the_policy_keep() {
    let seeds = number("REWINDFS_TEST_SEEDS").unwrap_or(2);
    let first = number("REWINDFS_TEST_SEED").unwrap_or(1);
    let work = Work {
        directories: 5,
        names: 4,
        days: 60,
        steps: 14,
        policies: true,
        limits: true,
        trees: true,
        part_bytes: 64 << 10,
        crashes: 1,
        recounts: 1,
        fault: None,
    };
    for seed in first..first + seeds {
        walk(seed, work).await;
    }
}

/// Over 210 names in 30 directories, with all that a walk can meet: 120 days, in the long mode ten thousand steps of two years.
#[tokio::test(flavor = "multi_thread")]
async fn after_each_day_of_a_long_walk_exactly_the_kept_versions_are_left() {
    let seed = number("REWINDFS_TEST_SEED").unwrap_or(1);
    let days = match std::env::var_os("REWINDFS_TEST_LONG") {
        Some(_) => 730,
        None => 120,
    };
    let work = Work {
        directories: 30,
        names: 7,
        days,
        steps: 14,
        policies: true,
        limits: true,
        trees: true,
        part_bytes: 64 << 10,
        crashes: 7,
        recounts: 1,
        fault: None,
    };
    walk(seed, work).await;
}
