//! The rows of hard-linked files, compared with the model.

use super::past::{Made, Past, Shared};
use super::words::{DAY, HOUR};
use super::*;
use crate::env::Env;
use crate::store::tests::labels::{label, mkdir, move_to};

async fn keys_of(ns: &Namespace, table: Bytes) -> Vec<Bytes> {
    let end = keys::after(&table);
    let rows = ns.core.index.scan(table, end, usize::MAX).await.unwrap();
    rows.into_iter().map(|(key, _)| key).collect()
}

/// Compares the states that have ended, and the names that led to a file.
pub(super) async fn compare(ns: &Namespace, past: &Past) {
    let shared = |is_counted: fn(&Made) -> bool| {
        let made = past.names.values().flatten();
        let shared = made.filter(move |made| is_counted(made));
        shared.filter_map(|made| made.shared)
    };
    let state = |shared: Shared| (shared.file, shared.state);
    let current: BTreeSet<_> = shared(|made| made.ended.is_none()).map(state).collect();
    let ended: BTreeSet<_> = shared(|made| made.is_kept()).map(state).collect();
    let mut expected: Vec<u64> = ended.difference(&current).map(|(_, at)| *at).collect();
    let states = keys_of(ns, LinkedVersionTable::all()).await;
    let states = states.iter().map(|key| keys::trailing_id(key).unwrap());
    let mut found: Vec<u64> = states.map(|id| id.timestamp.0).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "states of hard-linked files");

    let mut expected = BTreeSet::new();
    for (slot, made) in &past.names {
        let left = made.iter().filter(|made| !made.dropped);
        expected.extend(left.filter_map(|made| Some((slot.clone(), made.shared?.bound))));
    }
    // A name begins later once the state is gone with which it began: it is found by its place in the list.
    let mut expected: Vec<Slot> = expected.into_iter().map(|(slot, _)| slot).collect();
    let names = keys_of(ns, BindingTable::all()).await;
    let names = names.iter().map(|key| keys::bound_name(key).unwrap().1);
    let mut found: Vec<Slot> = names
        .map(|name| slot(name.parent, std::str::from_utf8(&name.name).unwrap()))
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "names of hard-linked files");
}

/// A file with the names `a` and `b` and the states 1 to 6, a minute apart.
async fn two_names(name: &str) -> (TestCluster, Namespace) {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", b"1").await;
    cluster.env.advance(60_000_000_000);
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    for text in [b"2", b"3", b"4", b"5", b"6"] {
        cluster.env.advance(60_000_000_000);
        save(&ns, ROOT, b"a", text).await;
    }
    (cluster, ns)
}

async fn texts(ns: &Namespace, name: &[u8]) -> Vec<String> {
    texts_in(ns, ROOT, name).await
}

