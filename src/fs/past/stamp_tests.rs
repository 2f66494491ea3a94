//! The grammar, form by form, and its round trip.

use super::*;
use proptest::prelude::*;

/// 2026-11-20T21:26:48.123456789Z.
const AT: Timestamp = Timestamp(1_795_210_008_123_456_789);
/// 2026-11-21T01:00:00Z.
const NOW: Timestamp = Timestamp(1_795_222_800_000_000_000);

fn stamp(name: &str) -> Option<Period> {
    match TimeName::parse(name.as_bytes()) {
        Some(TimeName::Stamp(period)) => Some(period),
        _ => None,
    }
}

/// First and last timestamp of a name's period, printed.
fn bounds(name: &str) -> (String, String) {
    let period = stamp(name).unwrap_or_else(|| panic!("{name} is not a stamp"));
    (
        print(period.first, Precision::Nanos),
        print(period.last, Precision::Nanos),
    )
}

fn assert_bounds(name: &str, first: &str, last: &str) {
    assert_eq!(
        bounds(name),
        (first.to_owned(), last.to_owned()),
        "for {name}"
    );
}

#[test]
fn prints_fixed_width_in_utc() {
    assert_eq!(print(AT, Precision::Millis), "2026-11-20T21-26-48.123Z");
    assert_eq!(
        print(AT, Precision::Nanos),
        "2026-11-20T21-26-48.123456789Z"
    );
    assert_eq!(
        print(Timestamp(0), Precision::Millis),
        "1970-01-01T00-00-00.000Z"
    );
    assert_eq!(
        print(Timestamp(u64::MAX), Precision::Millis),
        "2554-07-21T23-34-33.709Z"
    );
}

#[test]
fn ties_print_nine_digits_and_only_ties_do() {
    let (a, b, c) = (
        Timestamp(AT.0 - 1_000_000),
        AT,
        Timestamp(AT.0 + 1), // the same millisecond as b
    );
    let rising = print_all(&[a, b, c]);
    assert_eq!(
        rising,
        [
            "2026-11-20T21-26-48.122Z",
            "2026-11-20T21-26-48.123456789Z",
            "2026-11-20T21-26-48.123456790Z"
        ]
    );
    let mut falling = print_all(&[c, b, a]);
    falling.reverse();
    assert_eq!(falling, rising);
    assert!(print_all(&[]).is_empty());
}

#[test]
fn a_truncated_stamp_is_the_whole_period() {
    let year_end = "2026-12-31T23-59-59.999999999Z";
    assert_bounds("2026", "2026-01-01T00-00-00.000000000Z", year_end);
    assert_bounds("2026-12", "2026-12-01T00-00-00.000000000Z", year_end);
    assert_bounds("2026-12-31", "2026-12-31T00-00-00.000000000Z", year_end);
    assert_bounds("2026-12-31T23", "2026-12-31T23-00-00.000000000Z", year_end);
    assert_bounds(
        "2026-12-31T23-59",
        "2026-12-31T23-59-00.000000000Z",
        year_end,
    );
    assert_bounds(
        "2026-12-31T23-59-59",
        "2026-12-31T23-59-59.000000000Z",
        year_end,
    );
    assert_bounds(
        "2026-12-31T23-59-59.9",
        "2026-12-31T23-59-59.900000000Z",
        year_end,
    );
    assert_bounds(
        "2026-12-31T23-59-59.999Z",
        "2026-12-31T23-59-59.999000000Z",
        year_end,
    );
    assert_bounds("2026-12-31T23-59-59.999999999Z", year_end, year_end);
}

#[test]
fn leap_days_and_month_ends_are_known() {
    assert_bounds(
        "2024-02",
        "2024-02-01T00-00-00.000000000Z",
        "2024-02-29T23-59-59.999999999Z",
    );
    assert!(stamp("2024-02-29").is_some());
    for wrong in ["2026-02-29", "2026-04-31", "2026-00-10", "2026-13"] {
        assert_eq!(stamp(wrong), None, "{wrong}");
    }
}

#[test]
fn colons_and_a_space_are_read_too() {
    let expected = stamp("2026-11-20T21-26-48");
    assert!(expected.is_some());
    for other in [
        "2026-11-20 21:26:48",
        "2026-11-20T21:26:48",
        "2026-11-20 21-26-48",
        "2026-11-20T21:26:48Z",
    ] {
        assert_eq!(stamp(other), expected, "{other}");
    }
    assert_eq!(stamp("2026-11-20 21:26"), stamp("2026-11-20T21-26"));
    assert_eq!(
        stamp("2026-11-20 21:26:48.123"),
        stamp("2026-11-20T21-26-48.123Z")
    );
}

