//! Rows on standard output: as a table with local times, or as JSON lines.

use super::forget_lines::forget_line;
use super::output::RowOutput;
use super::retention_cells::{
    POLICY, PRUNED, REASONS, STATS, kept_rules, kept_until, policy_cells, pruned_cells,
    reason_cells, stat_cells,
};
use super::shown_time::{show_time, show_until};
use super::table::{Column, Table, left, right, time};
use crate::cli::error::CliError;
use crate::cli::printable::printable;
use crate::cli::value::show_size;
use crate::verbs::{
    ChangeRow, EntryRow, ForgetRow, HeldRow, LabelEntry, MatchRow, MomentRow, PathText,
    RestoredRow, TruncatedRow, VerbRow, VersionRow,
};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::io::{self, Write};
use std::ops::ControlFlow;

const VERSIONS: &[Column] = &[
    time("TIME"),
    left("OP"),
    right("SIZE"),
    right("USER"),
    left("HOST"),
    left("PROGRAM"),
    left("KEPT BY"),
    left("UNTIL"),
    left("RENAMED FROM"),
];

const MOMENTS: &[Column] = &[
    time("TIME"),
    left("LABEL"),
    left("EXPIRES"),
    left("HELD UNTIL"),
];

const ENTRIES: &[Column] = &[
    left("MODE"),
    right("USER"),
    right("GROUP"),
    right("SIZE"),
    left("MODIFIED"),
    left("NAME"),
];

const CHANGES: &[Column] = &[
    time("TIME"),
    left("OP"),
    right("SIZE"),
    right("STORED"),
    right("USER"),
    left("HOST"),
    left("PROGRAM"),
    left("PATH"),
];

const LABELS: &[Column] = &[
    time("SHOWS"),
    left("LABEL"),
    left("EXPIRES"),
    left("HELD UNTIL"),
    right("KEEPS"),
    right("SIZE"),
    right("USER"),
    left("HOST"),
    left("DIRECTORY"),
];

const HOLDS: &[Column] = &[
    time("VERSION"),
    left("HELD UNTIL"),
    right("USER"),
    left("HOST"),
    left("PATH"),
];

const MATCHES: &[Column] = &[
    time("TIME"),
    right("USER"),
    right("MATCHES"),
    right("LINE"),
    left("TEXT"),
];

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct PrintForm {
    pub(in crate::cli) json: bool,
    pub(in crate::cli) utc: bool,
}

impl PrintForm {
    /// The zone of printed times.
    pub(super) fn zone(self) -> TimeZone {
        match self.utc {
            true => TimeZone::UTC,
            false => TimeZone::system(),
        }
    }
}

/// Prints rows as they come.
#[derive(Debug)]
pub(in crate::cli) struct RowPrinter {
    form: PrintForm,
    zone: TimeZone,
    table: Table,
    output: RowOutput,
    /// What stands before a path on a command line.
    place: String,
    /// The row that says that more is not shown.
    truncated: Option<TruncatedRow>,
}

impl RowPrinter {
    pub(in crate::cli) fn new(form: PrintForm) -> Self {
        Self {
            form,
            zone: form.zone(),
            table: Table::default(),
            output: RowOutput::new(),
            place: String::new(),
            truncated: None,
        }
    }

    /// A printer of changes; `place` stands before a path on a command line.
    pub(in crate::cli) fn of_change(form: PrintForm, place: String) -> Self {
        Self {
            place,
            ..Self::new(form)
        }
    }

    /// Prints a row; breaks when standard output takes no more.
    pub(in crate::cli) fn print(&mut self, row: VerbRow) -> ControlFlow<()> {
        let printed = match row {
            VerbRow::Truncated(row) => {
                self.truncated = Some(row);
                Ok(())
            }
            // Those of `diff` have a printer of their own.
            VerbRow::AsOf(_) | VerbRow::Compared(_) | VerbRow::Difference(_) => Ok(()),
            VerbRow::Bytes(row) => self.output.out.write_all(&row.bytes),
            VerbRow::Version(row) => self.table_row(&row, VERSIONS, version_cells),
            VerbRow::Moment(row) => self.table_row(&row, MOMENTS, moment_cells),
            VerbRow::Entry(row) => self.table_row(&row, ENTRIES, entry_cells),
            VerbRow::Change(row) => self.table_row(&row, CHANGES, change_cells),
            VerbRow::Match(row) => self.table_row(&row, MATCHES, match_cells),
            VerbRow::Label(row) => self.table_row(&row, LABELS, label_cells),
            VerbRow::Held(row) => self.table_row(&row, HOLDS, hold_cells),
            VerbRow::Restored(row) => self.restored(&row),
            VerbRow::Policy(row) => self.table_row(&row, POLICY, policy_cells),
            VerbRow::Pruned(row) => self.table_row(&row, PRUNED, pruned_cells),
            VerbRow::Forget(row) => self.forget_row(&row),
            VerbRow::Stat(row) => self.table_row(&row, STATS, stat_cells),
            VerbRow::Reason(row) => self.table_row(&row, REASONS, reason_cells),
        };
        self.output.note(printed)
    }

