//! What goes on beside a run, and beside a change of the policy.

use super::words::{DAY, HOUR, SECOND};
use super::*;
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
