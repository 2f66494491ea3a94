//! Which directories a restore in steps left as they are, told after a crash.

use std::time::Duration;

use super::labels::mkdir;
use super::restore::in_steps;
use super::restore_steps::{halted, restored};
use super::*;

const HOUR: u64 = 3600 * 1_000_000_000;

/// A restored tree with a directory in the middle that keeps only an hour; returns the time to go back to.
async fn limited_tree(cluster: &TestCluster, ns: &Namespace) -> Timestamp {
    let top = mkdir(ns, ROOT, b"top").await;
    let build = mkdir(ns, top, b"build").await;
    let policy = Policy::of_directory("keep-within=1h grid=off keep-last=0").unwrap();
    let set = ns.retention.set_directory_policy(build, Some(policy));
    set.await.unwrap();
    let all = [
        (top, &b"a"[..]),
        (build, b"o"),
        (top, b"c"),
        (top, b"d"),
        (top, b"e"),
    ];
    for (directory, name) in all {
        save(ns, directory, name, b"then").await;
    }
    cluster.env.advance(HOUR);
    let at = ns.now();
    cluster.env.advance(HOUR);
    for (directory, name) in all {
        save(ns, directory, name, b"now").await;
    }
    cluster.env.advance(3 * HOUR);
    ns.drain().await.unwrap();
    let brake = Brake::Released;
    let grace = Duration::ZERO;
    let run = ns.retention.run(RunOptions { grace, brake }).await;
    assert!(run.unwrap().dropped.versions > 0);
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_that_completes_a_restore_names_what_was_left_before_the_crash_too() {
    let mut halts = 0;
    for steps in 1..100 {
        let cluster = TestCluster::new("restore-left");
        let ns = cluster.open().await;
        let at = limited_tree(&cluster, &ns).await;
        in_steps(&ns, 1);
        if !halted(&ns, at, steps).await {
            assert_eq!(ns.history.completed_restore(), None);
            leave(ns).await;
            break;
        }
        halts += 1;
        let left = cluster.kill(ns).await;
        let ns = left.open().await;
        in_steps(&ns, 1);
        restored(&ns).await;
        let mut done = None;
        for _ in 0..600 {
            done = ns.history.completed_restore();
            if done.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A crash after the last step left nothing to complete.
        let Some(done) = done else {
            break;
        };
        assert_eq!((done.path.as_str(), done.at), ("/top", at));
        assert_eq!(done.left, ["/top/build"], "a crash after {steps} steps");
        let top = ns.tree.lookup(ROOT, b"top").await.unwrap().unwrap().ino;
        let build = ns.tree.lookup(top, b"build").await.unwrap().unwrap().ino;
        assert_eq!(content(&ns, top, b"e").await.unwrap(), b"then");
        assert_eq!(content(&ns, build, b"o").await.unwrap(), b"now");
        leave(ns).await;
    }
    assert!(halts > 2, "{halts}");
}
