//! Restores of files from which programs run: they are refused, and a program that begins to run between two steps keeps its file.

use super::labels::mkdir;
use super::restore::{in_steps, restore};
use super::*;

/// A tree with files of two states each; returns it, and the time of the first state.
async fn two_states(ns: &Namespace) -> (Ino, Timestamp) {
    let top = mkdir(ns, ROOT, b"top").await;
    let sub = mkdir(ns, top, b"sub").await;
    let all = [(top, &b"a"[..]), (top, b"b"), (sub, b"program")];
    save(ns, top, b"same", b"then").await;
    for (directory, name) in all {
        save(ns, directory, name, b"then").await;
    }
    let at = ns.now();
    for (directory, name) in all {
        save(ns, directory, name, b"now").await;
    }
    ns.drain().await.unwrap();
    (top, at)
}

async fn ino(ns: &Namespace, directory: Ino, name: &[u8]) -> Ino {
    let found = ns.tree.lookup(directory, name).await.unwrap();
    found.unwrap().ino
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_would_rewrite_a_running_program_is_refused_before_it_changes_anything() {
    for steps in [None, Some(1), Some(100)] {
        let cluster = TestCluster::new("restore-running");
        let ns = cluster.open().await;
        let (top, at) = two_states(&ns).await;
        if let Some(steps) = steps {
            in_steps(&ns, steps);
        }
        let sub = ino(&ns, top, b"sub").await;
        let programs = ns.tree.programs();
        let running = programs.run(ino(&ns, sub, b"program").await).await;
        // This one has the same bytes as then.
        let _unchanged = programs.run(ino(&ns, top, b"same").await).await;
        let (times, now) = (ns.history.view().labels(top).await.unwrap(), ns.now());
        let mut refused = vec![(
            restore(&ns, ROOT, b"top", at, AddedNames::Remove).await,
            "top/sub/program",
        )];
        if steps.is_none() {
            let alone = restore(&ns, sub, b"program", at, AddedNames::Remove).await;
            refused.push((alone, "program"));
        }
        for (refused, name) in refused {
            let text = format!("{name} is a program that runs; stop it, ");
            match refused {
                Err(StoreError::ProgramRuns(why)) if why.starts_with(&text) => {}
                other => panic!("{steps:?}: {other:?}"),
            }
        }
        for (directory, name) in [(top, &b"a"[..]), (top, b"b"), (sub, b"program")] {
            assert_eq!(content(&ns, directory, name).await.unwrap(), b"now");
            let view = ns.history.view();
            let last = view.entry_at(directory, name, Timestamp(u64::MAX)).await;
            assert!(last.unwrap().unwrap().version.timestamp < now);
        }
        assert_eq!(ns.history.view().labels(top).await.unwrap(), times);
        assert_eq!(ns.tree.under_restore.directory(), None);
        assert_eq!(ns.history.restore_lock.pinned(), None);
        drop(running);
        let program = ino(&ns, sub, b"program").await;
        let restored = restore(&ns, ROOT, b"top", at, AddedNames::Remove).await;
        assert_eq!(restored.unwrap().count, 3);
        assert_eq!(content(&ns, sub, b"program").await.unwrap(), b"then");
        assert_eq!(ino(&ns, sub, b"program").await, program);
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_begins_to_run_between_two_steps_keeps_its_file() {
    let cluster = TestCluster::new("restore-running-steps");
    let ns = cluster.open().await;
    let (top, at) = two_states(&ns).await;
    in_steps(&ns, 1);
    let sub = ino(&ns, top, b"sub").await;
    let program = ino(&ns, sub, b"program").await;
    let open = ns.tree.file(program).await.unwrap();
    let mut steps = ns.history.follow_restores();
    let task = tokio::spawn({
        let ns = ns.clone();
        async move { restore(&ns, ROOT, b"top", at, AddedNames::Remove).await }
    });
    let first = steps.recv().await.unwrap();
    let running = ns.tree.programs().run(program).await;
    first.followed.send(()).unwrap();
    while !task.is_finished() {
        tokio::select! {
            step = steps.recv() => step.unwrap().followed.send(()).unwrap(),
            () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
        }
    }
    task.await.unwrap().unwrap();
    assert_eq!(content(&ns, sub, b"program").await.unwrap(), b"then");
    assert_ne!(ino(&ns, sub, b"program").await, program);
    assert_eq!(open.read(0, 9).await.unwrap(), &b"now"[..]);
    assert_eq!(content(&ns, top, b"b").await.unwrap(), b"then");
    drop(running);
    leave(ns).await;
}
