//! Taking a namespace: at once if it is free, else after a wait for its writer.

use crate::backend::{Backend, ObjectState, Replaced};
use crate::store::lease::Lease;
use crate::store::lease::beat_state::{BeatState, KnownState};
use crate::store::lease::identity::WriterIdentity;
use crate::store::lease::request::{AGAIN, LeaseRequest, REQUEST_MAX, give_up};
use crate::store::lease::wait::Wait;
use crate::store::model::error::StoreError;
use crate::store::model::takeover::Takeover;
use crate::store::schema::writer_object::{KEY, WriterObject, WriterPhase};
use crate::sync::{Arc, Mutex};
use bytes::Bytes;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// How often the namespace is taken anew because another process was faster. Each time that process is waited for, as the caller wants.
const RACES_MAX: u32 = 100;

/// Whether an opening waited for another writer, which may have changed the namespace meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    AtOnce,
    ForAnother,
}

/// What the object says about the namespace.
enum Claim {
    /// No writer may have it.
    Free,
    /// A writer may have it; its machine, if the object can be read.
    Taken(Option<String>),
}

impl Lease {
    /// Takes the namespace. Nothing may be written to it before.
    ///
    /// # Errors
    /// `Busy` if a writer may have it and the request does not wait; `Unavailable` if the bucket or the local disk fails.
    pub(crate) async fn acquire(
        request: LeaseRequest<'_>,
    ) -> Result<(Arc<Self>, Waited), StoreError> {
        let identity = match WriterIdentity::read(request.dir)? {
            Some(identity) => identity,
            None => {
                let identity = WriterIdentity::new(request.env.new_id());
                identity.write(request.dir)?;
                identity
            }
        };
        let session = request.env.new_id();
        let mut waited = Waited::AtOnce;
        let mut found = request.read().await?;
        for _ in 0..RACES_MAX {
            if let Claim::Taken(host) = claim(&identity, found.as_ref()) {
                match request.takeover {
                    Takeover::Now => {}
                    Takeover::Never => return Err(StoreError::Busy(taken(host.as_deref()))),
                    Takeover::Wait(progress) => {
                        waited = Waited::ForAnother;
                        let wait = Wait::new(&request, progress, session);
                        found = wait.for_end(found).await;
                    }
                }
            }
            let object =
                WriterObject::opening(identity.id, session, identity.epoch(), request.host);
            if let Some(lease) = request.take(&identity, object, found.as_ref()).await? {
                return Ok((Arc::new(lease), waited));
            }
            found = request.read().await?;
        }
        Err(changes_all_the_time())
    }
}

/// Takes the namespace from any writer for good, because it is being deleted.
///
/// # Errors
/// `Busy` if other processes change the object all the time; `Unavailable`.
pub(crate) async fn revoke(backend: &Backend) -> Result<(), StoreError> {
    let mut object = WriterObject::opening(Uuid::nil(), Uuid::nil(), 0, "");
    object.phase = WriterPhase::Ended;
    for _ in 0..RACES_MAX {
        let found = backend.state(KEY, REQUEST_MAX).await?;
        let written = backend.replace(KEY, found.as_ref(), object.encode(), REQUEST_MAX);
        if let Replaced::Written(_) = written.await? {
            return Ok(());
        }
    }
    Err(changes_all_the_time())
}

fn changes_all_the_time() -> StoreError {
    StoreError::Busy(format!("other processes change {KEY} all the time"))
}

impl LeaseRequest<'_> {
    /// Writes the object; `None` if another process was faster.
    async fn take(
        &self,
        identity: &WriterIdentity,
        mut object: WriterObject,
        found: Option<&ObjectState>,
    ) -> Result<Option<Lease>, StoreError> {
        object.set_lease(self.times.alone.lease);
        let (session, began) = (object.session, self.env.uptime());
        let Some(known) = self.write(found, object.encode()).await? else {
            return Ok(None);
        };
        let until = began + self.times.alone.lease;
        Ok(Some(Lease {
            backend: self.backend.clone(),
            env: Arc::clone(self.env),
            times: self.times,
            session,
            dir: self.dir.to_owned(),
            identity: Mutex::new(identity.clone()),
            phase: Mutex::new(WriterPhase::Opening),
            until: AtomicU64::new(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)),
            hurry: Notify::new(),
            ending: Notify::new(),
            status: watch::Sender::default(),
            rest: Mutex::new(Some(BeatState {
                known,
                object,
                watched_until: Duration::ZERO,
            })),
            rested: Notify::new(),
        }))
    }

    /// Replaces the object. A write without an answer is followed by a read, which shows whether it was done.
    async fn write(
        &self,
        found: Option<&ObjectState>,
        bytes: Bytes,
    ) -> Result<Option<KnownState>, StoreError> {
        for attempt in 1.. {
            let written = self.backend.replace(KEY, found, bytes.clone(), REQUEST_MAX);
            let error = match written.await {
                Ok(Replaced::Written(state)) => return Ok(Some(KnownState::State(state))),
                Ok(Replaced::Changed) => None,
                Err(error) => Some(error),
            };
            match (self.read().await?, error) {
                (Some(now), _) if *now.bytes() == bytes => {
                    return Ok(Some(KnownState::State(now)));
                }
                (now, Some(error)) if now.as_ref() == found => give_up(attempt, error)?,
                _ => return Ok(None),
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(None)
    }
}

fn claim(identity: &WriterIdentity, found: Option<&ObjectState>) -> Claim {
    let Some(found) = found else {
        return Claim::Free;
    };
    match WriterObject::decode(found.bytes()) {
        Ok(object) if object.phase == WriterPhase::Ended => Claim::Free,
        Ok(object) if identity.is_own(object.writer, object.epoch) => Claim::Free,
        Ok(object) => Claim::Taken(Some(object.host)),
        Err(_) => Claim::Taken(None),
    }
}

fn taken(host: Option<&str>) -> String {
    let host = host.unwrap_or("a machine that cannot be read from writer.json");
    format!(
        "a writer on {host} has the namespace, or ended without an unmount; --takeover wait waits until it ends or is dead, --takeover now takes \
         the namespace from it"
    )
}
