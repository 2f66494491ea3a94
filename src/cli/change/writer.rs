//! How a verb that changes reaches its namespace: through the daemon of a mount, or by a writer of its own.

use crate::backend::{Backend, BackendConfig};
use crate::cli::error::CliError;
use crate::cli::namespace::show_time;
use crate::cli::place;
use crate::cli::read::source::ReadTarget;
use crate::cli::writer_consent::{WriterConsent, writer_of_this_machine};
use crate::config::{DEFAULT_VERSIONS_NAME, StoreUrl};
use crate::control::{self, Request, Response};
use crate::daemon::{StoreUse, open_store};
use crate::env::SystemEnv;
use crate::store::{
    CheckpointLimits, GRACE, GcMode, LeaseTimes, Linger, Namespace, NamespaceConfig, NamespaceInfo,
    StoreError, Takeover, show_namespace,
};
use crate::sync::Arc;
use crate::task::Tasks;
use crate::verbs::{self, ChangeVerb, RowSender, TimedPath, VerbRow};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Handle;

/// Bytes of blocks in memory, and on disk.
const MEMORY: u64 = 64 << 20;
const DISK: u64 = 1 << 30;
/// Bytes that may wait for their upload.
const DIRTY_MAX: u64 = 256 << 20;
/// How many rows the store is ahead of the printer.
const ROWS_AHEAD: usize = 64;
/// How long the writer's tasks may take to end after everything is in the bucket.
const END_MAX: Duration = Duration::from_secs(5);

/// How the change is made.
pub(super) enum ChangeWay {
    /// By the daemon of the mount at this mountpoint, which is resolved.
    Daemon(PathBuf),
    /// By a writer of this command.
    Writer(Box<OpenWriter>),
}

/// A writer, and what it needs.
pub(in crate::cli) struct OpenWriter {
    namespace: Namespace,
    tasks: Tasks,
    /// The namespace, as messages name it.
    name: String,
    /// Where cache and journal are.
    directory: PathBuf,
}

impl ChangeWay {
    /// Finds the way to a target. `path` is what messages are about.
    ///
    /// # Errors
    /// A usage error for a URL or a namespace that cannot be; a failure that names the store or namespace, or the writer that may have
    /// it.
    pub(super) async fn open(
        target: ReadTarget,
        consent: WriterConsent,
        path: &TimedPath,
    ) -> Result<Self, CliError> {
        let (url, name, config) = match target {
            ReadTarget::Mount(mountpoint) => return Ok(Self::Daemon(mountpoint)),
            ReadTarget::Store {
                url,
                namespace,
                backend,
            } => (url, namespace, backend),
        };
        let how = match consent {
            WriterConsent::None => StoreUse::Follow,
            WriterConsent::NoOtherWriter(_) => StoreUse::Write,
        };
        let backend = open_backend(&url, &config, how).await?;
        let info = describe(&backend, &url, &name).await?;
        if let Some(mountpoint) = writer_of_this_machine(info.uuid, &name)? {
            return Ok(Self::Daemon(mountpoint));
        }
        match consent {
            WriterConsent::None => Err(CliError::failure(refusal(&url, &info, path))),
            WriterConsent::NoOtherWriter(directory) => {
                let writer = OpenWriter::open(&backend, &url, name, directory).await?;
                Ok(Self::Writer(Box::new(writer)))
            }
        }
    }

    /// Makes the changes of `verb`, and passes each row to `each` until that breaks; the changes are made in any case.
    ///
    /// # Errors
    /// A failure that names the path.
    pub(super) async fn change(
        &self,
        verb: &ChangeVerb,
        mut each: impl FnMut(VerbRow) -> ControlFlow<()> + Send,
    ) -> Result<(), CliError> {
        match self {
            Self::Daemon(mountpoint) => {
                let directories = place::runtime_directories();
                let request = Request::Change { verb: verb.clone() };
                let mut reading = ControlFlow::Continue(());
                let answer = control::ask_rows(&directories, mountpoint, &request, |row| {
                    if reading.is_continue() {
                        reading = each(row);
                    }
                    // The answer after the rows says whether the change was made.
                    ControlFlow::Continue(())
                });
                match answer.map_err(CliError::failure)? {
                    None | Some(Response::Done) => Ok(()),
                    Some(Response::Failed { message }) => Err(CliError::failure(message)),
                    Some(_) => Err(crate::cli::status::unexpected(mountpoint)),
                }
            }
            Self::Writer(writer) => {
                let (sender, mut rows) = RowSender::channel(ROWS_AHEAD);
                let (namespace, verb) = (writer.namespace.clone(), verb.clone());
                let running = writer.tasks.spawn("verb", async move {
                    let reserved = DEFAULT_VERSIONS_NAME.as_bytes();
                    verbs::change(&namespace, &verb, reserved, &sender).await
                });
                let mut reading = ControlFlow::Continue(());
                while let Some(row) = rows.recv().await {
                    if reading.is_continue() {
                        reading = each(row);
                    }
                }
                match running.await {
                    Ok(outcome) => outcome.map(drop).map_err(CliError::failure),
                    Err(error) => Err(CliError::failure(error)),
                }
            }
        }
    }

    /// Waits until the changes of a writer of this command are in the bucket.
    ///
    /// # Errors
    /// A failure that says where changes are that are not in the bucket.
    pub(super) async fn close(self) -> Result<(), CliError> {
        let Self::Writer(writer) = self else {
            return Ok(());
        };
        writer.close().await
    }
}

