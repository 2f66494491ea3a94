//! `.versions/TIME/...`: a directory and what was below it, as of an instant.
//!
//! Names below are history's, not the live tree's: `.versions` is not among them.

use super::node::What;
use super::stamp::{Meaning, TimeName};
use super::{Found, Lasting, Past, state_node};
use crate::fs::error::{FsError, FsResult};
use crate::store::{Attrs, Ino, Instant};
use bytes::Bytes;

impl Past {
    /// The tree that the time `name` means in `.versions` of the live directory `dir`.
    pub(super) async fn find_time(&self, dir: Ino, name: &[u8]) -> FsResult<Found> {
        let time = TimeName::parse(name).ok_or(FsError::NotFound)?;
        let now = self.namespace.now();
        let (at, meaning) = time.resolve(now).ok_or(FsError::NotFound)?;
        // A release that is due belongs to the answer.
        self.namespace.settle(at).await;
        let then = self.namespace.directory_at(dir, at).await?;
        let what = What::Time {
            dir: then.ok_or(FsError::NotFound)?,
            at,
            asked: dir,
        };
        let lasting = match meaning {
            Meaning::Fixed => self.lasting_at(at),
            Meaning::Moving => Lasting::Passing,
        };
        Ok(Found { what, lasting })
    }

    /// What `name` was in the directory `dir` at `at`.
    pub(super) async fn find_in_tree(&self, dir: Ino, at: Instant, name: &[u8]) -> FsResult<Found> {
        if name == self.versions_name {
            return Err(FsError::NotFound);
        }
        let entry = self.namespace.entry_at(dir, name, at).await?;
        let entry = entry.ok_or(FsError::NotFound)?;
        Ok(Found {
            what: state_node(dir, name, at, entry),
            lasting: self.lasting_at(at),
        })
    }

    /// The names in the directory `dir` at `at`.
    pub(super) async fn list_tree(&self, dir: Ino, at: Instant) -> FsResult<Vec<(Bytes, What)>> {
        let entries = self.namespace.list_at(dir, at).await;
        let entries = entries.map_err(|error| FsError::from(error).by_number())?;
        let names = entries
            .into_iter()
            .filter(|(name, _)| *name != self.versions_name);
        let nodes = names.map(|(name, entry)| {
            let what = state_node(dir, &name, at, entry);
            (name, what)
        });
        Ok(nodes.collect())
    }

    /// The attributes that a tree's own directory shows: those it had then. What guards the live directory still guards the
    /// way to its past.
    pub(super) async fn time_attrs(
        &self,
        (dir, at): (Ino, Instant),
        asked: Ino,
    ) -> FsResult<Attrs> {
        match self.namespace.directory_entry_at(dir, at).await? {
            Some(entry) => Ok(entry.attrs),
            None => Ok(self.live_dir(asked).await?.attrs),
        }
    }
}
