//! Holds requests back while a store fails, so that it is asked little, and lets them go at once when it works again.
//!
//! Requests are of a [`Lane`], by what they bring. A failure closes its lane for a second; then one request at a time goes
//! out to try, twice as long after each further failure, at most [`PAUSE_MAX`]; the first that is answered opens the lane
//! for all. Those that wait look every second, one for all, whether the store answers a small question ([`Look`]). When it
//! does after it had not, every lane may try at once. A disk that is full answers reads all the time: a small answer alone
//! therefore opens no lane that writes.
//! Invariant: a held request waits without a deadline, and is not lost: callers bound the wait, or wait for the end.

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

/// How often those that wait look whether the store answers again.
const LOOK: Duration = Duration::from_secs(1);

/// How often they look while it answers small questions and fails all the same.
const LOOK_ANSWERED: Duration = Duration::from_secs(10);

/// What requests bring or fetch; those of one lane are held back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Objects with the bytes of files.
    Segments,
    /// Objects of the log.
    Log,
    /// Reads of the index.
    IndexReads,
    /// The index's own write-ahead log: what a flush waits for.
    IndexLog,
    /// Tables of the index.
    IndexTables,
    /// Everything else the index writes: its manifests.
    IndexState,
    /// What the index removes.
    IndexDeletes,
}

impl Lane {
    /// Whether a read that is answered says that this lane works too.
    fn reads(self) -> bool {
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

/// A lane that fails at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub lane: Lane,
    /// Since when.
    pub since: Duration,
    /// How often it was tried since.
    pub tries: u64,
    /// Why the last try failed.
    pub error: BackendError,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lane, tries, seconds) = (self.lane, self.tries, self.since.as_secs());
        write!(
            f,
            "{lane}: failing for {seconds} s ({tries} tries): {}",
            self.error
        )
    }
}

/// A closed lane.
#[derive(Debug)]
struct Closed {
    since: Instant,
    tries: u64,
    error: BackendError,
    /// Bytes of the largest request that failed.
    bytes: u64,
    pause: Duration,
    /// When the next request may try.
    due: Instant,
    trying: Trying,
}

/// Whether a request is out to try a closed lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trying {
    No,
    Yes,
}

/// How the last look ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Looked {
    #[default]
    NotYet,
    Answered,
    Failed,
}

#[derive(Debug, Default)]
struct State {
    closed: BTreeMap<Lane, Closed>,
    /// When a request of a lane was last answered.
    answered: BTreeMap<Lane, Instant>,
    looked: Looked,
    last_look: Option<Instant>,
}

/// The lanes of one store.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    state: Mutex<State>,
    changed: Notify,
    setbacks: AtomicU64,
    looking: tokio::sync::Mutex<()>,
}

/// What a look has to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// A write failed of so many bytes; `None`: nothing but reads.
    pub(super) writes: Option<u64>,
}

/// What a request has to do before it goes out.
enum Entry {
    Go(Way),
    WaitUntil(Option<Instant>),
}

/// As what a request goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The lane is open.
    Open,
    /// The lane is closed, and this request finds out whether it works.
    Try,
}

/// The right to make one request; it tells how that ended.
#[derive(Debug)]
pub(super) struct Turn {
    circuit: Arc<Circuit>,
    lane: Lane,
    began: Instant,
    pub(super) way: Way,
}

