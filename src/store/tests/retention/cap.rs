//! `history-max` and the brake: what goes ahead of time, in which order, and what waits for a confirmation.

use super::*;
use crate::env::Env;
use words::{DAY, HOUR};

const SAVED: u64 = 10_000;

fn policy(words: &[&str]) -> Policy {
    let mut policy = Policy::default();
    for word in words {
        policy.set(word).unwrap();
    }
    policy
}

/// A namespace whose file was saved every six hours for so many days, and one more file with a removed state and a label.
async fn saved_for(name: &str, days: u64) -> (TestCluster, Namespace) {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    for number in 0..days * 4 {
        cluster.env.advance(6 * HOUR);
        save(&ns, ROOT, b"f", &[number as u8; SAVED as usize]).await;
    }
    ns.drain().await.unwrap();
    (cluster, ns)
}

async fn set(ns: &Namespace, words: &[&str]) {
    let set = ns.retention.set_policy(&policy(words), InForce::Now).await;
    assert_eq!(set.unwrap(), PolicyChange::InForce);
}

/// Collects garbage and lets enough time pass that the cap looks at the history again.
async fn settle(cluster: &TestCluster, ns: &Namespace) {
    ns.drain().await.unwrap();
    ns.gc.reclaim().await.unwrap();
    cluster.env.advance(11 * 60_000_000_000);
}

