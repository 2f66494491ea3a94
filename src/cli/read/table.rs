//! Tables with aligned columns. A column is as wide as the widest cell so far; rows wait in groups, so that a long table is printed
//! as it comes and needs little memory.

use std::io::{self, Write};

/// Rows that are aligned together.
const GROUP: usize = 500;

/// The side on which the cells of a column are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// The head of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) align: Align,
}

/// A table that is being printed.
#[derive(Debug, Default)]
pub(super) struct Table {
    columns: &'static [Column],
    widths: Vec<usize>,
    waiting: Vec<Vec<String>>,
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
        self.waiting.push(row);
        match self.waiting.len() > GROUP {
            true => self.print(out),
            false => Ok(()),
        }
    }

    /// Prints the rows that wait.
    pub(super) fn print(&mut self, out: &mut impl Write) -> io::Result<()> {
        let rows = std::mem::take(&mut self.waiting);
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
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
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
        for (size, name) in [("1", "a"), ("12345", "caf\u{e9}"), ("7", "")] {
            let row = vec![size.to_owned(), name.to_owned()];
            table.push(COLUMNS, row, &mut out).unwrap();
        }
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, " SIZE  NAME\n    1  a\n12345  caf\u{e9}\n    7\n");
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
