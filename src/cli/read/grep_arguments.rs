//! The arguments of `rewindfs grep`: a pattern, and a path.

use super::arguments::PathArguments;
use crate::cli::error::CliError;
use crate::verbs::{self, GrepRequest, GrepStates, TimedPath};
use clap::Args;

/// The arguments of `rewindfs grep`.
#[derive(Debug, Args)]
pub(in crate::cli) struct GrepArguments {
    /// A regular expression, in the syntax of <https://docs.rs/regex>
    #[arg(value_name = "PATTERN")]
    pattern: String,
    #[command(flatten)]
    pub(super) path: PathArguments,
    /// Show all states with a match, and not the first and the last one only
    #[arg(long)]
    all: bool,
    /// The pattern is the text itself
    #[arg(long, short = 'F')]
    fixed_strings: bool,
    /// Upper and lower case are the same
    #[arg(long, short)]
    ignore_case: bool,
}

impl GrepArguments {
    /// The search, without its path.
    ///
    /// # Errors
    /// A usage error for a pattern that cannot be read.
    pub(super) fn request(&self) -> Result<GrepRequest, CliError> {
        let request = GrepRequest {
            path: TimedPath::default(),
            pattern: self.pattern.clone(),
            fixed: self.fixed_strings,
            ignore_case: self.ignore_case,
            states: match self.all {
                true => GrepStates::All,
                false => GrepStates::FirstAndLast,
            },
        };
        match verbs::pattern(&request) {
            Ok(_) => Ok(request),
            Err(why) => {
                let pattern = &self.pattern;
                Err(CliError::usage(format!("{pattern}: is no pattern: {why}")))
            }
        }
    }
}
