//! The differences between two texts, line by line, as diff(1) prints them with `-u`.

use std::time::Duration;

use bytes::Bytes;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline, group_diff_ops};
use tokio::time::Instant;

/// Equal lines around a difference.
const CONTEXT: usize = 3;
/// How long the search for a short description of the difference may take; beyond it the description is longer, and right.
const SEARCH_MAX: Duration = Duration::from_secs(5);
/// How much of a file is searched for a zero byte, which makes it binary.
const BINARY_HEAD: usize = 8192;

/// How the contents of two files differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentDiff {
    /// One of them is no text.
    Binary,
    /// Both are texts.
    Lines(LineDiff),
}

/// How two texts differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineDiff {
    /// Lines that only the new text has.
    pub added: u64,
    /// Lines that only the old text has.
    pub removed: u64,
    /// The differences with the lines around them.
    pub lines: Vec<DiffLine>,
}

/// A line of a unified diff, without its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
    /// What it is.
    pub role: LineRole,
    /// The line with the mark before it.
    pub text: Bytes,
}

/// What a line of a unified diff is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineRole {
    /// The numbers of the lines that follow.
    Place,
    /// A line that both texts have.
    Context,
    /// A line that only the old text has.
    Removed,
    /// A line that only the new text has.
    Added,
    /// The remark that the line before it has no line break.
    NoLineBreak,
}

/// Tells whether the beginning of a file shows that it is no text.
pub(super) fn is_binary(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(BINARY_HEAD)].contains(&0)
}

impl ContentDiff {
    /// Compares two contents.
    #[must_use]
    pub fn new(old: &[u8], new: &[u8]) -> Self {
        match is_binary(old) || is_binary(new) {
            true => Self::Binary,
            false => Self::Lines(LineDiff::new(old, new)),
        }
    }
}

impl LineDiff {
    fn new(old: &[u8], new: &[u8]) -> Self {
        let split = |text| <[u8]>::split_inclusive(text, |byte| *byte == b'\n').collect();
        let (old, new): (Vec<&[u8]>, Vec<&[u8]>) = (split(old), split(new));
        let deadline = Some((Instant::now() + SEARCH_MAX).into_std());
        let steps = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, deadline);
        let mut diff = Self::default();
        for group in group_diff_ops(steps, CONTEXT) {
            diff.add_place(&group);
            for step in &group {
                match *step {
                    DiffOp::Equal { old_index, len, .. } => {
                        diff.add(LineRole::Context, &old[old_index..old_index + len]);
                    }
                    DiffOp::Delete {
                        old_index, old_len, ..
                    } => diff.add(LineRole::Removed, &old[old_index..old_index + old_len]),
                    DiffOp::Insert {
                        new_index, new_len, ..
                    } => diff.add(LineRole::Added, &new[new_index..new_index + new_len]),
                    DiffOp::Replace {
                        old_index,
                        old_len,
                        new_index,
                        new_len,
                    } => {
                        diff.add(LineRole::Removed, &old[old_index..old_index + old_len]);
                        diff.add(LineRole::Added, &new[new_index..new_index + new_len]);
                    }
                }
            }
        }
        diff
    }

    /// Adds the line with the numbers of a group of lines.
    fn add_place(&mut self, group: &[DiffOp]) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return;
        };
        let old = first.old_range().start..last.old_range().end;
        let new = first.new_range().start..last.new_range().end;
        // Lines are counted from 1; a part without lines is named by the line before it.
        let place = |range: std::ops::Range<usize>| match range.len() {
            0 => format!("{},0", range.start),
            1 => (range.start + 1).to_string(),
            len => format!("{},{len}", range.start + 1),
        };
        self.lines.push(DiffLine {
            role: LineRole::Place,
            text: format!("@@ -{} +{} @@", place(old), place(new)).into(),
        });
    }

    fn add(&mut self, role: LineRole, lines: &[&[u8]]) {
        let mark = match role {
            LineRole::Removed => {
                self.removed += lines.len() as u64;
                b"-"
            }
            LineRole::Added => {
                self.added += lines.len() as u64;
                b"+"
            }
            _ => b" ",
        };
        for line in lines {
            let text = line.strip_suffix(b"\n");
            self.lines.push(DiffLine {
                role,
                text: [&mark[..], text.unwrap_or(line)].concat().into(),
            });
            if text.is_none() {
                self.lines.push(DiffLine {
                    role: LineRole::NoLineBreak,
                    text: Bytes::from_static(b"\\ No newline at end of file"),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn printed(old: &str, new: &str) -> String {
        let ContentDiff::Lines(diff) = ContentDiff::new(old.as_bytes(), new.as_bytes()) else {
            panic!("a text is no binary");
        };
        let mut text = String::new();
        for line in &diff.lines {
            writeln!(text, "{}", String::from_utf8_lossy(&line.text)).unwrap();
        }
        text
    }

    /// The lines of `diff -u` after the names of the files.
    fn by_diff(old: &str, new: &str) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
        std::fs::write(&a, old).unwrap();
        std::fs::write(&b, new).unwrap();
        let mut command = std::process::Command::new("diff");
        let output = command.arg("-u").args([a, b]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .skip(2)
            .fold(String::new(), |text, line| text + line + "\n")
    }

    #[test]
    fn differences_are_printed_as_by_diff() {
        let long: String = (0..40).map(|n| format!("line {n}\n")).collect();
        let changed = long
            .replace("line 3\n", "line three\n")
            .replace("line 30\n", "");
        for (old, new) in [
            ("", ""),
            ("a\nb\n", "a\nb\n"),
            ("", "one\ntwo\n"),
            ("one\ntwo\n", ""),
            ("a\nb\nc\n", "a\nx\nc\n"),
            ("a\nb", "a\nb\n"),
            ("a\n", "a"),
            (long.as_str(), changed.as_str()),
        ] {
            assert_eq!(printed(old, new), by_diff(old, new), "{old:?} {new:?}");
        }
    }

    #[test]
    fn lines_are_counted_and_a_zero_byte_makes_a_file_binary() {
        let diff = ContentDiff::new(b"a\nb\nc\n", b"a\nx\ny\nc\n");
        assert!(
            matches!(&diff, ContentDiff::Lines(lines) if (lines.added, lines.removed) == (2, 1)),
            "{diff:?}"
        );
        assert_eq!(ContentDiff::new(b"a\0b", b"a"), ContentDiff::Binary);
        // Text in another encoding than UTF-8 is text.
        let diff = ContentDiff::new(b"\xe9\n", b"\xe8\n");
        assert!(matches!(diff, ContentDiff::Lines(lines) if lines.lines[1].text == b"-\xe9"[..]));
    }
}
