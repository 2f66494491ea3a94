//! Group commit: one flush makes the commits of many waiting callers durable.
//!
//! There is no task for it: of the waiting callers, one at a time has the *turn*. It waits for more callers and flushes once; the
//! result releases all callers whose commits it covers. If the caller with the turn is dropped, another one takes the turn.
//! Commits without a waiting caller are flushed by the engine once per second.
//!
//! Callers that fsync again and again come back soon after a flush released them. If the first of them began the next flush alone, all others
//! would wait for two. So the turn waits until as many callers have come as there were at the last flush, for half of the time of a flush at
//! most, for a moment when only a few are missing, and not at all for a while if they did not come.
//!
//! Invariant: a caller returns Ok only after its commit was reported durable, and an error only from a flush that began after
//! its call. One flush is under way at a time.

use super::{Commit, MetaError};
use crate::sync::{AtomicUsize, Ordering};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long the caller with the turn waits for the last eighth of the callers that it expects; and for more callers if it expects none, and
/// at least one other is waiting.
const GATHER: Duration = Duration::from_millis(1);
/// How long it waits at most for those that it expects.
const GATHER_MAX: Duration = Duration::from_millis(25);
/// After the expected callers did not come, so many flushes do not wait for them; twice as many each time, up to a maximum.
const UNEXPECTED: u32 = 4;
const UNEXPECTED_MAX: u32 = 64;

/// Returns the newest durable commit.
type DurableCommit = Box<dyn Fn() -> Commit + Send + Sync>;

/// Makes all commits before the call durable.
type FlushCall = Box<dyn Fn() -> BoxFuture<'static, Result<(), MetaError>> + Send + Sync>;

/// The coordinator of one store.
pub(super) struct FlushCoordinator {
    reached: DurableCommit,
    flush: FlushCall,
    turn: tokio::sync::Mutex<Gathering>,
    rounds: watch::Sender<FlushRounds>,
    /// How many callers have come since the last flush began.
    arrived: AtomicUsize,
    arrival: Notify,
}

/// For how many callers the next turn waits.
#[derive(Debug, Default)]
struct Gathering {
    /// The callers of the last flush, and those that came while it ran.
    expected: usize,
    /// How long to wait for them.
    patience: Duration,
    /// How many flushes do not wait, and how many did not the last time.
    skip: u32,
    skipped: u32,
}

impl Gathering {
    /// Notes that `arrived` of the `expected` callers have come in time.
    fn ended(&mut self, arrived: usize, expected: usize) {
        if arrived * 4 >= expected * 3 {
            self.skipped = 0;
        } else {
            self.skipped = (self.skipped * 2).clamp(UNEXPECTED, UNEXPECTED_MAX);
            self.skip = self.skipped;
        }
    }
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
            .field("arrived", &self.arrived)
            .finish_non_exhaustive()
    }
}

impl FlushCoordinator {
    /// Creates a coordinator from two functions of the engine.
    pub(super) fn new(reached: DurableCommit, flush: FlushCall) -> Self {
        Self {
            reached,
            flush,
            turn: tokio::sync::Mutex::default(),
            rounds: watch::Sender::new(FlushRounds::default()),
            arrived: AtomicUsize::new(0),
            arrival: Notify::new(),
        }
    }

    /// Waits until `commit` is durable. Returns the error of the flush if it fails.
    pub(super) async fn durable(&self, commit: Commit) -> Result<(), MetaError> {
        if (self.reached)() >= commit {
            return Ok(());
        }
        let mut rounds = self.rounds.subscribe();
        let after = rounds.borrow().begun;
        self.arrived.fetch_add(1, Ordering::Relaxed);
        self.arrival.notify_one();
        let mut turn = tokio::select! {
            biased;
            _ = rounds.wait_for(|rounds| rounds.verdict(commit, after).is_some()) => None,
            turn = self.turn.lock() => Some(turn),
        };
        let verdict = match &mut turn {
            Some(turn) => self.take_turn(turn, commit, after).await,
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
    async fn take_turn(
        &self,
        gathering: &mut Gathering,
        commit: Commit,
        after: u64,
    ) -> Option<Result<(), MetaError>> {
        let known = self.rounds.borrow().verdict(commit, after);
        if known.is_some() {
            return known;
        }
        self.gather(gathering).await;
        let callers = self.arrived.swap(0, Ordering::Relaxed);
        let mut round = 0;
        self.rounds.send_modify(|rounds| {
            rounds.begun += 1;
            round = rounds.begun;
        });
        let begin = Instant::now();
        let outcome = (self.flush)().await;
        let durable = (self.reached)();
        gathering.patience = (begin.elapsed() / 2).min(GATHER_MAX);
        gathering.expected = match outcome {
            Ok(()) => callers + self.arrived.load(Ordering::Relaxed),
            Err(_) => 0,
        };
        self.rounds.send_modify(|rounds| {
            rounds.durable = rounds.durable.max(durable);
            if let Err(error) = outcome {
                rounds.failed = Some((round, error));
            }
        });
        self.rounds.borrow().verdict(commit, after)
    }

    /// Waits for more callers, whose commits the next flush then covers.
    async fn gather(&self, gathering: &mut Gathering) {
        let arrived = || self.arrived.load(Ordering::Relaxed);
        // If this call is dropped during its flush, the others that wait for it do not arrive again.
        let all = std::mem::take(&mut gathering.expected);
        if all <= 1 || gathering.skip > 0 {
            gathering.skip = gathering.skip.saturating_sub(1);
            if arrived() > 1 {
                tokio::time::sleep(GATHER).await;
            }
            return;
        }
        let come = async |count| {
            while arrived() < count {
                self.arrival.notified().await;
            }
        };
        let gather = async {
            come(all - all / 8).await;
            let _all_came = tokio::time::timeout(GATHER, come(all)).await;
        };
        let _in_time = tokio::time::timeout(gathering.patience, gather).await;
        gathering.ended(arrived(), all);
    }
}

#[cfg(test)]
mod tests;
