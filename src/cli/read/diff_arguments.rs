//! The arguments of `rewindfs diff`: one or two paths, and what is printed of their differences.

use super::arguments::{SourceArguments, in_mount, is_url, store};
use super::color::ColorChoice;
use super::diff_printer::{DiffDetail, DiffForm};
use super::source::ReadTarget;
use crate::cli::error::CliError;
use crate::verbs::TimedPath;
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The arguments of `rewindfs diff`.
#[derive(Args)]
pub(in crate::cli) struct DiffArguments {
    /// The old side in a mount, MNT/PATH@TIME; or the store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "A|URL")]
    place: OsString,
    /// The new side, MNT/PATH or MNT/PATH@TIME [default: the path of the old one now]; with a URL, both sides as PATH or PATH@TIME
    #[arg(value_name = "B", num_args = 0..=2)]
    paths: Vec<OsString>,
    #[command(flatten)]
    source: SourceArguments,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Print the numbers of added and removed lines
    #[arg(long, conflicts_with = "patch")]
    stat: bool,
    /// Of trees, print the lines that differ too
    #[arg(long, short)]
    patch: bool,
    /// When to color lines
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

impl fmt::Debug for DiffArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiffArguments")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl DiffArguments {
    /// How the differences are printed.
    pub(super) fn form(&self) -> DiffForm {
        DiffForm {
            json: self.json,
            detail: match (self.stat, self.patch) {
                (true, _) => DiffDetail::Counts,
                (false, true) => DiffDetail::Lines,
                (false, false) => DiffDetail::Usual,
            },
            colored: self.color.is_colored(),
        }
    }

    /// Finds both sides.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for two paths that are not in one mount.
    pub(super) fn sides(self) -> Result<DiffSides, CliError> {
        match is_url(&self.place) {
            true => DiffSides::on_store(&self.place, &self.paths, self.source),
            false => DiffSides::in_mount(&self.place, &self.paths, &self.source),
        }
    }
}

/// What is compared, and where it is.
pub(super) struct DiffSides {
    pub(super) target: ReadTarget,
    pub(super) old: TimedPath,
    pub(super) new: TimedPath,
}

/// The new side where none is named: the old path now.
fn now(old: &TimedPath) -> TimedPath {
    TimedPath {
        path: old.path.clone(),
        time: None,
    }
}

impl DiffSides {
    fn on_store(
        url: &OsStr,
        paths: &[OsString],
        source: SourceArguments,
    ) -> Result<Self, CliError> {
        let parsed = |path: &OsString| TimedPath::parse(path.as_bytes());
        let Some((old, new)) = paths.split_first() else {
            return Err(CliError::usage(
                "a URL needs a PATH@TIME after it: `rewindfs diff URL @-1d` compares the root directory",
            ));
        };
        let old = parsed(old);
        Ok(Self {
            target: store(url, source)?,
            new: new.first().map_or_else(|| now(&old), parsed),
            old,
        })
    }

    fn in_mount(
        old: &OsStr,
        paths: &[OsString],
        source: &SourceArguments,
    ) -> Result<Self, CliError> {
        let (new, others) = match paths {
            [] => (None, None),
            [new, others @ ..] => (Some(new), others.first()),
        };
        if let Some(other) = others {
            return Err(CliError::usage(format!(
                "{}: two paths are compared",
                other.display()
            )));
        }
        let old = in_mount(old, source)?;
        let new = new.map(|new| in_mount(new, source)).transpose()?;
        if let Some(new) = &new
            && new.mountpoint != old.mountpoint
        {
            return Err(CliError::failure(format!(
                "{} and {}: paths of one mount are compared",
                old.mountpoint.display(),
                new.mountpoint.display()
            )));
        }
        Ok(Self {
            target: ReadTarget::Mount(old.mountpoint),
            new: new.map_or_else(|| now(&old.path), |new| new.path),
            old: old.path,
        })
    }
}
