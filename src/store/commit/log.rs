//! The log in the bucket: every committed batch once more, in our own encoding, from which all rows of the index can be
//! rebuilt.
//!
//! An object is `postcard(LogObject) | CRC32C u32 | format u8 | magic "RWNDLOG"`. Invariants: the batches of an epoch are
//! logged in their order and without gaps, and only after they are durable in the index. The journal keeps a batch until
//! the log object with it is uploaded.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendError, Lane};
use crate::meta::{Batch, Commit, JournalToken};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::schema::keys;
use crate::store::schema::object_names::{object_key, object_numbers};
use crate::store::schema::rows::{FORMAT, LogPlace, decode, encode};
use crate::sync::{Mutex, lock};

const MAGIC: &[u8; 7] = b"RWNDLOG";
const TRAILER: usize = 12;
/// An object is uploaded when this many bytes wait,
const OBJECT_BYTES: usize = 8 << 20;
/// or when the oldest batch has waited this long.
const AGE_MAX: Duration = Duration::from_secs(60);

/// A log object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogObject {
    pub(crate) epoch: u64,
    /// Number of the first batch; the others follow without a gap. In a list of all rows: number of the newest batch in it.
    pub(crate) first: u64,
    pub(crate) base: LogBase,
    /// Every segment of `epoch` with a lower sequence is cited by a batch logged up to here, or never will be; 0 if that
    /// is unknown.
    pub(crate) resolved: u64,
    /// Encoded batches.
    pub(crate) batches: Vec<Bytes>,
}

/// What the rows of a log object are applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogBase {
    /// To the state after the objects before it.
    Before,
    /// To an empty index: a list of all rows after the batch `first` begins with this object.
    Nothing,
    /// This object continues the list.
    Continues,
    /// This object completes the list.
    Ends,
}

impl LogObject {
    pub(crate) fn encode(&self) -> Bytes {
        // proof: a log object is plain data, which serializes into a Vec always.
        let mut bytes = postcard::to_allocvec(self).expect("a log object is plain data");
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.push(FORMAT);
        bytes.extend_from_slice(MAGIC);
        bytes.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let bad = |what: String| StoreError::Corrupt(format!("log object: {what}"));
        let at = bytes
            .len()
            .checked_sub(TRAILER)
            .ok_or_else(|| bad("too short".to_owned()))?;
        let (body, trailer) = bytes.split_at(at);
        if &trailer[5..] != MAGIC {
            return Err(bad("no magic".to_owned()));
        }
        if trailer[4] != FORMAT {
            return Err(bad(format!(
                "format {} is not known to this build",
                trailer[4]
            )));
        }
        if crc32c::crc32c(body).to_le_bytes() != trailer[..4] {
            return Err(bad("checksum".to_owned()));
        }
        postcard::from_bytes(body).map_err(|e| bad(e.to_string()))
    }

    /// Returns the newest batch that is logged up to and with this object; `None` within an incomplete list.
    pub(crate) fn upto(&self) -> Option<BatchId> {
        let number = match self.base {
            LogBase::Before => self.first + self.batches.len() as u64 - 1,
            LogBase::Ends => self.first,
            LogBase::Nothing | LogBase::Continues => return None,
        };
        let epoch = self.epoch;
        Some(BatchId { epoch, number })
    }

    pub(crate) fn batches(&self) -> Result<Vec<Batch>, StoreError> {
        self.batches
            .iter()
            .map(|bytes| decode("log batch", bytes))
            .collect()
    }
}

/// A batch that is committed and not logged yet.
#[derive(Debug)]
struct UnloggedBatch {
    number: u64,
    rows: Bytes,
    commit: Commit,
    since: tokio::time::Instant,
    held: Vec<JournalToken>,
}

