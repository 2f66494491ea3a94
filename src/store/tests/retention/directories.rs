//! Policies of directories, compared with a model that knows where each version was when it ended.

use super::words::{DAY, HOUR};
use super::*;
use crate::env::Env;
use crate::store::tests::check::read_past;
use crate::store::tests::labels::{label, mkdir, move_to};
use crate::store::tests::restore::{in_steps, restore};
use crate::store::tests::rng::{SeededRng, number};
use std::collections::BTreeMap;

const MINUTE: u64 = HOUR / 60;
/// Names of files; no directory has one.
const FILES: [&str; 4] = ["f", "x", "y", "z"];

/// Sets a directory's policy; without words, takes it back.
async fn limit(ns: &Namespace, directory: Ino, words: &str) {
    let policy = (!words.is_empty()).then(|| Policy::of_directory(words).unwrap());
    let set = ns.retention.set_directory_policy(directory, policy);
    set.await.unwrap();
}

async fn namespace_policy(ns: &Namespace, words: &[&str]) {
    let mut policy = Policy::default();
    for word in words {
        policy.set(word).unwrap();
    }
    ns.retention
        .set_policy(&policy, InForce::Now)
        .await
        .unwrap();
}

async fn wholeness(ns: &Namespace, directory: Ino, at: u64) -> Wholeness {
    let view = ns.history.view();
    let horizons = view.directory_horizons(directory).await.unwrap();
    horizons.wholeness(Timestamp(at))
}

/// A file saved each ten minutes in `full` and in `short` for six hours.
async fn six_hours(ns: &Namespace, cluster: &TestCluster, directories: &[Ino]) {
    for round in 0..36_u32 {
        for directory in directories {
            save(ns, *directory, b"f", &round.to_be_bytes()).await;
        }
        cluster.env.advance(10 * MINUTE);
    }
}

/// The names and starts of the recorded versions of files: their names have one letter.
async fn recorded_files(ns: &Namespace) -> BTreeSet<(Slot, u64)> {
    let all = recorded(ns).await.into_iter();
    let files = all.filter(|((_, name), _, _)| FILES.contains(&name.as_str()));
    files.map(|(slot, start, _)| (slot, start)).collect()
}

