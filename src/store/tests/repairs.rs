//! What a check finds in rows and objects that a test has really changed, what a repair mends, and that a second check is sound.

use std::time::Duration;

use super::reclaim::{ids, settle};
use super::undelete::{bring, remove};
use super::*;
use crate::meta::{Batch, Change};
use crate::store::schema::amounts;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{DirectoryRow, InodeRow, SegmentRow};
use crate::store::schema::tables::{InodeTable, LabelTable, RowTable, SegmentTable};

const FORTY_DAYS: Duration = Duration::from_secs(40 * 86_400);

fn with_data(data: DataReads) -> CheckConfig {
    CheckConfig {
        data,
        // Every object is older than the grace period.
        now_ns: u64::MAX,
        ..CheckConfig::default()
    }
}

async fn checked(cluster: &TestCluster, data: DataReads) -> CheckReport {
    let config = with_data(data);
    let checked = check_log(&cluster.backend, "default", &config, |_| {});
    checked.await.unwrap()
}

async fn repaired(cluster: &TestCluster, data: DataReads) -> RepairReport {
    let ns = cluster.open().await;
    let report = repair(&ns, &with_data(data), |_| {}).await.unwrap();
    leave(ns).await;
    report
}

#[track_caller]
fn sound(report: &CheckReport) {
    assert!(report.is_sound(), "{report:#?}");
}

/// Whether the log has a planted change, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    /// In the index only: the log has the row as it was.
    Index,
    /// The log begins again with a list of all rows after the change.
    IndexAndLog,
}

/// Changes the first row for which `change` returns something, below the commit queue.
async fn plant(
    cluster: &TestCluster,
    planted: Planted,
    change: impl Fn(&Bytes, &Bytes) -> Option<Change>,
) {
    let ns = cluster.open().await;
    ns.drain().await.unwrap();
    let rows = ns.core.index.rows();
    let mut all = rows.scan("C".into().."I".into()).await.unwrap();
    let (mut batch, mut key_changed) = (Batch::new(), None);
    while let Some((key, value)) = all.next().await.unwrap() {
        match change(&key, &value) {
            None => continue,
            Some(Change::Put(value)) => batch.put(key.clone(), value),
            Some(Change::Delete) => batch.delete(key.clone()),
            Some(Change::Merge(operand)) => batch.merge(key.clone(), operand),
        }
        key_changed = Some(key);
        break;
    }
    println!("planted at {key_changed:?}, {planted:?}");
    assert!(key_changed.is_some(), "no row fits");
    let index = ns.core.index.writer().unwrap();
    let commit = index.commit(batch).await.unwrap();
    index.durable(commit).await.unwrap();
    if planted == Planted::IndexAndLog {
        // A new mount has the changed rows in its snapshots.
        leave(ns).await;
        let ns = cluster.open().await;
        ns.gc.log_anew().await.unwrap();
        leave(ns).await;
        return;
    }
    leave(ns).await;
}

fn of(table: &'static [u8; 2]) -> impl Fn(&Bytes) -> bool {
    move |key| key.starts_with(table)
}

/// Deletes the first row of a table, not one of the root directory, without which a mount makes a new root.
fn deleted(table: &'static [u8; 2]) -> impl Fn(&Bytes, &Bytes) -> Option<Change> {
    move |key, value| {
        let is_root = match table {
            b"CD" => keys::leading_ino(key) == Some(Ino(0)),
            b"CI" => {
                !matches!(InodeTable::decode(value), Ok(InodeRow::Directory(_)))
                    || keys::leading_ino(key) == Some(ROOT)
            }
            _ => false,
        };
        (of(table)(key) && !is_root).then_some(Change::Delete)
    }
}

fn text(file: usize, version: usize) -> Vec<u8> {
    format!("file {file}, version {version};")
        .repeat(500)
        .into_bytes()
}

