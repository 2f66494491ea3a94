//! The arguments that verbs which change share.

use crate::cli::error::CliError;
use crate::cli::read::PlaceArguments;
use crate::cli::read::arguments::{FormArguments, ReadPlace, in_mount_of, is_url};
use crate::cli::read::source::ReadTarget;
use crate::cli::writer_consent::{WriterArguments, WriterConsent};
use crate::verbs::{PathText, TimedPath};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The arguments of `rewindfs undelete`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UndeleteArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Restore it under this path; on a mount MNT/PATH
    #[arg(long, value_name = "DEST")]
    to: Option<OsString>,
    #[command(flatten)]
    writer: WriterArguments,
    #[command(flatten)]
    pub(super) form: FormArguments,
}

/// The arguments of `rewindfs restore`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Make this new path with that state and leave PATH as it is; on a mount MNT/PATH
    #[arg(long, value_name = "DEST", conflicts_with = "keep_new")]
    to: Option<OsString>,
    /// Leave what was added to a directory since
    #[arg(long)]
    pub(super) keep_new: bool,
    /// Print what would change, and change nothing
    #[arg(long, conflicts_with = "to")]
    pub(super) dry_run: bool,
    #[command(flatten)]
    writer: WriterArguments,
    #[command(flatten)]
    pub(super) form: FormArguments,
}

impl RestoreArguments {
    /// Finds the mount or the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn find(self) -> Result<ChangePlace, CliError> {
        let found = find(self.place, self.to.as_deref(), self.writer)?;
        // What follows an `@` of the last name may be a label, which the daemon, or the command on a URL, looks up.
        let last = found.path.path.0.rsplit(|byte| *byte == b'/').next();
        let may_have_label = last.is_some_and(|name| name.contains(&b'@'));
        match found.path.time {
            Some(_) => Ok(found),
            None if may_have_label => Ok(found),
            None => Err(CliError::usage(format!(
                "{path}: write PATH@TIME, as in {path}@-1h; `rewindfs versions` and `rewindfs log` show the times",
                path = found.path
            ))),
        }
    }
}

/// What a verb changes, and where.
#[derive(Debug)]
pub(super) struct ChangePlace {
    pub(super) target: ReadTarget,
    pub(super) path: TimedPath,
    pub(super) to: Option<PathText>,
    pub(super) consent: WriterConsent,
}

impl UndeleteArguments {
    /// Finds the mount or the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn find(self) -> Result<ChangePlace, CliError> {
        let found = find(self.place, self.to.as_deref(), self.writer)?;
        match &found.path.time {
            None => Ok(found),
            Some(time) => Err(CliError::usage(format!(
                "{}: undelete restores the last state; `rewindfs restore` one of another time, and a name that ends in \"@{time}\" \
                 is written with an @ behind it",
                found.path
            ))),
        }
    }
}

/// Finds the mount or the store of a verb.
///
/// # Errors
/// A usage error that names the wrong argument; a failure for a path in no mount.
pub(super) fn find(
    place: PlaceArguments,
    to: Option<&OsStr>,
    writer: WriterArguments,
) -> Result<ChangePlace, CliError> {
    let ReadPlace { target, path } = place.find()?;
    let to = to.map(|to| destination(&target, to)).transpose()?;
    let consent = match (&target, writer.no_writer) {
        (ReadTarget::Mount(_), true) => {
            return Err(CliError::usage(
                "--no-writer: only with a URL; a mount writes by itself",
            ));
        }
        (_, _) => writer.on_url()?,
    };
    Ok(ChangePlace {
        target,
        path,
        to,
        consent,
    })
}

/// Reads where a verb puts what it restores: a path of the same mount or store.
fn destination(target: &ReadTarget, to: &OsStr) -> Result<PathText, CliError> {
    match target {
        ReadTarget::Store { .. } if is_url(to) => Err(CliError::usage(format!(
            "--to {}: write a path in the same store, without its URL",
            to.display()
        ))),
        ReadTarget::Store { .. } => Ok(PathText(to.as_bytes().to_vec().into())),
        ReadTarget::Mount(mountpoint) => {
            let found = in_mount_of(to)?;
            match found {
                Some(found) if found.mountpoint == *mountpoint => Ok(found.path.path),
                _ => Err(CliError::failure(format!(
                    "--to {}: is not in the mount at {}",
                    to.display(),
                    mountpoint.display()
                ))),
            }
        }
    }
}
