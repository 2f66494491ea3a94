//! Rebuild of an index: from the log, from the old index, and from both; with a crash between any two steps.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::labels::{label, mkdir};
use super::*;
use crate::meta::{MetaRead, SlateConfig, SlateFollower};
use crate::store::model::failpoints::STEPS;
use crate::store::schema::manifest::Manifest;
use crate::store::schema::writer_object;

/// Makes the namespace `to` of `default`; the rows do not fit into memory.
pub(super) async fn rebuilt(
    cluster: &TestCluster,
    to: &str,
    on_losses: OnLosses,
) -> Result<RebuildReport, StoreError> {
    rebuilt_from(cluster, "default", to, on_losses).await
}

async fn rebuilt_from(
    cluster: &TestCluster,
    from: &str,
    to: &str,
    on_losses: OnLosses,
) -> Result<RebuildReport, StoreError> {
    let request = RebuildRequest {
        from: from.to_owned(),
        to: to.to_owned(),
        on_losses,
        spill: Spill {
            dir: std::env::temp_dir(),
            memory: 4_000,
        },
    };
    rebuild_namespace(&cluster.backend, &request, cluster.env.as_ref(), |_| {}).await
}

/// Mounts a namespace by its name, with the cache directory of the cluster.
pub(super) async fn try_open_as(
    cluster: &TestCluster,
    name: &str,
) -> Result<Namespace, StoreError> {
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let env: Arc<SeededEnv> = Arc::clone(&cluster.env);
    let config = config(cluster.cache.path().to_owned());
    Namespace::open(&cluster.backend, name, config, env, tasks).await
}

pub(super) async fn open_as(cluster: &TestCluster, name: &str) -> Namespace {
    try_open_as(cluster, name).await.unwrap()
}

/// Deletes every object below a part of the namespace `default`.
pub(super) async fn lose(cluster: &TestCluster, part: &str) {
    for object in cluster.backend().list(part).await.unwrap() {
        cluster.backend().delete(&object.key).await.unwrap();
    }
}

/// All rows of the index of a namespace that no writer has open.
async fn index_rows(cluster: &TestCluster, name: &str) -> BTreeMap<Bytes, Bytes> {
    let store = cluster.backend.child(name).object_store();
    let slate = SlateConfig::new(merge::merge);
    let index = SlateFollower::open(store, "meta", &slate, Duration::from_secs(3600)).await;
    let index = index.unwrap();
    let mut scan = index.scan("C".into().."I".into()).await.unwrap();
    let mut rows = BTreeMap::new();
    while let Some((key, value)) = scan.next().await.unwrap() {
        rows.insert(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
    }
    index.close().await.unwrap();
    rows
}

/// What a namespace shows: names, kinds, sizes, owners, attributes, bytes and all versions of every file, and the labels of every directory.
pub(super) async fn shown(ns: &Namespace) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = vec![(String::new(), ROOT)];
    while let Some((path, directory)) = open.pop() {
        for found in ns.history.view().labels(directory).await.unwrap() {
            lines.push(format!("{path}: {found:?}"));
        }
        let policy = ns.retention.own_policy(directory).await.unwrap();
        lines.push(format!("{path}: policy {policy:?}"));
        for name in ns
            .history
            .view()
            .names_with_versions(directory)
            .await
            .unwrap()
        {
            let all = ns.history.view().versions(directory, &name).await.unwrap();
            for version in all {
                let bytes = match version.kind {
                    Kind::File => ns.history.read_past(&version, 0, u32::MAX).await.unwrap(),
                    _ => Bytes::new(),
                };
                let hash = blake3::hash(&bytes);
                let hold = ns
                    .history
                    .view()
                    .hold_of(version.ino, version.version)
                    .await
                    .unwrap();
                lines.push(format!("{path}/{name:?}: {version:?} {hash} {hold:?}"));
            }
        }
        for (name, stat) in check::names(ns, directory).await {
            let name = String::from_utf8(name).unwrap();
            let mut xattrs = Vec::new();
            for xattr in ns.tree.list_xattrs(stat.ino).await.unwrap() {
                let value = ns.tree.get_xattr(stat.ino, &xattr).await.unwrap();
                xattrs.push((xattr, value));
            }
            let bytes = match stat.kind {
                Kind::File => content(ns, directory, name.as_bytes()).await.unwrap(),
                _ => Vec::new(),
            };
            let hash = blake3::hash(&bytes);
            let (ino, kind, attrs, nlink) = (stat.ino, stat.kind, &stat.attrs, stat.nlink);
            lines.push(format!(
                "{path}/{name} {ino:?} {kind:?} {attrs:?} {nlink} {hash} {xattrs:?}"
            ));
            if stat.kind == Kind::Directory {
                open.push((format!("{path}/{name}"), stat.ino));
            }
        }
    }
    lines
}

