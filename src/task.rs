//! Groups of named tasks, with a stop signal, a wait for their end, and a record of the first panic.
//!
//! Tasks can be spawned at any time. [`Tasks::stop`] sets a signal that tasks wait for or check; it aborts no task.
//! [`Tasks::join`] returns when the group has no running task.
//! Invariant: a panic in a task is never lost. The first one poisons the group permanently, before the task's `JoinHandle`
//! resolves. The owner of the group checks [`Tasks::poisoned`] before it acknowledges work.

use crate::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, lock};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::TryLockError;
use std::task::{Context, Poll, Waker};
use std::thread::LocalKey;
use tokio::runtime::{Handle, RuntimeFlavor};
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

    /// Polls `future` once on the calling thread, inside the runtime's context, and runs the rest of it, if any, as a task called `name`. A call that
    /// waits for nothing is then answered without waking another thread. A panic in it poisons the group.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    pub fn start<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let member = self.enter(name);
        let mut future = Box::pin(async move {
            let _member = member;
            future.await;
        });
        let first = {
            let _runtime = self.handle.enter();
            let _mark = FirstPoll::begin();
            // The task polls again and leaves its own waker, so what becomes ready in between is not missed.
            let mut context = Context::from_waker(Waker::noop());
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)))
        };
        match first {
            Ok(Poll::Pending) => drop(self.handle.spawn(future)),
            // The member has recorded a panic.
            Ok(Poll::Ready(())) | Err(_) => {}
        }
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
        if LocalKey::with(&BLOCKING_INLINE, Cell::get) {
            return self.spawn(name, async move { work() });
        }
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

thread_local! {
    /// Whether this thread is in the first poll of [`Tasks::start`].
    static FIRST_POLL: Cell<bool> = const { Cell::new(false) };
}

thread_local! {
    /// Whether blocking work that this thread starts runs on the runtime's own thread.
    static BLOCKING_INLINE: Cell<bool> = const { Cell::new(false) };
}

/// Lets blocking work that this thread starts run as tasks of the runtime, from now on: for a simulation, which repeats exactly only if nothing
/// runs beside it.
pub fn run_blocking_inline() {
    LocalKey::with(&BLOCKING_INLINE, |inline| Cell::set(inline, true));
}

/// Marks the thread during the first poll of [`Tasks::start`].
struct FirstPoll;

impl FirstPoll {
    fn begin() -> Self {
        LocalKey::with(&FIRST_POLL, |mark| Cell::set(mark, true));
        Self
    }
}

impl Drop for FirstPoll {
    fn drop(&mut self) {
        LocalKey::with(&FIRST_POLL, |mark| Cell::set(mark, false));
    }
}

/// Continues on a thread of the runtime: a future that [`Tasks::start`] polls on its caller's thread awaits this before work that a slow disk or much
/// computing makes long.
pub(crate) fn leave_caller_thread() -> LeaveCallerThread {
    LeaveCallerThread
}

/// The future of [`leave_caller_thread`].
#[derive(Debug)]
pub(crate) struct LeaveCallerThread;

impl Future for LeaveCallerThread {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<()> {
        // The task that `start` makes of a pending future polls it at once, so nothing has to wake it.
        match LocalKey::with(&FIRST_POLL, Cell::get) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

/// Number of attempts to take a lock that [`lock_slow`] makes before it counts the holder as waiting.
const LOCK_ATTEMPTS: usize = 64;

/// Locks a mutex whose holder may wait for a disk. While a thread of the runtime waits for it, another one goes on with its tasks.
pub(crate) fn lock_slow<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..LOCK_ATTEMPTS {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(guard)) => return guard.into_inner(),
            Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
        }
    }
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| lock(mutex)),
        _ => lock(mutex),
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
mod tests;
