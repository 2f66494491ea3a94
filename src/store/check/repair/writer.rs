//! The writer of a repair: collects changes of rows into operations of bounded size, and waits until each is durable.
//!
//! Invariant: a change is one or more rows that belong together; they are in one operation. A crash leaves every change whole or undone,
//! and the next repair finds what is undone.

use bytes::Bytes;

use crate::store::check::config::CheckStep;
use crate::store::commit::txn::Txn;
use crate::store::model::error::StoreError;
use crate::store::namespace::Namespace;

/// Number of rows after which an operation is queued.
const ROWS: usize = 512;
/// Bytes of rows after which an operation is queued.
const BYTES: usize = 1 << 20;

/// Writes the changes of a repair.
pub(super) struct RepairWriter<'a, F> {
    namespace: &'a Namespace,
    step: &'a F,
    open: Option<Txn>,
    /// Number of rows written.
    rows: u64,
}

impl<'a, F: Fn(CheckStep) + Sync> RepairWriter<'a, F> {
    pub(super) fn new(namespace: &'a Namespace, step: &'a F) -> Self {
        Self {
            namespace,
            step,
            open: None,
            rows: 0,
        }
    }

    /// Adds a change of the row at `key` by `change`, which may change further rows that belong to it. Waits if many changes were added.
    pub(super) async fn change(
        &mut self,
        key: Bytes,
        change: impl FnOnce(&mut Txn) + Send,
    ) -> Result<(), StoreError> {
        let namespace = self.namespace;
        let txn = self
            .open
            .get_or_insert_with(|| namespace.gc.gc_txn(Vec::new()));
        txn.dependencies.touches.push(key);
        change(txn);
        if txn.rows.rows().len() >= ROWS || txn.rows.bytes() >= BYTES {
            self.write().await?;
        }
        Ok(())
    }

    /// Makes the changes so far durable.
    pub(super) async fn write(&mut self) -> Result<(), StoreError> {
        let Some(txn) = self.open.take() else {
            return Ok(());
        };
        self.rows += txn.rows.rows().len() as u64;
        let commit = &self.namespace.commit;
        let operation = commit.enqueue(txn)?;
        commit.wait_durable(&operation).await?;
        (self.step)(CheckStep::Mended(self.rows));
        Ok(())
    }
}
