//! Checkpoints of the log: crashes between any two steps, what is deleted and when, and the size of the log.

use super::reclaim::{ids, segments, settle};
use super::*;
use crate::store::commit::log::{ListPart, PartUpload};
use crate::store::commit::log_object::LogBase;
use crate::store::commit::row_list;
use crate::store::gc::checkpoint::CheckpointOutcome;
use crate::store::gc::state::CheckpointStage;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{CheckpointRow, LogPlace, UncitedRow, UncitedWait};

/// A namespace with rows of many kinds, all of them logged.
async fn planted(name: &str) -> (TestCluster, Namespace) {
    let cluster = TestCluster::new(name);
    let limits = CheckpointLimits {
        part_bytes: 2 << 10,
        ..CheckpointLimits::default()
    };
    let ns = cluster.open_with(limits).await;
    let node = new_node(Kind::Directory);
    let made = ns.tree.create(ROOT, b"dir", node, &author()).await;
    let dir = made.unwrap().ino;
    for round in 0..3_u8 {
        for file in 0..6_u8 {
            let name = [b'f', b'0' + file];
            save(
                &ns,
                dir,
                &name,
                &vec![file + 1; 1000 * usize::from(round + 1)],
            )
            .await;
        }
        ns.drain().await.unwrap();
    }
    let linked = ns.tree.lookup(dir, b"f1").await.unwrap().unwrap().ino;
    ns.tree
        .link(linked, ROOT, b"link", &author())
        .await
        .unwrap();
    ns.tree.unlink(dir, b"f2", &author()).await.unwrap();
    ns.drain().await.unwrap();
    (cluster, ns)
}

async fn log_objects(cluster: &TestCluster) -> Vec<log_object::LogObject> {
    log_object::read_all(&cluster.backend()).await.unwrap()
}

async fn recorded(ns: &Namespace) -> Option<CheckpointRow> {
    ns.core.index.row(&keys::checkpoint()).await.unwrap()
}

/// Sets the namespace's clock to the host's, because the store dates its objects by the host's clock.
async fn set_clock(cluster: &TestCluster) {
    let listed = cluster.backend().list("data").await.unwrap();
    let newest = listed.iter().map(|o| o.modified_ns).max().unwrap();
    let now = crate::env::Env::now(cluster.env.as_ref());
    cluster.env.advance(newest.saturating_sub(now));
}

/// Changes rows before, in and behind the parts of a list that are logged; the batch is durable and not logged.
async fn change(ns: &Namespace, round: usize) {
    let name = format!("new{}", round % 3);
    save(ns, ROOT, name.as_bytes(), &vec![round as u8 + 1; 2000]).await;
    let linked = ns.tree.lookup(ROOT, b"link").await.unwrap().unwrap().ino;
    let change = AttrChange {
        mode: Some(0o600 + round as u32 % 8),
        ..AttrChange::default()
    };
    ns.tree.set_attrs(linked, change).await.unwrap();
    let all = ns.commit.queue.all();
    ns.commit.wait_all_durable(&all).await.unwrap();
}

/// Mounts a copy of the bucket, with the cache kept or wiped, compares it, and completes another checkpoint there.
async fn crash(cluster: &TestCluster, expected: &[u8], wiped: bool, at: &str) {
    let _context = PanicContext(format!("{at}, cache wiped: {wiped}"));
    let left = cluster.fork().await;
    if wiped {
        left.wipe();
    }
    let ns = left.open().await;
    assert_eq!(content(&ns, ROOT, b"new0").await.unwrap(), expected);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &left).await;
    sound(&ns, &left).await;
    save(&ns, ROOT, b"after", b"the crash").await;
    assert!(
        ns.gc.checkpoint().await.unwrap(),
        "older objects are deleted"
    );
    ns.drain().await.unwrap();
    check::log_twin(&ns, &left).await;
    sound(&ns, &left).await;
    let row = recorded(&ns).await.unwrap();
    let first = log_object::list(&left.backend()).await.unwrap()[0];
    assert_eq!(first.place, row.began);
    leave(ns).await;
    let ns = left.open().await;
    assert_eq!(content(&ns, ROOT, b"after").await.unwrap(), b"the crash");
    check::log_twin(&ns, &left).await;
    leave(ns).await;
}

