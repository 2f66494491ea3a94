//! The directory that states are written to.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::cache::Source;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Attrs, Content, Kind, Time, Timestamp};
use crate::store::salvage::report::{SalvageReport, SalvagedFile};
use crate::store::salvage::states::{FileState, JournalStates, PartSource, StatePart};

/// The bytes that are copied from a staging file at once.
const CHUNK: u64 = 1 << 20;

/// The permission bits that are kept: a file that lends rights is not made.
const MODE: u32 = 0o777;

/// A new directory, and what was written into it.
pub(super) struct Output {
    to: PathBuf,
    report: SalvageReport,
}

impl Output {
    /// Makes the directory `to`, or takes it if it is empty.
    pub(super) fn new(to: &Path, problems: Vec<String>) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::LocalDisk(format!("{}: {error}", to.display()));
        fs::create_dir_all(to).map_err(failed)?;
        if fs::read_dir(to).map_err(failed)?.next().is_some() {
            let text = format!("{} is not empty; name a new directory", to.display());
            return Err(StoreError::Invalid(text));
        }
        let report = SalvageReport {
            files: Vec::new(),
            problems,
        };
        Ok(Self {
            to: to.to_path_buf(),
            report,
        })
    }

    pub(super) fn into_report(self) -> SalvageReport {
        self.report
    }

    /// Writes every state, the directories that were made, and at last the symbolic links, so that no path leads through one.
    pub(super) fn write(&mut self, states: &JournalStates, mut step: impl FnMut(&SalvagedFile)) {
        let mut written = HashSet::new();
        // The newest state of an inode comes first.
        for state in states.states.iter().rev() {
            let newest = written.insert(state.ino);
            match self.write_state(states, state, newest) {
                Ok(file) => {
                    step(&file);
                    self.report.files.push(file);
                }
                Err(text) => self.report.problems.push(text),
            }
        }
        for kind in [Kind::Directory, Kind::Symlink] {
            self.make_others(states, kind);
        }
    }

    fn write_state(
        &self,
        states: &JournalStates,
        state: &FileState,
        newest: bool,
    ) -> Result<SalvagedFile, String> {
        let parts = states.parts(state);
        let elsewhere = parts
            .iter()
            .filter(|part| matches!(part.source, PartSource::Elsewhere));
        let mut missing: Vec<_> = elsewhere.map(|part| part.range.clone()).collect();
        missing.dedup_by(|next, last| {
            let follows = last.end == next.start;
            if follows {
                last.end = next.end;
            }
            follows
        });
        let path = self.path(states, state, newest, missing.is_empty());
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let own = states.names.own(state.ino).filter(|_| newest);
        let attrs = own.map_or(&state.attrs, |own| &own.attrs);
        let file = create(&path).map_err(failed)?;
        let written = fill(&file, &parts).and_then(|()| dress(&file, attrs));
        written.map_err(failed)?;
        Ok(SalvagedFile {
            to: path,
            ino: state.ino,
            at: (state.at < Timestamp(u64::MAX)).then_some(state.at),
            origin: state.origin,
            author: state.author.clone(),
            len: parts.last().map_or(0, |part| part.range.end),
            missing,
        })
    }

    /// Where a state is written.
    fn path(
        &self,
        states: &JournalStates,
        state: &FileState,
        newest: bool,
        is_whole: bool,
    ) -> PathBuf {
        let mut path = self.to.clone();
        if !is_whole {
            path.push("parts");
        }
        let place = states.names.place(state.ino, state.place.as_ref());
        if newest && let Some(place) = &place {
            path.push("files");
            return joined(path, &states.names.path(place));
        }
        path.push("older");
        let path = match place.as_ref().or(state.place.as_ref()) {
            Some(place) => joined(path, &states.names.path(place)),
            None => path.join(format!("inode-{}", state.ino.0)),
        };
        match state.at {
            Timestamp(u64::MAX) => path.join(format!("{}-open", state.ino.0)),
            Timestamp(at) => path.join(format!("{}-{at}", state.ino.0)),
        }
    }

    /// Makes the directories or the symbolic links that operations named. All directories above come first: a damaged journal may name
    /// something below a link.
    fn make_others(&mut self, states: &JournalStates, kind: Kind) {
        let named = states.names.inodes().filter_map(|(_, named)| {
            let own = named.own.as_ref().filter(|own| own.kind == kind)?;
            let path = joined(self.to.join("files"), &states.names.path(&named.place));
            Some((path, &own.content))
        });
        let named: Vec<_> = named.collect();
        let above = named.iter().map(|(path, _)| (path, above(path)));
        let mut made: Vec<_> = above.collect();
        made.extend(named.iter().map(|(path, content)| {
            let made = match content {
                Content::Target(target) => symlink(std::ffi::OsStr::from_bytes(target), path),
                _ => fs::create_dir_all(path),
            };
            (path, made)
        }));
        let failed = made
            .into_iter()
            .filter_map(|(path, made)| Some((path, made.err()?)));
        let problems = failed.map(|(path, error)| format!("{}: {error}", path.display()));
        self.report.problems.extend(problems);
    }
}

fn joined(mut path: PathBuf, components: &[Bytes]) -> PathBuf {
    path.extend(
        components
            .iter()
            .map(|name| std::ffi::OsStr::from_bytes(name)),
    );
    path
}

fn above(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn create(path: &Path) -> io::Result<File> {
    above(path)?;
    let mut how = OpenOptions::new();
    how.write(true).create_new(true).mode(0o600).open(path)
}

/// Writes the parts that are on this machine; the others become holes.
fn fill(file: &File, parts: &[StatePart]) -> io::Result<()> {
    file.set_len(parts.last().map_or(0, |part| part.range.end))?;
    for part in parts {
        let PartSource::Local(source) = &part.source else {
            continue;
        };
        match source {
            Source::Memory(bytes) => file.write_all_at(bytes, part.range.start)?,
            Source::File {
                file: staging,
                position,
            } => {
                let mut at = part.range.start;
                while at < part.range.end {
                    let len = CHUNK.min(part.range.end - at);
                    let from = position + (at - part.range.start);
                    let bytes = staging.read_at(from, usize::try_from(len).unwrap_or(0));
                    file.write_all_at(&bytes.map_err(io::Error::other)?, at)?;
                    at += len;
                }
            }
            Source::Zero | Source::Reference { .. } => {}
        }
    }
    Ok(())
}

/// Gives the file its permissions and its time of modification.
fn dress(file: &File, attrs: &Attrs) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(system_time(attrs.mtime)))?;
    file.set_permissions(Permissions::from_mode(attrs.mode & MODE))
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = match time.seconds < 0 {
        true => UNIX_EPOCH.checked_sub(seconds),
        false => UNIX_EPOCH.checked_add(seconds),
    };
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    whole
        .and_then(|whole| whole.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}
