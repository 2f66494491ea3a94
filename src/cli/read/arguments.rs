//! The arguments that verbs share: where a path is, and how rows are printed.

use super::mount_path::MountPath;
use super::printer::PrintForm;
use super::source::ReadTarget;
use crate::cli::connection::ConnectionArguments;
use crate::cli::error::CliError;
use crate::cli::place;
use crate::config::{ConnectionOptions, DEFAULT_NAMESPACE, StoreUrl};
use crate::control;
use crate::verbs::TimedPath;
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What every verb takes beside its paths.
#[derive(Debug, Args)]
pub(in crate::cli) struct SourceArguments {
    /// With a URL, the namespace in the store [default: main]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    connection: ConnectionArguments,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct FormArguments {
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
pub(in crate::cli) struct PathArguments {
    #[command(flatten)]
    pub(super) place: PlaceArguments,
    #[command(flatten)]
    pub(super) form: FormArguments,
}

/// Where a path is.
#[derive(Args)]
pub(in crate::cli) struct PlaceArguments {
    /// A path in a mount, MNT/PATH or MNT/PATH@TIME; or the store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "PATH|URL")]
    place: OsString,
    /// With a URL, the path in the namespace, PATH or PATH@TIME [default: its root directory]
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    #[command(flatten)]
    source: SourceArguments,
}

impl fmt::Debug for PathArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Debug for PlaceArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaceArguments")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A path, and where it is looked up.
#[derive(Debug)]
pub(in crate::cli) struct ReadPlace {
    pub(in crate::cli) target: ReadTarget,
    pub(in crate::cli) path: TimedPath,
}

impl PlaceArguments {
    /// The place that these words name.
    pub(in crate::cli) fn new(
        place: OsString,
        path: Option<OsString>,
        source: SourceArguments,
    ) -> Self {
        Self {
            place,
            path,
            source,
        }
    }

    /// Finds the mount or the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(in crate::cli) fn find(self) -> Result<ReadPlace, CliError> {
        let Self {
            place,
            path,
            source,
        } = self;
        if is_url(&place) {
            return Ok(ReadPlace {
                target: store(&place, source)?,
                path: TimedPath::parse(path.unwrap_or_default().as_bytes()),
            });
        }
        if let Some(path) = path {
            return Err(CliError::usage(format!(
                "{}: only a URL has a PATH after it; {} is a path in a mount",
                path.display(),
                place.display()
            )));
        }
        let found = in_mount(&place, &source)?;
        Ok(ReadPlace {
            target: ReadTarget::Mount(found.mountpoint),
            path: found.path,
        })
    }
}

pub(in crate::cli) fn is_url(place: &OsStr) -> bool {
    place.as_bytes().windows(3).any(|part| part == b"://")
}

/// Finds the mount of a path.
pub(in crate::cli) fn in_mount(
    place: &OsStr,
    source: &SourceArguments,
) -> Result<MountPath, CliError> {
    if let Some(name) = &source.namespace {
        return Err(CliError::usage(format!(
            "--namespace {name}: only with a URL; {} is a path in a mount",
            place.display()
        )));
    }
    let timed = TimedPath::parse(place.as_bytes());
    let path = Path::new(OsStr::from_bytes(&timed.path.0));
    match in_mount_of(path.as_os_str())? {
        Some(found) => Ok(found.at(timed.time)),
        None => Err(CliError::failure(format!(
            "{}: is not in a mount of this user; write MNT/PATH, or a URL and a PATH",
            path.display()
        ))),
    }
}

/// Finds the mount of a path that has no time; `None` if it is in none.
pub(in crate::cli) fn in_mount_of(path: &OsStr) -> Result<Option<MountPath>, CliError> {
    let mountpoints = control::mountpoints(&place::runtime_directories());
    let absolute = place::from_root(Path::new(path))?;
    Ok(MountPath::find(&absolute, &mountpoints))
}

/// The store of a URL.
pub(super) fn store(url: &OsStr, source: SourceArguments) -> Result<ReadTarget, CliError> {
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
