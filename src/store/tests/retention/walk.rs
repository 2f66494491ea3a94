//! Random work of many days, pruned each day and compared with the model after each run, and again after crashes.

use super::past::{Label, Past};
use super::words::{DAY, DEFAULT, HOUR, SECOND, Words};
use super::*;
use crate::env::Env;
use crate::store::model::failpoints::{Failpoint, PlantedFault};
use crate::store::tests::labels::{label, mkdir};
use crate::store::tests::rng::{SeededRng, number};

const FILES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
/// Names that directories get.
const FOLDERS: [&str; 6] = ["u", "v", "w", "x", "y", "z"];

/// The policies that a walk sets in turn.
const POLICIES: [Words; 4] = [
    DEFAULT,
    Words {
        within: 5 * HOUR,
        hourly: 2 * DAY,
        daily: 15 * DAY,
        weekly: 0,
        last: 1,
        removed: 4 * DAY,
        max: None,
    },
    Words {
        within: 3 * DAY,
        hourly: 20 * DAY,
        daily: 120 * DAY,
        weekly: 500 * DAY,
        last: 5,
        removed: 50 * DAY,
        max: None,
    },
    Words {
        max: Some(150_000),
        ..DEFAULT
    },
];

/// What a walk does.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) directories: usize,
    /// In each directory.
    pub(super) names: usize,
    pub(super) days: u32,
    pub(super) steps: u32,
    /// Whether the policy changes.
    pub(super) policies: bool,
    /// After how many days each a run is cut by a crash.
    pub(super) crashes: u32,
    /// After how many days each the counters are recounted, which reads every row.
    pub(super) recounts: u32,
    pub(super) fault: Option<PlantedFault>,
}

struct Walk {
    cluster: TestCluster,
    ns: Namespace,
    rng: SeededRng,
    past: Past,
    directories: Vec<Ino>,
    work: Work,
    saved: u32,
}

impl Walk {
    async fn new(seed: u64, work: Work) -> Self {
        let cluster = TestCluster::new("retention-walk");
        let ns = open(&cluster).await;
        let mut walk = Self {
            cluster,
            ns,
            rng: SeededRng(seed),
            past: Past::default(),
            directories: vec![ROOT],
            work,
            saved: 0,
        };
        while walk.directories.len() < work.directories {
            let at = walk.free_folder();
            let made = mkdir(&walk.ns, Ino(at.0), at.1.as_bytes()).await;
            let start = walk.began(&at).await;
            walk.past.make_directory(&at, made.0, start);
            walk.directories.push(made);
        }
        walk.plant();
        walk
    }

    fn plant(&self) {
        if let Some(fault) = self.work.fault {
            self.ns.core.health.failpoints.plant(fault);
        }
    }

    /// A name of a file; every third time one of a few.
    fn file(&mut self) -> Slot {
        let (directories, names) = match self.rng.below(3) {
            0 => (self.directories.len().min(3), 3),
            _ => (self.directories.len(), self.work.names),
        };
        let directory = self.directories[self.rng.below(directories)];
        slot(directory, FILES[self.rng.below(names)])
    }

    /// A name that a directory can get.
    fn free_folder(&mut self) -> Slot {
        loop {
            let directory = self.directories[self.rng.below(self.directories.len())];
            let at = slot(directory, FOLDERS[self.rng.below(FOLDERS.len())]);
            if self.past.current(&at).is_none() {
                return at;
            }
        }
    }

