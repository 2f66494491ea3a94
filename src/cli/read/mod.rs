//! The verbs that read the past: `ls`, `versions`, `log`, `cat`, `diff`, `grep`, `label list`. Each takes a path in a mount, or a store's URL and a path in
//! it; the rows come from the mount's daemon or from a follower of the store, and are printed as a table or as JSON lines.

pub(in crate::cli) mod arguments;
mod color;
mod diff_arguments;
mod diff_printer;
mod forget_lines;
mod grep_arguments;
mod label_arguments;
mod log_arguments;
mod log_printer;
mod mount_path;
mod output;
pub(in crate::cli) mod printer;
mod retention_cells;
mod shown_time;
pub(in crate::cli) mod source;
mod table;

use super::error::CliError;
use super::progress::Waiting;
use crate::verbs::{
    DiffContents, DiffRequest, GrepRequest, LogFilter, LogPatches, PathDifference, ReadVerb,
    TimedPath, VerbRow,
};
use arguments::ReadPlace;
pub(super) use arguments::{PathArguments, PlaceArguments};
pub(super) use diff_arguments::DiffArguments;
use diff_arguments::DiffSides;
use diff_printer::{DiffDetail, DiffForm, DiffPrinter};
pub(super) use grep_arguments::GrepArguments;
pub(super) use label_arguments::LabelListArguments;
pub(super) use log_arguments::LogArguments;
use log_printer::{PatchForm, PatchPrinter};
use printer::{PrintForm, RowPrinter};
use source::{ReadTarget, RowSource};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// A verb that reads, to be run.
#[derive(Debug)]
pub struct ReadJob {
    target: ReadTarget,
    verb: ReadVerb,
    output: OutputForm,
}

/// How the rows are printed.
#[derive(Debug, Clone, Copy)]
enum OutputForm {
    Rows(PrintForm),
    /// Changes with differences.
    Patches(PatchForm),
    Differences(DiffForm),
    /// Differences but for names that only the old side has.
    WithoutRemoved(DiffForm),
}

