//! `check` compares log and index: the findings it reports, and its memory limit.

use super::*;
use crate::meta::MetaStore;
use crate::store::schema::tables::{RowTable, SegmentTable};

fn with_memory(memory: usize) -> CheckConfig {
    let mut config = CheckConfig::default();
    config.spill.memory = memory;
    config
}

async fn audited(cluster: &TestCluster, memory: usize) -> CheckReport {
    let config = with_memory(memory);
    check_log(&cluster.backend, "default", &config, |_| {})
        .await
        .unwrap()
}

async fn directory(ns: &Namespace, name: &[u8]) -> Ino {
    let node = new_node(Kind::Directory);
    let made = ns.tree.create(ROOT, name, node, &author()).await;
    made.unwrap().ino
}

/// A closed namespace with one log object per round. Each round makes a directory with two files, one of which is saved twice.
async fn rounds(name: &str) -> TestCluster {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    for round in 0..5 {
        let dir = format!("d{round}");
        let dir = directory(&ns, dir.as_bytes()).await;
        save(&ns, dir, b"once", &[b'1'; 6000]).await;
        save(&ns, dir, b"twice", b"old").await;
        save(&ns, dir, b"twice", b"new").await;
        ns.drain().await.unwrap();
    }
    ns.close().await.unwrap();
    cluster
}

fn objects_of(findings: &Findings) -> Vec<&str> {
    let named = findings.named.iter();
    named
        .map(|finding| match &finding.subject {
            Subject::Object(key) => key.as_str(),
            other => panic!("no object: {other:?}"),
        })
        .collect()
}

fn has_path(findings: &Findings, wanted: &str) -> bool {
    findings
        .named
        .iter()
        .any(|finding| matches!(&finding.subject, Subject::Path { path, .. } if path == wanted))
}

#[tokio::test]
async fn check_names_every_missing_or_damaged_log_object_within_any_memory_limit() {
    let cluster = rounds("audited").await;
    let whole = audited(&cluster, 1 << 20).await;
    assert!(whole.is_sound() && whole.rows > 40, "{whole:?}");
    assert_eq!(audited(&cluster, 500).await, whole);
    let log = cluster.backend().list("log").await.unwrap();
    assert!(log.len() >= 5, "{log:?}");
    let (_last, inner) = log.split_last().unwrap();
    for info in inner {
        let bytes = cluster.backend().get(&info.key).await.unwrap();
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] ^= 1;
        for damage in [None, Some(bytes.slice(..20)), Some(flipped.into())] {
            match damage {
                None => cluster.backend().delete(&info.key).await.unwrap(),
                Some(bytes) => cluster.backend().put(&info.key, bytes).await.unwrap(),
            }
            let found = audited(&cluster, 500).await;
            assert_eq!(objects_of(&found.damaged), [&info.key], "{found:#?}");
            assert_eq!(found.differing.count as usize, found.differing.named.len());
            assert!(found.differing.count > 0, "{found:#?}");
            assert_eq!(audited(&cluster, 1 << 20).await, found);
        }
        cluster.backend().put(&info.key, bytes).await.unwrap();
    }
    assert!(audited(&cluster, 1 << 20).await.is_sound());
}

#[tokio::test]
async fn check_names_the_path_of_a_differing_row() {
    let cluster = rounds("paths").await;
    let log = cluster.backend().list("log").await.unwrap();
    // The paths that the third round made.
    let mut named = 0;
    for info in &log[..log.len() - 1] {
        let bytes = cluster.backend().get(&info.key).await.unwrap();
        cluster.backend().delete(&info.key).await.unwrap();
        let found = audited(&cluster, 1 << 20).await;
        for round in 0..5 {
            let (once, twice) = (format!("d{round}/once"), format!("d{round}/twice"));
            if has_path(&found.differing, &once) && has_path(&found.differing, &twice) {
                named += 1;
                let dated = found.differing.named.iter().any(|finding| {
                    matches!(&finding.subject, Subject::Path { path, version: Some(_) } if *path == twice)
                });
                assert!(dated, "a version: {found:#?}");
            }
        }
        cluster.backend().put(&info.key, bytes).await.unwrap();
    }
    assert!(named >= 4, "{named}");
}

#[tokio::test]
async fn check_names_both_batches_when_the_end_of_the_log_is_missing() {
    let cluster = rounds("ends").await;
    let log = cluster.backend().list("log").await.unwrap();
    cluster
        .backend()
        .delete(&log.last().unwrap().key)
        .await
        .unwrap();
    let refused = check_log(&cluster.backend, "default", &CheckConfig::default(), |_| {}).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("its log ends with batch "), "{text}");
    assert!(text.contains(", which the index has"), "{text}");
}

#[tokio::test]
async fn check_names_file_version_and_segment_of_wrong_counts() {
    let index = crate::meta::MemoryStore::new(merge::merge);
    let cluster = TestCluster::new("counts");
    let ns = cluster.open().await;
    let dir = directory(&ns, b"dir").await;
    save(&ns, dir, b"large\n", &[b'1'; 6000]).await;
    ns.drain().await.unwrap();
    let mut batch = crate::meta::Batch::new();
    let mut all = ns
        .core
        .index
        .rows()
        .scan("C".into().."I".into())
        .await
        .unwrap();
    while let Some((key, value)) = all.next().await.unwrap() {
        match key.get(..2) {
            Some(b"GR") => batch.put(key, rows::encode(&7_i64)),
            Some(b"GB") => {
                let mut row: rows::SegmentRow = SegmentTable::decode(&value).unwrap();
                row.extents
                    .values_mut()
                    .for_each(|(_, citing)| *citing += 1);
                batch.put(key, rows::encode(&row));
            }
            _ => batch.put(key, value),
        }
    }
    let _commit = index.commit(batch).await.unwrap();
    let found = crate::store::check::miscounted(&index).await.unwrap();
    let told: Vec<String> = found
        .named
        .iter()
        .map(|f| format!("{:?} {}", f.subject, f.what))
        .collect();
    assert_eq!(found.count, 2, "{told:#?}");
    assert!(
        told.iter()
            .any(|t| t.contains("Object(\"data/") && t.contains("how many files use")),
        "{told:#?}"
    );
    assert!(
        told.iter()
            .any(|t| t.contains(r#"path: "dir/large\\n", version: Some"#)),
        "{told:#?}"
    );
    ns.close().await.unwrap();
}
