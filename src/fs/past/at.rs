//! `.versions/TIME/...`: a directory and what was below it, as of an instant.
//!
//! Names below are history's, not the live tree's: `.versions` is not among them.

use super::node::{PastKind, PastState};
use super::resolved_times::ResolvedTime;
use super::stamp::{TimeName, TimeStability};
use super::{Found, Lasting, Past, state_node};
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Attrs, Ino, PastEntry, Retained, Timestamp};
use bytes::Bytes;

impl Past {
    /// The tree that the time `name` means to `caller` in `.versions` of the live directory `dir`.
    pub(super) async fn find_time(
        &self,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
    ) -> FsResult<Found> {
        let time = TimeName::parse(name).ok_or(FsError::NotFound)?;
        let answer = self.meanings.resolve(time, caller, || self.namespace.now());
        let answer = answer.ok_or(FsError::NotFound)?;
        let found = self.find_answer(&answer, dir).await;
        match &found {
            Ok(_) => self.meanings.found(&answer),
            Err(_) => self.meanings.missed(&answer),
        }
        found
    }

    async fn find_answer(&self, answer: &ResolvedTime, dir: Ino) -> FsResult<Found> {
        let at = answer.at;
        let lasting = match answer.meaning {
            TimeStability::Fixed => self.lasting_at(at),
            TimeStability::Moving => Lasting::Passing,
        };
        // A release that is due belongs to the answer.
        self.namespace.history().settle(at).await;
        let then = self
            .namespace
            .history()
            .view()
            .directory_at(dir, at)
            .await?;
        let then = then.ok_or(FsError::NotFound)?;
        Ok(Found {
            what: PastKind::Time {
                dir: then,
                at,
                asked: dir,
            },
            lasting: match then == dir {
                true => lasting,
                // Found by the path that leads to `dir` now: after a rename the same name means another directory.
                false => Lasting::Passing,
            },
        })
    }

    /// What `name` was in the directory `dir` at `at`.
    pub(super) async fn find_in_tree(
        &self,
        dir: Ino,
        at: Timestamp,
        name: &[u8],
    ) -> FsResult<Found> {
        if name == self.versions_name {
            return Err(FsError::NotFound);
        }
        let lasting = self.lasting_at(at);
        let entry = self
            .namespace
            .history()
            .view()
            .entry_at(dir, name, at)
            .await?;
        let entry = entry.ok_or(FsError::NotFound)?;
        Ok(Found {
            what: self
                .tree_node(dir, Bytes::copy_from_slice(name), at, entry)
                .await?,
            lasting,
        })
    }

    /// The node for what `name` in the directory `dir` was at `at`. All names of a file are one node, with as many links.
    async fn tree_node(
        &self,
        dir: Ino,
        name: Bytes,
        at: Timestamp,
        entry: PastEntry,
    ) -> FsResult<PastKind> {
        // Deleting a version takes it from one name only.
        let links = match entry.shared.is_some() && entry.kept != Retained::Nothing {
            true => Some(
                self.namespace
                    .history()
                    .view()
                    .link_count_at(entry.ino, at)
                    .await?,
            ),
            false => None,
        };
        Ok(state_node(PastState {
            dir,
            name,
            at,
            entry: match links {
                Some(_) => entry.of_inode(),
                None => entry,
            },
            links: links.unwrap_or(1),
        }))
    }

    /// The names in the directory `dir` at `at`.
    pub(super) async fn list_tree(
        &self,
        dir: Ino,
        at: Timestamp,
    ) -> FsResult<Vec<(Bytes, PastKind)>> {
        let entries = self.namespace.history().view().list_at(dir, at).await;
        let entries = entries.map_err(|error| FsError::from(error).by_number())?;
        let mut nodes = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            if name != self.versions_name {
                let what = self.tree_node(dir, name.clone(), at, entry).await?;
                nodes.push((name, what));
            }
        }
        Ok(nodes)
    }

    /// The attributes that a tree's own directory shows: those it had then. What guards the live directory still guards the
    /// way to its past.
    pub(super) async fn time_attrs(
        &self,
        (dir, at): (Ino, Timestamp),
        asked: Ino,
    ) -> FsResult<Attrs> {
        match self
            .namespace
            .history()
            .view()
            .directory_entry_at(dir, at)
            .await?
        {
            Some(entry) => Ok(entry.attrs),
            None => Ok(self.live_dir(asked).await?.attrs),
        }
    }
}
