//! The rules of time against a model that walks through the grid, and the words as people write them.

use proptest::prelude::*;

use crate::store::model::policy::{
    DAY, Due, HOUR, HistoryMax, Policy, PolicyError, Term, Tier, VersionSpan,
};
use crate::store::model::version::Timestamp;

const SECOND: u64 = 1_000_000_000;
/// 2026-01-01, a Thursday, in days since 1970.
const NEW_YEAR: u64 = 20_454;

fn at(days: u64, ns: u64) -> Timestamp {
    Timestamp((NEW_YEAR + days) * DAY + ns)
}

fn span(start: Timestamp, end: Timestamp) -> VersionSpan {
    VersionSpan {
        start,
        end,
        arrived: None,
    }
}

/// The days of the first of each month and of each year from 1970 to 2037, counted from the calendar's own rule.
fn first_days() -> (Vec<u64>, Vec<u64>) {
    let (mut day, mut months, mut years) = (0, Vec::new(), Vec::new());
    for year in 1970..2038_u64 {
        years.push(day);
        let leap = u64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        for length in [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            months.push(day);
            day += length;
        }
    }
    (months, years)
}

/// Tells by the definition whether a timestamp is a grid time.
fn is_grid_time(tier: Tier, at: Timestamp) -> bool {
    let next = at.0 + 1;
    let (day, in_day) = (next / DAY, next % DAY);
    match tier {
        Tier::Hourly => next.is_multiple_of(HOUR),
        Tier::Daily => in_day == 0,
        // 1970-01-05 was a Monday.
        Tier::Weekly => in_day == 0 && day >= 4 && (day - 4).is_multiple_of(7),
        Tier::Monthly => in_day == 0 && first_days().0.contains(&day),
        Tier::Yearly => in_day == 0 && first_days().1.contains(&day),
    }
}

/// Tells from the words of the policy whether a rule of time keeps a version, by a walk over every hour's end.
fn is_kept(policy: &Policy, span: VersionSpan, now: Timestamp) -> bool {
    let less_than = |term: Term, from: Timestamp| match term {
        Term::Off => false,
        Term::For(term) => now.0 - from.0 < term,
        Term::Forever => true,
    };
    if less_than(policy.within, span.end) {
        return true;
    }
    if span
        .arrived
        .is_some_and(|from| less_than(policy.removed, from))
    {
        return true;
    }
    let mut grid = span.start.0 / HOUR * HOUR + HOUR - 1;
    while grid < span.end.0 {
        for tier in Tier::ALL {
            let shown = Timestamp(grid);
            if is_grid_time(tier, shown) && less_than(policy.tier(tier), shown) {
                return true;
            }
        }
        grid += HOUR;
    }
    false
}

#[test]
fn grid_times_are_the_last_nanoseconds_of_periods() {
    for (tier, end, last) in [
        // The end of an hour belongs to it; the next nanosecond ends a version that the grid time shows.
        (Tier::Hourly, at(0, HOUR), at(0, HOUR - 1)),
        (Tier::Hourly, at(0, HOUR - 1), Timestamp(at(0, 0).0 - 1)),
        (Tier::Daily, at(3, 5 * HOUR), Timestamp(at(3, 0).0 - 1)),
        // 2026-01-05 is a Monday.
        (Tier::Weekly, at(4, 0), Timestamp(at(4, 0).0 - 1)),
        (
            Tier::Weekly,
            Timestamp(at(4, 0).0 - 1),
            Timestamp(at(0, 0).0 - 3 * DAY - 1),
        ),
        (Tier::Monthly, at(40, 0), Timestamp(at(31, 0).0 - 1)),
        (Tier::Monthly, at(58, 23 * HOUR), Timestamp(at(31, 0).0 - 1)),
        (Tier::Monthly, at(59, 0), Timestamp(at(59, 0).0 - 1)),
        (Tier::Yearly, at(364, 0), Timestamp(at(0, 0).0 - 1)),
    ] {
        assert_eq!(tier.last_before(end), Some(last), "{tier} before {end:?}");
        assert!(is_grid_time(tier, last), "{tier} {last:?}");
    }
    for tier in Tier::ALL {
        assert_eq!(tier.last_before(Timestamp(0)), None, "{tier}");
    }
    assert_eq!(Tier::Weekly.last_before(Timestamp(3 * DAY)), None);
    assert_eq!(
        Tier::Weekly.last_before(Timestamp(5 * DAY)),
        Some(Timestamp(4 * DAY - 1))
    );
}

#[test]
fn a_version_overwritten_today_keeps_its_age_from_its_end() {
    let policy = Policy::default();
    let end = at(0, 13 * HOUR + 1);
    // It stood for two years: the end of the last week shows it for a year, which is longer than a day after its end.
    let week = Timestamp(at(0, 0).0 - 3 * DAY - 1);
    let old = span(Timestamp(end.0 - 730 * DAY), end);
    assert_eq!(policy.due(old), Due::At(Timestamp(week.0 + 365 * DAY)));
    // It stood for a minute between two hours' ends.
    let short = span(Timestamp(end.0 - 60 * SECOND), Timestamp(end.0 + SECOND));
    assert_eq!(
        policy.due(short),
        Due::At(Timestamp(at(0, 13 * HOUR).0 - 1 + 14 * DAY))
    );
    let between = span(Timestamp(end.0 + SECOND), Timestamp(end.0 + 2 * SECOND));
    assert_eq!(
        policy.due(between),
        Due::At(Timestamp(end.0 + 2 * SECOND + DAY))
    );
}

