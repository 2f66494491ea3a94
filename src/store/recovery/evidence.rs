//! Integrity check of the index at a mount: the other objects of the namespace prove a minimum that the index must
//! contain.
//!
//! Four kinds of object are evidence. The newest log object: a batch is logged only after it is durable in the index.
//! An object below `epochs/`: it is written after the first durable batch of an epoch. A segment of an epoch: the index
//! records an epoch before the first segment is uploaded. Each batch in the write-ahead log of the index: it names the
//! batch before it.
//! The newest segment alone proves no batch, because a crash can leave a segment whose batch was never written.
//! Invariant: this module writes nothing, so that a lost object can still be put back.

use crate::backend::{Backend, BackendError};
use crate::meta::{BadObject, Inspection, LastWriterState, SlateConfig, inspect};
use crate::store::commit::epoch_object;
use crate::store::commit::log_object::{self, LogBase, LogObject};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::keys;
use crate::store::schema::manifest::NamespaceHome;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::LogPlace;
use crate::store::schema::tables::{AppliedTable, LoggedTable, RowTable};

/// Maximum number of objects that a message names.
const NAMED_MAX: usize = 5;

/// The result of comparing an index with the other objects of its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// No batch was ever durable in this namespace.
    Unused,
    /// The index contains everything that the other objects prove.
    Whole,
    /// The index contains everything that the readable objects prove; the text says why the newest log object cannot be
    /// read.
    LogUnreadable(String),
    /// The index is missing, damaged or behind. The text says which objects are affected and what still exists.
    Damaged(String),
}

/// What the index says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct IndexClaims {
    newest: BatchId,
    /// The newest log object that the index names.
    logged: Option<LogPlace>,
    writer_epoch: u64,
}

/// Compares the index of a namespace with its other objects.
///
/// # Errors
/// `Unavailable` if the bucket does not answer.
pub(crate) async fn examine(
    home: &NamespaceHome,
    config: &SlateConfig,
) -> Result<Evidence, StoreError> {
    let watched = [keys::applied().bytes(), keys::logged().bytes()];
    let mut last: Option<IndexClaims> = None;
    loop {
        let place = home.index.object_store();
        let origin = match inspect(place, "meta", config, &watched).await? {
            Inspection::Whole(origin) => origin,
            Inspection::Absent => return absent(home).await,
            Inspection::Damaged(bad) => return damaged(home, &objects(&bad)).await,
        };
        let shown = match shown(&origin, home.epoch_base) {
            Ok(shown) => shown,
            Err(what) => return damaged(home, &what).await,
        };
        let compared = compare(&home.objects, shown).await?;
        let Evidence::Damaged(what) = compared else {
            return Ok(compared);
        };
        // A writer may have committed between the two reads; only a second comparison with the same index is
        // conclusive.
        if last == Some(shown) {
            return damaged(home, &what).await;
        }
        last = Some(shown);
    }
}

/// Decodes the rows that an inspection found; `epoch_base` is added to the engine's epoch. Fails if a batch is missing in the write-ahead
/// log of the index.
fn shown(origin: &LastWriterState, epoch_base: u64) -> Result<IndexClaims, String> {
    let bad = |error: StoreError| format!("a row of the index cannot be read: {error}");
    let mut shown = IndexClaims {
        writer_epoch: origin.writer_epoch.saturating_add(epoch_base),
        ..IndexClaims::default()
    };
    if let Some(row) = origin.in_tables.get(&*keys::logged()) {
        shown.logged = Some(LoggedTable::decode(row).map_err(bad)?);
    }
    let mut newest = AppliedRow::default();
    if let Some(row) = origin.in_tables.get(&*keys::applied()) {
        newest = AppliedTable::decode(row).map_err(bad)?;
    }
    for put in &origin.in_log {
        if put.key == *keys::logged() {
            let logged = Some(LoggedTable::decode(&put.value).map_err(bad)?);
            shown.logged = shown.logged.max(logged);
            continue;
        }
        let next: AppliedRow = AppliedTable::decode(&put.value).map_err(bad)?;
        // The tables of the index already contain the oldest batches of its write-ahead log.
        if next.batch <= newest.batch {
            continue;
        }
        if !next.follows(&newest) {
            return Err(format!(
                "its write-ahead log (meta/wal) has {} right behind {}: what lies between them is missing",
                next.batch, newest.batch
            ));
        }
        newest = next;
    }
    shown.newest = newest.batch;
    Ok(shown)
}

