//! The verbs that read the past: `versions`, `ls`. Each takes a path in a mount, or a store's URL and a path in it; the rows come from
//! the mount's daemon or from a follower of the store, and are printed as a table or as JSON lines.

mod mount_path;
mod printer;
mod source;
mod table;

use super::connection::ConnectionArguments;
use super::error::CliError;
use super::place;
use crate::config::{ConnectionOptions, DEFAULT_NAMESPACE, StoreUrl};
use crate::control;
use crate::verbs::{ReadVerb, TimedPath};
use clap::Args;
use mount_path::MountPath;
use printer::{PrintForm, RowPrinter};
use source::{ReadTarget, RowSource};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// What every verb takes beside its paths.
#[derive(Debug, Args)]
struct SourceArguments {
    /// With a URL, the namespace in the store [default: main]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    connection: ConnectionArguments,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, Args)]
struct FormArguments {
    /// Print times in UTC and not in this machine's time zone
    #[arg(long)]
    utc: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

impl From<FormArguments> for PrintForm {
    fn from(said: FormArguments) -> Self {
        Self {
            json: said.json,
            utc: said.utc,
        }
    }
}

/// One path.
#[derive(Args)]
pub(super) struct PathArguments {
    /// A path in a mount, MNT/PATH or MNT/PATH@TIME; or the store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "PATH|URL")]
    place: OsString,
    /// With a URL, the path in the namespace, PATH or PATH@TIME [default: its root directory]
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    form: FormArguments,
}

impl fmt::Debug for PathArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathArguments")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A verb that reads, to be run.
#[derive(Debug)]
pub struct ReadJob {
    target: ReadTarget,
    verb: ReadVerb,
    form: PrintForm,
}

impl ReadJob {
    /// Prepares `rewindfs versions`.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn versions(arguments: PathArguments) -> Result<Self, CliError> {
        Self::of_path(arguments, |path| ReadVerb::Versions { path })
    }

    /// Prepares `rewindfs ls`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn ls(arguments: PathArguments) -> Result<Self, CliError> {
        Self::of_path(arguments, |path| ReadVerb::Ls { path })
    }

    fn of_path(
        arguments: PathArguments,
        verb: impl FnOnce(TimedPath) -> ReadVerb,
    ) -> Result<Self, CliError> {
        let PathArguments {
            place,
            path,
            source,
            form,
        } = arguments;
        let form = form.into();
        if !is_url(&place) {
            if let Some(path) = path {
                return Err(CliError::usage(format!(
                    "{}: only a URL has a PATH after it; {} is a path in a mount",
                    path.display(),
                    place.display()
                )));
            }
            let found = in_mount(&place, &source)?;
            return Ok(Self {
                target: ReadTarget::Mount(found.mountpoint),
                verb: verb(found.path),
                form,
            });
        }
        Ok(Self {
            target: store(&place, source)?,
            verb: verb(TimedPath::parse(path.unwrap_or_default().as_bytes())),
            form,
        })
    }

    /// Runs the verb, prints its rows, and returns the exit status.
    pub async fn run(self) -> ExitCode {
        match self.print().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(cli_error) => cli_error.exit(),
        }
    }

    async fn print(self) -> Result<(), CliError> {
        let source = RowSource::open(self.target).await?;
        let mut printer = RowPrinter::new(self.form);
        let outcome = source.read(&self.verb, |row| printer.print(row)).await;
        let printed = printer.finish();
        source.close().await;
        outcome.and(printed)
    }
}

fn is_url(place: &OsStr) -> bool {
    place.as_bytes().windows(3).any(|part| part == b"://")
}

/// Finds the mount of a path.
fn in_mount(place: &OsStr, source: &SourceArguments) -> Result<MountPath, CliError> {
    if let Some(name) = &source.namespace {
        return Err(CliError::usage(format!(
            "--namespace {name}: only with a URL; {} is a path in a mount",
            place.display()
        )));
    }
    let mountpoints = control::mountpoints(&place::runtime_directories());
    let timed = TimedPath::parse(place.as_bytes());
    let path = Path::new(OsStr::from_bytes(&timed.path.0));
    let found = MountPath::find(&place::from_root(path)?, &mountpoints);
    match found {
        Some(found) => Ok(found.at(timed.time)),
        None => Err(CliError::failure(format!(
            "{}: is not in a mount of this user; write MNT/PATH, or a URL and a PATH",
            path.display()
        ))),
    }
}

/// The store of a URL.
fn store(url: &OsStr, source: SourceArguments) -> Result<ReadTarget, CliError> {
    let url = url
        .to_str()
        .ok_or_else(|| CliError::usage(format!("{}: is not UTF-8", url.display())))?;
    Ok(ReadTarget::Store {
        url: StoreUrl::new(url.to_owned()),
        namespace: source
            .namespace
            .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        backend: ConnectionOptions::from(source.connection)
            .backend()
            .map_err(CliError::usage)?,
    })
}