#[test]
fn an_import_is_kept_from_its_arrival() {
    let policy = Policy::default();
    let old = VersionSpan {
        arrived: Some(at(400, 0)),
        ..span(at(0, 1), at(0, 2))
    };
    assert_eq!(policy.due(old), Due::At(at(430, 0)));
    let forever = Policy {
        within: Term::Forever,
        ..policy
    };
    assert_eq!(forever.due(old), Due::Never);
}

fn terms() -> impl Strategy<Value = Term> {
    prop_oneof![
        Just(Term::Off),
        Just(Term::Forever),
        (1..400_u64).prop_map(|hours| Term::For(hours * HOUR)),
        (1..90 * DAY).prop_map(Term::For),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn due_agrees_with_a_walk_over_the_grid(
        tiers in prop::array::uniform5(terms()),
        within in terms(),
        start in 0..900 * DAY,
        // Every second length is near a multiple of an hour, where grid times begin and end to show a version.
        hours in 0..1500_u64,
        off in prop_oneof![0..3_u64, HOUR - 3..HOUR],
        arrived in prop::option::of(0..900 * DAY),
        after in 0..100 * DAY,
    ) {
        let [hourly, daily, weekly, monthly, yearly] = tiers;
        let policy = Policy { within, hourly, daily, weekly, monthly, yearly, ..Policy::default() };
        let start = Timestamp(at(0, 0).0 + start / HOUR * HOUR + start % 3);
        let end = Timestamp(start.0 + hours * HOUR + off);
        let arrived = arrived.map(|after| Timestamp(end.0 + after));
        let seen = VersionSpan { start, end, arrived };
        let now = arrived.unwrap_or(end).0 + after;
        let due = policy.due(seen);
        for now in [now, now + 400 * DAY] {
            prop_assert_eq!(Due::At(Timestamp(now)) < due, is_kept(&policy, seen, Timestamp(now)));
        }
        // The last moment at which it is kept, and the first at which it is not.
        if let Due::At(Timestamp(due)) = due && due > arrived.unwrap_or(end).0 {
            prop_assert!(is_kept(&policy, seen, Timestamp(due - 1)));
            prop_assert!(!is_kept(&policy, seen, Timestamp(due)));
        }
    }

    #[test]
    fn a_policy_prints_what_it_reads(terms in prop::array::uniform5(terms()), last: u32, max: u64) {
        let [within, hourly, daily, weekly, removed] = terms;
        prop_assume!(within != Term::Off);
        let whole = |term| match term {
            // Words have whole seconds.
            Term::For(ns) => Term::For(ns.div_ceil(SECOND) * SECOND),
            other => other,
        };
        let policy = Policy {
            within: whole(within),
            hourly: whole(hourly),
            daily: whole(daily),
            weekly: whole(weekly),
            removed: whole(removed),
            last,
            history_max: HistoryMax::Bytes(max),
            ..Policy::default()
        };
        let mut read = Policy::default();
        for (word, value) in policy.settings() {
            read.set(&format!("{word}={value}")).unwrap();
        }
        prop_assert_eq!(read, policy);
    }
}

#[test]
fn words_are_read_as_the_documentation_has_them() {
    let mut policy = Policy::default();
    for setting in [
        "keep-within=1d12h",
        "grid=off",
        "keep-weekly=2y",
        "keep-last=0",
        "keep-removed=off",
        "history-max=50%",
    ] {
        policy.set(setting).unwrap();
    }
    let expected = Policy {
        within: Term::For(36 * HOUR),
        hourly: Term::Off,
        daily: Term::Off,
        weekly: Term::For(730 * DAY),
        monthly: Term::Off,
        yearly: Term::Off,
        last: 0,
        removed: Term::Off,
        history_max: HistoryMax::Percent(50),
    };
    assert_eq!(policy, expected);
    let default: Vec<String> = Policy::default()
        .settings()
        .into_iter()
        .map(|(word, value)| format!("{word}={value}"))
        .collect();
    let documented = "keep-within=1d keep-hourly=14d keep-daily=90d keep-weekly=1y keep-monthly=off keep-yearly=off keep-last=3 keep-removed=30d history-max=100%";
    assert_eq!(default.join(" "), documented);
}

#[test]
fn a_bad_word_or_value_is_named_and_changes_nothing() {
    for (setting, part) in [
        ("keep-within", "WORD=VALUE"),
        (
            "keep-fortnightly=1d",
            "\"keep-fortnightly\" is no word of a policy; the words are keep-within, ",
        ),
        ("keep-within=off", "keep-within=off: expected a duration"),
        ("keep-within=1", "expected a duration"),
        ("keep-within=", "expected a duration"),
        ("keep-within=0d", "expected a duration"),
        ("keep-within=1d1d", "expected a duration"),
        ("keep-within=1h1d", "expected a duration"),
        ("keep-within=-1d", "expected a duration"),
        ("keep-within=99999999999y", "expected a duration"),
        ("keep-daily=often", "forever, or off"),
        ("keep-last=-1", "keep-last=-1: expected a number"),
        ("grid=on", "grid=on: expected off"),
        ("history-max=50 %", "a percentage"),
        ("history-max=+5G", "a size"),
        ("history-max=1.5G", "a size"),
    ] {
        let mut policy = Policy::default();
        let error: PolicyError = policy.set(setting).unwrap_err();
        assert!(error.to_string().contains(part), "{setting}: {error}");
        assert_eq!(policy, Policy::default(), "{setting}");
    }
}
