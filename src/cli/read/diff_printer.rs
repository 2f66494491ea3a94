//! Differences on standard output: two states of a file as a unified diff, trees as a table; with counted lines, as patches, or as
//! JSON lines.

use super::output::RowOutput;
use super::table::{Align, Column, Table};
use crate::cli::error::CliError;
use crate::cli::value::show_size;
use crate::verbs::{
    AsOfRow, BytesRow, COMPARED_MAX, ComparedKind, ContentDiff, DiffLine, DiffSide, DifferenceRow,
    LineDiff, LineRole, PathDifference, SideRow, VerbRow,
};
use serde::Serialize;
use std::io::{self, Write};
use std::ops::ControlFlow;

const fn column(title: &'static str, align: Align) -> Column {
    Column { title, align }
}

const TREES: &[Column] = &[
    column("CHANGE", Align::Left),
    column("SIZE", Align::Right),
    column("PATH", Align::Left),
];

const COUNTS: &[Column] = &[
    column("CHANGE", Align::Left),
    column("ADDED", Align::Right),
    column("REMOVED", Align::Right),
    column("PATH", Align::Left),
];

/// What is printed of each difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiffDetail {
    /// Of two states of a file the lines; of trees the names.
    Usual,
    /// The numbers of lines.
    Counts,
    /// The lines.
    Lines,
}

/// How differences are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiffForm {
    pub(super) json: bool,
    pub(super) detail: DiffDetail,
    pub(super) colored: bool,
}

/// A difference and the bytes of its sides.
#[derive(Debug)]
pub(super) struct FoundDifference {
    pub(super) row: DifferenceRow,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl FoundDifference {
    pub(super) fn new(row: DifferenceRow) -> Self {
        let (old, new) = (Vec::new(), Vec::new());
        Self { row, old, new }
    }

    /// Adds bytes of a side.
    pub(super) fn add(&mut self, BytesRow { side, bytes }: &BytesRow) {
        match side {
            Some(DiffSide::New) => self.new.extend_from_slice(bytes),
            _ => self.old.extend_from_slice(bytes),
        }
    }

    /// Compares the lines; `None` if that is not possible.
    pub(super) fn content(&self) -> Option<ContentDiff> {
        let has_lines = self.row.has_lines();
        has_lines.then(|| ContentDiff::new(&self.old, &self.new))
    }
}

/// A difference, or a change with its difference, as JSON; the fields after the row are there where lines were compared.
#[derive(Debug, Serialize)]
struct JsonDifference<'a, R> {
    #[serde(flatten)]
    row: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_added: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_removed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unified: Option<String>,
}

/// Prints differences as they come.
#[derive(Debug)]
pub(super) struct DiffPrinter {
    form: DiffForm,
    compared: ComparedKind,
    waiting: Option<FoundDifference>,
    table: Table,
    /// Files, added and removed lines so far.
    files: u64,
    added: u64,
    removed: u64,
    pub(super) output: RowOutput,
}

impl DiffPrinter {
    pub(super) fn new(form: DiffForm) -> Self {
        Self {
            form,
            compared: ComparedKind::Files,
            waiting: None,
            table: Table::default(),
            files: 0,
            added: 0,
            removed: 0,
            output: RowOutput::new(),
        }
    }

    /// Takes a row; breaks when standard output takes no more.
    pub(super) fn print(&mut self, row: VerbRow) -> ControlFlow<()> {
        let printed = match row {
            VerbRow::Compared(compared) => {
                self.compared = compared;
                Ok(())
            }
            VerbRow::AsOf(row) => self.print_time(&row),
            VerbRow::Difference(row) => {
                let printed = self.print_waiting();
                self.waiting = Some(FoundDifference::new(row));
                printed
            }
            VerbRow::Bytes(row) => {
                if let Some(found) = &mut self.waiting {
                    found.add(&row);
                }
                Ok(())
            }
            _ => Ok(()),
        };
        self.output.note(printed)
    }