/// Three files in a directory with three versions each, each version in a segment of its own, a hard link, and a label.
async fn prepared(name: &str) -> TestCluster {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    let node = new_node(Kind::Directory);
    let dir = ns.tree.create(ROOT, b"dir", node, &author()).await.unwrap();
    for version in 0..3 {
        for file in 0..3 {
            let name = format!("file-{file}");
            save(&ns, dir.ino, name.as_bytes(), &text(file, version)).await;
            ns.drain().await.unwrap();
        }
    }
    let linked = save(&ns, ROOT, b"linked", &text(9, 0)).await;
    let by = author();
    let made = ns.tree.link(linked, dir.ino, b"other", &by);
    made.await.unwrap();
    save(&ns, ROOT, b"linked", &text(9, 1)).await;
    let author = author();
    let label = ns.history.create_label(ROOT, b"label", None, &author);
    label.await.unwrap();
    ns.drain().await.unwrap();
    leave(ns).await;
    sound(&checked(&cluster, DataReads::All).await);
    cluster
}

async fn directory(ns: &Namespace) -> Ino {
    ns.tree.lookup(ROOT, b"dir").await.unwrap().unwrap().ino
}

/// Reads every version of every file, and collects garbage after every grace period. Returns the versions that cannot be read.
async fn unreadable(cluster: &TestCluster) -> Vec<String> {
    let ns = cluster.open().await;
    let mut bad = Vec::new();
    for _ in 0..2 {
        bad.clear();
        let dir = directory(&ns).await;
        for file in 0..3 {
            let name = format!("file-{file}");
            let versions = ns.history.view().versions(dir, name.as_bytes()).await;
            let versions = versions.unwrap();
            assert_eq!(versions.len(), 3, "{name}");
            for (number, version) in versions.iter().enumerate() {
                match ns.history.read_past(version, 0, u32::MAX).await {
                    Ok(bytes) => assert!(bytes == text(file, number), "{name}, {number}"),
                    Err(StoreError::Corrupt(_)) => bad.push(format!("{name}, version {number}")),
                    Err(error) => panic!("{name}, {number}: {error}"),
                }
            }
        }
        assert_eq!(content(&ns, dir, b"other").await, Some(text(9, 1)));
        settle(&ns, cluster).await;
        cluster.env.advance(FORTY_DAYS.as_nanos() as u64);
    }
    leave(ns).await;
    bad
}

