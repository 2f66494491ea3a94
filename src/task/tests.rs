//! Groups, their stop signal and their poison; first polls on the thread of the caller.

use super::*;
use crate::sync::AtomicBool;
use std::time::Duration;

fn group() -> Tasks {
    Tasks::new(Handle::current())
}

#[tokio::test]
async fn join_waits_for_every_task() {
    let tasks = group();
    tasks.join().await;
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let (done, inner) = (Arc::clone(&done), tasks.clone());
        tasks.spawn("outer", async move {
            tokio::task::yield_now().await;
            inner.spawn("inner", async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                done.fetch_add(1, Ordering::SeqCst);
            });
        });
    }
    tasks.join().await;
    assert_eq!(done.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn the_stop_signal_reaches_early_and_late_waiters() {
    let tasks = group();
    assert!(!tasks.is_stopped());
    let early = tasks.clone();
    let waiter = tasks.spawn("waiter", async move { early.stopped().await });
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    tasks.stop();
    waiter.await.unwrap();
    tasks.stopped().await;
    assert!(tasks.clone().is_stopped());
}

#[tokio::test]
async fn a_panic_poisons_the_group_and_the_first_name_stays() {
    let tasks = group();
    assert_eq!(tasks.spawn("fine", async { 7 }).await.unwrap(), 7);
    assert_eq!(tasks.poisoned(), None);
    let failed = tasks.spawn("first", async {
        tokio::task::yield_now().await;
        panic!("planted");
    });
    assert!(failed.await.unwrap_err().is_panic());
    assert_eq!(tasks.poisoned(), Some("first"));
    let failed = tasks.blocking("second", || panic!("planted"));
    assert!(failed.await.unwrap_err().is_panic());
    assert_eq!(tasks.poisoned(), Some("first"));
    tasks.join().await;
}

#[tokio::test]
async fn an_aborted_task_leaves_the_group_unpoisoned() {
    let tasks = group();
    let started = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&started);
    let task = tasks.spawn("endless", async move {
        mark.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    });
    while !started.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    task.abort();
    // This task is aborted before its first poll.
    tasks
        .spawn("unstarted", std::future::pending::<()>())
        .abort();
    tasks.join().await;
    assert_eq!(tasks.poisoned(), None);
}

#[tokio::test]
async fn a_blocking_panic_poisons_too() {
    let tasks = group();
    assert_eq!(tasks.blocking("sum", || 2 + 2).await.unwrap(), 4);
    assert!(tasks.blocking("bad", || panic!("planted")).await.is_err());
    assert_eq!(tasks.poisoned(), Some("bad"));
    assert_eq!(tasks.failed().await, "bad");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_started_future_that_is_ready_runs_on_the_thread_of_its_caller() {
    let (tasks, seen) = (group(), Arc::new(Mutex::new(Vec::new())));
    let first = Arc::clone(&seen);
    tasks.start("ready", async move {
        lock(&first).push(std::thread::current().id());
    });
    assert_eq!(*lock(&seen), [std::thread::current().id()]);
    let (first, caller) = (Arc::clone(&seen), std::thread::current().id());
    tasks.start("long", async move {
        leave_caller_thread().await;
        lock(&first).push(std::thread::current().id());
    });
    tasks.join().await;
    let threads = lock(&seen).clone();
    assert!(threads.len() == 2 && threads[1] != caller, "{threads:?}");
    // On a thread of the runtime there is nothing to leave.
    leave_caller_thread().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_started_future_that_waits_goes_on_as_a_member_of_the_group() {
    let tasks = group();
    for _ in 0..200 {
        let (tell, told) = tokio::sync::oneshot::channel();
        // The value may come before, between and after the first two polls.
        let sender = std::thread::spawn(move || tell.send(7));
        let (done, is_done) = tokio::sync::oneshot::channel();
        tasks.start("waits", async move {
            let value: i32 = told.await.unwrap();
            tokio::time::sleep(Duration::from_micros(10)).await;
            done.send(value).unwrap();
        });
        assert_eq!(is_done.await.unwrap(), 7);
        sender.join().unwrap().unwrap();
    }
    tasks.start("sleeps", tokio::time::sleep(Duration::from_millis(30)));
    let begun = std::time::Instant::now();
    tasks.join().await;
    assert!(begun.elapsed() >= Duration::from_millis(25));
}

#[tokio::test]
async fn a_panic_in_the_first_poll_poisons_and_ends_with_the_future() {
    let tasks = group();
    tasks.start("first poll", async { panic!("planted") });
    assert_eq!(tasks.poisoned(), Some("first poll"));
    tasks.join().await;
    let second = group();
    second.start("second poll", async {
        tokio::task::yield_now().await;
        panic!("planted");
    });
    assert_eq!(second.failed().await, "second poll");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tasks_go_on_while_a_thread_of_the_runtime_waits_for_a_lock() {
    let (tasks, mutex) = (group(), Arc::new(Mutex::new(0)));
    let (theirs, held) = (Arc::clone(&mutex), std::sync::mpsc::channel());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let mut value = lock(&theirs);
        held.0.send(()).unwrap();
        released.recv().unwrap();
        *value += 1;
    });
    held.1.recv().unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let mutex = Arc::clone(&mutex);
            tasks.spawn("waits", async move { *lock_slow(&mutex) += 1 })
        })
        .collect();
    // The one worker thread waits for the lock now, unless another thread has taken its tasks over.
    tasks.spawn("other", async {}).await.unwrap();
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    release.send(()).unwrap();
    holder.join().unwrap();
    tasks.join().await;
    assert_eq!(*lock_slow(&mutex), 4);
}
