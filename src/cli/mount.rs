//! `rewindfs mount`: from flags to a daemon, in this process or in the background.

use super::background::{self, ReadinessPipe};
use super::connection::ConnectionArguments;
use super::error::CliError;
use super::options::FLAGS;
use super::{log, place, value};
use crate::config::{Config, Settings, StoreUrl};
use crate::daemon::{Daemon, DaemonError, Signals, tell_waiting};
use crate::env::{Env, SystemEnv};
use crate::fs::SyncOn;
use crate::fuse::MountFlag;
use crate::store::{Takeover, WaitProgress};
use crate::sync::Arc;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The flags of `rewindfs mount`; each is also a word under `-o`.
#[derive(Args)]
#[command(args_override_self = true)]
pub(super) struct MountArguments {
    /// The store: file:///dir, s3://bucket/prefix, gs://bucket, az://container, memory://
    #[arg(value_name = "URL")]
    url: String,
    /// The directory to mount on
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
    /// The tree inside the store, team/eu [default: main]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Stay in the foreground, log to standard error
    #[arg(long, short = 'f')]
    foreground: bool,
    /// Options in the form of mount(8): allow_other,ro,namespace=team/eu
    #[arg(long, short = 'o', value_name = "LIST")]
    options: Vec<String>,
    /// Refuse every change; another mount may write at the same time
    #[arg(long)]
    read_only: bool,
    /// Show the whole tree as it was at this time (-1h, 2026-11-20, ...), read-only; another mount may write at the same time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<OsString>,
    /// With --read-only or --at: how often to look for newer changes in the bucket [default: 1s, with --at 10s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    refresh: Option<Duration>,
    /// With --read-only or --at: show the readable part of a damaged index
    #[arg(long)]
    damaged: bool,
    /// Follow the writer, refuse every change until it ends or dies, then be the writer
    #[arg(long)]
    standby: bool,
    /// Where another writer may be alive: wait until it ends or is dead, take the namespace from it now, or fail [default: wait]
    #[arg(long, value_name = "HOW", value_enum)]
    takeover: Option<TakeoverChoice>,
    /// Give every user access, each with their own rights; always on for root's mounts
    #[arg(long)]
    allow_other: bool,
    /// When close(2) returns: saved locally, saved in the bucket, or as release with uploads at intervals [default: release]
    #[arg(long, value_name = "WHEN", value_enum)]
    sync_on: Option<SyncChoice>,
    /// With --sync-on interval: how long a saved file may wait for its upload [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    sync_interval: Option<Duration>,
    /// The directory for cache and journal [default: ~/.cache/rewindfs, for root /var/cache/rewindfs]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// The size of the cache on disk [default: 10G]
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    cache_size: Option<u64>,
    /// The size of the caches in memory [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    memory: Option<u64>,
    /// Bytes that may wait for their upload before writers wait [default: 4G]
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    dirty_max: Option<u64>,
    /// How long an object that no version shows any more stays in the bucket; longer than any read [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    connection: ConnectionArguments,
    /// The name that shows the past in every directory [default: .versions]
    #[arg(long, value_name = "NAME")]
    versions_dir: Option<OsString>,
    /// Show this user as the owner of every file
    #[arg(long, value_name = "NUMBER")]
    uid: Option<u32>,
    /// Show this group as the group of every file
    #[arg(long, value_name = "NUMBER")]
    gid: Option<u32>,
    /// Hide these permission bits of every file
    #[arg(long, value_name = "BITS", value_parser = value::octal)]
    umask: Option<u32>,
    /// After how long a caller gets EIO; ten times as long for contents and fsync [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    deadline: Option<Duration>,
    /// How long drain and umount wait without progress of the uploads [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    drain_timeout: Option<Duration>,
    /// After how long without progress of the uploads a write that waits for room fails [default: it waits]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    backend_timeout: Option<Duration>,
    /// Append the log to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The format of a line of the log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = log::Format::Text)]
    log_format: log::Format,
    /// A flag that the kernel enforces, from a word under -o
    #[arg(long, value_name = "WORD", hide = true, value_parser = clap::builder::PossibleValuesParser::new(FLAGS))]
    mount_flag: Vec<String>,
    /// Report the outcome of mounting to the parent process over standard input
    #[arg(long, hide = true)]
    report_on_stdin: bool,
}

