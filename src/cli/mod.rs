//! The commands: their names, their arguments, their output and their exit status.
//!
//! Invariant: the exit status is 0 when the command is done, 1 when it failed, 2 when the command line can never work. A
//! message is printed to standard error, starts with `rewindfs: ` and names the flag, path or store it is about.

mod background;
mod change;
mod check;
mod connection;
mod error;
mod fstab;
mod log;
mod mount;
mod namespace;
mod options;
mod place;
mod price;
mod printable;
mod progress;
mod read;
mod rebuild;
mod salvage;
mod stamp;
mod status;
mod value;
mod wait;
mod writer_consent;

use crate::fuse::Unmount;
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use error::CliError;
use fstab::Invocation;

pub use change::ChangeJob;
pub use check::Check;
pub use mount::MountJob;
pub use namespace::NamespaceJob;
pub use read::ReadJob;
pub use rebuild::RebuildJob;

/// Mount a bucket as a directory; every saved version of every file stays reachable under .versions/
#[derive(Debug, Parser)]
#[command(name = "rewindfs", version, about, after_help = EXAMPLES, args_override_self = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  rewindfs mount file:///srv/store ~/files
  rewindfs mount s3://bucket/prefix ~/files --namespace team/eu
  ls -l ~/files/.versions/@files/notes.txt/
  cp ~/files/.versions/-1h/notes.txt ~/files/
  rewindfs versions ~/files/notes.txt
  rewindfs ls ~/files/project@2026-11-20
  rewindfs log -r ~/files --since -1d
  rewindfs cat ~/files/notes.txt@-2h
  rewindfs diff ~/files/notes.txt@-2h
  rewindfs label create ~/files/project before-upgrade --expires 30d
  rewindfs diff ~/files/project@before-upgrade
  rewindfs umount ~/files

Exit status: 0 done, 1 failed, 2 wrong usage. RUST_LOG chooses what is logged (info, rewindfs=debug).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount a store on a directory; returns when the mount answers
    Mount(Box<mount::MountArguments>),
    /// Show the status of a mount, above all what is not yet in the bucket
    Status(status::StatusArguments),
    /// Wait until everything acknowledged is in the bucket
    Drain {
        /// The directory it is mounted on
        #[arg(value_name = "MNT")]
        mountpoint: PathBuf,
        /// How long to wait without progress [default: the mount's, 5m]
        #[arg(long, value_name = "TIME", value_parser = value::duration)]
        drain_timeout: Option<Duration>,
    },
    /// Upload everything, then unmount; returns when the daemon has ended
    #[command(visible_alias = "unmount")]
    Umount {
        /// The directory it is mounted on
        #[arg(value_name = "MNT")]
        mountpoint: PathBuf,
        /// Unmount even while files in it are open
        #[arg(long, short = 'z')]
        lazy: bool,
        /// Do not upload: what is not yet in the bucket stays in the cache directory, for the next mount
        #[arg(long)]
        keep: bool,
        /// How long to wait without progress [default: the mount's, 5m]
        #[arg(long, value_name = "TIME", value_parser = value::duration)]
        drain_timeout: Option<Duration>,
        /// The caller is umount(8): unmount also where the daemon cannot be asked
        #[arg(long, hide = true)]
        helper: bool,
    },
    /// List a directory as it is saved, or as it was: PATH@TIME
    Ls(read::PathArguments),
    /// List the states of a file, oldest first
    Versions(read::PathArguments),
    /// Show what changed in a directory or in the history of a file, newest first
    Log(Box<read::LogArguments>),
    /// Write the bytes of a file as it is saved, or as it was: PATH@TIME
    Cat(read::PlaceArguments),
    /// Compare two states of a file or a directory; without B the state now
    Diff(Box<read::DiffArguments>),
    /// Show which states of a file have a line that a pattern matches, the first and the last
    Grep(Box<read::GrepArguments>),
    /// Restore a removed file, or a removed directory with all below it
    Undelete(Box<change::UndeleteArguments>),
    /// Make a file, or a directory with all below it, exactly as it was: PATH@TIME
    Restore(Box<change::RestoreArguments>),
    /// Show or change which versions are kept, and for how long
    Policy {
        #[command(subcommand)]
        command: change::PolicyCommand,
    },
    /// Drop the versions that nothing keeps; a mount does it once a day by itself
    #[command(override_usage = "rewindfs prune MNT|URL [OPTIONS]")]
    Prune(Box<change::PruneArguments>),
    /// Delete the ended versions of a file with their bytes, in the bucket and on this machine; shows first, --yes does
    Forget(Box<change::ForgetArguments>),
    /// Show how much is live and how much is history, how far back it reaches, and which names have the most
    Stats(Box<read::PathArguments>),
    /// Show what keeps a version, and until when: PATH@TIME
    Why(Box<read::PathArguments>),
    /// Make, list, rename, remove and hold labels: names for what a directory shows at a moment
    Label {
        #[command(subcommand)]
        command: change::LabelCommand,
    },
    /// Print a time of .versions as a stamp whose meaning does not change
    Stamp {
        /// -30s, -15m, -2h, -3d, -1w, 2026-11-20, 2026-11-20T21-26, '2026-11-20 21:26:48+0100', ...
        #[arg(value_name = "TIME", allow_hyphen_values = true)]
        time: OsString,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare a namespace's log with its index, also while a mount writes it
    Check(check::CheckArguments),
    /// Make a new index for a namespace from its log and segments, as a namespace of another name
    Rebuild(rebuild::RebuildArguments),
    /// Write what a cache directory has and the bucket may lack as plain files, without the bucket
    Salvage(salvage::SalvageArguments),
    /// List, create, describe, change and delete the namespaces of a store
    Namespace {
        #[command(subcommand)]
        verb: namespace::Verb,
    },
}

