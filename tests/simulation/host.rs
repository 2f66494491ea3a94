//! Machines: cache directories that survive a crash or not, and the processes that use them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rewindfs::backend::{Backend, BackendConfig};
use rewindfs::env::Env;
use rewindfs::fs::{
    Caller, DirEntry, DirSink, FileSystem, FsConfig, FsError, FsResult, Room, WriteMode,
};
use rewindfs::store::{
    CheckpointLimits, FollowConfig, GcMode, LeaseTimes, Linger, Namespace, NamespaceConfig,
    OnDamage, Owner, StoreError, Takeover,
};
use rewindfs::task::Tasks;
use tokio::runtime::Handle;

use crate::bucket::{Bucket, Link, LinkState};
use crate::randomness::Dice;

/// The root directory's number.
pub(crate) const ROOT: u64 = 1;

/// The user of every call.
pub(crate) const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};

/// What a crash leaves of the cache directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashMode {
    /// All of it: the daemon was killed.
    Kept,
    /// The power was lost: a random part of the newest journal file and of the staging files.
    Cut,
    /// Nothing: the machine is lost.
    Wiped,
}

/// A machine.
pub(crate) struct Host {
    name: &'static str,
    root: tempfile::TempDir,
    lives: usize,
    env: Arc<dyn Env>,
}

/// A process that has the namespace open.
pub(crate) struct Instance {
    pub(crate) namespace: Namespace,
    pub(crate) fs: Arc<FileSystem>,
    pub(crate) link: Link,
    tasks: Tasks,
}

impl Host {
    pub(crate) fn new(name: &'static str, env: Arc<dyn Env>) -> Self {
        Self {
            name,
            root: tempfile::tempdir().expect("a scratch directory"),
            lives: 0,
            env,
        }
    }

    fn cache(&self) -> PathBuf {
        self.root.path().join(format!("life-{}", self.lives))
    }

    fn config(&self, takeover: Takeover, lease: LeaseTimes) -> NamespaceConfig {
        NamespaceConfig {
            cache_dir: self.cache(),
            cache_bytes: 0,
            memory_bytes: 64 << 20,
            dirty_bytes_max: 16 << 20,
            linger: Linger::AtOnce,
            host: self.name.to_owned(),
            owner: Owner::default(),
            reclaim: GcMode::Always,
            grace: Duration::from_secs(3600),
            checkpoints: CheckpointLimits {
                min_bytes: 256 << 10,
                ..CheckpointLimits::default()
            },
            takeover,
            lease,
            backend_timeout: None,
        }
    }

    /// Opens the namespace for writing.
    pub(crate) async fn open(
        &self,
        bucket: &Arc<Bucket>,
        takeover: Takeover,
        lease: LeaseTimes,
    ) -> Result<Instance, StoreError> {
        let (link, tasks) = (bucket.link(), Tasks::new(Handle::current()));
        let backend = Backend::over(
            "simulated://bucket",
            Arc::new(link.clone()),
            &BackendConfig::default(),
        );
        let config = self.config(takeover, lease);
        let opened = Namespace::open(
            &backend,
            "main",
            config,
            Arc::clone(&self.env),
            tasks.clone(),
        );
        match opened.await {
            Ok(namespace) => Ok(Instance::new(namespace, FsConfig::default(), link, tasks)),
            Err(error) => {
                tasks.stop();
                link.set(LinkState::Dead);
                Err(error)
            }
        }
    }

