//! The wait for a writer that may be alive.
//!
//! A writer is dead when its object has not changed for longer than its lease, while this process read it again and again: a time in which the
//! bucket did not answer, or in which this process stood still, does not count.

use crate::backend::{Backend, BackendError, ObjectState, Replaced};
use crate::env::Env;
use crate::store::lease::beat_state::NOTICE_KEPT;
use crate::store::lease::request::LeaseRequest;
use crate::store::model::takeover::{AwaitedWriter, LeaseTimes, WaitProgress, dead_after};
use crate::store::schema::writer_object::{KEY, WaiterNotice, WriterObject, WriterPhase};
use crate::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The interval of reads of the object.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest time of one request.
const REQUEST_MAX: Duration = Duration::from_secs(2);

/// The longest time between two answers that counts as an uninterrupted watch.
const GAP_MAX: Duration = Duration::from_secs(5);

/// A wait for the writer of a namespace.
pub(super) struct Wait<'a> {
    backend: &'a Backend,
    env: &'a Arc<dyn Env>,
    times: LeaseTimes,
    progress: &'a WaitProgress,
    /// The id and the machine of this process, for the writer.
    waiter: Uuid,
    host: &'a str,
}

/// What was seen of the writer.
struct Watched {
    object: Option<WriterObject>,
    /// The bytes of an object that cannot be decoded.
    state: Option<ObjectState>,
    /// The uptime at which it was first seen as it is.
    since: Duration,
    /// The uptime of the last answer.
    answered: Duration,
    failure: Option<String>,
    /// The uptime of this process's last notice.
    noticed: Option<Duration>,
    notices: u64,
}

impl<'a> Wait<'a> {
    pub(super) fn new(
        request: &'a LeaseRequest<'_>,
        progress: &'a WaitProgress,
        waiter: Uuid,
    ) -> Self {
        Self {
            backend: request.backend,
            env: request.env,
            times: request.times,
            progress,
            waiter,
            host: request.host,
        }
    }

    /// Waits until the writer has ended or is dead; returns the state of its object.
    pub(super) async fn for_end(&self, found: Option<ObjectState>) -> Option<ObjectState> {
        let now = self.env.uptime();
        let mut watched = Watched {
            object: decode(found.as_ref()),
            state: found,
            since: now,
            answered: now,
            failure: None,
            noticed: None,
            notices: 0,
        };
        loop {
            if watched.has_ended() || self.silence(&watched) >= self.dead_after(&watched) {
                self.progress.send_replace(None);
                return watched.state;
            }
            self.give_notice(&mut watched).await;
            self.progress.send_replace(Some(AwaitedWriter {
                host: watched.object.as_ref().map(|object| object.host.clone()),
                silence: self.silence(&watched),
                dead_after: self.dead_after(&watched),
                failure: watched.failure.clone(),
            }));
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = self.backend.state(KEY, REQUEST_MAX).await;
            watched.note(looked, self.env.uptime());
        }
    }

    /// How long the writer has sent no heartbeat that this process could have seen.
    fn silence(&self, watched: &Watched) -> Duration {
        watched.answered.saturating_sub(watched.since)
    }

    fn dead_after(&self, watched: &Watched) -> Duration {
        let lease = watched.object.as_ref().map(WriterObject::lease);
        dead_after(lease.unwrap_or(self.times.alone.lease))
    }

    /// Adds to the writer's object that this process waits, so that it sends heartbeats more often.
    async fn give_notice(&self, watched: &mut Watched) {
        let now = self.env.uptime();
        let (Some(object), Some(old)) = (&watched.object, &watched.state) else {
            return;
        };
        let ours = object
            .waiter
            .as_ref()
            .is_some_and(|waiter| waiter.waiter == self.waiter);
        let is_due = |given: Duration| now.saturating_sub(given) >= NOTICE_KEPT / 3;
        if watched.noticed.is_some_and(|given| ours && !is_due(given)) {
            return;
        }
        watched.notices += 1;
        let mut object = object.clone();
        object.waiter = Some(WaiterNotice {
            waiter: self.waiter,
            host: self.host.to_owned(),
            notice: watched.notices,
        });
        // Only the writer's own changes are heartbeats, so the object counts as unchanged.
        let given = self
            .backend
            .replace(KEY, Some(old), object.encode(), REQUEST_MAX);
        if let Ok(Replaced::Written(state)) = given.await {
            watched.noticed = Some(now);
            watched.object = Some(object);
            watched.state = Some(state);
        }
    }
}

impl Watched {
    fn has_ended(&self) -> bool {
        let ended = |object: &WriterObject| object.phase == WriterPhase::Ended;
        self.state.is_none() || self.object.as_ref().is_some_and(ended)
    }

    /// Takes in what a read has shown.
    fn note(&mut self, looked: Result<Option<ObjectState>, BackendError>, now: Duration) {
        let found = match looked {
            Ok(found) => found,
            Err(error) => {
                self.failure = Some(error.to_string());
                return;
            }
        };
        self.failure = None;
        let object = decode(found.as_ref());
        let is_alive = match (&object, &self.object) {
            (Some(new), Some(old)) => heartbeat(new) != heartbeat(old),
            (None, None) => found != self.state,
            _ => true,
        };
        if is_alive || now.saturating_sub(self.answered) > GAP_MAX {
            self.since = now;
        }
        self.answered = now;
        (self.object, self.state) = (object, found);
    }
}

/// What a writer changes with every heartbeat.
fn heartbeat(object: &WriterObject) -> (Uuid, u64, WriterPhase) {
    (object.session, object.beat, object.phase)
}

fn decode(state: Option<&ObjectState>) -> Option<WriterObject> {
    WriterObject::decode(state?.bytes()).ok()
}