#[test]
fn zones_shift_the_period() {
    let expected = stamp("2026-11-20T21-26-48");
    for other in [
        "2026-11-20T22-26-48+0100",
        "2026-11-20 22:26:48+0100",
        "2026-11-20T22:26:48+01:00",
        "2026-11-20T16:26:48-05:00",
        "2026-11-20T16-26-48-0500",
        "2026-11-21T02-56-48+0530",
    ] {
        assert_eq!(stamp(other), expected, "{other}");
    }
    assert_bounds(
        "2026-11-20+0100",
        "2026-11-19T23-00-00.000000000Z",
        "2026-11-20T22-59-59.999999999Z",
    );
    assert_eq!(stamp("2026-11-20T21+0100"), stamp("2026-11-20T20"));
    assert_eq!(stamp("2026-11-20T21-0100"), stamp("2026-11-20T22"));
    assert_eq!(
        stamp("2026-11-20T22:26:48.5+01:00"),
        stamp("2026-11-20T21-26-48.5")
    );
}

#[test]
fn the_name_that_smb_has_for_a_snapshot_is_its_second_in_utc() {
    let smb = "@GMT-2026.11.20-21.26.48";
    assert!(stamp(smb).is_some_and(|period| period.timestamps().contains(&AT)));
    assert_eq!(stamp(smb), stamp("2026-11-20T21-26-48"));
    assert_eq!(
        stamp("@GMT-2024.02.29-00.00.00"),
        stamp("2024-02-29T00-00-00")
    );
    for wrong in [
        "@GMT",
        "@GMT-",
        "@GMT-2026",
        "@GMT-2026.11.20",
        "@GMT-2026.11.20-21.26",
        "@GMT-2026.11.20-21.26.4",
        "@GMT-2026.11.20-21.26.48Z",
        "@GMT-2026.11.20-21.26.48.5",
        "@GMT-2026.11.20-21.26.48+0100",
        "@GMT-2026-11-20T21-26-48",
        "@GMT-2026.11.20-21-26-48",
        "@GMT-2026.11.20.21.26.48",
        "@GMT-2026.02.29-21.26.48",
        "@GMT-2026.11.20-24.00.00",
        "@GMT-1969.12.31-23.59.59",
        "@gmt-2026.11.20-21.26.48",
        "GMT-2026.11.20-21.26.48",
        "@2026.11.20-21.26.48",
        "2026.11.20-21.26.48",
    ] {
        assert_eq!(TimeName::parse(wrong.as_bytes()), None, "{wrong:?}");
    }
}

#[test]
fn ambiguous_and_unfinished_names_are_no_times() {
    for wrong in [
        "",
        "2",
        "202",
        "20261",
        "2026-",
        "2026-1",
        "2026-11-2",
        "2026-11-20T",
        "2026-11-20T2",
        "2026-11-20T24",
        "2026-11-20T21-",
        "2026-11-20T21-6",
        "2026-11-20T21-60",
        "2026-11-20T21-26-60",
        "2026-11-20T21-26-48.",
        "2026-11-20T21-26-48.1234567890",
        "2026-11-20T21-26:48",
        "2026-11-20T21:26-48",
        "2026-11-20T21-05:00",
        "2026-11-20T21-26-48+1",
        "2026-11-20T21-26-48+1500",
        "2026-11-20T21-26-48+0160",
        "2026-11-20T21-26-48z",
        "2026-11-20t21",
        "2026-11-20_21",
        "2026Z",
        "2026-11Z",
        "2026-11-20T21-26-48.123Zx",
        " 2026",
        "2026 ",
        "1795123608",
        "1969-12-31",
        "1969",
        "2555",
        "9999-12-31T23-59-59",
        "2026-11-20T21-26-48.12\u{663}",
    ] {
        assert_eq!(TimeName::parse(wrong.as_bytes()), None, "{wrong:?}");
    }
    assert_eq!(TimeName::parse(b"2026-\xff1"), None);
}

