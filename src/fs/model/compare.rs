//! Compares the whole tree of the file system with the model.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use super::session::{Difference, Session};
use super::tree::{Body, Id, ROOT, When};
use crate::fs::testing::SUPER;
use crate::fs::{DirEntry, DirSink, Entry, Room};
use crate::store::{Kind, Stat, Time};

/// Fails unless both values are equal.
pub(crate) fn same<T: PartialEq + Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), Difference> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}"))
}

/// Everything a directory lists.
#[derive(Default)]
struct ListedName {
    dots: Vec<(Vec<u8>, u64)>,
    names: Vec<(Vec<u8>, u64, Kind, Option<Entry>)>,
}

impl DirSink for ListedName {
    fn add(&mut self, entry: DirEntry<'_>) -> Room {
        let name = entry.name.to_vec();
        if name == b"." || name == b".." {
            self.dots.push((name, entry.ino));
        } else {
            self.names
                .push((name, entry.ino, entry.kind, entry.full.cloned()));
        }
        Room::Left
    }
}

impl Session {
    /// Compares the whole tree; `began` is the time at which the last call began.
    pub(crate) async fn compare_tree(&mut self, began: Time) -> Result<(), Difference> {
        let window = began..=self.now();
        let mut seen = vec![false; self.tree.nodes.len()];
        let mut open = vec![(ROOT, String::new())];
        let (root, _) = self
            .fs()
            .getattr(self.tree.nodes[ROOT].ino, None)
            .await
            .map_err(described)?;
        self.compare_attributes(ROOT, &root, &window)
            .map_err(|d| format!("/: {d}"))?;
        while let Some((dir, path)) = open.pop() {
            seen[dir] = true;
            let listed = self.list(dir).await.map_err(|d| format!("{path}/: {d}"))?;
            for (name, entry) in listed {
                let id = self.tree.names(dir)[&name];
                let path = format!("{path}/{}", name.escape_ascii());
                let found = self.compare_attributes(id, &entry.stat, &window);
                found.map_err(|d| format!("{path}: {d}"))?;
                if std::mem::replace(&mut seen[id], true) {
                    continue;
                }
                self.compare_content(id)
                    .await
                    .map_err(|d| format!("{path}: {d}"))?;
                if self.tree.nodes[id].kind == Kind::Directory {
                    open.push((id, path));
                }
            }
        }
        for id in self.tree.known() {
            if !seen[id] {
                self.compare_removed(id, &window)
                    .await
                    .map_err(|d| format!("removed node {id}: {d}"))?;
            }
        }
        let statfs = self.fs().statfs(ROOT as u64 + 1).await.map_err(described)?;
        let live = seen.iter().filter(|seen| **seen).count() as u64;
        // The count does not include the root.
        same("inodes in use", statfs.files - statfs.ffree + 1, live)
    }

    /// Lists a directory and compares the names with the model. Returns the entries.
    async fn list(&self, dir: Id) -> Result<Vec<(Vec<u8>, Entry)>, Difference> {
        let (fs, ino) = (self.fs(), self.tree.nodes[dir].ino);
        let opened = fs.opendir(&SUPER, ino).await.map_err(described)?;
        let mut listed = ListedName::default();
        let read = fs.readdir(ino, opened.handle, 0, true, &mut listed).await;
        read.map_err(described)?;
        fs.releasedir(ino, opened.handle).await.map_err(described)?;
        let above = self.tree.nodes[self.tree.parent(dir)].ino;
        let dots = vec![(b".".to_vec(), ino), (b"..".to_vec(), above)];
        same("dots", listed.dots, dots)?;
        let mut entries = Vec::new();
        let mut found = Vec::new();
        for (name, ino, kind, full) in listed.names {
            found.push((name.clone(), ino, kind));
            entries.extend(full.map(|full| (name, full)));
        }
        let names = self.tree.names(dir).iter();
        let expected: Vec<_> = names
            .map(|(name, id)| {
                (
                    name.clone(),
                    self.tree.nodes[*id].ino,
                    self.tree.nodes[*id].kind,
                )
            })
            .collect();
        same("names", found, expected)?;
        same("entries", entries.len(), self.tree.names(dir).len())?;
        Ok(entries)
    }

