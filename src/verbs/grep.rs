//! `grep`: which states of a file have a line that a pattern matches.

use regex::bytes::{Regex, RegexBuilder};

use super::cat::piece;
use super::error::VerbError;
use super::list::FileStates;
use super::path::PathText;
use super::reader::PathReader;
use super::request::{GrepRequest, GrepStates};
use super::rows::{MatchRow, RowSender, VerbRow, path_text, stamp};
use super::text_diff::is_binary;
use crate::store::{Kind, PastEntry};

/// The longest line that is searched as a whole, in bytes; a longer one is searched in parts.
const LINE_MAX: usize = 1 << 20;
/// The most bytes of a line that are sent.
const SHOWN_MAX: usize = 4096;

/// The lines of a state that the pattern matches.
#[derive(Debug, Default)]
struct StateMatches {
    /// How many.
    count: u64,
    /// The number of the first one, from 1.
    first: u64,
    /// The first one.
    text: Vec<u8>,
    /// Lines so far.
    lines: u64,
}

impl StateMatches {
    fn search(&mut self, pattern: &Regex, line: &[u8]) {
        self.lines += 1;
        if !pattern.is_match(line) {
            return;
        }
        self.count += 1;
        if self.count == 1 {
            self.first = self.lines;
            self.text = line[..line.len().min(SHOWN_MAX)].to_vec();
        }
    }
}

/// Reads the pattern of a request.
///
/// # Errors
/// A message that says what is wrong with it.
pub fn pattern(request: &GrepRequest) -> Result<Regex, String> {
    let mut builder = match request.fixed {
        true => RegexBuilder::new(&regex::escape(&request.pattern)),
        false => RegexBuilder::new(&request.pattern),
    };
    let built = builder.case_insensitive(request.ignore_case).build();
    built.map_err(|error| error.to_string())
}

/// Sends the states of a file that have a matching line: all, or the first and the last one.
pub(super) async fn grep(
    reader: &PathReader,
    request: &GrepRequest,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let shown = request.path.to_string();
    let pattern = pattern(request).map_err(|why| VerbError::BadPattern {
        pattern: request.pattern.clone(),
        why,
    })?;
    let states = FileStates::read(reader, &request.path).await?;
    let mut states = states.into_states();
    states.retain(|state| state.kind == Kind::File);
    let path = PathText::of_names(&request.path.names());
    let mut found = false;
    if request.states == GrepStates::All {
        for state in &states {
            if let Some(matches) = matches_in(reader, &path, state, &pattern).await? {
                found = true;
                rows.put_row(match_row(&path, state, matches)).await?;
            }
        }
    } else {
        // From both ends: the states between the two are not read.
        let mut rest = states.into_iter();
        for state in rest.by_ref() {
            if let Some(matches) = matches_in(reader, &path, &state, &pattern).await? {
                found = true;
                rows.put_row(match_row(&path, &state, matches)).await?;
                break;
            }
        }
        for state in rest.rev() {
            if let Some(matches) = matches_in(reader, &path, &state, &pattern).await? {
                rows.put_row(match_row(&path, &state, matches)).await?;
                break;
            }
        }
    }
    match found {
        true => Ok(()),
        false => Err(VerbError::NoMatch {
            path: shown,
            pattern: request.pattern.clone(),
        }),
    }
}

/// Searches a state line by line; `None` if nothing matches, or it is no text.
async fn matches_in(
    reader: &PathReader,
    path: &PathText,
    state: &PastEntry,
    pattern: &Regex,
) -> Result<Option<StateMatches>, VerbError> {
    let (mut matches, mut offset, mut rest) = (StateMatches::default(), 0, Vec::new());
    while offset < state.attrs.size {
        let bytes = piece(reader, state, offset).await;
        let bytes = bytes.map_err(VerbError::at(path))?;
        if offset == 0 && is_binary(&bytes) {
            return Ok(None);
        }
        offset += bytes.len() as u64;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            rest.extend_from_slice(part);
            if let Some(line) = rest.strip_suffix(b"\n") {
                matches.search(pattern, line);
                rest.clear();
            } else if rest.len() >= LINE_MAX {
                matches.search(pattern, &rest);
                rest.clear();
            }
        }
    }
    if !rest.is_empty() {
        matches.search(pattern, &rest);
    }
    Ok((matches.count > 0).then_some(matches))
}

fn match_row(path: &PathText, state: &PastEntry, matches: StateMatches) -> VerbRow {
    VerbRow::Match(MatchRow {
        path: path.clone(),
        stamp: stamp(state.version.timestamp),
        time_ns: state.version.timestamp.0,
        ended_ns: state.ended.map(|end| end.0),
        user: state.author.uid,
        matches: matches.count,
        line: matches.first,
        text: path_text(&matches.text),
    })
}
