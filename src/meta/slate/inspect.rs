//! The inspection of an index before an open: whether all objects exist that its newest manifest refers to, and what its
//! write-ahead log contains.
//!
//! The engine cannot do this. It creates a new index if it finds no manifest, and it takes the first missing object of its
//! write-ahead log for the end of the log and writes there, so that a lost object could never be restored. An inspection writes
//! nothing.

use super::checksum::DamagedObject;
use super::config::{OPEN_DEADLINE, OpeningReads, SlateConfig};
use super::connect::{EngineRole, OpenWatch, connect};
use super::reason::FailureReason;
use super::row_layout::{FirstByteSegments, RowMerge};
use super::status::classify;
use crate::meta::MetaError;
use crate::meta::error::chain;
use crate::sync::Arc;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use slatedb::admin::Admin;
use slatedb::config::DbReaderOptions;
use slatedb::{DbReader, DbReaderMode, PathResolver, ValueDeletable, VersionedManifest, WalReader};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// The number of objects of the write-ahead log that are read concurrently.
const AT_ONCE: usize = 64;

/// The number of inspections of an index that seems damaged: its writer may have deleted objects during one.
const LOOKS: u32 = 3;

/// The pause between two such inspections.
const PAUSE: Duration = Duration::from_millis(500);

/// The result of an inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inspection {
    /// There is no object of an index.
    Absent,
    /// Every object that the newest manifest refers to exists with its length, and the write-ahead log can be read.
    Whole(LastWriterState),
    /// Some objects are missing or damaged: each with its key below the index, and what is wrong with it.
    Damaged(Vec<BadObject>),
}

/// The state of the last writer, from a whole index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastWriterState {
    /// The epoch of the last writer that opened it.
    pub(crate) writer_epoch: u64,
    /// The watched rows that are in tables.
    pub(crate) in_tables: BTreeMap<Bytes, Bytes>,
    /// The values put under the watched keys since then, oldest first; the oldest may also be in tables.
    pub(crate) in_log: Vec<LoggedPut>,
}

/// A row in an object of the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedPut {
    /// Its key.
    pub(crate) key: Bytes,
    /// Its value.
    pub(crate) value: Bytes,
}

/// An object of an index that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadObject {
    /// Its key, relative to the store.
    pub(crate) key: String,
    /// What is wrong with it.
    pub(crate) what: String,
}

/// What is wrong with an object that does not exist.
const MISSING: &str = "is missing";

impl BadObject {
    fn missing(key: &Path) -> Self {
        Self {
            key: key.to_string(),
            what: MISSING.to_owned(),
        }
    }

    /// Tells whether the object does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        self.what == MISSING
    }

    fn damaged(key: &Path, what: impl Into<String>) -> Self {
        Self {
            key: key.to_string(),
            what: what.into(),
        }
    }
}

impl std::fmt::Display for BadObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.key, self.what)
    }
}

/// Inspects the index under `path` of the object store; `watched` are the keys of the rows to return. Writes nothing.
///
/// # Errors
/// `Unavailable` if the object store does not answer.
pub(crate) async fn inspect(
    object_store: Arc<dyn ObjectStore>,
    path: &str,
    config: &SlateConfig,
    watched: &[Bytes],
) -> Result<Inspection, MetaError> {
    config.opening.forget();
    let (place, store) = connect(
        object_store,
        path,
        config,
        &OpenWatch::new(config, EngineRole::Reader),
    )
    .await?;
    let mut looks = 1;
    loop {
        let found = InspectionStep::at(&place, &store).await?;
        let inspection = match found {
            Some(mut look) => look.judge(config, watched).await?,
            None => return Ok(Inspection::Absent),
        };
        if !matches!(inspection, Inspection::Damaged(_)) || looks == LOOKS {
            return Ok(inspection);
        }
        looks += 1;
        tokio::time::sleep(PAUSE).await;
        config.opening.forget();
    }
}

/// The objects of an index in its listings. Of the write-ahead log only those that an open would read: thousands of earlier ones
/// may wait for garbage collection.
struct InspectionStep<'a> {
    place: &'a Path,
    store: &'a Arc<dyn ObjectStore>,
    /// Key and length in bytes of each.
    objects: BTreeMap<Path, u64>,
}

impl<'a> InspectionStep<'a> {
    async fn at(
        place: &'a Path,
        store: &'a Arc<dyn ObjectStore>,
    ) -> Result<Option<Self>, MetaError> {
        let (manifests, tables) = (
            place.clone().join("manifest"),
            place.clone().join("compacted"),
        );
        let (manifests, tables) = futures::try_join!(
            listed(store.list(Some(&manifests))),
            listed(store.list(Some(&tables)))
        )?;
        let mut look = Self {
            place,
            store,
            objects: manifests,
        };
        look.objects.extend(tables);
        if look.objects.is_empty() {
            look.objects = listed(store.list(Some(place))).await?;
        }
        Ok((!look.objects.is_empty()).then_some(look))
    }