    fn dentry(slot: &Slot) -> DentryRef<'_> {
        DentryRef::new(Ino(slot.0), slot.1.as_bytes())
    }

    /// When the current version of a directory's name began.
    async fn began(&self, slot: &Slot) -> u64 {
        let view = self.ns.history.view();
        let shown = view.entry_at(Ino(slot.0), slot.1.as_bytes(), self.ns.now());
        shown.await.unwrap().unwrap().version.timestamp.0
    }

    /// The newest version that the store lists for the name of a file.
    async fn newest(&self, slot: &Slot) -> PastEntry {
        let view = self.ns.history.view();
        let name = slot.1.as_bytes();
        let versions = view.newest_file_versions(Ino(slot.0), name, 1).await;
        versions.unwrap().into_iter().next_back().unwrap()
    }

    async fn step(&mut self) {
        // More than the time within which a rename makes a name transient.
        let pause = 11 * SECOND + self.rng.below(3 * HOUR as usize) as u64;
        self.cluster.env.advance(pause);
        let at = self.file();
        let author = author();
        match self.rng.below(16) {
            0 | 1 if self.past.current(&at).is_some() => {
                let removed = self.ns.tree.unlink(Ino(at.0), at.1.as_bytes(), &author);
                removed.await.unwrap();
                let end = self.newest(&at).await.ended.unwrap();
                self.past.remove(&at, end.0);
            }
            2 | 3 => {
                let to = self.file();
                let moves = to != at && !self.past.are_one_file(&at, &to);
                if moves && self.past.current(&at).is_some() {
                    self.rename(&at, &to).await;
                    let start = self.newest(&to).await.version.timestamp.0;
                    self.past.rename(&at, &to, start);
                }
            }
            4 | 5 if self.past.current(&at).is_some() => {
                let to = self.file();
                if self.past.current(&to).is_none() {
                    let tree = &self.ns.tree;
                    let found = tree.lookup(Ino(at.0), at.1.as_bytes()).await;
                    let ino = found.unwrap().unwrap().ino;
                    let linked = tree.link(ino, Ino(to.0), to.1.as_bytes(), &author);
                    linked.await.unwrap();
                    let start = self.newest(&to).await.version.timestamp.0;
                    self.past.link(&at, &to, start);
                }
            }
            6 | 7 if self.past.current(&at).is_some() => self.restore(&at).await,
            8 if self.rng.below(3) == 0 => self.label(at.0).await,
            9 => self.move_directory().await,
            _ => {
                self.saved += 1;
                let text = self.text();
                save(&self.ns, Ino(at.0), at.1.as_bytes(), &text).await;
                let start = self.newest(&at).await.version.timestamp.0;
                self.past.save(&at, start, &text);
            }
        }
    }

    /// A text that no other save has; one of eight is too long for a row.
    fn text(&mut self) -> Vec<u8> {
        let mut text = self.saved.to_string().into_bytes();
        let len = match self.rng.below(8) {
            0 => 5000,
            _ => 100 + self.rng.below(1000),
        };
        text.resize(len, b'.');
        text
    }

    async fn rename(&self, from: &Slot, to: &Slot) {
        let (from, to, author) = (Self::dentry(from), Self::dentry(to), author());
        let tree = &self.ns.tree;
        let moved = tree.rename(from, to, RenameMode::Replace, &author);
        moved.await.unwrap();
    }

    /// Moves a directory, not into itself.
    async fn move_directory(&mut self) {
        let moved = self.directories[self.rng.below(self.directories.len())];
        let to = self.free_folder();
        let Some(from) = self.past.name_of(moved.0) else {
            return;
        };
        if !self.past.is_below(to.0, moved.0, u64::MAX) {
            self.rename(&from, &to).await;
            let start = self.began(&to).await;
            self.past.rename(&from, &to, start);
        }
    }

    /// Restores a file to a state that it still has.
    async fn restore(&mut self, at: &Slot) {
        let now = self.cluster.env.now();
        let then = Timestamp(now - self.rng.below(40 * DAY as usize) as u64);
        let view = self.ns.history.view();
        let shown = view.entry_at(Ino(at.0), at.1.as_bytes(), then).await;
        let Some(shown) = shown.unwrap() else { return };
        let text = self.ns.history.read_past(&shown, 0, u32::MAX).await;
        let (name, added, author) = (Self::dentry(at), AddedNames::Remove, author());
        let restored = self.ns.history.restore(name, shown, then, added, &author);
        if let Some(made) = restored.await.unwrap().at {
            self.past.save(at, made.0, &text.unwrap());
            // The model knows no holds: that of the replaced version ends at once.
            let before = Timestamp(made.0 - 1);
            let view = self.ns.history.view();
            let replaced = view.entry_at(Ino(at.0), at.1.as_bytes(), before).await;
            let replaced = replaced.unwrap().unwrap();
            let released = self.ns.history.release_version(name, &replaced);
            released.await.unwrap();
        }
    }

    /// Makes a label, or removes one.
    async fn label(&mut self, directory: u64) {
        if self.past.labels.len() > 5 {
            let number = self.rng.below(self.past.labels.len());
            let Label {
                directory, name, ..
            } = self.past.labels.remove(number);
            let history = &self.ns.history;
            let removed = history.remove_label(Ino(directory), name.as_bytes());
            removed.await.unwrap();
            return;
        }
        self.saved += 1;
        self.ns.drain().await.unwrap();
        let name = format!("label-{}", self.saved);
        let made = label(&self.ns, Ino(directory), name.as_bytes()).await;
        let at = made.timestamp.0;
        self.past.labels.push(Label {
            directory,
            name,
            at,
        });
    }

    /// Sets a policy: a longer one, a stricter one that is pending for a day, or the one in force, which takes a pending one back.
    async fn set_policy(&mut self) {
        let words = match self.rng.below(POLICIES.len() + 1) {
            0 => self.past.words,
            number => POLICIES[number - 1],
        };
        let retention = &self.ns.retention;
        let change = retention.set_policy(&words.policy(), InForce::Usual).await;
        let is_at_once = self.past.set_words(words, self.ns.now().0);
        match change.unwrap() {
            PolicyChange::InForce => assert!(is_at_once, "{words:?} are stricter"),
            PolicyChange::Pending(from) => {
                assert!(!is_at_once, "{words:?} are not stricter");
                self.past.pending = Some((words, from.0));
            }
        }
    }

    /// Prunes, and compares rows, lists, bytes and times with the model.
    async fn prune(&mut self) {
        self.ns.drain().await.unwrap();
        let now = self.cluster.env.now();
        let before = self.cap().await;
        let report = self.ns.retention.run(CONFIRMED).await.unwrap();
        let after = self.cap().await;
        self.past.run(now, [before.as_ref(), after.as_ref()]);
        if let Some(after) = after.filter(|after| before.as_ref() != Some(after)) {
            let (words, capped) = (self.past.words, self.past.words.capped(&after));
            assert!(words.may_become(&capped), "{words:?} became {capped:?}");
        }
        self.compare_rows(&report).await;
    }

    /// The policy to which `history-max` has shortened the one that was set.
    async fn cap(&self) -> Option<Policy> {
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
            "lost {lost:?}, left {left:?}, {report:?}"
        );
        linked::compare(&self.ns, &self.past).await;
    }

    async fn compare_times(&mut self) {
        let now = self.cluster.env.now();
        let view = self.ns.history.view();
        let horizons = view.horizons().await.unwrap();
        for number in 0..12 {
            let age = match number % 4 {
                0 => self.rng.below(2 * DAY as usize) as u64,
                1 => self.rng.below(15 * DAY as usize) as u64,
                _ => self.rng.below(200 * DAY as usize) as u64,
            };
            let any = Timestamp(now - age);
            let labels = &self.past.labels;
            let at = match (number % 4, labels.is_empty()) {
                (0, _) => any,
                (1, false) => Timestamp(labels[self.rng.below(labels.len())].at),
                _ => horizons.exact_before(any).unwrap_or(any),
            };
            for directory in self.directories.clone() {
                let exact = horizons.is_exact(at) || self.past.has_label(directory.0, at.0);
                let found = self.listed(&view, directory, at).await;
                let expected = self.past.listed(directory.0, at.0, exact);
                assert_eq!(found, expected, "{directory:?} at {at:?}, exact: {exact}");
            }
        }
    }

    /// What a directory showed at a time: the contents of files, and the numbers of directories.
    async fn listed(
        &self,
        view: &PastView,
        directory: Ino,
        at: Timestamp,
    ) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for (name, entry) in view.list_at(directory, at).await.unwrap() {
            let text = match entry.kind {
                Kind::Directory => entry.ino.0.to_string().into_bytes(),
                _ => {
                    let text = self.ns.history.read_past(&entry, 0, u32::MAX).await;
                    text.unwrap().to_vec()
                }
            };
            found.push((String::from_utf8(name.to_vec()).unwrap(), text));
        }
        found
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
        self.ns = open(&self.cluster).await;
        self.plant();
        if before.is_some() && self.cap().await != before {
            // The run has dropped what was due, and then ended or shortened the policy of `history-max`.
            self.past.run(now, [before.as_ref(), None]);
        }
        self
    }
}

