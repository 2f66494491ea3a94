//! Rows and objects that no writer of this program makes: of a bucket that another program has written to. What they spoil is an error of
//! the calls that need them; no task panics, no call waits without an end, and everything else works.

use std::time::Duration;

use super::labels::mkdir;
use super::reclaim::{ids, segments, settle};
use super::*;
use crate::meta::Batch;
use crate::store::data::segment;
use crate::store::history::directories_above::Removed;
use crate::store::model::ids::Dentry;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{
    DentryBody, DirectoryRow, ExtentSlice, ExtentSource, InodeRow, LineageRow, MovedRow, RangeRow,
    encode,
};
use crate::store::schema::tables::{RangeTable, RowTable, SegmentTable};

/// How long a call may take that ends with an error.
const LIMIT: Duration = Duration::from_secs(60);

/// Adds rows to the index as another program may, and opens the namespace again without its cache.
async fn planted(cluster: &TestCluster, ns: Namespace, batch: Batch) -> Namespace {
    ns.drain().await.unwrap();
    let index = ns.core.index.writer().unwrap();
    let commit = index.commit(batch).await.unwrap();
    index.durable(commit).await.unwrap();
    leave(ns).await;
    cluster.wipe();
    cluster.open().await
}

/// The content of a file in the root directory.
async fn content_of(ns: &Namespace, name: &str) -> ContentRef {
    let entry = ns.tree.entry(ROOT, name.as_bytes()).await.unwrap().unwrap();
    let DentryBody::Own { node, .. } = entry.body else {
        panic!("{name} has several names");
    };
    node.content.reference().unwrap()
}

/// Reads a file in the root directory.
async fn read_file(ns: &Namespace, name: &str) -> Result<Bytes, StoreError> {
    let stat = ns.tree.lookup(ROOT, name.as_bytes()).await.unwrap();
    let file = ns.tree.file(stat.unwrap().ino).await.unwrap();
    let read = tokio::time::timeout(LIMIT, file.read(0, u32::MAX)).await;
    read.unwrap_or_else(|_| panic!("the read of {name} does not end"))
}

/// The slices that the rows of a content's first range show.
async fn slices(ns: &Namespace, content: ContentRef) -> Vec<ExtentSlice> {
    let key = keys::range(content.cid, 0, content.timestamp);
    let value = ns.core.index.get(&key).await.unwrap().unwrap();
    RangeTable::decode(&value).unwrap().pieces().to_vec()
}

/// Rows of `cid` over nothing but the bytes of another lineage.
fn over(batch: &mut Batch, content: ContentRef, parent: ContentRef) {
    let key = keys::range(content.cid, 0, content.timestamp);
    key.put(batch, &RangeRow::Delta(Vec::new()));
    let row = LineageRow {
        parent,
        len: u64::MAX,
    };
    keys::lineage(content.cid).put(batch, &row);
}

