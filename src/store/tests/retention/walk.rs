//! Random work of many days, pruned each day and compared with the model after each run, and again after crashes.

use super::words::{DAY, DEFAULT, HOUR, Label, Past};
use super::*;
use crate::env::Env;
use crate::store::model::failpoints::PlantedFault;
use crate::store::tests::labels::label;
use crate::store::tests::rng::{SeededRng, number};

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

struct Walk {
    cluster: TestCluster,
    ns: Namespace,
    rng: SeededRng,
    past: Past,
    directories: Vec<Ino>,
    names: usize,
    saved: u32,
    fault: Option<PlantedFault>,
}

impl Walk {
    async fn new(seed: u64, work: Work) -> Self {
        let cluster = TestCluster::new("retention-walk");
        let ns = cluster.open().await;
        let mut made = vec![ROOT];
        for number in 1..work.directories {
            let name = format!("dir-{number}");
            let node = new_node(Kind::Directory);
            let author = author();
            let stat = ns.tree.create(ROOT, name.as_bytes(), node, &author);
            made.push(stat.await.unwrap().ino);
        }
        Self {
            cluster,
            ns,
            rng: SeededRng(seed),
            past: Past::default(),
            directories: made,
            names: work.names,
            saved: 0,
            fault: None,
        }
    }

    fn slot(&mut self) -> Slot {
        let directory = self.directories[self.rng.below(self.directories.len())];
        slot(directory, NAMES[self.rng.below(self.names)])
    }

