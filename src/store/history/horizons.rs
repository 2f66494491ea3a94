//! Which times of the past are exact: at an exact time every version is kept that stood then.
//!
//! Retention (`store/retention/horizon.rs`) raises the horizons before it drops a version below them.

use crate::store::history::History;
use crate::store::history::label_reads::LocationMemo;
use crate::store::history::view::PastView;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::{Policy, Term, Tier};
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::retention_rows::{DirectoryPolicyRow, PolicySpan};
use crate::store::schema::tables::{HorizonTable, RowTable};

/// The oldest exact times of a namespace: of any time, and of the grid times of each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Horizons {
    within: Timestamp,
    tiers: [Timestamp; Tier::ALL.len()],
}

impl Horizons {
    /// Reads the horizons. A namespace from which nothing was dropped has none: every time is exact.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn read(rows: &Snapshot) -> Result<Self, StoreError> {
        let mut horizons = Self::default();
        let from = HorizonTable::all();
        let end = keys::after(&from);
        for (key, value) in rows.scan(from, end, Tier::ALL.len() + 1).await? {
            let at = HorizonTable::decode(&value)?;
            let place = match key.get(2).copied() {
                Some(0) => Some(&mut horizons.within),
                Some(tier) => horizons.tiers.get_mut(usize::from(tier) - 1),
                None => None,
            };
            *place.ok_or_else(|| StoreError::Corrupt("G I key: unknown tier".to_owned()))? = at;
        }
        Ok(horizons)
    }

    /// Returns the numbers of the tiers in the index, 0 for any time, with their horizons.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u8, Timestamp)> {
        let tiers = (1_u8..).zip(self.tiers);
        [(0, self.within)].into_iter().chain(tiers)
    }

    /// Returns the horizons after a run at `now` under a policy.
    pub(crate) fn raised(&self, policy: &Policy, now: Timestamp) -> Self {
        let raise = |old: Timestamp, term: Term, after: u64| {
            let term = match term {
                Term::Forever => return old,
                Term::Off => 0,
                Term::For(term) => term,
            };
            old.max(Timestamp(now.0.saturating_sub(term).saturating_add(after)))
        };
        let mut raised = *self;
        // A version that ended at this time did not stand at it any more, but a grid time at it has been kept long enough.
        raised.within = raise(self.within, policy.within, 0);
        for (horizon, tier) in raised.tiers.iter_mut().zip(Tier::ALL) {
            *horizon = raise(*horizon, policy.tier(tier), 1);
        }
        raised
    }

    /// Returns how far the policies of a directory have cut off times.
    pub(crate) fn of_directory(row: &DirectoryPolicyRow) -> Self {
        Self {
            within: row.within,
            tiers: row.tiers,
        }
    }

    /// Returns the horizons that are at least as high as these and as others.
    pub(crate) fn raised_to(&self, other: &Self) -> Self {
        let mut raised = *self;
        raised.within = raised.within.max(other.within);
        for (horizon, other) in raised.tiers.iter_mut().zip(other.tiers) {
            *horizon = other.max(*horizon);
        }
        raised
    }

    /// Returns these horizons, none of them after `until`.
    pub(crate) fn up_to(&self, until: Timestamp) -> Self {
        Self {
            within: self.within.min(until),
            tiers: self.tiers.map(|tier| tier.min(until)),
        }
    }

    /// Returns the horizons of a directory after a run at `now`, where it had a policy for a time.
    pub(crate) fn raised_by_span(
        &self,
        namespace: &Policy,
        span: &PolicySpan,
        now: Timestamp,
    ) -> Self {
        let policy = namespace.limited_by(&span.policy);
        let mut raised = Self::default().raised(&policy, now);
        // No version that ended under the policy is older yet than it keeps every version.
        if raised.within < span.from {
            raised.within = Timestamp(0);
        }
        // The versions of later times ended after it.
        if let Some(until) = span.until {
            raised.within = raised.within.min(until);
            raised
                .tiers
                .iter_mut()
                .for_each(|horizon| *horizon = until.min(*horizon));
        }
        self.raised_to(&raised)
    }

    /// Returns the time before which none is exact.
    pub(crate) fn first(&self) -> Timestamp {
        self.tiers.into_iter().fold(self.within, Timestamp::min)
    }

    /// Returns the horizons as the row of a directory has them.
    pub(crate) fn into_row(self, spans: Vec<PolicySpan>) -> DirectoryPolicyRow {
        DirectoryPolicyRow {
            spans,
            within: self.within,
            tiers: self.tiers,
        }
    }

    /// Returns the oldest exact time of a tier; with `None`, that from which on every time is exact.
    pub fn oldest(&self, tier: Option<Tier>) -> Timestamp {
        let found = tier.and_then(|tier| {
            let mut all = Tier::ALL.into_iter().zip(self.tiers);
            all.find(|(known, _)| *known == tier)
        });
        found.map_or(self.within, |(_, at)| at)
    }

    /// Tells whether a time is exact.
    pub fn is_exact(&self, at: Timestamp) -> bool {
        let mut tiers = Tier::ALL.into_iter().zip(self.tiers);
        at >= self.within || tiers.any(|(tier, oldest)| at >= oldest && tier.is_grid_time(at))
    }

    /// Returns the newest exact time that is not after `at`; `None` if there is none.
    pub fn exact_before(&self, at: Timestamp) -> Option<Timestamp> {
        if at >= self.within {
            return Some(at);
        }
        let after = Timestamp(at.0.saturating_add(1));
        let tiers = Tier::ALL.into_iter().zip(self.tiers);
        tiers
            .filter_map(|(tier, oldest)| tier.last_before(after).filter(|grid| *grid >= oldest))
            .max()
    }
}

