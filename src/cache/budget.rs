//! A limit of bytes: of dirty bytes, of those of them that are in memory, or of the bytes of reads under way.
//!
//! A caller takes a permit and waits while the budget is used up, in FIFO order. Invariant: the bytes of all permits are at
//! most the maximum. The exception is a single request larger than the maximum, which is admitted when there is no other
//! permit, so that no request waits for ever.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::sync::{Arc, Mutex, lock};

/// A shared limit of bytes; clones are the same budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    shared: Arc<BudgetShared>,
}

#[derive(Debug)]
struct BudgetShared {
    max: u64,
    state: Mutex<BudgetState>,
    pressed: Notify,
}

#[derive(Debug, Default)]
struct BudgetState {
    used: u64,
    waiters: VecDeque<BudgetWaiter>,
}

#[derive(Debug)]
struct BudgetWaiter {
    bytes: u64,
    grant: oneshot::Sender<BudgetPermit>,
}

impl BudgetState {
    fn admits(&self, bytes: u64, max: u64) -> bool {
        self.used == 0 || self.used.checked_add(bytes).is_some_and(|sum| sum <= max)
    }
}

impl BudgetShared {
    /// Grants free bytes to waiting callers in FIFO order.
    fn serve(self: &Arc<Self>) {
        let mut granted = Vec::new();
        {
            let mut state = lock(&self.state);
            while let Some(first) = state.waiters.front() {
                let admitted = state.admits(first.bytes, self.max);
                if !admitted && !first.grant.is_closed() {
                    break;
                }
                let Some(waiter) = state.waiters.pop_front() else {
                    break;
                };
                if admitted && !waiter.grant.is_closed() {
                    state.used += waiter.bytes;
                    granted.push(waiter);
                }
            }
        }
        for BudgetWaiter { bytes, grant } in granted {
            let budget = Arc::clone(self);
            // If the waiter was cancelled meanwhile, the permit is dropped here, which serves the next one.
            drop(grant.send(BudgetPermit { budget, bytes }));
        }
    }
}

impl Budget {
    /// Creates a budget of `max` bytes.
    pub(crate) fn new(max: u64) -> Self {
        Self {
            shared: Arc::new(BudgetShared {
                max,
                state: Mutex::default(),
                pressed: Notify::new(),
            }),
        }
    }

    /// Takes `bytes` bytes, after all callers that were waiting before. A request for more than the maximum is admitted alone.
    /// A cancelled call leaves the queue.
    pub(crate) async fn acquire(&self, bytes: u64) -> BudgetPermit {
        let (grant, permit) = oneshot::channel();
        {
            let mut state = lock(&self.shared.state);
            if let Some(permit) = self.admit(&mut state, bytes) {
                return permit;
            }
            state.waiters.push_back(BudgetWaiter { bytes, grant });
        }
        self.shared.pressed.notify_one();
        let mut waiting = WaitGuard {
            budget: &self.shared,
            permit,
        };
        match (&mut waiting.permit).await {
            Ok(permit) => permit,
            // Unreachable: a waiter leaves the queue only with a permit or when `waiting` is dropped. An empty permit is
            // harmless.
            Err(_) => self.permit(0),
        }
    }

    /// Takes `bytes` bytes if they are free and no other caller waits; returns `None` otherwise.
    pub(crate) fn try_acquire(&self, bytes: u64) -> Option<BudgetPermit> {
        self.admit(&mut lock(&self.shared.state), bytes)
    }

    /// Counts the bytes of a buffer for as long as a part of the returned one exists, without waiting; `None` if so many are not free.
    pub(crate) fn track_buffer(&self, bytes: Bytes) -> Option<Bytes> {
        let permit = self.try_acquire(bytes.len() as u64)?;
        Some(Bytes::from_owner(HeldBuffer {
            bytes,
            _permit: permit,
        }))
    }

    /// The bytes that no permit has.
    pub(crate) fn free(&self) -> u64 {
        self.shared.max.saturating_sub(self.used())
    }

    /// The bytes of all permits.
    pub(crate) fn used(&self) -> u64 {
        lock(&self.shared.state).used
    }

    /// Waits until a caller of `acquire` has to wait; returns at once if one had to since the last return. For one task, which
    /// then frees bytes.
    pub(crate) async fn pressure(&self) {
        self.shared.pressed.notified().await;
    }

    fn admit(&self, state: &mut BudgetState, bytes: u64) -> Option<BudgetPermit> {
        if bytes > 0 {
            if !state.waiters.is_empty() || !state.admits(bytes, self.shared.max) {
                return None;
            }
            state.used += bytes;
        }
        Some(self.permit(bytes))
    }

    fn permit(&self, bytes: u64) -> BudgetPermit {
        BudgetPermit {
            budget: Arc::clone(&self.shared),
            bytes,
        }
    }
}

/// A place in the queue. Its drop serves the queue, because later requests may have waited behind a large one.
#[derive(Debug)]
struct WaitGuard<'a> {
    budget: &'a Arc<BudgetShared>,
    permit: oneshot::Receiver<BudgetPermit>,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.permit.close();
        self.budget.serve();
    }
}

