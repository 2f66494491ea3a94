//! From a path to what it shows at a time.
//!
//! All reads go to the past, also without a time: they show what is saved, so that the daemon of a mount and a follower of its bucket
//! give the same rows. `PATH@TIME` means what `.versions/TIME` of the deepest directory of PATH means that exists now and was there
//! then: a directory is followed through its renames, and one that did not exist then is looked up by its path.

use bytes::Bytes;

use super::error::{NearestTimes, VerbError};
use super::path::{PathText, TimedPath};
use crate::fs::past::stamp::TimeName;
use crate::store::{Ino, Kind, Namespace, PastEntry, PastView, ROOT, Retained, Timestamp};

/// The most directories above a path that are named.
const DEPTH_MAX: usize = 4096;

/// A directory entry that exists or existed, with all its states up to a timestamp.
#[derive(Debug, Clone)]
pub(super) struct TimedName {
    pub(super) directory: Ino,
    pub(super) name: Bytes,
    /// The newest timestamp that counts.
    pub(super) until: Timestamp,
}

/// What a path shows at a timestamp.
#[derive(Debug, Clone)]
pub(super) struct PathState {
    pub(super) at: Timestamp,
    pub(super) node: NodeState,
}

/// What a path shows.
#[derive(Debug, Clone)]
pub(super) enum NodeState {
    /// A directory.
    Directory(Ino),
    /// Anything else.
    Other(Box<PastEntry>),
}

/// Reads paths of a namespace.
#[derive(Debug, Clone)]
pub(super) struct PathReader {
    pub(super) namespace: Namespace,
    /// The newest timestamp that is shown.
    pub(super) now: Timestamp,
    /// The timestamp that ages are counted from. A follower's newest timestamp is that of the writer's last change, which may be
    /// long ago.
    pub(super) clock: Timestamp,
}

impl PathReader {
    /// Reads `namespace` as it is now.
    pub(super) async fn new(namespace: &Namespace) -> Self {
        let now = namespace.now();
        namespace.history().settle(now).await;
        Self {
            clock: now.max(Timestamp(namespace.env().now())),
            namespace: namespace.clone(),
            now,
        }
    }

    pub(super) fn view(&self) -> PastView {
        self.namespace.history().view()
    }

    /// Returns the timestamp that a path's time means; `None` for a path without one.
    pub(super) async fn timestamp(&self, path: &TimedPath) -> Result<Option<Timestamp>, VerbError> {
        let Some(time) = &path.time else {
            return Ok(None);
        };
        match TimeName::parse(time.as_bytes()).and_then(|name| self.resolved(name)) {
            Some(at) => Ok(Some(at)),
            None => Err(VerbError::NoSuchTime {
                nearest: self.nearest(&path.names(), self.now).await?,
                path: path.to_string(),
            }),
        }
    }

    /// Returns the timestamp that a time means; `None` for one in the future or before 1970.
    pub(super) fn resolved(&self, name: TimeName) -> Option<Timestamp> {
        let (at, _) = name.resolve(self.clock)?;
        Some(at.min(self.now))
    }

    /// Returns the directory that a path shows at its time; `None` if it shows something else or nothing.
    pub(super) async fn directory(&self, path: &TimedPath) -> Result<Option<Ino>, VerbError> {
        let at = self.timestamp(path).await?;
        match self.node_at(&path.names(), at).await? {
            Some(NodeState::Directory(directory)) => Ok(Some(directory)),
            _ => Ok(None),
        }
    }

    /// Returns what a path shows at its time. A directory is shown at the newest time up to it at which it is exactly what it was.
    pub(super) async fn state(&self, path: &TimedPath) -> Result<PathState, VerbError> {
        let at = self.timestamp(path).await?;
        let names = path.names();
        let found = self.node_at(&names, at).await?;
        let (found, at) = match (found, at) {
            (Some(NodeState::Directory(directory)), Some(at)) => {
                let exact = self.exact_time(directory, at).await?;
                let found = match exact {
                    Some(exact) if exact == at => Some(NodeState::Directory(directory)),
                    Some(exact) => self.node_at(&names, Some(exact)).await?,
                    None => None,
                };
                (found, Some(exact.unwrap_or(at)))
            }
            other => other,
        };
        match (found, at) {
            (Some(node), _) => Ok(PathState {
                at: at.unwrap_or(self.now),
                node,
            }),
            (None, Some(at)) => Err(VerbError::NotThen {
                nearest: self.nearest(&names, at).await?,
                path: path.to_string(),
            }),
            (None, None) => Err(self.missing(path).await?),
        }
    }

