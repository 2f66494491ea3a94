//! `ls .versions`: which times are listed, and that each leads to the newest state of its second in every spelling.

use super::stamp::parse_printed;
use crate::fs::SetAttr;
use crate::fs::testing::{ALICE, ROOT, SUPER, World, world};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The times in `ls .versions`, newest first.
async fn listed(world: &World) -> Vec<String> {
    let names = world.ls(".versions").await.unwrap();
    let times: Vec<String> = names
        .iter()
        .filter(|name| name.starts_with('2'))
        .cloned()
        .collect();
    assert_eq!(names.len(), times.len() + 4, "{names:?}");
    times
}

/// A listed time without its milliseconds, as `%Y-%m-%dT%H-%M-%S` reads and writes it, and as SMB sends it.
fn spellings(listed: &str) -> [String; 2] {
    let second = &listed[..19];
    let smb = second.replacen('-', ".", 2).replace('T', "-");
    let (day, time) = smb.split_at(11);
    [
        second.to_owned(),
        format!("@GMT-{day}{}", time.replace('-', ".")),
    ]
}

#[tokio::test]
async fn a_second_is_listed_once_and_found_in_every_spelling() {
    let world = world().await;
    let mut last_of_each = Vec::new();
    for number in 0..30 {
        world.save("f", &format!("state {number}")).await;
        if number % 3 == 2 {
            last_of_each.push(format!("state {number}"));
            world.advance(SECOND - 600 * MILLISECOND);
        } else {
            world.advance(300 * MILLISECOND);
        }
    }
    let times = listed(&world).await;
    last_of_each.reverse();
    assert_eq!(times.len(), last_of_each.len(), "{times:?}");
    assert!(times.is_sorted_by(|newer, older| newer[..19] > older[..19]));
    assert_eq!(times[9], "2026-11-20T21-26-48.600Z");
    assert_eq!(
        spellings(&times[9]),
        ["2026-11-20T21-26-48", "@GMT-2026.11.20-21.26.48"]
    );
    for (time, text) in times.iter().zip(&last_of_each) {
        let [second, smb] = spellings(time);
        for name in [time, &second, &smb] {
            let shown = world.cat(&format!(".versions/{name}/f")).await;
            assert_eq!(shown.as_deref(), Ok(text.as_str()), "{name}");
        }
    }
}

#[tokio::test]
async fn a_long_history_lists_seconds_hours_days_and_weeks() {
    let world = world().await;
    let mut number = 0;
    let mut save = async |step: u64, times: u64| {
        for _ in 0..times {
            world.save("f", &format!("state {number}")).await;
            number += 1;
            world.advance(step);
        }
    };
    save(12 * HOUR, 160).await;
    save(20 * MINUTE, 100).await;
    save(4 * MINUTE, 15).await;
    let last = number - 1;
    let times = listed(&world).await;
    assert!(times.len() <= 96, "{} times", times.len());
    let age = |time: &String| {
        let at = parse_printed(time.as_bytes()).unwrap().last;
        world.namespace.now().0 - at.0
    };
    let between = |from: u64, to: u64| {
        let ages = times.iter().map(age);
        ages.filter(|age| from < *age && *age <= to).count()
    };
    // One of them is the end of an hour.
    assert_eq!(between(0, HOUR + SECOND), 16, "{times:?}");
    assert_eq!(between(HOUR + SECOND, DAY + MINUTE), 24, "{times:?}");
    assert_eq!(between(DAY + MINUTE, 30 * DAY), 29, "{times:?}");
    assert_eq!(between(30 * DAY, u64::MAX), 9, "{times:?}");
    let newest = world.cat(&format!(".versions/{}/f", times[0])).await;
    assert_eq!(newest, Ok(format!("state {last}")));
    let oldest = world
        .cat(&format!(".versions/{}/f", times[times.len() - 1]))
        .await;
    assert_eq!(oldest.as_deref(), Ok("state 0"));
    // A time that is not listed is found by its name.
    for (time, text) in [
        ("2026-11-21T21-26-48", "state 2"),
        ("2026-11-23T09-26-48", "state 5"),
    ] {
        assert!(!times.iter().any(|listed| listed.starts_with(time)));
        for name in spellings(time) {
            let shown = world.cat(&format!(".versions/{name}/f")).await;
            assert_eq!(shown.as_deref(), Ok(text), "{name}");
        }
    }
}

#[tokio::test]
async fn the_past_of_a_directory_is_open_to_those_who_may_list_it() {
    let world = world().await;
    let made = world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    for (mode, shown) in [
        (0o755, 0o755),
        (0o2750, 0o750),
        (0o700, 0o700),
        (0o1777, 0o777),
        (0o511, 0o511),
    ] {
        let change = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        let dir = made.stat.ino.0;
        world.setattr(&SUPER, dir, change).await.unwrap();
        let versions = world.walk("d/.versions").await.unwrap().stat;
        assert_eq!(versions.attrs.mode, shown, "of {mode:o}");
        assert_eq!(
            (versions.attrs.uid, versions.attrs.gid),
            (ALICE.uid, ALICE.gid)
        );
    }
}