    /// Prints a row of `forget`, at once: the next one may take minutes.
    fn forget_row(&mut self, row: &ForgetRow) -> io::Result<()> {
        let out = &mut self.output.out;
        match self.form.json {
            true => {
                serde_json::to_writer(&mut *out, row)?;
                out.write_all(b"\n")?;
            }
            false => writeln!(out, "{}", forget_line(row, &self.zone))?,
        }
        out.flush()
    }

    /// Prints what was restored, and how that is undone.
    fn restored(&mut self, row: &RestoredRow) -> io::Result<()> {
        let out = &mut self.output.out;
        if self.form.json {
            serde_json::to_writer(&mut *out, row)?;
            return out.write_all(b"\n");
        }
        let mut from = match row.from == row.path {
            true => String::new(),
            false => format!(" from {}", row.from),
        };
        if let Some(time) = &row.as_of {
            from += &format!(" as of {time}");
        }
        let size = row.size.map(|size| format!(", {}", show_size(size)));
        let (path, kind) = (&row.path, &row.kind);
        let size = size.unwrap_or_default();
        let then = row.as_of.as_ref();
        let then = then.map_or(" then".to_owned(), |time| format!(" at {time}"));
        match (row.changes, kind.as_str()) {
            (0, _) => writeln!(out, "{path}: is as it was{then}; nothing was changed")?,
            (2.., "directory") => {
                let changes = row.changes;
                writeln!(out, "{path}: restored{from} ({kind}, {changes} changes)")?;
            }
            _ => writeln!(out, "{path}: restored{from} ({kind}{size})")?,
        }
        for left in &row.left {
            writeln!(
                out,
                "{left}: left as it is; what it showed then was forgotten, or its policy does not keep it"
            )?;
        }
        match &row.undo {
            Some(undo) => writeln!(out, "undo: rewindfs restore {}{undo}", self.place),
            None => Ok(()),
        }
    }

    /// Prints what waits.
    ///
    /// # Errors
    /// A failure if standard output does not take it.
    pub(in crate::cli) fn finish(mut self) -> Result<(), CliError> {
        if !self.output.has_failed() {
            let printed = self.table.print(&mut self.output.out);
            let _failed = self.output.note(printed);
        }
        self.output.finish()?;
        tell_truncated(self.truncated);
        Ok(())
    }

    /// Prints a row as a JSON object, or in the table with these columns.
    fn table_row<R: Serialize>(
        &mut self,
        row: &R,
        columns: &'static [Column],
        cells: fn(&R, &TimeZone) -> Vec<String>,
    ) -> io::Result<()> {
        let out = &mut self.output.out;
        if !self.form.json {
            return self.table.push(columns, cells(row, &self.zone), out);
        }
        serde_json::to_writer(&mut *out, row)?;
        out.write_all(b"\n")
    }
}

fn version_cells(row: &VersionRow, zone: &TimeZone) -> Vec<String> {
    vec![
        show_time(i128::from(row.time_ns), 9, zone),
        row.op.clone(),
        show_size(row.size),
        row.user.to_string(),
        or_dash(&row.host),
        or_dash(&row.program),
        kept_rules(&row.kept_by),
        kept_until(&row.kept_by, zone),
        row.renamed_from
            .as_ref()
            .map_or_else(String::new, PathText::to_string),
    ]
}

fn moment_cells(row: &MomentRow, zone: &TimeZone) -> Vec<String> {
    vec![
        show_time(i128::from(row.time_ns), 9, zone),
        row.label
            .as_ref()
            .map_or_else(|| "-".to_owned(), PathText::to_string),
        show_until(row.expires_ns, zone),
        show_until(row.held_until_ns, zone),
    ]
}

fn change_cells(row: &ChangeRow, zone: &TimeZone) -> Vec<String> {
    let size = |size: Option<u64>| size.map_or_else(|| "-".to_owned(), show_size);
    vec![
        show_time(i128::from(row.time_ns), 9, zone),
        row.op.clone(),
        size(row.size),
        size(row.stored),
        row.user
            .map_or_else(|| "-".to_owned(), |user| user.to_string()),
        or_dash(row.host.as_deref().unwrap_or_default()),
        or_dash(row.program.as_deref().unwrap_or_default()),
        match &row.renamed_from {
            Some(former) => format!("{} from {former}", row.path),
            None => row.path.to_string(),
        },
    ]
}