    /// Compares attributes. A time that the model knows only as an interval is set to the found time.
    fn compare_attributes(
        &mut self,
        id: Id,
        stat: &Stat,
        window: &RangeInclusive<Time>,
    ) -> Result<(), Difference> {
        let nlink = self.tree.nlink(id);
        let node = &mut self.tree.nodes[id];
        let attrs = &stat.attrs;
        same("number", stat.ino.0, node.ino)?;
        same("kind", stat.kind, node.kind)?;
        same(
            "mode",
            format!("{:o}", attrs.mode),
            format!("{:o}", node.mode),
        )?;
        same("owner", (attrs.uid, attrs.gid), (node.uid, node.gid))?;
        same("device", attrs.rdev, node.rdev)?;
        same("size", attrs.size, node.size())?;
        same("links", stat.nlink, nlink)?;
        if node.kind == Kind::File {
            let blocks = node.size().div_ceil(512);
            let filled = node.bytes() != vec![0; node.bytes().len()];
            if stat.blocks > blocks || filled && stat.blocks == 0 {
                return Err(format!(
                    "blocks: found {}, expected at most {blocks} and more than 0 if the file has data",
                    stat.blocks
                ));
            }
        }
        resolve_time("atime", &mut node.atime, attrs.atime, window)?;
        resolve_time("mtime", &mut node.mtime, attrs.mtime, window)?;
        resolve_time("ctime", &mut node.ctime, attrs.ctime, window)?;
        resolve_time("btime", &mut node.btime, attrs.btime, window)
    }

    /// Compares extended attributes, bytes and link target.
    async fn compare_content(&mut self, id: Id) -> Result<(), Difference> {
        self.xattrs(id).await?;
        let ino = self.tree.nodes[id].ino;
        match &self.tree.nodes[id].body {
            Body::Symlink(target) => {
                let found = self.fs().readlink(ino).await.map_err(described)?;
                same("target", &found[..], &target[..])
            }
            Body::File(_) => {
                let opened = self
                    .fs()
                    .open(&SUPER, ino, libc::O_RDONLY)
                    .await
                    .map_err(described)?;
                self.check_keep_cache(id, opened)?;
                self.bytes(id, opened.handle).await?;
                self.fs()
                    .release(ino, opened.handle)
                    .await
                    .map_err(described)
            }
            Body::Directory(_) | Body::Special => Ok(()),
        }
    }

    async fn xattrs(&self, id: Id) -> Result<(), Difference> {
        let node = &self.tree.nodes[id];
        let found = self.fs().listxattr(node.ino).await.map_err(described)?;
        let expected: Vec<u8> = node
            .xattrs
            .keys()
            .flat_map(|name| [&name[..], &[0]].concat())
            .collect();
        same(
            "names of extended attributes",
            found.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
        )?;
        for (name, value) in &node.xattrs {
            let found = self
                .fs()
                .getxattr(node.ino, name)
                .await
                .map_err(described)?;
            if found != value {
                return Err(format!(
                    "extended attribute {}: found {} bytes, expected {}: another value",
                    name.escape_ascii(),
                    found.len(),
                    value.len()
                ));
            }
        }
        Ok(())
    }

    async fn bytes(&self, id: Id, handle: u64) -> Result<(), Difference> {
        let node = &self.tree.nodes[id];
        let read = self.fs().read(node.ino, handle, 0, u32::MAX).await;
        let (found, expected) = (read.map_err(described)?, node.bytes());
        if found == expected {
            return Ok(());
        }
        let at = found
            .iter()
            .zip(expected)
            .take_while(|(f, e)| f == e)
            .count();
        let near = |bytes: &[u8]| bytes[at..bytes.len().min(at + 8)].to_vec();
        Err(format!(
            "bytes from offset {at}: found {:?} (length {}), expected {:?} (length {})",
            near(&found),
            found.len(),
            near(expected),
            expected.len()
        ))
    }

    /// Compares a node without a name that the kernel still refers to. Of a file without an open handle only attributes are left.
    async fn compare_removed(
        &mut self,
        id: Id,
        window: &RangeInclusive<Time>,
    ) -> Result<(), Difference> {
        let ino = self.tree.nodes[id].ino;
        let through = self.handles.iter().find(|handle| handle.id == id);
        let through = through.map(|handle| handle.number);
        let (stat, _) = self.fs().getattr(ino, through).await.map_err(described)?;
        if let Some(handle) = through {
            self.compare_attributes(id, &stat, window)?;
            self.xattrs(id).await?;
            return self.bytes(id, handle).await;
        }
        self.xattrs(id).await?;
        let node = &self.tree.nodes[id];
        if node.kind != Kind::File {
            return self.compare_attributes(id, &stat, window);
        }
        // Length and times of a closed unlinked file are not kept.
        same("number", stat.ino.0, ino)?;
        same("kind", stat.kind, node.kind)?;
        same("mode", stat.attrs.mode, node.mode)?;
        let owner = (stat.attrs.uid, stat.attrs.gid);
        same("owner", owner, (node.uid, node.gid))?;
        same("links", stat.nlink, 0)
    }
}

fn described(error: crate::fs::FsError) -> Difference {
    format!("{error:?}")
}

fn resolve_time(
    what: &str,
    when: &mut When,
    found: Time,
    call: &RangeInclusive<Time>,
) -> Result<(), Difference> {
    let right = match *when {
        When::At(time) => found == time,
        When::Now => call.contains(&found),
        When::Since(time) => found == time || call.contains(&found),
    };
    if !right {
        return Err(format!(
            "{what}: found {found:?}, expected {when:?} (call {call:?})"
        ));
    }
    *when = When::At(found);
    Ok(())
}