/// The log of this writer's epoch.
#[derive(Debug)]
pub(crate) struct Log {
    backend: Backend,
    epoch: u64,
    state: Mutex<LogState>,
    /// Held over each upload, so that objects are uploaded in the order of their sequences.
    uploading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct LogState {
    /// Sequence of the newest uploaded object.
    sequence: u64,
    /// `resolved` of the newest object.
    resolved: u64,
    /// The `sequence` that the index has in `G L`.
    recorded: u64,
    /// The newest commit that is known to be durable.
    durable: Option<Commit>,
    /// The newest commit.
    newest: Option<Commit>,
    /// Batches that are not logged, oldest first.
    waiting: VecDeque<UnloggedBatch>,
    /// The object whose upload has not succeeded yet. The bucket may have it even if the upload failed, so the same bytes
    /// are uploaded again under the same key.
    failed: Option<LogUpload>,
}

/// An object that is being uploaded.
#[derive(Clone, Debug)]
struct LogUpload {
    sequence: u64,
    resolved: u64,
    bytes: Bytes,
    /// Number of waiting batches in it.
    count: usize,
}

impl Log {
    pub(crate) fn new(backend: Backend, epoch: u64) -> Self {
        Self {
            backend,
            epoch,
            state: Mutex::default(),
            uploading: tokio::sync::Mutex::new(()),
        }
    }

    /// Adds a committed batch. `token` is that of the batch's own record in the journal; `None` if the journal had no room.
    pub(crate) fn add(
        &self,
        number: u64,
        rows: Bytes,
        commit: Commit,
        token: Option<JournalToken>,
    ) {
        let mut state = lock(&self.state);
        state.newest = Some(commit);
        state.waiting.push_back(UnloggedBatch {
            number,
            rows,
            commit,
            since: tokio::time::Instant::now(),
            held: token.into_iter().collect(),
        });
    }

    /// Adds to `batch` which log object is the newest, if the index does not have it yet, and returns its sequence. After
    /// the commit the caller calls [`Self::recorded`] with it.
    pub(crate) fn record(&self, batch: &mut Batch) -> u64 {
        let state = lock(&self.state);
        if state.sequence != state.recorded {
            let newest = LogPlace {
                epoch: self.epoch,
                sequence: state.sequence,
            };
            keys::logged().put(batch, &newest);
        }
        state.sequence
    }

    /// Notes that the index has `sequence` as the newest log object.
    pub(crate) fn recorded(&self, sequence: u64) {
        lock(&self.state).recorded = sequence;
    }

    /// Returns the newest commit, unless it is known to be durable.
    pub(crate) fn newest_commit(&self) -> Option<Commit> {
        let state = lock(&self.state);
        state
            .newest
            .filter(|newest| state.durable.is_none_or(|d| d < *newest))
    }

    /// Notes that everything up to `commit` is durable.
    pub(crate) fn durable(&self, commit: Commit) {
        let mut state = lock(&self.state);
        state.durable = Some(state.durable.map_or(commit, |d| d.max(commit)));
    }

    /// Keeps journal tokens of durable operations until every batch up to `commit` is logged.
    pub(crate) fn hold(&self, commit: Commit, tokens: Vec<JournalToken>) {
        let mut state = lock(&self.state);
        let last = state.waiting.iter_mut().rev().find(|w| w.commit <= commit);
        if let Some(waiting) = last {
            waiting.held.extend(tokens);
        }
    }

    /// Uploads durable batches if 8 MiB or a batch older than 60 s wait, or if `now`, and returns the number of objects.
    /// Every segment below `resolved` is cited by a durable batch or never will be. Waits while the object store fails.
    pub(crate) async fn upload(&self, now: bool, resolved: u64) -> Result<usize, StoreError> {
        let _turn = self.uploading.lock().await;
        let mut uploaded = 0;
        while let Some(attempt) = self.next_object(now, resolved) {
            let key = object_key("log", self.epoch, attempt.sequence);
            let put = self.backend.upload(Lane::Log, &key, attempt.bytes.clone());
            put.await?;
            let logged: Vec<UnloggedBatch> = {
                let mut state = lock(&self.state);
                (state.sequence, state.failed) = (attempt.sequence, None);
                state.resolved = attempt.resolved;
                state.waiting.drain(..attempt.count).collect()
            };
            drop(logged);
            uploaded += 1;
        }
        Ok(uploaded)
    }