/// Rows by which every extent of a content was copied to its own place.
fn moved_to_itself(batch: &mut Batch, slices: &[ExtentSlice]) -> Vec<SegmentId> {
    let mut ids = Vec::new();
    for slice in slices {
        let ExtentSource::Segment {
            epoch,
            sequence,
            offset,
            ..
        } = slice.source
        else {
            continue;
        };
        let mut row = MovedRow::default();
        row.extents.insert(offset, (epoch, sequence, offset));
        keys::moved(epoch, sequence).put(batch, &row);
        ids.push(SegmentId { epoch, sequence });
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_lead_in_a_circle_or_beyond_their_extent_are_errors_of_their_file_alone() {
    let cluster = TestCluster::new("hostile-rows");
    let ns = cluster.open().await;
    let bad = ["itself", "first", "second", "long", "beyond", "moved"];
    for name in bad.into_iter().chain(["good"]) {
        save(&ns, ROOT, name.as_bytes(), name.repeat(20_000).as_bytes()).await;
        // Each save makes one segment.
        ns.drain().await.unwrap();
    }
    let mut batch = Batch::new();
    let itself = content_of(&ns, "itself").await;
    over(&mut batch, itself, itself);
    let (first, second) = (
        content_of(&ns, "first").await,
        content_of(&ns, "second").await,
    );
    over(&mut batch, first, second);
    over(&mut batch, second, first);
    let mut slice = slices(&ns, content_of(&ns, "long").await).await.remove(0);
    if let ExtentSource::Segment { len, .. } = &mut slice.source {
        *len = u32::MAX;
    }
    slice.len = u32::MAX;
    for (name, slice) in [
        ("long", slice),
        (
            "beyond",
            ExtentSlice {
                start: u32::MAX,
                len: 9,
                skip: u32::MAX,
                source: ExtentSource::Inline(Bytes::from_static(b"four")),
            },
        ),
    ] {
        let content = content_of(&ns, name).await;
        let key = keys::range(content.cid, 0, content.timestamp);
        batch.put(key.bytes(), encode(&RangeRow::Whole(vec![slice])));
    }
    let moved = slices(&ns, content_of(&ns, "moved").await).await;
    let ids = moved_to_itself(&mut batch, &moved);
    assert!(!ids.is_empty());
    let ns = planted(&cluster, ns, batch).await;
    for id in ids {
        cluster.backend().delete(&id.key()).await.unwrap();
    }
    for name in bad {
        let error = read_file(&ns, name).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{name}: {error}");
    }
    let good = read_file(&ns, "good").await.unwrap();
    assert!(good == "good".repeat(20_000).as_bytes());
    save(&ns, ROOT, b"new", b"works").await;
    ns.drain().await.unwrap();
    assert_eq!(ns.core.tasks.poisoned(), None);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_are_in_each_other_end_no_walk_in_a_hang() {
    let cluster = TestCluster::new("hostile-directories");
    let ns = cluster.open().await;
    let above = mkdir(&ns, ROOT, b"above").await;
    let below = mkdir(&ns, above, b"below").await;
    save(&ns, below, b"file", b"text").await;
    let entry = ns.tree.entry(ROOT, b"above").await.unwrap().unwrap();
    let mut batch = Batch::new();
    let place = Dentry::new(below, Bytes::from_static(b"x"));
    let row = DirectoryRow {
        place: Some((Timestamp(ns.now().0 + 1), place)),
        ..DirectoryRow::default()
    };
    keys::inode(above).merge(&mut batch, &InodeRow::Directory(row));
    keys::entry(below, b"x").put(&mut batch, &entry);
    keys::entry(ROOT, b"above").delete(&mut batch);
    let ns = planted(&cluster, ns, batch).await;
    let walks = async {
        let error = ns.tree.lineage(below).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
        assert!(!ns.tree.is_at_or_below(below, Ino(1 << 40)).await.unwrap());
        let view = ns.history.view();
        assert_eq!(view.directory_at(below, Timestamp(1)).await.unwrap(), None);
        let found = view.directories_above(below, Removed::Nowhere).await;
        assert!(found.unwrap().len() < 10_000);
        // Nothing is moved into what is below itself.
        let moved = ns.tree.lookup(below, b"x").await.unwrap();
        assert_eq!(moved.unwrap().ino, above);
    };
    let walked = tokio::time::timeout(LIMIT, walks).await;
    walked.expect("every walk ends");
    save(&ns, ROOT, b"new", b"works").await;
    ns.drain().await.unwrap();
    assert_eq!(ns.core.tasks.poisoned(), None);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_whose_footer_names_bytes_that_it_lacks_is_not_compacted_and_nothing_panics() {
    let cluster = TestCluster::new("hostile-footer");
    let ns = cluster.open().await;
    let names: Vec<Vec<u8>> = (0..20).map(|n| format!("f{n}").into_bytes()).collect();
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    for (fill, name) in names.iter().enumerate() {
        save(&ns, ROOT, name, &vec![fill as u8 + 1; 30_000]).await;
    }
    set_failpoint(&ns, None);
    ns.drain().await.unwrap();
    let key = segments(&cluster).await.remove(0);
    for name in &names[..15] {
        let id = ids(&ns, name).await[0];
        ns.history.delete_version(ROOT, name, id).await.unwrap();
    }
    // The same footer behind no extents, and every entry twice.
    let whole = cluster.backend().get(&key).await.unwrap();
    let mut footer = segment::footer(&whole).unwrap();
    footer.extents.extend(footer.extents.clone());
    let mut lying = postcard::to_allocvec(&footer).unwrap();
    let trailer = segment::trailer(&lying);
    lying.extend(trailer);
    cluster.backend().put(&key, lying.into()).await.unwrap();
    settle(&ns, &cluster).await;
    assert_eq!(ns.core.tasks.poisoned(), None);
    assert!(segments(&cluster).await.contains(&key));
    save(&ns, ROOT, b"new", b"works").await;
    ns.drain().await.unwrap();
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_too_short_end_no_collection_of_garbage() {
    let cluster = TestCluster::new("hostile-keys");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"file", b"text").await;
    let mut batch = Batch::new();
    for number in 0..1100_u16 {
        for table in [b"GE", b"GD", b"GX", b"GN", b"CD", b"HV"] {
            let key = [&table[..], &number.to_be_bytes()].concat();
            batch.put(key, encode(&()));
        }
    }
    batch.put(SegmentTable::all(), encode(&()));
    let ns = planted(&cluster, ns, batch).await;
    let collecting = async {
        for _ in 0..4 {
            // An error that names the row is right, too.
            let _collected = ns.gc.reclaim().await;
        }
    };
    let collected = tokio::time::timeout(LIMIT, collecting).await;
    collected.expect("the collection ends");
    assert_eq!(ns.core.tasks.poisoned(), None);
    assert_eq!(content(&ns, ROOT, b"file").await.unwrap(), b"text");
    leave(ns).await;
}