async fn history_bytes(ns: &Namespace) -> u64 {
    ns.retention.amounts().await.unwrap().history().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_max_drops_the_oldest_grid_times_first_until_the_history_fits() {
    let (cluster, ns) = saved_for("cap", 40).await;
    let before = prune(&ns).await;
    settle(&cluster, &ns).await;
    assert!(before.waiting.is_none());
    let full = history_bytes(&ns).await;
    let limit = full / 100 * 85;
    set(&ns, &[&format!("history-max={limit}")]).await;
    let dry = ns.retention.dry_run().await.unwrap();
    assert!(dry.dropped.versions > 0);
    assert_eq!(history_bytes(&ns).await, full);
    assert_eq!(prune(&ns).await.dropped, dry.dropped);
    settle(&cluster, &ns).await;
    let left = history_bytes(&ns).await;
    assert!(
        left <= limit && left > limit / 100 * 85,
        "{left} of {limit}"
    );

    // What went first are days, as no week is older than the oldest day: hours and `keep-within` are as they were.
    let cap = ns.retention.cap().await.unwrap().unwrap();
    let asked = Policy::default();
    assert_eq!(cap.policy.weekly, Term::Off);
    assert!(cap.policy.daily < asked.daily, "{cap:?}");
    assert_eq!(
        (cap.policy.hourly, cap.policy.within),
        (Term::Forever, Term::Forever)
    );
    let horizons = ns.history.view().horizons().await.unwrap();
    let Term::For(days) = cap.policy.daily else {
        panic!("{cap:?}")
    };
    let reached = cluster.env.now() - horizons.oldest(Some(Tier::Daily)).0;
    assert!(
        reached <= days + HOUR && reached + 2 * HOUR > days,
        "{reached}"
    );
    // Nothing more goes while it fits, and new versions are filed by the shortened policy.
    assert_eq!(prune(&ns).await.dropped.versions, 0);
    assert_eq!(ns.core.policy().unwrap().daily, cap.policy.daily);
    leave(ns).await;
    let ns = cluster.open().await;
    assert_eq!(ns.core.policy().unwrap().daily, cap.policy.daily);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_never_touches_the_last_versions_and_is_lifted_when_the_history_is_far_below() {
    let (cluster, ns) = saved_for("cap-floor", 10).await;
    set(&ns, &["history-max=1"]).await;
    let held = prune(&ns).await;
    assert_eq!(held.dropped.versions, 0, "{held:?}");
    assert_eq!(held.waiting.unwrap().cause, WaitingCause::HistoryMax);
    assert!(!ns.retention.is_cap_reached().await.unwrap(), "it waits");
    let done = ns.retention.run(CONFIRMED).await.unwrap();
    assert!(
        done.dropped.versions > 20 && done.waiting.is_none(),
        "{done:?}"
    );
    settle(&cluster, &ns).await;
    assert_eq!(history_bytes(&ns).await, 3 * SAVED);
    let cap = ns.retention.cap().await.unwrap().unwrap();
    assert!(cap.policy.hourly == Term::Off && cap.policy.within < Term::For(DAY));
    // It cannot be met: nothing else goes, and it is not tried again at once.
    assert_eq!(prune(&ns).await.dropped.versions, 0);
    assert!(!ns.retention.is_cap_reached().await.unwrap());

    set(&ns, &["history-max=1G"]).await;
    prune(&ns).await;
    assert_eq!(ns.retention.cap().await.unwrap(), None);
    assert_eq!(ns.core.policy().unwrap().within, Term::For(DAY));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_set_is_not_shortened_by_the_cap_of_the_one_before() {
    let (cluster, ns) = saved_for("cap-policy", 10).await;
    let short = ["keep-within=5d", "grid=off", "history-max=150000"];
    let change = ns.retention.set_policy(&policy(&short), InForce::Now).await;
    change.unwrap();
    for _ in 0..2 {
        let report = ns.retention.run(CONFIRMED).await.unwrap();
        assert!(report.dropped.versions > 0, "{report:?}");
        settle(&cluster, &ns).await;
    }
    let left = history_bytes(&ns).await;
    assert!((112_500..=150_000).contains(&left), "{left}");
    let cap = ns.retention.cap().await.unwrap();
    assert!(cap.is_some_and(|cap| cap.policy.within < Term::For(5 * DAY)));
    // The same policy once more changes nothing.
    set(&ns, &short).await;
    assert!(ns.retention.cap().await.unwrap().is_some());

    let long = ["keep-within=6d", "history-max=150000"];
    set(&ns, &long).await;
    assert_eq!(ns.retention.cap().await.unwrap(), None);
    let asked = policy(&long);
    assert_eq!(ns.core.policy().as_deref(), Some(&asked));
    prune(&ns).await;
    assert_eq!(ns.core.policy().as_deref(), Some(&asked));
    // It is shortened by its own steps once the history is too large again: grid times go first.
    for number in 0..4 {
        cluster.env.advance(6 * HOUR);
        save(&ns, ROOT, b"f", &[number; SAVED as usize]).await;
    }
    settle(&cluster, &ns).await;
    ns.retention.run(CONFIRMED).await.unwrap();
    let cap = ns.retention.cap().await.unwrap().unwrap().policy;
    assert_eq!(cap.weekly, Term::Off);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_removed_names_outlast_the_cap() {
    let (cluster, ns) = saved_for("cap-labels", 5).await;
    save(&ns, ROOT, b"gone", &[7; 5000]).await;
    cluster.env.advance(2 * HOUR);
    ns.tree.unlink(ROOT, b"gone", &author()).await.unwrap();
    ns.drain().await.unwrap();
    let label = ns
        .history
        .create_label(ROOT, b"keep", None, &author())
        .await;
    label.unwrap();
    for number in 0..9 {
        cluster.env.advance(6 * HOUR);
        save(&ns, ROOT, b"f", &[200 + number; SAVED as usize]).await;
    }
    ns.drain().await.unwrap();
    set(&ns, &["history-max=1", "keep-last=1"]).await;
    let report = ns.retention.run(CONFIRMED).await.unwrap();
    assert_eq!(report.kept[&KeptBy::Label].versions, 1, "{report:?}");
    assert_eq!(report.kept[&KeptBy::Removed].versions, 1, "{report:?}");
    settle(&cluster, &ns).await;
    assert_eq!(history_bytes(&ns).await, 2 * SAVED + 5000);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_policy_waits_for_a_confirmation_and_what_is_due_as_filed_does_not() {
    let (cluster, ns) = saved_for("brake", 4).await;
    let strict = ["keep-within=1h", "grid=off", "keep-last=1"];
    let change = ns
        .retention
        .set_policy(&policy(&strict), InForce::Now)
        .await;
    assert!(matches!(change.unwrap(), PolicyChange::Pending(_)));
    let waiting = ns.retention.waiting_drops().await.unwrap().unwrap();
    assert_eq!(waiting.cause, WaitingCause::Policy);
    assert_eq!(
        (waiting.drops.versions, waiting.drops.all),
        (14, 15 * SAVED)
    );
    assert_eq!(prune(&ns).await.waiting, Some(waiting));
    let dry = ns.retention.dry_run().await.unwrap();
    assert_eq!(dry.dropped.versions, 14);
    assert_eq!(ns.core.policy().unwrap().last, 3, "not in force");

    // Two weeks after the first days, some are due as they were filed: these go without a confirmation.
    cluster.env.advance(12 * DAY);
    let report = prune(&ns).await;
    assert!((3..8).contains(&report.dropped.versions), "{report:?}");
    assert!(report.waiting.is_some());
    let report = ns.retention.run(CONFIRMED).await.unwrap();
    assert!(
        report.dropped.versions > 0 && report.waiting.is_none(),
        "{report:?}"
    );
    assert_eq!(recorded(&ns).await.len(), 1);
    assert_eq!(ns.core.policy().unwrap().last, 1);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_policy_takes_the_waiting_one_back() {
    let (_cluster, ns) = saved_for("brake-back", 4).await;
    let strict = policy(&["keep-within=1h", "grid=off"]);
    let change = ns.retention.set_policy(&strict, InForce::Now).await;
    assert!(matches!(change.unwrap(), PolicyChange::Pending(_)));
    set(&ns, &[]).await;
    assert_eq!(ns.retention.waiting_drops().await.unwrap(), None);
    assert_eq!(ns.retention.pending_policy().await.unwrap(), None);
    let report = ns.retention.run(CONFIRMED).await.unwrap();
    assert_eq!(report.dropped.versions, 0);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pruned_while_the_namespace_clock_and_the_date_of_the_store_differ_by_more_than_a_day()
 {
    let memory = Arc::new(object_store::memory::InMemory::new());
    let backend = Backend::over("s3://bucket", memory, &BackendConfig::default());
    // The objects of this store have dates of this machine's clock, which the namespace's clock is far from.
    let env = Arc::new(SeededEnv::new(1));
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let cache = tempfile::tempdir().unwrap();
    let config = config(cache.path().to_owned());
    let clock: Arc<SeededEnv> = Arc::clone(&env);
    let opened = Namespace::open(&backend, "default", config, clock, tasks).await;
    let ns = opened.unwrap();
    for number in 0..5 {
        save(&ns, ROOT, b"f", &[number; 100]).await;
    }
    ns.drain().await.unwrap();
    let real = crate::env::SystemEnv.now();
    if real > env.now() {
        env.advance(real - env.now());
        let report = prune(&ns).await;
        assert_eq!(report.waiting, None, "the clocks agree");
    }
    env.advance(2 * DAY);
    let refused = ns.retention.run(DROP).await.unwrap_err().to_string();
    assert!(refused.contains("differ by more than a day"), "{refused}");
    leave(ns).await;
}
