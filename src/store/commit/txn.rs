//! An operation before it is queued: its rows, its dependencies, what it keeps alive.

use crate::cache::{Permit, StagingFile};
use crate::meta::{Batch, Change, JournalToken};
use crate::store::data::extent_map::PendingContent;
use crate::store::data::pins::Pin;
use crate::store::model::version::{ContentRef, Time, Timestamp};
use crate::store::schema::journal_record::{BytelessFlush, ContentRecord, Dependencies};
use crate::store::schema::keys;
use crate::store::schema::rows::{decode, encode};
use crate::sync::Arc;

/// What an operation keeps until the bucket has it.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// Journal files with its record and its bytes.
    pub(crate) journal: Vec<JournalToken>,
    /// Room of its bytes in the dirty budget.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) permit: Option<Permit>,
    /// Its staging files, when nothing is written to them any more.
    pub(crate) staging: Vec<Arc<StagingFile>>,
    /// Contents whose bytes it shows.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) holds: Vec<Arc<Pin>>,
}

/// An operation to be queued.
#[derive(Debug)]
pub(crate) struct Txn {
    pub(crate) timestamp: Timestamp,
    /// The time that inodes show of it: the machine's clock, not the namespace's.
    pub(crate) time: Time,
    pub(crate) rows: Batch,
    pub(crate) dependencies: Dependencies,
    pub(crate) content: Option<(Arc<PendingContent>, ContentRecord)>,
    pub(crate) byteless_flush: Option<BytelessFlush>,
    pub(crate) usage: (i64, i64),
    pub(crate) held: Guards,
}

/// Adds to a draft what reclaim needs to know of it: contents it stops showing, and the lineage whose rows it will lay.
pub(crate) fn note_unreferenced(txn: &mut Txn) {
    let at = txn.timestamp;
    let drops = |change: &Change| match change {
        Change::Merge(operand) => decode::<i64>("G R", operand).is_ok_and(|by| by < 0),
        Change::Put(_) | Change::Delete => false,
    };
    let counts = txn.rows.rows().iter();
    let dropped: Vec<ContentRef> = counts
        .filter(|(key, change)| key.starts_with(&keys::COUNT) && drops(change))
        .filter_map(|(key, _)| keys::counted(key))
        .collect();
    for content in dropped {
        txn.rows.put(keys::dropped(content, at), encode(&()));
        txn.dependencies.touches.push(keys::count(content));
    }
    if let Some((pending, _)) = &txn.content {
        txn.dependencies
            .touches
            .push(keys::counts(pending.content.cid));
    }
}