    /// Adds the objects of the write-ahead log after `number`.
    async fn list_log_after(&mut self, number: u64) -> Result<(), MetaError> {
        let log = self.place.clone().join("wal");
        let offset = log.clone().join(format!("{number:020}.sst"));
        let newer = self.store.list_with_offset(Some(&log), &offset);
        self.objects.extend(listed(newer).await?);
        Ok(())
    }

    /// Numbers and keys of the objects in one folder of the index, ascending.
    fn numbered(&self, folder: &str, suffix: &str) -> Vec<(u64, &Path)> {
        let inside = self.place.clone().join(folder);
        let number = |key: &Path| -> Option<u64> {
            let mut parts = key.prefix_match(&inside)?;
            let name = parts.next()?;
            let digits = name.as_ref().strip_suffix(suffix)?;
            digits.parse().ok().filter(|_| parts.next().is_none())
        };
        self.objects
            .keys()
            .filter_map(|key| Some((number(key)?, key)))
            .collect()
    }

    async fn judge(
        &mut self,
        config: &SlateConfig,
        watched: &[Bytes],
    ) -> Result<Inspection, MetaError> {
        let newest = self.numbered("manifest", ".manifest").last().copied();
        let Some((number, key)) = newest.map(|(number, key)| (number, key.clone())) else {
            let folder = self.place.clone().join("manifest");
            let what = "holds no manifest, though other objects of the index are there";
            return Ok(Inspection::Damaged(vec![BadObject::damaged(&folder, what)]));
        };
        let manifest = match self.manifest(number).await? {
            Ok(manifest) => manifest,
            Err(what) => return Ok(Inspection::Damaged(vec![BadObject::damaged(&key, what)])),
        };
        config.opening.note_tick(manifest.last_l0_clock_tick());
        self.list_log_after(manifest.replay_after_wal_id()).await?;
        let mut bad = self.bad_tables(&manifest);
        bad.extend(self.holes_in_log(&manifest));
        if !bad.is_empty() {
            return Ok(Inspection::Damaged(bad));
        }
        let (in_log, in_tables) = futures::join!(
            self.read_log(&manifest, watched, &config.opening),
            self.in_tables(config, watched)
        );
        let in_log = match in_log? {
            Ok(values) => values,
            Err(bad) => return Ok(Inspection::Damaged(vec![bad])),
        };
        let in_tables = match in_tables {
            Ok(value) => value,
            Err(MetaError::Corrupt(text)) => {
                return Ok(Inspection::Damaged(vec![BadObject::damaged(
                    self.place, text,
                )]));
            }
            Err(error) => return Err(error),
        };
        Ok(Inspection::Whole(LastWriterState {
            writer_epoch: manifest.writer_epoch(),
            in_tables,
            in_log,
        }))
    }

    /// The manifest of a number, or what is wrong with it.
    async fn manifest(&self, number: u64) -> Result<Result<VersionedManifest, String>, MetaError> {
        let admin = Admin::builder(self.place.clone(), Arc::clone(self.store)).build();
        // Not without end: the engine repeats what it can.
        let reading = admin.read_manifest(Some(number));
        let Ok(read) = tokio::time::timeout(OPEN_DEADLINE, reading).await else {
            let late = FailureReason::default();
            return Err(late.late("reading the manifest", OPEN_DEADLINE));
        };
        match read {
            Ok(Some(manifest)) => Ok(Ok(manifest)),
            Ok(None) => Ok(Err("is missing".to_owned())),
            Err(error) => {
                if let Some(damaged) = DamagedObject::find(&error) {
                    return Ok(Err(format!("is damaged: {}", damaged.what)));
                }
                match classify(&error) {
                    MetaError::Corrupt(text) => Ok(Err(format!("is damaged: {text}"))),
                    other => Err(other),
                }
            }
        }
    }

    fn bad_tables(&self, manifest: &VersionedManifest) -> Vec<BadObject> {
        let paths = PathResolver::new(self.place.clone(), manifest);
        let mut bad = BTreeMap::new();
        for table in manifest.all_sst_views().map(|view| &view.sst) {
            let key = paths.sst_path(&table.id);
            let info = &table.info;
            let parts = [
                (info.index_offset, info.index_len),
                (info.filter_offset, info.filter_len),
                (info.stats_offset, info.stats_len),
            ];
            let ends = parts.iter().map(|(at, len)| at.saturating_add(*len));
            let least = ends.max().unwrap_or(0);
            match self.objects.get(&key) {
                None => {
                    bad.insert(key.clone(), BadObject::missing(&key));
                }
                Some(len) if *len < least => {
                    let what = format!("is cut short: {len} bytes of at least {least}");
                    bad.insert(key.clone(), BadObject::damaged(&key, what));
                }
                Some(_) => {}
            }
        }
        bad.into_values().collect()
    }

