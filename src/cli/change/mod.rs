//! The verbs that change: `undelete`, `restore`, `label`, `policy`, `prune`, `forget`. Each takes a path in a mount, whose daemon makes the change, or a store's URL and a path in
//! it. No verb takes a namespace from a mount: on a URL the change is made by the daemon of this machine that has the namespace mounted,
//! or, where the user says that no other machine has it mounted, by a writer that this command opens.

mod arguments;
mod forget_arguments;
mod label_arguments;
mod retention_arguments;
pub(super) mod writer;

use super::error::CliError;
use super::progress::Waiting;
use super::read::ReadJob;
use super::read::printer::{PrintForm, RowPrinter};
use super::read::source::ReadTarget;
use super::writer_consent::WriterConsent;
use crate::config::DEFAULT_NAMESPACE;
use crate::verbs::{ChangeVerb, TimedPath};
use arguments::ChangePlace;
pub(super) use arguments::{RestoreArguments, UndeleteArguments};
pub(super) use forget_arguments::ForgetArguments;
use label_arguments::LabelChangePlace;
pub(super) use label_arguments::{LabelChangeCommand, LabelCommand};
use retention_arguments::RetentionWay;
pub(super) use retention_arguments::{PolicyCommand, PruneArguments};
use std::process::ExitCode;
use writer::ChangeWay;

/// What a command that may change something does.
pub(super) enum ChangeStart {
    /// It makes the change.
    Change(ChangeJob),
    /// It only shows what it would change.
    Preview(ReadJob),
}

/// A verb that changes, to be run.
#[derive(Debug)]
pub struct ChangeJob {
    target: ReadTarget,
    consent: WriterConsent,
    /// The path, as messages name it.
    path: TimedPath,
    verb: ChangeVerb,
    form: PrintForm,
}

impl ChangeJob {
    /// Prepares `rewindfs undelete`.
    ///
    /// # Errors
    /// A usage error that names the wrong argument; a failure for a path in no mount.
    pub(super) fn undelete(arguments: UndeleteArguments) -> Result<Self, CliError> {
        let form = arguments.form.into();
        let ChangePlace {
            target,
            path,
            to,
            consent,
        } = arguments.find()?;
        let verb = ChangeVerb::Undelete {
            path: path.path.clone(),
            to,
        };
        Ok(Self {
            target,
            consent,
            path,
            verb,
            form,
        })
    }

    /// Prepares a subcommand of `rewindfs label` that changes.
    ///
    /// # Errors
    /// As [`Self::undelete`].
    pub(super) fn label(command: LabelChangeCommand) -> Result<Self, CliError> {
        let LabelChangePlace { place, verb, form } = command.find()?;
        Ok(Self {
            target: place.target,
            consent: place.consent,
            path: place.path,
            verb,
            form: form.into(),
        })
    }

    /// Prepares `rewindfs restore`.
    ///
    /// # Errors
    /// As [`Self::undelete`].
    pub(super) fn restore(arguments: RestoreArguments) -> Result<ChangeStart, CliError> {
        let form: PrintForm = arguments.form.into();
        let (keep_new, is_dry) = (arguments.keep_new, arguments.dry_run);
        let ChangePlace {
            target,
            path,
            to,
            consent,
        } = arguments.find()?;
        if is_dry {
            let job = ReadJob::preview(target, path, keep_new, form.json);
            return Ok(ChangeStart::Preview(job));
        }
        let verb = ChangeVerb::Restore {
            path: path.clone(),
            to,
            keep_new,
        };
        Ok(ChangeStart::Change(Self {
            target,
            consent,
            path,
            verb,
            form,
        }))
    }

    /// Prepares a subcommand of `rewindfs policy`.
    ///
    /// # Errors
    /// As [`Self::undelete`].
    pub(super) fn policy(command: PolicyCommand) -> Result<ChangeStart, CliError> {
        match command {
            PolicyCommand::Show(arguments) => {
                let form = arguments.form.into();
                let (place, verb) = arguments.find()?;
                let job = ReadJob::of_namespace(place, verb, form);
                Ok(ChangeStart::Preview(job))
            }
            PolicyCommand::Set(arguments) => {
                let form = arguments.form.into();
                Ok(Self::of_retention(arguments.find()?, form))
            }
        }
    }

    /// Prepares `rewindfs prune`.
    ///
    /// # Errors
    /// As [`Self::undelete`].
    pub(super) fn prune(arguments: PruneArguments) -> Result<ChangeStart, CliError> {
        let form = arguments.form.into();
        Ok(Self::of_retention(arguments.find()?, form))
    }

    /// Prepares `rewindfs forget`.
    ///
    /// # Errors
    /// As [`Self::undelete`].
    pub(super) fn forget(arguments: ForgetArguments) -> Result<ChangeStart, CliError> {
        let form = arguments.form.into();
        Ok(Self::of_retention(arguments.find()?, form))
    }

    fn of_retention(way: RetentionWay, form: PrintForm) -> ChangeStart {
        match way {
            RetentionWay::Read(place, verb) => {
                ChangeStart::Preview(ReadJob::of_namespace(place, verb, form))
            }
            RetentionWay::Change(place, verb) => ChangeStart::Change(Self {
                target: place.target,
                consent: place.consent,
                path: place.path,
                verb,
                form,
            }),
        }
    }

    /// Runs the verb, prints its rows, and returns the exit status.
    pub async fn run(self) -> ExitCode {
        match self.print().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(cli_error) => cli_error.exit(),
        }
    }

    async fn print(self) -> Result<(), CliError> {
        let place = shown_place(&self.target);
        let opening = self.target.url().map(|url| format!("opening {url}"));
        let opening = opening.map(Waiting::begin);
        let way = ChangeWay::open(self.target, self.consent, &self.path).await?;
        drop(opening);
        let mut printer = RowPrinter::of_change(self.form, place);
        let waiting = Waiting::begin(doing(&self.verb));
        let each = |row| {
            waiting.end();
            printer.print(row)
        };
        let changed = way.change(&self.verb, each).await;
        waiting.end();
        let printed = printer.finish();
        let closed = way.close().await;
        changed.and(closed).and(printed)
    }
}

/// What a verb does, for one who waits for it.
fn doing(verb: &ChangeVerb) -> String {
    match verb {
        ChangeVerb::Undelete { path, .. } => format!("restoring {path}"),
        ChangeVerb::Restore { path, .. } => format!("restoring {path}"),
        ChangeVerb::Forget(request) => format!("forgetting versions of {}", request.path),
        ChangeVerb::Prune(_) => "dropping versions that no rule keeps".to_owned(),
        ChangeVerb::SetPolicy(_) | ChangeVerb::SetDirectoryPolicy(_) => {
            "setting the policy".to_owned()
        }
        ChangeVerb::Label(request) => format!("changing label {}", request.label),
        ChangeVerb::HoldVersion(request) => format!("changing the hold of {}", request.path),
    }
}

/// What stands before a path of the target on a command line.
fn shown_place(target: &ReadTarget) -> String {
    match target {
        ReadTarget::Mount(mountpoint) => format!("{}/", mountpoint.display()),
        ReadTarget::Store { url, namespace, .. } if namespace == DEFAULT_NAMESPACE => {
            format!("{url} ")
        }
        ReadTarget::Store { url, namespace, .. } => format!("--namespace {namespace} {url} "),
    }
}