    /// Prints the time of a preview.
    fn print_time(&mut self, row: &AsOfRow) -> io::Result<()> {
        let out = &mut self.output.out;
        match self.form.json {
            true => {
                serde_json::to_writer(&mut *out, row)?;
                out.write_all(b"\n")
            }
            false => writeln!(out, "as of {}", row.as_of),
        }
    }

    /// Prints what waits.
    ///
    /// # Errors
    /// A failure if standard output does not take it.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        if !self.output.has_failed() {
            let printed = self.print_rest();
            let _failed = self.output.note(printed);
        }
        self.output.finish()
    }

    fn print_rest(&mut self) -> io::Result<()> {
        self.print_waiting()?;
        self.table.print(&mut self.output.out)?;
        if self.form.detail == DiffDetail::Counts && !self.form.json && self.files > 0 {
            let (files, added, removed) = (self.files, self.added, self.removed);
            writeln!(
                self.output.out,
                "{files} differences, {added} lines added, {removed} lines removed"
            )?;
        }
        Ok(())
    }

    /// Whether the lines of differences are compared.
    fn compares_lines(&self) -> bool {
        self.form.detail != DiffDetail::Usual || self.compared == ComparedKind::Files
    }

    fn print_waiting(&mut self) -> io::Result<()> {
        let Some(found) = self.waiting.take() else {
            return Ok(());
        };
        let content = match self.compares_lines() {
            true => found.content(),
            false => None,
        };
        self.files += 1;
        if let Some(ContentDiff::Lines(lines)) = &content {
            self.added += lines.added;
            self.removed += lines.removed;
        }
        if self.form.json {
            return self.json_line(&found.row, content.as_ref());
        }
        match (self.form.detail, self.compared) {
            (DiffDetail::Counts, _) => {
                let cells = count_cells(&found.row, content.as_ref());
                self.table.push(COUNTS, cells, &mut self.output.out)
            }
            (DiffDetail::Usual, ComparedKind::Trees) => {
                self.table
                    .push(TREES, tree_cells(&found.row), &mut self.output.out)
            }
            (DiffDetail::Usual | DiffDetail::Lines, _) => {
                self.print_lines(&found.row, content.as_ref())
            }
        }
    }

    /// Prints a row, and the lines that differ, as a JSON object.
    pub(super) fn json_line<R: Serialize>(
        &mut self,
        row: &R,
        content: Option<&ContentDiff>,
    ) -> io::Result<()> {
        let lines = match content {
            Some(ContentDiff::Lines(lines)) => Some(lines),
            _ => None,
        };
        let difference = JsonDifference {
            row,
            binary: content.map(|content| *content == ContentDiff::Binary),
            lines_added: lines.map(|lines| lines.added),
            lines_removed: lines.map(|lines| lines.removed),
            unified: lines
                .filter(|_| self.form.detail != DiffDetail::Counts)
                .map(unified),
        };
        serde_json::to_writer(&mut self.output.out, &difference)?;
        self.output.out.write_all(b"\n")
    }

    /// Prints the lines that differ; one line if there are none to compare.
    pub(super) fn print_lines(
        &mut self,
        row: &DifferenceRow,
        content: Option<&ContentDiff>,
    ) -> io::Result<()> {
        let (old, new) = names(row);
        let lines = match content {
            Some(ContentDiff::Lines(lines)) if !lines.lines.is_empty() => lines,
            Some(ContentDiff::Binary) => {
                return writeln!(self.output.out, "binary files {old} and {new} differ");
            }
            _ => {
                let why = remark(row);
                return match (row.change, old == new) {
                    (PathDifference::Added | PathDifference::Removed, _) => {
                        writeln!(
                            self.output.out,
                            "{}: {}{why}",
                            row.path,
                            change_name(row.change)
                        )
                    }
                    _ => writeln!(
                        self.output.out,
                        "{old} and {new}: {}{why}",
                        change_name(row.change)
                    ),
                };
            }
        };
        self.print_line(None, format!("--- {old}").as_bytes())?;
        self.print_line(None, format!("+++ {new}").as_bytes())?;
        for DiffLine { role, text } in &lines.lines {
            self.print_line(Some(*role), text)?;
        }
        Ok(())
    }

    /// Prints a line in the color of its role; the names of the files have none.
    fn print_line(&mut self, role: Option<LineRole>, text: &[u8]) -> io::Result<()> {
        let color = match role {
            _ if !self.form.colored => "",
            None => "\x1b[1m",
            Some(LineRole::Place) => "\x1b[36m",
            Some(LineRole::Removed) => "\x1b[31m",
            Some(LineRole::Added) => "\x1b[32m",
            Some(LineRole::Context | LineRole::NoLineBreak) => "",
        };
        self.output.out.write_all(color.as_bytes())?;
        self.output.out.write_all(text)?;
        let end = if color.is_empty() { "\n" } else { "\x1b[m\n" };
        self.output.out.write_all(end.as_bytes())
    }
}

