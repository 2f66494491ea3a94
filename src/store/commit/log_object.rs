//! Log objects: their form, and how they are found and read.
//!
//! An object is `postcard(LogObject) | CRC32C u32 | format u8 | magic "RWNDLOG"`. docs/FORMAT.md, section 8, says in which order
//! they are replayed.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendError};
use crate::meta::{Batch, Change, list_of_at_most};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::keys;
use crate::store::schema::object_names::{object_key, object_numbers};
use crate::store::schema::rows::{FORMAT, LogPlace, decode};
use crate::store::schema::tables::{AppliedTable, RowTable};

const MAGIC: &[u8; 7] = b"RWNDLOG";
const TRAILER: usize = 12;
/// The longest object that is read, in bytes: 8 MiB of batches, and the longest batch behind them.
const OBJECT_MAX: u64 = 256 << 20;
/// The most batches in an object: it is written when they have 8 MiB together, and each has more than 8 bytes.
const BATCHES_MAX: usize = 1 << 20;
/// Room for the fields of an object that have no bytes of rows.
const OTHERS: usize = 256;
/// An object counts as at least this many bytes, because it costs a request however small it is.
const WEIGHT_MIN: u64 = 16 << 10;

/// A log object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogObject {
    pub(crate) epoch: u64,
    /// Number of the first batch; the others follow without a gap. In a list of all rows: number of the newest batch in this
    /// part of it; in the object that completes the list, of the newest batch in the list and the objects beside it.
    pub(crate) first: u64,
    pub(crate) base: LogBase,
    /// Every segment of `epoch` with a lower sequence is cited by a batch logged up to here, or never will be; 0 if that
    /// is unknown.
    pub(crate) resolved: u64,
    /// Encoded batches.
    #[serde(deserialize_with = "list_of_at_most::<BATCHES_MAX, _, _>")]
    pub(crate) batches: Vec<Bytes>,
    /// In a list of all rows: the list has every row with a key below this one.
    pub(crate) covers: Bytes,
    /// In a list of all rows: the row `G A`, without watermarks, after the newest batch that is logged so far; the default where
    /// that is not known.
    pub(crate) logged: AppliedRow,
}

/// What the rows of a log object are applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogBase {
    /// To the state after the objects before it.
    Before,
    /// To an empty index: a list of all rows begins with this object.
    Nothing,
    /// To the rows of the list so far: this object continues it.
    Continues,
    /// To the rows of the list: this object completes it, and they take the place of everything before.
    Ends,
}

impl LogObject {
    pub(crate) fn encode(&self) -> Bytes {
        let batches: usize = self.batches.iter().map(|batch| batch.len() + 4).sum();
        let room = batches + self.covers.len() + OTHERS + TRAILER;
        // proof: a log object is plain data, which serializes into a Vec always.
        let bytes = postcard::to_extend(self, Vec::with_capacity(room))
            .expect("a log object is plain data");
        Self::seal(bytes).into()
    }

    /// Adds the trailer to the body of an object.
    pub(crate) fn seal(mut body: Vec<u8>) -> Vec<u8> {
        body.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        body.push(FORMAT);
        body.extend_from_slice(MAGIC);
        body
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

    /// Makes an object of batches; `first` is the number of the first.
    pub(crate) fn of_batches(epoch: u64, first: u64, resolved: u64, batches: Vec<Bytes>) -> Self {
        Self {
            epoch,
            first,
            base: LogBase::Before,
            resolved,
            batches,
            covers: Bytes::new(),
            logged: AppliedRow::default(),
        }
    }

    /// Returns the newest batch that is logged up to and with this object; `None` if that is not known.
    pub(crate) fn upto(&self) -> Option<BatchId> {
        let epoch = self.epoch;
        match self.base {
            LogBase::Before => Some(BatchId {
                epoch,
                number: (self.first.saturating_add(self.batches.len() as u64)).saturating_sub(1),
            }),
            LogBase::Ends => Some(self.listed()),
            LogBase::Nothing | LogBase::Continues => {
                Some(self.logged.batch).filter(|batch| *batch != BatchId::default())
            }
        }
    }

    /// Returns the newest batch in the rows of a list's object.
    pub(crate) fn listed(&self) -> BatchId {
        BatchId {
            epoch: self.epoch,
            number: self.first,
        }
    }

    /// Returns the row `G A` after the newest batch that is logged up to and with this object, possibly without watermarks; `None`
    /// if the object does not tell.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn newest_applied(&self) -> Result<Option<AppliedRow>, StoreError> {
        if self.base != LogBase::Before {
            let logged = Some(&self.logged).filter(|row| row.batch != BatchId::default());
            return Ok(logged.cloned());
        }
        let batches = self.batches()?;
        let found = batches.iter().rev().find_map(applied_in);
        found.map(|value| AppliedTable::decode(value)).transpose()
    }

    pub(crate) fn batches(&self) -> Result<Vec<Batch>, StoreError> {
        self.batches
            .iter()
            .map(|bytes| decode("log batch", bytes))
            .collect()
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

/// Returns the last value of the row `G A` in a batch.
pub(crate) fn applied_in(batch: &Batch) -> Option<&Bytes> {
    let key = keys::applied();
    let changes = batch.rows().iter().rev();
    changes
        .filter(|(found, _)| *found == *key)
        .find_map(|(_, change)| match change {
            Change::Put(value) => Some(value),
            Change::Delete | Change::Merge(_) => None,
        })
}

/// A log object in a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedObject {
    pub(crate) place: LogPlace,
    /// Length in bytes.
    pub(crate) bytes: u64,
}

impl ListedObject {
    /// Returns what the object counts towards the size of the log, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        weight(self.bytes)
    }
}

/// Returns what an object of this length counts towards the size of the log, in bytes.
pub(crate) fn weight(bytes: u64) -> u64 {
    bytes.max(WEIGHT_MIN)
}

/// Lists all log objects, oldest first.
///
/// # Errors
/// `Unavailable`.
pub(crate) async fn list(backend: &Backend) -> Result<Vec<ListedObject>, StoreError> {
    let listed = backend.list("log").await?;
    let object = |(key, bytes): (&str, u64)| {
        let (epoch, sequence) = object_numbers("log", key)?;
        let place = LogPlace { epoch, sequence };
        Some(ListedObject { place, bytes })
    };
    let found = listed.iter().map(|info| (info.key.as_str(), info.size));
    Ok(found.filter_map(object).collect())
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
    backend.get_as(key, OBJECT_MAX, decode).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendConfig;

    #[test]
    fn a_log_object_decodes_and_a_changed_byte_is_refused() {
        let object = LogObject::of_batches(3, 7, 9, vec![Bytes::from_static(b"rows")]);
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
            let object = LogObject::of_batches(epoch, sequence, 0, Vec::new());
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
