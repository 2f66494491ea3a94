//! A loss of power: the journal is there, and bytes of staging files are not. Every file and every version is a state that the acknowledged
//! calls left. `REWINDFS_TEST_SEED` repeats one random case, `REWINDFS_TEST_CASES` sets their number.

use std::collections::HashSet;

use super::rng::{SeededRng, number};
use super::*;

/// More bytes than a write session keeps in memory.
const LEN: usize = 100_000;

/// The staging files of a cache directory.
fn staging_files(cluster: &TestCluster) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![cluster.cache.path().to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false if path.parent().unwrap().ends_with("staging") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// Cuts every staging file off at `len` bytes.
fn cut_all(cluster: &TestCluster, len: u64) {
    let files = staging_files(cluster);
    assert!(!files.is_empty());
    for path in files {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let old = file.metadata().unwrap().len();
        file.set_len(len.min(old)).unwrap();
    }
}

fn text(byte: u8) -> Vec<u8> {
    vec![byte; LEN]
}

async fn rename(ns: &Namespace, from: &[u8], to: &[u8]) {
    let (from, to) = (DentryRef::new(ROOT, from), DentryRef::new(ROOT, to));
    let by = author();
    let renamed = ns.tree.rename(from, to, RenameMode::Replace, &by).await;
    renamed.unwrap();
}

/// A namespace in whose bucket `a` has the text of ones, and nothing arrives from now on.
async fn before(name: &str) -> (TestCluster, Namespace) {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", &text(1)).await;
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    (cluster, ns)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_whose_bytes_are_lost_leaves_the_state_before_it() {
    let (cluster, ns) = before("power-save").await;
    save(&ns, ROOT, b"a", &text(2)).await;
    save(&ns, ROOT, b"small", b"in the journal").await;
    let cluster = cluster.kill(ns).await;
    cut_all(&cluster, 0);
    for _ in 0..2 {
        let ns = cluster.open().await;
        // The truncation is a call of its own, before the write.
        let shown = content(&ns, ROOT, b"a").await.unwrap();
        assert!(
            shown.is_empty() || shown == text(1),
            "{} bytes",
            shown.len()
        );
        assert_eq!(history(&ns, ROOT, b"a").await[0], text(1));
        let small = content(&ns, ROOT, b"small").await.unwrap();
        assert_eq!(small, b"in the journal");
        save(&ns, ROOT, b"later", b"later").await;
        leave(ns).await;
    }
    let ns = cluster.open().await;
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_a_file_does_not_happen_if_the_bytes_are_lost() {
    let (cluster, ns) = before("power-rename").await;
    save(&ns, ROOT, b"a.tmp", &text(2)).await;
    rename(&ns, b"a.tmp", b"a").await;
    rename(&ns, b"a", b"b").await;
    let cluster = cluster.kill(ns).await;
    cut_all(&cluster, LEN as u64 / 2);
    let ns = cluster.open().await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), text(1));
    assert_eq!(content(&ns, ROOT, b"b").await, None);
    assert_eq!(content(&ns, ROOT, b"a.tmp").await.unwrap(), b"");
    assert_eq!(history(&ns, ROOT, b"a").await, [text(1)]);
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_keeps_what_was_written_before_the_first_lost_write() {
    let (cluster, ns) = before("power-open").await;
    let by = author();
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"f", new_file(), &by)
        .await
        .unwrap();
    for byte in 1..=4 {
        file.append(text(byte).into(), &by).await.unwrap();
    }
    drop(file);
    let cluster = cluster.kill(ns).await;
    cut_all(&cluster, 2 * LEN as u64 + 10);
    for _ in 0..2 {
        let ns = cluster.open().await;
        let expected = [text(1), text(2)].concat();
        assert!(content(&ns, ROOT, b"f").await.unwrap() == expected);
        assert!(history(&ns, ROOT, b"f").await == [expected]);
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_write_that_a_later_one_covers_is_not_missed() {
    let (cluster, ns) = before("power-covered").await;
    let by = author();
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"f", new_file(), &by)
        .await
        .unwrap();
    file.write(0, text(1).into(), &by).await.unwrap();
    file.write(0, text(2).into(), &by).await.unwrap();
    close(&file).await;
    drop(file);
    let cluster = cluster.kill(ns).await;
    for path in staging_files(&cluster) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..LEN].fill(0);
        std::fs::write(path, bytes).unwrap();
    }
    let ns = cluster.open().await;
    assert!(content(&ns, ROOT, b"f").await.unwrap() == text(2));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_cannot_be_read_now_are_not_lost() {
    let (cluster, ns) = before("power-unreadable").await;
    save(&ns, ROOT, b"b", &text(2)).await;
    let cluster = cluster.kill(ns).await;
    let staged = staging_files(&cluster).remove(0);
    let aside = cluster.cache.path().join("aside");
    std::fs::rename(&staged, &aside).unwrap();
    // An open of it fails, and not because it is missing.
    std::os::unix::fs::symlink(&staged, &staged).unwrap();
    cluster.try_open().await.unwrap_err();
    std::fs::remove_file(&staged).unwrap();
    std::fs::rename(&aside, &staged).unwrap();
    // A copy: tasks of the mount that was refused may have the lock for a moment more.
    let cluster = cluster.fork().await;
    let ns = cluster.open().await;
    assert!(content(&ns, ROOT, b"b").await.unwrap() == text(2));
    leave(ns).await;
}

/// Files under a few names, and every state that an acknowledged call left.
struct Program {
    rng: SeededRng,
    states: HashSet<blake3::Hash>,
    open: Vec<(Arc<File>, Vec<u8>)>,
}

impl Program {
    fn new(seed: u64) -> Self {
        Self {
            rng: SeededRng(seed),
            states: HashSet::from([blake3::hash(b"")]),
            open: Vec::new(),
        }
    }

    /// Bytes that no other write has in the same place; never zeros.
    fn bytes(&mut self) -> Vec<u8> {
        let len = [100, 5000, 70_000, 150_000][self.rng.below(4)] + self.rng.below(100);
        let seed = self.rng.below(1 << 30);
        (0..len)
            .map(|at| ((seed ^ (at * 31)) % 255) as u8 + 1)
            .collect()
    }

    fn name(&mut self) -> &'static [u8] {
        [&b"a"[..], b"b", b"c", b"d"][self.rng.below(4)]
    }

    /// Changes an open file at `at`.
    async fn write(&mut self, file: &File, state: &mut Vec<u8>) {
        let at = self.rng.below(state.len() + 1);
        let bytes = self.bytes();
        file.write(at as u64, bytes.clone().into(), &author())
            .await
            .unwrap();
        state.resize(state.len().max(at + bytes.len()), 0);
        state[at..at + bytes.len()].copy_from_slice(&bytes);
        self.states.insert(blake3::hash(state));
    }

    async fn step(&mut self, ns: &Namespace) {
        let by = author();
        match self.rng.below(12) {
            0..3 => {
                let name = self.name();
                if ns.tree.lookup(ROOT, name).await.unwrap().is_none() {
                    let made = ns.tree.create_open(ROOT, name, new_file(), &by).await;
                    self.open.push((made.unwrap().1, Vec::new()));
                }
            }
            3 => {
                let name = self.name();
                let found = ns.tree.lookup(ROOT, name).await.unwrap();
                if let Some(stat) = found
                    && self.open.iter().all(|(file, _)| file.ino() != stat.ino)
                {
                    let file = ns.tree.file(stat.ino).await.unwrap();
                    let bytes = file.read(0, u32::MAX).await.unwrap().to_vec();
                    self.open.push((file, bytes));
                }
            }
            4..8 if !self.open.is_empty() => {
                let at = self.rng.below(self.open.len());
                let (file, mut state) = self.open.swap_remove(at);
                self.write(&file, &mut state).await;
                self.open.push((file, state));
            }
            8 if !self.open.is_empty() => {
                let at = self.rng.below(self.open.len());
                let (file, mut state) = self.open.swap_remove(at);
                let len = self.rng.below(state.len() + 1);
                file.truncate(len as u64, &by).await.unwrap();
                state.truncate(len);
                self.states.insert(blake3::hash(&state));
                self.open.push((file, state));
            }
            9 if !self.open.is_empty() => {
                let at = self.rng.below(self.open.len());
                let (file, _) = self.open.swap_remove(at);
                close(&file).await;
            }
            10 => {
                let (from, to) = (self.name(), self.name());
                if from != to && ns.tree.lookup(ROOT, from).await.unwrap().is_some() {
                    rename(ns, from, to).await;
                }
            }
            11 => {
                let name = self.name();
                if ns.tree.lookup(ROOT, name).await.unwrap().is_some() {
                    ns.tree.unlink(ROOT, name, &by).await.unwrap();
                }
            }
            _ => {}
        }
    }

    async fn steps(&mut self, ns: &Namespace) {
        for _ in 0..self.rng.below(30) {
            self.step(ns).await;
        }
    }

    /// Loses a random part of some staging files.
    fn lose(&mut self, cluster: &TestCluster) {
        for path in staging_files(cluster) {
            let mut bytes = std::fs::read(&path).unwrap();
            let at = self.rng.below(bytes.len() + 1);
            match self.rng.below(4) {
                0 => bytes.truncate(at),
                1 => {
                    let end = (at + 1 + self.rng.below(LEN)).min(bytes.len());
                    bytes[at..end].fill(0);
                }
                _ => continue,
            }
            std::fs::write(path, bytes).unwrap();
        }
    }

    async fn check(&self, ns: &Namespace, context: &str) {
        for name in [&b"a"[..], b"b", b"c", b"d"] {
            let text = String::from_utf8_lossy(name);
            if let Some(shown) = content(ns, ROOT, name).await {
                let is_known = self.states.contains(&blake3::hash(&shown));
                assert!(
                    is_known,
                    "{context}: {text} has {} bytes of no state",
                    shown.len()
                );
            }
            for version in history(ns, ROOT, name).await {
                let is_known = self.states.contains(&blake3::hash(&version));
                assert!(
                    is_known,
                    "{context}: a version of {text}: {} bytes",
                    version.len()
                );
            }
        }
    }
}

