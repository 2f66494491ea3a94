//! A transaction: an operation before it is queued, with its rows, its dependencies, and what it keeps alive.

use crate::cache::{BudgetPermit, StagingFile};
use crate::meta::{Batch, JournalToken};
use crate::store::data::contents::PendingContent;
use crate::store::data::pins::Pin;
use crate::store::model::ids::UsageChange;
use crate::store::model::version::{Content, ContentRef, Time, Timestamp};
use crate::store::schema::journal_record::{BytelessFlush, ContentRecord, Dependencies};
use crate::store::schema::keys;
use crate::store::schema::tables::{MergedTable, RowKey, RowTable};
use crate::sync::Arc;

/// What an operation keeps until it is durable.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// Tokens that keep the journal files with its record and its bytes.
    pub(crate) journal: Vec<JournalToken>,
    /// The share of the dirty budget that its bytes take.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) permit: Option<BudgetPermit>,
    /// Its staging files, once nothing more is written to them.
    pub(crate) staging: Vec<Arc<StagingFile>>,
    /// Pins on the contents whose bytes it shows.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) holds: Vec<Arc<Pin>>,
}

/// An operation to be queued.
#[derive(Debug)]
pub(crate) struct Txn {
    pub(crate) timestamp: Timestamp,
    /// The operation's own timestamp, while `timestamp` is the earlier one of an imported version.
    pub(crate) recorded: Option<Timestamp>,
    /// The file time that inodes get from it: of the machine's clock, not the namespace's.
    pub(crate) time: Time,
    pub(crate) rows: Batch,
    pub(crate) dependencies: Dependencies,
    pub(crate) content: Option<(Arc<PendingContent>, ContentRecord)>,
    pub(crate) byteless_flush: Option<BytelessFlush>,
    pub(crate) usage: UsageChange,
    pub(crate) held: Guards,
    /// Contents that a row stops showing with this operation.
    pub(crate) unreferenced: Vec<ContentRef>,
}

impl Txn {
    /// Sets a row.
    pub(crate) fn put<T: RowTable>(&mut self, key: RowKey<T>, value: &T::Value) {
        key.put(&mut self.rows, value);
    }

    /// Merges an operand into a row.
    pub(crate) fn merge<T: MergedTable>(&mut self, key: RowKey<T>, operand: &T::Value) {
        key.merge(&mut self.rows, operand);
    }

    /// Removes a row.
    pub(crate) fn delete<T: RowTable>(&mut self, key: RowKey<T>) {
        key.delete(&mut self.rows);
    }

    /// Adds a row to the dependencies: operations that touch the same row are committed in their order.
    pub(crate) fn touch<T: RowTable>(&mut self, key: RowKey<T>) {
        self.dependencies.touches.push(key.bytes());
    }

    /// Counts a row that shows the content from this operation on.
    pub(crate) fn reference(&mut self, content: ContentRef) {
        self.merge(keys::count(content), &1);
    }

    /// Counts a row that stops showing the content with this operation. Garbage collection examines the content afterwards.
    pub(crate) fn unreference(&mut self, content: ContentRef) {
        self.merge(keys::count(content), &-1);
        self.unreferenced.push(content);
    }

    /// As [`Txn::reference`], where the content has stored bytes.
    pub(crate) fn reference_content(&mut self, content: &Content) {
        if let Some(content) = content.reference() {
            self.reference(content);
        }
    }

    /// As [`Txn::unreference`], where the content has stored bytes.
    pub(crate) fn unreference_content(&mut self, content: &Content) {
        if let Some(content) = content.reference() {
            self.unreference(content);
        }
    }

    /// Adds the rows and dependencies that follow from the references. Called once, when the operation is queued.
    pub(crate) fn close_references(&mut self) {
        for content in std::mem::take(&mut self.unreferenced) {
            self.put(keys::dropped(content, self.timestamp), &());
            self.touch(keys::count(content));
        }
        if let Some((pending, _)) = &self.content {
            // This key orders all operations on the range rows of a lineage.
            let cid = pending.content.cid;
            self.dependencies.touches.push(keys::counts(cid));
        }
    }
}
