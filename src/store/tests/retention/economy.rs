//! What a history costs in the bucket: data, rows and log of a month of work, and of a file that is saved all the time.

use super::words::{DAY, HOUR, SECOND};
use super::*;
use crate::store::gc::checkpoint::CheckpointOutcome;
use crate::store::tests::labels::mkdir;
use crate::store::tests::reclaim::settle;
use crate::store::tests::rng::SeededRng;
use std::collections::BTreeMap;

/// docs/HISTORY.md: bytes of rows for each live file and kept version of a month of work, and of a file that is saved all the time.
const ROW_BYTES: u64 = 500;
const SMALL_ROW_BYTES: u64 = 300;
/// docs/HISTORY.md: bytes of rows for each segment that waits for its deletion.
const DEAD_ROW_BYTES: u64 = 80;
/// docs/HISTORY.md: bytes of the log for each live file and kept version.
const LOG_BYTES: u64 = 1000;
/// Up to this size the log has no checkpoint.
const LOG_MIN: u64 = 256 << 10;

/// Bytes that no compression makes shorter.
fn noise(rng: &mut SeededRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.below(256) as u8).collect()
}

async fn objects(cluster: &TestCluster, of: &str) -> u64 {
    let all = cluster.backend().list(of).await.unwrap();
    all.into_iter().map(|object| object.size).sum()
}

/// Bytes of the keys and values of all rows.
async fn row_bytes(ns: &Namespace) -> u64 {
    let mut bytes = 0;
    let rows = ns.core.index.stored();
    let mut scan = rows.scan("C".into().."I".into()).await.unwrap();
    while let Some((key, value)) = scan.next().await.unwrap() {
        bytes += key.len() + value.len();
    }
    bytes as u64
}

/// One of the files of a month of work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Each save writes it anew.
    Document,
    /// Each save appends.
    Journal,
    /// It is made, written and removed.
    Temporary,
}

struct Month {
    cluster: TestCluster,
    ns: Namespace,
    rng: SeededRng,
    directories: Vec<Ino>,
    /// What each state of a name has, by its start: the bytes that no other state of the name has.
    cited: BTreeMap<(Slot, u64), u64>,
}

impl Month {
    async fn start(&self, at: &Slot) -> u64 {
        let view = self.ns.history.view();
        let newest = view
            .newest_file_versions(Ino(at.0), at.1.as_bytes(), 1)
            .await;
        newest.unwrap()[0].version.timestamp.0
    }

    async fn work(&mut self, number: usize) {
        let habit = match number % 10 {
            0 | 1 => Habit::Temporary,
            2 | 3 => Habit::Journal,
            _ => Habit::Document,
        };
        let at = slot(self.directories[number % 4], &format!("file-{number}"));
        let len = 5_000 + self.rng.below(60_000);
        let text = noise(&mut self.rng, len);
        if habit == Habit::Journal && self.append(&at, &text).await {
            return;
        }
        save(&self.ns, Ino(at.0), at.1.as_bytes(), &text).await;
        let start = self.start(&at).await;
        self.cited.insert((at.clone(), start), len as u64);
        if habit == Habit::Temporary {
            self.cluster.env.advance(60 * SECOND);
            let removed = self
                .ns
                .tree
                .unlink(Ino(at.0), at.1.as_bytes(), &author())
                .await;
            removed.unwrap();
        }
    }

    /// Appends to a file if it exists. Its older states share the bytes before.
    async fn append(&mut self, at: &Slot, text: &[u8]) -> bool {
        let found = self.ns.tree.lookup(Ino(at.0), at.1.as_bytes()).await;
        let Some(found) = found.unwrap() else {
            return false;
        };
        let file = self.ns.tree.file(found.ino).await.unwrap();
        let text = Bytes::copy_from_slice(&text[..4_000]);
        file.append(text, &author()).await.unwrap();
        close(&file).await;
        let start = self.start(at).await;
        self.cited.insert((at.clone(), start), 4_000);
        true
    }