    fn dentry(slot: &Slot) -> DentryRef<'_> {
        DentryRef::new(Ino(slot.0), slot.1.as_bytes())
    }

    /// The newest version that the store lists for a name.
    async fn newest(&self, slot: &Slot) -> PastEntry {
        let view = self.ns.history.view();
        let versions = view.versions(Ino(slot.0), slot.1.as_bytes()).await.unwrap();
        versions.into_iter().next_back().unwrap()
    }

    async fn step(&mut self) {
        // More than the time within which a rename makes a name transient.
        let pause = 11_000_000_000 + self.rng.below(3 * HOUR as usize) as u64;
        self.cluster.env.advance(pause);
        let at = self.slot();
        let author = author();
        match self.rng.below(15) {
            0 | 1 if self.past.current(&at).is_some() => {
                let removed = self.ns.tree.unlink(Ino(at.0), at.1.as_bytes(), &author);
                removed.await.unwrap();
                let end = self.newest(&at).await.ended.unwrap();
                self.past.remove(&at, end.0);
            }
            2 | 3 => {
                let to = self.slot();
                let moves = to != at && !self.past.are_one_file(&at, &to);
                if moves && self.past.current(&at).is_some() {
                    let (from, onto) = (Self::dentry(&at), Self::dentry(&to));
                    let tree = &self.ns.tree;
                    let moved = tree.rename(from, onto, RenameMode::Replace, &author);
                    moved.await.unwrap();
                    let start = self.newest(&to).await.version.timestamp.0;
                    self.past.rename(&at, &to, start);
                }
            }
            4 | 5 if self.past.current(&at).is_some() => {
                let to = self.slot();
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
            _ => {
                self.saved += 1;
                let text = self.saved.to_string().into_bytes();
                save(&self.ns, Ino(at.0), at.1.as_bytes(), &text).await;
                let start = self.newest(&at).await.version.timestamp.0;
                self.past.save(&at, start, &text);
            }
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
            let removed = self
                .ns
                .history
                .remove_label(Ino(directory), name.as_bytes());
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

    /// Prunes, and compares rows, lists, bytes and times with the model.
    async fn prune(&mut self) {
        self.ns.drain().await.unwrap();
        self.past.prune(&DEFAULT, self.cluster.env.now());
        let report = prune(&self.ns).await;
        let expected = self.past.kept();
        let found = recorded(&self.ns).await;
        let lost: Vec<_> = expected.difference(&found).collect();
        let left: Vec<_> = found.difference(&expected).collect();
        assert!(
            lost.is_empty() && left.is_empty(),
            "lost {lost:?}, left {left:?}, {report:?}"
        );
        linked::compare(&self.ns, &self.past).await;
        amounts::assert_recounted(&self.ns).await;
        assert_eq!(prune(&self.ns).await.dropped.versions, 0, "a second run");
    }

    async fn compare_times(&mut self) {
        let now = self.cluster.env.now();
        let view = self.ns.history.view();
        let horizons = view.horizons().await.unwrap();
        for number in 0..24 {
            let age = match number % 4 {
                0 => self.rng.below(2 * DAY as usize) as u64,
                1 => self.rng.below(15 * DAY as usize) as u64,
                _ => self.rng.below(200 * DAY as usize) as u64,
            };
            let any = Timestamp(now - age);
            let labels = self.past.labels.clone();
            let at = match (number % 4, labels.is_empty()) {
                (0, _) => any,
                (1, false) => Timestamp(labels[self.rng.below(labels.len())].at),
                _ => horizons.exact_before(any).unwrap_or(any),
            };
            for directory in self.directories.clone() {
                let shows = |label: &Label| label.shows(directory.0) && label.at == at.0;
                let exact = horizons.is_exact(at) || labels.iter().any(shows);
                let mut found = Vec::new();
                for (name, entry) in view.list_at(directory, at).await.unwrap() {
                    if entry.kind == Kind::File {
                        let text = self
                            .ns
                            .history
                            .read_past(&entry, 0, u32::MAX)
                            .await
                            .unwrap();
                        found.push((String::from_utf8(name.to_vec()).unwrap(), text.to_vec()));
                    }
                }
                let mut expected = Vec::new();
                for name in NAMES {
                    let slot = slot(directory, name);
                    let shown = match exact {
                        true => self.past.truth(&slot, at.0),
                        false => self.past.thinned(&slot, at.0),
                    };
                    expected.extend(shown.map(|made| (name.to_owned(), made.text.clone())));
                }
                assert_eq!(found, expected, "{directory:?} at {at:?}, exact: {exact}");
            }
        }
    }

    async fn crash(mut self) -> Self {
        self.cluster = self.cluster.kill(self.ns).await;
        self.ns = self.cluster.open().await;
        self.plant();
        self
    }

    fn plant(&self) {
        if let Some(fault) = self.fault {
            self.ns.core.health.failpoints.plant(fault);
        }
    }
}

/// What a walk does.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) directories: usize,
    /// In each directory.
    pub(super) names: usize,
    pub(super) days: u32,
    /// In a day, each about an hour and a half after the one before.
    pub(super) steps: u32,
}

async fn walk(seed: u64, work: Work) {
    faulty_walk(seed, work, None).await;
}

/// Walks with a fault in the product.
pub(super) async fn faulty_walk(seed: u64, work: Work, fault: Option<PlantedFault>) {
    let _context = PanicContext(format!("seed {seed}"));
    let mut walk = Walk::new(seed, work).await;
    walk.fault = fault;
    walk.plant();
    for day in 1..=work.days {
        for _ in 0..work.steps {
            walk.step().await;
        }
        // Some days nothing happens.
        walk.cluster
            .env
            .advance(walk.rng.below(DAY as usize) as u64 * 3 / 2);
        walk.prune().await;
        if day % 5 == 0 {
            walk.ns.gc.reclaim().await.unwrap();
            walk.compare_times().await;
        }
        if day % 7 == 0 {
            walk = walk.crash().await;
            walk.prune().await;
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
        directories: 3,
        names: 12,
        days: 60,
        steps: 8,
    };
    for seed in first..first + seeds {
        walk(seed, work).await;
    }
}

/// Ten thousand steps of two years over 200 names in 17 directories.
#[tokio::test(flavor = "multi_thread")]
async fn after_each_day_of_two_years_exactly_the_kept_versions_are_left() {
    let seed = number("REWINDFS_TEST_SEED").unwrap_or(1);
    let work = Work {
        directories: 17,
        names: 12,
        days: 500,
        steps: 20,
    };
    walk(seed, work).await;
}
