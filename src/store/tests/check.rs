//! Compares a namespace with the model.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Id, Slot, Tree};
use super::*;

type Found = BTreeMap<Vec<u8>, Stat>;

pub(crate) async fn names(ns: &Namespace, directory: Ino) -> Found {
    let mut listing = ns.tree.list(directory).await.unwrap();
    let mut found = Found::new();
    while let Some((name, stat)) = listing.next().await.unwrap() {
        assert!(
            found.insert(name.to_vec(), stat).is_none(),
            "directory {directory:?} lists a name twice"
        );
    }
    found
}

/// Compares the live tree: names, inode numbers, attributes, contents.
pub(crate) async fn live(ns: &Namespace, tree: &Tree) {
    let context = tree.context();
    let directories = tree
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, n)| n.kind == Kind::Directory && n.names > 0);
    for (id, node) in directories {
        let found = names(ns, node.ino).await;
        let expected: Vec<_> = tree
            .slots
            .iter()
            .filter(|((d, _), _)| *d == id)
            .map(|((_, n), e)| (n.clone(), e.id))
            .collect();
        let found_names: Vec<_> = found.keys().cloned().collect();
        let expected_names: Vec<_> = expected.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(
            found_names, expected_names,
            "{context}: names of directory {id}"
        );
        for (name, id) in expected {
            let at = format!(
                "{context}: node {id} as {:?}",
                String::from_utf8_lossy(&name)
            );
            inode(ns, tree, id, &found[&name], &at).await;
            assert_eq!(
                ns.tree.lookup(node.ino, &name).await.unwrap().as_ref(),
                Some(&found[&name]),
                "{at}: lookup and listing"
            );
        }
    }
    let alive = tree.nodes.iter().skip(1).filter(|n| n.names > 0);
    assert_eq!(
        ns.tree.usage().files,
        alive.count() as u64,
        "{context}: number of inodes"
    );
}

async fn inode(ns: &Namespace, tree: &Tree, id: Id, stat: &Stat, at: &str) {
    let node = &tree.nodes[id];
    assert_eq!(
        (stat.ino, stat.kind, stat.attrs.mode),
        (node.ino, node.kind, node.mode),
        "{at}: inode number, kind and mode"
    );
    let mut xattrs = BTreeMap::new();
    for name in ns.tree.list_xattrs(node.ino).await.unwrap() {
        xattrs.insert(
            name.to_vec(),
            ns.tree
                .get_xattr(node.ino, &name)
                .await
                .unwrap()
                .unwrap()
                .to_vec(),
        );
    }
    assert_eq!(xattrs, node.xattrs, "{at}: extended attributes");
    if node.kind == Kind::Directory {
        let below = tree
            .slots
            .iter()
            .filter(|((d, _), e)| *d == id && tree.is_directory(e.id))
            .count();
        assert_eq!(stat.nlink as usize, 2 + below, "{at}: link count");
        return;
    }
    assert_eq!(
        (stat.attrs.size as usize, stat.nlink as usize),
        (node.text.len(), node.names),
        "{at}: size and link count"
    );
    let file = ns.tree.file(node.ino).await.unwrap();
    let bytes = read_all(&file, node.text.len()).await;
    same(&bytes, &node.text, at);
}

async fn read_all(file: &File, len: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(len);
    loop {
        let part = file.read(all.len() as u64, 4 << 20).await.unwrap();
        if part.is_empty() {
            return all;
        }
        all.extend_from_slice(&part);
    }
}

/// Fails if two contents differ; the message describes runs of equal bytes instead of megabytes.
pub(crate) fn same(found: &[u8], expected: &[u8], at: &str) {
    if found != expected {
        panic!("{at}: found {}, expected {}", runs(found), runs(expected));
    }
}

fn runs(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes", bytes.len());
    for run in bytes.chunk_by(|a, b| a == b).take(20) {
        text += &format!(" {}x{}", run.len(), run[0]);
    }
    text
}

/// Compares the past at the given steps.
pub(crate) async fn past(ns: &Namespace, tree: &Tree, steps: impl Iterator<Item = usize>) {
    let mut slots: Vec<Slot> = tree.past.iter().flat_map(|p| p.keys().cloned()).collect();
    slots.extend(tree.slots.keys().cloned());
    slots.sort();
    slots.dedup();
    for step in steps {
        moment(ns, tree, &slots, step).await;
    }
    for slot in &slots {
        versions(ns, tree, slot).await;
    }
}

