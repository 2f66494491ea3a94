//! The model: the tree that POSIX requires after each call, as plain data, independent of the file system's code.

use std::collections::BTreeMap;

use libc::{
    EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENODATA, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EPERM,
    ESTALE,
};

use crate::fs::Caller;
use crate::fs::testing::SUPER;
use crate::store::{Kind, Time};

/// The index of a node in [`Tree::nodes`]; never reused.
pub(crate) type Id = usize;
/// The result of a call: a value or an errno.
pub(crate) type Answer<T> = Result<T, i32>;

/// The index of the root.
pub(crate) const ROOT: Id = 0;
/// Most bytes of all extended attributes of a node, names included.
const XATTRS_MAX: usize = 64 << 10;
/// The extended attribute with file capabilities.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// What the model knows about a file time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Exactly this.
    At(Time),
    /// A time during the current call.
    Now,
    /// This time, or any time from then to the end of the current call.
    Since(Time),
}

/// The content of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    File(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Id>),
    Symlink(Vec<u8>),
    Special,
}

/// A file of any kind.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The inode number that the file system gave it.
    pub(crate) ino: u64,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u64,
    pub(crate) body: Body,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) atime: When,
    pub(crate) mtime: When,
    pub(crate) ctime: When,
    pub(crate) btime: When,
    /// The number of open handles.
    pub(crate) opens: usize,
    /// The number of changes of its bytes.
    pub(crate) edits: u64,
    /// `edits` at the last open; `None` before the first.
    pub(crate) seen: Option<u64>,
    /// Its bytes changed since the last flush or fsync: a crash may advance its ctime.
    pub(crate) unsaved: bool,
    /// As `unsaved`, and no call has set its mtime since: a crash may advance its mtime.
    pub(crate) undated: bool,
    /// The kernel still refers to its inode number, so calls can name it.
    pub(crate) known: bool,
}

/// All nodes, removed ones included.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
}

impl Node {
    fn new(kind: Kind, body: Body, mode: u32, (uid, gid): (u32, u32)) -> Self {
        Self {
            ino: 0,
            kind,
            mode,
            uid,
            gid,
            rdev: 0,
            body,
            xattrs: BTreeMap::new(),
            atime: When::Now,
            mtime: When::Now,
            ctime: When::Now,
            btime: When::Now,
            opens: 0,
            edits: 0,
            seen: None,
            unsaved: false,
            undated: false,
            known: true,
        }
    }

    /// Its length in stat(2).
    pub(crate) fn size(&self) -> u64 {
        match &self.body {
            Body::File(bytes) | Body::Symlink(bytes) => bytes.len() as u64,
            Body::Directory(_) => 4096,
            Body::Special => 0,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::File(bytes) => bytes,
            _ => &[],
        }
    }

    /// Changes the bytes of a file without a flush.
    pub(crate) fn edit(&mut self, how: impl FnOnce(&mut Vec<u8>)) {
        if let Body::File(bytes) = &mut self.body {
            let before = bytes.clone();
            how(bytes);
            self.edits += u64::from(*bytes != before);
            (self.mtime, self.ctime) = (When::Now, When::Now);
            (self.unsaved, self.undated) = (true, true);
        }
    }

    /// Records a flush: its state is durable.
    pub(crate) fn save(&mut self) {
        (self.unsaved, self.undated) = (false, false);
    }

    /// Clears set-id bits and capabilities, as a write by `caller` does.
    pub(crate) fn strip(&mut self, caller: &Caller) {
        let mut left = self.mode & !0o4000;
        let is_member = caller.uid == 0 || caller.gid == self.gid;
        if left & 0o0010 != 0 || !is_member {
            left &= !0o2000;
        }
        let able = self.xattrs.remove(CAPABILITY).is_some();
        if left != self.mode || able {
            self.ctime = When::Now;
        }
        self.mode = left;
    }

    fn names(&self) -> Option<&BTreeMap<Vec<u8>, Id>> {
        match &self.body {
            Body::Directory(names) => Some(names),
            _ => None,
        }
    }

    fn touch(&mut self) {
        (self.mtime, self.ctime) = (When::Now, When::Now);
    }
}

