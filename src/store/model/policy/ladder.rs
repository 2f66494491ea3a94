//! How `history-max` shortens a policy: step by step, the oldest grid times first, then `keep-within` down to an hour.

use crate::store::model::policy::grid::{DAY, HOUR};
use crate::store::model::policy::{HistoryMax, Policy, Term};

/// Smallest limit that a percentage means, bytes.
const PERCENT_MIN: u64 = 10 << 30;
/// From what a term without an end is shortened.
const LONGEST: u64 = 32 * 365 * DAY;
/// A term of more units than this gets shorter by an eighth, a shorter one by a unit.
const FINE: u64 = 64;

impl HistoryMax {
    /// Returns the largest size of the history in bytes, where `peak` is the largest live size of the last 30 days; `None`: no limit.
    pub(crate) fn limit(self, peak: u64) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => {
                let share = u128::from(peak) * u128::from(percent) / 100;
                let share = u64::try_from(share).unwrap_or(u64::MAX);
                Some(share.max(PERCENT_MIN))
            }
        }
    }
}

/// A rule of time whose term `history-max` shortens, and in which units.
struct Rung {
    term: fn(&mut Policy) -> &mut Term,
    unit: u64,
    /// The shortest term that is left; without one the rule keeps nothing in the end.
    floor: Option<u64>,
}

const RUNGS: [Rung; 6] = [
    Rung {
        term: |policy| &mut policy.yearly,
        unit: 365 * DAY,
        floor: None,
    },
    Rung {
        term: |policy| &mut policy.monthly,
        unit: 30 * DAY,
        floor: None,
    },
    Rung {
        term: |policy| &mut policy.weekly,
        unit: 7 * DAY,
        floor: None,
    },
    Rung {
        term: |policy| &mut policy.daily,
        unit: DAY,
        floor: None,
    },
    Rung {
        term: |policy| &mut policy.hourly,
        unit: 6 * HOUR,
        floor: None,
    },
    Rung {
        term: |policy| &mut policy.within,
        unit: HOUR,
        floor: Some(HOUR),
    },
];

impl Policy {
    /// Returns the policies that `history-max` goes through, this one first; each keeps less than the one before.
    pub(crate) fn ladder(&self) -> Vec<Self> {
        let mut steps = vec![self.clone()];
        let mut policy = self.clone();
        for rung in RUNGS {
            for term in shorter(*(rung.term)(&mut policy), &rung) {
                *(rung.term)(&mut policy) = term;
                steps.push(policy.clone());
            }
        }
        steps
    }

    /// Returns this policy with the terms of `cap` where those are shorter. `keep-last` and `keep-removed` stay.
    pub(crate) fn capped(&self, cap: Option<&Self>) -> Self {
        let mut policy = self.clone();
        if let Some(mut cap) = cap.filter(|_| self.history_max != HistoryMax::Off).cloned() {
            for rung in RUNGS {
                let term = (rung.term)(&mut policy);
                *term = (*term).min(*(rung.term)(&mut cap));
            }
        }
        policy
    }

    /// Returns what shortens `asked` to this policy: terms that are not shorter limit nothing, also not those of a later policy.
    pub(crate) fn cap_of(&self, asked: &Self) -> Self {
        let (mut cap, mut asked) = (self.clone(), asked.clone());
        for rung in RUNGS {
            let term = (rung.term)(&mut cap);
            if *term >= *(rung.term)(&mut asked) {
                *term = Term::Forever;
            }
        }
        cap
    }
}

/// Returns the terms that follow `term`, each shorter.
fn shorter(term: Term, rung: &Rung) -> Vec<Term> {
    let (mut at, mut terms) = match term {
        Term::Off => return Vec::new(),
        Term::For(term) => (term, Vec::new()),
        Term::Forever => (LONGEST, vec![Term::For(LONGEST)]),
    };
    let least = rung.floor.unwrap_or(rung.unit);
    loop {
        at = match at > FINE * rung.unit {
            true => at / 8 * 7,
            false => at.saturating_sub(1) / rung.unit * rung.unit,
        };
        if at < least {
            break;
        }
        terms.push(Term::For(at));
    }
    terms.extend(rung.floor.is_none().then_some(Term::Off));
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_keeps_less_and_the_oldest_grid_times_go_first() {
        let mut policy = Policy::default();
        policy.set("keep-yearly=forever").unwrap();
        let steps = policy.ladder();
        for pair in steps.windows(2) {
            assert!(pair[1].is_stricter_than(&pair[0]), "{pair:?}");
            assert!(!pair[0].is_stricter_than(&pair[1]), "{pair:?}");
            assert_eq!((pair[1].last, pair[1].removed), (3, Term::For(30 * DAY)));
        }
        let at = |holds: fn(&Policy) -> bool| steps.iter().position(holds).unwrap();
        let order = [
            at(|p| p.yearly == Term::Off),
            at(|p| p.weekly < Term::For(365 * DAY)),
            at(|p| p.weekly == Term::Off),
            at(|p| p.daily == Term::Off),
            at(|p| p.hourly == Term::Off),
            at(|p| p.within < Term::For(DAY)),
        ];
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(steps.last().unwrap().within, Term::For(HOUR));
        assert!(steps.len() < 400, "{}", steps.len());
    }

    #[test]
    fn a_short_policy_has_no_shorter_one() {
        let mut policy = Policy::default();
        for word in ["grid=off", "keep-within=30s"] {
            policy.set(word).unwrap();
        }
        assert_eq!(policy.ladder(), [policy.clone()]);
    }

    #[test]
    fn a_cap_shortens_terms_and_never_lengthens_one() {
        let (mut policy, steps) = (Policy::default(), Policy::default().ladder());
        policy.set("keep-within=2h").unwrap();
        let capped = policy.capped(Some(&steps[steps.len() - 30]));
        assert_eq!(capped.within, Term::For(2 * HOUR));
        assert_eq!(capped.weekly, Term::Off);
        policy.set("history-max=off").unwrap();
        assert_eq!(policy.capped(steps.last()), policy);
    }

    #[test]
    fn a_cap_limits_only_the_terms_that_it_shortened() {
        let mut short = Policy::default();
        for word in ["grid=off", "keep-within=5d"] {
            short.set(word).unwrap();
        }
        let shortened = short.ladder()[1].clone();
        let cap = shortened.cap_of(&short);
        assert_eq!(short.capped(Some(&cap)), shortened);
        let capped = Policy::default().capped(Some(&cap));
        assert_eq!(capped, Policy::default());
        let mut longer = Policy::default();
        longer.set("keep-within=9d").unwrap();
        let capped = longer.capped(Some(&cap));
        assert_eq!((capped.within, capped.weekly), (cap.within, longer.weekly));
    }

    #[test]
    fn a_percentage_means_ten_gibibytes_at_least() {
        assert_eq!(HistoryMax::Percent(100).limit(5), Some(10 << 30));
        assert_eq!(HistoryMax::Percent(50).limit(100 << 30), Some(50 << 30));
        assert_eq!(HistoryMax::Bytes(7).limit(100 << 30), Some(7));
        assert_eq!(HistoryMax::Off.limit(100 << 30), None);
    }
}
