//! Where the rows of a verb come from: the daemon of a mount, or a follower that this command opens on a store.

use crate::backend::{Backend, BackendConfig, BackendError};
use crate::cli::error::CliError;
use crate::cli::place;
use crate::config::StoreUrl;
use crate::control::{self, Request, Response};
use crate::env::SystemEnv;
use crate::store::{
    CheckpointLimits, FollowConfig, GRACE, GcMode, LeaseTimes, Linger, Namespace, NamespaceConfig,
    OnDamage, Owner, StoreError, Takeover,
};
use crate::sync::Arc;
use crate::task::Tasks;
use crate::verbs::{self, ReadVerb, RowSender, VerbRow};
use std::fs::Permissions;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Handle;

/// How often the follower of a command looks for newer states: a command shows one state, unless it takes very long.
const REFRESH: Duration = Duration::from_secs(60);
/// Bytes of blocks in memory.
const MEMORY: u64 = 64 << 20;
/// Bytes of blocks on disk: none are worth keeping for one command.
const DISK: u64 = 8 << 20;
/// How many rows the store is ahead of the printer.
const ROWS_AHEAD: usize = 64;
/// How long the follower may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What a verb is run against.
#[derive(Debug)]
pub(in crate::cli) enum ReadTarget {
    /// The mount at this mountpoint, which is resolved.
    Mount(PathBuf),
    /// A namespace of a store.
    Store {
        url: StoreUrl,
        namespace: String,
        backend: BackendConfig,
    },
}

impl ReadTarget {
    /// Returns the URL of a store; `None` for a mount.
    pub(in crate::cli) fn url(&self) -> Option<&StoreUrl> {
        match self {
            Self::Mount(_) => None,
            Self::Store { url, .. } => Some(url),
        }
    }
}

/// An opened target.
#[derive(Debug)]
pub(super) enum RowSource {
    Mount(PathBuf),
    Store(Box<OpenFollower>),
}

/// A follower, and what it needs.
#[derive(Debug)]
pub(super) struct OpenFollower {
    namespace: Namespace,
    tasks: Tasks,
    /// Its cache directory, which is removed with this value.
    _directory: TempDir,
}

impl RowSource {
    /// Opens a target.
    ///
    /// # Errors
    /// A usage error for a URL or a namespace that cannot be; a failure that names the store or namespace.
    pub(super) async fn open(target: ReadTarget) -> Result<Self, CliError> {
        let (url, name, config) = match target {
            ReadTarget::Mount(mountpoint) => return Ok(Self::Mount(mountpoint)),
            ReadTarget::Store {
                url,
                namespace,
                backend,
            } => (url, namespace, backend),
        };
        let refused = |error: BackendError| match error {
            BackendError::Invalid { .. } => CliError::usage(error),
            other => CliError::failure(other),
        };
        let backend = Backend::open(url.secret(), &config).map_err(refused)?;
        backend.check().await.map_err(refused)?;
        let directory = tempfile::Builder::new()
            .prefix("rewindfs-read-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(place::temporary_directory())
            .map_err(|error| CliError::failure(format!("the temporary directory: {error}")))?;
        let tasks = Tasks::new(Handle::current());
        let follow = FollowConfig {
            every: REFRESH,
            on_damage: OnDamage::Refuse,
        };
        let store = NamespaceConfig {
            cache_dir: directory.path().to_owned(),
            cache_bytes: DISK,
            memory_bytes: MEMORY,
            dirty_bytes_max: 1 << 20,
            linger: Linger::AtOnce,
            host: String::new(),
            owner: Owner::default(),
            reclaim: GcMode::OnRequest,
            grace: GRACE,
            checkpoints: CheckpointLimits::default(),
            takeover: Takeover::Never,
            lease: LeaseTimes::default(),
            backend_timeout: None,
        };
        let opened = Namespace::follow(
            &backend,
            &name,
            store,
            follow,
            Arc::new(SystemEnv),
            tasks.clone(),
        );
        let namespace = opened.await.map_err(|error| match error {
            StoreError::Invalid(_) => CliError::usage(error),
            StoreError::NotFound => CliError::failure(format!(
                "{url}: namespace {name} does not exist, or has no change in the bucket yet"
            )),
            other => CliError::failure(format!("{url}: namespace {name}: {other}")),
        })?;
        Ok(Self::Store(Box::new(OpenFollower {
            namespace,
            tasks,
            _directory: directory,
        })))
    }

    /// Runs `verb`, and passes each row to `each` until that breaks.
    ///
    /// # Errors
    /// A failure that names the path.
    pub(super) async fn read(
        &self,
        verb: &ReadVerb,
        mut each: impl FnMut(VerbRow) -> ControlFlow<()> + Send,
    ) -> Result<(), CliError> {
        match self {
            Self::Mount(mountpoint) => {
                let directories = place::runtime_directories();
                let request = Request::Read { verb: verb.clone() };
                let answer = control::ask_rows(&directories, mountpoint, &request, each);
                match answer.map_err(CliError::failure)? {
                    None | Some(Response::Done) => Ok(()),
                    Some(Response::Failed { message }) => Err(CliError::failure(message)),
                    Some(_) => Err(crate::cli::status::unexpected(mountpoint)),
                }
            }
            Self::Store(follower) => {
                let (sender, mut rows) = RowSender::channel(ROWS_AHEAD);
                let (namespace, verb) = (follower.namespace.clone(), verb.clone());
                let running = follower.tasks.spawn("verb", async move {
                    verbs::run(&namespace, &verb, &sender).await
                });
                while let Some(row) = rows.recv().await {
                    if each(row).is_break() {
                        return Ok(());
                    }
                }
                match running.await {
                    Ok(outcome) => outcome.map_err(CliError::failure),
                    Err(error) => Err(CliError::failure(error)),
                }
            }
        }
    }

    /// Closes what was opened.
    pub(super) async fn close(self) {
        if let Self::Store(follower) = self {
            // The command has its rows: what cannot be closed in time ends with the process.
            let closing = async {
                follower.namespace.close().await.ok();
                follower.tasks.stop();
                follower.tasks.join().await;
            };
            tokio::time::timeout(CLOSE_MAX, closing).await.ok();
        }
    }
}
