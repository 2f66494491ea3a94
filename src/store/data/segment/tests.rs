//! Tests of segments: extents and footers are read back as they were built, and damage is found.

use crate::store::Timestamp;
use crate::store::data::segment::*;

fn built() -> (Bytes, ExtentSource) {
    let mut builder = SegmentBuilder::new(SegmentId {
        epoch: 1,
        sequence: 0x1234,
    });
    builder.file(FooterFile {
        ino: Ino(9),
        directory: Ino(1),
        name: Bytes::from_static(b"f"),
        len: 5,
    });
    let content = ContentRef {
        cid: 3,
        timestamp: Timestamp(4),
    };
    builder.add(Ino(9), content, 0, b"first");
    let source = builder.add(Ino(9), content, 5, b"second");
    (builder.finish(), source)
}

#[test]
fn keys_of_segments_keep_every_directory_small() {
    let id = SegmentId {
        epoch: 0x1002,
        sequence: 0x1_2345_6789,
    };
    assert_eq!(id.key(), "data/00001/002/123/456/789");
    assert_eq!(SegmentId::from_key(&id.key()), Some(id));
    for bad in [
        "data",
        "data/1",
        "log/00001/002/123/456/789",
        "data/00001/002/123/456/7890",
    ] {
        assert_eq!(SegmentId::from_key(bad), None);
    }
}

/// Returns a bucket with one segment whose second extent spans two blocks, a reader with a cache, the segment, and its extents
/// with their bytes.
async fn stored(
    name: &str,
) -> (
    Backend,
    ExtentReader,
    SegmentId,
    Vec<(ExtentSource, Vec<u8>)>,
) {
    let backend = Backend::open(&format!("memory://{name}"), &Default::default()).unwrap();
    let config = crate::cache::BlockCacheConfig {
        memory_bytes: 8 << 20,
        disk_bytes: 0,
        dir: None,
    };
    let tasks = crate::task::Tasks::new(tokio::runtime::Handle::current());
    let blocks = BlockCache::open(config, tasks.clone()).unwrap();
    let meta = Arc::new(crate::meta::MemoryStore::new(
        crate::store::schema::merge::merge,
    ));
    let neighbours = NeighbourReads::new(crate::cache::Budget::new(64 << 20), tasks);
    let extents = ExtentReader::new(backend.clone(), blocks, meta, neighbours);
    let id = SegmentId {
        epoch: 1,
        sequence: 2,
    };
    let mut builder = SegmentBuilder::new(id);
    let content = ContentRef {
        cid: 3,
        timestamp: Timestamp(4),
    };
    let mut sources = Vec::new();
    for (at, byte) in [(0, b'a'), (EXTENT - 1000, b'b')] {
        let text = vec![byte; (EXTENT - 1000) as usize];
        sources.push((builder.add(Ino(9), content, at, &text), text));
    }
    backend.put_new(&id.key(), builder.finish()).await.unwrap();
    (backend, extents, id, sources)
}

async fn whole(
    extents: &ExtentReader,
    (source, text): &(ExtentSource, Vec<u8>),
) -> Result<(), StoreError> {
    let read = extents.read(source, 0, text.len() as u32).await?;
    assert!(read == text[..], "the bytes of the extent differ");
    Ok(())
}

#[tokio::test]
async fn a_damaged_block_of_the_cache_is_fetched_again() {
    let (backend, extents, id, sources) = stored("bad-block").await;
    for bad in [vec![b'x'; BLOCK as usize], b"short".to_vec()] {
        for index in [0, 1] {
            let key = BlockKey {
                object: (id.epoch, id.sequence),
                index,
            };
            extents.blocks.forget(key);
            extents.blocks.insert(key, &bad);
            for source in &sources {
                whole(&extents, source).await.unwrap();
            }
        }
    }
    // The good blocks were kept: they are read without the object.
    backend.delete(&id.key()).await.unwrap();
    whole(&extents, &sources[1]).await.unwrap();
}

#[tokio::test]
async fn an_extent_in_two_blocks_is_verified_again_when_one_is_fetched_again() {
    let (backend, extents, id, sources) = stored("two-blocks").await;
    whole(&extents, &sources[1]).await.unwrap();
    let mut object = backend.get(&id.key()).await.unwrap().to_vec();
    object[BLOCK as usize + 5] ^= 1;
    backend.put(&id.key(), Bytes::from(object)).await.unwrap();
    extents.forget(id, BLOCK as u32, 1);
    assert!(matches!(
        whole(&extents, &sources[1]).await,
        Err(StoreError::Corrupt(_))
    ));
}

#[tokio::test]
async fn a_bad_segment_is_named_and_others_are_read() {
    let (backend, extents, id, sources) = stored("bad-segment").await;
    let good = backend.get(&id.key()).await.unwrap();
    let mut object = good.to_vec();
    object[BLOCK as usize + 5] ^= 1;
    backend.put(&id.key(), Bytes::from(object)).await.unwrap();
    whole(&extents, &sources[0]).await.unwrap();
    let error = whole(&extents, &sources[1]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt(why) if why.contains(&id.key())),
        "{error:?}"
    );
    backend.put(&id.key(), good).await.unwrap();
    whole(&extents, &sources[1]).await.unwrap();
    extents.forget(id, 0, 2 * BLOCK as u32);
    backend.delete(&id.key()).await.unwrap();
    let error = whole(&extents, &sources[0]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt(why) if why.contains(&id.key())),
        "{error:?}"
    );
}

#[test]
fn a_footer_is_read_back_and_a_damaged_one_refused() {
    let (bytes, source) = built();
    let read = footer(&bytes).unwrap();
    assert_eq!(read.extents.len(), 2);
    assert!(matches!(
        source,
        ExtentSource::Segment {
            offset: 5,
            len: 6,
            ..
        }
    ));
    for at in [11, bytes.len() - 20, bytes.len() - 8, bytes.len() - 1] {
        let mut bad = bytes.to_vec();
        bad[at] ^= 1;
        assert!(footer(&bad).is_err() || at < 11, "byte {at}");
    }
}

#[test]
fn a_segment_of_known_size_is_built_in_one_buffer() {
    let id = SegmentId {
        epoch: 1,
        sequence: 2,
    };
    let text = vec![7; EXTENT as usize];
    let content = ContentRef {
        cid: 5,
        timestamp: Timestamp(1),
    };
    let mut builder = SegmentBuilder::sized(id, 32 * EXTENT, 32);
    for at in 0..32 {
        builder.add(Ino(5), content, at * EXTENT, &text);
    }
    let SegmentBuffer::Mapped { map, filled } = &builder.bytes else {
        panic!("the extents are in the mapping");
    };
    let trailing = map.len() - filled;
    let object = builder.finish();
    let footer = object.len() - 32 * EXTENT as usize;
    assert!(
        footer <= trailing,
        "the footer fits too: {footer} bytes in {trailing}"
    );
}
