//! What the words of a policy keep, said anew for the tests, by walking over the grid.

use crate::store::{Policy, Term};

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const HOUR: u64 = 3600 * SECOND;
pub(super) const DAY: u64 = 24 * HOUR;

/// The lengths of an hour, a day and a week, and when the first one that is counted began.
pub(super) const GRID: [(u64, u64); 3] = [(HOUR, 0), (DAY, 0), (7 * DAY, 4 * DAY)];

/// The words of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) within: u64,
    pub(super) hourly: u64,
    pub(super) daily: u64,
    pub(super) weekly: u64,
    pub(super) last: usize,
    pub(super) removed: u64,
    /// The largest history in bytes; `None`: as the default policy has it, which no test reaches.
    pub(super) max: Option<u64>,
}

/// The default policy of history.md.
pub(super) const DEFAULT: Words = Words {
    within: DAY,
    hourly: 14 * DAY,
    daily: 90 * DAY,
    weekly: 365 * DAY,
    last: 3,
    removed: 30 * DAY,
    max: None,
};

/// The words of a directory that says nothing.
pub(super) const UNLIMITED: Words = Words {
    within: u64::MAX,
    hourly: u64::MAX,
    daily: u64::MAX,
    weekly: u64::MAX,
    last: usize::MAX,
    removed: u64::MAX,
    max: None,
};

impl Words {
    /// The policy of a directory that these words give.
    pub(super) fn of_directory(&self) -> Policy {
        let Self {
            within,
            hourly,
            daily,
            weekly,
            last,
            removed,
            ..
        } = *self;
        let terms = [
            ("keep-within", within),
            ("keep-hourly", hourly),
            ("keep-daily", daily),
            ("keep-weekly", weekly),
            ("keep-removed", removed),
        ];
        let said = terms.iter().filter(|(_, term)| *term != u64::MAX);
        let mut said: Vec<_> = said.map(|(word, term)| word_of(word, *term)).collect();
        said.extend((last != usize::MAX).then(|| format!("keep-last={last}")));
        Policy::of_directory(&said.join(" ")).unwrap()
    }

    /// The words that keep only what both keep.
    pub(super) fn limited_by(&self, other: &Self) -> Self {
        Self {
            within: self.within.min(other.within),
            hourly: self.hourly.min(other.hourly),
            daily: self.daily.min(other.daily),
            weekly: self.weekly.min(other.weekly),
            last: self.last.min(other.last),
            removed: self.removed.min(other.removed),
            max: self.max,
        }
    }

    /// The longest time for which a rule of time, or `keep-removed`, can keep a version after its end.
    pub(super) fn longest(&self) -> u64 {
        let terms = [self.within, self.hourly, self.daily, self.weekly];
        terms.into_iter().chain([self.removed]).max().unwrap_or(0)
    }

    /// The policy that these words give.
    pub(super) fn policy(&self) -> Policy {
        let mut words = vec![
            word_of("keep-within", self.within),
            word_of("keep-hourly", self.hourly),
            word_of("keep-daily", self.daily),
            word_of("keep-weekly", self.weekly),
            format!("keep-last={}", self.last),
            word_of("keep-removed", self.removed),
        ];
        words.extend(self.max.map(|max| format!("history-max={max}")));
        let mut policy = Policy::default();
        for word in words {
            policy.set(&word).unwrap();
        }
        policy
    }

    /// Whether something is kept by `old` and not by these words.
    pub(super) fn are_stricter_than(&self, old: &Self) -> bool {
        let terms = |words: &Self| {
            let Self {
                within,
                hourly,
                daily,
                weekly,
                removed,
                last,
                ..
            } = *words;
            [within, hourly, daily, weekly, removed, last as u64]
        };
        let is_shorter = terms(self)
            .into_iter()
            .zip(terms(old))
            .any(|(new, old)| new < old);
        let has_less = match (self.max, old.max) {
            (Some(new), Some(old)) => new < old,
            // A part of the live size and a number of bytes cannot be compared.
            (new, old) => new != old,
        };
        is_shorter || has_less
    }

    /// The words that are in force while `history-max` shortens the policy to `cap`.
    pub(super) fn capped(&self, cap: &Policy) -> Self {
        let shorter = |term: u64, cap: Term| match cap {
            Term::Off => 0,
            Term::For(cap) => term.min(cap),
            Term::Forever => term,
        };
        Self {
            within: shorter(self.within, cap.within),
            hourly: shorter(self.hourly, cap.hourly),
            daily: shorter(self.daily, cap.daily),
            weekly: shorter(self.weekly, cap.weekly),
            ..*self
        }
    }

    /// Whether `history-max` may shorten these words to `capped`: the oldest grid times first, then all others.
    pub(super) fn may_become(&self, capped: &Self) -> bool {
        let order = [
            (self.weekly, capped.weekly),
            (self.daily, capped.daily),
            (self.hourly, capped.hourly),
            (self.within, capped.within),
        ];
        let is_in_order = |pair: &[(u64, u64)]| pair[1].1 == pair[1].0 || pair[0].1 == 0;
        order.windows(2).all(is_in_order) && capped.within >= self.within.min(HOUR)
    }

    /// Whether a rule of time keeps a version, by a walk over the grid times that are young enough.
    pub(super) fn keep_by_time(&self, start: u64, end: u64, now: u64) -> bool {
        let terms = [self.hourly, self.daily, self.weekly];
        let on_grid = |((period, first), term): ((u64, u64), u64)| {
            // The oldest grid time that is neither before the version nor much too old.
            let from = start.max(now - term.min(now));
            let mut grid = first + (from - first) / period * period + period - 1;
            while grid < end {
                if grid + term > now {
                    return true;
                }
                grid += period;
            }
            false
        };
        end + self.within > now || GRID.into_iter().zip(terms).any(on_grid)
    }
}

/// A word of a policy with its time.
fn word_of(word: &str, term: u64) -> String {
    match term {
        0 => format!("{word}=off"),
        _ => format!("{word}={}s", term / SECOND),
    }
}