/// Checks a name for creation.
fn check_name(name: &[u8]) -> Answer<()> {
    match name {
        _ if name.len() > 255 => Err(ENAMETOOLONG),
        b"" | b"." | b".." => Err(EINVAL),
        b".versions" => Err(EPERM),
        _ => Ok(()),
    }
}

impl Tree {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        let root = Node::new(
            Kind::Directory,
            Body::Directory(BTreeMap::new()),
            0o755,
            (0, 0),
        );
        Self { nodes: vec![root] }
    }

    pub(crate) fn names(&self, id: Id) -> &BTreeMap<Vec<u8>, Id> {
        static NONE: BTreeMap<Vec<u8>, Id> = BTreeMap::new();
        self.nodes[id].names().unwrap_or(&NONE)
    }

    /// The number of names of a node.
    fn bindings(&self, id: Id) -> u32 {
        let names = self.nodes.iter().filter_map(Node::names);
        names
            .flat_map(BTreeMap::values)
            .filter(|to| **to == id)
            .count() as u32
    }

    pub(crate) fn is_there(&self, id: Id) -> bool {
        id == ROOT || self.bindings(id) > 0
    }

    pub(crate) fn nlink(&self, id: Id) -> u32 {
        match self.nodes[id].names() {
            _ if !self.is_there(id) => 0,
            Some(names) => {
                let is_directory = |to: &&Id| self.nodes[**to].names().is_some();
                2 + names.values().filter(is_directory).count() as u32
            }
            None => self.bindings(id),
        }
    }

    /// The parent of a directory.
    pub(crate) fn parent(&self, id: Id) -> Id {
        let holds = |parent: &Id| self.names(*parent).values().any(|to| *to == id);
        (0..self.nodes.len()).find(holds).unwrap_or(ROOT)
    }

    /// All nodes whose inode number a call may use.
    pub(crate) fn known(&self) -> Vec<Id> {
        let known = |id: &Id| self.nodes[*id].known;
        (0..self.nodes.len()).filter(known).collect()
    }

    /// ESTALE unless the node has a name or an open handle.
    fn reach(&self, id: Id) -> Answer<()> {
        match self.is_there(id) || self.nodes[id].opens > 0 {
            true => Ok(()),
            false => Err(ESTALE),
        }
    }

    /// ESTALE unless the kernel refers to the node, or it has a name or an open handle.
    fn hold(&self, id: Id) -> Answer<()> {
        match self.nodes[id].known {
            true => Ok(()),
            false => self.reach(id),
        }
    }

    /// The node that `name` in `dir` leads to, for a change of that name.
    fn lookup(&self, dir: Id, name: &[u8]) -> Answer<Option<Id>> {
        check_name(name)?;
        if !self.is_there(dir) {
            return Err(ENOENT);
        }
        let names = self.nodes[dir].names().ok_or(ENOTDIR)?;
        Ok(names.get(name).copied())
    }

    fn bind(&mut self, dir: Id, name: &[u8], id: Id) {
        if let Body::Directory(names) = &mut self.nodes[dir].body {
            names.insert(name.to_vec(), id);
        }
        self.nodes[dir].touch();
    }

    fn unbind(&mut self, dir: Id, name: &[u8]) {
        if let Body::Directory(names) = &mut self.nodes[dir].body {
            names.remove(name);
        }
        self.nodes[dir].touch();
    }

    /// open(2) with `O_CREAT`: the opened node, and whether it is new.
    pub(crate) fn create(
        &mut self,
        (dir, name): (Id, &[u8]),
        caller: &Caller,
        mode: u32,
        exclusive: bool,
    ) -> Answer<(Id, bool)> {
        match self.lookup(dir, name)? {
            Some(_) if exclusive => Err(EEXIST),
            Some(id) => match self.nodes[id].kind {
                Kind::File => Ok((id, false)),
                Kind::Directory => Err(EISDIR),
                // The kernel looks the name up again and opens the node without FUSE.
                _ => Err(ESTALE),
            },
            None => {
                let id = self.make((dir, name), caller, (Kind::File, mode), Body::File(vec![]))?;
                Ok((id, true))
            }
        }
    }

    /// mknod, mkdir, symlink: the new node.
    pub(crate) fn make(
        &mut self,
        (dir, name): (Id, &[u8]),
        caller: &Caller,
        (kind, mode): (Kind, u32),
        body: Body,
    ) -> Answer<Id> {
        if self.lookup(dir, name)?.is_some() {
            return Err(EEXIST);
        }
        let parent = &self.nodes[dir];
        let (mut mode, mut gid) = (mode, caller.gid);
        if parent.mode & 0o2000 != 0 {
            gid = parent.gid;
            if kind == Kind::Directory {
                mode |= 0o2000;
            }
        }
        let id = self.nodes.len();
        self.nodes
            .push(Node::new(kind, body, mode, (caller.uid, gid)));
        self.bind(dir, name, id);
        Ok(id)
    }

    /// link(2).
    pub(crate) fn link(&mut self, id: Id, (dir, name): (Id, &[u8])) -> Answer<()> {
        let taken = self.lookup(dir, name)?;
        // link(2) of a node that cannot be found is ENOENT.
        self.reach(id).map_err(|_| ENOENT)?;
        match taken {
            Some(_) => Err(EEXIST),
            None if self.nodes[id].kind == Kind::Directory => Err(EPERM),
            None if !self.is_there(id) => Err(ENOENT),
            None => {
                self.bind(dir, name, id);
                self.nodes[id].ctime = When::Now;
                Ok(())
            }
        }
    }

    /// unlink(2): the node that lost the name.
    pub(crate) fn unlink(&mut self, (dir, name): (Id, &[u8])) -> Answer<Id> {
        let id = self.lookup(dir, name)?.ok_or(ENOENT)?;
        if self.nodes[id].kind == Kind::Directory {
            return Err(EISDIR);
        }
        self.unbind(dir, name);
        self.nodes[id].ctime = When::Now;
        Ok(id)
    }

    /// rmdir(2): the removed node.
    pub(crate) fn rmdir(&mut self, (dir, name): (Id, &[u8])) -> Answer<Id> {
        let id = self.lookup(dir, name)?.ok_or(ENOENT)?;
        if !self.nodes[id].names().ok_or(ENOTDIR)?.is_empty() {
            return Err(ENOTEMPTY);
        }
        self.unbind(dir, name);
        self.nodes[id].ctime = When::Now;
        Ok(id)
    }

    /// renameat2(2).
    pub(crate) fn rename(&mut self, from: (Id, &[u8]), to: (Id, &[u8]), flags: u32) -> Answer<()> {
        check_name(from.1)?;
        check_name(to.1)?;
        let exchange = match flags {
            0 | libc::RENAME_NOREPLACE => false,
            libc::RENAME_EXCHANGE => true,
            _ => return Err(EINVAL),
        };
        let source = self.lookup(from.0, from.1)?.ok_or(ENOENT)?;
        let target = self.lookup(to.0, to.1)?;
        match target {
            Some(_) if flags == libc::RENAME_NOREPLACE => return Err(EEXIST),
            None if exchange => return Err(ENOENT),
            _ => {}
        }
        if self.is_at_or_above(source, to.0)
            || exchange && target.is_some_and(|target| self.is_at_or_above(target, from.0))
        {
            return Err(EINVAL);
        }
        if target == Some(source) {
            return Ok(());
        }
        if let (Some(target), false) = (target, exchange) {
            match (self.nodes[source].names(), self.nodes[target].names()) {
                (Some(_), None) => return Err(ENOTDIR),
                (None, Some(_)) => return Err(EISDIR),
                (Some(_), Some(names)) if !names.is_empty() => return Err(ENOTEMPTY),
                _ => {}
            }
            self.nodes[target].ctime = When::Now;
        }
        self.unbind(from.0, from.1);
        self.bind(to.0, to.1, source);
        self.nodes[source].ctime = When::Now;
        if let (Some(target), true) = (target, exchange) {
            self.bind(from.0, from.1, target);
            self.nodes[target].ctime = When::Now;
        }
        Ok(())
    }

    /// Whether `above` is the directory `id` or an ancestor of it.
    fn is_at_or_above(&self, above: Id, mut id: Id) -> bool {
        loop {
            match id {
                _ if id == above => return true,
                ROOT => return false,
                _ => id = self.parent(id),
            }
        }
    }

    /// open(2) of an existing node.
    pub(crate) fn open(&mut self, id: Id) -> Answer<()> {
        self.reach(id)?;
        match self.nodes[id].kind {
            Kind::File => Ok(()),
            Kind::Directory => Err(EISDIR),
            _ => Err(EINVAL),
        }
    }

    /// truncate(2).
    pub(crate) fn truncate(&mut self, id: Id, caller: &Caller, len: usize) -> Answer<()> {
        match self.nodes[id].kind {
            // A removed node keeps its kind.
            Kind::Directory => return Err(EISDIR),
            Kind::File => self.reach(id)?,
            _ => return Err(EINVAL),
        }
        let node = &mut self.nodes[id];
        if caller.uid != 0 {
            node.strip(caller);
        }
        node.edit(|bytes| bytes.resize(len, 0));
        Ok(())
    }

    /// chmod, chown and utimensat in one call: `None` keeps the attribute.
    pub(crate) fn set_attributes(
        &mut self,
        id: Id,
        (mode, uid, gid): (Option<u32>, Option<u32>, Option<u32>),
        (atime, mtime): (Option<When>, Option<When>),
    ) -> Answer<()> {
        self.hold(id)?;
        let node = &mut self.nodes[id];
        node.mode = mode.unwrap_or(node.mode);
        if (uid.is_some() || gid.is_some()) && node.kind != Kind::Directory {
            node.strip(&SUPER);
        }
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        node.atime = atime.unwrap_or(node.atime);
        if let Some(mtime) = mtime {
            node.mtime = mtime;
            node.undated = false;
        }
        node.ctime = When::Now;
        Ok(())
    }

    /// setxattr(2).
    pub(crate) fn set_xattr(
        &mut self,
        id: Id,
        (name, value): (&[u8], &[u8]),
        flags: i32,
    ) -> Answer<()> {
        self.check_xattr(name)?;
        if value.len() > 65_536 {
            return Err(libc::E2BIG);
        }
        self.hold(id)?;
        let xattrs = &self.nodes[id].xattrs;
        match (xattrs.contains_key(name), flags) {
            (true, libc::XATTR_CREATE) => return Err(EEXIST),
            (false, libc::XATTR_REPLACE) => return Err(ENODATA),
            _ => {}
        }
        let mut new = xattrs.clone();
        new.insert(name.to_vec(), value.to_vec());
        if new.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() > XATTRS_MAX {
            return Err(ENOSPC);
        }
        self.nodes[id].xattrs = new;
        self.nodes[id].ctime = When::Now;
        Ok(())
    }

    /// removexattr(2).
    pub(crate) fn remove_xattr(&mut self, id: Id, name: &[u8]) -> Answer<()> {
        self.check_xattr(name)?;
        self.hold(id)?;
        let node = &mut self.nodes[id];
        node.xattrs.remove(name).ok_or(ENODATA)?;
        node.ctime = When::Now;
        Ok(())
    }

    fn check_xattr(&self, name: &[u8]) -> Answer<()> {
        match name.starts_with(b"user.versions.") {
            true => Err(EPERM),
            false => Ok(()),
        }
    }

    /// Ends the mount: handles and references of the kernel are gone. After a crash, unsaved times may have advanced.
    pub(crate) fn end(&mut self, crashed: bool) {
        let there: Vec<bool> = (0..self.nodes.len()).map(|id| self.is_there(id)).collect();
        for (node, there) in self.nodes.iter_mut().zip(there) {
            node.known &= there;
            node.opens = 0;
            node.seen = None;
            if crashed && node.unsaved {
                since(&mut node.ctime);
            }
            if crashed && node.undated {
                since(&mut node.mtime);
            }
            node.save();
        }
    }
}

fn since(when: &mut When) {
    if let When::At(time) = *when {
        *when = When::Since(time);
    }
}
