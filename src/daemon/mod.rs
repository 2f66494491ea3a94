//! One mount's process: opens the layers bottom-up, serves, and closes them in reverse order.
//!
//! Life: [`Daemon::start`] mounts; [`Daemon::run`] serves until the mount is unmounted, a command asks for the end or a
//! signal is received; then running requests are answered, every handle is released, everything acknowledged is uploaded,
//! and the store is closed.
//! Invariant: acknowledged changes that did not reach the bucket are named in the log and in the exit status, and stay in
//! the cache directory for the next mount.

mod descriptors;
mod error;
mod groups;
mod lease;
mod shown_time;
mod standby;
mod status;
mod stop;
mod store_check;
mod verb;

use crate::backend::Backend;
use crate::config::Config;
use crate::control::{self, Control, ControlError, Request, Response};
use crate::env::Env;
use crate::fs::FileSystem;
use crate::fuse::{Mounted, Unmount};
use crate::store::{Namespace, StoreError, Timestamp, sweep_orphans};
use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;
use crate::verbs::RowSender;
pub use error::DaemonError;
use error::not_opened;
use groups::Groups;
pub use lease::tell_waiting;
use sd_notify::NotifyState;
use status::StatusCollector;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stop::Patience;
pub use stop::Signals;
pub use store_check::{StoreUse, open_store};
use tokio::sync::{mpsc, watch};

/// How long running requests may take at the end, and how long the store may take to close.
const END_MAX: Duration = Duration::from_secs(10);

/// How long a mount waits for the end of the process that served its mountpoint before.
const PREDECESSOR_MAX: Duration = Duration::from_secs(60);

/// How long a lazily unmounted mount stays usable before its handles are released.
const LAZY_MAX: Duration = Duration::from_secs(2);

/// A mount that is served by this process.
#[derive(Debug)]
pub struct Daemon {
    core: Arc<Core>,
    control: Control,
    groups: Groups,
    finished: watch::Sender<Option<EndResult>>,
    shutdown: mpsc::Receiver<()>,
}

/// How the mount ended, for the command that asked for it: a remark if there is one, or the error.
type EndResult = Result<Option<String>, String>;

/// What happens at the end to changes that are not in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShutdownMode {
    /// They are uploaded.
    Drain,
    /// They stay in the cache directory.
    KeepInCache,
}

/// What both the commands and the end of the mount use.
#[derive(Debug)]
struct Core {
    mounted: Mounted,
    layers: Layers,
    blocking: Tasks,
    requests: Tasks,
    finished: watch::Receiver<Option<EndResult>>,
    shutdown: mpsc::Sender<()>,
    /// Set by the command that unmounts.
    shutdown_mode: Mutex<ShutdownMode>,
    /// The name that shows the past.
    versions_name: Vec<u8>,
    cache_dir: PathBuf,
    drain_timeout: Duration,
}

/// The opened layers below `fuse`.
#[derive(Debug)]
struct Layers {
    fs: Arc<FileSystem>,
    backend: Backend,
    status_collector: StatusCollector,
}

impl Daemon {
    /// Opens the store, mounts, and listens for commands in `runtime_directory`. Needs a runtime. After an error nothing
    /// is mounted.
    ///
    /// # Errors
    /// [`DaemonError`] names what failed; a store that does not answer within 9 s is an error.
    pub async fn start(
        config: Config,
        runtime_directory: PathBuf,
        env: Arc<dyn Env>,
        signals: &mut Signals,
    ) -> Result<Self, DaemonError> {
        let groups = Groups::new();
        tokio::select! {
            started = Self::build(config, &runtime_directory, env, groups.clone()) => started,
            () = signals.next() => {
                // The future that owned the mount was dropped; a mount that a thread is making is unmounted when that thread drops it.
                let _ = tokio::time::timeout(END_MAX, groups.blocking.join()).await;
                Err(DaemonError::Stopped)
            }
        }
    }

