//! Group commit: one flush makes the commits of many waiting callers durable.
//!
//! There is no task for it: of the waiting callers, one at a time has the *turn*. It waits for a moment for more callers and
//! flushes once; the result releases all callers whose commits it covers. If the caller with the turn is dropped, another one
//! takes the turn. Commits without a waiting caller are flushed by the engine once per second.
//! Invariant: a caller returns Ok only after its commit was reported durable, and an error only from a flush that began after
//! its call. One flush is under way at a time.

use super::{Commit, MetaError};
use crate::sync::{AtomicUsize, Ordering};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::sync::watch;

/// How long the caller with the turn waits for more callers, if at least one other is waiting. Measured: without this delay,
/// callers split into two groups that each wait for two and a half uploads instead of one.
const GATHER: Duration = Duration::from_millis(1);

/// Returns the newest durable commit.
type DurableCommit = Box<dyn Fn() -> Commit + Send + Sync>;

/// Makes all commits before the call durable.
type FlushCall = Box<dyn Fn() -> BoxFuture<'static, Result<(), MetaError>> + Send + Sync>;

/// The coordinator of one store.
pub(super) struct FlushCoordinator {
    reached: DurableCommit,
    flush: FlushCall,
    turn: tokio::sync::Mutex<()>,
    rounds: watch::Sender<FlushRounds>,
    waiting: AtomicUsize,
}

/// The results of the flushes.
#[derive(Debug, Clone, Default)]
struct FlushRounds {
    /// The number of flushes begun.
    begun: u64,
    /// The newest commit that was reported durable.
    durable: Commit,
    /// The number and the error of the newest flush that failed.
    failed: Option<(u64, MetaError)>,
}

impl FlushRounds {
    /// The result of a call that began after round `after`; `None` while it is not known.
    fn verdict(&self, commit: Commit, after: u64) -> Option<Result<(), MetaError>> {
        if self.durable >= commit {
            return Some(Ok(()));
        }
        match &self.failed {
            Some((round, error)) if *round > after => Some(Err(error.clone())),
            _ => None,
        }
    }
}

impl std::fmt::Debug for FlushCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlushCoordinator")
            .field("rounds", &*self.rounds.borrow())
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl FlushCoordinator {
    /// Creates a coordinator from two functions of the engine.
    pub(super) fn new(reached: DurableCommit, flush: FlushCall) -> Self {
        Self {
            reached,
            flush,
            turn: tokio::sync::Mutex::new(()),
            rounds: watch::Sender::new(FlushRounds::default()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits until `commit` is durable. Returns the error of the flush if it fails.
    pub(super) async fn durable(&self, commit: Commit) -> Result<(), MetaError> {
        if (self.reached)() >= commit {
            return Ok(());
        }
        let _waiter = WaitingCaller::enter(&self.waiting);
        let mut rounds = self.rounds.subscribe();
        let after = rounds.borrow().begun;
        let turn = tokio::select! {
            biased;
            _ = rounds.wait_for(|rounds| rounds.verdict(commit, after).is_some()) => None,
            turn = self.turn.lock() => Some(turn),
        };
        let verdict = match &turn {
            Some(_) => self.take_turn(commit, after).await,
            None => self.rounds.borrow().verdict(commit, after),
        };
        // The engine promises that a flush covers all earlier commits. If it did not, the commit is not reported as durable.
        verdict.unwrap_or_else(|| {
            Err(MetaError::Unavailable(
                "a flush ended before the commit was durable".to_owned(),
            ))
        })
    }

    /// Flushes once for all waiting callers, unless the result of this call is known already.
    async fn take_turn(&self, commit: Commit, after: u64) -> Option<Result<(), MetaError>> {
        let known = self.rounds.borrow().verdict(commit, after);
        if known.is_some() {
            return known;
        }
        if self.waiting.load(Ordering::Relaxed) > 1 {
            tokio::time::sleep(GATHER).await;
        }
        let mut round = 0;
        self.rounds.send_modify(|rounds| {
            rounds.begun += 1;
            round = rounds.begun;
        });
        let outcome = (self.flush)().await;
        let durable = (self.reached)();
        self.rounds.send_modify(|rounds| {
            rounds.durable = rounds.durable.max(durable);
            if let Err(error) = outcome {
                rounds.failed = Some((round, error));
            }
        });
        self.rounds.borrow().verdict(commit, after)
    }
}

/// A waiting caller; counted until it is dropped.
struct WaitingCaller<'a>(&'a AtomicUsize);

impl<'a> WaitingCaller<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
