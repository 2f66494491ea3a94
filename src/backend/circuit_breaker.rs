//! A circuit breaker per kind of request: while the store fails, requests wait here and are not sent.
//!
//! Requests are grouped in lanes ([`Lane`]) by what they transfer. A failed request opens the breaker of its lane: for one
//! second no request of that lane is sent. Then the lane is half-open: one trial request is sent at a time. Each further
//! failure doubles the pause, up to [`PAUSE_MAX`]; the first success closes the breaker and releases every waiting request.
//! While requests wait, one of them sends a small health check every second ([`HealthCheck`]). When a health check succeeds
//! after one that failed, every lane may send its trial request at once. A health check closes only the lane of reads: a
//! store whose disk is full still answers reads.
//! Invariant: a waiting request has no deadline of its own and is never dropped here; the caller bounds the wait.

use super::error::BackendError;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The pause between two health checks while the store fails them.
const HEALTH_CHECK_PAUSE: Duration = Duration::from_secs(1);

/// The pause between two health checks while the store passes them and requests fail nevertheless.
const HEALTH_CHECK_PAUSE_PASSED: Duration = Duration::from_secs(10);

/// A kind of request by what it transfers. All requests of a lane share one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Uploads of segments, which hold the bytes of files.
    Segments,
    /// Uploads of log objects.
    Log,
    /// Reads of the index.
    IndexReads,
    /// Writes of the index's write-ahead log, which a flush of the index waits for.
    IndexLog,
    /// Writes of the index's sorted tables.
    IndexTables,
    /// All other writes of the index: its manifests.
    IndexState,
    /// Deletions by the index.
    IndexDeletes,
}

impl Lane {
    /// Tells whether a successful read proves that this lane works.
    fn is_read(self) -> bool {
        self == Self::IndexReads
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segments => "files",
            Self::Log => "the log",
            Self::IndexReads => "reads of the index",
            Self::IndexLog => "the index",
            Self::IndexTables => "tables of the index",
            Self::IndexState => "the state of the index",
            Self::IndexDeletes => "removals from the index",
        })
    }
}

/// A lane whose breaker is open, for status and log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneFailure {
    /// The lane.
    pub lane: Lane,
    /// The time since the first failure.
    pub since: Duration,
    /// The number of requests that failed since then.
    pub tries: u64,
    /// The error of the last failed request.
    pub error: BackendError,
}

impl fmt::Display for LaneFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lane, tries, seconds) = (self.lane, self.tries, self.since.as_secs());
        write!(
            f,
            "{lane}: failing for {seconds} s ({tries} tries): {}",
            self.error
        )
    }
}

/// The state of a lane whose breaker is open.
#[derive(Debug)]
struct OpenLane {
    since: Instant,
    tries: u64,
    error: BackendError,
    /// The size in bytes of the largest request that failed.
    bytes: u64,
    pause: Duration,
    /// When the next trial request may be sent.
    due: Instant,
    phase: OpenPhase,
}

/// The two phases of an open breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenPhase {
    /// No request is under way.
    Waiting,
    /// One trial request is under way.
    HalfOpen,
}

/// The result of the last health check since the breakers were all closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum HealthCheckOutcome {
    #[default]
    NotYet,
    Passed,
    Failed,
}

#[derive(Debug, Default)]
struct BreakerState {
    open_lanes: BTreeMap<Lane, OpenLane>,
    /// When a request of each lane last succeeded.
    succeeded: BTreeMap<Lane, Instant>,
    last_outcome: HealthCheckOutcome,
    last_health_check: Option<Instant>,
}

/// The breakers of all lanes of one store.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    state: Mutex<BreakerState>,
    changed: Notify,
    failed_requests: AtomicU64,
    health_check_running: tokio::sync::Mutex<()>,
}

/// What a health check has to test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HealthCheck {
    /// The size in bytes of the largest write that failed; `None` if only reads failed.
    pub(super) write_bytes: Option<u64>,
}