    async fn build(
        config: Config,
        runtime_directory: &Path,
        env: Arc<dyn Env>,
        groups: Groups,
    ) -> Result<Self, DaemonError> {
        // The cheapest checks first: the mountpoint, then the store, then the namespace in it.
        let (wanted, directory) = (
            config.mount.mountpoint.clone(),
            runtime_directory.to_owned(),
        );
        let ready = move || prepare(&wanted, &directory);
        in_thread(&groups.blocking, "prepare", ready).await??;
        descriptors::raise_limit();
        let layers = Layers::open(&config, Arc::clone(&env), &groups).await?;

        let cache_dir = config.store.cache_dir.clone();
        let (fs, mount) = (Arc::clone(&layers.fs), config.mount);
        let (requests, below) = (groups.requests.clone(), groups.below.clone());
        let mounting = move || Mounted::mount(fs, &mount, requests, below);
        let mounted = match in_thread(&groups.blocking, "mount", mounting).await {
            Ok(Ok(mounted)) => mounted,
            // Closed again, so that the next mount does not find the namespace in use.
            Ok(Err(error)) => return Err(layers.give_up(error).await),
            Err(error) => return Err(layers.give_up(error).await),
        };
        let (finished, finished_receiver) = watch::channel(None);
        let (shutdown, shutdown_receiver) = mpsc::channel(1);
        let core = Arc::new(Core {
            mounted,
            layers,
            blocking: groups.blocking.clone(),
            requests: groups.requests.clone(),
            finished: finished_receiver,
            shutdown,
            shutdown_mode: Mutex::new(ShutdownMode::Drain),
            versions_name: config.fs.versions_name,
            cache_dir,
            drain_timeout: config.drain_timeout,
        });
        core.follow_restores(&groups.below);
        core.follow_lease(&groups.below);
        if let Some(standby) = config.standby {
            core.stand_by(standby, config.namespace, env, groups.clone());
        }
        match core.listen(runtime_directory, &groups.commands) {
            Ok(control) => Ok(Self {
                core,
                control,
                groups,
                finished,
                shutdown: shutdown_receiver,
            }),
            Err(error) => {
                core.unmount(Unmount::Lazy).await.ok();
                Err(core.layers.give_up(error).await)
            }
        }
    }

    /// The conflicts of this mount: changes acknowledged here before that another writer had superseded.
    #[must_use]
    pub fn conflicts(&self) -> control::ConflictReport {
        status::conflicts(self.core.layers.namespace())
    }

    /// The time whose whole tree this mount shows; `None` for a mount of the live tree.
    #[must_use]
    pub fn shown_time(&self) -> Option<&control::ShownTime> {
        self.core.layers.status_collector.shown_time()
    }

    /// Serves until an unmount, a signal or a command ends the mount, then closes all layers.
    ///
    /// # Errors
    /// [`DaemonError::Left`] when something acknowledged did not reach the bucket.
    pub async fn run(mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        notify(&[NotifyState::Ready, NotifyState::Status("mounted")]);
        let patience = tokio::select! {
            () = self.core.mounted.ended() => Patience::Unbounded,
            _ = self.shutdown.recv() => Patience::Unbounded,
            () = signals.next() => Patience::Bounded,
        };
        self.stop(signals, patience).await
    }

    /// Ends the mount as if it had been asked to: for a program that started it and cannot use it.
    ///
    /// # Errors
    /// As [`Daemon::run`].
    pub async fn abandon(self, signals: &mut Signals) -> Result<(), DaemonError> {
        self.stop(signals, Patience::Bounded).await
    }

