//! Tables with aligned columns. A column is as wide as the widest cell so far; rows wait in groups, so that a long table is printed
//! as it comes and needs little memory.

use crate::cli::printable::printable;
use std::io::{self, Write};

/// Rows that are aligned together.
const GROUP: usize = 500;

/// The side on which the cells of a column are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
    /// As `Left`. The cells are times with nine digits of the second; three are printed where no row beside it has the same ones.
    /// Only for the first column.
    Time,
}

/// The head of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) align: Align,
}

/// A column whose cells begin at its left edge.
pub(super) const fn left(title: &'static str) -> Column {
    Column {
        title,
        align: Align::Left,
    }
}

/// A column of times.
pub(super) const fn time(title: &'static str) -> Column {
    Column {
        title,
        align: Align::Time,
    }
}

/// A column whose cells end at its right edge.
pub(super) const fn right(title: &'static str) -> Column {
    Column {
        title,
        align: Align::Right,
    }
}

/// A table that is being printed.
#[derive(Debug, Default)]
pub(super) struct Table {
    columns: &'static [Column],
    widths: Vec<usize>,
    waiting: Vec<Vec<String>>,
    /// The first cell of the last row that was printed, before it was shortened.
    printed: Option<String>,
}

/// A time to the millisecond, and what follows its nine digits; `None` for another text.
fn to_millisecond(cell: &str) -> Option<(&str, &str)> {
    let point = cell.find('.')?;
    Some((cell.get(..point + 4)?, cell.get(point + 10..)?))
}

/// Tells whether two times are in the same millisecond.
fn share_millisecond(one: &str, other: Option<&str>) -> bool {
    let prefix = |cell| to_millisecond(cell).map(|(prefix, _)| prefix);
    prefix(one).is_some() && prefix(one) == other.and_then(prefix)
}

impl Table {
    /// Adds a row, and prints a full group of rows; the first row decides the columns, whose heads are printed above it.
    pub(super) fn push(
        &mut self,
        columns: &'static [Column],
        row: Vec<String>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if self.columns.is_empty() {
            self.columns = columns;
            let heads = columns.iter().map(|column| column.title.to_owned());
            self.waiting.push(heads.collect());
        }
        self.waiting
            .push(row.iter().map(|cell| printable(cell)).collect());
        if self.waiting.len() <= GROUP {
            return Ok(());
        }
        // The newest row waits, because it decides how the time of the row before it is printed.
        let newest = self.waiting.pop();
        self.print_before(newest.as_deref(), out)?;
        self.waiting.extend(newest);
        Ok(())
    }

    /// Prints the rows that wait.
    pub(super) fn print(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.print_before(None, out)
    }

    /// Shortens the times of `rows`; `next` is the row after them.
    fn shorten_times(&mut self, rows: &mut [Vec<String>], next: Option<&[String]>) {
        let first = |row: &[String]| row.first().cloned();
        let times: Vec<Option<String>> = rows.iter().map(|row| first(row)).collect();
        for (at, row) in rows.iter_mut().enumerate() {
            let before = match at.checked_sub(1) {
                Some(before) => times[before].as_deref(),
                None => self.printed.as_deref(),
            };
            let after = match times.get(at + 1) {
                Some(after) => after.as_deref(),
                None => next.and_then(|row| row.first()).map(String::as_str),
            };
            let Some(cell) = row.first_mut() else {
                continue;
            };
            if share_millisecond(cell, before) || share_millisecond(cell, after) {
                continue;
            }
            if let Some((time, zone)) = to_millisecond(cell) {
                *cell = format!("{time}{zone}");
            }
        }
        self.printed = times.into_iter().next_back().flatten();
    }

    fn print_before(&mut self, next: Option<&[String]>, out: &mut impl Write) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.waiting);
        if matches!(self.columns.first(), Some(column) if column.align == Align::Time) {
            self.shorten_times(&mut rows, next);
        }
        self.widths.resize(self.columns.len(), 0);
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let mut line = String::new();
            let cells = row.iter().zip(self.columns).zip(&self.widths);
            for (at, ((cell, column), width)) in cells.enumerate() {
                if at > 0 {
                    line.push_str("  ");
                }
                match column.align {
                    Align::Left | Align::Time => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column {
            title: "SIZE",
            align: Align::Right,
        },
        Column {
            title: "NAME",
            align: Align::Left,
        },
    ];

    #[test]
    fn columns_are_aligned_and_a_table_without_rows_has_no_head() {
        let mut out = Vec::new();
        let mut table = Table::default();
        table.print(&mut out).unwrap();
        assert!(out.is_empty());
        for (size, name) in [
            ("1", "a"),
            ("12345", "caf\u{e9}"),
            ("7", ""),
            ("8", "\u{1b}[2J"),
        ] {
            let row = vec![size.to_owned(), name.to_owned()];
            table.push(COLUMNS, row, &mut out).unwrap();
        }
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = " SIZE  NAME\n    1  a\n12345  caf\u{e9}\n    7\n    8  \\x1b[2J\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn times_have_nine_digits_where_rows_beside_each_other_share_the_millisecond() {
        const TIMES: &[Column] = &[Column {
            title: "TIME",
            align: Align::Time,
        }];
        // Pairs of rows share a millisecond, also where a group of rows ends between them.
        for pairs_at in [0, 1] {
            let (mut out, mut table) = (Vec::new(), Table::default());
            for number in 0..2 * GROUP {
                let time = format!(
                    "01:09:06.{:03}{number:06}+01:00",
                    (number + pairs_at) / 2 % 1000
                );
                table.push(TIMES, vec![time], &mut out).unwrap();
            }
            table.print(&mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let short = text.lines().skip(1).filter(|line| line.len() == 18);
            // With an odd start the first and the last row have no partner.
            assert_eq!(short.count(), 2 * pairs_at, "{text}");
        }
    }

    #[test]
    fn a_long_table_is_printed_as_it_comes() {
        let (mut out, mut table) = (Vec::new(), Table::default());
        for number in 0..2 * GROUP {
            let row = vec![number.to_string(), "x".to_owned()];
            table.push(COLUMNS, row, &mut out).unwrap();
            assert!(table.waiting.len() <= GROUP);
        }
        table.print(&mut out).unwrap();
        let lines = String::from_utf8(out).unwrap().lines().count();
        assert_eq!(lines, 2 * GROUP + 1);
    }
}
