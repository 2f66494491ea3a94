//! Shared by the tests of this room: a file system over a namespace in memory, and short names for calls.

use super::*;
use crate::backend::{Backend, BackendConfig};
use crate::env::SeededEnv;
use crate::store::{
    Attrs, CheckpointLimits, GcMode, Kind, LeaseTimes, Linger, NamespaceConfig, Owner, Takeover,
    XattrPresence,
};
use crate::sync::{AtomicU64, Ordering};
use bytes::Bytes;

/// 2026-11-20T21:26:48Z.
pub(crate) const START: u64 = 1_795_210_008_000_000_000;
/// The root's number.
pub(crate) const ROOT: u64 = 1;
/// The usual caller.
pub(crate) const ALICE: Caller = Caller {
    uid: 1000,
    gid: 1000,
    pid: 0,
};
/// The superuser.
pub(crate) const SUPER: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};

/// A file system, and the namespace below it.
pub(crate) struct World {
    pub(crate) fs: FileSystem,
    pub(crate) namespace: Namespace,
    env: Arc<SeededEnv>,
    cache: Arc<tempfile::TempDir>,
    /// The user of the next command: a caller without a process is known by its user.
    commands: AtomicU64,
}

impl std::ops::Deref for World {
    type Target = FileSystem;

    fn deref(&self) -> &FileSystem {
        &self.fs
    }
}

/// An empty world.
pub(crate) async fn world() -> World {
    world_with(FsConfig::default()).await
}

/// An empty world, mounted as `config` says.
pub(crate) async fn world_with(config: FsConfig) -> World {
    let env = Arc::new(SeededEnv::new(1));
    let cache = Arc::new(tempfile::tempdir().unwrap());
    let name = format!(
        "memory://fs-{}",
        cache.path().display().to_string().replace(['/', '.'], "-")
    );
    let backend = Backend::open(&name, &BackendConfig::default()).unwrap();
    let settings = NamespaceConfig {
        cache_dir: cache.path().to_owned(),
        cache_bytes: 0,
        memory_bytes: 64 << 20,
        dirty_bytes_max: 64 << 20,
        linger: Linger::AtOnce,
        host: "testhost".to_owned(),
        owner: Owner::default(),
        reclaim: GcMode::OnRequest,
        grace: Duration::from_secs(3600),
        checkpoints: CheckpointLimits::default(),
        takeover: Takeover::Now,
        lease: LeaseTimes::default(),
        backend_timeout: None,
    };
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let namespace = Namespace::open(
        &backend,
        "default",
        settings,
        Arc::<SeededEnv>::clone(&env),
        tasks,
    )
    .await
    .unwrap();
    World::over(namespace, config, env, cache)
}

impl World {
    pub(crate) fn over(
        namespace: Namespace,
        config: FsConfig,
        env: Arc<SeededEnv>,
        cache: Arc<tempfile::TempDir>,
    ) -> Self {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        Self {
            fs: FileSystem::new(namespace.clone(), config, tasks),
            namespace,
            env,
            cache,
            commands: AtomicU64::new(100_000),
        }
    }

    /// The same namespace, mounted once more.
    pub(crate) fn mounted_as(&self, config: FsConfig) -> Self {
        Self::over(
            self.namespace.clone(),
            config,
            Arc::clone(&self.env),
            Arc::clone(&self.cache),
        )
    }

    /// Sets the machine's clock back.
    pub(crate) fn go_back(&self, ns: u64) {
        self.env.go_back(ns);
    }

    /// Moves the namespace's clock forward.
    pub(crate) fn advance(&self, ns: u64) {
        self.env.advance(ns);
    }

    /// The number of versions of a name of the root.
    pub(crate) async fn states(&self, name: &str) -> usize {
        let names = self.ls(&format!(".versions/@files/{name}")).await.unwrap();
        names.iter().filter(|name| name.starts_with('2')).count()
    }

    /// Creates a file in the root; returns (number, handle).
    pub(crate) async fn make(&self, name: &str) -> (u64, u64) {
        let made = self.create(&ALICE, ROOT, name.as_bytes(), 0o644, 0, libc::O_RDWR);
        let (entry, opened) = made.await.unwrap();
        (entry.stat.ino.0, opened.handle)
    }