    /// Returns the object to upload next; the same one again until it is uploaded.
    fn next_object(&self, now: bool, resolved: u64) -> Option<LogUpload> {
        let mut state = lock(&self.state);
        if let Some(failed) = &state.failed {
            return Some(failed.clone());
        }
        let durable = state.durable?;
        let ready = state.waiting.iter().take_while(|w| w.commit <= durable);
        let (mut bytes, mut batches, mut oldest) = (0, Vec::new(), Duration::ZERO);
        let mut resolved = resolved.max(state.resolved);
        for waiting in ready {
            bytes += waiting.rows.len();
            oldest = oldest.max(waiting.since.elapsed());
            batches.push(waiting.rows.clone());
            if bytes >= OBJECT_BYTES {
                // Batches of the next object may cite segments below the new value.
                resolved = state.resolved;
                break;
            }
        }
        if batches.is_empty() || !(now || bytes >= OBJECT_BYTES || oldest >= AGE_MAX) {
            return None;
        }
        let count = batches.len();
        let object = LogObject {
            epoch: self.epoch,
            first: state.waiting.front().map_or(0, |w| w.number),
            base: LogBase::Before,
            resolved,
            batches,
        };
        let attempt = LogUpload {
            sequence: state.sequence + 1,
            resolved,
            bytes: object.encode(),
            count,
        };
        state.failed = Some(attempt.clone());
        Some(attempt)
    }

    /// Logs a list of all rows of the index, for an index with batches that the log lacks; `upto` is the newest batch in
    /// the rows.
    pub(crate) async fn upload_base(
        &self,
        rows: Vec<Batch>,
        upto: BatchId,
    ) -> Result<(), StoreError> {
        let _turn = self.uploading.lock().await;
        let count = rows.len();
        for (at, batch) in rows.iter().chain([&Batch::new()]).enumerate() {
            let base = match at {
                0 if count > 0 => LogBase::Nothing,
                _ if at < count => LogBase::Continues,
                _ => LogBase::Ends,
            };
            let batches = vec![encode(batch)];
            let object = LogObject {
                epoch: upto.epoch,
                first: upto.number,
                base,
                resolved: 0,
                batches,
            };
            self.put(&object).await?;
        }
        Ok(())
    }

    /// Logs batches of an earlier process, from its journal.
    pub(crate) async fn upload_missing(
        &self,
        epoch: u64,
        first: u64,
        batches: Vec<Bytes>,
    ) -> Result<(), StoreError> {
        let _turn = self.uploading.lock().await;
        self.put(&LogObject {
            epoch,
            first,
            base: LogBase::Before,
            resolved: 0,
            batches,
        })
        .await
    }

