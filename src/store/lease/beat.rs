//! The heartbeats of a writer.

use crate::backend::{BackendError, ObjectState, Replaced};
use crate::store::lease::Lease;
use crate::store::lease::beat_state::{BeatState, KnownState, NOTICE_KEPT};
use crate::store::lease::status::LeaseStanding;
use crate::store::model::takeover::LeaseTime;
use crate::store::schema::writer_object::{KEY, WaiterNotice, WriterObject, WriterPhase};
use crate::sync::lock;
use crate::task::Tasks;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The longest time of one request.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// The pause after a request that failed, and the longest pause after several.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(8);

/// How long the lease lasts after a failed heartbeat of a writer that no other process waits for. It exceeds [`REQUEST_MAX`] and
/// [`AGAIN_MAX`] together, so that only a pause of the process lets it end.
const OUTAGE_LEASE: Duration = Duration::from_secs(20);

/// How often a heartbeat is tried again at once after the object was found changed.
const CHANGES_MAX: usize = 4;

/// Why a heartbeat was not sent.
#[derive(Debug)]
pub(super) enum BeatError {
    /// The bucket failed.
    Failed(BackendError),
    /// Another process has the namespace.
    Lost,
}

impl Lease {
    /// Sends heartbeats until the tasks are stopped or the lease is lost; returns what the last one needs.
    pub(super) async fn beat_until_stopped(&self, mut state: BeatState, stop: &Tasks) -> BeatState {
        // The object that took the namespace was the first heartbeat.
        let (mut pause, mut failures, mut lapsed) = (self.times.alone.every, 0, false);
        loop {
            tokio::select! {
                () = stop.stopped() => return state,
                () = self.ending.notified() => return state,
                () = tokio::time::sleep(pause) => {}
                // After a failure every caller asks for another attempt, which the pause bounds.
                () = self.hurry.notified(), if failures == 0 => {}
            }
            if self.status.borrow().standing != LeaseStanding::Held {
                return state;
            }
            if !lapsed && !self.is_held() {
                lapsed = true;
                tracing::warn!(
                    "the lease is over: nothing is answered until the bucket has a new heartbeat of this mount"
                );
                self.status.send_modify(|status| status.lapses += 1);
            }
            let began = self.env.uptime();
            let time = self.time(&state, began);
            // A stop does not break off a request: its outcome decides what the last heartbeat is.
            match self.beat(&mut state).await {
                Ok(()) => {
                    let now = self.env.uptime();
                    let time = self.time(&state, now);
                    self.prolong(began + time.lease);
                    self.note_watcher(&state);
                    if lapsed {
                        tracing::warn!("the lease is renewed");
                    }
                    (failures, lapsed) = (0, false);
                    pause = time.every.saturating_sub(now.saturating_sub(began));
                }
                Err(BeatError::Lost) => return state,
                Err(BeatError::Failed(error)) => {
                    self.outlast(&error, time);
                    if time == self.times.watched {
                        // The process that waits may be the first to reach the bucket again.
                        state.watched_until = self.env.uptime() + NOTICE_KEPT;
                    }
                    pause = (AGAIN * 2_u32.saturating_pow(failures))
                        .min(AGAIN_MAX)
                        .min(time.every);
                    failures += 1;
                }
            }
        }
    }

    /// Overwrites the object in the bucket.
    ///
    /// # Errors
    /// [`BeatError`]; after `Lost` the lease is lost.
    pub(super) async fn beat(&self, state: &mut BeatState) -> Result<(), BeatError> {
        let limit = REQUEST_MAX.min(self.time(state, self.env.uptime()).every.max(AGAIN));
        for _ in 0..CHANGES_MAX {
            if matches!(state.known, KnownState::Unknown) {
                let found = self.backend.state(KEY, limit).await;
                self.adopt(state, found.map_err(BeatError::Failed)?)?;
            }
            let old = match &state.known {
                KnownState::State(old) => Some(old),
                KnownState::Absent | KnownState::Unknown => None,
            };
            let object = self.next_object(state);
            let written = self.backend.replace(KEY, old, object.encode(), limit).await;
            // Until the answer is known, the object may have either state.
            state.known = KnownState::Unknown;
            state.object = object;
            match written {
                Ok(Replaced::Written(written)) => {
                    state.known = KnownState::State(written);
                    return Ok(());
                }
                Ok(Replaced::Changed) => {}
                Err(error) => return Err(BeatError::Failed(error)),
            }
        }
        Err(BeatError::Failed(BackendError::Unavailable {
            place: KEY.to_owned(),
            reason: "other processes change it all the time".to_owned(),
        }))
    }

    /// Takes over what the bucket has. Fails if it is not of this opening.
    fn adopt(&self, state: &mut BeatState, found: Option<ObjectState>) -> Result<(), BeatError> {
        let Some(found) = found else {
            state.known = KnownState::Absent;
            return Ok(());
        };
        match WriterObject::decode(found.bytes()) {
            Ok(object) if object.session == self.session => {
                if object.waiter.is_some() && object.waiter != state.object.waiter {
                    state.watched_until = self.env.uptime() + NOTICE_KEPT;
                }
                state.object.waiter = object.waiter;
            }
            Ok(object) => {
                tracing::info!(host = %object.host, epoch = object.epoch, "another writer has taken the namespace");
                self.lose(Some(object.host));
                return Err(BeatError::Lost);
            }
            // Its writer cannot be known. The index's fence decides who may write.
            Err(why) => tracing::warn!(object = KEY, %why, "it cannot be read and is overwritten"),
        }
        state.known = KnownState::State(found);
        Ok(())
    }

    /// Makes the next object.
    fn next_object(&self, state: &BeatState) -> WriterObject {
        let now = self.env.uptime();
        let mut object = state.object.clone();
        object.phase = *lock(&self.phase);
        object.epoch = lock(&self.identity).epoch();
        object.beat += 1;
        if now >= state.watched_until || object.phase == WriterPhase::Ended {
            object.waiter = None;
        }
        object.set_lease(self.time(state, now).lease);
        object
    }

    fn time(&self, state: &BeatState, now: Duration) -> LeaseTime {
        match now < state.watched_until {
            true => self.times.watched,
            false => self.times.alone,
        }
    }

    fn prolong(&self, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        // A lease that was lost meanwhile stays lost.
        self.status.send_modify(|status| {
            if status.standing == LeaseStanding::Held {
                self.until.store(until, Ordering::Release);
            }
        });
    }

    fn note_watcher(&self, state: &BeatState) {
        let watcher = state
            .object
            .waiter
            .as_ref()
            .map(|waiter: &WaiterNotice| &waiter.host);
        self.status.send_if_modified(|status| {
            let is_news = status.watched_by.as_ref() != watcher;
            if is_news {
                match watcher {
                    Some(host) => tracing::info!(%host, "another process waits for the namespace"),
                    None => tracing::info!("no other process waits for the namespace any more"),
                }
                status.watched_by = watcher.cloned();
            }
            is_news
        });
    }

    /// After a failed heartbeat: the lease goes on if the writer has it still and no other process waits for the namespace.
    fn outlast(&self, error: &BackendError, time: LeaseTime) {
        tracing::debug!(%error, "no heartbeat could be sent");
        let remaining = self.remaining();
        if time == self.times.alone && !remaining.is_zero() && remaining < OUTAGE_LEASE {
            self.prolong(self.env.uptime() + OUTAGE_LEASE);
        }
    }
}