impl ReadJob {
    /// Prepares `rewindfs versions`.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn versions(arguments: PathArguments) -> Result<Self, CliError> {
        Self::of_path(arguments.place, arguments.form.into(), |path| {
            ReadVerb::Versions { path }
        })
    }

    /// Prepares `rewindfs ls`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn ls(arguments: PathArguments) -> Result<Self, CliError> {
        Self::of_path(arguments.place, arguments.form.into(), |path| {
            ReadVerb::Ls { path }
        })
    }

    /// Prepares `rewindfs log`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn log(arguments: LogArguments) -> Result<Self, CliError> {
        let LogArguments {
            path,
            filter,
            patch,
            color,
        } = arguments;
        let filter = LogFilter::from(filter);
        let form = PrintForm::from(path.form);
        let patches = match patch {
            true => LogPatches::OfFiles,
            false => LogPatches::Never,
        };
        let mut job = Self::of_path(path.place, form, |path| ReadVerb::Log {
            path,
            filter,
            patches,
        })?;
        if patch {
            job.output = OutputForm::Patches(PatchForm {
                rows: form,
                colored: color.is_colored(),
            });
        }
        Ok(job)
    }

    /// Prepares `rewindfs diff`.
    ///
    /// # Errors
    /// As [`Self::versions`]; a failure for two paths that are not in one mount.
    pub(super) fn diff(arguments: DiffArguments) -> Result<Self, CliError> {
        let form = arguments.form();
        let DiffSides { target, old, new } = arguments.sides()?;
        let contents = match form.detail {
            DiffDetail::Usual => DiffContents::OfFile,
            DiffDetail::Counts | DiffDetail::Lines => DiffContents::OfAll,
        };
        Ok(Self {
            target,
            verb: ReadVerb::Diff(DiffRequest { old, new, contents }),
            output: OutputForm::Differences(form),
        })
    }

    /// Prepares `rewindfs grep`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn grep(arguments: GrepArguments) -> Result<Self, CliError> {
        let request = arguments.request()?;
        let PathArguments { place, form } = arguments.path;
        Self::of_path(place, form.into(), |path| {
            ReadVerb::Grep(GrepRequest { path, ..request })
        })
    }

    /// Prepares `rewindfs label list`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn labels(arguments: LabelListArguments) -> Result<Self, CliError> {
        let (scope, holds) = (arguments.scope(), arguments.holds);
        let PathArguments { place, form } = arguments.path;
        let job = Self::of_path(place, form.into(), |path| match holds {
            true => ReadVerb::Holds { path, scope },
            false => ReadVerb::Labels { path, scope },
        })?;
        match &job.verb {
            ReadVerb::Labels { path, .. } | ReadVerb::Holds { path, .. } if path.time.is_some() => {
                Err(CliError::usage(format!(
                    "{path}: labels and holds are listed as they are now; write the directory without its time"
                )))
            }
            _ => Ok(job),
        }
    }

    /// Prepares `rewindfs why`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn why(arguments: PathArguments) -> Result<Self, CliError> {
        Self::of_path(arguments.place, arguments.form.into(), |path| {
            ReadVerb::Why { path }
        })
    }

    /// Prepares `rewindfs stats`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn stats(arguments: PathArguments) -> Result<Self, CliError> {
        Self::of_path(arguments.place, arguments.form.into(), |path| {
            ReadVerb::Stats { path }
        })
    }

    /// Prepares a verb that asks about a whole namespace.
    pub(super) fn of_namespace(place: ReadPlace, verb: ReadVerb, form: PrintForm) -> Self {
        Self {
            target: place.target,
            verb,
            output: OutputForm::Rows(form),
        }
    }

    /// Prepares `rewindfs cat`.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub(super) fn cat(place: PlaceArguments) -> Result<Self, CliError> {
        let form = PrintForm {
            json: false,
            utc: false,
        };
        Self::of_path(place, form, |path| ReadVerb::Cat { path })
    }

    /// Prepares `rewindfs restore --dry-run`.
    pub(in crate::cli) fn preview(
        target: ReadTarget,
        path: TimedPath,
        keep_new: bool,
        json: bool,
    ) -> Self {
        let form = DiffForm {
            json,
            detail: DiffDetail::Usual,
            colored: false,
        };
        Self {
            target,
            verb: ReadVerb::Preview { path },
            output: match keep_new {
                true => OutputForm::WithoutRemoved(form),
                false => OutputForm::Differences(form),
            },
        }
    }

    fn of_path(
        place: PlaceArguments,
        form: PrintForm,
        verb: impl FnOnce(TimedPath) -> ReadVerb,
    ) -> Result<Self, CliError> {
        let ReadPlace { target, path } = place.find()?;
        Ok(Self {
            target,
            verb: verb(path),
            output: OutputForm::Rows(form),
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
        let opening = self.target.url().map(|url| format!("opening {url}"));
        let opening = opening.map(Waiting::begin);
        let source = RowSource::open(self.target).await?;
        drop(opening);
        let waiting = Waiting::begin(doing(&self.verb));
        let (outcome, printed) = match self.output {
            OutputForm::Rows(form) => {
                let mut printer = RowPrinter::new(form);
                let each = |row| {
                    waiting.end();
                    printer.print(row)
                };
                let outcome = source.read(&self.verb, each).await;
                waiting.end();
                (outcome, printer.finish())
            }
            OutputForm::Patches(form) => {
                let mut printer = PatchPrinter::new(form);
                let each = |row| {
                    waiting.end();
                    printer.print(row)
                };
                let outcome = source.read(&self.verb, each).await;
                waiting.end();
                (outcome, printer.finish())
            }
            OutputForm::Differences(form) => {
                let read = differences(&source, &self.verb, form, &waiting, |_| true);
                read.await
            }
            OutputForm::WithoutRemoved(form) => {
                let is_shown = |row: &VerbRow| !matches!(row, VerbRow::Difference(row) if row.change == PathDifference::Removed);
                let read = differences(&source, &self.verb, form, &waiting, is_shown);
                read.await
            }
        };
        source.close().await;
        outcome.and(printed)
    }
}

/// Prints the differences of a verb that pass `is_shown`. Returns how the reading and the printing ended.
async fn differences(
    source: &RowSource,
    verb: &ReadVerb,
    form: DiffForm,
    waiting: &Waiting,
    is_shown: fn(&VerbRow) -> bool,
) -> (Result<(), CliError>, Result<(), CliError>) {
    let mut printer = DiffPrinter::new(form);
    let each = |row| {
        waiting.end();
        match is_shown(&row) {
            true => printer.print(row),
            false => ControlFlow::Continue(()),
        }
    };
    let outcome = source.read(verb, each).await;
    waiting.end();
    (outcome, printer.finish())
}

/// What a verb does, for one who waits for its first row.
fn doing(verb: &ReadVerb) -> String {
    match verb {
        ReadVerb::Grep(request) => format!("searching the versions of {}", request.path),
        ReadVerb::Diff(request) => format!("comparing {} and {}", request.old, request.new),
        ReadVerb::Preview { path } => format!("comparing {path} and its present state"),
        ReadVerb::PrunePreview { .. } => "looking for versions that no rule keeps".to_owned(),
        ReadVerb::Policy { .. } => "reading the policy".to_owned(),
        ReadVerb::ForgetPreview(request) => {
            format!("looking for what shows the versions of {}", request.path)
        }
        ReadVerb::Stats { .. } => "adding up the history".to_owned(),
        ReadVerb::Versions { path }
        | ReadVerb::Log { path, .. }
        | ReadVerb::Cat { path }
        | ReadVerb::Labels { path, .. }
        | ReadVerb::Holds { path, .. }
        | ReadVerb::Why { path }
        | ReadVerb::Ls { path } => format!("reading {path}"),
    }
}
