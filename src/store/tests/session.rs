//! Applies the steps of a program to a namespace and to its model.

mod copies;
mod renames;

use super::tree::{Fix, Id, Slot, Tree};
use super::*;
use crate::store::commit::operation::Operation;
use crate::store::model::failpoints::Failpoint;

/// One call of a program. Paths start at the root, with `/` between names; handles are numbers.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create(usize, &'static str),
    Open(usize, &'static str),
    Write(usize, usize, usize),
    Append(usize, usize),
    Truncate(usize, usize),
    Punch(usize, usize, usize),
    /// Writes the file's present content again.
    Rewrite(usize),
    /// Copies a range of another file into a handle's file: source offset, target offset, length.
    Copy(usize, &'static str, (usize, usize, usize)),
    /// The same with a version of a name as the source.
    CopyPast(usize, &'static str, usize, (usize, usize, usize)),
    Flush(usize),
    /// FLUSH and RELEASE.
    Close(usize),
    /// RELEASE of a handle that was flushed before.
    Release(usize),
    Sync(usize),
    /// fsync that is pending during the next step if a failpoint stops it.
    SyncBegun(usize),
    TruncatePath(&'static str, usize),
    Rename(&'static str, &'static str, RenameMode),
    Link(&'static str, &'static str),
    Unlink(&'static str),
    /// Undelete: the removed name, the new name, and whether it may replace.
    Undelete(&'static str, &'static str, RenameMode),
    Mkdir(&'static str),
    Rmdir(&'static str),
    Chmod(&'static str, u32),
    Xattr(&'static str, &'static str, Option<u8>),
    /// Time passes, seconds.
    Wait(u64),
    Drain,
}

#[derive(Debug)]
struct Handle {
    id: Id,
    file: Arc<File>,
    flushed: Option<(PendingFlush, Fix)>,
}

/// A namespace, its model, and the handles a program has in it.
pub(crate) struct Session {
    pub(crate) cluster: TestCluster,
    pub(crate) ns: Namespace,
    pub(crate) tree: Tree,
    handles: Vec<Option<Handle>>,
    fill: u8,
    /// The failpoint of the pipeline during the program.
    pub(crate) failpoints: Option<Failpoint>,
    /// Operations that do not pass the failpoint are completed.
    pub(crate) only: bool,
    /// A name changed while the file was open: the bucket may then have a state that only unsaved bytes explain.
    pub(crate) late: bool,
}

impl Session {
    /// Mounts an empty namespace; `program` names the test's calls in messages.
    pub(crate) async fn new(
        program: &str,
        cluster: TestCluster,
        failpoints: Option<Failpoint>,
    ) -> Self {
        let ns = cluster.open().await;
        set_failpoint(&ns, failpoints);
        let mut tree = Tree::new(ns.now());
        tree.program = format!("{program}, failpoint {failpoints:?}");
        let handles = std::iter::repeat_with(|| None).take(8).collect();
        Self {
            cluster,
            ns,
            tree,
            handles,
            fill: 0,
            failpoints,
            only: false,
            late: false,
        }
    }

    pub(crate) fn apply_failpoint(&self) {
        match self.failpoints {
            Some(step) if self.only => self.ns.core.health.failpoints.set_only(step),
            failpoints => set_failpoint(&self.ns, failpoints),
        }
    }

    fn fill(&mut self, len: usize) -> Vec<u8> {
        // Never zero, and different from the previous step.
        self.fill = self.fill % 250 + 1;
        vec![self.fill; len]
    }

    /// The parent directory and the last name of a path.
    pub(crate) fn slot(&self, path: &str) -> Option<Slot> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = if above.is_empty() {
            0
        } else {
            self.find(above)?
        };
        self.tree
            .is_directory(directory)
            .then(|| (directory, name.as_bytes().to_vec()))
    }

    pub(crate) fn find(&self, path: &str) -> Option<Id> {
        Some(self.tree.slots.get(&self.slot(path)?)?.id)
    }

    fn ino(&self, id: Id) -> Ino {
        self.tree.nodes[id].ino
    }

    /// Applies a step and compares the call's result; `false` if the step is not possible in this state.
    pub(crate) async fn apply(&mut self, step: &Step) -> bool {
        let context = self.tree.context();
        let _context = PanicContext(format!("{context}: {step:?}"));
        let done = self.call(step).await;
        if done {
            self.tree.name_call(format!("{step:?}"));
            self.tree.step(self.ns.now());
        }
        done
    }

    async fn call(&mut self, step: &Step) -> bool {
        match *step {
            Step::Create(at, path) => self.create(at, path).await,
            Step::Open(at, path) => {
                let Some(id) = self.find(path).filter(|id| !self.tree.is_directory(*id)) else {
                    return false;
                };
                if self.handles[at].is_some() {
                    return false;
                }
                let file = self.ns.tree.file(self.ino(id)).await.unwrap();
                self.handles[at] = Some(Handle {
                    id,
                    file,
                    flushed: None,
                });
                true
            }
            Step::Write(at, offset, len) => self.write(at, Some(offset), len).await,
            Step::Append(at, len) => self.write(at, None, len).await,
            Step::Truncate(at, len) => {
                let Some(h) = &self.handles[at] else {
                    return false;
                };
                h.file.truncate(len as u64, &author()).await.unwrap();
                self.tree.truncate(h.id, len);
                true
            }
            Step::Punch(at, offset, len) => {
                let Some(h) = &self.handles[at] else {
                    return false;
                };
                h.file
                    .punch(offset as u64, len as u64, &author())
                    .await
                    .unwrap();
                self.tree.punch(h.id, offset, len);
                true
            }
            Step::Rewrite(at) => {
                let Some(h) = &self.handles[at] else {
                    return false;
                };
                let text = self.tree.nodes[h.id].text.clone();
                if text.is_empty() || text.contains(&0) {
                    return false;
                }
                h.file
                    .write(0, Bytes::from(text.clone()), &author())
                    .await
                    .unwrap();
                self.tree.write(h.id, 0, &text);
                true
            }
            Step::Copy(at, path, range) => self.copy(at, path, range).await,
            Step::CopyPast(at, path, which, range) => self.copy_past(at, path, which, range).await,
            _ => self.call_rest(step).await,
        }
    }

    async fn call_rest(&mut self, step: &Step) -> bool {
        match *step {
            Step::Flush(at) => self.flush(at).await,
            Step::Close(at) => self.flush(at).await && self.release(at).await,
            Step::Release(at) => self.release(at).await,
            Step::Sync(at) => {
                let Some(h) = &self.handles[at] else {
                    return false;
                };
                set_failpoint(&self.ns, None);
                h.file.sync(&author()).await.unwrap();
                self.apply_failpoint();
                self.tree.write_back(h.id);
                self.tree.synced(h.id);
                true
            }
            Step::SyncBegun(at) => self.begin_sync(at).await,
            Step::TruncatePath(path, len) => {
                let Some(id) = self.find(path).filter(|id| !self.tree.is_directory(*id)) else {
                    return false;
                };
                self.ns
                    .tree
                    .truncate(self.ino(id), len as u64, &author())
                    .await
                    .unwrap();
                self.tree.truncate(id, len);
                if let Some(flush) = self.tree.flush(id, None) {
                    self.tree.save(id, &flush);
                }
                true
            }
            Step::Wait(seconds) => {
                self.cluster.env.advance(seconds * 1_000_000_000);
                true
            }
            Step::Drain => {
                set_failpoint(&self.ns, None);
                self.ns.drain().await.unwrap();
                self.apply_failpoint();
                self.tree.drained();
                for slot in self.tree.slots.keys() {
                    self.tree.synced.insert(slot.clone(), self.tree.past.len());
                }
                true
            }
            _ => self.change_name(step).await,
        }
    }

    async fn begin_sync(&mut self, at: usize) -> bool {
        let Some(h) = &self.handles[at] else {
            return false;
        };
        let (id, file) = (h.id, Arc::clone(&h.file));
        let author = author();
        let answered = tokio::select! {
            biased;
            result = file.sync(&author) => { result.unwrap(); true }
            () = clean(&file) => false,
        };
        self.tree.write_back(id);
        if answered {
            self.tree.synced(id);
        }
        true
    }

    async fn create(&mut self, at: usize, path: &str) -> bool {
        let Some(slot) = self.slot(path).filter(|_| self.handles[at].is_none()) else {
            return false;
        };
        let directory = self.ino(slot.0);
        let made = self
            .ns
            .tree
            .create_open(directory, &slot.1, new_file(), &author())
            .await;
        if self.tree.slots.contains_key(&slot) {
            assert!(
                matches!(made, Err(StoreError::Exists)),
                "create {path}: found {made:?}, expected Exists"
            );
            return true;
        }
        let (stat, file) = made.unwrap();
        let id = self.tree.create(slot, stat.ino, Kind::File);
        self.handles[at] = Some(Handle {
            id,
            file,
            flushed: None,
        });
        true
    }

    async fn write(&mut self, at: usize, offset: Option<usize>, len: usize) -> bool {
        let bytes = self.fill(len);
        let Some(h) = &self.handles[at] else {
            return false;
        };
        let end = self.tree.nodes[h.id].text.len();
        let text = Bytes::from(bytes.clone());
        match offset {
            Some(offset) => h.file.write(offset as u64, text, &author()).await.unwrap(),
            None => {
                let found = h.file.append(text, &author()).await.unwrap();
                assert_eq!(found, end as u64, "append to handle {at}: offset");
            }
        }
        self.tree.write(h.id, offset.unwrap_or(end), &bytes);
        true
    }

    async fn flush(&mut self, at: usize) -> bool {
        let Some(h) = &mut self.handles[at] else {
            return false;
        };
        let (old, old_fix) = h.flushed.take().unzip();
        let flushed = h.file.flush(&author(), old).await.unwrap();
        let flush = self.tree.flush(h.id, old_fix);
        assert_eq!(
            flushed.is_some(),
            flush.is_some(),
            "flush of handle {at}: found a pending state {}, expected {}",
            flushed.is_some(),
            flush.is_some()
        );
        h.flushed = flushed.zip(flush);
        true
    }

    async fn release(&mut self, at: usize) -> bool {
        let Some(h) = self.handles[at].take() else {
            return false;
        };
        if let Some((flushed, flush)) = h.flushed {
            h.file.save(flushed).await.unwrap();
            self.tree.save(h.id, &flush);
        }
        true
    }

    async fn change_name(&mut self, step: &Step) -> bool {
        match *step {
            Step::Rename(from, to, mode) => self.rename(from, to, mode).await,
            Step::Link(from, to) => {
                let (Some(id), Some(slot)) = (self.find(from), self.slot(to)) else {
                    return false;
                };
                let directory = self.ino(slot.0);
                let result = self
                    .ns
                    .tree
                    .link(self.ino(id), directory, &slot.1, &author())
                    .await;
                if self.tree.slots.contains_key(&slot) {
                    assert!(
                        matches!(result, Err(StoreError::Exists)),
                        "{step:?}: found {result:?}, expected Exists"
                    );
                } else if self.tree.is_directory(id) {
                    assert!(
                        matches!(result, Err(StoreError::IsDirectory)),
                        "{step:?}: found {result:?}, expected IsDirectory"
                    );
                } else {
                    result.unwrap();
                    self.tree.link(id, slot);
                }
                true
            }
            Step::Unlink(path) | Step::Rmdir(path) => {
                let Some(slot) = self.slot(path) else {
                    return false;
                };
                let Some(id) = self.find(path) else {
                    return false;
                };
                let (directory, is_directory) = (self.ino(slot.0), self.tree.is_directory(id));
                let rmdir = matches!(step, Step::Rmdir(_));
                let result = if rmdir {
                    self.ns.tree.rmdir(directory, &slot.1, &author()).await
                } else {
                    self.ns.tree.unlink(directory, &slot.1, &author()).await
                };
                match (rmdir, is_directory) {
                    (true, false) => assert!(
                        matches!(result, Err(StoreError::NotDirectory)),
                        "{step:?}: found {result:?}, expected NotDirectory"
                    ),
                    (false, true) => {
                        assert!(
                            matches!(result, Err(StoreError::IsDirectory)),
                            "{step:?}: found {result:?}, expected IsDirectory"
                        );
                    }
                    (true, true) if !self.tree.is_empty(id) => {
                        assert!(
                            matches!(result, Err(StoreError::NotEmpty)),
                            "{step:?}: found {result:?}, expected NotEmpty"
                        );
                    }
                    _ => {
                        result.unwrap();
                        self.tree.remove(&slot);
                    }
                }
                true
            }
            _ => self.change_more(step).await,
        }
    }

    async fn change_more(&mut self, step: &Step) -> bool {
        match *step {
            Step::Mkdir(path) => {
                let Some(slot) = self.slot(path) else {
                    return false;
                };
                let made = self
                    .ns
                    .tree
                    .create(
                        self.ino(slot.0),
                        &slot.1,
                        new_node(Kind::Directory),
                        &author(),
                    )
                    .await;
                if self.tree.slots.contains_key(&slot) {
                    assert!(
                        matches!(made, Err(StoreError::Exists)),
                        "{step:?}: found {made:?}, expected Exists"
                    );
                } else {
                    let _id = self.tree.create(slot, made.unwrap().ino, Kind::Directory);
                }
                true
            }
            Step::Chmod(path, mode) => {
                let Some(id) = self.find(path) else {
                    return false;
                };
                let change = AttrChange {
                    mode: Some(mode),
                    ..AttrChange::default()
                };
                self.ns.tree.set_attrs(self.ino(id), change).await.unwrap();
                self.tree.nodes[id].mode = mode;
                self.tree.attributes_changed(id);
                true
            }
            Step::Xattr(path, name, value) => {
                let Some(id) = self.find(path) else {
                    return false;
                };
                let bytes = value.map(|v| Bytes::from(vec![v]));
                let result = self
                    .ns
                    .tree
                    .set_xattr(self.ino(id), name.as_bytes(), bytes, XattrMode::Any)
                    .await;
                let xattrs = &mut self.tree.nodes[id].xattrs;
                let old = match value {
                    Some(value) => xattrs.insert(name.into(), vec![value]).or(Some(Vec::new())),
                    None => xattrs.remove(name.as_bytes()),
                };
                assert_eq!(
                    result.is_ok(),
                    old.is_some(),
                    "{step:?}: found {result:?}, the attribute existed: {}",
                    old.is_some()
                );
                self.tree.attributes_changed(id);
                true
            }
            Step::Undelete(from, to, mode) => self.undelete(from, to, mode).await,
            _ => false,
        }
    }

    /// Waits until the pipeline has reached the failpoint.
    pub(crate) async fn wait_for_failpoint(&self) {
        let shared = &self.ns;
        if self.only {
            let is_held = |o: &Arc<Operation>| {
                let needed = shared.commit.queue.needed_by(o.order);
                needed
                    .iter()
                    .any(|n| n.content.as_ref().is_some_and(|c| !c.is_uploaded()))
            };
            let free: Vec<_> = shared
                .commit
                .queue
                .all()
                .into_iter()
                .filter(|o| !is_held(o))
                .collect();
            return shared.commit.wait_all_durable(&free).await.unwrap();
        }
        match self.failpoints {
            Some(Failpoint::Pack | Failpoint::Upload) => {}
            Some(Failpoint::Commit) => {
                while !shared.commit.queue.not_uploaded().is_empty() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
            Some(Failpoint::Flush) => {
                while shared.commit.queue.oldest_without(&[]).is_some() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
            Some(Failpoint::Log) => shared
                .commit
                .wait_all_durable(&shared.commit.queue.all())
                .await
                .unwrap(),
            None => {}
        }
    }

    /// kill -9 and a new mount with the cache kept.
    pub(crate) async fn crash(&mut self) {
        self.handles.iter_mut().for_each(|h| *h = None);
        let left = std::mem::replace(&mut self.cluster, TestCluster::new("replaced"));
        self.cluster = left.kill(self.ns.clone()).await;
        self.ns = self.cluster.open().await;
        self.tree.recover();
        self.tree.name_call("crash and mount".to_owned());
        self.tree.step(self.ns.now());
        self.apply_failpoint();
    }
}

/// Waits until all written bytes of the file are in the queue.
async fn clean(file: &File) {
    while file.lock().await.unwrap().file().unwrap().is_dirty() {
        tokio::task::yield_now().await;
    }
}
