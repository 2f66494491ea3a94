//! What operations cost: rows that are read, and requests to the bucket.

use super::*;
use crate::store::testing::TestHost;

const MIB: usize = 1 << 20;

/// Bytes without a period.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Overwrites the file from its beginning, in writes of `step` bytes, and releases it.
async fn overwrite(ns: &Namespace, ino: Ino, text: &[u8], step: usize) {
    let file = ns.tree.file(ino).await.unwrap();
    file.truncate(0, &author()).await.unwrap();
    for (at, part) in text.chunks(step).enumerate() {
        let bytes = Bytes::copy_from_slice(part);
        let offset = (at * step) as u64;
        file.write(offset, bytes, &author()).await.unwrap();
    }
    close(&file).await;
}

async fn versions(ns: &Namespace, name: &[u8]) -> usize {
    ns.history.view().versions(ROOT, name).await.unwrap().len()
}

/// The objects or ranges that were read so far. The index of these tests is in memory.
fn gets(ns: &Namespace) -> u64 {
    ns.core.backend.counters().get
}

/// Writes `text` under the name `f`, and mounts again with an empty cache.
async fn saved_and_forgotten(host: &mut TestHost, text: &[u8]) -> (Namespace, Ino) {
    let ns = host.open().await;
    let ino = save(&ns, ROOT, b"f", &text[..MIB]).await;
    overwrite(&ns, ino, text, MIB).await;
    ns.tree.drain_all().await.unwrap();
    host.kill(ns).await;
    (host.open().await, ino)
}

#[tokio::test]
async fn a_save_of_unchanged_bytes_fetches_nothing() {
    let mut host = TestHost::new();
    let mut text = noise(32 * MIB);
    let (ns, ino) = saved_and_forgotten(&mut host, &text).await;
    let (made, fetched) = (versions(&ns, b"f").await, gets(&ns));
    for step in [MIB, 100_000] {
        overwrite(&ns, ino, &text, step).await;
        assert_eq!(versions(&ns, b"f").await, made, "writes of {step} bytes");
        assert_eq!(gets(&ns), fetched, "writes of {step} bytes");
    }
    let last = text.len() - 1;
    for at in [17 * MIB + 5, 0, last] {
        let before = versions(&ns, b"f").await;
        text[at] ^= 1;
        overwrite(&ns, ino, &text, MIB).await;
        assert_eq!(versions(&ns, b"f").await, before + 1, "byte {at}");
        assert_eq!(gets(&ns), fetched, "byte {at}");
    }
    let read = ns.tree.file(ino).await.unwrap();
    let tail = read.read(last as u64, 1).await.unwrap();
    assert_eq!(tail[0], text[last]);
}

#[tokio::test]
async fn a_save_that_covers_extents_in_part_fetches_these_only() {
    let mut host = TestHost::new();
    let text = noise(8 * MIB);
    let (ns, ino) = saved_and_forgotten(&mut host, &text).await;
    let made = versions(&ns, b"f").await;
    let (offset, len) = (3 * MIB - 1000, MIB);
    let file = ns.tree.file(ino).await.unwrap();
    let fetched = gets(&ns);
    let same = Bytes::copy_from_slice(&text[offset..offset + len]);
    file.write(offset as u64, same, &author()).await.unwrap();
    close(&file).await;
    assert_eq!(versions(&ns, b"f").await, made);
    let found = gets(&ns) - fetched;
    assert!(found <= 2, "found {found} reads, expected one per extent");
    let other = Bytes::from_static(b"another text");
    file.write(offset as u64, other, &author()).await.unwrap();
    close(&file).await;
    assert_eq!(versions(&ns, b"f").await, made + 1);
}

#[tokio::test]
async fn holes_and_zeros_are_compared_without_the_bucket() {
    let mut host = TestHost::new();
    let (ns, ino) = saved_and_forgotten(&mut host, &noise(MIB)).await;
    let file = ns.tree.file(ino).await.unwrap();
    file.truncate(4 << 30, &author()).await.unwrap();
    close(&file).await;
    let (made, fetched) = (versions(&ns, b"f").await, gets(&ns));
    let hole = (1 << 30, 1 << 30);
    file.punch(hole.0, hole.1, &author()).await.unwrap();
    close(&file).await;
    assert_eq!(versions(&ns, b"f").await, made, "a hole in a hole");
    let zeros = Bytes::from(vec![0; MIB]);
    file.write(3 << 30, zeros, &author()).await.unwrap();
    close(&file).await;
    assert_eq!(versions(&ns, b"f").await, made, "zeros in a hole");
    file.write(3 << 30, Bytes::from_static(b"\0x"), &author())
        .await
        .unwrap();
    close(&file).await;
    assert_eq!(versions(&ns, b"f").await, made + 1, "a byte in a hole");
    file.punch(0, 100, &author()).await.unwrap();
    close(&file).await;
    assert_eq!(versions(&ns, b"f").await, made + 2, "a hole in bytes");
    assert_eq!(gets(&ns), fetched);
}

#[tokio::test]
async fn a_name_is_read_twice_by_what_renames_or_removes_it() {
    let host = TestHost::new();
    let ns = host.open().await;
    for name in [&b"a"[..], b"b"] {
        save(&ns, ROOT, name, b"text").await;
    }
    ns.tree.drain_all().await.unwrap();
    let rename = async |from, to| {
        let before = ns.rows_read();
        let (from, to) = (DentryRef::new(ROOT, from), DentryRef::new(ROOT, to));
        let mode = RenameMode::Replace;
        ns.tree.rename(from, to, mode, &author()).await.unwrap();
        ns.rows_read() - before
    };
    let to_a_free_name = rename(b"a", b"c").await;
    let over_a_file = rename(b"c", b"b").await;
    let before = ns.rows_read();
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    let removal = ns.rows_read() - before;
    // A rename also reads one version record: whether the name began with an undelete.
    assert_eq!((to_a_free_name, over_a_file, removal), (5, 5, 2));
}
