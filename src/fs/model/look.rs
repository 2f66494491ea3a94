//! The whole tree as the file system shows it, compared with the model.

use super::session::{Difference, Session, same};
use super::tree::{Body, Id, ROOT, When};
use crate::fs::testing::SUPER;
use crate::fs::{DirEntry, DirSink, Entry, Room};
use crate::store::{Kind, Stat, Time};

/// Everything a directory lists.
#[derive(Default)]
struct Listed {
    dots: Vec<(Vec<u8>, u64)>,
    names: Vec<(Vec<u8>, u64, Kind, Option<Entry>)>,
}

impl DirSink for Listed {
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
    /// Compares everything; `began` is when the last call did.
    pub(crate) async fn look(&mut self, began: Time) -> Result<(), Difference> {
        let window = (began, self.now());
        let mut seen = vec![false; self.tree.nodes.len()];
        let mut open = vec![(ROOT, String::new())];
        let (root, _) = self
            .fs()
            .getattr(self.tree.nodes[ROOT].ino, None)
            .await
            .map_err(told)?;
        self.compare(ROOT, &root, window)
            .map_err(|d| format!("/: {d}"))?;
        while let Some((dir, path)) = open.pop() {
            seen[dir] = true;
            let listed = self.list(dir).await.map_err(|d| format!("{path}/: {d}"))?;
            for (name, entry) in listed {
                let id = self.tree.names(dir)[&name];
                let path = format!("{path}/{}", name.escape_ascii());
                let found = self.compare(id, &entry.stat, window);
                found.map_err(|d| format!("{path}: {d}"))?;
                if std::mem::replace(&mut seen[id], true) {
                    continue;
                }
                self.inside(id).await.map_err(|d| format!("{path}: {d}"))?;
                if self.tree.nodes[id].kind == Kind::Directory {
                    open.push((id, path));
                }
            }
        }
        for id in self.tree.known() {
            if !seen[id] {
                self.removed(id, window)
                    .await
                    .map_err(|d| format!("removed node {id}: {d}"))?;
            }
        }
        let statfs = self.fs().statfs(ROOT as u64 + 1).await.map_err(told)?;
        let live = seen.iter().filter(|seen| **seen).count() as u64;
        // The root is none of them.
        same("inodes in use", statfs.files - statfs.ffree + 1, live)
    }

    /// The entries of a directory, which are those of the model.
    async fn list(&self, dir: Id) -> Result<Vec<(Vec<u8>, Entry)>, Difference> {
        let (fs, ino) = (self.fs(), self.tree.nodes[dir].ino);
        let opened = fs.opendir(&SUPER, ino).await.map_err(told)?;
        let mut listed = Listed::default();
        let read = fs.readdir(ino, opened.handle, 0, true, &mut listed).await;
        read.map_err(told)?;
        fs.releasedir(ino, opened.handle).await.map_err(told)?;
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

    /// Attributes; times that the model could not know are known from now on.
    fn compare(&mut self, id: Id, stat: &Stat, window: (Time, Time)) -> Result<(), Difference> {
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
                return Err(format!("{} blocks, of at most {blocks}", stat.blocks));
            }
        }
        settle("atime", &mut node.atime, attrs.atime, window)?;
        settle("mtime", &mut node.mtime, attrs.mtime, window)?;
        settle("ctime", &mut node.ctime, attrs.ctime, window)?;
        settle("btime", &mut node.btime, attrs.btime, window)
    }

    /// Extended attributes, bytes, target.
    async fn inside(&mut self, id: Id) -> Result<(), Difference> {
        self.xattrs(id).await?;
        let ino = self.tree.nodes[id].ino;
        match &self.tree.nodes[id].body {
            Body::Symlink(target) => {
                let found = self.fs().readlink(ino).await.map_err(told)?;
                same("target", &found[..], &target[..])
            }
            Body::File(_) => {
                let opened = self
                    .fs()
                    .open(&SUPER, ino, libc::O_RDONLY)
                    .await
                    .map_err(told)?;
                self.kept(id, opened)?;
                self.bytes(id, opened.handle).await?;
                self.fs().release(ino, opened.handle).await.map_err(told)
            }
            Body::Directory(_) | Body::Special => Ok(()),
        }
    }

    async fn xattrs(&self, id: Id) -> Result<(), Difference> {
        let node = &self.tree.nodes[id];
        let found = self.fs().listxattr(node.ino).await.map_err(told)?;
        let expected: Vec<u8> = node
            .xattrs
            .keys()
            .flat_map(|name| [&name[..], &[0]].concat())
            .collect();
        same(
            "attributes",
            found.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
        )?;
        for (name, value) in &node.xattrs {
            let found = self.fs().getxattr(node.ino, name).await.map_err(told)?;
            if found != value {
                return Err(format!("the value of attribute {}", name.escape_ascii()));
            }
        }
        Ok(())
    }

    async fn bytes(&self, id: Id, handle: u64) -> Result<(), Difference> {
        let node = &self.tree.nodes[id];
        let read = self.fs().read(node.ino, handle, 0, u32::MAX).await;
        let (found, expected) = (read.map_err(told)?, node.bytes());
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
            "bytes at {at}: {:?} of {}, not {:?} of {}",
            near(&found),
            found.len(),
            near(expected),
            expected.len()
        ))
    }

    /// What has no name any more is what it was, as long as it is held; of a file that nothing has open the attributes are left.
    async fn removed(&mut self, id: Id, window: (Time, Time)) -> Result<(), Difference> {
        let ino = self.tree.nodes[id].ino;
        let through = self.handles.iter().find(|handle| handle.id == id);
        let through = through.map(|handle| handle.number);
        let (stat, _) = self.fs().getattr(ino, through).await.map_err(told)?;
        if let Some(handle) = through {
            self.compare(id, &stat, window)?;
            self.xattrs(id).await?;
            return self.bytes(id, handle).await;
        }
        self.xattrs(id).await?;
        let node = &self.tree.nodes[id];
        if node.kind != Kind::File {
            return self.compare(id, &stat, window);
        }
        // How long it was when it was closed, and when that was, is not told any more.
        same("number", stat.ino.0, ino)?;
        same("kind", stat.kind, node.kind)?;
        same("mode", stat.attrs.mode, node.mode)?;
        let owner = (stat.attrs.uid, stat.attrs.gid);
        same("owner", owner, (node.uid, node.gid))?;
        same("links", stat.nlink, 0)
    }
}

fn told(error: crate::fs::FsError) -> Difference {
    format!("{error:?}")
}

fn settle(
    what: &str,
    when: &mut When,
    found: Time,
    (began, ended): (Time, Time),
) -> Result<(), Difference> {
    let right = match *when {
        When::At(time) => found == time,
        When::Now => began <= found && found <= ended,
        When::Since(time) => found == time || began <= found && found <= ended,
    };
    if !right {
        return Err(format!(
            "{what}: {found:?}, not {when:?} ({began:?} to {ended:?})"
        ));
    }
    *when = When::At(found);
    Ok(())
}