    /// Follows the namespace.
    pub(crate) async fn follow(&self, bucket: &Arc<Bucket>) -> Result<Instance, StoreError> {
        let (link, tasks) = (bucket.link(), Tasks::new(Handle::current()));
        let backend = Backend::over(
            "simulated://bucket",
            Arc::new(link.clone()),
            &BackendConfig::default(),
        );
        let config = self.config(Takeover::Never, LeaseTimes::default());
        let follow = FollowConfig {
            every: Duration::from_secs(1),
            on_damage: OnDamage::Refuse,
        };
        let opened = Namespace::follow(
            &backend,
            "main",
            config,
            follow,
            Arc::clone(&self.env),
            tasks.clone(),
        );
        match opened.await {
            Ok(namespace) => {
                let config = FsConfig {
                    read_only: true,
                    ..FsConfig::default()
                };
                Ok(Instance::new(namespace, config, link, tasks))
            }
            Err(error) => {
                tasks.stop();
                link.set(LinkState::Dead);
                Err(error)
            }
        }
    }

    /// Ends a process at once. What it still does reaches neither the bucket nor the cache directory of the next one.
    pub(crate) fn crash(&mut self, instance: Option<&Instance>, mode: CrashMode, dice: &mut Dice) {
        if let Some(instance) = instance {
            instance.link.set(LinkState::Dead);
            instance.tasks.stop();
        }
        let old = self.cache();
        self.lives += 1;
        let new = self.cache();
        fs::create_dir_all(&new).expect("a cache directory");
        if mode != CrashMode::Wiped && old.exists() {
            copy(&old, &new);
        }
        if mode == CrashMode::Cut {
            self.cut(dice);
        }
    }

    /// Takes a random end of the newest journal file, and random ends or parts of staging files, as a loss of power does.
    fn cut(&self, dice: &mut Dice) {
        if let Some(newest) = local_files(&self.cache(), "journal").pop()
            && dice.in_thousand(700)
        {
            lose_part(&newest, Part::End, dice);
        }
        for staged in local_files(&self.cache(), "staging") {
            match dice.below(4) {
                0 => lose_part(&staged, Part::End, dice),
                1 => lose_part(&staged, Part::Any, dice),
                _ => {}
            }
        }
    }

    /// Takes the last record of the newest journal file away, as a daemon that forgets one does.
    pub(crate) fn forget_record(&self) {
        if let Some(newest) = local_files(&self.cache(), "journal").pop() {
            let length = fs::metadata(&newest).map_or(0, |meta| meta.len());
            let file = fs::File::options()
                .write(true)
                .open(&newest)
                .expect("a journal file");
            file.set_len(length.saturating_sub(200))
                .expect("a shorter journal");
        }
    }
}

impl Instance {
    fn new(namespace: Namespace, config: FsConfig, link: Link, tasks: Tasks) -> Self {
        let fs = FileSystem::new(namespace.clone(), config, tasks.clone());
        Self {
            namespace,
            fs: Arc::new(fs),
            link,
            tasks,
        }
    }

