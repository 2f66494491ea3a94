//! Requests that are held back while the store fails: what the pipeline uploads, and everything of the index.
//!
//! One that goes out to try whether the store works again is sent once, whatever `--retries` says: the pauses are those of
//! [`super::circuit`].

use super::circuit::{Look, Turn, Way};
use super::counters::CountedStore;
use super::error::{BackendError, Class};
use super::limits::within;
use super::{Backend, Base, Lane, Site, Tries, Trouble};
use crate::sync::Arc;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

/// Never written; whether it is there is not the question.
const READ_KEY: &str = "probe/check";

/// Written and removed while writes fail.
const WRITE_KEY: &str = "probe/write";

/// What S3 says of credentials that will not be valid again by themselves.
const OVER: [&str; 3] = ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken"];

impl Backend {
    /// As [`Backend::put_new`], once the store works, or when it is this request's turn to find out. The wait has no limit.
    ///
    /// # Errors
    /// As [`Backend::put_new`].
    pub async fn upload(&self, lane: Lane, key: &str, bytes: Bytes) -> Result<(), BackendError> {
        let turn = self.base.turn(lane).await;
        let len = bytes.len() as u64;
        let uploaded = self.by(turn.way).put_new(key, bytes).await;
        turn.ended(&uploaded, len);
        uploaded
    }

    /// As [`Backend::put_linked`], in the same way.
    ///
    /// # Errors
    /// As [`Backend::put_linked`].
    pub async fn upload_linked(
        &self,
        lane: Lane,
        key: &str,
        file: &std::path::Path,
        len: u64,
    ) -> Result<(), BackendError> {
        let turn = self.base.turn(lane).await;
        let linked = self.put_linked(key, file, len).await;
        turn.ended(&linked, len);
        linked
    }

    /// The kinds of requests that fail at present and are held back, with the last reason of each.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.base.circuit.troubles()
    }

    /// Why requests of `lane` are held back, if they are.
    #[must_use]
    pub fn trouble(&self, lane: Lane) -> Option<Trouble> {
        self.troubles()
            .into_iter()
            .find(|trouble| trouble.lane == lane)
    }

    /// Whether requests fail for a reason that no retry mends: the credentials are those this process was started with, and the
    /// store says that they are over.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let Site::Cloud(cloud, _) = &self.base.location.site else {
            return false;
        };
        let over = |trouble: &Trouble| match &trouble.error {
            BackendError::Denied { reason, .. } => OVER.iter().any(|code| reason.contains(code)),
            _ => false,
        };
        cloud.has_fixed_credentials() && self.troubles().iter().any(over)
    }

    /// Counts failures: of requests that are held back when they fail, and of the questions asked meanwhile.
    #[must_use]
    pub fn setbacks(&self) -> u64 {
        self.base.circuit.setbacks()
    }

    /// The same place, asked as a turn says.
    fn by(&self, way: Way) -> Self {
        match way {
            Way::Open => self.clone(),
            Way::Try => Self {
                store: super::prefixed(self.base.once().clone(), &self.prefix),
                tries: Tries::One,
                ..self.clone()
            },
        }
    }
}

impl Turn {
    /// The request ended so; it had so many bytes to send.
    fn ended<T>(self, outcome: &Result<T, BackendError>, bytes: u64) {
        match outcome {
            Err(error) if is_trouble(error) => self.failed(error, bytes),
            _ => self.answered(),
        }
    }
}

/// Whether an error says that the store fails; the others are answers to what was asked.
pub(super) fn is_trouble(error: &BackendError) -> bool {
    match error {
        BackendError::Denied { .. }
        | BackendError::Unavailable { .. }
        | BackendError::Invalid { .. } => true,
        BackendError::NotFound { .. }
        | BackendError::AlreadyExists { .. }
        | BackendError::Damaged { .. }
        | BackendError::Unsupported { .. } => false,
    }
}

impl Base {
    /// Waits for the turn of a request.
    pub(super) async fn turn(self: &Arc<Self>, lane: Lane) -> Turn {
        let look = |look| {
            let base = Arc::clone(self);
            async move { base.look(look).await }
        };
        self.circuit.turn(lane, look).await
    }

    /// The store without retries.
    pub(super) fn once(&self) -> &CountedStore {
        self.once.get_or_init(|| {
            let opened = match &self.location.site {
                Site::Cloud(..) => self.location.open(&self.config.once()).ok(),
                Site::Local(_) | Site::Memory(_) | Site::Given => None,
            };
            match opened {
                Some(store) => {
                    CountedStore::new(&self.location.url, store, Arc::clone(&self.tally))
                }
                None => self.counted.clone(),
            }
        })
    }

    /// Asks the store something small.
    async fn look(&self, look: Look) -> Result<(), BackendError> {
        let url = &self.location.url;
        let failure = |e: object_store::Error| BackendError::from_store(url, &e);
        let key = |key: &str| -> Path {
            let parts = self.location.prefix.parts();
            parts.chain(Path::from(key).parts()).collect()
        };
        within(self.config.hasty().deadline, url, async {
            if let Some(anchor) = &self.anchor {
                let gone = |reason| Class::Unavailable.error(url, reason);
                anchor.holds().await.map_err(gone)?;
            }
            if let Err(error) = self.once().get(&key(READ_KEY)).await.map_err(failure)
                && is_trouble(&error)
            {
                return Err(error);
            }
            let Some(bytes) = look.writes else {
                return Ok(());
            };
            if let Site::Local(root) = &self.location.site
                && let Ok(disk) = rustix::fs::statvfs(root)
                && disk.f_bavail.saturating_mul(disk.f_frsize) < bytes
            {
                return Err(Class::Unavailable.error(url, "no space left on its disk"));
            }
            let payload = PutPayload::from_static(b"rewindfs looks whether it can write");
            self.once()
                .put(&key(WRITE_KEY), payload)
                .await
                .map_err(failure)?;
            // It is overwritten the next time, if it is still there.
            self.once().delete(&key(WRITE_KEY)).await.ok();
            Ok(())
        })
        .await
    }
}
