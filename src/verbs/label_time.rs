//! `PATH@LABEL`: a label as the time of a path.
//!
//! A name that exists or existed comes first: `user@host` is a file if there is or was one, also where a label `host` exists. Then the
//! label of the directory itself, or of the nearest directory above it, counts.

use bytes::Bytes;

use super::error::VerbError;
use super::path::{PathText, TimedPath};
use super::reader::PathReader;
use super::request::ReadVerb;
use crate::fs::past::stamp::print_exact;
use crate::store::{Timestamp, check_label_name};

/// A path and the label that is written behind it.
struct LabelledPath {
    names: Vec<Bytes>,
    label: Bytes,
}

impl LabelledPath {
    /// Divides the last name of a path at its last `@`; `None` if what follows cannot be a label.
    fn parse(path: &TimedPath) -> Option<Self> {
        if path.time.is_some() {
            return None;
        }
        let mut names = path.names();
        let last = names.pop()?;
        let at = last.iter().rposition(|byte| *byte == b'@')?;
        let label = last.slice(at + 1..);
        check_label_name(&label).ok()?;
        if at > 0 {
            names.push(last.slice(..at));
        }
        Some(Self { names, label })
    }

    fn at(&self, time: Option<Timestamp>) -> TimedPath {
        TimedPath {
            path: PathText::of_names(&self.names),
            time: time.map(print_exact),
        }
    }
}

impl PathReader {
    /// Returns the verb with the times of its labels in their place.
    pub(super) async fn with_label_times(&self, verb: &ReadVerb) -> Result<ReadVerb, VerbError> {
        let mut verb = verb.clone();
        if let ReadVerb::Diff(request) = &mut verb
            && request.old == request.new
            && let Some((path, time)) = self.label_time(&request.old).await?
        {
            // Without a second path a state is compared with the present one.
            request.old = path.at(Some(time));
            request.new = path.at(None);
            return Ok(verb);
        }
        for path in verb.paths() {
            *path = self.with_label_time(path).await?;
        }
        Ok(verb)
    }

    /// Returns a path with the time of its label, if it has one, in the place of the label.
    pub(super) async fn with_label_time(&self, path: &TimedPath) -> Result<TimedPath, VerbError> {
        let found = self.label_time(path).await?;
        Ok(match found {
            Some((labelled, time)) => labelled.at(Some(time)),
            None => path.clone(),
        })
    }

    /// Returns a path with its time, or that of its label.
    ///
    /// # Errors
    /// `TimeNeeded` for a name without either, that of a name that never was; those of the reads.
    pub(super) async fn with_time(&self, path: &TimedPath) -> Result<TimedPath, VerbError> {
        let path = self.with_label_time(path).await?;
        if path.time.is_some() {
            return Ok(path);
        }
        Err(match self.is_known(&path).await? {
            true => VerbError::TimeNeeded {
                path: path.to_string(),
            },
            false => self.missing(&path).await?,
        })
    }

    /// Returns the path without its label, and what the label shows; `None` if it has none.
    async fn label_time(
        &self,
        path: &TimedPath,
    ) -> Result<Option<(LabelledPath, Timestamp)>, VerbError> {
        let Some(labelled) = LabelledPath::parse(path) else {
            return Ok(None);
        };
        if self.is_known(path).await? {
            return Ok(None);
        }
        let view = self.view();
        for depth in (0..=labelled.names.len()).rev() {
            let above = self.directory_or_removed(&labelled.names[..depth]).await?;
            let Some(directory) = above else { continue };
            let label = view.label(directory, &labelled.label).await;
            if let Some(label) = label.map_err(VerbError::at(path))? {
                return Ok(Some((labelled, label.timestamp)));
            }
        }
        Ok(None)
    }
}