/// Whether a request may be sent now.
enum Admission {
    Admitted(RequestMode),
    WaitUntil(Option<Instant>),
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestMode {
    /// The breaker is closed: the request has the usual retries.
    Normal,
    /// The breaker is half-open: the request is sent once, and its result decides whether the breaker closes.
    Trial,
}

/// Permission to send one request. Its holder reports the result with [`Self::succeeded`] or [`Self::failed`].
#[derive(Debug)]
pub(super) struct RequestPermit {
    breaker: Arc<CircuitBreaker>,
    lane: Lane,
    began: Instant,
    pub(super) mode: RequestMode,
}

impl CircuitBreaker {
    /// Waits until a request of `lane` may be sent. `health_check` sends a small request to the store.
    pub(super) async fn acquire<F>(
        self: &Arc<Self>,
        lane: Lane,
        health_check: impl Fn(HealthCheck) -> F + Send + Sync,
    ) -> RequestPermit
    where
        F: Future<Output = Result<(), BackendError>> + Send,
    {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the state is read, so that a change in between is not missed.
            changed.as_mut().enable();
            let due = match self.enter(lane) {
                Admission::Admitted(mode) => {
                    return RequestPermit {
                        breaker: Arc::clone(self),
                        lane,
                        began: Instant::now(),
                        mode,
                    };
                }
                Admission::WaitUntil(due) => due,
            };
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = due => {}
                () = self.run_health_check(&health_check) => {}
            }
        }
    }

    fn enter(&self, lane: Lane) -> Admission {
        let mut state = lock(&self.state);
        let Some(open) = state.open_lanes.get_mut(&lane) else {
            return Admission::Admitted(RequestMode::Normal);
        };
        match open.phase {
            OpenPhase::HalfOpen => Admission::WaitUntil(None),
            OpenPhase::Waiting if open.due <= Instant::now() => {
                open.phase = OpenPhase::HalfOpen;
                Admission::Admitted(RequestMode::Trial)
            }
            OpenPhase::Waiting => Admission::WaitUntil(Some(open.due)),
        }
    }

    /// Waits until the next health check is due and runs it; only one waiting request does so at a time.
    async fn run_health_check<F>(&self, health_check: &(impl Fn(HealthCheck) -> F + Sync))
    where
        F: Future<Output = Result<(), BackendError>> + Send,
    {
        let _only = self.health_check_running.lock().await;
        let next = {
            let state = lock(&self.state);
            let pause = match state.last_outcome {
                HealthCheckOutcome::Passed => HEALTH_CHECK_PAUSE_PASSED,
                HealthCheckOutcome::NotYet | HealthCheckOutcome::Failed => HEALTH_CHECK_PAUSE,
            };
            state.last_health_check.map(|last| last + pause)
        };
        if let Some(next) = next {
            sleep_until(next).await;
        }
        let write_bytes = {
            let state = lock(&self.state);
            let lanes = state.open_lanes.iter().filter(|(lane, _)| !lane.is_read());
            lanes.map(|(_, open)| open.bytes).max()
        };
        let result = health_check(HealthCheck { write_bytes }).await;
        self.health_check_done(&result);
    }

    fn health_check_done(&self, result: &Result<(), BackendError>) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let before = state.last_outcome;
        state.last_health_check = Some(now);
        match result {
            Ok(()) => {
                state.last_outcome = HealthCheckOutcome::Passed;
                state.open_lanes.retain(|lane, _| !lane.is_read());
                if before == HealthCheckOutcome::Failed {
                    state.try_all_now(now);
                }
            }
            Err(error) => {
                state.last_outcome = HealthCheckOutcome::Failed;
                tracing::debug!(%error, "the store still fails");
                self.failed_requests.fetch_add(1, Ordering::SeqCst);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Counts failed requests and failed health checks.
    pub(super) fn failed_requests(&self) -> u64 {
        self.failed_requests.load(Ordering::SeqCst)
    }

    /// The lanes whose breakers are open.
    pub(super) fn lane_failures(&self) -> Vec<LaneFailure> {
        let now = Instant::now();
        let state = lock(&self.state);
        let failure = |(lane, open): (&Lane, &OpenLane)| LaneFailure {
            lane: *lane,
            since: now.saturating_duration_since(open.since),
            tries: open.tries,
            error: open.error.clone(),
        };
        state.open_lanes.iter().map(failure).collect()
    }

    fn succeeded(&self, lane: Lane) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.succeeded.insert(lane, now);
        if state.open_lanes.remove(&lane).is_some() {
            state.try_all_now(now);
        } else {
            return;
        }
        if state.open_lanes.is_empty() {
            (state.last_outcome, state.last_health_check) = (HealthCheckOutcome::NotYet, None);
        }
        drop(state);
        tracing::info!(%lane, "the store works again");
        self.changed.notify_waiters();
    }

    fn failed(&self, permit: &RequestPermit, error: &BackendError, bytes: u64) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let works = state.succeeded.get(&permit.lane);
        let works = works.is_some_and(|answered| *answered >= permit.began);
        match state.open_lanes.get_mut(&permit.lane) {
            Some(open) => {
                open.tries += 1;
                open.error = error.clone();
                open.bytes = open.bytes.max(bytes);
                // A request that was sent before the breaker opened says nothing about the store now.
                if permit.mode == RequestMode::Trial {
                    open.phase = OpenPhase::Waiting;
                    open.pause = (open.pause * 2).min(PAUSE_MAX);
                    open.due = now + open.pause;
                }
            }
            // Another request succeeded after this one was sent: the fault is this request's alone.
            None if works => {}
            None => {
                tracing::warn!(lane = %permit.lane, %error, "the store fails; requests of this kind wait until it works");
                let open = OpenLane {
                    since: now,
                    tries: 1,
                    error: error.clone(),
                    bytes,
                    pause: PAUSE_MIN,
                    due: now + PAUSE_MIN,
                    phase: OpenPhase::Waiting,
                };
                state.open_lanes.insert(permit.lane, open);
            }
        }
        drop(state);
        self.failed_requests.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

impl BreakerState {
    /// Lets every lane send its trial request at once.
    fn try_all_now(&mut self, now: Instant) {
        for open in self.open_lanes.values_mut() {
            open.pause = PAUSE_MIN;
            open.due = now;
        }
    }
}

impl RequestPermit {
    /// Reports that the store did what was requested, or refused for a reason that is not a fault of the store.
    pub(super) fn succeeded(self) {
        self.breaker.succeeded(self.lane);
    }

    /// Reports that the store failed a request that sent `bytes` bytes.
    pub(super) fn failed(self, error: &BackendError, bytes: u64) {
        self.breaker.failed(&self, error, bytes);
    }
}

impl Drop for RequestPermit {
    /// Lets another request be the trial, when the caller dropped this one without a result.
    fn drop(&mut self) {
        if self.mode == RequestMode::Normal {
            return;
        }
        let mut state = lock(&self.breaker.state);
        if let Some(open) = state.open_lanes.get_mut(&self.lane)
            && open.phase == OpenPhase::HalfOpen
        {
            open.phase = OpenPhase::Waiting;
            open.due = Instant::now() + open.pause;
            drop(state);
            self.breaker.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
#[path = "circuit_breaker_tests.rs"]
mod tests;