async fn compare(backend: &Backend, shown: IndexClaims) -> Result<Evidence, StoreError> {
    let (segment, later, newest) = futures::join!(
        newer_segment(backend, shown.writer_epoch),
        epoch_object::newer(backend, shown.newest.epoch),
        log_object::newest_key(backend, shown.logged)
    );
    if let Some(key) = segment? {
        return Ok(Evidence::Damaged(format!(
            "its newest manifest (meta/manifest) is missing: {key} is of a later writer than epoch {}, the last one that the index knows",
            shown.writer_epoch
        )));
    }
    let behind = |key: &str, proven: String| {
        let has = match shown.newest == BatchId::default() {
            true => "no batch".to_owned(),
            false => format!("no batch after {}", shown.newest),
        };
        Evidence::Damaged(format!(
            "it is behind: it has {has}, but {key} proves {proven}; objects of its write-ahead log (meta/wal) are missing or empty"
        ))
    };
    if let Some(later) = later? {
        let proven = format!("a durable batch of writer epoch {}", later.epoch);
        return Ok(behind(&later.key, proven));
    }
    let Some(key) = newest? else {
        return Ok(match shown.newest == BatchId::default() {
            true => Evidence::Unused,
            false => Evidence::Whole,
        });
    };
    match log_object::read(backend, &key).await {
        Ok(object) if shown.newest < proven(&object) => {
            Ok(behind(&key, proven(&object).to_string()))
        }
        Ok(_) => Ok(Evidence::Whole),
        Err(StoreError::Corrupt(why)) => Ok(Evidence::LogUnreadable(why)),
        Err(error) => Err(error),
    }
}

/// Returns the newest batch that the index must have contained when this log object was written.
fn proven(object: &LogObject) -> BatchId {
    let logged = object.upto().unwrap_or_default();
    match object.base {
        LogBase::Before => logged,
        LogBase::Nothing | LogBase::Continues | LogBase::Ends => logged.max(object.listed()),
    }
}

/// Returns the key of a segment of an epoch above `epoch`, if there is one.
async fn newer_segment(backend: &Backend, epoch: u64) -> Result<Option<String>, BackendError> {
    let first = SegmentId {
        epoch: epoch + 1,
        sequence: 0,
    };
    let later = backend.list_after("data", &first.key()).await?;
    Ok(later.into_iter().next().map(|object| object.key))
}

/// Decides whether a namespace without an index is new or has lost its index.
async fn absent(home: &NamespaceHome) -> Result<Evidence, StoreError> {
    for (part, proves) in [
        ("epochs", "a durable batch"),
        ("log", "batches of the index"),
        ("data", "a writer"),
    ] {
        if let Some(object) = home.objects.list(part).await?.into_iter().next_back() {
            let what = format!(
                "it is missing: nothing lies below meta/, but {} proves {proves}",
                object.key
            );
            return damaged(home, &what).await;
        }
    }
    Ok(Evidence::Unused)
}

fn objects(bad: &[BadObject]) -> String {
    let named: Vec<String> = bad
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    let more = match bad.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more objects"),
    };
    format!("{}{more}", named.join(", "))
}

/// Builds the message: what is wrong, what still exists, and what to do.
async fn damaged(home: &NamespaceHome, what: &str) -> Result<Evidence, StoreError> {
    let objects = &home.objects;
    let log = objects.list("log").await?;
    let segments = objects.list("data").await?;
    let upto = match log.last() {
        None => String::new(),
        Some(object) => match log_object::read(objects, &object.key).await {
            Ok(object) => format!(", up to {}", proven(&object)),
            Err(error) => format!(", the newest unreadable: {error}"),
        },
    };
    Ok(Evidence::Damaged(format!(
        "the index of {} is incomplete or damaged: {what}. Nothing was changed, and no object is deleted in this state; \
         {} log objects{upto} and {} segments are there. Put the named objects back from a copy or from the bucket's own \
         versions, then mount again; `rewindfs rebuild` makes a new index from the log; --read-only --damaged shows what the index still has",
        home.index.url(),
        log.len(),
        segments.len(),
    )))
}
