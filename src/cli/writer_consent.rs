//! Whether a command on a URL may write a namespace: the flag by which the user says that no other machine has it, and the daemon of this machine
//! that may.

use super::error::CliError;
use super::place;
use crate::control;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// How long a daemon of this machine may take to tell its status.
const STATUS_MAX: Duration = Duration::from_secs(10);

/// How a verb on a URL gets its namespace.
#[derive(Debug, Args)]
pub(super) struct WriterArguments {
    /// With a URL that no mount of this machine has: no other machine has it mounted either, so write it from here
    #[arg(long)]
    pub(super) no_writer: bool,
    /// With --no-writer, the directory for cache and journal, that of the mounts of this store on this machine [default:
    /// ~/.cache/rewindfs, for root /var/cache/rewindfs]
    #[arg(long, value_name = "DIR", requires = "no_writer")]
    cache_dir: Option<PathBuf>,
}

impl WriterArguments {
    /// Tells whether a command on a URL may write a namespace that no mount of this machine has.
    ///
    /// # Errors
    /// A usage error where no directory for cache and journal is known.
    pub(super) fn on_url(self) -> Result<WriterConsent, CliError> {
        Ok(match (self.no_writer, self.cache_dir) {
            (false, _) => WriterConsent::None,
            (true, Some(directory)) => WriterConsent::NoOtherWriter(place::from_root(&directory)?),
            (true, None) => WriterConsent::NoOtherWriter(place::cache_directory()?),
        })
    }
}

/// Whether a verb may write a namespace that no mount of this machine has.
#[derive(Debug)]
pub(super) enum WriterConsent {
    /// No: another machine may write it.
    None,
    /// The user says that no other machine has it. The directory is for cache and journal.
    NoOtherWriter(PathBuf),
}

/// Returns the mountpoint of a daemon of this machine that writes the namespace.
pub(super) fn writer_of_this_machine(
    uuid: uuid::Uuid,
    name: &str,
) -> Result<Option<PathBuf>, CliError> {
    let directories = place::runtime_directories();
    let uuid = uuid.to_string();
    for mountpoint in control::mounts_of(&directories, &uuid) {
        let status = control::status_of(&directories, &mountpoint, STATUS_MAX);
        let status = status.map_err(|error| {
            // It may be the writer, which must not lose its namespace.
            CliError::failure(format!("{error}; it may have namespace {name}"))
        })?;
        if let Some(status) = status
            && status.uuid == uuid
            && status.shown_ns.is_none()
            && !status.fenced
        {
            return Ok(Some(mountpoint));
        }
    }
    Ok(None)
}