/// The work that is left after the arguments have been read.
#[derive(Debug)]
pub enum Start {
    /// None: this is the exit status.
    Done(ExitCode),
    /// Serve a mount, in this process, on a runtime.
    Serve(Box<MountJob>),
    /// Check a namespace, on a runtime.
    Check(Box<Check>),
    /// Rebuild a namespace, on a runtime.
    Rebuild(Box<RebuildJob>),
    /// Work on the namespaces of a store, on a runtime.
    Namespace(Box<NamespaceJob>),
    /// Read the past of a path, on a runtime.
    Read(Box<ReadJob>),
    /// Change the tree by a verb, on a runtime.
    Change(Box<ChangeJob>),
}

/// Reads `arguments`, which begin with the program's name, and does the work that needs no runtime.
#[must_use]
pub fn start(arguments: impl IntoIterator<Item = OsString>) -> Start {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = Arguments::command();
    let prepared = match fstab::invocation(arguments, place::is_root()) {
        Ok(Invocation::Command(arguments)) => options::prepare(arguments, &command),
        Ok(Invocation::Remount(remount)) => return Start::Done(exit(remount.run())),
        Err(cli_error) => Err(cli_error),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(cli_error) => return Start::Done(cli_error.exit()),
    };
    let parsed = match Arguments::try_parse_from(&prepared) {
        Ok(parsed) => parsed,
        Err(error) => return Start::Done(print_refusal(&error)),
    };
    let outcome = match parsed.command {
        Command::Mount(mount) => match mount::start(*mount, &prepared) {
            Ok(mount::Mounting::Serve(job)) => return Start::Serve(job),
            Ok(mount::Mounting::InBackground) => Ok(()),
            Err(cli_error) => Err(cli_error),
        },
        Command::Check(arguments) => return job(Check::new(arguments), Start::Check),
        Command::Rebuild(arguments) => return job(RebuildJob::new(arguments), Start::Rebuild),
        Command::Namespace { verb } => return job(NamespaceJob::new(verb), Start::Namespace),
        Command::Ls(arguments) => return read(ReadJob::ls(arguments)),
        Command::Versions(arguments) => return read(ReadJob::versions(arguments)),
        Command::Log(arguments) => return read(ReadJob::log(*arguments)),
        Command::Diff(arguments) => return read(ReadJob::diff(*arguments)),
        Command::Grep(arguments) => return read(ReadJob::grep(*arguments)),
        Command::Cat(arguments) => return read(ReadJob::cat(arguments)),
        Command::Undelete(arguments) => return change(ChangeJob::undelete(*arguments)),
        Command::Restore(arguments) => return begin(ChangeJob::restore(*arguments)),
        Command::Policy { command } => return begin(ChangeJob::policy(command)),
        Command::Prune(arguments) => return begin(ChangeJob::prune(*arguments)),
        Command::Forget(arguments) => return begin(ChangeJob::forget(*arguments)),
        Command::Stats(arguments) => return read(ReadJob::stats(*arguments)),
        Command::Why(arguments) => return read(ReadJob::why(*arguments)),
        Command::Label { command } => return label(command),
        Command::Salvage(arguments) => salvage::salvage(&arguments),
        Command::Stamp { time, json } => stamp::stamp(&time, json),
        Command::Status(arguments) => status::status(&arguments),
        Command::Drain {
            mountpoint,
            drain_timeout,
        } => wait::drain(&mountpoint, drain_timeout),
        Command::Umount {
            mountpoint,
            lazy,
            keep,
            drain_timeout,
            helper,
        } => {
            let how = unmount(lazy);
            let options = wait::UmountOptions {
                how,
                keep,
                drain_timeout,
                helper,
            };
            wait::umount(&mountpoint, &options)
        }
    };
    Start::Done(exit(outcome))
}