/// Says that more changes are not shown.
pub(super) fn tell_truncated(truncated: Option<TruncatedRow>) {
    if let Some(TruncatedRow { limit }) = truncated {
        eprintln!("rewindfs: only the newest {limit} changes are shown: older ones with --until");
    }
}

/// A change on a line of its own.
pub(super) fn change_line(row: &ChangeRow, zone: &TimeZone) -> String {
    printable(&change_cells(row, zone).join("  "))
}

fn match_cells(row: &MatchRow, zone: &TimeZone) -> Vec<String> {
    vec![
        show_time(i128::from(row.time_ns), 9, zone),
        row.user.to_string(),
        row.matches.to_string(),
        row.line.to_string(),
        row.text.to_string(),
    ]
}

fn label_cells(row: &LabelEntry, zone: &TimeZone) -> Vec<String> {
    vec![
        show_time(i128::from(row.time_ns), 9, zone),
        row.label.to_string(),
        show_until(row.expires_ns, zone),
        show_until(row.held_until_ns, zone),
        row.keeps_versions.to_string(),
        show_size(row.keeps_bytes),
        row.user.to_string(),
        or_dash(&row.host),
        match row.path.0.is_empty() {
            true => "/".to_owned(),
            false => row.path.to_string(),
        },
    ]
}

fn hold_cells(row: &HeldRow, zone: &TimeZone) -> Vec<String> {
    vec![
        show_time(i128::from(row.time_ns), 9, zone),
        show_until(row.held_until_ns, zone),
        row.user.to_string(),
        or_dash(&row.host),
        row.path.to_string(),
    ]
}

fn entry_cells(row: &EntryRow, zone: &TimeZone) -> Vec<String> {
    let name = match &row.target {
        Some(target) => format!("{} -> {target}", row.name),
        None => row.name.to_string(),
    };
    vec![
        show_mode(&row.kind, &row.mode),
        row.uid.to_string(),
        row.gid.to_string(),
        match row.kind.as_str() {
            "directory" => "-".to_owned(),
            _ => show_size(row.size),
        },
        show_time(i128::from(row.modified_ns), 3, zone),
        name,
    ]
}

/// Text of another machine on one line; `-` if there is none.
fn or_dash(text: &str) -> String {
    match text.is_empty() {
        true => "-".to_owned(),
        false => PathText(text.as_bytes().to_vec().into()).to_string(),
    }
}

/// A type and permission bits as ls(1) prints them.
fn show_mode(kind: &str, mode: &str) -> String {
    let bits = u32::from_str_radix(mode, 8).unwrap_or(0);
    let mut text = String::from(match kind {
        "directory" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "char_device" => 'c',
        "block_device" => 'b',
        _ => '-',
    });
    for (shift, special, letters) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let set = |bit: u32| bits >> shift & bit != 0;
        text.push(if set(4) { 'r' } else { '-' });
        text.push(if set(2) { 'w' } else { '-' });
        text.push(match (bits & special != 0, set(1)) {
            (true, true) => letters,
            (true, false) => letters.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::past::stamp::TimeName;
    use jiff::tz::Offset;

    #[test]
    fn a_printed_time_has_its_offset_and_is_a_time() {
        let zone = TimeZone::fixed(Offset::from_seconds(-12_600).unwrap());
        let printed = show_time(1_795_222_800_123_456_789, 3, &zone);
        assert_eq!(printed, "2026-11-20 21:30:00.123-03:30");
        assert!(TimeName::parse(printed.as_bytes()).is_some());
        let utc = show_time(0, 3, &TimeZone::UTC);
        assert_eq!(utc, "1970-01-01 00:00:00.000+00:00");
        assert!(show_time(-1, 3, &TimeZone::UTC).starts_with("1969-12-31 23:59:59"));
    }

    #[test]
    fn modes_are_printed_as_by_ls() {
        for (kind, mode, text) in [
            ("file", "0644", "-rw-r--r--"),
            ("directory", "1777", "drwxrwxrwt"),
            ("file", "6711", "-rws--s--x"),
            ("file", "6600", "-rwS--S---"),
            ("symlink", "0777", "lrwxrwxrwx"),
        ] {
            assert_eq!(show_mode(kind, mode), text);
        }
    }
}
