//! The arguments of `rewindfs policy` and `rewindfs prune`.

use super::arguments::{ChangePlace, find};
use crate::cli::error::CliError;
use crate::cli::read::PlaceArguments;
use crate::cli::read::arguments::{FormArguments, ReadPlace, SourceArguments, is_url};
use crate::cli::writer_consent::WriterArguments;
use crate::store::Policy;
use crate::verbs::{
    ChangeVerb, DirectoryPolicyChange, DirectoryPolicyRequest, PolicyRequest, PruneRequest,
    ReadVerb,
};
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// The subcommands of `rewindfs policy`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Show which versions are kept, and for how long
    #[command(override_usage = "rewindfs policy show MNT|URL [--path DIR] [OPTIONS]")]
    Show(Box<PolicyShowArguments>),
    /// Change words of the policy; a stricter policy comes into force a day later
    #[command(
        override_usage = "rewindfs policy set MNT|URL WORD=VALUE... [OPTIONS]\n       rewindfs policy set MNT|URL --path DIR WORD=VALUE...|--inherit [OPTIONS]"
    )]
    Set(Box<PolicySetArguments>),
}

/// The arguments of `rewindfs policy show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyShowArguments {
    /// A path in a mount; or the store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "MNT|URL")]
    place: OsString,
    /// The words that hold in this directory
    #[arg(long, value_name = "DIR")]
    path: Option<OsString>,
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    pub(in crate::cli) form: FormArguments,
}

/// The arguments of `rewindfs policy set`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PolicySetArguments {
    /// A path in a mount; or the store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "MNT|URL")]
    place: OsString,
    /// keep-within=1d, keep-hourly=14d, keep-daily=90d, keep-weekly=1y, keep-monthly=off, keep-yearly=off, keep-last=3,
    /// keep-removed=30d, history-max=100%; durations, `forever` or `off`; grid=off turns all five tiers off
    #[arg(value_name = "WORD=VALUE", required_unless_present = "inherit")]
    settings: Vec<String>,
    /// Keep less in this directory and below it, for versions that end from now on; never more than the namespace keeps
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "now"])]
    path: Option<OsString>,
    /// Take back the directory's own policy
    #[arg(long, requires = "path", conflicts_with = "settings")]
    inherit: bool,
    /// Only show what the changed policy would drop
    #[arg(long)]
    dry_run: bool,
    /// Bring a stricter policy into force at once, and not a day later
    #[arg(long, conflicts_with = "dry_run")]
    now: bool,
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    writer: WriterArguments,
    #[command(flatten)]
    pub(super) form: FormArguments,
}

/// The arguments of `rewindfs prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArguments {
    /// A path in a mount; or the store: file:///dir, s3://bucket/prefix, gs://, az://
    #[arg(value_name = "MNT|URL")]
    place: OsString,
    /// Only show what would be dropped
    #[arg(long)]
    dry_run: bool,
    /// Also drop what waits for this: more than a quarter of the history, by a stricter policy or history-max
    #[arg(long, conflicts_with = "dry_run")]
    confirm: bool,
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    writer: WriterArguments,
    #[command(flatten)]
    pub(super) form: FormArguments,
}

/// What a command on the retention of a namespace does.
pub(super) enum RetentionWay {
    /// It asks.
    Read(ReadPlace, ReadVerb),
    /// It changes something.
    Change(ChangePlace, ChangeVerb),
}

/// A directory below a place: in a mount a path from there, or one from the root of the machine; in a store one from its root.
fn in_directory(place: OsString, directory: OsString, source: SourceArguments) -> PlaceArguments {
    match is_url(&place) {
        true => PlaceArguments::new(place, Some(directory), source),
        false => {
            let path = PathBuf::from(place).join(directory);
            PlaceArguments::new(path.into_os_string(), None, source)
        }
    }
}

impl PolicyShowArguments {
    /// Finds the mount or the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn find(self) -> Result<(ReadPlace, ReadVerb), CliError> {
        let Some(directory) = self.path else {
            let place = PlaceArguments::new(self.place, None, self.source);
            return Ok((place.find()?, ReadVerb::Policy { path: None }));
        };
        let place = in_directory(self.place, directory, self.source).find()?;
        let path = Some(place.path.clone());
        Ok((place, ReadVerb::Policy { path }))
    }
}

impl PolicySetArguments {
    /// Finds the mount or the store, and checks the words.
    ///
    /// # Errors
    /// A usage error that names the wrong argument or word; a failure for a path in no mount.
    pub(super) fn find(self) -> Result<RetentionWay, CliError> {
        if let Some(directory) = self.path.clone() {
            return self.find_directory(directory);
        }
        let mut tried = Policy::default();
        for setting in &self.settings {
            tried.set(setting).map_err(CliError::usage)?;
        }
        let place = PlaceArguments::new(self.place, None, self.source);
        if self.dry_run {
            let settings = self.settings;
            return Ok(RetentionWay::Read(
                place.find()?,
                ReadVerb::PrunePreview { settings },
            ));
        }
        let request = PolicyRequest {
            settings: self.settings,
            at_once: self.now,
        };
        let place = find(place, None, self.writer)?;
        Ok(RetentionWay::Change(place, ChangeVerb::SetPolicy(request)))
    }

    fn find_directory(self, directory: OsString) -> Result<RetentionWay, CliError> {
        let mut tried = Policy::unlimited();
        for setting in &self.settings {
            tried.set_for_directory(setting).map_err(CliError::usage)?;
        }
        let place = in_directory(self.place, directory, self.source);
        let place = find(place, None, self.writer)?;
        if let Some(time) = &place.path.time {
            return Err(CliError::usage(format!(
                "--path {}: a policy is of a directory now, not at a TIME; a name that ends in \"@{time}\" is written with an @ behind \
                 it",
                place.path
            )));
        }
        let request = DirectoryPolicyRequest {
            path: place.path.path.clone(),
            change: match self.inherit {
                true => DirectoryPolicyChange::Inherit,
                false => DirectoryPolicyChange::Set(self.settings),
            },
        };
        let verb = ChangeVerb::SetDirectoryPolicy(request);
        Ok(RetentionWay::Change(place, verb))
    }
}

impl PruneArguments {
    /// Finds the mount or the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn find(self) -> Result<RetentionWay, CliError> {
        let place = PlaceArguments::new(self.place, None, self.source);
        if self.dry_run {
            let settings = Vec::new();
            return Ok(RetentionWay::Read(
                place.find()?,
                ReadVerb::PrunePreview { settings },
            ));
        }
        let request = PruneRequest {
            confirmed: self.confirm,
        };
        let place = find(place, None, self.writer)?;
        Ok(RetentionWay::Change(place, ChangeVerb::Prune(request)))
    }
}
