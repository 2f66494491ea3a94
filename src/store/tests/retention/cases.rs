//! Single cases of retention.

use super::words::{DAY, HOUR};
use super::*;
use crate::store::schema::journal_record::Dependencies;

async fn texts(ns: &Namespace, name: &[u8]) -> Vec<String> {
    let all = history(ns, ROOT, name).await.into_iter();
    all.map(|text| String::from_utf8(text).unwrap()).collect()
}

async fn rename(ns: &Namespace, from: &[u8], to: &[u8]) {
    let (from, to) = (DentryRef::new(ROOT, from), DentryRef::new(ROOT, to));
    let author = author();
    let renamed = ns.tree.rename(from, to, RenameMode::Replace, &author);
    renamed.await.unwrap();
}

/// A cluster with a file of six versions, a minute apart, all within one hour.
async fn six_versions(name: &str) -> (TestCluster, Namespace) {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    for text in [b"1", b"2", b"3", b"4", b"5", b"6"] {
        save(&ns, ROOT, b"f", text).await;
        cluster.env.advance(60_000_000_000);
    }
    (cluster, ns)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_the_last_three_versions_of_a_name_are_left() {
    let (cluster, ns) = six_versions("retention-last").await;
    let report = prune(&ns).await;
    assert_eq!(report.examined(), 0, "nothing is due: {report:?}");
    cluster.env.advance(DAY + HOUR);
    let report = prune(&ns).await;
    assert_eq!(report.dropped.versions, 2);
    assert_eq!(report.kept[&KeptBy::Last].versions, 3);
    assert_eq!(texts(&ns, b"f").await, ["3", "4", "5", "6"]);
    // The next save pushes out the oldest of the three, at once: it has been due by time.
    save(&ns, ROOT, b"f", b"7").await;
    assert_eq!(prune(&ns).await.dropped.versions, 1);
    assert_eq!(texts(&ns, b"f").await, ["4", "5", "6", "7"]);
    assert_eq!(prune(&ns).await.examined(), 0, "nothing changed");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_takes_the_last_three_versions_along() {
    let (cluster, ns) = six_versions("retention-renamed").await;
    cluster.env.advance(DAY + HOUR);
    prune(&ns).await;
    rename(&ns, b"f", b"final").await;
    prune(&ns).await;
    assert_eq!(texts(&ns, b"final").await, ["4", "5", "6", "6"]);
    cluster.env.advance(40 * DAY);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"final").await, ["4", "5", "6", "6"]);
    save(&ns, ROOT, b"final", b"7").await;
    cluster.env.advance(2 * DAY);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"final").await, ["5", "6", "6", "7"]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_version_of_a_removed_name_is_left_for_thirty_days_or_until_the_name_is_made_anew()
{
    let (cluster, ns) = six_versions("retention-removed").await;
    save(&ns, ROOT, b"g", b"g").await;
    // Before midnight: hourly grid times keep them for two weeks, and no daily one does.
    cluster.env.advance(2 * HOUR);
    save(&ns, ROOT, b"short", b"s").await;
    for name in [&b"f"[..], b"g", b"short"] {
        ns.tree.unlink(ROOT, name, &author()).await.unwrap();
    }
    cluster.env.advance(20 * DAY);
    let report = prune(&ns).await;
    assert_eq!(report.kept[&KeptBy::Removed].versions, 2, "{report:?}");
    assert_eq!(removed_names(&ns, ROOT).await, ["f", "g"]);
    assert_eq!(
        prune(&ns).await.examined(),
        0,
        "not due again before the month is over"
    );
    save(&ns, ROOT, b"g", b"anew").await;
    let report = prune(&ns).await;
    assert_eq!(report.dropped.versions, 1, "the new name lists the old one");
    assert_eq!(removed_names(&ns, ROOT).await, ["f"]);
    cluster.env.advance(11 * DAY);
    prune(&ns).await;
    assert!(removed_names(&ns, ROOT).await.is_empty());
    assert!(recorded(&ns).await.is_empty());
    let view = ns.history.view();
    let past = view.list_at(ROOT, Timestamp(ns.now().0 - 31 * DAY - HOUR));
    assert_eq!(past.await.unwrap(), []);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_directory_is_offered_whole_for_thirty_days_from_its_first_removal() {
    let cluster = TestCluster::new("retention-tree");
    let ns = cluster.open().await;
    let node = new_node(Kind::Directory);
    let d = ns
        .tree
        .create(ROOT, b"d", node, &author())
        .await
        .unwrap()
        .ino;
    cluster.env.advance(2 * HOUR);
    // Younger than an hour when they are removed: only the directory keeps them.
    save(&ns, d, b"x", b"x").await;
    save(&ns, d, b"y", b"y").await;
    cluster.env.advance(20_000_000_000);
    ns.tree.unlink(d, b"x", &author()).await.unwrap();
    cluster.env.advance(50_000_000_000);
    ns.tree.unlink(d, b"y", &author()).await.unwrap();
    ns.tree.rmdir(ROOT, b"d", &author()).await.unwrap();
    for _ in 0..29 {
        cluster.env.advance(DAY);
        prune(&ns).await;
    }
    let (from, to) = (DentryRef::new(ROOT, b"d"), DentryRef::new(ROOT, b"back"));
    let who = author();
    let back = ns.history.undelete(from, to, RenameMode::NoReplace, &who);
    let back = back.await.unwrap().moved.ino;
    assert_eq!(content(&ns, back, b"x").await, Some(b"x".to_vec()));
    assert_eq!(content(&ns, back, b"y").await, Some(b"y".to_vec()));
    // Again, and not undeleted in time.
    ns.tree.unlink(back, b"x", &author()).await.unwrap();
    ns.tree.unlink(back, b"y", &author()).await.unwrap();
    cluster.env.advance(2 * HOUR);
    ns.tree.rmdir(ROOT, b"back", &author()).await.unwrap();
    cluster.env.advance(400 * DAY);
    prune(&ns).await;
    assert!(removed_names(&ns, ROOT).await.is_empty());
    assert!(recorded(&ns).await.is_empty());
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reports_what_a_run_drops_and_changes_nothing() {
    let (cluster, ns) = six_versions("retention-dry").await;
    cluster.env.advance(DAY + HOUR);
    ns.drain().await.unwrap();
    let before = recorded(&ns).await;
    let dry = ns.retention.dry_run().await.unwrap();
    assert_eq!(recorded(&ns).await, before);
    let now = ns.history.view().horizons().await.unwrap();
    assert!(now.is_exact(Timestamp(1)), "no horizon was raised");
    assert_eq!(prune(&ns).await, dry);
    assert_eq!(dry.largest().len(), 1);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_policy_waits_a_day_and_can_be_taken_back() {
    let (cluster, ns) = six_versions("retention-stricter").await;
    let mut strict = Policy::default();
    strict.set("keep-last=0").unwrap();
    strict.set("keep-within=1s").unwrap();
    strict.set("grid=off").unwrap();
    let preview = ns.retention.preview(&strict).await.unwrap();
    assert_eq!(preview.dropped.versions, 5);
    let change = ns
        .retention
        .set_policy(&strict, InForce::Usual)
        .await
        .unwrap();
    assert!(matches!(change, PolicyChange::Pending(_)), "{change:?}");
    cluster.env.advance(DAY / 2);
    assert_eq!(prune(&ns).await.examined(), 0);
    let default = Policy::default();
    let change = ns
        .retention
        .set_policy(&default, InForce::Usual)
        .await
        .unwrap();
    assert_eq!(
        change,
        PolicyChange::InForce,
        "the pending policy is taken back"
    );
    assert_eq!(ns.retention.pending_policy().await.unwrap(), None);
    ns.retention
        .set_policy(&strict, InForce::Usual)
        .await
        .unwrap();
    cluster.env.advance(DAY + HOUR);
    assert_eq!(prune(&ns).await.dropped.versions, 5);
    assert_eq!(texts(&ns, b"f").await, ["6"]);
    assert_eq!(ns.retention.policy().await.unwrap(), Some(strict));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_policy_keeps_what_is_left_and_files_it_anew() {
    let (cluster, ns) = six_versions("retention-longer").await;
    let mut longer = Policy::default();
    longer.set("keep-within=10d").unwrap();
    let change = ns
        .retention
        .set_policy(&longer, InForce::Usual)
        .await
        .unwrap();
    assert_eq!(change, PolicyChange::InForce);
    cluster.env.advance(5 * DAY);
    let report = prune(&ns).await;
    assert_eq!((report.dropped.versions, report.examined()), (0, 5));
    assert_eq!(prune(&ns).await.examined(), 0, "they are due later now");
    cluster.env.advance(6 * DAY);
    assert_eq!(prune(&ns).await.dropped.versions, 2);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_eight_rows_are_read_per_due_version_whatever_else_there_is() {
    let cluster = TestCluster::new("retention-rows");
    let ns = cluster.open().await;
    for number in 0..61 {
        save(&ns, ROOT, b"f", number.to_string().as_bytes()).await;
        cluster.env.advance(1_000_000_000);
    }
    cluster.env.advance(DAY + HOUR);
    for number in 0..50 {
        let name = format!("fresh-{number}");
        save(&ns, ROOT, name.as_bytes(), b"1").await;
        save(&ns, ROOT, name.as_bytes(), b"2").await;
    }
    ns.drain().await.unwrap();
    let before = ns.rows_read();
    let report = ns.retention.run(DROP).await.unwrap();
    assert_eq!((report.examined(), report.dropped.versions), (60, 57));
    let read = ns.rows_read() - before;
    // A run reads fewer than 30 rows once: the policies, horizons, labels, holds, amounts, and the ends of its lists.
    assert!(read < 60 * 8 + 30, "{read} rows");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_keeps_what_it_shows_and_nothing_else_until_it_is_removed() {
    let (cluster, ns) = six_versions("retention-label").await;
    let node = new_node(Kind::Directory);
    let d = ns
        .tree
        .create(ROOT, b"d", node, &author())
        .await
        .unwrap()
        .ino;
    save(&ns, d, b"g", b"1").await;
    save(&ns, ROOT, b"lone", b"1").await;
    ns.history
        .create_label(d, b"inner", None, &author())
        .await
        .unwrap();
    ns.history
        .create_label(ROOT, b"outer", None, &author())
        .await
        .unwrap();
    for text in [b"2", b"3", b"4", b"5"] {
        cluster.env.advance(1_000_000_000);
        save(&ns, d, b"g", text).await;
        save(&ns, ROOT, b"lone", text).await;
    }
    cluster.env.advance(DAY + HOUR);
    let report = prune(&ns).await;
    assert_eq!(report.kept[&KeptBy::Label].versions, 2, "{report:?}");
    let of_g = history(&ns, d, b"g").await;
    assert_eq!(
        of_g.concat(),
        b"12345",
        "the last three, the current one, and the labeled one"
    );
    assert_eq!(prune(&ns).await.examined(), 0, "not due again");
    ns.history.remove_label(ROOT, b"outer").await.unwrap();
    assert_eq!(
        prune(&ns).await.dropped.versions,
        1,
        "of the file that only it showed"
    );
    assert_eq!(texts(&ns, b"lone").await.len(), 4);
    ns.history
        .rename_label(d, b"inner", b"renamed")
        .await
        .unwrap();
    assert_eq!(prune(&ns).await.dropped.versions, 0);
    ns.history.remove_label(d, b"renamed").await.unwrap();
    assert_eq!(prune(&ns).await.dropped.versions, 1);
    assert_eq!(history(&ns, d, b"g").await.concat(), b"2345");
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_version_is_left_until_its_hold_ends() {
    let (cluster, ns) = six_versions("retention-hold").await;
    let versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
    let until = Timestamp(ns.now().0 + 30 * DAY);
    let name = DentryRef::new(ROOT, b"f");
    let who = author();
    let held = ns.history.hold_version(name, &versions[0], until, &who);
    held.await.unwrap();
    cluster.env.advance(DAY + HOUR);
    let report = prune(&ns).await;
    assert_eq!(
        (report.dropped.versions, report.kept[&KeptBy::Hold].versions),
        (1, 1)
    );
    assert_eq!(texts(&ns, b"f").await, ["1", "3", "4", "5", "6"]);
    cluster.env.advance(30 * DAY);
    assert_eq!(prune(&ns).await.dropped.versions, 1);
    assert_eq!(texts(&ns, b"f").await, ["3", "4", "5", "6"]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_version_is_dropped_by_the_next_run() {
    let (cluster, ns) = six_versions("retention-release").await;
    let versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
    let until = Timestamp(ns.now().0 + 300 * DAY);
    let (name, who) = (DentryRef::new(ROOT, b"f"), author());
    let held = ns.history.hold_version(name, &versions[0], until, &who);
    held.await.unwrap();
    cluster.env.advance(DAY + HOUR);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"f").await, ["1", "3", "4", "5", "6"]);
    let release = || ns.history.release_version(name, &versions[0]);
    release().await.unwrap();
    let again = release().await;
    assert!(matches!(again, Err(StoreError::Invalid(_))), "{again:?}");
    assert!(
        ns.history
            .view()
            .all_holds(ns.now())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(prune(&ns).await.dropped.versions, 1);
    assert_eq!(texts(&ns, b"f").await, ["3", "4", "5", "6"]);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_many_versions_is_told_with_eight_rows_each_and_labels_are_read_once() {
    let cluster = TestCluster::new("retention-reasons");
    let ns = cluster.open().await;
    for number in 0..201 {
        save(&ns, ROOT, b"f", number.to_string().as_bytes()).await;
        if number % 5 == 0 {
            let (name, author) = (format!("v{number}"), author());
            let label = ns
                .history
                .create_label(ROOT, name.as_bytes(), None, &author);
            label.await.unwrap();
        }
        cluster.env.advance(1_000_000_000);
    }
    ns.drain().await.unwrap();
    let versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
    let ended: Vec<EndedState<'_>> = versions[..200]
        .iter()
        .map(|entry| EndedState {
            directory: ROOT,
            name: Bytes::from_static(b"f"),
            entry,
        })
        .collect();
    let before = ns.rows_read();
    let reasons = ns.retention.reasons(&ended).await.unwrap();
    let read = ns.rows_read() - before;
    // The labels, and the policy, are 42 rows.
    assert!(read < 200 * 8 + 50, "{read} rows");
    let with = |by: &KeptBy| {
        let has = |reasons: &&KeptReasons| matches!(reasons, KeptReasons::Rules(rules) if rules.iter().any(|(rule, _)| rule == by));
        reasons.iter().filter(has).count()
    };
    let within = KeptBy::Time(TimeRule::Within);
    assert_eq!(
        (with(&within), with(&KeptBy::Label), with(&KeptBy::Last)),
        (200, 40, 3)
    );
    // Without a policy every version is kept.
    let answer = ns.core.clock.begin();
    let mut txn = ns
        .retention
        .commit
        .txn(answer.at(), Dependencies::default());
    txn.delete(keys::policy());
    ns.retention.commit.enqueue(txn).unwrap();
    drop(answer);
    let reasons = ns.retention.reasons(&ended[..2]).await.unwrap();
    assert_eq!(reasons, [KeptReasons::Everything, KeptReasons::Everything]);
    leave(ns).await;
}
