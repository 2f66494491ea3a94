//! The arguments of `rewindfs forget`.

use super::arguments::{ChangePlace, find};
use super::retention_arguments::RetentionWay;
use crate::cli::error::CliError;
use crate::cli::read::PlaceArguments;
use crate::cli::read::arguments::FormArguments;
use crate::cli::writer_consent::WriterArguments;
use crate::fs::past::stamp::TimeName;
use crate::verbs::{ChangeVerb, ForgetVerb, ReadVerb};
use clap::Args;

/// The arguments of `rewindfs forget`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ForgetArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Only versions that ended at TIME or before it: -2h, 2026-11-20, '2026-11-20 21:26:48+0100'
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    before: Option<String>,
    /// Delete them; without it, only show what would go
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    writer: WriterArguments,
    #[command(flatten)]
    pub(super) form: FormArguments,
}

impl ForgetArguments {
    /// Finds the mount or the store.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn find(self) -> Result<RetentionWay, CliError> {
        let (before, is_sure) = (self.before, self.yes);
        let place = find(self.place, None, self.writer)?;
        if let Some(time) = &place.path.time {
            return Err(CliError::usage(format!(
                "{}: forget takes all ended versions of a file, or with --before TIME the older ones; a name that ends in \"@{time}\" is \
                 written with an @ behind it",
                place.path
            )));
        }
        let verb = ForgetVerb {
            path: place.path.clone(),
            before,
        };
        if is_sure {
            return Ok(RetentionWay::Change(place, ChangeVerb::Forget(verb)));
        }
        let ChangePlace { target, path, .. } = place;
        let place = crate::cli::read::arguments::ReadPlace { target, path };
        Ok(RetentionWay::Read(place, ReadVerb::ForgetPreview(verb)))
    }
}

fn time(text: &str) -> Result<String, String> {
    match TimeName::parse(text.as_bytes()) {
        Some(_) => Ok(text.to_owned()),
        None => {
            Err("expected a time like -2h, 2026-11-20 or '2026-11-20 21:26:48+0100'".to_owned())
        }
    }
}