async fn random_case(seed: u64) {
    let context = format!("REWINDFS_TEST_SEED={seed}");
    let _context = PanicContext(context.clone());
    let mut program = Program::new(seed);
    let mut cluster = TestCluster::new("power-random");
    for round in 0..3 {
        let ns = cluster.open().await;
        program
            .check(&ns, &format!("{context}, mount {round}"))
            .await;
        program.steps(&ns).await;
        if program.rng.below(2) == 0 {
            ns.drain().await.unwrap();
        }
        let halts = [
            None,
            Some(failpoints::Failpoint::Pack),
            Some(failpoints::Failpoint::Upload),
            Some(failpoints::Failpoint::Commit),
        ];
        set_failpoint(&ns, halts[program.rng.below(4)]);
        program.steps(&ns).await;
        program.open.clear();
        cluster = cluster.kill(ns).await;
        program.lose(&cluster);
        if program.rng.below(3) == 0 {
            // The power is lost once more, during or right after the recovery.
            let ns = cluster.open().await;
            cluster = cluster.kill(ns).await;
            program.lose(&cluster);
        }
    }
    let ns = cluster.open().await;
    program
        .check(&ns, &format!("{context}, the last mount"))
        .await;
    ns.drain().await.unwrap();
    program.check(&ns, &format!("{context}, drained")).await;
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_programs_lose_the_power() {
    if let Some(seed) = number("REWINDFS_TEST_SEED") {
        return random_case(seed).await;
    }
    for seed in 0..number("REWINDFS_TEST_CASES").unwrap_or(60) {
        random_case(seed).await;
    }
}
