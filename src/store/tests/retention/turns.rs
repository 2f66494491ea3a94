//! What goes on beside a run, and beside a change of the policy.

use super::words::{DAY, HOUR, SECOND};
use super::*;
use crate::store::schema::retention_rows::{DirectoryPolicyRow, PolicySpan};
use crate::store::tests::labels::mkdir;
use std::pin::{Pin, pin};
use std::task::Poll;

/// Versions that are due: more than a dry run looks at in one go.
const DUE: u64 = 300;

/// A namespace with many versions that are due.
async fn many_due(name: &str) -> (TestCluster, Namespace) {
    let words = ["keep-within=1h", "grid=off", "keep-last=0"];
    let (cluster, ns) = opened_with(name, &words).await;
    for number in 0..=DUE {
        let name = format!("f{}", number % 10);
        save(&ns, ROOT, name.as_bytes(), number.to_string().as_bytes()).await;
        cluster.env.advance(SECOND);
    }
    cluster.env.advance(DAY + HOUR);
    ns.drain().await.unwrap();
    (cluster, ns)
}

/// Begins a call, which cannot end at once.
async fn begin<F: Future>(mut call: Pin<&mut F>) {
    let begun = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
    assert!(begun.await.is_pending(), "it has ended already");
}

/// Begins a run that shows its horizons for a long time before its first drop.
async fn long_run(ns: &Namespace) -> tokio::task::JoinHandle<Result<RetentionReport, StoreError>> {
    let options = RunOptions {
        grace: Duration::from_secs(3600),
        ..DROP
    };
    let retention = Arc::clone(&ns.retention);
    let run = tokio::spawn(async move { retention.run(options).await });
    while ns
        .retention
        .horizons()
        .await
        .unwrap()
        .is_exact(Timestamp(1))
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_go_on_beside_a_run() {
    let (_cluster, ns) = many_due("turns-beside").await;
    let before = ns.retention.dry_run().await.unwrap();
    assert!(before.dropped.versions > DUE - 10, "{before:?}");
    let run = long_run(&ns).await;
    let (one, other) = tokio::join!(ns.retention.dry_run(), ns.retention.dry_run());
    assert_eq!((one.unwrap(), other.unwrap()), (before.clone(), before));
    let again = ns.retention.run(DROP).await;
    assert!(matches!(again, Err(StoreError::Busy(_))), "{again:?}");
    let mut policy = ns.retention.policy().await.unwrap().unwrap();
    policy.set("keep-last=1").unwrap();
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    assert!(matches!(set, Err(StoreError::Busy(_))), "{set:?}");
    ns.retention.end().await;
    let ended = run.await.unwrap();
    assert!(matches!(ended, Err(StoreError::Closed)), "{ended:?}");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_answers_for_the_policy_and_the_versions_with_which_it_began() {
    let (_cluster, ns) = many_due("turns-began").await;
    let before = ns.retention.dry_run().await.unwrap();
    let retention = Arc::clone(&ns.retention);
    let (mut one, mut other) = (pin!(retention.dry_run()), pin!(retention.dry_run()));
    begin(one.as_mut()).await;
    let mut longer = ns.retention.policy().await.unwrap().unwrap();
    longer.set("keep-last=5").unwrap();
    let set = ns.retention.set_policy(&longer, InForce::Usual).await;
    assert_eq!(set.unwrap(), PolicyChange::InForce);
    begin(other.as_mut()).await;
    let run = prune(&ns).await;
    assert_eq!(run.kept[&KeptBy::Last].versions, 50);
    assert_eq!(one.await.unwrap(), before);
    assert_eq!(other.await.unwrap(), run);
    assert_eq!(ns.retention.dry_run().await.unwrap().examined(), 0);
    leave(ns).await;
}

/// Sets one word of a policy.
fn with_word(mut policy: Policy, word: &str) -> Result<Policy, StoreError> {
    policy.set(word).unwrap();
    Ok(policy)
}

const WORDS: [&str; 4] = [
    "keep-last=7",
    "keep-within=2d",
    "keep-monthly=1y",
    "keep-removed=40d",
];

/// Fails if a policy lacks one of the words.
fn check_words(policy: &Policy) {
    let settings = policy.settings().into_iter();
    let settings: Vec<String> = settings
        .map(|(word, value)| format!("{word}={value}"))
        .collect();
    for word in WORDS {
        assert!(
            settings.iter().any(|set| set == word),
            "{settings:?} without {word}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_policy_at_the_same_time_lose_no_word() {
    let (_cluster, ns) = opened_with("turns-words", &[]).await;
    let changes = WORDS.map(|word| {
        let retention = Arc::clone(&ns.retention);
        tokio::spawn(async move {
            let change = retention.change_policy(InForce::Usual, |policy| with_word(policy, word));
            change.await
        })
    });
    for change in changes {
        assert_eq!(change.await.unwrap().unwrap(), PolicyChange::InForce);
    }
    check_words(&ns.retention.policy().await.unwrap().unwrap());
    // Stricter ones too, each over the one before, which is not in force yet.
    let (last, within) = tokio::join!(
        ns.retention
            .change_policy(InForce::Usual, |policy| with_word(policy, "keep-last=1")),
        ns.retention
            .change_policy(InForce::Usual, |policy| with_word(policy, "keep-within=1h")),
    );
    assert!(matches!(last.unwrap(), PolicyChange::Pending(_)));
    assert!(matches!(within.unwrap(), PolicyChange::Pending(_)));
    let (pending, _) = ns.retention.pending_policy().await.unwrap().unwrap();
    assert_eq!(pending.last, 1);
    assert_eq!(pending.within, Term::For(HOUR));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_and_a_change_of_the_policy_wait_for_a_change_before_them() {
    let (_cluster, ns) = many_due("turns-waits").await;
    let retention = Arc::clone(&ns.retention);
    let changing = retention.policy_turn.lock().await;
    let turn = retention.turn.lock().await;
    let mut run = pin!(retention.run(DROP));
    begin(run.as_mut()).await;
    let change = |policy| with_word(policy, "keep-last=5");
    let mut changed = pin!(retention.change_policy(InForce::Usual, change));
    begin(changed.as_mut()).await;
    drop((turn, changing));
    assert!(run.await.unwrap().dropped.versions > DUE - 10);
    assert_eq!(changed.await.unwrap(), PolicyChange::InForce);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_policy_of_a_directory_at_the_same_time_lose_no_word() {
    let (_cluster, ns) = opened_with("turns-directory", &[]).await;
    let directory = mkdir(&ns, ROOT, b"d").await;
    let changes = WORDS.map(|word| {
        let retention = Arc::clone(&ns.retention);
        tokio::spawn(async move {
            let change = |own: Option<Policy>| {
                with_word(own.unwrap_or_else(Policy::unlimited), word).map(Some)
            };
            retention.change_directory_policy(directory, change).await
        })
    });
    for change in changes {
        change.await.unwrap().unwrap();
    }
    check_words(&ns.retention.own_policy(directory).await.unwrap().unwrap());
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_policy_leaves_those_of_directories_to_their_changes() {
    let (_cluster, ns) = opened_with("turns-memory", &[]).await;
    let directory = mkdir(&ns, ROOT, b"d").await;
    // A change of a directory's policy lets versions be filed by it before its row is queued.
    let row = DirectoryPolicyRow {
        spans: vec![PolicySpan {
            from: ns.now(),
            until: None,
            policy: Policy::of_directory("1h").unwrap(),
        }],
        ..DirectoryPolicyRow::default()
    };
    let early = ns.core.directory_policies().with(directory, row);
    ns.core.use_directory_policies(early.clone());
    let change = |policy| with_word(policy, "keep-last=7");
    let changed = ns.retention.change_policy(InForce::Usual, change).await;
    assert_eq!(changed.unwrap(), PolicyChange::InForce);
    assert_eq!(*ns.core.directory_policies(), early);
    leave(ns).await;
}