async fn moment(ns: &Namespace, tree: &Tree, slots: &[Slot], step: usize) {
    let (past, at) = (&tree.past[step], tree.timestamps[step]);
    for (id, node) in tree
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, n)| n.kind == Kind::Directory)
    {
        let found = ns.history.view().list_at(node.ino, at).await.unwrap();
        let found_names: Vec<_> = found
            .iter()
            .map(|(name, e)| (name.to_vec(), e.ino))
            .collect();
        let expected = past.iter().filter(|((d, _), _)| *d == id);
        let expected: Vec<_> = expected
            .map(|((_, n), s)| (n.clone(), tree.nodes[s.id].ino))
            .collect();
        assert_eq!(
            found_names,
            expected,
            "{}: names of directory {id} at {}",
            tree.context(),
            tree.describe(step)
        );
    }
    for slot in slots {
        let where_ = format!(
            "{}: {:?} at {}",
            tree.context(),
            (slot.0, String::from_utf8_lossy(&slot.1)),
            tree.describe(step)
        );
        let found = ns
            .history
            .view()
            .entry_at(tree.nodes[slot.0].ino, &slot.1, at)
            .await
            .unwrap();
        let expected = past.get(slot);
        assert_eq!(
            found.as_ref().map(|e| e.ino),
            expected.map(|s| tree.nodes[s.id].ino),
            "{where_}: inode number"
        );
        if let (Some(found), Some(expected)) = (found, expected) {
            assert_eq!(found.kind, tree.nodes[expected.id].kind, "{where_}: kind");
            if found.kind != Kind::Directory {
                let names = past.values().filter(|other| other.id == expected.id);
                let counted = ns
                    .history
                    .view()
                    .link_count_at(found.ino, at)
                    .await
                    .unwrap();
                assert_eq!(counted as usize, names.count(), "{where_}: link count");
            }
            same(&read_past(ns, &found).await, &expected.text, &where_);
        }
    }
}

pub(crate) async fn read_past(ns: &Namespace, entry: &PastEntry) -> Vec<u8> {
    if entry.kind == Kind::Directory {
        return Vec::new();
    }
    let bytes = ns.history.read_past(entry, 0, u32::MAX).await.unwrap();
    assert_eq!(
        bytes.len() as u64,
        entry.attrs.size,
        "length and size of {entry:?}"
    );
    bytes.to_vec()
}

/// Compares the list of a name's versions with the model and with the entries at each step.
async fn versions(ns: &Namespace, tree: &Tree, slot: &Slot) {
    let at = format!(
        "{}: versions of {:?}",
        tree.context(),
        (slot.0, String::from_utf8_lossy(&slot.1))
    );
    let directory = tree.nodes[slot.0].ino;
    let all = ns
        .history
        .view()
        .versions(directory, &slot.1)
        .await
        .unwrap();
    for pair in all.windows(2) {
        assert!(
            pair[0].version < pair[1].version,
            "{at}: not in ascending order"
        );
        assert!(
            pair[0]
                .ended
                .is_some_and(|end| end <= pair[1].version.timestamp),
            "{at}: a version ends after the next one begins: {pair:#?}"
        );
    }
    let expected = tree.versions(slot);
    // Of several versions made by one step the model knows only the last.
    let mut rest = all.iter();
    for (step, expected) in &expected {
        let at = format!("{at}, shown at {}", tree.describe(*step));
        let then = ns
            .history
            .view()
            .entry_at(directory, &slot.1, tree.timestamps[*step])
            .await
            .unwrap()
            .unwrap();
        let found = rest
            .find(|v| v.version == then.version)
            .unwrap_or_else(|| panic!("{at}: the version is missing or out of order"));
        assert_eq!(found.ino, tree.nodes[expected.id].ino, "{at}: inode number");
        same(&read_past(ns, found).await, &expected.text, &at);
        for moment in [found.version.timestamp, tree.timestamps[*step]] {
            let mut then = ns
                .history
                .view()
                .entry_at(directory, &slot.1, moment)
                .await
                .unwrap();
            if let Some(then) = then.as_mut().filter(|e| e.kind == Kind::Directory) {
                // The times of a directory change while its entry stays the same.
                then.attrs = found.attrs.clone();
            }
            assert_eq!(
                then.as_ref(),
                Some(found),
                "{at}: the version at {moment:?}"
            );
        }
    }
}