    /// Objects of the write-ahead log that are missing among those that are needed.
    fn holes_in_log(&self, manifest: &VersionedManifest) -> Vec<BadObject> {
        let first = manifest.replay_after_wal_id() + 1;
        let there: Vec<u64> = self.log_from(first).into_iter().map(|(n, _)| n).collect();
        let end = there.last().map_or(first, |last| last + 1);
        let end = end.max(manifest.next_wal_sst_id());
        let mut next = there.into_iter().peekable();
        (first..end)
            .filter(|number| next.next_if_eq(number).is_none())
            .map(|number| {
                let name = format!("{number:020}.sst");
                BadObject::missing(&self.place.clone().join("wal").join(name))
            })
            .collect()
    }

    fn log_from(&self, first: u64) -> Vec<(u64, &Path)> {
        let mut log = self.numbered("wal", ".sst");
        log.retain(|(number, _)| *number >= first);
        log
    }

    /// What the write-ahead log puts under the watched keys, or the first object that cannot be read.
    async fn read_log(
        &self,
        manifest: &VersionedManifest,
        watched: &[Bytes],
        opening: &OpeningReads,
    ) -> Result<Result<Vec<LoggedPut>, BadObject>, MetaError> {
        let log = self.log_from(manifest.replay_after_wal_id() + 1);
        let reader = &WalReader::new(self.place.clone(), Arc::clone(self.store));
        let reading: Vec<_> = log
            .into_iter()
            .map(|(number, key)| async move {
                let values = readable_object(reader, number, watched, opening).await;
                match values.map_err(|error| classify(&error)) {
                    Ok(values) => Ok(Ok(values)),
                    Err(MetaError::Corrupt(text)) => {
                        Ok(Err(BadObject::damaged(key, format!("is damaged: {text}"))))
                    }
                    Err(other) => Err(other),
                }
            })
            .collect();
        let mut reading = stream::iter(reading).buffered(AT_ONCE);
        let mut all = Vec::new();
        while let Some(values) = reading.try_next().await? {
            match values {
                Ok(values) => all.extend(values),
                Err(bad) => return Ok(Err(bad)),
            }
        }
        Ok(Ok(all))
    }

    async fn in_tables(
        &self,
        config: &SlateConfig,
        watched: &[Bytes],
    ) -> Result<BTreeMap<Bytes, Bytes>, MetaError> {
        let options = DbReaderOptions {
            manifest_poll_interval: OPEN_DEADLINE,
            skip_wal_replay: true,
            ..DbReaderOptions::default()
        };
        let looking = async {
            let tables = DbReader::builder(self.place.clone(), Arc::clone(self.store))
                .with_reader_mode(DbReaderMode::FollowLatest)
                .with_options(options)
                .with_merge_operator(Arc::new(RowMerge(config.merge)))
                .with_segment_extractor(Arc::new(FirstByteSegments))
                .build()
                .await?;
            let mut rows = BTreeMap::new();
            for key in watched {
                if let Some(value) = tables.get(key).await? {
                    rows.insert(key.clone(), Bytes::copy_from_slice(&value));
                }
            }
            tables.close().await?;
            Ok(rows)
        };
        match tokio::time::timeout(config.deadline, looking).await {
            Ok(rows) => rows.map_err(|error: slatedb::Error| classify(&error)),
            Err(_) => Err(FailureReason::default().late("a read", config.deadline)),
        }
    }
}

/// Keys and lengths of the objects of a listing.
async fn listed(
    listing: BoxStream<'_, object_store::Result<ObjectMeta>>,
) -> Result<BTreeMap<Path, u64>, MetaError> {
    let listing = listing.map_ok(|object| (object.location, object.size));
    let objects = listing.try_collect().await;
    objects.map_err(|error: object_store::Error| MetaError::Unavailable(chain(&error)))
}

/// As [`log_object`]. The engine (0.18) panics on an object whose damaged footer points outside it; that object is damaged, and nothing
/// of the engine is open yet.
async fn readable_object(
    reader: &WalReader,
    number: u64,
    watched: &[Bytes],
    opening: &OpeningReads,
) -> Result<Vec<LoggedPut>, slatedb::Error> {
    let reading = AssertUnwindSafe(log_object(reader, number, watched, opening));
    let read = reading.catch_unwind().await;
    read.unwrap_or_else(|_panic| {
        let what = "its footer points outside the object";
        Err(slatedb::Error::data(what.to_owned()))
    })
}

/// What one object of the write-ahead log puts under the watched keys, oldest first.
async fn log_object(
    reader: &WalReader,
    number: u64,
    watched: &[Bytes],
    opening: &OpeningReads,
) -> Result<Vec<LoggedPut>, slatedb::Error> {
    let mut rows = reader.get(number).iterator().await?;
    let mut puts = Vec::new();
    while let Some(row) = rows.next().await? {
        opening.note_tick(row.create_ts.unwrap_or(i64::MIN));
        if let ValueDeletable::Value(value) = row.value
            && watched.contains(&row.key)
        {
            let (key, value) = (row.key, Bytes::copy_from_slice(&value));
            puts.push((row.seq, LoggedPut { key, value }));
        }
    }
    puts.sort_by_key(|(seq, _)| *seq);
    Ok(puts.into_iter().map(|(_, put)| put).collect())
}