    /// Writes `text` at `offset` through a handle.
    pub(crate) async fn put(&self, (ino, handle): (u64, u64), offset: u64, text: &str) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let how = WriteMode::default();
        let written = self.write(&ALICE, ino, handle, offset, bytes, how).await;
        assert_eq!(written, Ok(text.len() as u32));
    }

    /// Closes a handle as the kernel does.
    pub(crate) async fn close(&self, (ino, handle): (u64, u64)) {
        self.flush(ino, handle).await.unwrap();
        self.release(ino, handle).await.unwrap();
    }

    /// Saves `text` as the whole content of a name in the root, as a shell's `>` does; returns its number.
    pub(crate) async fn save(&self, name: &str, text: &str) -> u64 {
        let flags = libc::O_WRONLY | libc::O_TRUNC;
        let made = self.create(&ALICE, ROOT, name.as_bytes(), 0o644, 0, flags);
        let (entry, opened) = made.await.unwrap();
        let file = (entry.stat.ino.0, opened.handle);
        self.put(file, 0, text).await;
        self.close(file).await;
        file.0
    }

    /// Walks `path` from the root as a command of its own; returns its node.
    pub(crate) async fn walk(&self, path: &str) -> FsResult<Entry> {
        let command = Caller {
            uid: u32::try_from(self.commands.fetch_add(1, Ordering::Relaxed)).unwrap(),
            ..ALICE
        };
        self.walk_as(&command, path).await
    }

    /// Walks `path` from the root as one of the paths that `caller` walks.
    pub(crate) async fn walk_as(&self, caller: &Caller, path: &str) -> FsResult<Entry> {
        let mut ino = ROOT;
        let mut found = self.lookup(caller, ROOT, b".").await?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            found = self.lookup(caller, ino, name.as_bytes()).await?;
            ino = found.stat.ino.0;
        }
        Ok(found)
    }

    /// The content of the file at `path`.
    pub(crate) async fn cat(&self, path: &str) -> FsResult<String> {
        let ino = self.walk(path).await?.stat.ino.0;
        let opened = self.open(&ALICE, ino, libc::O_RDONLY).await?;
        let bytes = self.read(ino, opened.handle, 0, 1 << 20).await?;
        self.release(ino, opened.handle).await?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// The names in the directory at `path`, without the dots.
    pub(crate) async fn ls(&self, path: &str) -> FsResult<Vec<String>> {
        let ino = self.walk(path).await?.stat.ino.0;
        let opened = self.opendir(&ALICE, ino).await?;
        let mut sink = Names::default();
        self.readdir(ino, opened.handle, 0, false, &mut sink)
            .await?;
        self.releasedir(ino, opened.handle).await?;
        let names = sink.names.into_iter().skip(2);
        Ok(names.map(|(name, _)| name).collect())
    }
}

/// A sink with room for `room` entries, or without end.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) names: Vec<(String, u64)>,
    pub(crate) next_offset: u64,
    pub(crate) room: Option<usize>,
}

impl DirSink for Names {
    fn add(&mut self, entry: DirEntry<'_>) -> Room {
        if self.room == Some(self.names.len()) {
            return Room::Full;
        }
        let name = String::from_utf8_lossy(entry.name).into_owned();
        self.names.push((name, entry.ino));
        self.next_offset = entry.next_offset;
        Room::Left
    }
}

/// An offset in an open file.
pub(crate) fn position(ino: u64, handle: u64, offset: u64) -> HandleOffset {
    HandleOffset {
        ino,
        handle,
        offset,
    }
}

/// Attributes of a plain file.
pub(crate) fn file_stat(ino: u64) -> Stat {
    Stat {
        ino: Ino(ino),
        generation: 0,
        kind: Kind::File,
        attrs: Attrs::default(),
        nlink: 1,
        blocks: 0,
        content_stamp: 0,
        xattrs: XattrPresence::Possible,
    }
}