    async fn put(&self, object: &LogObject) -> Result<(), StoreError> {
        let sequence = lock(&self.state).sequence + 1;
        self.backend
            .put_new(&object_key("log", self.epoch, sequence), object.encode())
            .await?;
        lock(&self.state).sequence = sequence;
        Ok(())
    }
}

/// Reads all log objects of a namespace, oldest first.
#[cfg(test)]
pub(crate) async fn read_all(backend: &Backend) -> Result<Vec<LogObject>, StoreError> {
    let mut objects = Vec::new();
    for info in backend.list("log").await? {
        objects.push(read(backend, &info.key).await?);
    }
    Ok(objects)
}

/// Returns the key of the newest log object. `recorded` is the one that the index names; the listing begins there, so its
/// cost does not depend on the length of the log.
///
/// # Errors
/// `Unavailable`.
pub(crate) async fn newest_key(
    backend: &Backend,
    recorded: Option<LogPlace>,
) -> Result<Option<String>, StoreError> {
    let listed = match recorded {
        Some(place) => {
            let before = object_key("log", place.epoch, place.sequence.saturating_sub(1));
            backend.list_after("log", &before).await?
        }
        None => backend.list("log").await?,
    };
    Ok(listed.into_iter().next_back().map(|info| info.key))
}

/// Returns the key of a log object.
pub(crate) fn key_of(place: LogPlace) -> String {
    object_key("log", place.epoch, place.sequence)
}

/// Lists the log objects from `place` on, oldest first.
///
/// # Errors
/// `Unavailable`.
pub(crate) async fn places_from(
    backend: &Backend,
    place: LogPlace,
) -> Result<Vec<LogPlace>, StoreError> {
    let before = LogPlace {
        sequence: place.sequence.saturating_sub(1),
        ..place
    };
    let listed = backend.list_after("log", &key_of(before)).await?;
    let place = |key: &str| {
        object_numbers("log", key).map(|(epoch, sequence)| LogPlace { epoch, sequence })
    };
    Ok(listed.iter().filter_map(|info| place(&info.key)).collect())
}

/// Reads a log object.
///
/// # Errors
/// `Corrupt`, naming the object; `Unavailable`.
pub(crate) async fn read(backend: &Backend, key: &str) -> Result<LogObject, StoreError> {
    fetch(backend, key).await.map_err(|error| match error {
        BackendError::Damaged { reason, .. } => StoreError::Corrupt(format!("{key}: {reason}")),
        other => other.into(),
    })
}

/// As [`read`], with errors that distinguish a damaged object from a missing one.
///
/// # Errors
/// `Damaged`, `NotFound`, `Unavailable`.
pub(crate) async fn fetch(backend: &Backend, key: &str) -> Result<LogObject, BackendError> {
    let decode = |bytes: &Bytes| {
        LogObject::decode(bytes).map_err(|error| match error {
            StoreError::Corrupt(what) => what,
            other => other.to_string(),
        })
    };
    backend.get_as(key, decode).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendConfig;

    #[test]
    fn a_log_object_decodes_and_a_changed_byte_is_refused() {
        let object = LogObject {
            epoch: 3,
            first: 7,
            base: LogBase::Before,
            resolved: 9,
            batches: vec![Bytes::from_static(b"rows")],
        };
        let bytes = object.encode();
        assert_eq!(LogObject::decode(&bytes).unwrap(), object);
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x40;
            assert!(LogObject::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[tokio::test]
    async fn the_newest_log_object_is_found_from_any_object_that_the_index_names() {
        let backend = Backend::open("memory://log-newest", &BackendConfig::default()).unwrap();
        assert_eq!(newest_key(&backend, None).await.unwrap(), None);
        // In the order in which they are written, across the boundaries of the key's directories.
        let order = [
            (1, 1),
            (1, 0xfff),
            (1, 0x1000),
            (1, 0x00ff_ffff),
            (1, 0x0100_0000),
            (2, 1),
            (0xfff, 7),
            (0x1000, 1),
        ];
        for (at, (epoch, sequence)) in order.into_iter().enumerate() {
            let object = LogObject {
                epoch,
                first: sequence,
                base: LogBase::Before,
                resolved: 0,
                batches: Vec::new(),
            };
            let key = object_key("log", epoch, sequence);
            backend.put_new(&key, object.encode()).await.unwrap();
            let places = order[..=at]
                .iter()
                .map(|&(epoch, sequence)| LogPlace { epoch, sequence });
            for recorded in places.map(Some).chain([None]) {
                let found = newest_key(&backend, recorded).await.unwrap();
                assert_eq!(found.as_ref(), Some(&key), "{recorded:?}");
                assert_eq!(read(&backend, &key).await.unwrap(), object);
            }
        }
    }
}
