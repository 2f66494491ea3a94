//! What every node of the past reads with: the namespace, and how long the kernel may keep what was read.

use super::attributes;
use super::dependents::Dependents;
use super::dir_at::{DirAt, Sight};
use super::resolved_times::ResolvedTimes;
use super::shown::ShownAttrs;
use crate::fs::acl::ACCESS;
use crate::fs::config::FsConfig;
use crate::fs::error::{FsError, FsResult};
use crate::store::{
    DirectoryHorizons, Horizons, Ino, Namespace, PastEntry, PastView, Stat, Timestamp, Wholeness,
};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use bytes::Bytes;
use std::time::Duration;

/// How old the knowledge of which times are exact may be, nanoseconds.
const HORIZONS_AGE: u64 = 1_000_000_000;

/// Whether the kernel may keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// The answer never changes: the kernel may keep it.
    Final,
    /// The answer changes when versions are deleted: the kernel may keep it as long as one about the live tree.
    Kept,
    /// The answer may change at any time: the kernel asks again.
    Passing,
}

impl Lasting {
    /// Returns that of an answer that is final or not.
    pub(super) fn of(is_final: bool) -> Self {
        match is_final {
            true => Self::Final,
            false => Self::Passing,
        }
    }
}

/// The namespace as the nodes of the past read it.
pub(crate) struct PastReader {
    /// The namespace.
    pub(super) namespace: Namespace,
    /// The name that leads to the past.
    pub(super) versions_name: Bytes,
    /// The text of `@help`.
    pub(super) help: Bytes,
    /// The timestamps that relative times (`-1m`) mean to the processes that use them.
    pub(super) times: ResolvedTimes,
    /// How long the kernel may keep what is final.
    pub(super) ttl: Duration,
    /// How long the kernel may keep attributes of the live tree.
    pub(super) live_ttl: Duration,
    dependents: Arc<Dependents>,
    /// Whether another process writes the live tree.
    follows: bool,
    /// History below this timestamp, in nanoseconds, is known to be final, and stays final.
    final_below: AtomicU64,
    /// Which times are exact, as they were last read, and when that was.
    horizons: Mutex<Option<ReadHorizons>>,
}

/// The horizons of all directories, and when they were read, nanoseconds.
#[derive(Debug, Clone, Copy)]
struct ReadHorizons {
    at: u64,
    /// `None` if directories differ.
    common: Option<Horizons>,
}

impl PastReader {
    /// Reads `namespace` as `config` says; `help` is the text of `@help`.
    pub(super) fn new(
        namespace: Namespace,
        config: &FsConfig,
        help: Bytes,
        dependents: Arc<Dependents>,
    ) -> Self {
        Self {
            versions_name: Bytes::copy_from_slice(&config.versions_name),
            help,
            times: ResolvedTimes::new(namespace.env()),
            namespace,
            // Another process may delete a version, which gives its names another meaning.
            ttl: match config.read_only {
                true => config.past_ttl.min(config.live_ttl),
                false => config.past_ttl,
            },
            live_ttl: config.live_ttl,
            dependents,
            follows: config.read_only,
            final_below: AtomicU64::new(0),
            horizons: Mutex::default(),
        }
    }

    /// How long the kernel may keep attributes that change with the live tree: as long as those of the live tree if the kernel is
    /// told of changes, else not at all.
    pub(super) fn changing_ttl(&self) -> Duration {
        match self.follows || self.dependents.are_told() {
            true => self.live_ttl,
            false => Duration::ZERO,
        }
    }

    /// How long the kernel may keep a name.
    pub(super) fn ttl_of(&self, lasting: Lasting) -> Duration {
        match lasting {
            Lasting::Final => self.ttl,
            Lasting::Kept => self.live_ttl.min(self.ttl),
            Lasting::Passing => Duration::ZERO,
        }
    }

    /// Whether what is read of `at` from now on stays so. Callers ask before they read: a timestamp that becomes final during the
    /// read may have changes that the read missed.
    pub(super) fn lasting_at(&self, at: Timestamp) -> Lasting {
        Lasting::of(self.is_final(at))
    }

    /// Whether nothing at or before `at` can change any more. The answer is remembered, because the low watermark only rises.
    pub(super) fn is_final(&self, at: Timestamp) -> bool {
        if at.0 < self.final_below.load(Ordering::SeqCst) {
            return true;
        }
        let is_final = self.namespace.history().is_final(at);
        if is_final {
            self.final_below.fetch_max(at.0 + 1, Ordering::SeqCst);
        }
        is_final
    }

    /// As [`Self::lasting_at`], of a directory as of a timestamp: what is left of a thinned time may change at any time.
    pub(super) fn lasting_of(&self, then: DirAt) -> Lasting {
        match then.sight {
            Sight::Exact => self.lasting_at(then.at),
            Sight::Kept | Sight::Removed | Sight::CutOff => Lasting::Passing,
        }
    }

