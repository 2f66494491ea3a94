//! Group commit: one flush makes the commits of many waiting callers durable.
//!
//! There is no task behind it: of the callers that wait, one at a time has the *turn*. It gathers others for a moment,
//! flushes once, and the outcome releases every caller it concerns. A caller that is dropped while it has the turn just
//! passes it on. Commits without a waiting caller are flushed by the engine, each second.
//! Invariant: a caller returns Ok only when its commit has been seen durable, and an error only from a flush that began
//! after the caller came. One flush is under way at a time.

use super::{Commit, MetaError};
use crate::sync::{AtomicUsize, Ordering};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::sync::watch;

/// How long the caller with the turn waits for others to come; without company it does not wait at all. Measured:
/// without it, callers split into two cohorts that wait for two and a half uploads each instead of one.
const GATHER: Duration = Duration::from_millis(1);

/// Tells what is durable by now.
type DurableCommit = Box<dyn Fn() -> Commit + Send + Sync>;

/// Makes durable what was committed before the call.
type FlushCall = Box<dyn Fn() -> BoxFuture<'static, Result<(), MetaError>> + Send + Sync>;

/// The coordinator of one store.
pub(super) struct FlushCoordinator {
    reached: DurableCommit,
    flush: FlushCall,
    turn: tokio::sync::Mutex<()>,
    rounds: watch::Sender<FlushRounds>,
    waiting: AtomicUsize,
}

/// What the flushes came to.
#[derive(Debug, Clone, Default)]
struct FlushRounds {
    /// How many have begun.
    begun: u64,
    /// The newest commit seen durable.
    durable: Commit,
    /// The number and the words of the newest one that failed.
    failed: Option<(u64, MetaError)>,
}

impl FlushRounds {
    /// Tells what a caller that came after round `came` may return, if anything yet.
    fn verdict(&self, commit: Commit, came: u64) -> Option<Result<(), MetaError>> {
        if self.durable >= commit {
            return Some(Ok(()));
        }
        match &self.failed {
            Some((round, error)) if *round > came => Some(Err(error.clone())),
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
    /// Makes a coordinator over an engine's two verbs.
    pub(super) fn new(reached: DurableCommit, flush: FlushCall) -> Self {
        Self {
            reached,
            flush,
            turn: tokio::sync::Mutex::new(()),
            rounds: watch::Sender::new(FlushRounds::default()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits until `commit` is durable. Errors are those of the flush.
    pub(super) async fn durable(&self, commit: Commit) -> Result<(), MetaError> {
        if (self.reached)() >= commit {
            return Ok(());
        }
        let _waiter = WaitingCaller::enter(&self.waiting);
        let mut rounds = self.rounds.subscribe();
        let came = rounds.borrow().begun;
        let turn = tokio::select! {
            biased;
            _ = rounds.wait_for(|rounds| rounds.verdict(commit, came).is_some()) => None,
            turn = self.turn.lock() => Some(turn),
        };
        let verdict = match &turn {
            Some(_) => self.take_turn(commit, came).await,
            None => self.rounds.borrow().verdict(commit, came),
        };
        // A flush that began after the commit and did not reach it breaks the engine's word; never report it as durable.
        verdict.unwrap_or_else(|| {
            Err(MetaError::Unavailable(
                "a flush ended without the commit it was for".to_owned(),
            ))
        })
    }

    /// Flushes once for everyone who waits, unless that has become needless.
    async fn take_turn(&self, commit: Commit, came: u64) -> Option<Result<(), MetaError>> {
        let settled = self.rounds.borrow().verdict(commit, came);
        if settled.is_some() {
            return settled;
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
        self.rounds.borrow().verdict(commit, came)
    }
}

/// One caller that waits; counted while it lives.
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
