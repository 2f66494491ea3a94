//! The error of a command: its message and its exit status.

use std::fmt;
use std::process::ExitCode;

/// Why a command failed: a message, and the kind of failure, which gives the exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CliError {
    pub(super) message: String,
    kind: CliErrorKind,
}

/// Whether the same command line may work later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CliErrorKind {
    /// The command line can never work.
    Usage,
    /// The command line may work later.
    Failure,
}

impl CliError {
    /// A usage error: the command line can never work. Exit status 2.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            kind: CliErrorKind::Usage,
        }
    }

    /// A failure: the same command line may work later. Exit status 1.
    pub(super) fn failure(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            kind: CliErrorKind::Failure,
        }
    }

    /// The exit status.
    pub(super) fn status(&self) -> u8 {
        match self.kind {
            CliErrorKind::Failure => 1,
            CliErrorKind::Usage => 2,
        }
    }

    /// Prints the message and returns the exit status.
    pub(super) fn exit(&self) -> ExitCode {
        eprintln!("rewindfs: {}", self.message);
        ExitCode::from(self.status())
    }
}