/// Files with versions, links, a copy, attributes, labels, a hold and policies, by two writers. Returns what the second one showed last.
pub(super) async fn planted(cluster: &TestCluster) -> Vec<String> {
    let ns = cluster.open().await;
    let set = ns
        .retention
        .set_policy(&Policy::default(), InForce::Now)
        .await;
    set.unwrap();
    let dir = mkdir(&ns, ROOT, b"dir").await;
    for text in ["one", "two", "three"] {
        save(&ns, dir, b"file", text.as_bytes()).await;
    }
    save(&ns, ROOT, b"large", &[7; 3_000_000]).await;
    let linked = save(&ns, ROOT, b"linked", b"linked").await;
    ns.tree
        .link(linked, dir, b"other name", &author())
        .await
        .unwrap();
    label(&ns, dir, b"v1").await;
    leave(ns).await;
    let ns = cluster.open().await;
    let ino = save(&ns, dir, b"synced", b"inline").await;
    let file = ns.tree.file(ino).await.unwrap();
    file.write(6, Bytes::from_static(b" bytes"), &author())
        .await
        .unwrap();
    file.sync(&author()).await.unwrap();
    close(&file).await;
    drop(file);
    let value = Some(Bytes::from_static(b"value"));
    let set = ns
        .tree
        .set_xattr(ino, b"user.key", value, XattrMode::Any)
        .await;
    set.unwrap();
    let versions = ns.history.view().versions(ROOT, b"large").await.unwrap();
    let source = ns.tree.clone_source(&versions[0]);
    let (_, copy) = ns
        .tree
        .create_open(ROOT, b"copy", new_file(), &author())
        .await
        .unwrap();
    copy.clone_range(&source, 0, 0, 3_000_000, &author())
        .await
        .unwrap();
    copy.write(5, Bytes::from_static(b"changed"), &author())
        .await
        .unwrap();
    close(&copy).await;
    drop(copy);
    let versions = ns.history.view().versions(dir, b"file").await.unwrap();
    let until = Timestamp(ns.now().0 + 86_400_000_000_000);
    let slot = DentryRef::new(dir, b"file");
    let held = ns
        .history
        .hold_version(slot, &versions[1], until, &author())
        .await;
    held.unwrap();
    let policy = Policy::of_directory("keep-removed=5d").unwrap();
    let set = ns.retention.set_directory_policy(dir, Some(policy)).await;
    set.unwrap();
    let gone = mkdir(&ns, ROOT, b"gone").await;
    save(&ns, gone, b"file", b"in a removed directory").await;
    ns.tree.unlink(gone, b"file", &author()).await.unwrap();
    ns.tree.rmdir(ROOT, b"gone", &author()).await.unwrap();
    ns.drain().await.unwrap();
    let before = shown(&ns).await;
    leave(ns).await;
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_its_index_is_rebuilt_row_by_row_and_goes_on() {
    let cluster = TestCluster::new("rebuild-all");
    let before = planted(&cluster).await;
    let rows = index_rows(&cluster, "default").await;
    let segments = cluster.backend().list("data").await.unwrap();
    lose(&cluster, "meta").await;
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(
        (report.outcome, report.from, report.rows, report.labels),
        (
            RebuildOutcome::Complete,
            RebuiltFrom::Log,
            rows.len() as u64,
            1
        )
    );
    assert!(
        report.losses.is_empty() && report.wrong_counts == 0,
        "{report:?}"
    );
    assert!(
        report.versions >= 2 && report.newer.segments == 0,
        "{report:?}"
    );
    assert!(index_rows(&cluster, "new").await == rows);
    assert_eq!(cluster.backend().list("data").await.unwrap(), segments);

    let ns = open_as(&cluster, "new").await;
    assert_eq!(shown(&ns).await, before);
    assert_eq!(ns.uuid(), report.uuid);
    save(&ns, ROOT, b"later", b"later").await;
    leave(ns).await;
    let checked = check_log(&cluster.backend, "new", &CheckConfig::default(), |_| {}).await;
    let checked = checked.unwrap();
    assert!(checked.is_sound(), "{checked:?}");

    // A second rebuild, of the rebuilt namespace.
    lose_index_of(&cluster, "new").await;
    let report = rebuilt_from(&cluster, "new", "newer", OnLosses::Refuse).await;
    assert_eq!(report.unwrap().outcome, RebuildOutcome::Complete);
    let ns = open_as(&cluster, "newer").await;
    assert_eq!(content(&ns, ROOT, b"later").await.unwrap(), b"later");
    assert_eq!(history(&ns, ROOT, b"large").await.len(), 1);
    leave(ns).await;
}

async fn lose_index_of(cluster: &TestCluster, name: &str) {
    let place = cluster.backend.child(name);
    for object in place.list("meta").await.unwrap() {
        place.delete(&object.key).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_in_the_log_is_enough_for_a_rebuild() {
    let cluster = TestCluster::new("rebuild-checkpoint");
    planted(&cluster).await;
    let ns = cluster.open().await;
    cluster.env.advance(2 * 3_600_000_000_000);
    assert!(ns.gc.checkpoint().await.unwrap());
    save(&ns, ROOT, b"behind", b"the checkpoint").await;
    ns.drain().await.unwrap();
    let before = shown(&ns).await;
    leave(ns).await;
    let rows = index_rows(&cluster, "default").await;
    let log = cluster.backend().list("log").await.unwrap();
    assert!(
        !log[0].key.ends_with("00000/001/000/000/001"),
        "the log is cut"
    );
    lose(&cluster, "meta").await;
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert!(report.losses.is_empty(), "{report:?}");
    assert!(index_rows(&cluster, "new").await == rows);
    let ns = open_as(&cluster, "new").await;
    assert_eq!(shown(&ns).await, before);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_namespace_is_refused_and_its_segments_go_with_the_new_one() {
    let cluster = TestCluster::new("rebuild-replaced");
    planted(&cluster).await;
    rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    let refused = cluster.try_open().await.unwrap_err().to_string();
    assert!(refused.contains("--namespace new"), "{refused}");
    let config = CheckConfig::default();
    let checked = check_log(&cluster.backend, "default", &config, |_| {}).await;
    assert!(matches!(checked, Err(StoreError::Busy(_))), "{checked:?}");
    let state = |name| namespace_state(&cluster.backend, name);
    assert_eq!(
        state("default").await.unwrap(),
        NamespaceState::Replaced("new".to_owned())
    );
    assert_eq!(state("new").await.unwrap(), NamespaceState::Usable);
    let info = show_namespace(&cluster.backend, "new").await.unwrap();
    assert_eq!(info.objects_of.as_deref(), Some("default"));
    assert!(info.last.is_some());

    for (to, part) in [("new", "mount it with"), ("default", "choose another")] {
        let again = rebuilt(&cluster, to, OnLosses::Refuse).await.unwrap_err();
        assert!(again.to_string().contains(part), "{again}");
    }
    let other = rebuilt(&cluster, "other", OnLosses::Refuse).await;
    assert!(matches!(other, Err(StoreError::Busy(_))), "{other:?}");

    let kept = delete_namespace(&cluster.backend, "default", |_| {}).await;
    assert!(matches!(kept, Err(StoreError::Held(_))), "{kept:?}");
    let ns = open_as(&cluster, "new").await;
    assert_eq!(content(&ns, ROOT, b"linked").await.unwrap(), b"linked");
    leave(ns).await;
    // Without an index no writer is waited for.
    lose_index_of(&cluster, "new").await;
    delete_namespace(&cluster.backend, "new", |_| {})
        .await
        .unwrap();
    let left = cluster.backend.list("").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Tells whether a namespace can be mounted.
async fn opens(cluster: &TestCluster, name: &str) -> bool {
    match try_open_as(cluster, name).await {
        Ok(ns) => {
            leave(ns).await;
            true
        }
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_ends_between_two_steps_begins_again() {
    let steps_of_a_rebuild = 4;
    for steps in 0..=steps_of_a_rebuild {
        let cluster = TestCluster::new("rebuild-crash");
        planted(&cluster).await;
        let cut = STEPS.scope(Cell::new(steps), rebuilt(&cluster, "new", OnLosses::Refuse));
        let cut = cut.await;
        assert_eq!(cut.is_err(), steps < steps_of_a_rebuild, "{steps}: {cut:?}");
        let opened = [
            opens(&cluster, "default").await,
            opens(&cluster, "new").await,
        ];
        // The old namespace can be used until it is marked, and the new one once it is complete.
        assert_eq!(opened, [steps < 3, steps == steps_of_a_rebuild], "{steps}");
        if steps < steps_of_a_rebuild {
            let why = try_open_as(&cluster, "new").await.unwrap_err().to_string();
            assert!(why.contains("rewindfs rebuild"), "{why}");
            let half_made = namespace_state(&cluster.backend, "new").await.unwrap();
            assert!(matches!(half_made, NamespaceState::HalfMade(_)));
        }
    }
    for steps in 0..steps_of_a_rebuild {
        let cluster = TestCluster::new("rebuild-again");
        let before = planted(&cluster).await;
        let cut = STEPS.scope(Cell::new(steps), rebuilt(&cluster, "new", OnLosses::Refuse));
        assert!(cut.await.is_err());
        lose(&cluster, "meta").await;
        let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
        assert_eq!(report.outcome, RebuildOutcome::Complete, "{steps}");
        let ns = open_as(&cluster, "new").await;
        assert_eq!(shown(&ns).await, before, "{steps}");
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_rebuild_can_be_deleted_and_the_old_namespace_is_usable_again() {
    let cluster = TestCluster::new("rebuild-undone");
    let before = planted(&cluster).await;
    let cut = STEPS.scope(Cell::new(3), rebuilt(&cluster, "new", OnLosses::Refuse));
    assert!(cut.await.is_err());
    assert!(cluster.try_open().await.is_err());
    delete_namespace(&cluster.backend, "new", |_| {})
        .await
        .unwrap();
    let ns = cluster.open().await;
    assert_eq!(shown(&ns).await, before);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_its_identity_gets_a_new_id() {
    let cluster = TestCluster::new("rebuild-identity");
    let before = planted(&cluster).await;
    let old = Manifest::find(&cluster.backend()).await.unwrap().unwrap();
    lose(&cluster, "meta").await;
    cluster.backend().delete("namespace.json").await.unwrap();
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(report.uuid_origin, UuidOrigin::New);
    assert_ne!(report.uuid, old.uuid);
    let refused = cluster.try_open().await.unwrap_err().to_string();
    assert!(refused.contains("--namespace new"), "{refused}");
    let ns = open_as(&cluster, "new").await;
    assert_eq!(shown(&ns).await, before);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_in_a_damaged_identity_is_kept() {
    let cluster = TestCluster::new("rebuild-damaged-identity");
    planted(&cluster).await;
    let whole = cluster.backend().get("namespace.json").await.unwrap();
    let text = String::from_utf8(whole.to_vec()).unwrap();
    let damaged = text.replace("0.18", "0.19");
    assert_ne!(damaged, text);
    cluster
        .backend()
        .put("namespace.json", damaged.into())
        .await
        .unwrap();
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(report.uuid_origin, UuidOrigin::Damaged);
    assert!(text.contains(&report.uuid.to_string()), "{text}");
    leave(open_as(&cluster, "new").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_objects_is_not_rebuilt_and_a_used_name_is_not_written() {
    let cluster = TestCluster::new("rebuild-refused");
    let nothing = rebuilt(&cluster, "new", OnLosses::Accept).await;
    assert!(matches!(nothing, Err(StoreError::NotFound)), "{nothing:?}");
    leave(cluster.open().await).await;
    let settings = BTreeMap::new();
    create_namespace(&cluster.backend, "used", settings, cluster.env.as_ref())
        .await
        .unwrap();
    let stray = cluster.backend.put("stray/meta/x", "x".into()).await;
    stray.unwrap();
    for (to, part) in [("used", "exists"), ("stray", "meta/"), ("a//b", "empty")] {
        let refused = rebuilt(&cluster, to, OnLosses::Accept).await.unwrap_err();
        let StoreError::Invalid(why) = refused else {
            panic!("{to}: {refused:?}");
        };
        assert!(why.contains(part), "{to}: {why}");
    }
    leave(cluster.open().await).await;
}

/// What the bucket tells about the last writer.
async fn told(cluster: &TestCluster, cache: Option<&std::path::Path>, host: &str) -> LastWriter {
    let told = last_writer(&cluster.backend, "default", cache, host).await;
    told.unwrap().1
}

/// A writer that may live is told, and not one that ended, nor one whose cache directory is not in use.
#[tokio::test]
async fn a_writer_that_may_live_is_told() {
    let cluster = TestCluster::new("rebuild-writers");
    assert_eq!(told(&cluster, None, "").await, LastWriter::MayLive(None));
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", b"1").await;
    let living = LastWriter::MayLive(Some("testhost".to_owned()));
    let cache = cluster.cache.path().to_owned();
    assert_eq!(told(&cluster, Some(&cache), "testhost").await, living);
    let cluster = cluster.kill(ns).await;
    let cache = cluster.cache.path().to_owned();
    assert_eq!(told(&cluster, None, "testhost").await, living);
    // Tasks of the killed writer may have the lock of the cache directory for a moment more.
    let freed = tokio::time::Instant::now() + Duration::from_secs(10);
    while told(&cluster, Some(&cache), "").await != LastWriter::Ended {
        assert!(
            tokio::time::Instant::now() < freed,
            "the cache directory is in use"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    leave(cluster.open().await).await;
    assert_eq!(told(&cluster, None, "").await, LastWriter::Ended);
    cluster.backend().delete(writer_object::KEY).await.unwrap();
    assert_eq!(told(&cluster, None, "another").await, living);
    assert_eq!(told(&cluster, None, "testhost").await, LastWriter::Ended);
}
