//! Which times of one directory are exact: those of the namespace, less those that policies of directories have cut off.
//!
//! A directory's versions that ended while it was below a directory with a policy are kept by both policies. A time before that end is
//! exact in it only if it is by the horizons of both.

use crate::store::history::History;
use crate::store::history::directories_above::Removed;
use crate::store::history::horizons::Horizons;
use crate::store::history::view::PastView;
use crate::store::index::directory_policies::DirectoryPolicies;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Timestamp};

/// What the policies of one directory have cut off from the times of another one, which was below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CutOff {
    /// Times from then on are not concerned: the directory was elsewhere, or the policy had ended.
    until: Timestamp,
    horizons: Horizons,
}

/// Which times of a directory are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryHorizons {
    namespace: Horizons,
    cut_off: Vec<CutOff>,
}

/// How far back a directory reaches that has, or had, a policy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryReach {
    /// The directory.
    pub directory: Ino,
    /// Since when every time is exact; zero: since ever.
    pub whole: Timestamp,
    /// Since when, up to `whole`, each name shows its newest kept state; `None`: at no time, because of the directory's policy.
    pub thinned: Option<Timestamp>,
    /// Before when nothing is there, labels apart; zero: there is no such time. Between it and what is thinned or whole only grid times are.
    pub cut_off: Timestamp,
}

/// What a directory shows as of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wholeness {
    /// Every version that stood then.
    Exact,
    /// Of each name the newest kept state that is not newer.
    Thinned,
    /// Nothing: the policy of a directory does not keep what stood then.
    CutOff,
}

impl DirectoryHorizons {
    /// Tells what the directory shows as of a time, labels apart.
    pub fn wholeness(&self, at: Timestamp) -> Wholeness {
        if self.all(at).is_exact(at) {
            return Wholeness::Exact;
        }
        match self.own(at).is_exact(at) && !self.namespace.is_exact(at) {
            true => Wholeness::Thinned,
            false => Wholeness::CutOff,
        }
    }

    /// Returns the newest exact time that is not after `at`; `None` if there is none.
    pub fn exact_before(&self, at: Timestamp) -> Option<Timestamp> {
        let mut at = at;
        loop {
            let exact = self.all(at).exact_before(at)?;
            // An earlier time may be before the end of one more policy.
            if exact == at || self.wholeness(exact) == Wholeness::Exact {
                return Some(exact);
            }
            at = exact;
        }
    }

    /// Returns the oldest exact time that is not before `at`.
    pub fn exact_from(&self, at: Timestamp) -> Timestamp {
        let ends = self.cut_off.iter().map(|cut_off| cut_off.until);
        let ends = ends.filter(|until| *until > at && until.0 < u64::MAX);
        let from = ends.chain([at]).map(|from| self.all(from).exact_from(from));
        from.min().unwrap_or(at)
    }

    /// The horizons for times up to `at`.
    fn all(&self, at: Timestamp) -> Horizons {
        self.namespace.raised_to(&self.own(at))
    }

    /// Returns how far back the directory reaches.
    fn reach(&self, directory: Ino) -> DirectoryReach {
        let limited = self.cut_off.iter();
        let limited = limited.map(|cut_off| cut_off.horizons.up_to(cut_off.until));
        let own = limited.fold(Horizons::default(), |all, own| all.raised_to(&own));
        let within = |horizons: &Horizons| horizons.oldest(None);
        DirectoryReach {
            directory,
            whole: within(&self.namespace.raised_to(&own)),
            thinned: (within(&own) < within(&self.namespace)).then(|| within(&own)),
            cut_off: own.first(),
        }
    }

    /// The same, of the policies of directories only.
    fn own(&self, at: Timestamp) -> Horizons {
        let own = self.cut_off.iter().filter(|cut_off| at < cut_off.until);
        own.fold(Horizons::default(), |all, own| all.raised_to(&own.horizons))
    }
}

impl From<Horizons> for DirectoryHorizons {
    /// Those of a directory that no policy of a directory concerns.
    fn from(namespace: Horizons) -> Self {
        Self {
            namespace,
            cut_off: Vec::new(),
        }
    }
}

impl History {
    /// Tells whether the policy of a directory does not keep what a directory showed at a time, and no label does.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn is_cut_off(&self, directory: Ino, at: Timestamp) -> Result<bool, StoreError> {
        let view = self.view();
        if view.common_horizons().await?.is_some() {
            return Ok(false);
        }
        let horizons = view.directory_horizons(directory).await?;
        Ok(horizons.wholeness(at) == Wholeness::CutOff
            && self.exact_time(directory, at).await? != Some(at))
    }
}

impl PastView {
    /// Returns the horizons that hold for every directory; `None` if a directory has or had a policy.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn common_horizons(&self) -> Result<Option<Horizons>, StoreError> {
        let horizons = self.horizons().await?;
        let policies = DirectoryPolicies::read(&self.rows).await?;
        Ok(policies.is_empty().then_some(horizons))
    }

    /// Returns how far back each directory reaches that has or had a policy of its own, in ascending order of directories.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn limited_directories(&self) -> Result<Vec<DirectoryReach>, StoreError> {
        let policies = DirectoryPolicies::read(&self.rows).await?;
        let mut reaches = Vec::new();
        for (directory, _) in policies.rows() {
            let horizons = self.directory_horizons(directory).await?;
            reaches.push(horizons.reach(directory));
        }
        Ok(reaches)
    }

    /// Returns which times of a directory are exact, labels apart.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn directory_horizons(
        &self,
        directory: Ino,
    ) -> Result<DirectoryHorizons, StoreError> {
        let mut found = DirectoryHorizons {
            // Read first: a policy's horizons that were raised together with it are seen as well.
            namespace: self.horizons().await?,
            cut_off: Vec::new(),
        };
        let policies = DirectoryPolicies::read(&self.rows).await?;
        if policies.is_empty() {
            return Ok(found);
        }
        let above = self.directories_above(directory, Removed::Nowhere);
        for above in above.await? {
            let row = policies.row(above.directory);
            for span in row.iter().flat_map(|row| &row.spans) {
                let until = span.until.unwrap_or(Timestamp(u64::MAX));
                if let Some(time) = above.during(&(span.from..until)) {
                    let horizons = row.map(Horizons::of_directory);
                    found.cut_off.push(CutOff {
                        until: time.end,
                        horizons: horizons.unwrap_or_default(),
                    });
                }
            }
        }
        Ok(found)
    }
}