    /// Unmounts.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        self.fs.end_session().await;
        let closed = self.namespace.close().await;
        self.tasks.stop();
        self.link.set(LinkState::Dead);
        closed
    }

    /// Writes these bytes as the whole content of a name in the root, as a program does that opens, writes and closes.
    pub(crate) async fn save(&self, name: &str, bytes: Vec<u8>, is_synced: bool) -> FsResult<()> {
        let flags = libc::O_WRONLY | libc::O_TRUNC;
        let made = self
            .fs
            .create(&CALLER, ROOT, name.as_bytes(), 0o644, 0, flags)
            .await?;
        let (ino, handle) = (made.0.stat.ino.0, made.1.handle);
        let written = self.fill(ino, handle, bytes, is_synced).await;
        let flushed = self.fs.flush(ino, handle).await;
        let released = self.fs.release(ino, handle).await;
        self.fs.forget(ino, 1);
        written.and(flushed).and(released)
    }

    async fn fill(&self, ino: u64, handle: u64, bytes: Vec<u8>, is_synced: bool) -> FsResult<()> {
        let bytes = Bytes::from(bytes);
        let mut offset = 0;
        while offset < bytes.len() {
            let end = bytes.len().min(offset + (128 << 10));
            let part = bytes.slice(offset..end);
            let written = self.fs.write(
                &CALLER,
                ino,
                handle,
                offset as u64,
                part,
                WriteMode::default(),
            );
            offset += written.await? as usize;
        }
        match is_synced {
            true => self.fs.fsync(ino, handle, false).await,
            false => Ok(()),
        }
    }

    pub(crate) async fn read(&self, name: &str) -> FsResult<Vec<u8>> {
        self.read_path(&[name]).await
    }

    /// Reads the file at a path from the root.
    pub(crate) async fn read_path(&self, path: &[&str]) -> FsResult<Vec<u8>> {
        let mut ino = ROOT;
        for name in path {
            ino = self
                .fs
                .lookup(&CALLER, ino, name.as_bytes())
                .await?
                .stat
                .ino
                .0;
        }
        let opened = self.fs.open(&CALLER, ino, libc::O_RDONLY).await?;
        let mut bytes = Vec::new();
        let read = loop {
            match self
                .fs
                .read(ino, opened.handle, bytes.len() as u64, 128 << 10)
                .await
            {
                Ok(part) if part.is_empty() => break Ok(()),
                Ok(part) => bytes.extend_from_slice(&part),
                Err(error) => break Err(error),
            }
        };
        let released = self.fs.release(ino, opened.handle).await;
        read.and(released).map(|()| bytes)
    }

    /// The names in the directory at a path from the root.
    pub(crate) async fn names(&self, path: &[&str]) -> FsResult<Vec<String>> {
        let mut ino = ROOT;
        for name in path {
            ino = self
                .fs
                .lookup(&CALLER, ino, name.as_bytes())
                .await?
                .stat
                .ino
                .0;
        }
        let opened = self.fs.opendir(&CALLER, ino).await?;
        let mut names = Names::default();
        let read = self
            .fs
            .readdir(ino, opened.handle, 0, false, &mut names)
            .await;
        let released = self.fs.releasedir(ino, opened.handle).await;
        read.and(released).map(|()| names.0)
    }

    /// Every file in a directory with its bytes.
    pub(crate) async fn files(&self, path: &[&str]) -> FsResult<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        for name in self.names(path).await? {
            let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            match self.read_path(&path).await {
                Ok(bytes) => drop(files.insert(name, bytes)),
                // On a follower the writer may have removed it meanwhile.
                Err(FsError::NotFound | FsError::Stale) if self.fs.follows() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }
}

/// Collects names, without the dots.
#[derive(Default)]
struct Names(Vec<String>);

impl DirSink for Names {
    fn add(&mut self, entry: DirEntry<'_>) -> Room {
        if !matches!(entry.name, b"." | b"..") {
            self.0
                .push(String::from_utf8_lossy(entry.name).into_owned());
        }
        Room::Left
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from)
        .expect("a directory")
        .map(|entry| entry.expect("an entry"))
    {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().expect("a type").is_dir() {
            fs::create_dir_all(&target).expect("a directory");
            copy(&source, &target);
        } else {
            // The process may have deleted it since.
            fs::copy(&source, &target).ok();
        }
    }
}

/// Which part of a file is lost.
enum Part {
    /// It is shorter.
    End,
    /// Some bytes are zeros.
    Any,
}

fn lose_part(path: &Path, part: Part, dice: &mut Dice) {
    let mut bytes = fs::read(path).expect("a local file");
    let at = dice.below(bytes.len() as u64 + 1) as usize;
    match part {
        Part::End => bytes.truncate(at),
        Part::Any => {
            let end = (at + 1 + dice.below(100_000) as usize).min(bytes.len());
            bytes[at..end].fill(0);
        }
    }
    fs::write(path, bytes).expect("a local file");
}

/// The files of the journal or the staging directory, oldest first.
fn local_files(cache: &Path, kind: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for namespace in fs::read_dir(cache).into_iter().flatten().flatten() {
        for file in fs::read_dir(namespace.path().join(kind))
            .into_iter()
            .flatten()
            .flatten()
        {
            if file.file_name() != "LOCK" {
                files.push(file.path());
            }
        }
    }
    files.sort();
    files
}
