//! Which timestamps a listing of `.versions` shows: a screenful, thinned with age.

use crate::store::Timestamp;

/// The most times that a listing shows: with the virtual names a screenful of a hundred. Every other time resolves as well.
const SHOWN_MAX: usize = 96;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// From the Monday before 1970 to 1970, which began on a Thursday: weeks begin on Mondays. A multiple of every step below a week.
const FROM_MONDAY: u64 = 3 * DAY;
/// How far back one time of each day is shown; before that, one of each week.
const DAYS_MAX: u64 = 30 * DAY;

/// Steps of the last hour, finest first.
const FINE: [u64; 11] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
];
/// Steps of what is older than thirty days: weeks, months, quarters, years, and so on up to the last time of the clock.
const COARSE: [u64; 7] = [
    WEEK,
    4 * WEEK,
    13 * WEEK,
    52 * WEEK,
    5 * 52 * WEEK,
    20 * 52 * WEEK,
    100 * 52 * WEEK,
];

/// Thins timestamps, newest first: the newest of each second of the last hour, of each hour of the last day, of each day of the last
/// thirty days, and of each week before. Where that is more than a screenful, steps of the last hour and of the time before the thirty
/// days grow until it is one. The newest stays, and so does that of the oldest second.
///
/// No second has two: SMB, which shows these times as snapshots, knows a time only by its second.
pub(crate) fn thin(times: &[Timestamp], now: Timestamp) -> Vec<Timestamp> {
    // One place is for the oldest one, which is seldom the newest of its step.
    let max = SHOWN_MAX - 1;
    let times = newest_of_each(times, SECOND);
    let age = |time: &Timestamp| now.0.saturating_sub(time.0);
    let older_than = |limit| times.partition_point(|time| age(time) <= limit);
    let (hour, day, month) = (older_than(HOUR), older_than(DAY), older_than(DAYS_MAX));
    let mut middle = newest_of_each(&times[hour..day], HOUR);
    middle.extend(newest_of_each(&times[day..month], DAY));
    let (last_hour, before) = (&times[..hour], &times[month..]);
    let room = max - middle.len();
    // A third of the room is for the oldest ones, and more if the last hour does not need it.
    let old = coarsen(before, &COARSE, (room / 3).max(room.saturating_sub(hour)));
    let mut shown = coarsen(last_hour, &FINE, room - old.len());
    shown.extend(middle);
    shown.extend(old);
    if let Some(oldest) = times.last()
        && shown.last() != Some(oldest)
    {
        shown.push(*oldest);
    }
    shown
}

/// Thins the times at which a directory changed and those at which something below it did, both newest first: each by itself, as long as all of
/// these are a screenful, else together.
pub(crate) fn thin_with_below(
    times: &[Timestamp],
    below: &[Timestamp],
    now: Timestamp,
) -> Vec<Timestamp> {
    let newest_first = |mut times: Vec<Timestamp>| {
        times.sort_unstable_by(|one, other| other.cmp(one));
        newest_of_each(&times, SECOND)
    };
    let both = newest_first([thin(times, now), thin(below, now)].concat());
    match both.len() <= SHOWN_MAX {
        true => both,
        false => thin(&newest_first([times, below].concat()), now),
    }
}

/// The newest time of each step, with the finest of `steps` that leaves `max` at most.
fn coarsen(times: &[Timestamp], steps: &[u64], max: usize) -> Vec<Timestamp> {
    let mut shown = Vec::new();
    for step in steps {
        shown = newest_of_each(times, *step);
        if shown.len() <= max {
            break;
        }
    }
    shown
}