/// Repairs, and fails unless all is readable and a second check is sound.
async fn whole_after_repair(cluster: &TestCluster) -> RepairReport {
    let report = repaired(cluster, DataReads::Skipped).await;
    assert!(report.left.is_empty(), "{report:#?}");
    sound(&checked(cluster, DataReads::All).await);
    assert_eq!(unreadable(cluster).await, Vec::<String>::new());
    sound(&checked(cluster, DataReads::All).await);
    let again = repaired(cluster, DataReads::Skipped).await;
    assert!(again.is_unchanged(), "{again:#?}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_index_lacks_are_found_and_put_back_from_the_log() {
    let tables: [&'static [u8; 2]; 9] = [
        b"CF", b"CD", b"CI", b"CN", b"HV", b"HB", b"GB", b"GR", b"GT",
    ];
    let origin = prepared("lacking").await;
    for table in tables {
        let cluster = origin.fork().await;
        plant(&cluster, Planted::Index, deleted(table)).await;
        let found = checked(&cluster, DataReads::Skipped).await;
        assert!(found.differing.count >= 1, "{table:?}: {found:#?}");
        let report = whole_after_repair(&cluster).await;
        assert_eq!(report.put_back.count, 1, "{table:?}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_were_raised_or_lowered_are_set_to_the_recount() {
    type Raise = fn(&Bytes, &Bytes, i64) -> Option<Change>;
    let raises: [Raise; 4] = [
        |key, _, by| of(b"GR")(key).then(|| Change::Merge(rows::encode(&by))),
        |key, value, by| {
            let row: Option<SegmentRow> =
                of(b"GB")(key).then(|| SegmentTable::decode(value).unwrap());
            let (offset, (len, _)) = row?.extents.pop_first()?;
            let mut operand = SegmentRow::default();
            operand.extents.insert(offset, (len, by));
            Some(Change::Merge(rows::encode(&operand)))
        },
        |key, _, by| {
            let stored = *key == amounts::stored().bytes();
            stored.then(|| Change::Merge(rows::encode(&by)))
        },
        |key, value, by| {
            let row = of(b"CI")(key).then(|| InodeTable::decode(value).unwrap());
            let Some(InodeRow::Directory(_)) = row else {
                return None;
            };
            let operand = DirectoryRow {
                entries: by,
                ..DirectoryRow::default()
            };
            Some(Change::Merge(rows::encode(&InodeRow::Directory(operand))))
        },
    ];
    let origin = prepared("raised").await;
    for (number, raise) in raises.into_iter().enumerate() {
        for by in [3, -1] {
            for planted in [Planted::Index, Planted::IndexAndLog] {
                let cluster = origin.fork().await;
                plant(&cluster, planted, |key, value| raise(key, value, by)).await;
                let found = checked(&cluster, DataReads::Skipped).await;
                let wrong = found.miscounted.count + found.disagreeing.count;
                assert_eq!(wrong, 1, "{number} {by} {planted:?}: {found:#?}");
                let differs = u64::from(planted == Planted::Index);
                assert_eq!(found.differing.count, differs, "{found:#?}");
                let report = whole_after_repair(&cluster).await;
                let mended = report.recounted.count + report.names.count;
                assert_eq!(mended, 1, "{number} {by} {planted:?}: {report:#?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_filings_are_mended_from_other_rows_where_the_log_lacks_them_too() {
    let tables: [&'static [u8; 2]; 5] = [b"CN", b"CI", b"HB", b"GT", b"GB"];
    let origin = prepared("agreeing").await;
    for table in tables {
        let cluster = origin.fork().await;
        plant(&cluster, Planted::IndexAndLog, deleted(table)).await;
        let found = checked(&cluster, DataReads::Skipped).await;
        assert!(found.differing.is_empty(), "{table:?}: {found:#?}");
        assert!(!found.is_sound(), "{table:?}: {found:#?}");
        let report = whole_after_repair(&cluster).await;
        assert!(report.put_back.is_empty(), "{table:?}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_only_the_index_has_is_kept_and_logged() {
    let cluster = prepared("extra").await;
    plant(&cluster, Planted::Index, |key, value| {
        let row = of(b"GS")(key).then(|| LabelTable::decode(value).unwrap());
        let mut row = row?;
        row.host = "another".to_owned();
        Some(Change::Put(rows::encode(&row)))
    })
    .await;
    let report = whole_after_repair(&cluster).await;
    assert_eq!(report.kept.count, 1, "{report:#?}");
    assert_eq!(report.log, LogRepair::BegunAnew);
}

/// How an object is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Lost,
    Emptied,
    Halved,
    Flipped,
}

async fn harm(cluster: &TestCluster, key: &str, harm: Harm) -> Bytes {
    let backend = cluster.backend();
    let whole = backend.get(key).await.unwrap();
    let mut bytes = whole.to_vec();
    match harm {
        Harm::Lost => {
            backend.delete(key).await.unwrap();
            return whole;
        }
        Harm::Emptied => bytes.clear(),
        Harm::Halved => bytes.truncate(whole.len() / 2),
        Harm::Flipped => bytes[whole.len() / 3] ^= 0x20,
    }
    backend.put(key, bytes.into()).await.unwrap();
    whole
}

fn paths(findings: &Findings) -> Vec<(String, bool)> {
    let named = findings.named.iter();
    let path = |finding: &Finding| match &finding.subject {
        Subject::Path { path, version } => (path.clone(), version.is_some()),
        other => panic!("no path: {other:?}"),
    };
    named.map(path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_marks_its_versions_and_an_older_one_is_offered() {
    for how in [Harm::Lost, Harm::Emptied, Harm::Halved, Harm::Flipped] {
        let data = match how {
            Harm::Flipped => DataReads::All,
            _ => DataReads::Skipped,
        };
        let cluster = prepared("segments").await;
        let segments = cluster.backend().list("data").await.unwrap();
        // The segment of the newest version of the last file.
        let key = segments[8].key.clone();
        let whole = harm(&cluster, &key, how).await;
        if how == Harm::Flipped {
            sound(&checked(&cluster, DataReads::Skipped).await);
        }
        let found = checked(&cluster, data).await;
        assert!(!found.is_sound(), "{how:?}");
        assert_eq!(paths(&found.lost), [("dir/file-2".to_owned(), true)]);
        let finding = &found.lost.named[0];
        assert!(finding.what.contains(&key), "{finding:?}");
        let ns = cluster.open().await;
        let dir = directory(&ns).await;
        let versions = ns.history.view().versions(dir, b"file-2").await.unwrap();
        assert_eq!(finding.intact, Some(versions[1].version.timestamp));
        leave(ns).await;

        let report = repaired(&cluster, data).await;
        assert_eq!((report.newly_marked, report.damaged.count), (1, 1));
        assert_eq!(report.damaged.named[0].intact, finding.intact);
        let second = checked(&cluster, DataReads::All).await;
        sound(&second);
        assert_eq!((second.lost.count, second.marked.count), (0, 1));
        assert_eq!(unreadable(&cluster).await, ["file-2, version 2"]);
        let ns = cluster.open().await;
        let damage = ns.history.damage_of(&versions[2]).await.unwrap().unwrap();
        assert_eq!(damage.bytes, text(2, 2).len() as u64);
        assert_eq!(ns.history.damage_of(&versions[1]).await.unwrap(), None);
        leave(ns).await;
        assert!(repaired(&cluster, data).await.is_unchanged());

        // The object comes back.
        cluster.backend().put(&key, whole).await.unwrap();
        let report = repaired(&cluster, data).await;
        assert_eq!((report.unmarked, report.damaged.count), (1, 0));
        let third = checked(&cluster, DataReads::All).await;
        sound(&third);
        assert_eq!(third.marked.count, 0);
        assert_eq!(unreadable(&cluster).await, Vec::<String>::new());
    }
}

async fn overwrite(ns: &Namespace, name: &[u8], offset: u64, bytes: Vec<u8>) {
    let ino = ns.tree.lookup(ROOT, name).await.unwrap().unwrap().ino;
    let file = ns.tree.file(ino).await.unwrap();
    let by = author();
    let written = file.write(offset, bytes.into(), &by);
    written.await.unwrap();
    close(&file).await;
    drop(file);
    ns.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_in_copies_and_not_in_what_was_written_over_it() {
    let cluster = TestCluster::new("copies");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"large", &vec![7; 8 << 20]).await;
    ns.drain().await.unwrap();
    // The undeleted file shares the content, and a write behind the first range begins a lineage over it.
    remove(&ns, ROOT, b"large").await;
    bring(&ns, (ROOT, "large"), (ROOT, "large")).await.unwrap();
    overwrite(&ns, b"large", 8 << 20, vec![6; 1 << 20]).await;
    overwrite(&ns, b"large", 0, vec![8; 8 << 20]).await;
    let versions = ns.history.view().versions(ROOT, b"large").await.unwrap();
    assert_eq!(versions.len(), 4);
    leave(ns).await;
    // The first segment has bytes of the first version alone.
    let segments = cluster.backend().list("data").await.unwrap();
    harm(&cluster, &segments[0].key, Harm::Lost).await;
    let found = checked(&cluster, DataReads::All).await;
    let mut damaged: Vec<Option<Timestamp>> = Vec::new();
    for finding in &found.lost.named {
        let Subject::Path { path, version } = &finding.subject else {
            panic!("{finding:?}");
        };
        assert_eq!((path.as_str(), finding.intact), ("large", None));
        damaged.push(*version);
    }
    damaged.sort();
    let began = |version: &PastEntry| Some(version.version.timestamp);
    let expected: Vec<_> = versions[..3].iter().map(began).collect();
    assert_eq!(
        damaged, expected,
        "all but the last version show the lost bytes"
    );
    let report = repaired(&cluster, DataReads::Skipped).await;
    assert_eq!(report.damaged.count, 3, "{report:#?}");
    sound(&checked(&cluster, DataReads::All).await);
    let ns = cluster.open().await;
    let now = content(&ns, ROOT, b"large").await.unwrap();
    assert!(now[..8 << 20].iter().all(|byte| *byte == 8));
    assert!(now[8 << 20..].iter().all(|byte| *byte == 6));
    // The other range of a damaged version is read.
    let last = ns.history.read_past(&versions[2], 8 << 20, u32::MAX).await;
    assert_eq!(last.unwrap(), vec![6; 1 << 20]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_damaged_object_begins_again() {
    let origin = prepared("logs").await;
    let log = origin.backend().list("log").await.unwrap();
    assert!(log.len() >= 5, "{log:?}");
    for info in [&log[0], &log[log.len() / 2], &log[log.len() - 1]] {
        for how in [Harm::Lost, Harm::Emptied, Harm::Halved, Harm::Flipped] {
            let cluster = origin.fork().await;
            harm(&cluster, &info.key, how).await;
            let report = repaired(&cluster, DataReads::Skipped).await;
            let is_last = info.key == log[log.len() - 1].key;
            if !is_last || how != Harm::Lost {
                assert_eq!(report.log, LogRepair::BegunAnew, "{} {how:?}", info.key);
                assert!(report.log_objects.count >= 1, "{report:#?}");
            }
            assert!(report.left.is_empty(), "{report:#?}");
            sound(&checked(&cluster, DataReads::All).await);
            assert_eq!(unreadable(&cluster).await, Vec::<String>::new());
            assert!(repaired(&cluster, DataReads::Skipped).await.is_unchanged());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_a_crash_ended_goes_on() {
    use failpoints::Failpoint;
    let origin = prepared("crashes").await;
    let segments = origin.backend().list("data").await.unwrap();
    harm(&origin, &segments[8].key, Harm::Lost).await;
    let log = origin.backend().list("log").await.unwrap();
    harm(&origin, &log[2].key, Harm::Flipped).await;
    plant(&origin, Planted::Index, |key, _| {
        of(b"GR")(key).then(|| Change::Merge(rows::encode(&2_i64)))
    })
    .await;
    for step in [Failpoint::Commit, Failpoint::Flush, Failpoint::Log] {
        for wiped in [false, true] {
            let cluster = origin.fork().await;
            let ns = cluster.open().await;
            ns.drain().await.unwrap();
            set_failpoint(&ns, Some(step));
            let config = with_data(DataReads::Skipped);
            let halted = repair(&ns, &config, |_| {});
            let halted = tokio::time::timeout(Duration::from_secs(2), halted).await;
            assert!(halted.is_err(), "{step:?}: {halted:?}");
            let cluster = cluster.kill(ns).await;
            if wiped {
                cluster.wipe();
            }
            let report = repaired(&cluster, DataReads::Skipped).await;
            assert!(report.left.is_empty(), "{report:#?}");
            let second = checked(&cluster, DataReads::All).await;
            sound(&second);
            assert_eq!(second.marked.count, 1, "{step:?} {wiped}: {second:#?}");
            assert_eq!(unreadable(&cluster).await, ["file-2, version 2"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_that_garbage_collection_has_copied_are_found_where_they_are() {
    let cluster = TestCluster::new("moved");
    let ns = cluster.open().await;
    let (kept, gone) = (vec![1; 100 << 10], vec![2; 200 << 10]);
    // Both are uploaded together, in one segment.
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    save(&ns, ROOT, b"kept", &kept).await;
    save(&ns, ROOT, b"gone", &gone).await;
    set_failpoint(&ns, None);
    ns.drain().await.unwrap();
    let version = ids(&ns, b"gone").await[0];
    ns.history
        .delete_version(ROOT, b"gone", version)
        .await
        .unwrap();
    settle(&ns, &cluster).await;
    assert_eq!(reclaim::rows_of(&ns, b"GM").await, 1);
    leave(ns).await;
    let found = checked(&cluster, DataReads::All).await;
    sound(&found);
    assert_eq!(found.verified, kept.len() as u64);
    // The copy is damaged.
    let segments = cluster.backend().list("data").await.unwrap();
    assert_eq!(segments.len(), 1);
    harm(&cluster, &segments[0].key, Harm::Flipped).await;
    let found = checked(&cluster, DataReads::All).await;
    assert_eq!(paths(&found.lost), [("kept".to_owned(), true)]);
    let report = repaired(&cluster, DataReads::All).await;
    assert_eq!(report.damaged.count, 1);
    sound(&checked(&cluster, DataReads::All).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_counted_and_are_no_damage() {
    let cluster = prepared("orphans").await;
    let before = checked(&cluster, DataReads::Skipped).await.orphans;
    let stray = Bytes::from_static(&[9; 1000]);
    let key = "data/00000/001/fff/fff/fff";
    cluster.backend().put(key, stray.clone()).await.unwrap();
    let found = checked(&cluster, DataReads::All).await;
    sound(&found);
    let unknown = found.orphans.unknown_segments;
    let more = (
        unknown.count - before.unknown_segments.count,
        unknown.bytes - before.unknown_segments.bytes,
    );
    assert_eq!(more, (1, 1000));
    assert!(repaired(&cluster, DataReads::Skipped).await.is_unchanged());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_and_a_lineage_that_garbage_collection_does_not_know_are_given_to_it() {
    let cluster = prepared("leaks").await;
    let leaked = SegmentId {
        epoch: 1,
        sequence: 0xfff_ffff,
    };
    let stray = Bytes::from_static(&[9; 1000]);
    cluster.backend().put(&leaked.key(), stray).await.unwrap();
    let ns = cluster.open().await;
    let mut txn = ns.gc.gc_txn(Vec::new());
    let segment = keys::segment(leaked.epoch, leaked.sequence);
    txn.put(segment, &SegmentRow::default());
    let range = keys::range(1 << 40, 0, Timestamp(7));
    txn.put(range, &rows::RangeRow::Whole(Vec::new()));
    ns.commit.enqueue(txn).unwrap();
    ns.drain().await.unwrap();
    leave(ns).await;
    let found = checked(&cluster, DataReads::All).await;
    sound(&found);
    assert_eq!(found.orphans.leaked_segments.bytes, 1000);
    assert_eq!(found.orphans.leaked_lineages.count, 1);
    let report = repaired(&cluster, DataReads::Skipped).await;
    assert_eq!(report.queued, 2, "{report:#?}");
    let found = checked(&cluster, DataReads::All).await;
    sound(&found);
    assert_eq!(found.orphans.leaked_segments.count, 0);
    assert_eq!(found.orphans.waiting_segments.bytes, 1000);
    assert_eq!(unreadable(&cluster).await, Vec::<String>::new());
    let left = checked(&cluster, DataReads::All).await;
    sound(&left);
    assert_eq!(left.orphans.waiting_lineages.count, 0);
    let gone = cluster.backend().get(&leaked.key()).await;
    assert!(gone.is_err(), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_the_same_within_any_memory_limit() {
    let cluster = prepared("limits").await;
    let segments = cluster.backend().list("data").await.unwrap();
    for at in [1, 4, 8] {
        harm(&cluster, &segments[at].key, Harm::Lost).await;
    }
    let mut reports = Vec::new();
    for memory in [500, 1 << 20] {
        let mut config = with_data(DataReads::All);
        config.spill.memory = memory;
        let checked = check_log(&cluster.backend, "default", &config, |_| {});
        reports.push(checked.await.unwrap());
    }
    assert_eq!(reports[0].lost.count, 3, "{:#?}", reports[0]);
    assert_eq!(reports[0], reports[1]);
}