async fn texts_in(ns: &Namespace, directory: Ino, name: &[u8]) -> Vec<String> {
    let all = history(ns, directory, name).await.into_iter();
    all.map(|text| String::from_utf8(text).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_stays_while_one_of_the_names_of_its_file_keeps_it() {
    let (cluster, ns) = two_names("retention-two-names").await;
    // Until the next day: no daily grid time shows any of the six.
    cluster.env.advance(2 * HOUR);
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    let removed = ns.now();
    cluster.env.advance(20 * DAY);
    let report = prune(&ns).await;
    assert_eq!(report.kept[&KeptBy::Last].versions, 3, "{report:?}");
    assert_eq!(texts(&ns, b"a").await, ["3", "4", "5", "6"]);
    // The removed name is kept as removed, and shows what is left of the file.
    assert_eq!(texts(&ns, b"b").await, ["3", "4", "5", "6"]);
    assert_eq!(removed_names(&ns, ROOT).await, ["b"]);
    for text in [b"7", b"8", b"9"] {
        cluster.env.advance(60_000_000_000);
        save(&ns, ROOT, b"a", text).await;
    }
    cluster.env.advance(9 * DAY);
    prune(&ns).await;
    // The last state of the removed name is neither among the last three of the other one, nor current.
    assert_eq!(texts(&ns, b"a").await, ["6", "7", "8", "9"]);
    assert_eq!(texts(&ns, b"b").await, ["6"]);
    cluster.env.advance(2 * DAY);
    save(&ns, ROOT, b"a", b"10").await;
    cluster.env.advance(2 * DAY);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"b").await, [""; 0]);
    assert!(removed_names(&ns, ROOT).await.is_empty());
    let view = ns.history.view();
    assert_eq!(view.entry_at(ROOT, b"b", removed).await.unwrap(), None);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_goes_with_the_last_name_that_showed_it() {
    const MINUTE: u64 = 60_000_000_000;
    let cluster = TestCluster::new("retention-unnamed");
    let ns = cluster.open().await;
    let set = async |words: &[&str]| {
        let mut policy = Policy::default();
        for word in ["grid=off", "keep-within=1h", "keep-last=0"] {
            policy.set(word).unwrap();
        }
        policy.set("keep-removed=off").unwrap();
        for word in words {
            policy.set(word).unwrap();
        }
        let set = ns.retention.set_policy(&policy, InForce::Now).await;
        assert_eq!(set.unwrap(), PolicyChange::InForce);
    };
    set(&[]).await;
    // Only the first name is there at ends of hours.
    cluster
        .env
        .advance(HOUR - cluster.env.now() % HOUR + MINUTE);
    let ino = save(&ns, ROOT, b"a", b"1").await;
    cluster.env.advance(2 * HOUR);
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    cluster.env.advance(10 * MINUTE);
    ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
    cluster.env.advance(10 * MINUTE);
    save(&ns, ROOT, b"b", b"2").await;
    cluster.env.advance(30 * MINUTE);
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    cluster.env.advance(25 * MINUTE);
    // The short policy drops the first name, and not its state yet; the longer one would keep that for two weeks.
    prune(&ns).await;
    assert_eq!(keys_of(&ns, BindingTable::all()).await.len(), 1);
    set(&["keep-hourly=14d"]).await;
    cluster.env.advance(10 * MINUTE);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"b").await, ["1", "2"]);
    assert_eq!(keys_of(&ns, LinkedVersionTable::all()).await.len(), 2);
    cluster.env.advance(30 * MINUTE);
    prune(&ns).await;
    assert!(keys_of(&ns, BindingTable::all()).await.is_empty());
    assert!(keys_of(&ns, LinkedVersionTable::all()).await.is_empty());
    amounts::assert_recounted(&ns).await;
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_never_shows_a_state_that_the_file_had_before_it() {
    let (cluster, ns) = two_names("retention-new-name").await;
    let ino = ns.tree.lookup(ROOT, b"a").await.unwrap().unwrap().ino;
    let before = ns.now();
    ns.tree.link(ino, ROOT, b"c", &author()).await.unwrap();
    cluster.env.advance(60_000_000_000);
    let linked = ns.now();
    for text in [b"7", b"8", b"9"] {
        cluster.env.advance(60_000_000_000);
        save(&ns, ROOT, b"a", text).await;
    }
    // Of state 6, with which the name began, only its place is left to be taken by another one.
    save(&ns, ROOT, b"a", b"10").await;
    cluster.env.advance(20 * DAY);
    prune(&ns).await;
    for name in [b"a", b"b", b"c"] {
        assert_eq!(texts(&ns, name).await, ["7", "8", "9", "10"]);
    }
    let view = ns.history.view();
    for at in [before, linked] {
        let shown = view.entry_at(ROOT, b"c", at).await.unwrap();
        assert_eq!(shown, None, "{at:?}");
    }
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_come_and_go_leave_no_rows() {
    let (cluster, ns) = two_names("retention-many-names").await;
    let ino = ns.tree.lookup(ROOT, b"a").await.unwrap().unwrap().ino;
    for _ in 0..50 {
        cluster.env.advance(60_000_000_000);
        ns.tree.link(ino, ROOT, b"lock", &author()).await.unwrap();
        cluster.env.advance(20_000_000_000);
        ns.tree.unlink(ROOT, b"lock", &author()).await.unwrap();
    }
    assert_eq!(keys_of(&ns, BindingTable::all()).await.len(), 52);
    cluster.env.advance(20 * DAY);
    prune(&ns).await;
    assert_eq!(keys_of(&ns, BindingTable::all()).await.len(), 2);
    assert_eq!(texts(&ns, b"a").await, ["3", "4", "5", "6"]);
    for name in [b"a", b"b"] {
        ns.tree.unlink(ROOT, name, &author()).await.unwrap();
    }
    cluster.env.advance(400 * DAY);
    prune(&ns).await;
    for table in [
        BindingTable::all(),
        LinkedVersionTable::all(),
        VersionTable::all(),
        LinkCountTable::all(),
    ] {
        assert!(keys_of(&ns, table.clone()).await.is_empty(), "{table:?}");
    }
    let tree = keys::intervals(ROOT);
    assert!(keys_of(&ns, tree).await.is_empty(), "when names were there");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_and_a_reason_are_found_through_any_name() {
    let (cluster, ns) = two_names("retention-label-names").await;
    let node = new_node(Kind::Directory);
    let made = ns.tree.create(ROOT, b"d", node, &author()).await.unwrap();
    let ino = ns.tree.lookup(ROOT, b"a").await.unwrap().unwrap().ino;
    ns.tree.link(ino, made.ino, b"c", &author()).await.unwrap();
    ns.drain().await.unwrap();
    label(&ns, made.ino, b"mine").await;
    for text in [b"7", b"8", b"9"] {
        cluster.env.advance(60_000_000_000);
        save(&ns, ROOT, b"b", text).await;
    }
    save(&ns, ROOT, b"b", b"10").await;
    cluster.env.advance(20 * DAY);
    let report = prune(&ns).await;
    assert_eq!(report.kept[&KeptBy::Label].versions, 1, "{report:?}");
    for name in [b"a", b"b"] {
        assert_eq!(texts(&ns, name).await, ["6", "7", "8", "9", "10"]);
    }
    let view = ns.history.view();
    let all = view.versions(ROOT, b"b").await.unwrap();
    let why = async |number: usize| {
        let state = EndedState {
            directory: ROOT,
            name: Bytes::from_static(b"b"),
            entry: &all[number],
        };
        match ns.retention.reasons(&[state]).await.unwrap().remove(0) {
            KeptReasons::Rules(rules) => rules.into_iter().map(|(by, _)| by).collect::<Vec<_>>(),
            KeptReasons::Everything => Vec::new(),
        }
    };
    assert_eq!(why(0).await, [KeptBy::Label]);
    assert_eq!(why(1).await, [KeptBy::Last]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_begins_later_because_a_state_went_is_kept_for_the_time_that_is_left_of_it() {
    let cluster = TestCluster::new("retention-later-name");
    let ns = cluster.open().await;
    let mut policy = Policy::default();
    for word in [
        "keep-within=1h",
        "grid=off",
        "keep-last=0",
        "keep-removed=off",
    ] {
        policy.set(word).unwrap();
    }
    policy.set("keep-hourly=10d").unwrap();
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    assert_eq!(set.unwrap(), PolicyChange::InForce);
    let d = mkdir(&ns, ROOT, b"d").await;
    let to_hour = HOUR - cluster.env.now() % HOUR;
    cluster.env.advance(to_hour + HOUR / 12);
    let ino = save(&ns, d, b"x", b"1").await;
    ns.tree.link(ino, d, b"y", &author()).await.unwrap();
    let short = Some(Policy::of_directory("keep-hourly=off").unwrap());
    ns.retention.set_directory_policy(d, short).await.unwrap();
    cluster.env.advance(2 * HOUR);
    save(&ns, d, b"x", b"2").await;
    ns.retention.set_directory_policy(d, None).await.unwrap();
    cluster.env.advance(HOUR / 6);
    move_to(&ns, (d, b"y"), (ROOT, b"z")).await;
    cluster.env.advance(2 * HOUR);
    // State 1 ended where no end of an hour is kept. Of `y` ten minutes are left, in which no hour ended.
    prune(&ns).await;
    assert_eq!(texts_in(&ns, d, b"y").await, [""; 0]);
    assert_eq!(texts_in(&ns, d, b"x").await, ["2"]);
    assert_eq!(texts(&ns, b"z").await, ["2"]);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

/// An empty namespace whose policy is one hour, and these words.
async fn one_hour(name: &str, words: &[&str]) -> (TestCluster, Namespace) {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    let mut policy = Policy::default();
    let always = [
        "keep-within=1h",
        "grid=off",
        "keep-last=0",
        "keep-removed=off",
    ];
    for word in always.iter().chain(words) {
        policy.set(word).unwrap();
    }
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    assert_eq!(set.unwrap(), PolicyChange::InForce);
    // Five minutes past an hour.
    let to_hour = HOUR - cluster.env.now() % HOUR;
    cluster.env.advance(to_hour + HOUR / 12);
    (cluster, ns)
}

/// Holds the version that a name shows at a time, for five hours from now on.
async fn hold(ns: &Namespace, directory: Ino, name: &[u8], at: Timestamp) {
    let view = ns.history.view();
    let shown = view.entry_at(directory, name, at).await.unwrap().unwrap();
    let (until, who) = (Timestamp(ns.now().0 + 5 * HOUR), author());
    let name = DentryRef::new(directory, name);
    let held = ns.history.hold_version(name, &shown, until, &who).await;
    held.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_on_a_version_from_before_the_second_name_keeps_no_name() {
    let (cluster, ns) = one_hour("retention-early-hold", &[]).await;
    let ino = save(&ns, ROOT, b"a", b"1").await;
    let first = ns.now();
    cluster.env.advance(HOUR / 6);
    save(&ns, ROOT, b"a", b"2").await;
    hold(&ns, ROOT, b"a", first).await;
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    cluster.env.advance(HOUR / 6);
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    cluster.env.advance(2 * HOUR);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"a").await, ["1", "2"]);
    assert_eq!(texts(&ns, b"b").await, [""; 0]);
    assert_eq!(keys_of(&ns, BindingTable::all()).await.len(), 1);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_has_the_policy_of_its_own_end_though_its_name_ended_with_a_later_one() {
    let (cluster, ns) = one_hour("retention-own-end", &["keep-hourly=10d"]).await;
    let d = mkdir(&ns, ROOT, b"d").await;
    let short = Some(Policy::of_directory("keep-hourly=off").unwrap());
    ns.retention.set_directory_policy(d, short).await.unwrap();
    let ino = save(&ns, d, b"x", b"1").await;
    ns.tree.link(ino, d, b"y", &author()).await.unwrap();
    let first = ns.now();
    cluster.env.advance(2 * HOUR);
    save(&ns, d, b"x", b"2").await;
    hold(&ns, d, b"x", first).await;
    ns.retention.set_directory_policy(d, None).await.unwrap();
    cluster.env.advance(HOUR / 6);
    for name in [b"y", b"x"] {
        ns.tree.unlink(d, name, &author()).await.unwrap();
    }
    cluster.env.advance(2 * HOUR);
    // The hold keeps the first state, which is extended over the time of the second one: no hour ended in that.
    prune(&ns).await;
    assert_eq!(texts_in(&ns, d, b"x").await, ["1"]);
    cluster.env.advance(4 * HOUR);
    prune(&ns).await;
    assert!(keys_of(&ns, LinkedVersionTable::all()).await.is_empty());
    assert!(keys_of(&ns, BindingTable::all()).await.is_empty());
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_goes_with_the_name_whose_policy_kept_it_for_longest() {
    let words = ["keep-within=3h", "keep-hourly=10d"];
    let (cluster, ns) = one_hour("retention-longest-name", &words).await;
    let d = mkdir(&ns, ROOT, b"d").await;
    let short = Some(Policy::of_directory("keep-within=1h keep-hourly=off").unwrap());
    ns.retention.set_directory_policy(d, short).await.unwrap();
    let ino = save(&ns, d, b"x", b"1").await;
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    cluster.env.advance(HOUR / 2);
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    // Over the end of an hour, at which only `x` was there.
    cluster.env.advance(HOUR * 7 / 12);
    save(&ns, d, b"x", b"2").await;
    cluster.env.advance(HOUR * 3 / 2);
    prune(&ns).await;
    assert_eq!(texts_in(&ns, d, b"x").await, ["1", "2"]);
    assert_eq!(keys_of(&ns, BindingTable::all()).await.len(), 2);
    cluster.env.advance(2 * HOUR);
    prune(&ns).await;
    assert_eq!(keys_of(&ns, BindingTable::all()).await.len(), 1);
    assert_eq!(texts_in(&ns, d, b"x").await, ["2"]);
    assert!(keys_of(&ns, LinkedVersionTable::all()).await.is_empty());
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_led_to_a_held_state_goes_with_its_release() {
    let (cluster, ns) = one_hour("retention-released", &[]).await;
    let d = mkdir(&ns, ROOT, b"d").await;
    let ino = save(&ns, d, b"x", b"1").await;
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    let first = ns.now();
    cluster.env.advance(HOUR / 6);
    save(&ns, d, b"x", b"2").await;
    hold(&ns, d, b"x", first).await;
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    move_to(&ns, (ROOT, b"d"), (ROOT, b"e")).await;
    cluster.env.advance(2 * HOUR);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"b").await, ["1", "2"]);
    let left: Vec<_> = recorded(&ns)
        .await
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(left, [slot(ROOT, "d")]);
    let view = ns.history.view();
    let shown = view.entry_at(d, b"x", first).await.unwrap().unwrap();
    let released = ns.history.release_version(DentryRef::new(d, b"x"), &shown);
    released.await.unwrap();
    prune(&ns).await;
    assert_eq!(recorded(&ns).await, BTreeSet::new());
    assert_eq!(keys_of(&ns, BindingTable::all()).await.len(), 1);
    assert!(keys_of(&ns, LinkedVersionTable::all()).await.is_empty());
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_through_another_name_no_longer_keeps_what_led_to_the_first_one() {
    let (cluster, ns) = one_hour("retention-held-again", &[]).await;
    let (d, e) = (mkdir(&ns, ROOT, b"d").await, mkdir(&ns, ROOT, b"e").await);
    let ino = save(&ns, d, b"x", b"1").await;
    ns.tree.link(ino, e, b"y", &author()).await.unwrap();
    let first = ns.now();
    cluster.env.advance(HOUR / 6);
    save(&ns, d, b"x", b"2").await;
    hold(&ns, d, b"x", first).await;
    move_to(&ns, (ROOT, b"d"), (ROOT, b"f")).await;
    cluster.env.advance(2 * HOUR);
    prune(&ns).await;
    assert_eq!(recorded(&ns).await.len(), 1);
    hold(&ns, e, b"y", first).await;
    prune(&ns).await;
    assert_eq!(recorded(&ns).await, BTreeSet::new());
    assert_eq!(texts_in(&ns, e, b"y").await, ["1", "2"]);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}