    async fn stop(self, signals: &mut Signals, patience: Patience) -> Result<(), DaemonError> {
        tracing::info!(mountpoint = %self.core.mounted.mountpoint().display(), "ending");
        notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        let broke = self.core.mounted.is_broken();
        self.core.leave().await;
        // It has taken the namespace by now, or never will.
        self.groups.standby.stop();
        self.groups.standby.join().await;
        let namespace = self.core.layers.namespace();
        let shutdown_mode = *lock(&self.core.shutdown_mode);
        let fenced = namespace.is_fenced();
        let mut remark = None;
        let drained = match shutdown_mode {
            ShutdownMode::Drain => {
                let stall = self.core.drain_timeout;
                stop::drain(namespace, signals, patience, stall).await
            }
            ShutdownMode::KeepInCache => {
                remark = Some(stop::kept(namespace, &self.core.cache_dir));
                Ok(())
            }
        };
        let fenced = fenced || namespace.is_fenced();
        let stopped = namespace.stopped();
        let left = stop::describe_stopped(&namespace.tree().pending());
        match (&drained, shutdown_mode) {
            (Ok(()), ShutdownMode::Drain) => close(namespace).await,
            _ => abandon(namespace).await,
        }
        self.groups.below.stop();
        let outcome = match (drained, self.groups.poisoned()) {
            (_, Some(task)) => Err(DaemonError::Panicked { task, left }),
            (Err(left), None) if fenced => Err(DaemonError::Fenced(left)),
            (Err(_), None) if stopped.is_some() => Err(DaemonError::HadStopped {
                why: stopped.unwrap_or_default(),
                left,
            }),
            (Err(left), None) => Err(DaemonError::Left(left)),
            (Ok(()), None) if broke => Err(DaemonError::Broken("the session with the kernel")),
            (Ok(()), None) => Ok(()),
        };
        let reported = outcome
            .as_ref()
            .map(|()| remark)
            .map_err(ToString::to_string);
        self.finished.send_replace(Some(reported));
        // Commands that wait for the end have their answer before the process exits.
        drop(self.control);
        self.groups.commands.stop();
        let _ = tokio::time::timeout(LAZY_MAX, self.groups.commands.join()).await;
        outcome
    }
}

impl Core {
    fn listen(self: &Arc<Self>, directory: &Path, tasks: &Tasks) -> Result<Control, ControlError> {
        let core = Arc::clone(self);
        Control::open(
            directory,
            self.mounted.mountpoint(),
            &self.layers.namespace().uuid().to_string(),
            tasks,
            move |request, rows| {
                let core = Arc::clone(&core);
                async move { core.answer(request, rows).await }
            },
        )
    }

    async fn answer(self: &Arc<Self>, request: Request, rows: RowSender) -> Response {
        let outcome = match request {
            Request::Status => {
                let status = self
                    .layers
                    .status_collector
                    .status(&self.mounted, self.layers.namespace());
                return Response::Status(Box::new(status));
            }
            Request::Read { verb } => self.read(&verb, rows).await.map(|()| None),
            Request::Change { verb } => self.change(verb, rows).await.map(|()| None),
            Request::Drain { timeout_ms } => self.drain(timeout_ms).await.map(|()| None),
            Request::Shutdown {
                lazy,
                keep,
                timeout_ms,
            } => {
                let how = match lazy {
                    true => Unmount::Lazy,
                    false => Unmount::WhenIdle,
                };
                match keep {
                    true => self.end(how, ShutdownMode::KeepInCache).await,
                    false => self.shut_down(how, timeout_ms).await,
                }
            }
        };
        match outcome {
            Ok(None) => Response::Done,
            Ok(Some(message)) => Response::Remark { message },
            Err(message) => Response::Failed { message },
        }
    }

    /// Uploads everything, unmounts, and waits for the end. A step that fails leaves the mount as it was, unless a part of the
    /// mount has stopped for good (another writer has its namespace, its index gave up, a task panicked): then it ends.
    async fn shut_down(self: &Arc<Self>, how: Unmount, timeout_ms: Option<u64>) -> EndResult {
        match self.drain(timeout_ms).await {
            Err(_)
                if self.layers.namespace().stopped().is_some()
                    || self.layers.status_collector.poisoned().is_some() => {}
            Err(why) => return Err(self.not_uploaded_message(&why)),
            Ok(()) => {}
        }
        self.end(how, ShutdownMode::Drain).await
    }

