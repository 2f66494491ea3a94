//! The retention policy of a namespace: which versions that have ended are kept, and until when.
//!
//! The policy is a set of words (`keep-within = 1d`). This module knows the rules that depend on time only: how long ago a version
//! ended, and whether it is the one that a grid time shows. Rules that depend on other versions of the name, labels and holds are
//! the retention floor's.
//!
//! Invariant: a version is kept at `now` by a rule of time exactly if `now` is before [`Policy::due`].

mod directory;
mod grid;
mod ladder;
mod words;

use serde::{Deserialize, Serialize};

use crate::store::model::version::Timestamp;

pub use grid::Tier;
pub(crate) use grid::{DAY, HOUR};
pub use words::PolicyError;

/// How long a rule keeps a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Term {
    /// The rule keeps nothing.
    Off,
    /// For this many nanoseconds.
    For(u64),
    /// For ever.
    Forever,
}

impl Term {
    /// Returns until when the rule keeps a version that it counts from `from`; `None` if it does not keep it.
    fn from(self, from: Timestamp) -> Option<Due> {
        match self {
            Self::Off => None,
            Self::For(term) => Some(Due::At(Timestamp(from.0.saturating_add(term)))),
            Self::Forever => Some(Due::Never),
        }
    }
}

/// The largest size of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HistoryMax {
    /// No limit.
    Off,
    /// Bytes.
    Bytes(u64),
    /// Percent of the largest live size of the last 30 days, and at least 10 GiB.
    Percent(u32),
}

impl HistoryMax {
    /// Tells whether less history may be kept than under `old`. A size and a percentage cannot be compared: each is stricter.
    fn is_stricter_than(self, old: Self) -> bool {
        match (self, old) {
            (Self::Off, _) => false,
            (Self::Bytes(new), Self::Bytes(old)) => new < old,
            (Self::Percent(new), Self::Percent(old)) => new < old,
            (_, Self::Off)
            | (Self::Bytes(_), Self::Percent(_))
            | (Self::Percent(_), Self::Bytes(_)) => true,
        }
    }
}

/// Until when a version is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Up to and without this timestamp.
    At(Timestamp),
    /// For ever.
    Never,
}

/// A rule of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeRule {
    /// Every version, counted from its end.
    Within,
    /// The version that the last grid time of a tier shows, counted from that grid time.
    Grid(Tier),
    /// A version that the recovery or an import made, counted from then.
    Arrived,
}

/// What the rules of time look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionSpan {
    /// When the version began.
    pub start: Timestamp,
    /// When it ended, before it was extended over later versions that are gone.
    pub end: Timestamp,
    /// For a conflict its end, for an import the time of the import: it is kept from then as a removed name's last state is.
    pub arrived: Option<Timestamp>,
}

/// The words of a retention policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `keep-within`: every version, for this long after its end.
    pub within: Term,
    /// `keep-hourly`: the versions that the ends of hours show.
    pub hourly: Term,
    /// `keep-daily`: the versions that the ends of days show.
    pub daily: Term,
    /// `keep-weekly`: the versions that the ends of weeks show.
    pub weekly: Term,
    /// `keep-monthly`: the versions that the ends of months show.
    pub monthly: Term,
    /// `keep-yearly`: the versions that the ends of years show.
    pub yearly: Term,
    /// `keep-last`: the number of ended versions of a name that exists which are kept whatever their age.
    pub last: u32,
    /// `keep-removed`: the last state of a removed name.
    pub removed: Term,
    /// `history-max`: the size above which older history is dropped ahead of time.
    pub history_max: HistoryMax,
}

impl Default for Policy {
    /// The policy of a new namespace.
    fn default() -> Self {
        Self {
            within: Term::For(DAY),
            hourly: Term::For(14 * DAY),
            daily: Term::For(90 * DAY),
            weekly: Term::For(365 * DAY),
            monthly: Term::Off,
            yearly: Term::Off,
            last: 3,
            removed: Term::For(30 * DAY),
            history_max: HistoryMax::Percent(100),
        }
    }
}

impl Policy {
    /// Returns how long a tier of the grid is kept.
    pub fn tier(&self, tier: Tier) -> Term {
        match tier {
            Tier::Hourly => self.hourly,
            Tier::Daily => self.daily,
            Tier::Weekly => self.weekly,
            Tier::Monthly => self.monthly,
            Tier::Yearly => self.yearly,
        }
    }

    /// Returns the rules of time that keep or kept a version, and until when each does.
    pub fn rules(&self, span: VersionSpan) -> Vec<(TimeRule, Due)> {
        let within = self
            .within
            .from(span.end)
            .map(|due| (TimeRule::Within, due));
        let grid = Tier::ALL.into_iter().filter_map(|tier| {
            let shown = tier.last_before(span.end)?;
            let due = self
                .tier(tier)
                .from(shown)
                .filter(|_| span.start <= shown)?;
            Some((TimeRule::Grid(tier), due))
        });
        let arrived = span.arrived.and_then(|arrived| self.removed.from(arrived));
        let arrived = arrived.map(|due| (TimeRule::Arrived, due));
        within.into_iter().chain(grid).chain(arrived).collect()
    }

    /// Tells whether a version may be kept for a shorter time than under `old`.
    pub fn is_stricter_than(&self, old: &Self) -> bool {
        let terms = |policy: &Self| {
            [
                policy.within,
                policy.hourly,
                policy.daily,
                policy.weekly,
                policy.monthly,
                policy.yearly,
                policy.removed,
            ]
        };
        let is_shorter = terms(self)
            .into_iter()
            .zip(terms(old))
            .any(|(new, old)| new < old);
        is_shorter || self.last < old.last || self.history_max.is_stricter_than(old.history_max)
    }

    /// Returns until when the longest rule of time, or `keep-removed`, may keep a version that ended at `end`; `None` if none keeps any.
    pub(crate) fn longest_until(&self, end: Timestamp) -> Option<Due> {
        let tiers = Tier::ALL.into_iter().map(|tier| self.tier(tier));
        let longest = tiers.fold(self.within, Term::max);
        longest.max(self.removed).from(end)
    }

    /// Returns until when `keep-removed` keeps the last version of a name that was removed at `removed`; `None` if it does not.
    pub(crate) fn removed_until(&self, removed: Timestamp) -> Option<Timestamp> {
        Some(match self.removed.from(removed)? {
            Due::At(until) => until,
            Due::Never => Timestamp(u64::MAX),
        })
    }

    /// Returns until when the rules of time keep a version. A version that no rule keeps is due when it ends.
    pub fn due(&self, span: VersionSpan) -> Due {
        let rules = self.rules(span).into_iter().map(|(_, due)| due);
        rules.max().unwrap_or(Due::At(span.end))
    }
}

#[cfg(test)]
mod tests;
