//! `log --patch` on standard output: a line for each change, and below it how the file differs from the state before.

use super::diff_printer::{DiffDetail, DiffForm, DiffPrinter, FoundDifference};
use super::printer::{PrintForm, change_line, tell_truncated};
use crate::cli::error::CliError;
use crate::verbs::{ChangeRow, TruncatedRow, VerbRow};
use jiff::tz::TimeZone;
use std::io::{self, Write};
use std::ops::ControlFlow;

/// How a log with patches is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct PatchForm {
    pub(super) rows: PrintForm,
    pub(super) colored: bool,
}

/// Prints changes as they come.
#[derive(Debug)]
pub(super) struct PatchPrinter {
    json: bool,
    zone: TimeZone,
    waiting: Option<(ChangeRow, Option<FoundDifference>)>,
    diff: DiffPrinter,
    has_printed: bool,
    /// The row that says that more is not shown.
    truncated: Option<TruncatedRow>,
}

impl PatchPrinter {
    pub(super) fn new(form: PatchForm) -> Self {
        Self {
            json: form.rows.json,
            zone: form.rows.zone(),
            waiting: None,
            diff: DiffPrinter::new(DiffForm {
                json: form.rows.json,
                detail: DiffDetail::Lines,
                colored: form.colored,
            }),
            has_printed: false,
            truncated: None,
        }
    }

    /// Takes a row; breaks when standard output takes no more.
    pub(super) fn print(&mut self, row: VerbRow) -> ControlFlow<()> {
        let printed = match (row, &mut self.waiting) {
            (VerbRow::Change(row), _) => {
                let printed = self.print_waiting();
                self.waiting = Some((row, None));
                printed
            }
            (VerbRow::Difference(row), Some((_, found))) => {
                *found = Some(FoundDifference::new(row));
                Ok(())
            }
            (VerbRow::Bytes(row), Some((_, Some(found)))) => {
                found.add(&row);
                Ok(())
            }
            (VerbRow::Truncated(row), _) => {
                self.truncated = Some(row);
                Ok(())
            }
            _ => Ok(()),
        };
        self.diff.output.note(printed)
    }

    /// Prints what waits.
    ///
    /// # Errors
    /// A failure if standard output does not take it.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        if !self.diff.output.has_failed() {
            let printed = self.print_waiting();
            let _failed = self.diff.output.note(printed);
        }
        self.diff.output.finish()?;
        tell_truncated(self.truncated);
        Ok(())
    }

    fn print_waiting(&mut self) -> io::Result<()> {
        let Some((change, found)) = self.waiting.take() else {
            return Ok(());
        };
        let content = found.as_ref().and_then(FoundDifference::content);
        if self.json {
            return self.diff.json_line(&change, content.as_ref());
        }
        if std::mem::replace(&mut self.has_printed, true) {
            self.diff.output.out.write_all(b"\n")?;
        }
        writeln!(self.diff.output.out, "{}", change_line(&change, &self.zone))?;
        match &found {
            Some(found) => self.diff.print_lines(&found.row, content.as_ref()),
            None => Ok(()),
        }
    }
}