    /// The bytes that live files and kept versions show, each once. A state that is kept shows those before it that it appended to.
    async fn cited_bytes(&self) -> u64 {
        let kept = recorded(&self.ns).await;
        let mut kept: BTreeSet<_> = kept.into_iter().map(|(at, start, _)| (at, start)).collect();
        let mut newest: BTreeMap<&Slot, u64> = BTreeMap::new();
        for (at, start) in self.cited.keys() {
            newest.insert(at, *start);
        }
        for (at, start) in newest {
            let found = self.ns.tree.lookup(Ino(at.0), at.1.as_bytes()).await;
            if found.unwrap().is_some() {
                kept.insert((at.clone(), start));
            }
        }
        let mut bytes = 0;
        for ((at, start), len) in &self.cited {
            let is_journal = *len == 4_000;
            let later = |(of, then): &(Slot, u64)| of == at && then >= start;
            let appended = self.cited.range((at.clone(), start + 1)..).next();
            let has_appended = appended.is_some_and(|((of, _), len)| of == at && *len == 4_000);
            let is_shown = match is_journal || has_appended {
                true => kept.iter().any(later),
                false => kept.contains(&(at.clone(), *start)),
            };
            bytes += if is_shown { *len } else { 0 };
        }
        bytes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_month_of_work_data_rows_and_log_are_bounded_by_what_is_kept() {
    let cluster = TestCluster::new("economy");
    let limits = CheckpointLimits {
        min_bytes: LOG_MIN,
        ..CheckpointLimits::default()
    };
    let ns = cluster.open_with(limits).await;
    let mut directories = vec![ROOT];
    for name in [b"d", b"e", b"f"] {
        directories.push(mkdir(&ns, ROOT, name).await);
    }
    let mut month = Month {
        cluster,
        ns,
        rng: SeededRng(1),
        directories,
        cited: BTreeMap::new(),
    };
    for _ in 0..30 {
        for _ in 0..40 {
            month.cluster.env.advance(8 * 60 * SECOND);
            let number = month.rng.below(60);
            month.work(number).await;
        }
        // The work took five hours, and garbage collection will take four.
        month.cluster.env.advance(15 * HOUR);
        prune(&month.ns).await;
        settle(&month.ns, &month.cluster).await;
        while month.ns.gc.checkpoint_step().await.unwrap() == CheckpointOutcome::Moved {}
    }
    let (cited, data) = (
        month.cited_bytes().await,
        objects(&month.cluster, "data").await,
    );
    assert!(
        data * 10 <= cited * 12,
        "{data} bytes of data, {cited} cited"
    );
    assert!(
        data * 10 >= cited * 9,
        "{data} bytes of data, {cited} cited"
    );
    let kept = recorded(&month.ns).await.len() as u64;
    let (rows, log) = (
        row_bytes(&month.ns).await,
        objects(&month.cluster, "log").await,
    );
    let states = kept + month.ns.tree.usage().files;
    assert!(
        rows <= states * ROW_BYTES,
        "{rows} bytes of rows, {states} states"
    );
    assert!(
        log <= states * LOG_BYTES + LOG_MIN,
        "{log} bytes of log, {states} states"
    );
    leave(month.ns).await;
}

/// A file that is rewritten all the time.
struct Rewritten {
    cluster: TestCluster,
    ns: Namespace,
    /// Bytes of the rows of an empty namespace.
    empty: u64,
    every: u64,
}

impl Rewritten {
    /// Rewrites the file for a day. Each save is in the bucket before the next one, in a segment of its own, as saves are that are a second
    /// apart.
    async fn save_for_a_day(&self, day: u64) {
        let (core, queue) = (&self.ns.core, &self.ns.tree.commit.queue);
        // The uploader does not wait for further saves, and no save waits for the bucket, which would make its bytes a part of a row.
        let draining = core.health.drain();
        for number in 0..DAY / self.every {
            let text = format!("{day}-{number}");
            save(&self.ns, ROOT, b"f", text.as_bytes()).await;
            loop {
                let changed = core.changed.notified();
                if queue.not_uploaded().is_empty() {
                    break;
                }
                changed.await;
            }
            self.cluster.env.advance(self.every);
        }
        drop(draining);
        self.ns.drain().await.unwrap();
    }

    /// Prunes, and returns how many versions that dropped.
    async fn prune(&self) -> u64 {
        let before = self.ns.rows_read();
        let report = self.ns.retention.run(DROP).await.unwrap();
        let read = self.ns.rows_read() - before;
        // Beside the eight of each version, once for a run: policies, horizons, and the hours in which something changed.
        assert!(read <= 8 * report.examined() + 400, "{read}: {report:?}");
        report.dropped.versions
    }

    async fn collect_garbage(&self) {
        self.ns.drain().await.unwrap();
        self.ns.gc.reclaim().await.unwrap();
        self.ns.drain().await.unwrap();
    }

    async fn rows(&self) -> u64 {
        row_bytes(&self.ns).await - self.empty
    }

    /// The tables with more rows than the versions need of which `kept` have ended.
    async fn leaked(&self, kept: u64) -> Vec<String> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let rows = self.ns.core.index.stored();
        let mut scan = rows.scan("C".into().."I".into()).await.unwrap();
        while let Some((key, _)) = scan.next().await.unwrap() {
            let table = String::from_utf8(key[..2].to_vec()).unwrap();
            *counts.entry(table).or_default() += 1;
        }
        let needed = |table: &str| match table {
            "HV" | "GX" => kept,
            "CF" | "GR" | "GB" => kept + 1,
            "Gh" => 25 * 7 + 1,
            "GD" | "GE" => 0,
            _ => 10,
        };
        counts.retain(|table, count| *count > needed(table));
        counts.into_keys().collect()
    }

    /// Lists the versions of the file, and looks some of them up. Returns how many have ended.
    async fn list(&self) -> u64 {
        let (ns, view) = (&self.ns, self.ns.history.view());
        let before = ns.rows_read();
        let all = view.versions(ROOT, b"f").await.unwrap();
        let read = ns.rows_read() - before;
        assert!(read <= all.len() as u64 + 1, "{read} rows for a list");
        for entry in all.iter().step_by(all.len() / 10) {
            let (before, at) = (ns.rows_read(), entry.version.timestamp);
            let found = view.file_version(ROOT, b"f", at..=at).await.unwrap();
            assert_eq!(found.as_ref(), Some(entry));
            let read = ns.rows_read() - before;
            assert!(read <= 3, "{read} rows for one version");
        }
        all.len() as u64 - 1
    }
}

/// Each second in the long mode.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_rewritten_all_the_time_for_a_week_is_listed_and_costs_what_the_page_says() {
    let every = match std::env::var_os("REWINDFS_TEST_LONG") {
        Some(_) => SECOND,
        None => 60 * SECOND,
    };
    let cluster = TestCluster::new("economy-week");
    let ns = cluster.open().await;
    let empty = row_bytes(&ns).await;
    let file = Rewritten {
        cluster,
        ns,
        empty,
        every,
    };
    for day in 0..7 {
        file.save_for_a_day(day).await;
        let dropped = file.prune().await;
        file.collect_garbage().await;
        let (kept, rows) = (file.list().await, file.rows().await);
        // Those of the last day, one each hour, and the last three.
        assert!(
            kept <= DAY / every + 25 * (day + 1) + 3,
            "{kept} after {day}"
        );
        println!("day {day}: {dropped} dropped, {kept} kept, {rows} bytes of rows");
        assert!(
            rows <= SMALL_ROW_BYTES * (kept + 1) + DEAD_ROW_BYTES * dropped,
            "{rows} bytes, {kept} kept, {dropped} dropped just now"
        );
        // The segments of what was dropped are deleted an hour later.
        file.cluster.env.advance(HOUR + SECOND);
        file.collect_garbage().await;
        let rows = file.rows().await;
        println!("an hour later {rows}, {} each", rows / (kept + 1));
        assert!(
            rows <= SMALL_ROW_BYTES * (kept + 1),
            "{rows} bytes, {kept} kept"
        );
        assert_eq!(file.leaked(kept).await, [""; 0], "{kept} kept");
    }
    leave(file.ns).await;
}