    /// Returns the newest time that is not after `at` and at which a directory is shown exactly as it was.
    async fn exact_time(
        &self,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Option<Timestamp>, VerbError> {
        let exact = self.namespace.history().exact_time(directory, at).await;
        exact.map_err(VerbError::at(&"the directory of a path"))
    }

    /// Returns the directory entry that a path names, which may be removed; `None` for the root directory.
    pub(super) async fn timed_name(
        &self,
        path: &TimedPath,
    ) -> Result<Option<TimedName>, VerbError> {
        let at = self.timestamp(path).await?;
        let names = path.names();
        let Some((name, above)) = names.split_last() else {
            return Ok(None);
        };
        let directory = match at {
            Some(_) => match self.node_at(above, at).await? {
                Some(NodeState::Directory(directory)) => Some(directory),
                _ => None,
            },
            None => self.directory_or_removed(above).await?,
        };
        match (directory, at) {
            (Some(directory), _) => Ok(Some(TimedName {
                directory,
                name: name.clone(),
                until: at.unwrap_or(self.now),
            })),
            (None, Some(at)) => Err(VerbError::NotThen {
                nearest: self.nearest(&names, at).await?,
                path: path.to_string(),
            }),
            (None, None) => Err(self.missing(path).await?),
        }
    }

    /// Returns the error for a path that does not exist at its time.
    pub(super) async fn missing(&self, path: &TimedPath) -> Result<VerbError, VerbError> {
        if let Some(at) = self.timestamp(path).await? {
            return Ok(VerbError::NotThen {
                nearest: self.nearest(&path.names(), at).await?,
                path: path.to_string(),
            });
        }
        let nearest = self.nearest(&path.names(), self.now).await?;
        let (path, no_time) = (path.to_string(), path.no_time());
        Ok(match no_time {
            _ if nearest != NearestTimes::default() => VerbError::Removed { path, nearest },
            Some(text) => VerbError::NoTime { path, text },
            None => VerbError::Missing { path },
        })
    }

    /// Returns the path of a directory now, or the last one it had.
    pub(super) async fn directory_path(&self, directory: Ino) -> Result<PathText, VerbError> {
        let failed = VerbError::at(&"the directory of a former name");
        let (view, mut names, mut at) = (self.view(), Vec::new(), directory);
        while at != ROOT && names.len() < DEPTH_MAX {
            let Some(place) = view.where_now(at).await.map_err(&failed)? else {
                break;
            };
            names.push(place.name);
            at = place.parent;
        }
        names.reverse();
        Ok(PathText::of_names(&names))
    }

    /// Returns what the names lead to; without a timestamp now.
    pub(super) async fn node_at(
        &self,
        names: &[Bytes],
        at: Option<Timestamp>,
    ) -> Result<Option<NodeState>, VerbError> {
        let failed = VerbError::at(&PathText::of_names(names));
        let view = self.view();
        let (mut directory, mut depth) = (ROOT, 0);
        if let Some(at) = at {
            // What is a directory now may have been a file then: the directory above knows.
            let mut live = self.live_directories(&view, names).await?;
            loop {
                let Some(deepest) = live.pop() else {
                    return Ok(None);
                };
                let then = view.directory_at(deepest, at).await;
                if let Some(then) = then.map_err(&failed)? {
                    (directory, depth) = (then, live.len());
                    break;
                }
            }
        }
        let time = at.unwrap_or(self.now);
        while depth < names.len() {
            let entry = view.entry_at(directory, &names[depth], time).await;
            depth += 1;
            match entry.map_err(&failed)? {
                None => return Ok(None),
                Some(entry) if entry.kind == Kind::Directory => directory = entry.ino,
                Some(entry) if depth == names.len() => {
                    let is_kept = entry.kept != Retained::Nothing;
                    return Ok(is_kept.then(|| NodeState::Other(Box::new(entry))));
                }
                Some(_) => {
                    return Err(VerbError::NotDirectory {
                        path: PathText::of_names(&names[..depth]).to_string(),
                    });
                }
            }
        }
        Ok(Some(NodeState::Directory(directory)))
    }

    /// Returns the directories of a path that exist now, the root directory first.
    async fn live_directories(
        &self,
        view: &PastView,
        names: &[Bytes],
    ) -> Result<Vec<Ino>, VerbError> {
        let failed = VerbError::at(&PathText::of_names(names));
        let (mut directory, mut live) = (ROOT, vec![ROOT]);
        for name in names {
            let entry = view.entry_at(directory, name, self.now).await;
            match entry.map_err(&failed)? {
                Some(entry) if entry.kind == Kind::Directory => directory = entry.ino,
                _ => break,
            }
            live.push(directory);
        }
        Ok(live)
    }

    /// Returns the directory that the names lead to, on the way also through directories that were removed.
    pub(super) async fn directory_or_removed(
        &self,
        names: &[Bytes],
    ) -> Result<Option<Ino>, VerbError> {
        let failed = VerbError::at(&PathText::of_names(names));
        let view = self.view();
        let mut directory = ROOT;
        for name in names {
            let live = view.entry_at(directory, name, self.now).await;
            let entry = match live.map_err(&failed)? {
                Some(entry) => Some(entry),
                None => {
                    let removed = view.deleted_tree_at(directory, name).await;
                    removed.map_err(&failed)?.map(|removed| removed.entry)
                }
            };
            match entry {
                Some(entry) if entry.kind == Kind::Directory => directory = entry.ino,
                _ => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// Tells whether something has or had this path.
    pub(super) async fn is_known(&self, path: &TimedPath) -> Result<bool, VerbError> {
        let names = path.names();
        match self.node_at(&names, None).await {
            Ok(Some(_)) => Ok(true),
            Ok(None) | Err(VerbError::NotDirectory { .. }) => {
                let nearest = self.nearest(&names, self.now).await?;
                Ok(nearest != NearestTimes::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Returns when the states next to `at` of what the names lead to began.
    async fn nearest(&self, names: &[Bytes], at: Timestamp) -> Result<NearestTimes, VerbError> {
        let failed = VerbError::at(&PathText::of_names(names));
        let view = self.view();
        let mut began = match names.split_last() {
            None => view.changes(ROOT, usize::MAX).await.map_err(&failed)?,
            Some((name, above)) => match self.directory_or_removed(above).await? {
                None => Vec::new(),
                Some(directory) => {
                    let list = view.history(directory, name).await.map_err(&failed)?;
                    // Of the states before a rename, the path shows none.
                    let began = list.versions.iter().map(|state| state.version.timestamp);
                    began
                        .filter(|began| list.earlier_name(*began).is_none())
                        .collect()
                }
            },
        };
        began.retain(|time| *time <= self.now);
        Ok(NearestTimes {
            before: began.iter().filter(|time| **time <= at).max().copied(),
            after: began.iter().filter(|time| **time > at).min().copied(),
        })
    }
}