/// Checks what the commands that read the log say.
async fn sound(ns: &Namespace, cluster: &TestCluster) {
    let config = CheckConfig::default();
    let report = check_log(&cluster.backend, "default", &config, |_| {}).await;
    let report = report.unwrap();
    assert!(report.is_sound() && report.rows > 0, "{report:#?}");
    let shown = show_namespace(&cluster.backend, "default").await.unwrap();
    let (last, applied) = (shown.last.unwrap(), ns.core.applied_now());
    assert_eq!(
        (last.epoch, last.instant_ns, last.files),
        (applied.batch.epoch, applied.clock, applied.files as u64)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_between_any_two_steps_of_a_checkpoint_lose_no_row_and_repeat_none() {
    let (cluster, ns) = planted("checkpoint-steps").await;
    let before = log_objects(&cluster).await.len();
    ns.gc.checkpoint.lock().await.wanted = true;
    let (mut steps, mut stages) = (0, std::collections::BTreeSet::new());
    loop {
        change(&ns, steps).await;
        let stage = format!("{:?}", ns.gc.checkpoint.lock().await.stage);
        let stage = stage.split(['(', ' ']).next().unwrap().to_owned();
        let at = format!("step {steps}, {stage}");
        stages.insert(stage);
        // Logged now in every third round; else the batch waits for the next object.
        if steps % 3 == 0 {
            ns.drain().await.unwrap();
        }
        let expected = content(&ns, ROOT, b"new0").await.unwrap();
        crash(&cluster, &expected, steps % 2 == 0, &at).await;
        if ns.gc.checkpoint_step().await.unwrap() == CheckpointOutcome::Waits {
            break;
        }
        steps += 1;
    }
    assert_eq!(stages.len(), 7, "{stages:?}");
    assert!(steps > 12, "{steps} steps");
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    sound(&ns, &cluster).await;
    let objects = log_objects(&cluster).await;
    let parts = objects
        .iter()
        .filter(|o| o.base == LogBase::Continues)
        .count();
    let between = objects
        .iter()
        .position(|o| o.base == LogBase::Ends)
        .unwrap();
    let batches = objects[..between]
        .iter()
        .filter(|o| o.base == LogBase::Before);
    assert!(parts > 3 && batches.count() > 3, "{before} objects before");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_the_deletion_of_older_objects_is_completed() {
    let (cluster, ns) = planted("checkpoint-trim").await;
    save(&ns, ROOT, b"new0", b"new").await;
    ns.drain().await.unwrap();
    ns.gc.checkpoint.lock().await.wanted = true;
    while !matches!(
        ns.gc.checkpoint.lock().await.stage,
        CheckpointStage::Trimming(_)
    ) {
        ns.gc.checkpoint_step().await.unwrap();
    }
    let began = recorded(&ns).await.unwrap().began;
    let older = log_object::list(&cluster.backend()).await.unwrap();
    let older: Vec<LogPlace> = older
        .iter()
        .map(|o| o.place)
        .filter(|p| *p < began)
        .collect();
    assert!(older.len() > 2, "{older:?}");
    for place in older.iter().step_by(2) {
        let key = log_object::key_of(*place);
        cluster.backend().delete(&key).await.unwrap();
        crash(&cluster, b"new", false, &format!("{key} deleted")).await;
    }
    leave(ns).await;
}

/// The raw bytes of all log objects, one behind the other.
async fn log_bytes(cluster: &TestCluster) -> Vec<u8> {
    let mut all = Vec::new();
    for object in cluster.backend().list("log").await.unwrap() {
        all.extend_from_slice(&cluster.backend().get(&object.key).await.unwrap());
    }
    all
}

fn has(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|found| found == wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_no_longer_has_is_in_no_log_object_after_the_next_checkpoint() {
    let (cluster, ns) = planted("checkpoint-secret").await;
    let (name, text) = (b"secret-name", b"secret bytes that an fsync keeps inline");
    let (stat, file) = ns
        .tree
        .create_open(ROOT, name, new_file(), &author())
        .await
        .unwrap();
    assert_eq!(stat.nlink, 1);
    file.write(0, Bytes::from_static(text), &author())
        .await
        .unwrap();
    file.sync(&author()).await.unwrap();
    close(&file).await;
    drop(file);
    ns.tree.unlink(ROOT, name, &author()).await.unwrap();
    ns.drain().await.unwrap();
    let logged = log_bytes(&cluster).await;
    assert!(
        has(&logged, name) && has(&logged, text),
        "rows are logged as they are"
    );
    // Batches of both kinds wait for the log when the checkpoint begins: with the secret, and with its deletion.
    for version in ids(&ns, name).await {
        let deleted = ns.history.delete_version(ROOT, name, version);
        deleted.await.unwrap();
    }
    settle(&ns, &cluster).await;
    forget_rows(&ns, name).await;
    assert!(has(&log_bytes(&cluster).await, text));
    assert!(ns.gc.checkpoint().await.unwrap());
    let logged = log_bytes(&cluster).await;
    assert!(!has(&logged, name), "the name");
    assert!(!has(&logged, text), "the bytes");
    leave(ns).await;
}

/// Deletes every row whose key or value contains `name`.
async fn forget_rows(ns: &Namespace, name: &[u8]) {
    let mut txn = ns.gc.gc_txn(Vec::new());
    let range = Bytes::from_static(b"C")..Bytes::from_static(b"I");
    let mut scan = ns.core.index.rows().scan(range).await.unwrap();
    while let Some((key, value)) = scan.next().await.unwrap() {
        if has(&key, name) || has(&value, name) {
            txn.rows.delete(Bytes::copy_from_slice(&key));
        }
    }
    assert!(!txn.rows.is_empty());
    let _queued = ns.commit.enqueue_if(txn, || true).unwrap();
    let all = ns.commit.queue.all();
    ns.commit.wait_all_durable(&all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_below_a_multiple_of_the_rows() {
    let cluster = TestCluster::new("checkpoint-size");
    let limits = CheckpointLimits {
        factor: 2,
        min_bytes: 256 << 10,
        part_bytes: 8 << 10,
    };
    let ns = cluster.open_with(limits).await;
    let (mut made, mut all) = (0, 0);
    for round in 0..120_u32 {
        save(
            &ns,
            ROOT,
            format!("f{}", round % 5).as_bytes(),
            &round.to_le_bytes(),
        )
        .await;
        ns.drain().await.unwrap();
        all += 1;
        let before = recorded(&ns).await;
        while ns.gc.checkpoint_step().await.unwrap() == CheckpointOutcome::Moved {}
        let row = recorded(&ns).await;
        made += usize::from(row != before);
        let listed = log_object::list(&cluster.backend()).await.unwrap();
        let weight: u64 = listed.iter().map(log_object::ListedObject::weight).sum();
        // The parts of a checkpoint may be smaller than what an object counts as.
        let list = row.map_or(0, |row| row.ended.sequence - row.began.sequence + 1) * (16 << 10);
        let list = list.max(row.map_or(0, |row| row.bytes));
        assert!(
            weight <= list * (1 + limits.factor) + limits.min_bytes + (32 << 10),
            "round {round}: {weight} bytes of log, the last checkpoint has {list}"
        );
    }
    assert!(made >= 3, "{made} checkpoints in {all} rounds");
    check::log_twin(&ns, &cluster).await;
    sound(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_continues_the_count_of_the_mount_before() {
    let cluster = TestCluster::new("checkpoint-mounts");
    let limits = CheckpointLimits {
        factor: 2,
        min_bytes: 256 << 10,
        part_bytes: 8 << 10,
    };
    for round in 0..20_u8 {
        let ns = cluster.open_with(limits).await;
        save(&ns, ROOT, b"f", &[round]).await;
        ns.drain().await.unwrap();
        while ns.gc.checkpoint_step().await.unwrap() == CheckpointOutcome::Moved {}
        ns.drain().await.unwrap();
        if let Some(row) = recorded(&ns).await {
            assert!(round > 5, "after round {round}");
            assert_eq!(
                log_object::list(&cluster.backend()).await.unwrap()[0].place,
                row.began
            );
            check::log_twin(&ns, &cluster).await;
            return leave(ns).await;
        }
        leave(ns).await;
    }
    panic!("no checkpoint in 20 mounts");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_begins_again_when_a_checkpoint_deletes_what_it_reads() {
    let (cluster, ns) = planted("checkpoint-check").await;
    // More objects than are fetched together, so that some are deleted before they are read.
    for round in 0..40_u8 {
        save(&ns, ROOT, b"f", &[round]).await;
        ns.drain().await.unwrap();
    }
    let once = std::sync::atomic::AtomicBool::new(true);
    let mut config = CheckConfig::default();
    config.spill.memory = 500;
    config.patience = std::time::Duration::from_secs(60);
    let step = |step| {
        let first = once.swap(false, std::sync::atomic::Ordering::SeqCst);
        if first && matches!(step, CheckStep::Log { .. }) {
            tokio::task::block_in_place(|| {
                let runtime = tokio::runtime::Handle::current();
                assert!(runtime.block_on(ns.gc.checkpoint()).unwrap());
                runtime.block_on(ns.drain()).unwrap();
            });
        }
    };
    let report = check_log(&cluster.backend, "default", &config, step)
        .await
        .unwrap();
    assert!(!once.into_inner());
    assert!(report.is_sound(), "{report:#?}");
    sound(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_kept_while_it_cites_a_segment_that_the_index_does_not() {
    let (cluster, ns) = planted("checkpoint-only").await;
    save(&ns, ROOT, b"large", &[7; 20_000]).await;
    ns.drain().await.unwrap();
    let key = segments(&cluster).await.pop().unwrap();
    let id = SegmentId::from_key(&key).unwrap();
    let mut batch = crate::meta::Batch::new();
    keys::segment(id.epoch, id.sequence).delete(&mut batch);
    let _commit = ns.core.index.writer().unwrap().commit(batch).await.unwrap();
    leave(ns).await;
    set_clock(&cluster).await;
    for round in 0..3 {
        let ns = cluster.open().await;
        cluster.env.advance(40 * 24 * 3600 * 1_000_000_000);
        assert!(!ns.gc.checkpoint().await.unwrap(), "round {round}");
        let log = log_object::list(&cluster.backend()).await.unwrap();
        assert_eq!(
            log[0].place,
            LogPlace {
                epoch: 1,
                sequence: 1
            }
        );
        ns.gc.reclaim().await.unwrap();
        assert!(segments(&cluster).await.contains(&key));
        let told = ns.tree.pending().failures.join("\n");
        assert!(
            told.contains("cited by the log and not by the index"),
            "{told}"
        );
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncited_segment_waits_as_long_whatever_happens_to_the_log() {
    const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;
    let (cluster, ns) = planted("checkpoint-uncited").await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    let before = segments(&cluster).await.len();
    save(&ns, ROOT, b"lost", &[9; 20_000]).await;
    while segments(&cluster).await.len() == before {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    set_clock(&cluster).await;
    assert!(
        !ns.gc.checkpoint().await.unwrap(),
        "its upload may have been a moment ago"
    );
    cluster.env.advance(DAY_NS);
    ns.gc.reclaim().await.unwrap();
    assert!(ns.gc.checkpoint().await.unwrap());
    let began = recorded(&ns).await.unwrap().began;
    assert_eq!(
        log_object::list(&cluster.backend()).await.unwrap()[0].place,
        began
    );
    cluster.env.advance(27 * DAY_NS);
    ns.gc.reclaim().await.unwrap();
    assert_eq!(
        segments(&cluster).await.len(),
        before + 1,
        "30 days are not over"
    );
    cluster.env.advance(4 * DAY_NS);
    assert_eq!(ns.gc.reclaim().await.unwrap().segments, 1);
    assert_eq!(segments(&cluster).await.len(), before);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

/// The rows of the index as they are now, as the first part of a list.
async fn part_now(ns: &Namespace) -> ListPart {
    let stored = ns.core.index.stored();
    let part = row_list::part(&*stored, row_list::begin(), usize::MAX).await;
    ListPart {
        base: LogBase::Nothing,
        upto: ns.core.applied_now().batch,
        part: part.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_logged_behind_exactly_the_batches_that_its_rows_have() {
    let (cluster, ns) = planted("checkpoint-order").await;
    let old = part_now(&ns).await;
    change(&ns, 0).await;
    ns.drain().await.unwrap();
    let objects = log_objects(&cluster).await.len();
    let late = ns.commit.log.upload_part(&old, 0).await.unwrap();
    assert!(matches!(late, PartUpload::TooLate), "{late:?}");
    // A batch that is committed and not durable.
    set_failpoint(&ns, Some(failpoints::Failpoint::Flush));
    save(&ns, ROOT, b"new0", b"not durable").await;
    while !ns.commit.queue.all().is_empty() && ns.commit.queue.oldest_without(&[]).is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let new = part_now(&ns).await;
    assert!(new.upto > old.upto);
    let early = ns.commit.log.upload_part(&new, 0).await.unwrap();
    assert!(matches!(early, PartUpload::TooEarly), "{early:?}");
    assert_eq!(log_objects(&cluster).await.len(), objects);
    set_failpoint(&ns, None);
    let all = ns.commit.queue.all();
    ns.commit.wait_all_durable(&all).await.unwrap();
    change(&ns, 1).await;
    let logged = ns.commit.log.upload_part(&new, 0).await.unwrap();
    assert!(matches!(logged, PartUpload::Logged(_)), "{logged:?}");
    // The batch in the rows is logged before them, the later one is not logged yet.
    let objects = log_objects(&cluster).await;
    let [.., batches, list] = &objects[..] else {
        panic!("{objects:?}")
    };
    assert_eq!(
        (batches.base, list.base),
        (LogBase::Before, LogBase::Nothing)
    );
    assert_eq!(
        (batches.upto(), list.upto()),
        (Some(new.upto), Some(new.upto))
    );
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_kept_while_it_cites_a_segment_that_was_taken_for_uncited() {
    let (cluster, ns) = planted("checkpoint-again").await;
    let key = segments(&cluster).await.pop().unwrap();
    let id = SegmentId::from_key(&key).unwrap();
    let mut batch = crate::meta::Batch::new();
    keys::segment(id.epoch, id.sequence).delete(&mut batch);
    let row = UncitedRow {
        first_seen: ns.now(),
        bytes: 1,
        wait: UncitedWait::Month,
        log: (
            LogPlace::default(),
            ns.core.index.row(&keys::logged()).await.unwrap().unwrap(),
        ),
    };
    keys::uncited(id.epoch, id.sequence).put(&mut batch, &row);
    let _commit = ns.core.index.writer().unwrap().commit(batch).await.unwrap();
    leave(ns).await;
    let logged = |log: &[log_object::ListedObject]| log[0].place;
    let ns = cluster.open().await;
    let log = log_object::list(&cluster.backend()).await.unwrap();
    set_clock(&cluster).await;
    cluster.env.advance(24 * 3600 * 1_000_000_000);
    let cites = |object: &log_object::LogObject| {
        let batches = object.batches().unwrap();
        batches.iter().any(|b| {
            b.rows()
                .iter()
                .any(|(k, _)| *k == *keys::segment(id.epoch, id.sequence))
        })
    };
    assert!(log_objects(&cluster).await.iter().any(cites));
    assert!(!ns.gc.checkpoint().await.unwrap());
    let after = log_object::list(&cluster.backend()).await.unwrap();
    assert_eq!(logged(&after), logged(&log));
    assert!(
        matches!(
            ns.gc.checkpoint.lock().await.stage,
            CheckpointStage::Searching
        ),
        "the checkpoint is complete and the log before it is kept"
    );
    let told = ns.tree.pending().failures.join("\n");
    assert!(
        told.contains("cited by the log and not by the index"),
        "{told}"
    );
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_kept_while_an_object_of_the_checkpoint_is_missing_and_the_next_one_replaces_it()
{
    let (cluster, ns) = planted("checkpoint-hole").await;
    ns.gc.checkpoint.lock().await.wanted = true;
    while !matches!(
        ns.gc.checkpoint.lock().await.stage,
        CheckpointStage::Searching
    ) {
        ns.gc.checkpoint_step().await.unwrap();
    }
    let row = recorded(&ns).await.unwrap();
    let lost = log_object::key_of(LogPlace {
        sequence: row.began.sequence + 1,
        ..row.began
    });
    cluster.backend().delete(&lost).await.unwrap();
    while ns.gc.checkpoint_step().await.unwrap() == CheckpointOutcome::Moved {}
    let first = |log: Vec<log_object::ListedObject>| log[0].place;
    let log = log_object::list(&cluster.backend()).await.unwrap();
    assert_eq!(
        first(log),
        LogPlace {
            epoch: 1,
            sequence: 1
        }
    );
    let told = ns.tree.pending().failures.join("\n");
    assert!(
        told.contains(&lost) && told.contains("is missing"),
        "{told}"
    );
    ns.drain().await.unwrap();
    let config = CheckConfig::default();
    let report = check_log(&cluster.backend, "default", &config, |_| {}).await;
    assert!(!report.unwrap().damaged.is_empty());
    assert!(ns.gc.checkpoint().await.unwrap());
    let log = log_object::list(&cluster.backend()).await.unwrap();
    assert_eq!(first(log), recorded(&ns).await.unwrap().began);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    sound(&ns, &cluster).await;
    leave(ns).await;
}
