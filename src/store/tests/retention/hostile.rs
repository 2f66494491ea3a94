//! Walks that a hostile reading of the rule found, each a case of its own.

use super::past::Past;
use super::words::{DAY, DEFAULT, HOUR, SECOND, Words};
use super::*;
use crate::env::Env;
use crate::store::tests::labels::{mkdir, move_to};

const MINUTE: u64 = 60 * SECOND;

async fn set(ns: &Namespace, words: &[&str]) {
    let mut policy = Policy::default();
    for word in words {
        policy.set(word).unwrap();
    }
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    assert_eq!(set.unwrap(), PolicyChange::InForce);
}

async fn texts(ns: &Namespace, name: &[u8]) -> Vec<String> {
    let all = history(ns, ROOT, name).await.into_iter();
    all.map(|text| String::from_utf8(text).unwrap()).collect()
}

/// The times at which rows are due, and how many are at each.
async fn due_times(ns: &Namespace) -> std::collections::BTreeMap<Timestamp, usize> {
    let (from, end) = (VersionTable::all(), keys::after(&VersionTable::all()));
    let mut times = std::collections::BTreeMap::new();
    for (_, value) in ns.core.index.scan(from, end, usize::MAX).await.unwrap() {
        if let rows::Filing::Due(at) = VersionTable::decode(&value).unwrap().filed {
            *times.entry(at).or_default() += 1;
        }
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_due_at_the_same_nanosecond_are_all_dropped_and_each_by_its_own_reason() {
    let cluster = TestCluster::new("hostile-same-time");
    let ns = cluster.open().await;
    set(&ns, &["grid=off", "keep-last=0", "keep-removed=off"]).await;
    for name in [&b"a"[..], b"b", b"held", b"under"] {
        save(&ns, ROOT, name, name).await;
    }
    let held = ns.history.view().versions(ROOT, b"held").await.unwrap();
    let until = Timestamp(ns.now().0 + 3 * DAY);
    let (name, who) = (DentryRef::new(ROOT, b"held"), author());
    ns.history
        .hold_version(name, &held[0], until, &who)
        .await
        .unwrap();
    cluster.env.advance(HOUR);
    // A rename over a name ends a version of each at one timestamp.
    move_to(&ns, (ROOT, b"a"), (ROOT, b"b")).await;
    move_to(&ns, (ROOT, b"held"), (ROOT, b"under")).await;
    let times = due_times(&ns).await;
    assert_eq!(times.values().copied().collect::<Vec<_>>(), [2, 2]);
    cluster.env.advance(DAY - MINUTE);
    assert_eq!(prune(&ns).await.examined(), 0);
    cluster.env.advance(2 * MINUTE);
    let report = prune(&ns).await;
    assert_eq!(report.dropped.versions, 3, "{report:?}");
    assert_eq!(report.kept[&KeptBy::Hold].versions, 1, "{report:?}");
    assert_eq!(texts(&ns, b"held").await, ["held"]);
    cluster.env.advance(3 * DAY);
    assert_eq!(prune(&ns).await.dropped.versions, 1);
    assert!(recorded(&ns).await.is_empty() && due_times(&ns).await.is_empty());
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removal_of_everything_under_a_cap_is_undone_for_thirty_days() {
    let cluster = TestCluster::new("hostile-rm-cap");
    let ns = cluster.open().await;
    set(&ns, &["history-max=40000"]).await;
    let top = mkdir(&ns, ROOT, b"top").await;
    for number in 0..20_u8 {
        let name = format!("file-{number}");
        for text in 0..2 {
            save(&ns, top, name.as_bytes(), &[number + text; 10_000]).await;
        }
    }
    cluster.env.advance(3 * HOUR);
    for number in 0..20 {
        let name = format!("file-{number}");
        let removed = ns.tree.unlink(top, name.as_bytes(), &author()).await;
        removed.unwrap();
        cluster.env.advance(SECOND);
    }
    ns.tree.rmdir(ROOT, b"top", &author()).await.unwrap();
    for _ in 0..29 {
        ns.drain().await.unwrap();
        ns.gc.reclaim().await.unwrap();
        cluster.env.advance(DAY);
        let report = ns.retention.run(CONFIRMED).await.unwrap();
        assert_eq!(removed_names(&ns, ROOT).await, ["top"], "{report:?}");
    }
    // The states before the last ones went for the cap. The last ones and the directory stay, though they are too many.
    assert_eq!(recorded(&ns).await.len(), 21);
    let (from, who) = (DentryRef::new(ROOT, b"top"), author());
    let back = ns.history.undelete(from, from, RenameMode::NoReplace, &who);
    let back = back.await.unwrap().moved.ino;
    for number in 0..20 {
        let text = content(&ns, back, format!("file-{number}").as_bytes()).await;
        assert_eq!(text, Some(vec![number + 1; 10_000]), "file-{number}");
    }
    leave(ns).await;
}

/// Saves `f` on two hosts, one of which is killed before its save is in the bucket. Returns that one.
async fn conflicting() -> TestCluster {
    let left = TestCluster::new("hostile-conflict");
    let ns = left.open().await;
    set(&ns, &["grid=off", "keep-last=0"]).await;
    save(&ns, ROOT, b"f", b"one").await;
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    save(&ns, ROOT, b"f", b"mine").await;
    let left = left.kill(ns).await;
    let beside = left.other_host();
    let ns = beside.open().await;
    save(&ns, ROOT, b"f", b"other").await;
    leave(ns).await;
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_version_is_left_after_a_day_and_goes_after_thirty() {
    let left = conflicting().await;
    let ns = left.open().await;
    assert_eq!(ns.conflicts().versions, 1);
    assert_eq!(texts(&ns, b"f").await, ["one", "other", "mine", "other"]);
    left.env.advance(DAY + HOUR);
    let report = prune(&ns).await;
    assert_eq!(report.dropped.versions, 2, "{report:?}");
    for _ in 0..28 {
        assert_eq!(texts(&ns, b"f").await, ["mine", "other"]);
        left.env.advance(DAY);
        prune(&ns).await;
    }
    left.env.advance(DAY);
    assert_eq!(prune(&ns).await.dropped.versions, 1);
    assert_eq!(texts(&ns, b"f").await, ["other"]);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &left).await;
    leave(ns).await;
}

/// Adds the versions of `f` to the model that it does not have yet. Returns how many these are.
async fn learn(ns: &Namespace, past: &mut Past) -> u64 {
    ns.drain().await.unwrap();
    let file = slot(ROOT, "f");
    let known = past.current(&file).map_or(0, |made| made.start);
    let all = ns.history.view().versions(ROOT, b"f").await.unwrap();
    let starts = all.iter().map(|entry| entry.version.timestamp.0);
    let mut learned = 0;
    for start in starts.filter(|start| *start > known) {
        past.save(&file, start, b"");
        learned += 1;
    }
    learned
}

/// Saves each second of two days in the long mode, else of some hours of each day.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_saved_each_second_for_two_days_keeps_what_the_rule_says_and_is_listed_at_each_time()
{
    let saves = match std::env::var_os("REWINDFS_TEST_LONG") {
        Some(_) => DAY / SECOND,
        None => 20_000,
    };
    let cluster = TestCluster::new("hostile-seconds");
    let ns = cluster.open().await;
    let mut past = Past::default();
    for day in 0..4 {
        let saves = if day < 2 { saves } else { 0 };
        for number in 0..saves {
            save(&ns, ROOT, b"f", &(day * DAY + number).to_le_bytes()).await;
            cluster.env.advance(SECOND);
        }
        assert_eq!(learn(&ns, &mut past).await, saves);
        cluster.env.advance(DAY - saves * SECOND);
        past.prune(&DEFAULT, cluster.env.now());
        let (read, searches) = (ns.rows_read(), ns.searches());
        let report = ns.retention.run(DROP).await.unwrap();
        let (read, searches) = (ns.rows_read() - read, ns.searches() - searches);
        // Beside the eight of each version, once for a run: policies, horizons, and the hours in which something changed.
        assert!(read <= 8 * report.examined() + 400, "{read}: {report:?}");
        // A search passes over what was dropped before, and costs more with each drop: a few for each page of versions, and for each hour.
        assert!(
            searches <= report.examined() / 16 + 400,
            "{searches}: {report:?}"
        );
        ns.drain().await.unwrap();
        let found = recorded(&ns).await;
        assert_eq!(found, past.kept(), "after day {day}");
        let listed = ns.history.view().versions(ROOT, b"f").await.unwrap();
        assert_eq!(listed.len(), found.len() + 1, "after day {day}");
    }
    // One for each end of an hour with a save before it, two of them ends of days; and the last three.
    let hours = 2 * (saves * SECOND).div_ceil(HOUR);
    let left = recorded(&ns).await.len() as u64;
    assert!((hours..=hours + 5).contains(&left), "{left} of {hours}");
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_leaves_nothing_searches_for_none_of_what_it_dropped() {
    let cluster = TestCluster::new("hostile-nothing-left");
    let ns = cluster.open().await;
    set(&ns, &["grid=off", "keep-last=0"]).await;
    prune(&ns).await;
    let saves = 2_000;
    for number in 0..saves {
        // By turns, so that what is dropped next is never of the same name.
        for name in [b"f", b"g"] {
            save(&ns, ROOT, name, &u64::to_le_bytes(number)).await;
        }
        cluster.env.advance(SECOND);
    }
    cluster.env.advance(DAY);
    ns.drain().await.unwrap();
    let (read, searches) = (ns.rows_read(), ns.searches());
    let report = ns.retention.run(DROP).await.unwrap();
    let (read, searches) = (ns.rows_read() - read, ns.searches() - searches);
    assert_eq!(report.dropped.versions, 2 * (saves - 1));
    // Of each version the list's row, and its record, twice.
    assert!(read <= 4 * report.examined() + 60, "{read}: {report:?}");
    assert!(searches <= 2 * saves / 256 + 60, "{searches}: {report:?}");
    assert!(recorded(&ns).await.is_empty());
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_policy_after_a_shorter_one_keeps_what_is_left_and_makes_no_older_time_exact() {
    let cluster = TestCluster::new("hostile-longer");
    let ns = cluster.open().await;
    let short = Words {
        within: 2 * HOUR,
        hourly: 0,
        daily: 0,
        weekly: 0,
        last: 0,
        removed: DEFAULT.removed,
        max: None,
    };
    set(&ns, &["grid=off", "keep-within=2h", "keep-last=0"]).await;
    let mut past = Past::default();
    let save_for = async |past: &mut Past, hours: u64| {
        for number in 0..hours {
            save(&ns, ROOT, b"f", &number.to_le_bytes()).await;
            cluster.env.advance(HOUR);
        }
        learn(&ns, past).await;
    };
    save_for(&mut past, 30).await;
    past.prune(&short, cluster.env.now());
    prune(&ns).await;
    assert_eq!(recorded(&ns).await, past.kept());
    let oldest = ns.history.view().horizons().await.unwrap().oldest(None);

    set(&ns, &[]).await;
    save_for(&mut past, 30).await;
    for _ in 0..20 {
        past.prune(&DEFAULT, cluster.env.now());
        prune(&ns).await;
        assert_eq!(recorded(&ns).await, past.kept());
        let horizons = ns.history.view().horizons().await.unwrap();
        assert!(!horizons.is_exact(Timestamp(oldest.0 - 1)));
        let (exact, now) = (horizons.oldest(None), cluster.env.now());
        assert_eq!(exact, Timestamp(exact.0.max(oldest.0)));
        for hours in 0..80 {
            let at = horizons.exact_before(Timestamp(now - hours * HOUR));
            let Some(at) = at else { continue };
            assert!(at >= oldest, "{at:?} is before {oldest:?}");
            let truth = past.truth(&slot(ROOT, "f"), at.0).map(|made| made.start);
            let view = ns.history.view();
            let shown = view.entry_at(ROOT, b"f", at).await.unwrap();
            assert_eq!(shown.map(|shown| shown.version.timestamp.0), truth);
        }
        cluster.env.advance(DAY);
    }
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_day_gives_the_state_at_its_end_as_long_as_days_are_kept() {
    let cluster = TestCluster::new("hostile-day-stamp");
    let ns = cluster.open().await;
    let end_of = |at: u64| Timestamp(at / DAY * DAY + DAY - 1);
    let mut days = Vec::new();
    for day in 0..5 {
        for number in 0..20 {
            let text = format!("{day}-{number}");
            save(&ns, ROOT, b"x", text.as_bytes()).await;
            days.resize(day + 1, (end_of(cluster.env.now()), text.clone()));
            days[day] = (end_of(cluster.env.now()), text);
            cluster.env.advance(2 * MINUTE);
        }
        cluster.env.advance(DAY - 40 * MINUTE);
    }
    cluster.env.advance(80 * DAY);
    prune(&ns).await;
    for (at, text) in days {
        let view = ns.history.view();
        let exact = view.horizons().await.unwrap().exact_before(at);
        assert_eq!(exact, Some(at), "{text}");
        let then = view.entry_at(ROOT, b"x", at).await.unwrap().unwrap();
        let (name, added, who) = (DentryRef::new(ROOT, b"x"), AddedNames::Remove, author());
        ns.history
            .restore(name, then, at, added, &who)
            .await
            .unwrap();
        let found = content(&ns, ROOT, b"x").await;
        assert_eq!(found, Some(text.into_bytes()));
        // What it replaced is a version like any other, and the restored day still shows after the next run.
        cluster.env.advance(HOUR);
        prune(&ns).await;
    }
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_file_made_and_removed_each_minute_of_a_month_leaves_nothing() {
    let minutes = match std::env::var_os("REWINDFS_TEST_LONG") {
        Some(_) => 1,
        None => 10,
    };
    let cluster = TestCluster::new("hostile-lock");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", b"beside it").await;
    // No lock stands at the end of an hour.
    let to_hour = HOUR - cluster.env.now() % HOUR;
    cluster.env.advance(to_hour + 20 * SECOND);
    for day in 0..30 {
        for _ in 0..24 * 60 / minutes {
            save(&ns, ROOT, b".lock", b"pid").await;
            cluster.env.advance(20 * SECOND);
            ns.tree.unlink(ROOT, b".lock", &author()).await.unwrap();
            cluster.env.advance(minutes * MINUTE - 20 * SECOND);
        }
        let report = prune(&ns).await;
        let left = recorded(&ns).await.len() as u64;
        assert_eq!(left, 24 * 60 / minutes, "after day {day}: {report:?}");
    }
    cluster.env.advance(DAY);
    prune(&ns).await;
    assert_eq!(removed_names(&ns, ROOT).await, [""; 0]);
    assert!(recorded(&ns).await.is_empty());
    let intervals = keys::intervals(ROOT);
    let end = keys::after(&intervals);
    let left = ns.core.index.scan(intervals, end, usize::MAX).await;
    assert_eq!(left.unwrap(), [], "when the name was there");
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_lasts_six_hours_is_undeleted_whole_on_its_last_day() {
    let cluster = TestCluster::new("hostile-slow-rm");
    let ns = cluster.open().await;
    let top = mkdir(&ns, ROOT, b"top").await;
    let mut below = Vec::new();
    for number in 0..20 {
        let directory = mkdir(&ns, top, format!("d{number}").as_bytes()).await;
        for file in 0..21 {
            let (name, text) = (format!("f{file}"), format!("{number}/{file}"));
            save(&ns, directory, name.as_bytes(), text.as_bytes()).await;
        }
        below.push(directory);
    }
    cluster.env.advance(3 * HOUR);
    let begun = ns.now();
    for (number, directory) in below.iter().enumerate() {
        for file in 0..21 {
            let name = format!("f{file}");
            let who = author();
            let removed = ns.tree.unlink(*directory, name.as_bytes(), &who);
            removed.await.unwrap();
            cluster.env.advance(50 * SECOND);
        }
        let name = format!("d{number}");
        ns.tree
            .rmdir(top, name.as_bytes(), &author())
            .await
            .unwrap();
    }
    ns.tree.rmdir(ROOT, b"top", &author()).await.unwrap();
    assert!(ns.now().0 - begun.0 > 5 * HOUR);
    while cluster.env.now() + HOUR < begun.0 + 30 * DAY {
        let left = begun.0 + 30 * DAY - HOUR / 2 - cluster.env.now();
        cluster.env.advance(left.min(DAY));
        prune(&ns).await;
    }
    assert_eq!(removed_names(&ns, ROOT).await, ["top"]);
    let (from, who) = (DentryRef::new(ROOT, b"top"), author());
    let back = ns.history.undelete(from, from, RenameMode::NoReplace, &who);
    let back = back.await.unwrap().moved.ino;
    assert_eq!(check::names(&ns, back).await.len(), 20);
    for number in 0..20 {
        let name = format!("d{number}");
        let found = ns.tree.lookup(back, name.as_bytes()).await.unwrap();
        let directory = found.unwrap().ino;
        for file in 0..21 {
            let text = content(&ns, directory, format!("f{file}").as_bytes()).await;
            assert_eq!(text, Some(format!("{number}/{file}").into_bytes()));
        }
    }
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}