/// The newest of the times in each step of time, in UTC; they are newest first. Where steps begin does not depend on the present, so
/// that the selection is stable.
fn newest_of_each(times: &[Timestamp], step: u64) -> Vec<Timestamp> {
    let mut last = None;
    let mut is_first = |time: &Timestamp| {
        let number = time.0.saturating_add(FROM_MONDAY) / step;
        last.replace(number) != Some(number)
    };
    let newest = times.iter().filter(|time| is_first(time));
    newest.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T01:00:00Z.
    const NOW: u64 = 1_795_222_800_000_000_000;

    /// The newest one of each second.
    fn of_each_second(ages: &[u64]) -> Vec<u64> {
        let mut newest = ages.to_vec();
        newest.dedup_by_key(|age| (NOW - *age) / SECOND);
        newest
    }

    fn thinned(ages: &[u64]) -> Vec<u64> {
        let times: Vec<Timestamp> = ages.iter().map(|age| Timestamp(NOW - age)).collect();
        let kept = thin(&times, Timestamp(NOW));
        kept.iter().map(|time| NOW - time.0).collect()
    }

    #[test]
    fn every_change_of_the_last_hour_is_shown_while_they_fit() {
        let ages: Vec<u64> = (1..SHOWN_MAX as u64).map(|n| n * 30 * SECOND).collect();
        assert_eq!(thinned(&ages), ages);
        let more: Vec<u64> = (0..3600).map(|n| n * SECOND).collect();
        let kept = thinned(&more);
        assert!((30..SHOWN_MAX).contains(&kept.len()), "{kept:?}");
        assert_eq!(
            (kept.first(), kept.last()),
            (Some(&0), Some(&3_599_000_000_000))
        );
    }

    #[test]
    fn no_second_has_two_shown_times() {
        let milli = SECOND / 1000;
        let ages = [0, 100 * milli, 900 * milli, SECOND, SECOND + milli];
        assert_eq!(thinned(&ages), [0, 100 * milli, SECOND + milli]);
        // Nor where the steps of an hour, a day and a month meet, nor at the oldest change.
        for limit in [HOUR, DAY, DAYS_MAX] {
            let ages = [limit - milli, limit, limit + milli, limit + 2 * milli];
            assert_eq!(thinned(&ages), [limit - milli, limit + milli], "{limit}");
        }
    }

    #[test]
    fn older_changes_show_the_newest_of_each_step() {
        // One change every two minutes for ninety days.
        let ages: Vec<u64> = (0..90 * 24 * 30).map(|n| n * 2 * MINUTE).collect();
        let kept = thinned(&ages);
        let between = |from: u64, to: u64| kept.iter().filter(|a| from < **a && **a <= to).count();
        assert_eq!(between(0, HOUR), 30);
        assert_eq!(between(HOUR, DAY), 23);
        assert_eq!(between(DAY, DAYS_MAX), 30);
        assert!((9..=11).contains(&between(DAYS_MAX, 90 * DAY)), "{kept:?}");
        assert!(kept.is_sorted());
    }

    /// For every spread of changes: a screenful at most, in order, each the newest change of its second, those of the newest and the
    /// oldest second among them, the same each time; and no second is left out while all fit.
    #[test]
    fn every_spread_of_changes_shows_a_screenful() {
        let spreads: [fn(u64) -> u64; 9] = [
            |n| n,
            |n| n * 1_000,
            |n| n * 700_000,
            |n| n * SECOND,
            |n| n * MINUTE,
            |n| n * 7 * HOUR,
            |n| n * n * SECOND,
            |n| n * DAY,
            |n| HOUR + n * 17 * MINUTE,
        ];
        for (number, spread) in spreads.into_iter().enumerate() {
            for count in [1, 2, 95, 96, 97, 500, 5000, 18_000] {
                let ages: Vec<u64> = (0..count).map(spread).filter(|age| *age < NOW).collect();
                let kept = thinned(&ages);
                let ages = of_each_second(&ages);
                let case = format!("spread {number} of {count}: {kept:?}");
                assert!(kept.len() <= SHOWN_MAX, "{case}");
                assert!(kept.is_sorted_by(|a, b| a < b), "{case}");
                assert_eq!(
                    (kept.first(), kept.last()),
                    (ages.first(), ages.last()),
                    "{case}"
                );
                assert!(
                    kept.iter().all(|age| ages.binary_search(age).is_ok()),
                    "{case}"
                );
                assert_eq!(thinned(&ages), kept);
                let recent = ages.iter().filter(|age| **age <= HOUR).count();
                if recent == ages.len() && recent < SHOWN_MAX {
                    assert_eq!(kept, ages, "{case}");
                }
            }
        }
    }

    #[test]
    fn what_changed_below_hides_no_change_while_all_are_a_screenful() {
        let times = |ages: &[u64]| -> Vec<Timestamp> {
            ages.iter().map(|age| Timestamp(NOW - age)).collect()
        };
        let (own, below) = (
            times(&[3 * HOUR + MINUTE, 5 * DAY]),
            times(&[3 * HOUR + 1, 4 * DAY]),
        );
        let both = thin_with_below(&own, &below, Timestamp(NOW));
        assert_eq!(both, [below[0], own[0], below[1], own[1]]);
        assert_eq!(thin_with_below(&own, &[], Timestamp(NOW)), own);
        let hours: Vec<u64> = (1..2000).map(|n| n * HOUR).collect();
        let minutes: Vec<u64> = (1..2000).map(|n| n * 7 * MINUTE).collect();
        let many = thin_with_below(&times(&minutes), &times(&hours), Timestamp(NOW));
        assert!((50..=SHOWN_MAX).contains(&many.len()), "{}", many.len());
        assert!(many.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn a_week_is_monday_to_sunday() {
        // A change an hour until Saturday, 2026-11-21T01: the newest one of a whole week is that of its Sunday at 23 hours.
        let ages: Vec<u64> = (0..60 * 24).map(|n| n * HOUR).collect();
        let kept = thinned(&ages);
        let weeks: Vec<u64> = kept.into_iter().filter(|age| *age > DAYS_MAX).collect();
        let sunday = 5 * DAY + 2 * HOUR;
        let sundays = (0..8).map(|week| sunday + week * WEEK);
        let mut expected: Vec<u64> = sundays.filter(|age| *age > DAYS_MAX).collect();
        expected.insert(0, 720 * HOUR + HOUR);
        expected.push(ages[ages.len() - 1]);
        assert_eq!(weeks, expected);
    }

    #[test]
    fn a_single_old_change_stays() {
        assert_eq!(thinned(&[400 * DAY]), [400 * DAY]);
        assert!(thinned(&[]).is_empty());
    }
}