async fn open_backend(
    url: &StoreUrl,
    config: &BackendConfig,
    how: StoreUse,
) -> Result<Backend, CliError> {
    let opened = open_store(url, config, how, &SystemEnv).await;
    opened.map_err(|error| match error.is_usage() {
        true => CliError::usage(error),
        false => CliError::failure(error),
    })
}

impl OpenWriter {
    /// The namespace, which no other writer has.
    pub(in crate::cli) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Waits until the changes are in the bucket.
    ///
    /// # Errors
    /// A failure that says where changes are that are not in the bucket.
    pub(in crate::cli) async fn close(self) -> Result<(), CliError> {
        let closed = self.namespace.close().await;
        self.tasks.stop();
        // What does not end in time ends with the process.
        tokio::time::timeout(END_MAX, self.tasks.join()).await.ok();
        closed.map_err(|error| {
            CliError::failure(format!(
                "namespace {}: {error}; the change is in {}, and the next mount or verb with this cache directory uploads it",
                self.name,
                self.directory.display()
            ))
        })
    }

    async fn open(
        backend: &Backend,
        url: &StoreUrl,
        name: String,
        directory: PathBuf,
    ) -> Result<Self, CliError> {
        let tasks = Tasks::new(Handle::current());
        let config = NamespaceConfig {
            cache_dir: directory.clone(),
            cache_bytes: DISK,
            memory_bytes: MEMORY,
            dirty_bytes_max: DIRTY_MAX,
            linger: Linger::AtOnce,
            host: place::host(),
            owner: place::owner(),
            reclaim: GcMode::OnRequest,
            grace: GRACE,
            checkpoints: CheckpointLimits::default(),
            takeover: Takeover::Now,
            lease: LeaseTimes::default(),
            backend_timeout: None,
        };
        let opened =
            Namespace::open(backend, &name, config, Arc::new(SystemEnv), tasks.clone()).await;
        let namespace = opened
            .map_err(|error| CliError::failure(format!("{url}: namespace {name}: {error}")))?;
        Ok(Self {
            namespace,
            tasks,
            name,
            directory,
        })
    }
}

/// How `check --repair` reaches a namespace: by a writer of its own alone, so that nothing else changes the rows meanwhile.
pub(in crate::cli) struct RepairAccess<'a> {
    pub(in crate::cli) url: &'a StoreUrl,
    pub(in crate::cli) name: &'a str,
    pub(in crate::cli) backend: &'a BackendConfig,
}

impl RepairAccess<'_> {
    /// Opens the writer.
    ///
    /// # Errors
    /// As those of [`ChangeWay::open`]; a failure that names the mount of this machine that has the namespace.
    pub(in crate::cli) async fn open(
        &self,
        consent: &WriterConsent,
    ) -> Result<OpenWriter, CliError> {
        let Self { url, name, backend } = *self;
        let how = match consent {
            WriterConsent::None => StoreUse::Follow,
            WriterConsent::NoOtherWriter(_) => StoreUse::Write,
        };
        let backend = open_backend(url, backend, how).await?;
        let info = describe(&backend, url, name).await?;
        if let Some(mountpoint) = writer_of_this_machine(info.uuid, name)? {
            return Err(CliError::failure(format!(
                "{url}: not repaired, because namespace {name} is mounted at {at}: `rewindfs umount {at}` first",
                at = mountpoint.display()
            )));
        }
        match consent {
            WriterConsent::NoOtherWriter(directory) => {
                OpenWriter::open(&backend, url, name.to_owned(), directory.clone()).await
            }
            WriterConsent::None => Err(CliError::failure(format!(
                "{url}: not repaired, because a mount on another machine may have namespace {name}: {}, and no mount of this user here \
                 has it. End that mount, and add --no-writer, which says that no machine has the namespace mounted and takes it from any \
                 mount that has it",
                last_written(&info)
            ))),
        }
    }
}

async fn describe(
    backend: &Backend,
    url: &StoreUrl,
    name: &str,
) -> Result<NamespaceInfo, CliError> {
    let described = show_namespace(backend, name).await;
    let info = described.map_err(|error| match error {
        StoreError::Invalid(_) => CliError::usage(error),
        StoreError::NotFound => {
            CliError::failure(format!("{url}: namespace {name} does not exist"))
        }
        other => CliError::failure(format!("{url}: namespace {name}: {other}")),
    })?;
    match &info.replaced_by {
        Some(new) => Err(CliError::failure(format!(
            "{url}: namespace {name} was rebuilt as namespace {new}: use --namespace {new}"
        ))),
        None => Ok(info),
    }
}

/// Says when a namespace was last written, and where.
fn last_written(info: &NamespaceInfo) -> String {
    match &info.last {
        Some(last) => {
            let host = last.host.as_deref().unwrap_or("an unknown machine");
            let time = show_time(last.instant_ns);
            format!("it was last written at {time} or later, from {host}")
        }
        None => "no change of it is in the bucket's log yet".to_owned(),
    }
}

/// The message where another machine may have the namespace.
fn refusal(url: &StoreUrl, info: &NamespaceInfo, path: &TimedPath) -> String {
    let (name, written) = (&info.name, last_written(info));
    format!(
        "{path}: not changed, because a mount on another machine may have namespace {name} of {url}: {written}, and no mount of this user \
         here has it. Run the command there, on the mount; or mount it here; or, if no machine has it mounted, add --no-writer, which \
         takes the namespace from any mount that has it"
    )
}
