//! A check of a namespace with many rows: 1.3 million in the long mode (`REWINDFS_TEST_LONG=1`).

use super::*;
use crate::meta::{Batch, MetaRead, MetaStore, SlateConfig, SlateStore};
use crate::store::schema::amounts;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::object_names::object_key;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, Filing, InodeRow, LocationRow, VersionRecord, encode,
};
use crate::store::schema::tables::{AppliedTable, DentryTable, RowTable, VersionTable};
use log_object::LogObject;

/// Files of one batch.
const BATCH: u64 = 500;

/// Batches of one log object.
const OBJECT: usize = 8;

/// The memory limit of a check, bytes: the index's caches, its rows that are in no table, and twice the rows in memory.
const MEMORY_MAX: u64 = 256 << 20;

/// The rows of a file with an older version, a template for files with other names.
pub(super) struct Template {
    entry: DentryRow,
    pub(super) closed: VersionRecord,
    /// A range row with inline bytes.
    range: Bytes,
    older: VersionId,
}

impl Template {
    /// Saves a file twice and reads its rows.
    pub(super) async fn new(ns: &Namespace) -> Self {
        save(ns, ROOT, b"sample", b"an older text").await;
        save(ns, ROOT, b"sample", b"a newer text").await;
        ns.drain().await.unwrap();
        let index = ns.core.index.rows();
        let entry = index.get(&keys::entry(ROOT, b"sample")).await.unwrap();
        let start = keys::history(ROOT, b"sample");
        let mut history = index
            .scan(start.clone()..keys::after(&start))
            .await
            .unwrap();
        let (key, closed) = history.next().await.unwrap().unwrap();
        let piece = rows::ExtentSlice {
            start: 0,
            len: 16,
            skip: 0,
            source: rows::ExtentSource::Inline(Bytes::from_static(b"sixteen bytes...")),
        };
        Self {
            entry: DentryTable::decode(&entry.unwrap()).unwrap(),
            closed: VersionTable::decode(&closed).unwrap(),
            range: encode(&rows::RangeRow::Whole(vec![piece])),
            older: keys::trailing_id(&key).unwrap(),
        }
    }

    /// Adds the rows of file `number` to a batch.
    fn add(&self, batch: &mut Batch, number: u64) {
        let name = format!("file {number}");
        let content = |cid| ContentRef {
            cid,
            timestamp: self.older.timestamp,
        };
        let (newer, older) = (content(number), content(number + (1 << 40)));
        let mut entry = self.entry.clone();
        entry.ino = Ino(number);
        if let DentryBody::Own { node, .. } = &mut entry.body {
            node.content = Content::Bytes(newer);
        }
        let mut closed = self.closed.clone();
        closed.ino = Ino(number);
        if let Some(node) = &mut closed.node {
            node.content = Content::Bytes(older);
        }
        keys::entry(ROOT, name.as_bytes()).put(batch, &entry);
        let place = LocationRow {
            directory: ROOT,
            name: Bytes::from(name.clone()),
        };
        keys::place(entry.ino).put(batch, &place);
        let key = keys::closed(ROOT, name.as_bytes(), self.older);
        if let Filing::Due(at) = closed.filed {
            retention_keys::due(at, &key).put(batch, &());
        }
        key.put(batch, &closed);
        for content in [newer, older] {
            let key = keys::range(content.cid, 0, content.timestamp);
            batch.put(key.bytes(), self.range.clone());
            keys::count(content).merge(batch, &1_i64);
            amounts::store(batch, 16);
        }
    }

    /// The size of a file.
    fn space(&self) -> i64 {
        match &self.entry.body {
            DentryBody::Own { node, .. } => node.space().cast_signed(),
            DentryBody::Linked(_) => 0,
        }
    }
}

/// Fills an index and its log with the rows of `files` files.
pub(super) async fn fill(backend: &Backend, template: &Template, files: u64) {
    let slate = SlateConfig {
        local: true,
        ..SlateConfig::new(merge::merge)
    };
    let store = SlateStore::open(backend.object_store(), "meta", slate);
    let store = store.await.unwrap();
    let applied = store.get(&keys::applied()).await.unwrap().unwrap();
    let mut applied: AppliedRow = AppliedTable::decode(&applied).unwrap();
    let (mut sequence, mut batches, mut first) = (0, Vec::new(), 1);
    for start in (0..files).step_by(BATCH as usize) {
        let (mut batch, end) = (Batch::new(), files.min(start + BATCH));
        for number in start..end {
            template.add(&mut batch, 1_000_000 + number);
        }
        let root = DirectoryRow {
            entries: (end - start).cast_signed(),
            ..DirectoryRow::default()
        };
        keys::inode(ROOT).merge(&mut batch, &InodeRow::Directory(root));
        let number = applied.next_batch(store.epoch());
        applied.files += (end - start).cast_signed();
        applied.bytes += (end - start).cast_signed() * template.space();
        keys::applied().put(&mut batch, &applied);
        batches.push(encode(&batch));
        let commit = store.commit(batch).await.unwrap();
        if batches.len() < OBJECT && end < files {
            continue;
        }
        store.durable(commit).await.unwrap();
        sequence += 1;
        let logged = std::mem::take(&mut batches);
        let object = LogObject::of_batches(store.epoch(), first, 0, logged);
        first = number + 1;
        let key = object_key("log", store.epoch(), sequence);
        backend.put_new(&key, object.encode()).await.unwrap();
    }
    store.close().await.unwrap();
}

/// The peak memory of this process since the last reset, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_many_rows_uses_bounded_memory() {
    let long = std::env::var_os("REWINDFS_TEST_LONG").is_some();
    let (files, memory) = if long {
        (217_000, 32 << 20)
    } else {
        (3_000, 100_000)
    };
    let cluster = TestCluster::new("many-rows");
    let store = tempfile::tempdir().unwrap();
    let url = format!("file://{}", store.path().display());
    let backend = Backend::open(&url, &BackendConfig::default()).unwrap();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let local = config(cluster.cache.path().to_owned());
    let env: Arc<SeededEnv> = Arc::clone(&cluster.env);
    let ns = Namespace::open(&backend, "default", local, env, tasks);
    let ns = ns.await.unwrap();
    let template = Template::new(&ns).await;
    ns.close().await.unwrap();
    drop(ns);
    fill(&backend.child("default"), &template, files).await;

    let mut config = CheckConfig::default();
    config.spill.memory = memory;
    // Resets the peak after making the rows.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let audit = check_log(&backend, "default", &config, |_| {}).await;
    let audit = audit.unwrap();
    let took = peak() - before;
    println!(
        "{} rows, {} objects: {took} bytes more than {before}",
        audit.rows, audit.objects
    );
    assert!(audit.is_sound(), "{audit:#?}");
    assert!(audit.rows >= files * 7, "{audit:?}");
    assert!(took < MEMORY_MAX, "{took} bytes");
}