impl fmt::Debug for MountArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountArguments")
            .field("url", &StoreUrl::new(self.url.clone()))
            .field("mountpoint", &self.mountpoint)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SyncChoice {
    Release,
    Close,
    Interval,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TakeoverChoice {
    Wait,
    Now,
    Never,
}

/// How `rewindfs mount` continues.
pub(super) enum Mounting {
    /// This process serves the mount.
    Serve(Box<MountJob>),
    /// Another process serves, and the mount answers.
    InBackground,
}

/// A mount to be served by this process.
#[derive(Debug)]
pub struct MountJob {
    config: Config,
    runtime_directory: PathBuf,
    readiness: ReadinessPipe,
}

/// Checks the flags and continues in this process or in another one, which gets `prepared`, the whole command line.
///
/// # Errors
/// A usage error that names the flag; a failure that the other process reported.
pub(super) fn start(
    arguments: MountArguments,
    prepared: &[OsString],
) -> Result<Mounting, CliError> {
    if let Some(list) = arguments.options.first() {
        return Err(CliError::usage(format!(
            "-o {list}: write it apart from other short flags"
        )));
    }
    let log_file = arguments.log.as_deref().map(place::from_root).transpose()?;
    let (foreground, reports) = (arguments.foreground, arguments.report_on_stdin);
    let format = arguments.log_format;
    // Checked in the parent too, so that a wrong flag is reported before a second process is started.
    let config = Config::new(settings(arguments)?).map_err(CliError::usage)?;
    if !foreground {
        background::launch(prepared, log_file.as_deref(), &config.mount.mountpoint)?;
        return Ok(Mounting::InBackground);
    }
    let readiness = match reports {
        true => background::detach()?,
        false => ReadinessPipe::None,
    };
    if let Err(cli_error) = log::start(log_file.as_deref(), format) {
        readiness.refused(&cli_error);
        return Err(cli_error);
    }
    Ok(Mounting::Serve(Box::new(MountJob {
        config,
        runtime_directory: place::runtime_directory(),
        readiness,
    })))
}

fn settings(arguments: MountArguments) -> Result<Settings, CliError> {
    let cache_dir = match &arguments.cache_dir {
        Some(directory) => place::from_root(directory)?,
        None => place::cache_directory()?,
    };
    Ok(Settings {
        url: StoreUrl::new(arguments.url),
        mountpoint: place::from_root(&arguments.mountpoint)?,
        namespace: arguments.namespace,
        read_only: arguments.read_only,
        at: arguments.at,
        refresh: arguments.refresh,
        damaged: arguments.damaged,
        standby: arguments.standby,
        takeover: arguments.takeover.map(|choice| match choice {
            TakeoverChoice::Wait => Takeover::Wait(WaitProgress::default()),
            TakeoverChoice::Now => Takeover::Now,
            TakeoverChoice::Never => Takeover::Never,
        }),
        allow_other: arguments.allow_other,
        flags: arguments
            .mount_flag
            .iter()
            .filter_map(|word| flag(word))
            .collect(),
        sync_on: arguments.sync_on.map(|choice| match choice {
            SyncChoice::Release => SyncOn::Release,
            SyncChoice::Close => SyncOn::Close,
            SyncChoice::Interval => SyncOn::Interval,
        }),
        sync_interval: arguments.sync_interval,
        cache_dir,
        cache_bytes: arguments.cache_size,
        memory_bytes: arguments.memory,
        dirty_bytes_max: arguments.dirty_max,
        grace: arguments.grace,
        connection: arguments.connection.into(),
        versions_name: arguments.versions_dir,
        uid: arguments.uid,
        gid: arguments.gid,
        umask: arguments.umask,
        deadline: arguments.deadline,
        drain_timeout: arguments.drain_timeout,
        backend_timeout: arguments.backend_timeout,
        host: place::host(),
        owner: place::owner(),
    })
}

fn flag(word: &str) -> Option<MountFlag> {
    Some(match word {
        "exec" => MountFlag::Exec,
        "noexec" => MountFlag::NoExec,
        "suid" => MountFlag::Suid,
        "nosuid" => MountFlag::NoSuid,
        "dev" => MountFlag::Dev,
        "nodev" => MountFlag::NoDev,
        "atime" => MountFlag::Atime,
        "noatime" => MountFlag::NoAtime,
        "sync" => MountFlag::Sync,
        "dirsync" => MountFlag::DirSync,
        _ => return None,
    })
}

impl MountJob {
    /// Mounts, reports that, serves until the end, and returns the exit status.
    pub async fn run(self) -> ExitCode {
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let mut signals = Signals::listen();
        let takeover = self.config.store.takeover.clone();
        let waiting = tell_waiting(&takeover, |message| self.readiness.waiting(message));
        let started = Daemon::start(self.config, self.runtime_directory, env, &mut signals);
        let started = tokio::select! {
            started = started => started,
            error = waiting => {
                tracing::error!(%error, "the command that waits for this mount has ended");
                return ExitCode::FAILURE;
            }
        };
        let daemon = match started {
            Ok(daemon) => daemon,
            Err(error) => {
                tracing::error!(%error, "not mounted");
                let cli_error = cli_error(&error);
                self.readiness.refused(&cli_error);
                return cli_error.exit();
            }
        };
        let older = daemon.shown_time().and_then(super::status::older_state);
        let remark = super::status::conflicts(&daemon.conflicts()).or(older);
        let outcome = match self.readiness.ready(remark) {
            Ok(()) => {
                tracing::info!("mounted");
                daemon.run(&mut signals).await
            }
            Err(error) => {
                tracing::error!(%error, "the command that started this mount has ended: unmounting");
                daemon.abandon(&mut signals).await
            }
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "the mount ended with an error");
                cli_error(&error).exit()
            }
        }
    }
}

fn cli_error(error: &DaemonError) -> CliError {
    match error.is_usage() {
        true => CliError::usage(error),
        false => CliError::failure(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DEFAULT_NAMESPACE, DEFAULT_VERSIONS_NAME};

    #[test]
    fn every_flag_of_the_kernel_is_known() {
        for word in FLAGS {
            assert!(flag(word).is_some(), "{word}");
        }
    }

    #[test]
    fn the_help_names_the_defaults() {
        let mut command = MountArguments::augment_args(clap::Command::new("mount"));
        let help = command.render_help().to_string();
        for default in [DEFAULT_NAMESPACE, DEFAULT_VERSIONS_NAME] {
            assert!(help.contains(&format!("[default: {default}]")), "{help}");
        }
    }
}
