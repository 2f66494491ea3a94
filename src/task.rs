//! Groups of named tasks, with a stop signal, a wait for their end, and a record of the first panic.
//!
//! Tasks can be spawned at any time. [`Tasks::stop`] sets a signal that tasks wait for or check; it aborts no task.
//! [`Tasks::join`] returns when the group has no running task.
//! Invariant: a panic in a task is never lost. The first one poisons the group permanently, before the task's `JoinHandle`
//! resolves. The owner of the group checks [`Tasks::poisoned`] before it acknowledges work.

use crate::sync::{Arc, AtomicUsize, Ordering};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// A group of tasks; clones are the same group.
#[derive(Debug, Clone)]
pub struct Tasks {
    handle: Handle,
    group: Arc<TaskGroup>,
}

#[derive(Debug)]
struct TaskGroup {
    running: AtomicUsize,
    idle: Notify,
    stop: watch::Sender<bool>,
    poisoned: watch::Sender<Option<&'static str>>,
}

impl Tasks {
    /// Creates an empty group whose tasks run on the runtime of `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self {
            handle,
            group: Arc::new(TaskGroup {
                running: AtomicUsize::new(0),
                idle: Notify::new(),
                stop: watch::Sender::new(false),
                poisoned: watch::Sender::new(None),
            }),
        }
    }

    /// Runs `future` as a task called `name`. The task continues when the handle is dropped; a panic in it poisons the group.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let member = self.enter(name);
        self.handle.spawn(async move {
            let _member = member;
            future.await
        })
    }

    /// Runs `work` on the blocking pool as a task called `name`; a panic in it poisons the group.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    pub fn blocking<F, T>(&self, name: &'static str, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let member = self.enter(name);
        self.handle.spawn_blocking(move || {
            let _member = member;
            work()
        })
    }

    /// Sets the stop signal, permanently.
    pub fn stop(&self) {
        self.group.stop.send_replace(true);
    }

    /// Waits for the stop signal; returns at once if it is set.
    pub async fn stopped(&self) {
        // The sender lives in the group that `self` holds, so the wait cannot fail.
        drop(self.group.stop.subscribe().wait_for(|stop| *stop).await);
    }

    /// Tells whether the stop signal is set.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.group.stop.borrow()
    }

    /// Waits until the group has no running task. Never returns in a task of the group.
    pub async fn join(&self) {
        loop {
            let idle = self.group.idle.notified();
            tokio::pin!(idle);
            // Registered before the count is read, so that no notification is missed.
            idle.as_mut().enable();
            if self.group.running.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Returns the name of the first task of the group that panicked.
    #[must_use]
    pub fn poisoned(&self) -> Option<&'static str> {
        *self.group.poisoned.borrow()
    }

    /// Waits until a task of the group has panicked, and returns its name.
    pub async fn failed(&self) -> &'static str {
        let mut poisoned = self.group.poisoned.subscribe();
        loop {
            if let Some(name) = *poisoned.borrow_and_update() {
                return name;
            }
            // The sender lives in the group that `self` holds, so the wait cannot fail.
            drop(poisoned.changed().await);
        }
    }

    fn enter(&self, name: &'static str) -> Member {
        self.group.running.fetch_add(1, Ordering::Relaxed);
        Member {
            group: Arc::clone(&self.group),
            name,
        }
    }
}

/// The membership of a task in its group; dropped when the task ends, is aborted, or is dropped before it starts.
#[derive(Debug)]
struct Member {
    group: Arc<TaskGroup>,
    name: &'static str,
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a task panicked");
            // The first name is kept: later panics may be consequences of the first.
            self.group.poisoned.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(self.name);
                is_first
            });
        }
        if self.group.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.group.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
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
}