    /// Which times of a directory are exact. In the writer the answer is up to a second old; retention raises the horizons seconds
    /// before it drops anything.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn horizons(&self, dir: Ino) -> FsResult<DirectoryHorizons> {
        let view = self.namespace.history().view();
        match self.common_horizons(&view).await? {
            Some(common) => Ok(common.into()),
            None => {
                let horizons = view.directory_horizons(dir).await;
                horizons.map_err(|error| FsError::from(error).by_number())
            }
        }
    }

    /// The horizons of all directories; `None` if they differ.
    async fn common_horizons(&self, view: &PastView) -> FsResult<Option<Horizons>> {
        let now = self.namespace.env().now();
        let known = *lock(&self.horizons);
        let is_fresh = |known: &ReadHorizons| now.abs_diff(known.at) < HORIZONS_AGE;
        // A follower may see that a horizon was raised and what was dropped at once.
        if let Some(known) = known.filter(|known| !self.follows && is_fresh(known)) {
            return Ok(known.common);
        }
        let common = view.common_horizons().await;
        let common = common.map_err(|error| FsError::from(error).by_number())?;
        *lock(&self.horizons) = Some(ReadHorizons { at: now, common });
        Ok(common)
    }

    /// What a directory shows as of a timestamp.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn sight(&self, dir: Ino, at: Timestamp) -> FsResult<Sight> {
        let sight = match self.horizons(dir).await?.wholeness(at) {
            Wholeness::Exact => return Ok(Sight::Exact),
            Wholeness::Thinned => Sight::Kept,
            Wholeness::CutOff => Sight::CutOff,
        };
        let exact = self.namespace.history().exact_time(dir, at).await?;
        Ok(match exact == Some(at) {
            true => Sight::Exact,
            false => sight,
        })
    }

    /// What a directory shows that was in one as of a timestamp: less, if it or one above it had a policy of its own.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn sight_below(&self, above: DirAt, dir: Ino) -> FsResult<Sight> {
        let view = self.namespace.history().view();
        if above.sight == Sight::Removed || self.common_horizons(&view).await?.is_some() {
            return Ok(above.sight);
        }
        self.sight(dir, above.at).await
    }

    /// Fails if a directory that showed what was there shows only what is left of it now.
    ///
    /// # Errors
    /// `Stale`; those of the store.
    pub(super) async fn check_sight(&self, then: DirAt) -> FsResult<()> {
        match then.sight {
            Sight::Exact if self.sight(then.dir, then.at).await? != Sight::Exact => {
                Err(FsError::Stale)
            }
            Sight::Exact | Sight::Kept | Sight::Removed => Ok(()),
            Sight::CutOff => Err(FsError::NotFound),
        }
    }

    /// Whether a timestamp is before all that is kept of a directory.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn is_before_all(&self, dir: Ino, at: Timestamp) -> FsResult<bool> {
        let history = self.namespace.history();
        if history.exact_time(dir, at).await?.is_some() {
            return Ok(false);
        }
        Ok(history.view().list_at(dir, at).await?.is_empty())
    }

    /// Waits until everything up to now is in the history.
    pub(super) async fn settle_now(&self) {
        self.namespace.history().settle(self.namespace.now()).await;
    }

    /// The attributes of a live directory.
    ///
    /// # Errors
    /// `Stale` when the directory was removed.
    pub(super) async fn live_dir(&self, dir: Ino) -> FsResult<Stat> {
        let stat = self.namespace.tree().stat(dir).await;
        stat.map_err(|error| FsError::from(error).by_number())
    }

    /// The attributes of a directory of the past that has those of a live one.
    ///
    /// # Errors
    /// `Stale` when the live directory was removed.
    pub(super) async fn mirrored(&self, dir: Ino) -> FsResult<ShownAttrs> {
        let stat = self.live_dir(dir).await?;
        Ok(ShownAttrs::mirror(&stat, self.changing_ttl()))
    }

    /// The access list of a live directory, which guards what the past shows of it; `None` for every other attribute.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn access_list(&self, dir: Ino, name: &[u8]) -> FsResult<Option<Bytes>> {
        match name == ACCESS {
            true => Ok(self.namespace.tree().get_xattr(dir, name).await?),
            false => Ok(None),
        }
    }

    /// The value of an extended attribute of a version: one that tells about the version, or one that was set on it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn attribute(
        &self,
        entry: &PastEntry,
        name: &[u8],
    ) -> FsResult<Option<Bytes>> {
        if attributes::is_ours(name) {
            return attributes::value(&self.namespace, entry, name).await;
        }
        let mut set = entry.xattrs.iter();
        let found = set.find(|(other, _)| other.as_ref() == name);
        Ok(found.map(|(_, value)| value.clone()))
    }
}