    /// The message of an unmount that could not upload everything.
    fn not_uploaded_message(&self, why: &str) -> String {
        format!(
            "{why}. It is still mounted. Not yet in the bucket: {}. Try again when the store works, or end the mount with \
             `rewindfs umount --keep {}`: the changes stay in {}, and the next mount with this cache directory uploads them",
            stop::amounts(&self.layers.namespace().tree().pending()),
            self.mounted.mountpoint().display(),
            self.cache_dir.display()
        )
    }

    /// Unmounts, and waits for the end.
    async fn end(self: &Arc<Self>, how: Unmount, shutdown_mode: ShutdownMode) -> EndResult {
        // Set before the mount can end, because `Daemon::run` acts on its end too.
        *lock(&self.shutdown_mode) = shutdown_mode;
        tokio::select! {
            unmounted = self.unmount(how) => if let Err(error) = unmounted {
                *lock(&self.shutdown_mode) = ShutdownMode::Drain;
                return Err(error.to_string());
            },
            // The kernel ends the session first and then frees what it had cached: with a million files umount(2) returns seconds
            // later, and the command must have its answer before this process ends.
            () = self.mounted.ended() => {}
        }
        // A full channel means that another command has asked for the end.
        let _ = self.shutdown.try_send(());
        let mut finished = self.finished.clone();
        let finished = finished.wait_for(Option::is_some).await;
        match finished.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err("the daemon ended before the mount was closed".to_owned()),
        }
    }

    async fn drain(&self, timeout_ms: Option<u64>) -> Result<(), String> {
        let stall = timeout_ms.map_or(self.drain_timeout, Duration::from_millis);
        let drained = self.layers.namespace().drain_within(stall).await;
        drained.map_err(|error| error.to_string())
    }

    async fn unmount(self: &Arc<Self>, how: Unmount) -> Result<(), DaemonError> {
        let core = Arc::clone(self);
        Ok(in_thread(&self.blocking, "unmount", move || core.mounted.unmount(how)).await??)
    }

    /// Ends the session with the kernel: unmounted, requests answered, handles released.
    async fn leave(self: &Arc<Self>) {
        if let Err(error) = self.unmount(Unmount::WhenIdle).await {
            tracing::info!(%error, "unmounting lazily");
            if let Err(error) = self.unmount(Unmount::Lazy).await {
                tracing::error!(%error, "still mounted");
            }
        }
        let ended = tokio::time::timeout(LAZY_MAX, self.mounted.ended()).await;
        self.mounted.finish(END_MAX).await;
        if ended.is_err() {
            // Files that are still open must not write into a store that is being closed.
            self.layers.fs.poison("the mount has ended");
        }
    }
}

impl Layers {
    async fn open(
        config: &Config,
        env: Arc<dyn Env>,
        groups: &Groups,
    ) -> Result<Self, DaemonError> {
        let how = match (config.fs.read_only, &config.standby) {
            (true, None) => StoreUse::Follow,
            (false, _) | (_, Some(_)) => StoreUse::Write,
        };
        let backend = open_store(&config.url, &config.backend, how, env.as_ref()).await?;
        let mut status_collector =
            StatusCollector::new(config, backend.clone(), Arc::clone(&env), groups.clone());
        let tasks = &groups.below;
        let store = config.store.clone();
        let clock = Arc::clone(&env);
        let opened = match config.fs.read_only {
            true => {
                let follow = config.follow;
                let name = &config.namespace;
                let tasks = match &config.standby {
                    Some(_) => groups.followed.clone(),
                    None => tasks.clone(),
                };
                Namespace::follow(&backend, name, store, follow, env, tasks).await
            }
            false => Namespace::open(&backend, &config.namespace, store, env, tasks.clone()).await,
        };
        let namespace = opened.map_err(|source| not_opened(config, source))?;
        if !config.fs.read_only {
            let name = config.namespace.clone();
            let clock = Arc::clone(&clock);
            drop(tasks.spawn("sweep-orphans", sweep(backend.clone(), name, clock)));
        }
        let mut shown = config.fs.clone();
        if let Some(time) = &config.at {
            match shown_time::resolve(time, config, &namespace, clock.now()).await {
                Ok(time) => {
                    shown.shown_at = Some(Timestamp(time.ns));
                    status_collector.shows(time);
                }
                Err(error) => {
                    close(&namespace).await;
                    return Err(error);
                }
            }
        }
        let fs = FileSystem::new(namespace, shown, tasks.clone());
        Ok(Self {
            fs: Arc::new(fs),
            backend,
            status_collector,
        })
    }