/// A buffer that is counted in a budget until it is dropped.
struct HeldBuffer {
    bytes: Bytes,
    _permit: BudgetPermit,
}

impl AsRef<[u8]> for HeldBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes taken from a budget; a drop returns them.
#[derive(Debug)]
#[must_use]
pub(crate) struct BudgetPermit {
    budget: Arc<BudgetShared>,
    bytes: u64,
}

impl BudgetPermit {
    /// The number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Moves `bytes` bytes, or all if there are fewer, into a new permit.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            budget: Arc::clone(&self.budget),
            bytes,
        }
    }

    /// Adds the bytes of another permit of the same budget.
    pub(crate) fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget));
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            lock(&self.budget.state).used -= self.bytes;
            self.budget.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::join_all;

    #[tokio::test]
    async fn free_bytes_are_granted_at_once() {
        let budget = Budget::new(10);
        let one = budget.acquire(6).await;
        assert!(budget.try_acquire(5).is_none());
        let two = budget.try_acquire(4).unwrap();
        assert_eq!(budget.used(), 10);
        assert_eq!(budget.try_acquire(0).unwrap().bytes(), 0);
        drop(one);
        assert_eq!(budget.used(), 4);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn waiters_are_served_in_order() {
        let budget = Budget::new(10);
        let held = budget.acquire(10).await;
        let mut large = Box::pin(budget.acquire(8));
        let mut small = Box::pin(budget.acquire(1));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none());
        let mut held = held;
        drop(held.split(2));
        // The small request would fit, but must not overtake, and neither may a request that does not wait.
        assert!((&mut small).now_or_never().is_none());
        assert!(budget.try_acquire(1).is_none());
        drop(held);
        let large = large.now_or_never().unwrap();
        let small = small.now_or_never().unwrap();
        assert_eq!((large.bytes(), small.bytes()), (8, 1));
        assert_eq!(budget.used(), 9);
    }

    #[tokio::test]
    async fn more_than_the_maximum_is_admitted_alone() {
        let budget = Budget::new(10);
        let held = budget.acquire(1).await;
        let mut huge = Box::pin(budget.acquire(u64::MAX));
        assert!((&mut huge).now_or_never().is_none());
        drop(held);
        let huge = huge.now_or_never().unwrap();
        assert!(budget.try_acquire(1).is_none());
        drop(huge);
        assert!(budget.try_acquire(1).is_some());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_does_not_hold_up_the_others() {
        let budget = Budget::new(10);
        let _held = budget.acquire(5).await;
        let mut large = Box::pin(budget.acquire(8));
        let mut small = Box::pin(budget.acquire(5));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none());
        drop(large);
        assert_eq!(small.now_or_never().unwrap().bytes(), 5);
        assert_eq!(budget.used(), 5);
    }

    #[tokio::test]
    async fn a_grant_to_a_cancelled_waiter_is_returned() {
        let budget = Budget::new(10);
        let held = budget.acquire(10).await;
        let mut gone = Box::pin(budget.acquire(10));
        assert!((&mut gone).now_or_never().is_none());
        drop(held);
        assert_eq!(budget.used(), 10);
        drop(gone);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn permits_split_and_merge() {
        let budget = Budget::new(10);
        let mut one = budget.acquire(10).await;
        let mut two = one.split(3);
        assert_eq!((one.bytes(), two.bytes()), (7, 3));
        two.merge(one.split(99));
        assert_eq!((one.bytes(), two.bytes(), budget.used()), (0, 10, 10));
        drop(one);
        assert_eq!(budget.used(), 10);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn pressure_is_reported_once_per_wait() {
        let budget = Budget::new(1);
        let held = budget.acquire(1).await;
        assert!(budget.pressure().now_or_never().is_none());
        let mut waiting = Box::pin(budget.acquire(1));
        assert!((&mut waiting).now_or_never().is_none());
        budget.pressure().await;
        assert!(budget.pressure().now_or_never().is_none());
        drop(held);
        drop(waiting.await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_tasks_stay_within_the_bound() {
        let tasks = crate::task::Tasks::new(tokio::runtime::Handle::current());
        let budget = Budget::new(100);
        let work = |seed: u64| {
            let budget = budget.clone();
            async move {
                for round in 0..200 {
                    let want = 1 + (seed * 31 + round * 17) % 60;
                    let timeout = std::time::Duration::from_micros(want * 20);
                    // Some requests are cancelled while they wait.
                    if let Ok(permit) = tokio::time::timeout(timeout, budget.acquire(want)).await {
                        assert!(budget.used() <= 100 && budget.used() >= permit.bytes());
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        join_all(
            (0..8)
                .map(work)
                .map(|work| tasks.spawn("test-writer", work)),
        )
        .await
        .into_iter()
        .for_each(Result::unwrap);
        assert_eq!(budget.used(), 0);
        drop(budget.acquire(100).await);
    }
}