impl Horizons {
    /// Returns the oldest exact time that is not before `at`.
    pub fn exact_from(&self, at: Timestamp) -> Timestamp {
        if self.is_exact(at) {
            return at;
        }
        let tiers = Tier::ALL.into_iter().zip(self.tiers);
        let grid = tiers.map(|(tier, oldest)| tier.first_from(at.max(oldest)));
        grid.min().map_or(self.within, |grid| grid.min(self.within))
    }
}

impl History {
    /// Returns the newest time that is not after `at` and at which a directory is shown exactly as it was: an exact time, or that of a
    /// label that shows the directory. `None` if there is none.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn exact_time(
        &self,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let view = self.view();
        let horizons = view.directory_horizons(directory).await?;
        let exact = horizons.exact_before(at);
        if exact == Some(at) {
            return Ok(exact);
        }
        let first = exact.unwrap_or(Timestamp(0));
        let span = first..Timestamp(at.0.saturating_add(1));
        let mut memo = LocationMemo::default();
        let mut labels = self.labels_between(span, usize::MAX).await?;
        // What a restore goes back to is kept for it as it is now, and may not be whole.
        let restored = self.restore_lock.pinned();
        labels.retain(|label| Some(label) != restored.as_ref());
        for label in labels.iter().rev() {
            if view.label_shows(label, directory, &mut memo).await? {
                return Ok(Some(label.timestamp));
            }
        }
        Ok(exact)
    }
}

impl PastView {
    /// Returns which times of the past are exact.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn horizons(&self) -> Result<Horizons, StoreError> {
        Horizons::read(&self.rows).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::policy::{DAY, HOUR};

    /// 2026-11-23 00:00 UTC, a Monday.
    const MONDAY: u64 = 1_795_392_000_000_000_000;

    #[test]
    fn exact_are_the_last_day_and_the_grid_times_above_their_horizons() {
        let horizons = Horizons::default();
        assert!(horizons.is_exact(Timestamp(5)), "nothing was dropped");
        let horizons = horizons.raised(&Policy::default(), Timestamp(MONDAY));
        let exact = |at: u64| horizons.is_exact(Timestamp(at));
        assert!(exact(MONDAY - DAY) && !exact(MONDAY - DAY - 2));
        assert!(exact(MONDAY - 2 * DAY + 5 * HOUR - 1));
        assert!(!exact(MONDAY - 2 * DAY + 5 * HOUR));
        assert!(!exact(MONDAY - 20 * DAY + 5 * HOUR - 1) && exact(MONDAY - 20 * DAY - 1));
        assert!(!exact(MONDAY - 100 * DAY - 1) && exact(MONDAY - 105 * DAY - 1));
        assert!(!exact(MONDAY - 371 * DAY - 1));
        let before = |at: u64| horizons.exact_before(Timestamp(at)).map(|at| at.0);
        assert_eq!(before(MONDAY - 5), Some(MONDAY - 5));
        assert_eq!(
            before(MONDAY - 2 * DAY + 5 * HOUR),
            Some(MONDAY - 2 * DAY + 5 * HOUR - 1)
        );
        assert_eq!(before(MONDAY - 100 * DAY), Some(MONDAY - 105 * DAY - 1));
        assert_eq!(before(MONDAY - 400 * DAY), None);
    }

    #[test]
    fn the_next_exact_time_is_a_grid_time_or_the_first_of_the_last_day() {
        let horizons = Horizons::default().raised(&Policy::default(), Timestamp(MONDAY));
        let from = |at: u64| horizons.exact_from(Timestamp(at)).0;
        assert_eq!(from(MONDAY - 5), MONDAY - 5);
        let hour = MONDAY - 2 * DAY + 5 * HOUR;
        assert_eq!(from(hour - 1), hour - 1);
        assert_eq!(from(hour), hour + HOUR - 1);
        assert_eq!(from(MONDAY - DAY - 2), MONDAY - DAY - 1);
        assert_eq!(from(MONDAY - 20 * DAY), MONDAY - 19 * DAY - 1);
        assert_eq!(from(MONDAY - 100 * DAY), MONDAY - 98 * DAY - 1);
        assert_eq!(from(MONDAY - 800 * DAY), MONDAY - 364 * DAY - 1);
        let mut none = Policy::default();
        none.set("grid=off").unwrap();
        let horizons = Horizons::default().raised(&none, Timestamp(MONDAY));
        assert_eq!(horizons.exact_from(Timestamp(7)).0, MONDAY - DAY);
        for tier in Tier::ALL {
            for number in 0..5_000 {
                let at = Timestamp(MONDAY - number * (DAY + 7 * HOUR + 13));
                let next = tier.first_from(at);
                assert!(next >= at && tier.is_grid_time(next), "{tier} {at:?}");
                let before = tier.last_before(at);
                assert!(
                    before.is_none_or(|before| tier.first_from(Timestamp(before.0 + 1)) == next)
                );
            }
        }
    }

    #[test]
    fn a_longer_policy_lowers_no_horizon() {
        let now = Timestamp(MONDAY);
        let horizons = Horizons::default().raised(&Policy::default(), now);
        let mut longer = Policy::default();
        longer.set("keep-within=10d").unwrap();
        longer.set("keep-weekly=forever").unwrap();
        assert_eq!(horizons.raised(&longer, now), horizons);
        longer.set("keep-hourly=off").unwrap();
        let without = horizons.raised(&longer, now);
        assert_eq!(without.oldest(Some(Tier::Hourly)).0, now.0 + 1);
        assert_eq!(without.oldest(None), horizons.oldest(None));
    }
}