#[test]
fn ages_count_back_from_now() {
    let ago = |name: &str| TimeName::parse(name.as_bytes()).and_then(|name| name.resolve(NOW));
    for (name, seconds) in [
        ("-30s", 30),
        ("-15m", 900),
        ("-2h", 7_200),
        ("-3d", 259_200),
        ("-1w", 604_800),
        ("-0m", 0),
        ("-090m", 5_400),
    ] {
        let at =
            Timestamp(NOW.0 - seconds * 1_000_000_000 + if seconds == 0 { 0 } else { 999_999_999 });
        assert_eq!(ago(name), Some((at, TimeStability::Moving)), "{name}");
    }
    for wrong in [
        "-",
        "-m",
        "-1",
        "-1y",
        "-1 d",
        "-s",
        "-1M",
        "--1d",
        "-1d2h",
        "-1.5h",
        "-1234567890m",
    ] {
        assert_eq!(TimeName::parse(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(ago("-99999w"), None, "before 1970");
    assert_eq!(ago("-999999999w"), None, "beyond 64 bits");
}

#[test]
fn an_age_keeps_its_timestamp_for_the_rest_of_the_second() {
    let name = TimeName::parse(b"-1h").unwrap();
    let within = Timestamp(NOW.0 + 999_999_999);
    assert_eq!(name.resolve(NOW), name.resolve(within));
    assert_ne!(name.resolve(NOW), name.resolve(Timestamp(within.0 + 1)));
}

#[test]
fn a_stamp_means_the_last_timestamp_of_its_period_or_now() {
    let resolve = |name: &str| TimeName::parse(name.as_bytes()).unwrap().resolve(NOW);
    let last = stamp("2026-11-20").unwrap().last;
    assert_eq!(resolve("2026-11-20"), Some((last, TimeStability::Constant)));
    assert_eq!(resolve("2026-11-21"), Some((NOW, TimeStability::Moving)));
    assert_eq!(resolve("2026"), Some((NOW, TimeStability::Moving)));
    assert_eq!(resolve("2026-11-22"), None);
    assert_eq!(resolve("2027"), None);
    let exact = print(NOW, Precision::Nanos);
    assert_eq!(resolve(&exact), Some((NOW, TimeStability::Moving)));
}

#[test]
fn an_exact_stamp_means_its_timestamp_only() {
    for at in [AT, NOW, stamp("2026-11-20").unwrap().last] {
        let exact = print_exact(at);
        assert_eq!(parse_printed(exact.as_bytes()).unwrap().last, at, "{exact}");
    }
    assert_eq!(
        print_exact(stamp("2026-11").unwrap().last),
        "2026-11-30T23-59-59.999Z"
    );
    assert_eq!(print_exact(AT), "2026-11-20T21-26-48.123456789Z");
}

#[test]
fn printed_stamps_are_read_exactly() {
    assert!(
        parse_printed(b"2026-11-20T21-26-48.123Z")
            .unwrap()
            .timestamps()
            .contains(&AT)
    );
    let nanos = parse_printed(b"2026-11-20T21-26-48.123456789Z").unwrap();
    assert_eq!((nanos.first, nanos.last), (AT, AT));
    for wrong in [
        "2026-11-20T21-26-48.123",
        "2026-11-20T21:26:48.123Z",
        "2026-11-20 21-26-48.123Z",
        "2026-11-20T21-26-48.1234Z",
        "2026-11-20T21-26-48+0000",
        "2026-11-20T22-26-48+01000",
    ] {
        assert_eq!(parse_printed(wrong.as_bytes()), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn a_printed_stamp_reads_back(ns in any::<u64>()) {
        let timestamp = Timestamp(ns);
        let millis = parse_printed(print(timestamp, Precision::Millis).as_bytes()).unwrap();
        prop_assert!(millis.timestamps().contains(&timestamp));
        prop_assert!(millis.last.0 - millis.first.0 < 1_000_000);
        let nanos = parse_printed(print(timestamp, Precision::Nanos).as_bytes()).unwrap();
        prop_assert_eq!((nanos.first, nanos.last), (timestamp, timestamp));
    }

    #[test]
    fn printed_stamps_sort_like_their_timestamps(a in any::<u64>(), b in any::<u64>()) {
        let (one, two) = (print(Timestamp(a), Precision::Nanos), print(Timestamp(b), Precision::Nanos));
        prop_assert_eq!(one.cmp(&two), a.cmp(&b));
    }

    #[test]
    fn every_truncation_of_a_stamp_that_is_a_time_includes_the_timestamp(ns in 0..1_u64 << 63, cut in 4_usize..30) {
        let printed = print(Timestamp(ns), Precision::Nanos);
        if let Some(TimeName::Stamp(period)) = TimeName::parse(&printed.as_bytes()[..cut]) {
            prop_assert!(period.timestamps().contains(&Timestamp(ns)));
        }
    }

    #[test]
    fn no_name_panics(name in proptest::collection::vec(any::<u8>(), 0..40), now in any::<u64>()) {
        let _ = TimeName::parse(&name).and_then(|time| time.resolve(Timestamp(now)));
        let _ = parse_printed(&name);
    }

    #[test]
    fn no_name_of_its_own_letters_panics(name in "(@GMT-)?[-0-9T:. Z+mhdw]{0,32}", now in any::<u64>()) {
        let _ = TimeName::parse(name.as_bytes()).and_then(|time| time.resolve(Timestamp(now)));
    }
}
