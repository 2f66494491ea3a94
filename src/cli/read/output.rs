//! Standard output: a failed write ends the command, and a closed pipe is no failure.

use crate::cli::error::CliError;
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::ops::ControlFlow;

/// Standard output, and the first write that failed.
#[derive(Debug)]
pub(super) struct RowOutput {
    pub(super) out: BufWriter<Stdout>,
    failure: Option<io::Error>,
}

impl RowOutput {
    pub(super) fn new() -> Self {
        Self {
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
            failure: None,
        }
    }

    /// Notes the outcome of a write; breaks when it failed.
    pub(super) fn note(&mut self, written: io::Result<()>) -> ControlFlow<()> {
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Tells whether a write has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// A failure if a write has failed. A closed pipe is none: its reader has read enough.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        let written = match self.failure.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        };
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(CliError::failure(format!("standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}
