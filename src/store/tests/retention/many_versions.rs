//! What retention and labels cost beside many versions: 1,000,000 in the long mode (`REWINDFS_TEST_LONG=1`).

use super::words::{DAY, HOUR, SECOND};
use super::*;
use crate::store::schema::rows::Filing;
use crate::store::schema::tables::{DentryTable, DueTable, LabelTable, LabelTimeTable};
use crate::store::tests::labels::label;
use crate::store::tests::many_rows::{Template, fill};

/// A bucket in a directory, so that many rows need no memory.
struct Filled {
    cluster: TestCluster,
    _store: tempfile::TempDir,
}

impl Filled {
    fn new() -> Self {
        let store = tempfile::tempdir().unwrap();
        let url = format!("file://{}", store.path().display());
        let cluster = TestCluster::new("many-versions").on(&url);
        Self {
            cluster,
            _store: store,
        }
    }

    /// Adds files with a version each that is due in some years.
    async fn add(&self, files: u64) {
        let ns = self.cluster.open().await;
        let mut template = Template::new(&ns).await;
        let due = Timestamp(ns.now().0 + 2000 * DAY);
        template.closed.filed = Filing::Due(due);
        leave(ns).await;
        fill(&self.cluster.backend(), &template, files).await;
    }
}

async fn count<T: RowTable>(ns: &Namespace) -> u64 {
    let (mut count, end) = (0, keys::after(&T::all()));
    let rows = ns.core.index.stored();
    let mut scan = rows.scan(T::all()..end).await.unwrap();
    while scan.next().await.unwrap().is_some() {
        count += 1;
    }
    count
}

/// Saves a file 61 times, prunes a day later, and returns how many rows that read.
async fn rows_of_a_run(cluster: &TestCluster, ns: &Namespace, name: &[u8]) -> u64 {
    for number in 0..61 {
        save(ns, ROOT, name, number.to_string().as_bytes()).await;
        cluster.env.advance(SECOND);
    }
    cluster.env.advance(DAY + HOUR);
    ns.drain().await.unwrap();
    let before = ns.rows_read();
    let report = ns.retention.run(DROP).await.unwrap();
    assert!((60..63).contains(&report.examined()), "{report:?}");
    ns.rows_read() - before
}

fn files() -> u64 {
    match std::env::var_os("REWINDFS_TEST_LONG") {
        Some(_) => 1_000_000,
        None => 10_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_not_due_cost_a_run_nothing() {
    let filled = Filled::new();
    let ns = filled.cluster.open().await;
    // What the first run of a namespace writes once is no part of the comparison.
    rows_of_a_run(&filled.cluster, &ns, b"f").await;
    let few = rows_of_a_run(&filled.cluster, &ns, b"g").await;
    leave(ns).await;
    filled.add(files()).await;
    let ns = filled.cluster.open().await;
    assert!(count::<DueTable>(&ns).await >= files());
    rows_of_a_run(&filled.cluster, &ns, b"h").await;
    let many = rows_of_a_run(&filled.cluster, &ns, b"i").await;
    assert!(many <= few + 2, "{many} rows beside many, {few} beside few");
    // Beside the eight of each version: policies, labels, horizons and counts, once for a run.
    assert!(many < 60 * 8 + 60, "{many} rows");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_many_files_reads_and_writes_as_few_rows_as_one_of_none() {
    let filled = Filled::new();
    filled.add(files()).await;
    let ns = filled.cluster.open().await;
    assert!(count::<DentryTable>(&ns).await >= files());
    // A change and a drain, so that nothing of the mount is queued any more.
    save(&ns, ROOT, b"f", b"1").await;
    ns.drain().await.unwrap();
    let (rows, puts) = (ns.rows_read(), ns.counters().put);
    label(&ns, ROOT, b"all").await;
    let (rows, puts) = (ns.rows_read() - rows, ns.counters().put - puts);
    // The label, and where it is found by its time.
    assert_eq!(count::<LabelTable>(&ns).await, 1);
    assert_eq!(count::<LabelTimeTable>(&ns).await, 1);
    assert!(rows < 10, "{rows} rows");
    // The write-ahead log of the index once, and once more if its own flush came between.
    assert!(puts <= 2, "{puts} requests");
    leave(ns).await;
}