/// Mounts with small limits, so that the log gets checkpoints.
async fn open(cluster: &TestCluster) -> Namespace {
    let limits = CheckpointLimits {
        min_bytes: 1 << 20,
        part_bytes: 64 << 10,
        ..CheckpointLimits::default()
    };
    cluster.open_with(limits).await
}

pub(super) async fn walk(seed: u64, work: Work) {
    let _context = PanicContext(format!("seed {seed}"));
    let mut walk = Walk::new(seed, work).await;
    for day in 1..=work.days {
        if work.policies && walk.rng.below(20) == 0 {
            walk.set_policy().await;
        }
        for _ in 0..work.steps {
            walk.step().await;
        }
        // Some days nothing happens.
        walk.cluster
            .env
            .advance(walk.rng.below(DAY as usize / 4) as u64);
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
        crashes: 1,
        recounts: 1,
        fault: None,
    };
    for seed in first..first + seeds {
        walk(seed, work).await;
    }
}

/// Ten thousand steps of two years over 210 names in 30 directories.
#[tokio::test(flavor = "multi_thread")]
async fn after_each_day_of_two_years_exactly_the_kept_versions_are_left() {
    let seed = number("REWINDFS_TEST_SEED").unwrap_or(1);
    let is_long = std::env::var_os("REWINDFS_TEST_LONG").is_some();
    let work = Work {
        directories: 30,
        names: 7,
        days: 730,
        steps: 14,
        policies: true,
        crashes: 7,
        recounts: if is_long { 1 } else { 3 },
        fault: None,
    };
    walk(seed, work).await;
}