impl Circuit {
    /// Waits until a request of `lane` may be made. `look` asks the store a small question.
    pub(super) async fn turn<F>(
        self: &Arc<Self>,
        lane: Lane,
        look: impl Fn(Look) -> F + Send + Sync,
    ) -> Turn
    where
        F: Future<Output = Result<(), BackendError>> + Send,
    {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the state is read, so that a change in between is not missed.
            changed.as_mut().enable();
            let due = match self.enter(lane) {
                Entry::Go(way) => {
                    return Turn {
                        circuit: Arc::clone(self),
                        lane,
                        began: Instant::now(),
                        way,
                    };
                }
                Entry::WaitUntil(due) => due,
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
                () = self.watch(&look) => {}
            }
        }
    }

    fn enter(&self, lane: Lane) -> Entry {
        let mut state = lock(&self.state);
        let Some(closed) = state.closed.get_mut(&lane) else {
            return Entry::Go(Way::Open);
        };
        match closed.trying {
            Trying::Yes => Entry::WaitUntil(None),
            Trying::No if closed.due <= Instant::now() => {
                closed.trying = Trying::Yes;
                Entry::Go(Way::Try)
            }
            Trying::No => Entry::WaitUntil(Some(closed.due)),
        }
    }

    /// Looks whether the store answers, if it is time and no other request does.
    async fn watch<F>(&self, look: &(impl Fn(Look) -> F + Sync))
    where
        F: Future<Output = Result<(), BackendError>> + Send,
    {
        let _only = self.looking.lock().await;
        let next = {
            let state = lock(&self.state);
            let pause = match state.looked {
                Looked::Answered => LOOK_ANSWERED,
                Looked::NotYet | Looked::Failed => LOOK,
            };
            state.last_look.map(|last| last + pause)
        };
        if let Some(next) = next {
            sleep_until(next).await;
        }
        let writes = {
            let state = lock(&self.state);
            let lanes = state.closed.iter().filter(|(lane, _)| !lane.reads());
            lanes.map(|(_, closed)| closed.bytes).max()
        };
        let answer = look(Look { writes }).await;
        self.looked(&answer);
    }

    fn looked(&self, answer: &Result<(), BackendError>) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let before = state.looked;
        state.last_look = Some(now);
        match answer {
            Ok(()) => {
                state.looked = Looked::Answered;
                state.closed.retain(|lane, _| !lane.reads());
                if before == Looked::Failed {
                    state.hurry(now);
                }
            }
            Err(error) => {
                state.looked = Looked::Failed;
                tracing::debug!(%error, "the store still fails");
                self.setbacks.fetch_add(1, Ordering::SeqCst);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Counts failures: of requests, and of looks while requests are held back.
    pub(super) fn setbacks(&self) -> u64 {
        self.setbacks.load(Ordering::SeqCst)
    }

    /// The lanes that fail at present.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let now = Instant::now();
        let state = lock(&self.state);
        let trouble = |(lane, closed): (&Lane, &Closed)| Trouble {
            lane: *lane,
            since: now.saturating_duration_since(closed.since),
            tries: closed.tries,
            error: closed.error.clone(),
        };
        state.closed.iter().map(trouble).collect()
    }

    fn answered(&self, lane: Lane) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.answered.insert(lane, now);
        if state.closed.remove(&lane).is_some() {
            state.hurry(now);
        } else {
            return;
        }
        if state.closed.is_empty() {
            (state.looked, state.last_look) = (Looked::NotYet, None);
        }
        drop(state);
        tracing::info!(%lane, "the store works again");
        self.changed.notify_waiters();
    }

    fn failed(&self, turn: &Turn, error: &BackendError, bytes: u64) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let works = state.answered.get(&turn.lane);
        let works = works.is_some_and(|answered| *answered >= turn.began);
        match state.closed.get_mut(&turn.lane) {
            Some(closed) => {
                closed.tries += 1;
                closed.error = error.clone();
                closed.bytes = closed.bytes.max(bytes);
                // Those that were out when the lane closed say nothing new.
                if turn.way == Way::Try {
                    closed.trying = Trying::No;
                    closed.pause = (closed.pause * 2).min(PAUSE_MAX);
                    closed.due = now + closed.pause;
                }
            }
            // Others were answered meanwhile: the trouble is this request's alone.
            None if works => {}
            None => {
                tracing::warn!(lane = %turn.lane, %error, "the store fails; requests are held back");
                let closed = Closed {
                    since: now,
                    tries: 1,
                    error: error.clone(),
                    bytes,
                    pause: PAUSE_MIN,
                    due: now + PAUSE_MIN,
                    trying: Trying::No,
                };
                state.closed.insert(turn.lane, closed);
            }
        }
        drop(state);
        self.setbacks.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

impl State {
    /// Lets every lane try at once.
    fn hurry(&mut self, now: Instant) {
        for closed in self.closed.values_mut() {
            closed.pause = PAUSE_MIN;
            closed.due = now;
        }
    }
}

impl Turn {
    /// The store did what it was asked, or said why not.
    pub(super) fn answered(self) {
        self.circuit.answered(self.lane);
    }

    /// The store failed a request of so many bytes.
    pub(super) fn failed(self, error: &BackendError, bytes: u64) {
        self.circuit.failed(&self, error, bytes);
    }
}

impl Drop for Turn {
    /// A request that was given up leaves the try to the next.
    fn drop(&mut self) {
        if self.way == Way::Open {
            return;
        }
        let mut state = lock(&self.circuit.state);
        if let Some(closed) = state.closed.get_mut(&self.lane)
            && closed.trying == Trying::Yes
        {
            closed.trying = Trying::No;
            closed.due = Instant::now() + closed.pause;
            drop(state);
            self.circuit.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
#[path = "circuit_tests.rs"]
mod tests;