async fn states(ns: &Namespace, directory: Ino) -> usize {
    history(ns, directory, b"f").await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_a_short_policy_keeps_less_and_so_does_all_below_it() {
    let cluster = TestCluster::new("retention-short");
    let ns = cluster.open().await;
    let (full, short) = (
        mkdir(&ns, ROOT, b"full").await,
        mkdir(&ns, ROOT, b"short").await,
    );
    let below = mkdir(&ns, short, b"below").await;
    save(&ns, below, b"old", b"1").await;
    cluster.env.advance(MINUTE);
    save(&ns, below, b"old", b"2").await;
    cluster.env.advance(MINUTE);
    limit(&ns, short, "keep-within=1h grid=off keep-last=2").await;
    six_hours(&ns, &cluster, &[full, short, below]).await;
    prune(&ns).await;
    assert_eq!(states(&ns, full).await, 36);
    // The versions that ended within the hour, and the present one.
    assert_eq!(states(&ns, short).await, 6);
    assert_eq!(states(&ns, below).await, 6);
    // It ended before the policy was set.
    assert_eq!(history(&ns, below, b"old").await.len(), 2);
    let now = ns.now().0;
    for (ago, directory, shows) in [
        (5 * HOUR, full, Wholeness::Exact),
        (5 * HOUR, short, Wholeness::CutOff),
        (5 * HOUR, below, Wholeness::CutOff),
        (50 * MINUTE, below, Wholeness::Exact),
        (5 * HOUR, ROOT, Wholeness::Exact),
    ] {
        let found = wholeness(&ns, directory, now - ago).await;
        assert_eq!(found, shows, "{directory:?} {ago}");
    }
    let at = ns.history.exact_time(short, Timestamp(now - 5 * HOUR));
    assert_eq!(at.await.unwrap(), None, "nothing before the hour is whole");
    // A day later the last two are left.
    cluster.env.advance(DAY);
    prune(&ns).await;
    assert_eq!((states(&ns, short).await, states(&ns, below).await), (3, 3));
    let policies = ns.retention.directory_policies(below).await.unwrap();
    assert_eq!(policies.len(), 1);
    assert_eq!(policies[0].directory, short);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_into_a_directory_with_a_short_policy_shortens_nothing_that_ended_before() {
    let cluster = TestCluster::new("retention-moved-in");
    let ns = cluster.open().await;
    let (d, short) = (
        mkdir(&ns, ROOT, b"d").await,
        mkdir(&ns, ROOT, b"short").await,
    );
    limit(&ns, short, "1h").await;
    six_hours(&ns, &cluster, &[d]).await;
    let outside = ns.now().0;
    move_to(&ns, (ROOT, b"d"), (short, b"d")).await;
    cluster.env.advance(MINUTE);
    six_hours(&ns, &cluster, &[d]).await;
    let inside = ns.now().0;
    move_to(&ns, (short, b"d"), (ROOT, b"d")).await;
    let moved_out = ns.now().0;
    cluster.env.advance(MINUTE);
    six_hours(&ns, &cluster, &[d]).await;
    prune(&ns).await;
    // 36 before, of which the last ended below `short`; then three that `keep-last` keeps of no version, for six newer ones exist;
    // and 36 after, with the one that ended after the move.
    assert_eq!(states(&ns, d).await, 35 + 1 + 36);
    for (at, shows) in [
        (outside - 3 * HOUR, Wholeness::CutOff),
        (outside + 3 * HOUR, Wholeness::CutOff),
        (inside - 1, Wholeness::CutOff),
        (moved_out, Wholeness::Exact),
        (moved_out + 2 * HOUR, Wholeness::Exact),
    ] {
        assert_eq!(wholeness(&ns, d, at).await, shows, "{at}");
    }
    // A listing shows the first exact time after what is cut off.
    let horizons = ns.history.view().directory_horizons(d).await.unwrap();
    let first = horizons.exact_from(Timestamp(outside - 3 * HOUR)).0;
    assert!((inside..=moved_out).contains(&first), "{first} {moved_out}");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_shows_a_short_directory_whole_and_its_removal_is_offered_whole() {
    let cluster = TestCluster::new("retention-short-label");
    let ns = cluster.open().await;
    let parent = mkdir(&ns, ROOT, b"p").await;
    let short = mkdir(&ns, parent, b"short").await;
    limit(&ns, short, "1h").await;
    save(&ns, short, b"f", b"labeled").await;
    save(&ns, short, b"g", b"g").await;
    cluster.env.advance(MINUTE);
    let made = label(&ns, parent, b"l").await;
    cluster.env.advance(MINUTE);
    for text in [b"2", b"3", b"4", b"5", b"6"] {
        save(&ns, short, b"f", text).await;
        cluster.env.advance(2 * HOUR);
    }
    prune(&ns).await;
    let exact = ns.history.exact_time(short, made.timestamp).await.unwrap();
    assert_eq!(exact, Some(made.timestamp));
    let view = ns.history.view();
    let shown = view.entry_at(short, b"f", made.timestamp);
    assert_eq!(
        read_past(&ns, &shown.await.unwrap().unwrap()).await,
        b"labeled"
    );
    for name in [b"f", b"g"] {
        ns.tree.unlink(short, name, &author()).await.unwrap();
    }
    ns.tree.rmdir(parent, b"short", &author()).await.unwrap();
    cluster.env.advance(20 * DAY);
    prune(&ns).await;
    let (from, to) = (
        DentryRef::new(parent, b"short"),
        DentryRef::new(parent, b"back"),
    );
    let who = author();
    let back = ns.history.undelete(from, to, RenameMode::NoReplace, &who);
    let back = back.await.unwrap().moved.ino;
    assert_eq!(content(&ns, back, b"f").await, Some(b"6".to_vec()));
    assert_eq!(content(&ns, back, b"g").await, Some(b"g".to_vec()));
    // It comes back with its policy.
    let policies = ns.retention.directory_policies(back).await.unwrap();
    assert_eq!(policies.len(), 1);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_directory_is_offered_for_as_long_as_its_own_policy_says() {
    let cluster = TestCluster::new("retention-short-removed");
    let ns = cluster.open().await;
    let short = mkdir(&ns, ROOT, b"short").await;
    limit(&ns, short, "keep-within=1h grid=off keep-removed=2d").await;
    save(&ns, short, b"f", b"1").await;
    cluster.env.advance(2 * HOUR);
    ns.tree.unlink(short, b"f", &author()).await.unwrap();
    ns.tree.rmdir(ROOT, b"short", &author()).await.unwrap();
    cluster.env.advance(DAY);
    prune(&ns).await;
    assert_eq!(removed_names(&ns, ROOT).await, ["short"]);
    assert_eq!(recorded_files(&ns).await.len(), 1);
    cluster.env.advance(2 * DAY);
    prune(&ns).await;
    assert!(recorded_files(&ns).await.is_empty());
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_policy_of_the_namespace_holds_in_a_short_directory_from_its_first_run_on() {
    let cluster = TestCluster::new("retention-short-stricter");
    let ns = cluster.open().await;
    let off = ["keep-within=1h", "grid=off", "keep-removed=off"];
    let with = |words: &[&'static str]| [&off[..], words].concat();
    namespace_policy(&ns, &with(&["keep-hourly=20d", "keep-last=3"])).await;
    let (last, hourly) = (
        mkdir(&ns, ROOT, b"last").await,
        mkdir(&ns, ROOT, b"hourly").await,
    );
    limit(&ns, last, "keep-hourly=off keep-daily=off").await;
    limit(&ns, hourly, "keep-hourly=9d keep-daily=off keep-last=0").await;
    for _ in 0..5 {
        save(&ns, last, b"f", &cluster.env.now().to_be_bytes()).await;
        save(&ns, hourly, b"f", &cluster.env.now().to_be_bytes()).await;
        cluster.env.advance(2 * HOUR);
    }
    cluster.env.advance(3 * DAY);
    prune(&ns).await;
    assert_eq!((states(&ns, last).await, states(&ns, hourly).await), (4, 5));
    // The namespace keeps both for longer than before by another rule, which holds in neither.
    let words = ["keep-hourly=2d", "keep-daily=15d", "keep-last=1"];
    namespace_policy(&ns, &with(&words)).await;
    ns.retention.run(CONFIRMED).await.unwrap();
    assert_eq!((states(&ns, last).await, states(&ns, hourly).await), (2, 1));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_a_directory_is_refused_where_it_means_nothing() {
    let cluster = TestCluster::new("retention-short-refused");
    let ns = cluster.open().await;
    let file = save(&ns, ROOT, b"f", b"1").await;
    let set = |directory| {
        let policy = Policy::of_directory("1h").unwrap();
        ns.retention.set_directory_policy(directory, Some(policy))
    };
    assert!(matches!(set(file).await, Err(StoreError::NotDirectory)));
    assert!(matches!(set(ROOT).await, Err(StoreError::Invalid(_))));
    assert!(matches!(set(Ino(999_999)).await, Err(StoreError::NotFound)));
    leave(ns).await;
}

/// Restores `p` with short directories in it that stayed, were moved, and were removed.
async fn restored_around(steps: Option<usize>) {
    let cluster = TestCluster::new(&format!("retention-short-restore-{steps:?}"));
    let ns = cluster.open().await;
    if let Some(most) = steps {
        in_steps(&ns, most);
    }
    let p = mkdir(&ns, ROOT, b"p").await;
    let short = ["stays", "moves", "goes"].map(str::as_bytes);
    let mut directories = Vec::new();
    for name in short {
        let directory = mkdir(&ns, p, name).await;
        limit(
            &ns,
            directory,
            "keep-within=1h grid=off keep-last=0 keep-removed=off",
        )
        .await;
        let below = mkdir(&ns, directory, b"below").await;
        for at in [directory, below] {
            save(&ns, at, b"o", b"then").await;
        }
        directories.push(directory);
    }
    let full = mkdir(&ns, p, b"full").await;
    save(&ns, full, b"f", b"then").await;
    let then = ns.now();
    cluster.env.advance(MINUTE);
    for directory in &directories {
        let o = ns.tree.lookup(*directory, b"below").await.unwrap().unwrap();
        for at in [*directory, o.ino] {
            save(&ns, at, b"o", b"now").await;
            save(&ns, at, b"new", b"now").await;
        }
    }
    save(&ns, full, b"f", b"now").await;
    move_to(&ns, (p, b"moves"), (full, b"moved")).await;
    move_to(&ns, (p, b"goes"), (ROOT, b"gone")).await;
    cluster.env.advance(5 * HOUR);
    prune(&ns).await;
    let restored = restore(&ns, ROOT, b"p", then, AddedNames::Remove)
        .await
        .unwrap();
    let left = restored.left.iter();
    let mut left: Vec<_> = left.map(|left| (left.parent, &left.name[..])).collect();
    left.sort();
    assert_eq!(left, [(p, &b"goes"[..]), (p, b"moves"), (p, b"stays")]);
    assert_eq!(content(&ns, full, b"f").await, Some(b"then".to_vec()));
    let listed = check::names(&ns, p).await;
    let listed: Vec<_> = listed
        .into_iter()
        .map(|(name, stat)| (name, stat.ino))
        .collect();
    let expected = [
        (&b"full"[..], full),
        (b"moves", directories[1]),
        (b"stays", directories[0]),
    ];
    assert_eq!(listed, expected.map(|(name, ino)| (name.to_vec(), ino)));
    for directory in &directories {
        let below = ns.tree.lookup(*directory, b"below").await.unwrap().unwrap();
        for at in [*directory, below.ino] {
            assert_eq!(content(&ns, at, b"o").await, Some(b"now".to_vec()));
            assert_eq!(content(&ns, at, b"new").await, Some(b"now".to_vec()));
        }
    }
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_above_leaves_short_directories_as_they_are_in_one_operation_and_in_steps() {
    restored_around(None).await;
    for most in 1..4 {
        restored_around(Some(most)).await;
    }
}

/// A version of a file, as the model knows it.
#[derive(Clone, Debug)]
struct ModelVersion {
    directory: Ino,
    name: String,
    start: u64,
    text: Vec<u8>,
    /// When it ended, and until when the words that held where it was then keep it.
    ended: Option<(u64, u64)>,
}

/// The directories of the walk, and what was in them.
struct Model {
    /// The directory above each, now.
    above: BTreeMap<Ino, Ino>,
    /// How long each directory keeps versions, in nanoseconds, and hourly grid times.
    limits: BTreeMap<Ino, (u64, u64)>,
    versions: Vec<ModelVersion>,
}

/// What the namespace of the walk keeps.
const NAMESPACE: (u64, u64) = (DAY, 5 * DAY);

impl Model {
    fn limit_of(&self, directory: Ino) -> (u64, u64) {
        let (mut at, mut limit) = (directory, NAMESPACE);
        loop {
            if let Some((within, hourly)) = self.limits.get(&at) {
                limit = (limit.0.min(*within), limit.1.min(*hourly));
            }
            match self.above.get(&at) {
                Some(above) => at = *above,
                None => return limit,
            }
        }
    }

    fn end(&mut self, directory: Ino, name: &str, at: u64) {
        let (within, hourly) = self.limit_of(directory);
        let mut open = self.versions.iter_mut().filter(|version| {
            version.ended.is_none() && version.directory == directory && version.name == name
        });
        if let Some(version) = open.next() {
            let last_hour = at / HOUR * HOUR - 1;
            let grid = (version.start <= last_hour && hourly > 0).then_some(last_hour + hourly);
            version.ended = Some((at, (at + within).max(grid.unwrap_or(0))));
        }
    }

    fn begin(&mut self, directory: Ino, name: &str, at: u64, text: &[u8]) {
        self.end(directory, name, at);
        self.versions.push(ModelVersion {
            directory,
            name: name.to_owned(),
            start: at,
            text: text.to_vec(),
            ended: None,
        });
    }

    /// The names of a directory at a time, with their texts.
    fn shown(&self, directory: Ino, at: u64) -> BTreeMap<String, Vec<u8>> {
        let shown = self.versions.iter().filter(|version| {
            let goes_on = version.ended.is_none_or(|(end, _)| at < end);
            version.directory == directory && version.start <= at && goes_on
        });
        shown
            .map(|version| (version.name.clone(), version.text.clone()))
            .collect()
    }

    fn kept(&self, now: u64) -> BTreeSet<(Slot, u64)> {
        let kept = self
            .versions
            .iter()
            .filter(|version| version.ended.is_some_and(|(_, until)| until > now));
        kept.map(|version| (slot(version.directory, &version.name), version.start))
            .collect()
    }
}

/// Compares the versions that are left, and every exact time of every directory, with the model.
async fn compare(ns: &Namespace, model: &Model, times: &[u64], now: u64) -> (usize, usize) {
    let found = recorded_files(ns).await;
    let kept = model.kept(now);
    let differ = found.symmetric_difference(&kept);
    let differ: Vec<_> = differ
        .map(|(slot, start)| {
            model
                .versions
                .iter()
                .find(|v| v.start == *start && v.name == slot.1)
        })
        .collect();
    assert!(differ.is_empty(), "at {now}: {differ:?}");
    let (mut exact, mut cut_off) = (0, 0);
    let view = ns.history.view();
    for directory in model.above.keys() {
        let horizons = view.directory_horizons(*directory).await.unwrap();
        for at in times {
            match horizons.wholeness(Timestamp(*at)) {
                Wholeness::Exact => exact += 1,
                Wholeness::CutOff => {
                    cut_off += 1;
                    continue;
                }
                Wholeness::Thinned => continue,
            }
            let mut found = BTreeMap::new();
            for (name, entry) in view.list_at(*directory, Timestamp(*at)).await.unwrap() {
                if entry.kind == Kind::File {
                    let name = String::from_utf8(name.to_vec()).unwrap();
                    found.insert(name, read_past(ns, &entry).await);
                }
            }
            assert_eq!(found, model.shown(*directory, *at), "{directory:?} at {at}");
        }
    }
    (exact, cut_off)
}

/// A random walk, and the model of what it did.
struct Walk {
    cluster: TestCluster,
    ns: Namespace,
    rng: SeededRng,
    model: Model,
    names: BTreeMap<Ino, &'static str>,
    /// The times that are compared.
    times: Vec<u64>,
    /// How many exact and cut off times were seen.
    seen: (usize, usize),
}

impl Walk {
    async fn begin(seed: u64) -> Self {
        let cluster = TestCluster::new(&format!("retention-short-walk-{seed}"));
        let ns = cluster.open().await;
        let words = [
            "keep-within=1d",
            "keep-hourly=5d",
            "keep-daily=off",
            "keep-weekly=off",
            "keep-last=0",
            "keep-removed=off",
        ];
        namespace_policy(&ns, &words).await;
        let mut model = Model {
            above: BTreeMap::new(),
            limits: BTreeMap::new(),
            versions: Vec::new(),
        };
        let mut names = BTreeMap::new();
        for name in ["a", "b", "c", "d", "e"] {
            let made = mkdir(&ns, ROOT, name.as_bytes()).await;
            model.above.insert(made, ROOT);
            names.insert(made, name);
        }
        Self {
            cluster,
            ns,
            rng: SeededRng(seed),
            model,
            names,
            times: Vec::new(),
            seen: (0, 0),
        }
    }

    fn any_directory(&mut self) -> Ino {
        let at = self.rng.below(self.names.len());
        *self.names.keys().nth(at).unwrap()
    }

    async fn step(&mut self, text: &[u8]) {
        let times = [MINUTE, 10 * MINUTE, HOUR, 3 * HOUR];
        self.cluster.env.advance(times[self.rng.below(4)]);
        let directory = self.any_directory();
        let name = ["x", "y", "z"][self.rng.below(3)];
        match self.rng.below(20) {
            0..12 => {
                save(&self.ns, directory, name.as_bytes(), text).await;
                let view = self.ns.history.view();
                let mut versions = view.versions(directory, name.as_bytes()).await.unwrap();
                let at = versions.pop().unwrap().version.timestamp.0;
                self.model.begin(directory, name, at, text);
            }
            12..14 => {
                let who = author();
                let removed = self.ns.tree.unlink(directory, name.as_bytes(), &who);
                if removed.await.is_ok() {
                    self.model.end(directory, name, self.ns.now().0);
                }
            }
            14..17 => self.move_directory(directory).await,
            17 => self.limit(directory).await,
            18 => {
                limit(&self.ns, directory, "").await;
                self.model.limits.remove(&directory);
            }
            _ => {
                prune(&self.ns).await;
                let now = self.ns.retention.now().0;
                let found = compare(&self.ns, &self.model, &self.times, now).await;
                self.seen = (self.seen.0 + found.0, self.seen.1 + found.1);
            }
        }
        let now = self.ns.now().0;
        self.times.extend([now, now / HOUR * HOUR - 1]);
    }

    /// Moves a directory into another one that is not below it.
    async fn move_directory(&mut self, directory: Ino) {
        let to = self.any_directory();
        let above = &self.model.above;
        let mut at = Some(&to);
        while at.is_some_and(|at| *at != directory) {
            at = at.and_then(|at| above.get(at));
        }
        if at.is_none() && above[&directory] != to {
            let (from, name) = (above[&directory], self.names[&directory].as_bytes());
            move_to(&self.ns, (from, name), (to, name)).await;
            self.model.above.insert(directory, to);
        }
    }

    async fn limit(&mut self, directory: Ino) {
        let hours = [1, 3, 30][self.rng.below(3)];
        let hourly = [0, 2, 9][self.rng.below(3)];
        let words = match hourly {
            0 => format!("keep-within={hours}h keep-hourly=off"),
            days => format!("keep-within={hours}h keep-hourly={days}d"),
        };
        limit(&self.ns, directory, &words).await;
        let limits = (hours * HOUR, hourly * DAY);
        self.model.limits.insert(directory, limits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_exact_times_of_short_directories_are_those_of_the_model() {
    let seeds = number("REWINDFS_TEST_SEEDS").unwrap_or(3);
    let first = number("REWINDFS_TEST_SEED").unwrap_or(1);
    for seed in first..first + seeds {
        let mut walk = Walk::begin(seed).await;
        for step in 0..400_u32 {
            walk.step(&step.to_be_bytes()).await;
        }
        let (exact, cut_off) = walk.seen;
        assert!(exact > 1000 && cut_off > 1000, "{exact} {cut_off}");
        leave(walk.ns).await;
    }
}
