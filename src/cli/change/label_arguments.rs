//! The arguments of `rewindfs label`.

use super::arguments::{ChangePlace, find};
use crate::cli::error::CliError;
use crate::cli::read::arguments::{FormArguments, SourceArguments, is_url};
use crate::cli::read::{LabelListArguments, PlaceArguments};
use crate::cli::writer_consent::WriterArguments;
use crate::env::{Env, SystemEnv};
use crate::fs::past::until::{UntilError, parse_until};
use crate::store::{Timestamp, check_label_name};
use crate::verbs::{
    ChangeVerb, LabelChange, LabelRequest, PathText, VersionHoldChange, VersionHoldRequest,
};
use clap::{Args, Subcommand};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The subcommands of `rewindfs label`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LabelCommand {
    /// List the labels of a directory, also of a removed one
    List(Box<LabelListArguments>),
    #[command(flatten)]
    Change(LabelChangeCommand),
}

/// The subcommands that change a label.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LabelChangeCommand {
    /// Name what a directory shows now; returns when the bucket has it
    #[command(
        override_usage = "rewindfs label create MNT/DIR NAME [OPTIONS]\n       rewindfs label create URL [PATH] NAME [OPTIONS]"
    )]
    Create(Box<LabelCreateArguments>),
    /// Give a label another name
    #[command(
        override_usage = "rewindfs label rename MNT/DIR NAME NEW [OPTIONS]\n       rewindfs label rename URL [PATH] NAME NEW [OPTIONS]"
    )]
    Rename(Box<LabelArguments>),
    /// Remove a label; what only it kept is due then
    #[command(
        override_usage = "rewindfs label delete MNT/DIR NAME [OPTIONS]\n       rewindfs label delete URL [PATH] NAME [OPTIONS]"
    )]
    Delete(Box<LabelArguments>),
    /// Hold a label or a version: nothing removes it before DATE (2027-01-01, or 30d from now)
    #[command(
        override_usage = "rewindfs label hold MNT/DIR NAME DATE [OPTIONS]\n       rewindfs label hold MNT/PATH@TIME DATE [OPTIONS]\n       rewindfs label hold URL [PATH] NAME DATE [OPTIONS]\n       rewindfs label hold URL PATH@TIME DATE [OPTIONS]"
    )]
    Hold(Box<LabelArguments>),
    /// End the hold of a label or a version now
    #[command(
        override_usage = "rewindfs label release MNT/DIR NAME --yes [OPTIONS]\n       rewindfs label release MNT/PATH@TIME --yes [OPTIONS]\n       rewindfs label release URL [PATH] NAME --yes [OPTIONS]\n       rewindfs label release URL PATH@TIME --yes [OPTIONS]"
    )]
    Release(Box<LabelReleaseArguments>),
}

/// A directory, a label, and what else a subcommand takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct LabelArguments {
    /// The directory (a path in a mount, or a URL and a path), the label, and the new name or the date; of a version its PATH@TIME,
    /// and the date
    #[arg(value_name = "WORD", required = true)]
    words: Vec<OsString>,
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    writer: WriterArguments,
    #[command(flatten)]
    form: FormArguments,
}

/// The arguments of `rewindfs label create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LabelCreateArguments {
    /// Remove the label then, unless it is held: 30d, 1y, 2027-01-01
    #[arg(long, value_name = "DATE")]
    expires: Option<String>,
    #[command(flatten)]
    label: LabelArguments,
}

/// The arguments of `rewindfs label release`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LabelReleaseArguments {
    /// Confirm that the label or the version can be removed from now on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    label: LabelArguments,
}

/// A change of a label, and where.
pub(super) struct LabelChangePlace {
    pub(super) place: ChangePlace,
    pub(super) verb: ChangeVerb,
    pub(super) form: FormArguments,
}