/// What is said of a difference that has no lines.
fn remark(row: &DifferenceRow) -> String {
    let is_long =
        |side: &Option<SideRow>| side.as_ref().is_some_and(|side| side.size > COMPARED_MAX);
    match (&row.old, &row.new) {
        (Some(old), Some(new)) if old.mode != new.mode => {
            format!(", mode {} is {} now", old.mode, new.mode)
        }
        (old, new) if row.kind == "file" && (is_long(old) || is_long(new)) => {
            format!(
                ", and longer than {}: lines are not compared",
                show_size(COMPARED_MAX)
            )
        }
        (Some(old), Some(new)) if (old.uid, old.gid) != (new.uid, new.gid) => {
            format!(
                ", owner {}:{} is {}:{} now",
                old.uid, old.gid, new.uid, new.gid
            )
        }
        _ => String::new(),
    }
}

/// The names of both sides, with their times.
fn names(row: &DifferenceRow) -> (String, String) {
    let former = row.renamed_from.as_ref().unwrap_or(&row.path);
    let name = |path: String, side: &Option<SideRow>| match side {
        Some(side) => format!("{path}@{}", side.stamp),
        None => "/dev/null".to_owned(),
    };
    (
        name(former.to_string(), &row.old),
        name(row.path.to_string(), &row.new),
    )
}

fn unified(lines: &LineDiff) -> String {
    let mut text = String::new();
    for line in &lines.lines {
        text.push_str(&String::from_utf8_lossy(&line.text));
        text.push('\n');
    }
    text
}

fn change_name(change: PathDifference) -> &'static str {
    match change {
        PathDifference::Added => "added",
        PathDifference::Removed => "removed",
        PathDifference::Changed => "changed",
        PathDifference::Renamed => "renamed",
        PathDifference::Mode => "mode",
        PathDifference::NotKept => "not kept",
    }
}

fn path_cell(row: &DifferenceRow) -> String {
    let slash = if row.kind == "directory" { "/" } else { "" };
    match &row.renamed_from {
        Some(former) => format!("{former}{slash} -> {}{slash}", row.path),
        None => format!("{}{slash}", row.path),
    }
}

fn tree_cells(row: &DifferenceRow) -> Vec<String> {
    let size = |side: &Option<SideRow>| side.as_ref().map(|side| show_size(side.size));
    let size = match (size(&row.old), size(&row.new)) {
        _ if row.kind == "directory" => "-".to_owned(),
        (Some(old), Some(new)) if old != new => format!("{old} -> {new}"),
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => "-".to_owned(),
    };
    let path = match (row.change, &row.old, &row.new) {
        (PathDifference::Mode, Some(_), Some(_)) => format!("{}{}", path_cell(row), remark(row)),
        _ => path_cell(row),
    };
    vec![change_name(row.change).to_owned(), size, path]
}

fn count_cells(row: &DifferenceRow, content: Option<&ContentDiff>) -> Vec<String> {
    let (added, removed) = match content {
        Some(ContentDiff::Lines(lines)) => (lines.added.to_string(), lines.removed.to_string()),
        Some(ContentDiff::Binary) => ("binary".to_owned(), "binary".to_owned()),
        None => ("-".to_owned(), "-".to_owned()),
    };
    vec![
        change_name(row.change).to_owned(),
        added,
        removed,
        path_cell(row),
    ]
}