    /// The namespace that is served.
    fn namespace(&self) -> &Namespace {
        self.fs.namespace()
    }

    /// Closes the namespace and returns `error`.
    async fn give_up(&self, error: impl Into<DaemonError>) -> DaemonError {
        close(self.namespace()).await;
        error.into()
    }
}

/// Prepares the mountpoint. The process that served it before may still be uploading files: the namespace is free when that
/// process has ended.
fn prepare(mountpoint: &Path, runtime_directory: &Path) -> Result<(), DaemonError> {
    let resolved = Mounted::prepare(mountpoint)?;
    match control::predecessor(runtime_directory, &resolved) {
        Some(pid) if !control::wait_for_end(pid, PREDECESSOR_MAX) => Err(DaemonError::Ending {
            path: resolved.display().to_string(),
            pid,
        }),
        _ => Ok(()),
    }
}

/// Removes the temporary files of writes that a crash interrupted. No other task depends on it.
async fn sweep(backend: Backend, namespace: String, env: Arc<dyn Env>) {
    match sweep_orphans(&backend, &namespace, env.as_ref()).await {
        Ok(0) => {}
        Ok(files) => tracing::info!(
            files,
            "removed temporary files of writes that a crash interrupted"
        ),
        Err(error) => {
            tracing::warn!(%error, "temporary files of interrupted writes were not removed");
        }
    }
}

/// Sends states to systemd if it started this process.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not notified");
    }
}

/// Closes a namespace without the bucket.
async fn abandon(namespace: &Namespace) {
    match tokio::time::timeout(END_MAX, namespace.abandon()).await {
        Ok(Ok(()) | Err(StoreError::Fenced)) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the cache directory was not synced; its changes may not survive a crash of this machine");
        }
        Err(_) => tracing::error!(
            "the cache directory was not synced in time; its changes may not survive a crash of this machine"
        ),
    }
}

async fn close(namespace: &Namespace) {
    match tokio::time::timeout(END_MAX, namespace.close()).await {
        // The changes that a fenced writer keeps have been reported.
        Ok(Ok(()) | Err(StoreError::Fenced)) => {}
        Ok(Err(error)) => tracing::error!(%error, "the namespace was closed with an error"),
        Err(_) => tracing::error!("the namespace was not closed in time"),
    }
}

/// Runs blocking work on a thread of its own.
async fn in_thread<T: Send + 'static>(
    tasks: &Tasks,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DaemonError> {
    tasks
        .blocking(name, work)
        .await
        .map_err(|_| DaemonError::Broken(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendError;
    use crate::fuse::MountError;

    #[test]
    fn usage_errors_are_distinguished_from_failures() {
        let refused = |place: &str| BackendError::Invalid {
            place: place.to_owned(),
            reason: "wrong".to_owned(),
        };
        assert!(DaemonError::Url(refused("ftp://x")).is_usage());
        assert!(!DaemonError::Backend(refused("s3://no-such-bucket")).is_usage());
        assert!(DaemonError::Mount(MountError::Missing("/x".to_owned())).is_usage());
        assert!(!DaemonError::Mount(MountError::Busy("/x".to_owned())).is_usage());
    }
}