/// After the loss of the cache every name shows one of the states it had, and none from before its last fsync.
pub(crate) async fn prefix(ns: &Namespace, tree: &Tree) {
    let mut found: BTreeMap<Slot, (Id, Vec<u8>)> = BTreeMap::new();
    let mut open = vec![(0, ROOT)];
    while let Some((directory, ino)) = open.pop() {
        for (name, stat) in names(ns, ino).await {
            let at = format!(
                "{}: {:?} after the loss of the cache",
                tree.context(),
                (directory, String::from_utf8_lossy(&name))
            );
            let id = tree
                .nodes
                .iter()
                .position(|n| n.ino == stat.ino)
                .unwrap_or_else(|| panic!("{at}: an unknown inode"));
            let text = if stat.kind == Kind::Directory {
                open.push((id, stat.ino));
                Vec::new()
            } else {
                let file = ns.tree.file(stat.ino).await.unwrap();
                read_all(&file, stat.attrs.size as usize).await
            };
            found.insert((directory, name), (id, text));
        }
    }
    let mut slots: Vec<Slot> = tree.live.iter().flat_map(|p| p.keys().cloned()).collect();
    slots.sort();
    slots.dedup();
    assert!(
        found.keys().all(|slot| slots.binary_search(slot).is_ok()),
        "{}: found a name that no call made",
        tree.context()
    );
    for slot in slots {
        let at = format!(
            "{}: {:?} after the loss of the cache",
            tree.context(),
            (slot.0, String::from_utf8_lossy(&slot.1))
        );
        let since = tree.synced.get(&slot).copied().unwrap_or(0);
        let state = found.get(&slot);
        let fits = |live: &BTreeMap<Slot, (Id, Arc<Vec<u8>>)>| match (live.get(&slot), state) {
            (None, None) => true,
            (Some((a, was)), Some((b, is))) => a == b && **was == *is,
            _ => false,
        };
        let state = state.map(|(id, text)| format!("node {id}: {}", runs(text)));
        assert!(
            tree.live[since..].iter().any(fits),
            "{at}: found {state:?}, expected a state since {}",
            tree.describe(since)
        );
        known_versions(ns, tree, &slot, &at).await;
    }
}

/// Checks that every version of a name has a content that a call left.
async fn known_versions(ns: &Namespace, tree: &Tree, slot: &Slot, at: &str) {
    let live = tree.live.iter().flat_map(BTreeMap::values);
    let past = tree.past.iter().flat_map(BTreeMap::values);
    let texts = live.map(|(_, text)| text).chain(past.map(|s| &s.text));
    let known: BTreeSet<&[u8]> = texts.map(|text| &text[..]).collect();
    let past = ns.history.view();
    let versions = past.versions(tree.nodes[slot.0].ino, &slot.1).await;
    for version in versions.unwrap() {
        let text = read_past(ns, &version).await;
        assert!(
            known.contains(&text[..]),
            "{at}: version {} has a content that no call saved",
            runs(&text)
        );
    }
}

/// Checks that the rows rebuilt from the log equal those of the index, and that the counts are right.
pub(crate) async fn log_twin(ns: &Namespace, cluster: &TestCluster) {
    use crate::meta::MetaRead;
    let twin = replayed(cluster).await;
    let index = ns.core.index.rows();
    let mut told = twin.scan("C".into().."I".into()).await.unwrap();
    let found = crate::store::check::compare(index.as_ref(), &mut *told, &|_| {}, |_| Ok(())).await;
    let found = found.unwrap();
    assert!(
        found.rows > 0 && found.differing.count == 0,
        "rows that differ between index and log: {:#?}",
        found.differing
    );
    let miscounted = crate::store::check::wrong_counts(index.as_ref())
        .await
        .unwrap();
    assert!(
        miscounted.is_empty(),
        "counts that differ from the counted rows: {miscounted:#?}"
    );
    let names = crate::store::check::name_faults(index.as_ref())
        .await
        .unwrap();
    assert!(names.is_empty(), "names that do not agree: {names:#?}");
}

/// The rows that the log objects give in the order of their keys.
pub(crate) async fn replayed(cluster: &TestCluster) -> crate::meta::MemoryStore {
    use crate::meta::{MemoryStore, MetaStore};
    use log_object::LogBase;
    let mut twin = MemoryStore::new(merge::merge);
    let mut list: Option<(MemoryStore, Bytes)> = None;
    for object in log_object::read_all(&cluster.backend()).await.unwrap() {
        match object.base {
            LogBase::Nothing => {
                list = Some((MemoryStore::new(merge::merge), object.covers.clone()));
            }
            LogBase::Continues => list.as_mut().unwrap().1 = object.covers.clone(),
            LogBase::Ends => twin = list.take().unwrap().0,
            LogBase::Before => {}
        }
        for batch in object.batches().unwrap() {
            if let Some((rows, covers)) = &list {
                let mut covered = crate::meta::Batch::new();
                let is_part = object.base != LogBase::Before;
                for (key, change) in batch.rows() {
                    if is_part || key < covers {
                        covered.append(one_change(key, change));
                    }
                }
                let _commit = rows.commit(covered).await.unwrap();
            }
            if object.base == LogBase::Before {
                let _commit = twin.commit(batch).await.unwrap();
            }
        }
    }
    twin
}

fn one_change(key: &Bytes, change: &crate::meta::Change) -> crate::meta::Batch {
    use crate::meta::Change;
    let mut batch = crate::meta::Batch::new();
    match change {
        Change::Put(value) => batch.put(key.clone(), value.clone()),
        Change::Delete => batch.delete(key.clone()),
        Change::Merge(value) => batch.merge(key.clone(), value.clone()),
    }
    batch
}