/// What follows the directory on a command line.
enum LabelWords {
    Name,
    NameAnd(&'static str),
}

impl LabelArguments {
    /// Finds the mount or the store. `change` makes the change of the word after the name.
    fn find(
        self,
        expected: &LabelWords,
        change: impl FnOnce(&OsStr) -> Result<LabelChange, CliError>,
    ) -> Result<LabelChangePlace, CliError> {
        let (count, what) = match expected {
            LabelWords::Name => (1, "NAME".to_owned()),
            LabelWords::NameAnd(word) => (2, format!("NAME {word}")),
        };
        let mut words = self.words.into_iter();
        let place = words.next().unwrap_or_default();
        let mut rest: Vec<OsString> = words.collect();
        let path = (is_url(&place) && rest.len() == count + 1).then(|| rest.remove(0));
        let [name, ..] = &rest[..] else {
            return Err(wrong_words(&place, &what));
        };
        if rest.len() != count {
            return Err(wrong_words(&place, &what));
        }
        check_label_name(name.as_bytes()).map_err(CliError::usage)?;
        let second = rest.get(1).map_or(OsStr::new(""), OsString::as_os_str);
        let change = change(second)?;
        let label = text(name);
        let place = PlaceArguments::new(place, path, self.source);
        let place = find(place, None, self.writer)?;
        if let Some(time) = &place.path.time {
            return Err(CliError::usage(format!(
                "{}: a label names the present state; write the directory without @{time}",
                place.path
            )));
        }
        let request = LabelRequest {
            path: place.path.path.clone(),
            label,
            change,
        };
        Ok(LabelChangePlace {
            place,
            verb: ChangeVerb::Label(request),
            form: self.form,
        })
    }
}

impl LabelArguments {
    /// Tells whether the words name a version, PATH@TIME, with `after` words behind it, and not a directory and a label.
    fn names_version(&self, after: usize) -> bool {
        let path = match &self.words[..] {
            [url, path, rest @ ..] if is_url(url) && rest.len() == after => path,
            [path, rest @ ..] if !is_url(path) && rest.len() == after => path,
            _ => return false,
        };
        path.as_bytes().contains(&b'@')
    }

    /// Finds the mount or the store of a version. `change` makes the change of the words after it.
    fn find_version(
        self,
        change: impl FnOnce(&[OsString]) -> Result<VersionHoldChange, CliError>,
    ) -> Result<LabelChangePlace, CliError> {
        let mut words = self.words.into_iter();
        let place = words.next().unwrap_or_default();
        let path = is_url(&place).then(|| words.next()).flatten();
        let rest: Vec<OsString> = words.collect();
        let change = change(&rest)?;
        let place = PlaceArguments::new(place, path, self.source);
        let place = find(place, None, self.writer)?;
        let request = VersionHoldRequest {
            path: place.path.clone(),
            change,
        };
        Ok(LabelChangePlace {
            place,
            verb: ChangeVerb::HoldVersion(request),
            form: self.form,
        })
    }
}

impl LabelChangeCommand {
    /// Finds the mount or the store of a change.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn find(self) -> Result<LabelChangePlace, CliError> {
        match self {
            Self::Create(arguments) => {
                let LabelCreateArguments { expires, label } = *arguments;
                if let Some(expires) = &expires {
                    check_end("--expires", expires)?;
                }
                label.find(&LabelWords::Name, |_| Ok(LabelChange::Create { expires }))
            }
            Self::Rename(label) => label.find(&LabelWords::NameAnd("NEW"), |to| {
                check_label_name(to.as_bytes()).map_err(CliError::usage)?;
                Ok(LabelChange::Rename { to: text(to) })
            }),
            Self::Delete(label) => label.find(&LabelWords::Name, |_| Ok(LabelChange::Delete)),
            Self::Hold(label) if label.names_version(1) => label.find_version(|words| {
                let until = words
                    .first()
                    .map(|word| word.to_string_lossy().into_owned());
                let until = until.unwrap_or_default();
                check_end("DATE", &until)?;
                Ok(VersionHoldChange::Hold { until })
            }),
            Self::Hold(label) => label.find(&LabelWords::NameAnd("DATE"), |until| {
                let until = until.to_string_lossy().into_owned();
                check_end("DATE", &until)?;
                Ok(LabelChange::Hold { until })
            }),
            Self::Release(arguments) => {
                let LabelReleaseArguments { yes, label } = *arguments;
                if !yes {
                    return Err(CliError::usage(
                        "release: ends a hold before its time; add --yes to confirm",
                    ));
                }
                match label.names_version(0) {
                    true => label.find_version(|_| Ok(VersionHoldChange::Release)),
                    false => label.find(&LabelWords::Name, |_| Ok(LabelChange::Release)),
                }
            }
        }
    }
}

fn text(word: &OsStr) -> PathText {
    PathText(word.as_bytes().to_vec().into())
}

/// Refuses a text that can never be the end of something. Whether it is in the future, the namespace's clock decides.
fn check_end(flag: &str, text: &str) -> Result<(), CliError> {
    match parse_until(text.as_bytes(), Timestamp(SystemEnv.now())) {
        Err(why @ UntilError::NoTime(_)) => Err(CliError::usage(format!("{flag}: {why}"))),
        Ok(_) | Err(UntilError::Past(_)) => Ok(()),
    }
}

fn wrong_words(place: &OsStr, expected: &str) -> CliError {
    let directory = match is_url(place) {
        true => "URL [PATH]",
        false => "MNT/DIR",
    };
    CliError::usage(format!(
        "{}: expected {directory} {expected}",
        place.display()
    ))
}