fn unmount(lazy: bool) -> Unmount {
    match lazy {
        true => Unmount::Lazy,
        false => Unmount::WhenIdle,
    }
}

/// Prints why the arguments are refused, or the help that they ask for, and returns the exit status.
fn print_refusal(error: &clap::Error) -> ExitCode {
    // Help and version are no errors and are printed to standard output. A closed pipe is no error.
    error.print().ok();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn job<J>(made: Result<J, CliError>, start: impl FnOnce(Box<J>) -> Start) -> Start {
    match made {
        Ok(made) => start(Box::new(made)),
        Err(cli_error) => Start::Done(cli_error.exit()),
    }
}

fn read(made: Result<ReadJob, CliError>) -> Start {
    job(made, Start::Read)
}

fn label(command: change::LabelCommand) -> Start {
    match command {
        change::LabelCommand::List(arguments) => read(ReadJob::labels(*arguments)),
        change::LabelCommand::Change(command) => change(ChangeJob::label(command)),
    }
}

fn change(made: Result<ChangeJob, CliError>) -> Start {
    job(made, Start::Change)
}

fn begin(job: Result<change::ChangeStart, CliError>) -> Start {
    match job {
        Ok(change::ChangeStart::Change(job)) => Start::Change(Box::new(job)),
        Ok(change::ChangeStart::Preview(job)) => Start::Read(Box::new(job)),
        Err(cli_error) => Start::Done(cli_error.exit()),
    }
}

fn exit(outcome: Result<(), CliError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cli_error) => cli_error.exit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_looks_like_a_flag_is_a_time() {
        for words in [
            ["stamp", "-2h", "--json"],
            ["stamp", "--json", "-2h"],
            ["stamp", "--json", "-1m"],
        ] {
            let parsed = Arguments::try_parse_from(["rewindfs"].iter().chain(&words));
            let Ok(Arguments {
                command: Command::Stamp { time, json: true },
            }) = parsed
            else {
                panic!("{words:?}: {parsed:?}");
            };
            assert!(time == "-2h" || time == "-1m");
        }
        assert!(Arguments::try_parse_from(["rewindfs", "stamp"]).is_err());
    }

    #[test]
    fn the_definition_of_the_commands_is_valid() {
        Arguments::command().debug_assert();
    }
}
